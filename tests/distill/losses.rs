//! Sparsekd-spec section 10, check 7, and what the golden cases leave open.

use pivotal::distill::logit::{Align, AlignTo, HeatMapLoss, Interpolation, LogitKd, TruthMask, aligned, heat_map_kd};
use pivotal::distill::regression::regression_kd;
use pivotal::distill::teacher::TeacherOutput;
use pivotal::distill::{DistillConfig, StudentMaps, TeacherFrom, distill_loss};
use pivotal::train::targets::Targets;
use tch::{Kind, Tensor};

use super::{largest_difference, probabilities};

const PLAIN: LogitKd = LogitKd {
    weight: 1.0,
    loss: HeatMapLoss::Mse,
    min_confidence: 0.0,
    confidence_weight: false,
    truth: TruthMask::Off,
    rank: None,
    align: Align { to: AlignTo::Teacher, mode: Interpolation::Bilinear },
    sort: None,
};

#[test]
fn student_equal_to_teacher_costs_nothing_whatever_counts() {
    let maps = probabilities(1, &[2, 3, 8, 12]);
    let truth = probabilities(2, &[2, 3, 8, 12]);
    let settings =
        [PLAIN, LogitKd::default(), LogitKd { rank: Some(7), ..PLAIN }, LogitKd { loss: HeatMapLoss::SmoothL1, ..PLAIN }];
    for kd in settings {
        assert_eq!(heat_map_kd(&maps, &maps, &truth, &kd).double_value(&[]), 0.0, "{kd:?}");
    }
}

#[test]
fn without_masks_squares_are_averaged_over_positions_not_classes() {
    let (student, teacher) = (probabilities(3, &[2, 3, 8, 12]), probabilities(4, &[2, 3, 8, 12]));
    let [s, t] = [&student, &teacher].map(|map| Vec::<f32>::try_from(map.view([-1])).unwrap());
    let squares: f64 = s.iter().zip(&t).map(|(s, t)| f64::from(s - t).powi(2)).sum();
    let ours = heat_map_kd(&student, &teacher, &teacher.zeros_like(), &PLAIN).double_value(&[]);
    let expected = squares / (2.0 * 8.0 * 12.0);
    assert!((ours / expected - 1.0).abs() < 1e-6, "{ours} {expected}");
}

#[test]
fn pillar_students_maps_are_resized_by_areas_not_by_corners() {
    for (n, m) in [(368, 460), (312, 468), (232, 464)] {
        let student = probabilities(n as u64, &[1, 1, n, n]);
        let teacher = Tensor::zeros([1, 1, m, m], (Kind::Float, tch::Device::Cpu));
        let (resized, _) = aligned(&student, &teacher, Align::default());
        assert_eq!(resized.size(), [1, 1, m, m]);
        let source = |target: i64| ((target as f64 + 0.5) * n as f64 / m as f64 - 0.5).max(0.0);
        for (row, col) in [(0, 0), (0, m - 1), (m - 1, m - 1), (17, 200), (m / 2, 3), (101, m - 2)] {
            let (y, x) = (source(row), source(col));
            let near = |at: f64| (at as i64, (at as i64 + 1).min(n - 1), at.fract());
            let ((y0, y1, fy), (x0, x1, fx)) = (near(y), near(x));
            let value = |y: i64, x: i64| student.double_value(&[0, 0, y, x]);
            let top = value(y0, x0) * (1.0 - fx) + value(y0, x1) * fx;
            let bottom = value(y1, x0) * (1.0 - fx) + value(y1, x1) * fx;
            let expected = top * (1.0 - fy) + bottom * fy;
            let ours = resized.double_value(&[0, 0, row, col]);
            assert!((ours - expected).abs() < 1e-5, "{n} to {m} at {row}, {col}: {ours}, expected {expected}");
        }
    }
}

#[test]
fn frames_without_true_boxes_cost_nothing_and_give_no_gradient() {
    let student = probabilities(5, &[1, 3, 6, 6]).set_requires_grad(true);
    let (teacher, empty) = (probabilities(6, &[1, 3, 6, 6]), Tensor::zeros([1, 3, 6, 6], (Kind::Float, tch::Device::Cpu)));
    let loss = heat_map_kd(&student, &teacher, &empty, &LogitKd::default());
    loss.backward();
    assert_eq!(loss.double_value(&[]), 0.0);
    assert_eq!(largest_difference(&student.grad(), &empty), 0.0);
}

fn targets_at(cell: i64, shape: &[i64]) -> Targets {
    Targets {
        heat_map: Tensor::ones(shape, (Kind::Float, tch::Device::Cpu)),
        boxes: Tensor::zeros([1, 2, 8], (Kind::Float, tch::Device::Cpu)),
        index: Tensor::from_slice(&[cell, 0]).view([1, 2]),
        mask: Tensor::from_slice(&[1f32, 0.0]).view([1, 2]),
    }
}

#[test]
fn boxes_are_drawn_together_at_true_objects_only_and_never_across_resolutions() {
    let teacher = probabilities(7, &[1, 8, 4, 5]);
    let at = |cell: i64| {
        let cells = Tensor::zeros([1, 8, 20], (Kind::Float, tch::Device::Cpu));
        let _ = cells.narrow(2, cell, 1).fill_(0.25);
        &teacher + cells.view([1, 8, 4, 5])
    };
    let targets = targets_at(13, &[1, 3, 4, 5]);
    let cost = |student: &Tensor| regression_kd(student, &teacher, &targets).double_value(&[]);
    assert!((cost(&at(13)) - 8.0 * 0.25).abs() < 1e-5, "{}", cost(&at(13)));
    assert_eq!(cost(&at(12)), 0.0, "another cell");
    assert_eq!(cost(&at(0)), 0.0, "the cell of an empty row");
    assert_eq!(cost(&probabilities(8, &[1, 8, 2, 5])), 0.0, "another resolution");
}

#[test]
fn terms_that_are_switched_off_are_zero_and_weights_multiply() {
    let shape = [1, 3, 4, 5];
    let (probability, regression) = (probabilities(9, &shape), probabilities(10, &[1, 8, 4, 5]));
    let targets = targets_at(13, &shape);
    let student = StudentMaps { probabilities: &probability, regression: &regression, targets: &targets };
    let teacher = TeacherOutput {
        heat_map: probabilities(11, &shape),
        regression: Some(probabilities(12, &[1, 8, 4, 5])),
        boxes: vec![vec![]],
    };
    let released = DistillConfig::released(TeacherFrom::Model("teacher".into()));
    let terms = |config: &DistillConfig| {
        let terms = distill_loss(config, student, &teacher, &targets);
        [&terms.heat_map, &terms.sort, &terms.regression].map(|term| term.double_value(&[]))
    };
    let [heat_map, sort, regression] = terms(&released);
    assert!(heat_map > 0.0 && sort == 0.0 && regression == 0.0, "{heat_map} {sort} {regression}");
    assert_eq!(terms(&DistillConfig { logit: None, ..released.clone() }), [0.0; 3]);
    let doubled = LogitKd { weight: 14.0, ..LogitKd::default() };
    let with_boxes = DistillConfig { logit: Some(doubled), regression_weight: 0.5, ..released };
    let [twice, _, boxes] = terms(&with_boxes);
    assert!((twice / heat_map - 2.0).abs() < 1e-6 && boxes > 0.0, "{twice} {heat_map} {boxes}");
}

#[test]
fn configuration_is_released_where_silent_and_null_switches_off() {
    let parse = |text: &str| serde_saphyr::from_str::<DistillConfig>(text);
    let silent = parse("teacher: {from: {model: t}}").unwrap();
    assert_eq!(silent, DistillConfig::released(TeacherFrom::Model("t".into())));
    let off = parse("teacher: {from: {dump: d}}\nlogit: null\nlabel: null\ninherit: null").unwrap();
    assert!(off.logit.is_none() && off.label.is_none() && off.inherit.is_none());
    off.check(3).unwrap();
    let text = "teacher: {from: {model: t}, mode: eval, precision: bf16}\nlogit: {loss: {focal: {positive_from: 0.9}}, rank: 60}\n\
                label: {min_scores: [0.4], merge: corrected}\ninherit: {how: l1_norm}\nregression_weight: 0.2";
    parse(text).unwrap().check(3).unwrap();
    assert!(parse("teacher: {from: {model: t}}\nlogits: {}").is_err(), "an unknown key");
    assert!(parse("logit: {}").is_err(), "no teacher");

    let cases = [
        ("logit: {weight: -1.0}", "logit.weight = -1.0: must be 0 or more"),
        ("logit: {rank: 0}", "logit.rank = Some(0): must be at least 1"),
        ("label: {min_scores: [0.5, 0.5]}", "label.min_scores = [0.5, 0.5]: needs one value, or one for each class"),
        ("label: {min_scores: [1.5]}", "label.min_scores = [1.5]: must be in [0, 1)"),
        ("regression_weight: .nan", "regression_weight = NaN: must be 0 or more"),
    ];
    for (line, message) in cases {
        let config = parse(&format!("teacher: {{from: {{model: t}}}}\n{line}")).unwrap();
        let error = config.check(3).unwrap_err().to_string();
        assert!(error.starts_with(message), "{line}: {error}");
    }
    let error = parse("teacher: {from: {dump: d}}").unwrap().check(3).unwrap_err().to_string();
    assert!(error.contains("a dump has no weights"), "{error}");
}
