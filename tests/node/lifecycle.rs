//! Start, idling, silence and end of the node.

use pivotal::msgs::diagnostic_msgs::DiagnosticStatus;
use pivotal::node::error::{EXIT_DEVICE, EXIT_MODEL, EXIT_USAGE};

use super::rig::{Rig, cloud, save_tiny_model, value};

#[test]
fn node_without_subscribers_idles_until_somebody_listens() {
    let rig = Rig::start(&[]);
    rig.send(&cloud(1, 50));
    let status = rig.wait_for_status("idling", |status| value(status, "clouds_skipped_idle") == "1");
    assert_eq!((status.level, status.message.as_str()), (DiagnosticStatus::OK, "idle: nobody subscribes"));
    assert_eq!(value(&status, "clouds_processed"), "0");

    let objects = rig.objects();
    rig.send(&cloud(2, 50));
    assert_eq!(objects.next().header.stamp.sec, 2);
    rig.stop().unwrap();
}

#[test]
fn node_told_to_process_without_subscribers_does() {
    let rig = Rig::start(&["-p", "process_without_subscribers:=true"]);
    rig.send(&cloud(1, 50));
    let status = rig.wait_for_status("work", |status| value(status, "clouds_processed") == "1");
    assert_eq!(value(&status, "clouds_skipped_idle"), "0");
    rig.stop().unwrap();
}

#[test]
fn silent_input_turns_diagnostics_stale() {
    let rig = Rig::start(&["-p", "input_timeout_s:=0.1"]);
    let status = rig.wait_for_status("silence", |status| status.level == DiagnosticStatus::STALE);
    assert!(status.message.starts_with("no cloud on /detector_node/input/pointcloud for "), "{}", status.message);
    rig.stop().unwrap();
}

#[test]
fn diagnostics_in_simulated_time_carry_the_clouds_stamp() {
    let rig = Rig::start(&["-p", "use_sim_time:=true", "-p", "process_without_subscribers:=true"]);
    let arrays = rig.listen::<pivotal::msgs::diagnostic_msgs::DiagnosticArray>(&rig.names.diagnostics);
    rig.send(&cloud(1234, 10));
    while arrays.next().header.stamp.sec != 1234 {}
    rig.stop().unwrap();
}

#[test]
fn remapped_node_uses_only_the_new_names() {
    let rig = Rig::start(&[
        "-r",
        "__ns:=/left",
        "-r",
        "__node:=eyes",
        "-r",
        "~/input/pointcloud:=/points",
        "-r",
        "~/output/objects:=cars",
    ]);
    assert_eq!(rig.names.input.as_str(), "/points");
    assert_eq!(rig.names.objects.as_str(), "/left/cars");
    assert_eq!(rig.names.report.as_str(), "/left/eyes/output/report");
    let (objects, reports) = (rig.objects(), rig.reports());
    rig.send(&cloud(9, 30));
    assert_eq!((objects.next().header.stamp.sec, reports.next().header.stamp.sec), (9, 9));
    let status = rig.wait_for_status("a name", |_| true);
    assert_eq!(status.name, "left/eyes: detection");
    rig.stop().unwrap();
}

#[test]
fn outputs_that_are_switched_off_are_not_announced() {
    let rig = Rig::start(&["-p", "publish_markers:=false", "-p", "publish_report:=false"]);
    assert_eq!([rig.markers().n_publishers(), rig.reports().n_publishers(), rig.objects().n_publishers()], [0, 0, 1]);
    rig.stop().unwrap();
}

#[test]
fn node_that_cannot_start_ends_with_reason_and_exit_code() {
    let cases: [(&[&str], u8, &str); 7] = [
        (&["-p", "model_dir:=/nowhere/model"], EXIT_MODEL, "/nowhere/model"),
        (&["-p", "device:=cuda:99"], EXIT_DEVICE, "device `cuda:99`"),
        (&["-p", "classes:=[Vehicle, Tram, Ship]"], EXIT_USAGE, "`Tram` is not a class of model `cp-pillar-v0.64-xxs`"),
        (&["-p", "score_threshold:=0.001"], EXIT_USAGE, "can only raise the threshold"),
        (&["-p", "time_offset_field:=t"], EXIT_USAGE, "does not take time_offset; it takes x, y, z, intensity, elongation"),
        (&["-p", "fill_absent:=[time_offset=0]"], EXIT_USAGE, "parameter `fill_absent` = [\"time_offset=0\"] (-p)"),
        (&["-p", "intensity_mode:=scale", "-p", "intensity_factor:=1e39"], EXIT_USAGE, "finite"),
    ];
    for (args, code, reason) in cases {
        let error = Rig::start(args).ended().unwrap_err();
        assert!(error.to_string().contains(reason), "{args:?}: {error}");
        assert_eq!(error.exit_code(), code, "{args:?}: {error}");
    }
}

#[test]
fn damaged_model_is_refused_with_every_difference() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("tiny");
    save_tiny_model(&dir);
    std::fs::remove_file(dir.join("provenance.json")).unwrap();
    let spec = std::fs::read_to_string(dir.join("spec.yaml")).unwrap();
    std::fs::write(dir.join("spec.yaml"), spec.replace("score_threshold", "score_treshold")).unwrap();
    let error = Rig::start_with(&dir, &[], folder).ended().unwrap_err();
    for part in ["provenance.json", "spec.yaml has SHA-256", "score_treshold"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!(error.exit_code(), EXIT_MODEL);
}
