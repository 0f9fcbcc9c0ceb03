//! Payloads of every alignment and the ROS graph, with Cyclone DDS 11.

use std::time::Duration;

use pivotal::msgs::sensor_msgs::PointCloud2;
use pivotal::msgs::std_msgs::Header;
use pivotal::msgs::vision_msgs::Detection3DArray;
use pivotal::msgs::{Message, cdr};
use pivotal::transport::settings::DdsSettings;
use pivotal::transport::{Publisher, Qos, Reliability};
use serde_json::Value;

use super::peer::{BOTH, Peer, check_cloud, detections, pattern};
use super::{PATIENCE, participant, settings, topic, wait_until};

/// More than any test here sends, so that the mailbox loses nothing.
const DEPTH: usize = 500;

/// Lets the peer publish `count` clouds, of `lengths` in turn, and gives the numbers of those that arrived. Ends when all are
/// there, or some time after the last.
fn receive_clouds(
    settings: &DdsSettings,
    name: &str,
    reliability: (Reliability, &str),
    lengths: &[usize],
    count: usize,
    rate: &str,
) -> Vec<usize> {
    let topic = topic(name);
    let near = participant("receiver", settings);
    let subscription =
        near.subscribe(&topic, &PointCloud2::TYPE, Qos { reliability: reliability.0, depth: DEPTH, latched: false }).unwrap();
    let (dds_topic, count_text) = (topic.dds(), count.to_string());
    let lengths_text: Vec<String> = lengths.iter().map(usize::to_string).collect();
    let mut arguments =
        vec!["--publish", &dds_topic, "--reliability", reliability.1, "--count", &count_text, "--rate", rate, "--bytes"];
    arguments.extend(lengths_text.iter().map(String::as_str));
    let mut peer = Peer::start(settings, &arguments);
    assert_eq!(peer.hear()["event"], "matched");
    wait_until("the peer's match", || subscription.matched() > 0);
    peer.go();
    let mut numbers = Vec::new();
    while numbers.len() < count {
        // Best effort may lose the last ones.
        let patience =
            if numbers.is_empty() || reliability.0 == Reliability::Reliable { PATIENCE } else { Duration::from_secs(2) };
        let Some(sample) = subscription.recv(patience).unwrap() else { break };
        numbers.push(check_cloud(&sample.bytes, lengths));
    }
    assert_eq!(peer.finish()["sent"], count);
    numbers
}

#[test]
fn cyclone_clouds_of_every_alignment_arrive_unchanged() {
    let lengths: Vec<usize> = [1, 1300, 20_000, 65_300, 300_000].into_iter().flat_map(|base| base..base + 4).collect();
    for reliability in BOTH {
        let numbers = receive_clouds(
            &settings(10),
            &format!("/aligned_{}", reliability.1),
            reliability,
            &lengths,
            3 * lengths.len(),
            "200",
        );
        for at in 0..lengths.len() {
            assert!(
                numbers.iter().any(|number| number % lengths.len() == at),
                "none of {} bytes, {}",
                lengths[at],
                reliability.1
            );
        }
        if reliability.0 == Reliability::Reliable {
            assert_eq!(numbers, (0..3 * lengths.len()).collect::<Vec<_>>());
        }
    }
}

/// A publisher of ours with a peer that expects `count` messages, both matched and in step: until it has seen a heartbeat, a
/// volatile reader of Cyclone takes what arrives for history and drops it.
fn subscribed_by_peer<M: Message>(name: &str, nth: u32, reliability: (Reliability, &str), count: usize) -> (Publisher, Peer) {
    let (settings, topic) = (settings(nth), topic(name));
    let near = participant("sender", &settings);
    let publisher = near.advertise(&topic, &M::TYPE, Qos { reliability: reliability.0, depth: 100, latched: false }).unwrap();
    let (dds_topic, kind, count) = (topic.dds(), M::TYPE.ros.rsplit('/').next().unwrap(), count.to_string());
    let arguments = ["--subscribe", &dds_topic, "--type", kind, "--reliability", reliability.1, "--expect", &count];
    let mut peer = Peer::start(&settings, &arguments);
    assert_eq!(peer.hear()["event"], "matched");
    wait_until("the peer's match", || publisher.matched() > 0);
    // Both types here begin with a header and are zeros after it.
    let warm_up = [cdr::to_bytes(&Header { frame_id: "warm-up".to_owned(), ..Header::default() }), vec![0; 64]].concat();
    let warm = (0..100).find_map(|_| {
        publisher.publish(&warm_up).unwrap();
        peer.hear_within(PATIENCE / 100)
    });
    assert_eq!(warm.expect("the peer hears nothing")["event"], "warm");
    (publisher, peer)
}

#[test]
fn cyclone_receives_detections_of_every_alignment() {
    let arrays: Vec<_> = [100, 1_400, 3_000, 20_000, 64_000, 100_000]
        .into_iter()
        .flat_map(|len| (0..4).map(move |extra| detections(Header::default(), len, extra)))
        .collect();
    let remainders: Vec<usize> = arrays.iter().map(|(_, bytes)| bytes.len() % 4).collect();
    assert!((0..4).all(|remainder| remainders.contains(&remainder)), "{remainders:?}");
    for reliability in BOTH {
        let name = format!("/objects_{}", reliability.1);
        let (publisher, peer) = subscribed_by_peer::<Detection3DArray>(&name, 12, reliability, arrays.len());
        for (_, bytes) in &arrays {
            publisher.publish(bytes).unwrap();
            // The peer's socket may hold no more than two of the largest, and nobody repeats what best effort lost.
            std::thread::sleep(Duration::from_millis(if reliability.0 == Reliability::BestEffort { 50 } else { 0 }));
        }
        let summary = peer.finish_expecting();
        assert_eq!([&summary["received"], &summary["refused"]], [arrays.len(), 0], "{}", reliability.1);
        for ((array, _), heard) in arrays.iter().zip(summary["samples"].as_array().unwrap()) {
            let ids: Vec<&str> = array.detections.iter().map(|detection| detection.id.as_str()).collect();
            assert_eq!(heard["ids"], Value::from(ids));
        }
    }
}

#[test]
fn cyclone_receives_fragmented_clouds_of_every_alignment() {
    let lengths: Vec<usize> = [1, 66_000, 1_000_000].into_iter().flat_map(|base| base..base + 4).collect();
    let (publisher, peer) = subscribed_by_peer::<PointCloud2>("/clouds", 13, BOTH[1], lengths.len());
    for (number, len) in lengths.iter().enumerate() {
        let data: Vec<u8> = (0..*len).map(|at| pattern(number, at)).collect();
        let header = Header { frame_id: format!("cloud {number}"), ..Header::default() };
        let mut bytes = cdr::to_bytes(&PointCloud2 { header, data, is_dense: true, ..PointCloud2::default() });
        // The last field is a 1; what follows is padding.
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
        publisher.publish(&bytes).unwrap();
    }
    let summary = peer.finish_expecting();
    let heard = summary["samples"].as_array().unwrap();
    assert_eq!(heard.iter().map(|sample| sample["bytes"].as_u64().unwrap() as usize).collect::<Vec<_>>(), lengths, "{summary}");
    assert!(heard.iter().all(|sample| sample["intact"] == true), "{summary}");
}

#[test]
fn cyclone_sees_the_node_with_its_endpoints_in_the_ros_graph() {
    let settings = settings(14);
    let near = participant("graphed", &settings);
    let points = near.subscribe(&topic("/points"), &PointCloud2::TYPE, Qos::SENSOR).unwrap();
    let objects = near.advertise(&topic("/objects"), &Detection3DArray::TYPE, Qos::RELIABLE).unwrap();
    let mut peer = Peer::start(
        &settings,
        &[
            "--subscribe",
            "ros_discovery_info",
            "--type",
            "ParticipantEntitiesInfo",
            "--publish",
            &points.topic().dds(),
            "--count",
            "0",
        ],
    );
    let matched = peer.hear();
    assert_eq!(matched["event"], "matched");
    peer.go();
    // Counts of readers and writers; the peer hears of every change, the oldest first.
    let mut hear_until = |counts: [usize; 2]| loop {
        let node = peer.hear()["nodes"][0].take();
        if ["readers", "writers"].map(|kind| node[kind].as_array().unwrap().len()) == counts {
            return node;
        }
    };
    let node = hear_until([1, 1]);
    assert_eq!(node["name"], "/test/graphed");
    assert_eq!(node["readers"], matched["endpoints"], "the reader that the peer's writer matched");
    drop(objects);
    hear_until([1, 0]);
}
