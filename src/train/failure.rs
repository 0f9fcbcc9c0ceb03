//! What is kept of a step that went wrong: the state before it, its batch, and what was found.

use std::path::PathBuf;

use serde::Serialize;
use tch::Tensor;

use super::checkpoint::{self, CheckpointError, State, replace_file};
use super::run::RunFolder;
use super::step::NonFinite;
use super::tensor_file;
use crate::data::SampleId;
use crate::data::batch::Batch;
use crate::model::params::Weights;

/// `failure.json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    what: String,
    step: u64,
    epoch: u64,
    step_of_epoch: u64,
    frames: &'a [SampleId],
}

/// Writes `non_finite/step_N`: a checkpoint of the state before the step, `batch.safetensors` with what the networks were fed and the
/// true boxes, and `failure.json`.
///
/// # Errors
/// [`CheckpointError`].
pub fn keep(
    run: &RunFolder,
    state: &State,
    tensors: &Weights,
    batch: &Batch,
    what: &NonFinite,
) -> Result<PathBuf, CheckpointError> {
    let folder = run.path("non_finite").join(format!("step_{:08}", state.step));
    checkpoint::write_as(&folder, state, tensors)?;
    let content = |message: String| CheckpointError::Content { path: folder.clone(), message };
    let bytes = tensor_file::encode(&batch_tensors(batch)).map_err(content)?;
    replace_file(&folder.join("batch.safetensors"), &bytes)?;
    let Batch { epoch, step, ids, .. } = batch;
    let report = Report { what: what.to_string(), step: state.step, epoch: *epoch, step_of_epoch: *step, frames: ids };
    let text = serde_json::to_string_pretty(&report).map_err(|error| content(error.to_string()))?;
    replace_file(&folder.join("failure.json"), (text + "\n").as_bytes())?;
    Ok(folder)
}

fn batch_tensors(batch: &Batch) -> Weights {
    let mut tensors = Weights::new();
    for (network, pillars) in [("student", Some(&batch.student)), ("teacher", batch.teacher.as_ref())] {
        if let Some(pillars) = pillars {
            tensors.insert(format!("{network}.voxels"), pillars.voxels.shallow_clone());
            tensors.insert(format!("{network}.num_points"), pillars.num_points.shallow_clone());
            tensors.insert(format!("{network}.coords"), pillars.coords.shallow_clone());
        }
    }
    for (frame_idx, boxes) in batch.boxes.iter().enumerate() {
        let rows: Vec<f32> = boxes.iter().flat_map(|b| b.row).collect();
        let classes: Vec<i64> = boxes.iter().map(|b| b.class_idx as i64).collect();
        tensors.insert(format!("boxes.{frame_idx}"), Tensor::from_slice(&rows).view([-1, 7]));
        tensors.insert(format!("classes.{frame_idx}"), Tensor::from_slice(&classes));
    }
    tensors
}
