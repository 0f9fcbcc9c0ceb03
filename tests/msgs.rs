//! ROS messages: bytes, names and hashes against a foreign library and genuine recordings.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use pivotal::msgs::autoware_perception_msgs::DetectedObjects;
use pivotal::msgs::cdr::{CdrError, from_bytes, to_bytes};
use pivotal::msgs::diagnostic_msgs::DiagnosticArray;
use pivotal::msgs::lifecycle_msgs::TransitionEvent;
use pivotal::msgs::pivotal_msgs::{Float64Stamped, FrameReport};
use pivotal::msgs::rcl_interfaces::{Log, ParameterEvent};
use pivotal::msgs::sensor_msgs::{PointCloud2, PointCloud2Ref};
use pivotal::msgs::std_msgs::Header;
use pivotal::msgs::tf2_msgs::TFMessage;
use pivotal::msgs::vision_msgs::Detection3DArray;
use pivotal::msgs::visualization_msgs::MarkerArray;
use pivotal::msgs::{Message, MsgType};
use pivotal::time::Stamp;
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{self, borrowed};

/// One entry of `msgs/vectors.json`, made by `msgs/vectors.py`.
struct Vector {
    little_endian: Vec<u8>,
    big_endian: Vec<u8>,
    type_hash: String,
    value: Value,
}

fn vectors() -> BTreeMap<String, Vector> {
    let text = include_str!("msgs/vectors.json");
    let entries: Vec<Value> = serde_json::from_str(text).unwrap();
    let string = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    entries
        .iter()
        .map(|entry| {
            let vector = Vector {
                little_endian: from_hex(&string(entry, "little_endian")),
                big_endian: from_hex(&string(entry, "big_endian")),
                type_hash: string(entry, "type_hash"),
                value: entry["value"].clone(),
            };
            (string(entry, "type"), vector)
        })
        .collect()
}

fn from_hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

const TYPES: [MsgType; 11] = [
    PointCloud2::TYPE,
    Detection3DArray::TYPE,
    MarkerArray::TYPE,
    DiagnosticArray::TYPE,
    TFMessage::TYPE,
    FrameReport::TYPE,
    ParameterEvent::TYPE,
    Log::TYPE,
    TransitionEvent::TYPE,
    DetectedObjects::TYPE,
    Float64Stamped::TYPE,
];

fn assert_same_bytes_as_rosbags<M: Message>() {
    let vectors = vectors();
    let vector = &vectors[M::TYPE.ros];
    for bytes in [&vector.little_endian, &vector.big_endian] {
        let message: M = from_bytes(bytes).unwrap_or_else(|fault| panic!("{}: {fault}", M::TYPE.ros));
        assert_eq!(serde_json::to_value(&message).unwrap(), vector.value, "{}", M::TYPE.ros);
        let mut padded = vector.little_endian.clone();
        padded.resize(padded.len().next_multiple_of(4), 0);
        assert_eq!(to_bytes(&message), padded, "{}", M::TYPE.ros);
    }
}

#[test]
fn rosbags_bytes_of_every_message_match() {
    assert_same_bytes_as_rosbags::<PointCloud2>();
    assert_same_bytes_as_rosbags::<Detection3DArray>();
    assert_same_bytes_as_rosbags::<MarkerArray>();
    assert_same_bytes_as_rosbags::<DiagnosticArray>();
    assert_same_bytes_as_rosbags::<TFMessage>();
    assert_same_bytes_as_rosbags::<FrameReport>();
    assert_same_bytes_as_rosbags::<ParameterEvent>();
    assert_same_bytes_as_rosbags::<Log>();
    assert_same_bytes_as_rosbags::<TransitionEvent>();
    assert_same_bytes_as_rosbags::<DetectedObjects>();
    assert_same_bytes_as_rosbags::<Float64Stamped>();
    assert_eq!(vectors().len(), TYPES.len());
}

#[test]
fn borrowed_cloud_reads_the_same_bytes_without_copying_points() {
    let bytes = &vectors()[PointCloud2::TYPE.ros].little_endian;
    let owned: PointCloud2 = from_bytes(bytes).unwrap();
    let in_place: PointCloud2Ref = from_bytes(bytes).unwrap();
    assert_eq!(in_place, borrowed(&owned));
    assert!(bytes.as_ptr_range().contains(&in_place.data.as_ptr()));
    assert_eq!(to_bytes(&in_place), to_bytes(&owned));
}

#[test]
fn definition_text_gives_the_type_hash_of_rosbags() {
    let vectors = vectors();
    for ty in TYPES {
        let hash = rihs01(ty);
        assert_eq!(hash, ty.type_hash, "{}", ty.ros);
        assert_eq!(hash, vectors[ty.ros].type_hash, "{}", ty.ros);
    }
}

#[test]
fn recorded_type_hash_of_clouds_matches() {
    let metadata = fs::read_to_string(support::shared("data/rosbag2/clouds_mcap/metadata.yaml")).unwrap();
    assert!(metadata.contains(PointCloud2::TYPE.type_hash));
}

#[test]
fn own_definition_files_are_the_definitions_sent_and_explain_every_field() {
    assert!(FrameReport::TYPE.definition.starts_with(include_str!("../msg/FrameReport.msg")));
    assert!(Float64Stamped::TYPE.definition.starts_with(include_str!("../msg/Float64Stamped.msg")));
    let texts = [FrameReport::TYPE, Float64Stamped::TYPE].map(|own| own.definition.split("====").next().unwrap());
    for line in texts.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        assert!(line.contains(" # "), "no comment on: {line}");
    }
}

#[test]
fn dds_name_is_the_ros_name_mangled() {
    for ty in TYPES {
        let (package, name) = ty.ros.split_once("/msg/").unwrap();
        assert_eq!(ty.dds, format!("{package}::msg::dds_::{name}_"));
    }
}

#[test]
fn genuine_recordings_come_back_byte_for_byte() {
    let mut counts = BTreeMap::new();
    for bag in ["clouds_mcap/clouds_mcap.mcap", "sick_mcap/sick_mcap.mcap"] {
        let file = fs::read(support::shared(&format!("data/rosbag2/{bag}"))).unwrap();
        for message in mcap::MessageStream::new(&file).unwrap().map(Result::unwrap) {
            let schema = message.channel.schema.as_ref().unwrap().name.clone();
            let again = match schema.as_str() {
                "sensor_msgs/msg/PointCloud2" => to_bytes(&from_bytes::<PointCloud2>(&message.data).unwrap()),
                "tf2_msgs/msg/TFMessage" => to_bytes(&from_bytes::<TFMessage>(&message.data).unwrap()),
                _ => continue,
            };
            // What follows the last field is padding, whose length is the writer's choice.
            assert!(again.len().abs_diff(message.data.len()) < 4);
            let common = again.len().min(message.data.len());
            assert!(again[..common] == message.data[..common], "{bag} {}", message.channel.topic);
            *counts.entry(schema).or_insert(0) += 1;
        }
    }
    let expected = [("sensor_msgs/msg/PointCloud2".to_owned(), 343), ("tf2_msgs/msg/TFMessage".to_owned(), 17)];
    assert_eq!(counts, BTreeMap::from(expected));
}

#[test]
fn stamp_survives_a_header() {
    for nanos in [0, 1_700_000_000_123_456_789, -1] {
        let header = Header::new(Stamp { nanos }, "lidar");
        assert_eq!(Stamp::from(header.stamp), Stamp { nanos });
    }
}

#[test]
fn payload_length_is_always_a_multiple_of_four() {
    for length in 0..8 {
        let bytes = to_bytes(&Header::new(Stamp::default(), "x".repeat(length)));
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(from_bytes::<Header>(&bytes).unwrap().frame_id.len(), length);
    }
}

#[test]
fn broken_bytes_are_refused_with_place_and_reason() {
    let header = to_bytes(&Header::new(Stamp { nanos: 1_000_000_002 }, "lidar"));
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = header.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let cases = [
        (vec![], "a CDR message begins with a header of 4 bytes, got 0 bytes"),
        (vec![0, 1, 0], "a CDR message begins with a header of 4 bytes, got 3 bytes"),
        (with(0, &[0, 3]), "CDR encapsulation is 0x0003, expected 0x0000 (big-endian) or 0x0001 (little-endian)"),
        (header[..14].to_vec(), "Header after 8 of 10 body bytes: unexpected end of input"),
        (with(12, &[255, 255, 255, 255]), "Header after 12 of 20 body bytes: unexpected end of input"),
        (with(16, &[0xff]), "Header after 18 of 20 body bytes: UTF-8 error: invalid utf-8 sequence of 1 bytes from index 0"),
        ([&header[..], &[0; 8]].concat(), "Header takes 18 body bytes and up to 7 of padding, got 28"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(from_bytes::<Header>(&bytes).unwrap_err().to_string(), expected);
    }
}

#[test]
fn false_sequence_length_is_refused_before_memory_is_taken() {
    // A MarkerArray that claims 4 294 967 295 markers.
    let fault = from_bytes::<MarkerArray>(&[0, 1, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0]).unwrap_err();
    assert!(matches!(fault, CdrError::Body { len: 8, .. }), "{fault}");
}

fn read_as_everything(bytes: &[u8]) {
    let _ = from_bytes::<PointCloud2Ref>(bytes);
    let _ = from_bytes::<PointCloud2>(bytes);
    let _ = from_bytes::<Detection3DArray>(bytes);
    let _ = from_bytes::<MarkerArray>(bytes);
    let _ = from_bytes::<DiagnosticArray>(bytes);
    let _ = from_bytes::<TFMessage>(bytes);
    let _ = from_bytes::<FrameReport>(bytes);
    let _ = from_bytes::<ParameterEvent>(bytes);
    let _ = from_bytes::<Log>(bytes);
    let _ = from_bytes::<TransitionEvent>(bytes);
    let _ = from_bytes::<DetectedObjects>(bytes);
    let _ = from_bytes::<Float64Stamped>(bytes);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), order in 0u8..2) {
        if bytes.len() > 4 {
            bytes[..2].copy_from_slice(&[0, order]);
        }
        read_as_everything(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(
        which in 0..TYPES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = vectors()[TYPES[which].ros].little_endian.clone();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(length.index(bytes.len()) + 1);
        read_as_everything(&bytes);
    }
}

/// REP 2016's hash of a definition text: SHA-256 over the type descriptions as JSON, nested ones sorted by name.
fn rihs01(ty: MsgType) -> String {
    let separator = format!("{}\n", "=".repeat(80));
    let mut blocks = ty.definition.split(&separator);
    let own = struct_json(ty.ros, blocks.next().unwrap());
    let nested: BTreeMap<String, String> = blocks
        .map(|block| {
            let (title, body) = block.split_once('\n').unwrap();
            let (package, name) = title.strip_prefix("MSG: ").unwrap().split_once('/').unwrap();
            let full = format!("{package}/msg/{name}");
            (full.clone(), struct_json(&full, body))
        })
        .collect();
    for (full, json) in [(ty.ros, &own)].into_iter().chain(nested.iter().map(|(full, json)| (full.as_str(), json))) {
        for used in json.split("\"nested_type_name\": \"").skip(1).map(|tail| tail.split('"').next().unwrap()) {
            assert!(used.is_empty() || nested.contains_key(used), "{full} uses {used}, which is not in the text");
        }
    }
    let nested = nested.into_values().collect::<Vec<_>>().join(", ");
    let json = format!("{{\"type_description\": {own}, \"referenced_type_descriptions\": [{nested}]}}");
    Sha256::digest(json).iter().fold("RIHS01_".to_owned(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn struct_json(full_name: &str, body: &str) -> String {
    let package = full_name.split('/').next().unwrap();
    let lines = body.lines().map(|line| line.split('#').next().unwrap().trim());
    let fields: Vec<String> = lines
        .filter(|line| !line.is_empty() && !line.contains('='))
        .map(|line| {
            let (kind, name) = line.split_once(' ').unwrap();
            let (element, capacity, increment) = match kind.strip_suffix(']').map(|kind| kind.split_once('[').unwrap()) {
                None => (kind, 0, 0),
                Some((element, "")) => (element, 0, 144),
                Some((element, size)) => (element, size.parse().unwrap(), 48),
            };
            let (id, nested) = match primitive(element) {
                Some(id) => (id, String::new()),
                None => (1, element.split_once('/').map_or(format!("{package}/msg/{element}"), |(p, n)| format!("{p}/msg/{n}"))),
            };
            format!(
                "{{\"name\": \"{}\", \"type\": {{\"type_id\": {}, \"capacity\": {capacity}, \"string_capacity\": 0, \
                 \"nested_type_name\": \"{nested}\"}}}}",
                name.trim(),
                id + increment
            )
        })
        .collect();
    format!("{{\"type_name\": \"{full_name}\", \"fields\": [{}]}}", fields.join(", "))
}

/// The numbers of `type_description_interfaces/FieldType`.
fn primitive(name: &str) -> Option<u32> {
    let names = [
        "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "", "", "", "bool",
        "byte", "string",
    ];
    names.iter().position(|known| *known == name).map(|at| at as u32 + 2)
}
