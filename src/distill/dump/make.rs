//! Making a dump: every frame of every epoch past the teacher once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{DumpError, DumpWriter, InputWriter};
use crate::data::batch::{BatchError, Unreadable, VoxelPlan, Voxelization};
use crate::data::loader::{Loader, LoaderConfig, LoaderError, Order, Span};
use crate::data::prepare::{Preparation, PrepareError, Turn, prepare};
use crate::data::{DataError, Source};
use crate::distill::teacher::{Teacher, TeacherError};

/// The frames of a dump.
#[derive(Debug, Clone)]
pub struct DumpFrames {
    /// Recordings.
    pub source: Arc<dyn Source>,
    /// As the run prepares them.
    pub preparation: Arc<Preparation>,
    /// Batches; their size matters to a teacher that uses batch statistics.
    pub loader: LoaderConfig,
    /// Epochs 0 to this one, exclusive.
    pub n_epochs: u64,
}

/// What became of the frames.
#[derive(Debug)]
pub struct DumpReport {
    /// Frames in the dump, epochs counted apart, with those of earlier calls.
    pub n_stored: usize,
    /// Frames that could not be read or prepared.
    pub unreadable: Vec<Unreadable>,
    /// Whether it was stopped before the last frame.
    pub was_stopped: bool,
}

/// Why a dump was not made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The frames.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// One frame.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The preparation of one frame.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// A batch on its way to the device.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The teacher.
    #[error(transparent)]
    Teacher(#[from] TeacherError),
    /// The dump.
    #[error(transparent)]
    Dump(#[from] DumpError),
}

/// Asks the teacher about every frame that the dump does not hold. `advanced` hears of finished frames and all frames; `stop` ends it
/// after the batch at hand, with everything stored.
///
/// # Errors
/// [`MakeError`]; what was stored before stays.
pub fn dump_outputs(
    teacher: &Teacher,
    frames: &DumpFrames,
    mut writer: DumpWriter,
    stop: &AtomicBool,
    mut advanced: impl FnMut(u64, u64),
) -> Result<DumpReport, MakeError> {
    let spec = teacher.spec();
    // The teacher's cells are all that is needed of each frame.
    let own = Voxelization { grid: spec.grid(), caps: spec.caps() };
    let plan = VoxelPlan { n_features: spec.input.features.len(), student: own, teacher: None };
    let n_frames = frames.source.len() as u64;
    let n_total = n_frames * frames.n_epochs;
    let is_missing = |number: &u64| !writer.holds(number / n_frames, &frames.source.id((number % n_frames) as usize));
    let Some(first) = (0..n_total).find(is_missing) else {
        return Ok(DumpReport { n_stored: writer.finish()?, unreadable: Vec::new(), was_stopped: false });
    };
    let batch_size = frames.loader.batch_size as u64;
    let span =
        Span { first_epoch: first / n_frames, first_step: first % n_frames / batch_size.max(1), end_epoch: frames.n_epochs };
    let (source, preparation) = (Arc::clone(&frames.source), Arc::clone(&frames.preparation));
    // What is left over here a run, in its own order, may well meet.
    let loader = LoaderConfig { keep_partial_batch: true, ..frames.loader.clone() };
    let loader = Loader::start(source, preparation, plan, &loader, Order::Stored, span)?;
    let mut unreadable = Vec::new();
    let mut was_stopped = false;
    for batch in loader {
        let mut batch = batch?;
        unreadable.append(&mut batch.unreadable);
        let epoch = batch.epoch;
        let n_done = epoch * n_frames + n_frames.min((batch.step + 1) * batch_size);
        if batch.ids.iter().any(|id| !writer.holds(epoch, id)) {
            let batch = batch.to_device(teacher.options().device)?;
            writer.add(epoch, &batch.ids, &teacher.output(&batch.student)?)?;
        }
        advanced(n_done, n_total);
        if stop.load(Ordering::Relaxed) {
            was_stopped = n_done < n_total;
            break;
        }
    }
    Ok(DumpReport { n_stored: writer.finish()?, unreadable, was_stopped })
}

/// Stores the prepared frames themselves, for a teacher of another program.
///
/// # Errors
/// [`MakeError`]; what was stored before stays.
pub fn dump_inputs(
    frames: &DumpFrames,
    mut writer: InputWriter,
    stop: &AtomicBool,
    mut advanced: impl FnMut(u64, u64),
) -> Result<DumpReport, MakeError> {
    let n_frames = frames.source.len();
    let n_total = n_frames as u64 * frames.n_epochs;
    let mut unreadable = Vec::new();
    for number in 0..n_total {
        if stop.load(Ordering::Relaxed) {
            return Ok(DumpReport { n_stored: writer.finish()?, unreadable, was_stopped: true });
        }
        let (epoch, index) = (number / n_frames as u64, (number % n_frames as u64) as usize);
        let id = frames.source.id(index);
        if !writer.holds(epoch, &id) {
            let turn = Turn { epoch, index: index as u64, n_frames: n_frames as u64 };
            let sample = frames.source.load(epoch, index).map_err(MakeError::from);
            match sample.and_then(|sample| Ok(prepare(&sample, turn, &frames.preparation)?)) {
                Ok(prepared) => prepared.frame.iter().try_for_each(|frame| writer.add(epoch, frame))?,
                Err(error) => unreadable.push(Unreadable { reason: id.reason(&error), id }),
            }
        }
        advanced(number + 1, n_total);
    }
    Ok(DumpReport { n_stored: writer.finish()?, unreadable, was_stopped: false })
}
