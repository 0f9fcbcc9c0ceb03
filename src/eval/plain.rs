//! The metric rule by rule, on one thread: what [`super::fast`] is held to.

use super::config::MetricsConfig;
use super::counting::{TruthShard, count, most_overlapped};
use super::matching::Pairs;
use super::objects::EvalFrame;
use super::overlap::{Extent, iou};
use super::{EvalError, Metrics, Tally, empty_tally, measure_with};

/// Measures as [`super::measure`] does, slowly.
///
/// # Errors
/// As there.
pub fn measure(frames: &[EvalFrame], config: &MetricsConfig) -> Result<Metrics, EvalError> {
    measure_with(frames, config, tally)
}

/// For every frame, shard and cutoff a matching of its own.
fn tally(frames: &[EvalFrame], config: &MetricsConfig, cutoffs: &[f32]) -> Tally {
    let mut tally = empty_tally(config, cutoffs.len());
    for frame in frames {
        let overlaps = overlaps(frame, config);
        let iou_of = |prediction: usize, truth: usize| overlaps[prediction][truth];
        let pairs = Pairs { frame, config, iou: iou_of };
        for (index, &generator) in config.breakdown_generator_ids.iter().enumerate() {
            for group in generator.groups(frame) {
                let truths = &group.ground_truths;
                let most_overlapped = |prediction: usize| most_overlapped(truths, |truth| iou_of(prediction, truth));
                for &shard in &group.shards {
                    let truth_shard = generator.sorts_truth_only().then_some(TruthShard {
                        generator,
                        shard,
                        most_overlapped: &most_overlapped,
                    });
                    for (sum, &cutoff) in tally[index][shard].iter_mut().zip(cutoffs) {
                        let is_above = |&&prediction: &&usize| frame.predictions[prediction].score >= cutoff;
                        let above: Vec<usize> = group.predictions.iter().filter(is_above).copied().collect();
                        let matched = pairs.matched(&above, truths);
                        sum.add(&count(frame, &above, truths, &matched, truth_shard, config.min_heading_accuracy));
                    }
                }
            }
        }
    }
    tally
}

/// Overlap of every prediction (rows) with every ground truth (columns).
fn overlaps(frame: &EvalFrame, config: &MetricsConfig) -> Vec<Vec<f32>> {
    let row = |prediction: &super::Prediction| {
        let found = Extent::new(&prediction.box3d, config.box_type);
        let overlap = |truth: &super::GroundTruth| {
            if truth.object_type == prediction.object_type {
                iou(&found, &Extent::new(&truth.box3d, config.box_type), config.box_type) as f32
            } else {
                0.0
            }
        };
        frame.ground_truths.iter().map(overlap).collect()
    };
    frame.predictions.iter().map(row).collect()
}
