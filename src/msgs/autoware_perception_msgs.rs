//! `autoware_perception_msgs`: detections as Autoware's nodes take them.

use serde::{Deserialize, Serialize};

use super::geometry_msgs::{Point32, PoseWithCovariance, TwistWithCovariance, Vector3};
use super::std_msgs::Header;
use super::{Message, MsgType, definition};

/// A class and how probable it is.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ObjectClassification {
    /// One of the constants below.
    pub label: u8,
    /// 0 to 1.
    pub probability: f32,
}

#[allow(missing_docs)] // the names are the classes
impl ObjectClassification {
    pub const UNKNOWN: u8 = 0;
    pub const CAR: u8 = 1;
    pub const TRUCK: u8 = 2;
    pub const BUS: u8 = 3;
    pub const TRAILER: u8 = 4;
    pub const MOTORCYCLE: u8 = 5;
    pub const BICYCLE: u8 = 6;
    pub const PEDESTRIAN: u8 = 7;
}

/// Where an object is, which way it looks, how it moves.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct DetectedObjectKinematics {
    /// Centre of the box and heading.
    pub pose_with_covariance: PoseWithCovariance,
    /// Whether the pose's covariance says something.
    pub has_position_covariance: bool,
    /// One of the constants below.
    pub orientation_availability: u8,
    /// Velocity in the object's own frame.
    pub twist_with_covariance: TwistWithCovariance,
    /// Whether the velocity says something.
    pub has_twist: bool,
    /// Whether the velocity's covariance does.
    pub has_twist_covariance: bool,
}

impl DetectedObjectKinematics {
    /// Front and back may be mistaken for each other.
    pub const SIGN_UNKNOWN: u8 = 1;
    /// The heading is known.
    pub const AVAILABLE: u8 = 2;
}

/// Flat outline.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Polygon {
    /// Its corners.
    pub points: Vec<Point32>,
}

/// The shape of an object.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Shape {
    /// 0: a box.
    pub r#type: u8,
    /// Of polygons.
    pub footprint: Polygon,
    /// Length, width, height in metres.
    pub dimensions: Vector3,
}

impl Shape {
    /// A box.
    pub const BOUNDING_BOX: u8 = 0;
}

/// One object.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DetectedObject {
    /// How sure it is that there is something, 0 to 1.
    pub existence_probability: f32,
    /// Classes it may be of.
    pub classification: Vec<ObjectClassification>,
    /// Place, heading, motion.
    pub kinematics: DetectedObjectKinematics,
    /// Size.
    pub shape: Shape,
}

/// All objects of one cloud.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DetectedObjects {
    /// The header of the cloud.
    pub header: Header,
    /// The objects.
    pub objects: Vec<DetectedObject>,
}

impl Message for DetectedObjects {
    const TYPE: MsgType = MsgType {
        ros: "autoware_perception_msgs/msg/DetectedObjects",
        dds: "autoware_perception_msgs::msg::dds_::DetectedObjects_",
        definition: definition!(
            "definitions/autoware_perception_msgs/DetectedObjects.msg",
            "std_msgs/Header",
            "builtin_interfaces/Time",
            "autoware_perception_msgs/DetectedObject",
            "autoware_perception_msgs/ObjectClassification",
            "autoware_perception_msgs/DetectedObjectKinematics",
            "geometry_msgs/PoseWithCovariance",
            "geometry_msgs/Pose",
            "geometry_msgs/Point",
            "geometry_msgs/Quaternion",
            "geometry_msgs/TwistWithCovariance",
            "geometry_msgs/Twist",
            "geometry_msgs/Vector3",
            "autoware_perception_msgs/Shape",
            "geometry_msgs/Polygon",
            "geometry_msgs/Point32",
        ),
        type_hash: "RIHS01_2facd6b15786cbd1f720cdd23d22e6d60d2e7e83b8dff8fd401330e24edb187b",
    };
}
