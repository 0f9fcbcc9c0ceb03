//! From counts to precision, recall and their average.

use std::collections::BTreeMap;

use super::config::Level;
use super::counting::Counts;

/// What was counted at each cutoff, at one level.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// True positives, the same at every level.
    pub true_positives: Vec<u32>,
    /// False positives, the same at every level.
    pub false_positives: Vec<u32>,
    /// Misses of this level.
    pub false_negatives: Vec<u32>,
    /// 1 where recall is 0.
    pub precisions: Vec<f32>,
    /// Weighted by heading accuracy; 1 where recall is 0.
    pub precisions_ha: Vec<f32>,
    /// Of ground truth that counts at the level.
    pub recalls: Vec<f32>,
}

impl Curve {
    /// Of the counts at each cutoff. All ratios are f32, as the official tool has them.
    pub(super) fn new(counts: &[Counts], level: Level, min_precision: f32) -> Self {
        let ratio = |part: f32, whole: u32| if whole == 0 { 0.0 } else { part / whole as f32 };
        let recall = |c: &Counts| ratio(c.true_positives as f32, c.true_positives + c.false_negatives(level));
        let precision = |c: &Counts, part: f32| match ratio(part, c.true_positives + c.false_positives) {
            _ if recall(c) == 0.0 => 1.0,
            low if low < min_precision => 0.0,
            precision => precision,
        };
        Self {
            true_positives: counts.iter().map(|c| c.true_positives).collect(),
            false_positives: counts.iter().map(|c| c.false_positives).collect(),
            false_negatives: counts.iter().map(|c| c.false_negatives(level)).collect(),
            precisions: counts.iter().map(|c| precision(c, c.true_positives as f32)).collect(),
            precisions_ha: counts.iter().map(|c| precision(c, c.heading_accuracy)).collect(),
            recalls: counts.iter().map(recall).collect(),
        }
    }

    /// Whether there was anything to count.
    pub fn is_empty(&self) -> bool {
        [&self.true_positives, &self.false_positives, &self.false_negatives].iter().all(|c| c.iter().all(|&n| n == 0))
    }
}

/// Area under the falling envelope of the precision-recall points.
///
/// From high recall to low, each point has the best precision seen so far. Where recalls are more than `max_recall_delta` apart,
/// points are put in between at that distance, with the precision so far; so a wide gap is level but for its last part. The point
/// at recall 0 takes the precision of its neighbour. Everything is f32 except the trapezoids.
pub fn average_precision(precisions: &[f32], recalls: &[f32], max_recall_delta: f32) -> f32 {
    const DELTA_SLACK: f32 = 1e-6;
    // Ordered by recall: numbers that are not negative sort as their bits do.
    let mut best: BTreeMap<u32, f32> = BTreeMap::from([(0.0_f32.to_bits(), 1.0)]);
    for (&precision, recall) in precisions.iter().zip(recalls) {
        let at_recall = best.entry(recall.to_bits()).or_insert(0.0);
        *at_recall = at_recall.max(precision);
    }
    let mut points: Vec<(f32, f32)> = Vec::new();
    let mut envelope = 0.0_f32;
    let mut last_recall = 0.0_f32;
    for (&recall, &precision) in best.iter().rev() {
        let recall = f32::from_bits(recall);
        while last_recall - recall > max_recall_delta + DELTA_SLACK {
            last_recall -= max_recall_delta;
            points.push((envelope, last_recall));
        }
        envelope = envelope.max(precision);
        points.push((envelope, recall));
        last_recall = recall;
    }
    if let [.., neighbour, at_zero] = points.as_mut_slice() {
        at_zero.0 = neighbour.0;
    }
    points.windows(2).fold(0.0, |area: f32, pair| {
        let ((high, from), (low, to)) = (pair[0], pair[1]);
        (f64::from(area) + 0.5 * f64::from(from - to) * f64::from(high + low)) as f32
    })
}
