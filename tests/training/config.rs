//! Run configurations: what is refused and how, overrides, the shipped files, the documented table.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use pivotal::model::spec::ModelSpec;
use pivotal::train::config::{RunConfig, flattened};
use pivotal::train::config_table::{KEYS, config_table_markdown, everything_on};
use serde_json::{Value, json};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/train")
}

fn parse(text: &str, overrides: &[&str]) -> Result<RunConfig, String> {
    let overrides: Vec<_> = overrides.iter().map(|&text| text.to_owned()).collect();
    RunConfig::from_yaml(text, "run.yaml", &overrides).map_err(|error| error.to_string())
}

#[test]
fn effective_configuration_reads_back_equal() {
    let config =
        parse("model: cp-pillar\nrange: [-20.48, -20.48, -2, 20.48, 20.48, 4]\nema_decay: 0.999", &["epochs=7"]).unwrap();
    assert_eq!((config.epochs, config.ema_decay), (7, 0.999));
    assert_eq!(parse(&config.to_yaml().unwrap(), &[]).unwrap(), config);
}

#[test]
fn overrides_set_nested_keys_or_say_what_is_wrong() {
    let config = parse("model: cp-pillar", &["schedule.peak_lr=1e-3", "precision=bf16", "schedule.moms=[0.9, 0.8]"]).unwrap();
    assert_eq!((config.schedule.peak_lr, config.schedule.moms), (1e-3, [0.9, 0.8]));
    let cases = [
        ("epochs", "--set epochs: must be key=value"),
        ("epoch=3", "--set epoch=3: unknown field `epoch`, expected one of `model`, `range`, "),
        ("schedule.peak=3", "unknown field `peak`, expected one of `peak_lr`, "),
        ("epochs.x=3", "`x` would be inside 30, which has no keys"),
        ("range.x=3", "invalid type: map, expected an array of length 6"),
        ("epochs=many", "--set epochs=many: invalid type: string \"many\", expected u64"),
        ("schedule={peak_lr: 1, typo: 2}", "unknown field `typo`"),
    ];
    for (assignment, expected) in cases {
        let message = parse("model: cp-pillar", &[assignment]).unwrap_err();
        assert!(message.contains(expected), "{assignment}: {message}");
    }
}

#[test]
fn keys_below_null_switch_their_section_on_with_its_defaults() {
    let cases: [(&[&str], Value); 5] = [
        (&["augment.gt_sampling.database=objects"], json!({"augment": {"gt_sampling": {"database": "objects"}}})),
        (&["distill.teacher.from.model=teacher"], json!({"distill": {"teacher": {"from": {"model": "teacher"}}}})),
        // What is still missing may follow.
        (
            &["distill.teacher.mode=eval", "distill.inherit=null", "distill.teacher.from.dump=dump"],
            json!({"distill": {"inherit": null, "teacher": {"from": {"dump": "dump"}, "mode": "eval"}}}),
        ),
        // One kind of teacher takes the place of another.
        (
            &["distill.teacher.from.model=a", "distill.inherit.from=b", "distill.teacher.from.dump=c"],
            json!({"distill": {"inherit": {"from": "b"}, "teacher": {"from": {"dump": "c"}}}}),
        ),
        (&["class_names.Car=Vehicle"], json!({"class_names": {"Car": "Vehicle"}})),
    ];
    for (overrides, mut whole) in cases {
        whole["model"] = json!("cp-pillar");
        assert_eq!(parse("model: cp-pillar", overrides).unwrap(), parse(&whole.to_string(), &[]).unwrap(), "{overrides:?}");
    }
    let refused: [(&[&str], &str); 4] = [
        (&["distill.logit.weight=3", "epochs=3"], "--set distill.logit.weight=3: missing field `teacher`"),
        (&["distill.teacher.mode=eval", "distill.teacher.from.model=a", "epochs=many"], "--set epochs=many: invalid type"),
        (&["augment.gt_sampling.data=objects"], "unknown field `data`, expected one of `database`, "),
        (&["distill.teacher.from.oracle=delphi"], "unknown variant `oracle`, expected `model` or `dump`"),
    ];
    for (overrides, expected) in refused {
        let message = parse("model: cp-pillar", overrides).unwrap_err();
        assert!(message.contains(expected), "{overrides:?}: {message}");
    }
}

#[test]
fn every_section_refuses_an_unknown_key_by_name() {
    let everything = everything_on().to_yaml().unwrap();
    let leaves = flattened(&serde_json::to_value(everything_on()).unwrap());
    // Keys of these are names of classes.
    let maps = ["class_names", "augment.gt_sampling.targets"];
    let sections: BTreeSet<_> = leaves.iter().filter_map(|(leaf, _)| leaf.rsplit_once('.')).map(|(section, _)| section).collect();
    assert!(sections.len() > 10, "{sections:?}");
    for section in sections.into_iter().filter(|section| !maps.contains(section)) {
        let message = parse(&everything, &[&format!("{section}.oracle=1")]).unwrap_err();
        assert!(message.contains("`oracle`, expected"), "{section}: {message}");
    }
}

#[test]
fn file_with_an_unknown_key_or_wrong_type_is_refused_with_its_place() {
    for (text, expected) in [("model: x\nepoch: 3", "unknown field `epoch`"), ("model: x\nepochs: many", "line 2")] {
        let message = parse(text, &[]).unwrap_err();
        assert!(message.starts_with("run.yaml: ") && message.contains(expected), "{message}");
    }
}

#[test]
fn every_key_with_a_rule_refuses_a_wrong_value_by_name() {
    let everything = everything_on().to_yaml().unwrap();
    for key in KEYS.iter().filter(|key| !key.wrong.is_empty()) {
        let message = parse(&everything, &[&format!("{}={}", key.name, key.wrong)]).unwrap_err();
        let (section, last) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        assert!(message.contains(section) && message.contains(last), "{} = {}: {message}", key.name, key.wrong);
    }
}

#[test]
fn all_broken_rules_are_named_at_once() {
    let message = parse("model: cp-pillar\nepochs: 0\nloader: {batch_size: 0}\ncheckpoints: {keep: 0}", &[]).unwrap_err();
    let expected = ["epochs = 0: 1 to 100000", "checkpoints.keep = 0: 1 to 1000", "loader.batch_size = 0: 1 to 1024"];
    assert_eq!(message, format!("run.yaml: {}", expected.join("; ")));
}

#[test]
fn range_overrides_the_spec_and_must_fit_its_cells() {
    let spec = parse("model: cp-pillar-v0.64\nrange: [-23.04, -23.04, -2, 23.04, 23.04, 4]", &[]).unwrap().spec().unwrap();
    assert_eq!(spec.grid().shape, [72, 72, 1]);
    let message = parse("model: cp-pillar-v0.64\nrange: [-23, -23, -2, 23, 23, 4]", &[]).unwrap_err();
    assert!(message.contains("must divide the range along x"), "{message}");
    let message = parse("model: cp-pilar", &[]).unwrap_err();
    assert!(message.contains("no built-in spec is called `cp-pilar`"), "{message}");
}

#[test]
fn table_of_keys_is_the_one_in_the_folder_and_has_every_key() {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("<!-- keys:begin -->\n").expect("README has the begin mark");
    let (table, _) = rest.split_once("<!-- keys:end -->").expect("README has the end mark");
    assert_eq!(table, config_table_markdown(), "put the output of `trainer train --keys` between the marks");
    let leaves: Vec<_> = flattened(&serde_json::to_value(everything_on()).unwrap()).into_iter().map(|(leaf, _)| leaf).collect();
    let is_or_holds = |key: &str, leaf: &str| leaf.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    for leaf in &leaves {
        assert!(KEYS.iter().any(|key| is_or_holds(key.name, leaf)), "{leaf} is not in the table");
    }
    for key in KEYS {
        assert!(leaves.iter().any(|leaf| is_or_holds(key.name, leaf)), "{} is no key", key.name);
    }
}

#[test]
fn every_spec_has_its_run_and_every_shipped_run_is_valid() {
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let config = RunConfig::load(&path, &[]).unwrap();
            config.spec().unwrap();
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            assert_eq!(config.model, stem.trim_end_matches("_sparsekd"), "{}", path.display());
            seen.insert(stem);
        }
    }
    for name in ModelSpec::builtin_names() {
        assert!(seen.contains(name), "{name} has no config/train/{name}.yaml");
        let is_teacher = ["cp-pillar", "cp-voxel"].contains(&name);
        assert!(is_teacher || seen.contains(&format!("{name}_sparsekd")), "{name} has no distilled run");
    }
}
