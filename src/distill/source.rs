//! A run's teacher, wherever its outputs come from.

use std::path::PathBuf;

use tch::Device;

use super::dump::{DumpData, DumpError, DumpReader};
use super::teacher::{Teacher, TeacherError, TeacherOptions, TeacherOutput};
use super::{DistillConfig, TeacherFrom};
use crate::data::batch::Batch;
use crate::model::directory::{self, DirectoryError};
use crate::model::spec::ModelSpec;
use crate::voxel::Grid;

/// Gives a teacher's output for any batch of a run.
#[derive(Debug)]
pub enum TeacherSource {
    /// Asked in every step.
    Live(Box<Teacher>),
    /// Asked before.
    Dump {
        /// Its answers.
        reader: Box<DumpReader>,
        /// Where the student learns.
        device: Device,
    },
}

/// Why there is no teacher, or nothing from it.
#[derive(Debug, thiserror::Error)]
pub enum TeachingError {
    /// Its directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Itself.
    #[error(transparent)]
    Teacher(#[from] TeacherError),
    /// Its dump.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// It looks for other things than the student.
    #[error("the classes of teacher {dir} are {teacher:?}, the student's {student:?}; they must be the same in the same order")]
    Classes {
        /// Its directory.
        dir: PathBuf,
        /// Of the teacher.
        teacher: Vec<String>,
        /// Of the student.
        student: Vec<String>,
    },
}

impl TeacherSource {
    /// Opens the teacher of a student that learns for so many epochs, from frames that are made from `data`.
    ///
    /// # Errors
    /// [`TeachingError`].
    pub fn open(
        config: &DistillConfig,
        student: &ModelSpec,
        data: &DumpData,
        n_epochs: u64,
        device: Device,
    ) -> Result<Self, TeachingError> {
        let range = student.grid.range;
        let regression = config.regression_weight > 0.0;
        match &config.teacher.from {
            TeacherFrom::Dump(dir) => {
                let reader = DumpReader::open(dir, &student.classes, range, data, regression)?;
                reader.check_epochs(n_epochs)?;
                if reader.header().data.is_none() {
                    tracing::warn!(dump = %dir.display(), "the dump does not say which frames it was made from: only their names are checked");
                }
                Ok(Self::Dump { reader: Box::new(reader), device })
            }
            TeacherFrom::Model(dir) => {
                let model = directory::load(dir)?;
                if model.spec.classes != student.classes {
                    let (teacher, student) = (model.spec.classes, student.classes.clone());
                    return Err(TeachingError::Classes { dir: dir.clone(), teacher, student });
                }
                let (mode, precision) = (config.teacher.mode, config.teacher.precision);
                let options = TeacherOptions { mode, precision, regression, device };
                Ok(Self::Live(Box::new(Teacher::new(&model, range, options)?)))
            }
        }
    }

    /// The spec of a teacher that needs pillars of its own.
    pub fn spec(&self) -> Option<&ModelSpec> {
        match self {
            Self::Live(teacher) => Some(teacher.spec()),
            Self::Dump { .. } => None,
        }
    }

    /// Who it is: hash of the weights, or what the dump says of itself.
    pub fn identity(&self) -> &str {
        match self {
            Self::Live(teacher) => teacher.sha256(),
            Self::Dump { reader, .. } => &reader.header().teacher,
        }
    }

    /// Cells of its input, and how many of them lie along one edge of a cell of its maps.
    pub fn grid(&self) -> (Grid, usize) {
        match self {
            Self::Live(teacher) => (teacher.grid().clone(), teacher.stride()),
            Self::Dump { reader, .. } => (reader.header().grid(), reader.header().stride),
        }
    }

    /// What it says about a batch, on the student's device.
    ///
    /// # Errors
    /// When it fails, or the dump lacks a frame.
    pub fn output(&self, batch: &Batch) -> Result<TeacherOutput, TeachingError> {
        match self {
            Self::Live(teacher) => Ok(teacher.output(batch.teacher.as_ref().unwrap_or(&batch.student))?),
            Self::Dump { reader, device } => Ok(reader.read(batch.epoch, &batch.ids, *device)?),
        }
    }
}
