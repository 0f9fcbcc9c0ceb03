//! The teacher of a run: opened once, asked in every step.

use tch::Device;

use super::step::Lesson;
use super::targets::{TargetSettings, TrueBox, draw_targets};
use crate::data::batch::Batch;
use crate::distill::label::merge_labels;
use crate::distill::teacher::{Teacher, TeacherError, TeacherOptions};
use crate::distill::{DistillConfig, TeacherFrom};
use crate::model::directory::{self, DirectoryError};
use crate::model::spec::ModelSpec;

/// A teacher and what is wanted of it.
#[derive(Debug)]
pub struct Teaching {
    config: DistillConfig,
    teacher: Teacher,
}

/// Why there is no teacher, or nothing from it.
#[derive(Debug, thiserror::Error)]
pub enum TeachingError {
    /// Its directory.
    #[error("teacher: {0}")]
    Directory(#[from] DirectoryError),
    /// Itself.
    #[error(transparent)]
    Teacher(#[from] TeacherError),
    /// It looks for other things than the student.
    #[error("the teacher's classes are {teacher:?}, the student's {student:?}; they must be the same in the same order")]
    Classes {
        /// Of the teacher.
        teacher: Vec<String>,
        /// Of the student.
        student: Vec<String>,
    },
}

impl Teaching {
    /// Opens the teacher for a student.
    ///
    /// # Errors
    /// [`TeachingError`].
    pub fn open(config: &DistillConfig, student: &ModelSpec, device: Device) -> Result<Self, TeachingError> {
        let TeacherFrom::Model(dir) = &config.teacher.from else { unimplemented!() };
        let model = directory::load(dir)?;
        if model.spec.classes != student.classes {
            return Err(TeachingError::Classes { teacher: model.spec.classes, student: student.classes.clone() });
        }
        let options = TeacherOptions {
            mode: config.teacher.mode,
            precision: config.teacher.precision,
            regression: config.regression_weight > 0.0,
            device,
        };
        let teacher = Teacher::new(&model, student.grid.range, options)?;
        Ok(Self { config: config.clone(), teacher })
    }

    /// Its spec over the student's range.
    pub fn spec(&self) -> &ModelSpec {
        self.teacher.spec()
    }

    /// Identity of what it says.
    pub fn sha256(&self) -> &str {
        self.teacher.sha256()
    }

    /// What it says about a batch.
    ///
    /// # Errors
    /// [`TeachingError::Teacher`].
    pub fn lesson(&mut self, batch: &Batch, n_classes: usize, targets: &TargetSettings) -> Result<Lesson<'_>, TeachingError> {
        let output = self.teacher.output(batch.teacher.as_ref().unwrap_or(&batch.student))?;
        let labels: Vec<Vec<TrueBox>> = match &self.config.label {
            Some(kd) => output.boxes.iter().zip(&batch.boxes).map(|(boxes, truth)| merge_labels(boxes, truth, kd)).collect(),
            None => batch.boxes.clone(),
        };
        let drawn = draw_targets(&batch.boxes, self.teacher.grid(), self.teacher.stride(), n_classes, targets);
        let targets = drawn.to_device(output.heat_map.device());
        Ok(Lesson { config: &self.config, labels, output, targets })
    }
}
