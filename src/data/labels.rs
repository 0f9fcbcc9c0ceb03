//! Labels as `vision_msgs/Detection3DArray`, read leniently and written in one convention.
//!
//! The class is the hypothesis with the highest score. What `vision_msgs` has no field for stands in further hypotheses
//! whose `class_id` is `key=value` and whose score is 0, as `synth::record` writes them.

use nalgebra::{Isometry3, Quaternion, UnitQuaternion, Vector3};

use super::Label;
use crate::geometry::{Box3d, wrap_angle};
use crate::msgs::geometry_msgs as geometry;
use crate::msgs::std_msgs::Header;
use crate::msgs::vision_msgs::{BoundingBox3D, Detection3D, Detection3DArray, ObjectHypothesis, ObjectHypothesisWithPose};
use crate::synth::record::{DIFFICULTY_KEY, POINTS_KEY, VELOCITY_KEY};

/// Boxes stand upright in the frame of their cloud. A frame or box that tilts more than this is a mistake, for instance a
/// camera's frame.
pub const MAX_TILT_RAD: f64 = 0.35;

/// Quaternions are written in f32 by some; shorter ones than this are missing, not inexact.
const MIN_QUATERNION_NORM: f64 = 1e-3;

/// A label that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label {index}: {reason}")]
pub struct LabelFault {
    /// Index in its message or line.
    pub index: usize,
    /// Both sides.
    pub reason: String,
}

/// The usable labels of a message, in its own frame, and what is wrong with the others.
pub fn labels_of_message(message: &Detection3DArray) -> (Vec<Label>, Vec<LabelFault>) {
    let (mut labels, mut faults) = (Vec::new(), Vec::new());
    for (index, detection) in message.detections.iter().enumerate() {
        match label_of(detection) {
            Ok(label) => labels.push(label),
            Err(reason) => faults.push(LabelFault { index, reason }),
        }
    }
    (labels, faults)
}

fn label_of(detection: &Detection3D) -> Result<Label, String> {
    let mut label = Label {
        box3d: Box3d::from_row([0.0; 7]),
        class: String::new(),
        track_id: (!detection.id.is_empty()).then(|| detection.id.clone()),
        n_points: None,
        difficulty: None,
        velocity_mps: None,
    };
    let mut best_score = f64::NEG_INFINITY;
    for ObjectHypothesis { class_id, score } in detection.results.iter().map(|result| &result.hypothesis) {
        let is_extra = class_id.split_once('=').map(|(key, value)| extra(&mut label, key, value)).transpose()?.unwrap_or(false);
        if !is_extra && *score > best_score {
            best_score = *score;
            label.class.clone_from(class_id);
        }
    }
    if label.class.is_empty() {
        return Err(format!("no class in its {} results", detection.results.len()));
    }
    let (position, size) = (detection.bbox.center.position, detection.bbox.size);
    let yaw = upright_yaw(detection.bbox.center.orientation)?;
    label.box3d = Box3d { center: [position.x, position.y, position.z], size: [size.x, size.y, size.z], yaw };
    check_box(&label.box3d)?;
    Ok(label)
}

/// Takes a `key=value` of the convention; false for any other text.
fn extra(label: &mut Label, key: &str, value: &str) -> Result<bool, String> {
    let fault = |expected: &str| format!("{key}={value}: expected {expected}");
    match key {
        POINTS_KEY => label.n_points = Some(value.parse().map_err(|_| fault("a count"))?),
        DIFFICULTY_KEY => {
            let level: u8 = value.parse().map_err(|_| fault("1 or 2"))?;
            label.difficulty = Some(level).filter(|level| (1..=2).contains(level));
            label.difficulty.ok_or_else(|| fault("1 or 2"))?;
        }
        VELOCITY_KEY => {
            let parsed = value.split_once(',').and_then(|(vx, vy)| Some([vx.parse().ok()?, vy.parse().ok()?]));
            let velocity: [f64; 2] = parsed.ok_or_else(|| fault("two numbers"))?;
            // Objects seen once have no velocity; tools write that as NaN.
            label.velocity_mps = Some(velocity).filter(|velocity| velocity.iter().all(|v| v.is_finite()));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Whether a box is one: finite, with extent.
///
/// # Errors
/// The row `[x, y, z, l, w, h, yaw]` and the rule.
pub fn check_box(box3d: &Box3d) -> Result<(), String> {
    let row = box3d.to_row();
    if !row.iter().all(|value| value.is_finite()) {
        return Err(format!("box {row:?}: expected finite numbers"));
    }
    if !box3d.size.iter().all(|&edge_m| edge_m > 0.0) {
        return Err(format!("box {row:?}: expected edges above 0"));
    }
    Ok(())
}

/// Heading of a box that may tilt a little.
fn upright_yaw(turn: geometry::Quaternion) -> Result<f64, String> {
    let turn = Quaternion::new(turn.w, turn.x, turn.y, turn.z);
    let norm = turn.norm();
    if !(norm.is_finite() && norm >= MIN_QUATERNION_NORM) {
        return Err(format!("orientation has norm {norm}, expected 1"));
    }
    yaw_after(&UnitQuaternion::from_quaternion(turn), 0.0)
}

/// Heading of the direction `yaw` after a rotation.
///
/// # Errors
/// When the rotation tilts z by more than [`MAX_TILT_RAD`].
pub fn yaw_after(rotation: &UnitQuaternion<f64>, yaw: f64) -> Result<f64, String> {
    let tilt_rad = (rotation * Vector3::z()).z.clamp(-1.0, 1.0).acos();
    if tilt_rad > MAX_TILT_RAD {
        return Err(format!("tilts by {tilt_rad:.2} rad, an upright box by at most {MAX_TILT_RAD}"));
    }
    let ahead = rotation * Vector3::new(yaw.cos(), yaw.sin(), 0.0);
    Ok(wrap_angle(ahead.y.atan2(ahead.x)))
}

/// The same label in another frame.
///
/// # Errors
/// When that frame does not stand upright in this one.
pub fn transform_label(to_from: &Isometry3<f64>, label: &mut Label) -> Result<(), String> {
    let yaw = yaw_after(&to_from.rotation, label.box3d.yaw)?;
    let center = to_from * nalgebra::Point3::from(label.box3d.center);
    label.box3d = Box3d { center: center.coords.into(), size: label.box3d.size, yaw };
    if let Some([vx, vy]) = label.velocity_mps {
        let velocity = to_from.rotation * Vector3::new(vx, vy, 0.0);
        label.velocity_mps = Some([velocity.x, velocity.y]);
    }
    Ok(())
}

/// Labels as a message, in the convention of the module header.
pub fn message_of_labels(labels: &[Label], header: &Header) -> Detection3DArray {
    let detections = labels.iter().map(|label| detection_of(label, header)).collect();
    Detection3DArray { header: header.clone(), detections }
}

fn detection_of(label: &Label, header: &Header) -> Detection3D {
    let ([x, y, z], [dx, dy, dz]) = (label.box3d.center, label.box3d.size);
    let turn = UnitQuaternion::from_axis_angle(&Vector3::z_axis(), label.box3d.yaw);
    let orientation = geometry::Quaternion { x: turn.i, y: turn.j, z: turn.k, w: turn.w };
    let pose = geometry::Pose { position: geometry::Point { x, y, z }, orientation };
    let result = |class_id: String, score: f64| ObjectHypothesisWithPose {
        hypothesis: ObjectHypothesis { class_id, score },
        pose: geometry::PoseWithCovariance { pose, ..Default::default() },
    };
    let mut results = vec![result(label.class.clone(), 1.0)];
    results.extend(label.n_points.map(|n_points| result(format!("{POINTS_KEY}={n_points}"), 0.0)));
    results.extend(label.difficulty.map(|level| result(format!("{DIFFICULTY_KEY}={level}"), 0.0)));
    results.extend(label.velocity_mps.map(|[vx, vy]| result(format!("{VELOCITY_KEY}={vx},{vy}"), 0.0)));
    Detection3D {
        header: header.clone(),
        results,
        bbox: BoundingBox3D { center: pose, size: geometry::Vector3 { x: dx, y: dy, z: dz } },
        id: label.track_id.clone().unwrap_or_default(),
    }
}
