//! ROS 2 through rcl, with the crate r2r: the node as a client library of a sourced ROS 2 workspace.
//!
//! An r2r node belongs to one thread, which does all that changes it and moves messages out of r2r's channels. These hold ten
//! messages and drop the newest, and a turn of [`r2r::Node::spin_once`] fills each by one at most, so a channel that is
//! emptied after each turn never drops; what is too much is dropped, and counted, by the mailbox alone.
//!
//! r2r writes nothing to `/rosout` or `/parameter_events`, has no lifecycle, and leaves signals alone; all of these are made
//! above this seam, for every backend alike. Its own parameter services are not started. Names come here resolved, and rcl
//! applies the remap rules of the command line once more to them, which only matters to rules that form a chain.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use r2r::{PublisherUntyped, QosProfile, WrappedServiceTypeSupport, WrappedTypesupport};

use super::mailbox::{ClosedOnDrop, Mailbox};
use super::names::{NodeName, TopicName};
use super::service::Handler;
use super::{Qos, Reliability, Sample, TransportError};
use crate::msgs::{MsgType, SrvType};

/// How long a turn waits for messages; as long a new endpoint may wait to be made.
const TURN: Duration = Duration::from_millis(20);

/// How often the publishers of each subscribed topic are counted: rcl has no event for them.
const COUNT_PERIOD: Duration = Duration::from_millis(500);

/// A ROS node. Leaves the graph when dropped.
pub struct Session {
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

/// What is done to the node by its thread.
enum Command {
    Subscribe { topic: TopicName, msg_type: MsgType, qos: Qos, mailbox: Arc<Mailbox>, reply: Reply<(usize, Arc<AtomicUsize>)> },
    Advertise { topic: TopicName, msg_type: MsgType, qos: Qos, reply: Reply<PublisherUntyped> },
    Serve { service: TopicName, srv_type: SrvType, handler: Handler, reply: Reply<usize> },
    Forget { endpoint: usize },
    Withdraw { publisher: PublisherUntyped },
    End,
}

type Reply<T> = Sender<Result<T, TransportError>>;

impl Session {
    /// Joins the graph as `node`; middleware and domain are what rcl reads from the environment.
    pub(super) fn join(node: &NodeName) -> Result<Self, TransportError> {
        let (commands, received) = mpsc::channel();
        let (reply, joined) = mpsc::channel();
        let own_name = node.clone();
        let thread = std::thread::Builder::new()
            .name("ros".to_owned())
            .spawn(move || match create(&own_name) {
                Ok(node) => {
                    // The other end waits.
                    let _ = reply.send(Ok(()));
                    Turns { node, fed: HashMap::new(), next_id: 0, counted: Instant::now() }.run(&received);
                }
                Err(fault) => {
                    let _ = reply.send(Err(refused(format!("create node {own_name}"), &fault)));
                }
            })
            .map_err(|source| TransportError::Thread { name: "ros", source })?;
        let session = Self { commands, thread: Some(thread) };
        // r2r panics where rcl refuses the environment or the command line, which ends the thread.
        joined.recv().unwrap_or_else(|_| Err(gone(format!("create node {node}"))))?;
        Ok(session)
    }

    fn ask<T>(&self, action: impl Fn() -> String, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, TransportError> {
        let (reply, answer) = mpsc::channel();
        self.commands.send(command(reply)).map_err(|_| gone(action()))?;
        answer.recv().unwrap_or_else(|_| Err(gone(action())))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It is gone already when this fails.
        let _ = self.commands.send(Command::End);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the ROS thread had panicked");
        }
    }
}

fn create(node: &NodeName) -> r2r::Result<r2r::Node> {
    r2r::Node::create(r2r::Context::create()?, node.base(), node.namespace())
}

fn refused(action: String, fault: &dyn std::fmt::Display) -> TransportError {
    TransportError::Refused { action, reason: fault.to_string() }
}

fn gone(action: String) -> TransportError {
    refused(action, &"the ROS thread has ended")
}

/// The receiving end of a topic.
pub(super) struct Reader {
    session: Arc<Session>,
    id: usize,
    publishers: Arc<AtomicUsize>,
}

impl Reader {
    pub(super) fn new(
        session: Arc<Session>,
        topic: &TopicName,
        msg_type: &MsgType,
        qos: Qos,
        mailbox: Arc<Mailbox>,
    ) -> Result<Self, TransportError> {
        let (topic, msg_type) = (topic.clone(), *msg_type);
        let action = format!("subscribe to {topic}");
        let (id, publishers) =
            session.ask(|| action.clone(), |reply| Command::Subscribe { topic, msg_type, qos, mailbox, reply })?;
        Ok(Self { session, id, publishers })
    }

    pub(super) fn matched(&self) -> usize {
        self.publishers.load(Ordering::Relaxed)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.session.commands.send(Command::Forget { endpoint: self.id });
    }
}

/// The sending end of a topic.
pub(super) struct Writer {
    session: Arc<Session>,
    topic: TopicName,
    /// r2r lets it move between threads but not be shared by them. `None` while it is dropped.
    publisher: Mutex<Option<PublisherUntyped>>,
}

impl Writer {
    pub(super) fn new(session: Arc<Session>, topic: &TopicName, msg_type: &MsgType, qos: Qos) -> Result<Self, TransportError> {
        let (own_topic, msg_type) = (topic.clone(), *msg_type);
        let action = format!("publish {topic}");
        let publisher = session.ask(|| action.clone(), |reply| Command::Advertise { topic: own_topic, msg_type, qos, reply })?;
        Ok(Self { session, topic: topic.clone(), publisher: Mutex::new(Some(publisher)) })
    }

    pub(super) fn write(&self, payload: &Bytes) -> Result<(), TransportError> {
        self.with(|publisher| publisher.publish_raw(payload))
            .map_err(|fault| refused(format!("publish on {}", self.topic), &fault))
    }

    pub(super) fn matched(&self) -> usize {
        // It fails only when the node is gone.
        self.with(PublisherUntyped::get_inter_process_subscription_count).unwrap_or_default()
    }

    fn with<T>(&self, act: impl FnOnce(&PublisherUntyped) -> r2r::Result<T>) -> r2r::Result<T> {
        let publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        publisher.as_ref().map_or(Err(r2r::Error::RCL_RET_PUBLISHER_INVALID), act)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let publisher = self.publisher.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(publisher) = publisher {
            let _ = self.session.commands.send(Command::Withdraw { publisher });
        }
    }
}

/// The answering end of a service.
pub(super) struct Server {
    session: Arc<Session>,
    id: usize,
}

impl Server {
    pub(super) fn new(
        session: Arc<Session>,
        service: &TopicName,
        srv_type: &SrvType,
        handler: Handler,
    ) -> Result<Self, TransportError> {
        let (service, srv_type) = (service.clone(), *srv_type);
        let action = format!("offer service {service}");
        let id = session.ask(|| action.clone(), |reply| Command::Serve { service, srv_type, handler, reply })?;
        Ok(Self { session, id })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.session.commands.send(Command::Forget { endpoint: self.id });
    }
}

/// The thread's work.
struct Turns {
    node: r2r::Node,
    fed: HashMap<usize, Fed>,
    next_id: usize,
    counted: Instant,
}

/// What r2r feeds. r2r takes an endpoint down once its stream is dropped and one more message came.
enum Fed {
    Topic {
        stream: Box<dyn Stream<Item = Vec<u8>> + Unpin>,
        mailbox: ClosedOnDrop,
        topic: TopicName,
        publishers: Arc<AtomicUsize>,
    },
    Service {
        answer_all: Box<dyn FnMut()>,
    },
}

impl Turns {
    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            loop {
                match commands.try_recv() {
                    Ok(Command::End) | Err(TryRecvError::Disconnected) => return,
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.node.spin_once(TURN);
            for fed in self.fed.values_mut() {
                match fed {
                    Fed::Topic { stream, mailbox, .. } => {
                        while let Some(Some(bytes)) = stream.next().now_or_never() {
                            mailbox.0.put(Sample { bytes: bytes.into(), received: Instant::now() });
                        }
                    }
                    Fed::Service { answer_all } => answer_all(),
                }
            }
            if self.counted.elapsed() > COUNT_PERIOD {
                self.counted = Instant::now();
                self.count_publishers();
            }
        }
    }

    fn obey(&mut self, command: Command) {
        // Who asked may have been dropped in the meantime.
        match command {
            Command::Subscribe { topic, msg_type, qos, mailbox, reply } => {
                let stream = self.node.subscribe_raw(topic.as_str(), msg_type.ros, profile(qos));
                let made = stream.map_err(|fault| refused(format!("subscribe to {topic} ({})", msg_type.ros), &fault));
                let _ = reply.send(made.map(|stream| {
                    let publishers = Arc::new(AtomicUsize::new(0));
                    let stream = Box::new(stream);
                    let mailbox = ClosedOnDrop(mailbox);
                    let id = self.feed(Fed::Topic { stream, mailbox, topic, publishers: Arc::clone(&publishers) });
                    (id, publishers)
                }));
            }
            Command::Advertise { topic, msg_type, qos, reply } => {
                let publisher = self.node.create_publisher_untyped(topic.as_str(), msg_type.ros, profile(qos));
                let _ = reply.send(publisher.map_err(|fault| refused(format!("publish {topic} ({})", msg_type.ros), &fault)));
            }
            Command::Serve { service, srv_type, handler, reply } => {
                let answering = answering(&mut self.node, &service, &srv_type, handler);
                let _ = reply.send(answering.map(|answer_all| self.feed(Fed::Service { answer_all })));
            }
            Command::Forget { endpoint } => drop(self.fed.remove(&endpoint)),
            Command::Withdraw { publisher } => self.node.destroy_publisher_untyped(publisher),
            Command::End => {}
        }
    }

    fn feed(&mut self, fed: Fed) -> usize {
        self.next_id += 1;
        self.fed.insert(self.next_id, fed);
        self.next_id
    }

    fn count_publishers(&self) {
        for fed in self.fed.values() {
            if let Fed::Topic { topic, publishers, .. } = fed {
                let n_publishers = self.node.get_publishers_info_by_topic(topic.as_str(), false).map_or(0, |infos| infos.len());
                publishers.store(n_publishers, Ordering::Relaxed);
            }
        }
    }
}

fn profile(qos: Qos) -> QosProfile {
    let profile = QosProfile::default().keep_last(qos.depth);
    let profile = match qos.reliability {
        Reliability::BestEffort => profile.best_effort(),
        Reliability::Reliable => profile.reliable(),
    };
    if qos.latched { profile.transient_local() } else { profile.volatile() }
}

/// r2r has services of types known when it is compiled only, so all that the node offers are listed here.
fn answering(
    node: &mut r2r::Node,
    service: &TopicName,
    srv_type: &SrvType,
    handler: Handler,
) -> Result<Box<dyn FnMut()>, TransportError> {
    use r2r::lifecycle_msgs::srv as lifecycle;
    use r2r::rcl_interfaces::srv as rcl;
    let made = match srv_type.ros {
        "rcl_interfaces/srv/ListParameters" => answer_all::<rcl::ListParameters::Service>(node, service, handler),
        "rcl_interfaces/srv/GetParameters" => answer_all::<rcl::GetParameters::Service>(node, service, handler),
        "rcl_interfaces/srv/GetParameterTypes" => answer_all::<rcl::GetParameterTypes::Service>(node, service, handler),
        "rcl_interfaces/srv/DescribeParameters" => answer_all::<rcl::DescribeParameters::Service>(node, service, handler),
        "rcl_interfaces/srv/SetParameters" => answer_all::<rcl::SetParameters::Service>(node, service, handler),
        "rcl_interfaces/srv/SetParametersAtomically" => {
            answer_all::<rcl::SetParametersAtomically::Service>(node, service, handler)
        }
        "lifecycle_msgs/srv/ChangeState" => answer_all::<lifecycle::ChangeState::Service>(node, service, handler),
        "lifecycle_msgs/srv/GetState" => answer_all::<lifecycle::GetState::Service>(node, service, handler),
        "lifecycle_msgs/srv/GetAvailableStates" => answer_all::<lifecycle::GetAvailableStates::Service>(node, service, handler),
        "lifecycle_msgs/srv/GetAvailableTransitions" => {
            answer_all::<lifecycle::GetAvailableTransitions::Service>(node, service, handler)
        }
        // Not among the types that r2r saved for a machine without ROS.
        #[cfg(not(feature = "r2r-doc-only"))]
        "std_srvs/srv/SetBool" => answer_all::<r2r::std_srvs::srv::SetBool::Service>(node, service, handler),
        other => return Err(refused(format!("offer service {service}"), &format!("type {other} is not known to this build"))),
    };
    made.map_err(|fault| refused(format!("offer service {service} ({})", srv_type.ros), &fault))
}

/// Answers all questions that have come, at each call.
fn answer_all<T: WrappedServiceTypeSupport + 'static>(
    node: &mut r2r::Node,
    service: &TopicName,
    mut handler: Handler,
) -> r2r::Result<Box<dyn FnMut()>> {
    let mut questions = node.create_service::<T>(service.as_str(), QosProfile::services_default())?;
    let name = service.clone();
    Ok(Box::new(move || {
        while let Some(Some(question)) = questions.next().now_or_never() {
            let answer = question
                .message
                .to_serialized_bytes()
                .map_err(|fault| fault.to_string())
                .and_then(|bytes| handler(&bytes).map_err(|fault| fault.to_string()))
                .and_then(|bytes| T::Response::from_serialized_bytes(&bytes).map_err(|fault| fault.to_string()));
            let sent = answer.and_then(|answer| question.respond(answer).map_err(|fault| fault.to_string()));
            if let Err(fault) = sent {
                tracing::warn!("service {name}: a question was not answered: {fault}");
            }
        }
    }))
}
