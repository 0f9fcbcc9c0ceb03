//! Stamps: when something was measured, as ROS counts it. Durations as numbers, and log lines held apart by time.

mod throttle;

pub(crate) use throttle::Throttle;

use std::time::Duration;

/// Nanoseconds since the Unix epoch (or since the start of simulated time).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// Nanoseconds; negative only in malformed input.
    pub nanos: i64,
}

impl Stamp {
    /// From the two fields of `builtin_interfaces/Time`.
    pub fn from_ros(sec: i32, nanosec: u32) -> Self {
        Self { nanos: i64::from(sec) * 1_000_000_000 + i64::from(nanosec) }
    }

    /// The two fields of `builtin_interfaces/Time`; seconds beyond its 32 bits saturate.
    pub fn to_ros(self) -> (i32, u32) {
        let sec = self.nanos.div_euclid(1_000_000_000).clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        (sec as i32, self.nanos.rem_euclid(1_000_000_000) as u32)
    }

    /// Seconds as a float, for people and plots.
    pub fn seconds(self) -> f64 {
        self.nanos as f64 * 1e-9
    }
}

/// Milliseconds, as reports and tables hold them.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millis_keep_fractions() {
        assert_eq!(millis(Duration::from_micros(1_250)), 1.25);
    }
}
