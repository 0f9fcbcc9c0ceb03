//! Losses: gradients against differences of values, and what counts.

use pivotal::distill::anchor::{AnchorKd, AnchorTruth, anchor_kd, cells_in_boxes, occupied_cells};
use pivotal::model::anchor_head::{AnchorHead, AnchorMaps, at_anchors};
use pivotal::model::params::{Params, Weights};
use pivotal::train::anchor_loss::{AnchorLossWeights, anchor_loss, box_loss, direction_loss, focal_loss};
use pivotal::train::anchor_targets::{AnchorTargets, IGNORED, match_anchors};
use pivotal::train::targets::TrueBox;
use pivotal::voxel::Grid;
use tch::{Device, Kind, Tensor};

use super::{anchors, head, numbers};

/// Compares the gradient of `loss` at `x` with central differences in f64.
fn check_gradient(name: &str, x: &Tensor, loss: &dyn Fn(&Tensor) -> Tensor) {
    const STEP: f64 = 1e-5;
    let variable = x.copy().set_requires_grad(true);
    loss(&variable).sum(Kind::Double).backward();
    let gradient = variable.grad().view([-1]);
    let flat = x.view([-1]);
    for idx in 0..flat.size()[0] {
        let at = |delta: f64| {
            let moved = flat.copy();
            let _ = moved.get(idx).g_add_scalar_(delta);
            loss(&moved.view_as(x)).sum(Kind::Double).double_value(&[])
        };
        let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        let ours = gradient.double_value(&[idx]);
        assert!((ours - slope).abs() < 1e-6 * (1.0 + slope.abs()), "{name}[{idx}]: gradient {ours}, slope {slope}");
    }
}

/// Values that repeat nowhere, in [-size, size).
fn spread(shape: &[i64], size: f32, seed: u64) -> Tensor {
    let mut next = numbers(seed);
    let values: Vec<f32> = (0..shape.iter().product::<i64>()).map(|_| size * (2.0 * next() - 1.0)).collect();
    Tensor::from_slice(&values).view(shape)
}

fn frames() -> Vec<Vec<TrueBox>> {
    let car = TrueBox { row: [7.1, -4.3, 0.9, 4.4, 1.9, 1.6, 0.3], class_idx: 0 };
    let walker = TrueBox { row: [-3.2, 4.1, 0.8, 0.8, 0.8, 1.7, -2.0], class_idx: 1 };
    // As wide as two anchors: it lies over one of them and over most of the next.
    let wide = TrueBox { row: [-1.09, -0.14, 0.9, 4.7, 4.2, 1.6, 0.0], class_idx: 0 };
    vec![vec![car, walker, wide], vec![]]
}

/// Random maps over [`anchors`] of 2 m cells: 8 rows, 12 columns.
fn maps(seed: u64) -> AnchorMaps {
    AnchorMaps {
        cls: spread(&[2, 18, 8, 12], 4.0, seed),
        boxes: spread(&[2, 42, 8, 12], 1.0, seed + 1),
        direction: spread(&[2, 12, 8, 12], 2.0, seed + 2),
    }
}

fn targets() -> AnchorTargets {
    match_anchors(&frames(), &anchors(2.0))
}

fn value(tensor: &Tensor) -> f64 {
    tensor.double_value(&[])
}

#[test]
fn gradients_of_each_loss_are_its_slopes() {
    let is_object = spread(&[4, 3], 1.0, 1).gt(0.3);
    check_gradient("focal", &spread(&[4, 3], 6.0, 2).to_kind(Kind::Double), &|x| focal_loss(x, &is_object));
    let target = spread(&[4, 7], 1.0, 3).to_kind(Kind::Double);
    check_gradient("boxes", &spread(&[4, 7], 3.0, 4).to_kind(Kind::Double), &|x| box_loss(x, &target));
    let direction = Tensor::from_slice(&[0i64, 1, 1, 0]);
    check_gradient("direction", &spread(&[4, 2], 3.0, 5).to_kind(Kind::Double), &|x| direction_loss(x, &direction));
}

#[test]
fn values_of_anchors_are_found_in_every_map() {
    let anchors = anchors(2.0);
    let map = spread(&[2, 42, 8, 12], 1.0, 1);
    let rows = map.view([2, 6, 7, 8, 12]).permute([0, 3, 4, 1, 2]).reshape([-1, 7]);
    let index =
        Tensor::from_slice(&[0i64, 5, 6, 77, anchors.len() as i64 - 1, anchors.len() as i64, 2 * anchors.len() as i64 - 1]);
    assert_eq!(at_anchors(&map, 6, &index), rows.index_select(0, &index));
}

#[test]
fn ignored_anchors_and_boxes_of_the_background_cost_nothing() {
    let (targets, maps) = (targets(), maps(7));
    let n_ignored = targets.labels.eq(i64::from(IGNORED)).sum(Kind::Int64).int64_value(&[]);
    assert!(n_ignored > 0);
    let leaves = AnchorMaps {
        cls: maps.cls.copy().set_requires_grad(true),
        boxes: maps.boxes.copy().set_requires_grad(true),
        direction: maps.direction.copy().set_requires_grad(true),
    };
    anchor_loss(&leaves, &targets, 3).total(&AnchorLossWeights::default()).backward();
    let rows = |map: &Tensor, n: i64| {
        let gradient = map.grad().view([2, 6, n, 8, 12]).permute([0, 3, 4, 1, 2]).reshape([-1, n]);
        gradient.abs().sum_dim_intlist([1].as_slice(), false, Kind::Double)
    };
    let labels = targets.labels.view([-1]);
    assert_eq!(rows(&leaves.cls, 3).gt(0.0), labels.ge(0));
    assert_eq!(rows(&leaves.boxes, 7).gt(0.0), labels.gt(0));
    assert_eq!(rows(&leaves.direction, 2).gt(0.0), labels.gt(0));
}

#[test]
fn maps_that_say_the_targets_cost_next_to_nothing() {
    let targets = targets();
    let n = targets.labels.numel() as i64;
    let put = |columns: i64, rows: &Tensor| {
        let all = Tensor::zeros([n, columns], (Kind::Float, Device::Cpu)).index_copy(0, &targets.positive, rows);
        all.view([2, 8, 12, 6, columns]).permute([0, 3, 4, 1, 2]).reshape([2, 6 * columns, 8, 12])
    };
    let class = targets.labels.view([-1]).to_kind(Kind::Int64).index_select(0, &targets.positive) - 1;
    let maps = AnchorMaps {
        cls: put(3, &(class.one_hot(3).to_kind(Kind::Float) * 40.0)) - 20.0,
        boxes: put(7, &targets.boxes),
        direction: put(2, &(targets.direction.one_hot(2).to_kind(Kind::Float) * 40.0)),
    };
    let loss = anchor_loss(&maps, &targets, 3);
    for (name, part) in [("classes", &loss.classification), ("boxes", &loss.regression), ("direction", &loss.direction)] {
        assert!(value(part) < 1e-6, "{name}: {part:?}");
    }
    // Half a turn more is the same box to the boxes' part; a quarter is not.
    for (turned, least, most) in [(std::f64::consts::PI, 0.0, 1e-6), (std::f64::consts::FRAC_PI_2, 0.4, 1.0)] {
        let code = &targets.boxes + Tensor::from_slice(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, turned]).to_kind(Kind::Float);
        let maps = AnchorMaps { boxes: put(7, &code), cls: maps.cls.copy(), direction: maps.direction.copy() };
        // One of two frames has objects, so the mean halves.
        let regression = value(&anchor_loss(&maps, &targets, 3).regression);
        assert!((least..most).contains(&regression), "{turned}: {regression}");
    }
}

#[test]
fn frames_without_objects_cost_their_classes_alone() {
    let targets = match_anchors(&[vec![], vec![]], &anchors(2.0));
    let loss = anchor_loss(&maps(3), &targets, 3);
    assert!(value(&loss.classification) > 0.0);
    assert_eq!((value(&loss.regression), value(&loss.direction)), (0.0, 0.0));
}

#[test]
fn settings_out_of_bounds_are_refused_by_name() {
    let weights = AnchorLossWeights { direction: f64::NAN, ..AnchorLossWeights::default() };
    assert_eq!(weights.check().unwrap_err().to_string(), "direction = NaN: must be 0 or more and finite");
    let kd = AnchorKd { regression_weight: -1.0, ..AnchorKd::default() };
    assert_eq!(kd.check().unwrap_err().to_string(), "anchor.regression_weight = -1.0: must be 0 or more and finite");
    assert_eq!(serde_saphyr::from_str::<AnchorKd>("{}").unwrap(), AnchorKd::default());
    assert!(serde_saphyr::from_str::<AnchorKd>("{wieght: 3}").is_err());
}

#[test]
fn distillation_is_zero_where_both_agree_and_looks_at_chosen_cells_only() {
    let (targets, student, teacher) = (targets(), maps(11), maps(21));
    let never = || -> Tensor { panic!("no cell inside a box was asked for") };
    let terms = anchor_kd(&AnchorKd::default(), &student, &student, &targets, &never);
    assert_eq!(value(&terms.total()), 0.0);

    let cells = targets.labels.view([2, 8, 12, 6]).gt(0).any_dim(3, false); // [2, 8, 12]
    let elsewhere = student.cls.where_self(&cells.unsqueeze(1), &(&student.cls + 1.0));
    let moved = AnchorMaps { cls: elsewhere, boxes: student.boxes.copy(), direction: student.direction.copy() };
    let loss = |student: &AnchorMaps, truth: AnchorTruth| {
        value(&anchor_kd(&AnchorKd { truth, ..AnchorKd::default() }, student, &teacher, &targets, &never).classification)
    };
    assert_eq!(loss(&student, AnchorTruth::Positive), loss(&moved, AnchorTruth::Positive));
    assert_ne!(loss(&student, AnchorTruth::Off), loss(&moved, AnchorTruth::Off));
}

#[test]
fn cells_in_boxes_are_those_whose_first_voxel_is() {
    let grid = Grid::new([0.0, 0.0, -2.0, 8.0, 4.0, 4.0], [0.5, 0.5, 6.0]);
    // With a stride of 2 a cell is 1 m wide; the middle of its first voxel lies 0.25 m from its corner.
    let upright = TrueBox { row: [2.0, 1.0, 0.0, 2.0, 0.6, 1.0, 0.0], class_idx: 0 };
    let turned = TrueBox { row: [6.25, 2.25, 0.0, 3.0, 0.2, 1.0, std::f32::consts::FRAC_PI_2], class_idx: 0 };
    let cells = cells_in_boxes(&[vec![upright, turned], vec![]], &grid, 2);
    assert_eq!(cells.size(), [2, 4, 8]);
    let at = Vec::<i64>::try_from(cells.nonzero().reshape([-1])).unwrap();
    let at: Vec<_> = at.chunks_exact(3).map(|at| (at[0], at[1], at[2])).collect();
    assert_eq!(at, [(0, 1, 1), (0, 1, 2), (0, 1, 6), (0, 2, 6), (0, 3, 6)]);

    let coords = Tensor::from_slice(&[0i64, 0, 5, 3, 1, 0, 0, 15, 1, 0, 1, 14]).view([3, 4]);
    let occupied = occupied_cells(&coords, 2, [2, 4, 8]);
    let at = Vec::<i64>::try_from(occupied.nonzero().reshape([-1])).unwrap();
    assert_eq!(at, [0, 2, 1, 1, 0, 7]);
}

#[test]
fn head_computes_in_the_type_of_its_input_with_three_convolutions() {
    let listed = Params::list();
    let _ = AnchorHead::new(&listed, 5, &head(), 3);
    let decls = listed.into_decls();
    let shapes: Vec<_> = decls.iter().map(|decl| (decl.name.as_str(), decl.shape.clone())).collect();
    let expected = ["conv_cls", "conv_box", "conv_dir_cls"].map(|name| format!("dense_head.{name}"));
    assert_eq!(shapes.iter().map(|(name, _)| name.rsplit_once('.').unwrap().0).collect::<Vec<_>>(), {
        let [cls, boxes, direction] = &expected;
        [cls, cls, boxes, boxes, direction, direction]
    });
    assert_eq!([&shapes[0].1, &shapes[2].1, &shapes[4].1], [&[18, 5, 1, 1], &[42, 5, 1, 1], &[12, 5, 1, 1]]);
    let weights: Weights = decls.iter().map(|decl| (decl.name.clone(), spread(&decl.shape, 1.0, decl.shape[0] as u64))).collect();
    let head = AnchorHead::new(&Params::load(&weights, Device::Cpu), 5, &head(), 3);
    let x = spread(&[2, 5, 3, 4], 1.0, 4);
    let maps = head.forward(&x);
    let cells = x.permute([0, 2, 3, 1]).reshape([-1, 5]);
    let by_hand =
        cells.matmul(&weights["dense_head.conv_box.weight"].view([42, 5]).transpose(0, 1)) + &weights["dense_head.conv_box.bias"];
    let ours = maps.boxes.permute([0, 2, 3, 1]).reshape([-1, 42]);
    assert!(value(&(ours - by_hand).abs().max()) < 1e-5);
    let half = head.forward(&x.to_kind(Kind::BFloat16));
    assert_eq!(half.cls.kind(), Kind::BFloat16);
    assert!(value(&(half.cls.to_kind(Kind::Float) - maps.cls).abs().max()) < 0.1);
}
