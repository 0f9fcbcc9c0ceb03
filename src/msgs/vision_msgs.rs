//! `vision_msgs` 4 (Humble and later): detections.

use serde::{Deserialize, Serialize};

use super::geometry_msgs::{Pose, PoseWithCovariance, Vector3};
use super::std_msgs::Header;
use super::{Message, MsgType, definition};

/// A class and how sure it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ObjectHypothesis {
    /// Name of the class.
    pub class_id: String,
    /// 0 to 1.
    pub score: f64,
}

/// A class and the object's pose if it is of that class.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ObjectHypothesisWithPose {
    /// The class.
    pub hypothesis: ObjectHypothesis,
    /// Where the object is.
    pub pose: PoseWithCovariance,
}

/// An oriented box.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct BoundingBox3D {
    /// Centre and heading.
    pub center: Pose,
    /// Full extents along the box's own axes in metres: length, width, height.
    pub size: Vector3,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Detection3D {
    /// When and in which frame.
    pub header: Header,
    /// Classes it may be of.
    pub results: Vec<ObjectHypothesisWithPose>,
    /// Its box.
    pub bbox: BoundingBox3D,
    /// The same for the same object in several messages; empty when nothing tracks.
    pub id: String,
}

/// All objects of one cloud.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Detection3DArray {
    /// The header of the cloud.
    pub header: Header,
    /// The objects.
    pub detections: Vec<Detection3D>,
}

impl Message for Detection3DArray {
    const TYPE: MsgType = MsgType {
        ros: "vision_msgs/msg/Detection3DArray",
        dds: "vision_msgs::msg::dds_::Detection3DArray_",
        definition: definition!(
            "definitions/vision_msgs/Detection3DArray.msg",
            "std_msgs/Header",
            "builtin_interfaces/Time",
            "vision_msgs/Detection3D",
            "vision_msgs/ObjectHypothesisWithPose",
            "vision_msgs/ObjectHypothesis",
            "geometry_msgs/PoseWithCovariance",
            "geometry_msgs/Pose",
            "geometry_msgs/Point",
            "geometry_msgs/Quaternion",
            "vision_msgs/BoundingBox3D",
            "geometry_msgs/Vector3",
        ),
        type_hash: "RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018",
    };
}
