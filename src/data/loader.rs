//! Batches made by threads ahead of the device.
//!
//! A batch is a function of the source, the preparation, the plan, the order's seed, the epoch and the step: threads share nothing
//! that could change it, and batches are handed out in their order. A run can therefore go on from any step.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::batch::{Batch, BatchBuilder, BatchError, Unreadable, VoxelPlan};
use super::prepare::{Preparation, PrepareCounts, TrainingFrame, Turn, prepare};
use super::{SampleId, Source, chance};
use crate::pipeline::panic_text;
use crate::train::{SettingError, rule};

/// Frames tried in place of one that cannot be used, before the run ends.
const MAX_REPLACEMENTS: u64 = 100;

/// How batches are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoaderConfig {
    /// Frames of a batch; 2, as the paper gives each GPU for pillar networks.
    pub batch_size: usize,
    /// Threads that make batches; 2.
    pub n_workers: usize,
    /// Batches that may lie ready; 4.
    pub n_batches_ahead: usize,
    /// Whether the frames left over at the end of an epoch make a smaller batch; true.
    pub keep_partial_batch: bool,
    /// The run ends when more than this share of an epoch's frames turned out unreadable; 0.01.
    pub max_unreadable_share: f64,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self { batch_size: 2, n_workers: 2, n_batches_ahead: 4, keep_partial_batch: true, max_unreadable_share: 0.01 }
    }
}

impl LoaderConfig {
    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn check(&self) -> Result<(), SettingError> {
        rule((1..=1024).contains(&self.batch_size), "batch_size", &self.batch_size, "1 to 1024")?;
        rule((1..=256).contains(&self.n_workers), "n_workers", &self.n_workers, "1 to 256")?;
        rule((1..=1024).contains(&self.n_batches_ahead), "n_batches_ahead", &self.n_batches_ahead, "1 to 1024")?;
        let share = self.max_unreadable_share;
        rule((0.0..=1.0).contains(&share), "max_unreadable_share", &share, "0 to 1")
    }

    /// Steps of an epoch over a source of that many frames.
    pub fn steps_per_epoch(&self, n_frames: usize) -> u64 {
        let steps = if self.keep_partial_batch { n_frames.div_ceil(self.batch_size) } else { n_frames / self.batch_size };
        steps as u64
    }
}

/// In which order the frames of an epoch come, and what happens to those that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Each epoch in an order of its own, for training. In place of a frame that cannot be read, or of which nothing is left to
    /// learn from, comes another one, chosen by the data seed, the epoch and the frame's id.
    Shuffled {
        /// Of the run.
        seed: u64,
    },
    /// As the source has them, for evaluation and for storing a teacher's outputs. Frames that cannot be used are left out: batches
    /// may have fewer frames than others, or none.
    Stored,
}

impl Order {
    /// Indices of the frames of an epoch.
    pub fn of_epoch(self, epoch: u64, n_frames: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n_frames).collect();
        if let Order::Shuffled { seed } = self {
            order.shuffle(&mut chance::of_epoch(seed, epoch, "order"));
        }
        order
    }
}

/// A stretch of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Epoch of the first batch.
    pub first_epoch: u64,
    /// Step of the first batch in its epoch.
    pub first_step: u64,
    /// The epoch after the last one.
    pub end_epoch: u64,
}

/// Why there is no batch.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// A setting that breaks a rule.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Nothing to make batches of.
    #[error("{source_name} has {n_frames} frames: not one batch of {batch_size}")]
    TooSmall {
        /// As the user named it.
        source_name: String,
        /// Frames of the source.
        n_frames: usize,
        /// As configured.
        batch_size: usize,
    },
    /// A first step that no epoch has.
    #[error("step {step} was asked for, an epoch has steps 0 to {last}")]
    NoSuchStep {
        /// As asked.
        step: u64,
        /// The last one.
        last: u64,
    },
    /// The system gives no more threads.
    #[error("loader thread: {0}")]
    Spawn(std::io::Error),
    /// More frames are broken than the configuration allows.
    #[error(
        "epoch {epoch}: {n_unreadable} of {n_frames} frames are unreadable, more than max_unreadable_share = {allowed}; first: {first}"
    )]
    TooManyUnreadable {
        /// Which epoch.
        epoch: u64,
        /// Frames found unreadable in it so far.
        n_unreadable: usize,
        /// Frames of an epoch.
        n_frames: usize,
        /// As configured.
        allowed: f64,
        /// The first reason.
        first: String,
    },
    /// Nothing to learn from, wherever it looked.
    #[error("in place of {id} {tried} frames were tried and none can be trained on: {}", describe(.counts, .last_reason.as_deref()))]
    NothingUsable {
        /// Whose place.
        id: SampleId,
        /// Frames tried.
        tried: u64,
        /// What was wrong with them.
        counts: Box<PrepareCounts>,
        /// Why the last unreadable one was.
        last_reason: Option<String>,
    },
    /// The frames cannot be laid out.
    #[error("epoch {epoch}, step {step}: {source}")]
    Batch {
        /// Epoch of the batch.
        epoch: u64,
        /// Its step.
        step: u64,
        /// Why.
        r#source: BatchError,
    },
    /// A fault of this program.
    #[error("epoch {epoch}, step {step}: the loader failed: {message}")]
    Panicked {
        /// Epoch of the batch.
        epoch: u64,
        /// Its step.
        step: u64,
        /// What the thread said.
        message: String,
    },
}

fn describe(counts: &PrepareCounts, last_reason: Option<&str>) -> String {
    let mut parts = vec![
        format!("{} without labels", counts.frames_unlabelled),
        format!("{} without a box of the model's classes in range", counts.frames_without_box),
        format!("{} without a point in range", counts.frames_without_point),
    ];
    if !counts.labels_of_other_classes.is_empty() {
        let classes = counts.labels_of_other_classes.iter().map(|(class, n)| format!("{n} {class}")).collect::<Vec<_>>();
        parts.push(format!("labels of classes that are not mapped: {}", classes.join(", ")));
    }
    parts.extend(last_reason.map(|reason| format!("last unreadable: {reason}")));
    parts.join("; ")
}

/// Batches in their order. Dropping it ends its threads.
#[derive(Debug)]
pub struct Loader {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    unreadable: HashSet<SampleId>,
    unreadable_epoch: u64,
}

/// What consumer and workers share.
#[derive(Debug)]
struct Shared {
    job: Job,
    queue: Mutex<Queue>,
    /// Something changed in the queue.
    changed: Condvar,
    stop: AtomicBool,
}

/// Batches are numbered through all epochs.
#[derive(Debug)]
struct Queue {
    next_to_make: u64,
    next_to_give: u64,
    ready: BTreeMap<u64, Result<Batch, LoaderError>>,
}

/// How any batch is made.
#[derive(Debug)]
struct Job {
    source: Arc<dyn Source>,
    preparation: Arc<Preparation>,
    plan: VoxelPlan,
    config: LoaderConfig,
    order: Order,
    n_frames: usize,
    steps_per_epoch: NonZeroU64,
    end: u64,
}

impl Loader {
    /// Starts the threads.
    ///
    /// # Errors
    /// A setting that breaks a rule, a source without a whole batch, a step beyond the epoch, or no threads.
    pub fn start(
        source: Arc<dyn Source>,
        preparation: Arc<Preparation>,
        plan: VoxelPlan,
        config: &LoaderConfig,
        order: Order,
        span: Span,
    ) -> Result<Self, LoaderError> {
        config.check()?;
        let n_frames = source.len();
        let Some(steps_per_epoch) = NonZeroU64::new(config.steps_per_epoch(n_frames)) else {
            let source_name = source.fingerprint().source;
            return Err(LoaderError::TooSmall { source_name, n_frames, batch_size: config.batch_size });
        };
        let steps = steps_per_epoch.get();
        if span.first_step >= steps {
            return Err(LoaderError::NoSuchStep { step: span.first_step, last: steps - 1 });
        }
        let number = |epoch: u64, step: u64| epoch.saturating_mul(steps).saturating_add(step);
        let first = number(span.first_epoch, span.first_step);
        let end = number(span.end_epoch, 0).max(first);
        let job = Job { source, preparation, plan, config: config.clone(), order, n_frames, steps_per_epoch, end };
        let queue = Queue { next_to_make: first, next_to_give: first, ready: BTreeMap::new() };
        let shared = Arc::new(Shared { job, queue: Mutex::new(queue), changed: Condvar::new(), stop: AtomicBool::new(false) });
        let mut loader = Self {
            shared,
            workers: Vec::with_capacity(config.n_workers),
            unreadable: HashSet::new(),
            unreadable_epoch: span.first_epoch,
        };
        for worker_idx in 0..config.n_workers {
            let shared = Arc::clone(&loader.shared);
            let thread = std::thread::Builder::new().name(format!("loader-{worker_idx}"));
            loader.workers.push(thread.spawn(move || shared.work()).map_err(LoaderError::Spawn)?);
        }
        Ok(loader)
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.shared.job.steps_per_epoch.get()
    }

    /// Counts the unreadable frames of an epoch; an error when they are too many. Counted where batches are handed out, so that it
    /// happens at the same step however many threads there are.
    fn count_unreadable(&mut self, batch: &Batch) -> Result<(), LoaderError> {
        if self.unreadable_epoch != batch.epoch {
            self.unreadable.clear();
            self.unreadable_epoch = batch.epoch;
        }
        self.unreadable.extend(batch.unreadable.iter().map(|frame| frame.id.clone()));
        let (n_unreadable, n_frames) = (self.unreadable.len(), self.shared.job.n_frames);
        let allowed = self.shared.job.config.max_unreadable_share;
        match batch.unreadable.first() {
            Some(first) if n_unreadable as f64 > allowed * n_frames as f64 => {
                let first = format!("{}: {}", first.id, first.reason);
                Err(LoaderError::TooManyUnreadable { epoch: batch.epoch, n_unreadable, n_frames, allowed, first })
            }
            _ => Ok(()),
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, LoaderError>;

    /// The next batch, waiting for it; `None` after the last one and after an error.
    fn next(&mut self) -> Option<Self::Item> {
        let result = {
            let mut queue = self.shared.lock();
            loop {
                if self.shared.stop.load(Ordering::Relaxed) || queue.next_to_give >= self.shared.job.end {
                    return None;
                }
                let next = queue.next_to_give;
                if let Some(result) = queue.ready.remove(&next) {
                    queue.next_to_give += 1;
                    break result;
                }
                queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        };
        self.shared.changed.notify_all();
        let result = result.and_then(|batch| self.count_unreadable(&batch).map(|()| batch));
        if result.is_err() {
            self.shared.end();
        }
        Some(result)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.end();
        for worker in self.workers.drain(..) {
            // A worker's panics became errors of its batches.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody that no more batches are wanted.
    fn end(&self) {
        let _queue = self.lock(); // nobody is between looking at `stop` and waiting
        self.stop.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// The number of the next batch to make, as soon as there is room for it; `None` when there is no more.
    fn next_number(&self) -> Option<u64> {
        let mut queue = self.lock();
        loop {
            if self.stop.load(Ordering::Relaxed) || queue.next_to_make >= self.job.end {
                return None;
            }
            if queue.next_to_make < queue.next_to_give + self.job.config.n_batches_ahead as u64 {
                queue.next_to_make += 1;
                return Some(queue.next_to_make - 1);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A worker's life. Every number it takes gets a result, also when making it panics, so nobody waits in vain.
    fn work(&self) {
        let mut worker = Worker { builder: BatchBuilder::new(&self.job.plan), order: None };
        while let Some(number) = self.next_number() {
            let (epoch, step) = (number / self.job.steps_per_epoch, number % self.job.steps_per_epoch);
            let made = catch_unwind(AssertUnwindSafe(|| self.job.make(&mut worker, epoch, step, &self.stop)));
            let result = made.unwrap_or_else(|panic| {
                // What it was in the middle of may be half done.
                worker = Worker { builder: BatchBuilder::new(&self.job.plan), order: None };
                let message = panic_text(panic.as_ref()).to_owned();
                Err(LoaderError::Panicked { epoch, step, message })
            });
            self.lock().ready.insert(number, result);
            self.changed.notify_all();
        }
    }
}

/// What a worker keeps from batch to batch.
struct Worker {
    builder: BatchBuilder,
    /// The order of the epoch it is in.
    order: Option<(u64, Vec<usize>)>,
}

/// What was met while the frames of a batch were looked for.
#[derive(Default)]
struct Met {
    counts: PrepareCounts,
    unreadable: Vec<Unreadable>,
}

impl Job {
    fn make(&self, worker: &mut Worker, epoch: u64, step: u64, stop: &AtomicBool) -> Result<Batch, LoaderError> {
        let (_, order) = match worker.order.take() {
            Some(known) if known.0 == epoch => worker.order.insert(known),
            _ => worker.order.insert((epoch, self.order.of_epoch(epoch, self.n_frames))),
        };
        let first = step as usize * self.config.batch_size;
        let mut met = Met::default();
        let mut frames = Vec::with_capacity(self.config.batch_size);
        for &index in &order[first..self.n_frames.min(first + self.config.batch_size)] {
            if stop.load(Ordering::Relaxed) {
                break; // nobody will see this batch
            }
            frames.extend(match self.order {
                Order::Stored => self.frame(epoch, index, &mut met),
                Order::Shuffled { .. } => Some(self.frame_or_replacement(epoch, index, &mut met)?),
            });
        }
        let batch = worker.builder.build(frames, met.counts).map_err(|source| LoaderError::Batch { epoch, step, source })?;
        Ok(Batch { epoch, step, unreadable: met.unreadable, ..batch })
    }

    /// One frame, unless it cannot be used; `met` then says why.
    fn frame(&self, epoch: u64, index: usize, met: &mut Met) -> Option<TrainingFrame> {
        let turn = Turn { epoch, index: index as u64, n_frames: self.n_frames as u64 };
        let id = self.source.id(index);
        let sample = self.source.load(epoch, index).map_err(|error| id.reason(&error));
        let prepared = sample.and_then(|sample| prepare(&sample, turn, &self.preparation).map_err(|error| id.reason(&error)));
        match prepared {
            Ok(prepared) => {
                met.counts += &prepared.counts;
                prepared.frame
            }
            Err(reason) => {
                met.unreadable.push(Unreadable { id, reason });
                None
            }
        }
    }

    fn frame_or_replacement(&self, epoch: u64, index: usize, met: &mut Met) -> Result<TrainingFrame, LoaderError> {
        let mut tried = Met::default();
        let mut found = self.frame(epoch, index, &mut tried);
        let id = self.source.id(index);
        let mut random = chance::of_sample(self.preparation.data_seed, epoch, &id, "replacement");
        let mut n_tried = 1;
        while found.is_none() && n_tried <= MAX_REPLACEMENTS {
            found = self.frame(epoch, random.random_range(0..self.n_frames as u64) as usize, &mut tried);
            n_tried += 1;
        }
        met.counts += &tried.counts;
        let last_reason = tried.unreadable.last().map(|frame| format!("{}: {}", frame.id, frame.reason));
        met.unreadable.append(&mut tried.unreadable);
        found.ok_or_else(|| LoaderError::NothingUsable { id, tried: n_tried, counts: Box::new(tried.counts), last_reason })
    }
}
