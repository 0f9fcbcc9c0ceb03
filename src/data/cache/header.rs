//! The two JSON files of a cache.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::{CacheSettings, HEADER_FILE, INDEX_FILE};
use crate::data::{DataError, Fingerprint, SampleId, sha256_of};

/// Version of the format; another one is refused.
const FORMAT: u32 = 1;

/// `cache.json`: what is converted and how.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of the format.
    pub format: u32,
    /// The source.
    pub source: Fingerprint,
    /// Frames of the source.
    pub n_frames: usize,
    /// How they are stored.
    pub settings: CacheSettings,
}

/// `index.json`: the frames.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// In the order of their file names.
    pub shards: Vec<ShardEntry>,
}

/// One `shard-NNNNN.safetensors`; its own metadata hold a copy without `n_bytes`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// Size of the file.
    #[serde(default)]
    pub n_bytes: u64,
    /// In the order of the source.
    pub frames: Vec<FrameEntry>,
    /// Frames of the source that could not be read.
    pub left_out: Vec<LeftOutFrame>,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameEntry {
    /// As in the source.
    pub id: SampleId,
    /// Over the bytes of its tensors, in the order of the table in [`super`].
    pub crc32: u32,
}

/// One frame that is not there.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOutFrame {
    /// As in the source.
    pub id: SampleId,
    /// The source's error.
    pub reason: String,
}

pub(super) fn shard_name(shard_idx: usize) -> String {
    format!("shard-{shard_idx:05}.safetensors")
}

impl Header {
    pub(super) fn new(source: Fingerprint, n_frames: usize, settings: &CacheSettings) -> Self {
        Self { format: FORMAT, source, n_frames, settings: settings.clone() }
    }

    pub(super) fn read(folder: &Path) -> Result<Self, DataError> {
        let header: Self = parse(folder, HEADER_FILE, &read(folder, HEADER_FILE)?)?;
        if header.format != FORMAT {
            return Err(fault(folder, HEADER_FILE, "format", format!("is {}, expected {FORMAT}", header.format)));
        }
        Ok(header)
    }

    /// Fails with both sides when another conversion was begun in the folder.
    pub(super) fn check_same(&self, begun: &Self, folder: &Path) -> Result<(), DataError> {
        let both = |place: &str, begun: String, wanted: String| {
            Err(fault(folder, HEADER_FILE, place, format!("the folder holds a conversion with {begun}, asked for is {wanted}")))
        };
        if begun.source.sha256 != self.source.sha256 || begun.n_frames != self.n_frames {
            let words =
                |header: &Self| format!("{} ({} frames, {:.12})", header.source.source, header.n_frames, header.source.sha256);
            return both("source", words(begun), words(self));
        }
        if begun.settings != self.settings {
            return both("settings", format!("{:?}", begun.settings), format!("{:?}", self.settings));
        }
        Ok(())
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), DataError> {
        write_json(folder, HEADER_FILE, self)
    }
}

impl Index {
    /// The index and a hash over everything in it and the settings.
    pub(super) fn read(folder: &Path, header: &Header) -> Result<(Self, String), DataError> {
        if !folder.join(INDEX_FILE).is_file() {
            let finished = (0..).take_while(|&shard_idx| folder.join(shard_name(shard_idx)).is_file()).count();
            let n_shards = header.n_frames.div_ceil(header.settings.shard_frames.max(1));
            let reason =
                format!("the conversion is not finished, {finished} of {n_shards} shards are there; run it again to go on");
            return Err(DataError::Source { source_name: folder.display().to_string(), reason });
        }
        let bytes = read(folder, INDEX_FILE)?;
        let index = parse(folder, INDEX_FILE, &bytes)?;
        let settings = format!("{FORMAT} {} {:?}", header.source.sha256, header.settings);
        Ok((index, sha256_of(&[settings.into_bytes(), bytes])))
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), DataError> {
        write_json(folder, INDEX_FILE, self)
    }
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>, DataError> {
    let path = folder.join(name);
    fs::read(&path).map_err(|source| DataError::Io { path: path.display().to_string(), source })
}

fn parse<T: serde::de::DeserializeOwned>(folder: &Path, name: &str, bytes: &[u8]) -> Result<T, DataError> {
    serde_json::from_slice(bytes).map_err(|error| fault(folder, name, "JSON", error.to_string()))
}

fn fault(folder: &Path, name: &str, place: &str, reason: String) -> DataError {
    DataError::Format { path: folder.join(name).display().to_string(), place: place.to_owned(), reason }
}

fn write_json(folder: &Path, name: &str, value: &impl serde::Serialize) -> Result<(), DataError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| fault(folder, name, "JSON", error.to_string()))?;
    write_whole(&folder.join(name), &[&bytes])
}

/// Writes a file beside its place, forces it to the disk and moves it there: it is whole or not there. What a failure leaves is removed.
pub(super) fn write_whole(path: &Path, parts: &[&[u8]]) -> Result<(), DataError> {
    let aside = path.with_extension("part");
    let written = (|| {
        let mut file = fs::File::create(&aside)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        fs::rename(&aside, path)
    })();
    written.map_err(|source| {
        let _ = fs::remove_file(&aside);
        DataError::Io { path: path.display().to_string(), source }
    })
}
