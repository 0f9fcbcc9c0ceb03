//! From what the pipeline gives to messages. Pure functions: the live node and the bag replay publish through the same ones.
//!
//! # Units and frame
//! Metres, radians, in the frame of the cloud; every header is the cloud's, unchanged.

use crate::cloud::decode::DecodeReport;
use crate::geometry::Box3d;
use crate::msgs::builtin_interfaces::Duration;
use crate::msgs::geometry_msgs::{Point, Pose, PoseWithCovariance, Quaternion, Vector3};
use crate::msgs::pivotal_msgs::FrameReport;
use crate::msgs::std_msgs::{ColorRGBA, Header};
use crate::msgs::vision_msgs::{BoundingBox3D, Detection3D, Detection3DArray, ObjectHypothesis, ObjectHypothesisWithPose};
use crate::msgs::visualization_msgs::{Marker, MarkerArray};
use crate::pipeline::FrameOutput;
use crate::postprocess::Detection;
use crate::time::Stamp;

/// Height of a capital letter of the labels.
const LABEL_HEIGHT_M: f64 = 0.7;
/// How far above the box its label floats.
const LABEL_GAP_M: f64 = 0.5;
/// How far the arrow of the heading stands out of the box's front.
const HEADING_OVERHANG_M: f64 = 0.8;
/// Boxes let the points inside shine through.
const BOX_OPACITY: f32 = 0.4;

/// Red, green and blue of a class: the palette of Okabe and Ito, which colour-blind readers can tell apart, in the order of
/// hues of the bird's-eye pictures.
pub fn class_rgb(class_idx: usize) -> [u8; 3] {
    const PALETTE: [[u8; 3]; 7] =
        [[230, 159, 0], [204, 121, 167], [0, 158, 115], [86, 180, 233], [240, 228, 66], [213, 94, 0], [0, 114, 178]];
    PALETTE[class_idx % PALETTE.len()]
}

/// The array of `~/output/objects`, best score first as given.
///
/// `results` has one entry; its covariance is zero, which means unknown. Nothing is tracked, so each `id` (stamp and place
/// in the array) is given once and never again.
pub fn detections_to_msg(detections: &[Detection], classes: &[String], header: &Header) -> Detection3DArray {
    let to_msg = |(detection_idx, detection): (usize, &Detection)| {
        let pose = box_pose(&detection.box3d);
        let hypothesis =
            ObjectHypothesis { class_id: class_name(classes, detection.class_idx), score: f64::from(detection.score) };
        Detection3D {
            header: header.clone(),
            results: vec![ObjectHypothesisWithPose {
                hypothesis,
                pose: PoseWithCovariance { pose, ..PoseWithCovariance::default() },
            }],
            bbox: BoundingBox3D { center: pose, size: vector(detection.box3d.size) },
            id: format!("{}.{:09}-{detection_idx}", header.stamp.sec, header.stamp.nanosec),
        }
    };
    Detection3DArray { header: header.clone(), detections: detections.iter().enumerate().map(to_msg).collect() }
}

/// The array of `~/output/markers`: all earlier ones deleted, then a box, an arrow along the heading and a label for each
/// detection. `lifetime_s` of zero keeps them until the next array.
pub fn detections_to_markers(detections: &[Detection], classes: &[String], header: &Header, lifetime_s: f64) -> MarkerArray {
    let lifetime = duration(lifetime_s);
    let mut markers = Vec::with_capacity(1 + 3 * detections.len());
    markers.push(Marker { header: header.clone(), action: Marker::DELETEALL, ..Marker::default() });
    for (detection, id) in detections.iter().zip(0..) {
        let boxed = &detection.box3d;
        let pose = box_pose(boxed);
        let marker = |ns: &str, shape: i32, opacity: f32| Marker {
            header: header.clone(),
            ns: ns.to_owned(),
            id,
            r#type: shape,
            action: Marker::ADD,
            pose,
            color: color(detection.class_idx, opacity),
            lifetime,
            ..Marker::default()
        };
        let arrow_length = boxed.size[0] / 2.0 + HEADING_OVERHANG_M;
        let label_z = boxed.center[2] + boxed.size[2] / 2.0 + LABEL_GAP_M;
        markers.push(Marker { scale: vector(boxed.size), ..marker("boxes", Marker::CUBE, BOX_OPACITY) });
        markers.push(Marker { scale: vector([arrow_length, 0.2, 0.2]), ..marker("headings", Marker::ARROW, 1.0) });
        markers.push(Marker {
            pose: Pose { position: Point { z: label_z, ..pose.position }, ..Pose::default() },
            scale: vector([0.0, 0.0, LABEL_HEIGHT_M]),
            text: format!("{} {:.2}", class_name(classes, detection.class_idx), detection.score),
            ..marker("labels", Marker::TEXT_VIEW_FACING, 1.0)
        });
    }
    MarkerArray { markers }
}

/// What is known about a frame beside the pipeline's output.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FrameFacts {
    /// Points in the message.
    pub points_received: usize,
    /// Points removed by the decoder.
    pub points_non_finite: usize,
    /// Boxes published, after the node's own filters; 0 when the middleware refused them.
    pub n_published: usize,
    /// Message to points.
    pub decode_ms: f64,
    /// From the message to the last box.
    pub total_ms: f64,
    /// From receipt to publication; 0 in replay.
    pub latency_ms: f64,
    /// Clouds replaced by newer ones before this one was taken, since the start.
    pub clouds_overwritten: u64,
    /// Clouds that were malformed or failed, since the start.
    pub clouds_failed: u64,
    /// Anything unusual; see [`frame_flags`].
    pub flags: Vec<String>,
}

/// The message of `~/output/report`.
pub fn report_to_msg(header: &Header, output: &FrameOutput, facts: FrameFacts) -> FrameReport {
    let (voxels, times) = (&output.voxels, &output.times);
    FrameReport {
        header: header.clone(),
        points_received: count(facts.points_received),
        points_non_finite: count(facts.points_non_finite),
        points_out_of_range: count(voxels.out_of_range),
        points_in_voxels: count(voxels.in_voxels),
        points_over_cap: count(voxels.over_point_cap),
        points_in_dropped_voxels: count(voxels.in_dropped_voxels),
        voxels: count(voxels.voxels),
        voxels_dropped: count(voxels.dropped_voxels),
        candidates: count(output.n_candidates),
        detections: count(facts.n_published),
        clouds_overwritten: facts.clouds_overwritten,
        clouds_failed: facts.clouds_failed,
        decode_ms: facts.decode_ms,
        voxelize_ms: times.voxelize_ms,
        vfe_ms: times.vfe_ms,
        backbone_3d_ms: times.backbone_3d_ms,
        scatter_ms: times.scatter_ms,
        backbone_ms: times.backbone_ms,
        head_ms: times.head_ms,
        postprocess_ms: times.postprocess_ms,
        total_ms: facts.total_ms,
        latency_ms: facts.latency_ms,
        max_scores: output.max_scores.clone(),
        flags: facts.flags,
    }
}

/// The report of a cloud that gave nothing: only the counters, and `failed: ` with the reason among the flags.
pub fn failed_report(header: &Header, reason: &str, clouds_overwritten: u64, clouds_failed: u64) -> FrameReport {
    FrameReport {
        header: header.clone(),
        clouds_overwritten,
        clouds_failed,
        flags: vec![format!("{}{reason}", FrameReport::FAILED)],
        ..FrameReport::default()
    }
}

/// Flag of a cloud that is older than the one before, as when a bag starts again.
pub const TIME_JUMP_BACK: &str = "time_jump_back";

/// Whether a cloud is older than the one before, whose stamp its own replaces.
pub fn jumped_back(last_stamp: &mut Option<Stamp>, stamp: Stamp) -> bool {
    last_stamp.replace(stamp).is_some_and(|last| stamp < last)
}

/// What is unusual about a frame: `empty_cloud` (no finite point), `out_of_range` (finite points, none in the grid),
/// `point_cap` and `voxel_cap` (points were dropped by a cap), `non_finite_boxes` (boxes were dropped as not finite),
/// `column_filled` (the decoder filled a column the cloud lacks), and [`TIME_JUMP_BACK`] if `jumped_back`.
pub fn frame_flags(output: &FrameOutput, decoded: &DecodeReport, jumped_back: bool) -> Vec<String> {
    let voxels = &output.voxels;
    let conditions = [
        (voxels.received == 0, "empty_cloud"),
        (voxels.received > 0 && voxels.out_of_range == voxels.received, "out_of_range"),
        (voxels.over_point_cap > 0, "point_cap"),
        (voxels.dropped_voxels > 0, "voxel_cap"),
        (output.n_non_finite_boxes > 0, "non_finite_boxes"),
        (!decoded.filled.is_empty(), "column_filled"),
        (jumped_back, TIME_JUMP_BACK),
    ];
    conditions.into_iter().filter(|(holds, _)| *holds).map(|(_, flag)| flag.to_owned()).collect()
}

/// Name of a class; `class_N` for one the model does not name.
pub fn class_name(classes: &[String], class_idx: usize) -> String {
    classes.get(class_idx).cloned().unwrap_or_else(|| format!("class_{class_idx}"))
}

pub(super) fn box_pose(boxed: &Box3d) -> Pose {
    let [x, y, z] = boxed.center;
    let (sin, cos) = (boxed.yaw / 2.0).sin_cos();
    Pose { position: Point { x, y, z }, orientation: Quaternion { x: 0.0, y: 0.0, z: sin, w: cos } }
}

pub(super) fn vector([x, y, z]: [f64; 3]) -> Vector3 {
    Vector3 { x, y, z }
}

fn color(class_idx: usize, opacity: f32) -> ColorRGBA {
    let [r, g, b] = class_rgb(class_idx).map(|channel| f32::from(channel) / 255.0);
    ColorRGBA { r, g, b, a: opacity }
}

fn duration(seconds: f64) -> Duration {
    let nanos = (seconds * 1e9).round() as i64;
    Duration { sec: (nanos / 1_000_000_000) as i32, nanosec: (nanos % 1_000_000_000) as u32 }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::f64::consts::FRAC_PI_2;

    use super::*;
    use crate::msgs::builtin_interfaces::Time;
    use crate::pipeline::StageTimes;
    use crate::voxel::VoxelCounts;

    fn header() -> Header {
        Header { stamp: Time { sec: 12, nanosec: 5 }, frame_id: "lidar".into() }
    }

    fn detections() -> Vec<Detection> {
        let box3d = Box3d { center: [1.0, 2.0, 3.0], size: [4.0, 2.0, 1.5], yaw: FRAC_PI_2 };
        vec![Detection { box3d, score: 0.75, class_idx: 1 }, Detection { box3d, score: 0.5, class_idx: 0 }]
    }

    fn classes() -> Vec<String> {
        vec!["Vehicle".into(), "Pedestrian".into()]
    }

    fn frame_output(voxels: VoxelCounts) -> FrameOutput {
        let times = StageTimes { voxelize_ms: 1.0, vfe_ms: 2.0, head_ms: 3.0, ..StageTimes::default() };
        FrameOutput {
            detections: detections(),
            voxels,
            n_candidates: 9,
            n_non_finite_boxes: 0,
            max_scores: vec![0.9, 0.8],
            times,
        }
    }

    #[test]
    fn detections_keep_header_class_and_geometry() {
        let array = detections_to_msg(&detections(), &classes(), &header());
        assert_eq!(array.header, header());
        let first = &array.detections[0];
        assert_eq!(first.header, header());
        assert_eq!(first.id, "12.000000005-0");
        assert_eq!(first.results.len(), 1);
        assert_eq!(first.results[0].hypothesis, ObjectHypothesis { class_id: "Pedestrian".into(), score: 0.75 });
        assert_eq!(first.results[0].pose.pose, first.bbox.center);
        assert_eq!(first.bbox.center.position, Point { x: 1.0, y: 2.0, z: 3.0 });
        assert_eq!(first.bbox.size, Vector3 { x: 4.0, y: 2.0, z: 1.5 });
        // A quarter turn to the left: half the angle's sine and cosine.
        let q = first.bbox.center.orientation;
        assert!((q.z - 0.5f64.sqrt()).abs() < 1e-15 && (q.w - 0.5f64.sqrt()).abs() < 1e-15 && q.x == 0.0 && q.y == 0.0);
        assert_eq!(array.detections[1].results[0].hypothesis.class_id, "Vehicle");
        assert!(detections_to_msg(&[], &classes(), &header()).detections.is_empty());
    }

    #[test]
    fn markers_clear_then_draw_box_heading_and_label() {
        let array = detections_to_markers(&detections(), &classes(), &header(), 0.25);
        let kinds: Vec<_> = array.markers.iter().map(|m| (m.action, m.r#type, m.ns.as_str(), m.id)).collect();
        assert_eq!(kinds[0], (Marker::DELETEALL, 0, "", 0));
        assert_eq!(
            kinds[1..4],
            [
                (Marker::ADD, Marker::CUBE, "boxes", 0),
                (Marker::ADD, Marker::ARROW, "headings", 0),
                (Marker::ADD, Marker::TEXT_VIEW_FACING, "labels", 0)
            ]
        );
        assert_eq!(kinds.len(), 7);
        assert_eq!(kinds[6].3, 1);
        let label = &array.markers[3];
        assert_eq!(label.text, "Pedestrian 0.75");
        assert_eq!(label.pose.position.z, 3.0 + 0.75 + LABEL_GAP_M);
        assert_eq!(array.markers[1].lifetime, Duration { sec: 0, nanosec: 250_000_000 });
        assert_ne!(array.markers[1].color, array.markers[4].color);
        assert!(array.markers.iter().all(|m| m.header == header()));
    }

    #[test]
    fn reports_account_for_every_point() {
        let voxels = VoxelCounts {
            received: 90,
            out_of_range: 10,
            in_voxels: 60,
            over_point_cap: 15,
            in_dropped_voxels: 5,
            voxels: 7,
            dropped_voxels: 1,
        };
        let output = frame_output(voxels);
        let facts = FrameFacts {
            points_received: 100,
            points_non_finite: 10,
            n_published: 2,
            flags: frame_flags(&output, &DecodeReport::default(), false),
            ..FrameFacts::default()
        };
        let report = report_to_msg(&header(), &output, facts);
        let placed = report.points_non_finite
            + report.points_out_of_range
            + report.points_in_voxels
            + report.points_over_cap
            + report.points_in_dropped_voxels;
        assert_eq!(report.points_received, placed);
        assert_eq!((report.voxels, report.voxels_dropped, report.candidates, report.detections), (7, 1, 9, 2));
        assert_eq!((report.voxelize_ms, report.vfe_ms, report.head_ms), (1.0, 2.0, 3.0));
        assert_eq!(report.flags, ["point_cap", "voxel_cap"]);
    }

    #[test]
    fn flags_name_clouds_without_points_in_range() {
        let flags = |voxels| frame_flags(&frame_output(voxels), &DecodeReport::default(), false);
        assert_eq!(flags(VoxelCounts::default()), ["empty_cloud"]);
        let far = VoxelCounts { received: 3, out_of_range: 3, ..VoxelCounts::default() };
        assert_eq!(flags(far), ["out_of_range"]);
        let usual = VoxelCounts { received: 3, in_voxels: 3, voxels: 1, ..VoxelCounts::default() };
        assert!(flags(usual).is_empty());
    }

    #[test]
    fn class_without_a_name_is_called_by_its_number() {
        assert_eq!([0, 2].map(|class_idx| class_name(&classes(), class_idx)), ["Vehicle", "class_2"]);
    }

    #[test]
    fn failed_report_carries_reason_and_counters() {
        let report = failed_report(&header(), "no field x", 3, 4);
        assert_eq!((report.clouds_overwritten, report.clouds_failed), (3, 4));
        assert_eq!(report.flags, ["failed: no field x"]);
        assert_eq!(report.header, header());
    }
}
