//! The seam to the middleware, at serialised CDR: bytes of one topic in, bytes of one topic out.
//!
//! Messages cross it with their 4-byte CDR header and nothing else does, so that one set of message structs
//! ([`crate::msgs`]) serves every middleware. Behind it are [`inproc`] (channels inside one process: tests, machines without
//! a network), [`dds`] (interoperates with ROS 2 nodes, no ROS installed) and, with the feature of that name, `r2r` (rcl, in a
//! sourced ROS 2 workspace). A backend must be able to subscribe to and to
//! publish serialised messages (`subscribe_raw` / `publish_raw` in r2r's words), to count its matches, and to answer services;
//! nothing more.
//!
//! The backends are variants of an enum: the set is small, closed and ours, every call is one `match` the compiler keeps
//! complete, and a variant can stand behind a Cargo feature without boxes or generics reaching the node.
//!
//! # What holds for every backend
//!
//! - A subscription is fed by a thread other than the reader's and keeps the newest `depth` messages; when one more arrives
//!   the oldest is dropped and counted. Depth 1 is "the newest cloud wins".
//! - Bytes are not looked into: a message of the wrong type or size arrives as it is, decoding is the caller's.
//! - A published payload is padded with zeros to a multiple of 4 bytes (see [`Publisher::publish`]).
//! - Dropping the last handle (transport, subscriptions, publishers) leaves the graph and joins every thread.

pub mod buffers;
pub mod dds;
pub mod inproc;
mod mailbox;
pub mod names;
#[cfg(feature = "r2r")]
pub mod r2r;
pub mod service;
pub mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use crate::msgs::{MsgType, Service};
use mailbox::Mailbox;
use names::{NodeName, TopicName};
use service::{End, ServiceServer, raw_handler};

/// Encapsulation identifier of plain little-endian CDR, the only one published.
const CDR_LE: [u8; 2] = [0, 1];

/// How long the CDR header is.
const HEADER_LEN: usize = 4;

/// A handle to a middleware; clones share one participant.
#[derive(Clone)]
pub enum Transport {
    /// Channels inside this process.
    Inproc(inproc::Bus),
    /// DDS over UDP, as ROS 2 speaks it.
    Dds(Arc<dds::Participant>),
    /// rcl, with whatever middleware ROS 2 is set up for.
    #[cfg(feature = "r2r")]
    R2r(Arc<r2r::Session>),
}

/// How messages of a topic are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qos {
    /// Whether lost messages are sent again.
    pub reliability: Reliability,
    /// Messages kept: by a publisher for repairs, by a subscription until read. At least 1.
    pub depth: usize,
    /// Whether a publisher's kept messages also go to subscriptions that come later (ROS's transient local), and whether a
    /// subscription asks for that.
    pub latched: bool,
}

impl Qos {
    /// What ROS calls sensor data, with the newest message only. Matches publishers of either reliability.
    pub const SENSOR: Self = Self { reliability: Reliability::BestEffort, depth: 1, latched: false };
    /// ROS's default for topics. As a subscription it does not match best-effort publishers, as most LiDAR drivers are.
    pub const RELIABLE: Self = Self { reliability: Reliability::Reliable, depth: 10, latched: false };
    /// ROS's default for services.
    pub const SERVICE: Self = Self::RELIABLE;
}

/// Whether lost messages are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reliability {
    /// Lost is lost.
    BestEffort,
    /// Repeated until acknowledged or pushed out by newer ones.
    Reliable,
}

/// One received message.
#[derive(Debug, Clone)]
pub struct Sample {
    /// CDR header and body, possibly followed by up to 3 zeros; shared, so that keeping one is cheap.
    pub bytes: Bytes,
    /// When the middleware handed it over.
    pub received: Instant,
}

/// Why the middleware refused something.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// An environment variable has a value that means nothing, or asks for what this node cannot do.
    #[error("environment variable {name}={value:?}: expected {expected}")]
    Environment {
        /// Name of the variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// ROS does not allow this name.
    #[error("{what} {name:?}: {reason}")]
    Name {
        /// Topic name, node name or namespace.
        what: &'static str,
        /// The name.
        name: String,
        /// The rule it breaks.
        reason: String,
    },
    /// A subscription or publisher with room for no message.
    #[error("topic {topic}: depth is 0, expected at least 1")]
    Depth {
        /// ROS name of the topic.
        topic: String,
    },
    /// Two types under one name.
    #[error("topic {topic}: type {got} asked for, but it carries {expected} already")]
    TypeMismatch {
        /// ROS name of the topic.
        topic: String,
        /// Type of the endpoints that exist.
        expected: &'static str,
        /// Type asked for.
        got: &'static str,
    },
    /// Bytes to publish that are not little-endian CDR with its header.
    #[error("topic {topic}: payload of {len} bytes begins with {got:02x?}, expected the CDR header [00, 01, 00, 00]")]
    Header {
        /// ROS name of the topic.
        topic: String,
        /// Length of the payload.
        len: usize,
        /// Its first bytes, 4 at most.
        got: Vec<u8>,
    },
    /// A service cannot be offered or asked.
    #[error("service {service} ({srv_type}): {reason}")]
    Service {
        /// ROS name of the service.
        service: String,
        /// Its type.
        srv_type: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The middleware's library refused.
    #[error("cannot {action}: {reason}")]
    Refused {
        /// What was tried, with the topic where there is one.
        action: String,
        /// What the library said.
        reason: String,
    },
    /// A thread could not be started.
    #[error("cannot start thread {name}: {source}")]
    Thread {
        /// Name of the thread.
        name: &'static str,
        /// What the system said.
        r#source: std::io::Error,
    },
    /// The thread that fed a subscription is gone; nothing will arrive any more.
    #[error("topic {topic}: the middleware stopped delivering")]
    Closed {
        /// ROS name of the topic.
        topic: String,
    },
}

impl Transport {
    /// A private bus inside this process; share it by cloning.
    pub fn inproc() -> Self {
        Self::Inproc(inproc::Bus::default())
    }

    /// Joins the DDS domain of `settings` as the ROS node `node`.
    ///
    /// # Errors
    /// When the library cannot join the domain.
    pub fn dds(node: &NodeName, settings: &settings::DdsSettings) -> Result<Self, TransportError> {
        Ok(Self::Dds(Arc::new(dds::Participant::join(node, settings)?)))
    }

    /// Joins the graph as the ROS node `node` through rcl, which reads its own environment.
    ///
    /// # Errors
    /// When rcl refuses.
    #[cfg(feature = "r2r")]
    pub fn r2r(node: &NodeName) -> Result<Self, TransportError> {
        Ok(Self::R2r(Arc::new(r2r::Session::join(node)?)))
    }

    /// Starts receiving a topic.
    ///
    /// # Errors
    /// For a depth of 0, and when the middleware refuses.
    pub fn subscribe(&self, topic: &TopicName, msg_type: &MsgType, qos: Qos) -> Result<Subscription, TransportError> {
        check_depth(topic, qos)?;
        let mailbox = Arc::new(Mailbox::new(qos.depth));
        let source = match self {
            Self::Inproc(bus) => Source::Inproc(bus.subscribe(topic, msg_type, qos, Arc::clone(&mailbox))?),
            Self::Dds(participant) => {
                Source::Dds(dds::Reader::new(Arc::clone(participant), topic, msg_type, qos, Arc::clone(&mailbox))?)
            }
            #[cfg(feature = "r2r")]
            Self::R2r(session) => Source::R2r(r2r::Reader::new(Arc::clone(session), topic, msg_type, qos, Arc::clone(&mailbox))?),
        };
        Ok(Subscription { topic: topic.clone(), mailbox, source })
    }

    /// Announces a topic that this node publishes.
    ///
    /// # Errors
    /// For a depth of 0, and when the middleware refuses.
    pub fn advertise(&self, topic: &TopicName, msg_type: &MsgType, qos: Qos) -> Result<Publisher, TransportError> {
        check_depth(topic, qos)?;
        let sink = match self {
            Self::Inproc(bus) => Sink::Inproc(bus.advertise(topic, msg_type, qos)?),
            Self::Dds(participant) => Sink::Dds(Box::new(dds::Writer::new(Arc::clone(participant), topic, msg_type, qos)?)),
            #[cfg(feature = "r2r")]
            Self::R2r(session) => Sink::R2r(r2r::Writer::new(Arc::clone(session), topic, msg_type, qos)?),
        };
        Ok(Publisher { topic: topic.clone(), sink })
    }

    /// Offers a service; `handler` runs on a thread of the middleware, and a question that cannot be read is logged and gets no
    /// answer.
    ///
    /// # Errors
    /// When the name is taken inside this process, and when the middleware refuses.
    pub fn serve<S: Service>(
        &self,
        name: &TopicName,
        handler: impl FnMut(S::Request) -> S::Response + Send + 'static,
    ) -> Result<ServiceServer, TransportError> {
        let handler = raw_handler::<S>(handler);
        let end = match self {
            Self::Inproc(bus) => End::Inproc { _offer: bus.offer(name, &S::TYPE, handler)? },
            Self::Dds(participant) => {
                End::Dds { _server: dds::service::Server::new(Arc::clone(participant), name, &S::TYPE, handler)? }
            }
            #[cfg(feature = "r2r")]
            Self::R2r(session) => End::R2r { _server: r2r::Server::new(Arc::clone(session), name, &S::TYPE, handler)? },
        };
        Ok(ServiceServer::new(name, end))
    }
}

fn check_depth(topic: &TopicName, qos: Qos) -> Result<(), TransportError> {
    if qos.depth == 0 { Err(TransportError::Depth { topic: topic.to_string() }) } else { Ok(()) }
}

/// The receiving end of a topic. Can be moved to and used from any thread.
pub struct Subscription {
    topic: TopicName,
    mailbox: Arc<Mailbox>,
    source: Source,
}

enum Source {
    Inproc(inproc::Endpoint),
    Dds(dds::Reader),
    #[cfg(feature = "r2r")]
    R2r(r2r::Reader),
}

impl Subscription {
    /// The oldest message kept (with depth 1: the newest there is), waiting for it up to `timeout`; `None` when none came.
    ///
    /// # Errors
    /// [`TransportError::Closed`] once what was kept is read and nothing can follow.
    pub fn recv(&self, timeout: Duration) -> Result<Option<Sample>, TransportError> {
        self.mailbox.recv(timeout).map_err(|mailbox::Closed| TransportError::Closed { topic: self.topic.to_string() })
    }

    /// Messages dropped unread because newer ones came, since the subscription began.
    pub fn overwritten(&self) -> u64 {
        self.mailbox.overwritten()
    }

    /// Messages that arrived in an encoding that nothing defines and were dropped, since the subscription began; they are not
    /// among [`Self::received`].
    pub fn undecodable(&self) -> u64 {
        self.mailbox.undecodable()
    }

    /// Messages that arrived, read or not, since the subscription began.
    pub fn received(&self) -> u64 {
        self.mailbox.received()
    }

    /// Publishers known and compatible at this moment.
    pub fn matched(&self) -> usize {
        match &self.source {
            Source::Inproc(endpoint) => endpoint.matched(),
            Source::Dds(reader) => reader.matched(),
            #[cfg(feature = "r2r")]
            Source::R2r(reader) => reader.matched(),
        }
    }

    /// The topic's name.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }
}

/// The sending end of a topic. Can be shared by threads.
pub struct Publisher {
    topic: TopicName,
    sink: Sink,
}

enum Sink {
    Inproc(inproc::Endpoint),
    Dds(Box<dds::Writer>),
    #[cfg(feature = "r2r")]
    R2r(r2r::Writer),
    #[cfg(test)]
    Refusing,
}

impl Publisher {
    /// Sends one message: header and little-endian body.
    ///
    /// The body is padded with zeros to a multiple of 4 bytes. rustdds 0.15.1 ends a fragmented sample of any other length in
    /// an unaligned submessage, which Cyclone DDS 0.10 (Humble, Jazzy, Kilted) drops as malformed; on Ethernet everything
    /// above some 1.4 KB is fragmented. Readers ignore what follows the last field.
    ///
    /// # Errors
    /// When `cdr` has no little-endian CDR header, or the middleware has no room within its time limit.
    pub fn publish(&self, cdr: &[u8]) -> Result<(), TransportError> {
        let payload = padded(cdr).ok_or_else(|| TransportError::Header {
            topic: self.topic.to_string(),
            len: cdr.len(),
            got: cdr.iter().take(HEADER_LEN).copied().collect(),
        })?;
        match &self.sink {
            Sink::Inproc(endpoint) => {
                endpoint.publish(&payload);
                Ok(())
            }
            Sink::Dds(writer) => writer.write(&payload),
            #[cfg(feature = "r2r")]
            Sink::R2r(writer) => writer.write(&payload),
            #[cfg(test)]
            Sink::Refusing => {
                Err(TransportError::Refused { action: format!("publish on {}", self.topic), reason: "full".into() })
            }
        }
    }

    /// Subscriptions known and compatible at this moment: at 0 nobody would see what is published.
    pub fn matched(&self) -> usize {
        match &self.sink {
            Sink::Inproc(endpoint) => endpoint.matched(),
            Sink::Dds(writer) => writer.matched(),
            #[cfg(feature = "r2r")]
            Sink::R2r(writer) => writer.matched(),
            #[cfg(test)]
            Sink::Refusing => 1,
        }
    }

    /// One that refuses every message, as a middleware without room does.
    #[cfg(test)]
    pub(crate) fn refusing(topic: TopicName) -> Self {
        Self { topic, sink: Sink::Refusing }
    }

    /// The topic's name.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }
}

/// A copy with zeros up to the next multiple of 4; `None` without a little-endian header.
fn padded(cdr: &[u8]) -> Option<Bytes> {
    if cdr.len() < HEADER_LEN || cdr[..2] != CDR_LE {
        return None;
    }
    let len = cdr.len().next_multiple_of(4);
    let mut payload = BytesMut::with_capacity(len);
    payload.put_slice(cdr);
    payload.put_bytes(0, len - cdr.len());
    Some(payload.freeze())
}
