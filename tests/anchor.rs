//! Tests of anchor heads: anchors, matching, losses, decoding, the spec. Golden numbers of the same are `parity`'s.

mod decoding;
mod losses;
mod matching;
mod spec;

use pivotal::model::anchors::Anchors;
use pivotal::model::spec::{AnchorHeadSpec, AnchorSpec};
use pivotal::voxel::Grid;

/// Classes of [`head`].
fn classes() -> Vec<String> {
    ["Vehicle", "Pedestrian", "Cyclist"].map(str::to_owned).to_vec()
}

/// The head of the published Waymo configurations.
#[allow(clippy::approx_constant)] // their own five digits
fn head() -> AnchorHeadSpec {
    let anchor = |class: &str, size_m: [f32; 3], [matched_iou, unmatched_iou]: [f32; 2]| AnchorSpec {
        class: class.to_owned(),
        size_m,
        bottom_z_m: 0.0,
        matched_iou,
        unmatched_iou,
    };
    AnchorHeadSpec {
        anchors: vec![
            anchor("Vehicle", [4.7, 2.1, 1.7], [0.55, 0.4]),
            anchor("Pedestrian", [0.91, 0.86, 1.73], [0.5, 0.35]),
            anchor("Cyclist", [1.78, 0.84, 1.78], [0.5, 0.35]),
        ],
        rotations_rad: vec![0.0, 1.57],
        direction_bins: 2,
        direction_offset_rad: 0.78539,
    }
}

/// The anchors of [`head`] over 24 m by 16 m with `cell_m` between them.
fn anchors(cell_m: f32) -> Anchors {
    let grid = Grid::new([-12.0, -8.0, -2.0, 12.0, 8.0, 4.0], [cell_m, cell_m, 6.0]);
    Anchors::new(&grid, [grid.shape[0], grid.shape[1]], &head(), &classes())
}

/// Evenly spread numbers in [0, 1) that repeat nowhere, from a seed.
fn numbers(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    }
}
