//! A frame as both formats hold it, and the sample made from it.

use nalgebra::{Isometry3, Matrix4, Rotation3, Translation3, UnitQuaternion, Vector3};
use rayon::prelude::*;

use super::Fault;
use super::geometry::{Calibration, MotionCompensation, PixelPoint, points};
use super::range_image::RangeImage;
use crate::cloud::{Feature, PointCloud};
use crate::data::{Label, Sample, SampleId};
use crate::geometry::Box3d;
use crate::time::Stamp;

/// The columns of every Waymo cloud; intensity and elongation as the sensor gives them.
pub const FEATURES: [Feature; 5] = [Feature::X, Feature::Y, Feature::Z, Feature::Intensity, Feature::Elongation];
/// Frame of clouds and boxes: x forward, y left, z up, z = 0 close to the road.
pub const VEHICLE_FRAME: &str = "base_link";
/// How far the rotation of a pose may be from a rotation; single-precision files are about 1e-7 off.
const MAX_SKEW: f64 = 1e-3;

/// One of the five sensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Laser {
    /// On the roof, long range, the only one with a pose per pixel.
    Top,
    /// Front bumper.
    Front,
    /// Left front corner.
    SideLeft,
    /// Right front corner.
    SideRight,
    /// Rear bumper.
    Rear,
}

impl Laser {
    /// In the order of their points in a cloud.
    pub const ALL: [Self; 5] = [Self::Top, Self::Front, Self::SideLeft, Self::SideRight, Self::Rear];

    /// As Waymo writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Top => "TOP",
            Self::Front => "FRONT",
            Self::SideLeft => "SIDE_LEFT",
            Self::SideRight => "SIDE_RIGHT",
            Self::Rear => "REAR",
        }
    }

    pub(super) fn from_code(code: i64) -> Result<Self, String> {
        let idx = usize::try_from(code).ok().and_then(|code| code.checked_sub(1));
        idx.and_then(|idx| Self::ALL.get(idx).copied())
            .ok_or_else(|| format!("laser is {code}, expected 1 to {}", Self::ALL.len()))
    }
}

/// What one laser gave in one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct LaserImages {
    /// Which one.
    pub laser: Laser,
    /// Of this laser.
    pub calibration: Calibration,
    /// First and second return, `[H, W, 4]`.
    pub returns: [Option<RangeImage>; 2],
    /// World from vehicle at each shot, `[H, W, 6]`; serves both returns.
    pub poses: Option<RangeImage>,
}

/// An object as Waymo labels it.
#[derive(Debug, Clone, PartialEq)]
pub struct RawLabel {
    /// Number in Waymo's enumeration.
    pub class_code: i64,
    /// Track, unique in the segment.
    pub id: String,
    /// x, y, z, length, width, height, heading in the vehicle frame.
    pub row: [f64; 7],
    /// In the world frame.
    pub speed_mps: Option<[f64; 3]>,
    /// Inside the box, all lasers.
    pub n_points: Option<i64>,
    /// 0 where nobody said.
    pub difficulty: i64,
}

/// One frame, unpacked but not yet turned into points.
#[derive(Debug, Clone, PartialEq)]
pub struct RawFrame {
    /// Start of the scan, microseconds since 1970.
    pub timestamp_micros: i64,
    /// Pose of the vehicle frame in which points and labels are given.
    pub world_from_vehicle: Matrix4<f64>,
    /// The lasers that gave something, in the order of [`Laser::ALL`].
    pub lasers: Vec<LaserImages>,
    /// `None` where the segment is not labelled.
    pub labels: Option<Vec<RawLabel>>,
}

/// What was left out of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeftOut {
    /// Labels of type UNKNOWN.
    pub n_unknown_labels: u64,
    /// Returns with a value that is infinite or no number.
    pub n_non_finite_points: u64,
}

impl LaserImages {
    /// The points of one return; none where the laser has no such return.
    ///
    /// # Errors
    /// When image, calibration and poses do not fit one another, or the top laser has no poses.
    pub fn points(&self, return_idx: usize, world_from_vehicle: &Matrix4<f64>) -> Result<Vec<PixelPoint>, Fault> {
        let place = || format!("laser {}: return {}", self.laser.name(), return_idx + 1);
        let Some(image) = &self.returns[return_idx] else { return Ok(Vec::new()) };
        let compensation = match (&self.poses, self.laser) {
            (Some(poses), Laser::Top) => Some(MotionCompensation { poses, world_from_vehicle }),
            (None, Laser::Top) => return Err(Fault { place: place(), reason: "there is no pose image".to_owned() }),
            _ => None,
        };
        points(image, &self.calibration, compensation).map_err(|reason| Fault { place: place(), reason })
    }
}

impl RawFrame {
    /// That any laser gave anything.
    ///
    /// # Errors
    /// A frame cut down by some tool: it would pass for a street without a single point.
    pub fn check_scanned(&self) -> Result<(), Fault> {
        if self.lasers.iter().any(|images| images.returns.iter().any(Option::is_some)) {
            return Ok(());
        }
        Err(Fault::field("lasers", "none has a range image; the frame has no points".to_owned()))
    }

    /// Turns range images into one cloud, laser after laser, first return before second, and labels into ours.
    ///
    /// # Errors
    /// Images that do not fit their calibration, a pose that is none, or a label with a number that cannot be: such a frame is
    /// refused as a whole, because training on it without the label would call the object background.
    pub fn into_sample(self, id: SampleId) -> Result<(Sample, LeftOut), Fault> {
        let Self { timestamp_micros, world_from_vehicle, lasers, labels } = self;
        let pose = isometry(&world_from_vehicle).map_err(|reason| Fault { place: "pose".to_owned(), reason })?;
        let images: Vec<_> = lasers.iter().flat_map(|images| [(images, 0), (images, 1)]).collect();
        let scans: Vec<Vec<PixelPoint>> = images
            .into_par_iter()
            .map(|(images, return_idx)| images.points(return_idx, &world_from_vehicle))
            .collect::<Result<_, _>>()?;

        let mut left_out = LeftOut::default();
        let n_points = scans.iter().map(Vec::len).sum();
        let mut in_no_label_zone = Vec::with_capacity(n_points);
        let mut points = Vec::with_capacity(n_points * FEATURES.len());
        for point in scans.iter().flatten() {
            let [x, y, z] = point.xyz.map(|value| value as f32);
            let row = [x, y, z, point.intensity, point.elongation];
            if row.iter().all(|value| value.is_finite()) {
                points.extend(row);
                in_no_label_zone.push(point.in_no_label_zone);
            } else {
                left_out.n_non_finite_points += 1;
            }
        }
        let stamp = Stamp { nanos: timestamp_micros.saturating_mul(1000) };
        let cloud = PointCloud { stamp, frame_id: VEHICLE_FRAME.to_owned(), features: FEATURES.to_vec(), points };
        let labels = labels.map(|labels| convert_labels(&labels, &pose, &mut left_out)).transpose()?;
        Ok((Sample { id, cloud, labels, in_no_label_zone, world_from_cloud: Some(pose) }, left_out))
    }
}

fn convert_labels(labels: &[RawLabel], world_from_vehicle: &Isometry3<f64>, left_out: &mut LeftOut) -> Result<Vec<Label>, Fault> {
    let mut converted = Vec::with_capacity(labels.len());
    for (label_idx, label) in labels.iter().enumerate() {
        let fault = |reason| Fault { place: format!("label {label_idx} (`{}`)", label.id), reason };
        match class_name(label.class_code).map_err(fault)? {
            Some(class) => converted.push(convert_label(label, class, world_from_vehicle).map_err(fault)?),
            None => left_out.n_unknown_labels += 1,
        }
    }
    Ok(converted)
}

fn convert_label(label: &RawLabel, class: &str, world_from_vehicle: &Isometry3<f64>) -> Result<Label, String> {
    let fields = ["center x", "center y", "center z", "length", "width", "height", "heading"];
    for (idx, (field, value)) in fields.iter().zip(label.row).enumerate() {
        let is_size = (3..6).contains(&idx);
        if !value.is_finite() || (is_size && value <= 0.0) {
            return Err(format!("{field} is {value}, expected a finite number{}", if is_size { " above 0" } else { "" }));
        }
    }
    let velocity_mps = match label.speed_mps {
        Some(speed) if speed.iter().any(|value| !value.is_finite()) => {
            return Err(format!("speed is {speed:?}, expected finite numbers"));
        }
        Some(speed) => {
            let along_vehicle = world_from_vehicle.inverse_transform_vector(&Vector3::from(speed));
            Some([along_vehicle.x, along_vehicle.y])
        }
        None => None,
    };
    let n_points =
        label.n_points.map(u32::try_from).transpose().map_err(|_| {
            format!("number of lidar points is {}, expected 0 to {}", label.n_points.unwrap_or_default(), u32::MAX)
        })?;
    let difficulty = match label.difficulty {
        0 => None,
        1 => Some(1),
        2 => Some(2),
        other => return Err(format!("detection difficulty is {other}, expected 0, 1 or 2")),
    };
    Ok(Label {
        box3d: Box3d::from_row(label.row),
        class: class.to_owned(),
        track_id: Some(label.id.clone()),
        n_points,
        difficulty,
        velocity_mps,
    })
}

/// `None` for UNKNOWN.
fn class_name(code: i64) -> Result<Option<&'static str>, String> {
    match code {
        0 => Ok(None),
        1 => Ok(Some("Vehicle")),
        2 => Ok(Some("Pedestrian")),
        3 => Ok(Some("Sign")),
        4 => Ok(Some("Cyclist")),
        other => Err(format!("type is {other}, expected 0 to 4")),
    }
}

/// A 4 x 4 row-major transform.
pub(super) fn transform(values: &[f64]) -> Result<Matrix4<f64>, String> {
    if values.len() != 16 {
        return Err(format!("{} numbers, a transform has 16", values.len()));
    }
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(format!("a number is {value}, expected finite ones")),
        None => Ok(Matrix4::from_row_slice(values)),
    }
}

fn isometry(matrix: &Matrix4<f64>) -> Result<Isometry3<f64>, String> {
    let rotation = matrix.fixed_view::<3, 3>(0, 0).into_owned();
    let skew = (rotation * rotation.transpose() - nalgebra::Matrix3::identity()).abs().max();
    if skew > MAX_SKEW || rotation.determinant() < 0.0 {
        return Err(format!(
            "is no rotation: off by {skew:.3e}, at most {MAX_SKEW:.0e}; determinant {:.3}",
            rotation.determinant()
        ));
    }
    let rotation = UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(rotation));
    Ok(Isometry3::from_parts(Translation3::from(matrix.fixed_view::<3, 1>(0, 3).into_owned()), rotation))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn label() -> RawLabel {
        let row = [1.0, 2.0, 3.0, 4.0, 2.0, 1.5, 0.5];
        RawLabel { class_code: 1, id: "a".to_owned(), row, speed_mps: Some([0.0, 3.0, 0.0]), n_points: Some(7), difficulty: 0 }
    }

    fn frame(labels: Vec<RawLabel>) -> RawFrame {
        let quarter_turn = Matrix4::new(0.0, -1.0, 0.0, 9.0, 1.0, 0.0, 0.0, 8.0, 0.0, 0.0, 1.0, 7.0, 0.0, 0.0, 0.0, 1.0);
        RawFrame { timestamp_micros: 5, world_from_vehicle: quarter_turn, lasers: Vec::new(), labels: Some(labels) }
    }

    fn id() -> SampleId {
        SampleId { drive: "d".to_owned(), frame: 0 }
    }

    #[test]
    fn speeds_turn_into_the_vehicle_frame_and_unknown_objects_are_counted() {
        let unknown = RawLabel { class_code: 0, row: [f64::NAN; 7], ..label() };
        let (sample, left_out) = frame(vec![unknown, label()]).into_sample(id()).unwrap();
        assert_eq!(left_out, LeftOut { n_unknown_labels: 1, n_non_finite_points: 0 });
        let labels = sample.labels.unwrap();
        let [vx, vy] = labels[0].velocity_mps.unwrap();
        assert!((vx - 3.0).abs() < 1e-12 && vy.abs() < 1e-12, "{vx} {vy}");
        assert_eq!((labels.len(), labels[0].class.as_str(), labels[0].n_points), (1, "Vehicle", Some(7)));
        assert_eq!(sample.cloud.stamp.nanos, 5_000);
    }

    #[test]
    fn labels_that_cannot_be_refuse_the_frame_by_field() {
        let with_row = |idx: usize, value: f64| {
            let mut row = label().row;
            row[idx] = value;
            RawLabel { row, ..label() }
        };
        let cases = [
            (with_row(0, f64::NAN), "center x is NaN"),
            (with_row(3, 0.0), "length is 0, expected a finite number above 0"),
            (with_row(5, -1.0), "height is -1"),
            (with_row(6, f64::INFINITY), "heading is inf"),
            (RawLabel { class_code: 9, ..label() }, "type is 9, expected 0 to 4"),
            (RawLabel { difficulty: 3, ..label() }, "detection difficulty is 3"),
            (RawLabel { n_points: Some(-1), ..label() }, "number of lidar points is -1"),
            (RawLabel { speed_mps: Some([f64::NAN, 0.0, 0.0]), ..label() }, "speed is [NaN"),
        ];
        for (bad, expected) in cases {
            let fault = frame(vec![label(), bad]).into_sample(id()).unwrap_err();
            assert_eq!(fault.place, "label 1 (`a`)");
            assert!(fault.reason.contains(expected), "{}", fault.reason);
        }
    }

    #[test]
    fn poses_that_are_no_rotation_are_refused() {
        let mut skewed = frame(Vec::new());
        skewed.world_from_vehicle[(0, 0)] = 0.5;
        let fault = skewed.into_sample(id()).unwrap_err();
        assert!(fault.place == "pose" && fault.reason.contains("is no rotation"), "{fault:?}");
        assert_eq!(transform(&[0.0; 15]).unwrap_err(), "15 numbers, a transform has 16");
        assert!(transform(&[f64::NAN; 16]).unwrap_err().contains("NaN"));
    }
}
