//! The bags of the shared data against what other programs read in them.

use std::collections::BTreeMap;
use std::path::Path;

use pivotal::bag::{BagReader, Payload};
use pivotal::cloud::layout::CloudLayout;
use pivotal::msgs::cdr;
use pivotal::msgs::sensor_msgs::PointCloud2Ref;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::read_all;
use crate::support::shared;

const CLOUD: &str = "sensor_msgs/msg/PointCloud2";

#[test]
fn bags_of_another_library_give_the_expected_clouds() {
    for (name, storage, compression) in [
        ("clouds_mcap", "mcap", "none"),
        ("clouds_mcap_zstd", "mcap", "zstd chunks"),
        ("clouds_sqlite3", "sqlite3", "none"),
        ("clouds_sqlite3_v8", "sqlite3", "none"),
        ("clouds_sqlite3_filezstd", "sqlite3", "zstd file"),
        ("clouds_sqlite3_msgzstd", "sqlite3", "zstd messages"),
        ("sick_mcap", "mcap", "none"),
        ("sick_sqlite3", "sqlite3", "none"),
    ] {
        let expected = std::fs::read_to_string(shared(&format!("data/rosbag2/{name}.expected.json"))).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let folder = shared(&format!("data/rosbag2/{name}"));
        let bag = BagReader::open(&folder).unwrap();
        assert_eq!((bag.summary().storage.as_str(), bag.summary().compression.as_str()), (storage, compression), "{name}");
        assert_eq!(bag.summary().ros_distro.as_deref(), Some("rosbags"), "{name}");
        assert_eq!(bag.notes(), &[] as &[String], "{name}");
        check(name, &bag, &expected);

        // The same file on its own: counts and compression mode now come from inside it.
        let [file] = bag.summary().files.as_slice() else { panic!("{name}: one file expected") };
        let alone = BagReader::open(file).unwrap();
        assert_eq!(alone.summary().metadata_version, None, "{name}");
        assert_eq!(alone.summary().compression, compression, "{name} alone");
        check(name, &alone, &expected);
    }
}

fn check(name: &str, bag: &BagReader, expected: &Value) {
    let mut listed: Vec<_> = bag.topics().iter().map(|t| (t.name.clone(), t.type_name.clone(), t.message_count)).collect();
    listed.sort();
    let mut wanted: Vec<_> = expected["topics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (text(&t["name"]), text(&t["type"]), t["count"].as_u64().unwrap()))
        .collect();
    wanted.sort();
    assert_eq!(listed, wanted, "{name}: topics");

    let (messages, losses) = read_all(bag);
    assert_eq!(losses, [], "{name}");
    assert!(messages.is_sorted_by_key(|message| message.log_time_ns), "{name}: order");
    let mut found = BTreeMap::<String, u64>::new();
    for message in &messages {
        *found.entry(bag.topics()[message.topic_idx].name.clone()).or_default() += 1;
    }
    assert!(wanted.iter().all(|(topic, _, count)| found.get(topic) == Some(count)), "{name}: {found:?}");

    let clouds: Vec<_> = bag.messages(|topic| topic.type_name == CLOUD).collect::<Result<_, _>>().unwrap();
    let wanted = expected["messages"].as_array().unwrap();
    assert_eq!(clouds.len(), wanted.len(), "{name}: clouds");
    for (cloud, wanted) in clouds.iter().zip(wanted) {
        let at = format!("{name} {} {}", wanted["topic"], wanted["log_time_ns"]);
        assert_eq!(bag.topics()[cloud.topic_idx].name, text(&wanted["topic"]), "{at}");
        assert_eq!(Some(cloud.log_time_ns), wanted["log_time_ns"].as_i64(), "{at}");
        check_cloud(&at, &cloud.data, wanted);
    }
}

fn check_cloud(at: &str, data: &Payload, wanted: &Value) {
    let cloud: PointCloud2Ref<'_> = cdr::from_bytes(data).unwrap();
    assert_eq!(
        (cloud.header.stamp.sec, cloud.header.stamp.nanosec),
        serde_json::from_value(wanted["stamp"].clone()).unwrap(),
        "{at}"
    );
    assert_eq!(cloud.header.frame_id, text(&wanted["frame_id"]), "{at}");
    assert_eq!(Some(cloud.data.len() as u64), wanted["data_bytes"].as_u64(), "{at}");
    let digest: String = Sha256::digest(cloud.data).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, text(&wanted["data_sha256"]), "{at}");

    let layout = CloudLayout::resolve(&cloud).unwrap();
    let fields: Vec<(String, u32, u8, u32)> = serde_json::from_value(wanted["fields"].clone()).unwrap();
    let declared: Vec<_> = layout.fields().iter().map(|f| (f.name.clone(), f.offset, f.datatype, f.count)).collect();
    assert_eq!(declared, fields, "{at}");
    let columns: BTreeMap<&str, Vec<f64>> =
        fields.iter().map(|(field, ..)| (field.as_str(), layout.values(&cloud, field).unwrap())).collect();
    let xyz = |row: usize| ["x", "y", "z"].map(|axis| columns[axis][row]);
    let finite: Vec<usize> = (0..columns["x"].len()).filter(|&row| xyz(row).iter().all(|value| value.is_finite())).collect();
    assert_eq!(finite.len() as u64, wanted["num_finite_xyz"].as_u64().unwrap_or(0), "{at}: finite points");
    if finite.is_empty() {
        return;
    }
    let ends = [("first_finite_xyz", finite[0]), ("last_finite_xyz", finite[finite.len() - 1])];
    for (key, row) in ends {
        assert_eq!(xyz(row), serde_json::from_value::<[f64; 3]>(wanted[key].clone()).unwrap(), "{at}: {key}");
    }
    let sum = |field: &str| finite.iter().map(|&row| columns[field][row]).sum::<f64>();
    let scale = |field: &str| finite.iter().map(|&row| columns[field][row].abs()).sum::<f64>();
    let mut sums: Vec<(&str, f64)> =
        ["x", "y", "z"].into_iter().zip(serde_json::from_value::<[f64; 3]>(wanted["sum_xyz"].clone()).unwrap()).collect();
    for (key, value) in wanted.as_object().unwrap() {
        if let Some(field) = key.strip_prefix("sum_").filter(|field| *field != "xyz") {
            sums.push((field, value.as_f64().unwrap()));
        }
    }
    for (field, expected) in sums {
        let got = sum(field);
        assert!((got - expected).abs() <= 1e-12 * scale(field), "{at}: sum of {field} is {got}, expected {expected}");
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn humble_recording_of_an_unknown_type_is_listed_and_skipped_by_name() {
    let bag = BagReader::open(shared("data/rosbag2/nebula_vlp16")).unwrap();
    let [topic] = bag.topics() else { panic!("{:?}", bag.topics()) };
    assert_eq!(
        (topic.name.as_str(), topic.type_name.as_str(), topic.message_count),
        ("/velodyne_packets", "velodyne_msgs/msg/VelodyneScan", 4)
    );
    let summary = bag.summary();
    assert_eq!(
        (summary.metadata_version, summary.start_ns, summary.duration_ns),
        (Some(5), Some(1673400471837873222), Some(300143486))
    );
    assert_eq!(bag.messages(|topic| topic.type_name == CLOUD).count(), 0);
    let rows: Vec<_> =
        bag.messages(|topic| topic.name == "/velodyne_packets").map(|m| m.map(|m| (m.log_time_ns, m.data.len()))).collect();
    // As the sqlite3 command line lists the table.
    let listed = [
        (1673400471837873222, 183648),
        (1673400471937957440, 183648),
        (1673400472038371929, 183648),
        (1673400472138016708, 182432),
    ];
    assert_eq!(rows, listed.map(Ok));
}

#[test]
fn recordings_of_the_rosbag2_tests_give_what_the_mcap_package_reads() {
    let folder = shared("data/rosbag2/ros2_recorded");
    let bag = BagReader::open(&folder).unwrap();
    let counts: Vec<_> = bag.topics().iter().map(|t| (t.name.as_str(), t.type_name.as_str(), t.message_count)).collect();
    assert_eq!(
        counts,
        [
            ("/topic", "std_msgs/msg/String", 10),
            ("/rosout", "rcl_interfaces/msg/Log", 10),
            ("/parameter_events", "rcl_interfaces/msg/ParameterEvent", 0)
        ]
    );
    assert!(bag.topics()[0].offered_qos.contains("durability: 2"), "{}", bag.topics()[0].offered_qos);
    assert_eq!(bag.notes(), [format!("{} is not named by metadata.yaml and is not read", folder.join("wbag_0.mcap").display())]);
    let (messages, losses) = read_all(&bag);
    assert_eq!((messages.len(), losses.len()), (20, 0));
    let times = (messages[0].log_time_ns, messages[19].log_time_ns);
    assert_eq!(times, (1585866235112411371, 1585866239643508139));

    // Written out of order by a test of rosbag2: one chunk, eight topics.
    let bag = BagReader::open(folder.join("wbag_0.mcap")).unwrap();
    let counts: BTreeMap<_, _> = bag.topics().iter().map(|t| (t.name.as_str(), t.message_count)).collect();
    let listed = [("AAA", 174), ("BBB", 145), ("CCC", 157), ("DDD", 163), ("EEE", 147), ("FFF", 171), ("GGG", 141), ("HHH", 148)];
    assert_eq!(counts, BTreeMap::from(listed));
    let (messages, losses) = read_all(&bag);
    assert_eq!((messages.len(), losses.len()), (1246, 0));
    assert!(messages.is_sorted_by_key(|message| message.log_time_ns));
    assert_eq!((messages[0].log_time_ns, messages[1245].log_time_ns), (1000, 1408));
}

#[test]
fn what_is_not_a_rosbag2_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let ros1 = shared("data/rosbag2/sick_ros1/rms_1xxx_lms_1xx_movement_off.bag");
    let packed = zstd::encode_all(&b"neither"[..], 0).unwrap();
    let cases: [(&Path, &str); 9] = [
        (&ros1, "a ROS 1 bag (#ROSBAG V2.0); convert it first"),
        (ros1.parent().unwrap(), "a ROS 1 bag (#ROSBAG V2.0); convert it first"),
        (&folder.path().join("absent"), "No such file"),
        (&make("empty.mcap", b""), "got an empty file"),
        (&make("text.db3", b"hello\nworld"), r"got bytes hello\nworld"),
        (&make("packed.db3.zstd", &packed), "got bytes neither"),
        (&make("folder/readme.txt", b""), "metadata.yaml cannot be read"),
        (&make("cut.db3", b"SQLite format 3\0"), "nothing can be read"),
        (&make("magic.mcap", b"\x89MCAP0\r"), "not a storage file of rosbag2"),
    ];
    for (path, expected) in cases {
        let path = if path.ends_with("folder/readme.txt") { path.parent().unwrap() } else { path };
        let Err(error) = BagReader::open(path) else { panic!("{} was opened", path.display()) };
        let message = error.to_string();
        assert!(
            message.contains(expected) && message.contains(path.file_name().unwrap().to_str().unwrap()),
            "{}: {message}",
            path.display()
        );
    }
}
