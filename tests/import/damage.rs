//! Damaged files: an error that says where, never a panic.

use std::io::Write;

use pivotal::import::checkpoint::parse_checkpoint;
use proptest::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{ckpt, tensor_bytes};

const SMALL: [&str; 7] = [
    "odd_tensors_zip",
    "odd_tensors_legacy",
    "tiny_zip_cpu",
    "tiny_legacy_cpu",
    "tiny_zip_cuda_optim",
    "tiny_legacy_cuda_optim",
    "tiny_legacy_spconv1",
];

#[test]
fn truncated_checkpoints_are_errors_at_every_length() {
    for file in SMALL {
        let bytes = ckpt(file);
        let step = if bytes.len() < 5000 { 1 } else { 997 };
        for length in (0..bytes.len()).step_by(step) {
            assert!(parse_checkpoint(&bytes[..length]).is_err(), "{file} cut to {length} of {}", bytes.len());
        }
    }
}

#[test]
fn damaged_containers_say_which_part() {
    let flip = |file: &str, needle: &[u8], replacement: &[u8]| {
        let mut bytes = ckpt(file);
        let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
        bytes[at..at + replacement.len()].copy_from_slice(replacement);
        bytes
    };
    let legacy = ckpt("odd_tensors_legacy");
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"\x89PNG\r\n\x1a\n....".to_vec(), "neither a zip archive nor a pickle stream: the file begins with [89, 50, 4e, 47"),
        (Vec::new(), "neither a zip archive nor a pickle stream"),
        (ckpt("tiny_zip_cpu")[..30_000].to_vec(), "zip archive: "),
        (legacy[..legacy.len() - 1].to_vec(), "the file has 2200"),
        ([&legacy[..], b"x"].concat(), "the last storage ends at byte 2201, the file has 2202"),
        (flip("odd_tensors_legacy", b"\xe9\x03.", b"\xea\x03."), "legacy protocol number is Int(1002), 1001 needed"),
        (flip("odd_tensors_legacy", b"\x50\x19.", b"\x50\x18."), "legacy magic number is int, torch's 80-bit number needed"),
        (flip("odd_tensors_legacy", b"little_endianq\x02\x88", b"little_endianq\x02\x89"), "byte order is `big`"),
        (flip("odd_tensors_zip", b"little", b"bigger"), "zip entry `odd_tensors_zip/byteorder`: "),
    ];
    for (bytes, wanted) in &cases {
        let error = parse_checkpoint(bytes).unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted:?} is not in {error:?}");
    }
}

/// The entries of a golden archive, written anew with changes.
fn rezip(file: &str, compression: CompressionMethod, change: impl Fn(&str, Vec<u8>) -> Option<(String, Vec<u8>)>) -> Vec<u8> {
    let bytes = ckpt(file);
    let mut from = zip::ZipArchive::new(std::io::Cursor::new(&bytes[..])).unwrap();
    let mut to = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for index in 0..from.len() {
        let mut entry = from.by_index(index).unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        if let Some((name, content)) = change(entry.name(), content) {
            to.start_file(name, SimpleFileOptions::default().compression_method(compression)).unwrap();
            to.write_all(&content).unwrap();
        }
    }
    to.finish().unwrap().into_inner()
}

#[test]
fn rewritten_zip_archives_are_read_or_refused() {
    let same = |name: &str, content: Vec<u8>| Some((name.to_owned(), content));
    let original = parse_checkpoint(&ckpt("odd_tensors_zip")).unwrap().tensors;
    for compression in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let tensors = parse_checkpoint(&rezip("odd_tensors_zip", compression, same)).unwrap().tensors;
        for (name, tensor) in &original {
            assert_eq!(tensor_bytes(&tensors[name]), tensor_bytes(tensor), "{compression} {name}");
        }
    }
    type Change = Box<dyn Fn(&str, Vec<u8>) -> Option<(String, Vec<u8>)>>;
    let cases: Vec<(Change, &str)> = vec![
        (
            Box::new(|name, content| (!name.ends_with("/data/3")).then(|| (name.to_owned(), content))),
            "zip entry `odd_tensors_zip/data/3`: specified file not found in archive",
        ),
        (
            Box::new(|name, content| (!name.ends_with("data.pkl")).then(|| (name.to_owned(), content))),
            "a checkpoint has one data.pkl, this archive has []",
        ),
        (
            Box::new(|name, content| Some((name.replace("/version", "/x/data.pkl"), content))),
            "a checkpoint has one data.pkl, this archive has [\"odd_tensors_zip/data.pkl\", \"odd_tensors_zip/x/data.pkl\"]",
        ),
        (
            Box::new(|name, content| Some((name.to_owned(), if name.ends_with("order") { b"big".to_vec() } else { content }))),
            "byte order is `big`",
        ),
        (
            Box::new(|name, mut content| {
                content.truncate(if name.ends_with("/data/3") { 100 } else { content.len() });
                Some((name.to_owned(), content))
            }),
            "storage `3` has 100 bytes, the pickle declares 192",
        ),
        (
            // 64 MB of zeros in some kilobytes.
            Box::new(|name, content| {
                let bomb = name.ends_with("data.pkl");
                Some((name.to_owned(), if bomb { vec![0; 64 << 20] } else { content }))
            }),
            "odd_tensors_zip/data.pkl would unpack to more than",
        ),
    ];
    for (change, wanted) in &cases {
        let error = parse_checkpoint(&rezip("odd_tensors_zip", CompressionMethod::Deflated, change)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted:?} is not in {error:?}");
    }
}

/// A flipped byte may hit a value or padding and go unnoticed in a legacy file, which has no checksums; it must not panic.
fn parse_without_panic(bytes: &[u8]) {
    drop(parse_checkpoint(bytes));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_never_panic(file in 0..4_usize, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = ckpt(SMALL[file]);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        parse_without_panic(&bytes);
    }

    #[test]
    fn random_pickle_opcodes_never_panic(body in prop::collection::vec(prop_oneof![
        prop::sample::select(b"(.0NJKMG\x8aXTU\x8cBC)]}\x85\x86\x87taesuqr\x94hjc\x93R\x81bQ\x80\x95".to_vec()),
        0..4_u8,
        any::<u8>(),
    ], 0..200)) {
        let mut bytes = ckpt("odd_tensors_legacy")[..137].to_vec();
        bytes.extend(body);
        parse_without_panic(&bytes);
    }

    #[test]
    fn random_bytes_never_panic(zip in any::<bool>(), body in prop::collection::vec(any::<u8>(), 0..400)) {
        let head: &[u8] = if zip { b"PK\x03\x04" } else { b"\x80\x02" };
        parse_without_panic(&[head, &body].concat());
    }
}
