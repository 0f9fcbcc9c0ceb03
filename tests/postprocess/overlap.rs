//! Rotated overlaps: hand-made numbers, the Waymo tool's numbers, an independent integration, and laws.

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI, SQRT_2};

use pivotal::geometry::Box3d;
use pivotal::geometry::iou::{self, reference};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use super::flat;
use super::oracle::{iou_by_reference_rule, overlap_by_reference_rule, overlap_by_slabs};
use crate::support::shared;

fn config() -> Config {
    Config { cases: 1500, rng_seed: RngSeed::Fixed(2), failure_persistence: None, ..Config::default() }
}

/// Boxes of traffic size that often meet.
fn any_box() -> impl Strategy<Value = Box3d> {
    (-4.0..4.0, -4.0..4.0, -1.0..1.0, 0.05..7.0, 0.05..4.0, 0.1..3.0, -7.0..7.0)
        .prop_map(|(x, y, z, l, w, h, yaw)| Box3d::from_row([x, y, z, l, w, h, yaw]))
}

/// A box and a second one that shares sides, corners or the centre with it, as far as f64 can say.
fn special_pair() -> impl Strategy<Value = (Box3d, Box3d)> {
    let step = prop_oneof![Just(-1.0), Just(-0.5), Just(0.0), Just(0.5), Just(1.0)];
    let scale = prop_oneof![Just(0.5), Just(1.0), Just(2.0)];
    (any_box(), step.clone(), step, scale.clone(), scale, -4..5_i32).prop_map(|(a, along, across, scale_l, scale_w, quarters)| {
        let (sin, cos) = a.yaw.sin_cos();
        let (dx, dy) = (along * a.size[0], across * a.size[1]);
        let center = [a.center[0] + dx * cos - dy * sin, a.center[1] + dx * sin + dy * cos, a.center[2]];
        let size = [a.size[0] * scale_l, a.size[1] * scale_w, a.size[2]];
        (a, Box3d { center, size, yaw: a.yaw + f64::from(quarters) * FRAC_PI_2 })
    })
}

/// A box and one that differs from it by little, down to the last bits.
fn near_pair() -> impl Strategy<Value = (Box3d, Box3d)> {
    (any_box(), prop::array::uniform7(-1.0..1.0), 1..17_i32).prop_map(|(a, noise, digits)| {
        let mut row = a.to_row();
        for (value, noise) in row.iter_mut().zip(noise) {
            *value += noise * 10.0_f64.powi(-digits) * value.abs();
        }
        (a, Box3d::from_row(row))
    })
}

fn any_pair() -> impl Strategy<Value = (Box3d, Box3d)> {
    prop_oneof![3 => (any_box(), any_box()), 1 => special_pair(), 1 => near_pair()]
}

#[test]
fn overlap_of_hand_made_boxes_is_the_known_area() {
    let unit = flat(0.0, 0.0, 1.0, 1.0, 0.0);
    let car = flat(3.0, -2.0, 4.0, 2.0, 0.0);
    // (name, a, b, shared area, tolerance); 0 where every number involved is exact in f64.
    let cases = [
        ("identical", car, car, 8.0, 0.0),
        ("identical, turned", flat(3.0, -2.0, 4.0, 2.0, 0.7), flat(3.0, -2.0, 4.0, 2.0, 0.7), 8.0, 0.0),
        ("half turn", car, Box3d { yaw: PI, ..car }, 8.0, 0.0),
        ("half turn backwards", car, Box3d { yaw: -PI, ..car }, 8.0, 0.0),
        ("quarter turn", car, Box3d { yaw: FRAC_PI_2, ..car }, 4.0, 0.0),
        ("three quarter turns", car, Box3d { yaw: 3.0 * FRAC_PI_2, ..car }, 4.0, 0.0),
        ("shifted by half", car, flat(5.0, -2.0, 4.0, 2.0, 0.0), 4.0, 0.0),
        ("touching sides", car, flat(7.0, -2.0, 4.0, 2.0, 0.0), 0.0, 0.0),
        ("touching sides, both upright", flat(0.0, 0.0, 4.0, 2.0, FRAC_PI_2), flat(2.0, 0.0, 4.0, 2.0, FRAC_PI_2), 0.0, 0.0),
        ("touching long sides, half turn", flat(0.0, 0.0, 12.0, 1.0, 0.0), flat(0.0, 1.0, 12.0, 1.0, PI), 0.0, 0.0),
        ("touching long sides, quarter turn", flat(0.0, 0.0, 12.0, 1.0, 0.0), flat(0.0, 1.0, 1.0, 12.0, FRAC_PI_2), 0.0, 0.0),
        ("touching corners", car, flat(7.0, 0.0, 4.0, 2.0, 0.0), 0.0, 0.0),
        ("apart", car, flat(30.0, 0.0, 4.0, 2.0, 0.4), 0.0, 0.0),
        ("apart, bounds meet", flat(0.0, 0.0, 6.0, 0.2, FRAC_PI_4), flat(1.5, -1.5, 6.0, 0.2, FRAC_PI_4), 0.0, 0.0),
        ("contained", car, flat(3.0, -2.0, 1.0, 0.5, 0.0), 0.5, 0.0),
        ("contained, turned", car, flat(3.0, -2.0, 1.0, 0.5, 0.3), 0.5, 1e-15),
        ("octagon", unit, flat(0.0, 0.0, 1.0, 1.0, FRAC_PI_4), 2.0 * (SQRT_2 - 1.0), 1e-15),
        ("corner of a diamond", unit, flat(0.5 + SQRT_2 / 2.0, 0.0, 1.0, 1.0, FRAC_PI_4), 0.0, 1e-15),
        ("tip of a diamond", unit, flat(0.25 + SQRT_2 / 2.0, 0.0, 1.0, 1.0, FRAC_PI_4), 0.0625, 1e-15),
        ("no length", unit, flat(0.0, 0.0, 0.0, 1.0, 0.0), 0.0, 0.0),
        ("a point", flat(0.0, 0.0, 0.0, 0.0, 0.0), flat(0.0, 0.0, 0.0, 0.0, 0.0), 0.0, 0.0),
        ("negative width", unit, flat(0.0, 0.0, 1.0, -1.0, 0.0), 0.0, 0.0),
        ("both sides negative", unit, flat(0.0, 0.0, -1.0, -1.0, 0.0), 0.0, 0.0),
        ("far from the origin", flat(1e6, 1e6, 4.0, 2.0, 0.0), flat(1e6 + 1.0, 1e6, 4.0, 2.0, 0.0), 6.0, 0.0),
    ];
    for (name, a, b, shared, tolerance) in cases {
        for (a, b) in [(a, b), (b, a)] {
            let got = iou::bev_overlap(&a, &b);
            assert!((got - shared).abs() <= tolerance, "{name}: {got} instead of {shared}");
        }
    }
}

#[test]
fn iou3d_of_hand_made_boxes_is_the_known_ratio() {
    let unit = |z: f64, height: f64| Box3d::from_row([0.0, 0.0, z, 2.0, 1.0, height, 0.4]);
    let cases = [
        ("identical", unit(0.1, 1.7), unit(0.1, 1.7), 1.0),
        ("half the height", unit(0.0, 2.0), unit(1.0, 2.0), 1.0 / 3.0),
        ("one on the other", unit(0.0, 2.0), unit(2.0, 2.0), 0.0),
        ("one inside the other", unit(0.0, 4.0), unit(0.5, 1.0), 0.25),
        ("flat", unit(0.0, 0.0), unit(0.0, 2.0), 0.0),
    ];
    for (name, a, b, ratio) in cases {
        assert!((iou::iou3d(&a, &b) - ratio).abs() <= 1e-15, "{name}: {}", iou::iou3d(&a, &b));
    }
}

#[test]
fn ratios_of_absurd_boxes_are_numbers_between_0_and_1() {
    let values = [0.0, -0.0, 1e-300, 1.0, 1e99, 1e200, f64::MAX, -1.0, f64::INFINITY, f64::NAN];
    let mut boxes = Vec::new();
    for length in values {
        for other in values {
            boxes.push(Box3d::from_row([0.0, other, other, length, 1.0, length, 0.3]));
            boxes.push(Box3d::from_row([other, 0.0, 0.0, length, length, other, other]));
        }
    }
    for a in &boxes {
        for b in &boxes {
            for ratio in [iou::bev_iou(a, b), iou::iou3d(a, b)] {
                assert!((0.0..=1.0).contains(&ratio), "{ratio} for {a:?} and {b:?}");
            }
            for ratio in [reference::bev_iou(a, b), reference::iou3d(a, b)] {
                assert!(ratio >= 0.0, "{ratio} for {a:?} and {b:?}");
            }
        }
    }
}

#[test]
fn corner_tolerance_of_the_reference_rule_is_one_centimetre() {
    let left = flat(0.0, 0.0, 2.0, 2.0, 0.0);
    // Gap to the right neighbour, and the overlap by the reference rule: the strip between the two sides.
    for (gap, shared) in [(0.0, 0.0), (0.004, 0.008), (0.0099, 0.0198), (0.0101, 0.0), (1.0, 0.0)] {
        let right = flat(2.0 + gap, 0.0, 2.0, 2.0, 0.0);
        assert!((reference::bev_overlap(&left, &right) - shared).abs() < 1e-12, "gap {gap}");
        assert_eq!(iou::bev_overlap(&left, &right), 0.0, "gap {gap}");
    }
}

#[test]
fn collinear_sides_do_not_add_to_the_overlap_of_the_reference_rule() {
    // Two sides of the second box lie on lines of the first, up to f64 rounding, and reach beyond it.
    let wide = Box3d::from_row([3.632811907728669, 0.0, 0.0, 5.849386338941238, 3.5455559301158504, 0.1, 4.925477875180071]);
    let long = Box3d::from_row([
        4.25132582956775,
        -2.8585434514870216,
        0.0,
        11.698772677882475,
        1.7727779650579252,
        0.1,
        8.067070528769865,
    ]);
    let shared = wide.size[0] * long.size[1];
    for (a, b) in [(wide, long), (long, wide)] {
        assert!((iou::bev_overlap(&a, &b) - shared).abs() < 1e-12);
        assert!((reference::bev_overlap(&a, &b) - shared).abs() < 1e-12);
    }
}

/// The official tool calls boxes with a side of 1 cm or less, or of 1000 km or more, disjoint.
fn official_size_rule(sides: &[f64]) -> bool {
    sides.iter().all(|&side| side > 0.01 && side < 1e6)
}

#[test]
fn ratios_of_the_waymo_pairs_equal_the_official_tool() {
    let text = std::fs::read_to_string(shared("data/waymo-metrics/iou_pairs.json")).unwrap();
    let pairs: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(pairs.len(), 1203);
    let (mut worst_3d, mut worst_2d) = (0.0_f64, 0.0_f64);
    for pair in &pairs {
        let number = |key: &str| pair[key].as_f64().unwrap();
        let read = |key: &str| {
            let row: Vec<f64> = pair[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            Box3d::from_row(row.try_into().unwrap())
        };
        let (a, b) = (read("a"), read("b"));
        let (mut ratio_3d, mut ratio_2d) = (iou::iou3d(&a, &b), iou::bev_iou(&a, &b));
        let all_sides = [a.size, b.size].concat();
        let height_is_huge = all_sides.iter().any(|&side| side >= 1e6);
        if !official_size_rule(&all_sides) {
            ratio_3d = 0.0;
        }
        if height_is_huge || !official_size_rule(&[&a.size[..2], &b.size[..2]].concat()) {
            ratio_2d = 0.0;
        }
        let (expected_3d, expected_2d) = match pair["kind"].as_str().unwrap() {
            // Both boxes stand at the same height there, so one number serves for both.
            "degenerate_official_wrong" => (number("geometric3d"), number("geometric3d")),
            _ => (number("iou3d"), number("iou2d")),
        };
        worst_3d = worst_3d.max((ratio_3d - expected_3d).abs());
        worst_2d = worst_2d.max((ratio_2d - expected_2d).abs());
        assert!((ratio_3d - number("geometric3d")).abs() < 1e-12, "{pair} {ratio_3d}");
    }
    // The file's own independent clipper differs from the official tool by 1e-13; touching sides amplify f64 rounding a little.
    assert!(worst_3d < 1e-12 && worst_2d < 1e-12, "{worst_3d:e} {worst_2d:e}");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn overlap_of_any_pair_equals_integration_by_slabs((a, b) in any_pair()) {
        prop_assert!((iou::bev_overlap(&a, &b) - overlap_by_slabs(&a, &b)).abs() < 1e-12);
    }

    #[test]
    fn overlap_by_the_reference_rule_equals_its_plain_form(a in any_box(), b in any_box()) {
        prop_assert!((reference::bev_overlap(&a, &b) - overlap_by_reference_rule(&a, &b)).abs() < 1e-12);
    }

    #[test]
    fn overlap_by_the_reference_rule_is_between_the_exact_ones_of_the_boxes_and_of_grown_ones((a, b) in any_pair()) {
        let grown = |b: &Box3d| Box3d { size: [b.size[0] + 0.02, b.size[1] + 0.02, b.size[2]], ..*b };
        let shared = reference::bev_overlap(&a, &b);
        prop_assert!(shared > iou::bev_overlap(&a, &b) - 1e-12);
        prop_assert!(shared < iou::bev_overlap(&grown(&a), &grown(&b)) + 1e-12);
    }

    #[test]
    fn quick_decision_about_the_reference_ratio_equals_the_ratio(a in any_box(), b in any_box(), threshold in 0.0..1.1) {
        let quick = reference::footprint_iou_exceeds(&iou::Footprint::new(&a), &iou::Footprint::new(&b), threshold);
        prop_assert_eq!(quick, iou_by_reference_rule(&a, &b) > threshold);
    }

    #[test]
    fn ratios_are_symmetric_to_the_last_bit_and_between_0_and_1((a, b) in any_pair()) {
        for ratio in [iou::bev_iou, iou::iou3d] {
            prop_assert_eq!(ratio(&a, &b).to_bits(), ratio(&b, &a).to_bits());
            prop_assert!((0.0..=1.0).contains(&ratio(&a, &b)));
        }
        prop_assert!((reference::bev_iou(&a, &b) - reference::bev_iou(&b, &a)).abs() < 1e-9);
    }

    #[test]
    fn ratio_of_a_box_with_itself_is_1(a in any_box()) {
        prop_assert_eq!(iou::bev_iou(&a, &a), 1.0);
        prop_assert_eq!(iou::iou3d(&a, &a), 1.0);
        prop_assert!((reference::bev_iou(&a, &a) - 1.0).abs() < 1e-12);
        for turned in [a.yaw + PI, a.yaw - PI, a.yaw + 2.0 * PI] {
            let turned = Box3d { yaw: turned, ..a };
            prop_assert!((iou::iou3d(&a, &turned) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn ratio_is_invariant_under_a_common_motion((a, b) in any_pair(), dx in -80.0..80.0, dy in -80.0..80.0, turn in -4.0..4.0) {
        let (sin, cos) = f64::sin_cos(turn);
        let moved = |b: &Box3d| {
            let [x, y, z] = b.center;
            Box3d { center: [x * cos - y * sin + dx, x * sin + y * cos + dy, z + 3.0], yaw: b.yaw + turn, ..*b }
        };
        // 80 m cost 1e-14 m of each coordinate.
        prop_assert!((iou::bev_overlap(&a, &b) - iou::bev_overlap(&moved(&a), &moved(&b))).abs() < 1e-11);
        let turned = Box3d { yaw: b.yaw + PI, ..b };
        prop_assert!((iou::bev_overlap(&a, &b) - iou::bev_overlap(&a, &turned)).abs() < 1e-12);
    }
}
