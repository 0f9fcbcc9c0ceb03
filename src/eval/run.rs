//! A model over a source of labelled frames: frames are read ahead on other threads, detected one after the other through the
//! node's own [`Pipeline`], and measured together at the end.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Instant;

use crate::data::Source;
use crate::data::prepare::ClassMap;
use crate::pipeline::Pipeline;
use crate::postprocess::Detection;
use crate::replay::Progress;
use crate::replay::latency::FrameTimes;
use crate::time::millis;

use super::config::MetricsConfig;
use super::frames::{Arrival, LabelCounts, ReadyFrame, Readying, Region};
use super::objects::{EvalFrame, ObjectType, Prediction};
use super::report::{BadFrame, EvalReport, FrameScore, LatencySection, ModelSection};
use super::{EvalError, fast, measure};

/// Frames each reading thread may be ahead.
const FRAMES_AHEAD: usize = 2;

/// How a model is evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalOptions {
    /// What is measured.
    pub metrics: MetricsConfig,
    /// Which objects count.
    pub region: Region,
    /// The source's names of classes to the model's, where they differ.
    pub renamed: BTreeMap<String, String>,
    /// At most so many frames, spread evenly over the source.
    pub limit: Option<usize>,
    /// Only endless sources look at it.
    pub epoch: u64,
    /// Threads that read frames ahead of the network, at least one.
    pub n_readers: usize,
    /// How many of the frames with most faults the report lists.
    pub n_worst_frames: usize,
    /// Boxes below this score are no fault of a frame when the worst ones are chosen.
    pub fault_score: f32,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self {
            metrics: MetricsConfig::leaderboard(),
            region: Region::Model,
            renamed: BTreeMap::new(),
            limit: None,
            epoch: 0,
            n_readers: thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2)).min(8),
            n_worst_frames: 6,
            fault_score: 0.3,
        }
    }
}

/// Evaluates without telling how far it is. See [`evaluate_with_progress`].
///
/// # Errors
/// As there.
pub fn evaluate(pipeline: &mut Pipeline, source: &dyn Source, options: &EvalOptions) -> Result<EvalReport, EvalError> {
    evaluate_with_progress(pipeline, source, options, &mut |_| {})
}

/// Evaluates a model on the labelled frames of a source. `progress` is called after every frame.
///
/// Frames without labels are counted and left out. So are frames that cannot be read, prepared or processed, each with its reason:
/// they never end the run. Everything but [`EvalReport::latency`] is the same on every run and for any number of readers.
///
/// # Errors
/// Settings that break a rule, or a class of the model that the metric does not know.
pub fn evaluate_with_progress(
    pipeline: &mut Pipeline,
    source: &dyn Source,
    options: &EvalOptions,
    progress: &mut dyn FnMut(&Progress),
) -> Result<EvalReport, EvalError> {
    options.metrics.check()?;
    let spec = pipeline.spec().clone();
    let classes = ClassMap::new(&spec.classes, &options.renamed).map_err(|error| EvalError::Classes(error.to_string()))?;
    let readying = Readying::new(&spec, classes, object_types(&spec.classes)?, options.region, options.epoch);
    let indices = chosen_frames(source.len(), options.limit);
    let mut run = Run::new(source, &readying, spec.classes.len());
    read_ahead(source, &readying, &indices, options.n_readers, |index, arrival| {
        run.take(pipeline, index, arrival);
        progress(&Progress { n_done: run.n_taken, n_promised: indices.len() as u64 });
    });
    run.finish(pipeline, options, indices.len())
}

/// Types of the model's classes by their names.
fn object_types(classes: &[String]) -> Result<Vec<ObjectType>, EvalError> {
    let named = |class: &String| {
        let found = ObjectType::KNOWN.into_iter().find(|known| known.name().eq_ignore_ascii_case(&format!("TYPE_{class}")));
        found.ok_or_else(|| EvalError::Classes(format!("the metric knows Vehicle, Pedestrian, Sign and Cyclist, not `{class}`")))
    };
    classes.iter().map(named).collect()
}

/// Indices of the frames to evaluate, in order, spread evenly when there are fewer than the source has.
fn chosen_frames(n_frames: usize, limit: Option<usize>) -> Vec<usize> {
    let n_chosen = limit.map_or(n_frames, |limit| limit.min(n_frames));
    (0..n_chosen).map(|i| (i as u128 * n_frames as u128 / n_chosen as u128) as usize).collect()
}

/// Loads frames on `n_readers` threads and hands them to `take` in the order of `indices`.
fn read_ahead(
    source: &dyn Source,
    readying: &Readying<'_>,
    indices: &[usize],
    n_readers: usize,
    mut take: impl FnMut(usize, Arrival),
) {
    let n_readers = n_readers.max(1);
    thread::scope(|scope| {
        let readers: Vec<Receiver<Arrival>> = (0..n_readers)
            .map(|reader| {
                let (sender, receiver) = sync_channel(FRAMES_AHEAD);
                scope.spawn(move || {
                    for &index in indices.iter().skip(reader).step_by(n_readers) {
                        // Nobody receives any more when taking a frame panicked.
                        if sender.send(readying.load(source, index)).is_err() {
                            return;
                        }
                    }
                });
                receiver
            })
            .collect();
        for (turn, &index) in indices.iter().enumerate() {
            let gone = || Arrival::Bad("its reading thread ended".to_owned());
            take(index, readers[turn % n_readers].recv().unwrap_or_else(|_| gone()));
        }
    });
}

/// A frame that went through the network.
pub(super) struct Evaluated {
    pub index: usize,
    pub frame: EvalFrame,
    pub detections: Vec<Detection>,
}

/// What grows frame by frame.
struct Run<'a> {
    source: &'a dyn Source,
    readying: &'a Readying<'a>,
    n_taken: u64,
    n_unlabelled: u64,
    n_points: u64,
    n_points_in_voxels: u64,
    evaluated: Vec<Evaluated>,
    bad: Vec<BadFrame>,
    labels: Vec<LabelCounts>,
    labels_of_other_classes: BTreeMap<String, u64>,
    boxes: Vec<u64>,
    n_boxes_outside_region: u64,
    times: Vec<FrameTimes>,
}

impl<'a> Run<'a> {
    fn new(source: &'a dyn Source, readying: &'a Readying<'a>, n_classes: usize) -> Self {
        Self {
            source,
            readying,
            n_taken: 0,
            n_unlabelled: 0,
            n_points: 0,
            n_points_in_voxels: 0,
            evaluated: Vec::new(),
            bad: Vec::new(),
            labels: vec![LabelCounts::default(); n_classes],
            labels_of_other_classes: BTreeMap::new(),
            boxes: vec![0; n_classes],
            n_boxes_outside_region: 0,
            times: Vec::new(),
        }
    }

    fn take(&mut self, pipeline: &mut Pipeline, index: usize, arrival: Arrival) {
        self.n_taken += 1;
        match arrival {
            Arrival::Unlabelled => self.n_unlabelled += 1,
            Arrival::Bad(reason) => self.leave_out(index, reason),
            Arrival::Ready(ready) => {
                if let Err(reason) = self.detect(pipeline, index, *ready) {
                    self.leave_out(index, reason);
                }
            }
        }
    }

    fn leave_out(&mut self, index: usize, reason: String) {
        let frame = self.source.id(index);
        let reason = frame.reason(&reason);
        tracing::warn!("{frame} is left out: {reason}");
        self.bad.push(BadFrame { frame, reason });
    }

    fn detect(&mut self, pipeline: &mut Pipeline, index: usize, ready: ReadyFrame) -> Result<(), String> {
        let start = Instant::now();
        let output = pipeline.process(&ready.cloud).map_err(|error| error.to_string())?;
        let process_ms = millis(start.elapsed());
        let readying = self.readying;
        let n_found = output.detections.len();
        let is_inside = |found: &Detection| readying.region.holds(readying.range, &found.box3d);
        let detections: Vec<Detection> = output.detections.into_iter().filter(is_inside).collect();
        let predictions = detections.iter().map(|found| Prediction {
            box3d: found.box3d,
            object_type: readying.object_types[found.class_idx],
            score: found.score,
            overlaps_no_label_zone: false,
        });
        let frame = EvalFrame { predictions: predictions.collect(), ground_truths: ready.ground_truths };
        frame.check(index).map_err(|error| error.to_string())?;

        self.n_points += ready.n_points;
        self.n_points_in_voxels += output.voxels.in_voxels as u64;
        self.n_boxes_outside_region += (n_found - detections.len()) as u64;
        detections.iter().for_each(|found| self.boxes[found.class_idx] += 1);
        for (sum, counts) in self.labels.iter_mut().zip(&ready.labels.by_class) {
            sum.level_1 += counts.level_1;
            sum.level_2 += counts.level_2;
            sum.without_points += counts.without_points;
            sum.outside_region += counts.outside_region;
        }
        for (class, n) in ready.labels.of_other_classes {
            *self.labels_of_other_classes.entry(class).or_default() += n;
        }
        self.times.push(FrameTimes {
            index: index as u64,
            read_ms: ready.load_ms,
            decode_ms: ready.columns_ms,
            stages: output.times,
            total_ms: ready.columns_ms + process_ms,
            ..FrameTimes::default()
        });
        self.evaluated.push(Evaluated { index, frame, detections });
        Ok(())
    }

    fn finish(self, pipeline: &Pipeline, options: &EvalOptions, n_chosen: usize) -> Result<EvalReport, EvalError> {
        let frames: Vec<EvalFrame> = self.evaluated.iter().map(|evaluated| evaluated.frame.clone()).collect();
        let metrics = measure(&frames, &options.metrics)?;
        let class_names = &pipeline.spec().classes;
        Ok(EvalReport {
            model: ModelSection::new(pipeline),
            data: self.source.fingerprint(),
            findings: self.source.findings(),
            settings: options.metrics.clone(),
            region: options.region,
            object_types: self.readying.object_types.clone(),
            n_frames_of_source: self.source.len() as u64,
            n_frames_chosen: n_chosen as u64,
            n_frames: frames.len() as u64,
            n_frames_without_labels: self.n_unlabelled,
            bad_frames: self.bad,
            n_points: self.n_points,
            n_points_in_voxels: self.n_points_in_voxels,
            labels: class_names.iter().cloned().zip(self.labels).collect(),
            labels_of_other_classes: self.labels_of_other_classes,
            boxes: class_names.iter().cloned().zip(self.boxes).collect(),
            n_boxes_outside_region: self.n_boxes_outside_region,
            metrics,
            fault_score: options.fault_score,
            worst_frames: worst_frames(&self.evaluated, self.source, options),
            latency: LatencySection::new(pipeline, &self.times),
        })
    }
}

/// The frames with most misses and false alarms at one score, most first, earlier frames first among equals.
fn worst_frames(evaluated: &[Evaluated], source: &dyn Source, options: &EvalOptions) -> Vec<FrameScore> {
    let faults = |evaluated: &Evaluated| {
        let [found, false_alarms, missed] = fast::faults(&evaluated.frame, &options.metrics, options.fault_score);
        FrameScore {
            frame: source.id(evaluated.index),
            index: evaluated.index,
            found,
            false_alarms,
            missed,
            detections: evaluated.detections.iter().copied().filter(|d| d.score >= options.fault_score).collect(),
            truth: evaluated.frame.ground_truths.iter().map(|truth| truth.box3d).collect(),
        }
    };
    let mut scores: Vec<FrameScore> = evaluated.iter().map(faults).filter(|score| score.n_faults() > 0).collect();
    scores.sort_by_key(|score| (std::cmp::Reverse(score.n_faults()), score.index));
    scores.truncate(options.n_worst_frames);
    scores
}
