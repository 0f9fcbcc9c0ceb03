//! Managed nodes, and the switch of those that are not.

use pivotal::msgs::Service;
use pivotal::msgs::diagnostic_msgs::DiagnosticStatus;
use pivotal::msgs::lifecycle_msgs::{
    ChangeState, ChangeStateRequest, GetAvailableStates, GetAvailableTransitions, GetState, Nothing, State, Transition,
    TransitionEvent,
};
use pivotal::msgs::std_msgs::Header;
use pivotal::msgs::std_srvs::{SetBool, SetBoolRequest};
use pivotal::node::names::expand;
use pivotal::node::run::Ending;
use pivotal::transport::{Transport, TransportError};

use super::rig::{Listener, Rig, cloud, value};

fn call<S: Service>(rig: &Rig, service: &str, request: &S::Request) -> Result<S::Response, TransportError> {
    let Transport::Inproc(bus) = &rig.transport else { unreachable!() };
    bus.call::<S>(&expand(&rig.names.node, &format!("~/{service}")).unwrap(), request)
}

fn state(rig: &Rig) -> String {
    call::<GetState>(rig, "get_state", &Nothing::default()).unwrap().current_state.label
}

/// As launch files ask, by number.
fn change(rig: &Rig, id: u8) -> bool {
    let transition = Transition { id, label: String::new() };
    call::<ChangeState>(rig, "change_state", &ChangeStateRequest { transition }).unwrap().success
}

/// As `ros2 lifecycle set` may ask, by name.
fn change_by_label(rig: &Rig, label: &str) -> bool {
    let transition = Transition { id: 0, label: label.to_owned() };
    call::<ChangeState>(rig, "change_state", &ChangeStateRequest { transition }).unwrap().success
}

fn available(rig: &Rig) -> Vec<String> {
    let answer = call::<GetAvailableTransitions>(rig, "get_available_transitions", &Nothing::default()).unwrap();
    answer.available_transitions.into_iter().map(|description| description.transition.label).collect()
}

fn message_of(rig: &Rig, start: &str) -> DiagnosticStatus {
    rig.wait_for_status(start, |status| status.message.starts_with(start))
}

#[test]
fn managed_node_loads_when_configured_works_when_active_and_lets_go_when_cleaned_up() {
    let rig = Rig::start(&["-p", "lifecycle:=true"]);
    let events: Listener<TransitionEvent> = rig.listen(&expand(&rig.names.node, "~/transition_event").unwrap());
    let objects = rig.objects();
    assert_eq!((state(&rig).as_str(), available(&rig)), ("unconfigured", vec!["configure".into(), "shutdown".into()]));
    let status = message_of(&rig, "unconfigured");
    assert_eq!((status.level, value(&status, "model")), (DiagnosticStatus::OK, ""));
    assert!(!change(&rig, Transition::ACTIVATE), "there is nothing to activate");

    assert!(change(&rig, Transition::CONFIGURE));
    assert_eq!(
        (state(&rig).as_str(), available(&rig)),
        ("inactive", vec!["cleanup".into(), "activate".into(), "shutdown".into()])
    );
    assert!(value(&message_of(&rig, "inactive"), "model").starts_with("cp-pillar-v0.64-xxs sha256:"));
    rig.send(&cloud(1, 50));
    rig.wait_for_status("a dropped cloud", |status| value(status, "clouds_skipped_idle") == "1");

    assert!(change_by_label(&rig, "activate"));
    rig.send(&cloud(2, 50));
    assert_eq!(objects.next().header.stamp.sec, 2, "the cloud of the inactive node is gone");
    assert!(change(&rig, Transition::DEACTIVATE));
    rig.send(&cloud(3, 50));
    rig.wait_for_status("another", |status| value(status, "clouds_skipped_idle") == "2");
    assert!(change_by_label(&rig, "cleanup"));
    assert_eq!(value(&message_of(&rig, "unconfigured"), "cold_start_ms"), "");

    // And once more from the start.
    assert!(change(&rig, Transition::CONFIGURE) && change(&rig, Transition::ACTIVATE));
    let sent: Vec<Header> = (4..6)
        .map(|stamp| {
            rig.send(&cloud(stamp, 50));
            objects.next().header
        })
        .collect();
    assert_eq!(sent.last().unwrap().stamp.sec, 5);
    assert!(change(&rig, Transition::ACTIVE_SHUTDOWN));
    assert_eq!((state(&rig).as_str(), available(&rig)), ("finalized", vec![]));
    message_of(&rig, "finalized");

    let seen: Vec<_> = (0..14).map(|_| events.next()).map(|event| (event.start_state.label, event.goal_state.label)).collect();
    let expected = [
        ("unconfigured", "configuring"),
        ("configuring", "inactive"),
        ("inactive", "activating"),
        ("activating", "active"),
        ("active", "deactivating"),
        ("deactivating", "inactive"),
        ("inactive", "cleaningup"),
        ("cleaningup", "unconfigured"),
        ("unconfigured", "configuring"),
        ("configuring", "inactive"),
        ("inactive", "activating"),
        ("activating", "active"),
        ("active", "shuttingdown"),
        ("shuttingdown", "finalized"),
    ];
    assert_eq!(seen, expected.map(|(start, goal)| (start.to_owned(), goal.to_owned())));
    assert_eq!(rig.stop().unwrap(), Ending::Complete);
}

#[test]
fn managed_node_whose_model_cannot_be_loaded_stays_unconfigured() {
    let rig = Rig::start(&["-p", "lifecycle:=true", "-p", "model_dir:=/nowhere/model"]);
    let events: Listener<TransitionEvent> = rig.listen(&expand(&rig.names.node, "~/transition_event").unwrap());
    for _ in 0..2 {
        assert!(!change(&rig, Transition::CONFIGURE));
        assert_eq!(state(&rig), "unconfigured");
        let ended = [events.next(), events.next()].map(|event| event.transition.label);
        assert_eq!(ended, ["configure", "transition_failure"]);
    }
    assert!(change_by_label(&rig, "shutdown"));
    assert_eq!(state(&rig), "finalized");
    rig.stop().unwrap();
}

#[test]
fn managed_node_tells_its_states_and_has_no_switch() {
    let rig = Rig::start(&["-p", "lifecycle:=true"]);
    let states = call::<GetAvailableStates>(&rig, "get_available_states", &Nothing::default()).unwrap().available_states;
    assert!(states.contains(&State { id: State::ACTIVE, label: "active".into() }) && states.len() == 10, "{states:?}");
    let graph = call::<GetAvailableTransitions>(&rig, "get_transition_graph", &Nothing::default()).unwrap();
    assert_eq!(graph.available_transitions.len(), 7);
    assert!(call::<SetBool>(&rig, "set_enabled", &SetBoolRequest { data: false }).is_err());
    rig.stop().unwrap();
}

#[test]
fn node_switched_off_drops_clouds_and_says_so_until_it_is_switched_on() {
    let rig = Rig::start(&[]);
    let objects = rig.objects();
    assert!(call::<SetBool>(&rig, "set_enabled", &SetBoolRequest { data: false }).unwrap().success);
    assert_eq!(message_of(&rig, "disabled").level, DiagnosticStatus::OK);
    rig.send(&cloud(1, 50));
    rig.wait_for_status("a dropped cloud", |status| value(status, "clouds_skipped_idle") == "1");
    assert!(call::<SetBool>(&rig, "set_enabled", &SetBoolRequest { data: true }).unwrap().success);
    rig.send(&cloud(2, 50));
    assert_eq!(objects.next().header.stamp.sec, 2);
    assert!(call::<GetState>(&rig, "get_state", &Nothing::default()).is_err(), "no managed node");
    rig.stop().unwrap();
}
