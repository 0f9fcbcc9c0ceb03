//! Distillation: what a student takes from its teacher. Its first weights (`inherit`), the teacher's view of every training frame
//! (`teacher`, or `dump` where it was computed before), and the terms of the loss that draw the student towards it (`logit`,
//! `regression`, `label`; `anchor` between anchor heads).
//!
//! Without settings, everything is as released for the paper's pillar students (sparsekd-spec section 3.1).

pub mod anchor;
pub mod dump;
pub mod inherit;
pub mod label;
pub mod logit;
pub mod regression;
pub mod source;
pub mod teacher;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::pipeline::Precision;
use crate::train::loss::probabilities;
use crate::train::targets::Targets;
use crate::train::{SettingError, rule};
use inherit::Inheritance;
use label::LabelKd;
use logit::{AlignTo, LogitKd, heat_map_kd, sort_kd};
use regression::regression_kd;
use teacher::TeacherOutput;

/// A student's distillation. Each part can be switched off by `null`; what is not mentioned is as released.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillConfig {
    /// Who teaches.
    pub teacher: TeacherConfig,
    /// Heat maps.
    #[serde(default = "released_logit")]
    pub logit: Option<LogitKd>,
    /// Weight of the boxes' term in the total loss; 0 as for the paper's pillar pairs, 0.2 for its voxel pairs. Without effect where
    /// teacher and student differ in resolution.
    #[serde(default)]
    pub regression_weight: f64,
    /// The teacher's boxes as labels.
    #[serde(default = "released_label")]
    pub label: Option<LabelKd>,
    /// The student's first weights.
    #[serde(default = "released_inherit")]
    pub inherit: Option<InheritConfig>,
}

/// Who teaches, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// Where its outputs come from.
    pub from: TeacherFrom,
    /// Statistics of its batch norms; `train`. Of no effect on a dump.
    #[serde(default)]
    pub mode: TeacherMode,
    /// Arithmetic of its convolutions; `f32`. Of no effect on a dump.
    #[serde(default = "full_precision")]
    pub precision: Precision,
}

/// Where a teacher's outputs come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeacherFrom {
    /// A model directory: computed in the step.
    Model(PathBuf),
    /// A folder of `trainer dump-teacher`, or of any program that writes its format.
    Dump(PathBuf),
}

/// Which statistics a teacher's batch norms use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeacherMode {
    /// Those of the batch at hand, as released. What the teacher says of a frame then depends on the frames beside it.
    #[default]
    Train,
    /// Those of its training.
    Eval,
}

/// Where a student's first weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InheritConfig {
    /// A model directory; absent for the teacher's.
    pub from: Option<PathBuf>,
    /// `prefix`, which is the released plain copy where both are equally wide.
    pub how: Inheritance,
}

impl Default for InheritConfig {
    fn default() -> Self {
        Self { from: None, how: Inheritance::Prefix }
    }
}

fn released_logit() -> Option<LogitKd> {
    Some(LogitKd::default())
}

fn released_label() -> Option<LabelKd> {
    Some(LabelKd::default())
}

fn released_inherit() -> Option<InheritConfig> {
    Some(InheritConfig::default())
}

fn full_precision() -> Precision {
    Precision::F32
}

impl DistillConfig {
    /// Everything as released, with this teacher.
    pub fn released(from: TeacherFrom) -> Self {
        let teacher = TeacherConfig { from, mode: TeacherMode::Train, precision: Precision::F32 };
        let (logit, label, inherit) = (released_logit(), released_label(), released_inherit());
        Self { teacher, logit, regression_weight: 0.0, label, inherit }
    }

    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn check(&self, n_classes: usize) -> Result<(), SettingError> {
        let weight = self.regression_weight;
        rule(weight.is_finite() && weight >= 0.0, "regression_weight", &weight, "must be 0 or more and finite")?;
        self.logit.as_ref().map_or(Ok(()), LogitKd::check)?;
        self.label.as_ref().map_or(Ok(()), |label| label.check(n_classes))?;
        let of_dump = matches!(self.teacher.from, TeacherFrom::Dump(_));
        let known = self.inherit.as_ref().is_none_or(|inherit| inherit.from.is_some() || !of_dump);
        rule(known, "inherit.from", &self.inherit, "a dump has no weights: name a model directory, or set inherit to null")
    }

    /// Where the first weights come from and how, if from anywhere.
    pub fn inheritance(&self) -> Option<(&PathBuf, Inheritance)> {
        let inherit = self.inherit.as_ref()?;
        let of_teacher = match &self.teacher.from {
            TeacherFrom::Model(dir) => Some(dir),
            TeacherFrom::Dump(_) => None,
        };
        Some((inherit.from.as_ref().or(of_teacher)?, inherit.how))
    }
}

/// What a student said about a batch, and what it should have said.
#[derive(Debug, Clone, Copy)]
pub struct StudentMaps<'a> {
    /// `[B, K, H, W]` of [`probabilities`].
    pub probabilities: &'a Tensor,
    /// `[B, 8, H, W]`.
    pub regression: &'a Tensor,
    /// Drawn from the merged labels.
    pub targets: &'a Targets,
}

/// The terms of distillation, each a scalar with its weight applied.
#[derive(Debug)]
pub struct DistillTerms {
    /// Heat maps.
    pub heat_map: Tensor,
    /// The teacher's best entries.
    pub sort: Tensor,
    /// Boxes.
    pub regression: Tensor,
}

impl DistillTerms {
    /// Their sum: what distillation adds to the detection loss.
    pub fn total(&self) -> Tensor {
        &self.heat_map + &self.sort + &self.regression
    }
}

/// Distillation terms of a batch.
///
/// `teacher_targets` are drawn from the true boxes alone on the teacher's grid, so that no label of the teacher's decides where the
/// teacher is listened to.
///
/// # Panics
/// As all tensor operations do, when shapes do not go together.
pub fn distill_loss(
    config: &DistillConfig,
    student: StudentMaps<'_>,
    teacher: &TeacherOutput,
    teacher_targets: &Targets,
) -> DistillTerms {
    let zero = || Tensor::zeros([0; 0], (Kind::Float, student.probabilities.device()));
    let mut terms = DistillTerms { heat_map: zero(), sort: zero(), regression: zero() };
    if let Some(kd) = &config.logit {
        let of_teacher = probabilities(&teacher.heat_map);
        let truth = match kd.align.to {
            AlignTo::Teacher => &teacher_targets.heat_map,
            AlignTo::Student => &student.targets.heat_map,
        };
        terms.heat_map = heat_map_kd(student.probabilities, &of_teacher, truth, kd) * kd.weight;
        if let Some(sort) = &kd.sort {
            terms.sort = sort_kd(student.probabilities, &of_teacher, kd.align, sort) * sort.weight;
        }
    }
    if let (true, Some(regression)) = (config.regression_weight > 0.0, &teacher.regression) {
        terms.regression = regression_kd(student.regression, regression, teacher_targets) * config.regression_weight;
    }
    terms
}
