//! One line of `detections.jsonl`: everything known about one cloud except how long it took.

use serde::{Deserialize, Serialize};

use crate::voxel::VoxelCounts;

/// What became of one cloud of the bag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrameRecord {
    /// Which cloud of the topic, from 0 in order of log time.
    pub index: u64,
    /// Topic of the cloud.
    pub topic: String,
    /// When the bag's recorder got it, nanoseconds.
    pub log_time_ns: i64,
    /// The rest of the line.
    #[serde(flatten)]
    pub outcome: FrameOutcome,
}

/// Boxes, or the reason why there are none; `result` in the line tells which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum FrameOutcome {
    /// The cloud went through the pipeline.
    Detections(DetectedFrame),
    /// The cloud could not be decoded or processed; the replay went on without it.
    Malformed {
        /// What is wrong with it.
        error: String,
    },
}

/// A cloud that went through the pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectedFrame {
    /// Seconds and nanoseconds of the cloud's header.
    pub stamp: (i32, u32),
    /// Frame of the cloud and of its boxes.
    pub frame_id: String,
    /// Points in the message.
    pub points_received: usize,
    /// Points removed because a value was not finite.
    pub points_non_finite: usize,
    /// Where the finite points went.
    pub voxels: VoxelCounts,
    /// Boxes over the thresholds before suppression.
    pub candidates: usize,
    /// Highest heat-map score of each class, in the model's order of classes.
    pub max_scores: Vec<f32>,
    /// Anything unusual, one word each, as in `FrameReport`.
    pub flags: Vec<String>,
    /// Best first.
    pub detections: Vec<BoxRecord>,
}

/// One box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoxRecord {
    /// Name of the class.
    pub class: String,
    /// 0 to 1.
    pub score: f32,
    /// `[x, y, z, length, width, height, yaw]`: middle of the box, metres and radians, in the cloud's frame.
    #[serde(rename = "box")]
    pub row: [f64; 7],
}
