//! Version 2 of the data set: one folder per component, one parquet file per segment in each.
//!
//! `lidar` says which frames there are. Rows are joined by their keys, in whatever order the tables hold them. Without a `lidar_box`
//! folder, as in the test split, frames are unlabelled.

mod pages;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::frame::{Laser, LaserImages, LeftOut, RawFrame, RawLabel, transform};
use super::geometry::{Calibration, Inclinations};
use super::range_image::{POSE_CHANNELS, RANGE_CHANNELS, RangeImage};
use super::{Fault, Tally};
use crate::data::{DataError, Finding, Fingerprint, Sample, SampleId, Source, sha256_of};
use table::Table;

const SEGMENT: &str = "key.segment_context_name";
const TIMESTAMP: &str = "key.frame_timestamp_micros";
const LASER: &str = "key.laser_name";
/// The components a frame cannot do without; `lidar_box` is the fifth.
const NEEDED: [&str; 4] = ["lidar", "lidar_pose", "lidar_calibration", "vehicle_pose"];

/// One split: segment after segment in the order of their names, frames in the order of time.
#[derive(Debug)]
pub struct Components {
    root: PathBuf,
    segments: Vec<Segment>,
    /// Index of the first frame of each segment, and the total.
    starts: Vec<usize>,
    labelled: bool,
    tally: Tally,
}

#[derive(Debug)]
struct Segment {
    drive: String,
    file_name: PathBuf,
    frames: Vec<Frame>,
    /// Why nothing of it can be read; it then has one frame.
    broken: Option<String>,
}

#[derive(Debug, Default)]
struct Frame {
    timestamp_micros: i64,
    lidar_rows: Vec<(Laser, Row)>,
}

/// A row of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    group_idx: usize,
    row_idx: usize,
}

impl Components {
    /// Lists the frames of a split by the keys of its `lidar` tables. A segment whose table cannot be read keeps one frame, which
    /// fails when it is asked for.
    ///
    /// # Errors
    /// A component that is missing, by name; a split without segments or with one that occurs twice.
    pub fn open(root: &Path) -> Result<Self, DataError> {
        if let Some(missing) = NEEDED.iter().find(|component| !root.join(component).is_dir()) {
            return Err(super::no_source(
                root,
                &format!("component `{missing}` is missing; needed are {} and, for labels, lidar_box", NEEDED.join(", ")),
            ));
        }
        let paths = super::files_in(&root.join("lidar"), "parquet")?;
        if paths.is_empty() {
            return Err(super::no_source(root, "the folder `lidar` has no *.parquet"));
        }
        let segments: Vec<Segment> =
            paths.par_iter().map(|path| Segment::open(path).unwrap_or_else(|error| Segment::broken(path, &error))).collect();
        super::check_drives(segments.iter().map(|segment| (segment.drive.as_str(), segment.file_name.as_path())))?;
        let mut starts = vec![0];
        starts.extend(segments.iter().scan(0, |total, segment| {
            *total += segment.frames.len();
            Some(*total)
        }));
        let labelled = root.join("lidar_box").is_dir();
        Ok(Self { root: root.to_owned(), segments, starts, labelled, tally: Tally::default() })
    }

    /// One frame before its range images become points.
    ///
    /// # Errors
    /// What is wrong with its rows, or which component lacks them.
    pub fn raw_frame(&self, index: usize) -> Result<RawFrame, DataError> {
        let (segment, frame) = self.place(index);
        if let Some(reason) = &segment.broken {
            return Err(Fault { place: "table".to_owned(), reason: reason.clone() }.of(&self.path("lidar", segment), "parquet"));
        }
        let timestamp_micros = frame.timestamp_micros;
        let calibrations = self.table("lidar_calibration", segment)?;
        let lidar = self.table("lidar", segment)?;
        let (lasers, labels) = rayon::join(
            || {
                let images = |&(laser, row): &(Laser, Row)| {
                    self.laser_images(segment, timestamp_micros, laser, row, &lidar, &calibrations)
                };
                frame.lidar_rows.par_iter().map(images).collect::<Result<Vec<_>, DataError>>()
            },
            || self.labels(segment, timestamp_micros),
        );
        let world_from_vehicle = self.pose(segment, timestamp_micros)?;
        Ok(RawFrame { timestamp_micros, world_from_vehicle, lasers: lasers?, labels: labels? })
    }

    /// What all loads so far left out.
    pub fn left_out(&self) -> LeftOut {
        self.tally.total()
    }

    fn place(&self, index: usize) -> (&Segment, &Frame) {
        let segment_idx = self.starts.partition_point(|&start| start <= index) - 1;
        let segment = &self.segments[segment_idx];
        (segment, &segment.frames[index - self.starts[segment_idx]])
    }

    fn path(&self, component: &str, segment: &Segment) -> PathBuf {
        self.root.join(component).join(&segment.file_name)
    }

    fn table(&self, component: &str, segment: &Segment) -> Result<Table, DataError> {
        Table::open(&self.path(component, segment))
    }

    fn laser_images(
        &self,
        segment: &Segment,
        timestamp_micros: i64,
        laser: Laser,
        row: Row,
        lidar: &Table,
        calibrations: &Table,
    ) -> Result<LaserImages, DataError> {
        let image = |return_idx: usize| {
            let column = format!("[LiDARComponent].range_image_return{}", return_idx + 1);
            range_image(lidar, row, &column, RANGE_CHANNELS)
        };
        let poses = match laser {
            Laser::Top => {
                let table = self.table("lidar_pose", segment)?;
                let keys = Keys::read(&table)?;
                let row = keys.rows_of(timestamp_micros).find(|&(_, of)| of == Some(laser)).map(|(row, _)| row);
                let row = row.ok_or_else(|| missing(&table, timestamp_micros, "has no row for laser TOP"))?;
                range_image(&table, row, "[LiDARPoseComponent].range_image_return1", POSE_CHANNELS)?
            }
            _ => None,
        };
        Ok(LaserImages { laser, calibration: calibration(calibrations, laser)?, returns: [image(0)?, image(1)?], poses })
    }

    fn pose(&self, segment: &Segment, timestamp_micros: i64) -> Result<nalgebra::Matrix4<f64>, DataError> {
        let table = self.table("vehicle_pose", segment)?;
        let poses = vehicle_poses(&table)?;
        let found = poses.into_iter().find(|(stamp, _)| *stamp == timestamp_micros);
        let (_, values) = found.ok_or_else(|| missing(&table, timestamp_micros, "has no row"))?;
        transform(&values).map_err(|reason| missing(&table, timestamp_micros, &format!("world_from_vehicle: {reason}")))
    }

    fn labels(&self, segment: &Segment, timestamp_micros: i64) -> Result<Option<Vec<RawLabel>>, DataError> {
        if !self.labelled {
            return Ok(None);
        }
        let table = self.table("lidar_box", segment)?;
        let n_rows: usize = (0..table.n_groups()).map(|group_idx| table.n_rows(group_idx)).sum();
        if n_rows == 0 {
            return Ok(None);
        }
        let mut labels = Vec::new();
        for group_idx in 0..table.n_groups() {
            let stamps = table.integers(group_idx, TIMESTAMP)?;
            let rows: Vec<usize> = (0..stamps.len()).filter(|&row_idx| stamps[row_idx] == Some(timestamp_micros)).collect();
            if !rows.is_empty() {
                labels.extend(labels_of_group(&table, group_idx, &rows)?);
            }
        }
        Ok(Some(labels))
    }
}

impl Source for Components {
    fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    fn id(&self, index: usize) -> SampleId {
        let segment_idx = self.starts.partition_point(|&start| start <= index) - 1;
        SampleId { drive: self.segments[segment_idx].drive.clone(), frame: (index - self.starts[segment_idx]) as u64 }
    }

    fn load(&self, _epoch: u64, index: usize) -> Result<Sample, DataError> {
        let (segment, frame) = self.place(index);
        let raw = self.raw_frame(index)?;
        let (sample, left_out) = (raw.check_scanned())
            .and_then(|()| raw.into_sample(self.id(index)))
            .map_err(|fault| fault.of(&self.path("lidar", segment), &format!("frame {}", frame.timestamp_micros)))?;
        self.tally.add(&sample.id, left_out);
        Ok(sample)
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut parts = Vec::new();
        for segment in &self.segments {
            parts.push(segment.file_name.as_os_str().as_encoded_bytes().to_vec());
            for component in NEEDED.iter().chain(&["lidar_box"]) {
                // Footers hold the sizes of all pages and, as a rule, least and greatest values: what the tables themselves cost
                // to read would be hours for the whole data set.
                parts.push(table::footer(&self.path(component, segment)));
            }
            parts.extend(segment.frames.iter().map(|frame| frame.timestamp_micros.to_le_bytes().to_vec()));
        }
        Fingerprint { source: self.root.display().to_string(), sha256: sha256_of(&parts) }
    }

    fn findings(&self) -> Vec<Finding> {
        let of_segment = |segment: &Segment| {
            let example = segment.broken.clone()?;
            Some(Finding { drive: segment.drive.clone(), kind: "segment that cannot be read", count: 1, example })
        };
        self.segments.iter().filter_map(of_segment).collect()
    }
}

impl Segment {
    fn open(path: &Path) -> Result<Self, DataError> {
        let table = Table::open(path)?;
        let keys = Keys::read(&table)?;
        let mut drive: Option<&str> = None;
        for (row, name) in keys.segments.iter().enumerate() {
            if drive.get_or_insert(name) != name {
                let reason = format!("rows of `{}` and of `{name}`, expected one segment", drive.unwrap_or_default());
                return Err(Fault { place: format!("row {row}"), reason }.of(path, "parquet"));
            }
        }
        let mut frames: BTreeMap<i64, Vec<(Laser, Row)>> = BTreeMap::new();
        for (&(row, stamp), &laser) in keys.rows.iter().zip(&keys.lasers) {
            let place = || format!("row group {}, row {}", row.group_idx, row.row_idx);
            let fault = |reason| Fault { place: place(), reason }.of(path, "parquet");
            let laser = laser.ok_or_else(|| fault(format!("{LASER} is null or unknown, expected 1 to {}", Laser::ALL.len())))?;
            let rows = frames.entry(stamp).or_default();
            if rows.iter().any(|(other, _)| *other == laser) {
                return Err(fault(format!("laser {} occurs twice at {stamp}", laser.name())));
            }
            rows.push((laser, row));
        }
        let drive = drive.map(str::to_owned).unwrap_or_else(|| super::stem(path));
        let frames = frames.into_iter().map(|(timestamp_micros, mut lidar_rows)| {
            lidar_rows.sort_by_key(|(laser, _)| *laser);
            Frame { timestamp_micros, lidar_rows }
        });
        Ok(Self { drive, file_name: path.file_name().unwrap_or_default().into(), frames: frames.collect(), broken: None })
    }

    fn broken(path: &Path, error: &DataError) -> Self {
        let file_name = path.file_name().unwrap_or_default().into();
        Self { drive: super::stem(path), file_name, frames: vec![Frame::default()], broken: Some(error.to_string()) }
    }
}

/// The key columns of a lidar table, row by row over all row groups.
struct Keys {
    segments: Vec<String>,
    rows: Vec<(Row, i64)>,
    /// `None` where the code is null or no laser.
    lasers: Vec<Option<Laser>>,
}

impl Keys {
    fn read(table: &Table) -> Result<Self, DataError> {
        let mut keys = Self { segments: Vec::new(), rows: Vec::new(), lasers: Vec::new() };
        for group_idx in 0..table.n_groups() {
            keys.segments.extend(table.strings(group_idx, SEGMENT)?.into_iter().map(Option::unwrap_or_default));
            keys.lasers.extend(table.integers(group_idx, LASER)?.into_iter().map(|code| Laser::from_code(code?).ok()));
            for (row_idx, stamp) in table.integers(group_idx, TIMESTAMP)?.into_iter().enumerate() {
                let row = Row { group_idx, row_idx };
                let fault =
                    || Fault { place: format!("row group {group_idx}, row {row_idx}"), reason: format!("{TIMESTAMP} is null") };
                keys.rows.push((row, stamp.ok_or_else(|| fault().of(table.path(), "parquet"))?));
            }
        }
        Ok(keys)
    }

    fn rows_of(&self, timestamp_micros: i64) -> impl Iterator<Item = (Row, Option<Laser>)> {
        let of_frame =
            move |((row, stamp), laser): (&(Row, i64), &Option<Laser>)| (*stamp == timestamp_micros).then_some((*row, *laser));
        self.rows.iter().zip(&self.lasers).filter_map(of_frame)
    }
}

/// Stamp and 4 x 4 row-major pose of every row of a `vehicle_pose` table.
fn vehicle_poses(table: &Table) -> Result<Vec<(i64, Vec<f64>)>, DataError> {
    let mut poses = Vec::new();
    for group_idx in 0..table.n_groups() {
        let stamps = table.integers(group_idx, TIMESTAMP)?;
        let transforms = table.number_lists(group_idx, "[VehiclePoseComponent].world_from_vehicle.transform")?;
        poses.extend(stamps.into_iter().zip(transforms).filter_map(|(stamp, values)| Some((stamp?, values?))));
    }
    Ok(poses)
}

/// Stamps and poses (4 x 4, row-major) of one `vehicle_pose` file, in its order.
///
/// # Errors
/// A file that cannot be read or is no such table.
pub fn read_vehicle_poses(path: &Path) -> Result<Vec<(i64, Vec<f64>)>, DataError> {
    vehicle_poses(&Table::open(path)?)
}

fn calibration(table: &Table, laser: Laser) -> Result<Calibration, DataError> {
    let fault = |reason| Fault { place: format!("laser {}", laser.name()), reason }.of(table.path(), "parquet");
    for group_idx in 0..table.n_groups() {
        let codes = table.integers(group_idx, LASER)?;
        let Some(row_idx) = codes.iter().position(|&code| code.is_some_and(|code| Laser::from_code(code) == Ok(laser))) else {
            continue;
        };
        let column = |name: &str| format!("[LiDARCalibrationComponent].{name}");
        let extrinsic = table.number_lists(group_idx, &column("extrinsic.transform"))?.swap_remove(row_idx);
        let listed = table.number_lists(group_idx, &column("beam_inclination.values"))?.swap_remove(row_idx);
        let [min, max] = ["beam_inclination.min", "beam_inclination.max"].map(|name| table.numbers(group_idx, &column(name)));
        let vehicle_from_laser = transform(&extrinsic.unwrap_or_default()).map_err(fault)?;
        let inclinations = Inclinations::new(listed.unwrap_or_default(), min?[row_idx], max?[row_idx]).map_err(fault)?;
        return Ok(Calibration { vehicle_from_laser, inclinations });
    }
    Err(fault("has no calibration".to_owned()))
}

/// Reads values and shape of an image; `None` where the row has none.
fn range_image(table: &Table, row: Row, column: &str, channels: usize) -> Result<Option<RangeImage>, DataError> {
    let Row { group_idx, row_idx } = row;
    let mut shapes = table.integer_lists(group_idx, &format!("{column}.shape"))?;
    let levels_before = shapes[..row_idx].iter().fold(0_usize, |sum, shape| sum.saturating_add(n_levels(shape.as_deref())));
    let values = table.list_at(group_idx, &format!("{column}.values"), row_idx, levels_before)?;
    let (Some(values), Some(shape)) = (values, shapes.swap_remove(row_idx)) else { return Ok(None) };
    RangeImage::new(values, &shape, channels).map(Some).map_err(|reason| {
        Fault { place: format!("{column}, row group {group_idx}, row {row_idx}"), reason }.of(table.path(), "parquet")
    })
}

/// Values of a list of that shape as parquet counts them: one for a list that is not there.
fn n_levels(shape: Option<&[i32]>) -> usize {
    let sizes = shape.unwrap_or_default().iter().map(|&size| usize::try_from(size).unwrap_or(0));
    sizes.fold(usize::from(shape.is_some()), usize::saturating_mul).max(1)
}

fn labels_of_group(table: &Table, group_idx: usize, rows: &[usize]) -> Result<Vec<RawLabel>, DataError> {
    let column = |name: &str| format!("[LiDARBoxComponent].{name}");
    let numbers = |name: &str| table.numbers(group_idx, &column(name));
    let integers = |name: &str| table.integers(group_idx, &column(name));
    let ids = table.strings(group_idx, "key.laser_object_id")?;
    let fields = ["box.center.x", "box.center.y", "box.center.z", "box.size.x", "box.size.y", "box.size.z", "box.heading"];
    let fields: Vec<_> = fields.iter().map(|name| numbers(name)).collect::<Result<_, _>>()?;
    let [speed_x, speed_y, speed_z] = [numbers("speed.x")?, numbers("speed.y")?, numbers("speed.z")?];
    let [types, n_points, difficulties] =
        [integers("type")?, integers("num_lidar_points_in_box")?, integers("difficulty_level.detection")?];
    let label = |&row_idx: &usize| {
        let null =
            || Fault { place: format!("row group {group_idx}, row {row_idx}"), reason: "a field of the box is null".to_owned() };
        let mut row = [0.0; 7];
        for (value, field) in row.iter_mut().zip(&fields) {
            *value = field[row_idx].ok_or_else(|| null().of(table.path(), "parquet"))?;
        }
        let speed = |x: f64, y: f64| [x, y, speed_z[row_idx].unwrap_or(0.0)];
        Ok(RawLabel {
            class_code: types[row_idx].unwrap_or(0),
            id: ids[row_idx].clone().unwrap_or_default(),
            row,
            speed_mps: speed_x[row_idx].zip(speed_y[row_idx]).map(|(x, y)| speed(x, y)),
            n_points: n_points[row_idx],
            difficulty: difficulties[row_idx].unwrap_or(0),
        })
    };
    rows.iter().map(label).collect()
}

fn missing(table: &Table, timestamp_micros: i64, reason: &str) -> DataError {
    Fault { place: format!("frame {timestamp_micros}"), reason: reason.to_owned() }.of(table.path(), "parquet")
}
