//! KITTI's object data set into our bags.
//!
//! | KITTI | bag |
//! | --- | --- |
//! | `velodyne/NAME.bin` | `/lidar/points`: x, y, z, intensity (its reflectance, 0 to 1), all points |
//! | `label_2/NAME.txt` | `/ground_truth/objects`, classes under KITTI's names |
//! | box: bottom centre in the rectified camera, h w l, rotation_y | middle of the box in the LiDAR's frame, l w h, yaw about its z |
//! | `DontCare` | left out and counted: an area of the image, no box |
//! | occluded 2 or 3, or truncated above 0.3 | difficulty 2; others have none, the number of points decides |
//! | NAME as a number | stamp: 1 000 000 000 s and as many more; KITTI's frames have none |
//!
//! Labels cover the left colour camera's view only. [`KittiOptions::view_px`] cuts the clouds to it, without which unlabelled objects
//! beside and behind would be taught as background.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nalgebra::{Matrix3x4, Matrix4, Point3, Vector3};

use super::labels::check_box;
use super::recorder::{Converted, Recorder, cloud_message, points_inside, read_rows};
use super::{DataError, Label};
use crate::geometry::{Box3d, wrap_angle};
use crate::msgs::std_msgs::Header;
use crate::time::Stamp;

/// Frame of the clouds.
pub const FRAME: &str = "velo_link";
const FIRST_STAMP_S: i64 = 1_000_000_000;
const MAX_TRUNCATED: f64 = 0.3;
const MIN_HARD_OCCLUSION: i32 = 2;

/// What is converted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KittiOptions {
    /// Only these frames, as in `ImageSets/train.txt`; empty: all.
    pub names: Vec<String>,
    /// Width and height of the images: keep only the points that they show.
    pub view_px: Option<[f64; 2]>,
}

/// The files of one frame.
#[derive(Debug, Clone, PartialEq)]
struct Frame {
    name: String,
    points: PathBuf,
    labels: PathBuf,
    calib: PathBuf,
}

/// Writes `folder` (that of `velodyne`, `label_2` and `calib`, or one above its `training`; or a flat one with `NAME.bin`,
/// `NAME_label.txt`, `NAME_calib.txt`) as a new bag. A frame that cannot be read is told in the result and left out; one without
/// a label file is written without labels. `progress` is told the frames done and all.
///
/// # Errors
/// When there are no frames, or the bag cannot be written.
pub fn convert(
    folder: &Path,
    out: &Path,
    options: &KittiOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Converted, DataError> {
    let frames = frames_in(folder, &options.names)?;
    let mut recorder = Recorder::create(out)?;
    let mut converted = Converted::default();
    for (idx, frame) in frames.iter().enumerate() {
        match read_frame(frame, options, &mut converted.n_not_labels) {
            Ok((rows, labels)) => {
                let number = frame.name.parse().unwrap_or(idx as i64);
                let stamp = Stamp { nanos: (FIRST_STAMP_S + number) * 1_000_000_000 };
                recorder.frame(&cloud_message(Header::new(stamp, FRAME), &rows), labels.as_deref())?;
                converted.add(&rows, labels.as_deref().unwrap_or_default());
            }
            Err(fault) => converted.faults.push(format!("frame {}: {fault}", frame.name)),
        }
        progress(idx + 1, frames.len());
    }
    recorder.finish()?;
    Ok(converted)
}

fn frames_in(folder: &Path, names: &[String]) -> Result<Vec<Frame>, DataError> {
    let no_source = |reason: String| Err(DataError::Source { source_name: folder.display().to_string(), reason });
    let root = [folder.to_owned(), folder.join("training"), folder.join("testing")]
        .into_iter()
        .find(|root| root.join("velodyne").is_dir());
    let points_folder = root.as_ref().map_or(folder.to_owned(), |root| root.join("velodyne"));
    let mut frames = Vec::new();
    let io_error = |source| DataError::Io { path: points_folder.display().to_string(), source };
    for entry in std::fs::read_dir(&points_folder).map_err(io_error)? {
        let points = entry.map_err(io_error)?.path();
        let Some(name) = points.file_name().and_then(|name| name.to_str()?.strip_suffix(".bin")).map(str::to_owned) else {
            continue;
        };
        let (labels, calib) = match &root {
            Some(root) => (root.join(format!("label_2/{name}.txt")), root.join(format!("calib/{name}.txt"))),
            None => (folder.join(format!("{name}_label.txt")), folder.join(format!("{name}_calib.txt"))),
        };
        frames.push(Frame { name, points, labels, calib });
    }
    frames.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(missing) = names.iter().find(|name| !frames.iter().any(|frame| frame.name == **name)) {
        return no_source(format!("there is no frame {missing}, only {} others", frames.len()));
    }
    frames.retain(|frame| names.is_empty() || names.contains(&frame.name));
    if frames.is_empty() {
        return no_source("no NAME.bin, neither in velodyne/ nor in the folder itself".to_owned());
    }
    Ok(frames)
}

type Points = Vec<[f32; 4]>;

fn read_frame(
    frame: &Frame,
    options: &KittiOptions,
    n_not_labels: &mut BTreeMap<String, usize>,
) -> Result<(Points, Option<Vec<Label>>), DataError> {
    let mut rows = read_rows::<4>(&frame.points)?;
    let has_labels = frame.labels.is_file();
    if !has_labels && options.view_px.is_none() {
        return Ok((rows, None));
    }
    let calib = Calib::parse(&frame.calib, &read_text(&frame.calib)?)?;
    if let Some(view_px) = options.view_px {
        rows.retain(|row| calib.shows(row, view_px));
    }
    if !has_labels {
        return Ok((rows, None));
    }
    let (mut labels, mut others) = (Vec::new(), Vec::new());
    for (idx, line) in read_text(&frame.labels)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fault =
            |reason| DataError::Format { path: frame.labels.display().to_string(), place: format!("line {}", idx + 1), reason };
        let object = Object::parse(line).map_err(fault)?;
        if object.class == "DontCare" {
            others.push(object.class);
            continue;
        }
        let box3d = calib.to_lidar(&object);
        check_box(&box3d).map_err(fault)?;
        let is_hard = object.occluded >= MIN_HARD_OCCLUSION || object.truncated > MAX_TRUNCATED;
        labels.push(Label {
            box3d,
            class: object.class,
            track_id: None,
            n_points: Some(points_inside(&box3d, rows.iter().map(<[f32; 4]>::as_slice))),
            difficulty: is_hard.then_some(2),
            velocity_mps: None,
        });
    }
    for class in others {
        *n_not_labels.entry(class).or_default() += 1;
    }
    Ok((rows, Some(labels)))
}

fn read_text(path: &Path) -> Result<String, DataError> {
    std::fs::read_to_string(path).map_err(|source| DataError::Io { path: path.display().to_string(), source })
}

/// A line of a label file.
struct Object {
    class: String,
    truncated: f64,
    occluded: i32,
    /// Height, width, length.
    size: [f64; 3],
    /// Bottom centre in the rectified camera.
    foot: [f64; 3],
    rotation_y: f64,
}

impl Object {
    fn parse(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !(15..=16).contains(&words.len()) {
            return Err(format!("{} columns, expected 15, or 16 with a score", words.len()));
        }
        let number = |column: usize| -> Result<f64, String> {
            words[column].parse().map_err(|_| format!("column {}: `{}`, expected a number", column + 1, words[column]))
        };
        Ok(Self {
            class: words[0].to_owned(),
            truncated: number(1)?,
            occluded: number(2)? as i32,
            size: [number(8)?, number(9)?, number(10)?],
            foot: [number(11)?, number(12)?, number(13)?],
            rotation_y: number(14)?,
        })
    }
}

/// How LiDAR, rectified camera and image hang together.
struct Calib {
    rect_from_lidar: Matrix4<f64>,
    lidar_from_rect: Matrix4<f64>,
    image_from_rect: Matrix3x4<f64>,
}

impl Calib {
    fn parse(path: &Path, text: &str) -> Result<Self, DataError> {
        let fault =
            |place: &str, reason: String| DataError::Format { path: path.display().to_string(), place: place.to_owned(), reason };
        let values = |key: &str, count: usize| -> Result<Vec<f64>, DataError> {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            let line = line.ok_or_else(|| fault(key, "is missing".to_owned()))?;
            let numbers: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            if numbers.len() != count || !numbers.iter().all(|number| number.is_finite()) {
                return Err(fault(key, format!("`{}`, expected {count} numbers", line.trim())));
            }
            Ok(numbers)
        };
        let mut rect_from_camera = Matrix4::identity();
        rect_from_camera.fixed_view_mut::<3, 3>(0, 0).copy_from(&nalgebra::Matrix3::from_row_slice(&values("R0_rect", 9)?));
        let mut camera_from_lidar = Matrix4::identity();
        camera_from_lidar.fixed_view_mut::<3, 4>(0, 0).copy_from(&Matrix3x4::from_row_slice(&values("Tr_velo_to_cam", 12)?));
        let rect_from_lidar = rect_from_camera * camera_from_lidar;
        let lidar_from_rect = rect_from_lidar
            .try_inverse()
            .ok_or_else(|| fault("R0_rect and Tr_velo_to_cam", "together have no inverse".to_owned()))?;
        Ok(Self { rect_from_lidar, lidar_from_rect, image_from_rect: Matrix3x4::from_row_slice(&values("P2", 12)?) })
    }

    fn to_lidar(&self, object: &Object) -> Box3d {
        let ([height, width, length], [x, y, z]) = (object.size, object.foot);
        // The camera's y points down, so the middle is above the foot at a smaller y.
        let center = self.lidar_from_rect.transform_point(&Point3::new(x, y - height / 2.0, z));
        let ahead = Vector3::new(object.rotation_y.cos(), 0.0, -object.rotation_y.sin());
        let ahead = self.lidar_from_rect.transform_vector(&ahead);
        Box3d { center: center.coords.into(), size: [length, width, height], yaw: wrap_angle(ahead.y.atan2(ahead.x)) }
    }

    fn shows(&self, row: &[f32; 4], [width_px, height_px]: [f64; 2]) -> bool {
        let [x, y, z, _] = row.map(f64::from);
        let in_rect = self.rect_from_lidar.transform_point(&Point3::new(x, y, z));
        let pixel = self.image_from_rect * in_rect.to_homogeneous();
        let (column, line) = (pixel.x / pixel.z, pixel.y / pixel.z);
        in_rect.z > 0.0 && (0.0..width_px).contains(&column) && (0.0..height_px).contains(&line)
    }
}
