//! Every stage beside its plain version: `cargo bench --bench stages`.
//!
//! Decoding, voxelising, pillar features, scatter and whole frames run at 20k, 60k and 180k points. The dense maps have one size
//! whatever the cloud, so backbone and head run at 160k only, as do whole frames in bf16.

mod ratios;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use pivotal::cloud::decode::{CloudDecoder, SensorOverrides};
use pivotal::cloud::{Feature, InputSpec, PointCloud};
use pivotal::model::expected_params;
use pivotal::model::fused::{Encoded, FusedNet};
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::layers::Mode;
use pivotal::model::net::{Front, Net};
use pivotal::model::params::Params;
use pivotal::model::pillar_vfe::{PaddedVoxels, scatter};
use pivotal::model::spec::ModelSpec;
use pivotal::msgs::cdr;
use pivotal::msgs::sensor_msgs::{PointCloud2, PointCloud2Ref, PointField};
use pivotal::pipeline::boxes_from_maps;
use pivotal::postprocess;
use pivotal::synth::record::cloud_message;
use pivotal::synth::sensor::SensorKind;
use pivotal::synth::{Drive, DriveConfig, Frame};
use pivotal::voxel::{VoxelTensors, Voxelizer, voxelize_by_sort, voxelize_on_device};
use tch::{Device, Kind, Tensor};

const SIZES: [usize; 3] = [20_000, 60_000, 180_000];
/// Points of a usual cloud of five lasers.
const USUAL_SIZE: usize = 160_000;

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
        decode(&mut criterion, &cloud, size, &mut groups);
        voxelize(&mut criterion, &cloud, size, &mut groups);
        vfe(&mut criterion, &cloud, size, &mut groups);
        scatters(&mut criterion, &cloud, size, &mut groups);
    }
    let usual = thinned(&full, USUAL_SIZE);
    for model in ["cp-pillar-v0.64", "cp-pillar-v0.64-xxs"].map(Model::new) {
        model.backbone(&mut criterion, &usual, &mut groups);
        model.head_and_boxes(&mut criterion, &usual, &mut groups);
        for size in SIZES {
            model.frames(&mut criterion, &thinned(&full, size), &VARIANTS[..2], &mut groups);
        }
        model.frames(&mut criterion, &usual, VARIANTS, &mut groups);
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

fn network(spec: &ModelSpec) -> Net {
    let weights = hash_weights(&expected_params(spec), 1, &HeadMultipliers { hm_weight: 0.3 });
    Net::new(&Params::load(&weights, Device::Cpu), spec)
}

/// The cloud as a driver would publish it, with firing times and rings.
fn message(cloud: &PointCloud) -> PointCloud2 {
    let n = cloud.n_points();
    cloud_message(&Frame {
        cloud: cloud.clone(),
        rings: vec![0; n],
        time_offsets_s: vec![0.0; n],
        boxes: Vec::new(),
        hidden_boxes: Vec::new(),
        world_from_ego: nalgebra::Isometry3::identity(),
    })
}

/// Little-endian FLOAT32 fields read one after the other, point by point.
fn field_by_field(message: &PointCloud2Ref<'_>, input: &InputSpec) -> Vec<f32> {
    let field = |feature: &Feature| message.fields.iter().find(|field| field.name == feature.to_string()).expect("a field");
    let fields: Vec<_> = input.features.iter().map(field).collect();
    assert!(!message.is_bigendian && fields.iter().all(|field| field.datatype == PointField::FLOAT32));
    let mut points = Vec::new();
    for point in message.data.chunks_exact(message.point_step as usize) {
        let start = points.len();
        for (field, feature) in fields.iter().zip(&input.features) {
            let bytes = &point[field.offset as usize..][..4];
            let value = f32::from_le_bytes(bytes.try_into().expect("4 bytes"));
            points.push(if *feature == Feature::Intensity { input.intensity.apply(value) } else { value });
        }
        if !points[start..].iter().all(|value| value.is_finite()) {
            points.truncate(start);
        }
    }
    points
}

fn decode(criterion: &mut Criterion, cloud: &PointCloud, size: usize, groups: &mut Groups) {
    let spec = spec("cp-pillar-v0.64");
    let bytes = cdr::to_bytes(&message(cloud));
    let message = cdr::from_bytes::<PointCloud2Ref>(&bytes).expect("what was just written");
    let mut decoder = CloudDecoder::new(&spec.input, &SensorOverrides::default()).expect("the spec's columns");
    let mut out = PointCloud::default();
    decoder.decode(&message, &mut out).expect("a good cloud");
    assert_eq!(out.points, field_by_field(&message, &spec.input), "both readers see the same points");
    let name = format!("decode/{}k", size / 1000);
    let mut group = criterion.benchmark_group(&name);
    group.bench_function(BenchmarkId::from_parameter("plain"), |b| b.iter(|| field_by_field(black_box(&message), &spec.input)));
    group.bench_function(BenchmarkId::from_parameter("blocks"), |b| {
        b.iter(|| decoder.decode(black_box(&message), &mut out).expect("a good cloud"));
    });
    group.finish();
    groups.push((name, &["plain", "blocks"]));
}

fn voxelize(criterion: &mut Criterion, cloud: &PointCloud, size: usize, groups: &mut Groups) {
    let spec = spec("cp-pillar-v0.64");
    let mut voxelizer = Voxelizer::new(spec.grid(), spec.caps());
    let (grid, caps) = (spec.grid(), spec.caps());
    let points = Tensor::from_slice(&cloud.points).view([-1, cloud.features.len() as i64]);
    let name = format!("voxelize/{}k", size / 1000);
    let mut group = criterion.benchmark_group(&name);
    group.bench_function(BenchmarkId::from_parameter("sort"), |b| {
        b.iter(|| voxelize_by_sort(&grid, caps, black_box(&points)).expect("cpu"))
    });
    group.bench_function(BenchmarkId::from_parameter("pass"), |b| {
        b.iter(|| voxelize_on_device(&mut voxelizer, black_box(&cloud.points), cloud.features.len(), Device::Cpu).expect("cpu"));
    });
    group.finish();
    groups.push((name, &["sort", "pass"]));
}

fn vfe(criterion: &mut Criterion, cloud: &PointCloud, size: usize, groups: &mut Groups) {
    let spec = spec("cp-pillar-v0.64");
    let net = network(&spec);
    let fused = FusedNet::new(&net, &spec.grid(), spec.grid.max_points_per_voxel, Kind::Float);
    let mut voxelizer = Voxelizer::new(spec.grid(), spec.caps());
    let mut pillars = || voxelize_on_device(&mut voxelizer, &cloud.points, cloud.features.len(), Device::Cpu).expect("cpu");
    let flat = pillars();
    let padded = PaddedVoxels::from_clouds(&[pillars()], spec.grid.max_points_per_voxel);
    let name = format!("vfe/{}k", size / 1000);
    let mut group = criterion.benchmark_group(&name);
    let Front::Pillar(plain) = &net.front else { panic!("a pillar network") };
    group.bench_function(BenchmarkId::from_parameter("plain"), |b| b.iter(|| plain.forward(black_box(&padded), Mode::Eval)));
    group.bench_function(BenchmarkId::from_parameter("fused"), |b| b.iter(|| fused.voxel_features(black_box(&flat))));
    group.finish();
    groups.push((name, &["plain", "fused"]));
}

/// From pillars to a map. Its size is the grid's, so only the number of pillars changes with the cloud.
fn scatters(criterion: &mut Criterion, cloud: &PointCloud, size: usize, groups: &mut Groups) {
    let model = Model::new("cp-pillar-v0.64");
    let (pillars, features, coords) = model.pillars_and_features(cloud);
    let grid = model.spec.grid();
    let name = format!("scatter/{}k", size / 1000);
    let mut group = criterion.benchmark_group(&name);
    group.bench_function(BenchmarkId::from_parameter("plain"), |b| {
        b.iter(|| scatter(black_box(&features), &coords, 1, &grid));
    });
    group.bench_function(BenchmarkId::from_parameter("fused"), |b| {
        let encoded = Encoded::Pillars(features.shallow_clone());
        b.iter(|| model.fused[0].map(black_box(&encoded), &pillars));
    });
    group.finish();
    groups.push((name, &VARIANTS[..2]));
}

/// A network in its plain and its fused arrangements.
struct Model {
    spec: ModelSpec,
    net: Net,
    /// f32 and bf16.
    fused: [FusedNet; 2],
}

/// Names of the plain network and of [`Model::fused`].
const VARIANTS: &[&str] = &["plain", "fused", "fused-bf16"];

impl Model {
    fn new(name: &str) -> Self {
        let spec = spec(name);
        let net = network(&spec);
        let cap = spec.grid.max_points_per_voxel;
        let fused = [Kind::Float, Kind::BFloat16].map(|kind| FusedNet::new(&net, &spec.grid(), cap, kind));
        Self { spec, net, fused }
    }

    fn pillars(&self, cloud: &PointCloud) -> VoxelTensors {
        let mut voxelizer = Voxelizer::new(self.spec.grid(), self.spec.caps());
        voxelize_on_device(&mut voxelizer, &cloud.points, cloud.features.len(), Device::Cpu).expect("cpu")
    }

    /// Pillars, their features, and their cells as the plain network takes them.
    fn pillars_and_features(&self, cloud: &PointCloud) -> (VoxelTensors, Tensor, Tensor) {
        let pillars = self.pillars(cloud);
        let features = self.fused[0].voxel_features(&pillars);
        let padded = PaddedVoxels::from_clouds(&[self.pillars(cloud)], self.spec.grid.max_points_per_voxel);
        (pillars, features, padded.coords)
    }

    fn backbone(&self, criterion: &mut Criterion, cloud: &PointCloud, groups: &mut Groups) {
        let (pillars, features, coords) = self.pillars_and_features(cloud);
        let map = scatter(&features, &coords, 1, &self.spec.grid());
        let name = format!("backbone/{}", self.spec.name);
        let mut group = criterion.benchmark_group(&name);
        let plain = BenchmarkId::from_parameter(VARIANTS[0]);
        group.bench_function(plain, |b| b.iter(|| self.net.backbone.forward(black_box(&map), Mode::Eval)));
        for (fused, id) in self.fused.iter().zip(&VARIANTS[1..]) {
            let map = fused.map_of(&pillars);
            group.bench_function(BenchmarkId::from_parameter(id), |b| b.iter(|| fused.backbone(black_box(&map))));
        }
        group.finish();
        groups.push((name, VARIANTS));
    }

    fn head_and_boxes(&self, criterion: &mut Criterion, cloud: &PointCloud, groups: &mut Groups) {
        let (pillars, features, coords) = self.pillars_and_features(cloud);
        let map = scatter(&features, &coords, 1, &self.spec.grid());
        let plain_2d = self.net.backbone.forward(&map, Mode::Eval).spatial_features_2d;
        let name = format!("head-and-boxes/{}", self.spec.name);
        let mut group = criterion.benchmark_group(&name);
        group.bench_function(BenchmarkId::from_parameter(VARIANTS[0]), |b| {
            b.iter(|| boxes_from_maps(&self.net.head.forward(black_box(&plain_2d), Mode::Eval), &self.spec).expect("boxes"));
        });
        for (fused, id) in self.fused.iter().zip(&VARIANTS[1..]) {
            let features_2d = fused.backbone(&fused.map_of(&pillars));
            group.bench_function(BenchmarkId::from_parameter(id), |b| {
                b.iter(|| fused_boxes(fused, black_box(&features_2d), &self.spec));
            });
        }
        group.finish();
        groups.push((name, VARIANTS));
    }

    /// Whole frames, from points to boxes, by the first of [`VARIANTS`].
    fn frames(&self, criterion: &mut Criterion, cloud: &PointCloud, variants: &'static [&'static str], groups: &mut Groups) {
        let (spec, d) = (&self.spec, cloud.features.len());
        let mut voxelizer = Voxelizer::new(spec.grid(), spec.caps());
        let mut pillars = || voxelize_on_device(&mut voxelizer, black_box(&cloud.points), d, Device::Cpu).expect("cpu");
        let name = format!("frame/{}/{}k", spec.name, cloud.n_points() / 1000);
        let mut group = criterion.benchmark_group(&name);
        group.bench_function(BenchmarkId::from_parameter(variants[0]), |b| {
            b.iter(|| {
                let padded = PaddedVoxels::from_clouds(&[pillars()], spec.grid.max_points_per_voxel);
                boxes_from_maps(&self.net.forward(&padded, Mode::Eval).head, spec).expect("boxes")
            });
        });
        for (fused, id) in self.fused.iter().zip(&variants[1..]) {
            group.bench_function(BenchmarkId::from_parameter(id), |b| {
                b.iter(|| {
                    let pillars = pillars();
                    let map = fused.map_of(&pillars);
                    fused_boxes(fused, &fused.backbone(&map), spec)
                });
            });
        }
        group.finish();
        groups.push((name, variants));
    }
}

fn fused_boxes(fused: &FusedNet, features_2d: &[Tensor], spec: &ModelSpec) -> pivotal::pipeline::Boxes {
    let shared = fused.head.shared(features_2d);
    let peaks = postprocess::top_peaks(&fused.head.heat_map(&shared), spec.postprocess.max_peaks).expect("peaks");
    let regression = fused.head.regression_at(&shared, &peaks.row, &peaks.col);
    pivotal::pipeline::boxes_from_peaks(&peaks, &regression, spec).expect("boxes")
}
