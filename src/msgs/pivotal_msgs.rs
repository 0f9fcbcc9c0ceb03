//! Our own messages, the package `pivotal_msgs` in `ros/`.

use serde::{Deserialize, Serialize};

use super::builtin_interfaces::Time;
use super::std_msgs::Header;
use super::{Message, MsgType, definition};

/// What became of one cloud. `msg/FrameReport.msg` says what each field counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct FrameReport {
    pub header: Header,
    pub points_received: u32,
    pub points_non_finite: u32,
    pub points_out_of_range: u32,
    pub points_in_voxels: u32,
    pub points_over_cap: u32,
    pub points_in_dropped_voxels: u32,
    pub voxels: u32,
    pub voxels_dropped: u32,
    pub candidates: u32,
    pub detections: u32,
    pub clouds_overwritten: u64,
    pub clouds_failed: u64,
    pub decode_ms: f64,
    pub voxelize_ms: f64,
    pub vfe_ms: f64,
    pub backbone_3d_ms: f64,
    pub scatter_ms: f64,
    pub backbone_ms: f64,
    pub head_ms: f64,
    pub postprocess_ms: f64,
    pub total_ms: f64,
    pub latency_ms: f64,
    pub max_scores: Vec<f32>,
    pub flags: Vec<String>,
}

impl FrameReport {
    /// Flag of a cloud whose detections the middleware refused.
    pub const NOT_PUBLISHED: &str = "not_published";
    /// What the flag of a cloud that gave no detections begins with; the reason follows.
    pub const FAILED: &str = "failed: ";

    /// Whether an array of detections was published for the cloud.
    pub fn objects_published(&self) -> bool {
        !self.flags.iter().any(|flag| flag == Self::NOT_PUBLISHED || flag.starts_with(Self::FAILED))
    }
}

impl Message for FrameReport {
    const TYPE: MsgType = MsgType {
        ros: "pivotal_msgs/msg/FrameReport",
        dds: "pivotal_msgs::msg::dds_::FrameReport_",
        definition: definition!("../../msg/FrameReport.msg", "std_msgs/Header", "builtin_interfaces/Time"),
        type_hash: "RIHS01_f17c2aab76b1dfdd63e809b295c9afef2f12584d781b550b6740e607cc4ea8c2",
    };
}

/// A number over time, for plots.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Float64Stamped {
    /// When the cloud was measured.
    pub stamp: Time,
    /// The number.
    pub data: f64,
}

impl Message for Float64Stamped {
    const TYPE: MsgType = MsgType {
        ros: "pivotal_msgs/msg/Float64Stamped",
        dds: "pivotal_msgs::msg::dds_::Float64Stamped_",
        definition: definition!("../../msg/Float64Stamped.msg", "builtin_interfaces/Time"),
        type_hash: "RIHS01_f380f51bfedcad4b027c692408dd4542f4584b44a42263871b3930f2c356953b",
    };
}
