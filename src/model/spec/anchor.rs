//! The anchor head of SECOND and PointPillar, as a spec holds it.

use serde::{Deserialize, Serialize};

use super::Rule;

/// Most headings that anchors of a class may have, and most sectors of the direction classifier.
const MAX_DIRECTIONS: usize = 16;

/// The boxes that a head corrects, and how it tells front from back (sparsekd-spec section 2.8).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorHeadSpec {
    /// One for each class, in the order of the head's channels.
    pub anchors: Vec<AnchorSpec>,
    /// Headings that the anchors of every class have at every cell, in radians from +x.
    pub rotations_rad: Vec<f32>,
    /// Equal sectors of the circle that the direction classifier tells apart.
    pub direction_bins: usize,
    /// Heading at which the first sector begins, in radians from +x.
    pub direction_offset_rad: f32,
}

/// The anchor of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorSpec {
    /// One of the spec's classes.
    pub class: String,
    /// Length, width, height in metres.
    pub size_m: [f32; 3],
    /// z of its bottom in metres, in the frame of the points.
    pub bottom_z_m: f32,
    /// In training, an anchor that overlaps a box of its class by this or more (seen from above) is to find it.
    pub matched_iou: f32,
    /// In training, an anchor that overlaps every box of its class by less is background; between the two it counts nothing.
    pub unmatched_iou: f32,
}

impl AnchorHeadSpec {
    /// Anchors at each cell of the map (A).
    pub fn anchors_per_cell(&self) -> usize {
        self.anchors.len() * self.rotations_rad.len()
    }

    /// Checks every rule that types cannot hold; `key` is where the head stands in the spec.
    pub fn check(&self, classes: &[String], key: &str, rule: Rule<'_>) {
        let named: Vec<&String> = self.anchors.iter().map(|anchor| &anchor.class).collect();
        let once = classes.iter().all(|class| named.iter().filter(|name| **name == class).count() == 1);
        let complete = once && named.len() == classes.len();
        rule(complete, &format!("{key}.anchors"), &named, &format!("needs one anchor for each of the classes {classes:?}"));
        for anchor in &self.anchors {
            let key = format!("{key}.anchors.{}", anchor.class);
            let sized = anchor.size_m.iter().all(|edge| (0.01..=1000.0).contains(edge));
            rule(sized, &format!("{key}.size_m"), &anchor.size_m, "0.01 to 1000 m each");
            let z = anchor.bottom_z_m;
            rule(z.abs() <= 1000.0, &format!("{key}.bottom_z_m"), &z, "-1000 to 1000 m");
            let (low, high) = (anchor.unmatched_iou, anchor.matched_iou);
            rule(0.0 < low && low <= high && high <= 1.0, &key, &(low, high), "0 < unmatched_iou <= matched_iou <= 1");
        }
        let circle = |angle: f32| angle.abs() <= std::f32::consts::TAU;
        let directions = 1..=MAX_DIRECTIONS;
        let rotations = &self.rotations_rad;
        let known = directions.contains(&rotations.len()) && rotations.iter().all(|angle| circle(*angle));
        rule(known, &format!("{key}.rotations_rad"), rotations, "1 to 16 headings, each within a turn");
        rule(directions.contains(&self.direction_bins), &format!("{key}.direction_bins"), &self.direction_bins, "1 to 16");
        let offset = self.direction_offset_rad;
        rule(circle(offset), &format!("{key}.direction_offset_rad"), &offset, "within a turn");
    }
}
