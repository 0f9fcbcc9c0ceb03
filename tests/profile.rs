//! Efficiency figures: against the paper's, and against a count that knows tensors only.

use std::collections::BTreeMap;

use pivotal::model::backbone_3d::SparseStage;
use pivotal::model::expected_params;
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::layers::Mode;
use pivotal::model::net::{FrontTrace, Net, NetTrace};
use pivotal::model::params::Params;
use pivotal::model::pillar_vfe::PaddedVoxels;
use pivotal::model::spec::ModelSpec;
use pivotal::profile::{
    Accuracy, Cost, Group, Report, Workload, cost_performance, count, profile, read_report, synthetic_frames,
};
use pivotal::sparse::to_dense;
use pivotal::voxel::{Voxelizer, voxelize_on_device};
use tch::{Device, Kind, Tensor};

use crate::pipeline::{rings, small_spec};

/// A square grid of `n` cells of the model's own size.
fn with_cells(name: &str, n: usize) -> ModelSpec {
    let mut spec = ModelSpec::builtin(name).unwrap();
    let half = spec.grid.voxel_size[0] * n as f32 / 2.0;
    spec.grid.range = [-half, -half, -2.0, half, half, 4.0];
    spec.check(name).unwrap();
    spec
}

fn near(got: f64, expected: f64, relative: f64) -> bool {
    (got - expected).abs() <= relative * expected.abs()
}

/// sparsekd-spec section 2.11.
#[test]
fn parameters_of_every_paper_model_are_the_specs_by_part() {
    let pillars = ["cp-pillar", "cp-pillar-v0.4", "cp-pillar-v0.48", "cp-pillar-v0.64"];
    let voxels = [
        ("cp-voxel", [2_695_312, 4_576_768, 486_731]),
        ("cp-voxel-s", [2_695_312, 1_219_328, 123_563]),
        ("cp-voxel-xs", [1_517_196, 1_182_464, 123_563]),
        ("cp-voxel-xxs", [675_272, 305_536, 31_835]),
    ];
    for (name, parts) in pillars.map(|name| (name, [4640, 4_806_400, 413_003])).into_iter().chain(voxels) {
        let spec = ModelSpec::builtin(name).unwrap();
        let cost = count(&spec, &Workload::given(&spec, 0.0));
        let of = |wanted: fn(Group) -> bool| cost.groups.iter().filter(|g| wanted(g.group)).map(|g| g.params).sum::<u64>();
        let ours = [
            of(|group| matches!(group, Group::Vfe | Group::Backbone3d)),
            of(|group| matches!(group, Group::Block(_) | Group::Deblocks)),
            of(|group| group == Group::Head),
        ];
        assert_eq!(ours, parts, "{name}");
        assert_eq!(cost.params, parts.iter().sum::<u64>(), "{name}");
    }
}

/// Every built-in spec: what is counted by layers is what the network declares, less running statistics.
#[test]
fn parameters_of_every_spec_are_those_of_its_tensors() {
    for name in ModelSpec::builtin_names() {
        let spec = ModelSpec::builtin(name).unwrap();
        let trained = expected_params(&spec).into_iter().filter(|decl| !decl.name.contains("running_"));
        let expected: i64 = trained.map(|decl| decl.shape.iter().product::<i64>()).sum();
        assert_eq!(count(&spec, &Workload::given(&spec, 10.0)).params as i64, expected, "{name}");
    }
}

/// sparsekd-spec section 6.2: G multiply-accumulates of convolutions, G operations of norms, M activations, and G true
/// multiply-accumulates where they are given.
#[test]
fn dense_part_has_the_figures_of_the_paper() {
    let table = [
        ("cp-pillar-v0.4", 368, 211.70, 0.36, 179.17, Some(138.5)),
        ("cp-pillar-v0.64", 232, 84.14, 0.14, 71.21, Some(55.0)),
        ("cp-pillar-v0.48", 312, 152.17, 0.26, 128.79, Some(99.5)),
        ("cp-pillar-v0.48", 308, 148.29, 0.25, 125.5, None),
        ("cp-pillar", 464, 336.55, 0.56, 284.84, Some(220.2)),
        ("cp-voxel", 1504, 92.75, 0.14, 72.77, Some(85.8)),
        ("cp-voxel-s", 1504, 25.85, 0.07, 36.58, None),
        ("cp-voxel-xs", 1504, 24.55, 0.07, 36.58, None),
        ("cp-voxel-xxs", 1504, 6.49, 0.04, 18.48, None),
    ];
    for (name, n_cells, macs, norm, acts, actual) in table {
        let spec = with_cells(name, n_cells);
        let [paper, ours] = count(&spec, &Workload::given(&spec, 0.0)).dense();
        assert!((paper.layer_macs - macs * 1e9).abs() < 0.0051e9, "{name} {n_cells}: {} MACs", paper.layer_macs);
        assert!((paper.norm_macs - norm * 1e9).abs() < 0.0051e9, "{name} {n_cells}: {} in norms", paper.norm_macs);
        assert!(near(paper.activations, acts * 1e6, 1e-3), "{name} {n_cells}: {} activations", paper.activations);
        assert!((ours.norm_macs, ours.activations) == (0.0, paper.activations));
        if let Some(actual) = actual {
            assert!(near(ours.layer_macs, actual * 1e9, 1e-3), "{name} {n_cells}: {} MACs", ours.layer_macs);
        }
    }
}

/// README of the reference, with the number of pillars that its activations imply (sparsekd-spec section 6.2).
#[test]
fn totals_with_the_implied_pillars_are_those_of_the_reference_readme() {
    let table = [
        ("cp-pillar-v0.4", 368, 6895.0, 0.86, 212.95, 212.9, 197.7, 1e-3),
        ("cp-pillar-v0.64", 232, 3498.0, 0.78, 85.09, 85.1, 88.0, 1e-3),
        ("cp-pillar-v0.48", 308, 4860.0, 0.78, 149.35, 149.4, 142.3, 1e-3),
        ("cp-pillar", 464, 9460.0, 0.84, 338.00, 333.9, 303.0, 1.3e-2),
    ];
    for (name, n_cells, pillars, pfn, predicted, macs, acts, tolerance) in table {
        let spec = with_cells(name, n_cells);
        let cost = count(&spec, &Workload::given(&spec, pillars));
        assert!((cost.groups[0].paper.layer_macs - pfn * 1e9).abs() < 0.006e9, "{name}: {:?}", cost.groups[0].paper);
        assert!(near(cost.paper.macs(), predicted * 1e9, 1e-4), "{name}: {}", cost.paper.macs());
        assert!(near(cost.paper.macs(), macs * 1e9, tolerance), "{name}: {}", cost.paper.macs());
        assert!(near(cost.paper.activations, acts * 1e6, tolerance), "{name}: {}", cost.paper.activations);
    }
}

/// Counts from the shapes of parameters and of the maps that a real forward pass gave: each weight is used once at each place
/// of its layer's output, or of its input for transposed convolutions that are charged once.
#[test]
fn work_of_every_spec_is_that_of_a_real_forward_pass() {
    let cloud = rings(6000);
    for name in ModelSpec::builtin_names() {
        let mut spec = small_spec(name);
        spec.grid.max_points_per_voxel = Some(7);
        let weights = hash_weights(&expected_params(&spec), 7, &HeadMultipliers { hm_weight: 0.3 });
        let pillars = voxelize_on_device(&mut Voxelizer::new(spec.grid(), spec.caps()), &cloud.points, 5, Device::Cpu).unwrap();
        let net = Net::new(&Params::load(&weights, Device::Cpu), &spec);
        let n_stored = pillars.counts.in_voxels as i64;
        let trace = net.forward(&PaddedVoxels::from_clouds(&[pillars], Some(7)), Mode::Eval);

        let workload = Workload::measure(&spec, std::slice::from_ref(&cloud)).unwrap().unwrap();
        let ours = count(&spec, &workload);
        let (mut paper, mut actual) = (Cost::default(), Cost::default());
        for (layer, weight) in weights.iter().filter(|(_, tensor)| tensor.dim() >= 2) {
            let bias = weights.get(&layer.replace(".weight", ".bias"));
            if layer.starts_with("backbone_3d.") {
                let (n_pairs, n_sites) = pairs_and_sites(layer, weight, &trace);
                let outputs = n_sites * weight.size()[0];
                for (cost, biases) in [(&mut paper, n_sites), (&mut actual, outputs)] {
                    cost.layer_macs += (n_pairs * weight.size()[0] * weight.size()[4]) as f64;
                    cost.layer_macs += bias.map_or(0.0, |_| biases as f64);
                    cost.activations += outputs as f64;
                }
                continue;
            }
            for (cost, charged_once) in [(&mut paper, false), (&mut actual, true)] {
                let (places, outputs) = places(layer, weight, &trace, n_stored, charged_once);
                cost.layer_macs += (weight.numel() as i64 * places) as f64;
                cost.layer_macs += bias.map_or(0.0, |_| outputs as f64);
                cost.activations += outputs as f64;
            }
        }
        let norms = weights.keys().filter(|layer| layer.ends_with("running_var"));
        paper.norm_macs = norms.map(|norm| 2.0 * normed_elements(norm, &weights[norm], &trace) as f64).sum();
        assert_eq!(ours.paper, paper, "{name}");
        assert_eq!(ours.actual, actual, "{name}");
    }
}

fn cells(map: &Tensor) -> i64 {
    let (_, _, h, w) = map.size4().unwrap();
    h * w
}

/// Index of the block in `backbone_2d.blocks.1.4.weight`.
fn block_idx(name: &str) -> usize {
    name.split('.').nth(2).unwrap().parse().unwrap()
}

/// Places at which each weight of a layer is multiplied, and the elements of the layer's output.
fn places(layer: &str, weight: &Tensor, trace: &NetTrace, n_stored: i64, charged_once: bool) -> (i64, i64) {
    let size = weight.size();
    if layer.starts_with("vfe.") {
        let (p, t, _) = decorated(trace).size3().unwrap();
        let rows = if charged_once { n_stored } else { p * t };
        (rows, rows * size[0])
    } else if layer.contains(".deblocks.") {
        let outputs = cells(&trace.backbone.spatial_features_2d);
        let inputs = cells(&trace.backbone.blocks[block_idx(layer)]);
        (if charged_once { inputs } else { outputs }, outputs * size[1])
    } else if layer.contains(".blocks.") {
        let n = cells(&trace.backbone.blocks[block_idx(layer)]);
        (n, n * size[0])
    } else {
        let n = cells(&trace.head.heat_map);
        (n, n * size[0])
    }
}

/// What a stage's sites are of the 3-D backbone, and those that its first convolution comes from.
fn stages_of<'a>(name: &str, trace: &'a NetTrace) -> (&'a SparseStage, &'a SparseStage) {
    let FrontTrace::Voxel { stages, .. } = &trace.front else { panic!("a voxel network") };
    let stage = match name.split('.').nth(1).unwrap() {
        "conv_out" => "encoded",
        stage => stage,
    };
    let position = stages.iter().position(|known| known.name == stage).unwrap();
    (&stages[position.saturating_sub(1)], &stages[position])
}

/// Pairs of a sparse layer and its output sites, by a dense convolution of ones over the occupied cells.
fn pairs_and_sites(layer: &str, weight: &Tensor, trace: &NetTrace) -> (i64, i64) {
    let (before, stage) = stages_of(layer, trace);
    let occupied = |stage: &SparseStage| {
        to_dense(&Tensor::ones([stage.sites.len() as i64, 1], (Kind::Float, Device::Cpu)), &stage.sites).unwrap()
    };
    let kernel: Vec<i64> = weight.size()[1..4].to_vec();
    let ones = Tensor::ones([1, 1, kernel[0], kernel[1], kernel[2]], (Kind::Float, Device::Cpu));
    let n_sites = stage.sites.len() as i64;
    let is_strided = layer.contains("conv_out") || (!layer.contains("conv1.") && layer.contains(".0.0."));
    let sums = match (is_strided, stage.name) {
        (false, _) => occupied(stage).conv3d(&ones, None::<&Tensor>, [1; 3], [1; 3], [1; 3], 1) * occupied(stage),
        (true, "encoded") => occupied(before).conv3d(&ones, None::<&Tensor>, [2, 1, 1], [0; 3], [1; 3], 1),
        (true, "conv4") => occupied(before).conv3d(&ones, None::<&Tensor>, [2; 3], [0, 1, 1], [1; 3], 1),
        (true, _) => occupied(before).conv3d(&ones, None::<&Tensor>, [2; 3], [1; 3], [1; 3], 1),
    };
    (sums.sum(Kind::Double).round().double_value(&[]) as i64, n_sites)
}

fn decorated(trace: &NetTrace) -> &Tensor {
    match &trace.front {
        FrontTrace::Pillar(vfe) => &vfe.decorated,
        FrontTrace::Voxel { .. } => panic!("voxels have no VFE layers"),
    }
}

fn normed_elements(norm: &str, channels: &Tensor, trace: &NetTrace) -> i64 {
    let places = if norm.starts_with("backbone_3d.") {
        stages_of(norm, trace).1.sites.len() as i64
    } else if norm.starts_with("vfe.") {
        let (p, t, _) = decorated(trace).size3().unwrap();
        p * t
    } else if norm.contains(".blocks.") {
        cells(&trace.backbone.blocks[block_idx(norm)])
    } else {
        cells(&trace.backbone.spatial_features_2d)
    };
    places * channels.numel() as i64
}

#[test]
fn dynamic_voxelisation_has_no_slots_to_pad() {
    let mut spec = small_spec("cp-pillar-v0.64-xxs");
    spec.grid.max_points_per_voxel = None;
    let workload = Workload::measure(&spec, &[rings(3000)]).unwrap().unwrap();
    assert!(workload.points_in_voxels > 100.0 && workload.slots == workload.points_in_voxels);
    assert_eq!(Workload::measure(&spec, &[]).unwrap(), None);
}

#[test]
fn synthetic_frames_are_the_same_every_time_and_fill_plausible_pillars() {
    let (clouds, words) = synthetic_frames(1).unwrap();
    assert_eq!(clouds, synthetic_frames(1).unwrap().0);
    assert!(words.contains("1 frame") && words.contains("waymo5"), "{words}");
    // The paper's frames have 3498 and 9460 pillars at 0.64 m and 0.32 m.
    for (name, low, high) in [("cp-pillar-v0.64", 2000.0, 9000.0), ("cp-pillar", 5000.0, 25_000.0)] {
        let workload = Workload::measure(&ModelSpec::builtin(name).unwrap(), &clouds).unwrap().unwrap();
        assert!((low..high).contains(&workload.voxels), "{name}: {workload:?}");
        assert!(workload.points_in_voxels < workload.points && workload.slots > workload.points_in_voxels);
    }
}

fn accuracy(model: &str, report: &str, maph_l2: f64) -> Accuracy {
    Accuracy { report: report.to_owned(), model: model.to_owned(), maph_l2 }
}

#[test]
fn cost_performance_names_the_report_that_is_better_for_less() {
    let macs = BTreeMap::from([("big", 100.0), ("mid", 50.0), ("odd", 60.0), ("tiny", 5.0)]);
    let reports = [("big", 0.60), ("mid", 0.55), ("mid", 0.57), ("odd", 0.56), ("tiny", 0.30), ("unknown", 0.9)];
    let reports = reports.map(|(model, maph)| accuracy(model, &format!("{model} {maph}"), maph));
    let rows = cost_performance(&macs, &reports);
    let beaten: Vec<_> = rows.iter().map(|row| (row.report.as_str(), row.beaten_by.as_deref())).collect();
    assert_eq!(
        beaten,
        [
            ("big 0.6", None),
            ("mid 0.55", Some("mid 0.57")),
            ("mid 0.57", None),
            ("odd 0.56", Some("mid 0.57")),
            ("tiny 0.3", None)
        ]
    );
    assert!(near(rows[2].macs_share, 0.5, 1e-12) && near(rows[2].maph_share.unwrap(), 0.95, 1e-12));
    assert!(cost_performance(&macs, &[]).is_empty());
    assert_eq!(cost_performance(&macs, &[accuracy("big", "blind", 0.0)])[0].maph_share, None);
}

#[test]
fn accuracy_is_read_from_reports_of_eval() {
    let dir = tempfile::tempdir().unwrap();
    let read = |text: &str| {
        let path = dir.path().join("report.json");
        std::fs::write(&path, text).unwrap();
        read_report(&path).map_err(|error| error.to_string())
    };
    let report = r#"{"model": {"name": "cp-pillar", "classes": []}, "mean_aph_level_2": 0.625, "breakdowns": []}"#;
    let accuracy = read(report).unwrap();
    assert!(accuracy.report.ends_with("report.json"));
    assert_eq!((accuracy.model.as_str(), accuracy.maph_l2), ("cp-pillar", 0.625));
    for (text, reason) in [
        (r#"{"model": {"name": "cp-pillar"}, "mean_aph_level_2": null}"#, "mean_aph_level_2 of `cp-pillar` is absent"),
        (r#"{"mean_aph_level_2": 0.5}"#, "missing field `model`"),
        ("[", "EOF"),
    ] {
        let message = read(text).unwrap_err();
        assert!(message.contains("report.json: ") && message.contains(reason), "{message}");
    }
}

#[test]
fn tables_and_json_hold_every_model_and_part() {
    let specs = ["cp-pillar-v0.64", "cp-pillar-v0.64-xxs"].map(|name| ModelSpec::builtin(name).unwrap());
    let models = specs.each_ref().map(|spec| profile(spec, Workload::given(spec, 3498.0)));
    let accuracies = [accuracy("cp-pillar-v0.64", "a/report.json", 0.5281)];
    let report = Report::new("given".to_owned(), models.to_vec(), &accuracies);
    let text = report.to_markdown();
    for line in [
        "| cp-pillar-v0.64 | 232 x 232 | 5.224 | 3498 | 85.09 | 88.0 | 55.82 | 88.0 |",
        "| cp-pillar-v0.64 | vfe | 4640 |",
        "| cp-pillar-v0.64-xxs | head |",
        "| cp-pillar-v0.64 | a/report.json | 0.5281 | 100.0 % | 55.82 | 100.0 % | - | - |",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let widths = text.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count());
    assert!(widths.clone().all(|n| n == 9), "ragged table:\n{text}");
    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    assert_eq!(json["models"][0]["cost"]["params"], 5_224_043);
    assert_eq!(json["models"][0]["cost"]["groups"][1]["group"], "block 0");
    assert_eq!(json["cost_performance"][0]["maph_l2"], 0.5281);
}

#[test]
fn latency_has_every_stage_and_its_circumstances() {
    use pivotal::pipeline::{PipelineOptions, Precision};
    use pivotal::profile::{LatencySettings, time};
    let spec = small_spec("cp-pillar-v0.64-xxs");
    let weights = hash_weights(&expected_params(&spec), 7, &HeadMultipliers { hm_weight: 0.3 });
    let options = PipelineOptions { device: "cpu".to_owned(), precision: Precision::F32 };
    let settings = LatencySettings { warm_up: 1, n_frames: 3 };
    let latency = time(&spec, &weights, &[rings(500), rings(900)], &options, settings).unwrap();
    let stages: Vec<_> = latency.stages.iter().map(|line| line.stage).collect();
    assert_eq!(stages, ["voxelize", "vfe", "backbone_3d", "scatter", "backbone", "head", "postprocess", "total"]);
    assert!(
        latency.stages.iter().all(|line| line.stats.n == 3 && line.stats.p50_ms > 0.0 && line.stats.p95_ms >= line.stats.p50_ms)
    );
    assert_eq!((latency.device.as_str(), latency.cpu_threads, latency.warm_up), ("cpu", tch::get_num_threads(), 1));
    let mut model = profile(&spec, Workload::given(&spec, 1.0));
    model.latency = Some(latency);
    let text = Report::new("two".to_owned(), vec![model], &[]).to_markdown();
    assert!(text.contains("median / 95th percentile of 3 frames after 1 for warming up; device cpu"), "{text}");
    assert!(time(&spec, &weights, &[], &options, settings).unwrap_err().to_string().contains("no frames"));
}
