//! Bags made here, with everything that can be wrong in them.

use std::path::Path;

use pivotal::cloud::Feature;
use pivotal::data::sidecar::line_of;
use pivotal::data::{Finding, Source, open};
use pivotal::geometry::Box3d;

use super::{CLOUDS, Entry, LABELS, STEP_NS, T0_NS, car_at, cloud, edge, labels, load_all, write_bag};

const POINTS: [[f32; 4]; 2] = [[1.0, 2.0, 3.0, 40.0], [5.0, 6.0, 7.0, 80.0]];

fn source(path: &Path, settings: &str) -> Box<dyn Source> {
    open(&format!("{}{settings}", path.display())).unwrap()
}

fn told(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("{} {}x", finding.kind, finding.count)).collect()
}

#[test]
fn clouds_without_labels_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drive");
    write_bag(&path, &[Entry::Cloud(cloud(T0_NS, "lidar", &POINTS))]);
    let sample = source(&path, "").load(0, 0).unwrap();
    assert_eq!(sample.id.to_string(), "drive/0");
    // The topic is there but has no message.
    assert_eq!((sample.labels, sample.world_from_cloud), (None, None));
    assert_eq!(sample.cloud.features, [Feature::X, Feature::Y, Feature::Z, Feature::Intensity]);
    assert_eq!(sample.cloud.points, POINTS.as_flattened());
    assert_eq!(sample.cloud.stamp.nanos, T0_NS);

    let scaled = source(&path, ",intensity_scale=0.5,columns=x/y/z/intensity").load(0, 0).unwrap();
    assert_eq!(scaled.cloud.points[3], 20.0);
    let named = source(&path, ",columns=x/y/z/elongation,fields=elongation:intensity").load(0, 0).unwrap();
    assert_eq!((named.cloud.features[3], named.cloud.points[3]), (Feature::Elongation, 40.0));
    assert_eq!(source(&path, ",labels=none").findings(), []);
}

#[test]
fn labels_come_by_stamp_from_topic_or_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drive");
    let stamp = |idx: i64| T0_NS + idx * STEP_NS;
    let mut entries: Vec<Entry> = (0..3).map(|idx| Entry::Cloud(cloud(stamp(idx), "lidar", &POINTS))).collect();
    entries.push(Entry::Labels(labels(stamp(0), "lidar", &[car_at(1.0)])));
    entries.push(Entry::Labels(labels(stamp(2), "lidar", &[])));
    write_bag(&path, &entries);
    let by_topic = source(&path, "");
    let found: Vec<_> = load_all(by_topic.as_ref()).into_iter().map(|sample| sample.unwrap().labels).collect();
    assert_eq!(found, [Some(vec![car_at(1.0)]), None, Some(vec![])]);
    assert_eq!(told(&by_topic.findings()), ["cloud without labels 1x"]);

    let file = folder.path().join("labels.jsonl");
    let text = [
        line_of(stamp(1), "", &[car_at(2.0)]),
        String::new(),
        r#"{"frame": 2, "labels": [{"class": "van", "box": [1, 2, 3, 4, 5, 6, 0.5]}]}"#.to_owned(),
    ];
    std::fs::write(&file, text.join("\n")).unwrap();
    let by_file = source(&path, &format!(",label_file={}", file.display()));
    let found: Vec<_> = load_all(by_file.as_ref()).into_iter().map(|sample| sample.unwrap().labels).collect();
    assert_eq!((&found[0], &found[1]), (&None, &Some(vec![car_at(2.0)])));
    let van = &found[2].as_ref().unwrap()[0];
    assert_eq!(
        (van.class.as_str(), van.box3d, van.n_points),
        ("van", Box3d::from_row([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.5]), None)
    );
    assert_ne!(by_file.fingerprint(), by_topic.fingerprint());

    // The file in the bag's folder counts where the bag has no label topic of its own; a folder of files holds one per drive.
    std::fs::copy(&file, folder.path().join("drive.jsonl")).unwrap();
    let by_folder = source(&path, &format!(",label_file={}", folder.path().display()));
    assert_eq!(by_folder.load(0, 1).unwrap().labels, Some(vec![car_at(2.0)]));
}

#[test]
fn labels_within_the_window_go_to_the_nearest_cloud() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drive");
    let mut entries: Vec<Entry> = (0..3).map(|idx| Entry::Cloud(cloud(T0_NS + idx * STEP_NS, "lidar", &POINTS))).collect();
    for (away_ns, x) in [(4_000_000, 1.0), (STEP_NS - 3_000_000, 2.0), (STEP_NS + 1_000_000, 3.0), (2 * STEP_NS + 9_000_000, 4.0)]
    {
        entries.push(Entry::Labels(labels(T0_NS + away_ns, "lidar", &[car_at(x)])));
    }
    write_bag(&path, &entries);
    let first_x = |settings: &str| {
        let source = source(&path, settings);
        let samples = load_all(source.as_ref()).into_iter().map(|sample| sample.unwrap());
        samples.map(|sample| sample.labels.map(|labels| labels[0].box3d.center[0])).collect::<Vec<_>>()
    };
    assert_eq!(first_x(""), [None, None, None]);
    assert_eq!(first_x(",label_window_ms=5"), [Some(1.0), Some(3.0), None]);
    let findings = source(&path, ",label_window_ms=5").findings();
    assert_eq!(
        told(&findings),
        ["labels for a cloud that has some already 1x", "labels without a cloud 1x", "cloud without labels 1x"]
    );
}

#[test]
fn bad_labels_and_messages_are_counted_and_the_rest_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drive");
    let bad = |change: fn(&mut Box3d)| {
        let mut label = car_at(9.0);
        change(&mut label.box3d);
        label
    };
    let mut odd = labels(T0_NS, "lidar", &[car_at(1.0), bad(|b| b.center[1] = f64::NAN), bad(|b| b.size[2] = 0.0), car_at(2.0)]);
    odd.detections.push(Default::default());
    let mut zero_turn = labels(T0_NS, "lidar", &[car_at(3.0)]).detections.remove(0);
    zero_turn.bbox.center.orientation.w = 0.0;
    zero_turn.bbox.center.orientation.z = 0.0;
    odd.detections.push(zero_turn);
    let mut level = labels(T0_NS, "lidar", &[car_at(4.0)]).detections.remove(0);
    level.results[2].hypothesis.class_id = "difficulty=3".to_owned();
    odd.detections.push(level);
    write_bag(
        &path,
        &[
            Entry::Cloud(cloud(T0_NS, "lidar", &[[f32::NAN, 0.0, 0.0, 1.0], POINTS[0]])),
            Entry::Labels(odd),
            Entry::Raw(CLOUDS, T0_NS + 1, vec![0, 1, 0, 0, 1]),
            Entry::Raw(LABELS, T0_NS + 2, vec![0, 1, 0, 0, 1]),
            Entry::Raw("/tf", T0_NS + 3, vec![0, 1, 0, 0, 9]),
            Entry::Cloud(cloud(T0_NS, "lidar", &POINTS)),
            Entry::Cloud(cloud(T0_NS + STEP_NS, "lidar", &[])),
        ],
    );
    let source = source(&path, "");
    let samples: Vec<_> = load_all(source.as_ref()).into_iter().map(|sample| sample.unwrap()).collect();
    let xs: Vec<f64> = samples[0].labels.iter().flatten().map(|label| label.box3d.center[0]).collect();
    assert_eq!(xs, [1.0, 2.0]);
    assert_eq!(samples.iter().map(|sample| sample.cloud.n_points()).collect::<Vec<_>>(), [1, 2, 0]);
    assert_eq!(samples[1].labels, None);
    let findings = source.findings();
    assert_eq!(
        told(&findings),
        [
            "label that cannot be used 5x",
            "unreadable cloud 1x",
            "unreadable labels 1x",
            "unreadable transform 1x",
            "cloud with the stamp of an earlier one 1x",
            "cloud without labels 2x",
            "point that is not finite, left out 1x",
        ]
    );
    assert!(findings[0].example.contains("label 1: box [9.0, NaN, 0.5, 4.0, 2.0, 1.5"), "{}", findings[0]);
    assert!(findings[0].to_string().starts_with("drive: label that cannot be used, 5x: stamp 1700000000000000000"));
}

#[test]
fn bad_lines_of_a_label_file_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drive");
    write_bag(&path, &[Entry::Cloud(cloud(T0_NS, "lidar", &POINTS))]);
    let file = folder.path().join("labels.jsonl");
    let good_box = "[1,2,3,4,5,6,0]";
    let object = |text: &str| format!(r#"{{"frame": 0, "labels": [{text}]}}"#);
    let cases = [
        ("no json".to_owned(), "line 1: expected ident at line 1 column 2; NaN is written as null"),
        (object(r#"{"class": "a", "box": [NaN,2,3,4,5,6,7]}"#), "NaN is written as null"),
        (object(r#"{"class": "a", "box": [null,2,3,4,5,6,7]}"#), "line 1, label 0: box [NaN, 2.0"),
        (object(r#"{"class": "a", "box": [1,2,3,4,5,6]}"#), "invalid length 6, expected an array of length 7"),
        (object(r#"{"class": "a", "box": [1,2,3,-4,5,6,7]}"#), "expected edges above 0"),
        (object(&format!(r#"{{"class": "", "box": {good_box}}}"#)), "`class` is empty"),
        (object(&format!(r#"{{"class": "a", "box": {good_box}, "difficulty": 3}}"#)), "`difficulty` is 3, expected 1 or 2"),
        (object(&format!(r#"{{"class": "a", "box": {good_box}, "heading": 3}}"#)), "unknown field `heading`, expected one of"),
        (r#"{"labels": []}"#.to_owned(), "neither `stamp_ns` nor `frame`"),
        (r#"{"stamp_ns": 1, "frame": 0, "labels": []}"#.to_owned(), "both `stamp_ns` and `frame`"),
        (r#"{"stamp_ns": 1, "labels": []}"#.to_owned(), "line 1"),
        (r#"{"frame": 1, "labels": []}"#.to_owned(), "line 1"),
    ];
    for (text, expected) in cases {
        std::fs::write(&file, &text).unwrap();
        let findings = source(&path, &format!(",label_file={}", file.display())).findings();
        assert!(findings[0].to_string().contains(expected), "{text} gave: {}", findings[0]);
    }
    let missing = open(&format!("{},label_file=/nowhere.jsonl", path.display())).unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere.jsonl: No such file"), "{missing}");
}

#[test]
fn tf_puts_clouds_and_labels_into_the_frame_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drive");
    let quarter = std::f64::consts::FRAC_PI_2;
    let mut entries = vec![
        Entry::TfStatic(edge(T0_NS - STEP_NS, "base_link", "lidar", [1.0, 0.0, 2.0], quarter)),
        Entry::Tf(edge(T0_NS, "odom", "base_link", [10.0, 0.0, 0.0], 0.0)),
        Entry::Tf(edge(T0_NS + STEP_NS, "odom", "base_link", [12.0, 4.0, 0.0], 0.2)),
    ];
    for offset_ns in [-STEP_NS, 0, STEP_NS / 2, STEP_NS, 2 * STEP_NS] {
        entries.push(Entry::Cloud(cloud(T0_NS + offset_ns, "/lidar", &POINTS)));
    }
    entries.push(Entry::Labels(labels(T0_NS + STEP_NS / 2, "base_link", &[car_at(5.0)])));
    write_bag(&path, &entries);

    // As recorded: five clouds, labels brought from base_link to the lidar, poses where tf reaches.
    let plain = source(&path, "");
    let poses: Vec<_> = load_all(plain.as_ref()).into_iter().map(|sample| sample.unwrap().world_from_cloud).collect();
    assert_eq!(poses.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true, true, false]);
    let middle = poses[2].unwrap();
    let at = middle * nalgebra::Point3::origin();
    // Half way the vehicle is at (11, 2), turned by 0.1; the lidar is 1 m ahead and 2 m up.
    let expected = [11.0 + 0.1_f64.cos(), 2.0 + 0.1_f64.sin(), 2.0];
    assert!((at.coords - nalgebra::Vector3::from(expected)).amax() < 1e-9, "{at}");
    let label = &plain.load(0, 2).unwrap().labels.unwrap()[0];
    let close = |got: [f64; 3], wanted: [f64; 3]| got.iter().zip(wanted).all(|(got, wanted)| (got - wanted).abs() < 1e-9);
    // base_link (5, 1, 0.5) seen from a lidar at (1, 0, 2) turned a quarter to the left.
    assert!(close(label.box3d.center, [1.0, -4.0, -1.5]), "{label:?}");
    assert!((label.box3d.yaw - (0.25 - quarter)).abs() < 1e-9, "{label:?}");
    let velocity = label.velocity_mps.unwrap();
    assert!((velocity[0] + 2.0).abs() < 1e-9 && (velocity[1] + 1.0).abs() < 1e-9, "{velocity:?}");

    let base = source(&path, ",target_frame=base_link");
    let sample = base.load(0, 2).unwrap();
    assert_eq!((base.len(), sample.cloud.frame_id.as_str()), (5, "base_link"));
    assert_eq!(sample.cloud.rows().next().unwrap(), [-1.0, 1.0, 5.0, 40.0]);
    assert!(close(sample.labels.unwrap()[0].box3d.center, [5.0, 1.0, 0.5]));

    // Clouds that tf does not reach are left out and counted.
    let world = source(&path, ",target_frame=odom");
    assert_eq!(world.len(), 3);
    let findings = world.findings();
    assert_eq!((findings[0].count, findings[0].kind), (2, "cloud left out, it cannot be put into the target frame"));
    assert!(
        findings[0].example.contains("transform `odom` from `base_link` is known from 1700000000.000 s to"),
        "{}",
        findings[0]
    );
    let pose = world.load(0, 1).unwrap().world_from_cloud.unwrap();
    assert!((pose.to_homogeneous() - nalgebra::Matrix4::identity()).amax() < 1e-12);
}

#[test]
fn what_tf_cannot_do_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drive");
    let mut camera = edge(T0_NS, "lidar", "camera", [0.0; 3], 0.0);
    camera.transforms[0].transform.rotation = pivotal::msgs::geometry_msgs::Quaternion { x: -0.5, y: 0.5, z: -0.5, w: 0.5 };
    write_bag(
        &path,
        &[
            Entry::TfStatic(camera),
            Entry::TfStatic(edge(T0_NS, "a", "b", [0.0; 3], 0.0)),
            Entry::TfStatic(edge(T0_NS, "b", "a", [0.0; 3], 0.0)),
            Entry::TfStatic(edge(T0_NS, "c", "b", [f64::NAN; 3], 0.0)),
            Entry::TfStatic(edge(T0_NS, "c", "b", [0.0; 3], 0.0)),
            Entry::Cloud(cloud(T0_NS, "lidar", &POINTS)),
            Entry::Labels(labels(T0_NS, "camera", &[car_at(5.0)])),
            Entry::Cloud(cloud(T0_NS + STEP_NS, "lidar", &POINTS)),
            Entry::Labels(labels(T0_NS + STEP_NS, "map", &[car_at(5.0)])),
            Entry::Cloud(cloud(T0_NS + 2 * STEP_NS, "lidar", &POINTS)),
            Entry::Labels(labels(T0_NS + 2 * STEP_NS, "a", &[car_at(5.0)])),
        ],
    );
    let source = source(&path, "");
    let messages: Vec<String> = load_all(source.as_ref()).into_iter().map(|sample| sample.unwrap_err().to_string()).collect();
    assert_eq!(
        messages[0],
        "drive/0: labels are in `camera`, the cloud in `lidar`: tilts by 1.57 rad, an upright box by at most 0.35"
    );
    assert!(
        messages[1].contains("no chain of transforms from `map` to `lidar`; known frames: a, b, camera, lidar"),
        "{}",
        messages[1]
    );
    assert!(messages[2].contains("the frames above `a` form a circle"), "{}", messages[2]);
    assert_eq!(told(&source.findings()), ["transform that cannot be used 2x"]);
    let nothing = open(&format!("{},target_frame=moon", path.display())).unwrap_err().to_string();
    assert!(nothing.contains("no frames: drive: transform that cannot be used"), "{nothing}");
    assert!(nothing.contains("3x: no chain of transforms from `lidar` to `moon`"), "{nothing}");
}

#[test]
fn an_empty_drive_is_told_and_the_others_are_used() {
    let folder = tempfile::tempdir().unwrap();
    write_bag(&folder.path().join("empty"), &[Entry::Labels(labels(T0_NS, "lidar", &[car_at(1.0)]))]);
    write_bag(&folder.path().join("full"), &[Entry::Cloud(cloud(T0_NS, "lidar", &POINTS))]);
    let both = source(folder.path(), "");
    assert_eq!((both.len(), both.id(0).drive.as_str()), (1, "full"));
    let findings = both.findings();
    assert_eq!(told(&findings), ["labels without a cloud 1x", "empty drive 1x", "cloud without labels 1x"]);
    assert_eq!(findings[1].to_string(), "empty: empty drive, 1x: no usable cloud on /points");
    let only_empty = open(folder.path().join("empty").to_str().unwrap()).unwrap_err().to_string();
    assert!(only_empty.contains("no frames: empty: labels without a cloud, 1x"), "{only_empty}");
}
