//! Peaks of heat maps and the boxes made of them.

use std::collections::BTreeMap;

use pivotal::model::spec::{DistanceThreshold, NmsSpec, PostprocessSpec};
use pivotal::postprocess::{Decoded, Peaks, PostprocessError, decode_boxes, top_peaks};
use pivotal::voxel::Grid;
use tch::Tensor;

/// (class, row, column) and score of every peak.
fn listed(peaks: &Peaks) -> (Vec<(i64, i64, i64)>, Vec<f32>) {
    let integers = |tensor: &Tensor| Vec::<i64>::try_from(tensor).unwrap();
    let (class, row, col) = (integers(&peaks.class_idx), integers(&peaks.row), integers(&peaks.col));
    let cells = class.into_iter().zip(row).zip(col).map(|((class, row), col)| (class, row, col)).collect();
    (cells, Vec::try_from(&peaks.scores).unwrap())
}

/// A map whose logits repeat often, from a multiplicative sequence.
fn coarse_map(n_classes: i64, n_rows: i64, n_cols: i64, n_levels: u64) -> Vec<f32> {
    (0..(n_classes * n_rows * n_cols) as u64)
        .map(|idx| ((idx.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % n_levels) as f32 / n_levels as f32 * 8.0 - 6.0)
        .collect()
}

#[test]
fn peaks_of_maps_with_ties_are_the_best_per_class_and_then_overall() {
    // (K, H, W, levels of the logits, peaks)
    let cases = [
        (3, 40, 48, 7, 500),
        (3, 40, 48, 100_000, 500),
        (3, 232, 232, 50, 500),
        (1, 9, 7, 3, 20),
        (2, 5, 4, 2, 500),
        (3, 4, 4, 1, 7),
    ];
    for (n_classes, n_rows, n_cols, n_levels, max_peaks) in cases {
        let logits = coarse_map(n_classes, n_rows, n_cols, n_levels);
        let peaks = top_peaks(&Tensor::from_slice(&logits).reshape([n_classes, n_rows, n_cols]), max_peaks).unwrap();

        let per_class = (n_rows * n_cols) as usize;
        let by_logit = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
        let mut best: Vec<usize> = Vec::new();
        for class in 0..n_classes as usize {
            let mut cells: Vec<usize> = (class * per_class..(class + 1) * per_class).collect();
            cells.sort_by(by_logit);
            cells.truncate(max_peaks);
            best.extend(cells);
        }
        best.sort_by(by_logit);
        best.truncate(max_peaks);
        let cell = |idx: &usize| {
            let (class, cell) = (idx / per_class, idx % per_class);
            (class as i64, cell as i64 / n_cols, cell as i64 % n_cols)
        };
        let (cells, scores) = listed(&peaks);
        assert_eq!(cells, best.iter().map(cell).collect::<Vec<_>>(), "{n_classes} x {n_rows} x {n_cols}");
        for (score, idx) in scores.iter().zip(&best) {
            assert!((f64::from(*score) - 1.0 / (1.0 + (-f64::from(logits[*idx])).exp())).abs() < 3e-8);
        }
        assert!(scores.is_sorted_by(|a, b| a >= b));
    }
}

#[test]
fn peaks_of_saturated_and_unusual_logits_have_a_fixed_order() {
    let row = [0.0, -0.0, f32::NEG_INFINITY, 30.0, f32::INFINITY, 40.0, f32::NAN, -f32::NAN];
    let (cells, scores) = listed(&top_peaks(&Tensor::from_slice(&row).reshape([1, 1, 8]), 8).unwrap());
    assert_eq!(cells.iter().map(|cell| cell.2).collect::<Vec<_>>(), [6, 7, 4, 5, 3, 0, 1, 2]);
    assert!(scores[0].is_nan() && scores[1].is_nan());
    assert_eq!(scores[2..], [1.0, 1.0, 1.0, 0.5, 0.5, 0.0]);
}

#[test]
fn peaks_of_empty_requests_and_wrong_shapes() {
    let map = Tensor::from_slice(&[1.0_f32, 2.0]).reshape([1, 1, 2]);
    assert_eq!(top_peaks(&map, 0).unwrap().scores.size(), [0]);
    assert_eq!(top_peaks(&map.narrow(2, 0, 0), 5).unwrap().scores.size(), [0]);
    let error = top_peaks(&map.unsqueeze(0), 5).unwrap_err();
    assert_eq!(error.to_string(), "heat map has shape [1, 1, 1, 2], expected [K, H, W]");
    // A slice of a batch is not contiguous when the layout is channels-last.
    let flipped = Tensor::from_slice(&[1.0_f32, 4.0, 2.0, 3.0]).reshape([2, 2]).transpose(0, 1).unsqueeze(0);
    assert_eq!(listed(&top_peaks(&flipped, 2).unwrap()).0, [(0, 1, 0), (0, 1, 1)]);
}

const CLASSES: [&str; 2] = ["Vehicle", "Pedestrian"];

fn spec() -> PostprocessSpec {
    PostprocessSpec {
        max_peaks: 10,
        score_threshold: 0.1,
        class_score_thresholds: BTreeMap::new(),
        distance_score_thresholds: Vec::new(),
        center_limit: [-10.0, -10.0, -2.0, 10.0, 10.0, 2.0],
        nms: NmsSpec::Circle { radius_m: 1.0, max_before: 10, max_after: 10 },
    }
}

/// Score, class, row, column, regression.
type Row = (f32, i64, i64, i64, [f32; 8]);

/// Peaks on a grid of 40 x 40 cells of half a metre around the origin.
fn decode(rows: &[Row], stride: usize, spec: &PostprocessSpec) -> Result<Decoded, PostprocessError> {
    let integers = |value: fn(&Row) -> i64| Tensor::from_slice(&rows.iter().map(value).collect::<Vec<_>>());
    let peaks = Peaks {
        scores: Tensor::from_slice(&rows.iter().map(|row| row.0).collect::<Vec<_>>()),
        class_idx: integers(|row| row.1),
        row: integers(|row| row.2),
        col: integers(|row| row.3),
    };
    let regression = Tensor::from_slice(&rows.iter().flat_map(|row| row.4).collect::<Vec<_>>()).reshape([-1, 8]);
    let grid = Grid::new([-10.0, -10.0, -3.0, 10.0, 10.0, 3.0], [0.5, 0.5, 6.0]);
    decode_boxes(&peaks, &regression, &grid, stride, &CLASSES.map(String::from), spec)
}

const PLAIN: [f32; 8] = [0.5, 0.25, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0];

#[test]
fn decoding_of_one_peak_gives_the_box_of_the_formula() {
    let regression = [0.5, 0.25, 1.5, 4.0_f32.ln(), 2.0_f32.ln(), 0.0, 0.0, -2.0];
    for (stride, x, y) in [(1, -10.0 + 7.5 * 0.5, -10.0 + 3.25 * 0.5), (2, -10.0 + 7.5, -10.0 + 3.25)] {
        let decoded = decode(&[(0.6, 1, 3, 7, regression)], stride, &spec()).unwrap();
        let [detection] = decoded.detections.as_slice() else { panic!("{decoded:?}") };
        let expected = [x, y, 1.5, 4.0, 2.0, 1.0, -std::f64::consts::FRAC_PI_2];
        for (got, expected) in detection.box3d.to_row().into_iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "{detection:?}");
        }
        assert_eq!((detection.score, detection.class_idx, decoded.n_non_finite), (0.6, 1, 0));
    }
}

#[test]
fn decoding_keeps_boxes_over_every_threshold_only() {
    let mut strict = spec();
    strict.class_score_thresholds.insert("Pedestrian".into(), 0.5);
    strict.distance_score_thresholds =
        vec![DistanceThreshold { from_m: 2.0, score: 0.3 }, DistanceThreshold { from_m: 6.0, score: 0.7 }];
    let on_corner = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    // On the x axis; column 20 is the origin, 24 is 2 m away, 32 is 6 m away.
    let cases = [
        ("over the base threshold", 0.11, 0, 20, true),
        ("at the base threshold", 0.1, 0, 20, false),
        ("over the class threshold", 0.51, 1, 20, true),
        ("at the class threshold", 0.5, 1, 20, false),
        ("far enough for the first distance, under", 0.3, 0, 24, false),
        ("far enough for the first distance, over", 0.31, 0, 24, true),
        ("just short of the second distance", 0.31, 0, 31, true),
        ("at the second distance, under", 0.7, 0, 32, false),
        ("at the second distance, over", 0.71, 0, 32, true),
        ("far, class threshold met, distance not", 0.6, 1, 32, false),
    ];
    for (name, score, class, col, is_kept) in cases {
        let decoded = decode(&[(score, class, 20, col, on_corner)], 1, &strict).unwrap();
        assert_eq!(decoded.detections.len() == 1, is_kept, "{name}");
    }
}

#[test]
fn decoding_keeps_centres_on_the_limits() {
    let at = |dx: f32, dy: f32, z: f32| (0.9, 0, 20, 20, [dx, dy, z, 0.0, 0.0, 0.0, 1.0, 0.0]);
    // Limits of 10 m are 20 cells from the middle.
    let cases = [
        (at(20.0, 0.0, 0.0), true),
        (at(-20.0, 0.0, 0.0), true),
        (at(0.0, 20.0, 0.0), true),
        (at(0.0, 0.0, 2.0), true),
        (at(0.0, 0.0, -2.0), true),
        (at(20.001, 0.0, 0.0), false),
        (at(0.0, -20.001, 0.0), false),
        (at(0.0, 0.0, 2.001), false),
        (at(0.0, 0.0, -2.001), false),
    ];
    for (row, is_kept) in cases {
        assert_eq!(decode(&[row], 1, &spec()).unwrap().detections.len() == 1, is_kept, "{row:?}");
    }
}

#[test]
fn decoding_of_non_finite_values_drops_and_counts_them() {
    let broken = |channel: usize, value: f32| {
        let mut regression = PLAIN;
        regression[channel] = value;
        (0.9, 0, 20, 20, regression)
    };
    let rows = [
        (0.9, 0, 20, 20, PLAIN),
        broken(0, f32::NAN),
        broken(1, f32::INFINITY),
        broken(2, f32::NEG_INFINITY),
        broken(3, 89.0),
        broken(7, f32::NAN),
        (f32::NAN, 0, 20, 20, PLAIN),
        (0.05, 0, 20, 20, [f32::NAN; 8]),
    ];
    let decoded = decode(&rows, 1, &spec()).unwrap();
    assert_eq!((decoded.detections.len(), decoded.n_non_finite), (1, 6));
}

#[test]
fn decoding_of_tensors_that_do_not_fit_is_an_error() {
    let error = decode(&[(0.9, 2, 20, 20, PLAIN)], 1, &spec()).unwrap_err();
    assert_eq!(error.to_string(), "a peak is of class 2, the spec has 2 classes");
    let peaks = top_peaks(&Tensor::from_slice(&[1.0_f32, 2.0]).reshape([1, 1, 2]), 2).unwrap();
    let grid = Grid::new([-10.0, -10.0, -3.0, 10.0, 10.0, 3.0], [0.5, 0.5, 6.0]);
    let short = Tensor::zeros([2, 7], (tch::Kind::Float, tch::Device::Cpu));
    let error = decode_boxes(&peaks, &short, &grid, 1, &CLASSES.map(String::from), &spec()).unwrap_err();
    assert_eq!(error.to_string(), "regression has shape [2, 7], expected [2, 8]");
}
