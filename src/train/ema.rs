//! Exponential moving average of the weights.

use tch::Tensor;

use crate::model::params::Weights;

/// Averaged copies of the trained tensors. Running statistics of batch norms are averages already, so they are taken as they are.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    averages: Weights,
}

impl Ema {
    /// Begins at the tensors' values. `decay` is the share of the old average in the new one.
    pub fn new(decay: f64, trained: &Weights) -> Self {
        Self { decay, averages: trained.iter().map(|(name, tensor)| (name.clone(), tensor.detach().copy())).collect() }
    }

    /// Goes on from averages of a checkpoint.
    ///
    /// # Errors
    /// The first name or shape that is not that of the trained tensors; nothing is changed then.
    pub fn load(&mut self, averages: Weights) -> Result<(), String> {
        for (name, average) in &self.averages {
            let found = averages.get(name).map(Tensor::size);
            if found.as_ref() != Some(&average.size()) {
                return Err(format!("`{name}`: expected {:?}, got {found:?}", average.size()));
            }
        }
        if averages.len() != self.averages.len() {
            return Err(format!("expected {} tensors, got {}", self.averages.len(), averages.len()));
        }
        self.averages = averages;
        Ok(())
    }

    /// Takes in the tensors after a step.
    pub fn update(&mut self, trained: &Weights) {
        tch::no_grad(|| {
            for (name, average) in &mut self.averages {
                if let Some(tensor) = trained.get(name) {
                    let _ = average.lerp_(tensor, 1.0 - self.decay);
                }
            }
        });
    }

    /// By the names of the trained tensors.
    pub fn averages(&self) -> &Weights {
        &self.averages
    }

    /// All weights of a network with the averages in place of what was trained.
    pub fn applied_to(&self, weights: &Weights) -> Weights {
        let averaged = |(name, tensor): (&String, &Tensor)| {
            let source = self.averages.get(name).unwrap_or(tensor);
            (name.clone(), source.detach().copy())
        };
        weights.iter().map(averaged).collect()
    }
}
