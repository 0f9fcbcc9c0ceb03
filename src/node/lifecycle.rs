//! The states of a managed node, as `ros2 lifecycle` and launch files switch them.
//!
//! | state | what the node holds and does |
//! | --- | --- |
//! | unconfigured | endpoints only; no weights, no thread of inference |
//! | inactive | the model on its device, warmed up; clouds are counted and dropped |
//! | active | clouds are processed |
//! | finalized | nothing any more, until the process is told to end |
//!
//! # Source
//! design.ros2.org, "Managed nodes"; numbers and labels of lifecycle_msgs and rcl_lifecycle.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::logging::now;
use super::names;
use crate::msgs::lifecycle_msgs::{
    ChangeState, ChangeStateResponse, GetAvailableStates, GetAvailableStatesResponse, GetAvailableTransitions,
    GetAvailableTransitionsResponse, GetState, GetStateResponse, State, Transition, TransitionDescription, TransitionEvent,
};
use crate::msgs::{Message, cdr};
use crate::transport::names::NodeName;
use crate::transport::service::ServiceServer;
use crate::transport::{Publisher, Qos, Transport, TransportError};

/// What a transition does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Configure,
    Cleanup,
    Activate,
    Deactivate,
    Shutdown,
}

/// A transition that others may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) step: Step,
    id: u8,
    label: &'static str,
    from: u8,
    /// The state while it is on its way.
    via: u8,
    to: u8,
    /// Id of the transition that ends it well; the next one ends it where it began.
    success: u8,
}

const EDGES: [Edge; 7] = [
    edge(Step::Configure, Transition::CONFIGURE, "configure", State::UNCONFIGURED, State::CONFIGURING, State::INACTIVE, 10),
    edge(Step::Cleanup, Transition::CLEANUP, "cleanup", State::INACTIVE, State::CLEANING_UP, State::UNCONFIGURED, 20),
    edge(Step::Activate, Transition::ACTIVATE, "activate", State::INACTIVE, State::ACTIVATING, State::ACTIVE, 30),
    edge(Step::Deactivate, Transition::DEACTIVATE, "deactivate", State::ACTIVE, State::DEACTIVATING, State::INACTIVE, 40),
    shutdown(Transition::UNCONFIGURED_SHUTDOWN, State::UNCONFIGURED),
    shutdown(Transition::INACTIVE_SHUTDOWN, State::INACTIVE),
    shutdown(Transition::ACTIVE_SHUTDOWN, State::ACTIVE),
];

const fn edge(step: Step, id: u8, label: &'static str, from: u8, via: u8, to: u8, success: u8) -> Edge {
    Edge { step, id, label, from, via, to, success }
}

const fn shutdown(id: u8, from: u8) -> Edge {
    edge(Step::Shutdown, id, "shutdown", from, State::SHUTTING_DOWN, State::FINALIZED, 50)
}

/// Every state this node can be in.
const STATES: [(u8, &str); 10] = [
    (State::UNKNOWN, "unknown"),
    (State::UNCONFIGURED, "unconfigured"),
    (State::INACTIVE, "inactive"),
    (State::ACTIVE, "active"),
    (State::FINALIZED, "finalized"),
    (State::CONFIGURING, "configuring"),
    (State::CLEANING_UP, "cleaningup"),
    (State::SHUTTING_DOWN, "shuttingdown"),
    (State::ACTIVATING, "activating"),
    (State::DEACTIVATING, "deactivating"),
];

fn state(id: u8) -> State {
    let label = STATES.iter().find(|(known, _)| *known == id).map_or("unknown", |(_, label)| label);
    State { id, label: label.to_owned() }
}

impl Edge {
    fn describe(&self) -> TransitionDescription {
        TransitionDescription {
            transition: Transition { id: self.id, label: self.label.to_owned() },
            start_state: state(self.from),
            goal_state: state(self.via),
        }
    }
}

/// Somebody waits for a transition.
pub(super) struct Asked {
    pub(super) edge: Edge,
    done: mpsc::Sender<bool>,
}

/// The node's state, and the services that tell and change it. Gone when dropped.
pub(super) struct Managed {
    state: Arc<AtomicU8>,
    asked: UnboundedReceiver<Asked>,
    events: Publisher,
    _services: Vec<ServiceServer>,
}

impl Managed {
    /// Offers the services of an unconfigured node.
    ///
    /// # Errors
    /// When the middleware refuses.
    pub(super) fn offer(node: &NodeName, transport: &Transport) -> Result<Self, TransportError> {
        let own = |name: &str| names::expand(node, &format!("~/{name}"));
        let state_id = Arc::new(AtomicU8::new(State::UNCONFIGURED));
        let (ask, asked) = unbounded_channel();
        let (changed, told, listed) = (Arc::clone(&state_id), Arc::clone(&state_id), Arc::clone(&state_id));
        let services = vec![
            transport.serve::<ChangeState>(&own("change_state")?, move |request| ChangeStateResponse {
                success: change(&request.transition, changed.load(Ordering::Acquire), &ask),
            })?,
            transport.serve::<GetState>(&own("get_state")?, move |_| GetStateResponse {
                current_state: state(told.load(Ordering::Acquire)),
            })?,
            transport.serve::<GetAvailableStates>(&own("get_available_states")?, |_| GetAvailableStatesResponse {
                available_states: STATES.iter().map(|(id, _)| state(*id)).collect(),
            })?,
            transport.serve::<GetAvailableTransitions>(&own("get_available_transitions")?, move |_| {
                let from = listed.load(Ordering::Acquire);
                let available_transitions = EDGES.iter().filter(|edge| edge.from == from).map(Edge::describe).collect();
                GetAvailableTransitionsResponse { available_transitions }
            })?,
            transport.serve::<GetAvailableTransitions>(&own("get_transition_graph")?, |_| GetAvailableTransitionsResponse {
                available_transitions: EDGES.iter().map(Edge::describe).collect(),
            })?,
        ];
        let events = transport.advertise(&own("transition_event")?, &TransitionEvent::TYPE, Qos::RELIABLE)?;
        Ok(Self { state: state_id, asked, events, _services: services })
    }

    /// The next transition to make, already begun; never when nobody can ask any more.
    pub(super) async fn next(&mut self) -> Asked {
        match self.asked.recv().await {
            Some(asked) => {
                let edge = asked.edge;
                self.enter(edge.via, Transition { id: edge.id, label: edge.label.to_owned() });
                asked
            }
            None => std::future::pending().await,
        }
    }

    /// Ends a transition where it leads, or where it began.
    pub(super) fn end(&self, asked: &Asked, success: bool) {
        let edge = asked.edge;
        let (goal, id, label) = if success {
            (edge.to, edge.success, "transition_success")
        } else {
            (edge.from, edge.success + 1, "transition_failure")
        };
        self.enter(goal, Transition { id, label: label.to_owned() });
        tracing::info!(
            "{}: {}",
            edge.label,
            if success { state(goal).label } else { format!("failed, {} again", state(goal).label) }
        );
        // Who asked may have gone.
        let _ = asked.done.send(success);
    }

    fn enter(&self, goal: u8, transition: Transition) {
        let start = self.state.swap(goal, Ordering::AcqRel);
        let event =
            TransitionEvent { timestamp: now().nanos as u64, transition, start_state: state(start), goal_state: state(goal) };
        if let Err(error) = self.events.publish(&cdr::to_bytes(&event)) {
            tracing::warn!("{error}");
        }
    }
}

/// Hands the transition to the node and waits for its end, on a thread of the middleware.
fn change(wanted: &Transition, from: u8, ask: &UnboundedSender<Asked>) -> bool {
    let is_wanted =
        |edge: &&Edge| edge.from == from && if wanted.id == 0 { edge.label == wanted.label } else { edge.id == wanted.id };
    let Some(edge) = EDGES.iter().find(is_wanted) else {
        tracing::warn!("no transition {} `{}` from state {}", wanted.id, wanted.label, state(from).label);
        return false;
    };
    let (done, ended) = mpsc::channel();
    ask.send(Asked { edge: *edge, done }).is_ok() && ended.recv().unwrap_or(false)
}
