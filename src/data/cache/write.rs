//! Converts a source into a cache: shard after shard, the frames of one in parallel while the one before is written.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rayon::prelude::*;
use safetensors::tensor::TensorView;

use super::encode::{Encoded, Precision, Tensors, crc32, encode, tensor_name};
use super::header::{FrameEntry, Header, Index, LeftOutFrame, ShardEntry, shard_name, write_whole};
use super::{Content, HEADER_FILE};
use crate::data::{DataError, Label, Sample, Source};

/// Key of the copy of [`ShardEntry`] in the metadata of a shard.
const ENTRY_KEY: &str = "frames";

/// How frames are stored.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSettings {
    /// Of the points.
    pub precision: Precision,
    /// Points outside are dropped: x, y, z of the lower and of the upper corner, metres. So are labels whose footprint lies outside in x and y;
    /// those across the border have their points counted anew. Augmentation turns and scales, so leave it room: the training
    /// range times 1.5.
    pub range_m: Option<[f64; 6]>,
    /// Frames of one file: what is in memory at once, and what a kill loses.
    pub shard_frames: usize,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { precision: Precision::F32, range_m: None, shard_frames: 32 }
    }
}

/// What a finished conversion holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Frames stored.
    pub n_frames: usize,
    /// Frames that were there already when this run began.
    pub n_resumed: usize,
    /// Size of all shards.
    pub n_bytes: u64,
    /// Frames that could not be read.
    pub left_out: Vec<LeftOutFrame>,
}

/// Converts every frame of the first epoch of a source. Killed at any time and started again, it goes on after the last finished shard and
/// ends with the same bytes. `progress` is told the number of frames done, from any thread.
///
/// # Errors
/// Settings that make no sense; a folder that is in use, holds something else, or a conversion of another source or with other settings;
/// a source that cannot be read for reasons of the operating system, or of which no frame can be read; a file system that refuses. Shards
/// that are finished stay. A frame that is wrong in itself is no error: it is left out and reported.
pub fn write(
    source: &dyn Source,
    folder: &Path,
    settings: &CacheSettings,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Written, DataError> {
    settings.check(folder)?;
    let io_error = |source| DataError::Io { path: folder.display().to_string(), source };
    fs::create_dir_all(folder).map_err(io_error)?;
    let lock = fs::File::open(folder).map_err(io_error)?;
    match lock.try_lock() {
        Err(fs::TryLockError::WouldBlock) => return Err(refuse(folder, "another conversion is writing into it".to_owned())),
        Err(fs::TryLockError::Error(error)) => tracing::warn!("{}: cannot be locked: {error}", folder.display()),
        Ok(()) => {}
    }

    let header = Header::new(source.fingerprint(), source.len(), settings);
    if folder.join(HEADER_FILE).is_file() {
        header.check_same(&Header::read(folder)?, folder)?;
    } else if holds_something(folder).map_err(io_error)? {
        return Err(refuse(folder, "the folder is not empty and holds no conversion".to_owned()));
    } else {
        header.write(folder)?;
    }

    let n_done = AtomicUsize::new(0);
    let advance = |n_frames| progress(n_done.fetch_add(n_frames, Ordering::Relaxed) + n_frames);
    let (shards, n_resumed) = write_shards(source, folder, settings, &advance)?;
    let index = Index { shards };
    let left_out: Vec<LeftOutFrame> = index.shards.iter().flat_map(|shard| shard.left_out.clone()).collect();
    if let (Some(first), true) = (left_out.first(), left_out.len() == source.len()) {
        return Err(refuse(
            folder,
            format!("none of {} frames could be read; first: {}: {}", source.len(), first.id, first.reason),
        ));
    }
    index.write(folder)?;
    let n_bytes = index.shards.iter().map(|shard| shard.n_bytes).sum();
    Ok(Written { n_frames: source.len() - left_out.len(), n_resumed, n_bytes, left_out })
}

/// Anything but what a kill while the first file was written leaves.
fn holds_something(folder: &Path) -> io::Result<bool> {
    let mut names = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    names.try_fold(false, |found, path| Ok(found || path?.extension().is_none_or(|extension| extension != "part")))
}

/// The entries of all shards, and the number of frames that were there.
fn write_shards(
    source: &dyn Source,
    folder: &Path,
    settings: &CacheSettings,
    advance: &(dyn Fn(usize) + Sync),
) -> Result<(Vec<ShardEntry>, usize), DataError> {
    let n_shards = source.len().div_ceil(settings.shard_frames);
    let mut entries = Vec::with_capacity(n_shards);
    let mut n_resumed = 0;
    thread::scope(|scope| {
        let mut writing: Option<thread::ScopedJoinHandle<Result<ShardEntry, DataError>>> = None;
        for shard_idx in 0..n_shards {
            let frames = shard_idx * settings.shard_frames..source.len().min((shard_idx + 1) * settings.shard_frames);
            let path = folder.join(shard_name(shard_idx));
            if let Some(entry) = finished_shard(&path, frames.len()) {
                n_resumed += frames.len();
                advance(frames.len());
                entries.extend(writing.take().map(join).transpose()?);
                entries.push(entry);
                continue;
            }
            let loaded: Vec<Loaded> =
                frames.into_par_iter().map(|index| load(source, index, settings, advance)).collect::<Result<_, _>>()?;
            entries.extend(writing.take().map(join).transpose()?);
            writing = Some(scope.spawn(move || write_shard(&path, loaded)));
        }
        entries.extend(writing.take().map(join).transpose()?);
        Ok((entries, n_resumed))
    })
}

fn join<T>(handle: thread::ScopedJoinHandle<T>) -> T {
    handle.join().unwrap_or_else(|panic| resume_unwind(panic))
}

enum Loaded {
    Frame(FrameEntry, Vec<Encoded>),
    LeftOut(LeftOutFrame),
}

fn load(
    source: &dyn Source,
    index: usize,
    settings: &CacheSettings,
    advance: &(dyn Fn(usize) + Sync),
) -> Result<Loaded, DataError> {
    let encoded = source.load(0, index).and_then(|mut sample| {
        if let Some(range_m) = &settings.range_m {
            crop(&mut sample, range_m);
        }
        let place = sample.id.to_string();
        encode(&sample, settings.precision).map_err(|reason| DataError::Format {
            path: source.fingerprint().source,
            place,
            reason,
        })
    });
    let id = source.id(index);
    let loaded = match encoded {
        Ok(tensors) => {
            let crc32 = crc32(tensors.iter().map(|tensor| tensor.bytes.as_slice()));
            Loaded::Frame(FrameEntry { id, crc32 }, tensors)
        }
        // The disk or the network failed, not the frame: another run may read it.
        Err(error @ DataError::Io { .. }) => return Err(error),
        Err(error) => Loaded::LeftOut(LeftOutFrame { reason: id.reason(&error), id }),
    };
    advance(1);
    Ok(loaded)
}

fn write_shard(path: &Path, loaded: Vec<Loaded>) -> Result<ShardEntry, DataError> {
    let fault = |reason: String| DataError::Format { path: path.display().to_string(), place: "shard".to_owned(), reason };
    let mut entry = ShardEntry { n_bytes: 0, frames: Vec::new(), left_out: Vec::new() };
    let mut tensors = Vec::new();
    for frame in &loaded {
        match frame {
            Loaded::LeftOut(left_out) => entry.left_out.push(left_out.clone()),
            Loaded::Frame(frame, encoded) => {
                for Encoded { name, dtype, shape, bytes } in encoded {
                    let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(|error| fault(error.to_string()))?;
                    tensors.push((tensor_name(entry.frames.len(), name), view));
                }
                entry.frames.push(frame.clone());
            }
        }
    }
    let metadata = serde_json::to_string(&entry).map_err(|error| fault(error.to_string()))?;
    // One key only: safetensors writes several in the order of a hash map.
    let bytes = safetensors::serialize(tensors, Some(HashMap::from([(ENTRY_KEY.to_owned(), metadata)])))
        .map_err(|error| fault(error.to_string()))?;
    write_whole(path, &[&bytes])?;
    entry.n_bytes = bytes.len() as u64;
    Ok(entry)
}

/// The entry of a shard that an earlier run finished; `None` where there is none, or it is damaged and has to be made again.
fn finished_shard(path: &Path, n_frames: usize) -> Option<ShardEntry> {
    let n_bytes = fs::metadata(path).ok()?.len();
    let content = Content::map(path, &ShardEntry { n_bytes, frames: Vec::new(), left_out: Vec::new() }).ok()?;
    let metadata = content.metadata.metadata().as_ref()?.get(ENTRY_KEY)?;
    let entry = ShardEntry { n_bytes, ..serde_json::from_str(metadata).ok()? };
    let whole = |(slot, frame): (usize, &FrameEntry)| Tensors::find(slot, |name| content.tensor(name)).crc32() == frame.crc32;
    (entry.frames.len() + entry.left_out.len() == n_frames && entry.frames.par_iter().enumerate().all(whole)).then_some(entry)
}

impl CacheSettings {
    fn check(&self, folder: &Path) -> Result<(), DataError> {
        if self.shard_frames == 0 {
            return Err(refuse(folder, "shard_frames is 0, expected at least 1".to_owned()));
        }
        let Some(range_m) = self.range_m else { return Ok(()) };
        let [lower, upper] = [&range_m[..3], &range_m[3..]];
        if !range_m.iter().all(|value| value.is_finite()) || lower.iter().zip(upper).any(|(lower, upper)| lower >= upper) {
            return Err(refuse(folder, format!("range_m is {range_m:?}, expected finite x, y, z minima below their maxima")));
        }
        Ok(())
    }
}

fn refuse(folder: &Path, reason: String) -> DataError {
    DataError::Source { source_name: folder.display().to_string(), reason }
}

/// Drops what is outside.
fn crop(sample: &mut Sample, range_m: &[f64; 6]) {
    let width = sample.cloud.features.len().max(1);
    let inside = |row: &[f32]| (0..3).all(|axis| (range_m[axis]..=range_m[axis + 3]).contains(&f64::from(row[axis])));
    let keep: Vec<bool> = sample.cloud.rows().map(inside).collect();
    let mut kept = keep.iter().flat_map(|&keep| std::iter::repeat_n(keep, width));
    sample.cloud.points.retain(|_| kept.next().unwrap_or(false));
    let mut kept = keep.iter();
    sample.in_no_label_zone.retain(|_| *kept.next().unwrap_or(&false));

    let [x, y] = [range_m[0]..=range_m[3], range_m[1]..=range_m[4]];
    let within = |corner: &[f64; 2]| x.contains(&corner[0]) && y.contains(&corner[1]);
    let cloud = &sample.cloud;
    let keep_label = |label: &mut Label| {
        let corners = label.box3d.footprint();
        let n_within = corners.iter().filter(|corner| within(corner)).count();
        if n_within < corners.len() && label.n_points.is_some() {
            let points = cloud.rows().filter(|row| label.box3d.contains([row[0], row[1], row[2]].map(f64::from)));
            label.n_points = Some(points.count() as u32);
        }
        let [center_x, center_y, _] = label.box3d.center;
        n_within > 0 || within(&[center_x, center_y])
    };
    if let Some(labels) = &mut sample.labels {
        labels.retain_mut(keep_label);
    }
}
