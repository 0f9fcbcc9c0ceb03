//! Sparsekd-spec section 10, check 9, and proof that narrower students compute what their teacher does.

use pivotal::distill::inherit::{InheritError, Inheritance, inherit};
use pivotal::model::layers::Mode;
use pivotal::model::net::Net;
use pivotal::model::params::{Params, Weights};
use pivotal::model::spec::ModelSpec;
use tch::{Device, Tensor};

use super::{largest, largest_difference, pillars, small, weights};

const ALL: [Inheritance; 5] =
    [Inheritance::Copy, Inheritance::Prefix, Inheritance::PrefixReleased, Inheritance::BnScale, Inheritance::L1Norm];

fn maps(spec: &ModelSpec, weights: &Weights) -> Tensor {
    let net = Net::new(&Params::load(weights, Device::Cpu), spec);
    let head = tch::no_grad(|| net.forward(&pillars(spec, &[5, 6]), Mode::Eval).head);
    Tensor::cat(&[head.heat_map, head.regression], 1)
}

#[test]
fn student_as_wide_as_its_teacher_inherits_everything_as_it_stands() {
    let (teacher, student) = (small("cp-pillar"), small("cp-pillar-v0.64"));
    let source = weights(&teacher, 1);
    for how in ALL {
        let inherited = inherit(&source, &teacher, &student, how).unwrap();
        assert_eq!(inherited.keys().collect::<Vec<_>>(), source.keys().collect::<Vec<_>>(), "{how:?}");
        for (name, tensor) in &inherited {
            assert_eq!(largest_difference(tensor, &source[name]), 0.0, "{how:?} {name}");
            assert_ne!(tensor.data_ptr(), source[name].data_ptr(), "{how:?} {name} shares its memory");
        }
    }
}

#[test]
fn prefix_takes_first_channels_and_the_same_of_each_part_of_a_joined_map() {
    let (teacher, student) = (small("cp-pillar-v0.64"), small("cp-pillar-v0.64-xxs"));
    let source = weights(&teacher, 2);
    let inherited = inherit(&source, &teacher, &student, Inheritance::Prefix).unwrap();
    let columns = |name: &str, rows: i64, columns: Vec<i64>| {
        let expected = source[name].narrow(0, 0, rows).index_select(1, &Tensor::from_slice(&columns));
        assert_eq!(largest_difference(&inherited[name], &expected), 0.0, "{name}");
    };
    columns("vfe.pfn_layers.0.linear.weight", 16, (0..11).collect());
    columns("vfe.pfn_layers.1.linear.weight", 32, (0..16).chain(32..48).collect());
    columns("backbone_2d.blocks.0.1.weight", 16, (0..32).collect());
    columns("backbone_2d.blocks.1.1.weight", 32, (0..16).collect());
    columns("dense_head.shared_conv.0.weight", 16, (0..32).chain(128..160).chain(256..288).collect());
    columns("dense_head.heads_list.0.dim.1.weight", 3, (0..16).collect());
    columns("backbone_2d.deblocks.1.0.weight", 32, (0..32).collect()); // [in, out, k, k]
    for part in ["weight", "bias", "running_mean", "running_var"] {
        let name = format!("backbone_2d.blocks.2.5.{part}");
        assert_eq!(largest_difference(&inherited[&name], &source[&name].narrow(0, 0, 64)), 0.0, "{name}");
    }
}

/// Silences all channels of the teacher's layers but as many as the student has, so that the student can compute the same.
/// `kept` tells which ones speak; of as many channels as the student has, all do.
fn silence(teacher: &Weights, student: &Weights, kept: impl Fn(i64, i64) -> Vec<i64>) {
    for (name, variance) in teacher.iter().filter(|(name, _)| name.ends_with(".running_var")) {
        let norm = name.strip_suffix(".running_var").unwrap();
        let (n_teacher, n_student) = (variance.size()[0], student[name].size()[0]);
        let speaks = kept(n_teacher, n_student);
        assert_eq!(speaks.len() as i64, n_student);
        let layer = layer_before(norm, teacher);
        let outputs = if norm.contains("deblocks") { 1 } else { 0 };
        for channel in (0..n_teacher).filter(|channel| !speaks.contains(channel)) {
            let mut silent = vec![format!("{norm}.weight"), format!("{norm}.bias"), format!("{norm}.running_mean")];
            silent.push(format!("{layer}.bias"));
            for vector in silent.iter().filter_map(|name| teacher.get(name)) {
                let _ = vector.narrow(0, channel, 1).zero_();
            }
            let _ = teacher[&format!("{layer}.weight")].narrow(outputs, channel, 1).zero_();
        }
    }
}

fn layer_before(norm: &str, weights: &Weights) -> String {
    let (parent, last) = norm.rsplit_once('.').unwrap();
    let layer = match last.parse::<i64>() {
        Ok(idx) => format!("{parent}.{}", idx - 1),
        Err(_) => format!("{parent}.linear"),
    };
    assert!(weights.contains_key(&format!("{layer}.weight")), "{layer}");
    layer
}

#[test]
fn student_computes_what_its_teacher_does_when_the_channels_left_out_are_silent() {
    let teacher = small("cp-pillar-v0.64");
    let first = |_: i64, n: i64| (0..n).collect::<Vec<_>>();
    let spread = |total: i64, n: i64| (0..n).map(|channel| channel * total / n).collect::<Vec<_>>();
    for name in ["cp-pillar-v0.64-s", "cp-pillar-v0.64-xs", "cp-pillar-v0.64-xxs"] {
        let student = small(name);
        let shapes = weights(&student, 0);
        for how in [Inheritance::Prefix, Inheritance::PrefixReleased, Inheritance::BnScale, Inheritance::L1Norm] {
            let source = weights(&teacher, 3);
            match how {
                Inheritance::Prefix | Inheritance::PrefixReleased => silence(&source, &shapes, first),
                _ => silence(&source, &shapes, spread),
            }
            let inherited = inherit(&source, &teacher, &student, how).unwrap();
            let (expected, ours) = (maps(&teacher, &source), maps(&student, &inherited));
            let apart = largest_difference(&ours, &expected) / largest(&expected);
            // Narrower pillar features are where the released prefix takes other inputs; -s has the teacher's.
            let is_equal = how != Inheritance::PrefixReleased || name == "cp-pillar-v0.64-s";
            assert_eq!(apart < 1e-4, is_equal, "{name} {how:?}: off by {apart:.2e}");
        }
    }
}

#[test]
fn copy_leaves_out_what_has_no_twin() {
    let (teacher, student) = (small("cp-pillar-v0.64"), small("cp-pillar-v0.64-s"));
    let inherited = inherit(&weights(&teacher, 4), &teacher, &student, Inheritance::Copy).unwrap();
    assert!(inherited.contains_key("vfe.pfn_layers.0.linear.weight"));
    assert!(!inherited.contains_key("dense_head.shared_conv.0.weight"));
}

#[test]
fn networks_that_cannot_inherit_are_refused_with_both_sides() {
    let (wide, narrow) = (small("cp-pillar-v0.64"), small("cp-pillar-v0.64-s"));
    let mut other_classes = narrow.clone();
    other_classes.classes.swap(0, 1);
    let mut other_columns = narrow.clone();
    other_columns.input.features.pop();
    let pivotal::model::spec::NetworkSpec::Pillar(net) = &narrow.network else { panic!("a pillar spec") };
    let with_layers = |layer_nums: Vec<usize>| {
        let mut net = net.clone();
        net.backbone_2d.layer_nums = layer_nums;
        ModelSpec { network: pivotal::model::spec::NetworkSpec::Pillar(net), ..narrow.clone() }
    };
    type Expected = fn(&InheritError) -> bool;
    let cases: [(&ModelSpec, &ModelSpec, Expected); 5] = [
        (&wide, &other_classes, |error| matches!(error, InheritError::Classes { .. })),
        (&wide, &other_columns, |error| matches!(error, InheritError::Features { .. })),
        (&narrow, &wide, |error| matches!(error, InheritError::Wider { teacher: 32, student: 64, .. })),
        (
            &wide,
            &with_layers(vec![4, 5, 5]),
            |error| matches!(error, InheritError::Missing { name } if name.contains("blocks.0.13")),
        ),
        (&wide, &with_layers(vec![2, 5, 5]), |error| matches!(error, InheritError::Unused { count: 5, .. })),
    ];
    for (teacher, student, expected) in cases {
        let error = inherit(&weights(teacher, 5), teacher, student, Inheritance::Prefix).unwrap_err();
        assert!(expected(&error), "{error}");
    }
}
