//! The forward pass training runs against the plain one, and a network that learns.

use pivotal::model::expected_params;
use pivotal::model::layers::Mode;
use pivotal::model::params::{Params, Weights};
use pivotal::model::pillar_net::PillarNet;
use pivotal::model::pillar_vfe::PaddedPillars;
use pivotal::model::spec::ModelSpec;
use pivotal::train::fresh::fresh_weights;
use pivotal::train::loss::{LossWeights, detection_loss, probabilities};
use pivotal::train::optim::{Adam, AdamSettings, trainable};
use pivotal::train::schedule::{OneCycle, ScheduleSettings};
use pivotal::train::targets::{TargetSettings, Targets, TrueBox, draw_targets};
use pivotal::voxel::{Pillarizer, VoxelCaps, pillarize_on_device};
use tch::{Device, Kind, Tensor};

struct Scene {
    spec: ModelSpec,
    pillars: PaddedPillars,
    targets: Targets,
}

/// Two clouds of a few hundred points around a box each, on 24 x 16 cells.
fn scene(slots: Option<usize>) -> Scene {
    let mut spec = ModelSpec::builtin("cp-pillar-v0.64-xxs").unwrap();
    spec.grid.range = [-7.68, -5.12, -2.0, 7.68, 5.12, 4.0];
    spec.grid.max_points_per_voxel = slots;
    let boxes: Vec<Vec<TrueBox>> = (0..2)
        .map(|i| vec![TrueBox { row: [i as f32 * 4.0 - 3.0, 1.0 - i as f32, 0.5, 4.0, 1.8, 1.5, 0.3], class_idx: i }])
        .collect();
    let clouds = boxes.iter().enumerate().map(|(cloud_idx, boxes)| {
        let [x, y, z, ..] = boxes[0].row;
        let points: Vec<f32> = (0..900)
            .flat_map(|i| {
                let t = i as f32 + 0.3 * cloud_idx as f32;
                let ([a, b, c], spread) =
                    ([(t * 0.618) % 1.0, (t * 0.414) % 1.0, (t * 0.732) % 1.0], if i % 3 == 0 { 9.0 } else { 2.0 });
                [x + (a - 0.5) * spread, y + (b - 0.5) * spread, z + c - 0.5, (a * b).tanh(), c]
            })
            .collect();
        let caps = VoxelCaps { max_points_per_voxel: slots, max_voxels: None };
        pillarize_on_device(&mut Pillarizer::new(spec.grid(), caps), &points, 5, Device::Cpu).unwrap()
    });
    let clouds: Vec<_> = clouds.collect();
    let targets = draw_targets(&boxes, &spec.grid(), 1, 3, &TargetSettings::default());
    Scene { pillars: PaddedPillars::from_clouds(&clouds, slots), spec, targets }
}

enum Pass {
    Plain,
    Fast(Kind),
}

/// Loss, gradients by name, and running statistics after one pass from fresh weights.
fn step(scene: &Scene, pass: &Pass, mode: Mode) -> (f64, Vec<(String, Tensor)>, Weights) {
    let weights = fresh_weights(&scene.spec, 3);
    // A few scales below zero: a maximum before such a norm is a minimum.
    let _ = weights["vfe.pfn_layers.1.norm.weight"].slice(0, 0, None, 3).fill_(-0.7);
    let learned = trainable(&expected_params(&scene.spec), &weights);
    let net = PillarNet::new(&Params::load(&weights, Device::Cpu), &scene.spec);
    let head = match pass {
        Pass::Plain => net.forward(&scene.pillars, mode).head,
        Pass::Fast(kind) => net.forward_fast(&scene.pillars, mode, *kind),
    };
    let loss = detection_loss(&probabilities(&head.heat_map), &head.regression, &scene.targets).total(&LossWeights::default());
    loss.backward();
    let gradients = learned.iter().map(|(name, weight)| (name.clone(), weight.grad().to_kind(Kind::Double))).collect();
    let running = weights.into_iter().filter(|(name, _)| name.contains("running_")).collect();
    (loss.double_value(&[]), gradients, running)
}

fn length(tensor: &Tensor) -> f64 {
    tensor.to_kind(Kind::Double).norm().double_value(&[])
}

/// Length of the difference of all gradients together over their length.
fn gradient_error(ours: &[(String, Tensor)], plain: &[(String, Tensor)]) -> f64 {
    let all = |pairs: &mut dyn Iterator<Item = f64>| pairs.map(|length| length * length).sum::<f64>().sqrt();
    let difference = all(&mut ours.iter().zip(plain).map(|((_, a), (_, b))| length(&(a - b))));
    difference / all(&mut plain.iter().map(|(_, b)| length(b)))
}

#[test]
fn fast_pass_equals_the_plain_one_in_both_modes_padded_or_not() {
    for (slots, mode) in
        [(Some(20), Mode::Train), (Some(20), Mode::Eval), (Some(5), Mode::Train), (None, Mode::Train), (None, Mode::Eval)]
    {
        let scene = scene(slots);
        let (plain_loss, plain, plain_running) = step(&scene, &Pass::Plain, mode);
        let (loss, gradients, running) = step(&scene, &Pass::Fast(Kind::Float), mode);
        assert!((loss / plain_loss - 1.0).abs() < 1e-5, "{slots:?} {mode:?}: loss {loss}, plain {plain_loss}");
        let total: f64 = plain.iter().map(|(_, gradient)| length(gradient).powi(2)).sum::<f64>().sqrt();
        for ((name, ours), (_, plain)) in gradients.iter().zip(&plain) {
            let error = length(&(ours - plain)) / (length(plain) + 1e-5 * total);
            assert!(error < 1e-2, "{slots:?} {mode:?}: gradient of {name} is off by {error}");
        }
        assert!(gradient_error(&gradients, &plain) < 1e-3, "{}", gradient_error(&gradients, &plain));
        for (name, plain) in &plain_running {
            let error = (&running[name] - plain).abs().max().double_value(&[]);
            assert!(error <= 1e-5 * (1.0 + plain.abs().max().double_value(&[])), "{slots:?} {mode:?}: {name} is off by {error}");
        }
    }
}

#[test]
fn bf16_pass_stays_near_the_f32_one() {
    let scene = scene(Some(20));
    let (plain_loss, plain, _) = step(&scene, &Pass::Plain, Mode::Train);
    let (loss, gradients, _) = step(&scene, &Pass::Fast(Kind::BFloat16), Mode::Train);
    assert!((loss / plain_loss - 1.0).abs() < 1e-2, "loss {loss}, f32 {plain_loss}");
    let error = gradient_error(&gradients, &plain);
    assert!(error > 1e-5, "bf16 was not used");
    assert!(error < 0.1, "gradients are off by {error} of their length");
    assert!(gradients.iter().all(|(_, gradient)| gradient.isfinite().all().int64_value(&[]) == 1));
}

#[test]
fn fresh_network_learns_one_batch_in_either_precision() {
    let scene = scene(Some(20));
    for kind in [Kind::Float, Kind::BFloat16] {
        let weights = fresh_weights(&scene.spec, 1);
        let mut adam = Adam::new(trainable(&expected_params(&scene.spec), &weights), AdamSettings::default());
        let net = PillarNet::new(&Params::load(&weights, Device::Cpu), &scene.spec);
        let schedule = OneCycle { settings: ScheduleSettings::default(), total_steps: 60 };
        let mut losses = Vec::new();
        for step in 0..60 {
            adam.zero_grad();
            let head = net.forward_fast(&scene.pillars, Mode::Train, kind);
            let loss =
                detection_loss(&probabilities(&head.heat_map), &head.regression, &scene.targets).total(&LossWeights::default());
            loss.backward();
            adam.clip_grad_norm(10.0);
            adam.step(schedule.at(step));
            losses.push(loss.double_value(&[]));
        }
        let (first, last) = (losses[0], losses[59]);
        assert!(last < 0.1 * first, "{kind:?}: {first} to {last}");
    }
}
