//! Sparsekd-spec section 10, check 8, and the corrected merge.

use pivotal::distill::label::{LabelKd, Merge, merge_labels};
use pivotal::geometry::Box3d;
use pivotal::postprocess::Detection;
use pivotal::train::targets::{TargetSettings, TrueBox, draw_targets};
use pivotal::voxel::Grid;

const SIZES: [[f32; 3]; 3] = [[4.5, 2.0, 1.6], [0.8, 0.8, 1.8], [1.8, 0.7, 1.7]];

fn truth(x: f32, class_idx: usize) -> TrueBox {
    let [dx, dy, dz] = SIZES[class_idx];
    TrueBox { row: [x, 0.0, 0.0, dx, dy, dz, 0.3], class_idx }
}

fn found(x: f32, class_idx: usize, score: f32) -> Detection {
    let box3d = Box3d::from_row(truth(x, class_idx).row.map(f64::from));
    Detection { box3d, score, class_idx }
}

/// Place and class of each label, in order.
fn merged(teacher: &[Detection], true_boxes: &[TrueBox], kd: &LabelKd) -> Vec<(f32, usize)> {
    merge_labels(teacher, true_boxes, kd).iter().map(|label| (label.row[0], label.class_idx)).collect()
}

fn with(merge: Merge) -> LabelKd {
    LabelKd { merge, ..LabelKd::default() }
}

#[test]
fn released_merge_puts_the_teachers_boxes_first_in_their_order_and_removes_none() {
    let teacher = [found(1.0, 0, 0.9), found(1.1, 0, 0.8), found(20.0, 1, 0.7), found(1.0, 0, 0.61)];
    let labels = merged(&teacher, &[truth(1.0, 0), truth(30.0, 2)], &LabelKd::default());
    assert_eq!(labels, [(1.0, 0), (1.1, 0), (20.0, 1), (1.0, 0), (1.0, 0), (30.0, 2)]);
    let first = merged(&teacher, &[truth(30.0, 2)], &with(Merge::TruthFirst));
    assert_eq!(first[0], (30.0, 2));
    assert_eq!(merged(&teacher, &[truth(30.0, 2)], &with(Merge::TeacherOnly)).len(), 4);
}

#[test]
fn scores_must_exceed_the_threshold_of_their_class() {
    let next = |score: f32| f32::from_bits(score.to_bits() + 1);
    let cases = [
        (0, 0.6, false),
        (0, next(0.6), true),
        (1, 0.5, false),
        (1, next(0.5), true),
        (2, 0.5, false),
        (2, 0.55, true),
        (0, 0.55, false),
    ];
    for (class_idx, score, kept) in cases {
        let labels = merged(&[found(1.0, class_idx, score)], &[], &LabelKd::default());
        assert_eq!(!labels.is_empty(), kept, "class {class_idx} score {score}");
    }
    let for_all = LabelKd { min_scores: vec![0.2], ..LabelKd::default() };
    assert_eq!(merged(&[found(1.0, 2, 0.21), found(1.0, 0, 0.19)], &[], &for_all), [(1.0, 2)]);
}

#[test]
fn padding_rows_are_no_labels() {
    let empty = TrueBox { row: [0.0; 7], class_idx: 0 };
    for merge in [Merge::Released, Merge::TruthFirst, Merge::Corrected] {
        assert_eq!(merged(&[], &[truth(1.0, 0), empty], &with(merge)), [(1.0, 0)], "{merge:?}");
    }
}

#[test]
fn corrected_merge_keeps_one_label_for_each_object_and_all_true_ones() {
    let teacher = [
        found(1.3, 0, 0.95),  // the first true vehicle again
        found(20.0, 0, 0.9),  // a vehicle that nobody labelled
        found(20.4, 0, 0.85), // the same
        found(40.2, 1, 0.8),  // a pedestrian beside ...
        found(40.0, 2, 0.7),  // ... a cyclist at the same place
    ];
    // Two true boxes that overlap: what people labelled stays.
    let true_boxes = [truth(1.0, 0), truth(2.0, 0)];
    let labels = merged(&teacher, &true_boxes, &with(Merge::Corrected));
    assert_eq!(labels, [(1.0, 0), (2.0, 0), (20.0, 0), (40.2, 1), (40.0, 2)]);
}

#[test]
fn only_the_released_merge_displaces_true_labels() {
    let grid = Grid::new([-10.24, -10.24, -2.0, 51.2, 10.24, 4.0], [0.64, 0.64, 6.0]);
    let settings = TargetSettings { max_objects: 3, ..TargetSettings::default() };
    let teacher = [found(10.0, 0, 0.9), found(20.0, 0, 0.8), found(30.0, 0, 0.7)];
    let true_cell = [((40.0f32 + 10.24) / 0.64) as i64 + 16 * 96];
    for (merge, is_there) in [(Merge::Released, false), (Merge::TruthFirst, true), (Merge::Corrected, true)] {
        let labels = merge_labels(&teacher, &[truth(40.0, 0)], &with(merge));
        let targets = draw_targets(&[labels], &grid, 1, 3, &settings);
        let cells = Vec::<i64>::try_from(targets.index.view([-1])).unwrap();
        assert_eq!(cells.contains(&true_cell[0]), is_there, "{merge:?}: {cells:?}");
    }
}
