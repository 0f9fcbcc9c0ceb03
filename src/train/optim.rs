//! Adam as the reference sets it up: decoupled decay of every trainable tensor, first momentum from the schedule
//! (sparsekd-spec section 1.5).

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use super::schedule::StepRates;
use super::{SettingError, rule};
use crate::model::params::{ParamDecl, Weights};

/// Constants of the optimiser. The defaults are those of every published configuration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamSettings {
    /// Share of the old mean squared gradient; 0.99.
    pub beta2: f64,
    /// Added to the root of the mean squared gradient; 1e-8.
    pub eps: f64,
    /// Share of a weight lost in a step, over the learning rate; 0.01.
    pub weight_decay: f64,
    /// Longest gradient over all weights; longer ones are shortened to it; 10.
    pub max_grad_norm: f64,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self { beta2: 0.99, eps: 1e-8, weight_decay: 0.01, max_grad_norm: 10.0 }
    }
}

impl AdamSettings {
    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn check(&self) -> Result<(), SettingError> {
        let Self { beta2, eps, weight_decay, max_grad_norm } = self;
        rule((0.0..1.0).contains(beta2), "beta2", beta2, "0 <= beta2 < 1")?;
        rule(eps.is_finite() && *eps > 0.0, "eps", eps, "must be positive and finite")?;
        rule((0.0..1.0).contains(weight_decay), "weight_decay", weight_decay, "0 <= decay < 1")?;
        rule(*max_grad_norm > 0.0, "max_grad_norm", max_grad_norm, "must be positive")
    }
}

/// Why a saved state cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum OptimError {
    /// A tensor of the state is not there.
    #[error("optimiser state lacks `{0}`")]
    Missing(String),
    /// A tensor of the state has another shape or element type than its weight.
    #[error("optimiser state `{name}`: expected {expected}, got {got}")]
    Mismatch {
        /// Which tensor.
        name: String,
        /// Shape and element type.
        expected: String,
        /// Shape and element type.
        got: String,
    },
    /// A tensor of the state that belongs to no weight.
    #[error("optimiser state `{0}` belongs to no weight of the network")]
    Unexpected(String),
}

/// Name of the number of steps in a saved state.
const STEPS: &str = "steps";

/// The tensors of a network that are learned, in its own order, each set to collect gradients: all but running statistics.
///
/// The network must be built from the same `weights` on their device, so that it uses these very tensors.
pub fn trainable(decls: &[ParamDecl], weights: &Weights) -> Vec<(String, Tensor)> {
    let learned = decls.iter().filter(|decl| !decl.name.ends_with(".running_mean") && !decl.name.ends_with(".running_var"));
    learned.filter_map(|decl| Some((decl.name.clone(), weights.get(&decl.name)?.set_requires_grad(true)))).collect()
}

/// One weight and its moments.
#[derive(Debug)]
struct Moments {
    name: String,
    weight: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
}

/// The optimiser. It holds the network's own tensors and changes them in place.
#[derive(Debug)]
pub struct Adam {
    params: Vec<Moments>,
    settings: AdamSettings,
    steps: u64,
}

impl Adam {
    /// An optimiser that has taken no step, over the tensors of [`trainable`].
    pub fn new(params: Vec<(String, Tensor)>, settings: AdamSettings) -> Self {
        let params = params.into_iter().map(|(name, weight)| {
            let zeros = || weight.detach().zeros_like();
            Moments { name, exp_avg: zeros(), exp_avg_sq: zeros(), weight }
        });
        Self { params: params.collect(), settings, steps: 0 }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Names and weights, in the network's order.
    pub fn params(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.params.iter().map(|param| (param.name.as_str(), &param.weight))
    }

    /// Forgets all gradients, before a backward pass.
    pub fn zero_grad(&mut self) {
        for param in &mut self.params {
            param.weight.zero_grad();
        }
    }

    /// Shortens the gradient over all weights to a Euclidean length of `max_norm` and returns its length before. A length that is not
    /// finite is returned and nothing changed.
    pub fn clip_grad_norm(&self, max_norm: f64) -> f64 {
        let gradients: Vec<_> = self.gradients().map(|(_, gradient)| gradient).collect();
        if gradients.is_empty() {
            return 0.0;
        }
        no_grad(|| {
            let norms: Vec<_> = gradients.iter().map(Tensor::norm).collect();
            let norm = Tensor::stack(&norms, 0).norm().double_value(&[]);
            let factor = max_norm / (norm + 1e-6);
            if norm.is_finite() && factor < 1.0 {
                for mut gradient in gradients {
                    let _ = gradient.g_mul_scalar_(factor);
                }
            }
            norm
        })
    }

    /// The first weight, in the network's order, whose gradient holds a value that is not finite.
    pub fn first_non_finite_gradient(&self) -> Option<&str> {
        let mut found = self.gradients().filter(|(_, gradient)| gradient.isfinite().all().int64_value(&[]) == 0);
        found.next().map(|(name, _)| name)
    }

    /// One step along the gradients that are there: first every weight decays, then Adam moves those with a gradient.
    ///
    /// The corrections for the moments' start from zero use the current momentum for all steps, as the reference's optimiser does
    /// when the schedule changes it.
    pub fn step(&mut self, rates: StepRates) {
        let AdamSettings { beta2, eps, weight_decay, .. } = self.settings;
        let StepRates { lr, beta1 } = rates;
        self.steps += 1;
        let exponent = self.steps as f64;
        let mean_share = 1.0 - beta1.powf(exponent);
        let root_share = (1.0 - beta2.powf(exponent)).sqrt();
        no_grad(|| {
            for Moments { weight, exp_avg, exp_avg_sq, .. } in &mut self.params {
                let _ = weight.g_mul_scalar_(1.0 - lr * weight_decay);
                let gradient = weight.grad();
                if !gradient.defined() {
                    continue;
                }
                let _ = exp_avg.lerp_(&gradient, 1.0 - beta1);
                let _ = exp_avg_sq.g_mul_scalar_(beta2);
                let _ = exp_avg_sq.addcmul_(&(&gradient * (1.0 - beta2)), &gradient);
                // lr / mean_share * m / (sqrt(v) / root_share + eps), with one division less per element.
                let mut denominator = exp_avg_sq.sqrt();
                let _ = denominator.g_add_scalar_(eps * root_share);
                let direction = &*exp_avg * (-lr * root_share / mean_share);
                let _ = weight.addcdiv_(&direction, &denominator);
            }
        });
    }

    /// Moments and number of steps as named tensors, copied: `exp_avg.NAME`, `exp_avg_sq.NAME`, `steps`.
    pub fn state(&self) -> Weights {
        let moments = self.params.iter().flat_map(|Moments { name, exp_avg, exp_avg_sq, .. }| {
            [(format!("exp_avg.{name}"), exp_avg.copy()), (format!("exp_avg_sq.{name}"), exp_avg_sq.copy())]
        });
        moments.chain([(STEPS.to_owned(), Tensor::from(self.steps as i64))]).collect()
    }

    /// Takes up a state that [`Self::state`] gave: the next step is the one that would have followed, bit for bit.
    ///
    /// # Errors
    /// When a tensor is missing, unexpected, or of another shape or element type; nothing is changed then.
    pub fn load_state(&mut self, state: &Weights) -> Result<(), OptimError> {
        let steps = checked(state, STEPS, &[], Kind::Int64)?.int64_value(&[]);
        for Moments { name, weight, .. } in &self.params {
            for moment in [format!("exp_avg.{name}"), format!("exp_avg_sq.{name}")] {
                checked(state, &moment, &weight.size(), weight.kind())?;
            }
        }
        if state.len() != 2 * self.params.len() + 1 {
            let known = self.state();
            let extra = state.keys().find(|name| !known.contains_key(*name));
            return Err(OptimError::Unexpected(extra.cloned().unwrap_or_default()));
        }
        for Moments { name, exp_avg, exp_avg_sq, .. } in &mut self.params {
            exp_avg.copy_(checked(state, &format!("exp_avg.{name}"), &exp_avg.size(), exp_avg.kind())?);
            exp_avg_sq.copy_(checked(state, &format!("exp_avg_sq.{name}"), &exp_avg_sq.size(), exp_avg_sq.kind())?);
        }
        self.steps = u64::try_from(steps).unwrap_or(0);
        Ok(())
    }

    fn gradients(&self) -> impl Iterator<Item = (&str, Tensor)> {
        let all = self.params.iter().map(|param| (param.name.as_str(), param.weight.grad()));
        all.filter(|(_, gradient)| gradient.defined())
    }
}

fn checked<'a>(state: &'a Weights, name: &str, shape: &[i64], kind: Kind) -> Result<&'a Tensor, OptimError> {
    let tensor = state.get(name).ok_or_else(|| OptimError::Missing(name.to_owned()))?;
    if tensor.size() == shape && tensor.kind() == kind {
        return Ok(tensor);
    }
    let words = |shape: &[i64], kind: Kind| format!("{shape:?} {kind:?}");
    Err(OptimError::Mismatch { name: name.to_owned(), expected: words(shape, kind), got: words(&tensor.size(), tensor.kind()) })
}
