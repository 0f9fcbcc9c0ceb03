"""Writes vectors.json: every message type with made-up values as CDR bytes, by the Python package `rosbags`.

    pip install rosbags==0.11.9 && python tests/msgs/vectors.py

No two fields of a message share a value, so two fields in the wrong order cannot go unseen.
"""

import itertools
import json
import pathlib

import numpy
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

HERE = pathlib.Path(__file__).parent
# vision_msgs is not part of the package; the field lists of its version 4.
VISION_MSGS = {
    "ObjectHypothesis": "string class_id\nfloat64 score",
    "ObjectHypothesisWithPose": "ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose",
    "BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size",
    "Detection3D": "std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox3D bbox\nstring id",
    "Detection3DArray": "std_msgs/Header header\nDetection3D[] detections",
}
# Nor is Autoware's; the field lists as of 2026.
AUTOWARE_PERCEPTION_MSGS = {
    "ObjectClassification": "uint8 label\nfloat32 probability",
    "DetectedObjectKinematics": "geometry_msgs/PoseWithCovariance pose_with_covariance\nbool has_position_covariance\n"
    "uint8 orientation_availability\ngeometry_msgs/TwistWithCovariance twist_with_covariance\nbool has_twist\n"
    "bool has_twist_covariance",
    "Shape": "uint8 type\ngeometry_msgs/Polygon footprint\ngeometry_msgs/Vector3 dimensions",
    "DetectedObject": "float32 existence_probability\nObjectClassification[] classification\n"
    "DetectedObjectKinematics kinematics\nShape shape",
    "DetectedObjects": "std_msgs/Header header\nDetectedObject[] objects",
}
OWN = ["FrameReport", "Float64Stamped"]
TYPES = [
    "sensor_msgs/msg/PointCloud2",
    "vision_msgs/msg/Detection3DArray",
    "visualization_msgs/msg/MarkerArray",
    "diagnostic_msgs/msg/DiagnosticArray",
    "tf2_msgs/msg/TFMessage",
    "pivotal_msgs/msg/FrameReport",
    "rcl_interfaces/msg/ParameterEvent",
    "rcl_interfaces/msg/Log",
    "lifecycle_msgs/msg/TransitionEvent",
    "autoware_perception_msgs/msg/DetectedObjects",
    "pivotal_msgs/msg/Float64Stamped",
]

store = get_typestore(Stores.ROS2_HUMBLE)
for name, text in VISION_MSGS.items():
    store.register(get_types_from_msg(text, f"vision_msgs/msg/{name}"))
for name, text in AUTOWARE_PERCEPTION_MSGS.items():
    store.register(get_types_from_msg(text, f"autoware_perception_msgs/msg/{name}"))
for name in OWN:
    text = (HERE / f"../../msg/{name}.msg").read_text()
    store.register(get_types_from_msg(text, f"pivotal_msgs/msg/{name}"))


def scalar(kind, count):
    if kind == "string":
        return "s" * (count % 5) + str(count)
    if kind == "bool":
        return count % 2 == 0
    if kind.startswith("float"):
        return count + 0.5
    if kind in ("uint8", "byte", "int8"):
        return count % 128
    return count


def make(typename, counter):
    """A message and the same as plain JSON."""
    fields, plain = {}, {}
    for name, (kind, what) in store.fielddefs[typename][1]:
        if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            (inner, inner_what), size = what
            pairs = [one(inner, inner_what, counter) for _ in range(size or 2)]
            values, plain[name] = [p[0] for p in pairs], [p[1] for p in pairs]
            if inner == Nodetype.BASE and inner_what[0] != "string":
                values = numpy.array(values, dtype="uint8" if inner_what[0] == "byte" else inner_what[0])
            if size == 36:  # our struct has the matrix as rows
                plain[name] = [plain[name][row * 6 : row * 6 + 6] for row in range(6)]
            fields[name] = values
        else:
            fields[name], plain[name] = one(kind, what, counter)
    return store.types[typename](**fields), plain


def one(kind, what, counter):
    if kind == Nodetype.NAME:
        return make(what, counter)
    value = scalar(what[0], next(counter))
    return value, value


vectors = []
for typename in TYPES:
    message, plain = make(typename, itertools.count(1))
    vectors.append(
        {
            "type": typename,
            "type_hash": store.hash_rihs01(typename),
            "little_endian": bytes(store.serialize_cdr(message, typename, little_endian=True)).hex(),
            "big_endian": bytes(store.serialize_cdr(message, typename, little_endian=False)).hex(),
            "value": plain,
        }
    )
(HERE / "vectors.json").write_text("[\n" + ",\n".join(json.dumps(vector) for vector in vectors) + "\n]\n")
