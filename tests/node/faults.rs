//! Faults in random order: the node outlives them all and accounts for each.

use pivotal::msgs::rcl_interfaces::{Parameter, ParameterType, ParameterValue, ParametersToSet, SetParametersAtomically};
use pivotal::msgs::std_srvs::{SetBool, SetBoolRequest};
use pivotal::node::names::expand;
use pivotal::transport::Transport;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::rig::{Rig, cloud, value};

const STEPS: usize = 400;

#[derive(Debug, Clone, Copy)]
enum Event {
    Good,
    WithoutX,
    CutShort,
    Garbage,
    Empty,
    NotFinite,
    JumpBack,
    Change,
    WrongChange,
    SwitchedOff,
}

const EVENTS: [Event; 10] = [
    Event::Good,
    Event::WithoutX,
    Event::CutShort,
    Event::Garbage,
    Event::Empty,
    Event::NotFinite,
    Event::JumpBack,
    Event::Change,
    Event::WrongChange,
    Event::SwitchedOff,
];

fn set_max_detections(rig: &Rig, integer_value: i64) -> bool {
    let Transport::Inproc(bus) = &rig.transport else { unreachable!() };
    let value = ParameterValue { r#type: ParameterType::INTEGER, integer_value, ..ParameterValue::default() };
    let request = ParametersToSet { parameters: vec![Parameter { name: "max_detections".into(), value }] };
    let service = expand(&rig.names.node, "~/set_parameters_atomically").unwrap();
    bus.call::<SetParametersAtomically>(&service, &request).unwrap().result.successful
}

fn switch(rig: &Rig, data: bool) {
    let Transport::Inproc(bus) = &rig.transport else { unreachable!() };
    bus.call::<SetBool>(&expand(&rig.names.node, "~/set_enabled").unwrap(), &SetBoolRequest { data }).unwrap();
}

#[test]
fn faults_in_random_order_end_nothing_and_are_all_accounted_for() {
    let rig = Rig::start(&[]);
    rig.wait_for_status("a loaded model", |status| !value(status, "cold_start_ms").is_empty());
    let (reports, objects) = (rig.reports(), rig.objects());
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let (mut stamp, mut newest, mut limit) = (1000, 0, 0);
    let (mut n_processed, mut n_failed, mut n_dropped) = (0, 0, 0);
    for step in 0..STEPS {
        let event = *EVENTS.choose(&mut random).unwrap();
        stamp += 1;
        let mut message = cloud(stamp, random.random_range(1..60));
        let mut failure = None;
        let mut flag = None;
        match event {
            Event::Good => {}
            Event::WithoutX => {
                message.fields.remove(0);
                failure = Some("malformed cloud");
            }
            Event::CutShort => {
                message.data.pop();
                failure = Some("malformed cloud");
            }
            Event::Garbage => failure = Some("malformed message"),
            Event::Empty => {
                message = cloud(stamp, 0);
                flag = Some("empty_cloud");
            }
            Event::NotFinite => {
                message.data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
            }
            Event::JumpBack => {
                stamp -= random.random_range(2..500);
                message.header.stamp.sec = stamp;
                flag = (stamp < newest).then_some("time_jump_back");
            }
            Event::Change => {
                limit = random.random_range(0..9);
                assert!(set_max_detections(&rig, limit));
            }
            Event::WrongChange => assert!(!set_max_detections(&rig, -1)),
            Event::SwitchedOff => {
                switch(&rig, false);
                rig.send(&message);
                n_dropped += 1;
                rig.wait_for_status("a dropped cloud", |status| value(status, "clouds_skipped_idle") == n_dropped.to_string());
                switch(&rig, true);
                continue;
            }
        }
        match event {
            Event::Garbage => rig.clouds.publish(&[0, 1, 0, 0, 9, 9, 9, 9]).unwrap(),
            _ => rig.send(&message),
        }
        let report = reports.next();
        if let Some(failure) = failure {
            n_failed += 1;
            assert!(report.flags[0].contains(failure) && !report.objects_published(), "{step} {event:?}: {:?}", report.flags);
        } else {
            n_processed += 1;
            newest = stamp;
            let array = objects.next();
            assert_eq!((&array.header, &report.header), (&message.header, &message.header), "{step} {event:?}");
            assert!(limit == 0 || array.detections.len() <= limit as usize, "{step}: {} of {limit}", array.detections.len());
            assert!(
                flag.is_none_or(|flag| report.flags.iter().any(|known| known == flag)),
                "{step} {event:?}: {:?}",
                report.flags
            );
            assert_eq!(report.points_non_finite, u32::from(matches!(event, Event::NotFinite)), "{step} {event:?}");
        }
        assert_eq!(report.clouds_failed, n_failed, "{step} {event:?}");
    }
    let status = rig.wait_for_status("all clouds", |status| value(status, "clouds_processed") == n_processed.to_string());
    let counted = ["clouds_failed", "clouds_skipped_idle", "clouds_overwritten"].map(|key| value(&status, key).to_owned());
    assert_eq!(counted, [n_failed, n_dropped, 0].map(|count| count.to_string()));
    assert!(n_failed > 50 && n_dropped > 20, "{n_failed} {n_dropped}: every fault happened");
    assert_eq!(value(&status, "pipeline_rebuilds"), "0");
    rig.stop().unwrap();
}
