//! Suppression against its full table, and its laws.

use pivotal::geometry::Box3d;
use pivotal::model::spec::NmsSpec;
use pivotal::postprocess::{Detection, suppress};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use super::flat;
use super::oracle::{iou_by_reference_rule, suppress_by_table};

fn rotated(iou: f64) -> NmsSpec {
    NmsSpec::Rotated { iou, max_before: 4096, max_after: 500 }
}

fn circle(radius_m: f64) -> NmsSpec {
    NmsSpec::Circle { radius_m, max_before: 4096, max_after: 500 }
}

fn detection(box3d: Box3d, score: f32, class_idx: usize) -> Detection {
    Detection { box3d, score, class_idx }
}

/// Class indices of what is left; the tests give each box its own class to tell them apart.
fn kept(detections: &[Detection], spec: &NmsSpec) -> Vec<usize> {
    suppress(detections.to_vec(), spec).iter().map(|d| d.class_idx).collect()
}

/// Up to 60 boxes around a few places, with scores from a short list so that ties happen.
fn any_scene() -> impl Strategy<Value = Vec<Detection>> {
    let one = (0..4_u8, -1.5..1.5, -1.5..1.5, 1.0..5.0, 0.5..2.5, -4.0..4.0, 1..20_u8, 0..3_usize);
    let one = one.prop_map(|(place, dx, dy, l, w, yaw, score, class)| {
        detection(flat(f64::from(place) * 5.0 + dx, dy, l, w, yaw), f32::from(score) / 20.0, class)
    });
    prop::collection::vec(one, 0..60)
}

#[test]
fn rotated_suppression_at_the_threshold_keeps_the_box() {
    // Shared 1 x 2, joint 3 x 2: a third, exactly.
    let pair = [detection(flat(0.0, 0.0, 2.0, 2.0, 0.0), 0.9, 0), detection(flat(1.0, 0.0, 2.0, 2.0, 0.0), 0.8, 1)];
    for (threshold, left) in [(2.0 / 6.0, vec![0, 1]), (0.3333, vec![0]), (0.34, vec![0, 1]), (1.1, vec![0, 1])] {
        assert_eq!(kept(&pair, &rotated(threshold)), left, "{threshold}");
    }
}

#[test]
fn rotated_suppression_by_a_dropped_box_does_not_happen() {
    // Each covers the next, the first does not cover the third.
    let row = [0.0, 0.6, 1.2].map(|x| flat(x, 0.0, 2.0, 2.0, 0.0));
    let chain = [detection(row[0], 0.9, 0), detection(row[1], 0.8, 1), detection(row[2], 0.7, 2)];
    assert_eq!(kept(&chain, &rotated(0.5)), [0, 2]);
}

#[test]
fn suppression_of_equal_scores_keeps_the_first_given() {
    let place = flat(0.0, 0.0, 4.0, 2.0, 0.3);
    let equal = [3, 1, 2].map(|name| detection(place, 0.5, name));
    assert_eq!(kept(&equal, &rotated(0.7)), [3]);
    let apart = [3, 1, 2].map(|name| detection(flat(10.0 * name as f64, 0.0, 4.0, 2.0, 0.3), 0.5, name));
    assert_eq!(kept(&apart, &rotated(0.7)), [3, 1, 2]);
}

#[test]
fn suppression_caps_count_the_best_before_and_the_kept_after() {
    let twins = [0.0, 0.0, 10.0, 20.0].map(|x| flat(x, 0.0, 4.0, 2.0, 0.0));
    let scene: Vec<_> = twins.iter().enumerate().map(|(idx, &b)| detection(b, 0.9 - 0.1 * idx as f32, idx)).collect();
    let cases = [(4, 4, vec![0, 2, 3]), (3, 4, vec![0, 2]), (2, 4, vec![0]), (4, 2, vec![0, 2]), (0, 4, vec![]), (4, 0, vec![])];
    for (max_before, max_after, left) in cases {
        assert_eq!(kept(&scene, &NmsSpec::Rotated { iou: 0.7, max_before, max_after }), left, "{max_before} {max_after}");
    }
}

#[test]
fn circle_suppression_compares_centres_of_one_class() {
    let at = |x: f64, y: f64, class| detection(flat(x, y, 0.5, 0.5, 0.0), 0.9 - 0.01 * (x + y) as f32, class);
    let cases = [
        ("nearer than the radius", [at(0.0, 0.0, 1), at(2.9, 4.0, 1)], 1),
        ("at the radius", [at(0.0, 0.0, 1), at(3.0, 4.0, 1)], 2),
        ("another class", [at(0.0, 0.0, 1), at(0.1, 0.0, 2)], 2),
    ];
    for (name, pair, n_kept) in cases {
        assert_eq!(suppress(pair.to_vec(), &circle(5.0)).len(), n_kept, "{name}");
    }
}

#[test]
fn suppression_of_non_finite_boxes_keeps_them_and_the_others() {
    let scene: Vec<_> = [1.0, f64::NAN, f64::INFINITY, 1.0]
        .iter()
        .enumerate()
        .map(|(idx, &length)| detection(flat(0.0, 0.0, length, 2.0, 0.0), 0.9 - 0.1 * idx as f32, idx))
        .collect();
    assert_eq!(kept(&scene, &rotated(0.7)), [0, 1, 2]);
}

proptest! {
    #![proptest_config(Config { cases: 150, rng_seed: RngSeed::Fixed(3), failure_persistence: None, ..Config::default() })]

    #[test]
    fn rotated_suppression_equals_its_full_table(scene in any_scene(), threshold in 0.01..0.9) {
        let table = suppress_by_table(&scene, |a, b| iou_by_reference_rule(&a.box3d, &b.box3d) > threshold);
        prop_assert_eq!(suppress(scene, &rotated(threshold)), table);
    }

    #[test]
    fn circle_suppression_equals_its_full_table(scene in any_scene(), radius in 0.1..6.0) {
        let near = |a: &Detection, b: &Detection| {
            let (dx, dy) = (a.box3d.center[0] - b.box3d.center[0], a.box3d.center[1] - b.box3d.center[1]);
            a.class_idx == b.class_idx && dx * dx + dy * dy < radius * radius
        };
        let table = suppress_by_table(&scene, near);
        prop_assert_eq!(suppress(scene, &circle(radius)), table);
    }

    #[test]
    fn suppression_keeps_the_best_and_changes_nothing_the_second_time(scene in any_scene(), threshold in 0.01..0.9) {
        for spec in [rotated(threshold), circle(threshold * 5.0)] {
            let once = suppress(scene.clone(), &spec);
            let best = scene.iter().map(|d| d.score).reduce(f32::max);
            prop_assert_eq!(once.first().map(|d| d.score), best);
            prop_assert!(once.is_sorted_by(|a, b| a.score >= b.score));
            prop_assert_eq!(suppress(once.clone(), &spec), once);
        }
    }
}
