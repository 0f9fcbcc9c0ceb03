//! Parameters of a running node, through its services.

use pivotal::model::directory;
use pivotal::msgs::rcl_interfaces::{
    DescribeParameters, GetParameterTypes, GetParameters, ListParameters, ListParametersRequest, Parameter, ParameterEvent,
    ParameterNames, ParameterType, ParameterValue, ParametersToSet, SetParameters, SetParametersAtomically, SetParametersResult,
};
use pivotal::msgs::{Service, diagnostic_msgs::DiagnosticStatus};
use pivotal::node::config::ResolvedParams;
use pivotal::node::live::LiveParams;
use pivotal::node::names::expand;
use pivotal::node::param_value::ParamValue;
use pivotal::node::params::DECLARATIONS;
use pivotal::transport::Transport;
use pivotal::transport::names::TopicName;

use super::rig::{Listener, Rig, cloud, save_tiny_model, value};

fn call<S: Service>(rig: &Rig, service: &str, request: &S::Request) -> S::Response {
    let Transport::Inproc(bus) = &rig.transport else { unreachable!() };
    bus.call::<S>(&expand(&rig.names.node, &format!("~/{service}")).unwrap(), request).unwrap()
}

fn names(names: &[&str]) -> ParameterNames {
    ParameterNames { names: names.iter().map(|name| (*name).to_owned()).collect() }
}

fn double(name: &str, double_value: f64) -> Parameter {
    let value = ParameterValue { r#type: ParameterType::DOUBLE, double_value, ..ParameterValue::default() };
    Parameter { name: name.to_owned(), value }
}

fn integer(name: &str, integer_value: i64) -> Parameter {
    let value = ParameterValue { r#type: ParameterType::INTEGER, integer_value, ..ParameterValue::default() };
    Parameter { name: name.to_owned(), value }
}

fn strings(name: &str, values: &[&str]) -> Parameter {
    let string_array_value = values.iter().map(|value| (*value).to_owned()).collect();
    let value = ParameterValue { r#type: ParameterType::STRING_ARRAY, string_array_value, ..ParameterValue::default() };
    Parameter { name: name.to_owned(), value }
}

fn set(rig: &Rig, parameters: &[Parameter]) -> Vec<SetParametersResult> {
    let request = ParametersToSet { parameters: parameters.to_vec() };
    call::<SetParameters>(rig, "set_parameters", &request).results
}

fn set_atomically(rig: &Rig, parameters: &[Parameter]) -> SetParametersResult {
    let request = ParametersToSet { parameters: parameters.to_vec() };
    call::<SetParametersAtomically>(rig, "set_parameters_atomically", &request).result
}

fn ready(rig: &Rig) {
    rig.wait_for_status("a loaded model", |status| !value(status, "cold_start_ms").is_empty());
}

#[test]
fn parameters_are_listed_described_and_read_as_declared() {
    let rig = Rig::start(&["-p", "classes:=[Vehicle]", "-p", "input_depth:=3"]);
    let listed = call::<ListParameters>(&rig, "list_parameters", &ListParametersRequest::default()).result;
    let mut declared: Vec<_> = DECLARATIONS.iter().map(|declaration| declaration.name).collect();
    declared.sort_unstable();
    assert_eq!(listed.names, declared);
    let only = ListParametersRequest { prefixes: vec!["device".into()], depth: 1 };
    assert_eq!(call::<ListParameters>(&rig, "list_parameters", &only).result.names, ["device"]);

    let asked = names(&["classes", "input_depth", "device", "score_threshold", "use_sim_time"]);
    let values = call::<GetParameters>(&rig, "get_parameters", &asked).values;
    assert_eq!(values[0], strings("", &["Vehicle"]).value);
    assert_eq!(values[1], integer("", 3).value);
    assert_eq!((values[2].r#type, values[2].string_value.as_str()), (ParameterType::STRING, "cpu"));
    assert_eq!(values[3], double("", 0.0).value);
    assert_eq!((values[4].r#type, values[4].bool_value), (ParameterType::BOOL, false));
    let types = call::<GetParameterTypes>(&rig, "get_parameter_types", &asked).types;
    assert_eq!(types, values.iter().map(|value| value.r#type).collect::<Vec<_>>());

    let described = call::<DescribeParameters>(&rig, "describe_parameters", &asked).descriptors;
    for descriptor in &described {
        let declaration = DECLARATIONS.iter().find(|declaration| declaration.name == descriptor.name).unwrap();
        assert_eq!((&*descriptor.description, descriptor.read_only), (declaration.description, declaration.read_only));
    }
    let (depth, threshold) = (&described[1], &described[3]);
    assert_eq!((depth.integer_range[0].from_value, depth.integer_range[0].to_value), (1, 100));
    assert_eq!(depth.additional_constraints, "in [1, 100] (clouds)");
    assert_eq!((threshold.floating_point_range[0].to_value, &*threshold.additional_constraints), (1.0, "in [0, 1)"));

    for asked in [names(&["device", "no_such"]), names(&["no_such"])] {
        assert!(call::<GetParameters>(&rig, "get_parameters", &asked).values.is_empty());
        assert!(call::<DescribeParameters>(&rig, "describe_parameters", &asked).descriptors.is_empty());
    }
    rig.stop().unwrap();
}

#[test]
fn parameters_refused_at_run_time_name_the_reason_and_change_nothing() {
    let rig = Rig::start(&[]);
    ready(&rig);
    let cases = [
        (
            integer("input_depth", 2),
            "parameter `input_depth` = 2 (set while the node runs): is read-only: it decides at the start and is 1",
        ),
        (integer("no_such", 2), "is not a parameter of this node"),
        (integer("classes", 2), "must be string_array, not integer"),
        (double("score_threshold", 1.0), "must be double in [0, 1)"),
        (double("score_threshold", 0.001), "can only raise the threshold"),
        (strings("classes", &["Tram"]), "`Tram` is not a class of model"),
        (Parameter { name: "classes".into(), value: ParameterValue::default() }, "must be string_array, not nothing"),
        (Parameter { name: "classes".into(), value: ParameterValue { r#type: 77, ..Default::default() } }, "type 77 is none of"),
    ];
    let before = call::<GetParameters>(&rig, "get_parameters", &names(&["input_depth", "classes", "score_threshold"]));
    for (parameter, reason) in cases {
        let results = set(&rig, std::slice::from_ref(&parameter));
        assert!(!results[0].successful && results[0].reason.contains(reason), "{}: {results:?}", parameter.name);
    }
    // One that is good beside one that is not.
    let both = [integer("max_detections", 1), integer("input_depth", 2)];
    let refused = set_atomically(&rig, &both);
    assert!(
        !refused.successful && refused.reason.contains("input_depth") && !refused.reason.contains("max_detections"),
        "{refused:?}"
    );
    let asked = names(&["max_detections"]);
    assert_eq!(call::<GetParameters>(&rig, "get_parameters", &asked).values, [integer("", 0).value]);
    assert_eq!(set(&rig, &both).iter().map(|result| result.successful).collect::<Vec<_>>(), [true, false]);
    assert_eq!(call::<GetParameters>(&rig, "get_parameters", &asked).values, [integer("", 1).value]);
    // The value it has: a dump of all parameters can be loaded again.
    assert!(set_atomically(&rig, &[integer("input_depth", 1), integer("max_detections", 0)]).successful);
    let after = call::<GetParameters>(&rig, "get_parameters", &names(&["input_depth", "classes", "score_threshold"]));
    assert_eq!(before, after);
    rig.stop().unwrap();
}

#[test]
fn parameters_changed_apply_to_the_next_cloud() {
    let rig = Rig::start(&[]);
    ready(&rig);
    let objects = rig.objects();
    let mut stamp = 0;
    let mut found = || {
        stamp += 1;
        rig.send(&cloud(stamp, 400));
        objects.next().detections
    };
    let all = found();
    let best = all[0].results[0].hypothesis.score;
    assert!(all.len() > 2, "the made-up weights find something");

    assert!(set_atomically(&rig, &[integer("max_detections", 2), double("nms_iou", 0.3)]).successful);
    assert_eq!(found().len(), 2);
    assert!(set_atomically(&rig, &[integer("max_detections", 0), double("nms_iou", 0.01)]).successful);
    let apart = found();
    assert!(apart.len() < all.len(), "a smaller overlap leaves fewer boxes: {} of {}", apart.len(), all.len());
    assert!(set_atomically(&rig, &[double("nms_iou", 0.0)]).successful);
    assert_eq!(found().len(), all.len(), "0 is the model's own again");

    let class = all[0].results[0].hypothesis.class_id.clone();
    assert!(set_atomically(&rig, &[strings("classes", &[&class])]).successful);
    assert!(found().iter().all(|object| object.results[0].hypothesis.class_id == class));
    assert!(set_atomically(&rig, &[strings("classes", &[]), double("score_threshold", (best + 1.0) / 2.0)]).successful);
    assert!(found().is_empty());
    rig.stop().unwrap();
}

#[test]
fn parameters_of_diagnostics_change_while_nothing_comes() {
    let rig = Rig::start(&["-p", "input_timeout_s:=3600.0"]);
    ready(&rig);
    assert!(set_atomically(&rig, &[double("input_timeout_s", 0.1)]).successful);
    rig.wait_for_status("silence", |status| status.level == DiagnosticStatus::STALE);
    rig.stop().unwrap();
}

#[test]
fn parameter_events_tell_of_the_start_and_of_changes_only() {
    let rig = Rig::start(&[]);
    ready(&rig);
    let events: Listener<ParameterEvent> = rig.listen(&TopicName::new("/parameter_events").unwrap());
    assert!(set_atomically(&rig, &[integer("max_detections", 0)]).successful, "no change");
    assert!(!set(&rig, &[integer("input_depth", 9)])[0].successful, "refused");
    assert!(set_atomically(&rig, &[integer("max_detections", 5), double("nms_iou", 0.2)]).successful);
    let event = events.next();
    assert_eq!(event.node, "/detector_node");
    assert!(event.new_parameters.is_empty() && event.deleted_parameters.is_empty());
    assert_eq!(event.changed_parameters, [integer("max_detections", 5), double("nms_iou", 0.2)]);
    rig.stop().unwrap();
}

#[test]
fn live_parameters_before_the_model_is_known_are_checked_when_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("tiny");
    save_tiny_model(&dir);
    let model = directory::load(&dir).unwrap();
    let source = pivotal::node::args::ParamSource::Assignment {
        node: None,
        name: "model_dir".into(),
        value: ParamValue::String("/m".into()),
    };
    let live = LiveParams::new(ResolvedParams::new(&[source], "/d").unwrap());
    let tram = [("classes".to_owned(), ParamValue::List(vec![ParamValue::String("Tram".into())]))];
    assert_eq!(live.set(&tram).unwrap().len(), 1);
    assert!(live.bind(&model.spec).unwrap_err().to_string().contains("`Tram` is not a class"));
    let version = live.version();
    live.set(&[("classes".to_owned(), ParamValue::List(vec![]))]).unwrap();
    assert_ne!(live.version(), version);
    live.bind(&model.spec).unwrap();
    assert!(live.set(&tram).unwrap_err().contains("`Tram` is not a class"));
}
