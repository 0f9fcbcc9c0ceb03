//! What training changes: weights, moments, running statistics, averages; as a network in memory and as tensors of a checkpoint.

use tch::{Device, Tensor};

use super::ema::Ema;
use super::optim::{Adam, AdamSettings, OptimError, trainable};
use crate::model::expected_params;
use crate::model::net::Net;
use crate::model::params::{Params, Weights, differences};
use crate::model::spec::ModelSpec;

/// Prefixes of the parts among a checkpoint's tensors.
const WEIGHTS: &str = "weights/";
const OPTIMIZER: &str = "optimizer/";
const EMA: &str = "ema/";

/// A student in training.
#[derive(Debug)]
pub struct TrainingState {
    /// All tensors of the network, on the device; the network and the optimiser use these very tensors.
    pub weights: Weights,
    /// The plain network.
    pub net: Net,
    /// Adam over everything but running statistics.
    pub optimizer: Adam,
    /// Where asked for.
    pub ema: Option<Ema>,
}

/// Why tensors of a checkpoint cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The network's.
    #[error("the checkpoint's weights are not those of the spec: {}", .0.join("; "))]
    Weights(Vec<String>),
    /// The optimiser's.
    #[error(transparent)]
    Optimizer(#[from] OptimError),
    /// The averages'.
    #[error("the checkpoint's averages are not those of the trained tensors: {0}")]
    Ema(String),
}

impl TrainingState {
    /// A student that starts from `weights`, which must be those of the spec.
    pub fn new(spec: &ModelSpec, weights: &Weights, adam: AdamSettings, ema_decay: f64, device: Device) -> Self {
        // Copies: training must not change the caller's.
        let weights: Weights =
            weights.iter().map(|(name, tensor)| (name.clone(), tensor.detach().copy().to_device(device))).collect();
        let optimizer = Adam::new(trainable(&expected_params(spec), &weights), adam);
        let net = Net::new(&Params::load(&weights, device), spec);
        let ema = (ema_decay > 0.0).then(|| Ema::new(ema_decay, &owned(&optimizer)));
        Self { weights, net, optimizer, ema }
    }

    /// One step of optimiser and average along the gradients that are there.
    pub fn update(&mut self, rates: super::schedule::StepRates) {
        self.optimizer.step(rates);
        if let Some(ema) = &mut self.ema {
            ema.update(&self.weights);
        }
    }

    /// Copies of the running statistics, which a forward pass changes.
    pub fn running_statistics(&self) -> Vec<Tensor> {
        self.net.norms().iter().flat_map(|norm| [norm.running_mean.copy(), norm.running_var.copy()]).collect()
    }

    /// Puts running statistics back to what [`Self::running_statistics`] gave.
    pub fn restore_running_statistics(&mut self, saved: &[Tensor]) {
        let current = self.net.norms();
        let current = current.iter().flat_map(|norm| [&norm.running_mean, &norm.running_var]);
        for (current, saved) in current.zip(saved) {
            current.shallow_clone().copy_(saved);
        }
    }

    /// The weights that validation and the final model use, on the CPU.
    pub fn deployed(&self) -> Weights {
        let on_cpu = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.detach().to_device(Device::Cpu).copy());
        match &self.ema {
            Some(ema) => ema.applied_to(&self.weights).iter().map(on_cpu).collect(),
            None => self.weights.iter().map(on_cpu).collect(),
        }
    }

    /// Everything as tensors on the CPU that training does not change any more.
    pub fn to_tensors(&self) -> Weights {
        let ema =
            self.ema.iter().flat_map(|ema| ema.averages().iter().map(|(name, t)| (format!("{EMA}{name}"), t.shallow_clone())));
        let optimizer = self.optimizer.state().into_iter().map(|(name, t)| (format!("{OPTIMIZER}{name}"), t));
        let weights = self.weights.iter().map(|(name, t)| (format!("{WEIGHTS}{name}"), t.shallow_clone()));
        weights.chain(optimizer).chain(ema).map(|(name, t)| (name, t.detach().to_device(Device::Cpu).copy())).collect()
    }

    /// Takes up what [`Self::to_tensors`] gave, bit for bit.
    ///
    /// # Errors
    /// [`StateError`] when they are those of another network or other settings.
    pub fn load_tensors(&mut self, spec: &ModelSpec, tensors: &Weights) -> Result<(), StateError> {
        let part = |prefix: &str| -> Weights {
            let of_part = tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_owned(), t.shallow_clone())));
            of_part.collect()
        };
        let weights = part(WEIGHTS);
        let problems = differences(&expected_params(spec), &weights);
        if !problems.is_empty() {
            return Err(StateError::Weights(problems));
        }
        let device = self.weights.values().next().map_or(Device::Cpu, Tensor::device);
        let on_device = |map: Weights| map.into_iter().map(|(name, t)| (name, t.to_device(device))).collect::<Weights>();
        self.optimizer.load_state(&part(OPTIMIZER))?;
        let averages = on_device(part(EMA));
        match &mut self.ema {
            None if averages.is_empty() => {}
            None => return Err(StateError::Ema(format!("{} there, none expected", averages.len()))),
            Some(ema) => ema.load(averages).map_err(StateError::Ema)?,
        }
        tch::no_grad(|| {
            for (name, tensor) in &mut self.weights {
                if let Some(saved) = weights.get(name) {
                    tensor.copy_(saved);
                }
            }
        });
        Ok(())
    }
}

fn owned(optimizer: &Adam) -> Weights {
    optimizer.params().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect()
}
