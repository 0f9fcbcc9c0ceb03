//! ROS messages as plain structs and their CDR bytes. One set serves every middleware and the bags.
//!
//! A sub-module per message package; struct and field names are ROS's, and the order of the fields is the wire format.
//! The texts in `definitions/` (constants and fields only) and `msg` are what bags carry as schemas; a test holds the
//! structs, the texts and the type hashes together.

pub mod autoware_perception_msgs;
pub mod builtin_interfaces;
pub mod cdr;
pub mod diagnostic_msgs;
pub mod geometry_msgs;
pub mod lifecycle_msgs;
pub mod pivotal_msgs;
pub mod rcl_interfaces;
pub mod sensor_msgs;
pub mod std_msgs;
pub mod std_srvs;
pub mod tf2_msgs;
pub mod vision_msgs;
pub mod visualization_msgs;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A message that travels on a topic of its own, not only inside others.
pub trait Message: Serialize + DeserializeOwned {
    /// How middleware and bags name the type.
    const TYPE: MsgType;
}

/// The names of a message type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsgType {
    /// As ROS prints it and bags store it: `sensor_msgs/msg/PointCloud2`.
    pub ros: &'static str,
    /// As the DDS implementations of ROS mangle it: `sensor_msgs::msg::dds_::PointCloud2_`.
    pub dds: &'static str,
    /// The definition followed by those of all nested types, each under a line of `=` and a line `MSG: package/Type`: what
    /// rosbag2 stores under the encoding `ros2msg`.
    pub definition: &'static str,
    /// `RIHS01_` and 64 hexadecimal digits (REP 2016); the same from Humble's definitions to Kilted's.
    pub type_hash: &'static str,
}

/// A question and its answer.
pub trait Service {
    /// The question.
    type Request: Serialize + DeserializeOwned;
    /// The answer.
    type Response: Serialize + DeserializeOwned;
    /// How middleware names the type.
    const TYPE: SrvType;
}

/// The names of a service type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SrvType {
    /// As ROS prints it: `std_srvs/srv/SetBool`.
    pub ros: &'static str,
    /// The question as DDS implementations of ROS mangle it: `std_srvs::srv::dds_::SetBool_Request_`.
    pub dds_request: &'static str,
    /// The answer likewise.
    pub dds_response: &'static str,
}

/// The names of a service type from its package and its name.
macro_rules! srv_type {
    ($package:literal, $name:literal) => {
        SrvType {
            ros: concat!($package, "/srv/", $name),
            dds_request: concat!($package, "::srv::dds_::", $name, "_Request_"),
            dds_response: concat!($package, "::srv::dds_::", $name, "_Response_"),
        }
    };
}
use srv_type;

/// The text of one top-level definition and those nested in it, in the given order.
macro_rules! definition {
    ($own:literal $(, $nested:literal)* $(,)?) => {
        concat!(
            include_str!($own),
            $(
                "================================================================================\nMSG: ",
                $nested,
                "\n",
                include_str!(concat!("definitions/", $nested, ".msg")),
            )*
        )
    };
}
use definition;
