//! The weight generator against its vectors, bit for bit.

use std::path::Path;

use serde::Deserialize;

use super::compare::exact;
use super::{Case, ParityError};
use crate::model::init;

#[derive(Deserialize)]
struct Vector {
    name: String,
    seed: u64,
    fnv1a64: String,
    base: String,
    u24: Vec<u32>,
    f32_bits_uniform_m0_35_p0_35: Vec<String>,
}

pub fn run(path: &Path, case: &mut Case) -> Result<(), ParityError> {
    let file_error = |message: String| ParityError::File { path: path.to_path_buf(), message };
    let text = std::fs::read_to_string(path).map_err(|error| file_error(error.to_string()))?;
    let vectors: Vec<Vector> = serde_json::from_str(&text).map_err(|error| file_error(error.to_string()))?;
    for vector in vectors {
        let base = init::base(&vector.name, vector.seed);
        let bits: Vec<u32> = (0..vector.u24.len() as u64).map(|index| init::bits24(base, index)).collect();
        let n = vector.f32_bits_uniform_m0_35_p0_35.len();
        let floats =
            init::uniform(&vector.name, vector.seed, -0.35, 0.35, n).iter().map(|v| format!("{:08x}", v.to_bits())).collect();
        let hex = |value: u64| format!("{value:016x}");
        let ours = (hex(init::fnv1a64(&vector.name)), hex(base), bits, floats);
        let golden = (vector.fnv1a64, vector.base, vector.u24, vector.f32_bits_uniform_m0_35_p0_35);
        let stage = format!("{} seed {}", vector.name, vector.seed);
        case.stages.push(exact(&stage, &ours, &golden));
    }
    Ok(())
}
