//! `trainer specs` and `trainer untrained`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use pivotal::model::directory::provenance::Provenance;
use pivotal::model::directory::{self, SaveOptions, WeightsDtype};
use pivotal::model::expected_params;
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::params::Weights;
use pivotal::model::spec::ModelSpec;

/// Scale of the heat map's last weights in untrained models: small, so that a few cells exceed the score threshold, not thousands.
const UNTRAINED_HM_WEIGHT: f64 = 0.04;

/// List the built-in specs, or print one as the YAML to start a new one from.
#[derive(clap::Args)]
pub struct SpecsArgs {
    /// Print this one.
    name: Option<String>,
}

/// Write a model directory with deterministic weights that were never trained: for tests and latency measurements.
#[derive(clap::Args)]
pub struct UntrainedArgs {
    /// Name of a built-in spec or path of a spec.yaml.
    #[arg(long)]
    spec: String,
    /// Chooses the weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Model directory to write.
    #[arg(long)]
    out: PathBuf,
    /// Replace a model directory that is there.
    #[arg(long)]
    overwrite: bool,
}

pub fn list(args: &SpecsArgs) -> anyhow::Result<ExitCode> {
    if let Some(name) = &args.name {
        print!("{}", ModelSpec::builtin(name)?.to_yaml()?);
        return Ok(ExitCode::SUCCESS);
    }
    for name in ModelSpec::builtin_names() {
        let params: i64 = expected_params(&ModelSpec::builtin(name)?).iter().map(|p| p.shape.iter().product::<i64>()).sum();
        println!("{name:24} {params:>9} weights");
    }
    Ok(ExitCode::SUCCESS)
}

pub fn untrained(args: &UntrainedArgs) -> anyhow::Result<ExitCode> {
    let spec = read_spec(&args.spec)?;
    let weights = untrained_weights(&spec, args.seed);
    let command = format!("trainer untrained --spec {} --seed {}", spec.name, args.seed);
    let provenance = Provenance::new(&command, "none: deterministic weights, never trained");
    let options = SaveOptions { dtype: WeightsDtype::F32, overwrite: args.overwrite };
    directory::save(&args.out, &spec, &weights, &provenance, options)?;
    println!("{}: untrained {} with seed {}", args.out.display(), spec.name, args.seed);
    Ok(ExitCode::SUCCESS)
}

/// Deterministic weights that were never trained.
pub fn untrained_weights(spec: &ModelSpec, seed: u64) -> Weights {
    hash_weights(&expected_params(spec), seed, &HeadMultipliers { hm_weight: UNTRAINED_HM_WEIGHT })
}

/// A built-in spec by name, or a file.
pub fn read_spec(name_or_path: &str) -> anyhow::Result<ModelSpec> {
    if !name_or_path.ends_with(".yaml") && !name_or_path.contains('/') {
        return Ok(ModelSpec::builtin(name_or_path)?);
    }
    let text = std::fs::read_to_string(name_or_path).with_context(|| format!("cannot read the spec {name_or_path}"))?;
    Ok(ModelSpec::from_yaml(&text, name_or_path)?)
}
