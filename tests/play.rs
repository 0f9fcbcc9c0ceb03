//! A bag played to a scripted node over the in-process transport.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pivotal::bag::{BagWriter, OfferedQos, WriterOptions};
use pivotal::msgs::builtin_interfaces::Time;
use pivotal::msgs::pivotal_msgs::FrameReport;
use pivotal::msgs::sensor_msgs::{PointCloud2, PointCloud2Ref};
use pivotal::msgs::std_msgs::Header;
use pivotal::msgs::vision_msgs::{Detection3D, Detection3DArray};
use pivotal::msgs::{Message, cdr};
use pivotal::play::{PlayError, PlayOptions, PlaySummary, play};
use pivotal::transport::names::TopicName;
use pivotal::transport::{Publisher, Qos, Subscription, Transport};
use tempfile::TempDir;

/// Far beyond what anything here takes; a run that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nothing is dropped by the transport here.
const ALL: Qos = Qos { depth: 1000, ..Qos::RELIABLE };

/// A bag of clouds with these stamps and log times in seconds; `None` stands for bytes that are no cloud.
fn bag(clouds: &[Option<(i32, i64)>]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = BagWriter::create(folder.path().join("bag"), &WriterOptions::default()).unwrap();
    let topic = writer.add_topic("/points", PointCloud2::TYPE, OfferedQos::SENSOR).unwrap();
    let mut log_time_s = 0;
    for cloud in clouds {
        let bytes = cloud.map_or(vec![0, 1, 0, 0, 9, 9], |(sec, _)| {
            let header = Header { stamp: Time { sec, nanosec: 0 }, frame_id: "lidar".to_owned() };
            cdr::to_bytes(&PointCloud2 { header, data: Vec::new(), ..PointCloud2::default() })
        });
        log_time_s = cloud.map_or(log_time_s, |(_, log_time_s)| log_time_s);
        writer.write(topic, log_time_s * 1_000_000_000, &bytes).unwrap();
    }
    writer.finish().unwrap();
    folder
}

fn options(bag: &Path, wait: Duration) -> PlayOptions {
    PlayOptions {
        bag: bag.join("bag"),
        topic: None,
        node: "/d".to_owned(),
        rate_hz: Some(1000.0),
        reliable: true,
        every_nth_point: 1,
        wait,
    }
}

/// What the node does with a cloud.
#[derive(Clone, Copy)]
enum Deed {
    /// An array and a report; so many clouds had been overwritten when the node took this one.
    Answer(u64),
    /// A report with this flag and no array.
    Flag(&'static str, u64),
    /// No word.
    Nothing,
}

/// A node that does its deeds, one per cloud that arrives, and ends when dropped.
struct ScriptedNode {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ScriptedNode {
    fn start(transport: &Transport, deeds: &'static [Deed]) -> Self {
        let topic = |name: &str| TopicName::new(&format!("/d/{name}")).unwrap();
        let clouds = transport.subscribe(&topic("input/pointcloud"), &PointCloud2::TYPE, ALL).unwrap();
        let objects = transport.advertise(&topic("output/objects"), &Detection3DArray::TYPE, ALL).unwrap();
        let reports = transport.advertise(&topic("output/report"), &FrameReport::TYPE, ALL).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut deeds = deeds.iter();
            while !until.load(Ordering::Relaxed) {
                act(&mut deeds, &clouds, &objects, &reports);
            }
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for ScriptedNode {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn act(deeds: &mut std::slice::Iter<'_, Deed>, clouds: &Subscription, objects: &Publisher, reports: &Publisher) {
    let Some(sample) = clouds.recv(Duration::from_millis(10)).unwrap() else { return };
    let header = cdr::from_bytes::<PointCloud2Ref>(&sample.bytes).unwrap().header;
    let report = FrameReport { header: header.clone(), latency_ms: 7.0, ..FrameReport::default() };
    let report = match deeds.next().expect("no more clouds than deeds") {
        Deed::Nothing => return,
        Deed::Flag(flag, clouds_overwritten) => {
            FrameReport { flags: vec![(*flag).to_owned()], clouds_overwritten: *clouds_overwritten, latency_ms: 0.0, ..report }
        }
        Deed::Answer(clouds_overwritten) => {
            let array = Detection3DArray { header, detections: vec![Detection3D::default()] };
            objects.publish(&cdr::to_bytes(&array)).unwrap();
            FrameReport { clouds_overwritten: *clouds_overwritten, ..report }
        }
    };
    reports.publish(&cdr::to_bytes(&report)).unwrap();
}

fn play_all(clouds: &[Option<(i32, i64)>], deeds: &'static [Deed], wait: Duration) -> PlaySummary {
    let (bag, transport) = (bag(clouds), Transport::inproc());
    let _node = ScriptedNode::start(&transport, deeds);
    play(&transport, &options(bag.path(), wait), &mut |_, _| {}, &AtomicBool::new(false)).unwrap()
}

#[test]
fn every_cloud_is_counted_as_what_became_of_it_and_the_run_ends_when_all_are() {
    let began = Instant::now();
    // Two clouds of one stamp, one that is none, and a node that had overwritten 40 before.
    let clouds = [Some((1, 0)), Some((2, 0)), None, Some((2, 0)), Some((3, 0)), Some((4, 0)), Some((5, 0))];
    let deeds = &[
        Deed::Answer(40),
        Deed::Flag("failed: no field x", 40),
        Deed::Flag(FrameReport::NOT_PUBLISHED, 40),
        Deed::Nothing,
        Deed::Answer(41),
        Deed::Answer(41),
    ];
    let summary = play_all(&clouds, deeds, PATIENCE);
    let PlaySummary { sent, reported, failed, overwritten, arrays, boxes, losses, interrupted, .. } = summary;
    assert_eq!((sent, reported, failed, overwritten, losses), (6, 3, 2, 1, 1));
    assert_eq!((arrays, boxes, summary.lost(), interrupted), (3, 3, 0, false));
    assert_eq!(summary.in_node.map(|stats| (stats.n, stats.mean_ms)), Some((3, 7.0)), "failures have no latency");
    assert!(summary.complete() && summary.loss());
    assert!(began.elapsed() < PATIENCE / 2, "it waited although every cloud was accounted for");
}

#[test]
fn clouds_that_the_node_never_mentions_are_lost() {
    let clouds = [Some((1, 0)), Some((2, 0)), Some((3, 0))];
    let summary = play_all(&clouds, &[Deed::Answer(9), Deed::Nothing, Deed::Answer(9)], Duration::from_millis(500));
    assert_eq!((summary.reported, summary.overwritten, summary.lost()), (2, 0, 1));
    assert!(summary.complete() && summary.loss());
    let summary = play_all(&clouds, &[Deed::Answer(9), Deed::Answer(9), Deed::Answer(9)], PATIENCE);
    assert!(summary.complete() && !summary.loss());
}

#[test]
fn clouds_overwritten_while_the_node_still_loads_its_model_are_not_lost() {
    let clouds = [Some((1, 0)), Some((2, 0)), Some((3, 0)), Some((4, 0))];
    let summary = play_all(&clouds, &[Deed::Nothing, Deed::Nothing, Deed::Answer(2), Deed::Answer(2)], PATIENCE);
    assert_eq!((summary.overwritten, summary.lost(), summary.loss()), (2, 0, false));
}

/// Plays on a thread, sets the stop flag once so many clouds are sent, and gives what comes back.
fn stopped_after(n_sent: u64, clouds: &[Option<(i32, i64)>], transport: &Transport, recorded_pace: bool) -> PlaySummary {
    let (bag, transport) = (bag(clouds), transport.clone());
    let mut options = options(bag.path(), Duration::from_secs(3600));
    options.rate_hz = if recorded_pace { None } else { options.rate_hz };
    let (send, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let stop = AtomicBool::new(n_sent == 0);
        let mut progress = |sent, _| stop.store(sent >= n_sent, Ordering::Relaxed);
        let _ = send.send(play(&transport, &options, &mut progress, &stop));
    });
    ended.recv_timeout(PATIENCE).expect("a run that ends when it is told to").unwrap()
}

#[test]
fn stopping_ends_a_pause_of_the_recording_the_wait_for_results_and_the_wait_for_the_node() {
    let transport = Transport::inproc();
    let summary = stopped_after(0, &[Some((1, 0))], &transport, false);
    assert_eq!((summary.sent, summary.interrupted, summary.loss()), (0, true, false), "without a node");

    let _node = ScriptedNode::start(&transport, &[Deed::Nothing, Deed::Nothing]);
    let summary = stopped_after(1, &[Some((1, 0)), Some((2, 7200))], &transport, true);
    assert_eq!((summary.sent, summary.interrupted), (1, true), "two hours between clouds");
    let summary = stopped_after(1, &[Some((1, 0))], &transport, false);
    assert_eq!((summary.lost(), summary.interrupted, summary.loss()), (1, true, false), "an hour for results");
}

#[test]
fn playing_to_nobody_fails_with_the_topics_that_are_missing() {
    let bag = bag(&[Some((1, 0))]);
    let options = options(bag.path(), Duration::from_millis(50));
    let result = play(&Transport::inproc(), &options, &mut |_, _| {}, &AtomicBool::new(false));
    let message = result.expect_err("there is no node").to_string();
    assert!(message.contains("/d/input/pointcloud") && message.contains("/d/output/objects"), "{message}");
    let nameless = PlayOptions { node: "/1d".to_owned(), ..options };
    let result = play(&Transport::inproc(), &nameless, &mut |_, _| {}, &AtomicBool::new(false));
    assert!(matches!(result, Err(PlayError::Transport(_))), "{result:?}");
}
