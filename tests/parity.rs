//! The whole golden directory, and proof that the comparison can fail.

use std::fs;
use std::path::Path;

use pivotal::parity;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::support::shared;

#[test]
fn golden_directory_every_supported_case_is_within_tolerance() {
    let report = parity::run(&shared("golden")).unwrap();
    assert!(report.passed(), "{}", report.table());
    let compared = |name: &str| report.cases.iter().find(|case| case.name == name).map_or(0, |case| case.stages.len());
    for model in ["cp-pillar", "cp-pillar-v0.4", "cp-pillar-v0.48", "cp-pillar-v0.64"] {
        assert!(compared(&format!("models/{model}")) >= 40, "{model} compared too little:\n{}", report.table());
    }
    for student in ["v0.4", "v0.48", "v0.64"].map(|cells| format!("cp-pillar-{cells}")) {
        assert!(compared(&format!("kd/logit_{student}")) >= 27 && compared(&format!("kd/e2e_{student}")) >= 120, "{student}");
        assert!(compared(&format!("tgi/{student}_official")) >= 179, "{student}");
    }
    // Of the second, the golden file holds the head's maps in part only.
    assert!(compared("models/second") >= 20 && compared("models/pointpillar_1x") >= 4, "{}", report.table());
    assert!(compared("kd/anchor_logit") >= 29 && compared("components/heads_losses") >= 25, "{}", report.table());
    assert!(compared("kd/label_assign") >= 30 && compared("tgi/cp-voxel-xs_OFA_max") >= 279);
    assert!(compared("components/voxelize") >= 40 && compared("components/boxes") >= 16 && compared("hash/vectors") >= 4);
}

#[test]
fn wrong_weights_exceed_and_first_stage_after_the_input_is_named() {
    let dir = tempfile::tempdir().unwrap();
    copy_model(dir.path(), |companion| companion["weight_seed"] = 402.into());
    let report = parity::run(dir.path()).unwrap();
    assert!(!report.passed());
    assert_eq!(report.cases[0].first_excess().unwrap().stage, "eval/vfe/pfn0_out");
    assert!(report.table().contains("first stage over its tolerance: eval/vfe/pfn0_out"), "{}", report.table());
}

#[test]
fn wrong_grid_exceeds_at_the_voxels() {
    let dir = tempfile::tempdir().unwrap();
    copy_model(dir.path(), |companion| companion["max_points_per_voxel"] = 49.into());
    let report = parity::run(dir.path()).unwrap();
    assert!(report.cases[0].first_excess().unwrap().stage.starts_with("voxel/"), "{}", report.table());
}

#[test]
fn directory_without_cases_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let message = parity::run(dir.path()).unwrap_err().to_string();
    assert!(message.contains("holds no golden case"), "{message}");
}

#[test]
fn unreadable_files_fail_their_case_and_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    copy_model(dir.path(), |_| ());
    let path = dir.path().join("models/cp-pillar-v0.64.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let report = parity::run(dir.path()).unwrap();
    assert!(!report.passed() && report.table().contains("cp-pillar-v0.64.safetensors: "), "{}", report.table());
}

#[test]
fn grid_given_by_a_case_is_compared_and_one_not_given_is_no_stage() {
    let dir = tempfile::tempdir().unwrap();
    copy_model(dir.path(), |companion| companion["grid_size"] = [40, 33, 1].into());
    fs::create_dir(dir.path().join("components")).unwrap();
    let source = shared("golden/components");
    fs::copy(source.join("voxelize.safetensors"), dir.path().join("components/voxelize.safetensors")).unwrap();
    let text = fs::read(source.join("components.json")).unwrap();
    let mut companion: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let run = "voxelize.cp-pillar-v0.64";
    companion[run]["grid"] = [232, 232, 2].into();
    fs::write(dir.path().join("components/components.json"), companion.to_string()).unwrap();

    let report = parity::run(dir.path()).unwrap();
    let [voxelize, model] = report.cases.as_slice() else { panic!("{}", report.table()) };
    let exceeding: Vec<_> = voxelize.stages.iter().filter(|stage| !stage.within).collect();
    assert!(exceeding.iter().all(|stage| stage.stage.starts_with(run) && stage.stage.ends_with("/grid")), "{}", report.table());
    assert_eq!(exceeding[0].detail, "ours [232, 232, 1], golden [232, 232, 2]");
    assert!(!voxelize.stages.iter().any(|stage| stage.stage.contains("overflow") && stage.stage.ends_with("/grid")));
    assert_eq!(model.first_excess().unwrap().detail, "ours [40, 32, 1], golden [40, 33, 1]");
}

#[test]
fn tensors_of_impossible_shapes_fail_their_case_and_the_others_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    copy_model(dir.path(), |_| ());
    let path = dir.path().join("models/cp-pillar-v0.64.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let changed: Vec<_> = tensors.tensors().into_iter().map(|(name, view)| shorten_sums(name, view)).collect();
    fs::write(&path, safetensors::serialize(changed, None).unwrap()).unwrap();
    fs::create_dir(dir.path().join("hash")).unwrap();
    fs::copy(shared("golden/hash/vectors.json"), dir.path().join("hash/vectors.json")).unwrap();

    let report = parity::run(dir.path()).unwrap();
    let [hash, model] = report.cases.as_slice() else { panic!("{}", report.table()) };
    assert!(hash.error.is_none() && !hash.stages.is_empty());
    let message = model.error.as_ref().unwrap().to_string();
    assert!(message.starts_with("operation failed: ") && message.contains("size") && !message.contains('\n'), "{message}");
    assert!(!report.passed() && report.table().contains("FAILED: models/cp-pillar-v0.64"), "{}", report.table());
}

/// Takes the last channel from a tensor of channel sums.
fn shorten_sums(name: String, view: TensorView<'_>) -> (String, TensorView<'_>) {
    match view.shape() {
        [n] if name.ends_with("#sum") => {
            let n_bytes = view.data().len() / n * (n - 1);
            let shorter = TensorView::new(view.dtype(), vec![n - 1], &view.data()[..n_bytes]).unwrap();
            (name, shorter)
        }
        _ => (name, view),
    }
}

/// Copies the smallest model case, its JSON changed.
fn copy_model(dir: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let source = shared("golden/models/cp-pillar-v0.64.safetensors");
    fs::create_dir(dir.join("models")).unwrap();
    fs::copy(&source, dir.join("models/cp-pillar-v0.64.safetensors")).unwrap();
    let mut companion: serde_json::Value = serde_json::from_slice(&fs::read(source.with_extension("json")).unwrap()).unwrap();
    change(&mut companion);
    fs::write(dir.join("models/cp-pillar-v0.64.json"), companion.to_string()).unwrap();
}
