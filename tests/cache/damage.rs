//! Damaged caches.

use std::fs;
use std::path::Path;

use pivotal::data::Source;
use pivotal::data::cache::{self, Cache, HEADER_FILE, INDEX_FILE};
use tempfile::TempDir;

use super::{Made, message, write};

const N_FRAMES: usize = 12;

fn cache() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(&Made::new(N_FRAMES), folder.path()).unwrap();
    folder
}

/// Which frames fail, with the message of the first.
fn failures(cache: &Cache) -> (Vec<usize>, String) {
    let failed: Vec<usize> = (0..cache.len()).filter(|&index| cache.load(0, index).is_err()).collect();
    let first = failed.first().map_or(String::new(), |&index| message(cache.load(0, index)));
    (failed, first)
}

fn damage(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_shard_fails_for_its_frames_only() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, Change, &[usize], &str); 5] = [
        ("cut", |bytes| bytes.truncate(bytes.len() - 1), &[4, 5, 6, 7], "bytes, expected"),
        ("header", |bytes| bytes[8] = b'x', &[4, 5, 6, 7], "is no safetensors file"),
        ("header length", |bytes| bytes[..8].fill(0xff), &[4, 5, 6, 7], "is no safetensors file"),
        ("last tensor", |bytes| *bytes.last_mut().unwrap() ^= 0x80, &[7], "checksum is"),
        ("empty", Vec::clear, &[4, 5, 6, 7], "0 bytes, expected"),
    ];
    for (name, change, expected, reason) in cases {
        let folder = cache();
        damage(&folder.path().join("shard-00001.safetensors"), change);
        let (failed, error) = failures(&cache::open(folder.path()).unwrap());
        assert!(
            expected.iter().all(|index| failed.contains(index)) && failed.iter().all(|index| (4..8).contains(index)),
            "{name}: {failed:?}"
        );
        assert!(error.contains("shard-00001.safetensors: frame ") && error.contains(reason), "{name}: {error}");
    }
    let folder = cache();
    fs::remove_file(folder.path().join("shard-00002.safetensors")).unwrap();
    let (failed, error) = failures(&cache::open(folder.path()).unwrap());
    assert_eq!(failed, [8, 9, 10, 11]);
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn any_flipped_byte_of_a_shard_is_noticed_or_harmless() {
    let folder = cache();
    let path = folder.path().join("shard-00001.safetensors");
    let whole = fs::read(&path).unwrap();
    let expected: Vec<_> = (0..N_FRAMES).map(|index| Made::new(N_FRAMES).load(0, index).unwrap()).collect();
    for at in (0..whole.len()).step_by(whole.len() / 300 + 1) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x04;
        fs::write(&path, bytes).unwrap();
        let cache = cache::open(folder.path()).unwrap();
        for (index, expected) in expected.iter().enumerate() {
            match cache.load(0, index) {
                Ok(sample) => assert!(sample == *expected, "byte {at}, frame {index}"),
                Err(_) => assert!((4..8).contains(&index), "byte {at}, frame {index}"),
            }
        }
    }
}

#[test]
fn damaged_headers_and_indices_say_what_is_wrong() {
    let cases = [
        (HEADER_FILE, "\"format\": 1", "\"format\": 9", "cache.json: format: is 9, expected 1"),
        (HEADER_FILE, "\"precision\"", "\"precisions\"", "cache.json: JSON: unknown field `precisions`"),
        (INDEX_FILE, "\"crc32\"", "\"crc\"", "index.json: JSON: unknown field `crc`"),
        (INDEX_FILE, "\"shards\": [", "\"shards\": [[", "index.json: JSON: "),
    ];
    for (file, from, to, expected) in cases {
        let folder = cache();
        let path = folder.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = message(cache::open(folder.path()));
        assert!(error.contains(expected), "{error}");
    }
    assert!(message(cache::open(Path::new("/nowhere"))).contains("/nowhere/cache.json: No such file"));
}

#[test]
fn fingerprints_follow_content_and_settings() {
    let (first, again, other) = (cache(), cache(), tempfile::tempdir().unwrap());
    write(&Made { unreadable: vec![3], ..Made::new(N_FRAMES) }, other.path()).unwrap();
    let print = |folder: &TempDir| cache::open(folder.path()).unwrap().fingerprint().sha256;
    assert_eq!(print(&first), print(&again));
    assert_ne!(print(&first), print(&other));
    assert!(cache::recognises(first.path()) && !cache::recognises(&first.path().join("no")));
}
