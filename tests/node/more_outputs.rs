//! Outputs that have to be asked for, and the check of a machine.

use pivotal::msgs::autoware_perception_msgs::{DetectedObjects, ObjectClassification};
use pivotal::msgs::pivotal_msgs::Float64Stamped;
use pivotal::node::args::{RosArgs, split_ros_args};
use pivotal::node::check::check;
use pivotal::node::timings::TIMINGS;
use pivotal::transport::buffers::ENOUGH_BYTES;

use super::rig::{Listener, Rig, cloud, save_tiny_model};

#[test]
fn autoware_objects_are_the_detections_with_chosen_labels() {
    let rig = Rig::start(&["-p", "publish_autoware:=true", "-p", "autoware_labels:=[Vehicle=BUS]"]);
    let (objects, autoware) = (rig.objects(), rig.listen::<DetectedObjects>(&rig.names.autoware));
    rig.send(&cloud(3, 400));
    let (array, same) = (objects.next(), autoware.next());
    assert_eq!(array.header, same.header);
    assert!(!array.detections.is_empty() && array.detections.len() == same.objects.len());
    for (ours, theirs) in array.detections.iter().zip(&same.objects) {
        let hypothesis = &ours.results[0].hypothesis;
        assert_eq!(ours.bbox.center, theirs.kinematics.pose_with_covariance.pose);
        assert_eq!(ours.bbox.size, theirs.shape.dimensions);
        assert_eq!(hypothesis.score as f32, theirs.existence_probability);
        let label = match hypothesis.class_id.as_str() {
            "Vehicle" => ObjectClassification::BUS,
            "Pedestrian" => ObjectClassification::PEDESTRIAN,
            _ => ObjectClassification::BICYCLE,
        };
        assert_eq!(theirs.classification[0].label, label);
    }
    rig.stop().unwrap();
}

#[test]
fn autoware_labels_of_unknown_classes_stop_the_start() {
    let error = Rig::start(&["-p", "autoware_labels:=[Tram=BUS]"]).ended().unwrap_err().to_string();
    assert!(error.contains("`Tram` is not a class of model"), "{error}");
}

#[test]
fn outputs_not_asked_for_are_not_announced() {
    let rig = Rig::start(&[]);
    assert_eq!(rig.listen::<DetectedObjects>(&rig.names.autoware).n_publishers(), 0);
    assert!(rig.names.timings.iter().all(|topic| rig.listen::<Float64Stamped>(topic).n_publishers() == 0));
    rig.stop().unwrap();
}

#[test]
fn timings_are_published_to_whoever_plots_them_and_keep_the_node_at_work() {
    let rig = Rig::start(&["-p", "publish_timings:=true"]);
    let topic = |name: &str| {
        let at = TIMINGS.iter().position(|timing| *timing == name).unwrap();
        assert!(rig.names.timings[at].as_str().ends_with(name));
        &rig.names.timings[at]
    };
    let total: Listener<Float64Stamped> = rig.listen(topic("processing_time_ms"));
    let backbone: Listener<Float64Stamped> = rig.listen(topic("backbone_ms"));
    let cyclic: Listener<Float64Stamped> = rig.listen(topic("cyclic_time_ms"));
    let age: Listener<Float64Stamped> = rig.listen(topic("pipeline_latency_ms"));
    for stamp in [7, 8] {
        rig.send(&cloud(stamp, 100));
        let (total, backbone, age) = (total.next(), backbone.next(), age.next());
        assert_eq!([total, backbone, age].map(|timing| timing.stamp.sec), [stamp; 3]);
        assert!(total.data > backbone.data && backbone.data > 0.0, "{total:?} {backbone:?}");
        assert!(age.data > 1.5e12, "milliseconds since 1970: {age:?}");
    }
    let first = cyclic.next();
    assert!(first.stamp.sec == 8 && first.data > 0.0, "the first cloud has none before it: {first:?}");
    rig.stop().unwrap();
}

#[test]
fn check_tells_what_is_wrong_beside_what_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("tiny");
    save_tiny_model(&dir);
    let ros =
        |args: &[&str]| -> RosArgs { split_ros_args(["--ros-args"].iter().chain(args).map(|arg| (*arg).to_owned())).unwrap().1 };
    let wrong = |ros: &RosArgs, limit, variable: Option<(&str, &str)>| -> Vec<String> {
        let environment = |name: &str| variable.filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned());
        check(ros, limit, environment).into_iter().filter(|finding| !finding.fine).map(|finding| finding.text).collect()
    };
    let model = format!("model_dir:={}", dir.display());
    let good = ros(&["-p", &model, "-p", "device:=cpu"]);
    assert_eq!(wrong(&good, Some(ENOUGH_BYTES), None), Vec::<String>::new());
    assert_eq!(check(&good, Some(ENOUGH_BYTES), |_| None).len(), 5);
    let cases = [
        (good.clone(), Some(212_992), None, "sudo sysctl -w net.core.rmem_max"),
        (good.clone(), None, Some(("ROS_DOMAIN_ID", "500")), "ROS_DOMAIN_ID"),
        (good, None, Some(("CYCLONEDDS_URI", "x")), "does not read it"),
        (ros(&["-p", "model_dir:=/nowhere"]), None, None, "/nowhere"),
        (ros(&["-p", &model, "-p", "device:=cuda:99"]), None, None, "cuda:99"),
        (ros(&["-p", &model, "-p", "classes:=[Tram]"]), None, None, "`Tram` is not a class"),
        (ros(&["-p", &model, "-p", "no_such:=1"]), None, None, "`no_such`"),
        (ros(&["-p", &model, "-r", "__node:=1"]), None, None, "node name"),
        (ros(&["-p", &model, "-r", "inputs:=/x"]), None, None, "names no topic"),
    ];
    for (ros, limit, variable, part) in cases {
        let texts = wrong(&ros, limit, variable);
        assert!(texts.len() == 1 && texts[0].contains(part), "{part}: {texts:?}");
    }
}
