//! Label distillation: the teacher's confident boxes become labels of the student, beside the true ones.

use serde::{Deserialize, Serialize};

use crate::geometry::Box3d;
use crate::geometry::iou::{self, reference};
use crate::postprocess::Detection;
use crate::train::targets::TrueBox;
use crate::train::{SettingError, rule};

/// Which of the teacher's boxes become labels, and in what order. The defaults are the released ones of the two coarser pillar
/// students.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelKd {
    /// What a box is judged by; `class`.
    pub score: LabelScore,
    /// A box counts when it scores more than this; one value for each class in the spec's order, or one for all; `[0.6, 0.5, 0.5]`.
    pub min_scores: Vec<f64>,
    /// How the boxes are put together; `released`.
    pub merge: Merge,
    /// With `merge: corrected`, bird's-eye intersection over union above which two boxes of a class are one object; 0.1.
    pub max_overlap: f64,
}

impl Default for LabelKd {
    fn default() -> Self {
        Self { score: LabelScore::Class, min_scores: vec![0.6, 0.5, 0.5], merge: Merge::Released, max_overlap: 0.1 }
    }
}

/// What one of the teacher's boxes is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelScore {
    /// The teacher's score.
    Class,
    /// The best 3-D intersection over union with a true box of any class.
    Iou,
    /// `iou` for the first class, `class` for the others.
    Mixed,
}

/// How the teacher's boxes and the true ones are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// The teacher's, then the true ones, as in the paper: objects that both know are there twice or more, and where a frame has
    /// more boxes than targets it is true ones that are left out.
    Released,
    /// The true ones, then the teacher's; nothing removed.
    TruthFirst,
    /// The teacher's alone.
    TeacherOnly,
    /// The true ones, then those of the teacher's, best first, that overlap none before them of their class.
    Corrected,
}

impl LabelKd {
    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn check(&self, n_classes: usize) -> Result<(), SettingError> {
        let n = self.min_scores.len();
        rule(n == 1 || n == n_classes, "label.min_scores", &self.min_scores, "needs one value, or one for each class")?;
        let probable = self.min_scores.iter().all(|score| (0.0..1.0).contains(score));
        rule(probable, "label.min_scores", &self.min_scores, "must be in [0, 1)")?;
        rule((0.0..1.0).contains(&self.max_overlap), "label.max_overlap", &self.max_overlap, "must be in [0, 1)")
    }

    fn min_score(&self, class_idx: usize) -> f64 {
        match self.min_scores[..] {
            [for_all] => for_all,
            _ => self.min_scores.get(class_idx).copied().unwrap_or(1.0),
        }
    }

    fn accepts(&self, teacher: &Detection, truth: &[(Box3d, usize)]) -> bool {
        let by_iou = match self.score {
            LabelScore::Class => false,
            LabelScore::Iou => true,
            LabelScore::Mixed => teacher.class_idx == 0,
        };
        // Compared as f32, as scores are: a threshold of 0.6 is the f32 next to it.
        let score = match by_iou {
            true => truth.iter().map(|(b, _)| reference::iou3d(&teacher.box3d, b)).fold(0.0, f64::max) as f32,
            false => teacher.score,
        };
        score > self.min_score(teacher.class_idx) as f32
    }
}

/// The labels of one frame for the student: true boxes and the teacher's that score enough, in the order of `merge`.
///
/// `teacher` is in order of falling score and was not suppressed. True boxes without a positive length are left out.
///
/// # Source
/// sparsekd-spec section 3.4.
pub fn merge_labels(teacher: &[Detection], truth: &[TrueBox], kd: &LabelKd) -> Vec<TrueBox> {
    let truth: Vec<TrueBox> = truth.iter().copied().filter(|b| b.row[3] > 0.0).collect();
    let boxes: Vec<(Box3d, usize)> = truth.iter().map(|b| (Box3d::from_row(b.row.map(f64::from)), b.class_idx)).collect();
    let accepted = teacher.iter().filter(|detection| kd.accepts(detection, &boxes));
    match kd.merge {
        Merge::Released => accepted.map(label).chain(truth).collect(),
        Merge::TruthFirst => truth.into_iter().chain(accepted.map(label)).collect(),
        Merge::TeacherOnly => accepted.map(label).collect(),
        Merge::Corrected => {
            let mut known = boxes.clone();
            let mut labels = truth;
            for detection in accepted {
                let is_known = known.iter().any(|(b, class_idx)| {
                    *class_idx == detection.class_idx && iou::bev_iou(b, &detection.box3d) > kd.max_overlap
                });
                if !is_known {
                    known.push((detection.box3d, detection.class_idx));
                    labels.push(label(detection));
                }
            }
            labels
        }
    }
}

fn label(detection: &Detection) -> TrueBox {
    TrueBox { row: detection.box3d.to_row().map(|value| value as f32), class_idx: detection.class_idx }
}
