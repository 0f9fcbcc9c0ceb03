//! Losses: values by hand, gradients against differences of values.

use pivotal::train::loss::{LossWeights, box_loss, detection_loss, focal_loss, probabilities};
use pivotal::train::targets::Targets;
use tch::{Device, Kind, Tensor};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

/// Compares the gradient of `loss` at `x` with central differences; every value must be away from kinks by more than the step.
fn check_gradient(name: &str, x: &Tensor, loss: &dyn Fn(&Tensor) -> Tensor) {
    const STEP: f64 = 1e-5;
    let variable = x.copy().set_requires_grad(true);
    loss(&variable).backward();
    let gradient = variable.grad().view([-1]);
    let flat = x.view([-1]);
    for idx in 0..flat.size()[0] {
        let at = |delta: f64| {
            let moved = flat.copy();
            let _ = moved.get(idx).g_add_scalar_(delta);
            loss(&moved.view_as(x)).double_value(&[])
        };
        let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        let ours = gradient.double_value(&[idx]);
        assert!((ours - slope).abs() < 1e-6 * (1.0 + slope.abs()), "{name}[{idx}]: gradient {ours}, slope {slope}");
    }
}

/// Values that repeat nowhere, in [low, high].
fn spread(shape: &[i64], low: f64, high: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|i| low + (high - low) * ((i as f64 * 0.618_034) % 1.0)).collect();
    Tensor::from_slice(&values).view(shape)
}

fn targets() -> Targets {
    let heat_map = spread(&[2, 2, 3, 4], 0.0, 0.9);
    for cell in [[0, 0, 1, 2], [1, 0, 2, 0], [1, 1, 2, 0]] {
        let [b, k, row, col] = cell;
        let _ = heat_map.get(b).get(k).get(row).get(col).fill_(1.0);
    }
    Targets {
        heat_map,
        boxes: spread(&[2, 3, 8], -1.0, 1.0),
        // The last row of the first frame is no object; both objects of the second lie in one cell.
        index: Tensor::from_slice(&[6i64, 0, 0, 8, 8, 3]).view([2, 3]),
        mask: Tensor::from_slice(&[1f32, 0.0, 0.0, 1.0, 1.0, 1.0]).view([2, 3]),
    }
}

#[test]
fn gradients_of_both_losses_are_their_slopes() {
    let targets = targets();
    let logits = spread(&[2, 2, 3, 4], -4.0, 4.0);
    let regression = spread(&[2, 8, 3, 4], -2.0, 2.0);
    check_gradient("heat map", &logits, &|x| focal_loss(&probabilities(x), &targets.heat_map));
    let no_object = &targets.heat_map * 0.9;
    check_gradient("heat map without objects", &logits, &|x| focal_loss(&probabilities(x), &no_object));
    check_gradient("boxes", &regression, &|x| box_loss(x, &targets.boxes, &targets.index, &targets.mask).sum(Kind::Double));
    let weights = LossWeights { heat_map: 0.7, regression: 3.0 };
    let p = probabilities(&logits);
    check_gradient("sum", &regression, &|x| detection_loss(&p, x, &targets).total(&weights));
}

#[test]
fn heat_map_loss_has_the_values_of_its_formula() {
    // One object at p = 0.8, one cell beside it with target 0.5 at p = 0.3, one empty cell at p = 0.1.
    let p = Tensor::from_slice(&[0.8, 0.3, 0.1]);
    let target = Tensor::from_slice(&[1.0, 0.5, 0.0]);
    let object = 0.04 * 0.8f64.ln();
    let others = 0.0625 * 0.09 * 0.7f64.ln() + 0.01 * 0.9f64.ln();
    assert!((focal_loss(&p, &target).double_value(&[]) + object + others).abs() < 1e-12);
    // Two objects halve it; none leaves it undivided.
    let twice = focal_loss(&Tensor::cat(&[&p, &p], 0), &Tensor::cat(&[&target, &target], 0)).double_value(&[]);
    assert!((twice + object + others).abs() < 1e-12);
    let target = Tensor::from_slice(&[0.0, 0.5, 0.0]);
    let none = 0.64 * 0.2f64.ln() + others;
    assert!((focal_loss(&p, &target).double_value(&[]) + none).abs() < 1e-12);
}

#[test]
fn probabilities_stay_off_zero_and_one() {
    let p = Vec::<f64>::try_from(probabilities(&Tensor::from_slice(&[-50.0, 0.0, 50.0]))).unwrap();
    assert_eq!(p, [1e-4, 0.5, 1.0 - 1e-4]);
}

#[test]
fn box_loss_counts_objects_of_the_whole_batch_and_leaves_out_what_is_no_number() {
    let map = Tensor::zeros([2, 8, 1, 2], F64);
    let boxes = Tensor::full([2, 2, 8], 3.0, F64);
    let _ = boxes.get(0).get(0).get(2).fill_(f64::NAN);
    let index = Tensor::from_slice(&[1i64, 0, 0, 1]).view([2, 2]);
    let mask = Tensor::from_slice(&[1f32, 1.0, 1.0, 0.0]).view([2, 2]);
    let loss = Vec::<f64>::try_from(box_loss(&map, &boxes, &index, &mask)).unwrap();
    assert_eq!(loss, [3.0, 3.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0]);
    let nothing = box_loss(&map, &boxes, &index, &mask.zeros_like());
    assert_eq!(nothing.abs().sum(Kind::Double).double_value(&[]), 0.0);
    let no_rows = box_loss(&map, &boxes.narrow(1, 0, 0), &index.narrow(1, 0, 0), &mask.narrow(1, 0, 0));
    assert_eq!(no_rows.abs().sum(Kind::Double).double_value(&[]), 0.0);
}
