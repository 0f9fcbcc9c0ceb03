//! Parquet components written here, so that each can be wrong in one way.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, Encoding, LogicalType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, Type, TypePtr};
use pivotal::data::waymo;
use pivotal::data::{DataError, Source};
use tempfile::TempDir;

const FIRST: i64 = 1_000_000;
const SECOND: i64 = 1_100_000;
const FRONT: i64 = 2;

#[derive(Clone)]
enum Values {
    Integers(Vec<Option<i64>>),
    Numbers(Vec<Option<f64>>),
    Texts(Vec<&'static str>),
    Doubles(Vec<Vec<f64>>),
    Floats(Vec<Vec<f32>>),
    Sizes(Vec<Vec<i32>>),
}

type Columns = Vec<(String, Values)>;

/// The five components; every change is made to these.
struct Split {
    lidar: Columns,
    lidar_pose: Columns,
    lidar_calibration: Columns,
    lidar_box: Columns,
    vehicle_pose: Columns,
    properties: WriterPropertiesBuilder,
}

/// One page for every few values, so that rows have to be looked for.
fn small_pages(compression: Compression) -> WriterPropertiesBuilder {
    WriterProperties::builder().set_compression(compression).set_data_page_size_limit(1).set_write_batch_size(1)
}

fn set(columns: &mut Columns, name: &str, values: Values) {
    columns.iter_mut().find(|(column, _)| column.ends_with(name)).unwrap().1 = values;
}

fn keys(stamps: &[i64], lasers: &[i64]) -> Columns {
    let integers = |values: &[i64]| Values::Integers(values.iter().copied().map(Some).collect());
    vec![
        ("key.segment_context_name".to_owned(), Values::Texts(vec!["seg"; stamps.len()])),
        ("key.frame_timestamp_micros".to_owned(), integers(stamps)),
        ("key.laser_name".to_owned(), integers(lasers)),
    ]
}

fn identity() -> Vec<f64> {
    (0..16).map(|idx| if idx % 5 == 0 { 1.0 } else { 0.0 }).collect()
}

/// Two frames of the front laser, 1 x 2 and 1 x 3 pixels, and one box in each.
fn split(compression: Compression) -> Split {
    let column = |component: &str, name: &str, values| (format!("[{component}].{name}"), values);
    let lidar = |name: &str, values| column("LiDARComponent", name, values);
    let image = |n_pixels: usize| vec![1.0; n_pixels * 4];
    let of_box = |name: &str, values: [f64; 2]| column("LiDARBoxComponent", name, Values::Numbers(values.map(Some).to_vec()));
    let counts = |name: &str, values: [i64; 2]| column("LiDARBoxComponent", name, Values::Integers(values.map(Some).to_vec()));
    let calibration = |name: &str, values| column("LiDARCalibrationComponent", name, values);
    let mut boxes = keys(&[SECOND, FIRST], &[0, 0]);
    boxes.push(("key.laser_object_id".to_owned(), Values::Texts(vec!["b", "a"])));
    let fields = ["box.center.x", "box.center.y", "box.center.z", "box.size.x", "box.size.y", "box.size.z", "box.heading"];
    boxes.extend(fields.iter().enumerate().map(|(idx, field)| of_box(field, [1.5 + idx as f64, 0.5 + idx as f64])));
    boxes.extend(["speed.x", "speed.y", "speed.z"].map(|name| of_box(name, [0.0, 1.0])));
    boxes.extend([
        counts("type", [1, 2]),
        counts("num_lidar_points_in_box", [9, 3]),
        counts("difficulty_level.detection", [2, 0]),
    ]);
    Split {
        lidar: [
            keys(&[FIRST, SECOND], &[FRONT, FRONT]),
            vec![
                lidar("range_image_return1.values", Values::Floats(vec![image(2), image(3)])),
                lidar("range_image_return1.shape", Values::Sizes(vec![vec![1, 2, 4], vec![1, 3, 4]])),
                lidar("range_image_return2.values", Values::Floats(vec![vec![], image(1)])),
                lidar("range_image_return2.shape", Values::Sizes(vec![vec![], vec![1, 1, 4]])),
            ],
        ]
        .concat(),
        lidar_pose: keys(&[], &[]),
        lidar_calibration: [
            keys(&[0], &[FRONT]),
            vec![
                calibration("extrinsic.transform", Values::Doubles(vec![identity()])),
                calibration("beam_inclination.min", Values::Numbers(vec![Some(-1.0)])),
                calibration("beam_inclination.max", Values::Numbers(vec![Some(0.5)])),
                calibration("beam_inclination.values", Values::Doubles(vec![vec![]])),
            ],
        ]
        .concat(),
        lidar_box: boxes,
        vehicle_pose: [
            keys(&[SECOND, FIRST], &[0, 0]),
            vec![column("VehiclePoseComponent", "world_from_vehicle.transform", Values::Doubles(vec![identity(); 2]))],
        ]
        .concat(),
        properties: small_pages(compression),
    }
}

impl Split {
    fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let components = [
            ("lidar", &self.lidar),
            ("lidar_pose", &self.lidar_pose),
            ("lidar_calibration", &self.lidar_calibration),
            ("lidar_box", &self.lidar_box),
            ("vehicle_pose", &self.vehicle_pose),
        ];
        for (component, columns) in components {
            fs::create_dir(folder.path().join(component)).unwrap();
            write_table(&folder.path().join(component).join("seg.parquet"), columns, &self.properties);
        }
        folder
    }
}

fn field(name: &str, values: &Values) -> TypePtr {
    let leaf = |name: &str, kind| Type::primitive_type_builder(name, kind).with_repetition(Repetition::OPTIONAL).build().unwrap();
    let list = |kind| {
        let items = Type::group_type_builder("list").with_repetition(Repetition::REPEATED);
        let items = items.with_fields(vec![Arc::new(leaf("element", kind))]).build().unwrap();
        let outer =
            Type::group_type_builder(name).with_repetition(Repetition::OPTIONAL).with_logical_type(Some(LogicalType::List));
        outer.with_fields(vec![Arc::new(items)]).build().unwrap()
    };
    Arc::new(match values {
        Values::Integers(_) => leaf(name, PhysicalType::INT64),
        Values::Numbers(_) => leaf(name, PhysicalType::DOUBLE),
        Values::Texts(_) => leaf(name, PhysicalType::BYTE_ARRAY),
        Values::Doubles(_) => list(PhysicalType::DOUBLE),
        Values::Floats(_) => list(PhysicalType::FLOAT),
        Values::Sizes(_) => list(PhysicalType::INT32),
    })
}

/// Values and levels of lists; one without items counts as absent.
fn flattened<T: Copy>(lists: &[Vec<T>]) -> (Vec<T>, Vec<i16>, Vec<i16>) {
    let definition = |list: &Vec<T>| if list.is_empty() { vec![0] } else { vec![3; list.len()] };
    let repetition = |list: &Vec<T>| (0..list.len().max(1)).map(|idx| i16::from(idx > 0)).collect::<Vec<_>>();
    (lists.concat(), lists.iter().flat_map(definition).collect(), lists.iter().flat_map(repetition).collect())
}

fn present<T: Copy>(values: &[Option<T>]) -> (Vec<T>, Vec<i16>) {
    (values.iter().flatten().copied().collect(), values.iter().map(|value| i16::from(value.is_some())).collect())
}

fn write_table(path: &Path, columns: &Columns, properties: &WriterPropertiesBuilder) {
    let fields = columns.iter().map(|(name, values)| field(name, values)).collect();
    let schema = Arc::new(Type::group_type_builder("schema").with_fields(fields).build().unwrap());
    let properties = Arc::new(properties.clone().build());
    let mut writer = SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for (_, values) in columns {
        let mut column = group.next_column().unwrap().unwrap();
        match (column.untyped(), values) {
            (ColumnWriter::Int64ColumnWriter(writer), Values::Integers(values)) => {
                let (values, levels) = present(values);
                writer.write_batch(&values, Some(&levels), None).unwrap()
            }
            (ColumnWriter::DoubleColumnWriter(writer), Values::Numbers(values)) => {
                let (values, levels) = present(values);
                writer.write_batch(&values, Some(&levels), None).unwrap()
            }
            (ColumnWriter::ByteArrayColumnWriter(writer), Values::Texts(values)) => {
                let texts: Vec<ByteArray> = values.iter().map(|&text| ByteArray::from(text)).collect();
                writer.write_batch(&texts, Some(&vec![1; texts.len()]), None).unwrap()
            }
            (ColumnWriter::DoubleColumnWriter(writer), Values::Doubles(lists)) => {
                let (values, definition, repetition) = flattened(lists);
                writer.write_batch(&values, Some(&definition), Some(&repetition)).unwrap()
            }
            (ColumnWriter::FloatColumnWriter(writer), Values::Floats(lists)) => {
                let (values, definition, repetition) = flattened(lists);
                writer.write_batch(&values, Some(&definition), Some(&repetition)).unwrap()
            }
            (ColumnWriter::Int32ColumnWriter(writer), Values::Sizes(lists)) => {
                let (values, definition, repetition) = flattened(lists);
                writer.write_batch(&values, Some(&definition), Some(&repetition)).unwrap()
            }
            _ => unreachable!("the schema is made from the values"),
        };
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn tables_are_read_whatever_compresses_them() {
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let compressions = [Compression::UNCOMPRESSED, Compression::SNAPPY, zstd, Compression::BROTLI(Default::default())];
    let versions = [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0];
    for (compression, version) in compressions.into_iter().flat_map(|compression| versions.map(|version| (compression, version)))
    {
        let mut split = split(compression);
        // The second version's own choices are delta encodings.
        split.properties = split.properties.set_writer_version(version).set_encoding(Encoding::PLAIN);
        let folder = split.write();
        let source = waymo::open(folder.path()).unwrap();
        assert_eq!(source.len(), 2);
        let [first, second] = [0, 1].map(|index| source.load(0, index).unwrap());
        // The second frame has both returns, the first only one.
        assert_eq!((first.cloud.n_points(), second.cloud.n_points()), (2, 4), "{compression} {version:?}");
        assert_eq!(second.cloud.stamp.nanos, SECOND * 1000);
        let [first, second] = [first, second].map(|sample| sample.labels.unwrap().remove(0));
        assert_eq!((first.class.as_str(), first.box3d.size, first.difficulty), ("Pedestrian", [3.5, 4.5, 5.5], None));
        assert_eq!((second.class.as_str(), second.track_id.as_deref(), second.difficulty), ("Vehicle", Some("b"), Some(2)));
    }
}

#[test]
fn a_shape_that_lies_spoils_its_own_row_only() {
    let mut lying = split(Compression::SNAPPY);
    set(&mut lying.lidar, "range_image_return1.shape", Values::Sizes(vec![vec![1, 1, 4], vec![1, 3, 4]]));
    let folder = lying.write();
    let source = waymo::open(folder.path()).unwrap();
    let error = source.load(0, 0).unwrap_err().to_string();
    assert!(error.contains("row group 0, row 0: 8 values, its shape [1, 1, 4] needs 4"), "{error}");
    assert_eq!(source.load(0, 1).unwrap().cloud.n_points(), 4);
}

#[test]
fn tables_that_cannot_be_are_refused_by_name_and_the_next_frame_is_read() {
    let columns = |column: fn(&mut Split) -> &mut Columns, name: &'static str, values: Values| {
        move |split: &mut Split| set(column(split), name, values.clone())
    };
    let numbers = |values: [f64; 2]| Values::Numbers(values.map(Some).to_vec());
    let second_only =
        |split: &mut Split| set(&mut split.vehicle_pose, "timestamp_micros", Values::Integers(vec![Some(SECOND), Some(7)]));
    let top = |split: &mut Split| set(&mut split.lidar, "laser_name", Values::Integers(vec![Some(1), Some(FRONT)]));
    type Change = Box<dyn Fn(&mut Split)>;
    let nothing_scanned = |split: &mut Split| {
        set(&mut split.lidar, "return1.values", Values::Floats(vec![vec![], vec![1.0; 12]]));
        set(&mut split.lidar, "return1.shape", Values::Sizes(vec![vec![], vec![1, 3, 4]]));
    };
    let cases: [(&str, Change, &str); 8] = [
        ("no images", Box::new(nothing_scanned), "lidar/seg.parquet: frame 1000000: lasers: none has a range image"),
        ("pose", Box::new(second_only), "vehicle_pose/seg.parquet: parquet: frame 1000000: has no row"),
        ("pose of top", Box::new(top), "lidar_pose/seg.parquet: parquet: frame 1000000: has no row for laser TOP"),
        (
            "calibration",
            Box::new(|split| set(&mut split.lidar, "laser_name", Values::Integers(vec![Some(3), Some(FRONT)]))),
            "lidar_calibration/seg.parquet: parquet: laser SIDE_LEFT: has no calibration",
        ),
        (
            "NaN",
            Box::new(columns(|split| &mut split.lidar_box, "box.size.y", numbers([1.0, f64::NAN]))),
            "frame 1000000: label 0 (`a`): width is NaN",
        ),
        (
            "null",
            Box::new(columns(|split| &mut split.lidar_box, "box.heading", Values::Numbers(vec![Some(1.0), None]))),
            "lidar_box/seg.parquet: parquet: row group 0, row 1: a field of the box is null",
        ),
        (
            "short pose",
            Box::new(columns(|split| &mut split.vehicle_pose, "transform", Values::Doubles(vec![identity(), vec![1.0]]))),
            "world_from_vehicle: 1 numbers, a transform has 16",
        ),
        (
            "channels",
            Box::new(columns(|split| &mut split.lidar, "return1.shape", Values::Sizes(vec![vec![2, 4], vec![1, 3, 4]]))),
            "shape is [2, 4], expected [H, W, 4]",
        ),
    ];
    for (name, change, expected) in cases {
        let mut split = split(Compression::SNAPPY);
        change(&mut split);
        let folder = split.write();
        let source = waymo::open(folder.path()).unwrap();
        let error = source.load(0, 0).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert_eq!(source.load(0, 1).map(|sample| sample.cloud.n_points()).unwrap(), 4, "{name}");
    }
}

#[test]
fn keys_that_cannot_be_make_the_segment_one_bad_frame() {
    let cases = [
        ("laser_name", Values::Integers(vec![Some(FRONT), Some(6)]), "key.laser_name is null or unknown, expected 1 to 5"),
        (
            "laser_name",
            Values::Numbers(vec![Some(2.0), Some(2.0)]),
            "column key.laser_name: is of type DOUBLE, expected an integer",
        ),
        ("timestamp_micros", Values::Integers(vec![Some(FIRST), Some(FIRST)]), "laser FRONT occurs twice at 1000000"),
        ("timestamp_micros", Values::Integers(vec![Some(FIRST), None]), "row 1: key.frame_timestamp_micros is null"),
        ("segment_context_name", Values::Texts(vec!["seg", "other"]), "rows of `seg` and of `other`, expected one segment"),
    ];
    for (name, values, expected) in cases {
        let mut split = split(Compression::SNAPPY);
        set(&mut split.lidar, name, values);
        let folder = split.write();
        let source = waymo::open(folder.path()).unwrap();
        assert_eq!(source.len(), 1);
        let error: DataError = source.load(0, 0).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(source.findings()[0].to_string().contains("segment that cannot be read"));
    }
}

/// A change to the tables that makes a small file which inflates to much, and what is said about it.
type Bomb = (&'static str, fn(&mut Split), &'static str);

#[test]
fn small_files_that_inflate_to_much_are_refused_by_column() {
    const MUCH: usize = 65 << 20;
    let bombs: [Bomb; 3] = [
        (
            "one long value",
            |split| set(&mut split.lidar_box, "laser_object_id", Values::Texts(vec!["b", "a".repeat(MUCH).leak()])),
            "lidar_box/seg.parquet: parquet: column key.laser_object_id, row group 0: ",
        ),
        (
            "many equal values in a row",
            |split| set(&mut split.lidar, "return1.shape", Values::Sizes(vec![vec![1; MUCH / 4], vec![1, 3, 4]])),
            "lidar/seg.parquet: parquet: column [LiDARComponent].range_image_return1.shape, row group 0: ",
        ),
        (
            "many equal values in an image",
            |split| set(&mut split.lidar, "return1.values", Values::Floats(vec![vec![1.0; MUCH / 4], vec![1.0; 12]])),
            "lidar/seg.parquet: parquet: column [LiDARComponent].range_image_return1.values, row group 0, row 0: ",
        ),
    ];
    for (name, lay, place) in bombs {
        for compression in [Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default()), Compression::BROTLI(Default::default())]
        {
            let mut split = split(compression);
            lay(&mut split);
            let dictionary = name != "one long value";
            let pages = WriterProperties::builder().set_compression(compression).set_dictionary_enabled(dictionary);
            split.properties = pages.set_statistics_enabled(EnabledStatistics::None);
            let folder = split.write();
            let error = waymo::open(folder.path()).unwrap().load(0, 0).unwrap_err().to_string();
            let limit = if dictionary { "16777216" } else { "67108864" };
            assert!(error.contains(place) && error.contains(limit), "{name}, {compression}: {error}");
        }
    }
}

#[test]
fn encodings_that_trust_the_page_are_refused_by_name() {
    let mut split = split(Compression::SNAPPY);
    // A dot in a name separates parts of a path, so the path is made of its one part.
    let texts = ColumnPath::new(vec!["key.laser_object_id".to_owned()]);
    split.properties = small_pages(Compression::SNAPPY)
        .set_column_dictionary_enabled(texts.clone(), false)
        .set_column_encoding(texts, Encoding::DELTA_LENGTH_BYTE_ARRAY);
    let folder = split.write();
    let error = waymo::open(folder.path()).unwrap().load(0, 0).unwrap_err().to_string();
    assert!(error.contains("column key.laser_object_id, row group 0: "), "{error}");
    assert!(error.contains("a page is encoded as DELTA_LENGTH_BYTE_ARRAY, read are [PLAIN, RLE_DICTIONARY, "), "{error}");
}

#[test]
fn fingerprint_differs_when_a_value_does_though_no_size() {
    let print = |width: f64| {
        let mut split = split(Compression::UNCOMPRESSED);
        set(&mut split.lidar_box, "box.size.y", Values::Numbers(vec![Some(width), Some(2.0)]));
        let folder = split.write();
        let size = fs::metadata(folder.path().join("lidar_box/seg.parquet")).unwrap().len();
        (size, waymo::open(folder.path()).unwrap().fingerprint().sha256)
    };
    let (first, again, other) = (print(1.5), print(1.5), print(1.25));
    assert_eq!(first, again);
    assert_eq!(first.0, other.0, "the files are of one size");
    assert_ne!(first.1, other.1);
}
