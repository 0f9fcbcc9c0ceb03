//! The real binary with a foreign DDS implementation on both sides: what it says it published is what the other one hears.

use std::process::Command;

use pivotal::msgs::pivotal_msgs::FrameReport;
use pivotal::msgs::sensor_msgs::PointCloud2;
use pivotal::msgs::{Message, cdr};
use pivotal::transport::{Qos, Subscription};

use super::process::{detector_node, until_line};
use super::rig::{PATIENCE, cloud, save_tiny_model};
use crate::transport::peer::Peer;
use crate::transport::{participant, settings, topic, wait_until};

const N_CLOUDS: usize = 20;

/// 3000 points of the peer's 32 bytes.
const CLOUD_BYTES: usize = 96_000;

/// Frames of the peer's clouds that the node reports to have published, up to the last cloud.
fn published_frames(reports: &Subscription) -> Vec<String> {
    let last = format!("cloud {}", N_CLOUDS - 1);
    let mut frames = Vec::new();
    loop {
        let sample = reports.recv(PATIENCE).unwrap().unwrap_or_else(|| panic!("no report of {last}, only of {frames:?}"));
        let report: FrameReport = cdr::from_bytes(&sample.bytes).unwrap();
        let frame = report.header.frame_id.clone();
        let is_last = frame == last;
        // Warm-up clouds may still be answered; the peer does not count them either.
        if frame.starts_with("cloud ") && report.objects_published() {
            frames.push(frame);
        }
        if is_last {
            return frames;
        }
    }
}

#[test]
fn foreign_peer_hears_every_array_that_the_binary_reports_as_published() {
    let (model, settings) = (tempfile::tempdir().unwrap(), settings(17));
    let dir = model.path().join("tiny");
    save_tiny_model(&dir);
    let (input, objects) = (topic("/points"), topic("/objects"));
    let params = [format!("model_dir:={}", dir.display()), "input_reliability:=reliable".to_owned(), "device:=cpu".to_owned()];
    let remaps = [
        format!("~/input/pointcloud:={input}"),
        format!("~/output/objects:={objects}"),
        format!("~/output/report:={}", topic("/report")),
    ];
    let options = params.iter().flat_map(|param| ["-p", param]).chain(remaps.iter().flat_map(|remap| ["-r", remap]));
    let args: Vec<_> = ["--ros-args"].into_iter().chain(options).collect();
    let mut node = detector_node(&args).env("ROS_DOMAIN_ID", settings.domain_id.to_string()).spawn().unwrap();
    let _stderr = until_line(&mut node, ": ready: ");

    let near = participant("witness", &settings);
    let deep = Qos { depth: 1000, ..Qos::RELIABLE };
    let reports = near.subscribe(&topic("/report"), &FrameReport::TYPE, deep).unwrap();
    let warm_up = near.advertise(&input, &PointCloud2::TYPE, Qos::RELIABLE).unwrap();
    let (dds_input, dds_objects) = (input.dds(), objects.dds());
    let (count, bytes) = (N_CLOUDS.to_string(), CLOUD_BYTES.to_string());
    let mut listener = Peer::start(&settings, &["--subscribe", &dds_objects, "--type", "Detection3DArray"]);
    let mut sensor = Peer::start(&settings, &["--publish", &dds_input, "--count", &count, "--bytes", &bytes, "--rate", "10"]);
    assert_eq!([&listener.hear()["event"], &sensor.hear()["event"]], ["matched", "matched"]);
    wait_until("the witness's matches", || reports.matched() > 0 && warm_up.matched() > 0);
    // Until it has seen a heartbeat, a volatile reader of Cyclone takes what arrives for history and drops it; and the report
    // of one of these clouds shows that the node knows the witness.
    let mut small = cloud(1, 20);
    small.header.frame_id = "warm-up".to_owned();
    let mut heard = (false, false);
    for _ in 0..300 {
        warm_up.publish(&cdr::to_bytes(&small)).unwrap();
        heard.0 |= listener.hear_within(PATIENCE / 300).is_some_and(|line| line["event"] == "warm");
        heard.1 |= reports.received() > 0;
        if heard == (true, true) {
            break;
        }
    }
    assert_eq!(heard, (true, true), "warm-up: the listener hears arrays, the witness reports");

    sensor.go();
    let published = published_frames(&reports);
    assert!(!published.is_empty(), "the node published nothing");
    // Leaving, the node waits for what is not acknowledged.
    assert!(Command::new("kill").args(["-INT", &node.id().to_string()]).status().unwrap().success());
    assert_eq!(node.wait().unwrap().code(), Some(0));
    assert_eq!(sensor.finish()["sent"], N_CLOUDS);
    let summary = listener.finish();
    let samples = summary["samples"].as_array().unwrap();
    let heard: Vec<_> = samples.iter().map(|sample| sample["frame"].as_str().unwrap()).collect();
    assert_eq!((heard, &summary["refused"]), (published.iter().map(String::as_str).collect(), &0.into()));
}
