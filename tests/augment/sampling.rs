//! Which objects are pasted where.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use pivotal::cloud::{Feature, InputSpec};
use pivotal::data::gt_database::{DatabaseSettings, GtDatabase, build};
use pivotal::data::gt_sampling::{GtSampler, GtSamplingConfig, free_candidates};
use pivotal::data::prepare::{ClassMap, Turn};
use pivotal::geometry::Box3d;
use pivotal::geometry::iou::Footprint;

use super::scene::{Frame, Frames, box_at, classes, input, label, sample};

/// Vehicles far apart from each other, one a frame, with as many points as asked for.
fn vehicles(n: u64, n_points: usize) -> (tempfile::TempDir, Arc<GtDatabase>) {
    let frame = |index: u64| {
        let b = Box3d { yaw: 0.0, ..box_at(-70.0 + 6.0 * (index % 24) as f64, -70.0 + 4.0 * (index / 24) as f64) };
        let points = vec![[b.center[0] as f32, b.center[1] as f32, 1.0, index as f32]; n_points];
        Frame::good(sample(index, &points, Some(vec![label("Vehicle", b)])))
    };
    let dir = tempfile::tempdir().unwrap();
    let settings = DatabaseSettings { every: [("Vehicle".to_owned(), 1)].into() };
    build(&Frames::new((0..n).map(frame).collect()), &settings, dir.path(), &mut |_| ()).unwrap();
    let database = Arc::new(GtDatabase::open(dir.path()).unwrap());
    (dir, database)
}

fn config(targets: &[(&str, u32)]) -> GtSamplingConfig {
    let targets = targets.iter().map(|(class, n)| ((*class).to_owned(), *n)).collect();
    GtSamplingConfig { database: "unused".into(), targets, min_points: 5 }
}

fn sampler(database: &Arc<GtDatabase>, target: u32) -> GtSampler {
    GtSampler::new(Arc::clone(database), &config(&[("Vehicle", target)]), &classes(), &input()).unwrap()
}

#[test]
fn default_targets_are_those_of_the_paper() {
    let config: GtSamplingConfig = serde_saphyr::from_str("database: somewhere").unwrap();
    let targets: Vec<_> = config.targets.iter().map(|(class, n)| (class.as_str(), *n)).collect();
    assert_eq!(targets, [("Cyclist", 10), ("Pedestrian", 10), ("Vehicle", 15)]);
    assert_eq!(config.min_points, 5);
}

#[test]
fn of_two_overlapping_candidates_neither_is_taken() {
    let upright = |x: f64, y: f64| Box3d { center: [x, y, 1.0], size: [4.0, 2.0, 2.0], yaw: 0.0 };
    let high = Box3d { center: [20.0, 0.0, 50.0], ..upright(0.0, 0.0) };
    let turned = Box3d { yaw: std::f64::consts::FRAC_PI_4, ..upright(20.0, 0.0) };
    let cases = [
        ("apart", vec![upright(0.0, 0.0), upright(5.0, 0.0)], vec![upright(0.0, 3.0)], vec![0, 1]),
        ("each other", vec![upright(0.0, 0.0), upright(3.9, 0.0), upright(20.0, 0.0)], vec![], vec![2]),
        ("one stands", vec![upright(0.0, 0.0), upright(10.0, 0.0)], vec![upright(10.0, 1.9)], vec![0]),
        ("height plays no part", vec![upright(20.0, 0.0)], vec![high], vec![]),
        ("corner to corner of bounds only", vec![upright(23.5, 2.9)], vec![turned], vec![0]),
        ("nearer than 1 cm", vec![upright(0.0, 0.0)], vec![upright(4.005, 0.0)], vec![]),
    ];
    for (name, candidates, standing, expected) in cases {
        let occupied: Vec<Footprint> = standing.iter().map(Footprint::new).collect();
        assert_eq!(free_candidates(&candidates, &occupied), expected, "{name}");
    }
}

#[test]
fn frames_are_filled_up_to_the_target_with_what_stands_there_counted() {
    let (_dir, database) = vehicles(400, 6);
    let sampler = sampler(&database, 15);
    let turn = Turn { epoch: 1, index: 2, n_frames: 10 };
    let standing = |n_vehicles: usize, n_others: usize| -> Vec<(Box3d, Option<usize>)> {
        let places = (0..n_vehicles + n_others).map(|n| box_at(500.0 + 10.0 * n as f64, 0.0));
        places.enumerate().map(|(n, b)| (b, if n < n_vehicles { Some(0) } else { None })).collect()
    };
    for (n_vehicles, n_others, expected) in [(0, 0, 15), (4, 3, 11), (15, 0, 0), (20, 0, 0)] {
        let (pasted, n_collided) = sampler.choose(1, turn, &standing(n_vehicles, n_others));
        assert_eq!((pasted.len(), n_collided), (expected, 0), "{n_vehicles} vehicles, {n_others} others");
        assert!(pasted.iter().all(|object| object.class_idx == 0));
    }
    // A sign as large as the town leaves no place, and nothing is drawn in exchange.
    let town = Box3d { center: [0.0; 3], size: [400.0, 400.0, 2.0], yaw: 0.0 };
    assert_eq!(sampler.choose(1, turn, &[(town, None)]), (vec![], 15));
}

#[test]
fn choice_follows_from_seed_epoch_and_frame_alone() {
    let (_dir, database) = vehicles(300, 6);
    let sampler = sampler(&database, 5);
    let choose = |seed, epoch, index| sampler.choose(seed, Turn { epoch, index, n_frames: 50 }, &[]).0;
    let expected = choose(1, 3, 7);
    assert_eq!(expected.len(), 5);
    for other in [choose(1, 3, 8), choose(1, 4, 7), choose(2, 3, 7)] {
        assert_ne!(other, expected);
    }
    assert_eq!(choose(1, 3, 7), expected);
}

#[test]
fn full_draws_take_every_object_equally_often() {
    let (_dir, database) = vehicles(90, 6);
    let (sampler, n_frames) = (sampler(&database, 6), 45);
    let mut taken = vec![0u32; 90];
    for epoch in 0..4 {
        for index in 0..n_frames {
            for object in sampler.choose(9, Turn { epoch, index, n_frames }, &[]).0 {
                taken[object.object_idx] += 1;
            }
        }
    }
    assert_eq!(taken, vec![12; 90], "4 epochs of 45 frames take 6 of 90 objects each");
}

#[test]
fn partial_draws_take_every_object_about_equally_often() {
    let (_dir, database) = vehicles(90, 6);
    let (sampler, n_frames) = (sampler(&database, 6), 45);
    let mut taken = vec![0u32; 90];
    for epoch in 0..200 {
        for index in 0..n_frames {
            // 0 to 5 vehicles stand there already.
            let n_standing = (index * 7 + epoch) % 6;
            let standing: Vec<_> = (0..n_standing).map(|n| (box_at(500.0 + 10.0 * n as f64, 0.0), Some(0))).collect();
            for object in sampler.choose(9, Turn { epoch, index, n_frames }, &standing).0 {
                taken[object.object_idx] += 1;
            }
        }
    }
    // 600 permutations; each object is taken in one of them with probability 7 / 12: 350 expected, standard deviation 12.
    assert!(taken.iter().all(|n| (290..410).contains(n)), "{taken:?}");
}

#[test]
fn database_smaller_than_the_target_gives_each_object_once() {
    let (_dir, database) = vehicles(4, 6);
    let sampler = sampler(&database, 15);
    for index in 0..20 {
        let (pasted, n_collided) = sampler.choose(1, Turn { epoch: 0, index, n_frames: 20 }, &[]);
        let distinct: HashSet<_> = pasted.iter().map(|object| object.object_idx).collect();
        assert_eq!((pasted.len(), distinct.len(), n_collided), (4, 4, 0), "frame {index}");
    }
}

#[test]
fn database_that_cannot_serve_is_refused_with_the_reason() {
    let (_dir, database) = vehicles(4, 4);
    let new = |targets: &[(&str, u32)], input: &InputSpec| {
        GtSampler::new(Arc::clone(&database), &config(targets), &classes(), input).unwrap_err().to_string()
    };
    let few = new(&[("Vehicle", 15)], &input());
    assert!(few.contains("no such object with 5 points or more; it has 4 Vehicle"), "{few}");
    let unknown = new(&[("Tram", 1)], &input());
    assert!(unknown.contains("gt_sampling.targets.Tram") && unknown.contains("Vehicle, Pedestrian, Cyclist"), "{unknown}");
    let mut wants_time = input();
    wants_time.features.push(Feature::TimeOffset);
    assert!(new(&[("Vehicle", 15)], &wants_time).contains("time_offset"));
}

#[test]
fn source_names_are_mapped_when_the_database_is_opened() {
    let (_dir, database) = vehicles(10, 6);
    let renamed = BTreeMap::from([("Vehicle".to_owned(), "Car".to_owned())]);
    let classes = ClassMap::new(&["Bus".to_owned(), "Car".to_owned()], &renamed).unwrap();
    let sampler = GtSampler::new(Arc::clone(&database), &config(&[("Car", 3)]), &classes, &input()).unwrap();
    let (pasted, _) = sampler.choose(1, super::scene::FIRST, &[]);
    assert_eq!(pasted.iter().map(|object| object.class_idx).collect::<Vec<_>>(), [1, 1, 1]);
}
