//! The two files `torch.save` writes: a zip archive since 1.6, before that and in SparseKD a stream of pickles and storages.
//!
//! Deals with bytes only: where the pickle is and which bytes belong to which storage. Every length is compared with the
//! file before anything is allocated.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use serde::{Deserialize, Serialize};
use zip::ZipArchive;
use zip::result::ZipError;

use super::pickle::{Object, Pickle, PickleError, Value, read_pickle};
use super::torch::{StorageDecl, shorten};

/// What a legacy file begins with, 0x1950a86a20f9469cfc6c as little-endian bytes.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The only version of the legacy format.
const LEGACY_PROTOCOL: i64 = 1001;
/// Bytes that may be unpacked or gathered, as a multiple of the file: shared storages and deflated entries need some room.
const EXPANSION: u64 = 16;
/// Room for small files on top.
const EXPANSION_FLOOR: u64 = 1 << 20;

/// Which of the two formats a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Zip archive, torch 1.6 and later.
    Zip,
    /// Stream of pickles, torch before 1.6 and SparseKD.
    Legacy,
}

/// Why a file was refused before its tensors were looked at.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// Neither format.
    #[error("neither a zip archive nor a pickle stream: the file begins with {found:02x?}")]
    UnknownFormat {
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// A damaged archive or entry.
    #[error("zip {part}: {source}")]
    Zip {
        /// Archive or entry.
        part: String,
        /// The reader's words.
        r#source: ZipError,
    },
    /// Not exactly one pickle in the archive.
    #[error("a checkpoint has one data.pkl, this archive has {found:?}")]
    DataPkl {
        /// Those it has.
        found: Vec<String>,
    },
    /// Written on a machine of the other byte order.
    #[error("byte order is `{found}`, only little-endian files are read")]
    ByteOrder {
        /// What the file says.
        found: String,
    },
    /// One of the small pickles in front of a legacy file, or the key list behind it, is not what it should be.
    #[error("legacy {part} is {found}, {expected} needed")]
    Legacy {
        /// Which one.
        part: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// The pickle and the data disagree.
    #[error("storage `{key}` has {found} {unit}, the pickle declares {declared}")]
    StorageSize {
        /// Its key.
        key: String,
        /// What the data has.
        found: u64,
        /// What the pickle says.
        declared: u64,
        /// Elements or bytes.
        unit: &'static str,
    },
    /// The file ends early.
    #[error("storage `{key}` needs {needed} bytes at byte {at}, the file has {file_len}")]
    Truncated {
        /// Its key.
        key: String,
        /// Bytes it needs.
        needed: u64,
        /// Where it begins.
        at: u64,
        /// Size of the file.
        file_len: u64,
    },
    /// Bytes behind the last storage.
    #[error("the last storage ends at byte {end}, the file has {file_len}")]
    Trailing {
        /// Where the data end.
        end: u64,
        /// Size of the file.
        file_len: u64,
    },
    /// Small file, huge content.
    #[error("{what} would unpack to more than {limit} bytes, {EXPANSION} times the file")]
    Expansion {
        /// What was being read.
        what: String,
        /// The limit for this file.
        limit: u64,
    },
    /// A refused or damaged pickle.
    #[error("{part}: {source}")]
    Pickle {
        /// Entry, or number of the pickle in a legacy stream.
        part: &'static str,
        /// What and where.
        r#source: PickleError,
    },
}

/// A checkpoint whose pickle has been read and whose storages can be.
pub struct Container<'a> {
    /// Format of the file.
    pub format: Format,
    /// The object that was saved.
    pub pickle: Pickle,
    storages: Storages<'a>,
    budget: Budget,
}

enum Storages<'a> {
    Zip { archive: Box<ZipArchive<Cursor<&'a [u8]>>>, root: String },
    Legacy(BTreeMap<String, &'a [u8]>),
}

/// Bytes that may still be unpacked from a file.
struct Budget {
    limit: u64,
    left: u64,
}

impl Budget {
    fn of(file_len: usize) -> Self {
        let limit = (file_len as u64).saturating_mul(EXPANSION).saturating_add(EXPANSION_FLOOR);
        Self { limit, left: limit }
    }

    fn charge(&mut self, bytes: u64, what: &str) -> Result<(), ContainerError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(ContainerError::Expansion { what: shorten(what), limit: self.limit }),
        }
    }
}

impl<'a> Container<'a> {
    /// Recognises the format and reads the pickle.
    ///
    /// # Errors
    /// [`ContainerError`] for any other file, and for damage.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ContainerError> {
        if bytes.starts_with(b"PK") {
            open_zip(bytes)
        } else if bytes.first() == Some(&0x80) {
            open_legacy(bytes)
        } else {
            Err(ContainerError::UnknownFormat { found: bytes.iter().copied().take(8).collect() })
        }
    }

    /// All bytes of a declared storage.
    ///
    /// # Errors
    /// [`ContainerError`] when it is absent, damaged, or has another size than declared.
    pub fn storage(&mut self, key: &str, decl: StorageDecl) -> Result<Cow<'a, [u8]>, ContainerError> {
        match &mut self.storages {
            Storages::Legacy(slices) => Ok(Cow::Borrowed(slices.get(key).copied().unwrap_or_default())),
            Storages::Zip { archive, root } => {
                let name = format!("{root}data/{key}");
                let bytes = read_entry(archive, &name, Some((key, decl.byte_len())), &mut self.budget)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Counts bytes that a caller is about to allocate against the limit for this file.
    ///
    /// # Errors
    /// [`ContainerError::Expansion`] when they are too many.
    pub fn charge(&mut self, bytes: u64, what: &str) -> Result<(), ContainerError> {
        self.budget.charge(bytes, what)
    }
}

fn open_zip(bytes: &[u8]) -> Result<Container<'_>, ContainerError> {
    let failed = |source| ContainerError::Zip { part: "archive".to_owned(), source };
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(failed)?;
    let mut budget = Budget::of(bytes.len());
    let is_pickle = |name: &&str| *name == "data.pkl" || name.ends_with("/data.pkl");
    let found: Vec<String> = archive.file_names().filter(is_pickle).map(str::to_owned).collect();
    let [name] = &found[..] else {
        return Err(ContainerError::DataPkl { found: found.iter().take(5).map(|name| shorten(name)).collect() });
    };
    let root = name.strip_suffix("data.pkl").unwrap_or_default().to_owned();
    let byteorder = format!("{root}byteorder");
    if archive.index_for_name(&byteorder).is_some() {
        let text = read_entry(&mut archive, &byteorder, None, &mut budget)?;
        if text != b"little" {
            return Err(ContainerError::ByteOrder { found: shorten(&String::from_utf8_lossy(&text)) });
        }
    }
    let text = read_entry(&mut archive, name, None, &mut budget)?;
    let pickle = read_pickle(&text, 0).map_err(|source| ContainerError::Pickle { part: "data.pkl", source })?;
    let storages = Storages::Zip { archive: Box::new(archive), root };
    Ok(Container { format: Format::Zip, pickle, storages, budget })
}

/// A whole entry, its checksum verified; of exactly the declared size when it is a storage.
fn read_entry(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    name: &str,
    storage: Option<(&str, u64)>,
    budget: &mut Budget,
) -> Result<Vec<u8>, ContainerError> {
    let failed = |source| ContainerError::Zip { part: format!("entry `{}`", shorten(name)), source };
    let entry = archive.by_name(name).map_err(failed)?;
    let size = entry.size();
    if let Some((key, declared)) = storage.filter(|&(_, declared)| declared != size) {
        return Err(ContainerError::StorageSize { key: shorten(key), found: size, declared, unit: "bytes" });
    }
    budget.charge(size, name)?;
    let mut bytes = Vec::new();
    // One byte more than announced, so that the reader meets the end and compares the checksum.
    entry.take(size.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| failed(ZipError::Io(error)))?;
    if bytes.len() as u64 != size {
        let what = std::io::Error::other(format!("{} bytes or more where {size} were announced", bytes.len()));
        return Err(failed(ZipError::Io(what)));
    }
    Ok(bytes)
}

fn open_legacy(bytes: &[u8]) -> Result<Container<'_>, ContainerError> {
    let next =
        |start: usize, part: &'static str| read_pickle(bytes, start).map_err(|source| ContainerError::Pickle { part, source });
    let wrong = |part, found: String, expected: &str| ContainerError::Legacy { part, found, expected: expected.to_owned() };

    let magic = next(0, "legacy magic number")?;
    match magic.heap.object(magic.root) {
        Some(Object::BigInt(digits)) if digits[..] == LEGACY_MAGIC => {}
        _ => return Err(wrong("magic number", magic.heap.type_name(magic.root), "torch's 80-bit number")),
    }
    let protocol = next(magic.end, "legacy protocol number")?;
    if protocol.root != Value::Int(LEGACY_PROTOCOL) {
        return Err(wrong("protocol number", format!("{:?}", protocol.root), "1001"));
    }
    let system = next(protocol.end, "legacy system description")?;
    let entries = system.heap.entries(system.root).unwrap_or_default();
    let little = entries.iter().find(|(key, _)| system.heap.text(*key) == Some("little_endian"));
    match little {
        Some((_, Value::Bool(true))) => {}
        Some((_, Value::Bool(false))) => return Err(ContainerError::ByteOrder { found: "big".to_owned() }),
        _ => return Err(wrong("system description", system.heap.type_name(system.root), "a dict with `little_endian`")),
    }
    let pickle = next(system.end, "legacy object")?;
    let keys = next(pickle.end, "legacy list of storage keys")?;
    let Some(items) = keys.heap.items(keys.root) else {
        return Err(wrong("list of storage keys", keys.heap.type_name(keys.root), "a list"));
    };

    let mut slices = BTreeMap::new();
    let mut at = keys.end;
    for &item in items {
        let Some(key) = keys.heap.text(item) else {
            return Err(wrong("storage key", keys.heap.type_name(item), "str"));
        };
        let Some(decl) = pickle.heap.storages.get(key) else {
            return Err(wrong("storage key", format!("`{}`", shorten(key)), "one that the object uses"));
        };
        let needed = decl.byte_len() + 8;
        let rest = bytes.get(at..).unwrap_or_default();
        let block = usize::try_from(needed).ok().and_then(|needed| rest.get(..needed));
        let Some((count, data)) = block.and_then(|block| block.split_first_chunk::<8>()) else {
            let (key, at, file_len) = (shorten(key), at as u64, bytes.len() as u64);
            return Err(ContainerError::Truncated { key, needed, at, file_len });
        };
        let count = u64::from_le_bytes(*count);
        if count != decl.numel {
            return Err(ContainerError::StorageSize { key: shorten(key), found: count, declared: decl.numel, unit: "elements" });
        }
        if slices.insert(key.to_owned(), data).is_some() {
            return Err(wrong("storage key", format!("`{}` twice", shorten(key)), "each once"));
        }
        at += 8 + data.len();
    }
    if let Some(key) = pickle.heap.storages.keys().find(|key| !slices.contains_key(*key)) {
        return Err(wrong("list of storage keys", format!("without `{}`", shorten(key)), "every key that the object uses"));
    }
    if at != bytes.len() {
        return Err(ContainerError::Trailing { end: at as u64, file_len: bytes.len() as u64 });
    }
    let (storages, budget) = (Storages::Legacy(slices), Budget::of(bytes.len()));
    Ok(Container { format: Format::Legacy, pickle, storages, budget })
}
