//! Which objects are measured together: seven ways of sorting them into shards.
//!
//! Predictions and ground truth are sorted each by its own attributes, and only objects of one shard meet. Two ways sort by what
//! predictions do not have, speed and camera: there, objects meet in wider groups, and ground truth alone decides which shard a
//! pair counts for.

use serde::{Deserialize, Serialize};

use crate::geometry::Box3d;

use super::objects::{EvalFrame, GroundTruth, ObjectType};

/// Ways of sorting, with the numbers of Waymo's `Breakdown.GeneratorId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Generator {
    /// Everything together.
    OneShard = 1,
    /// By type.
    ObjectType = 2,
    /// By type and distance of the middle from the origin, in space: below 30 m, below 50 m, the rest.
    Range = 3,
    /// By type and speed of the ground truth.
    Velocity = 7,
    /// Signs, and everything else.
    AllButSign = 8,
    /// By type and longest side: below 7 m, the rest.
    Size = 9,
    /// By type and the camera that looks in the direction of the ground truth.
    Camera = 10,
}

/// Upper ends of the range bins, in metres.
const RANGE_ENDS_M: [f64; 2] = [30.0, 50.0];
/// Upper end of the small objects, in metres.
const SIZE_END_M: f64 = 7.0;
/// Upper ends of the speed bins. The official ones are f32 constants, and 0.2 is not the same in f64.
const SPEED_ENDS_MPS: [f32; 4] = [0.2, 1.0, 3.0, 10.0];
/// Directions of the cameras: front, front left, front right, side left, side right.
const CAMERA_DIRECTIONS_DEG: [f64; 5] = [0.0, 45.0, -45.0, 90.0, -90.0];
const HALF_FIELD_OF_VIEW_DEG: f64 = 25.2;

impl Generator {
    /// Shards of one object type; 0 where types are not told apart.
    fn bins(self) -> &'static [&'static str] {
        match self {
            Self::OneShard | Self::AllButSign => &[],
            Self::ObjectType => &[""],
            Self::Range => &["_[0, 30)", "_[30, 50)", "_[50, +inf)"],
            Self::Velocity => &["_STATIONARY", "_SLOW", "_MEDIUM", "_FAST", "_VERY_FAST"],
            Self::Size => &["_small", "_large"],
            Self::Camera => &["_FRONT", "_FRONT-LEFT", "_FRONT-RIGHT", "_SIDE-LEFT", "_SIDE-RIGHT"],
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::OneShard => "ONE_SHARD",
            Self::ObjectType => "OBJECT_TYPE",
            Self::Range => "RANGE",
            Self::Velocity => "VELOCITY",
            Self::AllButSign => "ALL_BUT_SIGN",
            Self::Size => "SIZE",
            Self::Camera => "CAMERA",
        }
    }

    /// How many shards there are.
    pub fn n_shards(self) -> usize {
        match self {
            Self::OneShard => 1,
            Self::AllButSign => 2,
            _ => ObjectType::KNOWN.len() * self.bins().len(),
        }
    }

    /// Name of a shard without its level; `shard` is below [`Self::n_shards`].
    pub fn shard_name(self, shard: usize) -> String {
        match (self, shard) {
            (Self::AllButSign, 1) => "SIGN".to_owned(),
            (Self::OneShard | Self::AllButSign, _) => self.prefix().to_owned(),
            _ => {
                let bins = self.bins();
                format!("{}_{}{}", self.prefix(), ObjectType::KNOWN[shard / bins.len()].name(), bins[shard % bins.len()])
            }
        }
    }

    /// Whether only ground truth is sorted, and predictions follow what they are matched with.
    pub fn sorts_truth_only(self) -> bool {
        matches!(self, Self::Velocity | Self::Camera)
    }

    /// The shard ground truth belongs to, if any.
    pub fn shard_of_truth(self, truth: &GroundTruth) -> Option<usize> {
        self.shard(truth.object_type, &truth.box3d, truth.speed_mps)
    }

    fn shard(self, object_type: ObjectType, box3d: &Box3d, speed_mps: [f64; 2]) -> Option<usize> {
        match self {
            Self::OneShard => return Some(0),
            Self::AllButSign => return Some(usize::from(object_type == ObjectType::Sign)),
            _ => {}
        }
        let bin = match self {
            Self::OneShard | Self::AllButSign | Self::ObjectType => 0,
            Self::Range => {
                let [x, y, z] = box3d.center;
                let range_m = (x * x + y * y + z * z).sqrt();
                RANGE_ENDS_M.iter().filter(|&&end| range_m >= end).count()
            }
            Self::Size => usize::from(box3d.size.into_iter().fold(f64::MIN, f64::max) >= SIZE_END_M),
            Self::Velocity => {
                let [x, y] = speed_mps;
                let speed = (x * x + y * y).sqrt();
                SPEED_ENDS_MPS.iter().filter(|&&end| speed >= f64::from(end)).count()
            }
            Self::Camera => cameras_towards(box3d).next()?,
        };
        Some((object_type as usize).checked_sub(1)? * self.bins().len() + bin)
    }

    /// The objects of a frame that meet, with the shards they count for. Indices are in ascending order.
    pub(super) fn groups(self, frame: &EvalFrame) -> Vec<Group> {
        let mut groups: Vec<Group> = match self {
            Self::Velocity => {
                let n_bins = self.bins().len();
                (0..ObjectType::KNOWN.len()).map(|t| Group::of_shards((t * n_bins..(t + 1) * n_bins).collect())).collect()
            }
            _ => (0..self.n_shards()).map(|shard| Group::of_shards(vec![shard])).collect(),
        };
        for (index, p) in frame.predictions.iter().enumerate() {
            self.each_group(p.object_type, &p.box3d, |group| groups[group].predictions.push(index));
        }
        for (index, g) in frame.ground_truths.iter().enumerate() {
            self.each_group(g.object_type, &g.box3d, |group| groups[group].ground_truths.push(index));
        }
        groups
    }

    fn each_group(self, object_type: ObjectType, box3d: &Box3d, mut enter: impl FnMut(usize)) {
        let type_number = (object_type as usize).checked_sub(1);
        match (self, type_number) {
            (Self::Velocity, Some(number)) => enter(number),
            (Self::Camera, Some(number)) => cameras_towards(box3d).for_each(|c| enter(number * self.bins().len() + c)),
            (Self::Velocity | Self::Camera, None) => {}
            _ => self.shard(object_type, box3d, [0.0; 2]).into_iter().for_each(enter),
        }
    }
}

/// Cameras whose field of view holds the middle of a box: two where they overlap, none behind.
fn cameras_towards(box3d: &Box3d) -> impl Iterator<Item = usize> {
    let direction_deg = box3d.center[1].atan2(box3d.center[0]) * (180.0 / std::f64::consts::PI);
    (0..CAMERA_DIRECTIONS_DEG.len()).filter(move |&camera| {
        let middle = CAMERA_DIRECTIONS_DEG[camera];
        direction_deg > middle - HALF_FIELD_OF_VIEW_DEG && direction_deg < middle + HALF_FIELD_OF_VIEW_DEG
    })
}

/// Objects of a frame that meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// Indices into the frame's predictions.
    pub predictions: Vec<usize>,
    /// Indices into the frame's ground truths.
    pub ground_truths: Vec<usize>,
    /// More than one where ground truth alone is sorted.
    pub shards: Vec<usize>,
}

impl Group {
    fn of_shards(shards: Vec<usize>) -> Self {
        Self { predictions: Vec::new(), ground_truths: Vec::new(), shards }
    }
}
