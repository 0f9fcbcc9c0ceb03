//! A compact local copy of any source, so that training is not bound by decoding.
//!
//! # Format
//! A folder of three kinds of files. `cache.json` ([`Header`]) is written first and says what is converted and how. Each
//! `shard-NNNNN.safetensors` holds some frames in order, as tensors that any safetensors reader opens; `n` is the frame within the shard:
//!
//! | tensor | type | shape | content |
//! | --- | --- | --- | --- |
//! | `n.points` | F32 | `[N, D]` | with [`Precision::F32`]: the rows of the cloud |
//! | `n.coordinates` | I16 | `[N, 3]` | with [`Precision::F16`]: x, y, z in steps of `coordinate_step_m` |
//! | `n.columns` | F16 | `[N, D - 3]` | with [`Precision::F16`]: the other columns |
//! | `n.no_label_zone` | U8 | `[ceil(N / 8)]` | one bit per point, lowest first; absent where the source does not say |
//! | `n.frame` | U8 | bytes of JSON | everything else: stamp, frame, columns, pose, labels |
//!
//! `index.json` ([`Index`]) is written last: a folder without it is an unfinished conversion. It names every frame with a checksum
//! over its tensors. Nothing is compressed: the mapped pages are shared by all loader threads, and a frame costs its checksum and one
//! copy. Shards of KITTI's and Waymo's points become 18 to 25 % smaller by `zstd -1`, and unpacking them takes 1 to 2 ms of a core for
//! each MB (user time of `zstd -d`): 3 to 7 ms for a frame of Waymo's 3.3 MB, in every epoch.
//!
//! # What 16 bits cost
//! Coordinates are whole steps, a step being the smallest power of two that spans the axis of the frame: 1/256 m for up to 128 m, so
//! at most 2.0 mm off at 75 m (1/1024 m and 0.5 mm for up to 32 m). As f16 they would be up to 31 mm off at 75 m. The
//! other columns are f16: intensity and elongation within 0.05 %, saturated at 65 504.

mod encode;
mod header;
mod write;

pub use encode::Precision;
pub use header::{FrameEntry, Header, Index, LeftOutFrame, ShardEntry};
pub use write::{CacheSettings, Written, write};

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;

use super::{DataError, Finding, Fingerprint, Sample, SampleId, Source};
use crate::bag::map::map_file;

/// What is converted and how.
pub const HEADER_FILE: &str = "cache.json";
/// The frames, written when all of them are there.
pub const INDEX_FILE: &str = "index.json";

/// A finished conversion as a source.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    header: Header,
    sha256: String,
    shards: Vec<Shard>,
    /// Index of the first frame of each shard, and the total.
    starts: Vec<usize>,
}

#[derive(Debug)]
struct Shard {
    entry: ShardEntry,
    /// Mapped when its first frame is asked for; a shard that is damaged stays so.
    content: OnceLock<Result<Content, String>>,
}

/// A mapped shard.
#[derive(Debug)]
struct Content {
    bytes: Bytes,
    /// Where the tensors begin.
    data_start: usize,
    metadata: Metadata,
}

/// Whether a folder is a cache, finished or not.
pub fn recognises(path: &Path) -> bool {
    path.join(HEADER_FILE).is_file()
}

/// Opens a finished cache; shards are mapped when they are needed.
///
/// # Errors
/// A folder that is no cache, an unfinished conversion, or header and index that cannot be read.
pub fn open(path: &Path) -> Result<Cache, DataError> {
    let header = Header::read(path)?;
    let (index, sha256) = Index::read(path, &header)?;
    let shards: Vec<Shard> = index.shards.into_iter().map(|entry| Shard { entry, content: OnceLock::new() }).collect();
    let mut starts = vec![0];
    starts.extend(shards.iter().scan(0, |total, shard| {
        *total += shard.entry.frames.len();
        Some(*total)
    }));
    Ok(Cache { folder: path.to_owned(), header, sha256, shards, starts })
}

impl Cache {
    /// What was converted and how.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The frames of the source that could not be read and are not here.
    pub fn left_out(&self) -> impl Iterator<Item = &LeftOutFrame> {
        self.shards.iter().flat_map(|shard| &shard.entry.left_out)
    }

    fn place(&self, index: usize) -> (usize, usize) {
        let shard_idx = self.starts.partition_point(|&start| start <= index) - 1;
        (shard_idx, index - self.starts[shard_idx])
    }
}

impl Source for Cache {
    fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    fn id(&self, index: usize) -> SampleId {
        let (shard_idx, slot) = self.place(index);
        self.shards[shard_idx].entry.frames[slot].id.clone()
    }

    fn load(&self, _epoch: u64, index: usize) -> Result<Sample, DataError> {
        let (shard_idx, slot) = self.place(index);
        let (shard, path) = (&self.shards[shard_idx], self.folder.join(header::shard_name(shard_idx)));
        let fault =
            |reason: String| DataError::Format { path: path.display().to_string(), place: format!("frame {slot}"), reason };
        let content = shard.content.get_or_init(|| Content::map(&path, &shard.entry));
        let content = content.as_ref().map_err(|reason| fault(reason.clone()))?;
        let FrameEntry { id, crc32 } = &shard.entry.frames[slot];
        let tensors = encode::Tensors::find(slot, |name| content.tensor(name));
        if tensors.crc32() != *crc32 {
            return Err(fault(format!("checksum is {:08x}, expected {crc32:08x}: the shard is damaged", tensors.crc32())));
        }
        tensors.decode(id.clone()).map_err(fault)
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint { source: self.folder.display().to_string(), sha256: self.sha256.clone() }
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        for LeftOutFrame { id, reason } in self.left_out() {
            match findings.last_mut().filter(|finding| finding.drive == id.drive) {
                Some(finding) => finding.count += 1,
                None => findings.push(Finding {
                    drive: id.drive.clone(),
                    kind: "frame that could not be converted",
                    count: 1,
                    example: format!("{id}: {reason}"),
                }),
            }
        }
        findings
    }
}

impl Content {
    fn map(path: &Path, entry: &ShardEntry) -> Result<Self, String> {
        let bytes = map_file(path).map_err(|error| error.to_string())?;
        if bytes.len() as u64 != entry.n_bytes {
            return Err(format!("{} bytes, expected {}: the shard is damaged", bytes.len(), entry.n_bytes));
        }
        let (header_length, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|error| format!("is no safetensors file: {error}"))?;
        Ok(Self { data_start: header_length + size_of::<u64>(), bytes, metadata })
    }

    /// Element type, shape and bytes.
    fn tensor(&self, name: &str) -> Option<encode::Stored<'_>> {
        let info = self.metadata.info(name)?;
        let (start, end) = info.data_offsets;
        Some(encode::Stored { dtype: info.dtype, shape: &info.shape, bytes: &self.bytes[self.data_start..][start..end] })
    }
}
