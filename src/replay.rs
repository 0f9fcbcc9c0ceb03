//! A bag through the pipeline, and everything people look at afterwards.
//!
//! All clouds of one topic are processed in order of log time, none is skipped. The same bag and model give the same bytes
//! in every output except `latency.json` and `index.html`: measured times are in those two files only, and the times in the
//! bag's `FrameReport`s are zero for that reason.

pub mod args;
mod finish;
mod foxglove;
pub mod latency;
mod out_dir;
mod outputs;
pub mod page;
mod pictures;
pub mod progress;
pub mod record;
mod run;
mod summary;
mod topics;
mod truth;

pub use out_dir::OutDir;
pub use pictures::PictureOptions;
pub use progress::Progress;
pub use run::run;
pub use summary::{MalformedCloud, ModelInfo, ReplaySummary};
pub(crate) use topics::choose_cloud_topic;
pub use truth::{ClassMatches, TruthMatches};

use std::path::PathBuf;

use crate::bag::BagError;
use crate::cloud::CloudError;
use crate::cloud::decode::SensorOverrides;
use crate::viz::VizError;

/// Topic of the detections in the outputs: the live node's, under its default name.
pub const OBJECTS_TOPIC: &str = "/detector_node/output/objects";
/// Topic of the markers in the outputs.
pub const MARKERS_TOPIC: &str = "/detector_node/output/markers";
/// Topic of the frame reports in the outputs.
pub const REPORT_TOPIC: &str = "/detector_node/output/report";

/// What is replayed through what, and where to.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayOptions {
    /// A rosbag2 folder or one of its files.
    pub bag: PathBuf,
    /// Topic of the clouds; `None` takes the only one there is.
    pub topic: Option<String>,
    /// Field names and intensity of the sensor, where they differ from what the model's spec says.
    pub sensor: SensorOverrides,
    /// Folder that is filled.
    pub out: PathBuf,
    /// Replaces an earlier replay in `out`.
    pub overwrite: bool,
    /// The pictures.
    pub pictures: PictureOptions,
    /// Writes `foxglove.mcap`, which holds the clouds again.
    pub foxglove: bool,
    /// Seconds after the start of the bag before which clouds are left out.
    pub start_offset_s: f64,
    /// Seconds after the start of the bag after which clouds are left out.
    pub end_offset_s: Option<f64>,
    /// Clouds after which the replay ends.
    pub max_frames: Option<u64>,
    /// Boxes with this score or less are left out, as by the node's parameter; it can only raise the model's own threshold.
    pub score_threshold: f32,
    /// Topic of true boxes (`vision_msgs/Detection3DArray`), matched by stamp.
    pub truth_topic: Option<String>,
    /// Shown on the page.
    pub command_line: String,
}

/// Why a replay did not start, or could not go on. Faults of single clouds and messages are no errors: they are counted.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The bag could not be opened, or the detections' bag not be written.
    #[error(transparent)]
    Bag(#[from] BagError),
    /// The sensor's settings contradict the model.
    #[error("sensor settings: {0}")]
    Sensor(CloudError),
    /// An option breaks a rule.
    #[error("{option} = {value}: {rule}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        value: String,
        /// The rule.
        rule: &'static str,
    },
    /// The bag has no such topic of the type that is needed.
    #[error("no topic `{wanted}` of type {type_name}; the bag has {present}")]
    NoSuchTopic {
        /// The topic asked for.
        wanted: String,
        /// The type it must have.
        type_name: &'static str,
        /// Topics and types of the bag.
        present: String,
    },
    /// Without a choice there must be exactly one topic of clouds.
    #[error("{n_clouds} topics of type sensor_msgs/msg/PointCloud2, choose one; the bag has {present}")]
    TopicChoice {
        /// Number of topics with clouds.
        n_clouds: usize,
        /// Topics and types of the bag.
        present: String,
    },
    /// The output folder holds something.
    #[error(
        "{path} is not empty{}",
        if *holds_replay { "; it holds an earlier replay, which may be overwritten on request" } else { " and holds no earlier replay" },
        path = path.display()
    )]
    OutNotEmpty {
        /// The folder.
        path: PathBuf,
        /// Whether the files of an earlier replay were found in it.
        holds_replay: bool,
    },
    /// A file could not be written, for instance because the disk is full.
    #[error("writing {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        r#source: std::io::Error,
    },
    /// The pictures' options cannot be met.
    #[error("pictures: {0}")]
    Picture(VizError),
}
