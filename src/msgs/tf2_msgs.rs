//! `tf2_msgs`: the tree of frames.

use serde::{Deserialize, Serialize};

use super::geometry_msgs::TransformStamped;
use super::{Message, MsgType, definition};

/// Edges of the tree of frames; travels on `/tf` and `/tf_static`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TFMessage {
    /// The edges.
    pub transforms: Vec<TransformStamped>,
}

impl Message for TFMessage {
    const TYPE: MsgType = MsgType {
        ros: "tf2_msgs/msg/TFMessage",
        dds: "tf2_msgs::msg::dds_::TFMessage_",
        definition: definition!(
            "definitions/tf2_msgs/TFMessage.msg",
            "geometry_msgs/TransformStamped",
            "std_msgs/Header",
            "builtin_interfaces/Time",
            "geometry_msgs/Transform",
            "geometry_msgs/Vector3",
            "geometry_msgs/Quaternion",
        ),
        type_hash: "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087",
    };
}
