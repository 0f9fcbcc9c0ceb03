//! What is compared: boxes found and boxes annotated, frame by frame.

use crate::geometry::Box3d;

use super::EvalError;
use super::config::BoxType;

/// Most predictions or ground truths of one frame; matching needs the square of it.
pub const MAX_OBJECTS_PER_FRAME: usize = 5000;

/// Object types with the numbers of Waymo's `Label.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectType {
    /// In no breakdown by type, and never matched.
    Unknown = 0,
    /// Cars, lorries, buses, motorcycles.
    Vehicle = 1,
    /// On foot.
    Pedestrian = 2,
    /// Traffic signs.
    Sign = 3,
    /// Bicycle and rider.
    Cyclist = 4,
}

impl ObjectType {
    /// Those with shards of their own, in the order of their numbers.
    pub const KNOWN: [Self; 4] = [Self::Vehicle, Self::Pedestrian, Self::Sign, Self::Cyclist];

    /// From Waymo's number.
    pub fn from_number(number: u64) -> Option<Self> {
        [Self::Unknown, Self::Vehicle, Self::Pedestrian, Self::Sign, Self::Cyclist].get(usize::try_from(number).ok()?).copied()
    }

    /// As Waymo spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "TYPE_UNKNOWN",
            Self::Vehicle => "TYPE_VEHICLE",
            Self::Pedestrian => "TYPE_PEDESTRIAN",
            Self::Sign => "TYPE_SIGN",
            Self::Cyclist => "TYPE_CYCLIST",
        }
    }
}

/// A box that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Frame of the vehicle; range bins are measured from its origin.
    pub box3d: Box3d,
    /// What it is said to be.
    pub object_type: ObjectType,
    /// Compared with the cutoffs as f32.
    pub score: f32,
    /// Then it is no false positive.
    pub overlaps_no_label_zone: bool,
}

/// A box that is there.
#[derive(Debug, Clone, PartialEq)]
pub struct GroundTruth {
    /// Frame of the vehicle.
    pub box3d: Box3d,
    /// What it is.
    pub object_type: ObjectType,
    /// 1 or 2; 0 counts at every level. See [`difficulty_of`].
    pub difficulty: u8,
    /// Over ground; zero where unknown. Only the breakdown by velocity looks at it.
    pub speed_mps: [f64; 2],
}

/// Difficulty of an annotated box: what an annotator said, or else 2 for boxes of five points or fewer. `None` for boxes without
/// points, which take no part.
pub fn difficulty_of(annotated: Option<u8>, n_points: u32) -> Option<u8> {
    const MOST_POINTS_OF_LEVEL_2: u32 = 5;
    match (annotated, n_points) {
        (_, 0) => None,
        (Some(level @ 1..), _) => Some(level),
        (_, n) => Some(if n <= MOST_POINTS_OF_LEVEL_2 { 2 } else { 1 }),
    }
}

/// The objects of one frame, each list in an order that decides between matchings of equal worth.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EvalFrame {
    /// Found.
    pub predictions: Vec<Prediction>,
    /// Annotated.
    pub ground_truths: Vec<GroundTruth>,
}

impl EvalFrame {
    /// Whether the frame can be measured; `frame` is its position, for the message.
    pub(super) fn check(&self, frame: usize) -> Result<(), EvalError> {
        let counts = [("predictions", self.predictions.len()), ("ground truths", self.ground_truths.len())];
        if let Some((what, got)) = counts.into_iter().find(|&(_, n)| n > MAX_OBJECTS_PER_FRAME) {
            return Err(EvalError::TooMany { frame, what, got, limit: MAX_OBJECTS_PER_FRAME });
        }
        let refuse = |what, index, reason: String| Err(EvalError::Object { frame, what, index, reason });
        for (index, prediction) in self.predictions.iter().enumerate() {
            if !prediction.score.is_finite() {
                return refuse("prediction", index, format!("score must be finite, got {}", prediction.score));
            }
            if let Some(reason) = not_finite(&prediction.box3d) {
                return refuse("prediction", index, reason);
            }
        }
        for (index, truth) in self.ground_truths.iter().enumerate() {
            if truth.difficulty > 2 {
                return refuse("ground truth", index, format!("difficulty must be 0, 1 or 2, got {}", truth.difficulty));
            }
            if !truth.speed_mps.iter().all(|v| v.is_finite()) {
                return refuse("ground truth", index, format!("speed must be finite, got {:?}", truth.speed_mps));
            }
            if let Some(reason) = not_finite(&truth.box3d) {
                return refuse("ground truth", index, reason);
            }
        }
        Ok(())
    }

    /// With what boxes of that type do not have set to zero, for shards and headings as well as for overlaps.
    pub(super) fn reduced(&self, box_type: BoxType) -> Self {
        let mut reduced = self.clone();
        let predictions = reduced.predictions.iter_mut().map(|p| &mut p.box3d);
        for box3d in predictions.chain(reduced.ground_truths.iter_mut().map(|g| &mut g.box3d)) {
            if box_type != BoxType::Upright3d {
                (box3d.center[2], box3d.size[2]) = (0.0, 0.0);
            }
            if box_type == BoxType::AxisAligned2d {
                box3d.yaw = 0.0;
            }
        }
        reduced
    }
}

fn not_finite(box3d: &Box3d) -> Option<String> {
    let row = box3d.to_row();
    (!row.iter().all(|v| v.is_finite())).then(|| format!("box must be finite, got {row:?}"))
}
