//! Accuracy beside cost: which models are worth their work.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ProfileError;

/// What is read of a report.json of `trainer eval`.
#[derive(Deserialize)]
struct EvalReport {
    model: Model,
    mean_aph_level_2: Option<f64>,
}

#[derive(Deserialize)]
struct Model {
    name: String,
}

/// How good a model was found to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Accuracy {
    /// The report's file, which tells models of one spec apart.
    pub report: String,
    /// Name of the model's spec.
    pub model: String,
    /// Mean over the classes of LEVEL_2 APH, 0 to 1.
    pub maph_l2: f64,
}

/// Reads a report.json that `trainer eval` wrote.
///
/// # Errors
/// [`ProfileError::Report`] when the file is no such report, or nothing was measured in it.
pub fn read_report(path: &Path) -> Result<Accuracy, ProfileError> {
    let refused = |reason: String| ProfileError::Report { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    let EvalReport { model: Model { name: model }, mean_aph_level_2 } =
        serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
    match mean_aph_level_2 {
        Some(maph_l2) => Ok(Accuracy { report: path.display().to_string(), model, maph_l2 }),
        None => Err(refused(format!("mean_aph_level_2 of `{model}` is absent: nothing was measured"))),
    }
}

/// One report in the table of cost against accuracy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CostPerformance {
    /// Name of the model's spec.
    pub model: String,
    /// The report's file.
    pub report: String,
    /// Mean over the classes of LEVEL_2 APH, 0 to 1.
    pub maph_l2: f64,
    /// Multiply-accumulates over those of the most expensive model of the table.
    pub macs_share: f64,
    /// LEVEL_2 mAPH over the best of the most expensive model; absent when that one finds nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maph_share: Option<f64>,
    /// The best report of at least this accuracy for at most this work that is better in one of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beaten_by: Option<String>,
}

/// Lays multiply-accumulates by model beside accuracies, in the order of those; accuracies of other models are left out.
pub fn cost_performance(macs: &BTreeMap<&str, f64>, accuracies: &[Accuracy]) -> Vec<CostPerformance> {
    let known: Vec<(&Accuracy, f64)> =
        accuracies.iter().filter_map(|accuracy| Some((accuracy, *macs.get(accuracy.model.as_str())?))).collect();
    let by_cost = |a: &&(&Accuracy, f64), b: &&(&Accuracy, f64)| a.1.total_cmp(&b.1).then(a.0.maph_l2.total_cmp(&b.0.maph_l2));
    let Some(&(largest, most_macs)) = known.iter().max_by(by_cost) else { return Vec::new() };
    let row = |&(accuracy, macs): &(&Accuracy, f64)| {
        let beats = |other: &&(&Accuracy, f64)| {
            let (maph, other_maph) = (accuracy.maph_l2, other.0.maph_l2);
            other.1 <= macs && other_maph >= maph && (other.1 < macs || other_maph > maph)
        };
        let best = known.iter().filter(beats).max_by(|a, b| a.0.maph_l2.total_cmp(&b.0.maph_l2));
        CostPerformance {
            model: accuracy.model.clone(),
            report: accuracy.report.clone(),
            maph_l2: accuracy.maph_l2,
            macs_share: macs / most_macs,
            maph_share: (largest.maph_l2 > 0.0).then(|| accuracy.maph_l2 / largest.maph_l2),
            beaten_by: best.map(|(other, _)| other.report.clone()),
        }
    };
    known.iter().map(row).collect()
}
