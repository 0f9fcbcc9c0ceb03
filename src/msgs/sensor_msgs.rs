//! `sensor_msgs`: point clouds.

use serde::{Deserialize, Serialize};

use super::std_msgs::Header;
use super::{Message, MsgType, definition};

/// One column of a cloud.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PointField {
    /// `x`, `y`, `z`, `intensity`, …
    pub name: String,
    /// Bytes from the start of a point.
    pub offset: u32,
    /// One of the constants below.
    pub datatype: u8,
    /// Values in the field, 1 for a scalar.
    pub count: u32,
}

#[allow(missing_docs)] // the names say the type
impl PointField {
    pub const INT8: u8 = 1;
    pub const UINT8: u8 = 2;
    pub const INT16: u8 = 3;
    pub const UINT16: u8 = 4;
    pub const INT32: u8 = 5;
    pub const UINT32: u8 = 6;
    pub const FLOAT32: u8 = 7;
    pub const FLOAT64: u8 = 8;

    /// A field with one value.
    pub fn scalar(name: &str, offset: u32, datatype: u8) -> Self {
        Self { name: name.to_owned(), offset, datatype, count: 1 }
    }
}

/// A cloud; it owns its bytes unless `D` says otherwise. Received ones are read as [`PointCloud2Ref`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(bound(serialize = "D: serde_bytes::Serialize", deserialize = "D: serde_bytes::Deserialize<'de>"))]
pub struct PointCloud2<D = Vec<u8>> {
    /// When and in which frame.
    pub header: Header,
    /// Rows; 1 for an unordered cloud.
    pub height: u32,
    /// Points per row.
    pub width: u32,
    /// Columns.
    pub fields: Vec<PointField>,
    /// Whether the values in `data` are big-endian, independent of the message's own byte order.
    pub is_bigendian: bool,
    /// Bytes from one point to the next.
    pub point_step: u32,
    /// Bytes from one row to the next.
    pub row_step: u32,
    /// `row_step * height` bytes.
    #[serde(with = "serde_bytes")]
    pub data: D,
    /// The sender's word that no point is invalid.
    pub is_dense: bool,
}

/// [`PointCloud2`] whose points stay in the buffer it was received in.
pub type PointCloud2Ref<'a> = PointCloud2<&'a [u8]>;

/// An image as a compressed file; here only because markers carry textures.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CompressedImage {
    /// When and in which frame.
    pub header: Header,
    /// `jpeg`, `png`, …
    pub format: String,
    /// The file.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

impl Message for PointCloud2 {
    const TYPE: MsgType = MsgType {
        ros: "sensor_msgs/msg/PointCloud2",
        dds: "sensor_msgs::msg::dds_::PointCloud2_",
        definition: definition!(
            "definitions/sensor_msgs/PointCloud2.msg",
            "std_msgs/Header",
            "builtin_interfaces/Time",
            "sensor_msgs/PointField",
        ),
        type_hash: "RIHS01_9198cabf7da3796ae6fe19c4cb3bdd3525492988c70522628af5daa124bae2b5",
    };
}
