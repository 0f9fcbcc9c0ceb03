//! Parameters: files, overrides, rules, and the places that repeat the declarations.

use std::path::Path;

use pivotal::node::args::{ParamSource, split_ros_args};
use pivotal::node::config::ResolvedParams;
use pivotal::node::names::NodeNames;
use pivotal::node::param_value::{ParamValue, parse_param_file};
use pivotal::node::params::{DECLARATIONS, params_table_markdown};
use pivotal::replay::{MARKERS_TOPIC, OBJECTS_TOPIC, REPORT_TOPIC};

/// Parameters from the text between `--ros-args` and the end.
fn resolve(ros_args: &[&str]) -> Result<ResolvedParams, String> {
    let line = ["--ros-args"].iter().chain(ros_args).map(|arg| (*arg).to_owned());
    let (_, ros) = split_ros_args(line).map_err(|error| error.to_string())?;
    ResolvedParams::new(&ros.params, "/detector").map_err(|error| error.to_string())
}

#[test]
fn parameters_wrong_are_refused_with_key_value_and_rule() {
    let cases = [
        ("no_such:=1", "parameter `no_such` = 1 (-p): is not a parameter of this node"),
        ("Device:=cpu", "parameter `Device` = \"cpu\" (-p): is not a parameter"),
        ("device:=gpu", "parameter `device` = \"gpu\" (-p): must be string `auto`, `cpu` or `cuda:N`"),
        ("device:=cuda:-1", "must be string `auto`, `cpu` or `cuda:N`"),
        ("device:=0", "parameter `device` = 0 (-p): must be string `auto`, `cpu` or `cuda:N`, not integer"),
        ("precision:=f16", "parameter `precision` = \"f16\" (-p): must be string out of `f32`, `bf16`"),
        ("num_threads:=-1", "parameter `num_threads` = -1 (-p): must be integer in [0, 1024]"),
        ("num_threads:=2.0", "parameter `num_threads` = 2.0 (-p): must be integer in [0, 1024], not double"),
        ("input_reliability:=BEST_EFFORT", "out of `best_effort`, `reliable`"),
        ("input_depth:=0", "parameter `input_depth` = 0 (-p): must be integer in [1, 100] (clouds)"),
        ("max_points:=20000001", "must be integer in [1, 20000000] (points)"),
        ("intensity_mode:=log", "out of `model`, `raw`, `tanh`, `scale`, `scale_tanh`"),
        ("intensity_factor:=0.0", "parameter `intensity_factor` = 0.0 (-p): must be double above 0"),
        ("intensity_factor:=0.5", "must stay 1.0 with intensity_mode `model`"),
        ("intensity_field:=3", "must be string, not integer"),
        ("fill_absent:=[elongation]", "must be string_array of `feature=number`, features `intensity`, `elongation`"),
        ("fill_absent:=[x=0]", "must be string_array of `feature=number`"),
        ("fill_absent:=[elongation=nan]", "must be string_array of `feature=number`"),
        ("score_threshold:=1.0", "parameter `score_threshold` = 1.0 (-p): must be double in [0, 1)"),
        ("score_threshold:=.nan", "parameter `score_threshold` = NaN (-p): must be double in [0, 1)"),
        ("score_threshold:=high", "must be double in [0, 1), not string"),
        ("class_score_thresholds:=[Vehicle]", "must be string_array of `class=score`, scores in [0, 1)"),
        ("class_score_thresholds:=[Vehicle=1.0]", "must be string_array of `class=score`"),
        ("autoware_labels:=[Vehicle=TRAM]", "must be string_array of `class=LABEL`, labels `UNKNOWN`, `CAR`"),
        ("output_reliability:=maybe", "out of `best_effort`, `reliable`"),
        ("output_depth:=0", "must be integer in [1, 100] (messages)"),
        ("lifecycle:=1", "must be bool, not integer"),
        ("nms_iou:=1.5", "parameter `nms_iou` = 1.5 (-p): must be double in [0, 1]"),
        ("classes:=Vehicle", "parameter `classes` = \"Vehicle\" (-p): must be string_array, not string"),
        ("classes:=[1, 2]", "must be string_array, not array of other than strings"),
        ("max_detections:=-5", "must be integer in [0, 100000] (boxes)"),
        ("publish_markers:=1", "parameter `publish_markers` = 1 (-p): must be bool, not integer"),
        ("marker_lifetime_s:=-0.1", "must be double in [0, 3600] (s)"),
        ("diagnostics_period_s:=0.0", "parameter `diagnostics_period_s` = 0.0 (-p): must be double in [0.1, 60] (s)"),
        ("input_timeout_s:=", "parameter `input_timeout_s` = null (-p): must be double in [0.1, 3600] (s), not nothing"),
        ("model_dir:=''", "parameter `model_dir` = \"\" (-p): must be string that is not empty"),
    ];
    for (assignment, expected) in cases {
        let message = resolve(&["-p", "model_dir:=/m", "-p", assignment]).unwrap_err();
        assert!(message.contains(expected), "{assignment}: {message}");
        assert_eq!(message.lines().count(), 1, "{assignment}: {message}");
    }
}

#[test]
fn parameters_wrong_are_all_reported_at_once() {
    let message = resolve(&["-p", "device:=gpu", "-p", "nonsense:=1", "-p", "input_depth:=0"]).unwrap_err();
    let keys: Vec<_> = message.lines().filter_map(|line| line.split('`').nth(1)).collect();
    assert_eq!(keys, ["nonsense", "device", "input_depth", "model_dir"], "{message}");
}

#[test]
fn parameters_follow_the_last_source_for_this_node() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    let yaml = "/**: {ros__parameters: {device: cpu, num_threads: 3}}\n/other: {ros__parameters: {num_threads: 5}}\n\
                detector: {ros__parameters: {input_timeout_s: 7}}\n";
    std::fs::write(&file, yaml).unwrap();
    let file = file.to_str().unwrap();
    let config = resolve(&[
        "-p",
        "num_threads:=1",
        "-p",
        "model_dir:=/a",
        "--params-file",
        file,
        "-p",
        "model_dir:=/b",
        "-p",
        "/other:model_dir:=/c",
    ])
    .unwrap()
    .to_config();
    assert_eq!(config.pipeline.device, "cpu");
    assert_eq!(config.num_threads, Some(3));
    assert_eq!(config.model_dir, Path::new("/b"));
    assert_eq!(config.input_timeout.as_secs(), 7, "a whole number serves as a double");

    let other = ResolvedParams::new(&[ParamSource::File(file.into())], "/left/nobody").unwrap_err().to_string();
    assert!(other.contains("`model_dir`"), "only the file's /** section applies: {other}");
}

#[test]
fn parameter_file_for_other_nodes_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    std::fs::write(&file, "detector: {ros__parameters: {device: cpu}}\n").unwrap();
    let value = ParamValue::String("/m".into());
    let sources = [ParamSource::File(file), ParamSource::Assignment { node: None, name: "model_dir".into(), value }];
    let resolved = ResolvedParams::new(&sources, "/left/detector").unwrap();
    assert_eq!(resolved.notices.len(), 1);
    assert!(resolved.notices[0].contains("none for /left/detector"), "{:?}", resolved.notices);
}

#[test]
fn shipped_parameter_file_holds_exactly_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/detector.yaml");
    let entries = parse_param_file(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
    let shipped: Vec<_> = entries.into_iter().map(|entry| (entry.node, entry.name, entry.value)).collect();
    let declared: Vec<_> = DECLARATIONS
        .iter()
        .map(|declaration| ("/**".to_owned(), declaration.name.to_owned(), declaration.default.to_value()))
        .collect();
    assert_eq!(shipped, declared, "same parameters in the same order");
}

#[test]
fn topics_without_remaps_are_those_of_the_replay() {
    let (names, notices) = NodeNames::resolve(&[]).unwrap();
    let live = [&names.objects, &names.markers, &names.report].map(|topic| topic.as_str());
    assert_eq!(live, [OBJECTS_TOPIC, MARKERS_TOPIC, REPORT_TOPIC]);
    assert!(notices.is_empty());
}

#[test]
fn parameter_declarations_are_consistent() {
    for declaration in DECLARATIONS {
        // The one without a usable default.
        let must_be_set = declaration.name == "model_dir";
        assert_eq!(declaration.check(&declaration.default.to_value()).is_err(), must_be_set, "{}", declaration.name);
        let n_same = DECLARATIONS.iter().filter(|other| other.name == declaration.name).count();
        assert_eq!(n_same, 1, "{} is declared once", declaration.name);
        assert!(declaration.description.ends_with('.'), "{} is described in sentences", declaration.name);
        let is_seconds = declaration.name.ends_with("_s");
        assert_eq!(is_seconds, declaration.unit == "s", "{} carries its unit", declaration.name);
    }
    assert_eq!(params_table_markdown().lines().count(), DECLARATIONS.len() + 2);
}
