//! The lasers: which way they look, how far, how often, how noisy.

use std::f64::consts::{PI, TAU};

/// One spinning or scanning laser, bolted to the vehicle upright.
///
/// # Units and frame
/// Metres and radians; `mount_m` and `mount_yaw_rad` place it in the vehicle frame (x forward, y left, z up, z = 0 on the road).
#[derive(Debug, Clone, PartialEq)]
pub struct LaserSpec {
    /// Frame name, `lidar_top` for instance.
    pub name: &'static str,
    /// Elevation of each beam above the horizontal, highest first; the index is the ring number.
    pub elevations_rad: Vec<f64>,
    /// Shots of each beam in one sweep.
    pub n_columns: usize,
    /// Width of the swept sector, centred on the laser's +x; a full turn is 2 pi. Swept clockwise.
    pub span_rad: f64,
    /// Nearer returns are not reported.
    pub min_range_m: f64,
    /// Farther returns are not reported.
    pub max_range_m: f64,
    /// Standard deviation of a measured range.
    pub range_sigma_m: f64,
    /// Where shots without a return come from; see [`Dropout`].
    pub dropout: Dropout,
    /// Position in the vehicle frame.
    pub mount_m: [f64; 3],
    /// Heading in the vehicle frame.
    pub mount_yaw_rad: f64,
}

/// How many shots come back.
///
/// A shot returns with probability `(1 - floor) * s / (s + half_signal)` with the signal
/// `s = reflectivity * cos(incidence) * (50 m / range)^2`: dark, slanted and far surfaces fade first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Share of shots that is lost whatever they hit.
    pub floor: f64,
    /// Signal at which half of the shots return.
    pub half_signal: f64,
}

/// The layouts a drive can be recorded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SensorKind {
    /// 64 beams, 2 to -24.8 degrees in two blocks, 2083 columns, 100 m.
    Spinning64,
    /// 32 beams evenly over 10.7 to -30.7 degrees, 2170 columns, 90 m.
    Spinning32,
    /// 16 beams evenly over 15 to -15 degrees, 1800 columns, 90 m.
    Spinning16,
    /// One long-range laser of 64 beams x 2650 columns on the roof (75 m) and four short-range ones around the body (20 m).
    Waymo5,
}

impl SensorKind {
    /// Every layout.
    pub const ALL: [Self; 4] = [Self::Spinning64, Self::Spinning32, Self::Spinning16, Self::Waymo5];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spinning64 => "spinning64",
            Self::Spinning32 => "spinning32",
            Self::Spinning16 => "spinning16",
            Self::Waymo5 => "waymo5",
        }
    }

    /// The layout of that [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its lasers, in the order in which their points stand in a cloud.
    pub fn lasers(self) -> Vec<LaserSpec> {
        match self {
            Self::Spinning64 => vec![roof("lidar_top", two_blocks(), 2083, 100.0)],
            Self::Spinning32 => vec![roof("lidar_top", evenly(32, 10.67, -30.67), 2170, 90.0)],
            Self::Spinning16 => vec![roof("lidar_top", evenly(16, 15.0, -15.0), 1800, 90.0)],
            Self::Waymo5 => vec![
                roof("lidar_top", denser_at_the_horizon(), 2650, 75.0),
                side("lidar_front", [4.07, 0.0, 0.69], 0.0),
                side("lidar_side_left", [3.245, 1.025, 0.98], PI / 2.0),
                side("lidar_side_right", [3.245, -1.025, 0.98], -PI / 2.0),
                side("lidar_rear", [-1.155, 0.0, 0.465], PI),
            ],
        }
    }
}

fn roof(name: &'static str, elevations_rad: Vec<f64>, n_columns: usize, max_range_m: f64) -> LaserSpec {
    LaserSpec {
        name,
        elevations_rad,
        n_columns,
        span_rad: TAU,
        min_range_m: 1.0,
        max_range_m,
        range_sigma_m: 0.02,
        dropout: Dropout { floor: 0.02, half_signal: 0.002 },
        mount_m: [1.43, 0.0, 2.184],
        mount_yaw_rad: 0.0,
    }
}

fn side(name: &'static str, mount_m: [f64; 3], mount_yaw_rad: f64) -> LaserSpec {
    LaserSpec {
        name,
        elevations_rad: evenly(72, 29.0, -50.0),
        n_columns: 200,
        span_rad: 170f64.to_radians(),
        min_range_m: 0.5,
        max_range_m: 20.0,
        range_sigma_m: 0.02,
        dropout: Dropout { floor: 0.05, half_signal: 0.01 },
        mount_m,
        mount_yaw_rad,
    }
}

/// Beams at equal steps, both ends included.
fn evenly(n_beams: usize, top_deg: f64, bottom_deg: f64) -> Vec<f64> {
    let step = (top_deg - bottom_deg) / (n_beams - 1) as f64;
    (0..n_beams).map(|row| (top_deg - step * row as f64).to_radians()).collect()
}

/// 32 beams a third of a degree apart, then 32 beams half a degree apart.
fn two_blocks() -> Vec<f64> {
    let upper = (0..32).map(|row| 2.0 - f64::from(row) / 3.0);
    let lower = (0..32).map(|row| -8.83 - f64::from(row) / 2.0);
    upper.chain(lower).map(f64::to_radians).collect()
}

/// 2.5 to -17 degrees: 0.166 degrees apart near the horizon, opening steadily below it.
fn denser_at_the_horizon() -> Vec<f64> {
    let mut elevation = 0.0437;
    (0..64)
        .map(|row| {
            let here = elevation;
            elevation -= 0.0029 + 0.000_215 * f64::from((row - 24).max(0));
            here
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_has_descending_beams_and_a_name() {
        for kind in SensorKind::ALL {
            assert_eq!(SensorKind::from_name(kind.name()), Some(kind));
            for laser in kind.lasers() {
                assert!(laser.elevations_rad.windows(2).all(|pair| pair[1] < pair[0]), "{} of {}", laser.name, kind.name());
                assert!(laser.min_range_m < laser.max_range_m);
            }
        }
    }

    #[test]
    fn beam_tables_have_their_sensor_ends() {
        let ends = |table: Vec<f64>| (table.len(), table[0].to_degrees(), table[table.len() - 1].to_degrees());
        for ((n, top, bottom), expected) in [
            (ends(two_blocks()), (64, 2.0, -24.33)),
            (ends(evenly(32, 10.67, -30.67)), (32, 10.67, -30.67)),
            (ends(evenly(16, 15.0, -15.0)), (16, 15.0, -15.0)),
            (ends(denser_at_the_horizon()), (64, 2.5, -17.1)),
        ] {
            assert_eq!(n, expected.0);
            assert!((top - expected.1).abs() < 0.05 && (bottom - expected.2).abs() < 0.5, "{top} {bottom} for {expected:?}");
        }
    }
}
