//! Optimiser and schedule.

use pivotal::model::params::Weights;
use pivotal::train::optim::{Adam, AdamSettings};
use pivotal::train::schedule::{OneCycle, ScheduleSettings, StepRates};
use tch::{Kind, Tensor};

fn schedule(total_steps: u64) -> OneCycle {
    OneCycle { settings: ScheduleSettings::default(), total_steps }
}

#[test]
fn schedule_has_the_values_of_the_specification() {
    let cases = [(0, 3e-4, 0.95), (5934, 1.65e-3, 0.90), (11868, 3e-3, 0.85), (20769, 1.5e-3, 0.90), (29669, 3e-8, 0.95)];
    for (step, lr, beta1) in cases {
        let rates = schedule(29_670).at(step);
        assert!((rates.lr - lr).abs() < 2e-8 && (rates.beta1 - beta1).abs() < 1e-6, "step {step}: {rates:?}");
    }
}

#[test]
fn schedule_of_any_length_is_finite() {
    for total_steps in [0, 1, 2, 3, 7] {
        for step in 0..=total_steps + 2 {
            let StepRates { lr, beta1 } = schedule(total_steps).at(step);
            assert!(lr > 0.0 && lr <= 0.003 && (0.85..=0.95).contains(&beta1), "step {step} of {total_steps}: {lr} {beta1}");
        }
    }
}

#[test]
fn settings_that_break_a_rule_are_named() {
    let schedule = ScheduleSettings { pct_start: 1.0, ..ScheduleSettings::default() };
    let adam = AdamSettings { beta2: -0.1, ..AdamSettings::default() };
    let target = pivotal::train::targets::TargetSettings { gaussian_overlap: f64::NAN, ..Default::default() };
    let loss = pivotal::train::loss::LossWeights { regression: -1.0, ..Default::default() };
    assert_eq!(schedule.check().unwrap_err().to_string(), "pct_start = 1.0: 0 <= share < 1");
    assert_eq!(adam.check().unwrap_err().to_string(), "beta2 = -0.1: 0 <= beta2 < 1");
    assert_eq!(target.check().unwrap_err().to_string(), "gaussian_overlap = NaN: 0 < overlap < 1");
    assert_eq!(loss.check().unwrap_err().to_string(), "regression = -1.0: must be 0 or more and finite");
    assert!(ScheduleSettings::default().check().is_ok() && AdamSettings::default().check().is_ok());
}

/// Two weights, the second without a gradient unless `both`.
fn two_weights() -> Adam {
    let a = Tensor::from_slice(&[1.0f32, -2.0, 0.5]).set_requires_grad(true);
    let b = Tensor::from_slice(&[4.0f32, 4.0]).set_requires_grad(true);
    Adam::new(vec![("a".to_owned(), a), ("b".to_owned(), b)], AdamSettings::default())
}

fn weight(adam: &Adam, name: &str) -> Tensor {
    adam.params().find(|(known, _)| *known == name).unwrap().1.shallow_clone()
}

fn give_gradient(adam: &mut Adam, name: &str, gradient: &[f32]) {
    (weight(adam, name) * Tensor::from_slice(gradient)).sum(Kind::Float).backward();
}

#[test]
fn step_equals_the_formula_in_f64() {
    let mut adam = two_weights();
    let (mut plain, mut mean, mut square) = ([1.0f64, -2.0, 0.5], [0.0; 3], [0.0; 3]);
    let gradients = [[0.3f32, -4.0, 0.001], [-0.2, 3.0, 0.002], [0.1, 0.0, -0.003]];
    for (step, gradient) in gradients.iter().enumerate() {
        let rates = StepRates { lr: 0.01 * (step + 1) as f64, beta1: 0.95 - 0.02 * step as f64 };
        adam.zero_grad();
        give_gradient(&mut adam, "a", gradient);
        adam.step(rates);
        let n = (step + 1) as i32;
        for idx in 0..3 {
            let g = f64::from(gradient[idx]);
            plain[idx] *= 1.0 - rates.lr * 0.01;
            mean[idx] = rates.beta1 * mean[idx] + (1.0 - rates.beta1) * g;
            square[idx] = 0.99 * square[idx] + 0.01 * g * g;
            let root = (square[idx] / (1.0 - 0.99f64.powi(n))).sqrt();
            plain[idx] -= rates.lr * mean[idx] / (1.0 - rates.beta1.powi(n)) / (root + 1e-8);
        }
    }
    let ours = Vec::<f32>::try_from(weight(&adam, "a").detach()).unwrap();
    assert!(ours.iter().zip(plain).all(|(ours, plain)| (f64::from(*ours) - plain).abs() < 1e-6), "{ours:?} {plain:?}");
    // Without a gradient a weight only decays.
    let decayed = 4.0 * (1.0 - 1e-4) * (1.0 - 2e-4) * (1.0 - 3e-4);
    assert!((weight(&adam, "b").double_value(&[0]) - decayed).abs() < 1e-6);
    assert_eq!(adam.steps(), 3);
}

#[test]
fn long_gradients_are_shortened_and_short_ones_kept() {
    for (gradient, length, after) in [([3.0f32, 0.0, 4.0], 5.0, 2.0), ([0.0, 1.0, 0.0], 1.0, 1.0)] {
        let mut adam = two_weights();
        give_gradient(&mut adam, "a", &gradient);
        assert!((adam.clip_grad_norm(2.0) - length).abs() < 1e-6);
        assert!((weight(&adam, "a").grad().norm().double_value(&[]) - after).abs() < 1e-5);
    }
    assert_eq!(two_weights().clip_grad_norm(2.0), 0.0);
}

#[test]
fn gradients_that_are_not_finite_are_named_and_left_alone() {
    let mut adam = two_weights();
    give_gradient(&mut adam, "a", &[1.0, 1.0, 1.0]);
    assert_eq!(adam.first_non_finite_gradient(), None);
    give_gradient(&mut adam, "b", &[30.0, f32::NAN]);
    assert!(adam.clip_grad_norm(2.0).is_nan());
    assert_eq!(adam.first_non_finite_gradient(), Some("b"));
    assert_eq!(weight(&adam, "b").grad().double_value(&[0]), 30.0);
}

#[test]
fn restored_state_goes_on_bit_for_bit() {
    let gradient = |step: usize| [0.3 - step as f32, (step as f32).sin(), 1e-3 * step as f32];
    let run = |adam: &mut Adam, steps: std::ops::Range<usize>| {
        for step in steps {
            adam.zero_grad();
            give_gradient(adam, "a", &gradient(step));
            give_gradient(adam, "b", &gradient(step + 5)[..2]);
            adam.step(schedule(20).at(step as u64));
        }
    };
    let mut whole = two_weights();
    run(&mut whole, 0..9);

    let mut first = two_weights();
    run(&mut first, 0..4);
    let state = first.state();
    let weights: Vec<(String, Tensor)> =
        first.params().map(|(name, weight)| (name.to_owned(), weight.detach().copy().set_requires_grad(true))).collect();
    run(&mut first, 4..6); // what happens after the state was taken does not change it
    let mut second = Adam::new(weights, AdamSettings::default());
    second.load_state(&state).unwrap();
    run(&mut second, 4..9);
    for name in ["a", "b"] {
        assert_eq!(weight(&second, name), weight(&whole, name), "{name}");
    }
    let (ours, expected) = (second.state(), whole.state());
    assert!(ours.len() == 5 && ours.iter().all(|(name, tensor)| expected[name] == *tensor));
}

#[test]
fn state_of_another_network_is_refused_and_changes_nothing() {
    let state = |change: &dyn Fn(&mut Weights)| {
        let mut state = two_weights().state();
        state.insert("steps".to_owned(), Tensor::from(7i64));
        change(&mut state);
        state
    };
    type Change<'a> = &'a dyn Fn(&mut Weights);
    let cases: [(Change<'_>, &str); 5] = [
        (&|s| drop(s.remove("exp_avg.b")), "optimiser state lacks `exp_avg.b`"),
        (&|s| drop(s.remove("steps")), "optimiser state lacks `steps`"),
        (
            &|s| drop(s.insert("exp_avg.c".to_owned(), Tensor::from(1f32))),
            "optimiser state `exp_avg.c` belongs to no weight of the network",
        ),
        (
            &|s| drop(s.insert("exp_avg_sq.a".to_owned(), Tensor::from_slice(&[1f32]))),
            "optimiser state `exp_avg_sq.a`: expected [3] Float, got [1] Float",
        ),
        (&|s| drop(s.insert("steps".to_owned(), Tensor::from(1f32))), "optimiser state `steps`: expected [] Int64, got [] Float"),
    ];
    for (change, message) in cases {
        let mut adam = two_weights();
        assert_eq!(adam.load_state(&state(change)).unwrap_err().to_string(), message);
        assert_eq!(adam.steps(), 0);
    }
}
