//! Topics inside one process: no sockets, no threads, delivery before `publish` returns.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use super::mailbox::Mailbox;
use super::names::TopicName;
use super::service::{Handler, unavailable};
use super::{Qos, Reliability, Sample, TransportError};
use crate::msgs::{MsgType, Service, SrvType, cdr};

/// The topics of one bus; clones share them.
#[derive(Clone, Default)]
pub struct Bus {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    topics: Mutex<HashMap<TopicName, Topic>>,
    services: Mutex<HashMap<TopicName, Offered>>,
    next_id: AtomicU64,
}

struct Topic {
    msg_type: MsgType,
    members: Vec<Member>,
    /// The newest messages of latched publishers, for those who come later.
    latched: VecDeque<Sample>,
}

struct Member {
    id: u64,
    qos: Qos,
    /// Where messages go; `None` for a publisher.
    mailbox: Option<Arc<Mailbox>>,
}

/// A service and what answers it.
type Offered = (SrvType, Arc<Mutex<Handler>>);

/// A service on the bus, withdrawn on drop.
pub(super) struct Offer {
    shared: Arc<Shared>,
    service: TopicName,
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
        let entry = topics.entry(topic.clone()).or_insert_with(|| Topic {
            msg_type: *msg_type,
            members: Vec::new(),
            latched: VecDeque::new(),
        });
        if entry.msg_type.ros != msg_type.ros {
            return Err(TransportError::TypeMismatch {
                topic: topic.to_string(),
                expected: entry.msg_type.ros,
                got: msg_type.ros,
            });
        }
        if let Some(mailbox) = mailbox.as_ref().filter(|_| qos.latched) {
            entry.latched.iter().for_each(|sample| mailbox.put(sample.clone()));
        }
        entry.members.push(Member { id, qos, mailbox });
        Ok(Endpoint { shared: Arc::clone(&self.shared), topic: topic.clone(), id })
    }
}

impl Bus {
    pub(super) fn offer(&self, service: &TopicName, srv_type: &SrvType, handler: Handler) -> Result<Offer, TransportError> {
        let mut services = self.shared.services();
        if services.contains_key(service) {
            return Err(unavailable(service, srv_type, "is offered already"));
        }
        services.insert(service.clone(), (*srv_type, Arc::new(Mutex::new(handler))));
        Ok(Offer { shared: Arc::clone(&self.shared), service: service.clone() })
    }

    /// Asks a service and gives its answer, computed on this thread.
    ///
    /// # Errors
    /// [`TransportError::Service`] when nobody offers it under this type, or the answer is not of this type.
    pub fn call<S: Service>(&self, service: &TopicName, request: &S::Request) -> Result<S::Response, TransportError> {
        let offered = self.shared.services().get(service).cloned();
        let (_, handler) = offered
            .filter(|(srv_type, _)| srv_type.ros == S::TYPE.ros)
            .ok_or_else(|| unavailable(service, &S::TYPE, "is not offered"))?;
        let answer = handler.lock().unwrap_or_else(PoisonError::into_inner)(&cdr::to_bytes(request));
        answer.and_then(|bytes| cdr::from_bytes(&bytes)).map_err(|fault| TransportError::Service {
            service: service.to_string(),
            srv_type: S::TYPE.ros,
            reason: fault.to_string(),
        })
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.shared.services().remove(&self.service);
    }
}

impl Shared {
    fn services(&self) -> MutexGuard<'_, HashMap<TopicName, Offered>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicName, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoint {
    pub(super) fn publish(&self, payload: &Bytes) {
        let sample = Sample { bytes: payload.clone(), received: Instant::now() };
        self.for_each_match(|member| {
            if let Some(mailbox) = &member.mailbox {
                mailbox.put(sample.clone());
            }
        });
        let mut topics = self.shared.lock();
        let Some(topic) = topics.get_mut(&self.topic) else { return };
        let Some(own) = topic.members.iter().find(|member| member.id == self.id && member.qos.latched) else { return };
        if topic.latched.len() >= own.qos.depth {
            topic.latched.pop_front();
        }
        topic.latched.push_back(sample);
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
    (offered.reliability == Reliability::Reliable || asked.reliability == Reliability::BestEffort)
        && (offered.latched || !asked.latched)
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
