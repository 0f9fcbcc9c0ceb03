//! What a source looks like in numbers: small enough to travel with the weights made from it, so that clouds of another sensor can
//! be held against what the weights saw.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Label, Sample, Source};
use crate::cloud::{Feature, PointCloud};

/// Points of a frame that enter the statistics of columns, evenly spread over the cloud.
const MAX_POINTS_PER_FRAME: usize = 20_000;

/// Ground is looked for this far around the origin, in metres: nearer are returns from the vehicle itself.
const GROUND_FROM_M: f32 = 3.0;
const GROUND_TO_M: f32 = 25.0;
const GROUND_CELL_M: f32 = 1.0;
/// Fewer cells say nothing about the ground.
const MIN_GROUND_CELLS: usize = 20;
/// A cell needs as many points; its lowest but one counts, because single points may lie below ground.
const MIN_POINTS_OF_CELL: usize = 3;

/// Order statistics of a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the names say it
pub struct Percentiles {
    pub min: f64,
    pub p01: f64,
    pub p05: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

/// Labels of one class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassStatistics {
    /// How many.
    pub n: usize,
    /// Metres along the heading.
    pub length_m: Percentiles,
    /// Metres across.
    pub width_m: Percentiles,
    /// Metres up.
    pub height_m: Percentiles,
    /// Height of the centre in the cloud's frame.
    pub z_m: Percentiles,
}

/// A source in numbers. Non-finite values are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataStatistics {
    /// Frames looked at.
    pub n_frames: usize,
    /// Frames that could not be read.
    pub n_unreadable: usize,
    /// Points of a frame.
    pub points_per_frame: Option<Percentiles>,
    /// By column, as the source gives it: intensity before any scaling of the model's.
    pub columns: BTreeMap<Feature, Percentiles>,
    /// Height of the ground around the origin, over frames where it can be told; for a sensor that looks level, its negative is
    /// how high the frame's origin is mounted.
    pub ground_z_m: Option<Percentiles>,
    /// By the class's name in the source.
    pub classes: BTreeMap<String, ClassStatistics>,
}

impl Percentiles {
    /// `None` without finite values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| sorted[(share * last as f64).round() as usize];
        Some(Self { min: at(0.0), p01: at(0.01), p05: at(0.05), p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) })
    }
}

impl DataStatistics {
    /// Of frames in memory.
    pub fn of(samples: &[Sample]) -> Self {
        let mut columns: BTreeMap<Feature, Vec<f64>> = BTreeMap::new();
        let mut labels: BTreeMap<&str, Vec<&Label>> = BTreeMap::new();
        for sample in samples {
            let cloud = &sample.cloud;
            let step = cloud.n_points().div_ceil(MAX_POINTS_PER_FRAME).max(1);
            for row in cloud.rows().step_by(step) {
                for (feature, value) in cloud.features.iter().zip(row) {
                    columns.entry(*feature).or_default().push(f64::from(*value));
                }
            }
            for label in sample.labels.iter().flatten() {
                labels.entry(&label.class).or_default().push(label);
            }
        }
        let classes = labels.into_iter().filter_map(|(class, labels)| Some((class.to_owned(), ClassStatistics::of(&labels)?)));
        Self {
            n_frames: samples.len(),
            n_unreadable: 0,
            points_per_frame: Percentiles::of(samples.iter().map(|sample| sample.cloud.n_points() as f64)),
            columns: columns.into_iter().filter_map(|(feature, values)| Some((feature, Percentiles::of(values)?))).collect(),
            ground_z_m: Percentiles::of(samples.iter().filter_map(|sample| ground_z(&sample.cloud))),
            classes: classes.collect(),
        }
    }

    /// Of `n_frames` frames spread evenly over a source.
    pub fn gather(source: &dyn Source, n_frames: usize) -> Self {
        let wanted = spread(source.len(), n_frames);
        let samples: Vec<Sample> = wanted.iter().filter_map(|&index| source.load(0, index).ok()).collect();
        Self { n_unreadable: wanted.len() - samples.len(), ..Self::of(&samples) }
    }
}

impl ClassStatistics {
    fn of(labels: &[&Label]) -> Option<Self> {
        let over = |value: fn(&Label) -> f64| Percentiles::of(labels.iter().map(|label| value(label)));
        Some(Self {
            n: labels.len(),
            length_m: over(|label| label.box3d.size[0])?,
            width_m: over(|label| label.box3d.size[1])?,
            height_m: over(|label| label.box3d.size[2])?,
            z_m: over(|label| label.box3d.center[2])?,
        })
    }
}

/// At most `n` indices below `len`, evenly spread, the first and the last among them.
pub fn spread(len: usize, n: usize) -> Vec<usize> {
    match n.min(len) {
        0 => Vec::new(),
        1 => vec![0],
        n => (0..n).map(|i| i * (len - 1) / (n - 1)).collect(),
    }
}

/// Height of the ground around the origin: the median over cells of the lowest points but one; `None` where too few cells have
/// points.
pub fn ground_z(cloud: &PointCloud) -> Option<f64> {
    let mut lowest: BTreeMap<(i32, i32), (usize, [f32; 2])> = BTreeMap::new();
    for row in cloud.rows() {
        let distance = row[0].hypot(row[1]);
        if !(GROUND_FROM_M..GROUND_TO_M).contains(&distance) || !row[2].is_finite() {
            continue;
        }
        let cell = [row[0], row[1]].map(|v| (v / GROUND_CELL_M).floor() as i32);
        let (n, [first, second]) = lowest.entry((cell[0], cell[1])).or_insert((0, [f32::INFINITY; 2]));
        *n += 1;
        if row[2] < *first {
            (*second, *first) = (*first, row[2]);
        } else {
            *second = second.min(row[2]);
        }
    }
    let mut heights: Vec<f32> =
        lowest.into_values().filter(|(n, _)| *n >= MIN_POINTS_OF_CELL).map(|(_, [_, second])| second).collect();
    heights.sort_unstable_by(f32::total_cmp);
    (heights.len() >= MIN_GROUND_CELLS).then(|| f64::from(heights[heights.len() / 2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_hand() {
        let hundred = Percentiles::of((0..=100).rev().map(f64::from)).expect("values");
        let expected = Percentiles { min: 0.0, p01: 1.0, p05: 5.0, p50: 50.0, p95: 95.0, p99: 99.0, max: 100.0 };
        assert_eq!(hundred, expected);
        assert_eq!(Percentiles::of([f64::NAN, 3.0, f64::INFINITY]).map(|p| (p.min, p.max)), Some((3.0, 3.0)));
        assert_eq!(Percentiles::of([f64::NAN]), None);
    }

    #[test]
    fn indices_are_spread_from_first_to_last() {
        let cases: [(usize, usize, &[usize]); 5] =
            [(10, 4, &[0, 3, 6, 9]), (3, 10, &[0, 1, 2]), (5, 1, &[0]), (0, 4, &[]), (100, 0, &[])];
        for (len, n, expected) in cases {
            assert_eq!(spread(len, n), expected, "{n} of {len}");
        }
    }
}
