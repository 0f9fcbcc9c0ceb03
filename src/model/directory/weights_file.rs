//! weights.safetensors: f32 or f16 on disk, f32 in memory.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Device, Kind, Tensor};

use super::Problem;
use crate::model::params::Weights;

/// Element type on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsDtype {
    /// Exact.
    F32,
    /// Half the size; a load widens the rounded values.
    F16,
}

/// The file's bytes; the same weights give the same bytes.
pub fn encode(weights: &Weights, dtype: WeightsDtype) -> Result<Vec<u8>, String> {
    let (kind, file_dtype) = match dtype {
        WeightsDtype::F32 => (Kind::Float, Dtype::F32),
        WeightsDtype::F16 => (Kind::Half, Dtype::F16),
    };
    let mut blobs = BTreeMap::new();
    for (name, tensor) in weights {
        let blob = contiguous_bytes(tensor, kind).map_err(|error| format!("`{name}`: {error}"))?;
        if kind == Kind::Half && !all_finite(&tensor.to_kind(kind)) {
            return Err(format!("`{name}` has values beyond the range of f16, save it as f32"));
        }
        blobs.insert(name, (tensor.size().iter().map(|&n| n as usize).collect::<Vec<_>>(), blob));
    }
    let views: Result<Vec<_>, _> = blobs
        .iter()
        .map(|(name, (shape, blob))| Ok((name.as_str(), TensorView::new(file_dtype, shape.clone(), blob)?)))
        .collect();
    let views = views.map_err(|error: safetensors::SafeTensorError| error.to_string())?;
    // What torch's own loaders look for.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(|error| error.to_string())
}

fn contiguous_bytes(tensor: &Tensor, kind: Kind) -> Result<Vec<u8>, tch::TchError> {
    let tensor = tensor.f_to_device(Device::Cpu)?.f_to_kind(kind)?.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

/// Reads the file's bytes; f16 is widened to f32, anything else keeps its element type.
pub fn decode(bytes: &[u8]) -> Result<Weights, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    file.tensors().into_iter().map(|(name, view)| Ok((name.clone(), decode_tensor(&name, &view)?))).collect()
}

fn decode_tensor(name: &str, view: &TensorView<'_>) -> Result<Tensor, String> {
    let kind = match view.dtype() {
        Dtype::F16 => Kind::Half,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        other => return Err(format!("`{name}` is {other}, f32 or f16 needed")),
    };
    let shape: Result<Vec<i64>, _> = view.shape().iter().map(|&n| i64::try_from(n)).collect();
    let shape = shape.map_err(|_| format!("`{name}` has shape {:?}", view.shape()))?;
    let widened = if kind == Kind::Half { Kind::Float } else { kind };
    Tensor::f_from_data_size(view.data(), &shape, kind)
        .and_then(|tensor| tensor.f_to_kind(widened))
        .map_err(|error| format!("`{name}`: {error}"))
}

/// What is wrong with a tensor by itself.
pub fn value_problem(name: &str, tensor: &Tensor) -> Option<Problem> {
    if tensor.kind() != Kind::Float {
        return Some(Problem::Dtype { name: name.to_owned(), found: tensor.kind() });
    }
    if all_finite(tensor) {
        return None;
    }
    let bad = tensor.isfinite().logical_not().flatten(0, -1);
    let count = bad.sum(Kind::Int64).int64_value(&[]);
    let first = bad.to_kind(Kind::Uint8).argmax(0, false).int64_value(&[]);
    Some(Problem::NotFinite { name: name.to_owned(), count, numel: tensor.numel(), first })
}

fn all_finite(tensor: &Tensor) -> bool {
    bool::try_from(tensor.isfinite().all()).unwrap_or(false)
}
