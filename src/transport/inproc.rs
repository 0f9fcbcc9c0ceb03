//! Topics inside one process: no sockets, no threads, delivery before `publish` returns.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use super::mailbox::Mailbox;
use super::names::TopicName;
use super::{Qos, Reliability, Sample, TransportError};
use crate::msgs::MsgType;

/// The topics of one bus; clones share them.
#[derive(Clone, Default)]
pub struct Bus {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    topics: Mutex<HashMap<TopicName, Topic>>,
    next_id: AtomicU64,
}

struct Topic {
    msg_type: MsgType,
    members: Vec<Member>,
}

struct Member {
    id: u64,
    qos: Qos,
    /// Where messages go; `None` for a publisher.
    mailbox: Option<Arc<Mailbox>>,
}

/// A place on the bus, given up on drop.
pub(super) struct Endpoint {
    shared: Arc<Shared>,
    topic: TopicName,
    id: u64,
}

impl Bus {
    pub(super) fn subscribe(
        &self,
        topic: &TopicName,
        msg_type: &MsgType,
        qos: Qos,
        mailbox: Arc<Mailbox>,
    ) -> Result<Endpoint, TransportError> {
        self.add(topic, msg_type, qos, Some(mailbox))
    }

    pub(super) fn advertise(&self, topic: &TopicName, msg_type: &MsgType, qos: Qos) -> Result<Endpoint, TransportError> {
        self.add(topic, msg_type, qos, None)
    }

    fn add(
        &self,
        topic: &TopicName,
        msg_type: &MsgType,
        qos: Qos,
        mailbox: Option<Arc<Mailbox>>,
    ) -> Result<Endpoint, TransportError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let mut topics = self.shared.lock();
        let entry = topics.entry(topic.clone()).or_insert_with(|| Topic { msg_type: *msg_type, members: Vec::new() });
        if entry.msg_type.ros != msg_type.ros {
            return Err(TransportError::TypeMismatch {
                topic: topic.to_string(),
                expected: entry.msg_type.ros,
                got: msg_type.ros,
            });
        }
        entry.members.push(Member { id, qos, mailbox });
        Ok(Endpoint { shared: Arc::clone(&self.shared), topic: topic.clone(), id })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<TopicName, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoint {
    pub(super) fn publish(&self, payload: &Bytes) {
        let received = Instant::now();
        self.for_each_match(|member| {
            if let Some(mailbox) = &member.mailbox {
                mailbox.put(Sample { bytes: payload.clone(), received });
            }
        });
    }

    pub(super) fn matched(&self) -> usize {
        let mut count = 0;
        self.for_each_match(|_| count += 1);
        count
    }

    /// Members of the other kind, as far as reliabilities fit.
    fn for_each_match(&self, mut visit: impl FnMut(&Member)) {
        let topics = self.shared.lock();
        let Some(topic) = topics.get(&self.topic) else { return };
        let Some(own) = topic.members.iter().find(|member| member.id == self.id) else { return };
        for other in topic.members.iter().filter(|other| other.mailbox.is_some() != own.mailbox.is_some()) {
            let (publisher, subscription) = if own.mailbox.is_some() { (other, own) } else { (own, other) };
            if compatible(publisher.qos, subscription.qos) {
                visit(other);
            }
        }
    }
}

/// The rule of DDS: a subscription may not ask for more than the publisher offers.
fn compatible(offered: Qos, asked: Qos) -> bool {
    offered.reliability == Reliability::Reliable || asked.reliability == Reliability::BestEffort
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let mut topics = self.shared.lock();
        if let Some(topic) = topics.get_mut(&self.topic) {
            topic.members.retain(|member| member.id != self.id);
            if topic.members.is_empty() {
                topics.remove(&self.topic);
            }
        }
    }
}
