//! Tests of `transport`: the seam over each backend, and DDS against itself.
//!
//! Everything stays on the loopback interface, in DDS domains and under topic names picked from the process id, so that runs
//! side by side do not hear each other.

mod cyclone;
mod exchange;
pub mod peer;
mod services;

use std::time::{Duration, Instant};

use pivotal::msgs::sensor_msgs::PointCloud2;
use pivotal::msgs::vision_msgs::Detection3DArray;
use pivotal::msgs::{Message, MsgType};
use pivotal::transport::names::{NodeName, TopicName};
use pivotal::transport::settings::{DdsSettings, DiscoveryRange};
use pivotal::transport::{Publisher, Qos, Reliability, Subscription, Transport, TransportError, buffers};

/// Longer than discovery and delivery ever take; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What "nothing arrives" is given to arrive in.
const A_WHILE: Duration = Duration::from_millis(300);

const CLOUD: &MsgType = &PointCloud2::TYPE;

/// A topic of this process: `/points` becomes `/run4711/points`.
pub fn topic(name: &str) -> TopicName {
    TopicName::new(&format!("/run{}{name}", std::process::id())).unwrap()
}

/// A domain on this machine only; `nth` keeps the tests of one run apart, since 12 participants at most find each other
/// without multicast. Above domain 101 Linux may have lent the ports to others.
pub fn settings(nth: u32) -> DdsSettings {
    let domain_id = ((std::process::id() * 7 + nth) % 101 + 1) as u16;
    DdsSettings { domain_id, range: DiscoveryRange::Localhost, ..DdsSettings::DEFAULT }
}

pub fn participant(name: &str, settings: &DdsSettings) -> Transport {
    Transport::dds(&NodeName::new("/test", name).unwrap(), settings).unwrap()
}

/// A payload with header whose body holds `number` and a pattern; `len` bytes in all.
fn payload(len: usize, number: u32) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 0];
    bytes.extend(number.to_le_bytes());
    bytes.extend((bytes.len()..len).map(|at| (at * 31 + number as usize) as u8));
    assert_eq!(bytes.len(), len, "a payload has at least 8 bytes");
    bytes
}

/// Waits until `done`, by looking again and again.
pub fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn wait_matched(publisher: &Publisher, subscription: &Subscription) {
    wait_until("a match", || publisher.matched() > 0 && subscription.matched() > 0);
}

/// Sends each payload once the one before has arrived, and compares what arrives, padding included. What is lost is sent again,
/// which a reliable topic must not need.
fn assert_each_arrives(publisher: &Publisher, subscription: &Subscription, reliability: Reliability, sizes: &[usize]) {
    let (attempts, patience) = match reliability {
        Reliability::BestEffort => (10, PATIENCE / 10),
        Reliability::Reliable => (1, PATIENCE),
    };
    for (number, len) in (0..).zip(sizes.iter().copied()) {
        let sent = payload(len, number);
        let arrived = (0..attempts).find_map(|_| {
            publisher.publish(&sent).unwrap();
            // An earlier one, thought to be lost, may still come.
            std::iter::from_fn(|| subscription.recv(patience).unwrap()).find(|sample| sample.bytes[4..8] == number.to_le_bytes())
        });
        let arrived = arrived.unwrap_or_else(|| panic!("{len} bytes did not arrive"));
        assert_eq!(arrived.bytes.len(), len.next_multiple_of(4), "padded length of {len}");
        let (body, padding) = arrived.bytes.split_at(len);
        assert!(body == sent, "{len} bytes arrived changed");
        assert!(padding.iter().all(|byte| *byte == 0), "padding of {len}: {padding:?}");
    }
}

/// 180 000 points of 32 bytes, where the kernel lets a socket hold what comes over loopback.
fn largest_cloud() -> usize {
    let limit = buffers::receive_limit_bytes();
    if limit.is_none_or(|limit| limit >= buffers::ENOUGH_BYTES / 2) {
        return 5_760_000;
    }
    eprintln!("NOT TESTED with 6 MB clouds, only with 60 KB: {}", buffers::receive_limit_warning(limit).unwrap_or_default());
    60_000
}

#[test]
fn inproc_slow_reader_gets_the_newest_and_the_rest_is_counted() {
    let bus = Transport::inproc();
    let publisher = bus.advertise(&topic("/points"), CLOUD, Qos::SENSOR).unwrap();
    publisher.publish(&payload(8, 0)).unwrap();
    let newest = bus.subscribe(&topic("/points"), CLOUD, Qos::SENSOR).unwrap();
    let all = bus.subscribe(&topic("/points"), CLOUD, Qos { depth: 10, ..Qos::SENSOR }).unwrap();
    for number in 1..=5 {
        publisher.publish(&payload(8, number)).unwrap();
    }
    let read = |subscription: &Subscription| -> Vec<u8> {
        std::iter::from_fn(|| subscription.recv(Duration::ZERO).unwrap().map(|sample| sample.bytes[4])).collect()
    };
    assert_eq!((read(&newest), newest.overwritten(), newest.received()), (vec![5], 4, 5));
    assert_eq!((read(&all), all.overwritten(), all.received()), (vec![1, 2, 3, 4, 5], 0, 5));
}

#[test]
fn inproc_payloads_are_padded_as_on_dds() {
    let bus = Transport::inproc();
    let publisher = bus.advertise(&topic("/points"), CLOUD, Qos::SENSOR).unwrap();
    let subscription = bus.subscribe(&topic("/points"), CLOUD, Qos::SENSOR).unwrap();
    assert_each_arrives(&publisher, &subscription, Reliability::Reliable, &[8, 9, 10, 11, 12]);
}

#[test]
fn inproc_matches_follow_endpoints_and_reliability() {
    let bus = Transport::inproc();
    let name = topic("/points");
    let best_effort = bus.advertise(&name, CLOUD, Qos::SENSOR).unwrap();
    let reliable = bus.advertise(&name, CLOUD, Qos::RELIABLE).unwrap();
    let strict = bus.subscribe(&name, CLOUD, Qos::RELIABLE).unwrap();
    let lax = bus.subscribe(&name, CLOUD, Qos::SENSOR).unwrap();
    assert_eq!([best_effort.matched(), reliable.matched(), strict.matched(), lax.matched()], [1, 2, 1, 2]);
    best_effort.publish(&payload(8, 1)).unwrap();
    assert_eq!([strict.received(), lax.received()], [0, 1]);
    drop((lax, reliable));
    assert_eq!([best_effort.matched(), strict.matched()], [0, 0]);
}

#[test]
fn inproc_topic_of_another_type_is_refused_until_the_first_is_gone() {
    let bus = Transport::inproc();
    let first = bus.subscribe(&topic("/points"), CLOUD, Qos::SENSOR).unwrap();
    let Err(refusal) = bus.advertise(&topic("/points"), &Detection3DArray::TYPE, Qos::SENSOR) else { panic!("accepted") };
    assert!(matches!(refusal, TransportError::TypeMismatch { .. }), "{refusal}");
    drop(first);
    bus.advertise(&topic("/points"), &Detection3DArray::TYPE, Qos::SENSOR).unwrap();
}

#[test]
fn publishing_without_a_little_endian_header_is_refused_by_each_backend() {
    for transport in [Transport::inproc(), participant("headers", &settings(0))] {
        let publisher = transport.advertise(&topic("/points"), CLOUD, Qos::SENSOR).unwrap();
        for bytes in [&[][..], &[0, 1, 0], &[0, 0, 0, 0, 7, 7, 7, 7], b"\xff\xff\xff\xff"] {
            let refusal = publisher.publish(bytes).unwrap_err().to_string();
            assert!(refusal.contains("/points") && refusal.contains("[00, 01, 00, 00]"), "{refusal}");
        }
    }
}

#[test]
fn depth_of_zero_is_refused_by_each_backend() {
    for transport in [Transport::inproc(), participant("depths", &settings(1))] {
        let qos = Qos { depth: 0, ..Qos::SENSOR };
        assert!(transport.subscribe(&topic("/points"), CLOUD, qos).is_err());
        assert!(transport.advertise(&topic("/points"), CLOUD, qos).is_err());
    }
}

#[test]
fn dds_payloads_of_every_alignment_and_fragmentation_arrive_unchanged() {
    let settings = settings(2);
    let (near, far) = (participant("near", &settings), participant("far", &settings));
    for (name, qos) in [("/best_effort", Qos::SENSOR), ("/reliable", Qos::RELIABLE)] {
        let publisher = near.advertise(&topic(name), CLOUD, qos).unwrap();
        let subscription = far.subscribe(&topic(name), CLOUD, qos).unwrap();
        wait_matched(&publisher, &subscription);
        // Loopback fragments above 64 KB.
        let bases = [8, 1500, 65_000, 65_536, 200_000, largest_cloud()];
        let sizes: Vec<usize> = bases.into_iter().flat_map(|base| base..base + 4).collect();
        assert_each_arrives(&publisher, &subscription, qos.reliability, &sizes);
    }
}

#[test]
fn dds_match_needs_fitting_reliability_and_ends_with_either_side() {
    let settings = settings(3);
    let (near, far) = (participant("near", &settings), participant("far", &settings));
    let publisher = near.advertise(&topic("/points"), CLOUD, Qos::SENSOR).unwrap();
    let strict = far.subscribe(&topic("/points"), CLOUD, Qos::RELIABLE).unwrap();
    let lax = far.subscribe(&topic("/points"), CLOUD, Qos::SENSOR).unwrap();
    wait_matched(&publisher, &lax);
    assert_eq!((publisher.matched(), strict.matched()), (1, 0));
    publisher.publish(&payload(8, 1)).unwrap();
    assert!(lax.recv(PATIENCE).unwrap().is_some());
    assert!(strict.recv(A_WHILE).unwrap().is_none());
    drop((lax, strict, far));
    wait_until("the reader's leave", || publisher.matched() == 0);
}

#[test]
fn dds_participants_of_other_domains_or_without_discovery_stay_apart() {
    let here = settings(4);
    let elsewhere = settings(5);
    let off = DdsSettings { range: DiscoveryRange::Off, ..here.clone() };
    let transports = [participant("here", &here), participant("elsewhere", &elsewhere), participant("off", &off)];
    let subscriptions = transports.each_ref().map(|it| it.subscribe(&topic("/points"), CLOUD, Qos::SENSOR).unwrap());
    let witness = participant("witness", &here);
    let publisher = witness.advertise(&topic("/points"), CLOUD, Qos::SENSOR).unwrap();
    wait_until("the match in the same domain", || publisher.matched() > 0);
    assert!(subscriptions[1].recv(A_WHILE).unwrap().is_none());
    assert_eq!(subscriptions.each_ref().map(Subscription::matched), [1, 0, 0]);
    assert_eq!(publisher.matched(), 1);
}

#[test]
fn dds_slow_reader_gets_the_newest_and_the_rest_is_counted() {
    let settings = settings(6);
    let (near, far) = (participant("near", &settings), participant("far", &settings));
    let publisher = near.advertise(&topic("/points"), CLOUD, Qos::RELIABLE).unwrap();
    let qos = Qos { depth: 1, ..Qos::RELIABLE };
    let subscription = far.subscribe(&topic("/points"), CLOUD, qos).unwrap();
    wait_matched(&publisher, &subscription);
    for number in 1..=20 {
        publisher.publish(&payload(100_000, number)).unwrap();
        wait_until("arrival", || subscription.received() == u64::from(number));
    }
    assert_eq!(subscription.overwritten(), 19);
    assert_eq!(subscription.recv(Duration::ZERO).unwrap().unwrap().bytes[4], 20);
    assert!(subscription.recv(Duration::ZERO).unwrap().is_none());
}

#[test]
fn dds_dropping_delivers_what_is_acknowledged_and_ends_every_thread() {
    if !in_own_process("transport::dds_dropping_delivers_what_is_acknowledged_and_ends_every_thread") {
        return;
    }
    let before = threads();
    let settings = settings(7);
    let (near, far) = (participant("near", &settings), participant("far", &settings));
    let publisher = near.advertise(&topic("/points"), CLOUD, Qos::RELIABLE).unwrap();
    let subscription = far.subscribe(&topic("/points"), CLOUD, Qos::RELIABLE).unwrap();
    // The endpoints keep what they need.
    drop((near, far));
    wait_matched(&publisher, &subscription);
    assert_each_arrives(&publisher, &subscription, Reliability::Reliable, &[1000]);
    assert!(threads() > before);
    for number in 0..5 {
        publisher.publish(&payload(1000, number)).unwrap();
    }
    drop(publisher);
    for number in 0..5 {
        let sample = subscription.recv(PATIENCE).unwrap().expect("what was published before the drop");
        assert_eq!(sample.bytes[4], number);
    }
    drop(subscription);
    assert_eq!(threads(), before);
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Whether this is a process that runs `test` and nothing else; if not, makes one and passes its failure on.
fn in_own_process(test: &str) -> bool {
    const MARK: &str = "PIVOTAL_TEST_IN_OWN_PROCESS";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}{}", String::from_utf8_lossy(&child.stderr));
    assert!(output.contains("1 passed"), "no such test: {output}");
    false
}
