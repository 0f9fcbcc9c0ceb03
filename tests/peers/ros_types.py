"""ROS messages for Cyclone DDS's Python binding, after their .msg definitions; names as ROS's DDS layers mangle them."""

from dataclasses import dataclass
from dataclasses import field

from cyclonedds.idl import IdlStruct
from cyclonedds.idl._machinery import BytesMachine
from cyclonedds.idl.annotations import final
from cyclonedds.idl.types import array, float64, int32, int64, sequence, uint8, uint32, uint64


def ros(name):
    """`pkg/Type` as DDS knows it."""
    package, kind = name.split("/")
    return f"{package}::msg::dds_::{kind}_"


@dataclass
@final
class Time(IdlStruct, typename=ros("builtin_interfaces/Time")):
    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
@final
class Header(IdlStruct, typename=ros("std_msgs/Header")):
    stamp: Time = field(default_factory=Time)
    frame_id: str = ""


@dataclass
@final
class PointField(IdlStruct, typename=ros("sensor_msgs/PointField")):
    name: str
    offset: uint32
    datatype: uint8
    count: uint32


@dataclass
@final
class PointCloud2(IdlStruct, typename=ros("sensor_msgs/PointCloud2")):
    header: Header
    height: uint32
    width: uint32
    fields: sequence[PointField]
    is_bigendian: bool
    point_step: uint32
    row_step: uint32
    data: sequence[uint8]
    is_dense: bool


@dataclass
@final
class Point(IdlStruct, typename=ros("geometry_msgs/Point")):
    x: float64
    y: float64
    z: float64


@dataclass
@final
class Quaternion(IdlStruct, typename=ros("geometry_msgs/Quaternion")):
    x: float64
    y: float64
    z: float64
    w: float64


@dataclass
@final
class Pose(IdlStruct, typename=ros("geometry_msgs/Pose")):
    position: Point
    orientation: Quaternion


@dataclass
@final
class PoseWithCovariance(IdlStruct, typename=ros("geometry_msgs/PoseWithCovariance")):
    pose: Pose
    covariance: array[float64, 36]


@dataclass
@final
class Vector3(IdlStruct, typename=ros("geometry_msgs/Vector3")):
    x: float64
    y: float64
    z: float64


@dataclass
@final
class ObjectHypothesis(IdlStruct, typename=ros("vision_msgs/ObjectHypothesis")):
    class_id: str
    score: float64


@dataclass
@final
class ObjectHypothesisWithPose(IdlStruct, typename=ros("vision_msgs/ObjectHypothesisWithPose")):
    hypothesis: ObjectHypothesis
    pose: PoseWithCovariance


@dataclass
@final
class BoundingBox3D(IdlStruct, typename=ros("vision_msgs/BoundingBox3D")):
    center: Pose
    size: Vector3


@dataclass
@final
class Detection3D(IdlStruct, typename=ros("vision_msgs/Detection3D")):
    header: Header
    results: sequence[ObjectHypothesisWithPose]
    bbox: BoundingBox3D
    id: str


@dataclass
@final
class Detection3DArray(IdlStruct, typename=ros("vision_msgs/Detection3DArray")):
    header: Header
    detections: sequence[Detection3D]


@dataclass
@final
class NodeEntitiesInfo(IdlStruct, typename=ros("rmw_dds_common/NodeEntitiesInfo")):
    node_namespace: str
    node_name: str
    reader_gid_seq: sequence[array[uint8, 16]]
    writer_gid_seq: sequence[array[uint8, 16]]


@dataclass
@final
class ParticipantEntitiesInfo(IdlStruct, typename=ros("rmw_dds_common/ParticipantEntitiesInfo")):
    gid: array[uint8, 16]
    node_entities_info_seq: sequence[NodeEntitiesInfo]


# The binding packs a sequence of uint8 one by one, 400 ms for a cloud; this machine makes the same bytes in one copy.
PointCloud2.__idl__.populate()
PointCloud2.__idl__.v1_machine.members_machines["data"] = BytesMachine()


@dataclass
@final
class ListParametersRequest(IdlStruct, typename="rcl_interfaces::srv::dds_::ListParameters_Request_"):
    """With what Cyclone's middleware of ROS puts before every question and answer."""

    client: uint64
    number: int64
    prefixes: sequence[str]
    depth: uint64


@dataclass
@final
class ListParametersResponse(IdlStruct, typename="rcl_interfaces::srv::dds_::ListParameters_Response_"):
    client: uint64
    number: int64
    names: sequence[str]
    prefixes: sequence[str]
