#!/usr/bin/env python3
"""Runs a launch file on stand-ins for the modules of ROS 2 and prints, as JSON, its arguments and what it starts.

    describe.py launch/detector.launch.py model_dir=models/demo rviz=true

The stand-ins take what the real classes take, as far as the launch files here use it; an argument they do not know is an error.
"""

import importlib.util
import json
import sys
import types


class LaunchDescription:
    def __init__(self, entities):
        self.entities = entities


class DeclareLaunchArgument:
    def __init__(self, name, default_value=None, description=None):
        self.argument = {"name": name, "default": default_value, "description": description}


class OpaqueFunction:
    def __init__(self, function):
        self.function = function


class LaunchConfiguration:
    def __init__(self, name):
        self.name = name

    def perform(self, context):
        return context[self.name]


class ExecuteProcess:
    def __init__(self, cmd, output, respawn=False, respawn_delay=None):
        self.started = {"cmd": cmd, "output": output, "respawn": respawn, "respawn_delay": respawn_delay}


class Node:
    def __init__(self, package, executable, name, namespace, parameters, remappings, ros_arguments, output, respawn=False, respawn_delay=None):
        self.started = {key: value for key, value in locals().items() if key != "self"}


class PythonLaunchDescriptionSource:
    def __init__(self, path):
        self.path = path


class IncludeLaunchDescription:
    def __init__(self, source, launch_arguments):
        self.path, self.launch_arguments = source.path, launch_arguments


MODULES = {
    "launch": [LaunchDescription],
    "launch.actions": [DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction],
    "launch.substitutions": [LaunchConfiguration],
    "launch.launch_description_sources": [PythonLaunchDescriptionSource],
    "launch_ros": [],
    "launch_ros.actions": [Node],
}


def main():
    for name, classes in MODULES.items():
        module = types.ModuleType(name)
        for known in classes:
            setattr(module, known.__name__, known)
        sys.modules[name] = module
    given = dict(pair.split("=", 1) for pair in sys.argv[2:])
    arguments, started = run(sys.argv[1], given)
    print(json.dumps({"arguments": arguments, "started": started}))


def run(path, context):
    """What launch does: arguments first, then actions in order; an included file shares the configurations."""
    spec = importlib.util.spec_from_file_location("launch_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments, started = [], []
    for entity in module.generate_launch_description().entities:
        if isinstance(entity, DeclareLaunchArgument):
            arguments.append(entity.argument)
            if entity.argument["default"] is None and entity.argument["name"] not in context:
                raise SystemExit(f"argument {entity.argument['name']} must be given")
            context.setdefault(entity.argument["name"], entity.argument["default"])
        elif isinstance(entity, OpaqueFunction):
            started += [action.started for action in entity.function(context)]
        elif isinstance(entity, IncludeLaunchDescription):
            context.update(entity.launch_arguments)
            inner_arguments, inner_started = run(entity.path, context)
            arguments += inner_arguments
            started += inner_started
    return arguments, started


if __name__ == "__main__":
    main()
