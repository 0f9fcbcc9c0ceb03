//! Detections as Autoware's perception takes them.
//!
//! What the networks here do not give is marked as not given: velocity, and covariances. Headings of vehicles are marked as
//! known up to their sign, which is how Autoware's own detector publishes them and its tracker expects them.

use std::collections::BTreeMap;

use super::output::{box_pose, class_name, vector};
use crate::msgs::autoware_perception_msgs::{
    DetectedObject, DetectedObjectKinematics, DetectedObjects, ObjectClassification, Shape,
};
use crate::msgs::geometry_msgs::PoseWithCovariance;
use crate::msgs::std_msgs::Header;
use crate::postprocess::Detection;

/// Autoware's labels by name.
pub(super) const LABELS: [(&str, u8); 8] = [
    ("UNKNOWN", ObjectClassification::UNKNOWN),
    ("CAR", ObjectClassification::CAR),
    ("TRUCK", ObjectClassification::TRUCK),
    ("BUS", ObjectClassification::BUS),
    ("TRAILER", ObjectClassification::TRAILER),
    ("MOTORCYCLE", ObjectClassification::MOTORCYCLE),
    ("BICYCLE", ObjectClassification::BICYCLE),
    ("PEDESTRIAN", ObjectClassification::PEDESTRIAN),
];

/// Names of classes that data sets use for a label of another name.
const SYNONYMS: [(&str, u8); 3] = [
    ("VEHICLE", ObjectClassification::CAR),
    ("CYCLIST", ObjectClassification::BICYCLE),
    ("MOTORCYCLIST", ObjectClassification::MOTORCYCLE),
];

/// `class=LABEL` of `autoware_labels`.
pub(super) fn parse_label(text: &str) -> Option<(String, u8)> {
    let (class, label) = text.split_once('=')?;
    let (_, label) = LABELS.into_iter().find(|(name, _)| *name == label.trim())?;
    Some((class.trim().to_owned(), label)).filter(|(class, _)| !class.is_empty())
}

/// The label of a class: as chosen, by its name, or unknown.
fn label_of(class: &str, chosen: &BTreeMap<String, u8>) -> u8 {
    let upper = class.to_ascii_uppercase();
    let named = || LABELS.into_iter().chain(SYNONYMS).find(|(name, _)| *name == upper).map(|(_, label)| label);
    chosen.get(class).copied().or_else(named).unwrap_or(ObjectClassification::UNKNOWN)
}

/// The array of `~/output/autoware_objects`, best score first as given; `chosen` has labels by class that differ from those
/// that the classes' names say.
pub fn detections_to_autoware(
    detections: &[Detection],
    classes: &[String],
    chosen: &BTreeMap<String, u8>,
    header: &Header,
) -> DetectedObjects {
    let to_object = |detection: &Detection| {
        let label = label_of(&class_name(classes, detection.class_idx), chosen);
        let long =
            [ObjectClassification::CAR, ObjectClassification::TRUCK, ObjectClassification::BUS, ObjectClassification::TRAILER];
        DetectedObject {
            existence_probability: detection.score,
            classification: vec![ObjectClassification { label, probability: 1.0 }],
            kinematics: DetectedObjectKinematics {
                pose_with_covariance: PoseWithCovariance { pose: box_pose(&detection.box3d), ..PoseWithCovariance::default() },
                orientation_availability: if long.contains(&label) {
                    DetectedObjectKinematics::SIGN_UNKNOWN
                } else {
                    DetectedObjectKinematics::AVAILABLE
                },
                ..DetectedObjectKinematics::default()
            },
            shape: Shape { r#type: Shape::BOUNDING_BOX, dimensions: vector(detection.box3d.size), ..Shape::default() },
        }
    };
    DetectedObjects { header: header.clone(), objects: detections.iter().map(to_object).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Box3d;

    #[test]
    fn labels_follow_the_choice_then_the_name_of_the_class() {
        let chosen = BTreeMap::from([("Vehicle".to_owned(), ObjectClassification::TRUCK)]);
        let cases = [
            ("Vehicle", ObjectClassification::TRUCK),
            ("vehicle", ObjectClassification::CAR),
            ("Pedestrian", ObjectClassification::PEDESTRIAN),
            ("Cyclist", ObjectClassification::BICYCLE),
            ("bus", ObjectClassification::BUS),
            ("Tram", ObjectClassification::UNKNOWN),
        ];
        for (class, label) in cases {
            assert_eq!(label_of(class, &chosen), label, "{class}");
        }
        assert_eq!(parse_label("Tram = BUS"), Some(("Tram".to_owned(), ObjectClassification::BUS)));
        for text in ["Tram", "Tram=TRAM", "=BUS", "Tram=bus"] {
            assert_eq!(parse_label(text), None, "{text}");
        }
    }

    #[test]
    fn objects_have_boxes_scores_and_say_what_is_not_known() {
        let box3d = Box3d { center: [1.0, 2.0, 3.0], size: [4.0, 2.0, 1.5], yaw: std::f64::consts::PI };
        let found = [0, 1].map(|class_idx| Detection { box3d, score: 0.75, class_idx });
        let header = Header { frame_id: "lidar".into(), ..Header::default() };
        let array = detections_to_autoware(&found, &["Vehicle".into(), "Cyclist".into()], &BTreeMap::new(), &header);
        assert_eq!(array.header, header);
        let [car, bicycle] = &array.objects[..] else { panic!("{array:?}") };
        assert_eq!((car.existence_probability, car.classification[0].label), (0.75, ObjectClassification::CAR));
        let kinematics = &car.kinematics;
        assert_eq!(kinematics.pose_with_covariance.pose.position.y, 2.0);
        assert!((kinematics.pose_with_covariance.pose.orientation.z - 1.0).abs() < 1e-12);
        assert_eq!((car.shape.dimensions.x, car.shape.dimensions.z), (4.0, 1.5));
        assert!(!kinematics.has_twist && !kinematics.has_position_covariance && !kinematics.has_twist_covariance);
        let availabilities = [car, bicycle].map(|object| object.kinematics.orientation_availability);
        assert_eq!(availabilities, [DetectedObjectKinematics::SIGN_UNKNOWN, DetectedObjectKinematics::AVAILABLE]);
    }
}
