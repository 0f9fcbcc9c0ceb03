"""Starts detector_node.

    ros2 launch pivotal detector.launch.py model_dir:=models/demo input_topic:=/lidar/points
    ros2 launch launch/detector.launch.py model_dir:=models/demo input_topic:=/lidar/points
    ros2 launch launch/detector.launch.py model_dir:=models/demo executable:=target/release/detector_node

Without `executable` the node is taken from the installed package `pivotal`; with it, any build of the binary is
started as a plain process, no package needed. Two detectors at once need different names or namespaces.
"""

import json

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

# name, default, description
ARGUMENTS = [
    ("model_dir", "", "Model directory; overrides the parameter file. Needed unless that file has it."),
    ("params_file", "", "Parameter file in ROS format, for instance config/detector.yaml; empty for the defaults."),
    ("input_topic", "/points", "Topic of the clouds, sensor_msgs/PointCloud2."),
    ("output_objects_topic", "~/output/objects", "Topic of the detections, vision_msgs/Detection3DArray."),
    ("output_markers_topic", "~/output/markers", "Topic of the markers, visualization_msgs/MarkerArray."),
    ("output_report_topic", "~/output/report", "Topic of the reports, pivotal_msgs/FrameReport."),
    ("output_autoware_topic", "", "Topic of autoware_perception_msgs/DetectedObjects; empty not to publish it."),
    ("namespace", "", "Namespace of the node, for instance front."),
    ("node_name", "detector_node", "Name of the node."),
    ("device", "", "auto, cpu or cuda:N; overrides the parameter file. Empty to leave it."),
    ("use_sim_time", "", "true or false; overrides the parameter file. Empty to leave it."),
    ("lifecycle", "", "true for a managed node; overrides the parameter file. Empty to leave it."),
    ("respawn", "false", "true to start the node again two seconds after it ended by itself, for instance when the device was lost."),
    ("log_level", "info", "debug, info, warn, error or fatal."),
    ("executable", "", "Path of the binary; empty for the installed package."),
]


def _start(context):
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    remaps = [
        ("~/input/pointcloud", value["input_topic"]),
        ("~/output/objects", value["output_objects_topic"]),
        ("~/output/markers", value["output_markers_topic"]),
        ("~/output/report", value["output_report_topic"]),
    ]
    if value["output_autoware_topic"]:
        remaps.append(("~/output/autoware_objects", value["output_autoware_topic"]))
    remaps = [(source, target) for source, target in remaps if source != target]
    overrides = {name: value[name] for name in ("model_dir", "device") if value[name]}
    overrides.update({name: value[name] == "true" for name in ("use_sim_time", "lifecycle") if value[name]})
    if value["output_autoware_topic"]:
        overrides["publish_autoware"] = True
    files = [value["params_file"]] if value["params_file"] else []

    again = {"respawn": True, "respawn_delay": 2.0} if value["respawn"] == "true" else {}

    if not value["executable"]:
        return [
            Node(
                package="pivotal",
                executable="detector_node",
                name=value["node_name"],
                namespace=value["namespace"],
                parameters=files + ([overrides] if overrides else []),
                remappings=remaps,
                ros_arguments=["--log-level", value["log_level"]],
                output="screen",
                **again,
            )
        ]
    arguments = ["--ros-args", "-r", "__node:=" + value["node_name"], "--log-level", value["log_level"]]
    if value["namespace"]:
        arguments += ["-r", "__ns:=/" + value["namespace"].strip("/")]
    for source, target in remaps:
        arguments += ["-r", source + ":=" + target]
    for file in files:
        arguments += ["--params-file", file]
    for name, override in overrides.items():
        # JSON is YAML: a directory called `1` or `no` stays a string.
        arguments += ["-p", "{}:={}".format(name, json.dumps(override))]
    return [ExecuteProcess(cmd=[value["executable"]] + arguments, output="screen", **again)]


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    return LaunchDescription(arguments + [OpaqueFunction(function=_start)])
