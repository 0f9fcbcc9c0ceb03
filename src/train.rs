//! Training: [`train`] is a run from its first step to the model directory, or from wherever it was stopped.
//!
//! Targets, losses, optimiser and schedule compute what the original PyTorch code computes (sparsekd-spec sections 1.5, 2.4 to 2.6);
//! `trainer parity` holds them to the original's numbers. On a CPU a run is a function of its record ([`run::RunRecord`]) and the
//! number of threads, to the last bit, however often it was killed and resumed.

pub mod anchor_loss;
pub mod anchor_targets;
pub mod checkpoint;
pub mod config;
pub mod config_table;
pub mod ema;
mod error;
pub mod events;
mod failure;
mod finish;
pub mod fresh;
pub mod log;
pub mod loss;
pub mod optim;
pub mod progress;
mod revision;
pub mod run;
pub mod schedule;
pub mod setup;
pub mod state;
pub mod step;
pub mod targets;
pub mod teaching;
mod tensor_file;
mod validate;
mod window;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::device;
use crate::pipeline::panic_text;
use crate::time::millis;
use checkpoint::State;
pub use error::TrainError;
use finish::{Origin, deployed_weights, save_model};
use log::{Entry, Line, Log};
use progress::Progress;
use run::RunFolder;
use schedule::OneCycle;
use setup::{Setup, TrainOptions};
use state::TrainingState;
use step::StepError;
use window::Window;

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All steps done and the model written.
    Finished {
        /// The model directory.
        model: PathBuf,
        /// Of its last validation, if there was one.
        metrics: BTreeMap<String, f64>,
    },
    /// It was finished before.
    AlreadyFinished {
        /// The model directory.
        model: PathBuf,
    },
    /// Somebody asked it to stop; it can be resumed.
    Stopped {
        /// Steps done and saved.
        step: u64,
        /// Steps of the whole run.
        n_steps: u64,
    },
}

/// Trains until the end, or until `stop` is set: then the step at hand is finished and saved.
///
/// # Errors
/// [`TrainError`]. Checkpoints written before are whole, and a resumed run goes on from the newest.
pub fn train(options: &TrainOptions, stop: &AtomicBool, progress: &mut dyn FnMut(&Progress)) -> Result<Outcome, TrainError> {
    let chosen = device::choose(&options.device)?;
    let config = &options.config;
    if config.num_threads > 0 {
        device::set_cpu_threads(config.num_threads);
    }
    let mut setup = Setup::new(options, chosen.device)?;
    let run = RunFolder::open(&options.out, &setup.record, options.resume)?;
    if run.is_finished() {
        return Ok(Outcome::AlreadyFinished { model: run.model() });
    }
    // A resumed run stays the one that began it.
    setup.record = run.record()?;
    tracing::info!("{} on {}: {}", setup.spec.name, device::name(chosen.device), chosen.reason);
    let mut state = TrainingState::new(&setup.spec, &setup.first_weights, config.optimizer, config.ema_decay, chosen.device);
    let place = Place { n_threads: tch::get_num_threads(), device: device::name(chosen.device) };
    let mut step = restore(&run, &setup, &mut state, &place)?;
    let mut log = Log::open(&options.out, step).map_err(TrainError::Log)?;
    let n_steps = config.epochs * setup.steps_per_epoch;
    let cycle = OneCycle { settings: config.schedule, total_steps: n_steps };
    let mut batches = setup.batches_from(step)?;
    let mut window = Window::default();
    let is_due = |step: u64| options.validation.is_some() && validate::is_due(config, step, setup.steps_per_epoch);

    loop {
        if let (Some(source), true) = (&options.validation, is_due(step) && !log.validations().contains_key(&step)) {
            let weights = deployed_weights(&state, config.model_dtype);
            let (metrics, seconds) = validate::validate(&setup.spec, &weights, source.as_ref(), config, chosen.device)
                .map_err(TrainError::Validate)?;
            if validate::is_best(&metrics, log.validations()) {
                save_model(&run.best(), &weights, place.origin(&setup, step, &metrics))?;
            }
            log.push(&Line::now(step, setup.epoch_behind(step), Entry::Validation { metrics, seconds }))
                .map_err(TrainError::Log)?;
        }
        if step == n_steps {
            break;
        }

        let waiting = Instant::now();
        let batch = batches.next().ok_or(TrainError::NoMoreData { step })??.to_device(chosen.device)?;
        let data_ms = millis(waiting.elapsed());
        let statistics = state.running_statistics();
        let rates = cycle.at(step);
        let gradient = match guarded(|| step::gradient(&mut state, &setup.spec, config, setup.teaching.as_ref(), &batch))? {
            Err(StepError::NonFinite(what)) => {
                state.restore_running_statistics(&statistics);
                let kept = failure::keep(&run, &place.at(&setup, step), &state.to_tensors(), &batch, &what)?;
                return Err(TrainError::non_finite(what, step, &batch, kept));
            }
            other => other?,
        };
        guarded(|| state.update(rates))?;
        step += 1;
        window.add(rates, data_ms, &gradient, &batch.counts);
        for frame in &batch.unreadable {
            tracing::warn!("{} was left out: {}", frame.id, frame.reason);
        }

        let stopping = stop.load(Ordering::Relaxed);
        let saves = stopping || step == n_steps || is_due(step) || step.is_multiple_of(config.checkpoints.every_steps);
        let logs = saves || step.is_multiple_of(config.log_every_steps);
        if logs && let Some(entry) = window.take() {
            log.push(&Line::now(step, batch.epoch, Entry::Step(entry))).map_err(TrainError::Log)?;
        }
        progress(&Progress { step, n_steps, epoch: batch.epoch, loss: gradient.losses["total"], lr: rates.lr, logged: logs });
        if saves {
            log.sync().map_err(TrainError::Log)?;
            checkpoint::save(&run.checkpoints(), &place.at(&setup, step), &state.to_tensors(), config.checkpoints.keep)
                .map_err(|source| TrainError::Save { step, source })?;
        }
        if stopping && step < n_steps {
            return Ok(Outcome::Stopped { step, n_steps });
        }
    }

    let metrics = log.validations().get(&n_steps).cloned().unwrap_or_default();
    let weights = deployed_weights(&state, config.model_dtype);
    save_model(&run.model(), &weights, place.origin(&setup, n_steps, &metrics))?;
    run.finish()?;
    Ok(Outcome::Finished { model: run.model(), metrics })
}

/// Takes up the newest whole checkpoint, if there is one, and says how many steps it has.
fn restore(run: &RunFolder, setup: &Setup, state: &mut TrainingState, place: &Place) -> Result<u64, TrainError> {
    checkpoint::remove_unfinished(&run.checkpoints())?;
    let found = checkpoint::newest(&run.checkpoints())?;
    for reason in &found.damaged {
        tracing::warn!("a damaged checkpoint is passed over: {reason}");
    }
    let Some(checkpoint) = found.checkpoint else { return Ok(0) };
    let State { step, run_sha256, n_threads, device, .. } = &checkpoint.state;
    if *run_sha256 != setup.record.sha256() {
        return Err(TrainError::Stranger { path: checkpoint.path });
    }
    if (*n_threads, device) != (place.n_threads, &place.device) {
        tracing::warn!(
            "the checkpoint was made with {n_threads} threads on {device}, now there are {} on {}: the last bits will differ",
            place.n_threads,
            place.device
        );
    }
    state.load_tensors(&setup.spec, &checkpoint.tensors)?;
    tracing::info!("going on from {} after {step} steps", checkpoint.path.display());
    Ok(*step)
}

/// What a run's last bits depend on beside its record.
#[derive(Debug)]
struct Place {
    n_threads: i32,
    device: String,
}

impl Place {
    fn at(&self, setup: &Setup, step: u64) -> State {
        let (n_threads, device) = (self.n_threads, self.device.clone());
        State { format: checkpoint::FORMAT, step, run_sha256: setup.record.sha256(), n_threads, device }
    }

    fn origin<'a>(&'a self, setup: &'a Setup, steps: u64, metrics: &'a BTreeMap<String, f64>) -> Origin<'a> {
        Origin {
            record: &setup.record,
            steps,
            n_threads: self.n_threads,
            device: &self.device,
            metrics,
            statistics: setup.statistics(),
        }
    }
}

/// Runs libtorch code and turns its panics, which are how tch reports a failed operation, into errors.
fn guarded<T>(body: impl FnOnce() -> T) -> Result<T, TrainError> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic: Box<dyn Any + Send>| {
        // libtorch appends its whole stack; what is wrong stands before it.
        let reason = panic_text(panic.as_ref()).split('\n').next().unwrap_or_default();
        TrainError::Network(reason.split("\\n").next().unwrap_or_default().to_owned())
    })
}

/// A setting of training that breaks a rule.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{key} = {value}: {rule}")]
pub struct SettingError {
    /// Name of the setting inside its section.
    pub key: &'static str,
    /// What was given.
    pub value: String,
    /// What it must keep to.
    pub rule: &'static str,
}

/// An error unless the rule holds.
pub(crate) fn rule(holds: bool, key: &'static str, value: &dyn std::fmt::Debug, rule: &'static str) -> Result<(), SettingError> {
    if holds { Ok(()) } else { Err(SettingError { key, value: format!("{value:?}"), rule }) }
}
