//! Every step of the augmentation by itself.

use std::collections::HashMap;
use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI};

use pivotal::data::augment::{AugmentConfig, WorldDraw, box_in_range, flip_x, flip_y, point_in_range, rotate, scale};
use pivotal::geometry::Box3d;
use pivotal::voxel::Grid;
use proptest::prelude::*;
use tch::{Kind, Tensor};

use super::scene::id;
use crate::support;

type Step = fn(&mut [f32], usize, &mut [Box3d]);

fn turn_quarter(points: &mut [f32], n_columns: usize, boxes: &mut [Box3d]) {
    rotate(points, n_columns, boxes, FRAC_PI_2);
}

fn grow(points: &mut [f32], n_columns: usize, boxes: &mut [Box3d]) {
    scale(points, n_columns, boxes, 1.05);
}

#[test]
fn steps_give_hand_numbers() {
    // Point (3, 1, 0.5); box in the same place, 4 x 2 x 1, heading 30 degrees.
    let cases: [(&str, Step, [f64; 3], [f64; 7]); 4] = [
        ("flip_x", flip_x, [3.0, -1.0, 0.5], [3.0, -1.0, 0.5, 4.0, 2.0, 1.0, -PI / 6.0]),
        ("flip_y", flip_y, [-3.0, 1.0, 0.5], [-3.0, 1.0, 0.5, 4.0, 2.0, 1.0, -7.0 * PI / 6.0]),
        ("quarter turn", turn_quarter, [-1.0, 3.0, 0.5], [-1.0, 3.0, 0.5, 4.0, 2.0, 1.0, 2.0 * PI / 3.0]),
        ("scale", grow, [3.15, 1.05, 0.525], [3.15, 1.05, 0.525, 4.2, 2.1, 1.05, PI / 6.0]),
    ];
    for (name, step, expected_point, expected_row) in cases {
        let mut points = [3.0, 1.0, 0.5, 77.0f32];
        let mut boxes = [Box3d { center: [3.0, 1.0, 0.5], size: [4.0, 2.0, 1.0], yaw: PI / 6.0 }];
        step(&mut points, 4, &mut boxes);
        for axis in 0..3 {
            assert!((f64::from(points[axis]) - expected_point[axis]).abs() < 1e-6, "{name}: {points:?}");
        }
        assert_eq!(points[3], 77.0, "{name} changed another column");
        for (got, expected) in boxes[0].to_row().iter().zip(expected_row) {
            assert!((got - expected).abs() < 1e-12, "{name}: {:?}", boxes[0]);
        }
    }
}

#[test]
fn all_steps_come_in_the_order_of_the_paper() {
    // (3, 1) -> flip x (3, -1) -> flip y (-3, -1) -> quarter turn (1, -3) -> half size (0.5, -1.5);
    // heading 0 -> 0 -> -pi -> -pi / 2.
    let draw = WorldDraw { flip_x: true, flip_y: true, rotation_rad: FRAC_PI_2, scale: 0.5 };
    let mut points = [3.0f32, 1.0, 2.0];
    let mut boxes = [Box3d { center: [3.0, 1.0, 2.0], size: [4.0, 2.0, 1.0], yaw: 0.0 }];
    draw.apply(&mut points, 3, &mut boxes);
    let row = boxes[0].to_row();
    for (got, expected) in row.iter().zip([0.5, -1.5, 1.0, 2.0, 1.0, 0.5, -FRAC_PI_2]) {
        assert!((got - expected).abs() < 1e-12, "{row:?}");
    }
    for (got, expected) in points.iter().zip([0.5, -1.5, 1.0f32]) {
        assert!((got - expected).abs() < 1e-6, "{points:?}");
    }
}

#[test]
fn headings_are_wrapped_to_minus_pi_inclusive() {
    let still = WorldDraw { flip_x: false, flip_y: false, rotation_rad: 0.0, scale: 1.0 };
    for (yaw, expected) in [(PI, -PI), (-PI, -PI), (3.5 * PI, -0.5 * PI), (-3.0, -3.0), (7.0, 7.0 - 2.0 * PI)] {
        let mut boxes = [Box3d { center: [0.0; 3], size: [1.0; 3], yaw }];
        still.apply(&mut [], 3, &mut boxes);
        assert!((boxes[0].yaw - expected).abs() < 1e-12, "{yaw} became {}", boxes[0].yaw);
    }
}

#[test]
fn range_borders_are_inclusive_and_z_is_left_to_the_voxeliser() {
    let grid = Grid::new([-4.0, -3.0, 0.0, 4.0, 3.0, 2.0], [0.5, 0.5, 2.0]);
    let beyond = 4.0f32.next_up();
    for (x, y, inside) in [(4.0, -3.0, true), (-4.0, 3.0, true), (beyond, 0.0, false), (0.0, 3.0f32.next_up(), false)] {
        assert_eq!(point_in_range(&grid, x, y), inside, "({x}, {y})");
    }
    let upright = |x: f64, z: f64| Box3d { center: [x, 0.0, z], size: [2.0, 2.0, 2.0], yaw: 0.0 };
    let around = Box3d { center: [0.0, 0.0, 1.0], size: [20.0, 20.0, 1.0], yaw: 0.0 };
    let cases = [
        (upright(5.0, 1.0), true), // two corners exactly on the border
        (upright(5.001, 1.0), false),
        (upright(0.0, 3.0), true), // its foot on the ceiling
        (upright(0.0, 3.001), false),
        (around, false), // covers the range, but no corner is inside
    ];
    for (b, inside) in cases {
        assert_eq!(box_in_range(&grid, &b), inside, "{b:?}");
    }
}

#[test]
fn golden_mask_boxes_in_range_matches() {
    let folder = support::shared("golden/components");
    let golden: HashMap<String, Tensor> =
        Tensor::read_safetensors(folder.join("boxes.safetensors")).unwrap().into_iter().collect();
    let text = std::fs::read_to_string(folder.join("components.json")).unwrap();
    let companion: serde_json::Value = serde_json::from_str(&text).unwrap();
    let range: [f32; 6] = serde_json::from_value(companion["mask_boxes_range"].clone()).unwrap();
    let grid = Grid::new(range, [1.0, 1.0, 3.0]);
    let rows = Vec::<f64>::try_from(golden["boxes"].to_kind(Kind::Double).view([-1])).unwrap();
    let expected = Vec::<i64>::try_from(golden["mask_boxes_in_range"].to_kind(Kind::Int64)).unwrap();
    let ours: Vec<i64> =
        rows.chunks_exact(7).map(|row| i64::from(box_in_range(&grid, &Box3d::from_row(row.try_into().unwrap())))).collect();
    assert_eq!(ours, expected);
    assert!((1..expected.len() as i64).contains(&expected.iter().sum()), "the mask tells nothing apart");
}

#[test]
fn draws_keep_to_their_limits_and_use_them() {
    let config = AugmentConfig::default();
    let draws: Vec<WorldDraw> = (0..2000).map(|frame| config.draw(1, 2, &id(frame))).collect();
    let share = |of: fn(&WorldDraw) -> bool| draws.iter().filter(|draw| of(draw)).count();
    // 1000 expected, standard deviation 22; 500 for both, standard deviation 19.
    assert!((890..1110).contains(&share(|draw| draw.flip_x)));
    assert!((890..1110).contains(&share(|draw| draw.flip_y)));
    assert!((405..595).contains(&share(|draw| draw.flip_x && draw.flip_y)), "flips depend on each other");
    let extremes =
        |of: fn(&WorldDraw) -> f64| draws.iter().map(of).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    let (low, high) = extremes(|draw| draw.rotation_rad);
    assert!((-FRAC_PI_4..-0.77).contains(&low) && (0.77..=FRAC_PI_4).contains(&high), "{low} {high}");
    let (low, high) = extremes(|draw| draw.scale);
    assert!((0.95..0.951).contains(&low) && (1.049..=1.05).contains(&high), "{low} {high}");
}

#[test]
fn one_step_switched_off_leaves_the_others_as_they_were() {
    let on = AugmentConfig::default();
    let expected = on.draw(3, 4, &id(9));
    let off = |change: fn(&mut AugmentConfig)| {
        let mut config = on.clone();
        change(&mut config);
        config.check().unwrap();
        config.draw(3, 4, &id(9))
    };
    assert_eq!(off(|c| c.flip_x_probability = 0.0), WorldDraw { flip_x: false, ..expected });
    assert_eq!(off(|c| c.flip_y_probability = 1.0), WorldDraw { flip_y: true, ..expected });
    assert_eq!(off(|c| c.rotation_rad = None), WorldDraw { rotation_rad: 0.0, ..expected });
    assert_eq!(off(|c| c.scaling = None), WorldDraw { scale: 1.0, ..expected });
    assert_ne!(on.draw(3, 5, &id(9)), expected, "another epoch");
    assert_ne!(on.draw(4, 4, &id(9)), expected, "another seed");
}

#[test]
fn config_says_which_setting_breaks_which_rule() {
    let parse = |text: &str| serde_saphyr::from_str::<AugmentConfig>(text);
    assert_eq!(parse("{}").unwrap(), AugmentConfig::default());
    assert!(parse("flip_z_probability: 1").unwrap_err().to_string().contains("flip_z_probability"));
    let cases = [
        ("flip_x_probability: 1.5", "flip_x_probability = 1.5: 0 to 1"),
        ("rotation_rad: [1, 0]", "rotation_rad = [1.0, 0.0]: -pi <= low <= high <= pi"),
        ("scaling: [0, 1]", "scaling = [0.0, 1.0]: 0.1 <= low <= high <= 10"),
        ("gt_sampling: {database: x, min_points: 0}", "gt_sampling.min_points = 0: at least 1"),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text).unwrap().check().unwrap_err().to_string(), expected);
    }
}

fn any_draw() -> impl Strategy<Value = WorldDraw> {
    (any::<bool>(), any::<bool>(), -0.8..0.8f64, 0.9..1.1f64).prop_map(|(flip_x, flip_y, rotation_rad, scale)| WorldDraw {
        flip_x,
        flip_y,
        rotation_rad,
        scale,
    })
}

proptest! {
    #[test]
    fn points_inside_a_box_stay_inside_and_points_outside_stay_outside(
        draw in any_draw(),
        center in prop::array::uniform2(-70.0..70.0f64),
        yaw in -4.0..4.0f64,
        at in prop::array::uniform3(-1.0..1.0f64),
    ) {
        // `at` is in half sizes; the outer one is moved beyond the front.
        let b = Box3d { center: [center[0], center[1], 0.8], size: [4.5, 1.9, 1.6], yaw };
        let place = |[along, across, up]: [f64; 3]| {
            let (along, across) = (along * 2.25, across * 0.95);
            let (sin, cos) = yaw.sin_cos();
            [b.center[0] + along * cos - across * sin, b.center[1] + along * sin + across * cos, 0.8 + up * 0.8].map(|v| v as f32)
        };
        let mut points = [place(at.map(|v| v * 0.99)), place([1.01, at[1], at[2]])].concat();
        let mut boxes = [b];
        draw.apply(&mut points, 3, &mut boxes);
        let inside: Vec<bool> = points.chunks_exact(3).map(|p| boxes[0].contains([p[0], p[1], p[2]].map(f64::from))).collect();
        prop_assert_eq!(inside, vec![true, false]);
        prop_assert!((-PI..PI).contains(&boxes[0].yaw));
        for (size, before) in boxes[0].size.iter().zip(b.size) {
            prop_assert!((size - before * draw.scale).abs() < 1e-9);
        }
    }

    #[test]
    fn moving_point_by_point_equals_moving_step_by_step(draw in any_draw(), point in prop::array::uniform3(-80.0..80.0f32)) {
        let mut stepwise = point;
        draw.apply(&mut stepwise, 3, &mut []);
        prop_assert_eq!(draw.point_mover().moved(point).map(f32::to_bits), stepwise.map(f32::to_bits));
    }
}
