//! `builtin_interfaces`: points and spans of time.

use serde::{Deserialize, Serialize};

use crate::time::Stamp;

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Time {
    /// Whole seconds since the epoch.
    pub sec: i32,
    /// Nanoseconds after `sec`, 0 to 999 999 999.
    pub nanosec: u32,
}

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Duration {
    /// Whole seconds.
    pub sec: i32,
    /// Nanoseconds after `sec`, 0 to 999 999 999.
    pub nanosec: u32,
}

impl From<Stamp> for Time {
    fn from(stamp: Stamp) -> Self {
        let (sec, nanosec) = stamp.to_ros();
        Self { sec, nanosec }
    }
}

impl From<Time> for Stamp {
    fn from(time: Time) -> Self {
        Stamp::from_ros(time.sec, time.nanosec)
    }
}
