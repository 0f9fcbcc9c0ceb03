//! What a matching counts as: hits, false alarms, misses, and how well the headings of the hits agree.

use std::f64::consts::{PI, TAU};

use super::config::Level;
use super::objects::EvalFrame;
use super::shards::Generator;

/// Overlap from which a prediction is taken to mean a ground truth of another shard, where only ground truth is sorted.
const MEANS_ANOTHER_IOU: f64 = 0.01;

/// What was counted at one cutoff.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Counts {
    /// Predictions with a partner, whatever its difficulty.
    pub true_positives: u32,
    /// Predictions without one, outside of no-label zones.
    pub false_positives: u32,
    /// Ground truth without a partner, by difficulty 0, 1, 2.
    pub missed: [u32; 3],
    /// Sum of the heading accuracies of the true positives.
    pub heading_accuracy: f32,
}

impl Counts {
    /// Misses that count at a level.
    pub fn false_negatives(&self, level: Level) -> u32 {
        self.missed[..=level as usize].iter().sum()
    }

    /// Adds what was counted in a later frame. The order of frames matters to the last bit of the f32 sum.
    pub(super) fn add(&mut self, later: &Self) {
        self.true_positives += later.true_positives;
        self.false_positives += later.false_positives;
        for (sum, missed) in self.missed.iter_mut().zip(later.missed) {
            *sum += missed;
        }
        self.heading_accuracy += later.heading_accuracy;
    }
}

/// A shard of a way of sorting that knows ground truth only.
#[derive(Clone, Copy)]
pub(super) struct TruthShard<'a> {
    pub generator: Generator,
    pub shard: usize,
    /// For a prediction the ground truth it overlaps most, as [`most_overlapped`] has it.
    pub most_overlapped: &'a dyn Fn(usize) -> Option<usize>,
}

/// Counts one matching. `predictions` and `truths` index into the frame, `matched` gives for each prediction a place in `truths`.
pub(super) fn count(
    frame: &EvalFrame,
    predictions: &[usize],
    truths: &[usize],
    matched: &[Option<usize>],
    truth_shard: Option<TruthShard<'_>>,
    min_heading_accuracy: f32,
) -> Counts {
    let counts_here =
        |truth: usize| truth_shard.is_none_or(|own| own.generator.shard_of_truth(&frame.ground_truths[truth]) == Some(own.shard));
    let mut counts = Counts::default();
    let mut is_found = vec![false; truths.len()];
    for (&index, &place) in predictions.iter().zip(matched) {
        let prediction = &frame.predictions[index];
        match place {
            Some(place) => {
                is_found[place] = true;
                let truth = truths[place];
                let accuracy = heading_accuracy(prediction.box3d.yaw, frame.ground_truths[truth].box3d.yaw);
                if counts_here(truth) && accuracy > min_heading_accuracy {
                    counts.true_positives += 1;
                    counts.heading_accuracy += accuracy;
                }
            }
            None => {
                let means_another =
                    truth_shard.and_then(|own| (own.most_overlapped)(index)).is_some_and(|truth| !counts_here(truth));
                if !prediction.overlaps_no_label_zone && !means_another {
                    counts.false_positives += 1;
                }
            }
        }
    }
    for (&truth, is_found) in truths.iter().zip(is_found) {
        if !is_found && counts_here(truth) {
            counts.missed[usize::from(frame.ground_truths[truth].difficulty)] += 1;
        }
    }
    counts
}

/// The ground truth among `truths` that overlaps most, the last of equals, if any overlaps enough to be meant.
pub(super) fn most_overlapped(truths: &[usize], iou_with: impl Fn(usize) -> f32) -> Option<usize> {
    let mut best = (None, MEANS_ANOTHER_IOU);
    for &truth in truths {
        let iou = f64::from(iou_with(truth));
        if iou >= best.1 {
            best = (Some(truth), iou);
        }
    }
    best.0
}

/// 1 for equal headings, 0 for opposite ones.
pub fn heading_accuracy(a_rad: f64, b_rad: f64) -> f32 {
    let mut apart = (wrapped(a_rad) - wrapped(b_rad)).abs();
    if f64::from(apart) > PI {
        apart = (TAU - f64::from(apart)) as f32;
    }
    (1.0 - f64::from(apart) / PI).clamp(0.0, 1.0) as f32
}

/// The angle in [-pi, pi), rounded to f32. Written with the official tool's operations: another way of wrapping may round
/// otherwise.
fn wrapped(angle_rad: f64) -> f32 {
    let turned = angle_rad + PI;
    let rest = turned - (turned * (1.0 / TAU)).trunc() * TAU;
    let within = match rest {
        rest if rest >= 0.0 => rest,
        rest if TAU + rest >= TAU => 0.0,
        rest => TAU + rest,
    };
    (within - PI) as f32
}
