//! Conversions that are interrupted, repeated, or not possible.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use pivotal::data::cache::{self, CacheSettings, INDEX_FILE, Precision};
use pivotal::data::{DataError, Source};

use super::{Made, files, message, settings, write};
use crate::support::shared;

#[test]
fn conversion_stopped_after_any_load_goes_on_to_the_same_bytes() {
    let whole = tempfile::tempdir().unwrap();
    write(&Made::new(14), whole.path()).unwrap();
    for n_loads in 1..=14 {
        let folder = tempfile::tempdir().unwrap();
        let source = Made::new(14);
        source.loads_left.store(n_loads, Ordering::SeqCst);
        assert!(matches!(write(&source, folder.path()), Err(DataError::Io { .. })), "{n_loads}");
        let error = message(cache::open(folder.path()));
        assert!(error.contains("the conversion is not finished") && error.contains("of 4 shards"), "{error}");
        // What a kill in the middle of a write leaves.
        fs::write(folder.path().join("shard-00003.part"), b"half").unwrap();
        source.loads_left.store(0, Ordering::SeqCst);
        let written = write(&source, folder.path()).unwrap();
        assert!(written.n_resumed.is_multiple_of(4) && written.n_resumed < 14);
        assert_eq!(files(folder.path()), files(whole.path()), "{n_loads} loads");
    }
}

#[test]
fn a_finished_conversion_is_only_verified_and_damaged_shards_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    write(&Made::new(10), folder.path()).unwrap();
    let before = files(folder.path());
    assert_eq!(write(&Made::new(10), folder.path()).unwrap().n_resumed, 10);
    let shard = folder.path().join("shard-00001.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&shard, bytes).unwrap();
    fs::remove_file(folder.path().join("shard-00002.safetensors")).unwrap();
    assert_eq!(write(&Made::new(10), folder.path()).unwrap().n_resumed, 4);
    assert_eq!(files(folder.path()), before);
}

#[test]
fn a_full_disk_is_said_and_loses_nothing_that_is_finished() {
    let (folder, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&Made::new(14), whole.path()).unwrap();
    // Writing to this device fails as a full disk does.
    let aside = folder.path().join("shard-00002.part");
    symlink("/dev/full", &aside).unwrap();
    let error = message(write(&Made::new(14), folder.path()));
    assert!(error.contains("shard-00002.safetensors: No space left on device"), "{error}");
    assert!(!aside.is_symlink(), "what a failure leaves is removed");
    let kept: Vec<String> = files(folder.path()).into_keys().collect();
    assert_eq!(kept, ["cache.json", "shard-00000.safetensors", "shard-00001.safetensors"]);
    assert_eq!(write(&Made::new(14), folder.path()).unwrap().n_resumed, 8);
    assert_eq!(files(folder.path()), files(whole.path()));
}

#[test]
fn unreadable_frames_are_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let source = Made { unreadable: vec![1, 2, 9], ..Made::new(10) };
    let written = write(&source, folder.path()).unwrap();
    let named: Vec<String> = written.left_out.iter().map(|frame| frame.id.to_string()).collect();
    assert_eq!(named, ["drive-0/1", "drive-0/2", "drive-2/1"]);
    let cache = cache::open(folder.path()).unwrap();
    assert_eq!(cache.len(), 7);
    for (index, of_source) in [0, 3, 4, 5, 6, 7, 8].into_iter().enumerate() {
        assert_eq!(cache.load(0, index).unwrap(), source.load(0, of_source).unwrap());
    }
    let findings: Vec<String> = cache.findings().iter().map(ToString::to_string).collect();
    assert_eq!(findings[0], "drive-0: frame that could not be converted, 2x: drive-0/1: made to fail");
    let before = files(folder.path());
    assert_eq!(write(&source, folder.path()).unwrap().left_out, written.left_out);
    assert_eq!(files(folder.path()), before);

    let nothing = Made { unreadable: (0..10).collect(), ..Made::new(10) };
    let other = tempfile::tempdir().unwrap();
    let error = message(write(&nothing, other.path()));
    assert!(error.contains("none of 10 frames could be read") && error.ends_with("first: drive-0/0: made to fail"), "{error}");
}

#[test]
fn folders_and_settings_that_do_not_fit_are_refused_with_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    write(&Made::new(5), folder.path()).unwrap();
    let before = files(folder.path());
    let f16 = settings(Precision::F16);
    let backwards = CacheSettings { range_m: Some([1.0, 0.0, 0.0, -1.0, 1.0, 1.0]), ..settings(Precision::F32) };
    let no_frames = CacheSettings { shard_frames: 0, ..settings(Precision::F32) };
    let cases: [(&Made, &CacheSettings, &str); 4] = [
        (&Made::new(6), &settings(Precision::F32), "made (5 frames"),
        (&Made::new(5), &f16, "precision: F32"),
        (&Made::new(5), &backwards, "range_m is [1.0, 0.0, 0.0, -1.0, 1.0, 1.0], expected"),
        (&Made::new(5), &no_frames, "shard_frames is 0, expected at least 1"),
    ];
    for (source, settings, expected) in cases {
        let error = message(cache::write(source, folder.path(), settings, &|_| {}));
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(files(folder.path()), before);

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("thesis.tex"), b"").unwrap();
    assert!(message(write(&Made::new(5), other.path())).contains("is not empty and holds no conversion"));

    let in_use = fs::File::open(folder.path()).unwrap();
    in_use.lock().unwrap();
    assert!(message(write(&Made::new(5), folder.path())).contains("another conversion is writing into it"));
}

fn trainer(folder: &Path, source: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
    command.args(["convert", "cache", source, "--shard-frames", "1", "--dtype", "f16", "--out"]).arg(folder);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_killed_program_goes_on_to_the_same_bytes() {
    let source = "synth:seed=5,drives=2,frames=6,sensor=spinning16";
    let folder = tempfile::tempdir().unwrap();
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    assert!(trainer(&whole, source).status().unwrap().success());
    for n_shards in [0, 1, 3, 7, 10] {
        let mut child = trainer(&killed, source).spawn().unwrap();
        // As soon as so many shards are there, wherever the program is by then.
        while fs::read_dir(&killed).map_or(0, Iterator::count) < n_shards + 1 && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!killed.join(INDEX_FILE).is_file() || n_shards == 10);
    }
    assert!(trainer(&killed, source).status().unwrap().success());
    assert_eq!(files(&killed), files(&whole));
}

#[test]
fn the_program_says_what_it_left_out_and_ends_with_3() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(shared("data/waymo/semireal_waymo_partial.tfrecord")).unwrap();
    let n_first = bytes.len();
    bytes.extend(bytes.clone());
    bytes[n_first + 100] ^= 1;
    let segment = folder.path().join("a.tfrecord");
    fs::write(&segment, bytes).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(["convert", "waymo"])
        .arg(&segment)
        .arg("--out")
        .arg(folder.path().join("cache"))
        .args(["--range", "-75.2,-75.2,-2,75.2,75.2,4"])
        .output()
        .unwrap();
    let (said, warned) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(3), "{said}{warned}");
    assert!(said.contains(": 1 frames") && said.contains("0 labels of unknown type"), "{said}");
    assert!(
        warned.contains("record 1: container: checksum of the data") && warned.contains("1 frames could not be read"),
        "{warned}"
    );
}
