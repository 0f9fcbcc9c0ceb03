//! The colcon packages, launch files and their descriptions agree with each other and with the code.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use pivotal::node::names::NodeNames;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|fault| panic!("{name}: {fault}"))
}

/// What stands between `<tag>` and `</tag>`, each time.
fn elements<'a>(xml: &'a str, tag: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    xml.split(open.as_str()).skip(1).map(|rest| rest.split(close.as_str()).next().unwrap()).collect()
}

/// The packages of ros/message_packages.txt: name and whether it is required.
fn listed() -> Vec<(String, bool)> {
    let text = read("ros/message_packages.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| match line.split_once(' ').unwrap_or_else(|| panic!("{line}")) {
            (name, "required") => (name.to_owned(), true),
            (name, "optional") => (name.to_owned(), false),
            _ => panic!("{line}: neither required nor optional"),
        })
        .collect()
}

#[test]
fn message_packages_are_the_same_in_list_manifest_and_code() {
    let listed = listed();
    let required: BTreeSet<_> = listed.iter().filter(|(_, required)| *required).map(|(name, _)| name.as_str()).collect();
    let manifest = read("ros/pivotal/package.xml");
    let depends: BTreeSet<_> =
        elements(&manifest, "depend").into_iter().filter(|name| !name.starts_with("rcl") || *name == "rcl_interfaces").collect();
    assert_eq!(depends, required, "ros/pivotal/package.xml against ros/message_packages.txt");

    // Every package that has a module of messages here, apart from what is nested in rosidl itself.
    let modules: BTreeSet<_> = read("src/msgs.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned))
        .filter(|name| name != "cdr")
        .collect();
    let names: BTreeSet<_> = listed.iter().map(|(name, _)| name.clone()).collect();
    assert!(modules.is_subset(&names), "{:?} are not in the list", modules.difference(&names));
    let transport = read("src/transport/r2r.rs");
    let used = ["rcl_interfaces", "lifecycle_msgs", "std_srvs"];
    assert!(used.iter().all(|package| transport.contains(package) && names.contains(*package)));
}

#[test]
fn messages_of_the_interface_package_are_those_of_its_folder() {
    let cmake = read("ros/pivotal_msgs/CMakeLists.txt");
    let built: BTreeSet<_> = cmake.split('"').filter(|part| part.starts_with("msg/")).map(str::to_owned).collect();
    let files = fs::read_dir(root().join("msg")).unwrap();
    let there: BTreeSet<_> = files.map(|file| format!("msg/{}", file.unwrap().file_name().to_string_lossy())).collect();
    assert_eq!(built, there);
    let seen_by_cmake = root().join("ros/pivotal_msgs/msg").canonicalize().unwrap();
    assert_eq!(seen_by_cmake, root().join("msg").canonicalize().unwrap());
}

#[test]
fn packages_agree_with_cargo_and_install_what_they_name() {
    let cargo = read("Cargo.toml");
    for package in ["pivotal", "pivotal_msgs"] {
        let manifest = read(&format!("ros/{package}/package.xml"));
        assert_eq!(elements(&manifest, "name"), [package]);
        let version = elements(&manifest, "version")[0].to_owned();
        assert!(cargo.contains(&format!("\nversion = \"{version}\"\n")), "{package}: version {version}");
        let license = elements(&manifest, "license")[0].to_owned();
        assert!(cargo.contains(&format!("license = \"{license}\"")), "{package}: license {license}");
        assert!(manifest.contains("<package format=\"3\">"));
        assert!(read(&format!("ros/{package}/CMakeLists.txt")).contains(&format!("project({package}")));
    }
    let cmake = read("ros/pivotal/CMakeLists.txt");
    for folder in ["launch", "config", "rviz", "models"] {
        assert!(cmake.contains(&format!("\"${{repository}}/{folder}\"")) && root().join(folder).is_dir(), "{folder}");
    }
    assert!(cmake.contains("ros/message_packages.txt"), "CMake reads the list");
}

#[test]
fn build_script_hands_the_list_to_r2r_and_builds_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let stub = folder.path().join("cargo");
    fs::write(&stub, "#!/bin/sh\necho \"$IDL_PACKAGE_FILTER\"\necho \"$@\"\n").unwrap();
    fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let build = || {
        let mut command = Command::new(root().join("ros/pivotal/build.sh"));
        // Somebody else's libtorch: nothing is fetched.
        command.arg("/tmp/target").env("PATH", &path).env("LIBTORCH", folder.path());
        command
    };
    let unsourced = build().env_remove("AMENT_PREFIX_PATH").output().unwrap();
    assert!(!unsourced.status.success() && String::from_utf8_lossy(&unsourced.stderr).contains("source a ROS 2 workspace"));

    let output = build().env("AMENT_PREFIX_PATH", "/opt/ros/jazzy").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names: Vec<_> = listed().into_iter().map(|(name, _)| name).collect();
    let arguments = "build --locked --release --features r2r --bin detector_node --target-dir /tmp/target";
    let said: Vec<_> = text.lines().rev().take(2).collect();
    assert_eq!(said, [arguments, &names.join(";")]);
}

/// Arguments and actions of a launch file, run on stand-ins for ROS 2's modules.
fn launch(file: &str, values: &[&str]) -> Value {
    let script = root().join("tests/launch/describe.py");
    let output =
        Command::new("python3").arg("-B").arg(script).arg(root().join("launch").join(file)).args(values).output().unwrap();
    assert!(output.status.success(), "{file} {values:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn launch_arguments_are_described_the_same_in_python_xml_and_readme() {
    let described = launch("detector.launch.py", &[]);
    let arguments = described["arguments"].as_array().unwrap();
    let mut table = "| argument | default | description |\n| --- | --- | --- |\n".to_owned();
    let xml = read("launch/detector.launch.xml");
    for argument in arguments {
        let [name, default, description] = ["name", "default", "description"].map(|key| argument[key].as_str().unwrap());
        let shown = if default.is_empty() { String::new() } else { format!("`{default}`") };
        table += &format!("| `{name}` | {shown} | {description} |\n");
        let declared = format!("<arg name=\"{name}\" default=\"{default}\" description=\"{description}\"/>");
        assert!(xml.contains(&declared), "detector.launch.xml has not: {declared}");
        assert!(xml.contains(&format!("<arg name=\"{name}\" value=\"$(var {name})\"/>")), "{name} is not handed on");
    }
    assert_eq!(xml.matches("description=").count(), arguments.len());
    let readme = read("README.md");
    let (_, rest) = readme.split_once("<!-- launch:begin -->\n").unwrap();
    assert_eq!(rest.split_once("<!-- launch:end -->").unwrap().0, table, "between the marks of README");
}

#[test]
fn launch_starts_the_installed_node_with_what_was_asked_for() {
    let started = launch(
        "detector.launch.py",
        &["model_dir=/m", "namespace=front", "lifecycle=true", "output_autoware_topic=/cars", "respawn=true"],
    );
    let node = &started["started"][0];
    assert_eq!((&node["package"], &node["executable"]), (&"pivotal".into(), &"detector_node".into()));
    assert_eq!((&node["namespace"], &node["respawn"]), (&"front".into(), &true.into()));
    let overrides = serde_json::json!([{"model_dir": "/m", "lifecycle": true, "publish_autoware": true}]);
    assert_eq!(node["parameters"], overrides);
    let remaps = serde_json::json!([["~/input/pointcloud", "/points"], ["~/output/autoware_objects", "/cars"]]);
    assert_eq!(node["remappings"], remaps);
}

/// The command line that launch makes is understood by the node: names, parameters, remaps.
#[test]
fn launch_of_two_detectors_gives_command_lines_that_keep_them_apart() {
    let mut topics = BTreeSet::new();
    for namespace in ["left", "/right/"] {
        let values = [
            &format!("namespace={namespace}"),
            "executable=detector_node",
            "model_dir=no",
            "input_topic=/lidar/points",
            "device=cpu",
        ];
        let started = launch("detector.launch.py", &values);
        let line: Vec<String> = serde_json::from_value(started["started"][0]["cmd"].clone()).unwrap();
        let (own, ros) = pivotal::node::args::split_ros_args(line).unwrap();
        assert_eq!(own, ["detector_node"]);
        let (names, notices) = NodeNames::resolve(&ros.remaps).unwrap();
        assert!(notices.is_empty(), "{notices:?}");
        assert_eq!(names.node.to_string(), format!("/{}/detector_node", namespace.trim_matches('/')));
        assert_eq!(names.input.as_str(), "/lidar/points");
        let params = pivotal::node::config::ResolvedParams::new(&ros.params, &names.node.to_string()).unwrap();
        assert_eq!((params.text("model_dir"), params.text("device")), ("no".to_owned(), "cpu".to_owned()));
        assert!(topics.insert(names.objects.to_string()));
    }
}

#[test]
fn replay_launch_plays_in_simulated_time_and_shows_the_nodes_topics() {
    let values = ["bag=/b", "rviz=true", "loop=true", "namespace=front", "input_topic=/lidar", "executable=detector_node"];
    let started = launch("replay.launch.py", &values);
    let commands: Vec<Vec<String>> = started["started"]
        .as_array()
        .unwrap()
        .iter()
        .map(|action| serde_json::from_value(action["cmd"].clone()).unwrap())
        .collect();
    let [node, play, rviz] = &commands[..] else { panic!("{commands:?}") };
    assert!(node.contains(&"use_sim_time:=true".to_owned()), "{node:?}");
    assert_eq!(play.join(" "), "ros2 bag play /b --clock --rate 1.0 --loop");
    let config = rviz.iter().position(|word| word == "-d").map(|at| &rviz[at + 1]).unwrap();
    let shown = fs::read_to_string(config).unwrap();
    for (topic, remapped) in [("/points", "/lidar"), ("/detector_node/output/markers", "/front/detector_node/output/markers")] {
        assert!(shown.contains(&format!("Value: {topic}\n")), "the configuration shows {topic}");
        assert!(rviz.contains(&format!("{topic}:={remapped}")), "{rviz:?}");
    }
    let arguments = started["arguments"].as_array().unwrap();
    assert!(arguments.iter().all(|argument| argument["description"].as_str().is_some_and(|text| text.ends_with('.'))));
}

#[test]
fn topics_of_the_node_are_in_readme_and_in_the_layouts() {
    let (names, _) = NodeNames::resolve(&[]).unwrap();
    let readme = read("README.md");
    let own = |topic: &str| topic.replacen("/detector_node/", "~/", 1);
    for topic in [&names.input, &names.objects, &names.markers, &names.report, &names.autoware, &names.diagnostics] {
        assert!(readme.contains(&format!("| `{}` |", own(topic.as_str()))), "{topic} is not in README's table");
    }
    for topic in &names.timings {
        let name = topic.as_str().rsplit('/').next().unwrap();
        assert!(readme.contains(&format!("`{name}`")) && own(topic.as_str()).starts_with("~/debug/"), "{topic}");
    }
    let layout: Value = serde_json::from_str(&read("rviz/foxglove.json")).unwrap();
    let text = layout.to_string();
    assert!(text.contains(names.markers.as_str()) && text.contains(&format!("{}.total_ms", names.report)));
}
