//! True boxes of a bag and how many of them were found.

use std::collections::BTreeMap;
use std::fmt;

use crate::geometry::Box3d;
use crate::geometry::iou::bev_iou;
use crate::msgs::vision_msgs::Detection3DArray;
use crate::postprocess::Detection;
use crate::time::Stamp;

/// Bird's-eye IoU from which a detection counts as right.
const MIN_IOU_VEHICLE: f64 = 0.5;
const MIN_IOU_OTHER: f64 = 0.3;

/// Class names, in lower case, that are held to the stricter overlap.
const VEHICLES: [&str; 6] = ["vehicle", "car", "truck", "bus", "trailer", "van"];

/// Found and missed boxes over a whole replay. Objects whose middle lies outside of the model's range count neither as true nor, where a
/// detection finds one of them, as detected.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TruthMatches {
    /// Topic of the true boxes.
    pub topic: String,
    /// Clouds that had true boxes with the same stamp, an empty array included.
    pub n_frames: u64,
    /// True boxes left out because their middle lies outside of the model's range.
    pub n_outside: u64,
    /// In the model's order of classes, then other classes by name.
    pub classes: Vec<ClassMatches>,
}

/// Found and missed boxes of one class.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassMatches {
    /// Name of the class.
    pub class: String,
    /// Overlap that was asked for.
    pub min_iou: f64,
    /// True boxes within the model's range.
    pub truth: u64,
    /// Detections.
    pub detected: u64,
    /// Pairs; each box is in one at most.
    pub matched: u64,
}

impl ClassMatches {
    /// Share of the true boxes that were found, 0 to 1; `None` without any.
    pub fn recall(&self) -> Option<f64> {
        share(self.matched, self.truth)
    }

    /// Share of the detections that are right, 0 to 1; `None` without any.
    pub fn precision(&self) -> Option<f64> {
        share(self.matched, self.detected)
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// `Vehicle: recall 0.900 (9 of 10), precision 0.750 (9 of 12), bird's-eye IoU at least 0.5`
impl fmt::Display for ClassMatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, min_iou, truth, detected, matched } = self;
        let number = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.3}"));
        let (recall, precision) = (number(self.recall()), number(self.precision()));
        write!(
            f,
            "{class}: recall {recall} ({matched} of {truth}), precision {precision} ({matched} of {detected}), bird's-eye IoU at least {min_iou}"
        )
    }
}

/// True boxes by the stamp of their header.
#[derive(Debug, Default)]
pub(super) struct Truth {
    by_stamp: BTreeMap<Stamp, Vec<TrueBox>>,
}

#[derive(Debug, Clone)]
pub(super) struct TrueBox {
    pub(super) class: String,
    pub(super) box3d: Box3d,
}

impl Truth {
    pub(super) fn add(&mut self, array: &Detection3DArray) {
        let boxes = self.by_stamp.entry(array.header.stamp.into()).or_default();
        for detection in &array.detections {
            let class = detection.results.first().map(|result| result.hypothesis.class_id.clone()).unwrap_or_default();
            let (center, size, turn) = (detection.bbox.center.position, detection.bbox.size, detection.bbox.center.orientation);
            let yaw = (2.0 * (turn.w * turn.z + turn.x * turn.y)).atan2(1.0 - 2.0 * (turn.y * turn.y + turn.z * turn.z));
            let box3d = Box3d { center: [center.x, center.y, center.z], size: [size.x, size.y, size.z], yaw };
            // A box with an infinite or missing number cannot overlap anything.
            if box3d.to_row().iter().all(|value| value.is_finite()) {
                boxes.push(TrueBox { class, box3d });
            }
        }
    }

    pub(super) fn at(&self, stamp: Stamp) -> Option<&[TrueBox]> {
        self.by_stamp.get(&stamp).map(Vec::as_slice)
    }
}

impl TruthMatches {
    pub(super) fn new(topic: &str, class_names: &[String]) -> Self {
        let mut matches = Self { topic: topic.to_owned(), ..Self::default() };
        for class in class_names {
            matches.class(class);
        }
        matches
    }

    /// Adds one frame: per class, detections from the best score on take the free true box they overlap most.
    pub(super) fn add_frame(&mut self, detections: &[Detection], class_names: &[String], truth: &[TrueBox], range: [f32; 6]) {
        self.n_frames += 1;
        let mut is_free = vec![true; truth.len()];
        let counts: Vec<bool> = truth.iter().map(|true_box| true_box.box3d.has_middle_in(range)).collect();
        for (true_box, counts) in truth.iter().zip(&counts) {
            if *counts {
                self.class(&true_box.class).truth += 1;
            } else {
                self.n_outside += 1;
            }
        }
        for detection in detections {
            let Some(class) = class_names.get(detection.class_idx) else { continue };
            let matches = self.class(class);
            let best = truth
                .iter()
                .enumerate()
                .filter(|(truth_idx, true_box)| is_free[*truth_idx] && true_box.class == *class)
                .map(|(truth_idx, true_box)| (truth_idx, bev_iou(&detection.box3d, &true_box.box3d)))
                .filter(|(_, iou)| *iou >= matches.min_iou)
                .max_by(|one, other| one.1.total_cmp(&other.1));
            let Some((truth_idx, _)) = best else {
                matches.detected += 1;
                continue;
            };
            is_free[truth_idx] = false;
            if counts[truth_idx] {
                matches.detected += 1;
                matches.matched += 1;
            }
        }
    }

    fn class(&mut self, class: &str) -> &mut ClassMatches {
        let known = self.classes.iter().position(|counts| counts.class == class);
        let class_idx = known.unwrap_or_else(|| {
            let is_vehicle = VEHICLES.contains(&class.to_lowercase().as_str());
            let min_iou = if is_vehicle { MIN_IOU_VEHICLE } else { MIN_IOU_OTHER };
            self.classes.push(ClassMatches { class: class.to_owned(), min_iou, ..ClassMatches::default() });
            self.classes.len() - 1
        });
        &mut self.classes[class_idx]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_true_box_is_found_once_by_its_own_class() {
        let car = |x: f64| Box3d::from_row([x, 0.0, 0.0, 4.0, 2.0, 1.5, 0.0]);
        let class_names = ["Vehicle", "Pedestrian"].map(str::to_owned);
        let truth: Vec<TrueBox> = [("Vehicle", 0.0), ("Vehicle", 10.0), ("Pedestrian", 20.0), ("Sign", 30.0), ("Vehicle", 41.0)]
            .map(|(class, x)| TrueBox { class: class.to_owned(), box3d: car(x) })
            .into();
        let detections = [
            (0.9, 0, 0.5),  // IoU 3.5 / 4.5 with the first
            (0.8, 0, 0.0),  // the first is taken
            (0.7, 0, 12.0), // IoU 2 / 6 with the second: too little for a vehicle
            (0.6, 1, 22.0), // IoU 2 / 6: enough for a pedestrian
            (0.5, 1, 30.0), // a sign is no pedestrian
            (0.4, 0, 41.0), // the car beyond the range
        ]
        .map(|(score, class_idx, x)| Detection { box3d: car(x), score, class_idx });
        let mut matches = TruthMatches::new("/truth", &class_names);
        matches.add_frame(&detections, &class_names, &truth, [-40.0, -40.0, -2.0, 40.0, 40.0, 4.0]);
        let counts: Vec<_> =
            matches.classes.iter().map(|class| (class.class.as_str(), class.truth, class.detected, class.matched)).collect();
        assert_eq!(counts, [("Vehicle", 2, 3, 1), ("Pedestrian", 1, 2, 1), ("Sign", 1, 0, 0)]);
        assert_eq!((matches.n_frames, matches.n_outside), (1, 1));
        let vehicle = "Vehicle: recall 0.500 (1 of 2), precision 0.333 (1 of 3), bird's-eye IoU at least 0.5";
        assert_eq!(matches.classes[0].to_string(), vehicle);
        assert!(matches.classes[2].to_string().contains("precision - (0 of 0)"), "{}", matches.classes[2]);
    }
}
