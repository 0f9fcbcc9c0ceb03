//! `visualization_msgs`: what rviz and Foxglove draw.

use serde::{Deserialize, Serialize};

use super::builtin_interfaces::Duration;
use super::geometry_msgs::{Point, Pose, Vector3};
use super::sensor_msgs::CompressedImage;
use super::std_msgs::{ColorRGBA, Header};
use super::{Message, MsgType, definition};

/// A place in a texture, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct UVCoordinate {
    pub u: f32,
    pub v: f32,
}

/// A mesh sent along with the marker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MeshFile {
    /// Name with extension.
    pub filename: String,
    /// The file.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// One thing to draw.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Marker {
    /// When and in which frame.
    pub header: Header,
    /// Namespace of `id`.
    pub ns: String,
    /// A marker replaces the earlier one of the same `ns` and `id`.
    pub id: i32,
    /// A shape constant.
    pub r#type: i32,
    /// An action constant.
    pub action: i32,
    /// Pose of the shape.
    pub pose: Pose,
    /// Extents in metres; for lines, `x` is the width; for text, `z` is the height of a capital.
    pub scale: Vector3,
    /// Colour of the whole.
    pub color: ColorRGBA,
    /// Drawn for so long; zero is forever.
    pub lifetime: Duration,
    /// Moves with its frame.
    pub frame_locked: bool,
    /// Vertices of lines, lists and triangles, relative to `pose`.
    pub points: Vec<Point>,
    /// One per vertex, or none.
    pub colors: Vec<ColorRGBA>,
    /// Name or URI of a texture.
    pub texture_resource: String,
    /// The texture itself.
    pub texture: CompressedImage,
    /// Texture place of each vertex.
    pub uv_coordinates: Vec<UVCoordinate>,
    /// Text of a text marker.
    pub text: String,
    /// Name or URI of a mesh.
    pub mesh_resource: String,
    /// The mesh itself.
    pub mesh_file: MeshFile,
    /// Use the mesh's own colours.
    pub mesh_use_embedded_materials: bool,
}

/// Those shapes and actions that are published here.
#[allow(missing_docs)] // the names say which
impl Marker {
    pub const ARROW: i32 = 0;
    pub const CUBE: i32 = 1;
    pub const TEXT_VIEW_FACING: i32 = 9;

    pub const ADD: i32 = 0;
    pub const DELETEALL: i32 = 3;
}

/// Several things to draw.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MarkerArray {
    /// The things, applied in order.
    pub markers: Vec<Marker>,
}

impl Message for MarkerArray {
    const TYPE: MsgType = MsgType {
        ros: "visualization_msgs/msg/MarkerArray",
        dds: "visualization_msgs::msg::dds_::MarkerArray_",
        definition: definition!(
            "definitions/visualization_msgs/MarkerArray.msg",
            "visualization_msgs/Marker",
            "std_msgs/Header",
            "builtin_interfaces/Time",
            "geometry_msgs/Pose",
            "geometry_msgs/Point",
            "geometry_msgs/Quaternion",
            "geometry_msgs/Vector3",
            "std_msgs/ColorRGBA",
            "builtin_interfaces/Duration",
            "sensor_msgs/CompressedImage",
            "visualization_msgs/UVCoordinate",
            "visualization_msgs/MeshFile",
        ),
        type_hash: "RIHS01_86cb8800b6fb05b5eff1abd7a56f62a5641d3ae9a1c29e78e67e704f1d067dcf",
    };
}
