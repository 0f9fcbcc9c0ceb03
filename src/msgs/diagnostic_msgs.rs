//! `diagnostic_msgs`: how the node says it is doing.

use serde::{Deserialize, Serialize};

use super::std_msgs::Header;
use super::{Message, MsgType, definition};

/// One value worth showing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeyValue {
    /// Label.
    pub key: String,
    /// The value as text.
    pub value: String,
}

/// State of one component.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiagnosticStatus {
    /// One of the constants below.
    pub level: u8,
    /// `node: component`.
    pub name: String,
    /// One line.
    pub message: String,
    /// Which device.
    pub hardware_id: String,
    /// Details.
    pub values: Vec<KeyValue>,
}

#[allow(missing_docs)] // the names say the level
impl DiagnosticStatus {
    pub const OK: u8 = 0;
    pub const WARN: u8 = 1;
    pub const ERROR: u8 = 2;
    pub const STALE: u8 = 3;
}

/// States of several components at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiagnosticArray {
    /// When; the frame is empty.
    pub header: Header,
    /// The components.
    pub status: Vec<DiagnosticStatus>,
}

impl Message for DiagnosticArray {
    const TYPE: MsgType = MsgType {
        ros: "diagnostic_msgs/msg/DiagnosticArray",
        dds: "diagnostic_msgs::msg::dds_::DiagnosticArray_",
        definition: definition!(
            "definitions/diagnostic_msgs/DiagnosticArray.msg",
            "std_msgs/Header",
            "builtin_interfaces/Time",
            "diagnostic_msgs/DiagnosticStatus",
            "diagnostic_msgs/KeyValue",
        ),
        type_hash: "RIHS01_5a8a36efb05fb25070fa0fb3810290c0e6cd4862b54a8fb975a1ee8dc55a333e",
    };
}
