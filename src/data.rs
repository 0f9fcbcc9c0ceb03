//! Recorded and made-up frames with their labels, whatever they come from.
//!
//! Every source gives [`Sample`]s by index; training, evaluation, inspection and conversion know nothing else of it. Splits are made
//! by drive, never by frame.

pub mod augment;
pub mod bag;
mod bag_drive;
pub mod batch;
pub mod cache;
pub mod chance;
mod combine;
pub mod gt_database;
pub mod gt_sampling;
pub(crate) mod inside;
pub mod inspect;
pub mod kitti;
pub mod labels;
pub mod loader;
pub mod nuscenes;
mod open;
mod options;
pub mod prepare;
mod recorder;
pub mod sidecar;
pub mod statistics;
pub mod synth;
pub mod tf;
pub mod waymo;

pub use bag_drive::SIDECAR_NAME;
pub use combine::{Joined, Renamed, Subset, is_val_drive};
pub use open::{DataConfig, open};
pub use options::{BagOptions, LabelChoice, Side, SourceConfig, option_table};
pub use recorder::Converted;

use std::fmt;

use nalgebra::Isometry3;
use sha2::{Digest, Sha256};

use crate::cloud::PointCloud;
use crate::geometry::Box3d;
use crate::time::Stamp;

/// Names a frame; stable over runs and machines, so that random choices, caches and teacher dumps can be tied to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct SampleId {
    /// The recording it belongs to: bag folder, Waymo segment, synthetic drive.
    pub drive: String,
    /// Its index in the drive, in order of time.
    pub frame: u64,
}

impl SampleId {
    /// What an error says about this frame, without the name of the frame, which many begin with: for lists that have it already.
    pub(crate) fn reason(&self, error: &dyn fmt::Display) -> String {
        let message = error.to_string();
        message.strip_prefix(&format!("{self}: ")).map_or(message.clone(), str::to_owned)
    }
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

    /// Stamp of a frame where the source knows it without loading the frame.
    fn stamp(&self, _index: usize) -> Option<Stamp> {
        None
    }

    /// What is odd in the source though its frames can be used: damage, labels without a cloud, repeated stamps.
    fn findings(&self) -> Vec<Finding> {
        Vec::new()
    }
}

/// Something odd in a drive, counted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Where.
    pub drive: String,
    /// What, in the singular.
    pub kind: &'static str,
    /// How often.
    pub count: u64,
    /// The first one, or what there is to say about all of them.
    pub example: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { drive, kind, count, example } = self;
        write!(f, "{drive}: {kind}, {count}x: {example}")
    }
}

/// Identity of a source.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fingerprint {
    /// As the user named it.
    pub source: String,
    /// SHA-256 in lower-case hex over names, sizes and, where cheap, contents.
    pub sha256: String,
}

/// SHA-256 over byte strings and their lengths, in lower-case hex.
pub(crate) fn sha256_of(parts: &[Vec<u8>]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
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
        r#source: std::io::Error,
    },
    /// A source named by the user that is none.
    #[error("`{source_name}` is no data source: {reason}")]
    Source {
        /// As typed.
        source_name: String,
        /// Why not, and what would be.
        reason: String,
    },
    /// A setting of a source that there is not, or not for this kind of source.
    #[error("`{source_name}`: there is no `{key}` for {kind}; there is {known}")]
    Key {
        /// As typed.
        source_name: String,
        /// The setting.
        key: String,
        /// Kind of the source, in words.
        kind: String,
        /// The settings that exist for it.
        known: String,
    },
    /// A setting of a source that breaks a rule.
    #[error("`{source_name}`: {key} = {value}: {rule}")]
    Setting {
        /// As typed.
        source_name: String,
        /// The setting.
        key: String,
        /// Its value.
        value: String,
        /// The rule.
        rule: String,
    },
    /// A choice of drives that leaves nothing, or nothing for the other side.
    #[error("`{source_name}`: {reason}; drives: {drives}")]
    Split {
        /// As typed.
        source_name: String,
        /// Both sides.
        reason: String,
        /// Names of the drives there are.
        drives: String,
    },
    /// Two joined sources name a drive alike, so that frames could not be told apart.
    #[error("drive `{drive}` is in {first} and in {second}; give one of them a prefix=… for its drives")]
    DriveTwice {
        /// The name.
        drive: String,
        /// A source.
        first: String,
        /// Another one.
        second: String,
    },
    /// One frame, other than its cloud's layout.
    #[error("{id}: {reason}")]
    Sample {
        /// Which one.
        id: SampleId,
        /// What is wrong with it.
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
        r#source: crate::cloud::CloudError,
    },
}
