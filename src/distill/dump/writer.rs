//! Writing a dump, shard by shard; what was written before an interruption is kept and gone on from.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use tch::{IndexOp, Kind, Tensor};

use super::shard::{BOX_VALUES, Blob, parse_name, read_header, shard_paths, tensor_name, write_shard, write_whole};
use super::{DumpError, DumpHeader, HEADER_FILE};
use crate::bag::map::map_file;
use crate::data::SampleId;
use crate::data::prepare::TrainingFrame;
use crate::distill::teacher::TeacherOutput;
use crate::postprocess::Detection;

/// A shard is written when it holds this many bytes.
const SHARD_BYTES: usize = 64 << 20;

/// Stores a teacher's outputs.
#[derive(Debug)]
pub struct DumpWriter {
    shards: ShardWriter,
}

/// Stores what a teacher is to be asked.
#[derive(Debug)]
pub struct InputWriter {
    shards: ShardWriter,
    n_features: usize,
}

/// Collects frames into shards.
#[derive(Debug)]
struct ShardWriter {
    dir: PathBuf,
    stored: BTreeSet<(u64, SampleId)>,
    next_shard: u64,
    pending: Vec<Blob>,
    n_pending_bytes: usize,
}

impl DumpWriter {
    /// Begins a dump, or goes on with one of the same header.
    ///
    /// # Errors
    /// When the folder holds another dump or damaged shards, or cannot be written.
    pub fn open(dir: &Path, header: &DumpHeader) -> Result<Self, DumpError> {
        Ok(Self { shards: ShardWriter::open(dir, header, &["heat_map", "boxes"])? })
    }

    /// Whether a frame needs no more asking.
    pub fn holds(&self, epoch: u64, id: &SampleId) -> bool {
        self.shards.stored.contains(&(epoch, id.clone()))
    }

    /// Adds what the teacher said about a batch; frames that are there already are passed over.
    ///
    /// # Errors
    /// When a map holds what f16 cannot, or the file system refuses.
    pub fn add(&mut self, epoch: u64, ids: &[SampleId], output: &TeacherOutput) -> Result<(), DumpError> {
        for (idx, id) in ids.iter().enumerate().filter(|(_, id)| !self.holds(epoch, id)).collect::<Vec<_>>() {
            let mut blobs = vec![self.map(epoch, id, "heat_map", &output.heat_map.i(idx as i64))?];
            if let Some(regression) = &output.regression {
                blobs.push(self.map(epoch, id, "regression", &regression.i(idx as i64))?);
            }
            let boxes: Vec<f32> = output.boxes.get(idx).into_iter().flatten().flat_map(box_row).collect();
            blobs.push(Blob::of_rows(tensor_name(epoch, id, "boxes"), &boxes, BOX_VALUES));
            self.shards.add(epoch, id, blobs)?;
        }
        Ok(())
    }

    /// Writes what is left; returns the number of frames in the dump.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn finish(mut self) -> Result<usize, DumpError> {
        self.shards.flush()?;
        Ok(self.shards.stored.len())
    }

    fn map(&self, epoch: u64, id: &SampleId, what: &str, map: &Tensor) -> Result<Blob, DumpError> {
        let name = tensor_name(epoch, id, what);
        let half = map.f_to_kind(Kind::Half)?;
        if !bool::try_from(half.f_isfinite()?.f_all()?)? {
            let (expected, got) = ("finite in f16".to_owned(), "not".to_owned());
            return Err(DumpError::Tensor { path: self.shards.dir.clone(), name, expected, got });
        }
        Blob::of_tensor(name, &half, Kind::Half)
    }
}

impl InputWriter {
    /// Begins to store frames of `n_features` columns, or goes on.
    ///
    /// # Errors
    /// As [`DumpWriter::open`].
    pub fn open(dir: &Path, header: &DumpHeader, n_features: usize) -> Result<Self, DumpError> {
        Ok(Self { shards: ShardWriter::open(dir, header, &["points", "truth"])?, n_features })
    }

    /// Whether a frame is there.
    pub fn holds(&self, epoch: u64, id: &SampleId) -> bool {
        self.shards.stored.contains(&(epoch, id.clone()))
    }

    /// Adds a prepared frame, unless it is there.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn add(&mut self, epoch: u64, frame: &TrainingFrame) -> Result<(), DumpError> {
        let TrainingFrame { id, points, boxes } = frame;
        if self.holds(epoch, id) {
            return Ok(());
        }
        let truth: Vec<f32> = boxes.iter().flat_map(|b| b.row.into_iter().chain([b.class_idx as f32])).collect();
        let blobs = vec![
            Blob::of_rows(tensor_name(epoch, id, "points"), points, self.n_features),
            Blob::of_rows(tensor_name(epoch, id, "truth"), &truth, 8),
        ];
        self.shards.add(epoch, id, blobs)
    }

    /// Writes what is left; returns the number of frames stored.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn finish(mut self) -> Result<usize, DumpError> {
        self.shards.flush()?;
        Ok(self.shards.stored.len())
    }
}

impl ShardWriter {
    /// `whole` names the tensors that every stored frame has.
    fn open(dir: &Path, header: &DumpHeader, whole: &[&str]) -> Result<Self, DumpError> {
        fs::create_dir_all(dir).map_err(|source| DumpError::Io { path: dir.to_owned(), source })?;
        let path = dir.join(HEADER_FILE);
        if !path.exists() {
            let text = serde_json::to_vec_pretty(header)
                .map_err(|error| DumpError::Format { path: path.clone(), reason: error.to_string() })?;
            write_whole(&path, &text)?;
        }
        if let Some((key, found, needed)) = read_header(dir)?.difference(header) {
            return Err(DumpError::Other { path, key, found, needed });
        }
        let mut writer =
            Self { dir: dir.to_owned(), stored: BTreeSet::new(), next_shard: 0, pending: Vec::new(), n_pending_bytes: 0 };
        for shard in shard_paths(dir)? {
            let stem = shard.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let number = stem.strip_prefix("shard-").and_then(|digits| digits.parse::<u64>().ok());
            writer.next_shard = writer.next_shard.max(number.map_or(0, |number| number.saturating_add(1)));
            for (epoch, id, what) in stored_names(&shard)? {
                // A frame's tensors are written together, so any of them stands for all.
                if what == whole[0] {
                    writer.stored.insert((epoch, id));
                }
            }
        }
        Ok(writer)
    }

    fn add(&mut self, epoch: u64, id: &SampleId, blobs: Vec<Blob>) -> Result<(), DumpError> {
        self.stored.insert((epoch, id.clone()));
        self.n_pending_bytes += blobs.iter().map(|blob| blob.bytes.len()).sum::<usize>();
        self.pending.extend(blobs);
        if self.n_pending_bytes >= SHARD_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DumpError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        write_shard(&self.dir.join(format!("shard-{:06}.safetensors", self.next_shard)), &self.pending)?;
        self.next_shard += 1;
        self.pending.clear();
        self.n_pending_bytes = 0;
        Ok(())
    }
}

fn stored_names(path: &Path) -> Result<Vec<(u64, SampleId, String)>, DumpError> {
    let bytes = map_file(path).map_err(|source: io::Error| DumpError::Io { path: path.to_owned(), source })?;
    let format_error = |reason: String| DumpError::Format { path: path.to_owned(), reason };
    let shard = SafeTensors::deserialize(&bytes).map_err(|error| format_error(error.to_string()))?;
    let parsed = |name: &&str| parse_name(name).map(|(epoch, id, what)| (epoch, id, what.to_owned()));
    let names = shard.names();
    names.iter().map(|name| parsed(name).ok_or_else(|| format_error(format!("`{name}` is no tensor of a dump")))).collect()
}

fn box_row(detection: &Detection) -> [f32; BOX_VALUES] {
    let [x, y, z, dx, dy, dz, yaw] = detection.box3d.to_row().map(|value| value as f32);
    [x, y, z, dx, dy, dz, yaw, detection.score, detection.class_idx as f32]
}
