//! Repeated log lines at most so often, with the number of those left out.

use std::time::{Duration, Instant};

/// One kind of line.
#[derive(Debug)]
pub(crate) struct Throttle {
    period: Duration,
    last: Option<Instant>,
    n_left_out: u64,
}

impl Throttle {
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, last: None, n_left_out: 0 }
    }

    /// Whether the line is due, and how many were left out since the last one.
    pub(crate) fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < self.period) {
            self.n_left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.n_left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttle_lets_one_through_per_period_and_counts_the_rest() {
        let mut throttle = Throttle::new(Duration::from_secs(5));
        let start = Instant::now();
        let due: Vec<_> = [0, 1, 4, 5, 6, 20].into_iter().map(|s| throttle.due(start + Duration::from_secs(s))).collect();
        assert_eq!(due, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
