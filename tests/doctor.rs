//! Sound data give no finding; data broken in one way give that finding, with its cure.

use std::collections::BTreeMap;
use std::f64::consts::FRAC_PI_2;
use std::sync::OnceLock;

use nalgebra::Point3;
use pivotal::cloud::{Feature, IntensityMode};
use pivotal::data::statistics::DataStatistics;
use pivotal::data::{DataError, Finding as SourceFinding, Fingerprint, Label, Sample, SampleId, Source};
use pivotal::doctor::overfit::{ClassOutcome, Overfit, OverfitOptions, overfit};
use pivotal::doctor::{Finding, Report, Schedule, Severity, Subject, examine};
use pivotal::geometry::Box3d;
use pivotal::model::directory::provenance::Provenance;
use pivotal::model::directory::{SaveOptions, WeightsDtype, load, save};
use pivotal::model::expected_params;
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::spec::ModelSpec;
use pivotal::synth::sensor::SensorKind;
use pivotal::synth::{Drive, DriveConfig};
use pivotal::time::Stamp;
use pivotal::train::config::RunConfig;

use crate::support::shared;

const N_FRAMES: usize = 4;

/// A source that seems to have `len` frames; frames that are read are those in memory, in their order.
#[derive(Debug, Clone)]
struct Recorded {
    len: usize,
    samples: Vec<Sample>,
    unreadable: Vec<usize>,
    findings: Vec<SourceFinding>,
    drive: String,
}

impl Recorded {
    fn place(&self, index: usize) -> usize {
        index * self.samples.len() / self.len
    }
}

impl Source for Recorded {
    fn len(&self) -> usize {
        self.len
    }

    fn id(&self, index: usize) -> SampleId {
        SampleId { drive: self.drive.clone(), frame: index as u64 }
    }

    fn load(&self, _epoch: u64, index: usize) -> Result<Sample, DataError> {
        let place = self.place(index);
        if self.unreadable.contains(&place) {
            let (path, place) = ("bag.mcap".to_owned(), format!("record {index}"));
            return Err(DataError::Format { path, place, reason: "cut off".to_owned() });
        }
        Ok(Sample { id: self.id(index), ..self.samples[place].clone() })
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint { source: "test".to_owned(), sha256: String::new() }
    }

    fn findings(&self) -> Vec<SourceFinding> {
        self.findings.clone()
    }
}

/// Everything a case may break.
#[derive(Debug, Clone)]
struct Patient {
    spec: ModelSpec,
    class_names: BTreeMap<String, String>,
    source: Recorded,
    validation: Recorded,
    schedule: Schedule,
    seen: Option<DataStatistics>,
}

impl Patient {
    fn healthy() -> Self {
        static SAMPLES: OnceLock<Vec<Sample>> = OnceLock::new();
        let samples = SAMPLES.get_or_init(|| {
            // Apart in time, so that each frame is another piece of the street.
            let config = DriveConfig { rate_hz: 0.25, ..DriveConfig::new(11, 0, N_FRAMES, SensorKind::Spinning32) };
            let drive = Drive::new(&config).unwrap();
            (0..N_FRAMES).map(|index| sample(&drive, index)).collect()
        });
        let source = Recorded {
            len: 2000,
            samples: samples.clone(),
            unreadable: Vec::new(),
            findings: Vec::new(),
            drive: "train".to_owned(),
        };
        Self {
            spec: ModelSpec::builtin("cp-pillar-v0.64").unwrap(),
            class_names: BTreeMap::new(),
            validation: Recorded { drive: "val".to_owned(), ..source.clone() },
            source,
            schedule: Schedule { epochs: 30, batch_size: 2 },
            seen: Some(DataStatistics::of(samples)),
        }
    }

    fn examine(&self) -> Report {
        let subject = Subject {
            spec: &self.spec,
            class_names: &self.class_names,
            source: &self.source,
            validation: Some(&self.validation),
            schedule: Some(self.schedule),
            seen: self.seen.as_ref(),
        };
        examine(&subject, N_FRAMES)
    }

    fn labels(&mut self, change: impl Fn(&mut Label)) {
        self.source.samples.iter_mut().flat_map(|sample| sample.labels.as_mut().unwrap()).for_each(change);
    }

    fn boxes(&mut self, change: impl Fn(Box3d) -> Box3d) {
        self.labels(|label| label.box3d = change(label.box3d));
    }

    /// Turns the vehicle on the spot; everything stays right.
    fn turn_frames(&mut self, degrees: f64) {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let turned = |x: f64, y: f64| [x * cos - y * sin, x * sin + y * cos];
        for sample in &mut self.source.samples {
            let n_columns = sample.cloud.features.len();
            for row in sample.cloud.points.chunks_exact_mut(n_columns) {
                let [x, y] = turned(f64::from(row[0]), f64::from(row[1]));
                (row[0], row[1]) = (x as f32, y as f32);
            }
            for label in sample.labels.iter_mut().flatten() {
                let Box3d { center: [x, y, z], size, yaw } = label.box3d;
                let [x, y] = turned(x, y);
                label.box3d = Box3d { center: [x, y, z], size, yaw: yaw + degrees.to_radians() };
                label.velocity_mps = label.velocity_mps.map(|[vx, vy]| turned(vx, vy));
            }
        }
    }

    /// Changes a column of every point.
    fn column(&mut self, feature: Feature, change: impl Fn(f32) -> f32) {
        for sample in &mut self.source.samples {
            let at = sample.cloud.features.iter().position(|present| *present == feature).unwrap();
            let n_columns = sample.cloud.features.len();
            sample.cloud.points.iter_mut().skip(at).step_by(n_columns).for_each(|value| *value = change(*value));
        }
    }
}

fn sample(drive: &Drive, index: usize) -> Sample {
    let frame = drive.frame(index).unwrap();
    let label = |label: &pivotal::synth::LabeledBox| Label {
        box3d: label.box3d,
        class: label.class.name().to_owned(),
        track_id: None,
        n_points: Some(label.n_points),
        difficulty: None,
        velocity_mps: Some(label.velocity_mps),
    };
    Sample {
        id: SampleId { drive: String::new(), frame: 0 },
        labels: Some(frame.boxes.iter().map(label).collect()),
        cloud: frame.cloud,
        in_no_label_zone: Vec::new(),
        world_from_cloud: Some(frame.world_from_ego),
    }
}

#[test]
fn sound_data_give_no_finding() {
    let report = Patient::healthy().examine();
    assert!(report.findings.is_empty() && report.skipped.is_empty(), "{report}");
    assert!(!report.has_errors());
    let text = report.to_string();
    for line in
        ["4 frames read, 0 could not be", "Vehicle: ", "ground around the origin at z = ", "0 errors, 0 warnings, 0 notes"]
    {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// What is broken, the check that must tell, how bad it must call it, and words that its numbers or its advice must have.
type Case = (&'static str, fn(&mut Patient), &'static str, Severity, &'static str);

fn turned(b: Box3d, degrees: f64) -> Box3d {
    Box3d { yaw: b.yaw + degrees.to_radians(), ..b }
}

const ERROR: Severity = Severity::Error;
const WARNING: Severity = Severity::Warning;

/// Labels that do not lie on the points, by what somebody did to them.
const MISPLACED: [Case; 18] = [
    ("yaw off by 90 degrees", |p| p.boxes(|b| turned(b, 90.0)), "alignment", ERROR, "turning yaw by 90 degrees"),
    (
        "clockwise yaw, on a street across",
        |p| (p.turn_frames(35.0), p.boxes(|b| Box3d { yaw: -b.yaw, ..b })).1,
        "alignment",
        ERROR,
        "negate yaw",
    ),
    ("yaw of a camera", |p| p.boxes(|b| Box3d { yaw: -b.yaw - FRAC_PI_2, ..b }), "alignment", ERROR, "-yaw - pi/2"),
    ("yaw in degrees", |p| p.boxes(|b| Box3d { yaw: b.yaw.to_degrees(), ..b }), "yaw-unit", ERROR, "multiply by pi/180"),
    ("yaw in degrees, by points", |p| p.boxes(|b| Box3d { yaw: b.yaw.to_degrees(), ..b }), "alignment", ERROR, "pi/180"),
    (
        "length and width swapped",
        |p| p.boxes(|b| Box3d { size: [b.size[1], b.size[0], b.size[2]], ..b }),
        "alignment",
        ERROR,
        "swap length and width",
    ),
    (
        "height, width, length",
        |p| p.boxes(|b| Box3d { size: [b.size[2], b.size[1], b.size[0]], ..b }),
        "alignment",
        ERROR,
        "swap length and height",
    ),
    ("feet instead of centres", |p| p.boxes(|b| raised(b, -b.size[2] / 2.0)), "alignment", ERROR, "add height/2 to z"),
    ("tops instead of centres", |p| p.boxes(|b| raised(b, b.size[2] / 2.0)), "alignment", ERROR, "subtract height/2 from z"),
    ("sensor height", |p| p.boxes(|b| raised(b, -1.8)), "alignment", ERROR, "along z"),
    (
        "lever arm",
        |p| p.boxes(|b| Box3d { center: [b.center[0] - 1.5, b.center[1], b.center[2]], ..b }),
        "alignment",
        ERROR,
        "moving labels by +1.50 m along x",
    ),
    (
        "x and y swapped",
        |p| p.boxes(|b| Box3d { center: [b.center[1], b.center[0], b.center[2]], yaw: FRAC_PI_2 - b.yaw, ..b }),
        "alignment",
        ERROR,
        "swapping x and y",
    ),
    (
        "frame turned by 90 degrees",
        |p| p.boxes(|b| turned(Box3d { center: [-b.center[1], b.center[0], b.center[2]], ..b }, 90.0)),
        "alignment",
        ERROR,
        "turning labels by -90 degrees",
    ),
    (
        "frame turned by 180 degrees",
        |p| p.boxes(|b| turned(Box3d { center: [-b.center[0], -b.center[1], b.center[2]], ..b }, 180.0)),
        "alignment",
        ERROR,
        "turning labels by 180 degrees",
    ),
    (
        "y to the right",
        |p| p.boxes(|b| Box3d { center: [b.center[0], -b.center[1], b.center[2]], yaw: -b.yaw, ..b }),
        "alignment",
        ERROR,
        "mirroring labels left to right",
    ),
    (
        "camera's frame",
        |p| p.boxes(|b| Box3d { center: [-b.center[1], -b.center[2], b.center[0]], yaw: -b.yaw - FRAC_PI_2, ..b }),
        "alignment",
        ERROR,
        "camera's frame",
    ),
    ("world's frame", world, "alignment", ERROR, "world's frame"),
    (
        "feet and swapped sides",
        |p| p.boxes(|b| raised(Box3d { size: [b.size[1], b.size[0], b.size[2]], ..b }, -b.size[2] / 2.0)),
        "alignment",
        ERROR,
        "; then ",
    ),
];

fn raised(b: Box3d, by_m: f64) -> Box3d {
    Box3d { center: [b.center[0], b.center[1], b.center[2] + by_m], ..b }
}

fn world(patient: &mut Patient) {
    for sample in &mut patient.source.samples {
        let pose = sample.world_from_cloud.unwrap();
        for label in sample.labels.iter_mut().flatten() {
            let center = pose * Point3::from(label.box3d.center);
            let ahead = pose.rotation * nalgebra::Vector3::new(label.box3d.yaw.cos(), label.box3d.yaw.sin(), 0.0);
            label.box3d = Box3d { center: center.coords.into(), yaw: ahead.y.atan2(ahead.x), ..label.box3d };
        }
    }
}

#[test]
fn sound_data_turned_on_the_spot_give_no_finding() {
    let mut patient = Patient::healthy();
    patient.turn_frames(35.0);
    let report = patient.examine();
    assert!(report.findings.is_empty(), "{report}");
}

#[test]
fn misplaced_labels_are_found_with_what_was_done_to_them() {
    check(&MISPLACED);
}

/// Faults of boxes by themselves.
const BOXES: [Case; 9] = [
    ("yaw reversed", |p| p.boxes(|b| turned(b, 180.0)), "heading", ERROR, "add pi to the yaw"),
    (
        "sizes in centimetres",
        |p| p.boxes(|b| Box3d { size: b.size.map(|size| size * 100.0), ..b }),
        "sizes",
        ERROR,
        "length, width, height in centimetres",
    ),
    (
        "half sizes",
        |p| p.boxes(|b| Box3d { size: b.size.map(|size| size / 2.0), ..b }),
        "sizes",
        ERROR,
        "length, width, height in metres, halved",
    ),
    (
        "width, length, height",
        |p| p.boxes(|b| Box3d { size: [b.size[1], b.size[0], b.size[2]], ..b }),
        "sizes",
        ERROR,
        "width, length, height in metres",
    ),
    ("no size", |p| p.boxes(|b| Box3d { size: [0.0, b.size[1], b.size[2]], ..b }), "box-without-size", ERROR, "0 or less"),
    (
        "NaN in a label",
        |p| p.source.samples[2].labels.as_mut().unwrap()[1].box3d.center[0] = f64::NAN,
        "non-finite-labels",
        ERROR,
        "label 1 of train/",
    ),
    (
        "labels of hidden objects",
        |p| {
            for sample in &mut p.source.samples {
                let buried = sample.labels.clone().unwrap();
                let far = |label: Label| Label { box3d: raised(label.box3d, 40.0), ..label };
                sample.labels.as_mut().unwrap().extend(buried.into_iter().map(far));
            }
        },
        "empty-boxes",
        WARNING,
        "hold no point",
    ),
    (
        "labels twice",
        |p| {
            for sample in &mut p.source.samples {
                let again = sample.labels.clone().unwrap();
                sample.labels.as_mut().unwrap().extend(again);
            }
        },
        "repeated-labels",
        WARNING,
        "leave out repeated labels",
    ),
    ("no labels", |p| p.source.samples.iter_mut().for_each(|s| s.labels = None), "unlabelled-frames", ERROR, "label_topic="),
];

#[test]
fn faulty_boxes_are_found() {
    check(&BOXES);
}

/// Faults of clouds.
const CLOUDS: [Case; 18] = [
    (
        "smaller cars than the weights'",
        |p| p.boxes(|b| Box3d { size: [b.size[0] * 0.65, b.size[1], b.size[2]], ..b }),
        "size-against-weights",
        WARNING,
        "Vehicle: median length",
    ),
    (
        "8-bit intensity",
        |p| p.column(Feature::Intensity, |i| (i * 255.0).round().min(255.0)),
        "intensity-scale",
        ERROR,
        "scale_tanh: 0.003922",
    ),
    (
        "8-bit intensity of a raw model",
        |p| {
            p.spec.input.intensity = IntensityMode::Raw;
            p.column(Feature::Intensity, |i| (i * 255.0).round().min(255.0));
        },
        "intensity-scale",
        ERROR,
        "{scale: 0.003922}",
    ),
    (
        "intensity scaled twice",
        |p| {
            p.spec.input.intensity = IntensityMode::ScaleTanh(1.0 / 255.0);
            p.column(Feature::Intensity, |i| i / 4.0);
        },
        "intensity-scale",
        ERROR,
        "as good as zero",
    ),
    ("constant intensity", |p| p.column(Feature::Intensity, |_| 0.0), "intensity-constant", WARNING, "all the same"),
    (
        "other intensity than the weights'",
        |p| p.column(Feature::Intensity, |i| i / 8.0),
        "intensity-against-weights",
        ERROR,
        "intensity_scale=",
    ),
    (
        "sensor's frame, ground below the range",
        |p| {
            p.column(Feature::Z, |z| z - 2.4);
            p.boxes(|b| raised(b, -2.4));
        },
        "ground-height",
        ERROR,
        "target_frame=base_link",
    ),
    (
        "sensor's frame, ground at the bottom of the range",
        |p| {
            p.column(Feature::Z, |z| z - 1.8);
            p.boxes(|b| raised(b, -1.8));
        },
        "ground-height",
        WARNING,
        "at the very bottom",
    ),
    (
        "another mounting height than the weights'",
        |p| {
            p.column(Feature::Z, |z| z - 1.0);
            p.boxes(|b| raised(b, -1.0));
        },
        "height-against-weights",
        ERROR,
        "raise the clouds by 1.00 m",
    ),
    (
        "fewer points than the weights'",
        |p| {
            for sample in &mut p.source.samples {
                let n_columns = sample.cloud.features.len();
                let sparse: Vec<f32> = sample.cloud.rows().step_by(5).flatten().copied().collect();
                assert_eq!(sparse.len() % n_columns, 0);
                sample.cloud.points = sparse;
            }
        },
        "density-against-weights",
        WARNING,
        "points per frame, the weights saw",
    ),
    (
        "millimetres",
        |p| {
            for feature in [Feature::X, Feature::Y, Feature::Z] {
                p.column(feature, |v| v * 1000.0);
            }
        },
        "units",
        ERROR,
        "millimetres",
    ),
    ("NaN in points", |p| p.source.samples[1].cloud.points[7] = f32::NAN, "non-finite-points", ERROR, "1 point with"),
    ("no points", |p| p.source.samples[3].cloud.points.clear(), "labels-without-cloud", ERROR, "1 of them have labels"),
    (
        "a cloud twice",
        |p| p.source.samples[2].cloud = p.source.samples[1].cloud.clone(),
        "repeated-clouds",
        WARNING,
        "1 of 4 clouds repeat another one",
    ),
    (
        "points twice",
        |p| {
            for sample in &mut p.source.samples {
                let again = sample.cloud.points.clone();
                sample.cloud.points.extend(again);
            }
        },
        "repeated-points",
        WARNING,
        "50.0 % of the points",
    ),
    (
        "no elongation and none filled",
        |p| {
            p.spec.input.fill_absent.clear();
            for sample in &mut p.source.samples {
                sample.cloud.points = sample.cloud.rows().flat_map(|row| row[..4].to_vec()).collect();
                sample.cloud.features.truncate(4);
            }
        },
        "missing-column",
        ERROR,
        "input.fill_absent",
    ),
    ("clock going back", |p| p.source.samples[2].cloud.stamp = Stamp { nanos: 5 }, "stamps", WARNING, "at 0.000 s"),
    ("a record that is cut off", |p| p.source.unreadable = vec![1], "unreadable-frames", ERROR, "1 of 4 frames cannot be read"),
];

#[test]
fn faulty_clouds_are_found() {
    check(&CLOUDS);
}

/// Faults of the model's configuration, of names and of the data as a whole.
const CONFIGURATION: [Case; 19] = [
    ("no frames", |p| p.source.len = 0, "no-frames", ERROR, "the source has no frame"),
    ("range that cells do not divide", |p| p.spec.grid.range[3] = 74.5, "range-arithmetic", ERROR, "cells)"),
    ("cells that strides do not divide", |p| p.spec.grid.range[4] = 74.24 + 0.64, "range-arithmetic", ERROR, "232 cells"),
    ("no classes", |p| p.spec.classes.clear(), "spec", ERROR, "needs at least one class"),
    ("high threshold", |p| p.spec.postprocess.score_threshold = 0.5, "score-threshold", WARNING, "score_threshold to 0.1"),
    ("narrow limit", |p| p.spec.postprocess.center_limit[0] = -40.0, "center-limit", WARNING, "center_limit along x"),
    (
        "range of less than a half",
        |p| p.spec.grid.range = [-30.72, -30.72, -2.0, 30.72, 30.72, 4.0],
        "boxes-out-of-range",
        WARNING,
        "boxes have their centre outside",
    ),
    (
        "range of a fiftieth",
        |p| p.spec.grid.range = [-2.56, -2.56, -2.0, 2.56, 2.56, 4.0],
        "points-out-of-range",
        ERROR,
        "of the points lie outside",
    ),
    (
        "range in the air",
        |p| p.spec.grid.range = [-74.24, -74.24, 2.0, 74.24, 74.24, 8.0],
        "boxes-out-of-height",
        ERROR,
        "their centre above or below",
    ),
    (
        "range in the air, by points",
        |p| p.spec.grid.range = [-74.24, -74.24, 2.0, 74.24, 74.24, 8.0],
        "points-out-of-height",
        ERROR,
        "of the points within x and y",
    ),
    (
        "few points per pillar",
        |p| p.spec.grid.max_points_per_voxel = Some(1),
        "points-over-cap",
        ERROR,
        "max_points_per_voxel = 1",
    ),
    ("few pillars", |p| p.spec.grid.max_voxels = Some(500), "voxels-over-cap", ERROR, "max_voxels = 500"),
    (
        "a class by another name",
        |p| p.labels(|label| label.class = label.class.replace("Vehicle", "Car")),
        "class-names",
        ERROR,
        "class_names: {Car: Vehicle}",
    ),
    (
        "a class renamed to one that is not there",
        |p| {
            p.labels(|label| label.class = label.class.replace("Vehicle", "Thing"));
            p.class_names.insert("Thing".to_owned(), "Vehicles".to_owned());
        },
        "class-names",
        ERROR,
        "turns `Thing` into `Vehicles`",
    ),
    (
        "a class of the model without labels",
        |p| p.source.samples.iter_mut().for_each(|s| s.labels.as_mut().unwrap().retain(|label| label.class != "Cyclist")),
        "class-without-labels",
        WARNING,
        "`Cyclist`",
    ),
    ("a drive on both sides", |p| p.validation.drive = "train".to_owned(), "split", ERROR, "1 of 1 drive of the validation"),
    ("few frames", |p| p.source.len = 40, "few-frames", WARNING, "40 frames"),
    ("few steps", |p| p.schedule.epochs = 0, "few-steps", WARNING, "make 0 steps"),
    (
        "damage that the source tells of",
        |p| {
            let (drive, example) = ("train".to_owned(), "chunk 3".to_owned());
            p.source.findings.push(SourceFinding { drive, kind: "chunk with a wrong checksum", count: 2, example });
        },
        "source",
        WARNING,
        "chunk with a wrong checksum, 2x: chunk 3",
    ),
];

#[test]
fn faulty_configurations_are_found() {
    check(&CONFIGURATION);
}

#[test]
fn few_objects_and_renamed_classes() {
    let mut patient = Patient::healthy();
    patient.source.len = 8;
    let report = patient.examine();
    assert!(report.findings.iter().any(|finding| finding.check == "few-objects"), "{report}");

    let mut patient = Patient::healthy();
    patient.labels(|label| label.class = label.class.replace("Vehicle", "Thing"));
    patient.class_names.insert("Thing".to_owned(), "Vehicle".to_owned());
    let report = patient.examine();
    assert!(report.findings.is_empty(), "{report}");

    patient.labels(|label| label.class = label.class.replace("Cyclist", "Sign"));
    let report = patient.examine();
    let note = report.findings.iter().find(|finding| finding.severity == Severity::Note);
    assert!(note.is_some_and(|note| note.measured.contains("`Sign`")), "{report}");
}

fn check(cases: &[Case]) {
    let mut misses = String::new();
    for (what, break_it, check, severity, words) in cases {
        let mut patient = Patient::healthy();
        break_it(&mut patient);
        let report = patient.examine();
        let found = report.findings.iter().any(|finding| {
            let says = finding.measured.contains(words) || finding.advice.contains(words);
            finding.check == *check && finding.severity == *severity && says
        });
        assert_eq!(report.has_errors(), report.findings.iter().any(|finding| finding.severity == Severity::Error));
        if !found {
            misses += &format!("\n== {what}: no {severity} [{check}] with `{words}` in\n{report}");
        }
    }
    assert!(misses.is_empty(), "{misses}");
}

#[test]
fn readme_names_every_check() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    for (_, _, check, ..) in MISPLACED.iter().chain(&BOXES).chain(&CLOUDS).chain(&CONFIGURATION) {
        assert!(readme.contains(&format!("`{check}`")), "{check} is not in README");
    }
}

/// A run small enough to be learnt by heart in seconds.
fn small_run() -> RunConfig {
    RunConfig {
        model: "cp-pillar-v0.64-xxs".to_owned(),
        range: Some([-10.24, -10.24, -2.0, 10.24, 10.24, 4.0]),
        ..RunConfig::default()
    }
}

#[test]
fn one_sound_frame_is_learnt_by_heart() {
    let mut patient = Patient::healthy();
    for sample in &mut patient.source.samples {
        let near = |row: &&[f32]| row[0].abs() < 12.0 && row[1].abs() < 12.0;
        sample.cloud.points = sample.cloud.rows().filter(near).flatten().copied().collect();
    }
    let run = small_run();
    let options = OverfitOptions { steps: 300, device: "cpu".to_owned() };
    let mut n_steps = 0;
    let outcome =
        overfit(&run, &run.spec().unwrap(), &patient.source, &options, &mut |progress| n_steps = progress.step).unwrap();
    assert_eq!(n_steps, 300);
    assert!(outcome.classes.len() >= 2, "the test needs a frame with several classes: {outcome:?}");
    assert!(outcome.classes.iter().all(|class| class.n_labels > 1 && class.ap > 0.9 && class.aph > 0.9), "{outcome:?}");
    assert!(outcome.findings().is_empty());
    let mut report = patient.examine();
    report.add_overfit(outcome);
    assert!(report.to_string().contains("learnt by heart in 300 steps, train/"), "{report}");
}

#[test]
fn self_test_that_cannot_be_made_says_why() {
    let mut patient = Patient::healthy();
    let run = small_run();
    let spec = run.spec().unwrap();
    let fails = |patient: &Patient, steps| {
        let options = OverfitOptions { steps, device: "cpu".to_owned() };
        overfit(&run, &spec, &patient.source, &options, &mut |_| {}).unwrap_err().to_string()
    };
    assert!(fails(&patient, 20).contains("20 steps are too few"));
    patient.boxes(|b| raised(b, 50.0));
    let message = fails(&patient, 300);
    assert!(message.contains("none of 20 frames has a label of the model's classes with a point inside the range"), "{message}");
}

#[test]
fn self_test_tells_bad_from_fair_results() {
    let outcome = |ap, aph| Overfit {
        frame: SampleId { drive: "d".to_owned(), frame: 3 },
        steps: 500,
        classes: vec![ClassOutcome { class: "Vehicle".to_owned(), n_labels: 4, ap, aph }],
    };
    let cases = [
        (outcome(0.97, 0.96), None),
        (outcome(0.97, 0.5), Some((WARNING, "headings"))),
        (outcome(0.7, 0.7), Some((WARNING, "--overfit-steps"))),
        (outcome(0.1, 0.1), Some((ERROR, "--overfit-steps"))),
    ];
    for (outcome, expected) in cases {
        let findings = outcome.findings();
        let got = findings.first().map(|finding| finding.severity);
        assert_eq!(got, expected.map(|(severity, _)| severity), "{outcome:?}");
        if let Some((_, words)) = expected {
            assert!(findings[0].advice.contains(words) && findings[0].measured.contains("d/3"), "{findings:?}");
        }
    }
}

#[test]
fn model_directory_gives_back_the_statistics_of_its_training_data() {
    let patient = Patient::healthy();
    let spec = ModelSpec::builtin("cp-pillar-v0.64-xxs").unwrap();
    let weights = hash_weights(&expected_params(&spec), 1, &HeadMultipliers { hm_weight: 0.04 });
    let provenance = Provenance { data_statistics: patient.seen.clone(), ..Provenance::new("test", "made up") };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("model");
    save(&dir, &spec, &weights, &provenance, SaveOptions { dtype: WeightsDtype::F16, overwrite: false }).unwrap();
    let seen = load(&dir).unwrap().provenance.data_statistics;
    assert!(seen.is_some() && seen == patient.seen);
    assert_eq!(DataStatistics::gather(&patient.source, N_FRAMES), patient.seen.unwrap());
}

/// Real points and real labels: nothing is wrong with where they lie until somebody breaks them. Four frames with 20 boxes and one
/// with 46, of which few can tell: a quarter turn leaves people where they are.
#[test]
fn real_boxes_lie_on_their_points_until_they_are_broken() {
    type Break = fn(Box3d) -> Box3d;
    let breaks: [(&str, Break); 8] = [
        ("add height/2 to z", |b| raised(b, -b.size[2] / 2.0)),
        ("swap length and width", |b| Box3d { size: [b.size[1], b.size[0], b.size[2]], ..b }),
        ("swap length and height", |b| Box3d { size: [b.size[2], b.size[1], b.size[0]], ..b }),
        ("add pi/2 or -pi/2 to yaw", |b| turned(b, 90.0)),
        ("-yaw - pi/2", |b| Box3d { yaw: -b.yaw - FRAC_PI_2, ..b }),
        ("along z", |b| raised(b, -1.8)),
        ("to x of the labels", |b| Box3d { center: [b.center[0] - 1.5, b.center[1], b.center[2]], ..b }),
        ("camera's frame", |b| Box3d { center: [-b.center[1], -b.center[2], b.center[0]], yaw: -b.yaw - FRAC_PI_2, ..b }),
    ];
    let mut misses = String::new();
    for file in ["semireal_kitti.tfrecord", "semireal_nuscenes.tfrecord"] {
        let source = pivotal::data::open(shared("data/waymo").join(file).to_str().unwrap()).unwrap();
        let samples: Vec<Sample> = (0..source.len()).map(|index| source.load(0, index).unwrap()).collect();
        let source = Recorded { len: samples.len(), samples, ..Patient::healthy().source };
        let mut sound = Patient { seen: None, source, ..Patient::healthy() };
        for degrees in [0.0, 35.0] {
            sound.turn_frames(degrees);
            let report = sound.examine();
            assert!(
                !report.has_errors() && !report.findings.iter().any(|finding| finding.check == "alignment"),
                "{file}\n{report}"
            );
        }
        sound.turn_frames(-35.0);
        for (cure, break_it) in breaks {
            let mut broken = sound.clone();
            broken.boxes(break_it);
            let report = broken.examine();
            let says = |finding: &Finding| finding.measured.contains(cure) || finding.advice.contains(cure);
            if !report.findings.iter().any(|finding| finding.check == "alignment" && says(finding)) {
                misses += &format!("\n== {file}, {cure}\n{report}");
            }
        }
    }
    assert!(misses.is_empty(), "{misses}");
}

#[test]
fn velocities_in_another_frame_are_told_with_their_angle() {
    let turned_by = |degrees: f64| {
        let mut patient = Patient::healthy();
        let (sin, cos) = degrees.to_radians().sin_cos();
        patient.labels(|label| label.velocity_mps = label.velocity_mps.map(|[x, y]| [x * cos - y * sin, x * sin + y * cos]));
        patient.examine()
    };
    for (degrees, words) in [
        (65.0, "turn them by -65 degrees"),
        (-90.0, "if `alignment` tells to turn yaw, add -pi/2 to it; else the velocities"),
        (-130.0, "turn them by 130 degrees"),
    ] {
        let report = turned_by(degrees);
        let found = report.findings.iter().any(|finding| finding.check == "heading" && finding.advice.contains(words));
        assert!(found && report.findings.len() == 1, "{degrees}: {words}\n{report}");
    }
    assert!(turned_by(15.0).findings.is_empty());
}

#[test]
fn command_says_each_thing_once_and_examines_a_range_that_training_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("run.yaml");
    std::fs::write(&config, "{model: cp-pillar-v0.64-xxs, range: [-23, -23.04, -2, 23.04, 23.04, 4]}").unwrap();
    let config = config.to_str().unwrap();
    let synth = "synth:samples=1,sensor=spinning16";
    let folder = folder.path().to_str().unwrap();
    let no_model = format!("{folder} is no model directory: it has no spec.yaml");
    let cases: [(&[&str], &str); 4] = [
        (&["--model", "cp-pillar-v0.64-xxs", "--data", "/nowhere"], "/nowhere: No such file or directory (os error 2)"),
        (&["--config", "/nowhere.yaml", "--data", synth], "/nowhere.yaml: No such file or directory (os error 2)"),
        (&["--model", folder, "--data", synth], &no_model),
        (&["--config", config, "--data", synth], "set grid.range (in a run's YAML: range) along x to -21.74 to 21.78 (68 cells)"),
    ];
    for (args, words) in cases {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_trainer")).arg("doctor").args(args).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert_eq!((output.status.code(), text.matches(words).count()), (Some(1), 1), "{words}\n{text}");
    }
}
