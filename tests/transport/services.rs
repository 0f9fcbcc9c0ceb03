//! Services: in process, to a client of another DDS mapping on the same library, and to Cyclone DDS.

use pivotal::msgs::Service;
use pivotal::msgs::rcl_interfaces::{ListParameters, ListParametersRequest, ListParametersResponse, ListParametersResult};
use pivotal::msgs::std_srvs::{SetBool, SetBoolRequest, SetBoolResponse};
use pivotal::transport::settings::DdsSettings;
use pivotal::transport::{Transport, TransportError};
use ros2_client::{Name, NodeOptions, ServiceMapping, ServiceTypeName};
use rustdds::QosPolicyBuilder;
use rustdds::policy::{History, Reliability};

use super::peer::python_peer;
use super::{PATIENCE, participant, settings, topic};

/// Echoes what it is asked, so that every byte of the question counts.
fn echo(asked: ListParametersRequest) -> ListParametersResponse {
    let names = asked.prefixes.iter().map(|prefix| format!("{prefix}.{}", asked.depth)).collect();
    ListParametersResponse { result: ListParametersResult { names, prefixes: asked.prefixes } }
}

#[test]
fn inproc_service_answers_until_it_is_dropped() {
    let transport = Transport::inproc();
    let Transport::Inproc(bus) = &transport else { unreachable!() };
    let name = topic("/switch");
    let mut n_asked = 0;
    let handler = move |asked: SetBoolRequest| {
        n_asked += 1;
        SetBoolResponse { success: asked.data, message: format!("asked {n_asked} times") }
    };
    let server = transport.serve::<SetBool>(&name, handler).unwrap();
    for (data, message) in [(true, "asked 1 times"), (false, "asked 2 times")] {
        let answer = bus.call::<SetBool>(&name, &SetBoolRequest { data }).unwrap();
        assert_eq!(answer, SetBoolResponse { success: data, message: message.to_owned() });
    }
    let twice = transport.serve::<SetBool>(&name, |_| SetBoolResponse::default()).err().unwrap().to_string();
    assert!(twice.contains("switch (std_srvs/srv/SetBool): is offered already"), "{twice}");
    let other_type = bus.call::<ListParameters>(&name, &ListParametersRequest::default()).unwrap_err().to_string();
    assert!(other_type.contains("is not offered"), "{other_type}");
    drop(server);
    assert!(matches!(bus.call::<SetBool>(&name, &SetBoolRequest { data: true }), Err(TransportError::Service { .. })));
}

/// ros2-client wants types of its own crate or of this one.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Question(ListParametersRequest);
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Answer(ListParametersResponse);
impl ros2_client::Message for Question {}
impl ros2_client::Message for Answer {}

fn client_context(settings: &DdsSettings) -> ros2_client::Context {
    let builder = rustdds::DomainParticipantBuilder::new(settings.domain_id);
    let domain = builder.with_only_networks([std::net::Ipv4Addr::LOCALHOST]).build().unwrap();
    ros2_client::Context::from_domain_participant(domain).unwrap()
}

/// As clients on Fast DDS ask: which question an answer belongs to is said beside the payload.
#[test]
fn dds_service_answers_clients_of_the_enhanced_mapping() {
    let settings = settings(18);
    let near = participant("server", &settings);
    let name = topic("/list");
    let _server = near.serve::<ListParameters>(&name, echo).unwrap();

    let context = client_context(&settings);
    let mut node = context.new_node(ros2_client::NodeName::new("/test", "client").unwrap(), NodeOptions::new()).unwrap();
    let spinner = node.spinner().unwrap();
    let reliability = Reliability::Reliable { max_blocking_time: rustdds::Duration::from_millis(500) };
    let qos = QosPolicyBuilder::new().reliability(reliability).history(History::KeepLast { depth: 10 }).build();
    let (package, kind) = ListParameters::TYPE.ros.split_once("/srv/").unwrap();
    let client = node
        .create_client::<Question, Answer>(
            ServiceMapping::Enhanced,
            &Name::parse(name.as_str()).unwrap(),
            &ServiceTypeName::new(package, kind),
            (&qos).into(),
            (&qos).into(),
        )
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let asking = async {
            client.wait_for_service(&node).await;
            for depth in 0..3 {
                let question = ListParametersRequest { prefixes: vec!["a".into(), "bcd".into()], depth };
                let answer = client.async_call_service(Question(question.clone())).await.unwrap();
                assert_eq!(answer.0, echo(question));
            }
        };
        tokio::select! {
            () = asking => {}
            _ = spinner.spin() => panic!("the client's node ended"),
            () = tokio::time::sleep(2 * PATIENCE) => panic!("no answer"),
        }
    });
}

/// Its middleware puts the question's number into the payload.
#[test]
fn dds_service_answers_clients_on_cyclone() {
    let settings = settings(19);
    let near = participant("server", &settings);
    let name = topic("/list");
    let _server = near.serve::<ListParameters>(&name, echo).unwrap();
    let output = python_peer("cyclone_client.py")
        .args(["--domain", &settings.domain_id.to_string(), "--service", name.as_str(), "--times", "3", "--depth", "7"])
        .args(["--prefixes", "a", "bcd"])
        .env_remove("CYCLONEDDS_URI")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected: Vec<_> =
        (1..=3).map(|number| serde_json::json!({"client": true, "number": number, "names": ["a.7", "bcd.7"]})).collect();
    assert_eq!(answers, expected, "{}", String::from_utf8_lossy(&output.stderr));
}
