//! Sparsekd-spec section 10, check 12, and the fast paths of the teacher.

use pivotal::distill::TeacherMode;
use pivotal::distill::teacher::{Teacher, TeacherOptions};
use pivotal::model::layers::Mode;
use pivotal::model::net::Net;
use pivotal::model::params::{Params, Weights};
use pivotal::model::spec::ModelSpec;
use pivotal::pipeline::{Precision, boxes_from_maps};
use tch::{Device, IndexOp, Tensor};

use super::{largest, largest_difference, pillars, small, weights};

const OPTIONS: TeacherOptions =
    TeacherOptions { mode: TeacherMode::Eval, precision: Precision::F32, regression: true, device: Device::Cpu };

fn teacher(spec: &ModelSpec, weights: &Weights, mode: TeacherMode, precision: Precision) -> Teacher {
    let options = TeacherOptions { mode, precision, ..OPTIONS };
    Teacher::from_parts(spec.clone(), weights, "", spec.grid.range, options).unwrap()
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    largest_difference(a, b) / largest(b)
}

#[test]
fn batch_statistics_depend_on_the_other_frames_and_running_ones_do_not() {
    let spec = small("cp-pillar-v0.64-xxs");
    let weights = weights(&spec, 11);
    for (mode, depends) in [(TeacherMode::Train, true), (TeacherMode::Eval, false)] {
        let teacher = teacher(&spec, &weights, mode, Precision::F32);
        let first_of = |seeds: &[u64]| teacher.output(&pillars(&spec, seeds)).unwrap().heat_map.i(0);
        let difference = apart(&first_of(&[1, 2]), &first_of(&[1, 3]));
        assert_eq!(difference > 1e-3, depends, "{mode:?}: {difference:.2e}");
    }
}

#[test]
fn asking_changes_neither_the_answers_nor_the_weights_it_was_made_from() {
    let spec = small("cp-pillar-v0.64-xxs");
    let weights = weights(&spec, 12);
    let before: Vec<Tensor> = weights.values().map(Tensor::copy).collect();
    let teacher = teacher(&spec, &weights, TeacherMode::Train, Precision::F32);
    let batch = pillars(&spec, &[1, 2]);
    let [first, second] = [(); 2].map(|()| teacher.output(&batch).unwrap());
    assert_eq!(largest_difference(&first.heat_map, &second.heat_map), 0.0);
    assert_eq!(first.boxes, second.boxes);
    assert!(!first.heat_map.requires_grad());
    for ((name, after), before) in weights.iter().zip(before) {
        assert_eq!(largest_difference(after, &before), 0.0, "{name}");
    }
}

#[test]
fn teacher_says_what_the_plain_network_says() {
    let spec = small("cp-pillar-v0.64-s");
    let weights = weights(&spec, 13);
    let batch = pillars(&spec, &[4, 5, 6]);
    for (mode, plain_mode) in [(TeacherMode::Eval, Mode::Eval), (TeacherMode::Train, Mode::Train)] {
        let own: Weights = weights.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
        let net = Net::new(&Params::load(&own, Device::Cpu), &spec);
        let plain = tch::no_grad(|| net.forward(&batch, plain_mode).head);
        let exact = teacher(&spec, &weights, mode, Precision::F32).output(&batch).unwrap();
        assert!(apart(&exact.heat_map, &plain.heat_map) < 1e-4, "{mode:?}");
        assert!(apart(exact.regression.as_ref().unwrap(), &plain.regression) < 1e-4, "{mode:?}");
        let rounded = teacher(&spec, &weights, mode, Precision::Bf16).output(&batch).unwrap();
        let difference = apart(&rounded.heat_map, &plain.heat_map);
        assert!(difference > 0.0 && difference < 0.1, "{mode:?}: {difference:.2e}");

        for (frame_idx, boxes) in exact.boxes.iter().enumerate() {
            let one = |t: &Tensor| t.i(frame_idx as i64).unsqueeze(0);
            let head = pivotal::model::center_head::HeadMaps {
                shared: one(&plain.shared),
                heat_map: one(&plain.heat_map),
                regression: one(&plain.regression),
            };
            let expected = boxes_from_maps(&head, &spec).unwrap().decoded;
            assert!(expected.len() > 10, "{} boxes are no test", expected.len());
            assert_eq!(boxes.len(), expected.len(), "{mode:?} frame {frame_idx}");
        }
    }
}

#[test]
fn thresholds_of_deployment_do_not_hide_boxes_from_the_student() {
    let mut spec = small("cp-pillar-v0.64-xxs");
    let weights = weights(&spec, 14);
    let all = teacher(&spec, &weights, TeacherMode::Eval, Precision::F32).output(&pillars(&spec, &[7])).unwrap();
    for class in spec.classes.clone() {
        spec.postprocess.class_score_thresholds.insert(class, 0.999);
    }
    let strict = teacher(&spec, &weights, TeacherMode::Eval, Precision::F32).output(&pillars(&spec, &[7])).unwrap();
    assert!(!all.boxes[0].is_empty());
    assert_eq!(all.boxes, strict.boxes);
}

#[test]
fn ranges_that_are_no_whole_number_of_the_teachers_cells_are_refused() {
    let spec = small("cp-pillar");
    let range = [-5.0, -5.12, -2.0, 5.0, 5.12, 4.0];
    let error = Teacher::from_parts(spec.clone(), &weights(&spec, 15), "", range, OPTIONS).unwrap_err().to_string();
    assert!(error.starts_with("the teacher cannot be run over the student's range: ") && error.contains("along x"), "{error}");
}
