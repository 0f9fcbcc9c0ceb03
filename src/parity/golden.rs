//! Reading golden files: a `.safetensors` of named tensors and a JSON companion.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::ParityError;
use super::compare::{Limit, StageResult, compare};

/// The tensors of one golden file.
#[derive(Debug)]
pub struct Golden {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    /// Reads all tensors.
    pub fn read(path: &Path) -> Result<Self, ParityError> {
        let file_error = |message: String| ParityError::File { path: path.to_path_buf(), message };
        let bytes = std::fs::read(path).map_err(|error| file_error(error.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| file_error(error.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let kind = match view.dtype() {
                Dtype::F32 => Kind::Float,
                Dtype::F64 => Kind::Double,
                Dtype::I64 => Kind::Int64,
                Dtype::I32 => Kind::Int,
                Dtype::I16 => Kind::Int16,
                Dtype::I8 => Kind::Int8,
                Dtype::U8 => Kind::Uint8,
                other => return Err(file_error(format!("`{name}` has dtype {other:?}, which golden files do not use"))),
            };
            let shape: Vec<i64> = view.shape().iter().map(|n| *n as i64).collect();
            tensors.insert(name, Tensor::f_from_data_size(view.data(), &shape, kind)?);
        }
        Ok(Self { path: path.to_path_buf(), tensors })
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor that may be left out.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// A tensor the format prescribes.
    pub fn get(&self, name: &str) -> Result<&Tensor, ParityError> {
        self.find(name).ok_or_else(|| self.content_error(name, "is missing"))
    }

    /// All tensors whose names begin like this, by name.
    pub fn starting_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Tensor)> {
        let from = self.tensors.range(prefix.to_owned()..).take_while(move |(name, _)| name.starts_with(prefix));
        from.map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Compares a tensor stored whole, or as every k-th channel with sums over all (`#c<k>`, `#sum`, `#sumsq`).
    pub fn compare_stage(&self, name: &str, ours: &Tensor, channel_axis: i64, limit: Limit) -> Result<StageResult, ParityError> {
        if let Some(golden) = self.find(name) {
            return Ok(compare(name, ours, golden, limit));
        }
        let prefix = format!("{name}#c");
        let strided = self.tensors.range(prefix.clone()..).find(|(key, _)| key.starts_with(&prefix));
        let Some((key, golden)) = strided else {
            return Err(self.content_error(name, "is stored neither whole nor as every k-th channel"));
        };
        let step: i64 = key[prefix.len()..].parse().map_err(|_| self.content_error(key, "has no channel step"))?;
        let channels = ours.size().get(channel_axis as usize).copied().unwrap_or(0);
        let mut result = compare(name, &ours.slice(channel_axis, 0, channels, step), golden, limit);
        let (sum, sumsq) = (self.get(&format!("{name}#sum"))?, self.get(&format!("{name}#sumsq"))?);
        let others: Vec<i64> = (0..ours.dim() as i64).filter(|axis| *axis != channel_axis).collect();
        let our_sum = ours.to_kind(Kind::Double).sum_dim_intlist(others.as_slice(), false, Kind::Double);
        let share = (our_sum - sum).abs() / ((sumsq.sqrt() + 1.0) * sum_limit(limit));
        let worst = share.max().double_value(&[]);
        if worst.is_nan() || worst > 1.0 {
            result.within = false;
            result.detail = format!("a channel's sum is off by {worst:.2} times its tolerance");
        }
        Ok(result)
    }

    /// An error about this file.
    pub fn content_error(&self, key: &str, problem: &str) -> ParityError {
        ParityError::Content { path: self.path.clone(), key: key.to_owned(), problem: problem.to_owned() }
    }
}

/// How far a channel's sum may be off, over the root of its sum of squares: 1e-4 for features held to 3e-5 of their largest, and more in
/// proportion for those held to more. With batch statistics the reference's own f32 runs differ by that much.
fn sum_limit(limit: Limit) -> f64 {
    match limit {
        Limit::OfMax(share) => 1e-4 * (share / 3e-5).max(1.0),
        _ => 1e-4,
    }
}

/// A JSON companion.
#[derive(Debug)]
pub struct Companion {
    path: PathBuf,
    root: Value,
}

impl Companion {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, ParityError> {
        let file_error = |message: String| ParityError::File { path: path.to_path_buf(), message };
        let text = std::fs::read_to_string(path).map_err(|error| file_error(error.to_string()))?;
        let root = serde_json::from_str(&text).map_err(|error| file_error(error.to_string()))?;
        Ok(Self { path: path.to_path_buf(), root })
    }

    /// The value at a path of keys, as any deserialisable type.
    pub fn get<T: serde::de::DeserializeOwned>(&self, keys: &[&str]) -> Result<T, ParityError> {
        self.find(keys)?.ok_or_else(|| self.content_error(keys, "is missing".to_owned()))
    }

    /// A value that may be left out.
    pub fn find<T: serde::de::DeserializeOwned>(&self, keys: &[&str]) -> Result<Option<T>, ParityError> {
        let Some(value) = keys.iter().try_fold(&self.root, |value, key| value.get(key)) else { return Ok(None) };
        T::deserialize(value).map(Some).map_err(|problem| self.content_error(keys, problem.to_string()))
    }

    fn content_error(&self, keys: &[&str], problem: String) -> ParityError {
        ParityError::Content { path: self.path.clone(), key: keys.join("."), problem }
    }
}
