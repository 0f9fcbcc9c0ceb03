//! The log: continuous after a resume, read by TensorBoard.

use std::collections::BTreeMap;
use std::fs;

use pivotal::train::events::{Event, version_event};
use pivotal::train::log::{self, EVENTS_FILE, Entry, LOG_FILE, Line, Log, StepEntry};
use prost::Message;

fn line(step: u64) -> Line {
    let loss = BTreeMap::from([("total".to_owned(), 1.5 / step as f64)]);
    Line::now(step, 0, Entry::Step(StepEntry { n_steps: 1, lr: 0.001, loss, ..StepEntry::default() }))
}

/// Records of an event file, with their checksums checked by other code than that which wrote them.
fn events(bytes: &[u8]) -> Vec<Event> {
    let masked = |bytes: &[u8]| {
        let crc = bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
        });
        (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
    };
    let mut rest = bytes;
    let mut events = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(word(8), masked(&rest[..8]));
        assert_eq!(word(12 + length), masked(&rest[12..12 + length]));
        events.push(Event::decode(&rest[12..12 + length]).unwrap());
        rest = &rest[16 + length..];
    }
    events
}

#[test]
fn event_file_begins_as_tensorboard_would_begin_it() {
    // TensorBoard 2.21.0: `Event(wall_time=1.5, file_version="brain.Event:2").SerializeToString()`. Its EventAccumulator reads our files.
    let folder = tempfile::tempdir().unwrap();
    drop(Log::open(folder.path(), 0).unwrap());
    let first = &events(&fs::read(folder.path().join(EVENTS_FILE)).unwrap())[0];
    assert_eq!(first.file_version.as_deref(), Some("brain.Event:2"));
    let bytes = version_event(1.5).encode_to_vec();
    assert_eq!(bytes, [&b"\x09\0\0\0\0\0\0\xf8\x3f\x1a\x0dbrain.Event:2"[..]].concat());
}

#[test]
fn resumed_log_has_every_step_once_in_both_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Log::open(folder.path(), 0).unwrap();
    for step in 1..=8 {
        log.push(&line(step)).unwrap();
    }
    drop(log);
    // Killed inside a line, after a checkpoint at step 5.
    let path = folder.path().join(LOG_FILE);
    let mut text = fs::read(&path).unwrap();
    text.extend(b"{\"unix_s\":1.0,\"st");
    fs::write(&path, text).unwrap();
    let mut log = Log::open(folder.path(), 5).unwrap();
    for step in 6..=9 {
        log.push(&line(step)).unwrap();
    }
    let steps: Vec<_> = log::read(&path).unwrap().iter().map(|line| line.step).collect();
    assert_eq!(steps, (1..=9).collect::<Vec<_>>());
    let events = events(&fs::read(folder.path().join(EVENTS_FILE)).unwrap());
    assert_eq!(events.iter().map(|event| event.step).collect::<Vec<_>>(), (0..=9).collect::<Vec<_>>());
    let tags: Vec<_> = events[9].summary.iter().flat_map(|summary| &summary.value).map(|scalar| scalar.tag.as_str()).collect();
    assert_eq!(tags, ["loss/total", "rate/lr", "rate/beta1", "gradient/norm"]);
}

#[test]
fn log_with_a_foreign_line_is_refused_with_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Log::open(folder.path(), 0).unwrap();
    log.push(&line(1)).unwrap();
    let path = folder.path().join(LOG_FILE);
    let text = fs::read_to_string(&path).unwrap() + "hello\n";
    fs::write(&path, text).unwrap();
    let message = Log::open(folder.path(), 1).unwrap_err().to_string();
    assert!(message.contains("line 2: "), "{message}");
}
