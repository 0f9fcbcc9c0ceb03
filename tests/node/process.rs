//! The real binary: exit codes, help, signals.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use pivotal::model::spec::ModelSpec;
use pivotal::msgs::sensor_msgs::PointCloud2;
use pivotal::msgs::vision_msgs::Detection3DArray;
use pivotal::msgs::{Message, cdr};
use pivotal::node::params::params_table_markdown;
use pivotal::transport::names::{NodeName, TopicName};
use pivotal::transport::settings::{DdsSettings, DiscoveryRange};
use pivotal::transport::{Qos, Transport};

use super::rig::{PATIENCE, cloud, save_model, save_tiny_model};
use crate::support::shared;

/// What the node promises.
const END_WITHIN: Duration = Duration::from_secs(2);

/// The DDS domain of these tests.
const DOMAIN: u16 = 97;

/// The binary, kept to this machine and away from other tests' DDS domains.
pub fn detector_node(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_detector_node"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
        .env("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        .env("ROS_DOMAIN_ID", DOMAIN.to_string())
        .env_remove("ROS_LOCALHOST_ONLY");
    command
}

fn finished(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = detector_node(args).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn wrong_command_lines_end_with_code_two_and_a_reason() {
    let cases: [(&[&str], &str); 8] = [
        (&["--no-such"], "--no-such"),
        (&["nonsense"], "nonsense"),
        (&["--ros-args", "--no-such"], "`--no-such` is not a ROS argument"),
        (&["--ros-args", "-r", "a:=b-c", "-p", "model_dir:=/m", "-r", "~/input/pointcloud:=b-c"], "b-c"),
        (&["--ros-args", "-r", "__node:=1"], "node name"),
        (&["--ros-args"], "parameter `model_dir` = \"\" (default): must be string that is not empty"),
        (&["--ros-args", "-p", "model_dir:=/m", "-p", "device:=gpu"], "parameter `device` = \"gpu\""),
        (&["--ros-args", "--params-file", "/nowhere.yaml"], "parameter file /nowhere.yaml"),
    ];
    for (args, reason) in cases {
        let (code, _, stderr) = finished(args);
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(reason), "{args:?}: {stderr}");
    }
}

#[test]
fn wrong_environment_ends_with_code_two_and_its_name() {
    let output = detector_node(&["--ros-args", "-p", "model_dir:=/m"]).env("ROS_DOMAIN_ID", "seven").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("ROS_DOMAIN_ID") && stderr.contains("seven"), "{stderr}");
}

#[test]
fn check_tells_by_its_code_whether_something_is_wrong() {
    let (code, text, _) = finished(&["check", "--ros-args", "-p", "model_dir:=/nowhere/model", "-p", "device:=cpu"]);
    assert_eq!(code, Some(1), "{text}");
    for part in ["ok       DDS domain 97", "net.core.rmem_max", "PROBLEM  /nowhere/model"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn missing_model_ends_with_code_four() {
    let (code, _, stderr) = finished(&["--ros-args", "-p", "model_dir:=/nowhere/model"]);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("/nowhere/model"), "{stderr}");
}

#[test]
fn replay_ends_with_a_code_for_what_happened() {
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("tiny");
    save_tiny_model(&dir);
    let bag = shared("data/rosbag2/clouds_mcap");
    let out = work.path().join("out");
    let broken = work.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    for entry in std::fs::read_dir(&bag).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "mcap") {
            bytes.truncate(bytes.len() * 2 / 3);
        }
        std::fs::write(broken.join(path.file_name().unwrap()), bytes).unwrap();
    }
    let [model, bag, broken, out] = [&dir, &bag, &broken, &out].map(|path| path.to_str().unwrap());
    let options = ["-m", model, "-o", out, "--device", "cpu", "--overwrite", "--no-foxglove", "--picture-every", "0"];
    let cases: [(&str, &[&str], i32, &str); 6] = [
        (bag, &["--topic", "/kitti/velo/pointcloud"], 0, ""),
        (broken, &["--topic", "/kitti/velo/pointcloud"], 3, ""),
        (bag, &[], 2, "topics of type sensor_msgs/msg/PointCloud2"),
        (bag, &["--topic", "/kitti/velo/pointcloud", "--ros-args", "-p", "device:=cpu"], 2, "only --log-level"),
        ("/nowhere/bag", &[], 1, "/nowhere/bag"),
        (bag, &["--topic", "/kitti/velo/pointcloud", "--device", "cuda:99"], 2, "cannot be used multiple times"),
    ];
    for (bag, more, code, reason) in cases {
        let args: Vec<_> = ["replay", bag].into_iter().chain(options).chain(more.iter().copied()).collect();
        let (got, stdout, stderr) = finished(&args);
        assert_eq!(got, Some(code), "{args:?}: {stdout}{stderr}");
        assert!(stderr.contains(reason), "{args:?}: {stderr}");
    }
    let (code, _, stderr) = finished(&["replay", bag, "-m", "/nowhere/model", "-o", out]);
    assert_eq!(code, Some(4), "{stderr}");
}

#[test]
fn play_ends_with_code_two_for_what_the_caller_got_wrong() {
    let bag = shared("data/rosbag2/clouds_mcap");
    let bag = bag.to_str().unwrap();
    let topic = ["--topic", "/kitti/velo/pointcloud"];
    let long = u64::MAX.to_string();
    let cases: [(&[&str], &str, i32, &str); 5] = [
        (&topic, "seven", 2, "ROS_DOMAIN_ID"),
        (&[topic[0], topic[1], "--node", "/1x"], "97", 2, "/1x/input/pointcloud"),
        (&[], "97", 2, "topics of type sensor_msgs/msg/PointCloud2"),
        (&["--wait-s", &long], "97", 2, "86400"),
        (&[topic[0], topic[1], "--wait-s", "0", "--node", "/nobody"], "97", 1, "no node takes /nobody/input/pointcloud"),
    ];
    for (options, domain, code, reason) in cases {
        let args: Vec<_> = ["play", bag].into_iter().chain(options.iter().copied()).collect();
        let output = detector_node(&args).env("ROS_DOMAIN_ID", domain).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(reason), "{args:?}: {stderr}");
    }
}

#[test]
fn help_and_parameter_table_are_printed() {
    let (code, stdout, _) = finished(&["--help"]);
    assert_eq!(code, Some(0));
    for part in ["--ros-args", "params", "Exit codes:", "Examples:", "ROS_DOMAIN_ID"] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    assert_eq!(finished(&["params"]), (Some(0), params_table_markdown(), String::new()));
}

#[test]
fn signals_end_the_node_within_two_seconds() {
    let model = tempfile::tempdir().unwrap();
    let dir = model.path().join("tiny");
    save_tiny_model(&dir);
    let model_param = format!("model_dir:={}", dir.display());
    for signal in ["-INT", "-TERM"] {
        let mut node = detector_node(&["--ros-args", "-p", &model_param, "-p", "device:=cpu"]).spawn().unwrap();
        let stderr = until_line(&mut node, ": ready: ");
        assert_ends_in_time(node, signal, stderr);
    }
}

#[test]
fn signal_while_libtorch_works_ends_the_node_cleanly() {
    let model = tempfile::tempdir().unwrap();
    let dir = model.path().join("wide");
    // One frame of it takes longer than the node waits for any.
    save_model(&dir, &ModelSpec::builtin("cp-pillar").unwrap());
    let model_param = format!("model_dir:={}", dir.display());
    let mut node = detector_node(&["--ros-args", "-p", &model_param, "-p", "device:=cpu"]).spawn().unwrap();
    let stderr = until_line(&mut node, ": loaded ");
    assert_ends_in_time(node, "-INT", stderr);
}

fn assert_ends_in_time(mut node: Child, signal: &str, stderr: BufReader<ChildStderr>) {
    let pid = node.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    let (send, ended) = mpsc::channel();
    std::thread::spawn(move || send.send(node.wait().unwrap().code()));
    assert_eq!(ended.recv_timeout(END_WITHIN), Ok(Some(0)), "{signal}: {}", rest(stderr));
}

#[test]
fn binary_answers_a_cloud_over_dds() {
    let model = tempfile::tempdir().unwrap();
    let dir = model.path().join("tiny");
    save_tiny_model(&dir);
    let model_param = format!("model_dir:={}", dir.display());
    let remap = "~/input/pointcloud:=/points";
    let mut node = detector_node(&["--ros-args", "-p", &model_param, "-p", "device:=cpu", "-r", remap]).spawn().unwrap();
    let _stderr = until_line(&mut node, ": ready: ");

    let settings = DdsSettings { domain_id: DOMAIN, range: DiscoveryRange::Localhost, ..DdsSettings::DEFAULT };
    let transport = Transport::dds(&NodeName::new("/", "peer").unwrap(), &settings).unwrap();
    let topic = |name| TopicName::new(name).unwrap();
    let clouds = transport.advertise(&topic("/points"), &PointCloud2::TYPE, Qos::SENSOR).unwrap();
    let objects = transport.subscribe(&topic("/detector_node/output/objects"), &Detection3DArray::TYPE, Qos::RELIABLE).unwrap();
    let sent = cloud(42, 300);
    let answer = (0..300).find_map(|_| {
        clouds.publish(&cdr::to_bytes(&sent)).unwrap();
        objects.recv(PATIENCE / 300).unwrap()
    });
    let array: Detection3DArray = cdr::from_bytes(&answer.expect("an answer").bytes).unwrap();
    assert_eq!(array.header, sent.header);
    assert!(!array.detections.is_empty());

    assert!(Command::new("kill").args(["-INT", &node.id().to_string()]).status().unwrap().success());
    assert_eq!(node.wait().unwrap().code(), Some(0));
}

/// Reads stderr until a line holds `part`; the reader goes on where it stopped.
pub fn until_line(node: &mut Child, part: &str) -> BufReader<ChildStderr> {
    let mut stderr = BufReader::new(node.stderr.take().unwrap());
    let (send, found) = mpsc::channel();
    let part = part.to_owned();
    std::thread::spawn(move || {
        let mut seen = String::new();
        while !seen.contains(&part) {
            if stderr.read_line(&mut seen).unwrap() == 0 {
                panic!("no line with {part:?} in:\n{seen}");
            }
        }
        send.send(stderr)
    });
    found.recv_timeout(PATIENCE).expect("the line")
}

fn rest(mut stderr: BufReader<ChildStderr>) -> String {
    let mut text = String::new();
    let _ = stderr.read_to_string(&mut text);
    text
}
