//! Bag folders: metadata of every version, splits, files that are missing or too many.

use std::path::Path;

use pivotal::bag::{BagError, BagReader, Compression, Place};

use super::{TOPICS, message, read_all, time_ns, write_mcap, write_sqlite};

/// Metadata of one version as its rosbag2 wrote it, for one file of ten messages.
fn metadata(version: u32, file: &str, storage: &str) -> String {
    let qos = match version {
        1 | 2 => String::new(),
        3..=8 => "\n        offered_qos_profiles: \"- history: 1\\n  depth: 5\"".to_owned(),
        _ => "\n        offered_qos_profiles:\n          - history: keep_last\n            depth: 5".to_owned(),
    };
    let hash = if version >= 7 { "\n        type_description_hash: RIHS01_11" } else { "" };
    let mut text = format!(
        "rosbag2_bagfile_information:
  version: {version}
  storage_identifier: {storage}
  relative_file_paths:
    - {file}
  duration:
    nanoseconds: 90
  starting_time:
    nanoseconds_since_epoch: 1000
  message_count: 10
  topics_with_message_count:
    - topic_metadata:
        name: /points
        type: sensor_msgs/msg/PointCloud2
        serialization_format: cdr{qos}{hash}
      message_count: 6
    - topic_metadata:
        name: /tf
        type: tf2_msgs/msg/TFMessage
        serialization_format: cdr{qos}{hash}
      message_count: 4
"
    );
    if version >= 2 {
        text += "  compression_format: \"\"\n  compression_mode: \"\"\n";
    }
    if version >= 5 {
        text += &format!(
            "  files:\n    - path: {file}\n      starting_time:\n        nanoseconds_since_epoch: 1000\n      duration:\n        nanoseconds: 90\n      message_count: 10\n"
        );
    }
    if version >= 6 {
        text += if version == 6 { "  custom_data: {}\n" } else { "  custom_data: ~\n" };
    }
    if version >= 8 {
        text += "  ros_distro: rolling\n";
    }
    text
}

fn ten_messages_are_read(bag: &BagReader, at: &str) {
    let (messages, losses) = read_all(bag);
    assert_eq!(losses, [], "{at}");
    assert_eq!(messages.len(), 10, "{at}");
    for (i, got) in messages.iter().enumerate() {
        let (topic, data) = message(i);
        assert_eq!((bag.topics()[got.topic_idx].name.as_str(), got.log_time_ns), (TOPICS[topic], time_ns(i)), "{at} message {i}");
        assert_eq!(got.data, data, "{at} message {i}");
    }
}

#[test]
fn metadata_of_every_version_is_read() {
    for version in 1..=9 {
        for (file, storage) in [("bag_0.db3", "sqlite3"), ("bag_0.mcap", "mcap")] {
            let folder = tempfile::tempdir().unwrap();
            // Ids in the file run against the order of the metadata.
            match storage {
                "sqlite3" => write_sqlite(&folder.path().join(file), version.min(4), [2, 1], 0..10),
                _ => write_mcap(&folder.path().join(file), 0..10, Compression::Zstd),
            }
            // Before version 4 paths began with the folder's name.
            let named = if version < 4 { format!("bag/{file}") } else { file.to_owned() };
            std::fs::write(folder.path().join("metadata.yaml"), metadata(version, &named, storage)).unwrap();
            let bag = BagReader::open(folder.path()).unwrap();
            let at = format!("version {version} {storage}");
            assert_eq!(bag.notes(), &[] as &[String], "{at}");
            assert_eq!(bag.summary().metadata_version, Some(version), "{at}");
            assert_eq!(bag.summary().ros_distro.as_deref(), (version >= 8).then_some("rolling"), "{at}");
            assert_eq!(bag.topics().iter().map(|topic| topic.message_count).collect::<Vec<_>>(), [6, 4], "{at}");
            if version >= 3 {
                assert!(bag.topics()[0].offered_qos.contains("depth"), "{at}: {:?}", bag.topics()[0]);
            }
            ten_messages_are_read(&bag, &at);
        }
    }
}

#[test]
fn metadata_with_gaps_is_noted_and_the_bag_read() {
    let whole = metadata(5, "bag_0.db3", "sqlite3");
    let newer = whole.replace("version: 5", "version: 12");
    let no_paths = {
        let start = whole.find("  relative_file_paths").unwrap();
        let end = whole.find("  duration").unwrap();
        whole[..start].to_owned() + &whole[end..whole.find("  files").unwrap()]
    };
    let no_topics = whole[..whole.find("  topics_with").unwrap()].to_owned();
    let no_version = whole.replace("  version: 5\n", "").replace("  storage_identifier: sqlite3\n", "");
    let cut = &whole[..whole.find("starting_time").unwrap() + 7];
    let wrong_type = whole.replace("version: 5", "version: five");
    for (at, text, notes) in [
        ("whole", Some(whole.as_str()), &[] as &[&str]),
        ("newer", Some(&newer), &["has version 12, newer than the 9 known here"]),
        ("no paths", Some(&no_paths), &["lacks relative_file_paths"]),
        ("no topics", Some(&no_topics), &["lacks topics_with_message_count"]),
        ("no version", Some(&no_version), &["lacks version", "lacks storage_identifier"]),
        ("cut", Some(cut), &["is not valid"]),
        ("wrong type", Some(&wrong_type), &["is not valid"]),
        ("empty", Some(""), &["is not valid"]),
        ("other document", Some("a: 1"), &["is not valid"]),
        ("absent", None, &["cannot be read"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_sqlite(&folder.path().join("bag_0.db3"), 3, [1, 2], 0..10);
        if let Some(text) = text {
            std::fs::write(folder.path().join("metadata.yaml"), text).unwrap();
        }
        let bag = BagReader::open(folder.path()).unwrap();
        assert_eq!(bag.notes().len(), notes.len(), "{at}: {:?}", bag.notes());
        for (got, expected) in bag.notes().iter().zip(notes) {
            assert!(got.starts_with("metadata.yaml ") && got.contains(expected), "{at}: {got}");
        }
        assert_eq!(bag.topics().iter().map(|topic| topic.message_count).collect::<Vec<_>>(), [6, 4], "{at}");
        ten_messages_are_read(&bag, at);
    }
}

fn write_split_metadata(folder: &Path, files: &[(&str, u32)]) {
    let names: String = files.iter().map(|(name, _)| format!("    - {name}\n")).collect();
    let details: String =
        files.iter().map(|(name, count)| format!("    - path: {name}\n      message_count: {count}\n")).collect();
    let total: u32 = files.iter().map(|(_, count)| count).sum();
    let text = format!(
        "rosbag2_bagfile_information:
  version: 5
  storage_identifier: mcap
  relative_file_paths:
{names}  files:
{details}  message_count: {total}
  topics_with_message_count:
    - topic_metadata: {{name: /points, type: sensor_msgs/msg/PointCloud2, serialization_format: cdr}}
      message_count: {total}
"
    );
    std::fs::write(folder.join("metadata.yaml"), text).unwrap();
}

#[test]
fn splits_are_merged_by_log_time_then_file_then_position() {
    let folder = tempfile::tempdir().unwrap();
    // Overlapping in time, unlike ids, one unordered in itself; messages 4 and 5 are in two files.
    write_sqlite(&folder.path().join("a_0.db3"), 3, [1, 2], [0, 4, 5, 9]);
    write_sqlite(&folder.path().join("a_1.db3"), 4, [7, 3], [8, 2, 1]);
    write_mcap(&folder.path().join("a_2.mcap"), [7, 3, 4, 6, 5], Compression::Lz4);
    std::fs::write(folder.path().join("notes.txt"), "").unwrap();
    let bag = BagReader::open(folder.path()).unwrap();
    assert_eq!(bag.summary().storage, "mcap+sqlite3");
    assert_eq!(bag.topics().len(), 2);
    let (messages, losses) = read_all(&bag);
    assert_eq!(losses, []);
    let order = [0, 1, 2, 3, 4, 4, 5, 5, 6, 7, 8, 9];
    assert_eq!(messages.iter().map(|message| message.log_time_ns).collect::<Vec<_>>(), order.map(time_ns));
    for (got, i) in messages.iter().zip(order) {
        let (topic, data) = message(i);
        assert_eq!((bag.topics()[got.topic_idx].name.as_str(), &got.data[..]), (TOPICS[topic], &data[..]), "message {i}");
    }
    // Only mcap keeps the publish time: of equal times, the file that comes first gives its message first.
    let origin: Vec<bool> = messages[4..8].iter().map(|message| message.publish_time_ns.is_some()).collect();
    assert_eq!(origin, [false, true, false, true]);
    let tf: Vec<_> = bag.messages(|topic| topic.name == "/tf").map(|item| item.unwrap().log_time_ns).collect();
    assert_eq!(tf, [0, 3, 6, 9].map(time_ns));
}

#[test]
fn splits_without_metadata_are_ordered_by_number() {
    let folder = tempfile::tempdir().unwrap();
    for (name, i) in [("bag_10.mcap", 3), ("bag_9.mcap", 2), ("bag_0.mcap", 1)] {
        write_mcap(&folder.path().join(name), [i], Compression::None);
    }
    let bag = BagReader::open(folder.path()).unwrap();
    let names: Vec<_> = bag.summary().files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["bag_0.mcap", "bag_9.mcap", "bag_10.mcap"]);
}

#[test]
fn missing_split_is_a_loss_with_its_promised_messages() {
    let folder = tempfile::tempdir().unwrap();
    write_mcap(&folder.path().join("bag_0.mcap"), [1, 2], Compression::None);
    write_mcap(&folder.path().join("bag_2.mcap"), [7, 8, 10], Compression::None);
    std::fs::write(folder.path().join("bag_3.mcap"), "").unwrap();
    write_split_metadata(folder.path(), &[("bag_0.mcap", 2), ("bag_1.mcap", 4), ("bag_2.mcap", 3), ("bag_3.mcap", 5)]);
    let bag = BagReader::open(folder.path()).unwrap();
    let (messages, losses) = read_all(&bag);
    assert_eq!(messages.iter().map(|message| message.log_time_ns).collect::<Vec<_>>(), [1, 2, 7, 8, 10].map(time_ns));
    let [missing, empty, total] = losses.as_slice() else { panic!("{losses:?}") };
    assert_eq!(
        (missing.file.file_name().unwrap().to_str(), missing.place, missing.messages),
        (Some("bag_1.mcap"), Place::File, Some(4))
    );
    assert!(
        missing.to_string().ends_with("bag_1.mcap: named by metadata.yaml, not in the folder (messages lost: 4)"),
        "{missing}"
    );
    assert!(empty.reason.contains("got an empty file") && empty.messages == Some(5), "{empty}");
    assert_eq!((total.place, total.messages), (Place::Total { promised: 14, found: 5 }, Some(9)));
    assert!(total.to_string().ends_with(": 14 messages promised, 5 found (promised by metadata.yaml)"), "{total}");
}

#[test]
fn path_that_leads_out_of_the_folder_counts_by_its_bare_name() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("bag");
    std::fs::create_dir(&folder).unwrap();
    write_mcap(&outer.path().join("secret.mcap"), [1], Compression::None);
    write_mcap(&folder.join("bag_0.mcap"), [2], Compression::None);
    write_split_metadata(&folder, &[("../secret.mcap", 1), ("/elsewhere/bag_0.mcap", 1)]);
    let bag = BagReader::open(&folder).unwrap();
    assert_eq!(bag.summary().files, [folder.join("bag_0.mcap")]);
    assert_eq!(bag.losses().len(), 1);
}

#[test]
fn compressed_files_are_found_however_the_metadata_spells_them() {
    // What Jazzy writes for compression mode FILE: one list with the ending, the other without.
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.mcap");
    write_mcap(&plain, 0..10, Compression::None);
    std::fs::write(folder.path().join("bag_0.mcap.zstd"), zstd::encode_all(&std::fs::read(&plain).unwrap()[..], 0).unwrap())
        .unwrap();
    std::fs::remove_file(&plain).unwrap();
    let jazzy = metadata(9, "bag_0.mcap", "mcap").replace("    - bag_0.mcap\n  duration", "    - bag_0.mcap.zstd\n  duration");
    for text in [jazzy, metadata(5, "bag_0.mcap", "mcap"), metadata(5, "bag_0.mcap.zstd", "mcap")] {
        std::fs::write(folder.path().join("metadata.yaml"), &text).unwrap();
        let bag = BagReader::open(folder.path()).unwrap();
        assert_eq!(bag.summary().compression, "zstd file", "{text}");
        ten_messages_are_read(&bag, &text);
    }
    // The count of the list without the ending is known when the file is gone.
    std::fs::write(folder.path().join("bag_0.mcap.zstd"), "").unwrap();
    std::fs::write(folder.path().join("metadata.yaml"), metadata(9, "bag_0.mcap", "mcap")).unwrap();
    let Err(BagError::NothingReadable { losses, .. }) = BagReader::open(folder.path()) else {
        panic!("an empty file was opened")
    };
    assert_eq!(losses.iter().map(|loss| loss.messages).collect::<Vec<_>>(), [Some(10)]);
}
