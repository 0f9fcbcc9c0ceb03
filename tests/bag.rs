//! Tests of `bag`: genuine recordings, bags of an independent library, hand-made metadata, damage, and our own writing.

mod damage;
mod expected;
mod folders;
mod writing;

use std::path::Path;

use pivotal::bag::{BagMessage, BagReader, BagWriter, Compression, Loss, OfferedQos, WriterOptions};
use pivotal::msgs::Message;
use pivotal::msgs::sensor_msgs::PointCloud2;
use pivotal::msgs::tf2_msgs::TFMessage;
use rusqlite::{Connection, params};

/// Everything a bag gives: messages and losses apart.
fn read_all(bag: &BagReader) -> (Vec<BagMessage>, Vec<Loss>) {
    let (mut messages, mut losses) = (Vec::new(), Vec::new());
    for item in bag.messages(|_| true) {
        match item {
            Ok(message) => messages.push(message),
            Err(loss) => losses.push(loss),
        }
    }
    (messages, losses)
}

/// Topic and bytes of the i-th message that [`write_mcap`] and [`write_sqlite`] put into their files: 60 to 95 bytes that no
/// other message has.
fn message(i: usize) -> (usize, Vec<u8>) {
    let mut data = vec![0, 1, 0, 0];
    data.extend((0..56 + i % 36).map(|k| (i * 31 + k * k * 7) as u8));
    (usize::from(i.is_multiple_of(3)), data)
}

const TOPICS: [&str; 2] = ["/points", "/tf"];

/// An mcap file with the numbered messages at 1000 ns, 1010 ns and so on.
fn write_mcap(path: &Path, messages: impl IntoIterator<Item = usize>, compression: Compression) {
    let mut writer = BagWriter::file(path, &WriterOptions { compression }).unwrap();
    let topics = [
        writer.add_topic(TOPICS[0], PointCloud2::TYPE, OfferedQos::SENSOR).unwrap(),
        writer.add_topic(TOPICS[1], TFMessage::TYPE, OfferedQos::RELIABLE).unwrap(),
    ];
    for i in messages {
        let (topic, data) = message(i);
        writer.write(topics[topic], time_ns(i), &data).unwrap();
    }
    writer.finish().unwrap();
}

fn time_ns(i: usize) -> i64 {
    1000 + 10 * i as i64
}

/// A sqlite3 file of schema 1, 2, 3 or 4 with the same messages; topic `k` has the id `ids[k]`.
fn write_sqlite(path: &Path, schema: u32, ids: [i64; 2], messages: impl IntoIterator<Item = usize>) {
    let db = Connection::open(path).unwrap();
    let qos = if schema >= 2 { ", offered_qos_profiles TEXT NOT NULL DEFAULT ''" } else { "" };
    let hash = if schema >= 4 { ", type_description_hash TEXT NOT NULL DEFAULT 'RIHS01_00'" } else { "" };
    let head =
        if schema >= 3 { "CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);" } else { "" };
    db.execute_batch(&format!(
        "PRAGMA page_size = 512; PRAGMA synchronous = OFF; BEGIN; {head}
         CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, serialization_format TEXT NOT NULL{qos}{hash});
         CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, data BLOB NOT NULL);
         CREATE INDEX timestamp_idx ON messages (timestamp ASC);"
    ))
    .unwrap();
    for (k, type_name) in [(0, PointCloud2::TYPE.ros), (1, TFMessage::TYPE.ros)] {
        let row = params![ids[k], TOPICS[k], type_name];
        db.execute("INSERT INTO topics(id, name, type, serialization_format) VALUES (?1, ?2, ?3, 'cdr')", row).unwrap();
    }
    for i in messages {
        let (topic, data) = message(i);
        let row = params![ids[topic], time_ns(i), data];
        db.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (?1, ?2, ?3)", row).unwrap();
    }
    db.execute_batch("COMMIT").unwrap();
}
