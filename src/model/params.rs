//! Named tensors: what a network expects and what a file holds.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

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

/// Hands tensors to layers while they are built, and notes what was asked for.
///
/// The same constructors therefore serve two ends: with weights they load a network, without they list what one needs.
#[derive(Debug)]
pub struct Params<'a> {
    weights: Option<&'a Weights>,
    device: Device,
    decls: RefCell<Vec<ParamDecl>>,
}

impl<'a> Params<'a> {
    /// Loads from `weights`, whose [`differences`] must be empty, onto a device. On the CPU the tensors handed out share memory with
    /// the map, so training updates it.
    pub fn load(weights: &'a Weights, device: Device) -> Self {
        Self { weights: Some(weights), device, decls: RefCell::default() }
    }

    /// Only lists what is asked for; the tensors handed out hold zeros.
    pub fn list() -> Self {
        Self { weights: None, device: Device::Cpu, decls: RefCell::default() }
    }

    /// The f32 tensor of that name.
    ///
    /// # Panics
    /// When the weights lack it or its shape differs: [`differences`] was not consulted, which is a bug.
    pub fn take(&self, name: &str, shape: &[i64]) -> Tensor {
        self.decls.borrow_mut().push(ParamDecl { name: name.to_owned(), shape: shape.to_vec(), kind: Kind::Float });
        let Some(weights) = self.weights else {
            return Tensor::zeros([1], (Kind::Float, Device::Cpu)).expand(shape, false);
        };
        match weights.get(name) {
            Some(tensor) if tensor.size() == shape => tensor.to_device(self.device).to_kind(Kind::Float),
            other => panic!("`{name}` {shape:?} is not among the checked weights: {:?}", other.map(Tensor::size)),
        }
    }

    /// Everything that was asked for, in order.
    pub fn into_decls(self) -> Vec<ParamDecl> {
        self.decls.into_inner()
    }
}
