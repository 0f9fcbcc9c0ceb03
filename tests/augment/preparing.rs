//! From samples to training frames.

use std::collections::BTreeMap;
use std::path::Path;

use pivotal::cloud::columns::{ColumnMap, for_network};
use pivotal::cloud::decode::{CloudDecoder, SensorOverrides};
use pivotal::cloud::{Feature, InputSpec, IntensityMode, PointCloud};
use pivotal::data::augment::{AugmentConfig, point_in_range};
use pivotal::data::gt_database::{DatabaseSettings, build};
use pivotal::data::gt_sampling::GtSamplingConfig;
use pivotal::data::prepare::{Augmenter, ClassMap, Preparation, PrepareCounts, Prepared, Turn, prepare};
use pivotal::geometry::Box3d;
use pivotal::synth::record::cloud_message;
use pivotal::synth::sensor::SensorKind;
use pivotal::synth::{Drive, DriveConfig};

use super::scene::{FIRST, Frames, box_at, classes, evaluation, grid, id, input, label, sample, street};
use crate::support::borrowed;

/// Nothing random: no flip, rotation, scaling, shuffle or pasting.
fn still() -> AugmentConfig {
    AugmentConfig {
        gt_sampling: None,
        flip_x_probability: 0.0,
        flip_y_probability: 0.0,
        rotation_rad: None,
        scaling: None,
        shuffle: false,
    }
}

fn training(config: &AugmentConfig) -> Preparation {
    let augmenter = Augmenter::new(config, &classes(), &input()).unwrap();
    Preparation { augmenter: Some(augmenter), ..evaluation() }
}

fn prepared(sample: &pivotal::data::Sample, setup: &Preparation) -> Prepared {
    prepare(sample, FIRST, setup).unwrap()
}

fn conserved(counts: &PrepareCounts) -> bool {
    let gone = counts.points_out_of_range + counts.points_making_way + counts.points_not_finite;
    counts.points_received + counts.points_pasted == counts.points_kept + gone
}

#[test]
fn raw_columns_become_what_the_nodes_decoder_gives_for_the_same_message() {
    let frame = Drive::new(&DriveConfig::new(3, 0, 1, SensorKind::Spinning16)).unwrap().frame(0).unwrap();
    let message = cloud_message(&frame);
    let decoded = |input: &InputSpec| {
        let mut cloud = PointCloud::default();
        CloudDecoder::new(input, &SensorOverrides::default()).unwrap().decode(&borrowed(&message), &mut cloud).unwrap();
        cloud
    };
    let columns = [Feature::X, Feature::Y, Feature::Z, Feature::Elongation, Feature::Intensity];
    let raw = decoded(&InputSpec { features: columns.to_vec(), intensity: IntensityMode::Raw, fill_absent: BTreeMap::new() });
    assert!(raw.n_points() > 5000);
    let xyzi = vec![Feature::X, Feature::Y, Feature::Z, Feature::Intensity];
    let overflowing = IntensityMode::Scale(3e38);
    for (features, intensity) in [
        (xyzi.clone(), IntensityMode::Tanh),
        ([&columns[..3], &[Feature::Intensity, Feature::Elongation]].concat(), IntensityMode::ScaleTanh(0.3)),
        (columns[..3].to_vec(), IntensityMode::Raw),
        (xyzi, overflowing),
    ] {
        let input = InputSpec { features, intensity, fill_absent: BTreeMap::new() };
        let (ours, nodes) = (for_network(&raw, &input).unwrap(), decoded(&input));
        assert!(ours == nodes, "{input:?}: {} and {} points", ours.n_points(), nodes.n_points());
        assert!(intensity == overflowing || ours.n_points() == raw.n_points());
    }
}

#[test]
fn absent_columns_are_filled_without_scaling_or_refused() {
    let cloud =
        PointCloud { features: vec![Feature::X, Feature::Y, Feature::Z], points: vec![1.0, 2.0, 3.0], ..PointCloud::default() };
    let mut input = InputSpec { fill_absent: [(Feature::Intensity, 0.5)].into(), ..input() };
    let error = for_network(&cloud, &input).unwrap_err().to_string();
    assert!(error.contains("elongation") && error.contains("x, y, z"), "{error}");
    input.fill_absent.insert(Feature::Elongation, 0.1);
    assert_eq!(for_network(&cloud, &input).unwrap().points, [1.0, 2.0, 3.0, 0.5, 0.1]);
}

#[test]
fn evaluation_changes_nothing_but_columns_and_range() {
    let labels = vec![label("Vehicle", box_at(100.0, 0.0)), label("Sign", box_at(0.0, 0.0)), label("Cyclist", box_at(1.0, 2.0))];
    let mut labels = labels;
    labels[2].n_points = Some(0);
    let points = [[5.0, 5.0, 90.0, 0.5], [20.5, 0.0, 0.0, 1.0], [-20.48, 20.48, 0.0, 2.0]];
    let Prepared { frame, counts } = prepared(&sample(4, &points, Some(labels)), &evaluation());
    let frame = frame.unwrap();
    assert_eq!(frame.id, id(4));
    assert_eq!(frame.points, [5.0, 5.0, 90.0, 0.5f32.tanh(), 0.25, -20.48, 20.48, 0.0, 2.0f32.tanh(), 0.25]);
    assert_eq!(frame.boxes.iter().map(|b| (b.row[0], b.class_idx)).collect::<Vec<_>>(), [(100.0, 0), (1.0, 2)]);
    assert_eq!((counts.points_out_of_range, counts.points_kept, counts.boxes_kept), (1, 2, 2));
    assert_eq!(counts.labels_of_other_classes, BTreeMap::from([("Sign".to_owned(), 1)]));
    let empty = prepared(&sample(5, &[], Some(Vec::new())), &evaluation()).frame.unwrap();
    assert!(empty.points.is_empty() && empty.boxes.is_empty(), "a frame without objects is evaluated all the same");
}

#[test]
fn training_leaves_out_boxes_without_points_out_of_range_and_of_other_classes() {
    let mut labels: Vec<_> =
        [(0.0, "Vehicle"), (5.0, "Vehicle"), (100.0, "Cyclist"), (10.0, "Sign"), (-10.0, "Cyclist"), (-15.0, "Cyclist")]
            .map(|(x, class)| label(class, box_at(x, 0.0)))
            .into();
    labels[1].n_points = Some(0);
    labels[4].n_points = None; // counted here: one point
    labels[5].n_points = None; // counted here: none
    let points = [[0.0, 0.0, 1.0, 1.0], [-10.0, 0.0, 1.0, 1.0], [0.0, 50.0, 1.0, 1.0]];
    let Prepared { frame, counts } = prepared(&sample(0, &points, Some(labels)), &training(&still()));
    let boxes: Vec<_> = frame.unwrap().boxes.iter().map(|b| (b.row[0], b.class_idx)).collect();
    assert_eq!(boxes, [(0.0, 0), (-10.0, 2)]);
    assert_eq!((counts.labels, counts.labels_without_points, counts.boxes_out_of_range, counts.boxes_kept), (6, 2, 1, 2));
    assert_eq!(counts.labels_of_other_classes["Sign"], 1);
    assert!(conserved(&counts), "{counts:?}");
}

#[test]
fn frames_with_nothing_to_learn_give_none_and_say_why() {
    let far = || Some(vec![label("Vehicle", box_at(100.0, 0.0))]);
    let near = || Some(vec![label("Vehicle", box_at(0.0, 0.0))]);
    let here = [[0.0, 0.0, 1.0, 1.0]];
    let cases = [
        ("unlabelled", sample(0, &here, None), [1, 0, 0]),
        ("labelled as empty", sample(0, &here, Some(Vec::new())), [0, 1, 0]),
        ("box out of range", sample(0, &here, far()), [0, 1, 0]),
        ("no point in range", sample(0, &[[90.0, 0.0, 0.0, 0.0]], near()), [0, 0, 1]),
        ("no point", sample(0, &[], near()), [0, 0, 1]),
    ];
    for (name, sample, expected) in cases {
        let Prepared { frame, counts } = prepared(&sample, &training(&still()));
        assert_eq!(frame, None, "{name}");
        assert_eq!([counts.frames_unlabelled, counts.frames_without_box, counts.frames_without_point], expected, "{name}");
    }
    assert_eq!(prepared(&sample(0, &here, None), &evaluation()).frame, None, "no labels are not an empty list of labels");
}

#[test]
fn labels_that_are_no_boxes_are_errors_that_name_frame_label_and_field() {
    type Spoil = fn(&mut Box3d);
    let cases: [(&str, Spoil); 4] = [
        ("street/8: label 1 (Cyclist): y = NaN: must be finite", |b| b.center[1] = f64::NAN),
        ("street/8: label 1 (Cyclist): length = -1: must be greater than 0", |b| b.size[0] = -1.0),
        ("street/8: label 1 (Cyclist): height = 0: must be greater than 0", |b| b.size[2] = 0.0),
        ("street/8: label 1 (Cyclist): yaw = inf: must be finite", |b| b.yaw = f64::INFINITY),
    ];
    for (expected, spoil) in cases {
        let mut labels = vec![label("Vehicle", box_at(0.0, 0.0)), label("Cyclist", box_at(9.0, 0.0))];
        spoil(&mut labels[1].box3d);
        let sample = sample(8, &[[0.0; 4]], Some(labels));
        for setup in [training(&still()), evaluation()] {
            assert_eq!(prepare(&sample, FIRST, &setup).unwrap_err().to_string(), expected);
        }
    }
    let mut wants_time = evaluation();
    wants_time.input.features.push(Feature::TimeOffset);
    let error = prepare(&street(2), FIRST, &wants_time).unwrap_err().to_string();
    assert!(error.starts_with("street/2: no field for time_offset"), "{error}");
    let renamed = BTreeMap::from([("car".to_owned(), "Auto".to_owned())]);
    let error = ClassMap::new(classes().names(), &renamed).unwrap_err().to_string();
    assert_eq!(error, "class `car` is mapped to `Auto`; the model has Vehicle, Pedestrian, Cyclist");
}

#[test]
fn shuffle_reorders_whole_points_and_follows_from_seed_epoch_and_id() {
    let config = AugmentConfig { shuffle: true, ..still() };
    let rows = |frame: u64, epoch: u64, seed: u64, config: &AugmentConfig| -> Vec<[u32; 5]> {
        let setup = Preparation { data_seed: seed, ..training(config) };
        let sample = pivotal::data::Sample { id: id(frame), ..street(1) };
        let frame = prepare(&sample, Turn { epoch, ..FIRST }, &setup).unwrap().frame.unwrap();
        frame.points.chunks_exact(5).map(|row| std::array::from_fn(|column| row[column].to_bits())).collect()
    };
    let (stored, mixed) = (rows(1, 0, 5, &still()), rows(1, 0, 5, &config));
    assert_ne!(mixed, stored);
    let sorted = |mut rows: Vec<[u32; 5]>| {
        rows.sort_unstable();
        rows
    };
    assert_eq!(sorted(mixed.clone()), sorted(stored));
    assert_eq!(rows(1, 0, 5, &config), mixed);
    for other in [rows(2, 0, 5, &config), rows(1, 1, 5, &config), rows(1, 0, 6, &config)] {
        assert_ne!(other, mixed);
    }
}

/// A database of the objects of 40 streets, and everything else switched on.
fn pasting(dir: &Path, shuffle: bool) -> AugmentConfig {
    let settings = DatabaseSettings { every: [("Vehicle".to_owned(), 1), ("Cyclist".to_owned(), 1)].into() };
    build(&Frames::streets(40), &settings, dir, &mut |_| ()).unwrap();
    let targets = [("Vehicle".to_owned(), 6), ("Cyclist".to_owned(), 4)].into();
    let gt_sampling = Some(GtSamplingConfig { database: dir.to_owned(), targets, min_points: 5 });
    AugmentConfig { gt_sampling, shuffle, ..AugmentConfig::default() }
}

/// The steps one after the other over whole clouds, as the paper lists them.
fn plainly(sample: &pivotal::data::Sample, turn: Turn, setup: &Preparation, config: &AugmentConfig) -> (Vec<f32>, Vec<[f64; 7]>) {
    let sampler = setup.augmenter.as_ref().unwrap().sampler().unwrap();
    let labels = sample.labels.as_ref().unwrap();
    let standing: Vec<_> = labels.iter().map(|label| (label.box3d, setup.classes.index_of(&label.class))).collect();
    let (pasted, _) = sampler.choose(setup.data_seed, turn, &standing);
    assert!(!pasted.is_empty());
    let grown = |b: &Box3d| Box3d { size: [b.size[0] + 0.02, b.size[1] + 0.02, b.size[2]], ..*b };
    let mut points = Vec::new();
    for object in &pasted {
        sampler.points_of(object, |row| assert!(sampler.columns().push(row, &mut points))).unwrap();
    }
    let columns = ColumnMap::new(&sample.cloud.features, &setup.input).unwrap();
    for row in sample.cloud.rows() {
        let at = [row[0], row[1], row[2]].map(f64::from);
        if !pasted.iter().any(|object| grown(&object.box3d).contains(at)) {
            assert!(columns.push(row, &mut points));
        }
    }
    let mut boxes: Vec<Box3d> = standing.iter().map(|(b, _)| *b).chain(pasted.iter().map(|object| object.box3d)).collect();
    config.draw(setup.data_seed, turn.epoch, &sample.id).apply(&mut points, 5, &mut boxes);
    let inside = points.chunks_exact(5).filter(|row| point_in_range(&setup.grid, row[0], row[1]));
    (inside.flatten().copied().collect(), boxes.into_iter().map(Box3d::to_row).collect())
}

#[test]
fn one_pass_over_the_points_equals_step_after_step() {
    let dir = tempfile::tempdir().unwrap();
    let config = pasting(dir.path(), false);
    let setup = training(&config);
    let mut total = PrepareCounts::default();
    for (epoch, index) in [(0, 0), (0, 5), (3, 17), (9, 39)] {
        let turn = Turn { epoch, index, n_frames: 40 };
        let sample = street(index);
        let Prepared { frame, counts } = prepare(&sample, turn, &setup).unwrap();
        let frame = frame.unwrap();
        let (points, boxes) = plainly(&sample, turn, &setup, &config);
        assert_eq!(
            frame.points.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
            points.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        );
        let kept: Vec<[f64; 7]> =
            boxes.into_iter().filter(|row| pivotal::data::augment::box_in_range(&setup.grid, &Box3d::from_row(*row))).collect();
        assert_eq!(frame.boxes.len(), kept.len());
        for (ours, plain) in frame.boxes.iter().zip(kept) {
            assert_eq!(ours.row, plain.map(|v| v as f32));
        }
        assert!(conserved(&counts), "{counts:?}");
        total += &counts;
    }
    assert_eq!(total.frames, 4);
    for (what, n) in
        [("making way", total.points_making_way), ("pasted", total.points_pasted), ("out", total.points_out_of_range)]
    {
        assert!(n > 0, "no point was {what}: {total:?}");
    }
}

#[test]
fn pasted_objects_bring_their_points_and_keep_clear_of_other_classes() {
    let dir = tempfile::tempdir().unwrap();
    let config = AugmentConfig { shuffle: false, gt_sampling: pasting(dir.path(), false).gt_sampling, ..still() };
    let setup = training(&config);
    let own = label("Pedestrian", Box3d { size: [0.8, 0.8, 1.8], ..box_at(15.0, 15.0) });
    let scene = sample(50, &[[15.0, 15.0, 1.0, 1.0]], Some(vec![own.clone()]));
    let Prepared { frame, counts } = prepared(&scene, &setup);
    let frame = frame.unwrap();
    assert!(counts.objects_pasted >= 2, "{counts:?}");
    for b in &frame.boxes[1..] {
        let b3d = Box3d::from_row(b.row.map(f64::from));
        let inside = frame.points.chunks_exact(5).filter(|p| b3d.contains([p[0], p[1], p[2]].map(f64::from)));
        let intensities: Vec<f32> = inside.map(|point| point[3]).collect();
        assert!(intensities.len() >= 5, "{b:?} has {} points", intensities.len());
        assert!(intensities.iter().all(|v| v.abs() <= 1.0), "raw intensity came through: {intensities:?}");
    }
    assert_eq!(frame.points[frame.points.len() - 5..], [15.0, 15.0, 1.0, 1f32.tanh(), 0.25], "the frame's own points come last");

    // The same with a sign that covers the town: nothing can be pasted, and the sign is not learnt.
    let town = label("Sign", Box3d { center: [0.0, 0.0, 9.0], size: [90.0, 90.0, 1.0], yaw: 0.0 });
    let Prepared { frame, counts } = prepared(&sample(50, &[[15.0, 15.0, 1.0, 1.0]], Some(vec![own, town])), &setup);
    assert_eq!(frame.unwrap().boxes.len(), 1);
    assert_eq!(counts.objects_pasted, 0);
    assert_eq!(counts.objects_collided, 10);
}

#[test]
fn range_and_grid_of_the_test_streets_are_exercised() {
    // Guards the fixtures: objects in range before any change.
    let frame = prepared(&street(0), &evaluation()).frame.unwrap();
    assert_eq!(frame.boxes.len(), 2);
    assert!(frame.points.chunks_exact(5).all(|row| point_in_range(&grid(), row[0], row[1])));
}
