//! The teacher of a run, in every step.

use super::targets::{TargetSettings, Targets, TrueBox, draw_targets};
use crate::data::batch::Batch;
use crate::distill::DistillConfig;
use crate::distill::label::merge_labels;
use crate::distill::source::{TeacherSource, TeachingError};
use crate::distill::teacher::TeacherOutput;

/// A teacher and what is wanted of it.
#[derive(Debug)]
pub struct Teaching {
    /// What is wanted.
    pub config: DistillConfig,
    /// Who is asked.
    pub source: TeacherSource,
}

/// What the teacher has to say about a batch.
#[derive(Debug)]
pub struct Lesson<'a> {
    /// What is wanted.
    pub config: &'a DistillConfig,
    /// Labels of the student, the teacher's among them where wanted.
    pub labels: Vec<Vec<TrueBox>>,
    /// Raw maps.
    pub output: TeacherOutput,
    /// The true boxes alone, on the teacher's grid.
    pub targets: Targets,
}

impl Teaching {
    /// What it says about a batch.
    ///
    /// # Errors
    /// [`TeachingError`].
    pub fn lesson(&self, batch: &Batch, n_classes: usize, settings: &TargetSettings) -> Result<Lesson<'_>, TeachingError> {
        let output = self.source.output(batch)?;
        let labels: Vec<Vec<TrueBox>> = match &self.config.label {
            Some(kd) => output.boxes.iter().zip(&batch.boxes).map(|(boxes, truth)| merge_labels(boxes, truth, kd)).collect(),
            None => batch.boxes.clone(),
        };
        let (grid, stride) = self.source.grid();
        let targets = draw_targets(&batch.boxes, &grid, stride, n_classes, settings).to_device(output.heat_map.device());
        Ok(Lesson { config: &self.config, labels, output, targets })
    }
}
