//! The release binary on a whole bag: `cargo bench --bench program`. Ratios are to the plain path on the same clouds.
//!
//! The detections are compared with those of the plain path first: a wrong answer has no speed.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use pivotal::model::directory::provenance::Provenance;
use pivotal::model::directory::{self, SaveOptions, WeightsDtype};
use pivotal::model::expected_params;
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::layers::Mode;
use pivotal::model::params::{Params, Weights};
use pivotal::model::pillar_net::PillarNet;
use pivotal::model::pillar_vfe::PaddedPillars;
use pivotal::model::spec::ModelSpec;
use pivotal::pipeline::{Boxes, boxes_from_maps};
use pivotal::synth::record::write_bag;
use pivotal::synth::sensor::SensorKind;
use pivotal::synth::{Drive, DriveConfig};
use pivotal::time::millis;
use pivotal::voxel::{Pillarizer, pillarize_on_device};
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
        println!("program/{model}/plain            {plain_ms:9.1} ms a frame");
        for precision in ["f32", "bf16"] {
            let (ms, boxes) = replay(&bag, &model_dir, precision, dir.path());
            if precision == "f32" {
                assert_eq!(boxes, plain_boxes, "{model}: the fused path finds another number of boxes");
            }
            println!("program/{model}/replay-{precision:4}      {ms:9.1} ms a frame ({:.2}x)", plain_ms / ms);
        }
    }
}

/// Mean milliseconds from points to boxes on the plain path, first frame left out, and the number of boxes of all frames.
fn plain(config: &DriveConfig, spec: &ModelSpec, weights: &Weights) -> (f64, usize) {
    let _no_grad = tch::no_grad_guard();
    let net = PillarNet::new(&Params::load(weights, Device::Cpu), spec);
    let mut pillarizer = Pillarizer::new(spec.grid(), spec.caps());
    let drive = Drive::new(config).expect("a valid drive");
    let (mut total_ms, mut n_boxes) = (0.0, 0);
    for index in 0..FRAMES {
        let mut cloud = drive.frame(index).expect("a frame").cloud;
        for row in cloud.points.chunks_exact_mut(cloud.features.len()) {
            row[3] = spec.input.intensity.apply(row[3]);
        }
        let start = Instant::now();
        let pillars = pillarize_on_device(&mut pillarizer, &cloud.points, cloud.features.len(), Device::Cpu).expect("cpu");
        let trace = net.forward(&PaddedPillars::from_clouds(&[pillars], spec.grid.max_points_per_voxel), Mode::Eval);
        let Boxes { kept, .. } = boxes_from_maps(&trace.head, spec).expect("boxes");
        if index > 0 {
            total_ms += millis(start.elapsed());
        }
        n_boxes += kept.len();
    }
    (total_ms / (FRAMES - 1) as f64, n_boxes)
}

/// Mean milliseconds from points to boxes of the release binary, first frame left out, and the number of boxes of all frames.
fn replay(bag: &Path, model: &Path, precision: &str, dir: &Path) -> (f64, usize) {
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
    let boxes = lines.lines().map(|line| {
        let frame: serde_json::Value = serde_json::from_str(line).expect("json");
        frame["detections"].as_array().map_or(0, Vec::len)
    });
    (mean, boxes.sum())
}
