//! A dump looked at before anybody learns from it: what can be seen without the run that will read it.
//!
//! Whoever writes dumps from another framework errs in the same few ways: maps with rows and columns swapped or turned, a wrong stride,
//! probabilities where logits belong, boxes in another frame. Boxes and heat map of one frame tell: a confident box lies where its class
//! is hot.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::SafeTensors;
use tch::{Device, IndexOp, Kind, Tensor};

use super::shard::{parse_name, read_header, shard_paths};
use super::{DumpContent, DumpError, DumpHeader, DumpReader, HEADER_FILE};
use crate::bag::map::map_file;
use crate::data::SampleId;
use crate::distill::teacher::TeacherOutput;
use crate::postprocess::Detection;

/// Boxes with at least this score are laid beside the heat map.
const CONFIDENT: f32 = 0.3;
/// A box is found on the map when its class reaches this share of the box's score within a cell of its middle.
const SHARE_OF_SCORE: f32 = 0.5;
/// Share of confident boxes that lie on their heat map, below which something is wrong with one of the two.
const LEAST_AGREEMENT: f64 = 0.5;
/// Problems kept in words; all are counted.
const MAX_NAMED: usize = 20;

/// What a dump holds and what is wrong with it.
#[derive(Debug, Default)]
pub struct DumpCheck {
    /// Who said it.
    pub teacher: String,
    /// Stored epochs and the frames of each.
    pub frames: BTreeMap<u64, usize>,
    /// Boxes of each class, in the header's order.
    pub n_boxes: Vec<(String, usize)>,
    /// Whether regression maps are there.
    pub has_regression: bool,
    /// Confident boxes, and how many of them lie where their class is hot.
    pub on_map: [usize; 2],
    /// The same with the map's rows and columns swapped; counted where the map is square.
    pub on_swapped_map: usize,
    /// All that is wrong, counted.
    pub n_problems: usize,
    /// The first of it, in words.
    pub problems: Vec<String>,
}

impl DumpCheck {
    /// Looks at every frame of a dump. With `inputs`, the folder of `trainer dump-teacher --inputs` that it answers, every frame of that
    /// one must be there.
    ///
    /// # Errors
    /// When a file cannot be read, or a tensor has not the name, type or shape that the format asks for.
    pub fn run(dump: &Path, inputs: Option<&Path>) -> Result<Self, DumpError> {
        let header = read_header(dump)?;
        let reader = DumpReader::open_as_it_is(dump)?;
        let mut check = Self {
            teacher: header.teacher.clone(),
            n_boxes: header.classes.iter().map(|class| (class.clone(), 0)).collect(),
            has_regression: reader.has_regression(),
            ..Self::default()
        };
        for (epoch, id) in reader.names() {
            *check.frames.entry(epoch).or_default() += 1;
            match reader.read(epoch, std::slice::from_ref(&id), Device::Cpu) {
                Ok(output) => check.frame(&header, &format!("frame {id} of epoch {epoch}"), &output)?,
                Err(error) => check.problem(error.to_string()),
            }
        }
        if check.frames.is_empty() {
            check.problem("it holds no frame".to_owned());
        }
        check.agreement();
        if let Some(inputs) = inputs {
            check.against_inputs(&header, &reader, inputs)?;
        }
        Ok(check)
    }

    fn problem(&mut self, problem: String) {
        self.n_problems += 1;
        if self.problems.len() < MAX_NAMED {
            self.problems.push(problem);
        }
    }

    fn frame(&mut self, header: &DumpHeader, name: &str, output: &TeacherOutput) -> Result<(), DumpError> {
        let logits = output.heat_map.f_squeeze_dim(0)?;
        if logits.numel() > 0 {
            let (lowest, highest) = (logits.f_min()?.double_value(&[]), logits.f_max()?.double_value(&[]));
            if lowest >= 0.0 && highest <= 1.0 {
                self.problem(format!("{name}: heat_map is {lowest:.3} to {highest:.3}: probabilities, where logits belong"));
            }
        }
        let hot = logits.f_sigmoid()?.f_max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false)?; // [K, H, W]
        let swapped = (hot.size()[1] == hot.size()[2]).then(|| hot.transpose(1, 2));
        for detection in output.boxes.iter().flatten() {
            self.n_boxes[detection.class_idx].1 += 1;
            let Some([row, col]) = cell_of(header, detection) else {
                let center = detection.box3d.center;
                self.problem(format!("{name}: a box at ({:.1}, {:.1}) is outside of the range", center[0], center[1]));
                continue;
            };
            if detection.score < CONFIDENT {
                continue;
            }
            let is_hot = |map: &Tensor| {
                let value = map.i((detection.class_idx as i64, row, col)).to_kind(Kind::Float).double_value(&[]) as f32;
                usize::from(value >= SHARE_OF_SCORE * detection.score)
            };
            self.on_map[0] += 1;
            self.on_map[1] += is_hot(&hot);
            self.on_swapped_map += swapped.as_ref().map_or(0, is_hot);
        }
        Ok(())
    }

    fn agreement(&mut self) {
        let [n, agreeing] = self.on_map;
        let swapped = self.on_swapped_map;
        if n > 0 && (agreeing as f64) < LEAST_AGREEMENT * n as f64 {
            let advice = if swapped > agreeing {
                format!("with rows and columns swapped {swapped} do: H runs along y, W along x")
            } else {
                "check stride, range, the order of classes, and that boxes are in the frame of the points".to_owned()
            };
            self.problem(format!("{agreeing} of {n} confident boxes lie where their class is hot; {advice}"));
        }
    }

    fn against_inputs(&mut self, header: &DumpHeader, reader: &DumpReader, inputs: &Path) -> Result<(), DumpError> {
        let asked = read_header(inputs)?;
        let wrong = |key: &'static str, found: String, needed: String| DumpError::Other {
            path: inputs.join(HEADER_FILE),
            key,
            found,
            needed,
        };
        if asked.content != DumpContent::Inputs {
            return Err(wrong("content", format!("{:?}", asked.content), format!("{:?}", DumpContent::Inputs)));
        }
        for (key, ours, theirs) in [
            ("classes", format!("{:?}", header.classes), format!("{:?}", asked.classes)),
            ("range", format!("{:?}", header.range), format!("{:?}", asked.range)),
            ("data", format!("{:?}", header.data), format!("{:?}", asked.data)),
        ] {
            if ours != theirs {
                self.problem(format!("{key} is {ours}, that of the inputs {theirs}"));
            }
        }
        for (epoch, id) in asked_frames(inputs)? {
            if !reader.holds(epoch, &id) {
                self.problem(format!("frame {id} of epoch {epoch} was asked for and has no answer"));
            }
        }
        Ok(())
    }
}

/// Row and column of a box's middle on the maps; `None` outside.
fn cell_of(header: &DumpHeader, detection: &Detection) -> Option<[i64; 2]> {
    let cell = |axis: usize, n: usize| {
        let edge = f64::from(header.voxel_size[axis]) * header.stride as f64;
        let at = (detection.box3d.center[axis] - f64::from(header.range[axis])) / edge;
        (at >= 0.0 && at < n as f64).then_some(at as i64)
    };
    let [h, w] = header.map_size();
    Some([cell(1, h)?, cell(0, w)?])
}

/// Epochs and frames of a folder of inputs.
fn asked_frames(inputs: &Path) -> Result<BTreeSet<(u64, SampleId)>, DumpError> {
    let mut frames = BTreeSet::new();
    for path in shard_paths(inputs)? {
        let bytes = map_file(&path).map_err(|source| DumpError::Io { path: path.clone(), source })?;
        let format_error = |reason: String| DumpError::Format { path: path.clone(), reason };
        let shard = SafeTensors::deserialize(&bytes).map_err(|error| format_error(error.to_string()))?;
        for name in shard.names() {
            match parse_name(name) {
                Some((epoch, id, "points" | "truth")) => frames.insert((epoch, id)),
                _ => return Err(format_error(format!("`{name}` is no tensor of a folder of inputs"))),
            };
        }
    }
    Ok(frames)
}
