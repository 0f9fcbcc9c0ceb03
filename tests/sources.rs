//! Frames by index from everything that `--data` takes.

mod bags;
mod convert;
mod inspect;
mod open;
mod recorded;

use std::path::Path;

use pivotal::bag::{BagWriter, OfferedQos, WriterOptions};
use pivotal::data::{DataError, Label, Sample, Source};
use pivotal::geometry::Box3d;
use pivotal::msgs::builtin_interfaces::Time;
use pivotal::msgs::geometry_msgs::{Quaternion, Transform, TransformStamped, Vector3};
use pivotal::msgs::sensor_msgs::{PointCloud2, PointField};
use pivotal::msgs::std_msgs::Header;
use pivotal::msgs::tf2_msgs::TFMessage;
use pivotal::msgs::vision_msgs::Detection3DArray;
use pivotal::msgs::{Message, cdr};

/// First stamp of the bags made here.
const T0_NS: i64 = 1_700_000_000_000_000_000;
const STEP_NS: i64 = 100_000_000;

fn load_all(source: &dyn Source) -> Vec<Result<Sample, DataError>> {
    (0..source.len()).map(|index| source.load(0, index)).collect()
}

fn header(stamp_ns: i64, frame_id: &str) -> Header {
    let stamp = Time { sec: (stamp_ns / 1_000_000_000) as i32, nanosec: (stamp_ns % 1_000_000_000) as u32 };
    Header { stamp, frame_id: frame_id.to_owned() }
}

/// x, y, z, intensity as f32.
fn cloud(stamp_ns: i64, frame_id: &str, points: &[[f32; 4]]) -> PointCloud2 {
    let data: Vec<u8> = points.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let names = ["x", "y", "z", "intensity"];
    PointCloud2 {
        header: header(stamp_ns, frame_id),
        height: 1,
        width: points.len() as u32,
        fields: names.iter().zip(0..).map(|(name, idx)| PointField::scalar(name, 4 * idx, PointField::FLOAT32)).collect(),
        is_bigendian: false,
        point_step: 16,
        row_step: data.len() as u32,
        data,
        is_dense: true,
    }
}

fn car_at(x: f64) -> Label {
    Label {
        box3d: Box3d::from_row([x, 1.0, 0.5, 4.0, 2.0, 1.5, 0.25]),
        class: "car".to_owned(),
        track_id: Some("7".to_owned()),
        n_points: Some(12),
        difficulty: Some(1),
        velocity_mps: Some([1.0, -2.0]),
    }
}

fn labels(stamp_ns: i64, frame_id: &str, labels: &[Label]) -> Detection3DArray {
    pivotal::data::labels::message_of_labels(labels, &header(stamp_ns, frame_id))
}

/// `parent` from `child` with a turn about z.
fn edge(stamp_ns: i64, parent: &str, child: &str, [x, y, z]: [f64; 3], yaw: f64) -> TFMessage {
    let rotation = Quaternion { x: 0.0, y: 0.0, z: (yaw / 2.0).sin(), w: (yaw / 2.0).cos() };
    let transform = Transform { translation: Vector3 { x, y, z }, rotation };
    TFMessage {
        transforms: vec![TransformStamped { header: header(stamp_ns, parent), child_frame_id: child.to_owned(), transform }],
    }
}

/// A message of a bag made here, logged at its time.
enum Entry {
    Cloud(PointCloud2),
    Labels(Detection3DArray),
    Tf(TFMessage),
    TfStatic(TFMessage),
    Raw(&'static str, i64, Vec<u8>),
}

const CLOUDS: &str = "/points";
const LABELS: &str = "/ground_truth/objects";

fn write_bag(folder: &Path, entries: &[Entry]) {
    let mut bag = BagWriter::create(folder, &WriterOptions::default()).unwrap();
    let topics = [
        (CLOUDS, bag.add_topic(CLOUDS, PointCloud2::TYPE, OfferedQos::SENSOR).unwrap()),
        (LABELS, bag.add_topic(LABELS, Detection3DArray::TYPE, OfferedQos::RELIABLE).unwrap()),
        ("/tf", bag.add_topic("/tf", TFMessage::TYPE, OfferedQos::RELIABLE).unwrap()),
        ("/tf_static", bag.add_topic("/tf_static", TFMessage::TYPE, OfferedQos::LATCHED).unwrap()),
    ];
    let id_of = |name: &str| topics.iter().find(|(known, _)| *known == name).unwrap().1;
    let nanos = |header: &Header| i64::from(header.stamp.sec) * 1_000_000_000 + i64::from(header.stamp.nanosec);
    for entry in entries {
        let (topic, time_ns, bytes) = match entry {
            Entry::Cloud(message) => (CLOUDS, nanos(&message.header), cdr::to_bytes(message)),
            Entry::Labels(message) => (LABELS, nanos(&message.header), cdr::to_bytes(message)),
            Entry::Tf(message) => ("/tf", nanos(&message.transforms[0].header), cdr::to_bytes(message)),
            Entry::TfStatic(message) => ("/tf_static", nanos(&message.transforms[0].header), cdr::to_bytes(message)),
            Entry::Raw(topic, time_ns, bytes) => (*topic, *time_ns, bytes.clone()),
        };
        bag.write(id_of(topic), time_ns, &bytes).unwrap();
    }
    bag.finish().unwrap();
}
