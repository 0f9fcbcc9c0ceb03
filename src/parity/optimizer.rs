//! The optimiser on given gradients, and its schedule.

use std::path::Path;

use tch::{Kind, Tensor};

use super::compare::{Limit, compare};
use super::golden::{Companion, Golden};
use super::{Case, ParityError};
use crate::train::optim::{Adam, AdamSettings};
use crate::train::schedule::{OneCycle, ScheduleSettings, StepRates};

const RATES: Limit = Limit::Abs(1e-12);
const PARAMS: Limit = Limit::Abs(3e-6);
/// Of the gradient's length: a sum in f32.
const LENGTH: Limit = Limit::Each { relative: 1e-5, absolute: 1e-7 };
/// Of the moments, which are not held to a tolerance of their own by the golden README: that of f32 sums.
const MOMENTS: Limit = Limit::OfMax(1e-5);

/// Settings as the reference's configuration writes them.
pub fn run(path: &Path, case: &mut Case) -> Result<(), ParityError> {
    let golden = Golden::read(path)?;
    let companion = Companion::read(&path.with_extension("json"))?;
    let settings = ScheduleSettings {
        peak_lr: companion.get(&["optim_cfg", "LR"])?,
        div_factor: companion.get(&["optim_cfg", "DIV_FACTOR"])?,
        pct_start: companion.get(&["optim_cfg", "PCT_START"])?,
        moms: companion.get(&["optim_cfg", "MOMS"])?,
    };
    let schedule = OneCycle { settings, total_steps: companion.get(&["total_steps"])? };
    schedule_tables(&golden, &companion, settings, &schedule, case)?;

    let adam_settings = AdamSettings {
        beta2: companion.get(&["adam", "beta2"])?,
        eps: companion.get(&["adam", "eps"])?,
        weight_decay: companion.get(&["wd"])?,
        max_grad_norm: companion.get(&["clip"])?,
    };
    let trajectories: Vec<(&str, &Tensor)> = golden.starting_with("param/").map(|(key, t)| (&key["param/".len()..], t)).collect();
    if trajectories.is_empty() {
        return Err(golden.content_error("param/", "holds no parameter"));
    }
    let params =
        trajectories.iter().map(|(name, trajectory)| ((*name).to_owned(), trajectory.get(0).copy().set_requires_grad(true)));
    let mut adam = Adam::new(params.collect(), adam_settings);
    let lengths = floats(&golden, "grad_norm_before_clip_stat")?;
    let mut our_lengths = Vec::new();
    let mut ours: Vec<Vec<Tensor>> = adam.params().map(|(_, weight)| vec![weight.detach().copy()]).collect();
    for step in 0..lengths.len() {
        adam.zero_grad();
        // A loss linear in the weights has the given gradients.
        let terms: Result<Vec<Tensor>, ParityError> = adam
            .params()
            .map(|(name, weight)| Ok((weight * golden.get(&format!("grad/{name}"))?.f_get(step as i64)?).sum(Kind::Float)))
            .collect();
        Tensor::stack(&terms?, 0).sum(Kind::Float).backward();
        our_lengths.push(adam.clip_grad_norm(adam_settings.max_grad_norm));
        adam.step(schedule.at(step as u64));
        for (list, (_, weight)) in ours.iter_mut().zip(adam.params()) {
            list.push(weight.detach().copy());
        }
    }
    let stage = compare("grad_norm_before_clip_stat", &Tensor::from_slice(&our_lengths), &Tensor::from_slice(&lengths), LENGTH);
    case.stages.push(stage);
    for ((name, trajectory), ours) in trajectories.iter().zip(ours) {
        case.stages.push(compare(&format!("param/{name}"), &Tensor::stack(&ours, 0), trajectory, PARAMS));
    }
    let state = adam.state();
    for (name, _) in trajectories {
        for moment in ["exp_avg", "exp_avg_sq"] {
            let ours = state.get(&format!("{moment}.{name}")).ok_or_else(|| golden.content_error(name, "has no moments"))?;
            let key = format!("{moment}/{name}");
            case.stages.push(compare(&key, ours, golden.get(&key)?, MOMENTS));
        }
    }
    Ok(())
}

fn schedule_tables(
    golden: &Golden,
    companion: &Companion,
    settings: ScheduleSettings,
    schedule: &OneCycle,
    case: &mut Case,
) -> Result<(), ParityError> {
    for (name, column) in [("lr_stat", lr as fn(StepRates) -> f64), ("momentum_stat", beta1)] {
        let table = golden.get(name)?;
        let ours: Vec<f64> = (0..table.numel() as u64).map(|step| column(schedule.at(step))).collect();
        case.stages.push(compare(name, &Tensor::from_slice(&ours), table, RATES));
    }
    for (name, table) in golden.starting_with("schedule_total") {
        let bad = || golden.content_error(name, "is not of the form schedule_total<steps>_0to<last>_stat");
        let total = name["schedule_total".len()..].split_once('_').ok_or_else(bad)?.0.parse().map_err(|_| bad())?;
        let schedule = OneCycle { settings, total_steps: total };
        let rows = (0..table.size2()?.0 as u64).flat_map(|step| [lr(schedule.at(step)), beta1(schedule.at(step))]);
        case.stages.push(compare(name, &Tensor::from_slice(&rows.collect::<Vec<_>>()).view([-1, 2]), table, RATES));
    }
    let long = OneCycle { settings, total_steps: companion.get(&["long_total_steps"])? };
    let table = floats(golden, "schedule_long_stat")?;
    let rows: Vec<f64> =
        table.chunks_exact(3).flat_map(|row| [row[0], lr(long.at(row[0] as u64)), beta1(long.at(row[0] as u64))]).collect();
    case.stages.push(compare("schedule_long_stat", &Tensor::from_slice(&rows), &Tensor::from_slice(&table), RATES));
    Ok(())
}

fn lr(rates: StepRates) -> f64 {
    rates.lr
}

fn beta1(rates: StepRates) -> f64 {
    rates.beta1
}

fn floats(golden: &Golden, name: &str) -> Result<Vec<f64>, ParityError> {
    Ok(Vec::try_from(golden.get(name)?.to_kind(Kind::Double).reshape([-1]))?)
}
