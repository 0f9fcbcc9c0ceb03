//! From range images to points in the vehicle frame, in double precision.
//!
//! # Source
//! `range_image_utils.py` and `transform_utils.py` of waymo-open-dataset, which do the same in single precision: their points are up
//! to 9 mm off where the pose is 50 km from the origin.

use std::f64::consts::PI;

use nalgebra::{Matrix3, Matrix4, Rotation3, Vector3};

use super::range_image::RangeImage;

/// Where a laser sits and how its beams point.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Pose of the laser in the vehicle.
    pub vehicle_from_laser: Matrix4<f64>,
    /// Of its rows.
    pub inclinations: Inclinations,
}

/// Vertical angles of the rows of a range image, radians.
#[derive(Debug, Clone, PartialEq)]
pub enum Inclinations {
    /// One by one, ascending: the last belongs to row 0.
    Listed(Vec<f64>),
    /// Equally spaced.
    Uniform {
        /// Lower edge of the last row.
        min: f64,
        /// Upper edge of row 0.
        max: f64,
    },
}

impl Inclinations {
    /// As the calibration messages hold them: listed for some lasers, else two limits.
    ///
    /// # Errors
    /// When neither is there, or a number is not finite.
    pub(super) fn new(listed: Vec<f64>, min: Option<f64>, max: Option<f64>) -> Result<Self, String> {
        let inclinations = match (listed.is_empty(), min, max) {
            (false, _, _) => Self::Listed(listed),
            (true, Some(min), Some(max)) => Self::Uniform { min, max },
            (true, ..) => return Err(format!("no beam inclinations, minimum {min:?}, maximum {max:?}")),
        };
        let is_finite = match &inclinations {
            Self::Listed(angles) => angles.iter().all(|angle| angle.is_finite()),
            Self::Uniform { min, max } => min.is_finite() && max.is_finite(),
        };
        if is_finite { Ok(inclinations) } else { Err(format!("beam inclinations are {inclinations:?}, expected finite ones")) }
    }

    /// One angle for each of `height` rows, highest first.
    fn of_rows(&self, height: usize) -> Result<Vec<f64>, String> {
        match self {
            Self::Listed(angles) if angles.len() != height => {
                Err(format!("{height} rows, its calibration lists {} beam inclinations", angles.len()))
            }
            Self::Listed(angles) => Ok(angles.iter().rev().copied().collect()),
            Self::Uniform { min, max } => {
                let step = (max - min) / height as f64;
                Ok((0..height).rev().map(|row_idx| min + (row_idx as f64 + 0.5) * step).collect())
            }
        }
    }
}

/// One return of one pixel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelPoint {
    /// Row of the range image.
    pub row_idx: usize,
    /// Column of the range image.
    pub column_idx: usize,
    /// Metres, vehicle frame of the frame's pose.
    pub xyz: [f64; 3],
    /// As the sensor gives it, unbounded.
    pub intensity: f32,
    /// As the sensor gives it.
    pub elongation: f32,
    /// Whether it lies where nobody labelled.
    pub in_no_label_zone: bool,
}

/// Takes points at the moment of their shot into the frame's own vehicle frame, where the laser has a pose for every pixel.
#[derive(Debug, Clone, Copy)]
pub struct MotionCompensation<'a> {
    /// `[H, W, 6]`, world from vehicle at the shot.
    pub poses: &'a RangeImage,
    /// Pose of the frame.
    pub world_from_vehicle: &'a Matrix4<f64>,
}

/// The points of a range image, row by row: every pixel whose range is above zero.
///
/// # Errors
/// When image, calibration and poses do not fit one another, both sides in words.
pub fn points(
    image: &RangeImage,
    calibration: &Calibration,
    compensation: Option<MotionCompensation>,
) -> Result<Vec<PixelPoint>, String> {
    let (rotation, translation) = split(&calibration.vehicle_from_laser);
    let inclinations = calibration.inclinations.of_rows(image.height)?;
    let yaw = rotation[(1, 0)].atan2(rotation[(0, 0)]);
    let width = image.width as f64;
    let azimuths: Vec<(f64, f64)> = (0..image.width)
        .map(|column_idx| ((2.0 * (width - column_idx as f64 - 0.5) / width - 1.0) * PI - yaw).sin_cos())
        .collect();
    let compensate = compensation.map(|compensation| compensation.prepare(image)).transpose()?;

    let mut found = Vec::new();
    for (row_idx, inclination) in inclinations.into_iter().enumerate() {
        let (sin_inclination, cos_inclination) = inclination.sin_cos();
        for (column_idx, (pixel, (sin_azimuth, cos_azimuth))) in image.pixels(row_idx).zip(&azimuths).enumerate() {
            let range = f64::from(pixel[0]);
            // A range that is no number comes out as a point that is none, to be counted with the others.
            if range > 0.0 || range.is_nan() {
                let beam = Vector3::new(cos_azimuth * cos_inclination, sin_azimuth * cos_inclination, sin_inclination);
                let at_shot = rotation * (range * beam) + translation;
                let point = compensate.as_ref().map_or(at_shot, |compensate| compensate.apply(row_idx, column_idx, &at_shot));
                found.push(PixelPoint {
                    row_idx,
                    column_idx,
                    xyz: point.into(),
                    intensity: pixel[1],
                    elongation: pixel[2],
                    in_no_label_zone: pixel[3] > 0.0,
                });
            }
        }
    }
    Ok(found)
}

impl<'a> MotionCompensation<'a> {
    fn prepare(self, image: &RangeImage) -> Result<Prepared<'a>, String> {
        let Self { poses, world_from_vehicle } = self;
        if (poses.height, poses.width) != (image.height, image.width) {
            return Err(format!(
                "{} x {} pixels, the pose image has {} x {}",
                image.height, image.width, poses.height, poses.width
            ));
        }
        let (rotation, origin) = split(world_from_vehicle);
        let vehicle_from_world = rotation.try_inverse().ok_or("the pose of the frame cannot be inverted")?;
        Ok(Prepared { poses, vehicle_from_world, origin })
    }
}

struct Prepared<'a> {
    poses: &'a RangeImage,
    vehicle_from_world: Matrix3<f64>,
    origin: Vector3<f64>,
}

impl Prepared<'_> {
    fn apply(&self, row_idx: usize, column_idx: usize, at_shot: &Vector3<f64>) -> Vector3<f64> {
        let start = (row_idx * self.poses.width + column_idx) * self.poses.channels;
        let [roll, pitch, yaw, x, y, z] = std::array::from_fn(|idx| f64::from(self.poses.values[start + idx]));
        // Subtracting the origin first keeps the digits that poses of tens of kilometres would cost.
        let moved = Rotation3::from_euler_angles(roll, pitch, yaw) * at_shot + (Vector3::new(x, y, z) - self.origin);
        self.vehicle_from_world * moved
    }
}

fn split(transform: &Matrix4<f64>) -> (Matrix3<f64>, Vector3<f64>) {
    (transform.fixed_view::<3, 3>(0, 0).into_owned(), transform.fixed_view::<3, 1>(0, 3).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::range_image::{POSE_CHANNELS, RANGE_CHANNELS};
    use super::*;

    fn image(height: usize, width: usize, ranges: &[f32]) -> RangeImage {
        let values = ranges.iter().flat_map(|&range| [range, 0.5, 0.25, -1.0]).collect();
        RangeImage::new(values, &[height as i32, width as i32, RANGE_CHANNELS as i32], RANGE_CHANNELS).unwrap()
    }

    fn level(height: usize) -> Calibration {
        Calibration { vehicle_from_laser: Matrix4::identity(), inclinations: Inclinations::Listed(vec![0.0; height]) }
    }

    #[test]
    fn columns_run_clockwise_from_behind_and_rows_from_above() {
        // Four columns centred at 135, 45, -45 and -135 degrees; range 0 and -1 are no returns.
        let found = points(&image(1, 4, &[2.0, 2.0, 0.0, -1.0]), &level(1), None).unwrap();
        let s = 2.0_f64.sqrt();
        assert_eq!(found.len(), 2);
        for (point, expected) in found.iter().zip([[-s, s, 0.0], [s, s, 0.0]]) {
            assert!(point.xyz.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{:?}", point.xyz);
        }
        let uniform = Inclinations::Uniform { min: -1.0, max: 1.0 };
        assert_eq!(uniform.of_rows(2).unwrap(), [0.5, -0.5]);
        assert_eq!(Inclinations::Listed(vec![-0.3, 0.1]).of_rows(2).unwrap(), [0.1, -0.3]);
    }

    #[test]
    fn images_that_do_not_fit_say_both_sides() {
        let one = image(1, 4, &[1.0; 4]);
        assert_eq!(points(&one, &level(3), None).unwrap_err(), "1 rows, its calibration lists 3 beam inclinations");
        let poses = RangeImage::new(vec![0.0; 2 * POSE_CHANNELS], &[1, 2, POSE_CHANNELS as i32], POSE_CHANNELS).unwrap();
        let pose = Matrix4::identity();
        let compensation = MotionCompensation { poses: &poses, world_from_vehicle: &pose };
        assert_eq!(points(&one, &level(1), Some(compensation)).unwrap_err(), "1 x 4 pixels, the pose image has 1 x 2");
    }
}
