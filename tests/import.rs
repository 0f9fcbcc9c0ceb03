//! Tests of `import`, `model::directory` and `model::init`.

mod damage;
mod directory;
mod golden;
mod init;
mod layouts;
mod pickles;

use sha2::{Digest, Sha256};
use tch::Tensor;

use crate::support::shared;

/// The golden companion of a folder.
fn golden(path: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(shared(path)).unwrap()).unwrap()
}

/// The bytes of a golden checkpoint.
fn ckpt(name: &str) -> Vec<u8> {
    std::fs::read(shared(&format!("golden/ckpt/{name}.pth"))).unwrap()
}

/// Contiguous little-endian bytes.
fn tensor_bytes(tensor: &Tensor) -> Vec<u8> {
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.contiguous().copy_data_u8(&mut bytes, tensor.numel());
    bytes
}

/// SHA-256 of [`tensor_bytes`].
fn tensor_sha256(tensor: &Tensor) -> String {
    format!("{:x}", Sha256::digest(tensor_bytes(tensor)))
}
