//! Cloud decoding: drivers' layouts, malformed clouds, and random layouts whose values are known.

use std::collections::BTreeMap;

use pivotal::cloud::decode::{CloudDecoder, SensorOverrides};
use pivotal::cloud::layout::CloudLayout;
use pivotal::cloud::{CloudError, Feature, InputSpec, IntensityMode, PointCloud};
use pivotal::msgs::cdr::from_bytes;
use pivotal::msgs::sensor_msgs::{PointCloud2, PointCloud2Ref, PointField};
use pivotal::msgs::std_msgs::Header;
use pivotal::time::Stamp;
use proptest::prelude::*;
use serde_json::Value;

use crate::support::allocations::allocations_of;
use crate::support::{self, borrowed};

const F32: u8 = PointField::FLOAT32;
const F64: u8 = PointField::FLOAT64;
const U8: u8 = PointField::UINT8;
const U16: u8 = PointField::UINT16;
const I32: u8 = PointField::INT32;
const U32: u8 = PointField::UINT32;

/// 1 700 000 000.25 s, exact as f64.
const STAMP: Stamp = Stamp { nanos: 1_700_000_000_250_000_000 };

/// Values of one point.
const ONES: &[f64] = &[1.0; 5];

/// Name, offset, datatype.
type Field<'a> = (&'a str, u32, u8);

/// Writes `value` as the field's type, saturating; returns what was stored.
fn put(point: &mut [u8], offset: u32, datatype: u8, is_bigendian: bool, value: f64) -> f64 {
    let (mut bytes, stored) = match datatype {
        1 => ((value as i8).to_le_bytes().to_vec(), f64::from(value as i8)),
        2 => ((value as u8).to_le_bytes().to_vec(), f64::from(value as u8)),
        3 => ((value as i16).to_le_bytes().to_vec(), f64::from(value as i16)),
        4 => ((value as u16).to_le_bytes().to_vec(), f64::from(value as u16)),
        5 => ((value as i32).to_le_bytes().to_vec(), f64::from(value as i32)),
        6 => ((value as u32).to_le_bytes().to_vec(), f64::from(value as u32)),
        7 => ((value as f32).to_le_bytes().to_vec(), f64::from(value as f32)),
        _ => (value.to_le_bytes().to_vec(), value),
    };
    if is_bigendian {
        bytes.reverse();
    }
    point[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    stored
}

/// A little-endian cloud of one row.
fn cloud(fields: &[Field], point_step: u32, points: &[&[f64]]) -> PointCloud2 {
    let mut data = vec![0; points.len() * point_step as usize];
    for (point, values) in data.chunks_mut(point_step as usize).zip(points) {
        for (&(_, offset, datatype), &value) in fields.iter().zip(*values) {
            put(point, offset, datatype, false, value);
        }
    }
    PointCloud2 {
        header: Header::new(STAMP, "lidar"),
        height: 1,
        width: points.len() as u32,
        fields: fields.iter().map(|&(name, offset, datatype)| PointField::scalar(name, offset, datatype)).collect(),
        point_step,
        row_step: points.len() as u32 * point_step,
        data,
        ..PointCloud2::default()
    }
}

fn input(features: &[Feature], intensity: IntensityMode, fill_absent: &[(Feature, f32)]) -> InputSpec {
    InputSpec { features: features.to_vec(), intensity, fill_absent: fill_absent.iter().copied().collect() }
}

const XYZ: [Feature; 3] = [Feature::X, Feature::Y, Feature::Z];
const XYZI: [Feature; 4] = [Feature::X, Feature::Y, Feature::Z, Feature::Intensity];
const XYZT: [Feature; 4] = [Feature::X, Feature::Y, Feature::Z, Feature::TimeOffset];

fn decode(message: &PointCloud2, input: &InputSpec) -> Result<Vec<f32>, CloudError> {
    let mut out = PointCloud::default();
    CloudDecoder::new(input, &SensorOverrides::default())?.decode(&borrowed(message), &mut out)?;
    Ok(out.points)
}

#[test]
fn xyzi_cloud_decodes_with_stamp_and_frame() {
    let message = cloud(
        &[("x", 0, F32), ("y", 4, F32), ("z", 8, F32), ("intensity", 12, F32)],
        16,
        &[&[1.0, 2.0, 3.0, 0.5], &[4.0, 5.0, 6.0, 0.25]],
    );
    let mut out = PointCloud::default();
    let mut decoder = CloudDecoder::new(&input(&XYZI, IntensityMode::Raw, &[]), &SensorOverrides::default()).unwrap();
    let report = decoder.decode(&borrowed(&message), &mut out).unwrap();
    assert_eq!(out.points, [1.0, 2.0, 3.0, 0.5, 4.0, 5.0, 6.0, 0.25]);
    assert_eq!((out.stamp, out.frame_id.as_str(), out.n_points()), (STAMP, "lidar", 2));
    assert_eq!(out.features, XYZI);
    assert_eq!((report.received, report.non_finite, report.filled), (2, 0, vec![]));
}

/// Two fields of other types than f32, so that nothing is copied whole; every seventh point is refused.
fn long_cloud(n_points: usize) -> PointCloud2 {
    let fields = [("x", 0, F32), ("y", 4, F32), ("z", 8, F64), ("intensity", 16, U16)];
    let rows: Vec<[f64; 4]> =
        (0..n_points).map(|i| [i as f64, -1.0, if i % 7 == 0 { f64::NAN } else { 0.5 }, (i % 100) as f64]).collect();
    let rows: Vec<&[f64]> = rows.iter().map(|row| &row[..]).collect();
    cloud(&fields, 18, &rows)
}

#[test]
fn decoding_allocates_equally_often_for_any_number_of_points_and_not_at_all_again() {
    let spec = input(&XYZI, IntensityMode::Scale(0.5), &[]);
    let counts = [1_000, 180_000].map(|n_points| {
        let message = long_cloud(n_points);
        let borrowed = borrowed(&message);
        let mut decoder = CloudDecoder::new(&spec, &SensorOverrides::default()).unwrap();
        let mut out = PointCloud::default();
        let mut decode = || allocations_of(|| decoder.decode(&borrowed, &mut out).unwrap());
        let ((first, report), (again, _)) = (decode(), decode());
        assert_eq!((report.received, report.non_finite), (n_points, n_points.div_ceil(7)));
        (first, again)
    });
    let [(first, again), long] = counts;
    assert_eq!((first, again), long, "1 000 and 180 000 points");
    assert!((1..60).contains(&first), "{first} allocations for the first cloud of a sensor");
    assert_eq!(again, 0, "allocations for a further cloud");
}

/// Driver, fields after x, y, z, point step, their values, intensity, seconds after the stamp.
type DriverLayout<'a> = (&'a str, &'a [Field<'a>], u32, &'a [f64], f32, f32);

/// One point at (1, 2, 3) in the layouts of drivers; the third column is the intensity, the last the seconds after the stamp.
#[test]
fn drivers_layouts_decode() {
    let xyz = [("x", 0, F32), ("y", 4, F32), ("z", 8, F32)];
    let cases: [DriverLayout; 9] = [
        ("velodyne", &[("intensity", 12, F32), ("ring", 16, U16), ("time", 18, F32)], 22, &[7.0, 3.0, -0.125], 7.0, -0.125),
        (
            "ouster",
            &[("intensity", 16, F32), ("t", 20, U32), ("reflectivity", 24, U16), ("ring", 26, U16)],
            48,
            &[7.0, 5e7, 99.0, 4.0],
            7.0,
            0.05,
        ),
        (
            "hesai",
            &[("intensity", 12, F32), ("ring", 16, U16), ("timestamp", 24, F64)],
            32,
            &[7.0, 1.0, 1_700_000_000.5],
            7.0,
            0.25,
        ),
        (
            "robosense",
            &[("intensity", 12, F32), ("ring", 16, U16), ("timestamp", 18, F64)],
            26,
            &[7.0, 1.0, 1_700_000_000.0],
            7.0,
            -0.25,
        ),
        (
            "livox",
            &[("intensity", 12, F32), ("tag", 16, U8), ("line", 17, U8), ("timestamp", 18, F64)],
            26,
            &[7.0, 0.0, 0.0, 1.7000000003125e18],
            7.0,
            0.0625,
        ),
        ("livox converted", &[("reflectivity", 12, U8), ("offset_time", 13, U32)], 17, &[7.0, 2.5e8], 7.0, 0.25),
        (
            "nebula",
            &[("intensity", 12, U8), ("return_type", 13, U8), ("channel", 14, U16), ("time_stamp", 28, U32)],
            32,
            &[7.0, 1.0, 2.0, 1e8],
            7.0,
            0.1,
        ),
        ("sick", &[("i", 12, F32), ("ts", 16, F32)], 20, &[7.0, 0.5], 7.0, 0.5),
        ("aeva", &[("reflectivity", 12, F32), ("time_offset_ns", 16, I32)], 20, &[7.0, -1e9], 7.0, -1.0),
    ];
    let features = [&XYZI[..], &[Feature::TimeOffset]].concat();
    for (driver, more, point_step, values, intensity, time_s) in cases {
        let fields = [&xyz[..], more].concat();
        let message = cloud(&fields, point_step, &[&[&[1.0, 2.0, 3.0], values].concat()]);
        let points = decode(&message, &input(&features, IntensityMode::Raw, &[])).unwrap();
        assert_eq!(points, [1.0, 2.0, 3.0, intensity, time_s], "{driver}");
    }
}

#[test]
fn float64_time_is_read_as_what_is_nearest_to_the_stamp() {
    let fields = [("x", 0, F32), ("y", 4, F32), ("z", 8, F32), ("timestamp", 12, F64)];
    let cases = [
        (1.7e9, 0.0625, 0.0625),
        (1.7e9, 1.7e9 + 0.0625, 0.0625),
        (1.7e9, (1.7e9 + 0.0625) * 1e9, 0.0625),
        (1.7e9, 1.7e9 - 0.125, -0.125),
        (12.5, 12.5625, 0.0625),
        (12.5, 0.0625, 0.0625),
        (0.0, 0.0625, 0.0625),
    ];
    for (stamp_s, value, expected) in cases {
        let mut message = cloud(&fields, 20, &[&[1.0, 1.0, 1.0, value]]);
        message.header = Header::new(Stamp { nanos: (stamp_s * 1e9) as i64 }, "lidar");
        let offset_s = decode(&message, &input(&XYZT, IntensityMode::Raw, &[])).unwrap()[3];
        // Nanoseconds since the epoch are multiples of 256 in f64.
        assert!((offset_s - expected).abs() < 1e-6, "{value} at {stamp_s}: {offset_s}");
    }
}

#[test]
fn intensity_modes_and_overrides_apply() {
    let fields = [("x", 0, F32), ("y", 4, F32), ("z", 8, F32), ("intensity", 12, U8), ("signal", 13, U16)];
    let message = cloud(&fields, 15, &[&[0.0, 0.0, 0.0, 51.0, 1000.0]]);
    let named = BTreeMap::from([(Feature::Intensity, "signal".to_owned())]);
    let none = BTreeMap::new();
    let cases = [
        (IntensityMode::Raw, None, &none, 51.0),
        (IntensityMode::Scale(1.0 / 255.0), None, &none, 51.0 * (1.0 / 255.0)),
        (IntensityMode::Tanh, None, &none, 51f32.tanh()),
        (IntensityMode::ScaleTanh(0.01), None, &none, 0.51f32.tanh()),
        (IntensityMode::Tanh, Some(IntensityMode::Raw), &none, 51.0),
        (IntensityMode::Raw, None, &named, 1000.0),
        (IntensityMode::Raw, Some(IntensityMode::Scale(0.5)), &named, 500.0),
    ];
    for (mode, intensity, field_names, expected) in cases {
        let sensor = SensorOverrides { field_names: field_names.clone(), intensity };
        let mut out = PointCloud::default();
        let mut decoder = CloudDecoder::new(&input(&XYZI, mode, &[]), &sensor).unwrap();
        decoder.decode(&borrowed(&message), &mut out).unwrap();
        assert!((out.points[3] - expected).abs() < 1e-6, "{mode:?} {sensor:?}: {} {expected}", out.points[3]);
    }
}

#[test]
fn absent_column_is_filled_with_the_spec_constant_and_reported() {
    let message = cloud(&[("x", 0, F32), ("y", 4, F32), ("z", 8, F32)], 12, &[&[1.0, 2.0, 3.0]]);
    let features = [&XYZI[..], &[Feature::Elongation]].concat();
    let fill = [(Feature::Intensity, 4.0), (Feature::Elongation, 0.5)];
    let mut decoder = CloudDecoder::new(&input(&features, IntensityMode::Tanh, &fill), &SensorOverrides::default()).unwrap();
    let mut out = PointCloud::default();
    let report = decoder.decode(&borrowed(&message), &mut out).unwrap();
    assert_eq!(out.points, [1.0, 2.0, 3.0, 4.0, 0.5]);
    assert_eq!(report.filled, [Feature::Intensity, Feature::Elongation]);
}

#[test]
fn points_with_a_non_finite_used_value_are_left_out_and_counted() {
    let fields = [("x", 0, F64), ("y", 8, F32), ("z", 12, F32), ("intensity", 16, F32), ("unused", 20, F32)];
    let points: [&[f64]; 8] = [
        &[1.0, 1.0, 1.0, 0.0, f64::NAN],
        &[f64::NAN, 1.0, 1.0, 0.0, 0.0],
        &[1.0, f64::INFINITY, 1.0, 0.0, 0.0],
        &[1.0, 1.0, f64::NEG_INFINITY, 0.0, 0.0],
        &[1e300, 1.0, 1.0, 0.0, 0.0],
        &[1.0, 1.0, 1.0, f64::NAN, 0.0],
        &[1.0, 1.0, 1.0, f64::INFINITY, 0.0],
        &[2.0, 2.0, 2.0, 0.0, 0.0],
    ];
    let message = cloud(&fields, 24, &points);
    let mut decoder = CloudDecoder::new(&input(&XYZI, IntensityMode::Tanh, &[]), &SensorOverrides::default()).unwrap();
    let mut out = PointCloud::default();
    let report = decoder.decode(&borrowed(&message), &mut out).unwrap();
    assert_eq!((report.received, report.non_finite), (8, 6));
    assert_eq!(out.points, [1.0, 1.0, 1.0, 0.0, 2.0, 2.0, 2.0, 0.0]);
}

#[test]
fn intensity_that_overflows_its_scale_makes_a_point_non_finite() {
    let fields = [("x", 0, F32), ("y", 4, F32), ("z", 8, F32), ("intensity", 12, F32)];
    let message = cloud(&fields, 16, &[&[0.0, 0.0, 0.0, 1e30]]);
    assert!(decode(&message, &input(&XYZI, IntensityMode::Scale(1e30), &[])).unwrap().is_empty());
}

#[test]
fn empty_clouds_give_no_points() {
    let mut message = cloud(&[("x", 0, F32), ("y", 4, F32), ("z", 8, F32)], 12, &[]);
    for (height, width, row_step) in [(1, 0, 0), (0, 0, 0), (0, 5, 60), (1 << 31, 0, 0)] {
        (message.height, message.width, message.row_step) = (height, width, row_step);
        assert!(decode(&message, &input(&XYZ, IntensityMode::Raw, &[])).unwrap().is_empty(), "{height} x {width}");
    }
}

#[test]
fn layout_is_described_once_per_change() {
    let fields = [("x", 0, F32), ("y", 4, F32), ("z", 8, F32), ("intensity", 12, U8), ("ring", 14, U16)];
    let first = cloud(&fields, 16, &[ONES]);
    let longer = cloud(&fields, 16, &[ONES; 3]);
    let other = cloud(&fields, 20, &[ONES]);
    let broken = PointCloud2 { fields: vec![], ..first.clone() };
    let features = [&XYZI[..], &[Feature::Elongation]].concat();
    let spec = input(&features, IntensityMode::Scale(0.5), &[(Feature::Elongation, 0.0)]);
    let mut decoder = CloudDecoder::new(&spec, &SensorOverrides::default()).unwrap();
    let mut out = PointCloud::default();
    let mut changed = |message: &PointCloud2| decoder.decode(&borrowed(message), &mut out).ok().map(|r| r.layout_changed);
    let text = "points of 16 bytes, little-endian: x FLOAT32 at 0 as x (metres); y FLOAT32 at 4 as y (metres); z FLOAT32 at 8 as z \
                (metres); intensity UINT8 at 12 as intensity (times 0.5); ring UINT16 at 14; elongation filled with 0";
    assert_eq!(changed(&first), Some(Some(text.to_owned())));
    assert_eq!(changed(&longer), Some(None));
    assert_eq!(changed(&broken), None);
    assert_eq!(changed(&first), Some(None));
    assert!(changed(&other).unwrap().is_some());
    assert!(changed(&first).unwrap().is_some());
}

#[test]
fn second_cloud_of_the_same_size_reuses_the_buffers() {
    let message = cloud(&[("x", 0, F32), ("y", 4, F32), ("z", 8, F32)], 12, &[ONES; 1000]);
    let mut decoder = CloudDecoder::new(&input(&XYZ, IntensityMode::Raw, &[]), &SensorOverrides::default()).unwrap();
    let mut out = PointCloud::default();
    decoder.decode(&borrowed(&message), &mut out).unwrap();
    let (points, frame) = (out.points.as_ptr(), out.frame_id.as_ptr());
    decoder.decode(&borrowed(&message), &mut out).unwrap();
    assert_eq!((out.points.as_ptr(), out.frame_id.as_ptr()), (points, frame));
}

/// Every fault of a message with the words it gets.
#[test]
fn malformed_clouds_are_refused_with_field_and_both_values() {
    let good = cloud(&[("x", 0, F32), ("y", 4, F32), ("z", 8, F32), ("intensity", 12, F32), ("t", 16, U32)], 20, &[ONES; 3]);
    let features = [&XYZI[..], &[Feature::TimeOffset]].concat();
    let field = |at: usize, change: &dyn Fn(&mut PointField)| {
        let mut message = good.clone();
        change(&mut message.fields[at]);
        message
    };
    let without = |at: usize| {
        let mut message = good.clone();
        message.fields.remove(at);
        message
    };
    let cases = [
        (PointCloud2 { data: vec![0; 59], ..good.clone() }, "data has 59 bytes, height 1 * row_step 60 = 60"),
        (PointCloud2 { data: vec![0; 61], ..good.clone() }, "data has 61 bytes, height 1 * row_step 60 = 60"),
        (PointCloud2 { height: 2, ..good.clone() }, "data has 60 bytes, height 2 * row_step 60 = 120"),
        (PointCloud2 { width: 4, ..good.clone() }, "row_step 60 is less than width 4 * point_step 20 = 80"),
        (PointCloud2 { row_step: 0, ..good.clone() }, "row_step 0 is less than width 3 * point_step 20 = 60"),
        (
            PointCloud2 { height: u32::MAX, width: u32::MAX, ..good.clone() },
            "height 4294967295 * width 4294967295 = 18446744065119617025 points, the limit is 20000000",
        ),
        (
            PointCloud2 { height: 1, width: 20_000_001, point_step: 0, ..good.clone() },
            "height 1 * width 20000001 = 20000001 points, the limit is 20000000",
        ),
        (
            PointCloud2 { height: u32::MAX, width: 0, row_step: u32::MAX, ..good.clone() },
            "data has 60 bytes, height 4294967295 * row_step 4294967295 = 18446744065119617025",
        ),
        (PointCloud2 { point_step: 0, ..good.clone() }, "field `x`: offset 0 + 4 bytes ends beyond point_step 0"),
        (PointCloud2 { point_step: 19, ..good.clone() }, "field `t`: offset 16 + 4 bytes ends beyond point_step 19"),
        (field(3, &|f| f.offset = 17), "field `intensity`: offset 17 + 4 bytes ends beyond point_step 20"),
        (field(0, &|f| f.offset = u32::MAX), "field `x`: offset 4294967295 + 4 bytes ends beyond point_step 20"),
        (field(4, &|f| f.datatype = F64), "field `t`: offset 16 + 8 bytes ends beyond point_step 20"),
        (field(3, &|f| f.count = u32::MAX), "field `intensity`: offset 12 + 17179869180 bytes ends beyond point_step 20"),
        (field(3, &|f| f.count = 2), "field `intensity` has count 2, expected 1"),
        (field(1, &|f| f.name = "x".to_owned()), "field `x` is declared twice, at offsets 0 and 4"),
        (field(0, &|f| f.datatype = I32), "field `x` has datatype INT32, expected FLOAT32 or FLOAT64"),
        (field(2, &|f| f.datatype = 0), "field `z` has datatype 0, expected 1 (INT8) to 8 (FLOAT64)"),
        (field(3, &|f| f.datatype = 9), "field `intensity` has datatype 9, expected 1 (INT8) to 8 (FLOAT64)"),
        (field(4, &|f| f.datatype = U16), "field `t` has datatype UINT16, expected INT32, UINT32, FLOAT32 or FLOAT64"),
        (without(0), "no field for x: looked for x; the cloud has y, z, intensity, t"),
        (without(1), "no field for y: looked for y; the cloud has x, z, intensity, t"),
        (without(2), "no field for z: looked for z; the cloud has x, y, intensity, t"),
        (
            without(3),
            "no field for intensity: looked for intensity, intensities, i, reflectivity, reflectance, remission, signal; the cloud \
             has x, y, z, t",
        ),
        (PointCloud2 { fields: vec![], ..good.clone() }, "no field for x: looked for x; the cloud has no fields"),
        (
            PointCloud2 { fields: (0..257).map(|at| PointField::scalar(&at.to_string(), 0, U8)).collect(), ..good.clone() },
            "fields: 257 of them, the limit is 256",
        ),
    ];
    let mut decoder = CloudDecoder::new(&input(&features, IntensityMode::Raw, &[]), &SensorOverrides::default()).unwrap();
    let mut out = PointCloud::default();
    decoder.decode(&borrowed(&good), &mut out).unwrap();
    let before = out.clone();
    for (message, expected) in cases {
        let fault = decoder.decode(&borrowed(&message), &mut out).unwrap_err();
        assert_eq!(fault.to_string(), expected);
        assert_eq!(out, before, "{expected}");
    }
}

#[test]
fn settings_that_cannot_be_met_are_refused() {
    let nan = SensorOverrides { intensity: Some(IntensityMode::Scale(f32::NAN)), ..SensorOverrides::default() };
    let none = SensorOverrides::default();
    let cases = [
        (
            input(&[Feature::Y, Feature::X, Feature::Z], IntensityMode::Raw, &[]),
            &none,
            "features = [Y, X, Z]: must begin with x, y, z",
        ),
        (
            input(&[&XYZI[..], &[Feature::Intensity]].concat(), IntensityMode::Raw, &[]),
            &none,
            "features = intensity: must not name a column twice",
        ),
        (input(&XYZI, IntensityMode::Raw, &[(Feature::Z, 0.0)]), &none, "fill_absent.z = 0: coordinates cannot be filled"),
        (
            input(&XYZI, IntensityMode::Raw, &[(Feature::Elongation, f32::INFINITY)]),
            &none,
            "fill_absent.elongation = inf: must be finite",
        ),
        (input(&XYZI, IntensityMode::Raw, &[]), &nan, "intensity = NaN: the factor must be finite"),
    ];
    for (input, sensor, expected) in cases {
        assert_eq!(CloudDecoder::new(&input, sensor).unwrap_err().to_string(), expected);
    }
}

#[test]
fn field_named_by_the_user_must_be_there_even_when_the_column_could_be_filled() {
    let message = cloud(&[("x", 0, F32), ("y", 4, F32), ("z", 8, F32), ("intensity", 12, F32)], 16, &[]);
    let field_names = BTreeMap::from([(Feature::Intensity, "near_ir".to_owned())]);
    let sensor = SensorOverrides { field_names, intensity: None };
    let spec = input(&XYZI, IntensityMode::Raw, &[(Feature::Intensity, 0.0)]);
    let mut decoder = CloudDecoder::new(&spec, &sensor).unwrap();
    let fault = decoder.decode(&borrowed(&message), &mut PointCloud::default()).unwrap_err();
    assert_eq!(fault.to_string(), "no field for intensity: looked for near_ir; the cloud has x, y, z, intensity");
}

#[test]
fn values_of_any_field_are_read_and_wrong_requests_refused() {
    let fields = [("x", 0, F32), ("ring", 5, U16), ("odd", 8, 9)];
    let mut message = cloud(&fields[..2], 9, &[&[0.5, 7.0], &[f64::NAN, 65535.0]]);
    message.fields.push(PointField::scalar("odd", 8, 9));
    let layout = CloudLayout::resolve(&borrowed(&message)).unwrap();
    assert_eq!(layout.values(&borrowed(&message), "ring").unwrap(), [7.0, 65535.0]);
    let x = layout.values(&borrowed(&message), "x").unwrap();
    assert!(x[0] == 0.5 && x[1].is_nan());
    let refused = |message: &PointCloud2, name: &str| layout.values(&borrowed(message), name).unwrap_err().to_string();
    assert_eq!(refused(&message, "t"), "no field `t`; the cloud has x, ring, odd");
    assert_eq!(refused(&message, "odd"), "field `odd` has datatype 9, expected 1 (INT8) to 8 (FLOAT64)");
    let other = PointCloud2 { point_step: 8, ..message.clone() };
    assert_eq!(
        refused(&other, "x"),
        "the message has point_step 8 and x, ring, odd, the layout was made for point_step 9 and x, ring, odd"
    );
}

/// RoboSense's driver: 26-byte points, FLOAT64 seconds since the epoch at offset 18.
#[test]
fn genuine_robosense_cloud_matches_expected_sums() {
    let expected: Value =
        serde_json::from_slice(&std::fs::read(support::shared("data/rosbag2/clouds_mcap.expected.json")).unwrap()).unwrap();
    let expected = expected["messages"].as_array().unwrap().iter().find(|m| m["topic"] == "/rslidar_points").unwrap().clone();
    let file = std::fs::read(support::shared("data/rosbag2/clouds_mcap/clouds_mcap.mcap")).unwrap();
    let recorded =
        mcap::MessageStream::new(&file).unwrap().map(Result::unwrap).find(|m| m.channel.topic == "/rslidar_points").unwrap();
    let message: PointCloud2Ref = from_bytes(&recorded.data).unwrap();

    let features = [&XYZI[..], &[Feature::TimeOffset]].concat();
    let mut decoder = CloudDecoder::new(&input(&features, IntensityMode::Raw, &[]), &SensorOverrides::default()).unwrap();
    let mut out = PointCloud::default();
    let report = decoder.decode(&message, &mut out).unwrap();
    assert_eq!(report.received - report.non_finite, expected["num_finite_xyz"].as_u64().unwrap() as usize);
    let sum = |column: usize| out.rows().map(|row| f64::from(row[column])).sum::<f64>();
    for column in 0..3 {
        let wanted = expected["sum_xyz"][column].as_f64().unwrap();
        assert!((sum(column) - wanted).abs() < 1e-6, "{column}: {} {wanted}", sum(column));
    }
    assert_eq!(sum(3), expected["sum_intensity"].as_f64().unwrap());
    assert!(out.rows().all(|row| row[4].abs() < 0.2), "one sweep takes 0.1 s");

    let layout = CloudLayout::resolve(&message).unwrap();
    let total: f64 = layout.values(&message, "timestamp").unwrap().iter().sum();
    let wanted = expected["sum_timestamp"].as_f64().unwrap();
    assert!((total - wanted).abs() < wanted * 1e-12, "{total} {wanted}, summed in another order");
}

/// A cloud of random layout with the values that were written into it.
#[derive(Debug, Clone)]
struct RandomCloud {
    message: PointCloud2,
    /// Per point, the stored x, y, z, intensity, elongation, time.
    stored: Vec<[f64; 6]>,
    /// Datatypes in the same order.
    datatypes: [u8; 6],
}

const NAMES: [&str; 6] = ["x", "y", "z", "intensity", "elongation", "t"];
const ALL: [Feature; 6] = [Feature::X, Feature::Y, Feature::Z, Feature::Intensity, Feature::Elongation, Feature::TimeOffset];

fn random_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        20 => -200.0..200.0f64,
        2 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(1e300), Just(-0.0), Just(4e9)],
    ]
}

prop_compose! {
    fn random_cloud()(
        coordinates in prop::array::uniform3(F32..=F64),
        others in prop::array::uniform2(1u8..=8),
        time in U32 - 1..=F32,
        order in Just([0usize, 1, 2, 3, 4, 5, 6, 7]).prop_shuffle(),
        gaps in prop::array::uniform9(0u32..5),
        is_bigendian: bool,
        (height, width) in (1u32..5, 0u32..700),
        row_padding in 0u32..40,
        values in prop::collection::vec(prop::array::uniform6(random_value()), 1..50),
        junk: u8,
    ) -> RandomCloud {
        let datatypes = [coordinates[0], coordinates[1], coordinates[2], others[0], others[1], time];
        let sizes = [0, 1, 1, 2, 2, 4, 4, 4, 8];
        let (mut end, mut offsets, mut fields) = (gaps[8], [0; 6], vec![]);
        for (&which, gap) in order.iter().zip(gaps) {
            end += gap;
            if which < 6 {
                offsets[which] = end;
                fields.push(PointField { count: u32::from(gap > 0), ..PointField::scalar(NAMES[which], end, datatypes[which]) });
                end += sizes[datatypes[which] as usize];
            } else {
                fields.push(PointField { name: format!("unused{which}"), offset: end, datatype: U16, count: 3 });
                end += 6;
            }
        }
        let (point_step, row_step) = (end, width * end + row_padding);
        let mut data = vec![junk; (height * row_step) as usize];
        let mut stored = vec![];
        for row in 0..height as usize {
            for column in 0..width as usize {
                let point = &mut data[row * row_step as usize + column * point_step as usize..][..point_step as usize];
                let wanted = values[stored.len() % values.len()];
                stored.push(std::array::from_fn(|at| put(point, offsets[at], datatypes[at], is_bigendian, wanted[at])));
            }
        }
        let header = Header::new(STAMP, "lidar");
        let message = PointCloud2 { header, height, width, fields, is_bigendian, point_step, row_step, data, is_dense: false };
        RandomCloud { message, stored, datatypes }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_layout_decodes_to_the_values_written(cloud in random_cloud()) {
        let expected: Vec<f32> = cloud
            .stored
            .iter()
            .map(|&[x, y, z, intensity, elongation, time]| {
                let time = if cloud.datatypes[5] == F32 { time } else { time * 1e-9 };
                [x as f32, y as f32, z as f32, intensity as f32 * 0.5, elongation as f32, time as f32]
            })
            .filter(|row| row.iter().all(|value| value.is_finite()))
            .flatten()
            .collect();
        let spec = input(&ALL, IntensityMode::Scale(0.5), &[]);
        let mut decoder = CloudDecoder::new(&spec, &SensorOverrides::default()).unwrap();
        // Left over from a longer cloud, to be overwritten.
        let mut out = PointCloud { points: vec![f32::NAN; 20_000], ..PointCloud::default() };
        let message = borrowed(&cloud.message);
        let report = decoder.decode(&message, &mut out).unwrap();
        prop_assert_eq!(&out.points, &expected);
        prop_assert_eq!(report.received, cloud.stored.len());
        prop_assert_eq!(report.non_finite, cloud.stored.len() - expected.len() / 6);

        let layout = CloudLayout::resolve(&message).unwrap();
        for (at, name) in NAMES.iter().enumerate() {
            let values = layout.values(&message, name).unwrap();
            prop_assert!(values.iter().map(|v| v.to_bits()).eq(cloud.stored.iter().map(|row| row[at].to_bits())), "{}", name);
        }
    }

    #[test]
    fn damaged_clouds_never_panic_and_leave_the_output_alone(
        cloud in random_cloud(),
        damage in prop::collection::vec((0usize..9, prop_oneof![0u32..40, any::<u32>()]), 1..4),
    ) {
        let mut message = cloud.message;
        for (which, value) in damage {
            let field = value as usize % message.fields.len();
            match which {
                0 => message.height = value,
                1 => message.width = value,
                2 => message.point_step = value,
                3 => message.row_step = value,
                4 => message.fields[field].offset = value,
                5 => message.fields[field].datatype = value as u8,
                6 => message.fields[field].count = value,
                7 => message.data.truncate(value as usize),
                _ => { message.fields.swap_remove(field % message.fields.len().max(1)); message.fields.push(PointField::default()); }
            }
        }
        let spec = input(&ALL, IntensityMode::Raw, &[(Feature::Elongation, 0.0)]);
        let mut decoder = CloudDecoder::new(&spec, &SensorOverrides::default()).unwrap();
        let before = PointCloud { points: vec![1.0; 6], features: ALL.to_vec(), ..PointCloud::default() };
        let mut out = before.clone();
        if decoder.decode(&borrowed(&message), &mut out).is_err() {
            prop_assert_eq!(out, before);
        }
        if let Ok(layout) = CloudLayout::resolve(&borrowed(&message)) {
            for name in NAMES {
                let _ = layout.values(&borrowed(&message), name);
            }
        }
    }
}
