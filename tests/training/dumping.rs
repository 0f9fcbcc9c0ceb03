//! `trainer dump-teacher` as a process, and the runs that learn from what it wrote.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use pivotal::train::log::Entry;
use safetensors::SafeTensors;

use super::program::{Bench, Life, text};

impl Bench {
    /// A teacher that has learnt nothing, and whose threshold lets every guess pass.
    fn untrained_teacher(&self) -> String {
        let teacher = self.path("teacher").display().to_string();
        let spec = fs::read_to_string(self.path("tiny.yaml")).unwrap().replace("score_threshold: 0.1", "score_threshold: 0.001");
        fs::write(self.path("teacher.yaml"), spec).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command.args(["untrained", "--spec"]).arg(self.path("teacher.yaml")).args(["--out", &teacher]);
        succeeded(&command.output().unwrap());
        teacher
    }

    /// `trainer dump-teacher` with more arguments separated by blanks.
    fn dump(&self, dump: &str, more: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command.args(["dump-teacher", "--device", "cpu", "--data", &self.data(), "--config"]).arg(self.path("run.yaml"));
        command.arg("--out").arg(self.path(dump)).args(more.split_whitespace());
        command
    }

    fn losses(&self, run: &str) -> Vec<BTreeMap<String, f64>> {
        let of_step = |entry| match entry {
            Entry::Step(step) => Some(step.loss),
            Entry::Validation { .. } => None,
        };
        self.log(run).into_iter().filter_map(|(_, _, entry)| of_step(entry)).collect()
    }
}

fn succeeded(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", text(output));
}

/// Every tensor of a dump, by name, however it is split into shards.
fn tensors(dump: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut tensors = BTreeMap::new();
    for entry in fs::read_dir(dump).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let bytes = fs::read(path).unwrap();
            let shard = SafeTensors::deserialize(&bytes).unwrap();
            tensors.extend(shard.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())));
        }
    }
    tensors
}

#[test]
fn run_from_a_dump_equals_the_run_from_its_teacher_and_damage_is_refused_by_name() {
    let bench = Bench::new();
    let teacher = bench.untrained_teacher();
    succeeded(&bench.dump("dump", &format!("--model {teacher} --mode eval --set epochs=2")).output().unwrap());
    let dump = bench.path("dump").display().to_string();

    // Boxes are stored as they are, so labels from them are the same to the last bit.
    let labels = format!(
        "--set epochs=2 --set distill.inherit.from={teacher} --set distill.logit=null --set distill.label.min_scores=[0.01]"
    );
    let plain = bench.finished("plain", &format!("{labels} --set distill.teacher.from.model={teacher} --set distill.label=null"));
    let live =
        bench.finished("live", &format!("{labels} --set distill.teacher.from.model={teacher} --set distill.teacher.mode=eval"));
    let stored = bench.finished("stored", &format!("{labels} --set distill.teacher.from.dump={dump}"));
    assert!(live != plain, "the teacher's labels change nothing");
    assert!(stored == live, "the weights differ");
    assert_eq!(bench.losses("stored"), bench.losses("live"));

    // Heat maps are stored in 16 bits.
    let maps = "--set epochs=1 --set distill.label=null --set distill.inherit=null";
    bench.finished("live_maps", &format!("{maps} --set distill.teacher.from.model={teacher} --set distill.teacher.mode=eval"));
    bench.finished("stored_maps", &format!("{maps} --set distill.teacher.from.dump={dump}"));
    let [live, stored] = ["live_maps", "stored_maps"].map(|run| bench.losses(run)[0]["kd_heat_map"]);
    assert!(live > 0.0 && (stored - live).abs() < 1e-2 * live, "{stored}, from the teacher itself {live}");

    let refusals = |more: &str, said: &str| {
        let output = bench.train("refused", &format!("{maps} --set distill.teacher.from.dump={dump} {more}")).output().unwrap();
        assert!(output.status.code() == Some(1) && text(&output).contains(said), "{said}: {}", text(&output));
    };
    refusals("--set data_seed=1", "dump.json: data.data_seed is 0, this run needs 1");
    refusals("--set augment.shuffle=false", "dump.json: data.preparation is ");
    refusals("--set epochs=3", "nothing for epoch 2; the run has 3 epochs, the dump 2");
    let shard = bench.path("dump/shard-000000.safetensors");
    let whole = fs::read(&shard).unwrap();
    fs::write(&shard, &whole[..whole.len() / 2]).unwrap();
    refusals("", "dump/shard-000000.safetensors: ");
    let mut not_finite = whole.clone();
    let (length, _) = whole.split_first_chunk::<8>().unwrap();
    not_finite[8 + u64::from_le_bytes(*length) as usize..].fill(0xff);
    fs::write(&shard, not_finite).unwrap();
    refusals("", "dump/shard-000000.safetensors: `");
    fs::remove_file(&shard).unwrap();
    refusals("", "nothing for epoch 0");
}

#[test]
fn dump_that_was_killed_and_stopped_is_finished_by_the_same_command() {
    const N_EPOCHS: u64 = 24;
    let bench = Bench::new();
    let teacher = bench.untrained_teacher();
    let command = |dump: &str| bench.dump(dump, &format!("--model {teacher} --mode eval --epochs {N_EPOCHS}"));
    succeeded(&command("whole").output().unwrap());
    let expected = tensors(&bench.path("whole"));
    assert!(expected.len() > 2 * N_EPOCHS as usize, "{}", expected.len());

    for (dump, signal, expected_code) in [("killed", "KILL", None), ("stopped", "TERM", Some(3))] {
        let life = Life::begin(command(dump));
        while !bench.path(dump).join("dump.json").is_file() {
            std::thread::yield_now();
        }
        life.signal(signal);
        let (code, said) = life.end();
        assert!(code == expected_code && said.contains("the same command goes on") == code.is_some(), "{code:?}: {said}");
        let n_kept = tensors(&bench.path(dump)).len();
        assert!(n_kept < expected.len(), "{signal} came too late");
        let output = command(dump).output().unwrap();
        succeeded(&output);
        assert!(text(&output).contains(&format!(": {} frames", expected.len() / 2)), "{}", text(&output));
        assert!(tensors(&bench.path(dump)) == expected, "{dump} differs");
    }
    let other = bench.dump("whole", &format!("--model {teacher} --mode train --epochs {N_EPOCHS}")).output().unwrap();
    assert!(other.status.code() == Some(1) && text(&other).contains("dump.json: teacher is "), "{}", text(&other));
}

#[test]
fn teacher_of_another_program_teaches() {
    let bench = Bench::new();
    succeeded(&bench.dump("inputs", "--inputs --set epochs=1").output().unwrap());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/training/foreign_teacher.py");
    let folders = ["inputs", "dump"].map(|name| bench.path(name));
    succeeded(&Command::new("python3").arg(script).args(&folders).output().unwrap());
    let check_dump = |dump: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command.arg("check-dump").arg(dump).arg("--inputs").arg(&folders[0]).output().unwrap()
    };
    let checked = check_dump(&folders[1]);
    assert!(checked.status.success() && text(&checked).ends_with("sound\n"), "{}", text(&checked));
    let settings = format!("--set epochs=1 --set distill.inherit=null --set distill.teacher.from.dump={}", folders[1].display());
    let taught = bench.finished("taught", &settings);
    assert!(bench.losses("taught").iter().all(|loss| loss["kd_heat_map"] > 0.0));
    // What was asked is not an answer.
    let output = bench.train("refused", &settings.replace("/dump", "/inputs")).output().unwrap();
    assert!(text(&output).contains("dump.json: content is Inputs, this run needs Outputs"), "{}", text(&output));
    let refused = check_dump(&folders[0]);
    assert!(text(&refused).contains("dump.json: content is Inputs"), "{}", text(&refused));
    assert!(taught != bench.finished("untaught", "--set epochs=1"), "the teacher changes nothing");
    for shard in fs::read_dir(&folders[1]).unwrap().map(|entry| entry.unwrap().path()) {
        if shard.extension().is_some_and(|extension| extension == "safetensors") {
            fs::remove_file(shard).unwrap();
        }
    }
    let unanswered = check_dump(&folders[1]);
    assert!(unanswered.status.code() == Some(1) && text(&unanswered).contains("has no answer"), "{}", text(&unanswered));
}
