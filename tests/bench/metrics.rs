//! The detection metric beside its plain version: `cargo bench --bench metrics`.
//!
//! Runs on the largest official sets of the shared reference data and on their objects with all seven breakdowns. The fast
//! version is timed on one thread, too: what it gains there is algorithm, the rest is cores.

mod ratios;

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use pivotal::eval::config::{Difficulties, Level, MetricsConfig};
use pivotal::eval::shards::Generator;
use pivotal::eval::{self, json, plain};

const VARIANTS: &[&str] = &["plain", "one-thread", "fast"];

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let shared = std::env::var_os("PIVOTAL_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let configs = [("leaderboard", MetricsConfig::leaderboard()), ("all-breakdowns", all_breakdowns())];
    let mut groups = Vec::new();
    for set in ["large", "official_fake"] {
        let path = shared.join(format!("data/waymo-metrics/{set}.input.json"));
        let frames = json::read_input(&path).expect("the shared reference data; see PIVOTAL_SHARED");
        for (name, config) in &configs {
            let name = format!("metrics/{set}/{name}");
            let fast = || eval::measure(black_box(&frames), config).expect("good frames");
            let slow = || plain::measure(black_box(&frames), config).expect("good frames");
            assert_eq!(fast(), slow(), "{name}: the versions differ");
            let mut group = criterion.benchmark_group(&name);
            group.bench_function(BenchmarkId::from_parameter("plain"), |b| b.iter(slow));
            group.bench_function(BenchmarkId::from_parameter("one-thread"), |b| b.iter(|| one_thread.install(fast)));
            group.bench_function(BenchmarkId::from_parameter("fast"), |b| b.iter(fast));
            group.finish();
            groups.push((name, VARIANTS));
        }
    }
    criterion.final_summary();
    ratios::print_ratios(&groups);
}

fn all_breakdowns() -> MetricsConfig {
    use Generator::{AllButSign, Camera, ObjectType, OneShard, Range, Size, Velocity};
    let generators = vec![OneShard, ObjectType, Range, Velocity, AllButSign, Size, Camera];
    let levels = vec![Level::Level1, Level::Level2];
    MetricsConfig {
        difficulties: vec![Difficulties { levels }; generators.len()],
        breakdown_generator_ids: generators,
        ..MetricsConfig::leaderboard()
    }
}
