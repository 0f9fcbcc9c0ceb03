//! The head's part of a spec: what is read, and what is refused.

use pivotal::model::spec::AnchorHeadSpec;

use super::{classes, head};

const YAML: &str = "
anchors:
  - {class: Vehicle, size_m: [4.7, 2.1, 1.7], bottom_z_m: 0.0, matched_iou: 0.55, unmatched_iou: 0.4}
  - {class: Pedestrian, size_m: [0.91, 0.86, 1.73], bottom_z_m: 0.0, matched_iou: 0.5, unmatched_iou: 0.35}
  - {class: Cyclist, size_m: [1.78, 0.84, 1.78], bottom_z_m: 0.0, matched_iou: 0.5, unmatched_iou: 0.35}
rotations_rad: [0.0, 1.57]
direction_bins: 2
direction_offset_rad: 0.78539
";

/// Every broken rule as `key = value: rule`.
fn problems(head: &AnchorHeadSpec) -> Vec<String> {
    let mut problems = Vec::new();
    head.check(&classes(), "head", &mut |holds, key, value, rule| {
        if !holds {
            problems.push(format!("{key} = {value:?}: {rule}"));
        }
    });
    problems
}

#[test]
fn yaml_is_read_and_strangers_are_refused() {
    assert_eq!(serde_saphyr::from_str::<AnchorHeadSpec>(YAML).unwrap(), head());
    assert_eq!(problems(&head()), [""; 0]);
    assert_eq!(head().anchors_per_cell(), 6);
    assert!(serde_saphyr::from_str::<AnchorHeadSpec>(&format!("{YAML}\nalign_center: true")).is_err());
    assert!(serde_saphyr::from_str::<AnchorHeadSpec>(&YAML.replace("direction_bins: 2", "")).is_err());
}

#[test]
fn values_that_break_a_rule_are_named() {
    type Change = fn(&mut AnchorHeadSpec);
    let cases: [(Change, &str); 9] = [
        (|head| head.anchors[1].class = "Vehicle".into(), "head.anchors = [\"Vehicle\", \"Vehicle\", \"Cyclist\"]"),
        (|head| drop(head.anchors.pop()), "head.anchors = [\"Vehicle\", \"Pedestrian\"]"),
        (|head| head.anchors[2].size_m[1] = 0.0, "head.anchors.Cyclist.size_m = [1.78, 0.0, 1.78]"),
        (|head| head.anchors[2].bottom_z_m = f32::NAN, "head.anchors.Cyclist.bottom_z_m = NaN"),
        (|head| head.anchors[0].unmatched_iou = 0.6, "head.anchors.Vehicle = (0.6, 0.55)"),
        (|head| head.anchors[0].matched_iou = f32::NAN, "head.anchors.Vehicle = (0.4, NaN)"),
        (|head| head.rotations_rad.clear(), "head.rotations_rad = []"),
        (|head| head.direction_bins = 0, "head.direction_bins = 0"),
        (|head| head.direction_offset_rad = 7.0, "head.direction_offset_rad = 7.0"),
    ];
    for (change, expected) in cases {
        let mut head = head();
        change(&mut head);
        let problems = problems(&head);
        assert!(problems.len() == 1 && problems[0].starts_with(expected), "{expected}: {problems:?}");
    }
}
