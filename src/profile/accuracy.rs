//! Accuracy beside cost: which models are worth their work.

use std::collections::BTreeMap;

use serde::Serialize;

/// One model in the table of cost against accuracy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CostPerformance {
    /// Name of the model.
    pub model: String,
    /// Mean over the classes of LEVEL_2 APH, 0 to 1.
    pub maph_l2: f64,
    /// Multiply-accumulates over those of the most expensive model of the table.
    pub macs_share: f64,
    /// LEVEL_2 mAPH over that of the most expensive model of the table; absent when that one finds nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maph_share: Option<f64>,
    /// A model that is at least as good for at most the work, and better in one of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beaten_by: Option<String>,
}

/// Joins multiply-accumulates and LEVEL_2 mAPH by the model's name, in the order of `macs`; models without a report are left out.
pub fn cost_performance(macs: &[(String, f64)], maph_l2: &BTreeMap<String, f64>) -> Vec<CostPerformance> {
    let known: Vec<(&String, f64, f64)> =
        macs.iter().filter_map(|(model, macs)| Some((model, *macs, *maph_l2.get(model)?))).collect();
    let Some(&(_, most_macs, its_maph)) = known.iter().max_by(|a, b| a.1.total_cmp(&b.1)) else { return Vec::new() };
    let row = |&(model, macs, maph): &(&String, f64, f64)| {
        let beats = |other: &&(&String, f64, f64)| {
            let &&(_, other_macs, other_maph) = other;
            other_macs <= macs && other_maph >= maph && (other_macs < macs || other_maph > maph)
        };
        CostPerformance {
            model: model.clone(),
            maph_l2: maph,
            macs_share: macs / most_macs,
            maph_share: (its_maph > 0.0).then(|| maph / its_maph),
            beaten_by: known.iter().filter(beats).max_by(|a, b| a.2.total_cmp(&b.2)).map(|(name, ..)| (*name).clone()),
        }
    };
    known.iter().map(row).collect()
}
