//! Tests of `synth`: what a frame promises, held against the frame itself and against the bag made of it.

use std::collections::BTreeMap;
use std::process::Command;

use nalgebra::Vector3;
use pivotal::bag::BagReader;
use pivotal::geometry::iou::bev_iou;
use pivotal::msgs::cdr;
use pivotal::msgs::sensor_msgs::PointCloud2Ref;
use pivotal::msgs::tf2_msgs::TFMessage;
use pivotal::msgs::vision_msgs::Detection3DArray;
use pivotal::synth::record::{CLOUD_TOPIC, LABEL_TOPIC, labels_from_message, write_bag};
use pivotal::synth::sensor::SensorKind;
use pivotal::synth::{Difficulty, Drive, DriveConfig, FEATURES, Frame, ObjectClass};

fn drive(seed: u64, n_frames: usize, sensor: SensorKind) -> Drive {
    Drive::new(&DriveConfig::new(seed, 3, n_frames, sensor)).unwrap()
}

fn on_threads(n_threads: usize, make: impl FnOnce() -> Frame + Send) -> Frame {
    rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap().install(make)
}

fn bits(frame: &Frame) -> Vec<u32> {
    frame.cloud.points.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn frame_is_the_same_on_any_number_of_threads_and_in_any_order() {
    let first = drive(5, 4, SensorKind::Waymo5);
    let one = on_threads(1, || first.frame(2).unwrap());
    first.frame(3).unwrap();
    let again = drive(5, 4, SensorKind::Waymo5);
    let three = on_threads(3, || again.frame(2).unwrap());
    assert_eq!(bits(&one), bits(&three));
    assert_eq!(one, three);
}

#[test]
fn frame_follows_seed_drive_and_index() {
    let config = DriveConfig::new(5, 3, 2, SensorKind::Spinning16);
    let frame = |config: &DriveConfig, index| Drive::new(config).unwrap().frame(index).unwrap();
    let reference = frame(&config, 0);
    for (name, other) in [
        ("seed", frame(&DriveConfig { seed: 6, ..config.clone() }, 0)),
        ("drive", frame(&DriveConfig { drive: 4, ..config.clone() }, 0)),
        ("index", frame(&config, 1)),
    ] {
        assert_ne!(bits(&reference), bits(&other), "{name}");
    }
    let samples: Vec<u64> = [(1, 2), (2, 1), (1, 3)].map(|(e, i)| DriveConfig::sample(9, e, i, config.sensor).drive).into();
    assert!(samples[0] != samples[1] && samples[0] != samples[2] && samples[1] != samples[2]);
}

#[test]
fn boxes_count_the_points_inside() {
    let frame = drive(8, 30, SensorKind::Waymo5).frame(20).unwrap();
    assert!(frame.boxes.len() > 20 && !frame.hidden_boxes.is_empty());
    let counted = |label: &pivotal::synth::LabeledBox| {
        frame.cloud.rows().filter(|row| label.box3d.contains([0, 1, 2].map(|axis| f64::from(row[axis])))).count()
    };
    for label in &frame.boxes {
        assert_eq!(counted(label), label.n_points as usize, "{label:?}");
        assert!(label.n_points > 0);
        assert_eq!(label.difficulty == Difficulty::Level2, label.n_points <= 5, "{label:?}");
    }
    for label in &frame.hidden_boxes {
        assert_eq!((counted(label), label.n_points, label.difficulty), (0, 0, Difficulty::Level2));
    }
}

#[test]
fn points_lie_on_the_beams_of_their_laser() {
    for (kind, at_least) in [(SensorKind::Spinning64, 80_000), (SensorKind::Spinning32, 30_000), (SensorKind::Spinning16, 12_000)]
    {
        let drive = drive(2, 1, kind);
        let (frame, laser) = (drive.frame(0).unwrap(), &drive.lasers()[0]);
        assert!(frame.cloud.n_points() > at_least, "{}: {} points", kind.name(), frame.cloud.n_points());
        let mut rings_seen = vec![0usize; laser.elevations_rad.len()];
        for (row, &ring) in frame.cloud.rows().zip(&frame.rings) {
            let from_laser = Vector3::from([0, 1, 2].map(|axis| f64::from(row[axis]) - laser.mount_m[axis]));
            let elevation = from_laser.z.atan2(from_laser.xy().norm());
            let expected = laser.elevations_rad[usize::from(ring)];
            assert!((elevation - expected).abs() < 2e-5, "{}: ring {ring} at {elevation}, table {expected}", kind.name());
            assert!((laser.min_range_m - 1e-3..laser.max_range_m + 1e-3).contains(&from_laser.norm()));
            rings_seen[usize::from(ring)] += 1;
        }
        let below_horizon = laser.elevations_rad.iter().zip(&rings_seen).filter(|(elevation, _)| **elevation < -0.1);
        assert!(below_horizon.into_iter().all(|(_, &n)| n > laser.n_columns / 2), "{}: {rings_seen:?}", kind.name());
    }
}

#[test]
fn waymo5_frames_have_the_size_and_features_of_waymo() {
    let mut counts = Vec::new();
    let (mut intensity, mut elongation) = (Vec::new(), Vec::new());
    for index in 0..4 {
        let frame = Drive::new(&DriveConfig::sample(31, 0, index, SensorKind::Waymo5)).unwrap().frame(0).unwrap();
        assert_eq!(frame.cloud.features, FEATURES);
        assert_eq!(frame.rings.len(), frame.cloud.n_points());
        assert_eq!(frame.time_offsets_s.len(), frame.cloud.n_points());
        assert!(frame.cloud.points.iter().all(|value| value.is_finite()));
        counts.push(frame.cloud.n_points());
        intensity.extend(frame.cloud.rows().map(|row| row[3]));
        elongation.extend(frame.cloud.rows().map(|row| row[4]));
    }
    assert!(counts.iter().all(|n| (130_000..210_000).contains(n)), "{counts:?}");
    for (name, values, median, high) in
        [("intensity", &mut intensity, 0.03..0.2, 2.0), ("elongation", &mut elongation, 0.01..0.1, 1.494)]
    {
        values.sort_by(f32::total_cmp);
        let at = |share: f64| values[(share * (values.len() - 1) as f64) as usize];
        assert!(
            values[0] >= 0.0 && median.contains(&at(0.5)) && at(0.99) < high,
            "{name}: {} {} {}",
            values[0],
            at(0.5),
            at(0.99)
        );
        assert!(at(0.9999) > 10.0 * at(0.5), "{name} has no tail");
    }
}

#[test]
fn objects_have_plausible_classes_sizes_and_footing() {
    let mut sizes: BTreeMap<ObjectClass, Vec<[f64; 3]>> = BTreeMap::new();
    for index in 0..12 {
        let frame = Drive::new(&DriveConfig::sample(77, 1, index, SensorKind::Spinning16)).unwrap().frame(0).unwrap();
        for label in frame.boxes.iter().chain(&frame.hidden_boxes) {
            sizes.entry(label.class).or_default().push(label.box3d.size);
            let foot = label.box3d.center[2] - 0.5 * label.box3d.size[2];
            assert!(foot.abs() < 0.2 + 0.07 * label.box3d.range(), "{label:?}");
        }
    }
    for (class, expected, at_least) in [
        (ObjectClass::Vehicle, [4.7, 2.1, 1.7], 200),
        (ObjectClass::Pedestrian, [0.95, 0.9, 1.7], 80),
        (ObjectClass::Cyclist, [1.86, 0.86, 1.78], 8),
    ] {
        let found = &sizes[&class];
        assert!(found.len() > at_least, "{}: {}", class.name(), found.len());
        for (axis, expected) in expected.into_iter().enumerate() {
            let mean = found.iter().map(|size| size[axis]).sum::<f64>() / found.len() as f64;
            assert!((mean / expected - 1.0).abs() < 0.1, "{} axis {axis}: {mean}", class.name());
        }
    }
}

#[test]
fn tracks_move_as_their_velocity_says() {
    let config = DriveConfig { rate_hz: 50.0, ..DriveConfig::new(14, 2, 40, SensorKind::Spinning16) };
    let drive = Drive::new(&config).unwrap();
    let (before, after) = (drive.frame(20).unwrap(), drive.frame(21).unwrap());
    let in_world = |frame: &Frame| -> BTreeMap<u64, (Vector3<f64>, Vector3<f64>)> {
        let labels = frame.boxes.iter().chain(&frame.hidden_boxes);
        labels
            .map(|label| {
                let [vx, vy] = label.velocity_mps;
                let place = frame.world_from_ego * nalgebra::Point3::from(label.box3d.center);
                (label.track_id, (place.coords, frame.world_from_ego.rotation * Vector3::new(vx, vy, 0.0)))
            })
            .collect()
    };
    let (old, new) = (in_world(&before), in_world(&after));
    assert_eq!(old.len(), before.boxes.len() + before.hidden_boxes.len(), "ids are unique");
    let (mut n_tracked, mut n_moving) = (0, 0);
    for (id, (place, velocity)) in &old {
        let Some((next, _)) = new.get(id) else { continue };
        let moved = ((next - place) * config.rate_hz).xy();
        assert!(
            (moved - velocity.xy()).norm() < 0.1 + 0.06 * velocity.norm(),
            "track {id}: moved at {moved}, labelled {velocity}"
        );
        n_tracked += 1;
        n_moving += usize::from(velocity.norm() > 0.5);
    }
    assert!(n_tracked * 10 > old.len() * 9 && n_moving > 3, "{n_tracked} of {}, {n_moving} moving", old.len());
    let ego = (after.world_from_ego.translation.vector - before.world_from_ego.translation.vector).norm() * config.rate_hz;
    assert!((0.0..30.0).contains(&ego), "ego at {ego} m/s");
}

#[test]
fn two_returns_add_points_behind_the_first() {
    let one = DriveConfig::new(3, 1, 1, SensorKind::Spinning64);
    let both = DriveConfig { two_returns: true, ..one.clone() };
    let [one, both] = [one, both].map(|config| Drive::new(&config).unwrap().frame(0).unwrap());
    let shots = |frame: &Frame| -> BTreeMap<(u32, u16), Vec<f32>> {
        let mut shots: BTreeMap<(u32, u16), Vec<f32>> = BTreeMap::new();
        for ((row, &ring), offset) in frame.cloud.rows().zip(&frame.rings).zip(&frame.time_offsets_s) {
            let from_laser = Vector3::new(row[0] - 1.43, row[1], row[2] - 2.184);
            shots.entry((offset.to_bits(), ring)).or_default().push(from_laser.norm());
        }
        shots
    };
    let (single, double) = (shots(&one), shots(&both));
    assert!(single.values().all(|ranges| ranges.len() == 1));
    for (shot, ranges) in &single {
        assert_eq!(double[shot][0], ranges[0], "the first return does not depend on the second");
    }
    let seconds: Vec<_> = double.values().filter(|ranges| ranges.len() == 2).collect();
    assert!(seconds.len() > one.cloud.n_points() / 200, "{} of {}", seconds.len(), one.cloud.n_points());
    assert!(seconds.iter().all(|ranges| ranges[1] > ranges[0] + 0.3));
    assert!(double.values().all(|ranges| ranges.len() <= 2));
}

#[test]
fn drive_config_out_of_range_is_refused() {
    let good = DriveConfig::new(1, 1, 2, SensorKind::Spinning16);
    for (config, message) in [
        (DriveConfig { n_frames: 0, ..good.clone() }, "n_frames is 0, a drive has 1 to 100000"),
        (DriveConfig { n_frames: 100_001, ..good.clone() }, "n_frames is 100001, a drive has 1 to 100000"),
        (DriveConfig { rate_hz: 0.0, ..good.clone() }, "rate_hz is 0, a drive has 0.1 to 100"),
        (DriveConfig { rate_hz: f64::NAN, ..good.clone() }, "rate_hz is NaN, a drive has 0.1 to 100"),
    ] {
        assert_eq!(Drive::new(&config).unwrap_err().to_string(), message);
    }
    let late = Drive::new(&good).unwrap().frame(2).unwrap_err();
    assert_eq!(late.to_string(), "frame 2 was asked for, the drive has 2");
}

#[test]
fn written_bag_reads_back_as_the_frames() {
    let folder = tempfile::tempdir().unwrap();
    let config = DriveConfig { two_returns: true, ..DriveConfig::new(21, 4, 3, SensorKind::Spinning16) };
    let mut n_calls = 0;
    let totals = write_bag(&config, &folder.path().join("drive"), &mut |totals| {
        n_calls += 1;
        assert_eq!(totals.n_frames, n_calls);
    })
    .unwrap();
    assert_eq!((n_calls, totals.n_frames), (3, 3));
    let drive = Drive::new(&config).unwrap();
    let frames: Vec<Frame> = (0..3).map(|index| drive.frame(index).unwrap()).collect();
    assert_eq!(totals.n_points, frames.iter().map(|frame| frame.cloud.n_points() as u64).sum::<u64>());
    assert_eq!(totals.n_boxes.iter().sum::<u64>(), frames.iter().map(|frame| frame.boxes.len() as u64).sum::<u64>());

    let bag = BagReader::open(folder.path().join("drive")).unwrap();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for message in bag.messages(|_| true) {
        let message = message.unwrap();
        let topic = bag.topics()[message.topic_idx].name.as_str();
        let index = *seen.entry(topic).and_modify(|n| *n += 1).or_insert(0);
        let frame = &frames[index];
        assert_eq!(message.log_time_ns, frame.cloud.stamp.nanos, "{topic} {index}");
        match topic {
            CLOUD_TOPIC => {
                let cloud: PointCloud2Ref = cdr::from_bytes(&message.data).unwrap();
                assert_eq!((cloud.header.frame_id.as_str(), cloud.width as usize), ("base_link", frame.cloud.n_points()));
                for (point_idx, point) in cloud.data.chunks_exact(cloud.point_step as usize).enumerate() {
                    let float = |at: usize| f32::from_le_bytes(point[at..at + 4].try_into().unwrap());
                    let row: Vec<f32> = (0..5).map(|column| float(4 * column)).collect();
                    assert_eq!(row, frame.cloud.rows().nth(point_idx).unwrap());
                    assert_eq!(float(20), frame.time_offsets_s[point_idx]);
                    assert_eq!(u16::from_le_bytes([point[24], point[25]]), frame.rings[point_idx]);
                }
            }
            LABEL_TOPIC => {
                let array: Detection3DArray = cdr::from_bytes(&message.data).unwrap();
                let labels = labels_from_message(&array).unwrap();
                assert_eq!(labels.len(), frame.boxes.len());
                for (found, expected) in labels.iter().zip(&frame.boxes) {
                    let turn = (found.box3d.yaw - expected.box3d.yaw).sin().abs();
                    assert!(turn < 1e-9, "{found:?} {expected:?}");
                    let mut found = *found;
                    found.box3d.yaw = expected.box3d.yaw;
                    assert_eq!(found, *expected);
                }
                for detection in &array.detections {
                    let best = detection.results.iter().max_by(|a, b| a.hypothesis.score.total_cmp(&b.hypothesis.score)).unwrap();
                    assert!(ObjectClass::ALL.iter().any(|class| class.name() == best.hypothesis.class_id));
                }
            }
            "/tf" => {
                let tf: TFMessage = cdr::from_bytes(&message.data).unwrap();
                let [edge] = tf.transforms.as_slice() else { panic!("{tf:?}") };
                assert_eq!((edge.header.frame_id.as_str(), edge.child_frame_id.as_str()), ("odom", "base_link"));
                assert_eq!(edge.transform.translation.x, frame.world_from_ego.translation.x);
            }
            "/tf_static" => {
                let tf: TFMessage = cdr::from_bytes(&message.data).unwrap();
                assert_eq!(tf.transforms[0].child_frame_id, "lidar_top");
                assert_eq!(tf.transforms[0].transform.translation.z, 2.184);
            }
            other => panic!("{other} was not announced"),
        }
    }
    let counts: Vec<(&str, usize)> = seen.into_iter().map(|(topic, last)| (topic, last + 1)).collect();
    assert_eq!(counts, [(LABEL_TOPIC, 3), (CLOUD_TOPIC, 3), ("/tf", 3), ("/tf_static", 1)]);
}

#[test]
fn trainer_synth_prints_its_rate_where_no_terminal_is() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(["synth", "--frames", "2", "--sensor", "spinning16", "--out"])
        .arg(folder.path().join("drive"))
        .output()
        .unwrap();
    let summary = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    let (_, rest) = summary.split_once(": 2 frames in ").unwrap_or_else(|| panic!("{summary}"));
    let (seconds, rest) = rest.split_once(" s (").unwrap_or_else(|| panic!("{summary}"));
    let (rate, _) = rest.split_once(" frames/s), ").unwrap_or_else(|| panic!("{summary}"));
    assert!(seconds.parse::<f64>().is_ok() && rate.parse::<f64>().is_ok_and(|rate| rate > 0.0), "{summary}");
}

#[test]
fn labels_outside_of_the_convention_are_refused_by_key() {
    let frame = drive(8, 1, SensorKind::Spinning16).frame(0).unwrap();
    let good = pivotal::synth::record::label_message(&frame);
    let spoilt = |result_idx: usize, class_id: &str| {
        let mut message = good.clone();
        message.detections[1].results[result_idx].hypothesis.class_id = class_id.to_owned();
        labels_from_message(&message).unwrap_err().to_string()
    };
    for (result_idx, class_id, expected) in [
        (0, "Tram", "detection 1: class is Tram"),
        (1, "points=3", "detection 1: num_lidar_points is nothing"),
        (1, "num_lidar_points=-3", "detection 1: num_lidar_points is -3"),
        (2, "difficulty=3", "detection 1: difficulty is 3"),
        (3, "velocity_mps=1", "detection 1: velocity_mps is 1"),
    ] {
        let message = spoilt(result_idx, class_id);
        assert!(message.starts_with(expected), "{message}");
    }
    let mut message = good.clone();
    message.detections[0].id = "somebody".to_owned();
    assert!(labels_from_message(&message).unwrap_err().to_string().starts_with("detection 0: id is somebody"));
}

#[test]
fn objects_hardly_ever_stand_in_each_other() {
    let (mut n_pairs, mut n_objects) = (0, 0);
    for index in 0..10 {
        let frame = Drive::new(&DriveConfig::sample(90, 1, index, SensorKind::Spinning16)).unwrap().frame(0).unwrap();
        let all: Vec<_> = frame.boxes.iter().chain(&frame.hidden_boxes).collect();
        n_objects += all.len();
        for (first_idx, first) in all.iter().enumerate() {
            for second in &all[first_idx + 1..] {
                n_pairs += usize::from(bev_iou(&first.box3d, &second.box3d) > 0.02);
            }
        }
    }
    assert!(n_pairs * 100 < n_objects, "{n_pairs} overlapping pairs among {n_objects} objects");
}
