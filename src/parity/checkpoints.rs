//! Checkpoints of the reference, tensor by tensor: shape, element type, and the hash of the bytes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tch::{Kind, Tensor};

use super::compare::exact;
use super::golden::Companion;
use super::{Case, ParityError};
use crate::import;
use crate::model::directory::sha256_hex;

pub fn run(path: &Path, case: &mut Case) -> Result<(), ParityError> {
    let companion = Companion::read(&path.with_file_name("ckpt.json"))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let file: BTreeMap<String, Value> = companion.get(&[&stem])?;
    // Files made to hold odd tensors list them without hashes, as they are views of one tensor the README defines.
    let list = if file.contains_key("params") { "params" } else { "entries" };
    let golden: BTreeMap<String, Entry> = companion.get(&[&stem, list])?;
    let checkpoint = import::read_checkpoint(path)
        .map_err(|error| ParityError::File { path: path.to_path_buf(), message: error.to_string() })?;
    let names = |keys: Vec<&String>| keys.into_iter().cloned().collect::<Vec<_>>();
    case.stages.push(exact("names", &names(checkpoint.tensors.keys().collect()), &names(golden.keys().collect())));
    for (name, golden) in golden {
        if let Some(tensor) = checkpoint.tensors.get(&name) {
            let ours = Entry::of(tensor, golden.sha256().is_some());
            case.stages.push(exact(&name, &ours, &golden));
        }
    }
    Ok(())
}

/// A tensor as `ckpt.json` describes it: shape, element type, and SHA-256 of its little-endian bytes where given.
#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(untagged)]
enum Entry {
    Hashed(Vec<i64>, String, String),
    Shaped(Vec<i64>, String),
}

impl Entry {
    fn of(tensor: &Tensor, hashed: bool) -> Self {
        let dtype = match tensor.kind() {
            Kind::Float => "float32",
            Kind::Double => "float64",
            Kind::Half => "float16",
            Kind::BFloat16 => "bfloat16",
            Kind::Int64 => "int64",
            Kind::Int => "int32",
            Kind::Int16 => "int16",
            Kind::Int8 => "int8",
            Kind::Uint8 => "uint8",
            Kind::Bool => "bool",
            _ => "other",
        };
        if !hashed {
            return Self::Shaped(tensor.size(), dtype.to_owned());
        }
        let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.contiguous().copy_data_u8(&mut bytes, tensor.numel());
        Self::Hashed(tensor.size(), dtype.to_owned(), sha256_hex(&bytes))
    }

    fn sha256(&self) -> Option<&str> {
        match self {
            Self::Hashed(_, _, sha256) => Some(sha256),
            Self::Shaped(..) => None,
        }
    }
}
