"""Plays a bag into detector_node in simulated time, and opens RViz when asked for.

    ros2 launch pivotal replay.launch.py bag:=bags/drive model_dir:=models/demo input_topic:=/points rviz:=true

All arguments of detector.launch.py work here too. This shows the live node at work; to process every cloud of a bag,
without ROS and reproducibly, use `detector_node replay`.
"""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

FOLDER = os.path.dirname(os.path.abspath(__file__))
DETECTOR = os.path.join(FOLDER, "detector.launch.py")
RVIZ = os.path.join(FOLDER, "..", "rviz", "detector.rviz")

# name, default (None: must be given), description
ARGUMENTS = [
    ("bag", None, "Folder of the bag."),
    ("rate", "1.0", "Speed of the playback."),
    ("loop", "false", "true to start again at the end."),
    ("rviz", "false", "true to open RViz with the clouds and boxes."),
    ("rviz_config", RVIZ, "RViz configuration."),
]
# Arguments of detector.launch.py that RViz has to know.
TOPICS = ("namespace", "node_name", "input_topic", "output_markers_topic")


def _play(context):
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    play = ["ros2", "bag", "play", value["bag"], "--clock", "--rate", value["rate"]]
    if value["loop"] == "true":
        play.append("--loop")
    actions = [ExecuteProcess(cmd=play, output="screen")]
    if value["rviz"] == "true":
        # The configuration has the topics of a detector without arguments.
        topic = {name: LaunchConfiguration(name).perform(context) for name in TOPICS}
        node = "/" + "/".join(part for part in (topic["namespace"].strip("/"), topic["node_name"]) if part)
        markers = topic["output_markers_topic"].replace("~", node, 1)
        remaps = ["-r", "/points:=" + topic["input_topic"], "-r", "/detector_node/output/markers:=" + markers]
        rviz = ["rviz2", "-d", value["rviz_config"], "--ros-args", "-p", "use_sim_time:=true"]
        actions.append(ExecuteProcess(cmd=rviz + remaps, output="log"))
    return actions


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    # The included file shares this one's launch configurations, so its arguments need not be repeated.
    detector = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(DETECTOR), launch_arguments=[("use_sim_time", "true")]
    )
    return LaunchDescription(arguments + [detector, OpaqueFunction(function=_play)])
