//! Run folders: never over somebody's files, never two processes, never another run.

use std::fs;

use pivotal::data::Fingerprint;
use pivotal::model::spec::ModelSpec;
use pivotal::train::config::RunConfig;
use pivotal::train::run::{RunFolder, RunRecord};

fn record() -> RunRecord {
    RunRecord {
        format: 1,
        command: "trainer train".to_owned(),
        revision: "unknown".to_owned(),
        config: RunConfig { model: "cp-pillar".to_owned(), ..RunConfig::default() },
        spec: ModelSpec::builtin("cp-pillar").unwrap(),
        n_frames: 10,
        data: Fingerprint { source: "a".to_owned(), sha256: "12".repeat(32) },
        validation: None,
        teacher: None,
        inherited: None,
        gt_database: None,
    }
}

#[test]
fn new_run_is_recorded_and_resumed_only_when_asked() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("run");
    drop(RunFolder::open(&root, &record(), true).unwrap());
    let message = RunFolder::open(&root, &record(), false).unwrap_err().to_string();
    assert!(message.ends_with("holds a run; add --resume to go on with it, or choose another folder"), "{message}");
    let folder = RunFolder::open(&root, &record(), true).unwrap();
    assert_eq!(folder.record().unwrap(), record());
    let config = fs::read_to_string(folder.path("config.yaml")).unwrap();
    assert_eq!(RunConfig::from_yaml(&config, "config.yaml", &[]).unwrap(), record().config);
}

#[test]
fn run_killed_before_its_record_can_begin_again() {
    let root = tempfile::tempdir().unwrap();
    for name in ["config.yaml", "lock", ".writing-run.json"] {
        fs::write(root.path().join(name), "").unwrap();
    }
    drop(RunFolder::open(root.path(), &record(), false).unwrap());
    assert!(!root.path().join(".writing-run.json").exists());
}

#[test]
fn folder_with_other_files_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("thesis.tex"), "").unwrap();
    for resume in [false, true] {
        let message = RunFolder::open(root.path(), &record(), resume).unwrap_err().to_string();
        assert!(message.ends_with("is not empty and holds no run; choose another folder"), "{message}");
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn folder_in_use_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let held = RunFolder::open(root.path(), &record(), false).unwrap();
    let message = RunFolder::open(root.path(), &record(), true).unwrap_err().to_string();
    assert!(message.ends_with("is being trained in by another process"), "{message}");
    drop(held);
    RunFolder::open(root.path(), &record(), true).unwrap();
}

/// Changes a record; what the refusal says, or nothing where the change does not matter.
type Change = (fn(&mut RunRecord), &'static str);

#[test]
fn resume_refuses_what_changes_the_result_and_names_it() {
    let changes: [Change; 9] = [
        (|r| r.config.schedule.peak_lr = 0.1, "schedule.peak_lr: was 0.003, is 0.1"),
        (|r| r.config.epochs = 31, "epochs: was 30, is 31"),
        (|r| r.spec.postprocess.max_peaks = 7, "spec.postprocess.max_peaks: was 500, is 7"),
        (|r| r.data.sha256 = "34".repeat(32), "data: was 1212"),
        (|r| r.n_frames = 11, "data frames: was 10, is 11"),
        (|r| r.teacher = Some("56".repeat(32)), "teacher: was none, is 5656"),
        (|r| r.data.source = "elsewhere".to_owned(), ""),
        (|r| r.config.loader.n_workers = 9, ""),
        (|r| r.revision = "abc".to_owned(), ""),
    ];
    let root = tempfile::tempdir().unwrap();
    drop(RunFolder::open(root.path(), &record(), false).unwrap());
    for (change, expected) in changes {
        let mut changed = record();
        change(&mut changed);
        assert_eq!(changed.sha256() == record().sha256(), expected.is_empty(), "{expected}");
        match RunFolder::open(root.path(), &changed, true) {
            Ok(_) => assert!(expected.is_empty(), "{expected}"),
            Err(error) => assert!(!expected.is_empty() && error.to_string().contains(expected), "{expected}: {error}"),
        }
    }
}
