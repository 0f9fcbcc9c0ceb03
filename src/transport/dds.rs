//! DDS as ROS 2 speaks it, on rustdds: a participant per node, its readers and writers.
//!
//! Endpoints are made with rustdds itself, below ros2-client's `Node`: only there do bytes pass unparsed, and reader depth
//! can be bounded. `Node` would not list such endpoints, so `graph` announces the node and its endpoints by its own message;
//! names, the announcement's topic and its delivery come from ros2-client.
//!
//! Not possible with this library: type hashes on endpoints (Jazzy's nodes warn once about each of ours), static peers,
//! discovery servers, shared memory; and endpoints of one participant find each other only where multicast works.

mod graph;
mod raw;
pub(super) mod service;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustdds::dds::result::CreateResult;
use rustdds::no_key::{DataWriter, SimpleDataReader};
use rustdds::policy::{Durability, History, ResourceLimits};
use rustdds::{
    DomainParticipant, DomainParticipantBuilder, GUID, QosPolicies, QosPolicyBuilder, RTPSEntity, StatusEvented, Timestamp,
    TopicKind,
};

use super::mailbox::{ClosedOnDrop, Mailbox};
use super::names::{NodeName, TopicName};
use super::settings::{DdsSettings, DiscoveryRange};
use super::{Qos, Reliability, Sample, TransportError, buffers};
use crate::msgs::MsgType;
use crate::time::Throttle;
use graph::{Announcement, Kind, Matches};
use raw::RawAdapter;

/// Directives for a tracing filter: rustdds reports every repair and each shutdown as errors, thousands of lines under load.
/// What a user can act on is returned as an error or logged by this module.
pub const LOG_FILTER: &str = "rustdds=off,ros2_client=off";

/// How long a reliable writer may wait for room before `publish` fails; the caller has a next cloud to look at.
const MAX_BLOCKING: Duration = Duration::from_millis(20);

/// How long a dropped reliable writer waits for its last messages to be acknowledged. A node has some four writers, and ends
/// within two seconds even when nobody answers.
const LINGER: Duration = Duration::from_millis(250);

/// Samples that the library may hold for a reader beside the mailbox. Its own default is 64, some 400 MB of clouds.
const HELD_SAMPLES: usize = 4;

/// Messages that a reliable writer keeps for a reader that stopped acknowledging, per message of its depth, before `publish`
/// fails for all. At 10 Hz and depth 10 that is a minute, while a silent participant is given up after 10 to 20 seconds. The
/// library would keep 8192.
const UNACKNOWLEDGED_PER_DEPTH: usize = 64;

/// Between two log lines about messages that cannot be taken: a sender of such sends nothing else.
const LOG_PERIOD: Duration = Duration::from_secs(5);

/// How often match events are looked at: the library cannot wake a thread for them, only a future.
const TICK: Duration = Duration::from_millis(50);

/// A ROS node in a DDS domain. Leaves it when dropped.
pub struct Participant {
    // Dropped in this order: what uses the domain before the domain.
    _watch: Worker,
    announcement: Announcement,
    matches: Arc<Matches>,
    publisher: rustdds::Publisher,
    subscriber: rustdds::Subscriber,
    domain: DomainParticipant,
}

impl Participant {
    /// Joins the domain and announces the node.
    pub(super) fn join(node: &NodeName, settings: &DdsSettings) -> Result<Self, TransportError> {
        let action = || format!("join DDS domain {}", settings.domain_id);
        let builder = DomainParticipantBuilder::new(settings.domain_id).socket_receive_buffer_size(buffers::WANTED_BYTES);
        let builder = match settings.range {
            DiscoveryRange::Subnet => builder,
            DiscoveryRange::Localhost => builder.with_only_networks([IpAddr::V4(Ipv4Addr::LOCALHOST)]),
            // No interface to announce on and no well-known ports of this machine to call.
            DiscoveryRange::Off => builder.with_only_networks(std::iter::empty::<IpAddr>()).same_host_loopback(false),
        };
        let domain = builder.build().map_err(|fault| refused(action(), &fault))?;
        let none = QosPolicies::qos_none();
        let publisher = domain.create_publisher(&none).map_err(|fault| refused(action(), &fault))?;
        let subscriber = domain.create_subscriber(&none).map_err(|fault| refused(action(), &fault))?;
        let announcement = Announcement::new(&domain, &publisher, node, settings.gid_len)?;
        let matches = Arc::new(Matches::default());
        let (listener, noted) = (domain.status_listener(), Arc::clone(&matches));
        let watch = Worker::start("dds watch", TICK, move || {
            while let Some(event) = listener.try_recv_status() {
                noted.note(event);
            }
        })?;
        Ok(Self { _watch: watch, announcement, matches, publisher, subscriber, domain })
    }

    fn topic(&self, topic: &TopicName, msg_type: &MsgType, qos: &QosPolicies) -> Result<rustdds::Topic, TransportError> {
        self.dds_topic(&topic.dds(), msg_type.dds, qos).map_err(|fault| refused(format!("create topic {topic}"), &fault))
    }

    /// A topic by DDS's spelling of its name and type.
    fn dds_topic(&self, name: &str, kind: &'static str, qos: &QosPolicies) -> CreateResult<rustdds::Topic> {
        self.matches.expect(name, kind);
        self.domain.create_topic(name.to_owned(), kind.to_owned(), qos, TopicKind::NoKey)
    }

    fn introduce(&self, kind: Kind, endpoint: GUID, topic: &TopicName) -> Result<(), TransportError> {
        self.matches.add(endpoint, topic);
        self.announcement.add(kind, endpoint)
    }

    fn forget(&self, endpoint: GUID) {
        self.matches.remove(endpoint);
        self.announcement.remove(endpoint);
    }
}

fn refused(action: String, fault: &dyn std::fmt::Display) -> TransportError {
    TransportError::Refused { action, reason: fault.to_string() }
}

/// QoS of an endpoint; `limit` bounds what the library keeps beside the depth.
fn policies(qos: Qos, limit: usize) -> QosPolicies {
    let builder = match qos.reliability {
        Reliability::BestEffort => QosPolicyBuilder::new().best_effort(),
        Reliability::Reliable => QosPolicyBuilder::new().reliable(MAX_BLOCKING.into()),
    };
    let count = |samples: usize| i32::try_from(samples).unwrap_or(i32::MAX);
    let limit = count(limit);
    builder
        .durability(if qos.latched { Durability::TransientLocal } else { Durability::Volatile })
        .history(History::KeepLast { depth: count(qos.depth) })
        .resource_limits(ResourceLimits { max_samples: limit, max_instances: 1, max_samples_per_instance: limit })
        .build()
}

/// The receiving end of a topic; its own thread moves messages to the mailbox.
pub(super) struct Reader {
    guid: GUID,
    // Dropped in this order: the thread owns the library's reader, which must go before the participant.
    _drain: Worker,
    participant: Arc<Participant>,
}

impl Reader {
    pub(super) fn new(
        participant: Arc<Participant>,
        topic: &TopicName,
        msg_type: &MsgType,
        qos: Qos,
        mailbox: Arc<Mailbox>,
    ) -> Result<Self, TransportError> {
        // Limits given with the topic alone: a reader's own would be merged with the library's default.
        let policies = policies(qos, qos.depth.max(HELD_SAMPLES));
        let dds_topic = participant.topic(topic, msg_type, &policies)?;
        let reader: SimpleDataReader<Bytes, RawAdapter> = participant
            .subscriber
            .create_simple_datareader_no_key(&dds_topic, None)
            .map_err(|fault| refused(format!("subscribe to {topic}"), &fault))?;
        let guid = reader.guid();
        participant.introduce(Kind::Reader, guid, topic)?;
        let mailbox = ClosedOnDrop(mailbox);
        let mut undecodable = Throttle::new(LOG_PERIOD);
        let drain = Worker::start("dds reader", TICK, move || move_samples(&reader, &mailbox.0, &mut undecodable))?;
        Ok(Self { guid, _drain: drain, participant })
    }

    pub(super) fn matched(&self) -> usize {
        self.participant.matches.count(self.guid)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.participant.forget(self.guid);
    }
}

/// Takes all that has arrived, and arranges for this thread to be unparked when more does.
fn move_samples(reader: &SimpleDataReader<Bytes, RawAdapter>, mailbox: &Mailbox, undecodable: &mut Throttle) {
    reader.drain_read_notifications();
    // Before taking, so that what arrives in between unparks.
    reader.set_waker(Some(wake_this_thread()));
    loop {
        match reader.try_take_one() {
            Ok(Some(sample)) => mailbox.put(Sample { bytes: sample.into_value(), received: Instant::now() }),
            Ok(None) => break,
            // One message of an encoding that nothing defines; the next may be fine.
            Err(fault) => {
                mailbox.put_undecodable();
                if let Some(n_more) = undecodable.due(Instant::now()) {
                    tracing::warn!("a message could not be taken: {fault} ({n_more} more since the last such line)");
                }
            }
        }
    }
}

fn wake_this_thread() -> Waker {
    Waker::from(Arc::new(Unpark(std::thread::current())))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The sending end of a topic.
pub(super) struct Writer {
    topic: TopicName,
    reliability: Reliability,
    // Dropped in this order.
    writer: DataWriter<Bytes, RawAdapter>,
    participant: Arc<Participant>,
}

impl Writer {
    pub(super) fn new(
        participant: Arc<Participant>,
        topic: &TopicName,
        msg_type: &MsgType,
        qos: Qos,
    ) -> Result<Self, TransportError> {
        let policies = policies(qos, qos.depth.saturating_mul(UNACKNOWLEDGED_PER_DEPTH));
        let dds_topic = participant.topic(topic, msg_type, &policies)?;
        let writer = participant
            .publisher
            .create_datawriter_no_key(&dds_topic, Some(policies))
            .map_err(|fault| refused(format!("publish {topic}"), &fault))?;
        participant.introduce(Kind::Writer, writer.guid(), topic)?;
        Ok(Self { topic: topic.clone(), reliability: qos.reliability, writer, participant })
    }

    pub(super) fn write(&self, payload: &Bytes) -> Result<(), TransportError> {
        self.writer
            .write(payload.clone(), Some(Timestamp::now()))
            .map_err(|fault| refused(format!("publish on {}", self.topic), &fault))
    }

    pub(super) fn matched(&self) -> usize {
        self.participant.matches.count(self.writer.guid())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.reliability == Reliability::Reliable && self.matched() > 0 {
            // Unacknowledged after this, the last messages may be lost, as when the process is killed.
            let _ = self.writer.wait_for_acknowledgments(LINGER);
        }
        self.participant.forget(self.writer.guid());
    }
}

/// A thread that does one thing again and again until dropped.
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Runs `turn` until dropped; between turns the thread sleeps for `tick` or until unparked.
    fn start(name: &'static str, tick: Duration, mut turn: impl FnMut() + Send + 'static) -> Result<Self, TransportError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            while !stopped.load(Ordering::Acquire) {
                turn();
                std::thread::park_timeout(tick);
            }
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(|source| TransportError::Thread { name, source })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("a thread of the transport had panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use rustdds::RepresentationIdentifier;
    use rustdds::no_key::SerializerAdapter;

    use super::*;
    use crate::msgs::Message;
    use crate::msgs::sensor_msgs::PointCloud2;
    use crate::transport::Transport;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Sends under an identifier that [`raw`] does not list.
    struct Foreign;

    impl SerializerAdapter<Bytes> for Foreign {
        type Error = Infallible;

        fn output_encoding() -> RepresentationIdentifier {
            RepresentationIdentifier::PL_CDR2_LE
        }

        fn to_bytes(payload: &Bytes) -> Result<Bytes, Infallible> {
            Ok(payload.clone())
        }
    }

    #[test]
    fn messages_of_an_unknown_encoding_are_counted_and_the_next_is_delivered() {
        let domain_id = (std::process::id() % 101 + 1) as u16;
        let settings = DdsSettings { domain_id, range: DiscoveryRange::Localhost, ..DdsSettings::DEFAULT };
        let join = |name| Participant::join(&NodeName::new("/test", name).expect("a name"), &settings).expect("DDS");
        let topic = TopicName::new(&format!("/run{}/foreign", std::process::id())).expect("a topic");
        let near = Transport::Dds(Arc::new(join("near")));
        let subscription = near.subscribe(&topic, &PointCloud2::TYPE, Qos::RELIABLE).expect("a subscription");

        let far = Arc::new(join("far"));
        let qos = policies(Qos::RELIABLE, 10);
        let dds_topic = far.topic(&topic, &PointCloud2::TYPE, &qos).expect("a topic");
        let foreign: DataWriter<Bytes, Foreign> =
            far.publisher.create_datawriter_no_key(&dds_topic, Some(qos)).expect("a writer");
        let usual = Transport::Dds(Arc::clone(&far)).advertise(&topic, &PointCloud2::TYPE, Qos::RELIABLE).expect("a publisher");
        let end = Instant::now() + PATIENCE;
        while subscription.matched() < 2 || usual.matched() < 1 || far.matches.count(foreign.guid()) < 1 {
            assert!(Instant::now() < end, "{} publishers matched, expected 2", subscription.matched());
            std::thread::sleep(TICK);
        }
        foreign.write(Bytes::from_static(&[7; 8]), None).expect("written");
        while subscription.undecodable() < 1 {
            assert!(Instant::now() < end, "nothing was counted; {} were received", subscription.received());
            std::thread::sleep(TICK);
        }
        usual.publish(&[0, 1, 0, 0, 9, 9, 9, 9]).expect("published");
        let sample = subscription.recv(PATIENCE).expect("open").expect("the next message");
        assert_eq!((&sample.bytes[4..], subscription.undecodable(), subscription.received()), (&[9; 4][..], 1, 1));
    }
}
