//! Single sweeps of nuScenes into our bags.
//!
//! A frame is a `.pcd.bin` file and a JSON file beside it that names it as `lidar_file` and holds `timestamp` (seconds), `lidar2ego`,
//! `ego2global` (rows of 4 x 4 matrices) and `instances`: `class`, `box` (`[x, y, z, l, w, h, yaw]`, middle of the box in the LiDAR's
//! frame), `num_lidar_pts`, `velocity_xy` (null where unknown).
//!
//! | nuScenes | bag |
//! | --- | --- |
//! | points | `/lidar/points`: x, y, z, intensity (0 to 255), ring |
//! | instances | `/ground_truth/objects`, classes under their names, with the declared number of points |
//! | class `ignored` | left out and counted |
//! | `lidar2ego`, `ego2global` | `/tf_static` from `LIDAR_TOP` to `base_link`, `/tf` from there to `map` |

use std::path::{Path, PathBuf};

use nalgebra::{Isometry3, Matrix3, Rotation3, Translation3, UnitQuaternion};
use serde::Deserialize;

use super::labels::check_box;
use super::recorder::{Converted, Edge, Recorder, cloud_message, read_rows};
use super::{DataError, Label};
use crate::geometry::{Box3d, wrap_angle};
use crate::msgs::std_msgs::Header;
use crate::time::Stamp;

/// Frame of the clouds.
pub const FRAME: &str = "LIDAR_TOP";
/// Frame of the vehicle.
pub const VEHICLE_FRAME: &str = "base_link";
/// Frame that stands still.
pub const WORLD_FRAME: &str = "map";

/// Columns of nuScenes' point files.
const N_COLUMNS: usize = 5;

/// Largest rotation fault that single precision and printing may leave in a matrix.
const MAX_ROTATION_FAULT: f64 = 1e-3;

#[derive(Deserialize)]
struct Sweep {
    timestamp: f64,
    lidar_file: String,
    num_point_features: usize,
    lidar2ego: [[f64; 4]; 4],
    ego2global: [[f64; 4]; 4],
    instances: Vec<Instance>,
}

#[derive(Deserialize)]
struct Instance {
    class: String,
    #[serde(rename = "box")]
    row: [f64; 7],
    num_lidar_pts: u32,
    velocity_xy: Option<[Option<f64>; 2]>,
}

/// Writes every sweep whose JSON file lies in `folder` (or the one file given) as a new bag, in the order of their times. A sweep that
/// cannot be read is told in the result and left out. `progress` is told the sweeps done and all.
///
/// # Errors
/// When there is no JSON file, or the bag cannot be written.
pub fn convert(path: &Path, out: &Path, progress: &mut dyn FnMut(usize, usize)) -> Result<Converted, DataError> {
    let files = json_files(path)?;
    let mut converted = Converted::default();
    let mut sweeps = Vec::new();
    for file in &files {
        match read_sweep(file) {
            Ok(sweep) => sweeps.push((file, sweep)),
            Err(fault) => converted.faults.push(fault.to_string()),
        }
    }
    sweeps.sort_by(|(_, a), (_, b)| a.timestamp.total_cmp(&b.timestamp));
    let mut recorder = Recorder::create(out)?;
    for (idx, (file, sweep)) in sweeps.iter().enumerate() {
        match frame(file, sweep) {
            Ok((rows, labels, [vehicle_from_lidar, world_from_vehicle])) => {
                // Microseconds, as nuScenes counts; the float has no more digits.
                let stamp = Stamp { nanos: (sweep.timestamp * 1e6).round() as i64 * 1000 };
                let fixed = Edge { parent: VEHICLE_FRAME, child: FRAME, parent_from_child: vehicle_from_lidar };
                let moving = Edge { parent: WORLD_FRAME, child: VEHICLE_FRAME, parent_from_child: world_from_vehicle };
                recorder.poses(stamp, fixed, moving)?;
                recorder.frame(&cloud_message(Header::new(stamp, FRAME), &rows), Some(&labels))?;
                converted.add(&rows, &labels);
                let n_ignored = sweep.instances.len() - labels.len();
                if n_ignored > 0 {
                    *converted.n_not_labels.entry("ignored".to_owned()).or_default() += n_ignored;
                }
            }
            Err(fault) => converted.faults.push(fault.to_string()),
        }
        progress(idx + 1, sweeps.len());
    }
    recorder.finish()?;
    Ok(converted)
}

fn json_files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let io_error = |source| DataError::Io { path: path.display().to_string(), source };
    if std::fs::metadata(path).map_err(io_error)?.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io_error)? {
        let file = entry.map_err(io_error)?.path();
        if file.extension().is_some_and(|extension| extension == "json") {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        let reason = "no .json beside the .pcd.bin files".to_owned();
        return Err(DataError::Source { source_name: path.display().to_string(), reason });
    }
    Ok(files)
}

fn format_fault(file: &Path, place: &str, reason: String) -> DataError {
    DataError::Format { path: file.display().to_string(), place: place.to_owned(), reason }
}

fn read_sweep(file: &Path) -> Result<Sweep, DataError> {
    let text = std::fs::read(file).map_err(|source| DataError::Io { path: file.display().to_string(), source })?;
    let sweep: Sweep = serde_json::from_slice(&text).map_err(|fault| format_fault(file, "JSON", fault.to_string()))?;
    if sweep.num_point_features != N_COLUMNS {
        let reason = format!("{}, expected {N_COLUMNS}", sweep.num_point_features);
        return Err(format_fault(file, "num_point_features", reason));
    }
    if !(0.0..=i32::MAX.into()).contains(&sweep.timestamp) {
        return Err(format_fault(file, "timestamp", format!("{} s, expected 0 to {}", sweep.timestamp, i32::MAX)));
    }
    Ok(sweep)
}

type Frame = (Vec<[f32; N_COLUMNS]>, Vec<Label>, [Isometry3<f64>; 2]);

fn frame(file: &Path, sweep: &Sweep) -> Result<Frame, DataError> {
    let name = Path::new(&sweep.lidar_file);
    let inside = name.file_name().is_some_and(|only| only == name.as_os_str());
    if !inside {
        return Err(format_fault(file, "lidar_file", format!("`{}`, expected the name of a file beside", sweep.lidar_file)));
    }
    let rows = read_rows::<N_COLUMNS>(&file.with_file_name(name))?;
    let mut labels = Vec::new();
    for (idx, instance) in sweep.instances.iter().enumerate().filter(|(_, instance)| instance.class != "ignored") {
        let mut box3d = Box3d::from_row(instance.row);
        check_box(&box3d).map_err(|reason| format_fault(file, &format!("instances[{idx}]"), reason))?;
        box3d.yaw = wrap_angle(box3d.yaw);
        labels.push(Label {
            box3d,
            class: instance.class.clone(),
            track_id: None,
            n_points: Some(instance.num_lidar_pts),
            difficulty: None,
            velocity_mps: instance.velocity_xy.and_then(|[vx, vy]| Some([vx?, vy?])),
        });
    }
    let poses = [pose(file, "lidar2ego", &sweep.lidar2ego)?, pose(file, "ego2global", &sweep.ego2global)?];
    Ok((rows, labels, poses))
}

fn pose(file: &Path, key: &str, rows: &[[f64; 4]; 4]) -> Result<Isometry3<f64>, DataError> {
    let turn = Matrix3::from_fn(|row, column| rows[row][column]);
    let fault = (turn * turn.transpose() - Matrix3::identity()).amax();
    if !(fault <= MAX_ROTATION_FAULT && turn.determinant() > 0.0 && rows.as_flattened().iter().all(|value| value.is_finite())) {
        return Err(format_fault(
            file,
            key,
            format!("is no pose: its rotation is off by {fault:.1e}, at most {MAX_ROTATION_FAULT:.0e}"),
        ));
    }
    let rotation = UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix(&turn));
    Ok(Isometry3::from_parts(Translation3::new(rows[0][3], rows[1][3], rows[2][3]), rotation))
}
