//! Measured times and their summary. Nothing here reaches an output that must be the same on every run.

use serde::{Deserialize, Serialize};

use crate::pipeline::StageTimes;

/// Milliseconds spent on one frame.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct FrameTimes {
    /// Which cloud of the topic.
    pub index: u64,
    /// Bag to message bytes, decompression included.
    pub read_ms: f64,
    /// Message bytes to points.
    pub decode_ms: f64,
    /// Points to boxes.
    pub stages: StageTimes,
    /// From the message bytes to the boxes; what a node adds to the cloud's age.
    pub total_ms: f64,
    /// Detections, markers and reports into the output files.
    pub write_ms: f64,
    /// Drawing and writing the picture; 0 for frames without one.
    pub picture_ms: f64,
}

/// Summary of one kind of times; all but `n` in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LatencyStats {
    /// Number of frames.
    pub n: usize,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// Picks one time of a frame, in milliseconds.
pub type TimeOf = fn(&FrameTimes) -> f64;

/// The lines of the latency table; the eight before `total` make it up, the ones after it lie outside of it.
pub const STAGES: [(&str, TimeOf); 12] = [
    ("decode", |times| times.decode_ms),
    ("voxelize", |times| times.stages.voxelize_ms),
    ("vfe", |times| times.stages.vfe_ms),
    ("backbone_3d", |times| times.stages.backbone_3d_ms),
    ("scatter", |times| times.stages.scatter_ms),
    ("backbone", |times| times.stages.backbone_ms),
    ("head", |times| times.stages.head_ms),
    ("postprocess", |times| times.stages.postprocess_ms),
    ("total", |times| times.total_ms),
    ("read", |times| times.read_ms),
    ("write", |times| times.write_ms),
    ("picture", |times| times.picture_ms),
];

impl LatencyStats {
    /// `None` without values.
    pub fn of(values_ms: &[f64]) -> Option<Self> {
        let mut sorted = values_ms.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let max_ms = *sorted.last()?;
        Some(Self {
            n: sorted.len(),
            mean_ms: sorted.iter().sum::<f64>() / sorted.len() as f64,
            p50_ms: nearest_rank(&sorted, 50),
            p95_ms: nearest_rank(&sorted, 95),
            p99_ms: nearest_rank(&sorted, 99),
            max_ms,
        })
    }
}

/// Statistics of every stage; frames without a picture do not count in its line.
pub fn table(frames: &[FrameTimes]) -> Vec<(&'static str, LatencyStats)> {
    let stats_of = |(name, time_ms): (&'static str, TimeOf)| {
        let values: Vec<f64> = frames.iter().map(time_ms).filter(|ms| name != "picture" || *ms > 0.0).collect();
        Some((name, LatencyStats::of(&values)?))
    };
    STAGES.into_iter().filter_map(stats_of).collect()
}

/// The smallest value that at least `percent` of the values do not exceed.
fn nearest_rank(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_by_hand() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let cases: [(&[f64], [f64; 5]); 5] = [
            (&hundred, [50.5, 50.0, 95.0, 99.0, 100.0]),
            (&[7.0], [7.0, 7.0, 7.0, 7.0, 7.0]),
            (&[4.0, 1.0], [2.5, 1.0, 4.0, 4.0, 4.0]),
            (&[3.0, 1.0, 2.0], [2.0, 2.0, 3.0, 3.0, 3.0]),
            (&[15.0, 20.0, 35.0, 40.0, 50.0], [32.0, 35.0, 50.0, 50.0, 50.0]),
        ];
        for (values, [mean_ms, p50_ms, p95_ms, p99_ms, max_ms]) in cases {
            let expected = LatencyStats { n: values.len(), mean_ms, p50_ms, p95_ms, p99_ms, max_ms };
            assert_eq!(LatencyStats::of(values), Some(expected));
        }
        assert_eq!(LatencyStats::of(&[]), None);
    }

    #[test]
    fn table_leaves_frames_without_picture_out_of_its_line_only() {
        let frames = [0.0, 30.0, 50.0].map(|picture_ms| FrameTimes { total_ms: 10.0, picture_ms, ..FrameTimes::default() });
        let lines = table(&frames);
        assert_eq!(lines.iter().map(|line| line.0).collect::<Vec<_>>(), STAGES.map(|stage| stage.0));
        assert_eq!((lines[11].1.n, lines[11].1.mean_ms), (2, 40.0));
        assert_eq!((lines[8].1.n, lines[8].1.mean_ms), (3, 10.0));
        assert!(table(&[]).is_empty());
    }
}
