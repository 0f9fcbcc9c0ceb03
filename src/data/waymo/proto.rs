//! The protobuf messages of Waymo's v1 frames, as far as detection needs them.
//!
//! Field numbers are those of `dataset.proto` and `label.proto`. Everything else in a record, camera images above all, is skipped
//! without being copied: byte fields are slices of the record. Packed and unpacked repeated numbers are both read.

use bytes::Bytes;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Frame {
    #[prost(message, optional, tag = "1")]
    pub context: Option<Context>,
    #[prost(int64, optional, tag = "2")]
    pub timestamp_micros: Option<i64>,
    #[prost(message, optional, tag = "3")]
    pub pose: Option<Transform>,
    #[prost(message, repeated, tag = "5")]
    pub lasers: Vec<Laser>,
    #[prost(message, repeated, tag = "6")]
    pub laser_labels: Vec<Label>,
}

/// A frame of which only the segment's name and the presence of labels is asked for.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FrameHead {
    #[prost(message, optional, tag = "1")]
    pub context: Option<ContextName>,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub laser_labels: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContextName {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Context {
    #[prost(message, repeated, tag = "3")]
    pub laser_calibrations: Vec<LaserCalibration>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LaserCalibration {
    #[prost(int32, optional, tag = "1")]
    pub name: Option<i32>,
    #[prost(double, repeated, tag = "2")]
    pub beam_inclinations: Vec<f64>,
    #[prost(double, optional, tag = "3")]
    pub beam_inclination_min: Option<f64>,
    #[prost(double, optional, tag = "4")]
    pub beam_inclination_max: Option<f64>,
    #[prost(message, optional, tag = "5")]
    pub extrinsic: Option<Transform>,
}

/// 4 x 4, row-major.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Transform {
    #[prost(double, repeated, tag = "1")]
    pub transform: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Laser {
    #[prost(int32, optional, tag = "1")]
    pub name: Option<i32>,
    #[prost(message, optional, tag = "2")]
    pub ri_return1: Option<RangeImage>,
    #[prost(message, optional, tag = "3")]
    pub ri_return2: Option<RangeImage>,
}

/// Both fields are zlib streams of a [`MatrixFloat`].
#[derive(Clone, PartialEq, Message)]
pub(super) struct RangeImage {
    #[prost(bytes = "bytes", tag = "2")]
    pub range_image_compressed: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    pub range_image_pose_compressed: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MatrixFloat {
    #[prost(float, repeated, tag = "1")]
    pub data: Vec<f32>,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<MatrixShape>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MatrixShape {
    #[prost(int32, repeated, tag = "1")]
    pub dims: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Label {
    #[prost(message, optional, tag = "1")]
    pub r#box: Option<LabelBox>,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<LabelMetadata>,
    #[prost(int32, optional, tag = "3")]
    pub r#type: Option<i32>,
    #[prost(string, optional, tag = "4")]
    pub id: Option<String>,
    #[prost(int32, optional, tag = "5")]
    pub detection_difficulty_level: Option<i32>,
    #[prost(int32, optional, tag = "7")]
    pub num_lidar_points_in_box: Option<i32>,
}

/// Width comes before length.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelBox {
    #[prost(double, tag = "1")]
    pub center_x: f64,
    #[prost(double, tag = "2")]
    pub center_y: f64,
    #[prost(double, tag = "3")]
    pub center_z: f64,
    #[prost(double, tag = "4")]
    pub width: f64,
    #[prost(double, tag = "5")]
    pub length: f64,
    #[prost(double, tag = "6")]
    pub height: f64,
    #[prost(double, tag = "7")]
    pub heading: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelMetadata {
    #[prost(double, optional, tag = "1")]
    pub speed_x: Option<f64>,
    #[prost(double, optional, tag = "2")]
    pub speed_y: Option<f64>,
    #[prost(double, optional, tag = "5")]
    pub speed_z: Option<f64>,
}
