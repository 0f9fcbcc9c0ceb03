//! The 3-D backbone of the four CP-Voxel networks against the reference, both ways.

use std::collections::BTreeMap;
use std::rc::Rc;

use pivotal::sparse::{Lattice, Rows, Sites, offsets_first};
use tch::{Kind, Tensor};

use super::backbone::{Layer, Plan, Weights, fused, run_fused, run_tensors, voxel_res_backbone};
use super::to_vec_f32;
use crate::support::shared;
use pivotal::model::init::uniform;

/// Accepted difference relative to the largest value (golden/README.md section 9); what the f32 reference itself loses is 1.3e-6.
const TOLERANCE: f64 = 3e-5;

fn golden_weights(layers: &[Layer], seed: u64) -> Weights {
    let mut weights = Weights::new();
    let mut add = |name: String, shape: &[i64], lo: f64, hi: f64| {
        let n = shape.iter().product::<i64>() as usize;
        let values = Tensor::from_slice(&uniform(&name, seed, lo, hi, n)).view(shape);
        let values = if shape.len() == 5 { offsets_first(&values).unwrap() } else { values };
        weights.insert(name, values);
    };
    for layer in layers {
        let [kz, ky, kx] = layer.conv.kernel();
        let bound = (6.0 / (kz * ky * kx * layer.c_in) as f64).sqrt();
        add(format!("{}.weight", layer.conv_path), &[layer.c_out, kz, ky, kx, layer.c_in], -bound, bound);
        if layer.has_bias {
            add(format!("{}.bias", layer.conv_path), &[layer.c_out], -0.1, 0.1);
        }
        for (name, lo, hi) in [("weight", 0.8, 1.2), ("bias", -0.1, 0.1), ("running_mean", -0.1, 0.1), ("running_var", 0.5, 1.5)]
        {
            add(format!("{}.{name}", layer.norm_path), &[layer.c_out], lo, hi);
        }
    }
    weights
}

/// Compares rows with `{name}.features`, of which a file may hold only some channels.
fn assert_features(golden: &BTreeMap<String, Tensor>, name: &str, got: &Tensor, what: &str) {
    let prefix = format!("eval/b3d/{name}.features");
    let (key, expected) = golden
        .iter()
        .find(|(key, _)| **key == prefix || key.starts_with(&format!("{prefix}#c")))
        .unwrap_or_else(|| panic!("{prefix} is missing"));
    let step = key.split_once("#c").map_or(1, |(_, step)| step.parse().unwrap());
    let picked = got.slice(1, 0, None, step);
    assert_eq!(picked.size(), expected.size(), "{what} {name}");
    let difference = (&picked - expected).abs().max().double_value(&[]) / expected.abs().max().double_value(&[]);
    assert!(difference < TOLERANCE, "{what} {name}: {difference}");
    if let Some(sum) = golden.get(&format!("{prefix}#sum")) {
        let squares = &golden[&format!("{prefix}#sumsq")];
        let off = (got.sum_dim_intlist(0, false, Kind::Double) - sum).abs() / (squares.sqrt() + 1.0);
        assert!(off.max().double_value(&[]) < 1e-4, "{what} {name}: sums");
    }
}

fn check(model: &str, channels: [i64; 6]) {
    let golden: BTreeMap<String, Tensor> =
        Tensor::read_safetensors(shared(&format!("golden/models/{model}.safetensors"))).unwrap().into_iter().collect();
    let companion = std::fs::read_to_string(shared(&format!("golden/models/{model}.json"))).unwrap();
    let companion: serde_json::Value = serde_json::from_str(&companion).unwrap();
    let grid = |axis: usize| companion["grid_size"][axis].as_i64().unwrap();
    let lattice = Lattice::new(2, [grid(2) + 1, grid(1), grid(0)]).unwrap();
    let layers = voxel_res_backbone(channels);
    let weights = golden_weights(&layers, companion["weight_seed"].as_u64().unwrap());
    let (sites, rows) = Sites::from_coords(&golden["voxel/coords"], lattice).unwrap();
    let features = golden["eval/vfe/voxel_features"].index_select(0, &rows);
    let keys = sites.host_keys().unwrap();
    let sites = Rc::new(sites);
    let _no_grad = tch::no_grad_guard();
    for (name, sites, x) in run_tensors(&layers, &weights, &features, sites) {
        let indices = golden[&format!("eval/b3d/{name}.indices")].to_kind(Kind::Int64);
        assert_eq!(sites.coords().unwrap(), indices, "{model}: sites of {name}");
        assert_features(&golden, name, &x, model);
    }
    let (convs, plan) = (fused(&layers, &weights), Plan::new(&layers, &keys, lattice));
    run_fused(&layers, &convs, &plan, Rows::new(&to_vec_f32(&features), 5), |index, rows| {
        if let Some(name) = layers[index].output {
            let values: Vec<f32> = rows.rows().flatten().copied().collect();
            let values = Tensor::from_slice(&values).view([rows.len() as i64, rows.channels() as i64]);
            assert_features(&golden, name, &values, &format!("{model}, fused,"));
        }
    });
}

#[test]
fn voxel_backbones_match_the_reference_at_every_stage() {
    check("cp-voxel-xxs", [8, 8, 16, 32, 64, 64]);
    check("cp-voxel-xs", [12, 12, 24, 48, 96, 96]);
    check("cp-voxel-s", [16, 16, 32, 64, 128, 128]);
    check("cp-voxel", [16, 16, 32, 64, 128, 128]);
}
