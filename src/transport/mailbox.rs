//! Where a subscription's messages wait for their reader: the newest few, the rest counted.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Sample;

/// Holds up to `depth` messages; the feeding side never waits.
pub(super) struct Mailbox {
    depth: usize,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    kept: VecDeque<Sample>,
    received: u64,
    overwritten: u64,
    undecodable: u64,
    closed: bool,
}

/// Nothing is kept and nothing will come.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

impl Mailbox {
    pub(super) fn new(depth: usize) -> Self {
        Self { depth, state: Mutex::default(), arrived: Condvar::new() }
    }

    /// Keeps `sample`; the oldest message makes room.
    pub(super) fn put(&self, sample: Sample) {
        let mut state = self.lock();
        state.received += 1;
        if state.kept.len() >= self.depth {
            state.kept.pop_front();
            state.overwritten += 1;
        }
        state.kept.push_back(sample);
        drop(state);
        self.arrived.notify_one();
    }

    /// Counts a message that arrived but could not be made into a sample.
    pub(super) fn put_undecodable(&self) {
        self.lock().undecodable += 1;
    }

    /// No more messages will be put.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// The oldest message, waiting for one up to `timeout`.
    pub(super) fn recv(&self, timeout: Duration) -> Result<Option<Sample>, Closed> {
        // A timeout beyond the clock's range means for ever.
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        loop {
            if let Some(sample) = state.kept.pop_front() {
                return Ok(Some(sample));
            }
            if state.closed {
                return Err(Closed);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => return Ok(None),
                Some(left) => self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.lock().received
    }

    pub(super) fn overwritten(&self) -> u64 {
        self.lock().overwritten
    }

    pub(super) fn undecodable(&self) -> u64 {
        self.lock().undecodable
    }

    /// The counters and the queue are whole after every statement, so a panic elsewhere does not spoil them.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the thread that feeds a mailbox: tells its reader that the thread is gone, even when it panicked inside a library.
pub(super) struct ClosedOnDrop(pub(super) Arc<Mailbox>);

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: u8) -> Sample {
        Sample { bytes: vec![number].into(), received: Instant::now() }
    }

    #[test]
    fn mailbox_overfull_keeps_the_newest_in_order_and_counts_the_rest() {
        for (depth, kept) in [(1, vec![5]), (3, vec![3, 4, 5]), (9, vec![1, 2, 3, 4, 5])] {
            let mailbox = Mailbox::new(depth);
            (1..=5).for_each(|number| mailbox.put(sample(number)));
            assert_eq!(mailbox.overwritten(), 5 - kept.len() as u64, "depth {depth}");
            assert_eq!(mailbox.received(), 5);
            let got: Vec<u8> =
                std::iter::from_fn(|| mailbox.recv(Duration::ZERO).expect("open").map(|sample| sample.bytes[0])).collect();
            assert_eq!(got, kept, "depth {depth}");
        }
    }

    #[test]
    fn mailbox_closed_gives_what_it_kept_and_then_ends_even_a_waiting_reader() {
        let mailbox = Mailbox::new(2);
        mailbox.put(sample(1));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                assert_eq!(mailbox.recv(Duration::MAX).expect("open").map(|sample| sample.bytes[0]), Some(1));
                mailbox.recv(Duration::MAX).map(|_| ())
            });
            mailbox.close();
            assert_eq!(reader.join().expect("reader"), Err(Closed));
        });
    }
}
