//! The ROS graph on DDS: telling others which node our endpoints belong to, and knowing who is connected to them.
//!
//! ROS maps endpoints to nodes by a message that every participant repeats on `ros_discovery_info` whenever its endpoints
//! change (rmw_dds_common's `ParticipantEntitiesInfo`). DDS itself reports matches as events.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ros2_client::builtin_topics::ros_discovery;
use rustdds::no_key::DataWriter;
use rustdds::{
    DomainParticipant, DomainParticipantStatusEvent, EndpointDescription, GUID, QosPolicies, RTPSEntity, Timestamp, TopicKind,
};
use serde::ser::{Serialize, SerializeTuple, Serializer};

use super::raw::RawAdapter;
use super::refused;
use crate::msgs::cdr;
use crate::transport::TransportError;
use crate::transport::names::{NodeName, TopicName};

/// Which of its two kinds an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Reader,
    Writer,
}

/// Keeps the graph informed about this node.
pub(super) struct Announcement {
    node: NodeName,
    participant: GUID,
    gid_len: usize,
    writer: DataWriter<Bytes, RawAdapter>,
    endpoints: Mutex<Vec<(Kind, GUID)>>,
}

impl Announcement {
    /// Announces a node without endpoints.
    pub(super) fn new(
        participant: &DomainParticipant,
        publisher: &rustdds::Publisher,
        node: &NodeName,
        gid_len: usize,
    ) -> Result<Self, TransportError> {
        let action = || format!("announce node {node}");
        let qos: &QosPolicies = &ros_discovery::QOS_PUB;
        let (name, kind) = (ros_discovery::TOPIC_NAME.to_owned(), ros_discovery::TYPE_NAME.to_owned());
        let topic = participant.create_topic(name, kind, qos, TopicKind::NoKey).map_err(|fault| refused(action(), &fault))?;
        let writer = publisher
            .create_datawriter_no_key::<Bytes, RawAdapter>(&topic, Some(qos.clone()))
            .map_err(|fault| refused(action(), &fault))?;
        let announcement =
            Self { node: node.clone(), participant: participant.guid(), gid_len, writer, endpoints: Mutex::default() };
        announcement.tell(&[])?;
        Ok(announcement)
    }

    /// Lists an endpoint under the node.
    pub(super) fn add(&self, kind: Kind, endpoint: GUID) -> Result<(), TransportError> {
        let mut endpoints = self.lock();
        endpoints.push((kind, endpoint));
        self.tell(&endpoints)
    }

    /// Takes an endpoint off the list.
    pub(super) fn remove(&self, endpoint: GUID) {
        let mut endpoints = self.lock();
        endpoints.retain(|(_, known)| *known != endpoint);
        if let Err(fault) = self.tell(&endpoints) {
            tracing::debug!("{fault}");
        }
    }

    fn tell(&self, endpoints: &[(Kind, GUID)]) -> Result<(), TransportError> {
        let gids = |wanted: Kind| {
            endpoints.iter().filter(|(kind, _)| *kind == wanted).map(|(_, guid)| Gid { guid: *guid, len: self.gid_len }).collect()
        };
        let message = ParticipantEntitiesInfo {
            gid: Gid { guid: self.participant, len: self.gid_len },
            node_entities_info_seq: vec![NodeEntitiesInfo {
                node_namespace: self.node.namespace(),
                node_name: self.node.base(),
                reader_gid_seq: gids(Kind::Reader),
                writer_gid_seq: gids(Kind::Writer),
            }],
        };
        self.writer
            .write(cdr::to_bytes(&message).into(), Some(Timestamp::now()))
            .map_err(|fault| refused(format!("announce node {}", self.node), &fault))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Kind, GUID)>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(serde::Serialize)]
struct ParticipantEntitiesInfo<'a> {
    gid: Gid,
    node_entities_info_seq: Vec<NodeEntitiesInfo<'a>>,
}

#[derive(serde::Serialize)]
struct NodeEntitiesInfo<'a> {
    node_namespace: &'a str,
    node_name: &'a str,
    reader_gid_seq: Vec<Gid>,
    writer_gid_seq: Vec<Gid>,
}

/// The 16 bytes of a GUID in an array of `len` bytes, a length that depends on the ROS distribution.
struct Gid {
    guid: GUID,
    len: usize,
}

impl Serialize for Gid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.guid.to_bytes();
        let mut array = serializer.serialize_tuple(self.len)?;
        for at in 0..self.len {
            array.serialize_element(bytes.get(at).unwrap_or(&0))?;
        }
        array.end()
    }
}

/// Who is connected to the endpoints of this participant.
#[derive(Default)]
pub(super) struct Matches {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Remote endpoints per local one; a match may be reported before the local endpoint is known here.
    remotes: HashMap<GUID, HashSet<GUID>>,
    /// Topic per local endpoint, for messages to the user.
    topics: HashMap<GUID, String>,
    /// Type per topic in DDS's spelling.
    types: HashMap<String, &'static str>,
}

impl Matches {
    /// A topic is about to get its first endpoint here.
    pub(super) fn expect(&self, dds_topic: &str, dds_type: &'static str) {
        self.lock().types.insert(dds_topic.to_owned(), dds_type);
    }

    pub(super) fn add(&self, local: GUID, topic: &TopicName) {
        self.lock().topics.insert(local, topic.to_string());
    }

    pub(super) fn remove(&self, local: GUID) {
        let mut state = self.lock();
        state.remotes.remove(&local);
        state.topics.remove(&local);
    }

    pub(super) fn count(&self, local: GUID) -> usize {
        self.lock().remotes.get(&local).map_or(0, HashSet::len)
    }

    /// Notes an event, and tells the user what keeps endpoints apart.
    pub(super) fn note(&self, event: DomainParticipantStatusEvent) {
        use DomainParticipantStatusEvent as Event;
        let mut state = self.lock();
        match event {
            Event::RemoteReaderMatched { local_writer: local, remote_reader: remote }
            | Event::RemoteWriterMatched { local_reader: local, remote_writer: remote } => {
                state.remotes.entry(local).or_default().insert(remote);
            }
            Event::ReaderLost { guid, .. } | Event::WriterLost { guid, .. } => {
                for remotes in state.remotes.values_mut() {
                    remotes.remove(&guid);
                }
            }
            Event::RemoteReaderQosIncompatible { local_writer: local, requested_qos, offered_qos, .. }
            | Event::RemoteWriterQosIncompatible { local_reader: local, requested_qos, offered_qos, .. } => {
                let topic = state.topics.get(&local).map_or("an internal topic", String::as_str);
                tracing::warn!(
                    "topic {topic}: not connected to another node, since a publisher offers {} and a subscription asks for {}",
                    outline(&offered_qos),
                    outline(&requested_qos)
                );
            }
            Event::ReaderDetected { reader: endpoint } | Event::WriterDetected { writer: endpoint } => state.check(&endpoint),
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// rustdds connects endpoints by topic alone; of another type there come only messages that cannot be decoded.
    fn check(&self, endpoint: &EndpointDescription) {
        if let Some(expected) = self.types.get(&endpoint.topic_name).filter(|expected| **expected != endpoint.type_name) {
            let topic = endpoint.topic_name.trim_start_matches("rt");
            tracing::warn!("topic {topic}: another node uses it with type {}, this one with {expected}", endpoint.type_name);
        }
    }
}

/// The two policies that keep ROS nodes apart in practice.
fn outline(qos: &QosPolicies) -> String {
    let reliability = if qos.is_reliable() { "reliable" } else { "best effort" };
    let durability = if qos.is_volatile() { "volatile" } else { "transient local" };
    format!("{reliability}, {durability}")
}
