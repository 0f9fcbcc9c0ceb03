//! Who is paired with whom among given predictions and ground truths: the official matchers, written plainly.

use super::assignment::greatest_assignment;
use super::config::{MatcherType, MetricsConfig};
use super::objects::{EvalFrame, ObjectType};

/// Overlaps become whole numbers before they are added up.
const WEIGHT_STEPS: f32 = 1e6;

/// The weight of a pair with that overlap.
pub(super) fn quantized(iou: f32) -> i64 {
    (iou * WEIGHT_STEPS).round() as i64
}

/// What decides about pairs of a frame.
pub(super) struct Pairs<'a, F: Fn(usize, usize) -> f32> {
    pub frame: &'a EvalFrame,
    pub config: &'a MetricsConfig,
    /// Overlap of a prediction and a ground truth by their indices, 0 for different types.
    pub iou: F,
}

impl<F: Fn(usize, usize) -> f32> Pairs<'_, F> {
    /// Whether the overlap suffices. A prediction of unknown type, at which the official tool stops, is never matched.
    pub fn can_match(&self, prediction: usize, truth: usize) -> bool {
        let object_type = self.frame.predictions[prediction].object_type;
        object_type != ObjectType::Unknown && (self.iou)(prediction, truth) >= self.config.iou_threshold(object_type)
    }

    /// For each prediction the place of its partner in `truths`.
    pub fn matched(&self, predictions: &[usize], truths: &[usize]) -> Vec<Option<usize>> {
        match self.config.matcher_type {
            MatcherType::Hungarian => self.hungarian(predictions, truths),
            MatcherType::ScoreFirst => self.score_first(predictions, truths),
        }
    }

    /// Greatest sum of weights. Pairs that cannot match weigh nothing and come apart again.
    fn hungarian(&self, predictions: &[usize], truths: &[usize]) -> Vec<Option<usize>> {
        if predictions.is_empty() || truths.is_empty() {
            return vec![None; predictions.len()];
        }
        let n = predictions.len().max(truths.len());
        let mut weights = vec![0; n * n];
        for (row, &prediction) in predictions.iter().enumerate() {
            for (column, &truth) in truths.iter().enumerate() {
                if self.can_match(prediction, truth) {
                    weights[row * n + column] = quantized((self.iou)(prediction, truth));
                }
            }
        }
        let columns = greatest_assignment(n, &weights);
        self.kept(predictions, truths, columns.into_iter())
    }

    /// The partners among `truths` that an assignment gives, without those that cannot match.
    pub fn kept(&self, predictions: &[usize], truths: &[usize], columns: impl Iterator<Item = usize>) -> Vec<Option<usize>> {
        let partner = |(&prediction, column): (&usize, usize)| {
            truths.get(column).is_some_and(|&truth| self.can_match(prediction, truth)).then_some(column)
        };
        predictions.iter().zip(columns).map(partner).collect()
    }

    /// By falling score, each prediction takes the free ground truth of greatest weight, the first of equals.
    ///
    /// The official tool looks that weight up by the places of the two in their lists, not by the objects at those places.
    /// Wherever the lists are not the whole frame this is a fault, and part of the official numbers.
    fn score_first(&self, predictions: &[usize], truths: &[usize]) -> Vec<Option<usize>> {
        let mut order: Vec<usize> = (0..predictions.len()).collect();
        let score = |place: usize| self.frame.predictions[predictions[place]].score;
        order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
        let mut matched = vec![None; predictions.len()];
        let mut is_taken = vec![false; truths.len()];
        for place in order {
            let mut best: Option<(usize, i64)> = None;
            for (truth_place, &truth) in truths.iter().enumerate() {
                if !is_taken[truth_place] && self.can_match(predictions[place], truth) {
                    let weight = quantized((self.iou)(place, truth_place));
                    if best.is_none_or(|(_, most)| weight > most) {
                        best = Some((truth_place, weight));
                    }
                }
            }
            if let Some((truth_place, _)) = best {
                is_taken[truth_place] = true;
                matched[place] = Some(truth_place);
            }
        }
        matched
    }
}
