//! The real binary: exit codes, help, signals.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use pivotal::node::params::params_table_markdown;

use super::rig::{PATIENCE, save_tiny_model};

/// What the node promises.
const END_WITHIN: Duration = Duration::from_secs(2);

/// The binary, kept to this machine and away from other tests' DDS domains.
fn detector_node(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_detector_node"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST").env("ROS_DOMAIN_ID", "97").env_remove("ROS_LOCALHOST_ONLY");
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
fn missing_model_ends_with_code_four() {
    let (code, _, stderr) = finished(&["--ros-args", "-p", "model_dir:=/nowhere/model"]);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("/nowhere/model"), "{stderr}");
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
        let pid = node.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let (send, ended) = mpsc::channel();
        std::thread::spawn(move || send.send(node.wait().unwrap().code()));
        assert_eq!(ended.recv_timeout(END_WITHIN), Ok(Some(0)), "{signal}: {}", rest(stderr));
    }
}

/// Reads stderr until a line holds `part`; the reader goes on where it stopped.
fn until_line(node: &mut Child, part: &str) -> BufReader<std::process::ChildStderr> {
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

fn rest(mut stderr: BufReader<std::process::ChildStderr>) -> String {
    let mut text = String::new();
    let _ = stderr.read_to_string(&mut text);
    text
}
