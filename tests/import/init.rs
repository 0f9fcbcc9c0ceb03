//! The weight generator against the golden bits.

use pivotal::model::init::{HeadMultipliers, base, bits24, fnv1a64, hash_weights, uniform};
use pivotal::model::params::ParamDecl;
use serde_json::Value;
use tch::Kind;

use super::{golden, tensor_sha256};

#[test]
fn generator_golden_vectors_match_bit_for_bit() {
    let vectors = golden("golden/hash/vectors.json");
    let vectors = vectors.as_array().unwrap();
    assert!(vectors.len() >= 5);
    let hex = |v: &Value| u64::from_str_radix(v.as_str().unwrap(), 16).unwrap();
    for v in vectors {
        let (name, seed) = (v["name"].as_str().unwrap(), v["seed"].as_u64().unwrap());
        assert_eq!(fnv1a64(name), hex(&v["fnv1a64"]), "{name} {seed}");
        assert_eq!(base(name, seed), hex(&v["base"]), "{name} {seed}");
        let u24 = v["u24"].as_array().unwrap();
        for (index, want) in u24.iter().enumerate() {
            assert_eq!(u64::from(bits24(base(name, seed), index as u64)), want.as_u64().unwrap(), "{name} {seed} {index}");
        }
        let want: Vec<u64> = v["f32_bits_uniform_m0_35_p0_35"].as_array().unwrap().iter().map(hex).collect();
        let got: Vec<u64> = uniform(name, seed, -0.35, 0.35, want.len()).iter().map(|x| u64::from(x.to_bits())).collect();
        assert_eq!(got, want, "{name} {seed}");
    }
}

#[test]
fn hash_weights_checkpoint_digests_match_for_every_tensor() {
    let ckpt = golden("golden/ckpt/ckpt.json");
    for file in ["cp-pillar-v0.64_zip", "cp-voxel-xxs_legacy"] {
        let params = ckpt[file]["params"].as_object().unwrap();
        let decls: Vec<ParamDecl> = params
            .iter()
            .map(|(name, row)| ParamDecl {
                name: name.clone(),
                shape: row[0].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect(),
                kind: if row[1] == "int64" { Kind::Int64 } else { Kind::Float },
            })
            .collect();
        let multipliers = HeadMultipliers { hm_weight: ckpt[file]["hm_weight_mult"].as_f64().unwrap() };
        let weights = hash_weights(&decls, ckpt[file]["seed"].as_u64().unwrap(), &multipliers);
        assert_eq!(weights.len(), params.len());
        for (name, tensor) in &weights {
            assert_eq!(tensor_sha256(tensor), params[name][2].as_str().unwrap(), "{file} {name}");
        }
    }
}
