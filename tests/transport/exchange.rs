//! A sensor and a consumer in one peer: full clouds at 10 Hz, each answered by a detection array with its header.
//!
//! Two seconds by default. As a measurement: `PIVOTAL_PEER_CLOUDS=600` for a minute, `PIVOTAL_PEER` for another peer, and
//! `--nocapture` for the numbers (`tests/peers/README.md`).

use std::time::{Duration, SystemTime};

use pivotal::msgs::sensor_msgs::{PointCloud2, PointCloud2Ref};
use pivotal::msgs::vision_msgs::Detection3DArray;
use pivotal::msgs::{Message, cdr};
use pivotal::transport::{Qos, Reliability};

use super::peer::{BOTH, Peer, check_cloud, detections};
use super::{PATIENCE, largest_cloud, participant, settings, topic, wait_until};

/// Answers grow by a byte from cloud to cloud, 0 to 3, over this: some fifty objects.
const ANSWER_BYTES: usize = 25_000;

/// Clouds from which on a run tells whether memory grows.
const LONG_RUN: usize = 300;

/// What one exchange counted.
struct Outcome {
    sent: usize,
    numbers: Vec<usize>,
    /// From the stamp in the header to the receiving thread.
    latencies_ms: Vec<f64>,
    answered: usize,
    answers_heard: usize,
    /// From the stamp of the cloud to the peer having its answer.
    round_trip: serde_json::Value,
    /// Of this process, in MiB, after a quarter of the clouds and at the end.
    resident_mib: [f64; 2],
}

fn exchange(nth: u32, reliability: (Reliability, &str), count: usize) -> Outcome {
    let (settings, lengths) = (settings(nth), [largest_cloud()]);
    let (clouds, answers) = (topic(&format!("/clouds_{}", reliability.1)), topic(&format!("/answers_{}", reliability.1)));
    let near = participant("exchange", &settings);
    let subscription =
        near.subscribe(&clouds, &PointCloud2::TYPE, Qos { reliability: reliability.0, depth: 20, latched: false }).unwrap();
    let publisher = near.advertise(&answers, &Detection3DArray::TYPE, Qos::RELIABLE).unwrap();
    let (count_text, length) = (count.to_string(), lengths[0].to_string());
    let mut peer = Peer::start(
        &settings,
        &[
            ["--publish", &clouds.dds(), "--reliability", reliability.1, "--bytes", &length, "--count", &count_text].as_slice(),
            &["--subscribe", &answers.dds(), "--type", "Detection3DArray", "--reader-reliability", "reliable"],
        ]
        .concat(),
    );
    assert_eq!(peer.hear()["event"], "matched");
    wait_until("both matches", || subscription.matched() > 0 && publisher.matched() > 0);
    peer.go();
    let (mut numbers, mut latencies_ms, mut early_mib) = (Vec::new(), Vec::new(), 0.0);
    while numbers.len() < count {
        let lossless = reliability.0 == Reliability::Reliable;
        let patience = if numbers.is_empty() || lossless { PATIENCE } else { Duration::from_secs(2) };
        let Some(sample) = subscription.recv(patience).unwrap() else { break };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let header = cdr::from_bytes::<PointCloud2Ref>(&sample.bytes).unwrap().header;
        latencies_ms.push(1e3 * (now - f64::from(header.stamp.sec) - 1e-9 * f64::from(header.stamp.nanosec)));
        numbers.push(check_cloud(&sample.bytes, &lengths));
        let (_, answer) = detections(header, ANSWER_BYTES, numbers.len() % 4);
        publisher.publish(&answer).unwrap();
        if numbers.len() == count.div_ceil(4) {
            early_mib = resident_mib();
        }
    }
    // Waits until the peer has acknowledged the last answers.
    drop(publisher);
    let summary = peer.finish();
    Outcome {
        sent: summary["sent"].as_u64().unwrap() as usize,
        answered: numbers.len(),
        answers_heard: summary["received"].as_u64().unwrap() as usize,
        round_trip: summary["latency_ms"].clone(),
        resident_mib: [early_mib, resident_mib()],
        numbers,
        latencies_ms,
    }
}

/// How much the memory may grow between a quarter of a long run and its end, in MiB. rustdds keeps what it has of a reliable
/// cloud whose fragments came twice for 10 s, in up to 128 buffers (its MAX_ASSEMBLY_BUFFERS) of a cloud each.
fn growth_limit_mib(reliability: Reliability) -> f64 {
    let buffers = match reliability {
        Reliability::BestEffort => 0.0,
        Reliability::Reliable => 128.0,
    };
    50.0 + buffers * largest_cloud() as f64 / (1 << 20) as f64
}

/// Memory of this process.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB");
    kib.parse::<f64>().unwrap() / 1024.0
}

fn report(name: &str, outcome: &mut Outcome) {
    outcome.latencies_ms.sort_by(f64::total_cmp);
    let at = |share: f64| outcome.latencies_ms[((outcome.latencies_ms.len() - 1) as f64 * share) as usize];
    eprintln!(
        "{name}: clouds {}/{}, latency ms p50 {:.1} p95 {:.1} max {:.1}; answers {}/{}, round trip {}; resident MiB {:.0} then {:.0}",
        outcome.numbers.len(),
        outcome.sent,
        at(0.5),
        at(0.95),
        at(1.0),
        outcome.answers_heard,
        outcome.answered,
        outcome.round_trip,
        outcome.resident_mib[0],
        outcome.resident_mib[1]
    );
}

#[test]
fn peer_publishing_full_clouds_at_ten_hertz_hears_every_answer() {
    let count = std::env::var("PIVOTAL_PEER_CLOUDS").map_or(20, |count| count.parse().unwrap());
    for (nth, reliability) in (15..).zip(BOTH) {
        let mut outcome = exchange(nth, reliability, count);
        report(reliability.1, &mut outcome);
        let ([early_mib, late_mib], limit_mib) = (outcome.resident_mib, growth_limit_mib(reliability.0));
        // Before, buffers are still being filled for the first time.
        if count >= LONG_RUN {
            assert!(late_mib < early_mib + limit_mib, "{}: {early_mib} MiB became {late_mib}", reliability.1);
        }
        assert_eq!((outcome.sent, outcome.answers_heard), (count, outcome.answered), "{}", reliability.1);
        match reliability.0 {
            Reliability::Reliable => assert_eq!(outcome.numbers, (0..count).collect::<Vec<_>>()),
            // One lost packet of some 4000 costs a cloud, and this machine is busy with other tests.
            Reliability::BestEffort => {
                assert!(outcome.numbers.len() >= count / 2, "only {} of {count}", outcome.numbers.len());
                assert!(outcome.numbers.is_sorted());
            }
        }
    }
}
