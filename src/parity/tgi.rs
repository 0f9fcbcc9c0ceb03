//! Teacher-guided initialisation: every tensor of the student by the hash of its bytes. Only copies are involved, so they are equal.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use tch::{Kind, Tensor};

use super::compare::{Limit, compare, exact};
use super::golden::{Companion, Golden};
use super::{Case, ParityError};
use crate::distill::inherit::{InheritError, Rank, Remap, Wiring, copy_matching, inherit_tensors};
use crate::model::directory::sha256_hex;
use crate::model::expected_params;
use crate::model::init::{HeadMultipliers, hash_weights};
use crate::model::params::{ParamDecl, Weights};
use crate::model::spec::ModelSpec;

/// Values stored of each end of a tensor.
const SLICE: i64 = 4;

/// One initialisation as `tgi.json` describes it.
#[derive(Deserialize)]
struct Entry {
    teacher_yaml: String,
    way: String,
    teacher_seed: u64,
    student_prefill_seed: u64,
    /// Shape and SHA-256 of every tensor of the student.
    params: BTreeMap<String, (Vec<i64>, String)>,
}

/// Tags of all initialisations of a `tgi.json`.
pub fn tags(companion: &Path) -> Result<Vec<String>, ParityError> {
    let results: BTreeMap<String, serde_json::Value> = Companion::read(companion)?.get(&["results"])?;
    Ok(results.into_keys().collect())
}

pub fn run(path: &Path, tag: &str, case: &mut Case) -> Result<(), ParityError> {
    let companion = Companion::read(path)?;
    let entry: Entry = companion.get(&["results", tag])?;
    let teacher = Path::new(&entry.teacher_yaml).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let kind = |name: &str| if is_counter(name) { Kind::Int64 } else { Kind::Float };
    let student: Vec<ParamDecl> = entry
        .params
        .iter()
        .map(|(name, (shape, _))| ParamDecl { name: name.clone(), shape: shape.clone(), kind: kind(name) })
        .collect();
    let Some(mut teacher_params) = params(&teacher) else {
        case.unsupported.push(format!("teacher `{teacher}`: its tensors are not known to this build"));
        return Ok(());
    };
    teacher_params.extend(student.iter().filter(|decl| is_counter(&decl.name)).cloned());
    let multipliers = HeadMultipliers { hm_weight: companion.get(&["hm_weight_mult"])? };
    let teacher_weights = hash_weights(&teacher_params, entry.teacher_seed, &multipliers);

    let rank = match entry.way.split_whitespace().next().unwrap_or_default() {
        "direct" => None,
        "FNAV2" => Some(Rank::First),
        "BN_SCALE" => Some(Rank::NormScale),
        "OFA" if tag.ends_with("_min") => Some(Rank::L1Smallest),
        "OFA" => Some(Rank::L1Largest),
        other => {
            case.unsupported.push(format!("initialisation `{other}`"));
            return Ok(());
        }
    };
    let inherited = match rank {
        None => copy_matching(&teacher_weights, &student),
        Some(rank) => inherit_tensors(&teacher_weights, &student, Remap { rank, wiring: Wiring::Released }),
    };
    let mut weights = inherited.map_err(|error: InheritError| ParityError::Operation(error.to_string()))?;
    // What is not inherited keeps what the student was filled with before.
    let left: Vec<ParamDecl> = student.iter().filter(|decl| !weights.contains_key(&decl.name)).cloned().collect();
    weights.extend(hash_weights(&left, entry.student_prefill_seed, &multipliers));

    for (name, (shape, sha256)) in &entry.params {
        let ours = weights.get(name).map(|tensor| (tensor.size(), digest(tensor)));
        case.stages.push(exact(name, &ours, &Some((shape.clone(), sha256.clone()))));
    }
    let slices = path.with_file_name("slices.safetensors");
    if slices.exists() {
        slice_stages(&Golden::read(&slices)?, tag, &weights, case)?;
    }
    Ok(())
}

fn is_counter(name: &str) -> bool {
    name.ends_with("num_batches_tracked") || name == "global_step"
}

fn params(name: &str) -> Option<Vec<ParamDecl>> {
    ModelSpec::builtin(name).ok().map(|spec| expected_params(&spec))
}

/// The first and last values of each tensor that are stored in clear.
fn slice_stages(golden: &Golden, tag: &str, weights: &Weights, case: &mut Case) -> Result<(), ParityError> {
    let prefix = format!("{tag}/");
    let stored: Vec<_> = golden.names().filter(|name| name.starts_with(&prefix)).map(str::to_owned).collect();
    for key in stored {
        if let Some(tensor) = weights.get(&key[prefix.len()..]) {
            let flat = tensor.reshape([-1]);
            let n = flat.size1()?;
            let ends = Tensor::cat(&[flat.slice(0, 0, SLICE, 1), flat.slice(0, (n - SLICE).max(0), n, 1)], 0);
            case.stages.push(compare(&format!("slice of {}", &key[prefix.len()..]), &ends, golden.get(&key)?, Limit::Exact));
        }
    }
    Ok(())
}

/// SHA-256 of the little-endian bytes.
fn digest(tensor: &Tensor) -> String {
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.contiguous().copy_data_u8(&mut bytes, tensor.numel());
    sha256_hex(&bytes)
}
