//! What `trainer inspect` says about a source.

use std::process::Command;

use pivotal::data::inspect::{DriveTimes, inspect, picture};
use pivotal::data::{Source, open};
use pivotal::time::Stamp;

use super::{Entry, STEP_NS, T0_NS, car_at, cloud, labels, write_bag};
use crate::support::shared;

#[test]
fn labels_are_counted_by_level_range_and_points() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drive");
    let far = |x: f64, n_points: u32, difficulty: Option<u8>| {
        let mut label = car_at(x);
        (label.n_points, label.difficulty) = (Some(n_points), difficulty);
        label
    };
    let objects = [far(10.0, 12, Some(1)), far(35.0, 5, None), far(60.0, 6, Some(2)), far(70.0, 0, None), far(30.0, 6, None)];
    let points: Vec<[f32; 4]> = (0..12).map(|idx| [10.0 + 0.01 * idx as f32, 1.0, 0.5, 9.0]).collect();
    write_bag(
        &path,
        &[
            Entry::Cloud(cloud(T0_NS, "lidar", &points)),
            Entry::Labels(labels(T0_NS, "lidar", &objects)),
            Entry::Cloud(cloud(T0_NS + STEP_NS, "lidar", &points[..4])),
            Entry::Cloud(cloud(T0_NS + 2 * STEP_NS, "lidar", &points[..4])),
            Entry::Labels(labels(T0_NS + 2 * STEP_NS, "lidar", &[])),
        ],
    );
    let source = open(path.to_str().unwrap()).unwrap();
    let found = inspect(source.as_ref(), &[0, 1, 2]);
    let car = &found.classes["car"];
    assert_eq!((car.n, car.n_levels, car.n_by_range), (5, [2, 2], [1, 2, 2]));
    // Four boxes hold no point; three of them claim more than two.
    assert_eq!((car.n_without_points, car.n_miscounted), (4, 3));
    assert_eq!((found.n_unlabelled, found.n_without_objects, found.n_points), (1, 1, 20));
    let text = found.table();
    for expected in [
        "3 frames in 1 drives; the numbers below are of all frames",
        "drive                                  3   1700000000.000       0.20    0.100     0      0.100        0",
        "points per frame           4         4         4         4        12        12        12",
        "intensity                  9         9 ",
        "car                       5       2       2         4        1        2        2  4.0 x 2.0 x 1.5, 0.5; 3 declare another",
        "1 frames without labels, 1 labelled as empty",
        "  drive: cloud without labels, 1x: of 3 clouds",
    ] {
        assert!(text.contains(expected), "no `{expected}` in:\n{text}");
    }
    assert!(inspect(source.as_ref(), &[1]).table().contains("are of frame drive/1"), "one frame");
    assert!(inspect(source.as_ref(), &[1]).table().contains("\nno labels\n"));
    assert!(inspect(source.as_ref(), &[0, 2]).table().contains("are of 2 frames, evenly spread"));
}

#[test]
fn gaps_and_steps_back_are_counted() {
    let times = |stamps_ms: &[i64]| {
        let stamps: Vec<Stamp> = stamps_ms.iter().map(|ms| Stamp { nanos: ms * 1_000_000 }).collect();
        DriveTimes::of(&stamps).map(|times| (times.n_gaps, times.n_backward, (times.longest_step_s * 1e3).round() as i64))
    };
    assert_eq!(times(&[]), None);
    assert_eq!(times(&[5]), Some((0, 0, 0)));
    assert_eq!(times(&[0, 100, 200, 300]), Some((0, 0, 100)));
    assert_eq!(times(&[0, 100, 200, 400, 500, 480, 480, 600, 1700, 1800]), Some((2, 2, 1100)));
}

#[test]
fn picture_has_every_kind_of_frame() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drive");
    write_bag(
        &path,
        &[
            Entry::Cloud(cloud(T0_NS, "lidar", &[])),
            Entry::Cloud(cloud(T0_NS + STEP_NS, "lidar", &[[1.0, 2.0, 3.0, 4.0]])),
            Entry::Labels(labels(T0_NS + STEP_NS, "lidar", &[car_at(3.0), car_at(1e9)])),
        ],
    );
    let source = open(path.to_str().unwrap()).unwrap();
    let pictures: Vec<Vec<u8>> = (0..2).map(|index| picture(&source.load(0, index).unwrap()).unwrap()).collect();
    assert!(pictures.iter().all(|png| png.starts_with(b"\x89PNG")));
    assert_ne!(pictures[0], pictures[1]);
    assert_eq!(pictures[1], picture(&source.load(0, 1).unwrap()).unwrap(), "same frame, same bytes");
}

#[test]
fn command_prints_one_screen_and_draws() {
    let folder = tempfile::tempdir().unwrap();
    let png = folder.path().join("frame.png");
    let bag = folder.path().join("bag");
    let trainer = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_trainer")).args(args).output().unwrap();
    let converted = trainer(&["convert", "nuscenes", shared("data/nuscenes").to_str().unwrap(), "--out", bag.to_str().unwrap()]);
    assert!(converted.status.success());
    let said = String::from_utf8(converted.stdout).unwrap();
    assert!(
        said.contains("1 frames, 34688 points") && said.contains("30 pedestrian") && said.contains("no labels: 1 ignored"),
        "{said}"
    );
    let output = trainer(&["inspect", bag.to_str().unwrap(), "--frame", "0", "--png", png.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.lines().count() <= 40 && text.contains("pedestrian               30 "), "{text}");
    assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    for (args, expected) in [
        (["inspect", "synth:frames=2", "--frame", "2"], "--frame 2: the source has frames 0 to 1"),
        (["inspect", "synth:colour=2", "--frame", "0"], "there is no `colour` for any source; there is split,"),
    ] {
        let output = trainer(&args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(expected), "{said}");
    }
    let help = String::from_utf8(trainer(&["inspect", "--help"]).stdout).unwrap();
    assert!(help.contains("label_window_ms") && help.contains("synth:seed=1"), "{help}");
}

#[test]
fn waymo_and_cache_are_told_by_content_and_take_their_settings() {
    let folder = tempfile::tempdir().unwrap();
    // A record file under a name that says nothing.
    let renamed = folder.path().join("segment");
    std::fs::copy(shared("data/waymo/official/mmdet3d_val.tfrecord"), &renamed).unwrap();
    let source: Box<dyn Source> = open(&format!("{},prefix=w-", renamed.display())).unwrap();
    assert_eq!(source.len(), 1);
    assert!(source.id(0).drive.starts_with("w-"), "{}", source.id(0));
    let points = open(shared("data/waymo/semireal_waymo_partial.tfrecord").to_str().unwrap()).unwrap();
    let found = inspect(points.as_ref(), &[0]);
    // The record's labels were removed and nothing of it is a no-label zone (README of the shared data).
    assert_eq!(
        (found.n_no_label_zone, found.n_with_pose, found.frame_ids.as_slice()),
        (Some(0), 1, ["base_link".to_owned()].as_slice())
    );
    let times = found.drives[0].times.expect("every frame was loaded");
    assert_eq!((times.duration_s, found.statistics.columns.len()), (0.0, 5));
    let refused = open(&format!("{},topic=/a", renamed.display())).unwrap_err().to_string();
    assert!(refused.contains("there is no `topic` for Waymo Open Dataset files"), "{refused}");
}
