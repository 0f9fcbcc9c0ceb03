//! One step: what the networks say about a batch, how wrong the student is, and the gradient of that.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use tch::{Device, Kind, Tensor};

use super::config::RunConfig;
use super::loss::{detection_loss, probabilities};
use super::state::TrainingState;
use super::targets::{Targets, TrueBox, draw_targets};
use super::teaching::{Lesson, Teaching};
use crate::data::batch::Batch;
use crate::distill::source::TeachingError;
use crate::distill::{StudentMaps, distill_loss};
use crate::model::center_head::HeadMaps;
use crate::model::layers::Mode;
use crate::model::spec::ModelSpec;
use crate::pipeline::Precision;
use crate::time::millis;

/// What a step gave before the optimiser moved.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    /// Weighted loss terms by name, and their sum `total`.
    pub losses: BTreeMap<String, f64>,
    /// Length before it was clipped.
    pub norm: f64,
    /// Milliseconds by part.
    pub ms: BTreeMap<String, f64>,
}

/// The loss of a batch.
#[derive(Debug)]
pub struct Loss {
    /// Weighted scalars by name.
    pub terms: Vec<(&'static str, Tensor)>,
    /// Their sum.
    pub total: Tensor,
}

/// A number that ends the run.
#[derive(Debug, Clone, PartialEq)]
pub enum NonFinite {
    /// A loss term.
    Term(&'static str, f64),
    /// The gradient of a tensor.
    Gradient(String),
    /// The length of a gradient whose numbers are all finite.
    Length(f64),
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Term(name, value) => write!(f, "loss term `{name}` is {value}"),
            Self::Gradient(name) => write!(f, "the gradient of `{name}` is not finite"),
            Self::Length(value) => write!(f, "the length of the gradient is {value}"),
        }
    }
}

/// Why a step has no gradient.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A number that is none.
    #[error("{0}")]
    NonFinite(NonFinite),
    /// The teacher failed.
    #[error(transparent)]
    Teaching(#[from] TeachingError),
}

/// Forward and backward pass of a batch; leaves the clipped gradient in the weights, which stay as they are.
///
/// # Errors
/// [`StepError`]; running statistics may have moved, weights have not.
pub fn gradient(
    state: &mut TrainingState,
    spec: &ModelSpec,
    config: &RunConfig,
    teaching: Option<&Teaching>,
    batch: &Batch,
) -> Result<Gradient, StepError> {
    let start = Instant::now();
    let taught = teaching.map(|teaching| teaching.lesson(batch, spec.classes.len(), &config.targets)).transpose()?;
    let teacher_ms = millis(start.elapsed());

    let start = Instant::now();
    let kind = match config.precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    };
    let pass = state.net.forward_fast(&batch.student, Mode::Train, kind);
    let loss = loss(&pass.maps, &batch.boxes, spec, config, taught.as_ref());
    let mut losses = BTreeMap::new();
    for (name, term) in loss.terms.iter().map(|(name, term)| (*name, term)).chain([("total", &loss.total)]) {
        let value = term.double_value(&[]);
        if !value.is_finite() {
            return Err(StepError::NonFinite(NonFinite::Term(name, value)));
        }
        losses.insert(name.to_owned(), value);
    }
    state.optimizer.zero_grad();
    pass.backward(&loss.total);
    let norm = state.optimizer.clip_grad_norm(config.optimizer.max_grad_norm);
    if !norm.is_finite() {
        let name = state.optimizer.first_non_finite_gradient().map(str::to_owned);
        return Err(StepError::NonFinite(name.map_or(NonFinite::Length(norm), NonFinite::Gradient)));
    }
    let mut ms = BTreeMap::from([("student".to_owned(), millis(start.elapsed()))]);
    ms.extend(taught.map(|_| ("teacher".to_owned(), teacher_ms)));
    Ok(Gradient { losses, norm, ms })
}

/// The loss of a batch: detection, and distillation where there is a teacher.
pub fn loss(maps: &HeadMaps, truth: &[Vec<TrueBox>], spec: &ModelSpec, config: &RunConfig, lesson: Option<&Lesson<'_>>) -> Loss {
    let device = maps.heat_map.device();
    let labels = lesson.map_or(truth, |lesson| &lesson.labels);
    let targets = drawn(labels, spec, config, device);
    let probabilities = probabilities(&maps.heat_map);
    let detection = detection_loss(&probabilities, &maps.regression, &targets);
    let mut terms = vec![
        ("heat_map", detection.heat_map * config.loss.heat_map),
        ("regression", detection.regression * config.loss.regression),
    ];
    if let Some(Lesson { config, output, targets: teacher_targets, .. }) = lesson {
        let student = StudentMaps { probabilities: &probabilities, regression: &maps.regression, targets: &targets };
        let of_teacher = distill_loss(config, student, output, teacher_targets);
        let switched_on = [
            ("kd_heat_map", of_teacher.heat_map, config.logit.is_some()),
            ("kd_sort", of_teacher.sort, config.logit.as_ref().is_some_and(|logit| logit.sort.is_some())),
            ("kd_regression", of_teacher.regression, config.regression_weight > 0.0),
        ];
        terms.extend(switched_on.into_iter().filter(|(_, _, on)| *on).map(|(name, term, _)| (name, term)));
    }
    let total = terms.iter().map(|(_, term)| term.shallow_clone()).reduce(|sum, term| sum + term).unwrap_or_default();
    Loss { terms, total }
}

fn drawn(labels: &[Vec<TrueBox>], spec: &ModelSpec, config: &RunConfig, device: Device) -> Targets {
    draw_targets(labels, &spec.grid(), spec.network.stride(), spec.classes.len(), &config.targets).to_device(device)
}
