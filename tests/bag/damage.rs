//! Damaged bags: every message that can be read comes, the rest is reported, nothing panics.

use std::path::Path;

use pivotal::bag::{BagMessage, BagReader, BagWriter, Compression, Loss, OfferedQos, Place, WriterOptions};
use pivotal::msgs::Message;
use pivotal::msgs::sensor_msgs::PointCloud2;
use rusqlite::Connection;

use super::{message, read_all, time_ns, write_mcap, write_sqlite};
use crate::support::shared;

const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];
const N_MESSAGES: usize = 20;

/// Bytes of a small bag of [`N_MESSAGES`] messages.
fn small_mcap(compression: Compression) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.mcap");
    write_mcap(&path, 0..N_MESSAGES, compression);
    std::fs::read(path).unwrap()
}

fn small_sqlite(n_messages: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.db3");
    write_sqlite(&path, 3, [1, 2], 0..n_messages);
    std::fs::read(path).unwrap()
}

/// What reading these bytes as a single file gives; `None` when it cannot be opened.
fn read_bytes(path: &Path, bytes: &[u8]) -> Option<(Vec<BagMessage>, Vec<Loss>)> {
    std::fs::write(path, bytes).unwrap();
    BagReader::open(path).ok().map(|bag| read_all(&bag))
}

/// Which numbered message this is; `None` if its bytes are none's.
fn number_of(got: &BagMessage) -> Option<usize> {
    (0..200).find(|&i| message(i).1 == got.data[..] && time_ns(i) == got.log_time_ns)
}

#[test]
fn cut_mcap_gives_the_messages_before_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.mcap");
    for compression in COMPRESSIONS {
        let whole = small_mcap(compression);
        let mut fewest = 0;
        for cut in (0..whole.len()).step_by(11).chain([7, 8, 9, whole.len() - 1]).collect::<std::collections::BTreeSet<_>>() {
            let at = format!("{compression:?} cut at {cut} of {}", whole.len());
            let Some((messages, losses)) = read_bytes(&path, &whole[..cut]) else {
                assert!(cut < 8, "{at}: not opened");
                continue;
            };
            assert!(messages.iter().enumerate().all(|(i, got)| number_of(got) == Some(i)), "{at}: {messages:?}");
            assert!(messages.len() >= fewest, "{at}: {} messages, a shorter file gave {fewest}", messages.len());
            assert!(!losses.is_empty(), "{at}");
            fewest = messages.len();
        }
        assert_eq!(fewest, N_MESSAGES, "{compression:?}: all messages lie before the summary");
        let (messages, losses) = read_bytes(&path, &whole).unwrap();
        assert_eq!((messages.len(), losses), (N_MESSAGES, vec![]));
    }
}

#[test]
fn mcap_with_a_flipped_byte_never_hides_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped.mcap");
    for compression in COMPRESSIONS {
        let whole = small_mcap(compression);
        let mut n_reported = 0;
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= if at % 2 == 0 { 0x55 } else { 0x80 };
            let Some((messages, losses)) = read_bytes(&path, &bytes) else { continue };
            let n_intact = messages.iter().filter(|message| number_of(message).is_some()).count();
            assert!(
                n_intact == N_MESSAGES || !losses.is_empty(),
                "{compression:?} byte {at}: {n_intact} intact, nothing reported"
            );
            n_reported += usize::from(!losses.is_empty());
        }
        assert!(n_reported > 100, "{compression:?}: only {n_reported} flips were noticed");
    }
}

/// An mcap whose three messages lie in chunks of their own; gives also where each chunk record begins.
fn three_chunks(compression: Compression) -> (Vec<u8>, Vec<usize>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("three.mcap");
    let mut writer = BagWriter::file(&path, &WriterOptions { compression }).unwrap();
    let topic = writer.add_topic("/points", PointCloud2::TYPE, OfferedQos::SENSOR).unwrap();
    for i in 0..3_u8 {
        writer.write(topic, i64::from(i), &vec![i; 1_100_000]).unwrap();
    }
    writer.finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let summary = mcap::Summary::read(&bytes).unwrap().unwrap();
    let chunks = summary.chunk_indexes.iter().map(|index| index.chunk_start_offset as usize).collect();
    (bytes, chunks)
}

#[test]
fn damaged_chunk_is_named_and_the_others_are_read() {
    // Fields of a chunk record: opcode 0, length 1, times 9 and 17, unpacked size 25, checksum 33, name of the compression 37.
    let folder = tempfile::tempdir().unwrap();
    for (what, compression, offset, flip, expected, reason) in [
        ("length", Compression::None, 1 + 1, 0x01, &[0, 2][..], "broken record: chunk record of"),
        ("length beyond the file", Compression::None, 1 + 7, 0x01, &[0, 2], "declares 720575"),
        ("opcode", Compression::Zstd, 0, 0x40, &[0, 2], "3 messages promised, 2 found"),
        ("checksum", Compression::None, 33, 0x10, &[0, 1, 2], "1 messages delivered unverified"),
        ("checksum", Compression::Lz4, 33, 0x10, &[0, 1, 2], "1 messages delivered unverified"),
        (
            "compression",
            Compression::Zstd,
            41,
            0x01,
            &[0, 2],
            "chunk compression \"{std\" is unknown, expected zstd, lz4 or none",
        ),
        ("unpacked size", Compression::Zstd, 25 + 5, 0x01, &[0, 2], "bytes unpacked, the limit is 1073741824"),
        ("frame", Compression::Zstd, 45 + 8, 0xFF, &[0, 2], "zstd chunk: "),
    ] {
        let (mut bytes, chunks) = three_chunks(compression);
        assert_eq!(chunks.len(), 3);
        bytes[chunks[1] + offset] ^= flip;
        let (messages, losses) = read_bytes(&folder.path().join("bag.mcap"), &bytes).unwrap();
        let times: Vec<_> = messages.iter().map(|message| message.log_time_ns).collect();
        assert_eq!(times, expected, "{what} {compression:?}: {losses:?}");
        let named = losses.iter().find(|loss| loss.to_string().contains(reason));
        let named = named
            .unwrap_or_else(|| panic!("{what} {compression:?}: {:?}", losses.iter().map(Loss::to_string).collect::<Vec<_>>()));
        if !matches!(named.place, Place::Total { .. }) {
            assert_eq!(named.place, Place::Byte(chunks[1] as u64), "{what}");
        }
        let total = losses.iter().find(|loss| matches!(loss.place, Place::Total { .. }));
        assert_eq!(total.and_then(|loss| loss.messages), (expected.len() < 3).then_some(1), "{what}");
    }
}

#[test]
fn hostile_mcap_is_opened_in_linear_time() {
    const MAGIC: &[u8] = b"\x89MCAP0\r\n";
    const N: usize = 50_000;
    // A record that reaches beyond the file.
    let broken = [&[0x01][..], &u64::MAX.to_le_bytes()].concat();
    // Looks like a chunk at every sixth byte, with a name of 394758 bytes for its compression.
    let run = [6, 6, 6, 6, 0, 6].repeat(700_000);
    // An empty chunk and a record of no known kind: each of these is suspected when the end proves broken.
    let chunk = [&[0x06][..], &40_u64.to_le_bytes(), &[0; 40]].concat();
    let stranger = [0x7F, 0, 0, 0, 0, 0, 0, 0, 0];
    let pairs = [&chunk[..], &stranger].concat().repeat(N);
    let folder = tempfile::tempdir().unwrap();
    for (what, bytes) in [("chunks' opcode", [MAGIC, &broken, &run].concat()), ("suspects", [MAGIC, &pairs, &broken].concat())] {
        let started = std::time::Instant::now();
        let (messages, losses) = read_bytes(&folder.path().join("hostile.mcap"), &bytes).unwrap();
        assert!(started.elapsed().as_secs() < 5, "{what}: {:?}", started.elapsed());
        assert!(messages.is_empty() && losses.iter().any(|loss| loss.reason.contains("broken record: ")), "{what}: {losses:?}");
    }
}

#[test]
fn cut_sqlite_gives_the_messages_of_the_pages_left() {
    const N: usize = 150;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.db3");
    let whole = small_sqlite(N);
    let mut fewest = 0;
    let mut n_opened = 0;
    for cut in (0..whole.len()).step_by(256) {
        let at = format!("cut at {cut} of {}", whole.len());
        let Some((messages, losses)) = read_bytes(&path, &whole[..cut]) else {
            assert_eq!(fewest, 0, "{at}: not opened though a shorter file was");
            continue;
        };
        n_opened += 1;
        assert!(messages.iter().all(|got| number_of(got).is_some()), "{at}");
        assert!(messages.len() >= fewest, "{at}: {} messages, a shorter file gave {fewest}", messages.len());
        assert!(messages.len() == N || !losses.is_empty(), "{at}: {} messages and nothing reported", messages.len());
        fewest = messages.len();
    }
    assert!(n_opened > 20 && fewest > N / 2, "{n_opened} cuts opened, the last gave {fewest}");
    assert_eq!(read_bytes(&path, &whole).map(|(messages, losses)| (messages.len(), losses.len())), Some((N, 0)));
}

#[test]
fn sqlite_with_flipped_bytes_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped.db3");
    let whole = small_sqlite(30);
    let mut n_noticed = 0;
    for at in (0..whole.len()).step_by(13) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xA5;
        match read_bytes(&path, &bytes) {
            None => n_noticed += 1,
            Some((messages, losses)) => {
                assert!(messages.len() <= 31, "byte {at}: {} messages", messages.len());
                n_noticed += usize::from(!losses.is_empty());
            }
        }
    }
    assert!(n_noticed > 20, "only {n_noticed} flips were noticed");
}

#[test]
fn sqlite_page_in_the_middle_is_passed_over() {
    const PAGE: usize = 512;
    let mut bytes = small_sqlite(100);
    let wanted = message(50).1;
    let at = bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
    let page = at / PAGE * PAGE;
    bytes[page..page + PAGE].fill(0);
    let folder = tempfile::tempdir().unwrap();
    let (messages, losses) = read_bytes(&folder.path().join("page.db3"), &bytes).unwrap();
    let numbers: Vec<usize> = messages.iter().map(|got| number_of(got).unwrap()).collect();
    let [loss] = losses.as_slice() else { panic!("{losses:?}") };
    let n_lost = loss.messages.unwrap() as usize;
    assert!((1..10).contains(&n_lost), "{loss}");
    assert_eq!(numbers.len(), 100 - n_lost);
    assert_eq!((numbers[0], numbers[numbers.len() - 1]), (0, 99));
    let Place::Row(first_id) = loss.place else { panic!("{loss}") };
    // Ids count from 1, numbers from 0.
    let first = first_id as usize - 1;
    assert!(
        (first..first + n_lost).contains(&50) && !numbers.iter().any(|number| (first..first + n_lost).contains(number)),
        "{loss}"
    );
}

#[test]
fn sqlite_rows_that_make_no_sense_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.db3");
    write_sqlite(&path, 4, [1, 2], 0..10);
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "UPDATE messages SET topic_id = 99 WHERE id = 3; UPDATE messages SET data = 5 WHERE id = 4;
         UPDATE messages SET timestamp = 'soon' WHERE id = 5;",
    )
    .unwrap();
    drop(db);
    let bag = BagReader::open(&path).unwrap();
    let (messages, losses) = read_all(&bag);
    let numbers: Vec<_> = messages.iter().filter_map(number_of).collect();
    assert_eq!(numbers, [0, 1, 5, 6, 7, 8, 9]);
    for (place, reason) in [
        (Place::File, "messages of topic id 99, which the table topics does not have"),
        (Place::Row(4), "topic /tf: sqlite: "),
        (Place::Row(5), "Invalid column type Text"),
    ] {
        let found = losses.iter().filter(|loss| loss.place == place && loss.reason.contains(reason) && loss.messages == Some(1));
        assert_eq!(found.count(), 1, "{reason}: {losses:?}");
    }
}

#[test]
fn write_ahead_log_of_an_interrupted_recording_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (live, left) = (folder.path().join("live.db3"), folder.path().join("left.db3"));
    write_sqlite(&live, 3, [1, 2], 0..4);
    let db = Connection::open(&live).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (1, ?1, ?2)", rusqlite::params![time_ns(4), message(4).1])
        .unwrap();
    // What the disk holds when the recorder is killed now.
    std::fs::copy(&live, &left).unwrap();
    std::fs::copy(live.with_extension("db3-wal"), left.with_extension("db3-wal")).unwrap();
    let (messages, losses) = read_all(&BagReader::open(&left).unwrap());
    assert_eq!((messages.iter().filter_map(number_of).collect::<Vec<_>>(), losses), (vec![0, 1, 2, 3, 4], vec![]));
}

#[test]
fn cloud_larger_than_the_main_file_is_read_from_the_write_ahead_log() {
    let folder = tempfile::tempdir().unwrap();
    let (live, left) = (folder.path().join("live.db3"), folder.path().join("left.db3"));
    write_sqlite(&live, 3, [1, 2], 0..1);
    let db = Connection::open(&live).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    let large = vec![7_u8; 200_000];
    let row = rusqlite::params![time_ns(1), large];
    db.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (1, ?1, ?2)", row).unwrap();
    std::fs::copy(&live, &left).unwrap();
    std::fs::copy(live.with_extension("db3-wal"), left.with_extension("db3-wal")).unwrap();
    assert!(std::fs::metadata(&left).unwrap().len() < large.len() as u64);
    let (messages, losses) = read_all(&BagReader::open(&left).unwrap());
    assert_eq!(losses, []);
    assert!(messages.len() == 2 && messages[1].data == large, "{} messages", messages.len());
}

#[test]
fn views_and_virtual_tables_in_place_of_tables_are_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    let cases = [
        (
            "messages",
            format!("CREATE VIEW Messages AS {endless} SELECT i AS id, 1 AS topic_id, i AS timestamp, '' AS data FROM n"),
        ),
        (
            "topics",
            format!(
                "CREATE VIEW topics AS {endless} SELECT i AS id, '/t' AS name, 't' AS type, 'cdr' AS serialization_format FROM n"
            ),
        ),
        ("metadata", format!("CREATE VIEW metadata AS {endless} SELECT i AS id, '' AS metadata FROM n")),
        ("messages", "CREATE VIRTUAL TABLE messages USING fts5(id, topic_id, timestamp, data)".to_owned()),
    ];
    for (case_idx, (name, sql)) in cases.iter().enumerate() {
        let path = folder.path().join(format!("{case_idx}.db3"));
        write_sqlite(&path, 3, [1, 2], 0..3);
        Connection::open(&path).unwrap().execute_batch(&format!("DROP TABLE IF EXISTS {name}; {sql};")).unwrap();
        let message = BagReader::open(&path).map(drop).unwrap_err().to_string();
        let kind = if sql.contains("VIRTUAL") { "virtual" } else { "view" };
        assert!(message.to_lowercase().contains(&format!("`{name}` is of type {kind}, expected table")), "{sql}: {message}");
    }
}

#[test]
fn broken_zstd_frames_of_files_and_messages_are_losses() {
    let folder = tempfile::tempdir().unwrap();
    for (name, plain) in [("bag.mcap.zstd", small_mcap(Compression::None)), ("bag.db3.zstd", small_sqlite(N_MESSAGES))] {
        let path = folder.path().join(name);
        // Many blocks, so that a cut leaves some whole.
        let packed: Vec<u8> = plain.chunks(1024).flat_map(|part| zstd::encode_all(part, 0).unwrap()).collect();
        let (messages, losses) = read_bytes(&path, &packed).unwrap();
        assert_eq!((messages.len(), losses.len()), (N_MESSAGES, 0), "{name}");
        let mut fewest = 0;
        for cut in (0..packed.len()).step_by(101) {
            let Some((messages, losses)) = read_bytes(&path, &packed[..cut]) else { continue };
            assert!(
                messages.len() >= fewest && !losses.is_empty(),
                "{name} cut at {cut}: {} messages, {losses:?}",
                messages.len()
            );
            fewest = messages.len();
        }
        assert!(fewest > 0, "{name}");
    }

    let path = folder.path().join("messages.db3");
    write_sqlite(&path, 3, [1, 2], 0..6);
    let db = Connection::open(&path).unwrap();
    for i in 0..6 {
        let mut frame = zstd::encode_all(&message(i).1[..], 0).unwrap();
        match i {
            2 => frame.truncate(frame.len() - 3),
            // A frame header that declares 2^62 bytes.
            4 => frame = [&[0x28, 0xB5, 0x2F, 0xFD, 0xE0][..], &(1_u64 << 62).to_le_bytes(), &[1, 0, 0]].concat(),
            _ => {}
        }
        db.execute("UPDATE messages SET data = ?1 WHERE id = ?2", rusqlite::params![frame, i + 1]).unwrap();
    }
    let (messages, losses) = read_all(&BagReader::open(&path).unwrap());
    assert_eq!(messages.iter().filter_map(number_of).collect::<Vec<_>>(), [0, 1, 3, 5]);
    let [cut, huge, total] = losses.as_slice() else { panic!("{losses:?}") };
    assert!(cut.place == Place::Row(3) && cut.reason.starts_with("topic /points: zstd message: "), "{cut}");
    assert!(
        huge.place == Place::Row(5) && huge.reason.contains("declares 4611686018427387904 bytes, the limit is 1000000000"),
        "{huge}"
    );
    assert_eq!(total.place, Place::Total { promised: 6, found: 4 });
}

#[test]
fn cut_recordings_give_a_beginning_of_their_messages() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "clouds_mcap/clouds_mcap.mcap",
        "clouds_mcap_zstd/clouds_mcap_zstd.mcap",
        "sick_mcap/sick_mcap.mcap",
        "sick_sqlite3/sick_sqlite3.db3",
    ] {
        let bytes = std::fs::read(shared(&format!("data/rosbag2/{name}"))).unwrap();
        let path = folder.path().join("cut");
        let (whole, losses) = read_bytes(&path, &bytes).unwrap();
        assert_eq!(losses, [], "{name}");
        let mut fewest = 0;
        for part in 1..16 {
            let cut = bytes.len() * part / 16 + part;
            let (messages, losses) = read_bytes(&path, &bytes[..cut]).unwrap_or_else(|| panic!("{name} cut at {cut}"));
            assert!(!losses.is_empty() && messages.len() < whole.len(), "{name} cut at {cut}");
            assert!(messages.len() >= fewest, "{name} cut at {cut}: {} messages, a shorter file gave {fewest}", messages.len());
            assert!(messages.iter().all(|message| whole.iter().any(|known| known.data == message.data)), "{name} cut at {cut}");
            fewest = messages.len();
        }
        assert!(fewest > 0, "{name}");
    }
}
