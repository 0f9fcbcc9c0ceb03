//! What the writer writes: read back, read by the mcap crate, the same twice.

use std::collections::BTreeMap;
use std::path::Path;

use pivotal::bag::{BagError, BagReader, BagWriter, Compression, OfferedQos, WriterOptions};
use pivotal::msgs::Message;
use pivotal::msgs::sensor_msgs::PointCloud2;
use pivotal::msgs::tf2_msgs::TFMessage;

use super::{TOPICS, message, read_all, time_ns};

const N_MESSAGES: usize = 40;

fn write_bag(folder: &Path, compression: Compression) {
    let mut writer = BagWriter::create(folder, &WriterOptions { compression }).unwrap();
    let topics = [
        writer.add_topic(TOPICS[0], PointCloud2::TYPE, OfferedQos::SENSOR).unwrap(),
        writer.add_topic(TOPICS[1], TFMessage::TYPE, OfferedQos::LATCHED).unwrap(),
    ];
    for i in 0..N_MESSAGES {
        let (topic, data) = message(i);
        writer.write(topics[topic], time_ns(i), &data).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn written_bag_reads_back() {
    for (compression, name) in [(Compression::None, "none"), (Compression::Lz4, "lz4 chunks"), (Compression::Zstd, "zstd chunks")]
    {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("made/along/the way");
        write_bag(&folder, compression);
        let bag = BagReader::open(&folder).unwrap();
        assert_eq!(bag.notes(), &[] as &[String], "{name}");
        let summary = bag.summary();
        assert_eq!(
            (summary.compression.as_str(), summary.metadata_version, summary.message_count),
            (name, Some(9), N_MESSAGES as u64)
        );
        assert_eq!(
            (summary.start_ns, summary.duration_ns),
            (Some(time_ns(0)), Some(time_ns(N_MESSAGES - 1) - time_ns(0))),
            "{name}"
        );
        assert_eq!(summary.files, [folder.join("the way_0.mcap")], "{name}");
        let [points, tf] = bag.topics() else { panic!("{:?}", bag.topics()) };
        assert_eq!(
            (points.type_name.as_str(), points.type_hash.as_str()),
            (PointCloud2::TYPE.ros, PointCloud2::TYPE.type_hash),
            "{name}"
        );
        assert!(
            points.offered_qos.contains(r#""reliability":"best_effort""#)
                && tf.offered_qos.contains(r#""durability":"transient_local""#),
            "{name}"
        );
        let (messages, losses) = read_all(&bag);
        assert_eq!((messages.len(), losses), (N_MESSAGES, vec![]), "{name}");
        for (i, got) in messages.iter().enumerate() {
            let (topic, data) = message(i);
            assert_eq!((bag.topics()[got.topic_idx].name.as_str(), &got.data[..]), (TOPICS[topic], &data[..]), "{name} {i}");
            assert_eq!((got.log_time_ns, got.publish_time_ns), (time_ns(i), Some(time_ns(i))), "{name} {i}");
        }
    }
}

#[test]
fn written_mcap_is_what_rosbag2_expects_of_one() {
    let outer = tempfile::tempdir().unwrap();
    write_bag(&outer.path().join("bag"), Compression::Lz4);
    let bytes = std::fs::read(outer.path().join("bag/bag_0.mcap")).unwrap();
    let header = mcap::read::LinearReader::new(&bytes).unwrap().next().unwrap().unwrap();
    let mcap::records::Record::Header(header) = header else { panic!("{header:?}") };
    assert_eq!((header.profile.as_str(), header.library.as_str()), ("ros2", "pivotal"));
    let mut sequences = BTreeMap::<String, Vec<u32>>::new();
    for message in mcap::MessageStream::new(&bytes).unwrap() {
        let message = message.unwrap();
        let schema = message.channel.schema.as_ref().unwrap();
        let message_type = if message.channel.topic == TOPICS[0] { PointCloud2::TYPE } else { TFMessage::TYPE };
        assert_eq!(
            (schema.name.as_str(), schema.encoding.as_str(), message.channel.message_encoding.as_str()),
            (message_type.ros, "ros2msg", "cdr")
        );
        assert_eq!(schema.data, message_type.definition.as_bytes());
        assert_eq!(message.channel.metadata["topic_type_hash"], message_type.type_hash);
        assert!(message.channel.metadata["offered_qos_profiles"].starts_with("[{"));
        sequences.entry(message.channel.topic.clone()).or_default().push(message.sequence);
    }
    assert_eq!(sequences.values().map(Vec::len).sum::<usize>(), N_MESSAGES);
    assert!(sequences.values().all(|numbers| numbers.iter().enumerate().all(|(i, &number)| number == i as u32)), "{sequences:?}");
}

#[test]
fn same_calls_give_the_same_bytes() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let outer = tempfile::tempdir().unwrap();
        let files = ["first", "second"].map(|parent| {
            let folder = outer.path().join(parent).join("bag");
            write_bag(&folder, compression);
            ["bag_0.mcap", "metadata.yaml"].map(|name| std::fs::read(folder.join(name)).unwrap())
        });
        assert!(files[0] == files[1], "{compression:?}");
        assert!(!files[0][1].is_empty());
    }
}

#[test]
fn bag_without_messages_reads_back() {
    let outer = tempfile::tempdir().unwrap();
    for (name, n_topics) in [("bare", 0), ("one", 1)] {
        let folder = outer.path().join(name);
        let mut writer = BagWriter::create(&folder, &WriterOptions::default()).unwrap();
        if n_topics == 1 {
            writer.add_topic(TOPICS[0], PointCloud2::TYPE, OfferedQos::SENSOR).unwrap();
        }
        writer.finish().unwrap();
        let bag = BagReader::open(&folder).unwrap();
        assert_eq!((bag.topics().len(), bag.messages(|_| true).count(), bag.notes().len()), (n_topics, 0, 0), "{name}");
    }
}

#[test]
fn writer_refuses_what_would_make_a_wrong_bag() {
    let outer = tempfile::tempdir().unwrap();
    let options = WriterOptions::default();
    let folder = outer.path().join("bag");
    write_bag(&folder, Compression::None);
    let before = std::fs::read(folder.join("bag_0.mcap")).unwrap();
    let file = outer.path().join("plain.txt");
    std::fs::write(&file, "x").unwrap();
    for path in [&folder, &file] {
        let Err(error) = BagWriter::create(path, &options) else { panic!("{} was overwritten", path.display()) };
        assert_eq!(error.to_string(), format!("{}: already exists; a bag is only written to a new place", path.display()));
    }
    assert!(matches!(BagWriter::file(folder.join("bag_0.mcap"), &options), Err(BagError::Exists { .. })));
    assert!(std::fs::read(folder.join("bag_0.mcap")).unwrap() == before);
    assert!(matches!(BagWriter::file(outer.path().join("absent/bag.mcap"), &options), Err(BagError::Io { .. })));

    let mut writer = BagWriter::file(outer.path().join("new.mcap"), &options).unwrap();
    let points = writer.add_topic("/points", PointCloud2::TYPE, OfferedQos::SENSOR).unwrap();
    let twice = writer.add_topic("/points", TFMessage::TYPE, OfferedQos::SENSOR).unwrap_err().to_string();
    assert_eq!(
        twice,
        "topic /points is already in the bag with type sensor_msgs/msg/PointCloud2, got it again with tf2_msgs/msg/TFMessage"
    );
    let early = writer.write(points, -1, &[0]).unwrap_err().to_string();
    assert_eq!(early, "topic /points: log time -1 ns is negative, mcap holds 0 and later");
    let mut other = BagWriter::file(outer.path().join("other.mcap"), &options).unwrap();
    let foreign = other.write(points, 0, &[0]).unwrap_err().to_string();
    assert_eq!(foreign, "topic id 0 is unknown, the bag has 0 topics");
}
