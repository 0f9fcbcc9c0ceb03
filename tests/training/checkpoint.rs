//! Checkpoints: whole or not there, damaged ones passed over, older ones kept until the newer is whole.

use std::fs;
use std::path::Path;

use pivotal::model::params::Weights;
use pivotal::train::checkpoint::{self, CheckpointError, FORMAT, State};
use tch::{Kind, Tensor};

fn state(step: u64) -> State {
    State { format: FORMAT, step, run_sha256: "ab".repeat(32), n_threads: 2, device: "cpu".to_owned() }
}

fn tensors(step: u64) -> Weights {
    let values = Tensor::from_slice(&[step as f32, f32::MIN_POSITIVE / 2.0, -0.0]);
    let counter = Tensor::from(step as i64);
    let map = values.view([3, 1]).expand([3, 2], false).to_kind(Kind::BFloat16);
    [("weights/a", values), ("optimizer/steps", counter), ("map", map)].map(|(name, tensor)| (name.to_owned(), tensor)).into()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn checkpoint_reads_back_bit_for_bit_and_only_the_newest_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    for step in [5, 10, 15] {
        checkpoint::save(folder.path(), &state(step), &tensors(step), 2).unwrap();
    }
    assert_eq!(names(folder.path()), ["step_00000010", "step_00000015"]);
    let found = checkpoint::newest(folder.path()).unwrap();
    assert!(found.damaged.is_empty());
    let read = found.checkpoint.unwrap();
    assert_eq!(read.state, state(15));
    let expected = tensors(15);
    assert_eq!(read.tensors.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, tensor) in &expected {
        assert_eq!((read.tensors[name].kind(), read.tensors[name].size()), (tensor.kind(), tensor.size()), "{name}");
        assert!(read.tensors[name].equal(tensor), "{name}");
    }
    let bits =
        |weights: &Weights| Vec::<f32>::try_from(&weights["weights/a"]).unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&read.tensors), bits(&expected));
}

/// Damages a checkpoint; the reason to expect.
type Damage = (fn(&Path), &'static str);

#[test]
fn damaged_newest_checkpoint_falls_back_to_the_one_before_with_the_reason() {
    let damages: [Damage; 5] = [
        (|path| fs::write(path.join("tensors.safetensors"), b"short").unwrap(), "tensors.safetensors: SHA-256 is"),
        (
            |path| {
                let file = path.join("tensors.safetensors");
                let mut bytes = fs::read(&file).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(file, bytes).unwrap();
            },
            "tensors.safetensors: SHA-256 is",
        ),
        (|path| fs::remove_file(path.join("state.json")).unwrap(), "reading "),
        (|path| fs::write(path.join("SHA256SUMS"), "").unwrap(), "SHA256SUMS says nothing"),
        (|path| fs::remove_dir_all(path).and_then(|()| fs::create_dir(path)).unwrap(), "reading "),
    ];
    for (case, (damage, expected)) in damages.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        checkpoint::save(folder.path(), &state(5), &tensors(5), 2).unwrap();
        damage(&checkpoint::save(folder.path(), &state(10), &tensors(10), 2).unwrap());
        let found = checkpoint::newest(folder.path()).unwrap();
        assert_eq!(found.checkpoint.unwrap().state.step, 5, "case {case}");
        let message = found.damaged[0].to_string();
        assert!(found.damaged.len() == 1 && message.contains(expected), "case {case}: {message}");
        // What is damaged does not count among those that are kept.
        checkpoint::save(folder.path(), &state(7), &tensors(7), 2).unwrap();
        assert_eq!(names(folder.path()), ["damaged_step_00000010", "step_00000005", "step_00000007"], "case {case}");
    }
}

#[test]
fn write_that_fails_leaves_the_older_checkpoint_and_nothing_half_done() {
    let folder = tempfile::tempdir().unwrap();
    checkpoint::save(folder.path(), &state(5), &tensors(5), 1).unwrap();
    let refused = [("flag".to_owned(), Tensor::from_slice(&[true]))].into();
    let error = checkpoint::save(folder.path(), &state(10), &refused, 1).unwrap_err();
    assert!(matches!(error, CheckpointError::Content { .. }), "{error}");
    assert_eq!(names(folder.path()), ["step_00000005"]);
    assert_eq!(checkpoint::newest(folder.path()).unwrap().checkpoint.unwrap().state.step, 5);
}

#[test]
fn folder_that_a_killed_write_left_is_no_checkpoint_and_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let whole = checkpoint::save(folder.path(), &state(5), &tensors(5), 1).unwrap();
    fs::rename(&whole, folder.path().join(".writing-step_00000005")).unwrap();
    assert!(checkpoint::newest(folder.path()).unwrap().checkpoint.is_none());
    checkpoint::remove_unfinished(folder.path()).unwrap();
    assert!(names(folder.path()).is_empty());
}

#[test]
fn checkpoint_of_another_format_is_refused_with_both_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = checkpoint::save(folder.path(), &State { format: 7, ..state(5) }, &tensors(5), 1).unwrap();
    let message = checkpoint::read(&path).unwrap_err().to_string();
    assert!(message.contains("format is 7, this build reads 1"), "{message}");
}
