//! The forward pass training runs against the plain one, and a network that learns.

use pivotal::model::center_head::HeadMaps;
use pivotal::model::expected_params;
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::layers::Mode;
use pivotal::model::net::{Front, Net};
use pivotal::model::params::{Params, Weights};
use pivotal::model::pillar_vfe::{PaddedVoxels, PillarVfe};
use pivotal::model::spec::ModelSpec;
use pivotal::train::fresh::fresh_weights;
use pivotal::train::loss::{LossWeights, detection_loss, probabilities};
use pivotal::train::optim::{Adam, AdamSettings, trainable};
use pivotal::train::schedule::{OneCycle, ScheduleSettings};
use pivotal::train::targets::{TargetSettings, Targets, TrueBox, draw_targets};
use pivotal::voxel::{VoxelCaps, Voxelizer, voxelize_on_device};
use tch::{Device, Kind, Tensor};

struct Scene {
    spec: ModelSpec,
    pillars: PaddedVoxels,
    targets: Targets,
}

const PILLARS: (&str, [f32; 4]) = ("cp-pillar-v0.64-xxs", [-7.68, -5.12, 7.68, 5.12]);
const VOXELS: (&str, [f32; 4]) = ("cp-voxel-xxs", [-8.0, -4.8, 8.0, 4.8]);

/// Two clouds of a few hundred points around a box each, over a few metres: on 24 x 16 pillars, or 20 x 12 cells of a voxel network's maps.
fn scene((name, [x0, y0, x1, y1]): (&str, [f32; 4]), slots: Option<usize>) -> Scene {
    let mut spec = ModelSpec::builtin(name).unwrap();
    spec.grid.range = [x0, y0, -2.0, x1, y1, 4.0];
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
        voxelize_on_device(&mut Voxelizer::new(spec.grid(), caps), &points, 5, Device::Cpu).unwrap()
    });
    let clouds: Vec<_> = clouds.collect();
    let targets = draw_targets(&boxes, &spec.grid(), spec.network.stride(), 3, &TargetSettings::default());
    Scene { pillars: PaddedVoxels::from_clouds(&clouds, slots), spec, targets }
}

enum Pass {
    Plain,
    Fast(Kind),
}

/// What a pass gave, with the gradients of some weights by name.
struct Outcome {
    loss: f64,
    gradients: Vec<(String, Tensor)>,
    running: Weights,
}

/// Weights away from every kink: norms that are neither 0 nor 1, a few scales below zero.
fn weights(spec: &ModelSpec) -> Weights {
    let weights = hash_weights(&expected_params(spec), 5, &HeadMultipliers { hm_weight: 0.3 });
    // A maximum before a norm that turns signs is a minimum.
    for (_, scale) in weights.iter().filter(|(name, _)| name.starts_with("vfe.") && name.ends_with("norm.weight")) {
        let _ = scale.slice(0, 0, None, 3).fill_(-0.7);
    }
    weights
}

fn vfe(net: &Net) -> &PillarVfe {
    match &net.front {
        Front::Pillar(vfe) => vfe,
        Front::Voxel(_) => panic!("voxels have no VFE"),
    }
}

/// Loss, gradients of the weights that begin with `of`, and running statistics after one pass, which goes back from its loss itself.
fn outcome(spec: &ModelSpec, weights: Weights, of: &str, pass: impl FnOnce(&Net) -> Tensor) -> Outcome {
    let learned = trainable(&expected_params(spec), &weights);
    let loss = pass(&Net::new(&Params::load(&weights, Device::Cpu), spec));
    let gradients = learned.iter().filter(|(name, _)| name.starts_with(of));
    Outcome {
        loss: loss.double_value(&[]),
        gradients: gradients.map(|(name, weight)| (name.clone(), weight.grad().to_kind(Kind::Double))).collect(),
        running: weights.into_iter().filter(|(name, _)| name.starts_with(of) && name.contains("running_")).collect(),
    }
}

fn step(scene: &Scene, pass: &Pass, mode: Mode) -> Outcome {
    let loss_of = |head: &HeadMaps| {
        detection_loss(&probabilities(&head.heat_map), &head.regression, &scene.targets).total(&LossWeights::default())
    };
    outcome(&scene.spec, weights(&scene.spec), "", |net| match pass {
        Pass::Plain => {
            let loss = loss_of(&net.forward(&scene.pillars, mode).head);
            loss.backward();
            loss
        }
        Pass::Fast(kind) => {
            let pass = net.forward_fast(&scene.pillars, mode, *kind);
            let loss = loss_of(&pass.maps);
            pass.backward(&loss);
            loss
        }
    })
}

fn length(tensor: &Tensor) -> f64 {
    tensor.norm().double_value(&[])
}

/// Length of the difference of all gradients together over their length.
fn gradient_error(ours: &Outcome, plain: &Outcome) -> f64 {
    let all = |lengths: &mut dyn Iterator<Item = f64>| lengths.map(|length| length * length).sum::<f64>().sqrt();
    let difference = all(&mut ours.gradients.iter().zip(&plain.gradients).map(|((_, a), (_, b))| length(&(a - b))));
    difference / all(&mut plain.gradients.iter().map(|(_, b)| length(b)))
}

const CASES: [(Option<usize>, Mode); 6] = [
    (Some(20), Mode::Train),
    (Some(20), Mode::Eval),
    (Some(4), Mode::Train),
    (Some(4), Mode::Eval),
    (None, Mode::Train),
    (None, Mode::Eval),
];

#[test]
fn flat_pillar_features_equal_the_padded_ones_with_gradients_and_statistics() {
    for (slots, mode) in CASES {
        let scene = scene(PILLARS, slots);
        let n_voxels = scene.pillars.num_points.size()[0];
        // Any direction will do to push features in; this one treats no two of them alike.
        let direction = Tensor::arange(n_voxels * 32, (Kind::Float, Device::Cpu)).cos().view([n_voxels, 32]);
        let of_features = |features: fn(&Net, &PaddedVoxels, Mode) -> Tensor| {
            outcome(&scene.spec, weights(&scene.spec), "vfe.", |net| {
                let loss = (features(net, &scene.pillars, mode) * &direction).sum(Kind::Float);
                loss.backward();
                loss
            })
        };
        let plain = of_features(|net, pillars, mode| vfe(net).forward(pillars, mode).pillar_features);
        let flat = of_features(|net, pillars, mode| vfe(net).forward_flat(pillars, mode));
        assert!(
            (flat.loss - plain.loss).abs() < 1e-4 * (1.0 + plain.loss.abs()),
            "{slots:?} {mode:?}: {} {}",
            flat.loss,
            plain.loss
        );
        assert_eq!(plain.gradients.len(), 6);
        for ((name, ours), (_, plain)) in flat.gradients.iter().zip(&plain.gradients) {
            let error = length(&(ours - plain)) / length(plain);
            assert!(error < 1e-3, "{slots:?} {mode:?}: gradient of {name} is off by {error}");
        }
        assert_eq!(plain.running.len(), 4);
        for (name, plain) in &plain.running {
            let error = (&flat.running[name] - plain).abs().max().double_value(&[]);
            assert!(error <= 1e-5 * (1.0 + plain.abs().max().double_value(&[])), "{slots:?} {mode:?}: {name} is off by {error}");
        }
    }
}

#[test]
fn fast_pass_equals_the_plain_one() {
    // Rounding flips ReLUs, and batch statistics carry every flip everywhere: gradients agree less well than losses.
    let modes = [(Mode::Eval, 2e-3), (Mode::Train, 5e-2)];
    for (of, (mode, gradient_limit)) in [PILLARS, VOXELS].into_iter().flat_map(|of| modes.map(|mode| (of, mode))) {
        let scene = scene(of, Some(20));
        let (plain, fast) = (step(&scene, &Pass::Plain, mode), step(&scene, &Pass::Fast(Kind::Float), mode));
        assert!((fast.loss / plain.loss - 1.0).abs() < 1e-5, "{of:?} {mode:?}: loss {}, plain {}", fast.loss, plain.loss);
        let error = gradient_error(&fast, &plain);
        assert!(error < gradient_limit, "{of:?} {mode:?}: gradients are off by {error}");
        for (name, running) in &plain.running {
            let off = (&fast.running[name] - running).abs().max().double_value(&[]);
            assert!(off <= 1e-4 * (1.0 + running.abs().max().double_value(&[])), "{of:?} {mode:?}: {name} is off by {off}");
        }
    }
}

#[test]
fn bf16_pass_stays_near_the_f32_one() {
    // A step of bf16 is 2^-8. Cells without points all hold the same value, so rounding flips their ReLUs together, and batch
    // statistics of these few cells carry that everywhere.
    for (mode, loss_limit, gradient_limit) in [(Mode::Eval, 1e-2, 0.3), (Mode::Train, 3e-2, 0.8)] {
        let scene = scene(PILLARS, Some(20));
        let (plain, fast) = (step(&scene, &Pass::Plain, mode), step(&scene, &Pass::Fast(Kind::BFloat16), mode));
        let loss_error = (fast.loss / plain.loss - 1.0).abs();
        let error = gradient_error(&fast, &plain);
        assert!(loss_error < loss_limit, "{mode:?}: loss {}, f32 {}", fast.loss, plain.loss);
        assert!(error < gradient_limit, "{mode:?}: gradients are off by {error} of their length");
        assert!(error > 1e-4, "{mode:?}: bf16 was not used");
    }
}

#[test]
fn fresh_network_learns_one_batch_in_either_precision() {
    const N_STEPS: u64 = 25;
    for (of, kind) in [(PILLARS, Kind::Float), (PILLARS, Kind::BFloat16), (VOXELS, Kind::Float)] {
        let scene = scene(of, Some(20));
        let weights = fresh_weights(&scene.spec, 1);
        let mut adam = Adam::new(trainable(&expected_params(&scene.spec), &weights), AdamSettings::default());
        let net = Net::new(&Params::load(&weights, Device::Cpu), &scene.spec);
        let schedule = OneCycle { settings: ScheduleSettings::default(), total_steps: N_STEPS };
        let mut losses = Vec::new();
        for step in 0..N_STEPS {
            adam.zero_grad();
            let pass = net.forward_fast(&scene.pillars, Mode::Train, kind);
            let HeadMaps { heat_map, regression, .. } = &pass.maps;
            let loss = detection_loss(&probabilities(heat_map), regression, &scene.targets).total(&LossWeights::default());
            pass.backward(&loss);
            adam.clip_grad_norm(10.0);
            adam.step(schedule.at(step));
            losses.push(loss.double_value(&[]));
        }
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(last < 0.5 * first, "{of:?} {kind:?}: {first} to {last}");
    }
}
