//! Cutting objects out, going on after a kill, and what damage does.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use pivotal::data::gt_database::{DatabaseSettings, GtDatabase, Manifest, build};
use pivotal::geometry::Box3d;

use super::scene::{Frame, Frames, box_at, label, sample};

const FILES: [&str; 3] = ["points.f32", "objects.jsonl", "database.json"];

fn settings(every: &[(&str, u64)]) -> DatabaseSettings {
    DatabaseSettings { every: every.iter().map(|(class, n)| ((*class).to_owned(), *n)).collect() }
}

fn made(source: &Frames, dir: &Path) -> Manifest {
    build(source, &DatabaseSettings::default(), dir, &mut |_| ()).unwrap()
}

#[test]
fn points_belong_to_the_first_box_and_are_relative_to_it_with_raw_intensity() {
    let boxes = [
        Box3d { center: [10.0, 0.0, 1.0], size: [4.0, 2.0, 2.0], yaw: 0.0 },
        Box3d { center: [12.0, 0.0, 1.0], size: [4.0, 2.0, 2.0], yaw: 0.0 },
        Box3d { center: [-5.0, 0.0, 1.0], size: [1.0, 1.0, 2.0], yaw: 0.0 },
    ];
    let points = [
        [11.5, 0.5, 1.0, 200.0], // in both
        [13.5, -0.5, 2.0, 3.0],  // in the second, on its roof
        [-5.0, 0.25, 0.5, 7.0],  // in the sign
        [30.0, 0.0, 1.0, 9.0],
    ];
    let labels = vec![
        label("Sign", boxes[2]),
        label("Vehicle", boxes[0]),
        label("Cyclist", boxes[1]),
        label("Cyclist", box_at(50.0, 0.0)),
    ];
    let source = Frames::new(vec![Frame::good(sample(0, &points, Some(labels)))]);
    let dir = tempfile::tempdir().unwrap();
    let manifest = made(&source, dir.path());
    assert_eq!((manifest.n_frames, manifest.n_without_points), (1, 1), "{manifest:?}");
    let database = GtDatabase::open(dir.path()).unwrap();
    let objects: Vec<_> =
        database.objects().iter().map(|object| (database.class_of(object), object.box3d, object.n_points)).collect();
    assert_eq!(objects, [("Vehicle", boxes[0], 1), ("Cyclist", boxes[1], 1)], "the sign is not wanted");
    assert_eq!(database.points(0).unwrap(), [1.5, 0.5, 0.0, 200.0]);
    assert_eq!(database.points(1).unwrap(), [1.5, -0.5, 1.0, 3.0]);
    assert_eq!(database.classes_in_words(), "1 Cyclist, 1 Vehicle");
}

#[test]
fn a_class_that_is_not_wanted_keeps_its_points_and_one_that_is_not_due_does_not() {
    let inside = Box3d { center: [0.0, 0.0, 1.0], size: [2.0, 2.0, 2.0], yaw: 0.0 };
    let labels = |class: &str| Some(vec![label(class, inside), label("Cyclist", inside)]);
    let points = [[0.5, 0.0, 1.0, 1.0]];
    // The sign claims the point; the vehicle does so in frame 0, but is not due in frame 1.
    let frames = vec![
        Frame::good(sample(0, &points, labels("Vehicle"))),
        Frame::good(sample(1, &points, labels("Vehicle"))),
        Frame::good(sample(2, &points, labels("Sign"))),
    ];
    let dir = tempfile::tempdir().unwrap();
    made(&Frames::new(frames), dir.path());
    let database = GtDatabase::open(dir.path()).unwrap();
    let classes: Vec<_> = database.objects().iter().map(|object| database.class_of(object)).collect();
    assert_eq!(classes, ["Vehicle", "Cyclist"]);
}

#[test]
fn classes_are_taken_from_every_fourth_second_and_single_frame() {
    let boxes = [box_at(0.0, 0.0), box_at(10.0, 0.0), box_at(20.0, 0.0)];
    let points: Vec<[f32; 4]> = boxes.iter().map(|b| [b.center[0] as f32, 0.0, 1.0, 1.0]).collect();
    let frame = |index| {
        let labels = ["Vehicle", "Pedestrian", "Cyclist"].iter().zip(boxes).map(|(class, b)| label(class, b)).collect();
        Frame::good(sample(index, &points, Some(labels)))
    };
    let dir = tempfile::tempdir().unwrap();
    let manifest = made(&Frames::new((0..9).map(frame).collect()), dir.path());
    let counts: Vec<_> = manifest.n_objects.iter().map(|(class, n)| (class.as_str(), *n)).collect();
    assert_eq!(counts, [("Cyclist", 9), ("Pedestrian", 5), ("Vehicle", 3)]);
}

#[test]
fn frames_without_use_are_listed_and_do_not_stop_the_rest() {
    let mut broken = label("Vehicle", box_at(0.0, 0.0));
    broken.box3d.size[1] = f64::NAN;
    let mut frames = Frames::streets(6).frames;
    frames[1] = Frame::Unreadable;
    frames[2] = Frame::good(sample(2, &[], None));
    frames[3] = Frame::good(sample(3, &[], Some(vec![broken])));
    let dir = tempfile::tempdir().unwrap();
    let manifest = made(&Frames::new(frames), dir.path());
    assert_eq!(manifest.n_unlabelled, 1);
    assert_eq!(
        manifest.unreadable,
        ["street/1: street: frame 1: is torn", "street/3: label 0 (Vehicle): width = NaN: must be finite",]
    );
    assert_eq!(manifest.n_objects["Cyclist"], 3);
}

#[test]
fn killed_and_begun_again_gives_the_same_bytes() {
    let source = Frames::streets(200);
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    made(&source, whole.path());
    let settings = DatabaseSettings::default();
    for kill_at in [0, 64, 192] {
        let run = catch_unwind(AssertUnwindSafe(|| {
            build(&source, &settings, killed.path(), &mut |progress| assert_ne!(progress.n_done, kill_at, "killed")).map(|_| ())
        }));
        assert!(run.is_err(), "ended before frame {kill_at}");
        // What was being written when the program died.
        for file in &FILES[..2] {
            let path = killed.path().join(file);
            let half_written = [fs::read(&path).unwrap(), b"{\"class\"".to_vec()].concat();
            fs::write(path, half_written).unwrap();
        }
        let error = GtDatabase::open(killed.path()).unwrap_err().to_string();
        assert!(error.contains("not finished"), "{error}");
    }
    let n_before = source.n_loaded.load(std::sync::atomic::Ordering::Relaxed);
    made(&source, killed.path());
    assert_eq!(source.n_loaded.load(std::sync::atomic::Ordering::Relaxed) - n_before, 8, "192 frames were done");
    for file in FILES {
        assert!(fs::read(whole.path().join(file)).unwrap() == fs::read(killed.path().join(file)).unwrap(), "{file} differs");
    }
    assert!(!killed.path().join("progress.json").exists());
}

#[test]
fn finished_database_is_left_alone_and_other_settings_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = Frames::streets(4);
    let first = made(&source, dir.path());
    assert_eq!(made(&source, dir.path()), first);
    let other = build(&source, &settings(&[("Vehicle", 1)]), dir.path(), &mut |_| ()).unwrap_err().to_string();
    assert!(other.contains("settings is") && other.contains("Pedestrian"), "{other}");
    let other = build(&Frames::streets(5), &DatabaseSettings::default(), dir.path(), &mut |_| ()).unwrap_err().to_string();
    assert!(other.contains("source is"), "{other}");

    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("notes.txt"), "mine").unwrap();
    let refused = build(&source, &DatabaseSettings::default(), foreign.path(), &mut |_| ()).unwrap_err().to_string();
    assert!(refused.contains("is not empty"), "{refused}");
    assert!(GtDatabase::open(foreign.path()).unwrap_err().to_string().contains("gt-database"));

    let shared = tempfile::tempdir().unwrap();
    let mut n_refused = 0;
    build(&source, &DatabaseSettings::default(), shared.path(), &mut |_| {
        let second = build(&source, &DatabaseSettings::default(), shared.path(), &mut |_| ()).unwrap_err().to_string();
        assert!(second.contains("another program"), "{second}");
        n_refused += 1;
    })
    .unwrap();
    assert!(n_refused > 0);
}

#[test]
fn useless_settings_and_sources_are_refused() {
    let cases = [
        (settings(&[("Vehicle", 0)]), Frames::streets(1), "every = {\"Vehicle\": 0}"),
        (
            settings(&[("Tram", 1)]),
            Frames::streets(3),
            "no object was found in 3 frames of streets: 0 without labels, 0 unreadable",
        ),
        (settings(&[("Vehicle", 1)]), Frames::new(vec![Frame::Unreadable]), "1 unreadable, first: street/0"),
    ];
    for (settings, source, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let error = build(&source, &settings, dir.path(), &mut |_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut odd = super::scene::street(1);
    odd.cloud.features.swap(2, 3);
    let source = Frames::new(vec![Frame::good(super::scene::street(0)), Frame::good(odd)]);
    let error = build(&source, &DatabaseSettings::default(), tempfile::tempdir().unwrap().path(), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("frame 1: has columns"), "{error}");
}

#[test]
fn damage_is_found_where_it_is() {
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let fresh = || {
        let dir = tempfile::tempdir().unwrap();
        made(&Frames::streets(4), dir.path());
        dir
    };
    let dir = fresh();
    flip(&dir.path().join("points.f32"), 3);
    let database = GtDatabase::open(dir.path()).unwrap();
    let error = database.points(0).unwrap_err().to_string();
    assert!(error.contains("object 0: its points have CRC-32"), "{error}");
    assert!(database.points(1).is_ok(), "only the first object is damaged");

    let dir = fresh();
    flip(&dir.path().join("objects.jsonl"), 20);
    assert!(GtDatabase::open(dir.path()).unwrap_err().to_string().contains("SHA-256"));

    let dir = fresh();
    let path = dir.path().join("points.f32");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    let error = GtDatabase::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("has {} bytes, objects.jsonl needs {}", bytes.len() - 4, bytes.len())), "{error}");

    let dir = fresh();
    let path = dir.path().join("database.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    assert!(GtDatabase::open(dir.path()).unwrap_err().to_string().contains("format: is 2, this build reads 1"));
}
