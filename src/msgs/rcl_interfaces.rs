//! `rcl_interfaces`: the parameters of a node, asked for and changed by services, and its log lines on a topic.

use serde::{Deserialize, Serialize};

use super::builtin_interfaces::Time;
use super::{Message, MsgType, Service, SrvType, definition, srv_type};

/// The value of a parameter; which field counts is said by `type`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ParameterValue {
    /// One of [`ParameterType`]'s constants.
    pub r#type: u8,
    pub bool_value: bool,
    pub integer_value: i64,
    pub double_value: f64,
    pub string_value: String,
    #[serde(with = "serde_bytes")]
    pub byte_array_value: Vec<u8>,
    pub bool_array_value: Vec<bool>,
    pub integer_array_value: Vec<i64>,
    pub double_array_value: Vec<f64>,
    pub string_array_value: Vec<String>,
}

/// What a parameter can be.
pub struct ParameterType;

#[allow(missing_docs)] // the names are the types
impl ParameterType {
    pub const NOT_SET: u8 = 0;
    pub const BOOL: u8 = 1;
    pub const INTEGER: u8 = 2;
    pub const DOUBLE: u8 = 3;
    pub const STRING: u8 = 4;
    pub const BYTE_ARRAY: u8 = 5;
    pub const BOOL_ARRAY: u8 = 6;
    pub const INTEGER_ARRAY: u8 = 7;
    pub const DOUBLE_ARRAY: u8 = 8;
    pub const STRING_ARRAY: u8 = 9;
}

/// A parameter.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name, with dots.
    pub name: String,
    /// Its value.
    pub value: ParameterValue,
}

/// What floating-point values are allowed; both ends are.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct FloatingPointRange {
    /// Least value.
    pub from_value: f64,
    /// Greatest value.
    pub to_value: f64,
    /// Between allowed values; 0 for any.
    pub step: f64,
}

/// What whole numbers are allowed; both ends are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IntegerRange {
    /// Least value.
    pub from_value: i64,
    /// Greatest value.
    pub to_value: i64,
    /// Between allowed values; 0 for any.
    pub step: u64,
}

/// What a parameter is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ParameterDescriptor {
    /// Its name.
    pub name: String,
    /// One of [`ParameterType`]'s constants.
    pub r#type: u8,
    /// What it does.
    pub description: String,
    /// Rules that the ranges cannot say.
    pub additional_constraints: String,
    /// Cannot be changed while the node runs.
    pub read_only: bool,
    /// Whether its type may change.
    pub dynamic_typing: bool,
    /// One at most.
    pub floating_point_range: Vec<FloatingPointRange>,
    /// One at most.
    pub integer_range: Vec<IntegerRange>,
}

/// Whether parameters were changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SetParametersResult {
    /// Whether they were.
    pub successful: bool,
    /// Why not.
    pub reason: String,
}

/// Names of parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListParametersResult {
    /// The names.
    pub names: Vec<String>,
    /// What stands before the last dot of any of them.
    pub prefixes: Vec<String>,
}

/// Parameters that a node has now and has not had before, on `/parameter_events`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ParameterEvent {
    /// When.
    pub stamp: Time,
    /// Full name of the node.
    pub node: String,
    /// Declared.
    pub new_parameters: Vec<Parameter>,
    /// Set to another value.
    pub changed_parameters: Vec<Parameter>,
    /// No longer declared.
    pub deleted_parameters: Vec<Parameter>,
}

impl Message for ParameterEvent {
    const TYPE: MsgType = MsgType {
        ros: "rcl_interfaces/msg/ParameterEvent",
        dds: "rcl_interfaces::msg::dds_::ParameterEvent_",
        definition: definition!(
            "definitions/rcl_interfaces/ParameterEvent.msg",
            "builtin_interfaces/Time",
            "rcl_interfaces/Parameter",
            "rcl_interfaces/ParameterValue",
        ),
        type_hash: "RIHS01_043e627780fcad87a22d225bc2a037361dba713fca6a6b9f4b869a5aa0393204",
    };
}

/// A log line, on `/rosout`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Log {
    /// When.
    pub stamp: Time,
    /// One of the constants below.
    pub level: u8,
    /// Who logs.
    pub name: String,
    /// The line.
    pub msg: String,
    /// File of the source code.
    pub file: String,
    /// Function or module.
    pub function: String,
    /// Line of the source code.
    pub line: u32,
}

#[allow(missing_docs)] // the names say the level
impl Log {
    pub const DEBUG: u8 = 10;
    pub const INFO: u8 = 20;
    pub const WARN: u8 = 30;
    pub const ERROR: u8 = 40;
}

impl Message for Log {
    const TYPE: MsgType = MsgType {
        ros: "rcl_interfaces/msg/Log",
        dds: "rcl_interfaces::msg::dds_::Log_",
        definition: definition!("definitions/rcl_interfaces/Log.msg", "builtin_interfaces/Time"),
        type_hash: "RIHS01_e28ce254ca8abc06abf92773b74602cdbf116ed34fbaf294fb9f81da9f318eac",
    };
}

/// Which parameters there are.
pub struct ListParameters;

/// Asks for names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListParametersRequest {
    /// Only those under one of these; all when empty.
    pub prefixes: Vec<String>,
    /// Parts of names beyond the prefix; 0 for any number.
    pub depth: u64,
}

/// The names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListParametersResponse {
    /// The names.
    pub result: ListParametersResult,
}

impl Service for ListParameters {
    type Request = ListParametersRequest;
    type Response = ListParametersResponse;
    const TYPE: SrvType = srv_type!("rcl_interfaces", "ListParameters");
}

/// Names of parameters, in requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ParameterNames {
    /// The names.
    pub names: Vec<String>,
}

/// What values parameters have.
pub struct GetParameters;

/// Values in the order of the request; empty when a name is unknown.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GetParametersResponse {
    /// The values.
    pub values: Vec<ParameterValue>,
}

impl Service for GetParameters {
    type Request = ParameterNames;
    type Response = GetParametersResponse;
    const TYPE: SrvType = srv_type!("rcl_interfaces", "GetParameters");
}

/// Of what type parameters are.
pub struct GetParameterTypes;

/// Types in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GetParameterTypesResponse {
    /// [`ParameterType`]'s constants.
    #[serde(with = "serde_bytes")]
    pub types: Vec<u8>,
}

impl Service for GetParameterTypes {
    type Request = ParameterNames;
    type Response = GetParameterTypesResponse;
    const TYPE: SrvType = srv_type!("rcl_interfaces", "GetParameterTypes");
}

/// What parameters are for.
pub struct DescribeParameters;

/// Descriptions in the order of the request.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DescribeParametersResponse {
    /// The descriptions.
    pub descriptors: Vec<ParameterDescriptor>,
}

impl Service for DescribeParameters {
    type Request = ParameterNames;
    type Response = DescribeParametersResponse;
    const TYPE: SrvType = srv_type!("rcl_interfaces", "DescribeParameters");
}

/// Parameters to set, in requests.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ParametersToSet {
    /// Name and new value of each.
    pub parameters: Vec<Parameter>,
}

/// Changes parameters one by one.
pub struct SetParameters;

/// What became of each.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SetParametersResponse {
    /// In the order of the request.
    pub results: Vec<SetParametersResult>,
}

impl Service for SetParameters {
    type Request = ParametersToSet;
    type Response = SetParametersResponse;
    const TYPE: SrvType = srv_type!("rcl_interfaces", "SetParameters");
}

/// Changes all of several parameters or none.
pub struct SetParametersAtomically;

/// What became of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SetParametersAtomicallyResponse {
    /// One for all.
    pub result: SetParametersResult,
}

impl Service for SetParametersAtomically {
    type Request = ParametersToSet;
    type Response = SetParametersAtomicallyResponse;
    const TYPE: SrvType = srv_type!("rcl_interfaces", "SetParametersAtomically");
}
