//! Every file under `data/waymo` gives the numbers of its expected file.

use std::path::Path;

use pivotal::cloud::PointCloud;
use pivotal::data::waymo::range_image::RangeImage;
use pivotal::data::waymo::{self, Calibration, Inclinations, Laser, PixelPoint, RawFrame, RawLabel};
use pivotal::data::{Label, Sample, Source};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::npz;
use crate::support::shared;

/// Name of the expected files, record file, record.
const FRAMES: [(&str, &str, usize); 6] = [
    ("kitti_000000", "semireal_kitti", 0),
    ("kitti_000001", "semireal_kitti", 1),
    ("kitti_000002", "semireal_kitti", 2),
    ("kitti_000134", "semireal_kitti", 3),
    ("nuscenes_n015", "semireal_nuscenes", 0),
    ("waymo_partial", "semireal_waymo_partial", 0),
];
/// Every how many points the `.npz` files hold, where a laser has more than [`ALL_POINTS`].
const STRIDE: usize = 5;
const ALL_POINTS: usize = 3000;

fn open(path: &str) -> waymo::Waymo {
    waymo::open(&shared(&format!("data/waymo/{path}"))).unwrap()
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(shared(&format!("data/waymo/{path}"))).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn digest(image: &RangeImage) -> String {
    let bytes: Vec<u8> = image.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn close(got: f64, expected: f64, relative: f64) -> bool {
    (got - expected).abs() <= relative * expected.abs().max(1.0)
}

#[test]
fn official_conversion_of_v1_frames_is_matched_return_by_return() {
    for (key, file, record_idx) in FRAMES {
        let source = open(&format!("{file}.tfrecord"));
        let expected = json(&format!("expected/{key}.json"));
        let raw = source.raw_frame(record_idx).unwrap();
        assert_eq!(source.id(record_idx).drive, expected["context_name"].as_str().unwrap());
        assert_eq!(raw.timestamp_micros, expected["timestamp_micros"].as_i64().unwrap());
        assert_eq!(raw.world_from_vehicle.transpose().as_slice(), numbers(&expected["pose"]));
        let poses = raw.lasers.iter().find_map(|images| images.poses.as_ref()).unwrap();
        assert_eq!(digest(poses), expected["sha256_pose_image_f32le"].as_str().unwrap(), "{key}: pose image");

        let mut scans = Vec::new();
        assert_eq!(raw.lasers.iter().map(|images| images.laser).collect::<Vec<_>>(), Laser::ALL);
        for images in &raw.lasers {
            for return_idx in 0..2 {
                let place = format!("{}_{}", images.laser.name(), return_idx + 1);
                let of_return = &expected["lidars"][images.laser.name()][format!("return{}", return_idx + 1)];
                let image = images.returns[return_idx].as_ref().unwrap();
                let points = images.points(return_idx, &raw.world_from_vehicle).unwrap();
                check_return(&format!("{key} {place}"), image, &points, of_return);
                check_points(&shared(&format!("data/waymo/expected/{key}.npz")), &place, image, &points);
                scans.extend(points);
            }
        }
        let sample = source.load(0, record_idx).unwrap();
        check_cloud(key, &sample, &scans);
        check_labels(key, &sample, &expected["labels"]);
    }
}

fn check_return(place: &str, image: &RangeImage, points: &[PixelPoint], expected: &Value) {
    assert_eq!(
        [image.height, image.width, image.channels].map(|size| size as f64).to_vec(),
        numbers(&expected["shape"]),
        "{place}: shape"
    );
    assert_eq!(digest(image), expected["sha256_range_image_f32le"].as_str().unwrap(), "{place}: range image");
    assert_eq!(points.len() as u64, expected["num_points"].as_u64().unwrap(), "{place}: points");
    let n_in_zone = points.iter().filter(|point| point.in_no_label_zone).count();
    assert_eq!(n_in_zone as u64, expected["num_in_nlz"].as_u64().unwrap(), "{place}: points in no-label zones");
    for (axis, sum) in numbers(&expected["sum_xyz_f64"]).into_iter().enumerate() {
        let got: f64 = points.iter().map(|point| point.xyz[axis]).sum();
        // A billionth of a metre for each point.
        assert!((got - sum).abs() <= 1e-9 * points.len().max(1) as f64, "{place}: sum of axis {axis} is {got}, expected {sum}");
    }
    for (name, column) in [("sum_intensity", 0), ("sum_elongation", 1)] {
        let got: f64 = points.iter().map(|point| f64::from([point.intensity, point.elongation][column])).sum();
        assert!(close(got, expected[name].as_f64().unwrap(), 1e-9), "{place}: {name} is {got}, expected {}", expected[name]);
    }
}

/// Against the double-precision points: 1e-7 m. Against the official single-precision ones: 9.3 mm, their own error.
fn check_points(path: &Path, place: &str, image: &RangeImage, points: &[PixelPoint]) {
    let stride = if points.len() > ALL_POINTS { STRIDE } else { 1 };
    let array = |name: &str| npz::read(path, &format!("{place}_{name}"));
    let (rows, columns, exact, official, features) =
        (array("row"), array("col"), array("xyz_f64"), array("xyz_official"), array("feat"));
    assert_eq!(rows.len(), points.len().div_ceil(stride), "{place}");
    for (idx, point) in points.iter().step_by(stride).enumerate() {
        assert_eq!((point.row_idx as f64, point.column_idx as f64), (rows[idx], columns[idx]), "{place}: pixel of point {idx}");
        for axis in 0..3 {
            let (got, exact, official) = (point.xyz[axis], exact[idx * 3 + axis], official[idx * 3 + axis]);
            assert!((got - exact).abs() <= 1e-7, "{place}: point {idx}, axis {axis}: {got}, expected {exact}");
            assert!((got - official).abs() <= 9.3e-3, "{place}: point {idx}, axis {axis}: {got}, official {official}");
        }
        let pixel = &image.values[(point.row_idx * image.width + point.column_idx) * 4..][..4];
        let zone = if point.in_no_label_zone { 1.0 } else { -1.0 };
        let got = [pixel[0], point.intensity, point.elongation, zone].map(f64::from);
        assert_eq!(got.as_slice(), &features[idx * 4..idx * 4 + 4], "{place}: features of point {idx}");
    }
}

fn check_cloud(key: &str, sample: &Sample, scans: &[PixelPoint]) {
    let PointCloud { points, features, frame_id, .. } = &sample.cloud;
    assert_eq!((features.as_slice(), frame_id.as_str()), (&waymo::FEATURES[..], waymo::VEHICLE_FRAME));
    let rows = scans.iter().flat_map(|point| {
        let [x, y, z] = point.xyz.map(|value| value as f32);
        [x, y, z, point.intensity, point.elongation]
    });
    assert!(points.iter().copied().eq(rows), "{key}: the cloud is laser after laser, return after return");
    assert!(sample.in_no_label_zone.iter().copied().eq(scans.iter().map(|point| point.in_no_label_zone)), "{key}");
}

/// 0 where the metric leaves the label out, else its level.
fn eval_level(label: &Label) -> u64 {
    match (label.n_points, label.difficulty) {
        (Some(0), _) => 0,
        (_, Some(2)) => 2,
        (Some(n_points), _) if n_points > 5 => 1,
        _ => 2,
    }
}

fn check_labels(key: &str, sample: &Sample, expected: &Value) {
    let expected = expected.as_array().unwrap();
    if expected.is_empty() {
        assert_eq!(sample.labels, None, "{key} is not labelled");
        return;
    }
    let labels = sample.labels.as_ref().unwrap();
    assert_eq!(labels.len(), expected.len(), "{key}");
    let from_world = sample.world_from_cloud.unwrap().inverse();
    for (label, expected) in labels.iter().zip(expected) {
        let class = ["", "Vehicle", "Pedestrian", "Sign", "Cyclist"][expected["type"].as_u64().unwrap() as usize];
        assert_eq!(label.class, class);
        assert_eq!(label.track_id.as_deref(), expected["id"].as_str());
        assert_eq!(label.box3d.to_row().to_vec(), numbers(&expected["box"]), "{key}: length before width");
        assert_eq!(label.n_points.map(u64::from), expected["num_lidar_points_in_box"].as_u64());
        assert_eq!(label.difficulty.map_or(0, u64::from), expected["detection_difficulty_level"].as_u64().unwrap());
        if let Some(level) = expected["eval_level"].as_u64() {
            assert_eq!(eval_level(label), level, "{key}: {label:?}");
        }
        let speed = numbers(&expected["speed"]);
        let along = from_world * nalgebra::Vector3::new(speed[0], speed[1], 0.0);
        let velocity = label.velocity_mps.unwrap();
        // The expected files have no vertical speed; it turns into the plane by the tilt of the vehicle.
        let error = (velocity[0] - along.x).hypot(velocity[1] - along.y);
        assert!(error < 0.05 * (1.0 + speed[0].hypot(speed[1])), "{key}: {velocity:?}, expected {along:?}");
    }
}

#[test]
fn genuine_waymo_frames_give_the_official_labels_and_poses_and_are_refused_for_want_of_points() {
    for (file, n_labels) in [("pvps_data_one_frame", 75), ("mmdet3d_val", 18)] {
        let source = open(&format!("official/{file}.tfrecord"));
        let expected = json(&format!("official/{file}.expected.json"));
        // Their laser messages are empty.
        let refused = source.load(0, 0).unwrap_err().to_string();
        assert!(
            refused.ends_with(&format!("{file}.tfrecord: record 0: lasers: none has a range image; the frame has no points")),
            "{refused}"
        );
        let raw = source.raw_frame(0).unwrap();
        assert_eq!(raw.lasers, []);
        let (sample, _) = raw.into_sample(source.id(0)).unwrap();
        assert_eq!(sample.id.drive, expected["context_name"].as_str().unwrap());
        assert_eq!(sample.cloud.stamp.nanos, expected["timestamp_micros"].as_i64().unwrap() * 1000);
        assert_eq!(expected["laser_labels"].as_array().unwrap().len(), n_labels);
        check_labels(file, &sample, &expected["laser_labels"]);
        let pose = numbers(&expected["pose"]);
        let matrix = sample.world_from_cloud.unwrap().to_homogeneous();
        for (got, expected) in matrix.transpose().iter().zip(&pose) {
            assert!((got - expected).abs() < 1e-9, "{matrix} against {pose:?}");
        }
    }
}

/// The made-up frames have the calibrations of genuine ones, listed here by the official package.
#[test]
fn genuine_calibrations_are_those_of_the_official_package() {
    let (genuine, ours) = (json("official/mmdet3d_val.expected.json"), open("semireal_kitti.tfrecord").raw_frame(0).unwrap());
    let genuine = genuine["laser_calibrations"].as_array().unwrap();
    assert_eq!((genuine.len(), ours.lasers.len()), (5, 5));
    for images in &ours.lasers {
        let code = 1 + Laser::ALL.iter().position(|laser| *laser == images.laser).unwrap() as u64;
        let expected = genuine.iter().find(|calibration| calibration["name"].as_u64() == Some(code)).unwrap();
        let Calibration { vehicle_from_laser, inclinations } = &images.calibration;
        assert_eq!(vehicle_from_laser.transpose().as_slice(), numbers(&expected["extrinsic"]), "{:?}", images.laser);
        let limits = ["beam_inclination_min", "beam_inclination_max"].map(|name| expected[name].as_f64().unwrap());
        match inclinations {
            Inclinations::Listed(angles) => assert_eq!(*angles, numbers(&expected["beam_inclinations"]), "{:?}", images.laser),
            Inclinations::Uniform { min, max } => assert_eq!([*min, *max], limits, "{:?}", images.laser),
        }
    }
}

#[test]
fn genuine_vehicle_poses_of_v2_are_read_in_single_precision() {
    let path = shared("data/waymo/official/v2/vehicle_pose/10023947602400723454_1120_000_1140_000.parquet");
    let poses = waymo::v2::read_vehicle_poses(&path).unwrap();
    assert_eq!(poses.len(), 199);
    for (stamp, pose) in &poses {
        let at: Vec<f64> = (0..3).map(|axis| (0..3).map(|column| pose[axis * 4 + column].powi(2)).sum()).collect();
        assert!(
            pose.len() == 16 && pose[12..] == [0.0, 0.0, 0.0, 1.0] && at.iter().all(|norm| (norm - 1.0).abs() < 1e-5),
            "{pose:?}"
        );
        assert!(*stamp > 1_500_000_000_000_000, "{stamp}");
    }
}

#[test]
fn parquet_components_give_exactly_the_frames_of_the_tfrecord() {
    let (v1, v2) = (open("semireal_kitti.tfrecord"), open("v2"));
    assert_eq!(v2.len(), 2);
    for (index, record_idx) in [(0, 1), (1, 3)] {
        let (first, second) = (v1.raw_frame(record_idx).unwrap(), v2.raw_frame(index).unwrap());
        assert_eq!(second.world_from_vehicle, first.world_from_vehicle);
        assert!(second.lasers == first.lasers, "frame {index}");
        assert_eq!(sorted(second), sorted(first));
        let (first, second) = (v1.load(0, record_idx).unwrap(), v2.load(0, index).unwrap());
        assert_eq!(second.id.drive, first.id.drive);
        assert!(second.cloud == first.cloud && second.in_no_label_zone == first.in_no_label_zone, "frame {index}");
        assert_eq!(second.world_from_cloud, first.world_from_cloud);
    }
    let n_points: usize = (0..2).map(|index| v2.load(0, index).unwrap().cloud.n_points()).sum();
    assert_eq!(n_points, 126_065);
}

/// The tables hold labels in an order of their own.
fn sorted(frame: RawFrame) -> Vec<RawLabel> {
    let mut labels = frame.labels.unwrap();
    labels.sort_by(|a, b| a.id.cmp(&b.id));
    labels
}

#[test]
fn calibrations_are_found_by_name_and_only_the_top_laser_lists_its_beams() {
    let raw = open("semireal_kitti.tfrecord").raw_frame(0).unwrap();
    for images in &raw.lasers {
        match (&images.calibration.inclinations, images.laser) {
            (Inclinations::Listed(angles), Laser::Top) => assert_eq!(angles.len(), 64),
            (Inclinations::Uniform { min, max }, _) => assert!(*min < -1.5 && *max > 0.5, "{min} {max}"),
            (other, laser) => panic!("{laser:?} has {other:?}"),
        }
        assert_eq!(images.poses.is_some(), images.laser == Laser::Top);
    }
}

#[test]
fn folders_are_recognised_by_names_and_fingerprints_follow_the_content() {
    for (path, expected) in
        [("semireal_kitti.tfrecord", true), ("official", true), ("v2", true), ("expected", false), ("README.md", false)]
    {
        assert_eq!(waymo::recognises(&shared(&format!("data/waymo/{path}"))), expected, "{path}");
    }
    let official = open("official");
    assert_eq!(official.len(), 2);
    assert_eq!(official.id(1).drive, "1024360143612057520_3580_000_3600_000");
    let prints: Vec<String> =
        ["semireal_kitti.tfrecord", "semireal_nuscenes.tfrecord", "v2"].map(|path| open(path).fingerprint().sha256).to_vec();
    assert_eq!(prints.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    assert_eq!(open("v2").fingerprint().sha256, prints[2]);
}
