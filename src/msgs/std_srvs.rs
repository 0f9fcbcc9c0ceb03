//! `std_srvs`: services that need no types of their own.

use serde::{Deserialize, Serialize};

use super::{Service, SrvType, srv_type};

/// Switches something on or off.
pub struct SetBool;

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SetBoolRequest {
    /// On.
    pub data: bool,
}

/// Whether it worked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SetBoolResponse {
    /// Whether it is as asked for.
    pub success: bool,
    /// One line.
    pub message: String,
}

impl Service for SetBool {
    type Request = SetBoolRequest;
    type Response = SetBoolResponse;
    const TYPE: SrvType = srv_type!("std_srvs", "SetBool");
}
