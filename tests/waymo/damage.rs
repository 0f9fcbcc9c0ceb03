//! Damaged Waymo data: each fault has its message, and the frames beside it are read.

use std::fs;
use std::path::{Path, PathBuf};

use pivotal::data::waymo;
use pivotal::data::{DataError, Source};
use tempfile::TempDir;

use crate::support::shared;

const SEGMENT: &str = "segment_semireal_kitti_a_0000_000_0020_000.parquet";

/// Writes bytes under a name into a new folder.
fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn message(result: Result<impl std::fmt::Debug, DataError>) -> String {
    result.unwrap_err().to_string()
}

/// One TFRecord.
fn record(payload: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let length = (payload.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), payload, &masked(payload)].concat()
}

/// A protobuf field: varint or length-delimited.
fn varint(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn double(number: u8, value: f64) -> Vec<u8> {
    [&[(number << 3) | 1][..], &value.to_le_bytes()].concat()
}

fn message_field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![(number << 3) | 2];
    let mut rest = content.len();
    while rest >= 0x80 {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    [bytes, content.to_vec()].concat()
}

fn identity() -> Vec<u8> {
    (0..16).flat_map(|idx| double(1, if idx % 5 == 0 { 1.0 } else { 0.0 })).collect()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A range image of FRONT whose matrix declares these sizes.
fn front(n_values: usize, dims: [u8; 3]) -> Vec<u8> {
    let data: Vec<u8> = (0..n_values).flat_map(|_| 1.0_f32.to_le_bytes()).collect();
    let shape: Vec<u8> = dims.iter().flat_map(|&size| varint(1, size)).collect();
    let matrix = [message_field(1, &data), message_field(2, &shape)].concat();
    laser(2, &zlib(&matrix))
}

fn laser(name: u8, compressed: &[u8]) -> Vec<u8> {
    message_field(5, &[varint(1, name), message_field(2, &message_field(2, compressed))].concat())
}

fn calibration(name: u8, fields: &[u8]) -> Vec<u8> {
    message_field(1, &message_field(3, &[varint(1, name), fields.to_vec()].concat()))
}

fn uniform() -> Vec<u8> {
    [double(3, -1.0), double(4, 0.5), message_field(5, &identity())].concat()
}

fn head() -> Vec<u8> {
    [varint(2, 1), message_field(3, &identity())].concat()
}

fn label(box_fields: &[u8]) -> Vec<u8> {
    message_field(6, &[message_field(1, box_fields), varint(3, 1), message_field(4, b"obj")].concat())
}

fn box_with(number: u8, value: f64) -> Vec<u8> {
    (1..=7).flat_map(|field| double(field, if field == number { value } else { 1.0 })).collect()
}

#[test]
fn frames_that_cannot_be_are_refused_by_field_and_the_next_one_is_read() {
    let good = [head(), calibration(2, &uniform()), front(8, [1, 2, 4])].concat();
    let bomb = zlib(&vec![0; waymo::range_image::MAX_INFLATED + 1]);
    let cases: [(&str, Vec<u8>, &str); 17] = [
        ("garbage", b"\xff\xff\xff\xff not protobuf".to_vec(), "protobuf: is no Frame"),
        ("no pose", varint(2, 1), "pose: is missing"),
        ("no stamp", message_field(3, &identity()), "timestamp_micros: is missing"),
        ("short pose", [varint(2, 1), message_field(3, &double(1, 1.0))].concat(), "pose: 1 numbers, a transform has 16"),
        ("no calibration", [head(), front(8, [1, 2, 4])].concat(), "calibration of laser FRONT: is missing"),
        (
            "of another laser",
            [head(), calibration(3, &uniform()), front(8, [1, 2, 4])].concat(),
            "calibration of laser FRONT: is missing",
        ),
        (
            "no beams",
            [head(), calibration(2, &message_field(5, &identity())), front(8, [1, 2, 4])].concat(),
            "no beam inclinations",
        ),
        (
            "wrong size",
            [head(), calibration(2, &uniform()), front(7, [1, 2, 4])].concat(),
            "laser FRONT: range image of return 1: 7 values, its shape [1, 2, 4] needs 8",
        ),
        (
            "wrong channels",
            [head(), calibration(2, &uniform()), front(6, [1, 2, 3])].concat(),
            "shape is [1, 2, 3], expected [H, W, 4]",
        ),
        ("bomb", [head(), calibration(2, &uniform()), laser(2, &bomb)].concat(), "inflate to more than 67108864"),
        ("no zlib", [head(), calibration(2, &uniform()), laser(2, b"abc")].concat(), "3 bytes are no zlib stream"),
        ("unknown laser", [head(), laser(6, b"abc")].concat(), "lasers: laser is 6, expected 1 to 5"),
        ("no laser data", [head(), calibration(2, &uniform())].concat(), "record 0: lasers: none has a range image"),
        ("laser twice", [good.clone(), front(8, [1, 2, 4])].concat(), "lasers: FRONT occurs twice"),
        (
            "top without poses",
            [
                head(),
                calibration(1, &uniform()),
                laser(1, &zlib(&[message_field(1, &[0; 32]), message_field(2, &[8, 1, 8, 2, 8, 4])].concat())),
            ]
            .concat(),
            "laser TOP: return 1: there is no pose image",
        ),
        ("NaN label", [good.clone(), label(&box_with(1, f64::NAN))].concat(), "label 0 (`obj`): center x is NaN"),
        ("label without box", [head(), message_field(6, &varint(3, 1))].concat(), "label 0 (``): has no box"),
    ];
    for (name, payload, expected) in cases {
        let (_folder, path) = file("a.tfrecord", &[record(&payload), record(&good)].concat());
        let source = waymo::open(&path).unwrap();
        assert_eq!(source.len(), 2, "{name}");
        let error = message(source.load(0, 0));
        assert!(error.starts_with(&format!("{}: record 0: ", path.display())) && error.contains(expected), "{name}: {error}");
        assert_eq!(source.load(0, 1).unwrap().cloud.n_points(), 2, "{name}: the next frame");
    }
}

#[test]
fn damaged_containers_lose_one_frame_each() {
    let whole = fs::read(shared("data/waymo/semireal_kitti.tfrecord")).unwrap();
    let n_first = 12 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize + 4;
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    let cases = [
        ("length", flipped(n_first + 1), 1, 4, "checksum of the length"),
        ("checksum of the length", flipped(n_first + 9), 1, 4, "checksum of the length"),
        ("payload", flipped(n_first + 5000), 1, 4, "checksum of the data"),
        ("checksum of the payload", flipped(n_first - 2), 0, 4, "checksum of the data"),
        ("tail", whole[..whole.len() - 1].to_vec(), 3, 4, "truncated"),
        ("header", whole[..n_first + 5].to_vec(), 1, 2, "truncated: 5 of the 12 bytes"),
    ];
    for (name, bytes, broken, n_frames, expected) in cases {
        let (_folder, path) = file("a.tfrecord", &bytes);
        let source = waymo::open(&path).unwrap();
        assert_eq!(source.len(), n_frames, "{name}");
        for index in 0..n_frames {
            if index == broken {
                let error = message(source.load(0, index));
                assert!(error.contains(&format!("record {broken}: container: ")) && error.contains(expected), "{name}: {error}");
            } else {
                source.raw_frame(index).unwrap();
            }
        }
    }
}

#[test]
fn paths_that_are_no_waymo_data_say_why() {
    let (_a, empty) = file("empty.tfrecord", b"");
    let (_b, text) = file("text.tfrecord", &b"nothing of the kind, for more than twelve bytes".repeat(9));
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&Path, &str); 4] = [
        (&empty, "0 bytes, expected TFRecords"),
        (&text, "is no TFRecord file: checksum of the length"),
        (folder.path(), "the folder has no *.tfrecord"),
        (Path::new("/nowhere/at/all.tfrecord"), "No such file"),
    ];
    for (path, expected) in cases {
        let error = message(waymo::open(path));
        assert!(error.contains(expected) && error.contains(&*path.to_string_lossy()), "{error}");
    }
}

#[test]
fn a_bad_file_of_a_folder_is_one_bad_frame() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.tfrecord"), b"").unwrap();
    fs::copy(shared("data/waymo/semireal_nuscenes.tfrecord"), folder.path().join("b.tfrecord")).unwrap();
    let source = waymo::open(folder.path()).unwrap();
    assert_eq!(source.len(), 2);
    assert!(message(source.load(0, 0)).contains("0 bytes, expected TFRecords"));
    let findings = source.findings();
    assert!(findings.len() == 1 && findings[0].to_string().contains("a: damaged record, 1x"), "{findings:?}");
    assert_eq!(source.load(0, 1).unwrap().labels.unwrap().len(), 46);

    fs::copy(folder.path().join("b.tfrecord"), folder.path().join("c.tfrecord")).unwrap();
    let error = message(waymo::open(folder.path()));
    assert!(error.contains("b.tfrecord") && error.contains("c.tfrecord"), "{error}");
}

/// A copy of the parquet components without those named.
fn components(without: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for component in ["lidar", "lidar_pose", "lidar_calibration", "lidar_box", "vehicle_pose"] {
        if !without.contains(&component) {
            fs::create_dir(folder.path().join(component)).unwrap();
            let name = format!("{component}/{SEGMENT}");
            fs::copy(shared("data/waymo/v2").join(&name), folder.path().join(&name)).unwrap();
        }
    }
    folder
}

#[test]
fn missing_components_are_named() {
    for component in ["lidar_pose", "lidar_calibration", "vehicle_pose"] {
        let folder = components(&[component]);
        let error = message(waymo::open(folder.path()));
        assert!(error.contains(&format!("component `{component}` is missing")), "{error}");
    }
    let folder = components(&["lidar_box"]);
    assert_eq!(waymo::open(folder.path()).unwrap().load(0, 0).unwrap().labels, None);
}

#[test]
fn damaged_tables_say_file_column_and_row() {
    for component in ["lidar_pose", "lidar_calibration", "lidar_box", "vehicle_pose"] {
        let folder = components(&[]);
        let path = folder.path().join(component).join(SEGMENT);
        let source = waymo::open(folder.path()).unwrap();
        fs::remove_file(&path).unwrap();
        let error = message(source.load(0, 0));
        assert!(error.contains(&*path.to_string_lossy()) && error.contains("No such file"), "{error}");
        // A table that has everything but what is looked for.
        fs::copy(shared("data/waymo/v2/stats").join(SEGMENT), &path).unwrap();
        let error = message(source.load(0, 0));
        assert!(error.contains("schema: there is no column `"), "{error}");
        fs::write(&path, b"PAR1 no table PAR1").unwrap();
        let error = message(source.load(0, 0));
        assert!(error.contains(&*path.to_string_lossy()) && error.contains("footer"), "{error}");
    }
}

#[test]
fn flipped_bytes_of_tables_never_panic() {
    let folder = components(&[]);
    for component in ["lidar_pose", "lidar_calibration", "lidar_box", "vehicle_pose", "lidar"] {
        let path = folder.path().join(component).join(SEGMENT);
        let whole = fs::read(&path).unwrap();
        // The footer and the pages before it, at places spread over both.
        for step in 0..8 {
            let mut bytes = whole.clone();
            let at = bytes.len() - 9 - step * step * (bytes.len() / 100);
            bytes[at] ^= 0x55;
            fs::write(&path, bytes).unwrap();
            if let Ok(source) = waymo::open(folder.path()) {
                let _ = source.load(0, 0);
            }
        }
        fs::write(&path, whole).unwrap();
    }
}
