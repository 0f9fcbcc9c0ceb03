//! Teacher-guided initialisation: a student's first weights from its teacher's.
//!
//! A narrower student takes some channels of each of its teacher's layers. Which ones a layer keeps decides which inputs the next
//! layer keeps, so the network is walked once from points to boxes with the selection in hand (`walk`).

mod walk;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::cloud::Feature;
use crate::model::expected_params;
use crate::model::params::{ParamDecl, Weights};
use crate::model::spec::ModelSpec;

/// How a student is initialised from its teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inheritance {
    /// Tensors of the same name and shape; the others keep the student's own initialisation. What the paper does for pillars.
    Copy,
    /// The first channels of every layer, where maps are joined those of every part. The identity for networks of equal width.
    Prefix,
    /// As `prefix`, with the paper's mistake where 3-D features become a map (and, in narrower pillar features, where a layer's
    /// maximum is joined to it): inputs are taken that carry other features.
    PrefixReleased,
    /// The channels whose batch norm scales most, in falling order.
    BnScale,
    /// The channels whose weights are largest in sum of magnitudes, in falling order.
    L1Norm,
}

/// Which channels of a layer are kept, and how faithful the wiring is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remap {
    /// Order of the channels.
    pub rank: Rank,
    /// Treatment of what lies between the layers.
    pub wiring: Wiring,
}

/// In which order a layer's output channels are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// As they stand (FNAV2).
    First,
    /// By the magnitude of the scale of the norm behind, largest first (BN_SCALE).
    NormScale,
    /// By the sum of magnitudes of the weights, largest first (OFA).
    L1Largest,
    /// The same, smallest first.
    L1Smallest,
}

/// Whether inputs are taken from the channels that carry the same feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// Everywhere.
    Exact,
    /// As the paper's code does, for parity:
    /// - the map made of 3-D features is taken to hold all channels of the first height, then all of the second, although it holds
    ///   all heights of the first channel, then of the second;
    /// - a layer as wide as the student's is copied as it stands even where its inputs were reordered;
    /// - sums of magnitudes of 3-D kernels run over all inputs, and those of the first 2-D layer over the inputs that the last 3-D
    ///   layer keeps;
    /// - what a residual block adds is not kept in step with what it adds to.
    Released,
}

/// Why a student cannot inherit.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// Teacher and student do not detect the same things.
    #[error("the teacher's classes are {teacher:?}, the student's {student:?}; they must be the same in the same order")]
    Classes {
        /// Of the teacher.
        teacher: Vec<String>,
        /// Of the student.
        student: Vec<String>,
    },
    /// Teacher and student do not take the same columns.
    #[error("the teacher takes columns {teacher:?}, the student {student:?}; they must be the same in the same order")]
    Features {
        /// Of the teacher.
        teacher: Vec<Feature>,
        /// Of the student.
        student: Vec<Feature>,
    },
    /// The student is deeper, or of another family.
    #[error("the student needs `{name}`, which the teacher does not have: only networks of the same depth can inherit")]
    Missing {
        /// The tensor.
        name: String,
    },
    /// The student is shallower, or of another family.
    #[error("the student has no place for {} of the teacher's tensors, the first is `{first}`: only networks of the same depth can \
             inherit", .count)]
    Unused {
        /// How many.
        count: usize,
        /// The first by name.
        first: String,
    },
    /// The student is wider.
    #[error("`{name}` has {student} channels in the student and {teacher} in the teacher: a student cannot be wider")]
    Wider {
        /// The tensor.
        name: String,
        /// Channels of the student's.
        student: i64,
        /// Channels of the teacher's.
        teacher: i64,
    },
    /// Shapes that no choice of channels brings together.
    #[error("`{name}` would have shape {got:?}, the student needs {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// What the student needs.
        expected: Vec<i64>,
        /// What the teacher's channels give.
        got: Vec<i64>,
    },
    /// A plain copy that copies nothing.
    #[error("no tensor of the teacher has the name and shape of one of the student's")]
    Nothing,
}

/// The student's weights as far as the teacher gives them: all of them, except with [`Inheritance::Copy`], where tensors without a
/// twin are absent. New memory throughout.
///
/// # Errors
/// [`InheritError`] when the two do not detect the same classes from the same columns, or one is no narrower version of the other.
///
/// # Source
/// sparsekd-spec section 4.
pub fn inherit(
    source: &Weights,
    source_spec: &ModelSpec,
    student_spec: &ModelSpec,
    how: Inheritance,
) -> Result<Weights, InheritError> {
    if source_spec.classes != student_spec.classes {
        return Err(InheritError::Classes { teacher: source_spec.classes.clone(), student: student_spec.classes.clone() });
    }
    if source_spec.input.features != student_spec.input.features {
        let (teacher, student) = (source_spec.input.features.clone(), student_spec.input.features.clone());
        return Err(InheritError::Features { teacher, student });
    }
    let student = expected_params(student_spec);
    let remap = |rank, wiring| inherit_tensors(source, &student, Remap { rank, wiring });
    match how {
        Inheritance::Copy => copy_matching(source, &student),
        Inheritance::Prefix => remap(Rank::First, Wiring::Exact),
        Inheritance::PrefixReleased => remap(Rank::First, Wiring::Released),
        Inheritance::BnScale => remap(Rank::NormScale, Wiring::Exact),
        Inheritance::L1Norm => remap(Rank::L1Largest, Wiring::Exact),
    }
}

/// Tensors of the same name and shape.
///
/// # Errors
/// [`InheritError::Nothing`] when there is none.
pub fn copy_matching(source: &Weights, student: &[ParamDecl]) -> Result<Weights, InheritError> {
    let twin = |decl: &ParamDecl| source.get(&decl.name).filter(|tensor| tensor.size() == decl.shape);
    let copied: Weights = student.iter().filter_map(|decl| Some((decl.name.clone(), twin(decl)?.copy()))).collect();
    if copied.is_empty() { Err(InheritError::Nothing) } else { Ok(copied) }
}

/// Tensors of a narrower network from those of a wider one. Knows CP-Pillar and CP-Voxel and what is made like them, by the names
/// of the tensors; sparse kernels are `[out, kz, ky, kx, in]`. Counters of the training framework are copied.
///
/// # Errors
/// [`InheritError`] when one is no narrower version of the other.
pub fn inherit_tensors(source: &Weights, student: &[ParamDecl], remap: Remap) -> Result<Weights, InheritError> {
    let inherited = walk::walk(source, student, remap)?;
    let unused: BTreeSet<&String> = source.keys().filter(|name| !inherited.contains_key(*name)).collect();
    if let Some(first) = unused.first() {
        return Err(InheritError::Unused { count: unused.len(), first: (*first).clone() });
    }
    for ParamDecl { name, shape, .. } in student {
        match inherited.get(name) {
            None => return Err(InheritError::Missing { name: name.clone() }),
            Some(tensor) if tensor.size() != *shape => {
                return Err(InheritError::Shape { name: name.clone(), expected: shape.clone(), got: tensor.size() });
            }
            Some(_) => {}
        }
    }
    Ok(inherited)
}
