//! Dumps of other frameworks with the mistakes people make.

use std::path::Path;

use pivotal::data::SampleId;
use pivotal::distill::dump::{DumpCheck, DumpHeader, DumpWriter};
use pivotal::distill::teacher::TeacherOutput;
use pivotal::geometry::Box3d;
use pivotal::postprocess::Detection;
use pivotal::voxel::Grid;
use tch::{Device, Kind, Tensor};

const RANGE: [f32; 6] = [-4.0, -4.0, -2.0, 4.0, 4.0, 4.0];
/// Cells along x and y.
const SIDE: i64 = 8;

/// Objects as class, row, column.
const OBJECTS: [(usize, i64, i64); 4] = [(0, 1, 6), (1, 5, 2), (2, 0, 7), (0, 3, 4)];

fn header() -> DumpHeader {
    let classes = ["Vehicle", "Pedestrian", "Cyclist"].map(str::to_owned);
    DumpHeader::outputs("another detector".to_owned(), &classes, &Grid::new(RANGE, [0.5, 0.5, 6.0]), 2, None)
}

/// A map that is hot at the objects, and boxes there.
fn answer() -> TeacherOutput {
    let map = Tensor::full([1, 3, SIDE, SIDE], -6.0, (Kind::Float, Device::Cpu));
    let boxes = OBJECTS.map(|(class_idx, row, col)| {
        let _ = map.get(0).get(class_idx as i64).get(row).get(col).fill_(1.5);
        let middle = |cell: i64| -4.0 + cell as f64 + 0.4;
        Detection { box3d: Box3d::from_row([middle(col), middle(row), 0.0, 2.0, 1.0, 1.5, 0.1]), score: 0.8, class_idx }
    });
    TeacherOutput { heat_map: map, regression: None, boxes: vec![boxes.to_vec()] }
}

fn checked(dir: &Path, output: &TeacherOutput) -> DumpCheck {
    let mut writer = DumpWriter::open(dir, &header()).unwrap();
    writer.add(0, &[SampleId { drive: "d".to_owned(), frame: 3 }], output).unwrap();
    writer.finish().unwrap();
    DumpCheck::run(dir, None).unwrap()
}

#[test]
fn sound_dump_has_no_problem_and_says_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let check = checked(dir.path(), &answer());
    assert_eq!((check.n_problems, check.on_map), (0, [4, 4]), "{check:?}");
    assert_eq!(check.frames, [(0, 1)].into());
    assert_eq!(check.n_boxes.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [2, 1, 1]);
}

#[test]
fn mistakes_of_foreign_dumps_are_named() {
    type Spoil = fn(&mut TeacherOutput);
    let cases: [(&str, Spoil); 5] = [
        ("with rows and columns swapped 4 do", |output| output.heat_map = output.heat_map.transpose(2, 3).contiguous()),
        ("probabilities, where logits belong", |output| output.heat_map = output.heat_map.sigmoid()),
        ("0 of 4 confident boxes lie where their class is hot; check stride", |output| {
            output.heat_map = output.heat_map.flip([1, 2]);
        }),
        ("1 of 4 confident boxes lie where their class is hot", |output| {
            output.boxes[0].iter_mut().for_each(|detection| detection.class_idx = (detection.class_idx + 1) % 3);
        }),
        ("a box at (40.0, -0.6) is outside of the range", |output| output.boxes[0][3].box3d.center[0] = 40.0),
    ];
    for (expected, spoil) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut output = answer();
        spoil(&mut output);
        let check = checked(dir.path(), &output);
        assert!(check.problems.iter().any(|problem| problem.contains(expected)), "{expected}: {:?}", check.problems);
    }
}

#[test]
fn empty_dump_is_not_sound() {
    let dir = tempfile::tempdir().unwrap();
    DumpWriter::open(dir.path(), &header()).unwrap().finish().unwrap();
    assert_eq!(DumpCheck::run(dir.path(), None).unwrap().problems, ["it holds no frame"]);
}
