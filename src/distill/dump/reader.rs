//! Reading a dump: every name and shape is checked when it is opened, values when they are read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tch::{Device, Kind, Tensor};

use super::shard::{BOX_VALUES, parse_name, read_header, shard_paths};
use super::{DumpContent, DumpData, DumpEpochs, DumpError, DumpHeader, HEADER_FILE};
use crate::bag::map::map_file;
use crate::data::SampleId;
use crate::distill::teacher::TeacherOutput;
use crate::geometry::Box3d;
use crate::postprocess::Detection;

/// Channels of a regression map.
const REGRESSION_CHANNELS: usize = 8;

/// An opened dump. Shards are mapped, not loaded.
#[derive(Debug)]
pub struct DumpReader {
    dir: PathBuf,
    header: DumpHeader,
    shards: Vec<(PathBuf, Bytes)>,
    frames: BTreeMap<(u64, SampleId), Frame>,
    has_regression: bool,
}

/// Where the tensors of a frame lie.
#[derive(Debug, Default)]
struct Frame {
    shard_idx: usize,
    heat_map: Option<Stored>,
    regression: Option<Stored>,
    boxes: Option<Stored>,
}

/// A tensor's bytes in its shard.
#[derive(Debug, Clone)]
struct Stored {
    kind: Kind,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl DumpReader {
    /// Opens a dump for a student of these classes over this range, whose frames are made from `data`; `regression` tells whether
    /// regression maps are wanted.
    ///
    /// # Errors
    /// When the dump is damaged, or of other classes, another range or other frames.
    pub fn open(dir: &Path, classes: &[String], range: [f32; 6], data: &DumpData, regression: bool) -> Result<Self, DumpError> {
        let header = read_header(dir)?;
        let other = |key, found: &dyn std::fmt::Debug, needed: &dyn std::fmt::Debug| {
            let (found, needed) = (format!("{found:?}"), format!("{needed:?}"));
            Err(DumpError::Other { path: dir.join(HEADER_FILE), key, found, needed })
        };
        if header.content != DumpContent::Outputs {
            return other("content", &header.content, &DumpContent::Outputs);
        }
        if header.classes != classes {
            return other("classes", &header.classes, &classes);
        }
        if header.range != range {
            return other("range", &header.range, &range);
        }
        if let Some((key, found, needed)) = header.data.as_ref().and_then(|found| found.difference(data)) {
            return Err(DumpError::Other { path: dir.join(HEADER_FILE), key, found, needed });
        }
        Self::with_header(dir, header, Some(regression))
    }

    /// Opens a dump whatever run it is for, with regression maps where there are any.
    ///
    /// # Errors
    /// When the dump is damaged or holds no outputs.
    pub fn open_as_it_is(dir: &Path) -> Result<Self, DumpError> {
        let header = read_header(dir)?;
        if header.content != DumpContent::Outputs {
            let (found, needed) = (format!("{:?}", header.content), format!("{:?}", DumpContent::Outputs));
            return Err(DumpError::Other { path: dir.join(HEADER_FILE), key: "content", found, needed });
        }
        Self::with_header(dir, header, None)
    }

    /// `regression` tells whether its maps are wanted; `None` for whatever is there.
    fn with_header(dir: &Path, header: DumpHeader, regression: Option<bool>) -> Result<Self, DumpError> {
        let mut reader = Self { dir: dir.to_owned(), header, shards: Vec::new(), frames: BTreeMap::new(), has_regression: false };
        for path in shard_paths(dir)? {
            reader.add_shard(path)?;
        }
        reader.has_regression = regression.unwrap_or_else(|| reader.frames.values().any(|frame| frame.regression.is_some()));
        reader.check_frames(reader.has_regression)?;
        Ok(reader)
    }

    /// Epoch and name of every stored frame.
    pub fn names(&self) -> impl Iterator<Item = (u64, SampleId)> {
        self.frames.keys().cloned()
    }

    /// Whether regression maps are read.
    pub fn has_regression(&self) -> bool {
        self.has_regression
    }

    /// Checks that there is something for each of so many epochs. Frames that cannot be used have no outputs, so which ones are there
    /// shows only when they are read.
    ///
    /// # Errors
    /// [`DumpError::Epoch`] for the first epoch without outputs.
    pub fn check_epochs(&self, n_epochs: u64) -> Result<(), DumpError> {
        let stored: BTreeSet<u64> = self.frames.keys().map(|(epoch, _)| *epoch).collect();
        match (0..n_epochs).find(|epoch| !stored.contains(&self.stored_epoch(*epoch))) {
            Some(epoch) => Err(DumpError::Epoch { dir: self.dir.clone(), epoch, n_epochs, n_stored: stored.len() }),
            None => Ok(()),
        }
    }

    /// What all frames have in common.
    pub fn header(&self) -> &DumpHeader {
        &self.header
    }

    /// Number of stored frames, epochs counted apart.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether a frame is there.
    pub fn holds(&self, epoch: u64, id: &SampleId) -> bool {
        self.frames.contains_key(&(self.stored_epoch(epoch), id.clone()))
    }

    /// What the teacher said about the frames of a batch.
    ///
    /// # Errors
    /// [`DumpError::Missing`] with the frame's name; [`DumpError::Tensor`] for values that cannot be.
    pub fn read(&self, epoch: u64, ids: &[SampleId], device: Device) -> Result<TeacherOutput, DumpError> {
        let (mut heat_maps, mut regressions, mut boxes) = (Vec::new(), Vec::new(), Vec::new());
        for id in ids {
            let frame = self.frame(epoch, id)?;
            heat_maps.push(self.map(frame, "heat_map", frame.heat_map.as_ref(), id)?);
            if self.has_regression {
                regressions.push(self.map(frame, "regression", frame.regression.as_ref(), id)?);
            }
            boxes.push(self.boxes(frame, id)?);
        }
        let stacked = |maps: &[Tensor]| Tensor::f_stack(maps, 0)?.f_to_device(device);
        let regression = if self.has_regression { Some(stacked(&regressions)?) } else { None };
        Ok(TeacherOutput { heat_map: stacked(&heat_maps)?, regression, boxes })
    }

    fn stored_epoch(&self, epoch: u64) -> u64 {
        match self.header.epochs {
            DumpEpochs::Each => epoch,
            DumpEpochs::Alike => 0,
        }
    }

    fn frame(&self, epoch: u64, id: &SampleId) -> Result<&Frame, DumpError> {
        self.frames.get(&(self.stored_epoch(epoch), id.clone())).ok_or_else(|| {
            let of_frame: Vec<String> =
                self.frames.keys().filter(|(_, stored)| stored == id).map(|(epoch, _)| epoch.to_string()).collect();
            let epochs: BTreeSet<u64> = self.frames.keys().map(|(epoch, _)| *epoch).collect();
            let there = match (of_frame.as_slice(), epochs.first(), epochs.last()) {
                ([], Some(first), Some(last)) => {
                    format!("the dump has {} frames of epochs {first} to {last}, this one in none", self.frames.len())
                }
                ([], ..) => "the dump is empty".to_owned(),
                (of_frame, ..) => format!("the dump has it for epochs {}", of_frame.join(", ")),
            };
            DumpError::Missing { dir: self.dir.clone(), epoch, id: id.clone(), there }
        })
    }

    fn add_shard(&mut self, path: PathBuf) -> Result<(), DumpError> {
        let bytes = map_file(&path).map_err(|source| DumpError::Io { path: path.clone(), source })?;
        let format_error = |reason: String| DumpError::Format { path: path.clone(), reason };
        let shard = SafeTensors::deserialize(&bytes).map_err(|error| format_error(error.to_string()))?;
        let base = bytes.as_ptr() as usize;
        for (name, view) in shard.iter() {
            let parsed = parse_name(name);
            let Some((epoch, id, what)) = parsed else { return Err(format_error(format!("`{name}` is no tensor of a dump"))) };
            let stored = self.checked(&path, name, what, &view, base)?;
            let shard_idx = self.shards.len();
            let frame = self.frames.entry((epoch, id.clone())).or_insert_with(|| Frame { shard_idx, ..Frame::default() });
            if frame.shard_idx != shard_idx {
                let first = self.shards[frame.shard_idx].0.clone();
                return Err(DumpError::Twice { epoch, id, first, second: path });
            }
            match what {
                "heat_map" => frame.heat_map = Some(stored),
                "regression" => frame.regression = Some(stored),
                _ => frame.boxes = Some(stored),
            }
        }
        self.shards.push((path, bytes));
        Ok(())
    }

    /// A tensor's place, when its element type and shape are those of its kind.
    fn checked(&self, path: &Path, name: &str, what: &str, view: &TensorView<'_>, base: usize) -> Result<Stored, DumpError> {
        let [h, w] = self.header.map_size();
        let k = self.header.classes.len();
        let (map_shape, expected) = match what {
            "heat_map" => (Some([k, h, w]), format!("f16 or f32 [{k}, {h}, {w}]")),
            "regression" => (Some([REGRESSION_CHANNELS, h, w]), format!("f16 or f32 [{REGRESSION_CHANNELS}, {h}, {w}]")),
            "boxes" => (None, format!("f32 [M, {BOX_VALUES}]")),
            _ => (None, "heat_map, regression or boxes".to_owned()),
        };
        let kind = match view.dtype() {
            Dtype::F32 => Some(Kind::Float),
            Dtype::F16 if map_shape.is_some() => Some(Kind::Half),
            _ => None,
        };
        let shape = view.shape();
        let fits = match map_shape {
            Some(map_shape) => shape == map_shape,
            None => what == "boxes" && shape.len() == 2 && shape[1] == BOX_VALUES,
        };
        match kind {
            Some(kind) if fits => {
                let start = view.data().as_ptr() as usize - base;
                Ok(Stored { kind, shape: shape.to_vec(), bytes: start..start + view.data().len() })
            }
            _ => {
                let got = format!("{:?} {shape:?}", view.dtype());
                Err(DumpError::Tensor { path: path.to_owned(), name: name.to_owned(), expected, got })
            }
        }
    }

    fn check_frames(&self, regression: bool) -> Result<(), DumpError> {
        for ((epoch, id), frame) in &self.frames {
            let parts = [
                ("heat_map", frame.heat_map.is_some()),
                ("boxes", frame.boxes.is_some()),
                ("regression", frame.regression.is_some() || !regression),
            ];
            if let Some((what, _)) = parts.into_iter().find(|(_, is_there)| !is_there) {
                let path = self.shards[frame.shard_idx].0.clone();
                return Err(DumpError::Format { path, reason: format!("frame {id} of epoch {epoch} has no `{what}`") });
            }
        }
        Ok(())
    }

    fn bytes(&self, frame: &Frame, stored: &Stored) -> &[u8] {
        &self.shards[frame.shard_idx].1[stored.bytes.clone()]
    }

    fn fault(&self, frame: &Frame, id: &SampleId, what: &str, expected: &str, got: String) -> DumpError {
        let path = self.shards[frame.shard_idx].0.clone();
        DumpError::Tensor { path, name: format!("{id}/{what}"), expected: expected.to_owned(), got }
    }

    /// An f32 map on the CPU.
    fn map(&self, frame: &Frame, what: &str, stored: Option<&Stored>, id: &SampleId) -> Result<Tensor, DumpError> {
        let Some(stored) = stored else { return Err(self.fault(frame, id, what, "there", "missing".to_owned())) };
        let shape: Vec<i64> = stored.shape.iter().map(|&n| n as i64).collect();
        let map = Tensor::f_from_data_size(self.bytes(frame, stored), &shape, stored.kind)?.f_to_kind(Kind::Float)?;
        let n_bad = map.f_isfinite()?.f_logical_not()?.f_sum(Kind::Int64)?.int64_value(&[]);
        if n_bad > 0 {
            return Err(self.fault(frame, id, what, "finite", format!("not, at {n_bad} of {} places", map.numel())));
        }
        Ok(map)
    }

    /// Best score first.
    fn boxes(&self, frame: &Frame, id: &SampleId) -> Result<Vec<Detection>, DumpError> {
        let Some(stored) = &frame.boxes else { return Err(self.fault(frame, id, "boxes", "there", "missing".to_owned())) };
        let mut detections = Vec::new();
        for row in self.bytes(frame, stored).chunks_exact(4 * BOX_VALUES) {
            let value = |i: usize| f32::from_le_bytes(std::array::from_fn(|byte| row[4 * i + byte]));
            let values: [f32; BOX_VALUES] = std::array::from_fn(value);
            let [.., score, class] = values;
            let sized = values[3..6].iter().all(|size| *size > 0.0);
            let classed = class >= 0.0 && class.fract() == 0.0 && (class as usize) < self.header.classes.len();
            if !values.iter().all(|value| value.is_finite()) || !sized || !(0.0..=1.0).contains(&score) || !classed {
                let expected = "finite, with sizes above 0, a score from 0 to 1 and a class of the header";
                return Err(self.fault(frame, id, "boxes", expected, format!("{values:?}")));
            }
            let box3d = Box3d::from_row(std::array::from_fn(|i| f64::from(values[i])));
            detections.push(Detection { box3d, score, class_idx: class as usize });
        }
        detections.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(detections)
    }
}
