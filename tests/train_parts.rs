//! The parts of a training step: targets, losses, schedule, optimiser, fresh weights, and the forward pass training runs.

mod forward;
mod losses;
mod optimizer;
mod targets;

use pivotal::model::expected_params;
use pivotal::model::spec::ModelSpec;
use pivotal::train::fresh::fresh_weights;

#[test]
fn fresh_weights_depend_on_seed_and_name_only() {
    let (small, large) = (ModelSpec::builtin("cp-pillar-v0.64-xxs").unwrap(), ModelSpec::builtin("cp-pillar-v0.4").unwrap());
    let (first, again, other) = (fresh_weights(&large, 1), fresh_weights(&large, 1), fresh_weights(&large, 2));
    assert!(first.iter().all(|(name, tensor)| again[name] == *tensor));
    let name = "backbone_2d.blocks.1.4.weight";
    assert_ne!(first[name], other[name]);
    assert_ne!(first[name], first["backbone_2d.blocks.1.7.weight"]);
    // Equal name and shape in another network: the same numbers.
    let shared = "dense_head.heads_list.0.hm.1.bias";
    assert_eq!(fresh_weights(&small, 1)[shared], first[shared]);
}

#[test]
fn fresh_weights_have_the_moments_of_each_kind_of_layer() {
    let spec = ModelSpec::builtin("cp-pillar-v0.4").unwrap();
    let weights = fresh_weights(&spec, 7);
    assert!(expected_params(&spec).iter().all(|decl| weights[&decl.name].size() == decl.shape));
    // (name, deviation, largest magnitude): uniform within b has deviation b / sqrt 3; normal has no bound.
    let uniform = |fan_in: f64| (1.0 / (3.0 * fan_in).sqrt(), 1.0 / fan_in.sqrt());
    let normal = |fan_in: f64| ((2.0 / fan_in).sqrt(), f64::INFINITY);
    let cases = [
        ("vfe.pfn_layers.1.linear.weight", uniform(64.0)),
        ("backbone_2d.blocks.0.1.weight", uniform(64.0 * 9.0)),
        ("backbone_2d.blocks.2.4.weight", uniform(256.0 * 9.0)),
        ("backbone_2d.deblocks.2.0.weight", uniform(128.0 * 16.0)),
        ("dense_head.shared_conv.0.weight", uniform(384.0 * 9.0)),
        ("dense_head.heads_list.0.hm.0.0.weight", uniform(64.0 * 9.0)),
        ("dense_head.heads_list.0.hm.1.weight", uniform(64.0 * 9.0)),
        ("dense_head.heads_list.0.center.0.0.weight", normal(64.0 * 9.0)),
        ("dense_head.heads_list.0.rot.1.weight", normal(64.0 * 9.0)),
    ];
    for (name, (deviation, bound)) in cases {
        let values = Vec::<f32>::try_from(weights[name].view([-1])).unwrap();
        let n = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let found = (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt();
        let tolerance = 4.0 / n.sqrt(); // four standard errors, of a mean in deviations and of a deviation
        assert!(mean.abs() < tolerance * deviation, "{name}: mean {mean}");
        assert!((found / deviation - 1.0).abs() < tolerance, "{name}: deviation {found}, expected {deviation}");
        assert!(values.iter().all(|v| f64::from(v.abs()) <= bound), "{name}: beyond {bound}");
    }
    let constants = [
        ("vfe.pfn_layers.0.norm.weight", 1.0),
        ("backbone_2d.blocks.0.2.bias", 0.0),
        ("dense_head.shared_conv.1.running_mean", 0.0),
        ("dense_head.shared_conv.1.running_var", 1.0),
        ("dense_head.heads_list.0.dim.0.0.bias", 0.0),
        ("dense_head.heads_list.0.dim.1.bias", 0.0),
        ("dense_head.heads_list.0.hm.0.1.weight", 1.0),
        ("dense_head.heads_list.0.hm.1.bias", -2.19f32),
    ];
    for (name, value) in constants {
        assert!(Vec::<f32>::try_from(&weights[name]).unwrap().iter().all(|v| *v == value), "{name} is not all {value}");
    }
    let bias = Vec::<f32>::try_from(&weights["dense_head.shared_conv.0.bias"]).unwrap();
    assert!(bias.iter().all(|v| v.abs() <= 1.0 / (384f32 * 9.0).sqrt()) && bias.iter().any(|v| *v != 0.0));
}
