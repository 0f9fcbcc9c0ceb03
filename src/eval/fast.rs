//! The metric with less work: the same counts as [`super::plain`], bit for bit.
//!
//! * Overlaps are computed once per frame, of boxes of one type, and only kept where there is any.
//! * Cutoffs are walked from high to low, and only where a prediction joins is anything matched and counted.
//! * Matching works with the pairs that overlap enough, not with the square of all objects.
//! * Speed breakdowns match once for the five shards of a type.
//! * Frames are spread over all cores and added up in their order.

use rayon::prelude::*;

use super::config::{Level, MatcherType, MetricsConfig};
use super::counting::{Counts, TruthShard, count, most_overlapped};
use super::matching::{Pairs, quantized};
use super::objects::{EvalFrame, ObjectType};
use super::overlap::{Extent, iou};
use super::shards::{Generator, Group};
use super::sparse_assignment::SparseAssignment;
use super::{Tally, empty_tally};

/// Bounds what is held before it is added up.
const FRAMES_AT_ONCE: usize = 64;

pub(super) fn tally(frames: &[EvalFrame], config: &MetricsConfig, cutoffs: &[f32]) -> Tally {
    let mut falling: Vec<(usize, f32)> = cutoffs.iter().copied().enumerate().collect();
    falling.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut tally = empty_tally(config, cutoffs.len());
    for frames in frames.chunks(FRAMES_AT_ONCE) {
        let counted: Vec<_> = frames.par_iter().map(|frame| FrameCount::new(frame, config, &falling).shards()).collect();
        for counted in counted.into_iter().flatten() {
            let sums = &mut tally[counted.generator_index][counted.shard];
            sums.iter_mut().zip(&counted.by_cutoff).for_each(|(sum, counts)| sum.add(counts));
        }
    }
    tally
}

/// Boxes with a partner, boxes without one and ground truth without one, of one frame by type at one score and LEVEL_2.
pub(super) fn faults(frame: &EvalFrame, config: &MetricsConfig, score: f32) -> [u32; 3] {
    let by_type = MetricsConfig { breakdown_generator_ids: vec![Generator::ObjectType], ..config.clone() };
    let shards = FrameCount::new(frame, &by_type, &[(0, score)]).shards();
    let counts = shards.iter().flat_map(|shard| &shard.by_cutoff);
    counts.fold([0; 3], |[found, false_alarms, missed], c| {
        let misses = c.false_negatives(Level::Level2);
        [found + c.true_positives, false_alarms + c.false_positives, missed + misses]
    })
}

/// What one frame adds to one shard.
struct ShardCount {
    generator_index: usize,
    shard: usize,
    by_cutoff: Vec<Counts>,
}

struct FrameCount<'a> {
    frame: &'a EvalFrame,
    config: &'a MetricsConfig,
    /// Cutoffs with their places in the configuration, highest first.
    falling: &'a [(usize, f32)],
    /// For each prediction the ground truths it overlaps at all, in ascending order.
    overlaps: Vec<Vec<(usize, f32)>>,
}

impl<'a> FrameCount<'a> {
    fn new(frame: &'a EvalFrame, config: &'a MetricsConfig, falling: &'a [(usize, f32)]) -> Self {
        let box_type = config.box_type;
        let mut truths_by_type: [Vec<(usize, Extent)>; 5] = Default::default();
        for (index, truth) in frame.ground_truths.iter().enumerate() {
            truths_by_type[truth.object_type as usize].push((index, Extent::new(&truth.box3d, box_type)));
        }
        let row = |prediction: &super::Prediction| {
            let found = Extent::new(&prediction.box3d, box_type);
            let overlap = |(index, truth): &(usize, Extent)| (*index, iou(&found, truth, box_type) as f32);
            truths_by_type[prediction.object_type as usize].iter().map(overlap).filter(|(_, iou)| *iou > 0.0).collect()
        };
        Self { frame, config, falling, overlaps: frame.predictions.iter().map(row).collect() }
    }

    fn iou(&self, prediction: usize, truth: usize) -> f32 {
        let row = &self.overlaps[prediction];
        row.binary_search_by_key(&truth, |&(index, _)| index).map_or(0.0, |place| row[place].1)
    }

    fn shards(&self) -> Vec<ShardCount> {
        let mut shards = Vec::new();
        for (generator_index, &generator) in self.config.breakdown_generator_ids.iter().enumerate() {
            for group in generator.groups(self.frame) {
                if !group.predictions.is_empty() || !group.ground_truths.is_empty() {
                    let counts = self.count_group(generator, &group);
                    let with_shard = group.shards.iter().zip(counts);
                    shards.extend(with_shard.map(|(&shard, by_cutoff)| ShardCount { generator_index, shard, by_cutoff }));
                }
            }
        }
        shards
    }

    /// Counts by shard of the group, then by cutoff.
    fn count_group(&self, generator: Generator, group: &Group) -> Vec<Vec<Counts>> {
        let truths = &group.ground_truths;
        let score = |place: usize| self.frame.predictions[group.predictions[place]].score;
        let mut by_score: Vec<usize> = (0..group.predictions.len()).collect();
        by_score.sort_by(|&a, &b| score(b).total_cmp(&score(a)));

        let pairs = Pairs { frame: self.frame, config: self.config, iou: |p, t| self.iou(p, t) };
        let candidates = self.candidates(group);
        let mut meant: Vec<Option<usize>> = vec![None; self.overlaps.len()];
        if generator.sorts_truth_only() {
            for &prediction in &group.predictions {
                let overlapped = self.overlaps[prediction].iter().map(|&(truth, _)| truth);
                let overlapped: Vec<usize> = overlapped.filter(|truth| truths.binary_search(truth).is_ok()).collect();
                meant[prediction] = most_overlapped(&overlapped, |truth| self.iou(prediction, truth));
            }
        }
        let most_overlapped = |prediction: usize| meant[prediction];

        let mut counts = vec![vec![Counts::default(); self.falling.len()]; group.shards.len()];
        // Places in the group, in its order, of the predictions above the cutoff.
        let mut places: Vec<usize> = Vec::with_capacity(by_score.len());
        let mut above: Vec<usize> = Vec::with_capacity(by_score.len());
        let mut rows: Vec<&[(usize, i64)]> = Vec::with_capacity(by_score.len());
        let mut assignment = SparseAssignment::default();
        let mut higher_cutoff: Option<usize> = None;
        for &(cutoff_index, cutoff) in self.falling {
            let newcomers = &by_score[places.len()..];
            let newcomers = &newcomers[..newcomers.partition_point(|&place| score(place) >= cutoff)];
            if newcomers.is_empty()
                && let Some(higher_cutoff) = higher_cutoff
            {
                counts.iter_mut().for_each(|by_cutoff| by_cutoff[cutoff_index] = by_cutoff[higher_cutoff]);
                continue;
            }
            higher_cutoff = Some(cutoff_index);
            places.extend_from_slice(newcomers);
            places.sort_unstable();
            above.clear();
            above.extend(places.iter().map(|&place| group.predictions[place]));
            let matched = match self.config.matcher_type {
                MatcherType::Hungarian => {
                    rows.clear();
                    rows.extend(places.iter().map(|&place| candidates[place].as_slice()));
                    pairs.kept(&above, truths, assignment.solve(&rows, above.len().max(truths.len())))
                }
                MatcherType::ScoreFirst => pairs.matched(&above, truths),
            };
            for (&shard, by_cutoff) in group.shards.iter().zip(&mut counts) {
                let truth_shard =
                    generator.sorts_truth_only().then_some(TruthShard { generator, shard, most_overlapped: &most_overlapped });
                by_cutoff[cutoff_index] =
                    count(self.frame, &above, truths, &matched, truth_shard, self.config.min_heading_accuracy);
            }
        }
        counts
    }

    /// By place of the prediction in the group: the places of those it can match, with their weights where these are positive.
    fn candidates(&self, group: &Group) -> Vec<Vec<(usize, i64)>> {
        let row = |&prediction: &usize| {
            let object_type = self.frame.predictions[prediction].object_type;
            let threshold = self.config.iou_threshold(object_type);
            let enough = self.overlaps[prediction].iter().filter(|(_, iou)| *iou >= threshold && quantized(*iou) > 0);
            let place = |truth: usize| group.ground_truths.binary_search(&truth).ok();
            let pairs = enough.filter_map(|&(truth, iou)| Some((place(truth)?, quantized(iou))));
            if object_type == ObjectType::Unknown { Vec::new() } else { pairs.collect() }
        };
        group.predictions.iter().map(row).collect()
    }
}
