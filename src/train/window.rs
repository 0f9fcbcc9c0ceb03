//! Sums over the steps since the last line of the log.

use std::collections::BTreeMap;

use super::log::StepEntry;
use super::schedule::StepRates;
use super::step::Gradient;
use crate::data::batch::BatchCounts;

/// Sums over some steps.
#[derive(Debug, Default)]
pub struct Window {
    sums: StepEntry,
}

impl Window {
    /// Takes in a step.
    pub fn add(&mut self, rates: StepRates, data_ms: f64, gradient: &Gradient, counts: &BatchCounts) {
        let StepEntry { n_steps, lr, beta1, loss, grad_norm, ms, counts: totals } = &mut self.sums;
        *n_steps += 1;
        (*lr, *beta1) = (rates.lr, rates.beta1);
        *grad_norm += gradient.norm;
        let add = |sums: &mut BTreeMap<String, f64>, name: &str, value: f64| *sums.entry(name.to_owned()).or_default() += value;
        for (name, value) in &gradient.losses {
            add(loss, name, *value);
        }
        add(ms, "data", data_ms);
        for (name, value) in &gradient.ms {
            add(ms, name, *value);
        }
        for (name, value) in named(counts) {
            *totals.entry(name).or_default() += value;
        }
    }

    /// The means since the last call; `None` when there was no step.
    pub fn take(&mut self) -> Option<StepEntry> {
        let mut entry = std::mem::take(&mut self.sums);
        if entry.n_steps == 0 {
            return None;
        }
        let n = entry.n_steps as f64;
        entry.grad_norm /= n;
        entry.loss.values_mut().chain(entry.ms.values_mut()).for_each(|sum| *sum /= n);
        Some(entry)
    }
}

/// What the log says of points, boxes and pillars.
fn named(counts: &BatchCounts) -> Vec<(String, u64)> {
    let BatchCounts { prepare, student, teacher: _ } = counts;
    let numbers = [
        ("frames", prepare.frames),
        ("frames_unusable", prepare.frames_unlabelled + prepare.frames_without_box + prepare.frames_without_point),
        ("boxes", prepare.boxes_kept),
        ("boxes_out_of_range", prepare.boxes_out_of_range),
        ("labels_without_points", prepare.labels_without_points),
        ("labels_of_other_classes", prepare.labels_of_other_classes.values().sum()),
        ("objects_pasted", prepare.objects_pasted),
        ("points", prepare.points_kept),
        ("points_not_finite", prepare.points_not_finite),
        ("points_over_cap", student.over_point_cap as u64),
        ("voxels", student.voxels as u64),
        ("voxels_dropped", student.dropped_voxels as u64),
    ];
    numbers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
