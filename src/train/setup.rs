//! What stands before the first step: spec, teacher, first weights, data, and the record of all that.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tch::Device;

use super::TrainError;
use super::config::RunConfig;
use super::fresh::fresh_weights;
use super::revision::code_revision;
use super::run::RunRecord;
use super::teaching::Teaching;
use crate::data::batch::VoxelPlan;
use crate::data::loader::{Loader, Order, Span};
use crate::data::prepare::{Augmenter, ClassMap, Preparation};
use crate::data::statistics::DataStatistics;
use crate::data::{Fingerprint, Source};
use crate::distill::dump::{DumpData, FrameSettings};
use crate::distill::inherit::inherit;
use crate::distill::source::TeacherSource;
use crate::model::directory;
use crate::model::params::Weights;
use crate::model::spec::ModelSpec;

/// A run to begin or to go on with.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// How.
    pub config: RunConfig,
    /// What is trained on.
    pub data: Arc<dyn Source>,
    /// What is evaluated on, if anything.
    pub validation: Option<Arc<dyn Source>>,
    /// The run's folder.
    pub out: PathBuf,
    /// Whether a run that is there is gone on with.
    pub resume: bool,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// For the record.
    pub command: String,
}

/// Everything a run needs beside its state.
#[derive(Debug)]
pub struct Setup {
    /// Of the student, with the configured range.
    pub spec: ModelSpec,
    /// Where there is a teacher.
    pub teaching: Option<Teaching>,
    /// The student's.
    pub first_weights: Weights,
    /// What the run is made from.
    pub record: RunRecord,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    config: RunConfig,
    source: Arc<dyn Source>,
    preparation: Arc<Preparation>,
    plan: VoxelPlan,
    statistics: OnceLock<DataStatistics>,
}

/// How the frames of a run are prepared, and what they are made from.
#[derive(Debug)]
pub struct RunFrames {
    /// For a loader.
    pub preparation: Preparation,
    /// Hash of the database that is pasted from, if any.
    pub gt_database: Option<String>,
    /// What a teacher dump must have been made from.
    pub identity: DumpData,
}

impl RunFrames {
    /// Of a run of this spec, over its range, on a source.
    ///
    /// # Errors
    /// [`TrainError`] when classes or the ground-truth database do not fit.
    pub fn new(config: &RunConfig, spec: &ModelSpec, source: Fingerprint) -> Result<Self, TrainError> {
        let classes = ClassMap::new(&spec.classes, &config.class_names)?;
        let augmenter = Augmenter::new(&config.augment, &classes, &spec.input)?;
        let gt_database = augmenter.sampler().map(|sampler| sampler.database().sha256().to_owned());
        let RunConfig { data_seed, augment, class_names, .. } = config;
        let preparation = FrameSettings {
            augment,
            gt_database: gt_database.as_deref(),
            class_names,
            input: &spec.input,
            range: spec.grid.range,
        };
        let identity = DumpData::new(source, *data_seed, preparation).map_err(TrainError::Json)?;
        let preparation = Preparation {
            input: spec.input.clone(),
            grid: spec.grid(),
            classes,
            augmenter: Some(augmenter),
            data_seed: *data_seed,
        };
        Ok(Self { preparation, gt_database, identity })
    }
}

/// Frames of the training source whose statistics go with the weights.
const N_STATISTICS_FRAMES: usize = 32;

impl Setup {
    /// Opens what the options name.
    ///
    /// # Errors
    /// [`TrainError`] for the first thing that cannot be had.
    pub fn new(options: &TrainOptions, device: Device) -> Result<Self, TrainError> {
        let config = &options.config;
        config.check("configuration")?;
        let spec = config.spec()?;
        let (first_weights, inherited) = first_weights(config, &spec)?;
        let data = options.data.fingerprint();
        let RunFrames { preparation, gt_database, identity } = RunFrames::new(config, &spec, data.clone())?;
        let teaching = match &config.distill {
            None => None,
            Some(distill) => Some(Teaching {
                config: distill.clone(),
                source: TeacherSource::open(distill, &spec, &identity, config.epochs, device)?,
            }),
        };
        let plan = VoxelPlan::new(&spec, teaching.as_ref().and_then(|teaching| teaching.source.spec()))?;
        let record = RunRecord {
            format: 1,
            command: options.command.clone(),
            revision: code_revision(),
            config: config.clone(),
            spec: spec.clone(),
            n_frames: options.data.len() as u64,
            data,
            validation: options.validation.as_ref().map(|source| source.fingerprint()),
            teacher: teaching.as_ref().map(|teaching| teaching.source.identity().to_owned()),
            inherited,
            gt_database,
        };
        Ok(Self {
            steps_per_epoch: config.loader.steps_per_epoch(options.data.len()),
            spec,
            teaching,
            first_weights,
            record,
            config: config.clone(),
            source: Arc::clone(&options.data),
            preparation: Arc::new(preparation),
            plan,
            statistics: OnceLock::new(),
        })
    }

    /// What the training source looks like; read when first asked for.
    pub fn statistics(&self) -> &DataStatistics {
        self.statistics.get_or_init(|| DataStatistics::gather(self.source.as_ref(), N_STATISTICS_FRAMES))
    }

    /// Epoch of the last of so many steps, from 0.
    pub fn epoch_behind(&self, steps: u64) -> u64 {
        steps.saturating_sub(1) / self.steps_per_epoch.max(1)
    }

    /// Batches from a step of the run on.
    ///
    /// # Errors
    /// [`TrainError::Loader`].
    pub fn batches_from(&self, step: u64) -> Result<Loader, TrainError> {
        let config = &self.config;
        let steps = self.steps_per_epoch.max(1);
        let span = Span { first_epoch: step / steps, first_step: step % steps, end_epoch: config.epochs };
        let order = Order::Shuffled { seed: config.seed };
        let (source, preparation) = (Arc::clone(&self.source), Arc::clone(&self.preparation));
        Ok(Loader::start(source, preparation, self.plan.clone(), &config.loader, order, span)?)
    }
}

/// Fresh weights by the run's seed, with those that are inherited in their places; and the hash of what they were inherited from.
fn first_weights(config: &RunConfig, spec: &ModelSpec) -> Result<(Weights, Option<String>), TrainError> {
    let mut weights = fresh_weights(spec, config.seed);
    let Some((dir, how)) = config.distill.as_ref().and_then(|distill| distill.inheritance()) else {
        return Ok((weights, None));
    };
    let source = directory::load(dir).map_err(TrainError::Inherited)?;
    let inherited: BTreeMap<_, _> = inherit(&source.weights, &source.spec, spec, how)?;
    weights.extend(inherited);
    Ok((weights, Some(source.sha256)))
}
