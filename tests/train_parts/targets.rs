//! Target drawing: the specification's check values, and a plain twin that fills whole maps.

use pivotal::train::targets::{TargetSettings, Targets, TrueBox, draw_gaussian, draw_targets, gaussian_radius};
use pivotal::voxel::Grid;

fn true_box(x: f32, y: f32, size: [f32; 3], yaw: f32, class_idx: usize) -> TrueBox {
    TrueBox { row: [x, y, 0.7, size[0], size[1], size[2], yaw], class_idx }
}

/// 40 x 20 cells of half a metre.
fn grid() -> Grid {
    Grid::new([-10.0, -5.0, -2.0, 10.0, 5.0, 4.0], [0.5, 0.5, 6.0])
}

fn draw(boxes: &[Vec<TrueBox>]) -> Targets {
    draw_targets(boxes, &grid(), 1, 3, &TargetSettings::default())
}

fn heat(targets: &Targets, at: [i64; 4]) -> f64 {
    targets.heat_map.double_value(&at)
}

#[test]
fn radius_has_the_values_of_the_specification() {
    let car = [(0.8, 2), (0.32, 4), (0.4, 3), (0.48, 2), (0.64, 2)];
    let truck = [(0.8, 3), (0.32, 7), (0.4, 6), (0.48, 5), (0.64, 3)];
    for ([length, width], cells) in [([4.7, 2.1], car), ([12.0, 3.0], truck)] {
        for (cell, radius) in cells {
            let found = gaussian_radius(length / cell, width / cell, 0.1) as i64;
            assert_eq!(found.max(2), radius, "{length} x {width} m in cells of {cell} m");
        }
    }
}

#[test]
fn objects_are_marked_at_their_cell_with_their_box() {
    let targets = draw(&[vec![true_box(1.3, -2.2, [4.0, 2.0, 1.5], 0.5, 1)]]);
    // (1.3 + 10) / 0.5 = 22.6, (-2.2 + 5) / 0.5 = 5.6
    assert_eq!(targets.index.int64_value(&[0, 0]), 5 * 40 + 22);
    assert_eq!(targets.mask.double_value(&[0, 0]), 1.0);
    let code = Vec::<f32>::try_from(targets.boxes.view([-1])).unwrap();
    let expected = [0.6, 0.6, 0.7, 4f32.ln(), 2f32.ln(), 1.5f32.ln(), 0.5f32.cos(), 0.5f32.sin()];
    for (found, expected) in code.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{code:?}");
    }
    assert_eq!(heat(&targets, [0, 1, 5, 22]), 1.0);
    assert_eq!(targets.heat_map.eq(1.0).sum(tch::Kind::Int64).int64_value(&[]), 1);
    // One cell beside the middle of a bump of radius 2: deviation 5/6.
    assert!((heat(&targets, [0, 1, 5, 23]) - (-0.5f64 / (25.0 / 36.0)).exp()).abs() < 1e-7);
    assert_eq!(heat(&targets, [0, 1, 5, 25]), 0.0);
    assert_eq!(heat(&targets, [0, 0, 5, 22]), 0.0);
}

#[test]
fn centres_outside_move_to_the_border_and_bumps_are_cut_there() {
    let size = [4.0, 2.0, 1.5];
    let targets = draw(&[vec![true_box(99.0, 99.0, size, 0.0, 0), true_box(-99.0, -99.0, size, 0.0, 0)]]);
    assert_eq!(Vec::<i64>::try_from(targets.index.view([-1])).unwrap(), [19 * 40 + 39, 0]);
    assert_eq!(targets.boxes.double_value(&[0, 0, 0]), 0.5);
    assert_eq!(targets.boxes.double_value(&[0, 1, 1]), 0.0);
    assert_eq!((heat(&targets, [0, 0, 19, 39]), heat(&targets, [0, 0, 0, 0])), (1.0, 1.0));
    assert_eq!(targets.heat_map.gt(0.0).sum(tch::Kind::Int64).int64_value(&[]), 18, "two quarters of 3 x 3 cells");
}

#[test]
fn boxes_that_cannot_be_drawn_leave_their_row_empty() {
    let good = true_box(0.0, 0.0, [4.0, 2.0, 1.5], 0.0, 0);
    let mut bad = vec![true_box(0.0, 0.0, [0.0, 2.0, 1.5], 0.0, 0), true_box(0.0, 0.0, [4.0, -2.0, 1.5], 0.0, 0)];
    for column in 0..7 {
        for value in [f32::NAN, f32::INFINITY] {
            let mut row = good.row;
            row[column] = value;
            bad.push(TrueBox { row, class_idx: 0 });
        }
    }
    let n_bad = bad.len() as i64;
    bad.push(good);
    let targets = draw(&[bad]);
    assert_eq!(targets.mask.size(), [1, n_bad + 1]);
    assert_eq!(targets.mask.sum(tch::Kind::Int64).int64_value(&[]), 1);
    assert_eq!(targets.mask.double_value(&[0, n_bad]), 1.0);
    assert_eq!(targets.boxes.isfinite().all().int64_value(&[]), 1);
}

#[test]
fn batches_are_as_wide_as_their_fullest_frame_up_to_the_limit() {
    let frame = |n: usize| (0..n).map(|i| true_box(i as f32 * 0.1 - 5.0, 0.0, [4.0, 2.0, 1.5], 0.0, i % 3)).collect::<Vec<_>>();
    let draw = |boxes: &[Vec<TrueBox>], max_objects| {
        draw_targets(boxes, &grid(), 2, 3, &TargetSettings { max_objects, ..TargetSettings::default() })
    };
    for (counts, max_objects, m) in [(vec![0, 0], 500, 0), (vec![3, 7, 0], 500, 7), (vec![30, 2], 12, 12)] {
        let boxes: Vec<_> = counts.iter().map(|n| frame(*n)).collect();
        let targets = draw(&boxes, max_objects);
        let b = counts.len() as i64;
        assert_eq!(targets.heat_map.size(), [b, 3, 10, 20]);
        assert_eq!((targets.boxes.size(), targets.index.size(), targets.mask.size()), (vec![b, m, 8], vec![b, m], vec![b, m]));
        let drawn: usize = counts.iter().map(|n| (*n).min(max_objects)).sum();
        assert_eq!(targets.mask.sum(tch::Kind::Int64).int64_value(&[]), drawn as i64);
    }
}

#[test]
fn bumps_of_any_size_equal_whole_maps_combined_by_maximum() {
    let (w, h) = (17usize, 11usize);
    let bumps = [([3usize, 4usize], 2i64), ([4, 5], 3), ([16, 10], 7), ([0, 0], 0), ([8, 2], 1_000_000_000)];
    for n in 1..=bumps.len() {
        let mut ours = vec![0f32; w * h];
        let mut plain = vec![0f64; w * h];
        for (cell, radius) in &bumps[..n] {
            draw_gaussian(&mut ours, [w, h], *cell, *radius);
            let deviation = (2 * radius + 1) as f64 / 6.0;
            for (idx, at) in plain.iter_mut().enumerate() {
                let (dx, dy) = ((idx % w).abs_diff(cell[0]) as i64, (idx / w).abs_diff(cell[1]) as i64);
                if dx.max(dy) <= *radius {
                    *at = at.max((-((dx * dx + dy * dy) as f64) / (2.0 * deviation * deviation)).exp());
                }
            }
        }
        assert!(ours.iter().zip(&plain).all(|(ours, plain)| (f64::from(*ours) - plain).abs() < 1e-7), "{n} bumps");
    }
}
