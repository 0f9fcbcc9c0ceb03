//! `lifecycle_msgs`: nodes whose states others switch.

use serde::{Deserialize, Serialize};

use super::{Message, MsgType, Service, SrvType, definition, srv_type};

/// A way from a state to another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Transition {
    /// One of the constants below; 0 with a label in requests.
    pub id: u8,
    /// Its name.
    pub label: String,
}

#[allow(missing_docs)] // ROS's names
impl Transition {
    pub const CONFIGURE: u8 = 1;
    pub const CLEANUP: u8 = 2;
    pub const ACTIVATE: u8 = 3;
    pub const DEACTIVATE: u8 = 4;
    pub const UNCONFIGURED_SHUTDOWN: u8 = 5;
    pub const INACTIVE_SHUTDOWN: u8 = 6;
    pub const ACTIVE_SHUTDOWN: u8 = 7;
}

/// A state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// One of the constants below.
    pub id: u8,
    /// Its name.
    pub label: String,
}

#[allow(missing_docs)] // ROS's names
impl State {
    pub const UNKNOWN: u8 = 0;
    pub const UNCONFIGURED: u8 = 1;
    pub const INACTIVE: u8 = 2;
    pub const ACTIVE: u8 = 3;
    pub const FINALIZED: u8 = 4;
    pub const CONFIGURING: u8 = 10;
    pub const CLEANING_UP: u8 = 11;
    pub const SHUTTING_DOWN: u8 = 12;
    pub const ACTIVATING: u8 = 13;
    pub const DEACTIVATING: u8 = 14;
}

/// A transition and the states at its ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TransitionDescription {
    /// The transition.
    pub transition: Transition,
    /// Where it begins.
    pub start_state: State,
    /// Where it ends.
    pub goal_state: State,
}

/// A transition that happened, on `~/transition_event`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TransitionEvent {
    /// Nanoseconds since the epoch.
    pub timestamp: u64,
    /// The transition.
    pub transition: Transition,
    /// The state left.
    pub start_state: State,
    /// The state entered.
    pub goal_state: State,
}

impl Message for TransitionEvent {
    const TYPE: MsgType = MsgType {
        ros: "lifecycle_msgs/msg/TransitionEvent",
        dds: "lifecycle_msgs::msg::dds_::TransitionEvent_",
        definition: definition!(
            "definitions/lifecycle_msgs/TransitionEvent.msg",
            "lifecycle_msgs/Transition",
            "lifecycle_msgs/State",
        ),
        type_hash: "RIHS01_d5f8873a2f0146498f812d7885c7327ce27e463d36811d8792f35ee38c0d6c38",
    };
}

/// A request without content: IDL has no empty structs, so ROS puts a byte there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Nothing {
    pub structure_needs_at_least_one_member: u8,
}

/// Makes a node take a transition.
pub struct ChangeState;

/// Which.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChangeStateRequest {
    /// By id, or by label when the id is 0.
    pub transition: Transition,
}

/// Whether it arrived where the transition leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChangeStateResponse {
    /// Whether it did.
    pub success: bool,
}

impl Service for ChangeState {
    type Request = ChangeStateRequest;
    type Response = ChangeStateResponse;
    const TYPE: SrvType = srv_type!("lifecycle_msgs", "ChangeState");
}

/// In which state a node is.
pub struct GetState;

/// The state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GetStateResponse {
    /// Now.
    pub current_state: State,
}

impl Service for GetState {
    type Request = Nothing;
    type Response = GetStateResponse;
    const TYPE: SrvType = srv_type!("lifecycle_msgs", "GetState");
}

/// Which states there are.
pub struct GetAvailableStates;

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GetAvailableStatesResponse {
    /// The states.
    pub available_states: Vec<State>,
}

impl Service for GetAvailableStates {
    type Request = Nothing;
    type Response = GetAvailableStatesResponse;
    const TYPE: SrvType = srv_type!("lifecycle_msgs", "GetAvailableStates");
}

/// Which transitions there are.
pub struct GetAvailableTransitions;

/// Those from the state now, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GetAvailableTransitionsResponse {
    /// The transitions.
    pub available_transitions: Vec<TransitionDescription>,
}

impl Service for GetAvailableTransitions {
    type Request = Nothing;
    type Response = GetAvailableTransitionsResponse;
    const TYPE: SrvType = srv_type!("lifecycle_msgs", "GetAvailableTransitions");
}
