//! Every bag of the shared data: what replays, and what is refused.

use pivotal::replay::record::{FrameOutcome, FrameRecord};
use pivotal::replay::{PictureOptions, ReplayOptions};
use serde_json::Value;

use super::scenes::{options, replay, small_pipeline};
use crate::support::shared;

const CLOUD: &str = "sensor_msgs/msg/PointCloud2";

#[test]
fn recorded_clouds_replay_completely_with_their_stamps_and_points() {
    let mut pipeline = small_pipeline(8);
    let names = [
        "clouds_mcap",
        "clouds_mcap_zstd",
        "clouds_sqlite3",
        "clouds_sqlite3_filezstd",
        "clouds_sqlite3_msgzstd",
        "clouds_sqlite3_v8",
        "sick_mcap",
        "sick_sqlite3",
    ];
    for name in names {
        let expected = std::fs::read(shared(&format!("data/rosbag2/{name}.expected.json"))).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        for topic in expected["topics"].as_array().unwrap().iter().filter(|topic| topic["type"] == CLOUD) {
            let topic = topic["name"].as_str().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            let options = ReplayOptions {
                topic: Some(topic.to_owned()),
                pictures: PictureOptions { every: 0, ..PictureOptions::default() },
                foxglove: false,
                ..options(&shared(&format!("data/rosbag2/{name}")), &out)
            };
            let summary = replay(&options, &mut pipeline).unwrap();
            assert!(!summary.loss(), "{name} {topic}: {summary}");
            let lines = std::fs::read_to_string(out.join("detections.jsonl")).unwrap();
            let records: Vec<FrameRecord> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let clouds: Vec<&Value> =
                expected["messages"].as_array().unwrap().iter().filter(|message| message["topic"] == topic).collect();
            assert_eq!(records.len(), clouds.len(), "{name} {topic}");
            for (record, cloud) in records.iter().zip(clouds) {
                let FrameOutcome::Detections(frame) = &record.outcome else { panic!("{name} {topic}: {record:?}") };
                let got =
                    (record.log_time_ns, frame.stamp, frame.frame_id.as_str(), frame.points_received - frame.points_non_finite);
                let stamp = (cloud["stamp"][0].as_i64().unwrap() as i32, cloud["stamp"][1].as_u64().unwrap() as u32);
                let frame_id = cloud["frame_id"].as_str().unwrap();
                // The file has no numbers for an empty cloud.
                let finite = if cloud["data_bytes"] == 0 { 0 } else { cloud["num_finite_xyz"].as_u64().unwrap() as usize };
                assert_eq!(got, (cloud["log_time_ns"].as_i64().unwrap(), stamp, frame_id, finite), "{name} {topic}");
            }
        }
    }
}

#[test]
fn recordings_without_a_single_cloud_topic_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut pipeline = small_pipeline(8);
    let cases = [
        ("nebula_vlp16", "0 topics of type sensor_msgs/msg/PointCloud2, choose one; the bag has "),
        ("ros2_recorded", "0 topics of type"),
        ("clouds_mcap", "4 topics of type"),
        ("sick_ros1", "a ROS 1 bag"),
    ];
    for (name, expected) in cases {
        let mut path = shared(&format!("data/rosbag2/{name}"));
        if name == "sick_ros1" {
            path.push("rms_1xxx_lms_1xx_movement_off.bag");
        }
        let message = replay(&options(&path, &out), &mut pipeline).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    assert!(!out.exists());
}
