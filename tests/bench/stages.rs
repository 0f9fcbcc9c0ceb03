//! Every stage at 20k, 60k and 180k points, each beside its plain version: `cargo bench --bench stages`.

mod ratios;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use pivotal::cloud::PointCloud;
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::layers::Mode;
use pivotal::model::params::Params;
use pivotal::model::pillar_net::PillarNet;
use pivotal::model::pillar_vfe::{PaddedPillars, scatter};
use pivotal::model::spec::ModelSpec;
use pivotal::model::{expected_params, fused::FusedPillarNet};
use pivotal::pipeline::boxes_from_maps;
use pivotal::postprocess;
use pivotal::synth::sensor::SensorKind;
use pivotal::synth::{Drive, DriveConfig};
use pivotal::voxel::{Pillarizer, pillarize_by_sort, pillarize_on_device};
use tch::{Device, Kind, Tensor};

const SIZES: [usize; 3] = [20_000, 60_000, 180_000];

fn main() {
    let _no_grad = tch::no_grad_guard();
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let full = full_range_cloud();
    let mut groups = Vec::new();
    for size in SIZES {
        let cloud = thinned(&full, size);
        voxelize(&mut criterion, &cloud, size, &mut groups);
        vfe(&mut criterion, &cloud, size, &mut groups);
    }
    for model in ["cp-pillar-v0.64", "cp-pillar-v0.64-xxs"] {
        maps(&mut criterion, model, &thinned(&full, 160_000), &mut groups);
    }
    criterion.final_summary();
    ratios::print_ratios(&groups);
}

type Groups = Vec<(String, &'static [&'static str])>;

/// Five frames of a five-laser drive laid over each other: more than any size asked for.
fn full_range_cloud() -> PointCloud {
    let drive = Drive::new(&DriveConfig::new(1, 0, 5, SensorKind::Waymo5)).expect("a valid drive");
    let mut cloud = drive.frame(0).expect("frame 0").cloud;
    for index in 1..5 {
        cloud.points.extend(drive.frame(index).expect("a frame of the drive").cloud.points);
    }
    cloud
}

/// Points spread evenly over the cloud.
fn thinned(cloud: &PointCloud, size: usize) -> PointCloud {
    let (n, d) = (cloud.n_points(), cloud.features.len());
    assert!(n >= size, "the cloud has {n} points, {size} are needed");
    let rows = (0..size).flat_map(|i| cloud.points[(i * n / size) * d..][..d].iter().copied());
    PointCloud { points: rows.collect(), ..cloud.clone() }
}

fn spec(model: &str) -> ModelSpec {
    ModelSpec::builtin(model).expect("a built-in spec")
}

fn network(spec: &ModelSpec) -> PillarNet {
    let weights = hash_weights(&expected_params(spec), 1, &HeadMultipliers { hm_weight: 0.3 });
    PillarNet::new(&Params::load(&weights, Device::Cpu), spec)
}

fn voxelize(criterion: &mut Criterion, cloud: &PointCloud, size: usize, groups: &mut Groups) {
    let spec = spec("cp-pillar-v0.64");
    let mut pillarizer = Pillarizer::new(spec.grid(), spec.caps());
    let (grid, caps) = (spec.grid(), spec.caps());
    let points = Tensor::from_slice(&cloud.points).view([-1, cloud.features.len() as i64]);
    let name = format!("voxelize/{}k", size / 1000);
    let mut group = criterion.benchmark_group(&name);
    group.bench_function(BenchmarkId::from_parameter("sort"), |b| {
        b.iter(|| pillarize_by_sort(&grid, caps, black_box(&points)).expect("cpu"))
    });
    group.bench_function(BenchmarkId::from_parameter("pass"), |b| {
        b.iter(|| {
            pillarize_on_device(&mut pillarizer, black_box(&cloud.points), cloud.features.len(), Device::Cpu).expect("cpu")
        });
    });
    group.finish();
    groups.push((name, &["sort", "pass"]));
}

fn vfe(criterion: &mut Criterion, cloud: &PointCloud, size: usize, groups: &mut Groups) {
    let spec = spec("cp-pillar-v0.64");
    let net = network(&spec);
    let fused = FusedPillarNet::new(&net, &spec.grid(), spec.grid.max_points_per_voxel, Kind::Float);
    let mut pillarizer = Pillarizer::new(spec.grid(), spec.caps());
    let mut pillars = || pillarize_on_device(&mut pillarizer, &cloud.points, cloud.features.len(), Device::Cpu).expect("cpu");
    let flat = pillars();
    let padded = PaddedPillars::from_clouds(&[pillars()], spec.grid.max_points_per_voxel);
    let name = format!("vfe/{}k", size / 1000);
    let mut group = criterion.benchmark_group(&name);
    group.bench_function(BenchmarkId::from_parameter("plain"), |b| b.iter(|| net.vfe.forward(black_box(&padded), Mode::Eval)));
    group.bench_function(BenchmarkId::from_parameter("fused"), |b| b.iter(|| fused.pillar_features(black_box(&flat))));
    group.finish();
    groups.push((name, &["plain", "fused"]));
}

/// The two-dimensional part, the boxes, and whole frames.
fn maps(criterion: &mut Criterion, model: &str, cloud: &PointCloud, groups: &mut Groups) {
    const VARIANTS: &[&str] = &["plain", "fused", "fused-bf16"];
    let spec = spec(model);
    let net = network(&spec);
    let cap = spec.grid.max_points_per_voxel;
    let fused = [Kind::Float, Kind::BFloat16].map(|kind| FusedPillarNet::new(&net, &spec.grid(), cap, kind));
    let d = cloud.features.len();
    let mut pillarizer = Pillarizer::new(spec.grid(), spec.caps());
    let pillars = pillarize_on_device(&mut pillarizer, &cloud.points, d, Device::Cpu).expect("cpu");
    let features = fused[0].pillar_features(&pillars);
    let padded = PaddedPillars::from_clouds(&[pillars], cap);
    let map = scatter(&features, &padded.coords, 1, &spec.grid());
    let pillars = pillarize_on_device(&mut pillarizer, &cloud.points, d, Device::Cpu).expect("cpu");

    let name = format!("backbone/{model}");
    let mut group = criterion.benchmark_group(&name);
    group.bench_function(BenchmarkId::from_parameter("plain"), |b| b.iter(|| net.backbone.forward(black_box(&map), Mode::Eval)));
    for (fused, id) in fused.iter().zip(&VARIANTS[1..]) {
        let map = fused.scatter(&features, &pillars);
        group.bench_function(BenchmarkId::from_parameter(id), |b| b.iter(|| fused.backbone(black_box(&map))));
    }
    group.finish();
    groups.push((name, VARIANTS));

    let name = format!("head-and-boxes/{model}");
    let mut group = criterion.benchmark_group(&name);
    let plain_2d = net.backbone.forward(&map, Mode::Eval).spatial_features_2d;
    group.bench_function(BenchmarkId::from_parameter("plain"), |b| {
        b.iter(|| boxes_from_maps(&net.head.forward(black_box(&plain_2d), Mode::Eval), &spec).expect("boxes"));
    });
    for (fused, id) in fused.iter().zip(&VARIANTS[1..]) {
        let features_2d = fused.backbone(&fused.scatter(&features, &pillars));
        group.bench_function(BenchmarkId::from_parameter(id), |b| b.iter(|| fused_boxes(fused, black_box(&features_2d), &spec)));
    }
    group.finish();
    groups.push((name, VARIANTS));

    let name = format!("frame/{model}");
    let mut group = criterion.benchmark_group(&name);
    group.bench_function(BenchmarkId::from_parameter("plain"), |b| {
        b.iter(|| {
            let pillars = pillarize_on_device(&mut pillarizer, black_box(&cloud.points), d, Device::Cpu).expect("cpu");
            let trace = net.forward(&PaddedPillars::from_clouds(&[pillars], cap), Mode::Eval);
            boxes_from_maps(&trace.head, &spec).expect("boxes")
        });
    });
    for (fused, id) in fused.iter().zip(&VARIANTS[1..]) {
        group.bench_function(BenchmarkId::from_parameter(id), |b| {
            b.iter(|| {
                let pillars = pillarize_on_device(&mut pillarizer, black_box(&cloud.points), d, Device::Cpu).expect("cpu");
                let map = fused.scatter(&fused.pillar_features(&pillars), &pillars);
                fused_boxes(fused, &fused.backbone(&map), &spec)
            });
        });
    }
    group.finish();
    groups.push((name, VARIANTS));
}

fn fused_boxes(fused: &FusedPillarNet, features_2d: &[Tensor], spec: &ModelSpec) -> pivotal::pipeline::Boxes {
    let shared = fused.shared(features_2d);
    let peaks = postprocess::top_peaks(&fused.heat_map(&shared), spec.postprocess.max_peaks).expect("peaks");
    let regression = fused.regression_at(&shared, &peaks.row, &peaks.col);
    pivotal::pipeline::boxes_from_peaks(&peaks, &regression, spec).expect("boxes")
}
