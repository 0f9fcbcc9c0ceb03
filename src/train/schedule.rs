//! One-cycle schedule of learning rate and momentum (sparsekd-spec section 1.5).

use serde::{Deserialize, Serialize};

use super::{SettingError, rule};

/// Ratio of the first rate to `final_div` times the last one: the last rate is `peak / div_factor / 1e4`.
const FINAL_DIVISOR: f64 = 1e4;

/// Shape of the cycle. The defaults are those of every published configuration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleSettings {
    /// Highest learning rate; 0.003.
    pub peak_lr: f64,
    /// The first rate is the peak over this; 10.
    pub div_factor: f64,
    /// Share of the steps in which the rate rises; 0.4.
    pub pct_start: f64,
    /// Momentum (Adam's beta1) at the first step and at the peak; 0.95 and 0.85.
    pub moms: [f64; 2],
}

impl Default for ScheduleSettings {
    fn default() -> Self {
        Self { peak_lr: 0.003, div_factor: 10.0, pct_start: 0.4, moms: [0.95, 0.85] }
    }
}

impl ScheduleSettings {
    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn check(&self) -> Result<(), SettingError> {
        let Self { peak_lr, div_factor, pct_start, moms } = self;
        rule(peak_lr.is_finite() && *peak_lr > 0.0, "peak_lr", peak_lr, "must be positive and finite")?;
        rule(div_factor.is_finite() && *div_factor >= 1.0, "div_factor", div_factor, "must be 1 or more and finite")?;
        rule((0.0..1.0).contains(pct_start), "pct_start", pct_start, "0 <= share < 1")?;
        rule(moms.iter().all(|m| (0.0..1.0).contains(m)), "moms", moms, "0 <= momentum < 1")
    }
}

/// What one step is taken with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepRates {
    /// Learning rate.
    pub lr: f64,
    /// Adam's share of the old mean gradient.
    pub beta1: f64,
}

/// The cycle over a known number of steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OneCycle {
    /// Its shape.
    pub settings: ScheduleSettings,
    /// Epochs times steps of an epoch.
    pub total_steps: u64,
}

impl OneCycle {
    /// Rates of a step, counted from 0. Steps past the end go on along the same curve, as in the reference.
    pub fn at(&self, step: u64) -> StepRates {
        let ScheduleSettings { peak_lr, div_factor, pct_start, moms: [first_beta1, peak_beta1] } = self.settings;
        let first_lr = peak_lr / div_factor;
        let peak_step = (pct_start * self.total_steps as f64) as u64;
        if step < peak_step {
            let share = step as f64 / peak_step as f64;
            return StepRates { lr: cosine(first_lr, peak_lr, share), beta1: cosine(first_beta1, peak_beta1, share) };
        }
        // A schedule of no steps has nothing to fall over; its first step is the peak.
        let share = (step - peak_step) as f64 / (self.total_steps.saturating_sub(peak_step)).max(1) as f64;
        StepRates { lr: cosine(peak_lr, first_lr / FINAL_DIVISOR, share), beta1: cosine(peak_beta1, first_beta1, share) }
    }
}

/// From `start` to `end` along half a cosine wave.
fn cosine(start: f64, end: f64, share: f64) -> f64 {
    end + (start - end) / 2.0 * ((std::f64::consts::PI * share).cos() + 1.0)
}
