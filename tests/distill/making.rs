//! A dump made frame by frame says what the teacher says in the step.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pivotal::cloud::{Feature, PointCloud};
use pivotal::data::augment::AugmentConfig;
use pivotal::data::batch::VoxelPlan;
use pivotal::data::loader::{Loader, LoaderConfig, Order, Span};
use pivotal::data::prepare::{Augmenter, ClassMap, Preparation};
use pivotal::data::{DataError, Fingerprint, Label, Sample, SampleId, Source};
use pivotal::distill::dump::{
    DumpContent, DumpData, DumpFrames, DumpHeader, DumpReader, DumpReport, DumpWriter, FrameSettings, InputWriter, dump_inputs,
    dump_outputs,
};
use pivotal::distill::source::TeacherSource;
use pivotal::distill::teacher::{Teacher, TeacherOptions, TeacherOutput};
use pivotal::distill::{DistillConfig, TeacherFrom, TeacherMode};
use pivotal::geometry::Box3d;
use pivotal::model::directory::provenance::Provenance;
use pivotal::model::directory::{self, SaveOptions, WeightsDtype};
use pivotal::model::init::uniform;
use pivotal::model::spec::ModelSpec;
use pivotal::pipeline::Precision;
use tch::{Device, IndexOp};

use super::{largest, largest_difference, small, weights};

/// Five made-up frames, of which one has no labels and one cannot be read.
#[derive(Debug)]
struct Drives;

impl Source for Drives {
    fn len(&self) -> usize {
        5
    }

    fn id(&self, index: usize) -> SampleId {
        SampleId { drive: "made/up".to_owned(), frame: 10 * index as u64 }
    }

    fn load(&self, _: u64, index: usize) -> Result<Sample, DataError> {
        if index == 3 {
            let reason = "cut short".to_owned();
            return Err(DataError::Format { path: "drive".to_owned(), place: "frame 3".to_owned(), reason });
        }
        let mut points = uniform("cloud", index as u64, -1.0, 1.0, 5 * 500);
        for row in points.chunks_exact_mut(5) {
            (row[0], row[1]) = (row[0] * 5.0, row[1] * 7.0);
        }
        let label = Label {
            box3d: Box3d::from_row([index as f64 - 2.0, 1.0, 0.0, 4.0, 2.0, 1.5, 0.5]),
            class: "Vehicle".to_owned(),
            track_id: None,
            n_points: None,
            difficulty: None,
            velocity_mps: None,
        };
        Ok(Sample {
            id: self.id(index),
            cloud: PointCloud {
                features: vec![Feature::X, Feature::Y, Feature::Z, Feature::Intensity, Feature::Elongation],
                points,
                ..PointCloud::default()
            },
            labels: (index != 1).then(|| vec![label]),
            in_no_label_zone: Vec::new(),
            world_from_cloud: None,
        })
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint { source: "made up".to_owned(), sha256: "00".repeat(32) }
    }
}

struct Rig {
    student: ModelSpec,
    teacher: Teacher,
    frames: DumpFrames,
    data: DumpData,
}

impl Rig {
    fn new() -> Self {
        let (spec, student) = (small("cp-pillar"), small("cp-pillar-v0.64-xxs"));
        let options =
            TeacherOptions { mode: TeacherMode::Eval, precision: Precision::F32, regression: false, device: Device::Cpu };
        let teacher = Teacher::from_parts(spec.clone(), &weights(&spec, 21), "ab", student.grid.range, options).unwrap();
        let classes = ClassMap::new(&student.classes, &Default::default()).unwrap();
        let augment = AugmentConfig::default();
        let preparation = Preparation {
            input: student.input.clone(),
            grid: student.grid(),
            augmenter: Some(Augmenter::new(&augment, &classes, &student.input).unwrap()),
            classes,
            data_seed: 3,
        };
        let class_names = Default::default();
        let settings = FrameSettings {
            augment: &augment,
            gt_database: None,
            class_names: &class_names,
            input: &student.input,
            range: student.grid.range,
        };
        let data = DumpData::new(Drives.fingerprint(), 3, settings).unwrap();
        let loader = LoaderConfig { batch_size: 2, max_unreadable_share: 1.0, ..LoaderConfig::default() };
        let frames = DumpFrames { source: Arc::new(Drives), preparation: Arc::new(preparation), loader, n_epochs: 2 };
        Self { student, teacher, frames, data }
    }

    fn header(&self) -> DumpHeader {
        let (grid, stride) = (self.teacher.grid(), self.teacher.stride());
        DumpHeader::outputs("cp-pillar".to_owned(), &self.student.classes, grid, stride, Some(self.data.clone()))
    }

    fn dump(&self, dir: &Path, stop: bool) -> (DumpReport, Vec<(u64, u64)>) {
        let writer = DumpWriter::open(dir, &self.header()).unwrap();
        let mut advances = Vec::new();
        let advanced = |done, total| advances.push((done, total));
        let report = dump_outputs(&self.teacher, &self.frames, writer, &AtomicBool::new(stop), advanced).unwrap();
        (report, advances)
    }

    /// Every batch of a run, in the order of a run.
    fn outputs(&self, source: &TeacherSource) -> Vec<TeacherOutput> {
        let plan = VoxelPlan::new(&self.student, source.spec()).unwrap();
        let span = Span { first_epoch: 0, first_step: 0, end_epoch: 2 };
        let DumpFrames { source: data, preparation, loader, .. } = self.frames.clone();
        let batches = Loader::start(data, preparation, plan, &loader, Order::Shuffled { seed: 5 }, span).unwrap();
        batches.map(|batch| source.output(&batch.unwrap()).unwrap()).collect()
    }
}

#[test]
fn run_hears_the_same_from_a_dump_as_from_the_teacher() {
    let (rig, dir) = (Rig::new(), tempfile::tempdir().unwrap());
    let dump = dir.path().join("dump");
    let (report, advances) = rig.dump(&dump, false);
    assert_eq!((report.n_stored, report.was_stopped), (6, false));
    assert_eq!(advances, [(2, 10), (4, 10), (5, 10), (7, 10), (9, 10), (10, 10)]);
    let unreadable: Vec<_> = report.unreadable.iter().map(|frame| (frame.id.frame, frame.reason.contains("cut short"))).collect();
    assert_eq!(unreadable, [(30, true), (30, true)]);

    let model = dir.path().join("model");
    let spec = small("cp-pillar");
    let provenance = Provenance::new("test", "made up");
    let options = SaveOptions { dtype: WeightsDtype::F32, overwrite: false };
    directory::save(&model, &spec, &weights(&spec, 21), &provenance, options).unwrap();
    let open = |from: TeacherFrom| {
        let mut config = DistillConfig::released(from);
        config.teacher.mode = TeacherMode::Eval;
        TeacherSource::open(&config, &rig.student, &rig.data, 2, Device::Cpu).unwrap()
    };
    let (live, stored) = (open(TeacherFrom::Model(model)), open(TeacherFrom::Dump(dump)));
    assert_eq!(live.grid(), stored.grid());
    let [live, stored] = [rig.outputs(&live), rig.outputs(&stored)];
    assert_eq!((live.len(), stored.len()), (6, 6));
    for (live, stored) in live.iter().zip(&stored) {
        let apart = largest_difference(&live.heat_map, &stored.heat_map) / largest(&live.heat_map);
        assert!(apart < 1e-3, "{apart:.2e}");
        assert!(live.boxes.iter().any(|boxes| boxes.len() > 10));
        assert_eq!(live.boxes, stored.boxes);
    }
}

#[test]
fn stopped_dump_is_finished_by_the_next_call() {
    let (rig, dir) = (Rig::new(), tempfile::tempdir().unwrap());
    let [whole, parts] = ["whole", "parts"].map(|name| dir.path().join(name));
    rig.dump(&whole, false);
    let (report, advances) = rig.dump(&parts, true);
    assert!(report.was_stopped && report.n_stored == 1, "{report:?}"); // of the first two frames one has no labels
    assert_eq!(advances, [(2, 10)]);
    let (report, _) = rig.dump(&parts, false);
    assert_eq!((report.n_stored, report.was_stopped), (6, false));
    let [whole, parts] =
        [whole, parts].map(|dir| DumpReader::open(&dir, &rig.student.classes, rig.student.grid.range, &rig.data, false).unwrap());
    assert_eq!(whole.len(), parts.len());
    for epoch in 0..2 {
        let ids = [0, 2, 4].map(|index| Drives.id(index));
        let [expected, ours] = [&whole, &parts].map(|reader| reader.read(epoch, &ids, Device::Cpu).unwrap());
        assert_eq!(largest_difference(&expected.heat_map, &ours.heat_map), 0.0);
        assert_eq!(expected.boxes, ours.boxes);
        assert!(largest_difference(&expected.heat_map.i(0), &expected.heat_map.i(1)) > 0.0);
    }
}

/// The frames that can be read and have labels.
#[derive(Debug)]
struct Usable;

impl Source for Usable {
    fn len(&self) -> usize {
        3
    }

    fn id(&self, index: usize) -> SampleId {
        Drives.id(2 * index)
    }

    fn load(&self, epoch: u64, index: usize) -> Result<Sample, DataError> {
        Drives.load(epoch, 2 * index)
    }

    fn fingerprint(&self) -> Fingerprint {
        Drives.fingerprint()
    }
}

#[test]
fn what_a_dump_holds_is_not_prepared_again() {
    let (mut rig, dir) = (Rig::new(), tempfile::tempdir().unwrap());
    rig.frames.source = Arc::new(Usable);
    rig.frames.n_epochs = 1;
    assert_eq!(rig.dump(dir.path(), false).1, [(2, 3), (3, 3)]);
    rig.frames.n_epochs = 2;
    assert_eq!(rig.dump(dir.path(), false).1, [(5, 6), (6, 6)]);
    let (report, advances) = rig.dump(dir.path(), false);
    assert_eq!((report.n_stored, report.was_stopped, advances), (6, false, Vec::new()));
}

#[test]
fn inputs_for_a_foreign_teacher_are_the_frames_of_the_run() {
    let (rig, dir) = (Rig::new(), tempfile::tempdir().unwrap());
    let header = DumpHeader { content: DumpContent::Inputs, ..rig.header() };
    let store = |stop: bool| {
        let writer = InputWriter::open(dir.path(), &header, 5).unwrap();
        dump_inputs(&rig.frames, writer, &AtomicBool::new(stop), |_, _| ()).unwrap()
    };
    assert_eq!((store(true).n_stored, store(false).n_stored, store(false).n_stored), (0, 6, 6));
    let bytes = std::fs::read(dir.path().join("shard-000000.safetensors")).unwrap();
    let shard = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let points = |epoch: u64| shard.tensor(&format!("{epoch}/made/up/20/points")).unwrap().data().to_vec();
    assert_ne!(points(0), points(1), "each epoch is augmented in its own way");
    assert_eq!(shard.tensor("0/made/up/20/truth").unwrap().shape(), [1, 8]);
}
