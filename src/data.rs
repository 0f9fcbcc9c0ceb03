//! Recorded and made-up frames with their labels, whatever they come from.
//!
//! Every source gives [`Sample`]s by index; training, evaluation, inspection and conversion know nothing else of it. Splits are made
//! by drive, never by frame.

pub mod augment;
pub mod batch;
pub mod chance;
pub mod gt_database;
pub mod gt_sampling;
mod inside;
pub mod loader;
pub mod prepare;

use std::fmt;

use nalgebra::Isometry3;

use crate::cloud::PointCloud;
use crate::geometry::Box3d;

/// Names a frame; stable over runs and machines, so that random choices, caches and teacher dumps can be tied to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct SampleId {
    /// The recording it belongs to: bag folder, Waymo segment, synthetic drive.
    pub drive: String,
    /// Its index in the drive, in order of time.
    pub frame: u64,
}

impl fmt::Display for SampleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.drive, self.frame)
    }
}

/// One labelled object.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// In the frame of the cloud.
    pub box3d: Box3d,
    /// As the source names it, for instance `Vehicle`.
    pub class: String,
    /// The same over the frames of a drive.
    pub track_id: Option<String>,
    /// Points inside, all returns; absent where the source does not count them.
    pub n_points: Option<u32>,
    /// 1 or 2 where an annotator said so; otherwise evaluation decides by the number of points.
    pub difficulty: Option<u8>,
    /// Over ground, along the axes of the cloud's frame.
    pub velocity_mps: Option<[f64; 2]>,
}

/// One frame of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Which one.
    pub id: SampleId,
    /// The points, with the source's own columns and raw intensity (N).
    pub cloud: PointCloud,
    /// `None` where nobody labelled the frame; an empty list says that there is nothing in it (G).
    pub labels: Option<Vec<Label>>,
    /// Whether each point lies where nobody labelled (N); empty where the source does not say.
    pub in_no_label_zone: Vec<bool>,
    /// Pose of the cloud's frame in a frame that stands still, where known.
    pub world_from_cloud: Option<Isometry3<f64>>,
}

/// Frames by index. Sources are shared between loader threads.
pub trait Source: Send + Sync + fmt::Debug {
    /// Number of frames of one epoch.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of a frame without loading it; `index` is below [`Source::len`].
    fn id(&self, index: usize) -> SampleId;

    /// Loads a frame. Only endless sources look at the epoch.
    ///
    /// # Errors
    /// What is wrong with this frame; the others are not affected.
    fn load(&self, epoch: u64, index: usize) -> Result<Sample, DataError>;

    /// What the frames are made from, in words, and a hash that changes when they do (for provenance and resuming).
    fn fingerprint(&self) -> Fingerprint;
}

/// Identity of a source.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fingerprint {
    /// As the user named it.
    pub source: String,
    /// SHA-256 in lower-case hex over names, sizes and, where cheap, contents.
    pub sha256: String,
}

/// Why a source or a frame of it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system's word.
    #[error("{path}: {source}")]
    Io {
        /// Of the file or folder.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A source named by the user that is none.
    #[error("`{source_name}` is no data source: {reason}")]
    Source {
        /// As typed.
        source_name: String,
        /// Why not, and what would be.
        reason: String,
    },
    /// Bytes that are not what their format says.
    #[error("{path}: {place}: {reason}")]
    Format {
        /// Of the file.
        path: String,
        /// Record, row, line or field.
        place: String,
        /// Both sides.
        reason: String,
    },
    /// A synthetic drive.
    #[error(transparent)]
    Synth(#[from] crate::synth::SynthError),
    /// A bag.
    #[error(transparent)]
    Bag(#[from] crate::bag::BagError),
    /// A cloud that cannot be decoded.
    #[error("{id}: {source}")]
    Cloud {
        /// Which frame.
        id: SampleId,
        /// What is wrong with it.
        source: crate::cloud::CloudError,
    },
}
