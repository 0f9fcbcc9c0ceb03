//! Whole models over sources: what counts, what is left out, and the files of a report.

use std::collections::BTreeMap;

use pivotal::cloud::PointCloud;
use pivotal::data::{DataError, Fingerprint, Label, Sample, SampleId, Source};
use pivotal::eval::config::Level;
use pivotal::eval::report::Origin;
use pivotal::eval::store::ReportFiles;
use pivotal::eval::{EvalOptions, EvalReport, ObjectType, Region, evaluate, evaluate_with_progress};
use pivotal::geometry::Box3d;
use pivotal::model::directory::provenance::Provenance;
use pivotal::model::directory::{self, SaveOptions, WeightsDtype};
use pivotal::model::expected_params;
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::params::Weights;
use pivotal::model::spec::ModelSpec;
use pivotal::pipeline::{Pipeline, PipelineOptions, Precision};
use pivotal::postprocess::Detection;

use crate::pipeline::{rings, small_spec};

const HOSTILE: &str = "<script>alert('x')</script>&";

/// What loading a frame gives.
#[derive(Debug, Clone)]
enum Scripted {
    Frame(PointCloud, Option<Vec<Label>>),
    Broken,
    Panicking,
}

#[derive(Debug)]
struct Script(Vec<Scripted>);

impl Source for Script {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn id(&self, index: usize) -> SampleId {
        SampleId { drive: format!("drive {HOSTILE}"), frame: index as u64 }
    }

    fn load(&self, _epoch: u64, index: usize) -> Result<Sample, DataError> {
        match self.0[index].clone() {
            Scripted::Frame(cloud, labels) => {
                let id = self.id(index);
                Ok(Sample { id, cloud, labels, in_no_label_zone: Vec::new(), world_from_cloud: None })
            }
            Scripted::Broken => Err(DataError::Source { source_name: "script".into(), reason: format!("damaged {HOSTILE}") }),
            Scripted::Panicking => panic!("a fault of the source"),
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint { source: format!("script {HOSTILE}"), sha256: "00ff".to_owned() }
    }
}

fn spec() -> ModelSpec {
    let mut spec = small_spec("cp-pillar-v0.64-xxs");
    spec.postprocess.score_threshold = 0.01;
    spec.postprocess.max_peaks = 60;
    spec
}

fn weights(spec: &ModelSpec) -> Weights {
    let decls: Vec<_> = expected_params(spec).into_iter().filter(|decl| !decl.name.ends_with("num_batches_tracked")).collect();
    hash_weights(&decls, 7, &HeadMultipliers { hm_weight: 3.0 })
}

fn pipeline_of(spec: ModelSpec) -> Pipeline {
    let weights = weights(&spec);
    Pipeline::new(spec, &weights, &PipelineOptions { device: "cpu".to_owned(), precision: Precision::F32 }).unwrap()
}

fn pipeline() -> Pipeline {
    pipeline_of(spec())
}

/// The columns the model takes, of the first `n` points of the rings.
fn cloud(n: usize) -> PointCloud {
    rings(n)
}

fn detections(pipeline: &mut Pipeline, cloud: &PointCloud) -> Vec<Detection> {
    let ready = pivotal::cloud::columns::for_network(cloud, &pipeline.spec().input).unwrap();
    let found = pipeline.process(&ready).unwrap().detections;
    assert!(found.len() > 5, "the made-up weights find {} boxes", found.len());
    found
}

fn label(class: &str, box3d: Box3d, n_points: Option<u32>) -> Label {
    Label { box3d, class: class.to_owned(), track_id: None, n_points, difficulty: None, velocity_mps: None }
}

/// The boxes as labels of ten points each.
fn as_labels(found: &[Detection], spec: &ModelSpec) -> Vec<Label> {
    found.iter().map(|d| label(&spec.classes[d.class_idx], d.box3d, Some(10))).collect()
}

fn options() -> EvalOptions {
    EvalOptions { n_readers: 2, region: Region::Everything, ..EvalOptions::default() }
}

fn aph(report: &EvalReport, object_type: ObjectType, level: Level) -> f32 {
    report.by_type(object_type, level).unwrap().aph
}

#[test]
fn model_whose_boxes_are_the_labels_is_perfect_and_turned_labels_cost_heading_only() {
    let mut pipeline = pipeline();
    let spec = spec();
    let clouds = [cloud(3000), cloud(5000)];
    let frame = |pipeline: &mut Pipeline, turn: f64| {
        clouds.clone().map(|cloud| {
            let mut labels = as_labels(&detections(pipeline, &cloud), &spec);
            labels.iter_mut().for_each(|label| label.box3d.yaw += turn);
            Scripted::Frame(cloud, Some(labels))
        })
    };
    let straight = Script(frame(&mut pipeline, 0.0).to_vec());
    let straight = evaluate(&mut pipeline, &straight, &options()).unwrap();
    let flipped = Script(frame(&mut pipeline, std::f64::consts::PI).to_vec());
    let flipped = evaluate(&mut pipeline, &flipped, &options()).unwrap();
    let mut n_classes = 0;
    for ((class, object_type), (_, labels)) in straight.classes().zip(&straight.labels) {
        if labels.level_1 > 0 {
            n_classes += 1;
            assert!((aph(&straight, object_type, Level::Level1) - 1.0).abs() < 1e-5, "{class}");
            let turned = flipped.by_type(object_type, Level::Level1).unwrap();
            assert!((turned.ap - 1.0).abs() < 1e-5 && turned.aph < 1e-3, "{class}: {} {}", turned.ap, turned.aph);
        }
    }
    assert!(n_classes > 0, "{straight}");
    assert_eq!((straight.n_frames, straight.n_points), (2, 8000));
    assert_eq!(straight.worst_frames, []);
}

#[test]
fn bad_and_unlabelled_frames_are_left_out_with_their_reasons_and_the_rest_is_the_same_for_any_number_of_readers() {
    let mut pipeline = pipeline();
    let good = cloud(3000);
    let labels = as_labels(&detections(&mut pipeline, &good), &spec());
    let mut not_finite = labels.clone();
    not_finite[2].box3d.size[1] = f64::NAN;
    let mut without_intensity = good.clone();
    without_intensity.features[3] = pivotal::cloud::Feature::TimeOffset;
    let script = Script(vec![
        Scripted::Frame(good.clone(), Some(labels.clone())),
        Scripted::Broken,
        Scripted::Frame(good.clone(), None),
        Scripted::Panicking,
        Scripted::Frame(good.clone(), Some(not_finite)),
        Scripted::Frame(without_intensity, Some(labels)),
        Scripted::Frame(PointCloud { points: Vec::new(), ..good.clone() }, Some(Vec::new())),
    ]);
    let mut steps = Vec::new();
    let first = evaluate_with_progress(&mut pipeline, &script, &options(), &mut |p| steps.push((p.n_done, p.n_promised)));
    let first = first.unwrap();
    assert_eq!(steps, (1..=7).map(|n| (n, 7)).collect::<Vec<_>>());
    assert_eq!((first.n_frames, first.n_frames_without_labels, first.n_frames_chosen), (2, 1, 7));
    let reasons: Vec<_> = first.bad_frames.iter().map(|bad| (bad.frame.frame, bad.reason.as_str())).collect();
    assert_eq!(reasons.iter().map(|(frame, _)| *frame).collect::<Vec<_>>(), [1, 3, 4, 5]);
    for ((_, reason), wanted) in reasons.iter().zip(["damaged", "panicked: a fault of the source", "label 2", "intensity"]) {
        assert!(reason.contains(wanted), "{reason}");
    }
    let printed = first.to_string();
    assert!(printed.contains("2 of 7 frames; 1 without labels, 4 bad"), "{printed}");
    for n_readers in [0, 1, 5] {
        let again = evaluate(&mut pipeline, &script, &EvalOptions { n_readers, ..options() }).unwrap();
        assert_eq!(without_latency(&again), without_latency(&first), "{n_readers} readers");
    }
}

fn origin() -> Origin {
    Origin { command: format!("trainer eval {HOSTILE}"), weights_sha256: "abc".to_owned(), precision: Precision::F32 }
}

fn without_latency(report: &EvalReport) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_str(&pivotal::eval::report::to_json(report, &origin())).unwrap();
    assert!(value.as_object_mut().unwrap().remove("latency").is_some());
    value
}

#[test]
fn labels_are_sorted_out_by_class_region_and_points() {
    let mut pipeline = pipeline();
    let [_, _, _, x_max, ..] = spec().grid.range;
    let at = |x: f64| Box3d { center: [x, 0.0, 0.0], size: [4.0, 2.0, 3.0], yaw: 0.0 };
    let mut annotated = label("Vehicle", at(3.0), Some(100));
    annotated.difficulty = Some(2);
    let labels = vec![
        label("Vehicle", at(2.0), Some(6)),
        label("Vehicle", at(2.0), Some(5)),
        annotated,
        label("Vehicle", at(2.0), Some(0)),
        label("Vehicle", at(f64::from(x_max) + 0.1), Some(50)),
        label("lorry", at(5.0), Some(50)),
        label("Pedestrian", at(5.0), None),
        label("Pedestrian", Box3d { center: [5.0, 0.0, 60.0], ..at(5.0) }, None),
        label("tree", at(5.0), Some(9)),
    ];
    let script = Script(vec![Scripted::Frame(cloud(3000), Some(labels))]);
    let renamed: BTreeMap<_, _> = [("lorry".to_owned(), "Vehicle".to_owned())].into();
    let inside = EvalOptions { region: Region::Model, renamed, ..options() };
    let report = evaluate(&mut pipeline, &script, &inside).unwrap();
    let counts = |report: &EvalReport, class: usize| {
        let c = report.labels[class].1;
        (c.level_1, c.level_2, c.without_points, c.outside_region)
    };
    assert_eq!(report.labels[0].0, "Vehicle");
    assert_eq!(counts(&report, 0), (2, 2, 1, 1));
    // The rings reach the first pedestrian; nothing is 60 m up.
    assert_eq!(counts(&report, 1), (1, 0, 1, 0));
    assert_eq!(report.labels_of_other_classes, [("tree".to_owned(), 1)].into());
    let everywhere = evaluate(&mut pipeline, &script, &EvalOptions { region: Region::Everything, ..inside }).unwrap();
    assert_eq!(counts(&everywhere, 0), (3, 2, 1, 0));
    assert_eq!((report.n_labels_outside_region(), everywhere.n_labels_outside_region()), (1, 0));
    let missed = |report: &EvalReport| report.by_type(ObjectType::Vehicle, Level::Level2).unwrap().curve.false_negatives[100];
    assert_eq!((missed(&report), missed(&everywhere)), (4, 5));
}

#[test]
fn limit_spreads_frames_and_the_worst_come_first() {
    let mut pipeline = pipeline();
    let far = |n: usize| {
        let boxes = (0..n).map(|i| Box3d { center: [i as f64 * 3.0, 200.0, 0.0], size: [2.0, 1.0, 1.0], yaw: 0.0 });
        Scripted::Frame(cloud(10), Some(boxes.map(|b| label("Vehicle", b, Some(9))).collect()))
    };
    let script = Script([0, 3, 9, 9, 1, 2, 4, 5, 6, 7].map(far).to_vec());
    let options = EvalOptions { n_worst_frames: 3, fault_score: 1.5, ..options() };
    let all = evaluate(&mut pipeline, &script, &options).unwrap();
    let worst: Vec<_> = all.worst_frames.iter().map(|frame| (frame.index, frame.missed, frame.n_faults())).collect();
    assert_eq!(worst, [(2, 9, 9), (3, 9, 9), (9, 7, 7)]);
    let some = evaluate(&mut pipeline, &script, &EvalOptions { limit: Some(4), ..options.clone() }).unwrap();
    assert_eq!((some.n_frames, some.n_frames_of_source), (4, 10));
    assert_eq!(some.worst_frames.iter().map(|frame| frame.index).collect::<Vec<_>>(), [2, 7, 5]);
    let none = evaluate(&mut pipeline, &script, &EvalOptions { limit: Some(0), ..options }).unwrap();
    assert_eq!((none.n_frames, none.mean_aph_level_2()), (0, Some(0.0)));
}

#[test]
fn classes_that_cannot_be_measured_are_refused() {
    let mut spec = spec();
    spec.classes[1] = "Tram".to_owned();
    let script = Script(Vec::new());
    let error = evaluate(&mut pipeline_of(spec), &script, &options()).unwrap_err().to_string();
    assert_eq!(error, "the metric knows Vehicle, Pedestrian, Sign and Cyclist, not `Tram`");
    let renamed: BTreeMap<_, _> = [("lorry".to_owned(), "Truck".to_owned())].into();
    let error = evaluate(&mut pipeline(), &script, &EvalOptions { renamed, ..options() }).unwrap_err().to_string();
    assert!(error.contains("lorry") && error.contains("Truck"), "{error}");
}

#[test]
fn report_files_hold_curves_tables_and_pictures_and_nothing_from_elsewhere() {
    let mut pipeline = pipeline();
    let good = cloud(3000);
    let mut labels = as_labels(&detections(&mut pipeline, &good), &spec());
    labels.truncate(3);
    labels.push(label(HOSTILE, labels[0].box3d, Some(4)));
    let script = Script(vec![Scripted::Frame(good, Some(labels)), Scripted::Broken]);
    let options = EvalOptions { fault_score: 0.0, ..options() };
    let report = evaluate(&mut pipeline, &script, &options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a/b");
    let files = ReportFiles::prepare(&out, false).unwrap();
    files.write(&report, &origin(), &script, &options).unwrap();

    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&files.json).unwrap()).unwrap();
    assert_eq!(json["weights_sha256"], "abc");
    assert_eq!(json["data"]["sha256"], "00ff");
    assert_eq!(json["n_frames"], 1);
    assert_eq!(json["breakdowns"].as_array().unwrap().len(), 32);
    assert_eq!(json["worst_frames"].as_array().unwrap().len(), 1);
    assert!(json["latency"]["stages"].as_array().unwrap().iter().any(|row| row["stage"] == "backbone" && row["p95_ms"].is_f64()));

    let html = std::fs::read_to_string(&files.html).unwrap();
    assert_eq!(html.matches("<svg").count(), 3, "a curve of each class");
    assert_eq!(html.matches("<polyline class=\"level-2\"").count(), 3);
    assert_eq!(html.matches("data:image/png;base64,iVBORw0KGgo").count(), 1, "a picture of the worst frame");
    assert!(html.contains("Finished with loss") && html.contains("damaged &lt;script&gt;"), "the bad frame is listed");
    for foreign in ["<script", "http:", "https:", "@import", "url("] {
        assert!(!html.contains(foreign), "{foreign}");
    }

    let names: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let refused = ReportFiles::prepare(&out, false).unwrap_err().to_string();
    assert!(refused.contains("report.json is there already"), "{refused}");
    ReportFiles::prepare(&out, true).unwrap();
    let blocked = ReportFiles::prepare(&files.json.join("below"), false).unwrap_err().to_string();
    assert!(blocked.starts_with("writing "), "{blocked}");
}

#[test]
fn command_evaluates_a_model_on_synthetic_frames() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (dir.path().join("model"), dir.path().join("out"));
    let save = SaveOptions { dtype: WeightsDtype::F32, overwrite: false };
    directory::save(&model, &spec(), &weights(&spec()), &Provenance::new("test", "made-up weights"), save).unwrap();
    let run = || {
        std::process::Command::new(env!("CARGO_BIN_EXE_trainer"))
            .args([
                "eval",
                "--device",
                "cpu",
                "--data",
                "synth:seed=1,drives=1,frames=3,sensor=spinning16",
                "--limit",
                "2",
                "--model",
            ])
            .arg(&model)
            .arg("--out")
            .arg(&out)
            .output()
            .unwrap()
    };
    let output = run();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("2 of 2 frames") && stdout.contains("mean APH of LEVEL_2: "), "{stdout}");
    assert!(out.join("report.json").is_file() && out.join("report.html").is_file());
    let again = run();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already"));
}
