//! The fast version gives exactly what the plain one gives.

use pivotal::eval::config::{BoxType, Difficulties, Level, MatcherType, MetricsConfig};
use pivotal::eval::shards::Generator;
use pivotal::eval::{self, EvalFrame, GroundTruth, ObjectType, Prediction, json, plain};
use pivotal::geometry::Box3d;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::shared;

const GENERATORS: [Generator; 7] = [
    Generator::OneShard,
    Generator::ObjectType,
    Generator::Range,
    Generator::Velocity,
    Generator::AllButSign,
    Generator::Size,
    Generator::Camera,
];

/// Every breakdown at every level, and few cutoffs, because the plain version matches at each.
fn everything() -> MetricsConfig {
    let levels = vec![Level::Unknown, Level::Level1, Level::Level2];
    MetricsConfig {
        breakdown_generator_ids: GENERATORS.to_vec(),
        difficulties: vec![Difficulties { levels }; GENERATORS.len()],
        score_cutoffs: vec![0.3, 0.0, 0.9, 0.55, 0.3, 1.0],
        ..MetricsConfig::leaderboard()
    }
}

fn variants() -> Vec<(&'static str, MetricsConfig)> {
    let base = everything();
    vec![
        ("lenient", MetricsConfig { iou_thresholds: vec![0.0, 0.1, 0.1, 0.1, 0.1], ..base.clone() }),
        ("any overlap", MetricsConfig { iou_thresholds: vec![0.0; 5], ..base.clone() }),
        ("score first", MetricsConfig { matcher_type: MatcherType::ScoreFirst, ..base.clone() }),
        ("plane", MetricsConfig { box_type: BoxType::Rotated2d, ..base.clone() }),
        ("axes", MetricsConfig { box_type: BoxType::AxisAligned2d, ..base.clone() }),
        ("precise", MetricsConfig { min_precision: 0.5, min_heading_accuracy: 0.7, ..base.clone() }),
        ("own cutoffs", MetricsConfig { score_cutoffs: Vec::new(), num_desired_score_cutoffs: Some(9), ..base.clone() }),
        ("usual", base),
    ]
}

/// Boxes on a coarse lattice with few headings and scores: equal overlaps, equal scores and opposite headings abound.
fn lattice_frame(seed: u64, n_predictions: usize, n_truths: usize) -> EvalFrame {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let object_type = |rng: &mut ChaCha8Rng| ObjectType::from_number(rng.random_range(0..5)).unwrap();
    let box3d = |rng: &mut ChaCha8Rng| Box3d {
        center: [
            f64::from(rng.random_range(0..6)) * 0.5,
            f64::from(rng.random_range(28..32)),
            f64::from(rng.random_range(0..2)) * 0.2,
        ],
        size: [[4.0, 2.0, 1.5], [2.0, 2.0, 2.0], [8.0, 2.0, 3.0]][rng.random_range(0..3)],
        yaw: f64::from(rng.random_range(0..4)) * std::f64::consts::FRAC_PI_2,
    };
    let predictions = (0..n_predictions).map(|_| Prediction {
        object_type: object_type(&mut rng),
        box3d: box3d(&mut rng),
        score: rng.random_range(0..=10) as f32 / 10.0,
        overlaps_no_label_zone: rng.random_bool(0.2),
    });
    let predictions = predictions.collect();
    let ground_truths = (0..n_truths).map(|_| GroundTruth {
        object_type: object_type(&mut rng),
        box3d: box3d(&mut rng),
        difficulty: rng.random_range(0..3),
        speed_mps: [f64::from(rng.random_range(0..4)), 0.1],
    });
    EvalFrame { predictions, ground_truths: ground_truths.collect() }
}

#[test]
fn fast_version_equals_the_plain_one_on_ambiguous_frames() {
    let sizes = [(0, 0), (0, 4), (4, 0), (1, 1), (3, 5), (12, 7), (7, 12), (30, 30), (60, 45)];
    let frames: Vec<EvalFrame> =
        (0..27).map(|seed| lattice_frame(seed, sizes[seed as usize % 9].0, sizes[seed as usize % 9].1)).collect();
    for (name, config) in variants() {
        assert_eq!(eval::measure(&frames, &config).unwrap(), plain::measure(&frames, &config).unwrap(), "{name}");
    }
}

#[test]
fn fast_version_equals_the_plain_one_on_the_official_sets() {
    for name in ["basic", "ties", "empty", "nlz", "crowded", "configs"] {
        let frames = json::read_input(&shared(&format!("data/waymo-metrics/{name}.input.json"))).unwrap();
        for (variant, config) in variants() {
            let (fast, plain) = (eval::measure(&frames, &config).unwrap(), plain::measure(&frames, &config).unwrap());
            assert_eq!(fast, plain, "{name}, {variant}");
        }
    }
}

#[test]
fn number_of_threads_and_of_frames_at_once_does_not_matter() {
    let frames: Vec<EvalFrame> = (0..150).map(|seed| lattice_frame(seed, 9, 7)).collect();
    let config = MetricsConfig::leaderboard();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let alone = pool.install(|| eval::measure(&frames, &config).unwrap());
    assert_eq!(eval::measure(&frames, &config).unwrap(), alone);
    assert_eq!(plain::measure(&frames, &config).unwrap(), alone);
}
