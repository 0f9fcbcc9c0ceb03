//! The self test: a network that cannot learn one frame by heart will not learn any data. Trains on a single frame through the very
//! training loop and evaluates on the same frame.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::{Finding, Severity};
use crate::data::augment::AugmentConfig;
use crate::data::loader::LoaderConfig;
use crate::data::prepare::{ClassMap, PrepareError};
use crate::data::statistics::spread;
use crate::data::{DataError, Fingerprint, Sample, SampleId, Source};
use crate::eval::EvalError;
use crate::eval::config::Level;
use crate::eval::run::{EvalOptions, evaluate};
use crate::model::spec::ModelSpec;
use crate::pipeline::{Pipeline, PipelineError, PipelineOptions};
use crate::train::config::{CheckpointSettings, RunConfig};
use crate::train::progress::Progress;
use crate::train::setup::TrainOptions;
use crate::train::{Outcome, TrainError, train};

/// LEVEL_2 AP of a class on its own frame below which something is wrong, and below which something may be.
const BAD_AP: f32 = 0.5;
const FAIR_AP: f32 = 0.9;
/// Frames looked at for the one with most objects.
const FRAMES_TRIED: usize = 20;
/// Running statistics of the norms follow a batch by a hundredth; fewer steps leave them behind.
const MIN_STEPS: u64 = 300;

/// How long and where.
#[derive(Debug, Clone)]
pub struct OverfitOptions {
    /// Steps of the optimiser.
    pub steps: u64,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overfit {
    /// The frame that was learnt by heart.
    pub frame: SampleId,
    /// Steps of the optimiser.
    pub steps: u64,
    /// Classes that the frame has.
    pub classes: Vec<ClassOutcome>,
}

/// One class of the frame.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassOutcome {
    /// The model's name.
    pub class: String,
    /// Labels with points inside the range.
    pub n_labels: u64,
    /// LEVEL_2 average precision.
    pub ap: f32,
    /// The same weighted by heading.
    pub aph: f32,
}

/// Why the test could not be made.
#[derive(Debug, thiserror::Error)]
pub enum OverfitError {
    /// No frame that was looked at can serve.
    #[error(
        "none of {tried} frames has a label of the model's classes with a point inside the range; nothing can be learnt by heart"
    )]
    NoFrame {
        /// How many were looked at.
        tried: usize,
    },
    /// Too short.
    #[error("{steps} steps are too few: running statistics of batch norms need {MIN_STEPS}")]
    Steps {
        /// As asked.
        steps: u64,
    },
    /// The class names do not fit.
    #[error(transparent)]
    Classes(#[from] PrepareError),
    /// The run failed.
    #[error("training on one frame: {0}")]
    Train(TrainError),
    /// The trained model does not run.
    #[error("running the trained model: {0}")]
    Pipeline(PipelineError),
    /// It cannot be evaluated.
    #[error("evaluating the trained model: {0}")]
    Eval(EvalError),
    /// No place for the run.
    #[error("a folder for the run: {0}")]
    Folder(std::io::Error),
}

/// Trains the run's network from fresh weights on one frame of `source`, without augmentation, teacher or validation.
///
/// # Errors
/// [`OverfitError`].
pub fn overfit(
    config: &RunConfig,
    spec: &ModelSpec,
    source: &dyn Source,
    options: &OverfitOptions,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Overfit, OverfitError> {
    let steps = options.steps;
    if steps < MIN_STEPS {
        return Err(OverfitError::Steps { steps });
    }
    let sample = fullest_frame(config, spec, source)?;
    let frame = sample.id.clone();
    let folder = tempfile::tempdir().map_err(OverfitError::Folder)?;
    let run = TrainOptions {
        config: RunConfig {
            epochs: 1,
            augment: NO_AUGMENTATION,
            distill: None,
            ema_decay: 0.0,
            loader: LoaderConfig { batch_size: 1, ..LoaderConfig::default() },
            checkpoints: CheckpointSettings { every_steps: steps, keep: 1 },
            ..config.clone()
        },
        data: Arc::new(OneFrame { sample: sample.clone(), n_copies: steps as usize }),
        validation: None,
        out: folder.path().join("run"),
        resume: false,
        device: options.device.clone(),
        command: "trainer doctor --overfit".to_owned(),
    };
    let model = match train(&run, &AtomicBool::new(false), progress).map_err(OverfitError::Train)? {
        Outcome::Finished { model, .. } | Outcome::AlreadyFinished { model } => model,
        Outcome::Stopped { .. } => run.out.join("model"),
    };
    let classes = evaluate_on(&model, sample, config, options)?;
    Ok(Overfit { frame, steps, classes })
}

const NO_AUGMENTATION: AugmentConfig = AugmentConfig {
    gt_sampling: None,
    flip_x_probability: 0.0,
    flip_y_probability: 0.0,
    rotation_rad: None,
    scaling: None,
    shuffle: false,
};

/// The readable frame with most labels that training would keep.
fn fullest_frame(config: &RunConfig, spec: &ModelSpec, source: &dyn Source) -> Result<Sample, OverfitError> {
    let classes = ClassMap::new(&spec.classes, &config.class_names)?;
    let [xmin, ymin, _, xmax, ymax, _] = spec.grid.range.map(f64::from);
    let usable = |sample: &Sample| {
        let scene = super::scene::Scene::new(&sample.cloud);
        let labels = sample.labels.iter().flatten().filter(|label| {
            let [x, y, _] = label.box3d.center;
            classes.index_of(&label.class).is_some() && (xmin..xmax).contains(&x) && (ymin..ymax).contains(&y)
        });
        labels.filter(|label| scene.count(&label.box3d) > 0).count()
    };
    let tried = spread(source.len(), FRAMES_TRIED);
    let candidates = tried.iter().filter_map(|&index| source.load(0, index).ok()).map(|sample| (usable(&sample), sample));
    let fullest = candidates.max_by_key(|(n_labels, _)| *n_labels).filter(|(n_labels, _)| *n_labels > 0);
    fullest.map(|(_, sample)| sample).ok_or(OverfitError::NoFrame { tried: tried.len() })
}

fn evaluate_on(
    model: &Path,
    sample: Sample,
    config: &RunConfig,
    options: &OverfitOptions,
) -> Result<Vec<ClassOutcome>, OverfitError> {
    let pipeline = PipelineOptions { device: options.device.clone(), precision: config.precision };
    let mut pipeline = Pipeline::load(model, &pipeline).map_err(OverfitError::Pipeline)?;
    let source = OneFrame { sample, n_copies: 1 };
    let eval = EvalOptions { renamed: config.class_names.clone(), n_readers: 1, n_worst_frames: 0, ..EvalOptions::default() };
    let report = evaluate(&mut pipeline, &source, &eval).map_err(OverfitError::Eval)?;
    let outcome = |((class, object_type), (_, labels)): ((&str, _), &(String, crate::eval::frames::LabelCounts))| {
        let n_labels = labels.level_1 + labels.level_2;
        let breakdown = report.by_type(object_type, Level::Level2).filter(|_| n_labels > 0)?;
        Some(ClassOutcome { class: class.to_owned(), n_labels, ap: breakdown.ap, aph: breakdown.aph })
    };
    Ok(report.classes().zip(&report.labels).filter_map(outcome).collect())
}

impl Overfit {
    /// What the result says about model and data.
    pub fn findings(&self) -> Vec<Finding> {
        let of_class = |outcome: &ClassOutcome| {
            let ClassOutcome { class, n_labels, ap, aph } = outcome;
            let severity = match *ap {
                ap if ap < BAD_AP => Severity::Error,
                ap if ap < FAIR_AP || *aph < FAIR_AP * ap => Severity::Warning,
                _ => return None,
            };
            let measured = format!(
                "after {} steps on {} alone, its {n_labels} `{class}` are found with AP {ap:.3}, APH {aph:.3}",
                self.steps, self.frame
            );
            let advice = if *ap >= FAIR_AP {
                "boxes are found but their headings are not: check the yaw of the labels (see `heading`)"
            } else {
                "mend the other findings first; if there are none, try more steps (--overfit-steps), finer cells (grid.voxel_size) for \
                 small objects, or a wider network"
            };
            Some(Finding::new(severity, "overfit", measured, advice.to_owned()))
        };
        self.classes.iter().filter_map(of_class).collect()
    }
}

/// One frame as often as a run has steps.
#[derive(Debug)]
struct OneFrame {
    sample: Sample,
    n_copies: usize,
}

impl Source for OneFrame {
    fn len(&self) -> usize {
        self.n_copies
    }

    fn id(&self, _index: usize) -> SampleId {
        self.sample.id.clone()
    }

    fn load(&self, _epoch: u64, _index: usize) -> Result<Sample, DataError> {
        Ok(self.sample.clone())
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint { source: format!("{} copies of {}", self.n_copies, self.sample.id), sha256: "-".to_owned() }
    }
}
