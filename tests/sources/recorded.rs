//! The recordings of the shared data as sources.

use std::collections::BTreeSet;

use pivotal::cloud::Feature;
use pivotal::data::open;
use serde_json::Value;

use crate::support::shared;

#[test]
fn clouds_of_every_shared_bag_have_the_expected_points() {
    let mut n_checked = 0;
    for name in [
        "clouds_mcap",
        "clouds_mcap_zstd",
        "clouds_sqlite3",
        "clouds_sqlite3_v8",
        "clouds_sqlite3_filezstd",
        "clouds_sqlite3_msgzstd",
        "sick_mcap",
        "sick_sqlite3",
    ] {
        let expected = std::fs::read_to_string(shared(&format!("data/rosbag2/{name}.expected.json"))).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let messages = expected["messages"].as_array().unwrap();
        let topics: BTreeSet<&str> = messages.iter().map(|message| message["topic"].as_str().unwrap()).collect();
        let folder = shared(&format!("data/rosbag2/{name}"));
        for topic in topics {
            let wanted: Vec<&Value> = messages.iter().filter(|message| message["topic"] == topic).collect();
            let source = open(&format!("{},topic={topic}", folder.display())).unwrap();
            assert_eq!(source.len(), wanted.len(), "{name} {topic}");
            // From the last to the first: by index, not by luck of the order.
            for (index, wanted) in wanted.iter().enumerate().rev() {
                check(&format!("{name} {topic} {index}"), &source.load(0, index), wanted);
                n_checked += 1;
            }
        }
    }
    assert!(n_checked > 2 * 336, "{n_checked}");
}

fn check(at: &str, sample: &Result<pivotal::data::Sample, pivotal::data::DataError>, wanted: &Value) {
    let sample = sample.as_ref().unwrap_or_else(|fault| panic!("{at}: {fault}"));
    let cloud = &sample.cloud;
    let stamp: [i64; 2] = serde_json::from_value(wanted["stamp"].clone()).unwrap();
    assert_eq!(cloud.stamp.nanos, stamp[0] * 1_000_000_000 + stamp[1], "{at}");
    assert_eq!(cloud.frame_id, wanted["frame_id"].as_str().unwrap(), "{at}");
    assert_eq!(cloud.n_points() as u64, wanted["num_finite_xyz"].as_u64().unwrap_or(0), "{at}");
    assert_eq!(sample.labels, None, "{at}");
    let sum_of = |feature: Feature| {
        let column = cloud.features.iter().position(|known| *known == feature).unwrap();
        cloud.rows().map(|row| f64::from(row[column])).sum::<f64>()
    };
    let mut sums = Vec::new();
    for (axis, feature) in [Feature::X, Feature::Y, Feature::Z].into_iter().enumerate() {
        sums.extend(wanted["sum_xyz"][axis].as_f64().map(|sum| (feature, sum)));
    }
    sums.extend(wanted["sum_intensity"].as_f64().map(|sum| (Feature::Intensity, sum)));
    assert_eq!(sums.is_empty(), cloud.n_points() == 0, "{at}");
    for (feature, expected) in sums {
        let scale: f64 = cloud.rows().map(|row| f64::from(row[0].abs())).sum::<f64>() + expected.abs();
        let got = sum_of(feature);
        assert!((got - expected).abs() <= 1e-9 * scale, "{at}: sum of {feature} is {got}, expected {expected}");
    }
}

#[test]
fn recordings_without_clouds_say_what_they_have() {
    for (name, expected) in [
        ("nebula_vlp16", "the bag has no topic of sensor_msgs/msg/PointCloud2"),
        ("ros2_recorded", "the bag has no topic of sensor_msgs/msg/PointCloud2"),
        ("sick_ros1", "a ROS 1 bag (#ROSBAG V2.0); convert it first"),
        ("clouds_mcap", "4 topics of clouds, choose one with topic=…; the bag has /LIDAR_TOP (1), "),
    ] {
        let folder = shared(&format!("data/rosbag2/{name}"));
        let message = open(folder.to_str().unwrap()).unwrap_err().to_string();
        assert!(message.contains(expected), "{name}: {message}");
    }
}
