//! Synthetic LiDAR drives: a street, everything on it, and the lasers that see it; for tests, the demo and training.
//!
//! A drive is a function of its [`DriveConfig`]: any frame can be asked for at any time, by any number of threads, and is
//! the same to the last bit. The order of a frame is: place everything (`world`, `motion`), cast the shots
//! (`raycast`), turn hits into returns (`returns`), label (`labels`). [`record`] writes drives as rosbag2.
//!
//! # What is simulated and what is not
//! Ground with grade, crown, kerbs and verges; buildings, poles, signs, fences, vegetation, street furniture; parked and
//! moving vehicles of seven kinds, pedestrians, cyclists, each with a track. Occlusion, range noise, lost shots,
//! intensity by material, incidence and range, elongation, windows, optional second returns.
//! A cloud is an instant: as if the ego motion were taken out (as Waymo does) and nothing else moved during the sweep. The
//! time offsets are those of the spinning head all the same.
//!
//! # Frames
//! Clouds and boxes are in the vehicle frame `base_link`: x forward, y left, z up, z = 0 on the road under the vehicle's
//! rear axle, tilted with the road. `world_from_ego` is its pose in `odom`.

mod labels;
mod layout;
mod motion;
mod people;
mod plots;
mod random;
mod raycast;
pub mod record;
mod returns;
mod scenery;
pub mod sensor;
mod shape;
mod street;
mod vehicle;
mod window;
mod world;

use nalgebra::{Isometry3, Point3, Vector3};
use rayon::prelude::*;

use crate::cloud::{Feature, PointCloud};
use crate::geometry::Box3d;
use crate::time::Stamp;
use motion::State;
use random::{Dice, Key};
use raycast::{Placed, Shot};
use returns::Return;
use sensor::{LaserSpec, SensorKind};
use world::{Actor, World};

/// The columns of every synthetic cloud, those of Waymo.
pub const FEATURES: [Feature; 5] = [Feature::X, Feature::Y, Feature::Z, Feature::Intensity, Feature::Elongation];
/// Frame of clouds and boxes.
pub const EGO_FRAME: &str = "base_link";
/// Frame of the poses.
pub const WORLD_FRAME: &str = "odom";
/// Stamp of the first frame of every drive: 2023-11-14 22:13:20 UTC.
pub const FIRST_STAMP: Stamp = Stamp { nanos: 1_700_000_000_000_000_000 };
/// Most frames a drive can have.
pub const MAX_FRAMES: usize = 100_000;
const SWEEP_S: f64 = 0.1;
const SHOTS_PER_TASK: usize = 4096;
/// Tracks that leave the window around the ego vehicle and come back get a new id this much higher, or higher by the number of
/// actors where a long drive has more.
const MIN_IDS_PER_LAP: u64 = 10_000;

/// Everything a drive follows from.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveConfig {
    /// Names a family of drives.
    pub seed: u64,
    /// Names a drive of the family.
    pub drive: u64,
    /// 1 to [`MAX_FRAMES`].
    pub n_frames: usize,
    /// Frames per second, 0.1 to 100.
    pub rate_hz: f64,
    /// What records it.
    pub sensor: SensorKind,
    /// Whether the lasers report what stands behind a half-transparent first surface.
    pub two_returns: bool,
}

impl DriveConfig {
    /// A drive at 10 Hz with single returns.
    pub fn new(seed: u64, drive: u64, n_frames: usize, sensor: SensorKind) -> Self {
        Self { seed, drive, n_frames, rate_hz: 10.0, sensor, two_returns: false }
    }

    /// A street of its own for one training sample; frame 0 is the sample.
    pub fn sample(seed: u64, epoch: u64, index: u64, sensor: SensorKind) -> Self {
        Self::new(seed, Key::new(epoch).with(index).bits(), 1, sensor)
    }
}

/// Why a drive or a frame cannot be made, written or read back.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// Length of the drive.
    #[error("n_frames is {got}, a drive has 1 to {MAX_FRAMES}")]
    FrameCount {
        /// As configured.
        got: usize,
    },
    /// Rate of the drive.
    #[error("rate_hz is {got}, a drive has 0.1 to 100")]
    Rate {
        /// As configured.
        got: f64,
    },
    /// Frame index.
    #[error("frame {index} was asked for, the drive has {n_frames}")]
    FrameIndex {
        /// As asked.
        index: usize,
        /// As configured.
        n_frames: usize,
    },
    /// A label of a bag that does not follow the convention of [`record`].
    #[error("detection {index}: {key} is {got}, expected what `trainer synth` writes")]
    Label {
        /// Index in the message.
        index: usize,
        /// What was looked for.
        key: &'static str,
        /// What was found.
        got: String,
    },
    /// The bag could not be written.
    #[error(transparent)]
    Bag(#[from] crate::bag::BagError),
}

/// Classes of labelled objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum ObjectClass {
    /// Cars, vans, trucks, buses.
    Vehicle,
    /// People on foot.
    Pedestrian,
    /// People on bicycles, with the bicycle.
    Cyclist,
}

impl ObjectClass {
    /// In the order of the model specs.
    pub const ALL: [Self; 3] = [Self::Vehicle, Self::Pedestrian, Self::Cyclist];

    /// As in the model specs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vehicle => "Vehicle",
            Self::Pedestrian => "Pedestrian",
            Self::Cyclist => "Cyclist",
        }
    }
}

/// Waymo's difficulty of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Difficulty {
    /// More than five points.
    Level1,
    /// Five points or fewer.
    Level2,
}

impl Difficulty {
    /// Of a label that nobody called hard.
    pub fn of(n_points: u32) -> Self {
        if n_points > 5 { Self::Level1 } else { Self::Level2 }
    }

    /// 1 or 2.
    pub fn level(self) -> u8 {
        match self {
            Self::Level1 => 1,
            Self::Level2 => 2,
        }
    }
}

/// One object of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabeledBox {
    /// In the frame of the cloud.
    pub box3d: Box3d,
    /// What it is.
    pub class: ObjectClass,
    /// The same over the frames of a drive, unique in it.
    pub track_id: u64,
    /// Points of the cloud inside the box, all returns.
    pub n_points: u32,
    /// By the number of points.
    pub difficulty: Difficulty,
    /// Velocity over ground, along the axes of the cloud's frame.
    pub velocity_mps: [f64; 2],
}

/// One frame of a drive.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Columns [`FEATURES`]; laser after laser, each in firing order.
    pub cloud: PointCloud,
    /// Beam of each point within its laser, 0 the highest (N).
    pub rings: Vec<u16>,
    /// Firing time of each point after the stamp (N).
    pub time_offsets_s: Vec<f32>,
    /// Objects with at least one point, within the farthest range of the sensor.
    pub boxes: Vec<LabeledBox>,
    /// Objects without a point: occluded, or too far for the beams. No evaluation counts them.
    pub hidden_boxes: Vec<LabeledBox>,
    /// Pose of the vehicle frame in the world.
    pub world_from_ego: Isometry3<f64>,
}

/// A drive, ready to be asked for frames.
#[derive(Debug, Clone)]
pub struct Drive {
    config: DriveConfig,
    lasers: Vec<LaserSpec>,
    world: World,
    key: Key,
}

impl Drive {
    /// Lays out the street; costs little, frames are made on demand.
    ///
    /// # Errors
    /// A number of frames or a rate outside of its range.
    pub fn new(config: &DriveConfig) -> Result<Self, SynthError> {
        if config.n_frames == 0 || config.n_frames > MAX_FRAMES {
            return Err(SynthError::FrameCount { got: config.n_frames });
        }
        if !(0.1..=100.0).contains(&config.rate_hz) {
            return Err(SynthError::Rate { got: config.rate_hz });
        }
        let duration_s = (config.n_frames - 1) as f64 / config.rate_hz;
        let world = World::new(&mut Dice::new(config.seed, config.drive), duration_s);
        let key = Key::new(config.seed).with(config.drive);
        Ok(Self { config: config.clone(), lasers: config.sensor.lasers(), world, key })
    }

    /// What it follows from.
    pub fn config(&self) -> &DriveConfig {
        &self.config
    }

    /// The lasers, in the order of their points.
    pub fn lasers(&self) -> &[LaserSpec] {
        &self.lasers
    }

    /// Stamp of a frame.
    pub fn stamp(&self, index: usize) -> Stamp {
        Stamp { nanos: FIRST_STAMP.nanos + (index as f64 * 1e9 / self.config.rate_hz).round() as i64 }
    }

    /// Makes one frame.
    ///
    /// # Errors
    /// When the drive is shorter.
    pub fn frame(&self, index: usize) -> Result<Frame, SynthError> {
        if index >= self.config.n_frames {
            return Err(SynthError::FrameIndex { index, n_frames: self.config.n_frames });
        }
        let t = index as f64 / self.config.rate_hz;
        let street = &self.world.street;
        let ego_s = self.world.ego_flow.distance(t);
        let (place, yaw) = street.place(ego_s, self.world.ego_d);
        let world_from_ego = street.standing(place, yaw);
        let reach_m = self.lasers.iter().map(|laser| laser.max_range_m).fold(0.0, f64::max);
        let near: Vec<(usize, &Actor, State)> = (self.world.actors.iter().enumerate())
            .map(|(actor_idx, actor)| (actor_idx, actor, actor.state(street, t, ego_s)))
            .filter(|(_, actor, state)| {
                let away = state.world_from_body.translation.vector - world_from_ego.translation.vector;
                away.xy().norm() < reach_m + actor.radius_m + 5.0
            })
            .collect();
        let scan = self.scan(&world_from_ego, &near, self.key.with(index as u64));
        let ego_from_world = world_from_ego.inverse();
        let mut labels: Vec<LabeledBox> = (near.iter())
            .filter_map(|(actor_idx, actor, state)| {
                let track_id = track_id(*actor_idx, state.lap, self.world.actors.len());
                actor.object.as_ref().map(|object| labels::label(object, state, &ego_from_world, track_id))
            })
            .filter(|label| label.box3d.range() <= reach_m)
            .collect();
        labels::count_points(&mut labels, &scan.points, FEATURES.len(), reach_m + 5.0);
        let (boxes, hidden_boxes) = labels.into_iter().partition(|label| label.n_points > 0);
        let cloud = PointCloud {
            stamp: self.stamp(index),
            frame_id: EGO_FRAME.to_owned(),
            features: FEATURES.to_vec(),
            points: scan.points,
        };
        Ok(Frame { cloud, rings: scan.rings, time_offsets_s: scan.time_offsets_s, boxes, hidden_boxes, world_from_ego })
    }

    fn scan(&self, world_from_ego: &Isometry3<f64>, near: &[(usize, &Actor, State)], key: Key) -> Scan {
        let bodies: Vec<_> = near.iter().map(|(_, actor, state)| (actor.parts(state), state)).collect();
        let placed: Vec<Placed> = bodies.iter().flat_map(|(parts, state)| Placed::body(parts, state)).collect();
        let sweep_s = SWEEP_S.min(1.0 / self.config.rate_hz);
        let mut scan = Scan::default();
        for (laser_idx, laser) in self.lasers.iter().enumerate() {
            let key = key.with(laser_idx as u64);
            let ego_from_laser = shape::upright(laser.mount_m, laser.mount_yaw_rad);
            let world_from_laser = world_from_ego * ego_from_laser;
            let shots = raycast::cast(laser, &world_from_laser, &self.world.street, &placed, self.config.two_returns, key);
            let n_rows = laser.elevations_rad.len();
            let measured = |shots: &[Shot]| {
                let mut part = Scan::default();
                for shot in shots {
                    let time_offset_s = sweep_s * shot.column as f64 / laser.n_columns as f64;
                    let key = key.with((shot.column * n_rows + shot.row) as u64);
                    for measured in returns::measure(laser, shot, key).into_iter().flatten() {
                        part.push(&ego_from_laser, shot, &measured, time_offset_s);
                    }
                }
                part
            };
            for part in shots.par_chunks(SHOTS_PER_TASK).map(measured).collect::<Vec<_>>() {
                scan.points.extend(part.points);
                scan.rings.extend(part.rings);
                scan.time_offsets_s.extend(part.time_offsets_s);
            }
        }
        scan
    }
}

#[derive(Default)]
struct Scan {
    points: Vec<f32>,
    rings: Vec<u16>,
    time_offsets_s: Vec<f32>,
}

impl Scan {
    fn push(&mut self, ego_from_laser: &Isometry3<f64>, shot: &Shot, measured: &Return, time_offset_s: f64) {
        let in_laser = Vector3::from(shot.dir.to_array()).cast::<f64>() * f64::from(measured.range_m);
        let at = ego_from_laser * Point3::from(in_laser);
        self.points.extend([at.x as f32, at.y as f32, at.z as f32, measured.intensity, measured.elongation]);
        self.rings.push(shot.row as u16);
        self.time_offsets_s.push(time_offset_s as f32);
    }
}

/// From 1; another one for every actor and lap of a drive.
fn track_id(actor_idx: usize, lap: i64, n_actors: usize) -> u64 {
    actor_idx as u64 + 1 + MIN_IDS_PER_LAP.max(n_actors as u64) * zigzag(lap)
}

/// 0, -1, 1, -2, … as 0, 1, 2, 3, …
fn zigzag(lap: i64) -> u64 {
    (if lap < 0 { -2 * lap - 1 } else { 2 * lap }) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn track_ids_differ_between_actors_and_laps_however_long_the_drive() {
        let short = [(0, 0, 1), (4, 0, 5), (4, -1, 10_005), (4, 1, 20_005), (9_999, 0, 10_000)];
        assert!(short.iter().all(|&(actor_idx, lap, id)| track_id(actor_idx, lap, 10_000) == id));
        let n_actors = 25_000;
        let ids: HashSet<u64> = (0..n_actors).flat_map(|idx| (-3..=3).map(move |lap| track_id(idx, lap, n_actors))).collect();
        assert_eq!(ids.len(), 7 * n_actors);
        assert_eq!(track_id(5_999_999, 60_000, 6_000_000), 720_006_000_000, "more than u32 holds");
    }
}
