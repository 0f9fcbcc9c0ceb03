//! The sparse-convolution engine: `cargo bench --bench sparse`.
//!
//! One submanifold convolution of 16 channels over a block of 41 x 400 x 400 cells, with 10k to 200k sites: by autograd's tensors, by plain
//! rows, and by a dense convolution of the whole block; then pairs, and forward with all gradients. Sites lie on surfaces, as
//! voxels of a cloud do. Values per site show that time and memory grow with the sites. Then whole voxel networks beside their plain version.

mod ratios;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use pivotal::model::expected_params;
use pivotal::model::fused::FusedNet;
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::layers::Mode;
use pivotal::model::net::{Front, Net};
use pivotal::model::params::Params;
use pivotal::model::pillar_vfe::PaddedVoxels;
use pivotal::model::spec::ModelSpec;
use pivotal::profile::synthetic_frames;
use pivotal::sparse::{
    ConvShape, Epilogue, FusedConv, Lattice, Pairs, Rows, Rulebook, Sites, convolve, offsets_first, pairs_of, to_dense,
    weight_gradient,
};
use pivotal::voxel::{Voxelizer, voxelize_on_device};
use tch::{Device, Kind, Tensor};

const BLOCK: [i64; 3] = [41, 400, 400];
const CHANNELS: i64 = 16;
const SITES: [usize; 4] = [10_000, 50_000, 100_000, 200_000];
/// The oracle looks every cell up in a map.
const MOST_SITES_OF_THE_ORACLE: usize = 10_000;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut groups = Vec::new();
    for n in SITES {
        layer(&mut criterion, n, &mut groups);
    }
    for name in ["cp-voxel-xxs", "cp-voxel"] {
        backbone(&mut criterion, name, &mut groups);
    }
    criterion.final_summary();
    ratios::print_ratios(&groups);
}

type Groups = Vec<(String, &'static [&'static str])>;

/// One convolution at so many sites, in all its forms.
struct Layer {
    sites: Sites,
    lattice: Lattice,
    pairs: Pairs,
    rules: Rulebook,
    x: Tensor,
    weight: Tensor,
    conv: FusedConv,
    rows: Rows,
}

/// Cells on waves one above the other.
fn cells(n: usize) -> Vec<[i64; 4]> {
    let [nz, ny, nx] = BLOCK;
    let per_wave = (ny * nx) as usize;
    let cell = |i: usize| {
        let (wave, at) = ((i / per_wave) as i64, (i % per_wave) as i64);
        let (y, x) = (at / nx, at % nx);
        let height = 8.0 + 4.0 * (x as f64 / 23.0).sin() + 4.0 * (y as f64 / 17.0).cos();
        [0, (height as i64 + 17 * wave).min(nz - 1), y, x]
    };
    (0..n).map(cell).collect()
}

fn random(seed: i64, shape: &[i64]) -> Tensor {
    tch::manual_seed(seed);
    Tensor::rand(shape, (Kind::Float, Device::Cpu)) - 0.5
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.detach().contiguous().view([-1])).expect("f32")
}

impl Layer {
    fn new(n: usize) -> Self {
        let lattice = Lattice::new(1, BLOCK).expect("a lattice");
        let conv = ConvShape::submanifold([3; 3]).expect("a kernel");
        let coords = cells(n);
        let (sites, _) = Sites::from_coords(&Tensor::from_slice(coords.as_flattened()).view([-1, 4]), lattice).expect("sites");
        let keys = sites.host_keys().expect("keys");
        let pairs = pairs_of(&keys, &lattice, &keys, &conv).expect("pairs");
        let (x, weight) = (random(1, &[n as i64, CHANNELS]), random(2, &[CHANNELS, 3, 3, 3, CHANNELS]) * 0.1);
        let kernel = offsets_first(&weight).expect("five axes");
        let rules = Rulebook::new(&sites, &sites, &conv).expect("rules");
        let rows = Rows::new(&values(&x), CHANNELS as usize);
        let conv = FusedConv::new(&values(&kernel), &[0.0; CHANNELS as usize], 27, CHANNELS as usize).expect("sizes");
        Self { sites, lattice, pairs, rules, x, weight, conv, rows }
    }

    fn forward(&self) -> Rows {
        let mut out = Rows::default();
        self.conv.run(black_box(&self.rows), &self.pairs, self.rows.len(), Epilogue::default(), &mut out).expect("sizes");
        out
    }

    /// Forward, gradient of the weight, gradient of the input.
    fn forward_and_back(&self) -> (Rows, Vec<f32>, Rows) {
        let out = self.forward();
        let of_weight = weight_gradient(&self.rows, &out, &self.pairs).expect("sizes");
        let transposed = values(&offsets_first(&self.weight).expect("five axes").transpose(1, 2));
        let conv = FusedConv::new(&transposed, &[0.0; CHANNELS as usize], 27, CHANNELS as usize).expect("sizes");
        let mut of_input = Rows::default();
        let back = self.pairs.clone().inverse();
        conv.run(&out, &back, self.rows.len(), Epilogue::default(), &mut of_input).expect("sizes");
        (out, of_weight, of_input)
    }

    fn tensors(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        convolve(x, &offsets_first(weight).expect("five axes"), None, &self.rules).expect("sizes")
    }
}

fn layer(criterion: &mut Criterion, n: usize, groups: &mut Groups) {
    let layer = Layer::new(n);
    let bytes = 8 * layer.pairs.len() + 2 * 4 * n * CHANNELS as usize;
    println!(
        "{n} sites: {} pairs, {:.1} MB of pairs and rows, {} bytes a site",
        layer.pairs.len(),
        bytes as f64 * 1e-6,
        bytes / n
    );
    agree(&layer);
    let _no_grad = tch::no_grad_guard();

    let name = format!("forward/{}k", n / 1000);
    let mut group = criterion.benchmark_group(&name);
    let kernel = layer.weight.permute([0, 4, 1, 2, 3]).contiguous();
    let dense = to_dense(&layer.x, &layer.sites).expect("rows");
    group.bench_function(BenchmarkId::from_parameter("dense"), |b| {
        b.iter(|| black_box(&dense).conv3d(&kernel, None::<&Tensor>, [1; 3], [1; 3], [1; 3], 1));
    });
    group.bench_function(BenchmarkId::from_parameter("tensors"), |b| b.iter(|| layer.tensors(&layer.x, &layer.weight)));
    group.bench_function(BenchmarkId::from_parameter("rows"), |b| b.iter(|| layer.forward()));
    group.finish();
    groups.push((name, &["dense", "tensors", "rows"]));

    let name = format!("forward-and-gradients/{}k", n / 1000);
    let mut group = criterion.benchmark_group(&name);
    group.bench_function(BenchmarkId::from_parameter("tensors"), |b| {
        b.iter(|| {
            tch::with_grad(|| {
                let [x, weight] = [&layer.x, &layer.weight].map(|t| t.detach().set_requires_grad(true));
                layer.tensors(&x, &weight).square().sum(Kind::Float).backward();
                (x.grad(), weight.grad())
            })
        });
    });
    group.bench_function(BenchmarkId::from_parameter("rows"), |b| b.iter(|| layer.forward_and_back()));
    group.finish();
    groups.push((name, &["tensors", "rows"]));

    let name = format!("pairs/{}k", n / 1000);
    let mut group = criterion.benchmark_group(&name);
    let conv = ConvShape::submanifold([3; 3]).expect("a kernel");
    let keys = layer.sites.host_keys().expect("keys");
    group.bench_function(BenchmarkId::from_parameter("by-sort"), |b| {
        b.iter(|| Rulebook::by_sort(&layer.sites, &layer.sites, &conv).expect("rules"));
    });
    group.bench_function(BenchmarkId::from_parameter("by-line"), |b| {
        b.iter(|| pairs_of(black_box(&keys), &layer.lattice, &keys, &conv).expect("pairs"));
    });
    group.finish();
    groups.push((name, &["by-sort", "by-line"]));
}

/// All forms give the same, before anything is timed.
fn agree(layer: &Layer) {
    let _no_grad = tch::no_grad_guard();
    let tensors = layer.tensors(&layer.x, &layer.weight);
    let rows: Vec<f32> = layer.forward().rows().flatten().copied().collect();
    let off = (Tensor::from_slice(&rows).view([-1, CHANNELS]) - &tensors).abs().max().double_value(&[]);
    assert!(off < 1e-5, "rows are off by {off}");
    if layer.rows.len() <= MOST_SITES_OF_THE_ORACLE {
        let double = |tensor: &Tensor| values(tensor).into_iter().map(f64::from).collect::<Vec<f64>>();
        let sites: Vec<[i64; 4]> = cells(layer.rows.len());
        let conv = ConvShape::submanifold([3; 3]).expect("a kernel");
        let mut ordered = sites.clone();
        ordered.sort_unstable();
        let kernel = double(&offsets_first(&layer.weight).expect("five axes"));
        let plain = pivotal::sparse::plain::convolve(&ordered, &double(&layer.x), &kernel, &[], &ordered, &conv);
        let worst = plain.iter().zip(&rows).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-5, "rows are off the oracle by {worst}");
    }
}

/// The 3-D backbone of a model over a full-range frame, f32.
fn backbone(criterion: &mut Criterion, name: &str, groups: &mut Groups) {
    let _no_grad = tch::no_grad_guard();
    let spec = ModelSpec::builtin(name).expect("built in");
    let weights = hash_weights(&expected_params(&spec), 7, &HeadMultipliers { hm_weight: 0.3 });
    let net = Net::new(&Params::load(&weights, Device::Cpu), &spec);
    let fused = FusedNet::new(&net, &spec.grid(), spec.grid.max_points_per_voxel, Kind::Float);
    let cloud = &synthetic_frames(1).expect("a street").0[0];
    let mut voxelizer = Voxelizer::new(spec.grid(), spec.caps());
    let mut voxels = || voxelize_on_device(&mut voxelizer, &cloud.points, cloud.features.len(), Device::Cpu).expect("the CPU");
    let flat = voxels();
    let padded = PaddedVoxels::from_clouds(&[voxels()], spec.grid.max_points_per_voxel);
    let features = fused.voxel_features(&flat);
    let Front::Voxel(plain) = &net.front else { panic!("a voxel network") };
    let group_name = format!("backbone-3d/{name}/{}k-voxels", flat.counts.voxels / 1000);
    let mut group = criterion.benchmark_group(&group_name);
    group.bench_function(BenchmarkId::from_parameter("plain"), |b| {
        b.iter(|| plain.forward(black_box(&features), &padded.coords, 1, Mode::Eval));
    });
    group.bench_function(BenchmarkId::from_parameter("fused"), |b| {
        b.iter(|| fused.encode(black_box(&features).shallow_clone(), &flat));
    });
    group.finish();
    groups.push((group_name, &["plain", "fused"]));
}
