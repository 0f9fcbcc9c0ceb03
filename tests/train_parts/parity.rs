//! Proof that the comparison of training with golden numbers covers what it should and can fail.

use std::fs;
use std::path::Path;

use pivotal::parity::{self, ParityReport};
use safetensors::SafeTensors;

use crate::support::shared;

/// Copies a golden file without one of its tensors.
fn copy_without(from: &Path, to: &Path, left_out: &str) {
    let bytes = fs::read(from).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let kept: Vec<_> = file.tensors().into_iter().filter(|(name, _)| name != left_out).collect();
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::write(to, safetensors::serialize(kept, None).unwrap()).unwrap();
}

/// Runs one golden case with a tensor left out (none for "") and its companion changed.
fn run_case(file: &str, companion: &str, left_out: &str, change: impl FnOnce(&mut serde_json::Value)) -> ParityReport {
    let (source, dir) = (shared("golden"), tempfile::tempdir().unwrap());
    copy_without(&source.join(file), &dir.path().join(file), left_out);
    let mut json = serde_json::from_slice(&fs::read(source.join(companion)).unwrap()).unwrap();
    change(&mut json);
    fs::write(dir.path().join(companion), json.to_string()).unwrap();
    parity::run(dir.path()).unwrap()
}

const HEADS: [&str; 2] = ["components/heads_losses.safetensors", "components/components.json"];
const OPTIM: [&str; 2] = ["optim/onecycle.safetensors", "optim/onecycle.json"];
const MODEL: [&str; 2] = ["models/cp-pillar-v0.64.safetensors", "models/cp-pillar-v0.64.json"];

#[test]
fn golden_parts_of_training_are_all_compared() {
    let stages = |report: &ParityReport| -> Vec<String> {
        assert!(report.passed(), "{}", report.table());
        report.cases[0].stages.iter().map(|stage| stage.stage.clone()).collect()
    };
    let heads = stages(&run_case(HEADS[0], HEADS[1], "", |_| ()));
    for stage in ["radius_int_min_overlap0.1", "gaussians_sharper_False", "focal_saturated/grad0", "reg/loss", "reg/grad0"] {
        assert!(heads.iter().any(|name| name == stage), "{stage} is not among {heads:?}");
    }
    let optim = stages(&run_case(OPTIM[0], OPTIM[1], "", |_| ()));
    for stage in ["lr_stat", "schedule_long_stat", "schedule_total50_0to60_stat", "param/fc.2.bias", "exp_avg_sq/conv.weight"] {
        assert!(optim.iter().any(|name| name == stage), "{stage} is not among {optim:?}");
    }
}

#[test]
fn golden_tensors_that_are_missing_are_named_with_their_file() {
    for ([file, companion], tensor) in [
        (HEADS, "focal/logits"),
        (HEADS, "reg/mask"),
        (OPTIM, "grad/fc.0.bias"),
        (OPTIM, "exp_avg/bn.weight"),
        (OPTIM, "lr_stat"),
    ] {
        let report = run_case(file, companion, tensor, |_| ());
        let message = report.cases[0].error.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(message.contains(file) && message.contains(&format!("`{tensor}` is missing")), "{tensor}: {message}");
    }
}

#[test]
fn wrong_settings_of_the_optimiser_exceed() {
    type Change = fn(&mut serde_json::Value);
    let cases: [(Change, &str); 4] = [
        (|json| json["optim_cfg"]["LR"] = 0.0031.into(), "lr_stat"),
        (|json| json["optim_cfg"]["MOMS"] = serde_json::json!([0.95, 0.86]), "momentum_stat"),
        (|json| json["wd"] = 0.02.into(), "param/bn.bias"),
        (|json| json["clip"] = 9.into(), "param/conv.bias"),
    ];
    for (change, stage) in cases {
        let report = run_case(OPTIM[0], OPTIM[1], "", change);
        let exceeding: Vec<_> = report.cases[0].stages.iter().filter(|stage| !stage.within).map(|stage| &stage.stage).collect();
        assert!(exceeding.iter().any(|name| *name == stage), "{stage} is not among {exceeding:?}");
    }
}

#[test]
fn wrong_loss_exceeds_and_missing_gradients_are_named() {
    let report = run_case(MODEL[0], MODEL[1], "train/grad#head8", |json| {
        json["train_frozenbn_losses"]["hm_loss_head_0"] = 2.91.into();
    });
    let [case] = report.cases.as_slice() else { panic!("{}", report.table()) };
    assert_eq!(case.first_excess().unwrap().stage, "train_frozenbn_losses/hm_loss_head_0");
    let message = case.error.as_ref().unwrap().to_string();
    assert!(message.contains("cp-pillar-v0.64.safetensors") && message.contains("`train/grad#head8` is missing"), "{message}");
}
