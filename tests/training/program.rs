//! `trainer train` as a process: killed and resumed, interrupted, refused, fed with numbers that are none, out of disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use pivotal::cloud::columns::for_network;
use pivotal::data;
use pivotal::model::directory;
use pivotal::pipeline::{Pipeline, PipelineOptions, Precision};
use pivotal::synth::DriveConfig;
use pivotal::synth::record::write_bag;
use pivotal::synth::sensor::SensorKind;
use pivotal::train::checkpoint;
use pivotal::train::log::{self, Entry, LOG_FILE};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

/// Small enough for hundreds of steps a second.
const SPEC: &str = "
format: 1
name: tiny
classes: [Vehicle, Pedestrian, Cyclist]
input: {features: [x, y, z, intensity, elongation], intensity: tanh}
grid: {range: [-5.12, -5.12, -2.0, 5.12, 5.12, 4.0], voxel_size: [0.64, 0.64, 6.0], max_points_per_voxel: 8, max_voxels: 400}
network:
  pillar:
    vfe_filters: [8, 8]
    backbone_2d: {layer_nums: [1, 1], strides: [1, 2], filters: [8, 8], upsample_strides: [1, 2], upsample_filters: [8, 8]}
    head_channels: 8
postprocess:
  max_peaks: 50
  score_threshold: 0.1
  center_limit: [-80.0, -80.0, -10.0, 80.0, 80.0, 10.0]
  nms: {rotated: {iou: 0.7, max_before: 4096, max_after: 500}}
";
/// 4 epochs of 5 steps, every part of the state in use, a checkpoint every other step.
const CONFIG: &str = "
epochs: 4
loader: {batch_size: 3, keep_partial_batch: false}
ema_decay: 0.9
checkpoints: {every_steps: 2}
validation: {every_epochs: 2}
log_every_steps: 1
num_threads: 1
";
const N_STEPS: u64 = 20;

/// A folder with a configuration, data and runs in it.
pub(super) struct Bench {
    folder: TempDir,
}

impl Bench {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tiny.yaml"), SPEC).unwrap();
        let model = folder.path().join("tiny.yaml").display().to_string();
        fs::write(folder.path().join("run.yaml"), format!("model: {model}\n{CONFIG}")).unwrap();
        for (name, drive, n_frames) in [("data/a", 0, 8), ("data/b", 1, 8), ("validation", 2, 2)] {
            let config = DriveConfig::new(1, drive, n_frames, SensorKind::Spinning16);
            write_bag(&config, &folder.path().join(name), &mut |_| ()).unwrap();
        }
        Self { folder }
    }

    pub(super) fn data(&self) -> String {
        self.path("data").display().to_string()
    }

    /// The argument that asks for evaluation.
    fn validation(&self) -> String {
        format!("--val {}", self.path("validation").display())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `trainer train` with everything that all tests share, and more arguments separated by blanks.
    pub(super) fn train(&self, run: &str, more: &str) -> Command {
        self.train_on("cpu", &self.data(), run, more)
    }

    fn train_on(&self, device: &str, data: &str, run: &str, more: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command.args(["train", "--device", device, "--data", data, "--config"]).arg(self.path("run.yaml"));
        command.arg("--out").arg(self.path(run)).args(more.split_whitespace());
        command
    }

    pub(super) fn finished(&self, run: &str, more: &str) -> Vec<u8> {
        let output = self.train(run, more).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        self.weights(run)
    }

    fn weights(&self, run: &str) -> Vec<u8> {
        fs::read(self.path(run).join("model/weights.safetensors")).unwrap()
    }

    /// The log without what the clock wrote into it.
    pub(super) fn log(&self, run: &str) -> Vec<(u64, u64, Entry)> {
        let without_times = |entry: Entry| match entry {
            Entry::Step(step) => Entry::Step(log::StepEntry { ms: BTreeMap::new(), ..step }),
            Entry::Validation { metrics, .. } => Entry::Validation { metrics, seconds: 0.0 },
        };
        let lines = log::read(&self.path(run).join(LOG_FILE)).unwrap();
        lines.into_iter().map(|line| (line.step, line.epoch, without_times(line.entry))).collect()
    }
}

pub(super) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A run at work.
pub(super) struct Life {
    child: Child,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Life {
    pub(super) fn begin(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, stderr }
    }

    /// Blocks until it has reported so many steps, or ended.
    fn wait_for_steps(&mut self, n_steps: usize) {
        let mut seen = 0;
        while seen < n_steps
            && let Some(line) = self.stderr.next()
        {
            seen += usize::from(line.unwrap().contains(": step "));
        }
    }

    pub(super) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for its end; exit code (none when a signal ended it) and what it printed on stdout.
    pub(super) fn end(mut self) -> (Option<i32>, String) {
        self.stderr.by_ref().for_each(drop);
        let output = self.child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}

#[test]
fn run_killed_at_random_moments_ends_with_the_weights_of_one_never_killed() {
    const N_KILLS: usize = 20;
    let bench = Bench::new();
    let settings = format!("{} --set epochs=12 --set validation.every_epochs=6", bench.validation());
    let expected = bench.finished("whole", &settings);
    let steps: Vec<_> = bench.log("whole").iter().map(|(step, ..)| *step).collect();
    assert_eq!(steps, [(1..=30).collect(), vec![30], (31..=60).collect(), vec![60]].concat());

    let mut random = ChaCha8Rng::seed_from_u64(1);
    for kill in 0..N_KILLS {
        let mut life = Life::begin(bench.train("killed", &format!("--resume {settings}")));
        life.wait_for_steps(random.random_range(0..5));
        // Somewhere in a step, a checkpoint or an evaluation.
        for _ in 0..random.random_range(0..200_000) {
            std::hint::spin_loop();
        }
        life.signal("KILL");
        let (code, _) = life.end();
        assert_eq!(code, None, "it ended before kill {kill}");
    }
    assert_eq!(bench.finished("killed", &format!("--resume {settings}")), expected);
    assert_eq!(bench.log("killed"), bench.log("whole"));
    for name in ["best", "model"] {
        let weights = |run: &str| directory::load(&bench.path(run).join(name)).unwrap();
        assert_eq!(weights("killed").sha256, weights("whole").sha256, "{name}");
        assert_eq!(weights("killed").provenance.metrics, weights("whole").provenance.metrics, "{name}");
    }
}

#[test]
fn interrupted_run_is_saved_says_how_to_go_on_and_ends_with_the_same_weights() {
    let bench = Bench::new();
    let expected = bench.finished("whole", "");
    for (run, name) in [("interrupted", "INT"), ("terminated", "TERM")] {
        let mut life = Life::begin(bench.train(run, ""));
        life.wait_for_steps(3);
        life.signal(name);
        let (code, stdout) = life.end();
        assert_eq!(code, Some(3), "{name}");
        let newest = checkpoint::newest(&bench.path(run).join("checkpoints")).unwrap().checkpoint.unwrap();
        let said = format!(
            "stopped after {} of {N_STEPS} steps, which are saved; the same command with --resume goes on\n",
            newest.state.step
        );
        assert_eq!(stdout, said, "{name}");
        assert!((3..N_STEPS).contains(&newest.state.step), "{name}");
        assert!(!bench.path(run).join("DONE").exists());
        assert_eq!(bench.finished(run, "--resume"), expected, "{name}");
    }
}

#[test]
fn runs_of_one_seed_are_equal_and_runs_of_others_differ() {
    let bench = Bench::new();
    let first = bench.finished("first", "--set epochs=1");
    assert_eq!(bench.finished("again", "--set epochs=1 --set loader.n_workers=1"), first);
    for other in ["seed=1", "data_seed=1"] {
        assert_ne!(bench.finished(other, &format!("--set epochs=1 --set {other}")), first, "{other}");
    }
}

#[test]
fn finished_run_is_left_alone_and_its_model_says_where_it_comes_from() {
    let bench = Bench::new();
    let validation = bench.validation();
    let weights = bench.finished("run", &format!("{validation} --set epochs=1 --set seed=7 --set model_dtype=f16"));
    for file in ["run.json", "config.yaml", "log.jsonl", "events.out.tfevents.1.pivotal", "DONE", "best/spec.yaml"] {
        assert!(bench.path("run").join(file).is_file(), "{file}");
    }
    let again =
        bench.train("run", &format!("{validation} --set epochs=1 --set seed=7 --set model_dtype=f16 --resume")).output().unwrap();
    assert!(again.status.success() && text(&again).contains("is finished; its model is "), "{}", text(&again));
    assert_eq!(bench.weights("run"), weights);

    let model = directory::load(&bench.path("run").join("model")).unwrap();
    let training = model.provenance.training.unwrap();
    assert_eq!((training.seed, training.steps, training.n_threads, training.device.as_str()), (7, 5, 1, "cpu"));
    assert_eq!(training.data, data::open(&bench.data()).unwrap().fingerprint());
    assert_eq!(training.validation, Some(data::open(&bench.path("validation").display().to_string()).unwrap().fingerprint()));
    assert!(model.provenance.command.contains(" train --device cpu "), "{}", model.provenance.command);
    assert!(training.revision == "unknown" || training.revision.len() >= 40, "{}", training.revision);
    assert_eq!(training.config["epochs"], 1);
    let validated = bench.log("run").into_iter().find_map(|(_, _, entry)| match entry {
        Entry::Validation { metrics, .. } => Some(metrics),
        Entry::Step(_) => None,
    });
    assert_eq!(Some(model.provenance.metrics), validated);
    assert!(validated_names().iter().all(|name| validated.as_ref().unwrap().contains_key(*name)));
    assert!(model.provenance.data_statistics.unwrap().n_frames > 0);

    let options = PipelineOptions { device: "cpu".to_owned(), precision: Precision::F32 };
    let mut pipeline = Pipeline::new(model.spec.clone(), &model.weights, &options).unwrap();
    let sample = data::open(&bench.data()).unwrap().load(0, 0).unwrap();
    pipeline.process(&for_network(&sample.cloud, &model.spec.input).unwrap()).unwrap();
}

fn validated_names() -> [&'static str; 3] {
    ["maph_l2", "aph_l2_Vehicle", "ap_l2_Cyclist"]
}

/// Device, data, more arguments, exit code, what is said.
type Refusal<'a> = (&'a str, &'a str, &'a str, i32, &'a str);

#[test]
fn run_that_cannot_begin_or_go_on_says_why() {
    let bench = Bench::new();
    bench.finished("run", "--set epochs=1");
    fs::create_dir(bench.path("thesis")).unwrap();
    fs::write(bench.path("thesis/chapter.tex"), "").unwrap();
    let (data, other_data) = (bench.data(), bench.path("validation").display().to_string());
    let refusals: [Refusal<'_>; 7] = [
        ("cpu", &data, "--set epochs=1", 2, "holds a run; add --resume to go on with it, or choose another folder"),
        ("cpu", &data, "--resume --set epochs=1 --set schedule.peak_lr=0.5", 2, "schedule.peak_lr: was 0.003, is 0.5"),
        ("cpu", &other_data, "--resume --set epochs=1", 2, "data: was "),
        ("cpu", &data, "--set epoch=1", 2, "unknown field `epoch`, expected one of `model`"),
        ("cpu", &data, "--set loader.batch_size=0", 2, "loader.batch_size = 0: 1 to 1024"),
        ("gpu", &data, "", 1, "must be `auto`, `cpu` or `cuda:N`"),
        ("cpu", &data, "--val nowhere", 1, "--val: nowhere"),
    ];
    for (device, data, more, code, said) in refusals {
        let output = bench.train_on(device, data, "run", more).output().unwrap();
        assert!(output.status.code() == Some(code) && text(&output).contains(said), "{more}: {}", text(&output));
    }
    let output = bench.train("thesis", "").output().unwrap();
    assert!(output.status.code() == Some(2) && text(&output).contains("is not empty and holds no run"), "{}", text(&output));
}

#[test]
fn run_goes_on_with_inputs_that_moved() {
    let bench = Bench::new();
    bench.finished("teacher", "--set epochs=1");
    let taught = |dir: &str| format!(r#"--set distill={{"teacher":{{"from":{{"model":"{}"}}}}}}"#, bench.path(dir).display());
    let never_stopped = bench.finished("whole", &taught("teacher/model"));
    let mut life = Life::begin(bench.train("moved", &taught("teacher/model")));
    life.wait_for_steps(5);
    life.signal("KILL");
    life.end();
    fs::rename(bench.path("data"), bench.path("new data")).unwrap();
    fs::rename(bench.path("teacher"), bench.path("new_teacher")).unwrap();
    let (data, more) = (bench.path("new data").display().to_string(), format!("--resume {}", taught("new_teacher/model")));
    let output = bench.train_on("cpu", &data, "moved", &more).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(bench.weights("moved") == never_stopped);
}

#[test]
fn number_that_is_none_stops_the_run_names_its_term_and_keeps_what_led_to_it() {
    let bench = Bench::new();
    // The first step overflows the second term, or sends the weights so far that the next one overflows.
    let cases = [
        ("term", "--set loss.regression=1e39", "step 0: loss term `regression` is inf; frames synth"),
        ("later", "--set schedule.peak_lr=1e36", "is not finite"),
    ];
    for (run, setting, said) in cases {
        let output = bench.train(run, setting).output().unwrap();
        let message = text(&output);
        assert_eq!(output.status.code(), Some(4), "{message}");
        let said_so = message.contains(said) || message.contains("loss term");
        assert!(said_so && message.contains("The state before the step and its batch are in "), "{message}");
        let kept: Vec<_> = fs::read_dir(bench.path(run).join("non_finite")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(kept.len(), 1, "{message}");
        let state = checkpoint::read(&kept[0]).unwrap();
        assert!(state.tensors.values().all(|tensor| i64::try_from(tensor.isfinite().all()).unwrap() == 1), "{run}");
        assert!(kept[0].join("batch.safetensors").is_file());
        let failure: serde_json::Value = serde_json::from_slice(&fs::read(kept[0].join("failure.json")).unwrap()).unwrap();
        assert_eq!(failure["frames"].as_array().unwrap().len(), 3);
        // The same step again gives the same end.
        let again = bench.train(run, &format!("{setting} --resume")).output().unwrap();
        assert_eq!(again.status.code(), Some(4), "{}", text(&again));
    }
}

#[test]
fn full_disk_stops_the_run_with_older_checkpoints_whole() {
    let bench = Bench::new();
    let expected = bench.finished("whole", "");
    let mut life = Life::begin(bench.train("full", ""));
    life.wait_for_steps(3);
    life.signal("INT");
    assert_eq!(life.end().0, Some(3));
    let folder = bench.path("full").join("checkpoints");
    let before = checkpoint::newest(&folder).unwrap().checkpoint.unwrap().state;

    // Files may not grow beyond 16 KiB: the log fits, a checkpoint does not.
    let command = bench.train("full", "--resume");
    let words: Vec<_> =
        [command.get_program()].into_iter().chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    let limited = format!("trap '' XFSZ; ulimit -f 16; exec {}", words.join(" "));
    let output = Command::new("bash").args(["-c", &limited]).output().unwrap();
    let message = text(&output);
    assert_eq!(output.status.code(), Some(5), "{message}");
    let said = "could not be written, the run stops; those before it are whole: writing ";
    assert!(message.contains(said) && message.contains("File too large"), "{message}");
    assert!(message.contains("make room and use --resume"), "{message}");

    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| name.starts_with("step_")), "{names:?}");
    assert_eq!(checkpoint::newest(&folder).unwrap().checkpoint.unwrap().state, before);
    assert_eq!(bench.finished("full", "--resume"), expected);
}

#[test]
fn damaged_newest_checkpoint_costs_the_steps_since_the_one_before_and_nothing_else() {
    let bench = Bench::new();
    let expected = bench.finished("whole", "");
    let mut life = Life::begin(bench.train("damaged", ""));
    life.wait_for_steps(7);
    life.signal("INT");
    assert_eq!(life.end().0, Some(3));
    let newest = checkpoint::newest(&bench.path("damaged").join("checkpoints")).unwrap().checkpoint.unwrap();
    let tensors = newest.path.join("tensors.safetensors");
    let bytes = fs::read(&tensors).unwrap();
    fs::write(&tensors, &bytes[..bytes.len() / 2]).unwrap();
    let output = bench.train("damaged", "--resume").output().unwrap();
    assert!(output.status.success() && text(&output).contains("a damaged checkpoint is passed over: "), "{}", text(&output));
    assert_eq!(bench.weights("damaged"), expected);
    assert_eq!(bench.log("damaged"), bench.log("whole"));
}

#[test]
fn network_learns_a_few_frames_by_heart() {
    let bench = Bench::new();
    let data = bench.path("heart_bag").display().to_string();
    // Frames with a vehicle beside the sensor.
    write_bag(&DriveConfig::new(3, 0, 2, SensorKind::Spinning16), data.as_ref(), &mut |_| ()).unwrap();
    let still = "--set augment.flip_x_probability=0 --set augment.flip_y_probability=0 --set augment.rotation_rad=null \
                 --set augment.scaling=null --set loader.batch_size=2 --set epochs=400 --set validation.every_epochs=0 \
                 --set checkpoints.every_steps=1000 --set log_every_steps=10 --set ema_decay=0 --set schedule.peak_lr=0.02";
    let output = bench.train_on("cpu", &data, "heart", &format!("--val {data} {still}")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let losses: Vec<f64> = bench.log("heart").iter().filter_map(|(_, _, entry)| loss(entry)).collect();
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    assert!(last < first / 100.0, "{losses:?}");
    let metrics = directory::load(&bench.path("heart").join("model")).unwrap().provenance.metrics;
    assert!(metrics["aph_l2_Vehicle"] > 0.95, "{metrics:?}");
}

fn loss(entry: &Entry) -> Option<f64> {
    match entry {
        Entry::Step(step) => Some(step.loss["total"]),
        Entry::Validation { .. } => None,
    }
}

#[test]
fn distilled_run_logs_its_terms_and_without_them_equals_the_plain_run() {
    let bench = Bench::new();
    let teacher = bench.path("teacher");
    let spec = bench.path("tiny.yaml");
    let made = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(["untrained", "--spec"])
        .arg(spec)
        .arg("--out")
        .arg(&teacher)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let before = directory::load(&teacher).unwrap().sha256;
    let distill = |parts: &str| {
        let teacher = format!(r#""teacher":{{"from":{{"model":"{}"}}}}"#, teacher.display());
        format!("--set epochs=1 --set distill={{{teacher},{parts}}}")
    };

    let plain = bench.finished("plain", "--set epochs=1");
    let without = bench.finished("without", &distill(r#""logit":null,"label":null,"inherit":null"#));
    assert_eq!(without, plain);

    bench.finished("all", &distill(r#""regression_weight":0.2"#));
    let (_, _, Entry::Step(step)) = &bench.log("all")[0] else { panic!("a step") };
    let terms: Vec<_> = step.loss.keys().map(String::as_str).collect();
    assert_eq!(terms, ["heat_map", "kd_heat_map", "kd_regression", "regression", "total"]);
    let sum: f64 = step.loss.iter().filter(|(name, _)| *name != "total").map(|(_, value)| value).sum();
    assert!((sum - step.loss["total"]).abs() < 1e-4 * sum, "{step:?}");
    // The student begins as a copy of its teacher, so they agree in the first step and in no later one.
    let (_, _, Entry::Step(last)) = bench.log("all").pop().unwrap() else { panic!("a step") };
    assert!(last.loss["kd_heat_map"] > 0.0, "{last:?}");
    assert_eq!(directory::load(&teacher).unwrap().sha256, before);
    let training = directory::load(&bench.path("all").join("model")).unwrap().provenance.training.unwrap();
    assert_eq!((training.teacher, training.inherited), (Some(before.clone()), Some(before)));
}
