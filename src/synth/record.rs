//! Drives as rosbag2.
//!
//! | topic | type | content |
//! | --- | --- | --- |
//! | `/lidar/points` | `sensor_msgs/PointCloud2` | x, y, z, intensity, elongation, time (seconds after the stamp) as f32, ring as u16, in `base_link` |
//! | `/ground_truth/objects` | `vision_msgs/Detection3DArray` | the labels with at least one point, in `base_link` |
//! | `/tf` | `tf2_msgs/TFMessage` | `odom` to `base_link` |
//! | `/tf_static` | `tf2_msgs/TFMessage` | `base_link` to the frame of each laser, once |
//!
//! # Labels as detections
//! `id` is the track. `results[0]` holds the class with score 1. What `vision_msgs` has no field for follows as further
//! results whose `class_id` is `key=value` and whose score is 0, so that programs that take the best hypothesis never see
//! it: `num_lidar_points=37`, `difficulty=1`, `velocity_mps=3.25,-0.5` (over ground, along the axes of the header's frame).
//! [`labels_from_message`] reads it back.

use std::path::Path;

use nalgebra::{Isometry3, UnitQuaternion, Vector3};

use super::{Difficulty, Drive, DriveConfig, EGO_FRAME, Frame, LabeledBox, ObjectClass, SynthError, WORLD_FRAME, shape};
use crate::bag::{BagWriter, OfferedQos, WriterOptions};
use crate::geometry::{Box3d, wrap_angle};
use crate::msgs::geometry_msgs as geometry;
use crate::msgs::sensor_msgs::{PointCloud2, PointField};
use crate::msgs::std_msgs::Header;
use crate::msgs::tf2_msgs::TFMessage;
use crate::msgs::vision_msgs::{BoundingBox3D, Detection3D, Detection3DArray, ObjectHypothesis, ObjectHypothesisWithPose};
use crate::msgs::{Message, cdr};
use crate::time::Stamp;

/// Topic of the clouds.
pub const CLOUD_TOPIC: &str = "/lidar/points";
/// Topic of the labels.
pub const LABEL_TOPIC: &str = "/ground_truth/objects";

const POINT_STEP: u32 = 28;
/// Key of the number of points inside a label.
pub const POINTS_KEY: &str = "num_lidar_points";
/// Key of the difficulty of a label, 1 or 2.
pub const DIFFICULTY_KEY: &str = "difficulty";
/// Key of the velocity of a label.
pub const VELOCITY_KEY: &str = "velocity_mps";

/// What has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BagTotals {
    /// Clouds.
    pub n_frames: usize,
    /// Points of all clouds.
    pub n_points: u64,
    /// Labels by class, in the order of [`ObjectClass::ALL`].
    pub n_boxes: [u64; 3],
}

/// Writes one drive as a new bag folder; `progress` is told the totals after every frame. Returns the last of them.
///
/// # Errors
/// What is wrong with the configuration, or with writing to `folder`.
pub fn write_bag(config: &DriveConfig, folder: &Path, progress: &mut dyn FnMut(&BagTotals)) -> Result<BagTotals, SynthError> {
    let drive = Drive::new(config)?;
    let mut bag = BagWriter::create(folder, &WriterOptions::default())?;
    let clouds = bag.add_topic(CLOUD_TOPIC, PointCloud2::TYPE, OfferedQos::SENSOR)?;
    let labels = bag.add_topic(LABEL_TOPIC, Detection3DArray::TYPE, OfferedQos::RELIABLE)?;
    let moving = bag.add_topic("/tf", TFMessage::TYPE, OfferedQos::RELIABLE)?;
    let fixed = bag.add_topic("/tf_static", TFMessage::TYPE, OfferedQos::LATCHED)?;
    bag.write(fixed, drive.stamp(0).nanos, &cdr::to_bytes(&mounts_message(&drive)))?;
    let mut totals = BagTotals::default();
    for index in 0..config.n_frames {
        let frame = drive.frame(index)?;
        let stamp = frame.cloud.stamp;
        let edge = edge(stamp, WORLD_FRAME, EGO_FRAME, &frame.world_from_ego);
        bag.write(moving, stamp.nanos, &cdr::to_bytes(&TFMessage { transforms: vec![edge] }))?;
        bag.write(clouds, stamp.nanos, &cdr::to_bytes(&cloud_message(&frame)))?;
        bag.write(labels, stamp.nanos, &cdr::to_bytes(&label_message(&frame)))?;
        totals.n_frames += 1;
        totals.n_points += frame.cloud.n_points() as u64;
        for label in &frame.boxes {
            totals.n_boxes[label.class as usize] += 1;
        }
        progress(&totals);
    }
    bag.finish()?;
    Ok(totals)
}

/// The cloud of a frame as a sensor driver would publish it.
pub fn cloud_message(frame: &Frame) -> PointCloud2 {
    let mut data = Vec::with_capacity(frame.cloud.n_points() * POINT_STEP as usize);
    for ((row, ring), offset) in frame.cloud.rows().zip(&frame.rings).zip(&frame.time_offsets_s) {
        for value in row {
            data.extend_from_slice(&value.to_le_bytes());
        }
        data.extend_from_slice(&offset.to_le_bytes());
        data.extend_from_slice(&ring.to_le_bytes());
        data.extend_from_slice(&[0; 2]);
    }
    let names = ["x", "y", "z", "intensity", "elongation", "time"];
    let mut fields: Vec<PointField> =
        (names.iter().zip(0..)).map(|(name, column)| PointField::scalar(name, 4 * column, PointField::FLOAT32)).collect();
    fields.push(PointField::scalar("ring", 24, PointField::UINT16));
    PointCloud2 {
        header: Header::new(frame.cloud.stamp, EGO_FRAME),
        height: 1,
        width: frame.cloud.n_points() as u32,
        fields,
        is_bigendian: false,
        point_step: POINT_STEP,
        row_step: data.len() as u32,
        data,
        is_dense: true,
    }
}

/// The labels of a frame; the module header says how.
pub fn label_message(frame: &Frame) -> Detection3DArray {
    let header = Header::new(frame.cloud.stamp, EGO_FRAME);
    let detections = frame.boxes.iter().map(|label| detection(label, &header)).collect();
    Detection3DArray { header, detections }
}

fn detection(label: &LabeledBox, header: &Header) -> Detection3D {
    let ([x, y, z], [dx, dy, dz]) = (label.box3d.center, label.box3d.size);
    let turn = UnitQuaternion::from_axis_angle(&Vector3::z_axis(), label.box3d.yaw);
    let pose = geometry::Pose { position: geometry::Point { x, y, z }, orientation: quaternion(&turn) };
    let result = |class_id: String, score: f64| ObjectHypothesisWithPose {
        hypothesis: ObjectHypothesis { class_id, score },
        pose: geometry::PoseWithCovariance { pose, ..Default::default() },
    };
    let [vx, vy] = label.velocity_mps;
    Detection3D {
        header: header.clone(),
        results: vec![
            result(label.class.name().to_owned(), 1.0),
            result(format!("{POINTS_KEY}={}", label.n_points), 0.0),
            result(format!("{DIFFICULTY_KEY}={}", label.difficulty.level()), 0.0),
            result(format!("{VELOCITY_KEY}={vx},{vy}"), 0.0),
        ],
        bbox: BoundingBox3D { center: pose, size: geometry::Vector3 { x: dx, y: dy, z: dz } },
        id: label.track_id.to_string(),
    }
}

/// The labels of a message that [`write_bag`] wrote.
///
/// # Errors
/// A detection that lacks something of the convention, by its index and key.
pub fn labels_from_message(message: &Detection3DArray) -> Result<Vec<LabeledBox>, SynthError> {
    message.detections.iter().enumerate().map(|(index, detection)| label(index, detection)).collect()
}

fn label(index: usize, detection: &Detection3D) -> Result<LabeledBox, SynthError> {
    let fault = |key: &'static str, got: &str| SynthError::Label { index, key, got: got.to_owned() };
    let value_of = |key: &'static str| {
        let found = detection.results.iter().find_map(|result| result.hypothesis.class_id.strip_prefix(key)?.strip_prefix('='));
        found.ok_or_else(|| fault(key, "nothing"))
    };
    let named = detection.results.first().map_or("nothing", |result| result.hypothesis.class_id.as_str());
    let class = ObjectClass::ALL.into_iter().find(|class| class.name() == named).ok_or_else(|| fault("class", named))?;
    let (points, level, velocity) = (value_of(POINTS_KEY)?, value_of(DIFFICULTY_KEY)?, value_of(VELOCITY_KEY)?);
    let difficulty = match level {
        "1" => Difficulty::Level1,
        "2" => Difficulty::Level2,
        other => return Err(fault(DIFFICULTY_KEY, other)),
    };
    let velocity_mps = velocity
        .split_once(',')
        .and_then(|(vx, vy)| Some([vx.parse().ok()?, vy.parse().ok()?]))
        .ok_or_else(|| fault(VELOCITY_KEY, velocity))?;
    let (position, turn) = (detection.bbox.center.position, detection.bbox.center.orientation);
    let size = detection.bbox.size;
    Ok(LabeledBox {
        box3d: Box3d {
            center: [position.x, position.y, position.z],
            size: [size.x, size.y, size.z],
            yaw: wrap_angle(2.0 * turn.z.atan2(turn.w)),
        },
        class,
        track_id: detection.id.parse().map_err(|_| fault("id", &detection.id))?,
        n_points: points.parse().map_err(|_| fault(POINTS_KEY, points))?,
        difficulty,
        velocity_mps,
    })
}

fn mounts_message(drive: &Drive) -> TFMessage {
    let mount = |laser: &super::sensor::LaserSpec| {
        edge(drive.stamp(0), EGO_FRAME, laser.name, &shape::upright(laser.mount_m, laser.mount_yaw_rad))
    };
    TFMessage { transforms: drive.lasers().iter().map(mount).collect() }
}

fn edge(stamp: Stamp, parent: &str, child: &str, parent_from_child: &Isometry3<f64>) -> geometry::TransformStamped {
    let shift = parent_from_child.translation.vector;
    geometry::TransformStamped {
        header: Header::new(stamp, parent),
        child_frame_id: child.to_owned(),
        transform: geometry::Transform {
            translation: geometry::Vector3 { x: shift.x, y: shift.y, z: shift.z },
            rotation: quaternion(&parent_from_child.rotation),
        },
    }
}

fn quaternion(rotation: &UnitQuaternion<f64>) -> geometry::Quaternion {
    geometry::Quaternion { x: rotation.i, y: rotation.j, z: rotation.k, w: rotation.w }
}
