//! A teacher's outputs on disk: computed once, read by every student of that data seed; written by `trainer dump-teacher` or by any
//! other program, so that a teacher of any framework can teach.
//!
//! # Format
//! A folder with one `dump.json` ([`DumpHeader`]) and any number of `*.safetensors` files (shards), which may be split as one likes.
//! Tensors are named `EPOCH/DRIVE/FRAME/WHAT`, where `DRIVE` may hold slashes:
//!
//! | `WHAT` | element type, shape | meaning |
//! | --- | --- | --- |
//! | `heat_map` | f16 or f32 `[K, H, W]` | logits of each class, H along y, W along x |
//! | `boxes` | f32 `[M, 9]` | x, y, z of the middle, length, width, height in metres, yaw in radians, score, class from 0; any order |
//! | `regression` | f16 or f32 `[8, H, W]` | optional, for all frames or none: offset of the middle in cells (x, y), z in metres, log of length, width, height, cos and sin of yaw |
//!
//! `heat_map` and `boxes` are there for every frame. Boxes are in the frame of the (augmented) points, not suppressed. H and W are the
//! range over voxel size and stride. With `"epochs": "alike"` only epoch 0 is stored and serves all of them: the frames must then not
//! be augmented.
//!
//! The points that a foreign teacher has to see are written by `trainer dump-teacher --inputs`, in the same way: `points` f32 `[N, D]`
//! and `truth` f32 `[G, 8]` (seven values of a box, class from 0) instead of the above. Its `dump.json` can be copied, `teacher`,
//! `voxel_size` and `stride` put right. In PyTorch:
//!
//! ```python
//! import glob, json, os, safetensors.torch
//!
//! head = json.load(open("inputs/dump.json"))
//! head.update(content="outputs", teacher="my detector 1.2", voxel_size=[0.1, 0.1, 6.0], stride=8)
//! os.makedirs("dump"); json.dump(head, open("dump/dump.json", "w"))
//! for path in sorted(glob.glob("inputs/*.safetensors")):
//!     out = {}
//!     with safetensors.safe_open(path, "pt") as shard:
//!         for name in (name for name in shard.keys() if name.endswith("/points")):
//!             logits, boxes = model(shard.get_tensor(name))          # [K, H, W], [M, 9]
//!             frame = name.removesuffix("/points")
//!             out[frame + "/heat_map"] = logits.half().contiguous()
//!             out[frame + "/boxes"] = boxes.float().contiguous()
//!     safetensors.torch.save_file(out, path.replace("inputs", "dump"))
//! ```
//!
//! `tests/training/foreign_teacher.py` is a whole one in plain Python. Of a two-stage teacher (PV-RCNN++ in the paper's cross-stage pair) the
//! logits are those of its first stage's heat map, the boxes those that its second stage has refined, with their scores, not suppressed.
//! `trainer check-dump dump --inputs inputs` looks at the result before a student does.

mod check;
mod make;
mod reader;
mod shard;
mod writer;

pub use check::DumpCheck;
pub use make::{DumpFrames, DumpReport, MakeError, dump_inputs, dump_outputs};
pub use reader::DumpReader;
pub use writer::{DumpWriter, InputWriter};

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::cloud::InputSpec;
use crate::data::augment::AugmentConfig;
use crate::data::{Fingerprint, SampleId};
use crate::voxel::Grid;

/// Name of the header in its folder.
pub const HEADER_FILE: &str = "dump.json";

/// Version of the format.
const FORMAT: u32 = 1;

/// What all frames of a dump have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpHeader {
    /// 1.
    pub format: u32,
    /// What the shards hold.
    pub content: DumpContent,
    /// Who said it, in words; for our own teachers with the hash of their weights and how they were run.
    pub teacher: String,
    /// Class names in the order of the heat map's channels.
    pub classes: Vec<String>,
    /// `[xmin, ymin, zmin, xmax, ymax, zmax]` in metres; that of the student.
    pub range: [f32; 6],
    /// Edge lengths of a cell of the teacher in metres.
    pub voxel_size: [f32; 3],
    /// Cells along one edge of a cell of its maps.
    pub stride: usize,
    /// Whether every epoch has outputs of its own.
    pub epochs: DumpEpochs,
    /// What the frames were made from; null where unknown, and then not checked.
    #[serde(default)]
    pub data: Option<DumpData>,
}

/// What the shards of a folder hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DumpContent {
    /// What a teacher said.
    Outputs,
    /// What a teacher is to be asked.
    Inputs,
}

/// Whether every epoch has outputs of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DumpEpochs {
    /// Each epoch sees its frames augmented in another way.
    Each,
    /// Stored as epoch 0 and the same in all.
    Alike,
}

/// Identity of prepared frames: with the epoch and the sample's name it decides every point and every true box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpData {
    /// Of the recordings.
    pub source: Fingerprint,
    /// Key of the augmentation.
    pub data_seed: u64,
    /// SHA-256 over the settings of augmentation, the network's input and its range.
    pub preparation: String,
}

/// What decides the preparation of frames beside source, seed, epoch and name.
#[derive(Debug, Clone, Copy)]
pub struct FrameSettings<'a> {
    /// Of the run.
    pub augment: &'a AugmentConfig,
    /// Hash of the database that is pasted from; where it lies does not matter.
    pub gt_database: Option<&'a str>,
    /// Names of classes in the data that are not the model's, with the model's name for them.
    pub class_names: &'a BTreeMap<String, String>,
    /// Of the student.
    pub input: &'a InputSpec,
    /// `[xmin, ymin, zmin, xmax, ymax, zmax]` in metres, of the student.
    pub range: [f32; 6],
}

impl DumpData {
    /// Of the frames of a run.
    ///
    /// # Errors
    /// When the settings cannot be written as JSON.
    pub fn new(source: Fingerprint, data_seed: u64, settings: FrameSettings<'_>) -> Result<Self, serde_json::Error> {
        let FrameSettings { augment, gt_database, class_names, input, range } = settings;
        let mut augment = serde_json::to_value(augment)?;
        if let Some(sampling) = augment.get_mut("gt_sampling").and_then(Value::as_object_mut) {
            sampling.insert("database".to_owned(), Value::from(gt_database));
        }
        let settings = serde_json::to_vec(&(augment, class_names, input, range))?;
        Ok(Self { source, data_seed, preparation: format!("{:x}", Sha256::digest(settings)) })
    }

    /// The first way in which these are not the frames that are needed: key, its value, the one needed. Under which name the source
    /// was opened does not matter.
    fn difference(&self, needed: &Self) -> Option<(&'static str, String, String)> {
        let words = |data: &Self| [&data.source.sha256, &data.data_seed.to_string(), &data.preparation].map(String::clone);
        let keys = ["data.source.sha256", "data.data_seed", "data.preparation"];
        let sides = keys.into_iter().zip(words(self)).zip(words(needed));
        sides.map(|((key, found), needed)| (key, found, needed)).find(|(_, found, needed)| found != needed)
    }
}

impl DumpHeader {
    /// The header of a teacher's outputs.
    pub fn outputs(teacher: String, classes: &[String], grid: &Grid, stride: usize, data: Option<DumpData>) -> Self {
        let [x0, y0, z0] = grid.range_min;
        let [x1, y1, z1] = grid.range_max;
        Self {
            format: FORMAT,
            content: DumpContent::Outputs,
            teacher,
            classes: classes.to_vec(),
            range: [x0, y0, z0, x1, y1, z1],
            voxel_size: grid.voxel_size,
            stride,
            epochs: DumpEpochs::Each,
            data,
        }
    }

    /// The teacher's cells.
    pub fn grid(&self) -> Grid {
        Grid::new(self.range, self.voxel_size)
    }

    /// Rows and columns of its maps.
    pub fn map_size(&self) -> [usize; 2] {
        let shape = self.grid().shape;
        [shape[1], shape[0]].map(|cells| cells / self.stride.max(1))
    }

    /// The first way in which it is not the header that is needed: key, its value, the one needed.
    fn difference(&self, needed: &Self) -> Option<(&'static str, String, String)> {
        let sides = |found: &dyn std::fmt::Debug, needed: &dyn std::fmt::Debug| (format!("{found:?}"), format!("{needed:?}"));
        let checks = [
            ("format", self.format == needed.format, sides(&self.format, &needed.format)),
            ("content", self.content == needed.content, sides(&self.content, &needed.content)),
            ("teacher", self.teacher == needed.teacher, sides(&self.teacher, &needed.teacher)),
            ("classes", self.classes == needed.classes, sides(&self.classes, &needed.classes)),
            ("range", self.range == needed.range, sides(&self.range, &needed.range)),
            ("voxel_size", self.voxel_size == needed.voxel_size, sides(&self.voxel_size, &needed.voxel_size)),
            ("stride", self.stride == needed.stride, sides(&self.stride, &needed.stride)),
            ("epochs", self.epochs == needed.epochs, sides(&self.epochs, &needed.epochs)),
            ("data", self.data.is_some() == needed.data.is_some(), sides(&self.data, &needed.data)),
        ];
        let other = checks.into_iter().find(|(_, agrees, _)| !agrees);
        let other = other.map(|(key, _, (found, needed))| (key, found, needed));
        other.or_else(|| self.data.as_ref()?.difference(needed.data.as_ref()?))
    }
}

/// Why a dump cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The operating system's word.
    #[error("{path}: {source}")]
    Io {
        /// Of the file or folder.
        path: PathBuf,
        /// Why.
        r#source: std::io::Error,
    },
    /// A file that is not what the format says.
    #[error("{path}: {reason}")]
    Format {
        /// Of the file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that is not what the format says.
    #[error("{path}: `{name}` is {got}, must be {expected}")]
    Tensor {
        /// Of the shard.
        path: PathBuf,
        /// Of the tensor.
        name: String,
        /// What the format says.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A dump of something else.
    #[error("{path}: {key} is {found}, this run needs {needed}")]
    Other {
        /// Of the header.
        path: PathBuf,
        /// What differs.
        key: &'static str,
        /// In the header.
        found: String,
        /// In the run.
        needed: String,
    },
    /// No output for a frame.
    #[error("{dir}: nothing for frame {id} of epoch {epoch}; {there}")]
    Missing {
        /// The dump.
        dir: PathBuf,
        /// Epoch of the run.
        epoch: u64,
        /// The frame.
        id: SampleId,
        /// What there is.
        there: String,
    },
    /// Nothing for an epoch.
    #[error("{dir}: nothing for epoch {epoch}; the run has {n_epochs} epochs, the dump {n_stored}")]
    Epoch {
        /// The dump.
        dir: PathBuf,
        /// The first epoch without outputs.
        epoch: u64,
        /// Of the run.
        n_epochs: u64,
        /// Of the dump.
        n_stored: usize,
    },
    /// A frame that is there twice.
    #[error("frame {id} of epoch {epoch} is in {first} and in {second}")]
    Twice {
        /// Epoch.
        epoch: u64,
        /// The frame.
        id: SampleId,
        /// One shard.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// libtorch refused something.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}
