//! Parts of targets and losses on inputs of their own: radii, bumps, focal loss, L1 of boxes, and what anchor heads have instead.

use tch::{Kind, Tensor};

use super::compare::{Limit, compare, exact};
use super::golden::{Companion, Golden};
use super::{Case, ParityError, anchors};
use crate::train::loss::{box_loss, focal_loss, probabilities};
use crate::train::targets::{draw_gaussian, gaussian_radius};

/// Of losses and of the bumps.
pub(super) const LOSS: Limit = Limit::Each { relative: 1e-5, absolute: 1e-6 };
/// Of radii in cells: vector libraries differ in the last bit of a square root, and the radius is a difference of larger numbers.
const RADIUS: Limit = Limit::Abs(1e-5);
pub(super) const GRADIENT: Limit = Limit::OfMax(1e-4);
/// The logits of `focal_saturated` are those of `focal` times this.
const SATURATION: f64 = 8.0;
/// The target of `focal_no_positive` is that of `focal` times this, so that nothing in it is 1.
const NO_POSITIVE: f64 = 0.9;

pub fn run(golden: &Golden, companion: &Companion, case: &mut Case) -> Result<(), ParityError> {
    radii(golden, case)?;
    gaussians(golden, companion, case)?;
    let (logits, target) = (golden.get("focal/logits")?, golden.get("focal/target")?);
    focal("focal", golden, (logits, 1.0), target, case)?;
    focal("focal_no_positive", golden, (logits, 1.0), &(target * NO_POSITIVE), case)?;
    focal("focal_saturated", golden, (logits, SATURATION), target, case)?;

    boxes(golden, case)?;
    case.unsupported.push("gaussians_sharper_True: no released configuration sharpens".to_owned());
    anchors::component_stages(golden, case)
}

/// `radius_min_overlap<o>` of every overlap, and its whole part.
fn radii(golden: &Golden, case: &mut Case) -> Result<(), ParityError> {
    const PREFIX: &str = "radius_min_overlap";
    let (lengths, widths) = (floats(golden.get("radius_dx")?)?, floats(golden.get("radius_dy")?)?);
    for (name, radii) in golden.starting_with(PREFIX) {
        let overlap = &name[PREFIX.len()..];
        let value: f64 = overlap.parse().map_err(|_| golden.content_error(name, "does not end in an overlap"))?;
        let ours: Vec<f32> = lengths.iter().zip(&widths).map(|(length, width)| gaussian_radius(*length, *width, value)).collect();
        let whole: Vec<i32> = ours.iter().map(|radius| *radius as i32).collect();
        case.stages.push(compare(name, &Tensor::from_slice(&ours), radii, RADIUS));
        let name = format!("radius_int_min_overlap{overlap}");
        case.stages.push(compare(&name, &Tensor::from_slice(&whole), golden.get(&name)?, Limit::Exact));
    }
    Ok(())
}

/// The bumps the companion lists in words as `(x,y,radius)`, drawn into one map.
fn gaussians(golden: &Golden, companion: &Companion, case: &mut Case) -> Result<(), ParityError> {
    const NAME: &str = "gaussians_sharper_False";
    let map = golden.get(NAME)?;
    let (h, w) = map.size2()?;
    let text: String = companion.get(&["gaussians"])?;
    let mut ours = vec![0f32; (h * w) as usize];
    let mut n_drawn = 0;
    for group in text.split('(').skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)) {
        let numbers: Vec<f64> = group.split(',').filter_map(|number| number.trim().parse().ok()).collect();
        let &[x, y, radius] = numbers.as_slice() else { continue }; // other words in brackets
        draw_gaussian(&mut ours, [w as usize, h as usize], [x as usize, y as usize], radius as i64);
        n_drawn += 1;
    }
    if n_drawn == 0 {
        return Err(golden.content_error(NAME, "is described by no (x,y,radius) in components.json"));
    }
    case.stages.push(compare(NAME, &Tensor::from_slice(&ours).view([h, w]), map, Limit::Abs(1e-6)));
    Ok(())
}

/// Where a target is not a number the reference's loss is none either, though no gradient comes from there; ours is finite.
fn boxes(golden: &Golden, case: &mut Case) -> Result<(), ParityError> {
    let (prediction, target) = (collecting(golden.get("reg/pred")?), golden.get("reg/target")?);
    let index = golden.get("reg/inds")?.to_kind(Kind::Int64);
    let loss = box_loss(&prediction, target, &index, golden.get("reg/mask")?);
    loss.sum(Kind::Float).backward();
    let loss = loss.detach();
    let not_a_number = target.isnan().sum_dim_intlist([0, 1].as_slice(), false, Kind::Int64).gt(0);
    let comparable = loss.where_self(&not_a_number, golden.get("reg/loss")?);
    case.stages.push(exact("reg/loss is finite", &loss.isfinite().all().int64_value(&[]), &1));
    case.stages.push(compare("reg/loss", &loss, &comparable, LOSS));
    case.stages.push(compare("reg/grad0", &prediction.grad(), golden.get("reg/grad0")?, GRADIENT));
    Ok(())
}

/// The loss of logits times a factor, and its gradient with respect to the logits before that.
fn focal(
    name: &str,
    golden: &Golden,
    (logits, factor): (&Tensor, f64),
    target: &Tensor,
    case: &mut Case,
) -> Result<(), ParityError> {
    let logits = collecting(logits);
    let loss = focal_loss(&probabilities(&(&logits * factor)), target);
    loss.backward();
    case.stages.push(compare(&format!("{name}/loss"), &loss.detach().view([1]), golden.get(&format!("{name}/loss"))?, LOSS));
    case.stages.push(compare(&format!("{name}/grad0"), &logits.grad(), golden.get(&format!("{name}/grad0"))?, GRADIENT));
    Ok(())
}

/// A copy that collects gradients.
pub(super) fn collecting(tensor: &Tensor) -> Tensor {
    tensor.copy().set_requires_grad(true)
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>, ParityError> {
    Ok(Vec::try_from(tensor)?)
}
