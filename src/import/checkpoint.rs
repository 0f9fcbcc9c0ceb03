//! What OpenPCDet and SparseKD save: `{epoch, it, model_state, optimizer_state, version}`.

use std::collections::BTreeMap;

use super::container::{Container, ContainerError, Format};
use super::pickle::{Heap, Object, Value};
use super::torch::{TensorView, shorten};
use crate::model::params::Weights;

/// A checkpoint's weights and what it says about them.
#[derive(Debug)]
pub struct Checkpoint {
    /// Format of the file.
    pub format: Format,
    /// The `model_state`, on the CPU, contiguous, in the file's element types.
    pub tensors: Weights,
    /// Epochs done.
    pub epoch: Option<i64>,
    /// Iterations done.
    pub iteration: Option<i64>,
    /// The writer, such as `pcdet+0.5.2`.
    pub version: Option<String>,
    /// Everything that was not read: keys beside `model_state`, and its entries that are not tensors, with their type.
    pub skipped: Vec<String>,
}

/// Why the bytes of a checkpoint were refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The container, its pickle or a storage.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Something else was saved.
    #[error("the file holds {found}, a dict with `model_state` is needed")]
    NoModelState {
        /// What it holds.
        found: String,
    },
    /// Two tensors of one name.
    #[error("`{name}` appears twice in model_state")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// The name of an entry is not text.
    #[error("a name in model_state is {found}, str needed")]
    Name {
        /// Its type.
        found: String,
    },
    /// libtorch could not hold it.
    #[error("`{name}` of size {size:?} cannot be made")]
    Tensor {
        /// The name.
        name: String,
        /// Its sizes.
        size: Vec<i64>,
    },
}

/// Reads a checkpoint from the bytes of its file.
///
/// # Errors
/// [`CheckpointError`] on anything damaged, refused, or not a checkpoint; never a panic.
pub fn parse_checkpoint(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let mut container = Container::open(bytes)?;
    let mut index = index(&container.pickle.heap, container.pickle.root)?;
    let mut tensors = Weights::new();
    // By storage, so that one that is shared is unpacked once; the optimizer's are left alone.
    for (key, decl) in std::mem::take(&mut container.pickle.heap.storages) {
        let Some(views) = index.views.remove(&key) else { continue };
        let storage = container.storage(&key, decl)?;
        for (name, view) in views {
            container.charge(view.byte_len().unwrap_or(u64::MAX), &name)?;
            let size = view.size.clone();
            let tensor = view.gather(&storage).ok_or_else(|| CheckpointError::Tensor { name: shorten(&name), size })?;
            tensors.insert(name, tensor);
        }
    }
    let format = container.format;
    Ok(Checkpoint {
        format,
        tensors,
        epoch: index.epoch,
        iteration: index.iteration,
        version: index.version,
        skipped: index.skipped,
    })
}

/// The checkpoint's dict, sorted out before any tensor is made.
struct Index {
    /// Named views by storage key.
    views: BTreeMap<String, Vec<(String, TensorView)>>,
    epoch: Option<i64>,
    iteration: Option<i64>,
    version: Option<String>,
    skipped: Vec<String>,
}

fn index(heap: &Heap, root: Value) -> Result<Index, CheckpointError> {
    let Some(entries) = heap.entries(root) else {
        return Err(CheckpointError::NoModelState { found: heap.type_name(root) });
    };
    let mut index = Index { views: BTreeMap::new(), epoch: None, iteration: None, version: None, skipped: Vec::new() };
    let mut model_state = None;
    for &(key, value) in entries {
        match (heap.text(key), value) {
            (Some("model_state"), _) => model_state = heap.entries(value),
            (Some("epoch"), Value::Int(n)) => index.epoch = Some(n),
            (Some("it"), Value::Int(n)) => index.iteration = Some(n),
            (Some("version"), _) if heap.text(value).is_some() => index.version = heap.text(value).map(str::to_owned),
            (_, Value::None) => {}
            (Some(name), _) => index.skipped.push(format!("{} ({})", shorten(name), heap.type_name(value))),
            (None, _) => index.skipped.push(format!("a key that is {}", heap.type_name(key))),
        }
    }
    let Some(model_state) = model_state else {
        let keys: Vec<String> = entries.iter().filter_map(|(key, _)| heap.text(*key)).take(8).map(shorten).collect();
        return Err(CheckpointError::NoModelState { found: format!("a dict with the keys {keys:?}") });
    };
    let mut names = std::collections::BTreeSet::new();
    for &(key, value) in model_state {
        let Some(name) = heap.text(key) else {
            return Err(CheckpointError::Name { found: heap.type_name(key) });
        };
        if !names.insert(name) {
            return Err(CheckpointError::Duplicate { name: shorten(name) });
        }
        match heap.object(value) {
            Some(Object::Tensor(view)) => {
                index.views.entry(view.key.clone()).or_default().push((name.to_owned(), view.clone()));
            }
            _ => index.skipped.push(format!("model_state.{} ({})", shorten(name), heap.type_name(value))),
        }
    }
    Ok(index)
}
