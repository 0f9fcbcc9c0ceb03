//! Named tensors as safetensors bytes that give the same tensors back bit for bit, whatever their element type.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Device, Kind, Tensor};

use crate::model::params::Weights;

/// Element types a checkpoint holds.
const KINDS: [(Kind, Dtype); 5] = [
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Half, Dtype::F16),
    (Kind::Int64, Dtype::I64),
];

/// The file's bytes; equal tensors give equal bytes.
///
/// # Errors
/// The name of a tensor with another element type, or libtorch's words.
pub fn encode(tensors: &Weights) -> Result<Vec<u8>, String> {
    let mut blobs = BTreeMap::new();
    for (name, tensor) in tensors {
        let dtype = KINDS.iter().find(|(kind, _)| *kind == tensor.kind()).map(|(_, dtype)| *dtype);
        let dtype = dtype.ok_or_else(|| format!("`{name}` is {:?}", tensor.kind()))?;
        let blob = contiguous_bytes(tensor).map_err(|error| format!("`{name}`: {error}"))?;
        let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
        blobs.insert(name.as_str(), (dtype, shape, blob));
    }
    let views: Result<Vec<_>, _> =
        blobs.iter().map(|(name, (dtype, shape, blob))| Ok((*name, TensorView::new(*dtype, shape.clone(), blob)?))).collect();
    let views = views.map_err(|error: safetensors::SafeTensorError| error.to_string())?;
    safetensors::serialize(views, None).map_err(|error| error.to_string())
}

fn contiguous_bytes(tensor: &Tensor) -> Result<Vec<u8>, tch::TchError> {
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

/// Reads the file's bytes onto the CPU.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<Weights, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let decode_one = |(name, view): (String, TensorView<'_>)| {
        let kind = KINDS.iter().find(|(_, dtype)| *dtype == view.dtype()).map(|(kind, _)| *kind);
        let kind = kind.ok_or_else(|| format!("`{name}` is {}", view.dtype()))?;
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|error| format!("`{name}`: {error}"))?;
        Ok((name, tensor))
    };
    file.tensors().into_iter().map(decode_one).collect()
}
