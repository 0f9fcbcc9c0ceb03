//! Named tensors: what a network expects and what a file holds.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

/// Tensors by their name in the reference's state dict (sparsekd-spec section 8).
pub type Weights = BTreeMap<String, Tensor>;

/// One tensor a network needs.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamDecl {
    /// Name in the reference's state dict.
    pub name: String,
    /// Sizes.
    pub shape: Vec<i64>,
    /// Element type in memory; files may hold f16.
    pub kind: Kind,
}

/// Every difference between what is expected and what is there, one line each; empty when they agree.
pub fn differences(expected: &[ParamDecl], weights: &Weights) -> Vec<String> {
    let mut lines = Vec::new();
    for decl in expected {
        match weights.get(&decl.name) {
            None => lines.push(format!("missing `{}` {:?}", decl.name, decl.shape)),
            Some(t) if t.size() != decl.shape => {
                lines.push(format!("`{}` has shape {:?}, the spec needs {:?}", decl.name, t.size(), decl.shape));
            }
            Some(_) => {}
        }
    }
    for name in weights.keys() {
        if !expected.iter().any(|decl| decl.name == *name) {
            lines.push(format!("unexpected `{name}`"));
        }
    }
    lines
}
