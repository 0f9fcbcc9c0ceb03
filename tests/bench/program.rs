//! The release binary on a whole bag: `cargo bench --bench program`. Ratios are to the plain path on the same clouds.
//!
//! The boxes of the f32 replay are compared with those of the plain path before any time is printed: a wrong answer has no speed.
//! bf16 is an option that changes boxes; how much is printed.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use pivotal::model::directory::provenance::Provenance;
use pivotal::model::directory::{self, SaveOptions, WeightsDtype};
use pivotal::model::expected_params;
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::layers::Mode;
use pivotal::model::net::Net;
use pivotal::model::params::{Params, Weights};
use pivotal::model::pillar_vfe::PaddedVoxels;
use pivotal::model::spec::ModelSpec;
use pivotal::pipeline::boxes_from_maps;
use pivotal::postprocess::Detection;
use pivotal::replay::record::{BoxRecord, FrameOutcome, FrameRecord};
use pivotal::synth::record::write_bag;
use pivotal::synth::sensor::SensorKind;
use pivotal::synth::{Drive, DriveConfig};
use pivotal::time::millis;
use pivotal::voxel::{Voxelizer, voxelize_on_device};
use tch::Device;

const FRAMES: usize = 10;
const SEED: u64 = 1;
/// Scale of the heat map's weights at which untrained networks find hundreds of boxes a frame.
const MANY_BOXES: f64 = 0.3;

fn main() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = DriveConfig::new(1, 0, FRAMES, SensorKind::Waymo5);
    let bag = dir.path().join("bag");
    write_bag(&config, &bag, &mut |_| ()).expect("a bag");
    for model in ["cp-pillar-v0.64", "cp-pillar-v0.64-xxs"] {
        let model_dir = dir.path().join(model);
        let spec = ModelSpec::builtin(model).expect("a built-in spec");
        let weights = hash_weights(&expected_params(&spec), SEED, &HeadMultipliers { hm_weight: MANY_BOXES });
        let options = SaveOptions { dtype: WeightsDtype::F32, overwrite: false };
        directory::save(&model_dir, &spec, &weights, &Provenance::new("cargo bench", "none"), options)
            .expect("a model directory");
        let (plain_ms, plain_boxes) = plain(&config, &spec, &weights);
        let (f32_ms, f32_boxes) = replay(&bag, &model_dir, "f32", dir.path());
        let fused = Difference::between(&plain_boxes, &f32_boxes);
        assert!(fused.is_rounding(), "{model}: replay in f32 and the plain path differ: {fused}");
        println!("program/{model}/plain            {plain_ms:9.1} ms a frame");
        println!("program/{model}/replay-f32       {f32_ms:9.1} ms a frame ({:.2}x)", plain_ms / f32_ms);
        let (bf16_ms, bf16_boxes) = replay(&bag, &model_dir, "bf16", dir.path());
        println!("program/{model}/replay-bf16      {bf16_ms:9.1} ms a frame ({:.2}x)", plain_ms / bf16_ms);
        println!("program/{model}/bf16 against f32 {}", Difference::between(&f32_boxes, &bf16_boxes));
    }
}

/// The boxes of each frame, best first.
type Boxes = Vec<Vec<BoxRecord>>;

/// Boxes of a class are the same box when their centres are no farther apart in the plane, in metres.
const SAME_BOX_M: f64 = 0.5;
/// What another order of the same f32 operations may change: scores, and centres in metres.
const ROUNDING: (f32, f64) = (1e-4, 1e-3);

/// How two lists of boxes differ, over all frames.
#[derive(Default)]
struct Difference {
    n_matched: usize,
    /// Lowest and highest of the matched boxes of the first list: where all are near 1, equal scores say little.
    scores: Option<[f32; 2]>,
    /// Boxes of the first list, and of the second, without a partner.
    n_alone: [usize; 2],
    /// Largest over the matched boxes.
    score: f32,
    /// Largest over the matched boxes, in metres.
    center_m: f64,
}

impl Difference {
    fn between(first: &Boxes, second: &Boxes) -> Self {
        assert_eq!(first.len(), second.len(), "frames");
        let mut difference = Self::default();
        for (first, second) in first.iter().zip(second) {
            difference.add_frame(first, second);
        }
        difference
    }

    /// Each box of `first`, best first, takes the nearest box of its class that is left in `second`.
    fn add_frame(&mut self, first: &[BoxRecord], second: &[BoxRecord]) {
        let mut left: Vec<&BoxRecord> = second.iter().collect();
        for box_ in first {
            let apart = |other: &BoxRecord| (box_.row[0] - other.row[0]).hypot(box_.row[1] - other.row[1]);
            let candidates = left.iter().enumerate().filter(|(_, other)| other.class == box_.class);
            let nearest = candidates.map(|(idx, other)| (idx, apart(other))).min_by(|a, b| a.1.total_cmp(&b.1));
            match nearest {
                Some((idx, center_m)) if center_m <= SAME_BOX_M => {
                    let other = left.swap_remove(idx);
                    self.n_matched += 1;
                    let [low, high] = self.scores.unwrap_or([box_.score; 2]);
                    self.scores = Some([low.min(box_.score), high.max(box_.score)]);
                    self.score = self.score.max((box_.score - other.score).abs());
                    self.center_m = self.center_m.max(center_m);
                }
                _ => self.n_alone[0] += 1,
            }
        }
        self.n_alone[1] += left.len();
    }

    fn is_rounding(&self) -> bool {
        self.n_matched > 0 && self.n_alone == [0, 0] && self.score <= ROUNDING.0 && self.center_m <= ROUNDING.1
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_matched, scores, n_alone: [first, second], score, center_m } = self;
        let [low, high] = scores.unwrap_or_default();
        write!(f, "{n_matched} boxes matched, scores {low:.4} to {high:.4} within {score:.6}, centres within {center_m:.4} m; ")?;
        write!(f, "{first} only in the first, {second} only in the second")
    }
}

/// Mean milliseconds from points to boxes on the plain path, first frame left out, and the boxes of all frames.
fn plain(config: &DriveConfig, spec: &ModelSpec, weights: &Weights) -> (f64, Boxes) {
    let _no_grad = tch::no_grad_guard();
    let net = Net::new(&Params::load(weights, Device::Cpu), spec);
    let mut voxelizer = Voxelizer::new(spec.grid(), spec.caps());
    let drive = Drive::new(config).expect("a valid drive");
    let (mut total_ms, mut boxes) = (0.0, Vec::new());
    for index in 0..FRAMES {
        let mut cloud = drive.frame(index).expect("a frame").cloud;
        for row in cloud.points.chunks_exact_mut(cloud.features.len()) {
            row[3] = spec.input.intensity.apply(row[3]);
        }
        let start = Instant::now();
        let pillars = voxelize_on_device(&mut voxelizer, &cloud.points, cloud.features.len(), Device::Cpu).expect("cpu");
        let trace = net.forward(&PaddedVoxels::from_clouds(&[pillars], spec.grid.max_points_per_voxel), Mode::Eval);
        let kept = boxes_from_maps(&trace.head, spec).expect("boxes").kept;
        if index > 0 {
            total_ms += millis(start.elapsed());
        }
        boxes.push(kept.iter().map(|found| record(found, spec)).collect());
    }
    (total_ms / (FRAMES - 1) as f64, boxes)
}

fn record(found: &Detection, spec: &ModelSpec) -> BoxRecord {
    BoxRecord { class: spec.classes[found.class_idx].clone(), score: found.score, row: found.box3d.to_row() }
}

/// Mean milliseconds from points to boxes of the release binary, first frame left out, and the boxes of all frames.
fn replay(bag: &Path, model: &Path, precision: &str, dir: &Path) -> (f64, Boxes) {
    let out = dir.join("replay");
    let status = Command::new(env!("CARGO_BIN_EXE_detector_node"))
        .args(["replay", "--overwrite", "--picture-every", "0", "--no-foxglove", "--device", "cpu", "--precision", precision])
        .arg(bag)
        .arg("--model")
        .arg(model)
        .arg("--out")
        .arg(&out)
        .status()
        .expect("detector_node runs");
    assert!(status.success());
    let latency: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("latency.json")).expect("latency.json")).expect("json");
    let frames = latency["frames"].as_array().expect("frames");
    let times = frames
        .iter()
        .skip(1)
        .map(|frame| frame["total_ms"].as_f64().expect("total") - frame["decode_ms"].as_f64().expect("decode"));
    let mean = times.sum::<f64>() / (frames.len() - 1) as f64;
    let lines = std::fs::read_to_string(out.join("detections.jsonl")).expect("detections.jsonl");
    let boxes = lines.lines().map(|line| match serde_json::from_str::<FrameRecord>(line).expect("a frame's line").outcome {
        FrameOutcome::Detections(frame) => frame.detections,
        FrameOutcome::Malformed { error } => panic!("a cloud was refused: {error}"),
    });
    (mean, boxes.collect())
}
