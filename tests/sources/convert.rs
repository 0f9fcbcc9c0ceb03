//! Other data sets as bags, against what their owners and the official Waymo reader say of the same frames.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::path::Path;

use pivotal::data::kitti::{self, KittiOptions};
use pivotal::data::{Converted, Label, nuscenes, open};
use pivotal::geometry::Box3d;
use serde_json::Value;

use crate::support::shared;

/// KITTI's LiDAR in the vehicle frame of the semi-real Waymo records (their README).
const KITTI_MOUNT_M: [f64; 3] = [1.43, 0.0, 1.73];

fn convert_kitti(folder: &Path, out: &Path, options: &KittiOptions) -> Converted {
    kitti::convert(folder, out, options, &mut |_, _| {}).unwrap()
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(class, n)| ((*class).to_owned(), *n)).collect()
}

fn official_labels(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(shared(&format!("data/waymo/expected/{name}.json"))).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["labels"].as_array().unwrap().clone()
}

fn official_box(label: &Value) -> Box3d {
    Box3d::from_row(serde_json::from_value(label["box"].clone()).unwrap())
}

fn turned_by(a: f64, b: f64) -> f64 {
    let turn = (a - b).rem_euclid(TAU);
    turn.min(TAU - turn)
}

#[test]
fn kitti_frames_have_the_points_and_objects_of_the_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("kitti");
    let converted = convert_kitti(&shared("data/kitti"), &out, &KittiOptions::default());
    assert_eq!((converted.n_frames, converted.n_points), (3, 115_384 + 120_268 + 126_891));
    assert_eq!(converted.n_labels, counts(&[("Car", 2), ("Cyclist", 1), ("Misc", 1), ("Pedestrian", 1), ("Truck", 1)]));
    assert_eq!((converted.n_not_labels, converted.faults), (counts(&[("DontCare", 4)]), vec![]));
    let flat = folder.path().join("flat");
    let converted = convert_kitti(&shared("data/kitti/demo_fov"), &flat, &KittiOptions::default());
    assert_eq!((converted.n_frames, converted.n_points), (1, 19_097));
    assert_eq!(converted.n_labels, counts(&[("Car", 3), ("Cyclist", 5), ("Pedestrian", 7)]));
    assert_eq!(converted.n_not_labels, counts(&[("DontCare", 2)]));

    let bags = open(&format!("{};{}", out.display(), flat.display())).unwrap();
    assert_eq!(bags.findings(), []);
    let frames = [
        ("000000", 115_384, 1, "training"),
        ("000001", 120_268, 3, "training"),
        ("000002", 126_891, 1, "training"),
        ("000134", 19_097, 15, "demo_fov"),
    ];
    for (index, (name, n_points, n_usable, part)) in frames.into_iter().enumerate() {
        let sample = bags.load(0, index).unwrap();
        assert_eq!(sample.cloud.n_points(), n_points, "{name}");
        assert_eq!(sample.cloud.stamp.nanos, (1_000_000_000 + name.parse::<i64>().unwrap()) * 1_000_000_000);
        let file = if part == "training" { format!("training/velodyne/{name}.bin") } else { format!("{part}/{name}.bin") };
        let bytes = std::fs::read(shared(&format!("data/kitti/{file}"))).unwrap();
        let wanted: Vec<f32> = bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect();
        assert_eq!(sample.cloud.points, wanted, "{name}");
        let labels: Vec<Label> = sample.labels.unwrap().into_iter().filter(|label| label.class != "Misc").collect();
        let official = official_labels(&format!("kitti_{name}"));
        assert_eq!((labels.len(), official.len()), (n_usable, n_usable), "{name}");
        for (label, wanted) in labels.iter().zip(&official) {
            let true_box = official_box(wanted);
            let types = [("Car", 1), ("Truck", 1), ("Pedestrian", 2), ("Cyclist", 4)];
            assert!(types.iter().any(|(class, kind)| label.class == *class && wanted["type"] == *kind), "{name} {label:?}");
            // The records raise the foot of a box along the LiDAR's z, we along the camera's: some 0.015 rad apart.
            for (axis, mount_m) in KITTI_MOUNT_M.into_iter().enumerate() {
                let away_m = (label.box3d.center[axis] + mount_m - true_box.center[axis]).abs();
                assert!(away_m < 0.01 * label.box3d.size[2], "{name}: {:?}, expected {true_box:?}", label.box3d);
            }
            assert_eq!(label.box3d.size, true_box.size, "{name}");
            // The records turn by -(rotation_y + 90 degrees), as if the camera looked straight ahead; the calibration says almost.
            assert!(turned_by(label.box3d.yaw, true_box.yaw) < 0.01, "{name}: {:?}, expected {true_box:?}", label.box3d);
            let level = wanted["detection_difficulty_level"].as_u64().unwrap();
            assert_eq!(u64::from(label.difficulty.unwrap_or(0)), level, "{name} {label:?}");
            // Range images move points by half a pixel and keep two per pixel.
            let (got, snapped) = (f64::from(label.n_points.unwrap()), wanted["num_lidar_points_in_box"].as_f64().unwrap());
            assert!((got - snapped).abs() <= 3.0 + 0.15 * got, "{name}: {got} points inside, {snapped} in the record");
        }
    }
}

#[test]
fn kitti_cut_to_the_camera_view_keeps_what_the_ready_cut_frame_has() {
    let folder = tempfile::tempdir().unwrap();
    let options = KittiOptions { view_px: Some([1242.0, 375.0]), ..KittiOptions::default() };
    let cut = convert_kitti(&shared("data/kitti/demo_fov"), &folder.path().join("fov"), &options);
    // The published cut used the true size of the image, which is not among the files.
    assert!((19_000..=19_097).contains(&cut.n_points), "{} of 19097 points", cut.n_points);
    let whole = convert_kitti(&shared("data/kitti"), &folder.path().join("whole"), &options);
    assert!((45_000..65_000).contains(&whole.n_points), "{}", whole.n_points);
    let all = convert_kitti(&shared("data/kitti"), &folder.path().join("all"), &KittiOptions::default());
    assert_eq!(whole.n_points_inside, all.n_points_inside, "labels lie in the view");
    let one = KittiOptions { names: vec!["000001".to_owned()], ..KittiOptions::default() };
    assert_eq!(convert_kitti(&shared("data/kitti"), &folder.path().join("one"), &one).n_points, 120_268);
}

#[test]
fn nuscenes_sweep_has_the_declared_points_boxes_and_poses() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("nuscenes");
    let converted = nuscenes::convert(&shared("data/nuscenes"), &out, &mut |_, _| {}).unwrap();
    assert_eq!((converted.n_frames, converted.n_points), (1, 34_688));
    let classes = [
        ("barrier", 22),
        ("bicycle", 1),
        ("bus", 1),
        ("car", 8),
        ("construction_vehicle", 1),
        ("pedestrian", 30),
        ("traffic_cone", 3),
        ("truck", 2),
    ];
    assert_eq!(converted.n_labels, counts(&classes));
    assert_eq!(converted.n_not_labels, counts(&[("ignored", 1)]));
    // README: 994 points inside all 69 boxes; the ignored one is counted here.
    let text = std::fs::read_to_string(shared("data/nuscenes/n015_labels.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let instances = json["instances"].as_array().unwrap();
    let ignored = instances.iter().find(|instance| instance["class"] == "ignored").unwrap();
    let ignored = Box3d::from_row(serde_json::from_value(ignored["box"].clone()).unwrap());
    let source = open(out.to_str().unwrap()).unwrap();
    let sample = source.load(0, 0).unwrap();
    assert_eq!(sample.cloud.stamp.nanos, 1_532_402_927_647_951_000);
    let n_in_ignored = sample.cloud.rows().filter(|row| ignored.contains([row[0], row[1], row[2]].map(f64::from))).count() as u64;
    assert_eq!(converted.n_points_inside + n_in_ignored, 994);
    let declared: u32 = sample.labels.iter().flatten().filter_map(|label| label.n_points).sum();
    let n_declared_ignored = 1009 - u64::from(declared);
    assert!(n_declared_ignored.abs_diff(n_in_ignored) <= 2, "{n_declared_ignored} declared, {n_in_ignored} found");
    let n_without_velocity = sample.labels.iter().flatten().filter(|label| label.velocity_mps.is_none()).count();
    let n_null =
        instances.iter().filter(|instance| instance["velocity_xy"][0].is_null() && instance["class"] != "ignored").count();
    assert_eq!(n_without_velocity, n_null);

    // In the vehicle frame, by tf, the boxes are where the semi-real record has them, but for the constant by which it was moved.
    let in_vehicle = open(&format!("{},target_frame=base_link", out.display())).unwrap().load(0, 0).unwrap();
    let labels = in_vehicle.labels.unwrap();
    let labels: Vec<&Label> = labels.iter().filter(|label| label.class != "barrier").collect();
    let official = official_labels("nuscenes_n015");
    assert_eq!((labels.len(), official.len()), (46, 46));
    let moved = |idx: usize| {
        let (ours, theirs) = (labels[idx].box3d.center, official_box(&official[idx]).center);
        [0, 1, 2].map(|axis| theirs[axis] - ours[axis])
    };
    for (idx, (label, wanted)) in labels.iter().zip(&official).enumerate() {
        let (first, here) = (moved(0), moved(idx));
        assert!(first.iter().zip(here).all(|(a, b)| (a - b).abs() < 1e-4), "label {idx}: {first:?} and {here:?}");
        assert!(turned_by(label.box3d.yaw, official_box(wanted).yaw) < 1e-3, "label {idx}");
    }
    let pose = sample.world_from_cloud.unwrap().translation.vector;
    // ego2global applied to lidar2ego's origin, by hand from the file.
    let rows: [[f64; 4]; 4] = serde_json::from_value(json["ego2global"].clone()).unwrap();
    let mount: [[f64; 4]; 4] = serde_json::from_value(json["lidar2ego"].clone()).unwrap();
    for axis in 0..3 {
        let expected = (0..3).map(|k| rows[axis][k] * mount[k][3]).sum::<f64>() + rows[axis][3];
        assert!((pose[axis] - expected).abs() < 1e-5, "{pose}");
    }
}

#[test]
fn damaged_files_of_other_data_sets_are_named_and_the_rest_is_converted() {
    let folder = tempfile::tempdir().unwrap();
    let kitti = folder.path().join("kitti");
    for part in ["velodyne", "label_2", "calib"] {
        std::fs::create_dir_all(kitti.join(part)).unwrap();
    }
    let source = shared("data/kitti/training");
    let calib = std::fs::read_to_string(source.join("calib/000001.txt")).unwrap();
    let label = "Car 0.00 0 1.85 387.63 181.54 423.81 203.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57";
    let frame = |name: &str, n_bytes: usize, label: Option<&str>, calib: Option<&str>| {
        std::fs::write(kitti.join(format!("velodyne/{name}.bin")), vec![0; n_bytes]).unwrap();
        for (part, text) in [("label_2", label), ("calib", calib)] {
            if let Some(text) = text {
                std::fs::write(kitti.join(format!("{part}/{name}.txt")), text).unwrap();
            }
        }
    };
    let cases = [
        ("cut", 30, Some(label), Some(calib.as_str()), "30 bytes, expected rows of 4 f32 with 16 bytes"),
        ("no_calib", 32, Some(label), None, "calib/no_calib.txt: No such file"),
        ("key", 32, Some(label), Some("P2: 1"), "calib/key.txt: R0_rect: is missing"),
        ("number", 32, Some(label), Some("R0_rect: 1 2 3"), "R0_rect: `1 2 3`, expected 9 numbers"),
        ("few", 32, Some("Car 1 2 3"), Some(calib.as_str()), "label_2/few.txt: line 1: 4 columns, expected 15"),
        ("word", 32, Some("Car 0 0 0 0 0 0 0 x 1 1 0 0 9 0"), Some(calib.as_str()), "column 9: `x`, expected a number"),
        ("nan", 32, Some("Car 0 0 0 0 0 0 0 1 1 1 NaN 0 9 0"), Some(calib.as_str()), "line 1: box [NaN"),
        ("flat", 32, Some("Car 0 0 0 0 0 0 0 0 1 1 0 0 9 0"), Some(calib.as_str()), "expected edges above 0"),
    ];
    for (name, n_bytes, label, calib, _) in cases {
        frame(name, n_bytes, label, calib);
    }
    frame("good", 32, Some(label), Some(&calib));
    frame("unlabelled", 48, None, None);
    let out = folder.path().join("bag");
    let converted = convert_kitti(&kitti, &out, &KittiOptions::default());
    assert_eq!((converted.n_frames, converted.n_points, converted.faults.len()), (2, 5, cases.len()));
    for (name, .., expected) in cases {
        let fault = converted.faults.iter().find(|fault| fault.starts_with(&format!("frame {name}: "))).unwrap();
        assert!(fault.contains(expected), "{name} gave: {fault}");
    }
    let bag = open(out.to_str().unwrap()).unwrap();
    assert_eq!((bag.load(0, 0).unwrap().labels.unwrap().len(), bag.load(0, 1).unwrap().labels), (1, None));

    let again = kitti::convert(&kitti, &out, &KittiOptions::default(), &mut |_, _| {}).unwrap_err().to_string();
    assert!(again.contains("already exists"), "{again}");
    let unknown = KittiOptions { names: vec!["7".to_owned()], ..KittiOptions::default() };
    let unknown = kitti::convert(&kitti, &folder.path().join("b"), &unknown, &mut |_, _| {}).unwrap_err().to_string();
    assert!(unknown.contains("there is no frame 7"), "{unknown}");
    let empty = kitti::convert(folder.path(), &folder.path().join("c"), &KittiOptions::default(), &mut |_, _| {});
    assert!(empty.unwrap_err().to_string().contains("no NAME.bin, neither in velodyne/ nor in the folder itself"));

    let sweeps = folder.path().join("sweeps");
    std::fs::create_dir_all(&sweeps).unwrap();
    std::fs::write(sweeps.join("a.bin"), vec![0; 40]).unwrap();
    let good = serde_json::json!({
        "timestamp": 1.5, "lidar_file": "a.bin", "num_point_features": 5, "instances": [],
        "lidar2ego": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        "ego2global": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    });
    let boxed = serde_json::json!([{"class": "car", "box": [0, 0, 0, 1, -1, 1, 0], "num_lidar_pts": 0, "velocity_xy": null}]);
    let skewed = serde_json::json!([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]);
    let cases = [
        ("lidar_file", serde_json::json!("../a.bin"), "lidar_file: `../a.bin`, expected the name of a file beside"),
        ("lidar_file", serde_json::json!("b.bin"), "b.bin: No such file"),
        ("num_point_features", serde_json::json!(4), "num_point_features: 4, expected 5"),
        ("timestamp", serde_json::json!(-1), "timestamp: -1 s, expected 0 to"),
        ("lidar2ego", skewed, "lidar2ego: is no pose: its rotation is off by 1.0e0"),
        ("instances", boxed, "instances[0]: box [0.0, 0.0, 0.0, 1.0, -1.0"),
        ("instances", serde_json::json!(3), "JSON: invalid type: integer `3`, expected a sequence"),
    ];
    std::fs::write(sweeps.join("good.json"), good.to_string()).unwrap();
    for (idx, (key, value, _)) in cases.iter().enumerate() {
        let mut bad = good.clone();
        bad[key] = value.clone();
        std::fs::write(sweeps.join(format!("bad{idx}.json")), bad.to_string()).unwrap();
    }
    let converted = nuscenes::convert(&sweeps, &folder.path().join("d"), &mut |_, _| {}).unwrap();
    assert_eq!((converted.n_frames, converted.n_points), (1, 2));
    for (_, _, expected) in &cases {
        assert!(converted.faults.iter().any(|fault| fault.contains(expected)), "{expected}: {:#?}", converted.faults);
    }
    assert_eq!(converted.faults.len(), cases.len());
}
