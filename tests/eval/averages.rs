//! Cutoffs from scores and areas under curves, as the functions of the official `metrics_utils.cc` give them.

use pivotal::eval::average::average_precision;
use pivotal::eval::config::MetricsConfig;
use pivotal::eval::{EvalFrame, ObjectType, Prediction, measure};
use pivotal::geometry::Box3d;

fn cutoffs(scores: &[f32], n_wanted: usize) -> Vec<f32> {
    let prediction = |&score: &f32| Prediction {
        box3d: Box3d { center: [5.0, 0.0, 0.0], size: [4.0, 2.0, 1.5], yaw: 0.0 },
        object_type: ObjectType::Vehicle,
        score,
        overlaps_no_label_zone: false,
    };
    let frame = EvalFrame { predictions: scores.iter().map(prediction).collect(), ground_truths: Vec::new() };
    let config =
        MetricsConfig { score_cutoffs: Vec::new(), num_desired_score_cutoffs: Some(n_wanted), ..MetricsConfig::leaderboard() };
    measure(&[frame], &config).unwrap().score_cutoffs
}

#[test]
fn too_few_scores_give_even_cutoffs_with_the_rounding_of_f32() {
    for (n_wanted, last_two) in [
        (2, [0.0, 1.0]),
        (3, [0.5, 1.0]),
        (4, [0.666_666_7, 1.0]),
        (7, [0.833_333_4, 1.0]),
        (11, [0.900_000_1, 1.0]),
        (30, [0.965_517_4, 1.0]),
        (102, [0.990_098_8, 0.999_999_76]),
        (1001, [0.998_990_7, 0.999_990_7]),
    ] {
        let got = cutoffs(&[0.25, 0.5], n_wanted);
        assert_eq!((got.len(), &got[n_wanted - 2..]), (n_wanted, &last_two[..]), "{n_wanted}");
    }
    assert_eq!(cutoffs(&[0.25, 0.5], 1), [0.0]);
    assert_eq!(cutoffs(&[], 3), [0.0, 0.5, 1.0]);
}

#[test]
fn many_scores_give_cutoffs_at_even_shares_of_them() {
    let scores = [1.6, -0.5, 0.1, 0.2, 0.2, 0.4, 0.55, 0.7, 0.9, 1.5];
    assert_eq!(cutoffs(&scores, 5), [-0.5, 0.2, 0.4, 0.9, 1.0]);
}

#[test]
fn odd_curves_have_the_official_areas() {
    type Case = (&'static [f32], &'static [f32], f32, f32);
    let cases: [Case; 7] = [
        (&[], &[], 0.05, 0.0),
        (&[1.0, 1.0], &[0.0, 0.0], 0.05, 0.0),
        (&[0.5], &[1.0], 0.05, 0.500_000_06),
        (&[0.5, 0.9, 0.7, 1.0], &[0.9, 0.3, 0.31, 0.0], 0.05, 0.576_999_96),
        (&[0.2, 0.8, 0.8, 0.4], &[0.5, 0.5, 0.45, 0.95], 0.2, 0.59),
        (&[0.6, 0.3], &[0.05, 0.1], 0.05, 0.052_500_002),
        (&[0.0, 0.25], &[0.333_333, 0.666_667], 1.0, 0.166_666_75),
    ];
    for (precisions, recalls, delta, officially) in cases {
        assert_eq!(average_precision(precisions, recalls, delta), officially, "{precisions:?} {recalls:?} {delta}");
    }
}
