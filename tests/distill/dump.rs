//! Teacher outputs on disk: everything comes back, and what is wrong is named.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pivotal::cloud::InputSpec;
use pivotal::data::augment::AugmentConfig;
use pivotal::data::prepare::TrainingFrame;
use pivotal::data::{Fingerprint, SampleId};
use pivotal::distill::dump::{DumpContent, DumpData, DumpEpochs, DumpHeader, DumpReader, DumpWriter, FrameSettings, InputWriter};
use pivotal::distill::teacher::TeacherOutput;
use pivotal::geometry::Box3d;
use pivotal::model::spec::ModelSpec;
use pivotal::postprocess::Detection;
use pivotal::train::targets::TrueBox;
use pivotal::voxel::Grid;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tch::{Device, IndexOp, Kind, Tensor};

use super::{largest_difference, probabilities};

const RANGE: [f32; 6] = [-3.2, -2.56, -2.0, 3.2, 2.56, 4.0];

fn classes() -> Vec<String> {
    ["Vehicle", "Pedestrian", "Cyclist"].map(str::to_owned).to_vec()
}

fn input() -> InputSpec {
    ModelSpec::builtin("cp-pillar").unwrap().input
}

fn data() -> DumpData {
    let source = Fingerprint { source: "drives".to_owned(), sha256: "ab".repeat(32) };
    identity(source, 7, &AugmentConfig::default(), None, RANGE)
}

fn identity(source: Fingerprint, seed: u64, augment: &AugmentConfig, gt_database: Option<&str>, range: [f32; 6]) -> DumpData {
    let (class_names, input) = (BTreeMap::new(), input());
    let settings = FrameSettings { augment, gt_database, class_names: &class_names, input: &input, range };
    DumpData::new(source, seed, settings).unwrap()
}

fn header() -> DumpHeader {
    DumpHeader::outputs("teacher 1".to_owned(), &classes(), &Grid::new(RANGE, [0.64, 0.64, 6.0]), 1, Some(data()))
}

fn id(drive: &str, frame: u64) -> SampleId {
    SampleId { drive: drive.to_owned(), frame }
}

/// Two frames of 10 x 8 cells.
fn output(seed: u64) -> TeacherOutput {
    let detection = |x: f64, score: f32| Detection {
        box3d: Box3d::from_row([x, 0.5, 0.25, 4.0, 2.0, 1.5, -0.75]),
        score,
        class_idx: (seed % 3) as usize,
    };
    TeacherOutput {
        heat_map: probabilities(seed, &[2, 3, 8, 10]) * 8.0 - 4.0,
        regression: Some(probabilities(seed + 1, &[2, 8, 8, 10])),
        boxes: vec![vec![detection(1.5, 0.875), detection(-2.0, 0.5)], vec![]],
    }
}

fn open(dir: &Path) -> Result<DumpReader, String> {
    DumpReader::open(dir, &classes(), RANGE, &data(), true).map_err(|error| error.to_string())
}

/// A dump of two epochs, in two shards.
fn written(dir: &Path) {
    for epoch in 0..2 {
        let mut writer = DumpWriter::open(dir, &header()).unwrap();
        writer.add(epoch, &[id("a/b", 0), id("c", 12)], &output(epoch)).unwrap();
        assert_eq!(writer.finish().unwrap(), 2 * (epoch as usize + 1));
    }
}

#[test]
fn outputs_come_back_rounded_to_f16_in_any_order_of_frames() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let reader = open(dir.path()).unwrap();
    assert_eq!(reader.len(), 4);
    for epoch in 0..2 {
        let expected = output(epoch);
        let read = reader.read(epoch, &[id("c", 12), id("a/b", 0)], Device::Cpu).unwrap();
        for (ours, frame) in [(0, 1), (1, 0)] {
            let rounded = |map: &Tensor| map.i(frame).to_kind(Kind::Half);
            assert_eq!(largest_difference(&read.heat_map.i(ours), &rounded(&expected.heat_map)), 0.0);
            let [found, given] = [&read, &expected].map(|output| output.regression.as_ref().unwrap());
            assert_eq!(largest_difference(&found.i(ours), &rounded(given)), 0.0);
            assert_eq!(read.boxes[ours as usize], expected.boxes[frame as usize]);
        }
    }
}

#[test]
fn interrupted_dump_goes_on_and_keeps_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    // What a killed writer leaves.
    fs::write(dir.path().join(".part-abc"), b"half a shard").unwrap();
    let before = fs::read(dir.path().join("shard-000000.safetensors")).unwrap();
    let mut writer = DumpWriter::open(dir.path(), &header()).unwrap();
    assert!(writer.holds(1, &id("c", 12)) && !writer.holds(2, &id("c", 12)));
    writer.add(1, &[id("a/b", 0), id("c", 13)], &output(9)).unwrap();
    assert_eq!(writer.finish().unwrap(), 5);
    assert_eq!(fs::read(dir.path().join("shard-000000.safetensors")).unwrap(), before);
    let reader = open(dir.path()).unwrap();
    let old = reader.read(1, &[id("a/b", 0)], Device::Cpu).unwrap();
    let kept = output(1).heat_map.i(0).to_kind(Kind::Half);
    assert_eq!(largest_difference(&old.heat_map.i(0), &kept), 0.0, "a stored frame was replaced");
    assert!(reader.holds(1, &id("c", 13)));
}

#[test]
fn writer_that_never_finished_leaves_a_dump_that_opens() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = DumpWriter::open(dir.path(), &header()).unwrap();
    writer.add(0, &[id("a", 0), id("a", 1)], &output(1)).unwrap();
    drop(writer);
    assert!(open(dir.path()).unwrap().is_empty());
}

#[test]
fn frames_that_are_not_there_are_named_with_what_is() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let reader = open(dir.path()).unwrap();
    let message = |epoch, id| reader.read(epoch, &[id], Device::Cpu).unwrap_err().to_string();
    let another = message(5, id("c", 12));
    assert!(another.ends_with("nothing for frame c/12 of epoch 5; the dump has it for epochs 0, 1"), "{another}");
    reader.check_epochs(2).unwrap();
    let error = reader.check_epochs(3).unwrap_err().to_string();
    assert!(error.ends_with("nothing for epoch 2; the run has 3 epochs, the dump 2"), "{error}");
    let unknown = message(0, id("d", 1));
    assert!(
        unknown.ends_with("nothing for frame d/1 of epoch 0; the dump has 4 frames of epochs 0 to 1, this one in none"),
        "{unknown}"
    );
}

#[test]
fn dumps_of_something_else_are_refused_with_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let mut renamed = classes();
    renamed[2] = "Bicycle".to_owned();
    let mut reseeded = data();
    reseeded.data_seed = 8;
    let wider = [-6.4, -2.56, -2.0, 6.4, 2.56, 4.0];
    let cases = [
        (
            &renamed,
            RANGE,
            data(),
            "classes is [\"Vehicle\", \"Pedestrian\", \"Cyclist\"], this run needs [\"Vehicle\", \"Pedestrian\", \"Bicycle\"]",
        ),
        (&classes(), wider, data(), "range is [-3.2"),
        (&classes(), RANGE, reseeded, "data.data_seed is 7, this run needs 8"),
    ];
    for (classes, range, data, expected) in cases {
        let error = DumpReader::open(dir.path(), classes, range, &data, true).unwrap_err().to_string();
        assert!(error.contains("dump.json: ") && error.contains(expected), "{error}");
    }
    let mut renamed_source = data();
    renamed_source.source.source = "../drives".to_owned();
    DumpReader::open(dir.path(), &classes(), RANGE, &renamed_source, true).unwrap();
    let other_teacher = DumpHeader { teacher: "teacher 2".to_owned(), ..header() };
    let error = DumpWriter::open(dir.path(), &other_teacher).unwrap_err().to_string();
    assert!(error.ends_with("teacher is \"teacher 1\", this run needs \"teacher 2\""), "{error}");
}

#[test]
fn identity_of_frames_follows_their_preparation_and_not_the_place_of_the_database() {
    let identity = |augment: &AugmentConfig, database: Option<&str>, range| {
        let source = Fingerprint { source: "s".to_owned(), sha256: "0".to_owned() };
        identity(source, 0, augment, database, range).preparation
    };
    let pasting = |path: &str| {
        let text = format!("gt_sampling: {{database: {path}}}");
        serde_saphyr::from_str::<AugmentConfig>(&text).unwrap()
    };
    let base = identity(&pasting("here"), Some("1234"), RANGE);
    assert_eq!(base, identity(&pasting("there"), Some("1234"), RANGE));
    assert_ne!(base, identity(&pasting("here"), Some("5678"), RANGE));
    assert_ne!(base, identity(&AugmentConfig::default(), None, RANGE));
    assert_ne!(base, identity(&pasting("here"), Some("1234"), [-6.4, -2.56, -2.0, 6.4, 2.56, 4.0]));
}

/// Writes one shard as a foreign program would.
fn foreign(dir: &Path, file: &str, tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs::write(dir.join(file), safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()).unwrap();
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn foreign_header(dir: &Path, epochs: DumpEpochs) {
    let header = DumpHeader { epochs, data: None, voxel_size: [0.32, 0.32, 6.0], stride: 2, ..header() };
    fs::write(dir.join("dump.json"), serde_json::to_vec(&header).unwrap()).unwrap();
}

#[test]
fn foreign_dump_of_f32_maps_serves_every_epoch_when_they_are_alike() {
    let dir = tempfile::tempdir().unwrap();
    foreign_header(dir.path(), DumpEpochs::Alike);
    let logits: Vec<f32> = (0..240).map(|i| i as f32 / 16.0).collect();
    // In rising order of score, as no one of ours would write them.
    let boxes = [[1.0, 2.0, 0.0, 4.0, 2.0, 1.5, 0.5, 0.25, 0.0], [2.0, 1.0, 0.0, 0.8, 0.8, 1.8, -3.0, 0.75, 1.0]];
    let tensors = [
        ("0/x/3/heat_map", Dtype::F32, vec![3, 8, 10], f32_bytes(&logits)),
        ("0/x/3/boxes", Dtype::F32, vec![2, 9], f32_bytes(boxes.as_flattened())),
    ];
    foreign(dir.path(), "anything.safetensors", &tensors);
    let reader = DumpReader::open(dir.path(), &classes(), RANGE, &data(), false).unwrap();
    reader.check_epochs(30).unwrap();
    for epoch in [0, 29] {
        let read = reader.read(epoch, &[id("x", 3)], Device::Cpu).unwrap();
        assert_eq!(Vec::<f32>::try_from(read.heat_map.view([-1])).unwrap(), logits);
        assert_eq!(read.boxes[0].iter().map(|d| (d.score, d.class_idx)).collect::<Vec<_>>(), [(0.75, 1), (0.25, 0)]);
        assert!(read.regression.is_none());
    }
    assert_eq!(reader.header().grid().shape, [20, 16, 1]);
}

#[test]
fn damaged_and_foreign_shards_are_refused_by_name() {
    let map = || ("0/x/3/heat_map", Dtype::F32, vec![3, 8, 10], f32_bytes(&[0.0; 240]));
    let boxes = |row: [f32; 9]| ("0/x/3/boxes", Dtype::F32, vec![1, 9], f32_bytes(&row));
    let good = [1.0, 2.0, 0.0, 4.0, 2.0, 1.5, 0.5, 0.25, 0.0];
    let with = |idx: usize, value: f32| {
        let mut row = good;
        row[idx] = value;
        boxes(row)
    };
    let mut broken = vec![0.0; 240];
    broken[17] = f32::NAN;
    let cases = [
        (vec![map()], "frame x/3 of epoch 0 has no `boxes`"),
        (vec![boxes(good)], "frame x/3 of epoch 0 has no `heat_map`"),
        (vec![map(), boxes(good), ("weights", Dtype::F32, vec![1], f32_bytes(&[1.0]))], "`weights` is no tensor of a dump"),
        (
            vec![("0/x/3/heat_map", Dtype::F32, vec![3, 10, 8], f32_bytes(&[0.0; 240])), boxes(good)],
            "`0/x/3/heat_map` is F32 [3, 10, 8], must be f16 or f32 [3, 8, 10]",
        ),
        (
            vec![("0/x/3/heat_map", Dtype::U8, vec![3, 8, 10], vec![0; 240]), boxes(good)],
            "`0/x/3/heat_map` is U8 [3, 8, 10], must be f16 or f32",
        ),
        (
            vec![map(), boxes(good), ("0/x/3/scores", Dtype::F32, vec![1], f32_bytes(&[1.0]))],
            "must be heat_map, regression or boxes",
        ),
        (
            vec![("0/x/3/heat_map", Dtype::F32, vec![3, 8, 10], f32_bytes(&broken)), boxes(good)],
            "`x/3/heat_map` is not, at 1 of 240 places, must be finite",
        ),
        (vec![map(), with(8, 3.0)], "must be finite, with sizes above 0, a score from 0 to 1 and a class of the header"),
        (vec![map(), with(8, 0.5)], "a class of the header"),
        (vec![map(), with(7, 1.5)], "a score from 0 to 1"),
        (vec![map(), with(4, 0.0)], "sizes above 0"),
        (vec![map(), with(0, f32::INFINITY)], "must be finite"),
    ];
    for (tensors, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        foreign_header(dir.path(), DumpEpochs::Each);
        foreign(dir.path(), "one.safetensors", &tensors);
        let opened = DumpReader::open(dir.path(), &classes(), RANGE, &data(), false);
        let error = opened.and_then(|reader| reader.read(0, &[id("x", 3)], Device::Cpu)).unwrap_err().to_string();
        assert!(error.contains("one.safetensors: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn frames_that_are_there_twice_cut_shards_and_impossible_headers_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let shard = dir.path().join("shard-000000.safetensors");
    let whole = fs::read(&shard).unwrap();
    assert!(SafeTensors::deserialize(&whole).is_ok());
    fs::copy(&shard, dir.path().join("copy.safetensors")).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.contains("of epoch 0 is in ") && error.contains("copy.safetensors and in "), "{error}");
    fs::remove_file(dir.path().join("copy.safetensors")).unwrap();

    for length in [0, 7, 8, 100, whole.len() - 1] {
        fs::write(&shard, &whole[..length]).unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(error.contains("shard-000000.safetensors: "), "{length} bytes: {error}");
    }
    fs::write(&shard, &whole).unwrap();

    let path = dir.path().join("dump.json");
    let text = fs::read_to_string(&path).unwrap();
    let cases = [
        ("\"format\": 1", "\"format\": 2", "format 2, this build reads 1"),
        ("\"stride\": 1", "\"stride\": 0", "give no map"),
        ("\"stride\": 1", "\"strides\": 1", "unknown field `strides`"),
        ("\"content\": \"outputs\"", "\"content\": \"inputs\"", "content is Inputs, this run needs Outputs"),
    ];
    for (from, to, expected) in cases {
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replace(from, to)).unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(error.contains("dump.json: ") && error.contains(expected), "{error}");
    }
    fs::remove_file(&path).unwrap();
    assert!(open(dir.path()).unwrap_err().contains("dump.json: "));
}

#[test]
fn logits_beyond_f16_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = DumpWriter::open(dir.path(), &header()).unwrap();
    let mut output = output(1);
    output.heat_map *= 1e5;
    let error = writer.add(0, &[id("a", 0), id("a", 1)], &output).unwrap_err().to_string();
    assert!(error.contains("`0/a/0/heat_map` is not, must be finite in f16"), "{error}");
}

#[test]
fn inputs_for_a_foreign_teacher_are_points_and_true_boxes() {
    let dir = tempfile::tempdir().unwrap();
    let header = DumpHeader { content: DumpContent::Inputs, ..header() };
    let frame = TrainingFrame {
        id: id("a", 4),
        points: vec![1.0, 2.0, 3.0, 0.5, 0.25, 4.0, 5.0, 6.0, 0.75, 0.125],
        boxes: vec![TrueBox { row: [1.0, 2.0, 0.5, 4.0, 2.0, 1.5, 0.25], class_idx: 2 }],
    };
    let mut writer = InputWriter::open(dir.path(), &header, 5).unwrap();
    writer.add(3, &frame).unwrap();
    assert!(writer.holds(3, &frame.id));
    assert_eq!(writer.finish().unwrap(), 1);
    let bytes = fs::read(dir.path().join("shard-000000.safetensors")).unwrap();
    let shard = SafeTensors::deserialize(&bytes).unwrap();
    let points = shard.tensor("3/a/4/points").unwrap();
    assert_eq!((points.dtype(), points.shape(), points.data()), (Dtype::F32, &[2, 5][..], &f32_bytes(&frame.points)[..]));
    let truth = shard.tensor("3/a/4/truth").unwrap();
    assert_eq!((truth.shape(), truth.data()), (&[1, 8][..], &f32_bytes(&[1.0, 2.0, 0.5, 4.0, 2.0, 1.5, 0.25, 2.0])[..]));
    assert!(InputWriter::open(dir.path(), &header, 5).unwrap().holds(3, &frame.id));
}
