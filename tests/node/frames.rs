//! Clouds in, messages out.

use std::collections::BTreeSet;

use pivotal::cloud::PointCloud;
use pivotal::cloud::decode::{CloudDecoder, SensorOverrides};
use pivotal::geometry::Box3d;
use pivotal::geometry::iou::bev_iou;
use pivotal::model::directory;
use pivotal::msgs::diagnostic_msgs::DiagnosticStatus;
use pivotal::msgs::sensor_msgs::PointCloud2;
use pivotal::msgs::vision_msgs::{Detection3D, Detection3DArray};
use pivotal::msgs::visualization_msgs::Marker;
use pivotal::node::output::detections_to_msg;
use pivotal::pipeline::{Pipeline, PipelineOptions, Precision};

use super::rig::{Rig, cloud, save_tiny_model, tiny_spec, value};
use crate::support::borrowed;

/// What the pipeline gives without any node.
fn direct(message: &PointCloud2) -> Detection3DArray {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("tiny");
    save_tiny_model(&dir);
    let model = directory::load(&dir).unwrap();
    let options = PipelineOptions { device: "cpu".into(), precision: Precision::F32 };
    let mut pipeline = Pipeline::new(model.spec, &model.weights, &options).unwrap();
    let mut decoder = CloudDecoder::new(&pipeline.spec().input, &SensorOverrides::default()).unwrap();
    let mut points = PointCloud::default();
    decoder.decode(&borrowed(message), &mut points).unwrap();
    let output = pipeline.process(&points).unwrap();
    detections_to_msg(&output.detections, &pipeline.spec().classes, &message.header)
}

#[test]
fn node_publishes_what_the_pipeline_gives() {
    let rig = Rig::start(&[]);
    let (objects, markers, reports) = (rig.objects(), rig.markers(), rig.reports());
    let message = cloud(100, 400);
    rig.send(&message);

    let array = objects.next();
    let expected = direct(&message);
    assert!(!expected.detections.is_empty(), "the made-up weights find something");
    assert_eq!(array, expected);
    assert_eq!(array.header, message.header);

    let drawn = markers.next();
    assert_eq!(drawn.markers[0].action, Marker::DELETEALL);
    assert_eq!(drawn.markers.len(), 1 + 3 * array.detections.len());

    let report = reports.next();
    assert_eq!(report.header, message.header);
    assert_eq!(report.points_received, 400);
    assert_eq!(report.detections as usize, array.detections.len());
    assert!(report.candidates >= report.detections && report.max_scores.len() == tiny_spec().classes.len());
    assert!(report.latency_ms >= report.total_ms && report.total_ms >= report.decode_ms && report.backbone_ms > 0.0);
    // The sensor has no elongation; the spec's constant stands in.
    assert_eq!(report.flags, ["column_filled"]);

    let status = rig.wait_for_status("a processed cloud", |status| value(status, "clouds_processed") == "1");
    assert_eq!((status.level, status.message.as_str()), (DiagnosticStatus::OK, "detecting"));
    assert!(value(&status, "layout").contains("intensity"), "{status:?}");
    assert!(value(&status, "model").starts_with("cp-pillar-v0.64-xxs sha256:"), "{status:?}");
    assert_eq!(value(&status, "device"), "cpu (cpu was asked for)");
    rig.stop().unwrap();
}

#[test]
fn malformed_clouds_are_reported_and_the_node_goes_on() {
    let rig = Rig::start(&["-p", "max_points:=1000"]);
    let (objects, reports) = (rig.objects(), rig.reports());
    let good = cloud(1, 50);
    let mut without_x = good.clone();
    without_x.fields.remove(0);
    let mut past_step = good.clone();
    past_step.fields[3].offset = 14;
    let mut short = good.clone();
    short.data.truncate(100);
    let cases: [(&PointCloud2, &str); 4] = [
        (&without_x, "malformed cloud: "),
        (&past_step, "field `intensity`: offset 14 + 4 bytes ends beyond point_step 16"),
        (&short, "data has 100 bytes"),
        (&cloud(1, 1001), "cloud has 1001 points, max_points is 1000"),
    ];
    for (message, expected) in cases {
        rig.send(message);
        let report = reports.next();
        assert_eq!(report.header, message.header, "{expected}");
        assert!(report.flags[0].starts_with("failed: ") && report.flags[0].contains(expected), "{:?}", report.flags);
    }
    rig.clouds.publish(&[0, 1, 0, 0, 9, 9, 9, 9]).unwrap();
    let report = reports.next();
    assert!(report.flags[0].starts_with("failed: malformed message: "), "{:?}", report.flags);
    assert_eq!(report.clouds_failed, 5);
    let status = rig.wait_for_status("the failures", |status| value(status, "clouds_failed") == "5");
    assert_eq!(status.level, DiagnosticStatus::ERROR);
    assert!(status.message.contains("malformed message"), "{}", status.message);

    rig.send(&good);
    assert_eq!(objects.next().header, good.header, "no array was published for the others");
    let status = rig.wait_for_status("recovery", |status| value(status, "clouds_processed") == "1" && status.level == 0);
    assert_eq!((value(&status, "clouds_failed"), value(&status, "pipeline_rebuilds")), ("5", "0"));
    rig.stop().unwrap();
}

#[test]
fn cloud_without_points_gives_an_empty_array_and_a_warning() {
    let rig = Rig::start(&[]);
    let objects = rig.objects();
    let empty = cloud(5, 0);
    rig.send(&empty);
    let array = objects.next();
    assert_eq!((array.header, array.detections.len()), (empty.header, 0));
    let status = rig.wait_for_status("the warning", |status| status.message == "empty_cloud");
    assert_eq!(status.level, DiagnosticStatus::WARN);
    rig.stop().unwrap();
}

#[test]
fn stamps_that_jump_back_are_flagged_and_processed() {
    let rig = Rig::start(&[]);
    let (objects, reports) = (rig.objects(), rig.reports());
    for (stamp_s, jumped) in [(10, false), (11, false), (3, true), (4, false)] {
        rig.send(&cloud(stamp_s, 20));
        assert_eq!(objects.next().header.stamp.sec, stamp_s);
        let flags = reports.next().flags;
        assert_eq!(flags.iter().any(|flag| flag == "time_jump_back"), jumped, "{stamp_s}: {flags:?}");
    }
    rig.stop().unwrap();
}

#[test]
fn newest_cloud_wins_and_every_cloud_is_accounted_for() {
    const N_CLOUDS: i32 = 60;
    let rig = Rig::start(&[]);
    let objects = rig.objects();
    (0..N_CLOUDS).for_each(|stamp_s| rig.send(&cloud(stamp_s, 300)));
    let mut stamps = vec![objects.next().header.stamp.sec];
    while stamps.last() != Some(&(N_CLOUDS - 1)) {
        stamps.push(objects.next().header.stamp.sec);
    }
    assert!(stamps.is_sorted(), "{stamps:?}");
    let n_processed = stamps.len().to_string();
    let status = rig.wait_for_status("all clouds", |status| value(status, "clouds_processed") == n_processed);
    let count = |key| value(&status, key).parse::<i32>().unwrap();
    assert_eq!(count("clouds_received"), N_CLOUDS);
    assert_eq!(count("clouds_processed") + count("clouds_overwritten"), N_CLOUDS, "{status:?}");
    rig.stop().unwrap();
}

#[test]
fn output_filters_leave_out_scores_classes_and_the_tail() {
    let message = cloud(1, 400);
    let all = direct(&message).detections;
    let score = |idx: usize| all[idx].results[0].hypothesis.score;
    let classes: BTreeSet<_> = all.iter().map(|detection| detection.results[0].hypothesis.class_id.clone()).collect();
    let middle = all.len() / 2;
    assert!(classes.len() > 1 && score(0) > score(middle), "the scene distinguishes: {classes:?}");

    let wanted = all[middle].results[0].hypothesis.class_id.clone();
    let (threshold, class) = (format!("score_threshold:={}", score(middle)), format!("classes:=[{wanted}]"));
    let of_class = all.iter().filter(|detection| detection.results[0].hypothesis.class_id == wanted).count();
    let above = all.iter().filter(|detection| detection.results[0].hypothesis.score > score(middle)).count();
    for (param, expected) in [(threshold.as_str(), above), (class.as_str(), of_class), ("max_detections:=2", 2)] {
        let rig = Rig::start(&["-p", param]);
        let objects = rig.objects();
        rig.send(&message);
        assert_eq!(objects.next().detections.len(), expected, "{param} of {}", all.len());
        rig.stop().unwrap();
    }
}

#[test]
fn nms_iou_leaves_no_boxes_that_overlap_more() {
    const MAX_IOU: f64 = 0.1;
    let message = cloud(1, 400);
    let all = direct(&message).detections;
    let rig = Rig::start(&["-p", &format!("nms_iou:={MAX_IOU}")]);
    let objects = rig.objects();
    rig.send(&message);
    let kept = objects.next().detections;
    rig.stop().unwrap();
    let footprint = |detection: &Detection3D| {
        let (center, size, turn) = (detection.bbox.center.position, detection.bbox.size, detection.bbox.center.orientation);
        Box3d::from_row([center.x, center.y, 0.0, size.x, size.y, 1.0, 2.0 * turn.z.atan2(turn.w)])
    };
    let highest = |boxes: &[Detection3D]| {
        let boxes: Vec<Box3d> = boxes.iter().map(footprint).collect();
        let pairs = (0..boxes.len()).flat_map(|one| (0..one).map(move |other| (one, other)));
        pairs.map(|(one, other)| bev_iou(&boxes[one], &boxes[other])).fold(0.0, f64::max)
    };
    // Suppression counts corners up to 1 cm outside as inside, so boxes may overlap a little less than is allowed.
    assert!(highest(&all) > MAX_IOU && highest(&kept) <= MAX_IOU, "{} and {}", highest(&all), highest(&kept));
    assert!(!kept.is_empty() && kept[0].bbox == all[0].bbox);
}
