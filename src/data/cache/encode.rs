//! A frame as tensors and back.

use half::f16;
use half::slice::HalfFloatSliceExt;
use nalgebra::{Isometry3, Quaternion, Translation3, UnitQuaternion};
use safetensors::Dtype;

use crate::cloud::{Feature, PointCloud};
use crate::data::{Label, Sample, SampleId};
use crate::geometry::Box3d;
use crate::time::Stamp;

/// Names of the tensors of a frame, in the order in which the checksum goes over them.
const PARTS: [&str; 5] = ["points", "coordinates", "columns", "no_label_zone", "frame"];
const COORDINATES: usize = 3;

/// How exactly points are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// As they are, 4 bytes a value.
    F32,
    /// Rounded to 2 bytes a value; [`super`] says what that costs.
    F16,
}

/// `n.frame`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct FrameRecord {
    stamp_ns: i64,
    frame_id: String,
    columns: Vec<Feature>,
    n_points: usize,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    coordinate_step_m: Option<[f32; COORDINATES]>,
    /// x, y, z, qx, qy, qz, qw.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    world_from_cloud: Option<[f64; 7]>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    labels: Option<Vec<LabelRecord>>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelRecord {
    class: String,
    /// x, y, z, length, width, height, yaw.
    row: [f64; 7],
    #[serde(skip_serializing_if = "Option::is_none", default)]
    track_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    n_points: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    difficulty: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    velocity_mps: Option<[f64; 2]>,
}

/// A tensor to write.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Encoded {
    pub name: &'static str,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// A tensor of a mapped shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
}

/// The tensors of one frame, in the order of [`PARTS`].
pub(super) struct Tensors<'a>([Option<Stored<'a>>; 5]);

pub(super) fn tensor_name(slot: usize, part: &str) -> String {
    format!("{slot:05}.{part}")
}

/// The tensors of a sample, in the order of [`PARTS`].
pub(super) fn encode(sample: &Sample, precision: Precision) -> Result<Vec<Encoded>, String> {
    let PointCloud { stamp, frame_id, features, points } = &sample.cloud;
    let (n_points, width) = (sample.cloud.n_points(), features.len());
    if features.get(..COORDINATES) != Some(&[Feature::X, Feature::Y, Feature::Z]) || points.len() != n_points * width {
        return Err(format!(
            "{} values with the columns {features:?}, expected whole rows that begin with x, y, z",
            points.len()
        ));
    }
    let mut tensors = Vec::new();
    let mut coordinate_step_m = None;
    match precision {
        Precision::F32 => {
            let bytes = points.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensors.push(Encoded { name: "points", dtype: Dtype::F32, shape: vec![n_points, width], bytes });
        }
        Precision::F16 => {
            let step = steps(&sample.cloud);
            let coordinates = sample.cloud.rows().flat_map(|row| [0, 1, 2].map(|axis| (row[axis] / step[axis]).round() as i16));
            let columns = sample.cloud.rows().flat_map(|row| &row[COORDINATES..]).map(|&value| saturated(value));
            let bytes = coordinates.flat_map(i16::to_le_bytes).collect();
            tensors.push(Encoded { name: "coordinates", dtype: Dtype::I16, shape: vec![n_points, COORDINATES], bytes });
            let bytes = columns.flat_map(f16::to_le_bytes).collect();
            tensors.push(Encoded { name: "columns", dtype: Dtype::F16, shape: vec![n_points, width - COORDINATES], bytes });
            coordinate_step_m = Some(step);
        }
    }
    if !sample.in_no_label_zone.is_empty() {
        if sample.in_no_label_zone.len() != n_points {
            return Err(format!("{} no-label-zone flags for {n_points} points", sample.in_no_label_zone.len()));
        }
        let bits = |flags: &[bool]| flags.iter().enumerate().fold(0, |byte, (bit, &flag)| byte | (u8::from(flag) << bit));
        let bytes: Vec<u8> = sample.in_no_label_zone.chunks(8).map(bits).collect();
        tensors.push(Encoded { name: "no_label_zone", dtype: Dtype::U8, shape: vec![bytes.len()], bytes });
    }
    let record = FrameRecord {
        stamp_ns: stamp.nanos,
        frame_id: frame_id.clone(),
        columns: features.clone(),
        n_points,
        coordinate_step_m,
        world_from_cloud: sample.world_from_cloud.as_ref().map(pose_numbers),
        labels: sample.labels.as_ref().map(|labels| labels.iter().map(LabelRecord::from).collect()),
    };
    let bytes = serde_json::to_vec(&record).map_err(|error| error.to_string())?;
    tensors.push(Encoded { name: "frame", dtype: Dtype::U8, shape: vec![bytes.len()], bytes });
    Ok(tensors)
}

pub(super) fn crc32<'a>(parts: impl Iterator<Item = &'a [u8]>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.for_each(|bytes| hasher.update(bytes));
    hasher.finalize()
}

/// For each axis the smallest power of two of which 32 767 reach its farthest point.
fn steps(cloud: &PointCloud) -> [f32; COORDINATES] {
    [0, 1, 2].map(|axis| {
        let extent = cloud.rows().map(|row| row[axis].abs()).fold(0.0, f32::max);
        let mut step = 2.0_f32.powi(-14);
        while step * f32::from(i16::MAX) < extent {
            step *= 2.0;
        }
        step
    })
}

fn saturated(value: f32) -> f16 {
    f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

impl<'a> Tensors<'a> {
    pub(super) fn find(slot: usize, tensor: impl Fn(&str) -> Option<Stored<'a>>) -> Self {
        Self(PARTS.map(|part| tensor(&tensor_name(slot, part))))
    }

    pub(super) fn crc32(&self) -> u32 {
        crc32(self.0.iter().flatten().map(|tensor| tensor.bytes))
    }

    /// The sample again; its checksum was found right, so that what does not fit was written wrong.
    pub(super) fn decode(&self, id: SampleId) -> Result<Sample, String> {
        let [points, coordinates, columns, no_label_zone, frame] = &self.0;
        let frame = frame.ok_or("has no tensor `frame`")?;
        let record: FrameRecord = serde_json::from_slice(frame.bytes).map_err(|error| format!("`frame`: {error}"))?;
        let (n_points, width) = (record.n_points, record.columns.len());
        let points = match (points, coordinates, columns, record.coordinate_step_m) {
            (Some(points), None, None, None) => {
                points.check("points", Dtype::F32, &[n_points, width])?;
                points.bytes.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]])).collect()
            }
            (None, Some(coordinates), Some(columns), Some(step)) if width >= COORDINATES => {
                coordinates.check("coordinates", Dtype::I16, &[n_points, COORDINATES])?;
                columns.check("columns", Dtype::F16, &[n_points, width - COORDINATES])?;
                widen(coordinates.bytes, columns.bytes, step, n_points, width)
            }
            _ => return Err("has neither `points` nor `coordinates`, `columns` and their step".to_owned()),
        };
        let in_no_label_zone = match no_label_zone {
            Some(zone) => {
                zone.check("no_label_zone", Dtype::U8, &[n_points.div_ceil(8)])?;
                (0..n_points).map(|idx| zone.bytes[idx / 8] >> (idx % 8) & 1 == 1).collect()
            }
            None => Vec::new(),
        };
        let stamp = Stamp { nanos: record.stamp_ns };
        Ok(Sample {
            id,
            cloud: PointCloud { stamp, frame_id: record.frame_id, features: record.columns, points },
            labels: record.labels.map(|labels| labels.into_iter().map(Label::from).collect()),
            in_no_label_zone,
            world_from_cloud: record.world_from_cloud.map(pose),
        })
    }
}

impl Stored<'_> {
    fn check(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<(), String> {
        if self.dtype != dtype || self.shape != shape {
            return Err(format!("`{name}` is {:?} {:?}, expected {dtype:?} {shape:?}", self.dtype, self.shape));
        }
        Ok(())
    }
}

/// Rows of f32 from 16-bit coordinates and columns.
fn widen(coordinates: &[u8], columns: &[u8], step: [f32; COORDINATES], n_points: usize, width: usize) -> Vec<f32> {
    let halves: Vec<f16> = columns.chunks_exact(2).map(|value| f16::from_le_bytes([value[0], value[1]])).collect();
    let mut singles = vec![0.0; halves.len()];
    halves.convert_to_f32_slice(&mut singles);
    let mut points = vec![0.0; n_points * width];
    let n_columns = width - COORDINATES;
    for (point_idx, (row, coordinates)) in
        points.chunks_exact_mut(width).zip(coordinates.chunks_exact(2 * COORDINATES)).enumerate()
    {
        for axis in 0..COORDINATES {
            row[axis] = f32::from(i16::from_le_bytes([coordinates[2 * axis], coordinates[2 * axis + 1]])) * step[axis];
        }
        row[COORDINATES..].copy_from_slice(&singles[point_idx * n_columns..(point_idx + 1) * n_columns]);
    }
    points
}

fn pose_numbers(pose: &Isometry3<f64>) -> [f64; 7] {
    let (at, turn) = (pose.translation.vector, pose.rotation.coords);
    [at.x, at.y, at.z, turn.x, turn.y, turn.z, turn.w]
}

fn pose([x, y, z, qx, qy, qz, qw]: [f64; 7]) -> Isometry3<f64> {
    // Written from a unit quaternion; normalising again would change its last digits.
    Isometry3::from_parts(Translation3::new(x, y, z), UnitQuaternion::new_unchecked(Quaternion::new(qw, qx, qy, qz)))
}

impl From<&Label> for LabelRecord {
    fn from(label: &Label) -> Self {
        let Label { box3d, class, track_id, n_points, difficulty, velocity_mps } = label.clone();
        Self { class, row: box3d.to_row(), track_id, n_points, difficulty, velocity_mps }
    }
}

impl From<LabelRecord> for Label {
    fn from(record: LabelRecord) -> Self {
        let LabelRecord { class, row, track_id, n_points, difficulty, velocity_mps } = record;
        Self { box3d: Box3d::from_row(row), class, track_id, n_points, difficulty, velocity_mps }
    }
}
