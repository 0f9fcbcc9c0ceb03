//! The keys of the table `messages`, also where its tree is damaged: the scan goes on behind the damage.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, Row};

/// How many unreadable ids are tried one by one before the steps grow.
const SINGLE_STEPS: u32 = 1024;

/// Ordered by log time, then row id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub log_time_ns: i64,
    pub row_id: i64,
    pub topic_idx: usize,
}

/// What a scan found.
#[derive(Default)]
pub(super) struct Scanned {
    /// Sorted.
    pub keys: Vec<Key>,
    /// First row id that is missing, why, and how many ids are missing.
    pub faults: Vec<(i64, String, Option<u64>)>,
    /// Messages per topic id that the file does not describe.
    pub unnamed: BTreeMap<i64, u64>,
}

/// Reads the table but for the messages themselves.
///
/// # Errors
/// When there is no such table.
pub(super) fn scan(connection: &Connection, topic_of_id: &HashMap<i64, usize>) -> rusqlite::Result<Scanned> {
    let mut scan = Scan { connection, topic_of_id, found: Scanned::default() };
    scan.run()?;
    scan.found.keys.sort_unstable();
    Ok(scan.found)
}

struct Scan<'a> {
    connection: &'a Connection,
    topic_of_id: &'a HashMap<i64, usize>,
    found: Scanned,
}

impl Scan<'_> {
    fn run(&mut self) -> rusqlite::Result<()> {
        let mut probe = self.connection.prepare("SELECT id, topic_id, timestamp FROM messages WHERE id = ?1")?;
        let max_id: Option<i64> = self.connection.query_row("SELECT max(id) FROM messages", [], |row| row.get(0)).unwrap_or(None);
        let mut from = i64::MIN;
        loop {
            let (last, fault) = self.ascend(from)?;
            let Some(fault) = fault else { return Ok(()) };
            // Ids count from 1. A row that is found but cannot be scanned from is passed over, so every round moves on.
            let gap = last.map_or(if from == i64::MIN { 1 } else { from.saturating_add(1) }, |id| id.saturating_add(1));
            let next = first_readable(gap, max_id.unwrap_or(i64::MAX), |id| probe.exists([id]).unwrap_or(false));
            let n_missing = next.and_then(|id| u64::try_from(id - gap).ok());
            self.found.faults.push((gap, format!("sqlite: {fault}"), n_missing));
            match next {
                Some(id) => from = id,
                None => return Ok(()),
            }
        }
    }

    /// Rows in ascending order until the end or a fault; gives the last id read.
    fn ascend(&mut self, from: i64) -> rusqlite::Result<(Option<i64>, Option<String>)> {
        let query = "SELECT id, topic_id, timestamp FROM messages NOT INDEXED WHERE id >= ?1 ORDER BY id";
        let mut statement = self.connection.prepare_cached(query)?;
        let mut rows = statement.query([from])?;
        let mut last = None;
        loop {
            match rows.next() {
                Ok(None) => return Ok((last, None)),
                Ok(Some(row)) => match self.row(row, last) {
                    Ok(row_id) => last = Some(row_id),
                    Err(fault) => return Ok((last, Some(fault))),
                },
                Err(fault) => return Ok((last, Some(fault.to_string()))),
            }
        }
    }

    fn row(&mut self, row: &Row<'_>, last: Option<i64>) -> Result<i64, String> {
        let row_id: i64 = row.get(0).map_err(|fault| fault.to_string())?;
        if last.is_some_and(|last| row_id <= last) {
            return Err(format!("row {row_id} comes again"));
        }
        let (topic_id, log_time_ns) = match (row.get::<_, i64>(1), row.get::<_, i64>(2)) {
            (Ok(topic_id), Ok(log_time_ns)) => (topic_id, log_time_ns),
            (Err(fault), _) | (_, Err(fault)) => {
                self.found.faults.push((row_id, fault.to_string(), Some(1)));
                return Ok(row_id);
            }
        };
        match self.topic_of_id.get(&topic_id) {
            Some(&topic_idx) => self.found.keys.push(Key { log_time_ns, row_id, topic_idx }),
            None => *self.found.unnamed.entry(topic_id).or_default() += 1,
        }
        Ok(row_id)
    }
}

/// First id in `gap..=max` that can be read: one by one, then in growing steps and back by halves.
fn first_readable(gap: i64, max: i64, mut readable: impl FnMut(i64) -> bool) -> Option<i64> {
    let (mut missed, mut step) = (gap.checked_sub(1)?, 1_i64);
    let mut tries = 0;
    loop {
        let id = missed.checked_add(step)?;
        if id > max {
            return None;
        }
        if readable(id) {
            let mut found = id;
            while found - missed > 1 {
                let middle = missed + (found - missed) / 2;
                if readable(middle) { found = middle } else { missed = middle }
            }
            return Some(found);
        }
        missed = id;
        tries += 1;
        if tries > SINGLE_STEPS {
            step = step.checked_mul(2)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_readable_finds_the_row_behind_a_gap() {
        for (gap, max, good_from, expected) in [
            (1, 10, 1, Some(1)),
            (3, 10, 7, Some(7)),
            (3, 10, 11, None),
            (1, i64::MAX, 5_000, Some(5_000)),
            (1, i64::MAX, 1_000_000, Some(1_000_000)),
            (i64::MAX, i64::MAX, 0, Some(i64::MAX)),
        ] {
            assert_eq!(first_readable(gap, max, |id| id >= good_from), expected, "gap {gap}, good from {good_from}");
        }
    }
}
