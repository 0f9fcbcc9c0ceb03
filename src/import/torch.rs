//! What torch puts into its pickles: storages as persistent ids, tensors as calls of rebuild functions.
//!
//! Deals with meaning only: the globals that may appear, what the few calls stand for, and strided views over storage bytes.
//! The rules of the formats are in sparsekd-spec section 8.1.

use tch::{Kind, Tensor};

use super::pickle::{Heap, Object, PickleProblem, Value};

/// Most dimensions of a tensor; networks have at most five.
const MAX_RANK: usize = 8;

/// Longest key of a storage in bytes; torch counts, or writes an address. Every tensor keeps a copy.
const MAX_KEY: usize = 64;

/// The classes and functions a checkpoint may name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch.Size`
    Size,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`, which begin with the same arguments.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`
    RebuildParameter,
    /// `torch.FloatStorage` and its kin.
    Storage(Kind),
    /// Harmless metadata beside the weights, such as numpy scalars: kept by name, never evaluated.
    Inert(&'static str),
}

impl Global {
    /// The global of that name, unless it is outside the list.
    pub fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch", "Size") => Self::Size,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch" | "torch.cuda", storage) => match storage {
                "FloatStorage" => Self::Storage(Kind::Float),
                "DoubleStorage" => Self::Storage(Kind::Double),
                "HalfStorage" => Self::Storage(Kind::Half),
                "BFloat16Storage" => Self::Storage(Kind::BFloat16),
                "LongStorage" => Self::Storage(Kind::Int64),
                "IntStorage" => Self::Storage(Kind::Int),
                "ShortStorage" => Self::Storage(Kind::Int16),
                "CharStorage" => Self::Storage(Kind::Int8),
                "ByteStorage" => Self::Storage(Kind::Uint8),
                "BoolStorage" => Self::Storage(Kind::Bool),
                "device" => Self::Inert("torch.device"),
                _ => return None,
            },
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Self::Inert("numpy scalar"),
            ("numpy", "dtype") => Self::Inert("numpy.dtype"),
            ("_codecs", "encode") => Self::Inert("_codecs.encode"),
            _ => return None,
        })
    }
}

/// A storage as a persistent id declares it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StorageDecl {
    /// Element type.
    pub kind: Kind,
    /// Elements.
    pub numel: u64,
}

impl StorageDecl {
    /// Size in bytes; the element count was checked against overflow when it was read.
    pub fn byte_len(&self) -> u64 {
        self.numel * self.kind.elt_size_in_bytes() as u64
    }
}

/// The part of a storage that a persistent id names.
#[derive(Debug, Clone, PartialEq)]
pub struct StorageSlice {
    /// Key of the storage in its container.
    pub key: String,
    /// Element type.
    pub kind: Kind,
    /// First element.
    pub start: u64,
    /// One past the last element.
    pub end: u64,
}

/// A tensor laid over a storage; every index it reaches was checked to lie inside.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorView {
    /// Key of the storage in its container.
    pub key: String,
    /// Element type.
    pub kind: Kind,
    /// Element of the storage where the view begins.
    pub start: u64,
    /// Sizes.
    pub size: Vec<i64>,
    /// Strides in elements.
    pub stride: Vec<i64>,
}

impl TensorView {
    /// Bytes of the tensor once it is contiguous, `None` when 64 bits cannot hold it.
    pub fn byte_len(&self) -> Option<u64> {
        let unit = self.kind.elt_size_in_bytes() as u64;
        self.size.iter().try_fold(unit, |product, &n| product.checked_mul(u64::try_from(n).ok()?))
    }

    /// The tensor, contiguous, from the bytes of its whole storage; `None` when the storage is too short.
    pub fn gather(&self, storage: &[u8]) -> Option<Tensor> {
        let unit = self.kind.elt_size_in_bytes();
        let wanted = usize::try_from(self.byte_len()?).ok()?;
        let mut bytes = Vec::with_capacity(wanted);
        let from = usize::try_from(self.start).ok()?.checked_mul(unit)?;
        if self.is_contiguous() {
            bytes.extend_from_slice(storage.get(from..from.checked_add(wanted)?)?);
        } else if wanted > 0 {
            let mut index = vec![0_i64; self.size.len()];
            while bytes.len() < wanted {
                let offset: i64 = index.iter().zip(&self.stride).map(|(i, stride)| i * stride).sum();
                let at = from + offset as usize * unit;
                bytes.extend_from_slice(storage.get(at..at + unit)?);
                for axis in (0..index.len()).rev() {
                    index[axis] += 1;
                    if index[axis] < self.size[axis] {
                        break;
                    }
                    index[axis] = 0;
                }
            }
        }
        if self.kind == Kind::Bool {
            bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
        }
        Tensor::f_from_data_size(&bytes, &self.size, self.kind).ok()
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1_i64;
        self.size.iter().zip(&self.stride).rev().all(|(&n, &stride)| {
            let fits = n <= 1 || stride == expected;
            expected = n.max(1).saturating_mul(expected);
            fits
        })
    }
}

/// What calling `global` with `args` would have made.
///
/// # Errors
/// [`PickleProblem`] when the arguments are not what torch passes.
pub fn call(global: Global, args: Value, heap: &mut Heap) -> Result<Value, PickleProblem> {
    let Some(items) = heap.items(args) else {
        return Err(wrong_type("the arguments of a call", "a tuple", args, heap));
    };
    let object = match global {
        Global::OrderedDict => match items.first() {
            None => Object::Dict(Vec::new()),
            Some(&pairs) => Object::Dict(dict_items(pairs, heap)?),
        },
        Global::Size => match items.first() {
            None => Object::Tuple(Vec::new()),
            Some(&sizes) => Object::Tuple(list_of("the argument of torch.Size", sizes, heap)?.to_vec()),
        },
        Global::RebuildTensor => Object::Tensor(rebuild_tensor(items, heap)?),
        Global::RebuildParameter => {
            let data = items.first().copied().unwrap_or(Value::None);
            return match heap.object(data) {
                Some(Object::Tensor(_)) => Ok(data),
                _ => Err(wrong_type("the data of a Parameter", "a tensor", data, heap)),
            };
        }
        Global::Storage(_) => {
            return Err(PickleProblem::BadValue {
                what: "the callable",
                got: "a storage class".to_owned(),
                rule: "storages are named by persistent ids, not called".to_owned(),
            });
        }
        Global::Inert(name) => Object::Inert(name),
    };
    heap.store(object)
}

/// The storage that `('storage', class, key, location, numel[, view])` names; declared in the heap.
///
/// # Errors
/// [`PickleProblem`] on any other form, or when one key is declared twice with different types or sizes.
pub fn persistent_id(id: Value, heap: &mut Heap) -> Result<StorageSlice, PickleProblem> {
    let fields = list_of("a persistent id", id, heap)?;
    let [tag, class, key, _location, numel, view @ ..] = fields else {
        return Err(PickleProblem::BadValue {
            what: "a persistent id",
            got: format!("a tuple of {}", fields.len()),
            rule: "torch writes five or six fields".to_owned(),
        });
    };
    match heap.text(*tag) {
        Some("storage") => {}
        Some(other) => {
            let rule = "only `storage` is read".to_owned();
            return Err(PickleProblem::BadValue { what: "the tag of a persistent id", got: shorten(other), rule });
        }
        None => return Err(wrong_type("the tag of a persistent id", "str", *tag, heap)),
    }
    let Some(&Object::Global(Global::Storage(kind))) = heap.object(*class) else {
        return Err(wrong_type("the type of a storage", "a storage class", *class, heap));
    };
    let key = match (*key, heap.text(*key)) {
        (_, Some(text)) if text.len() > MAX_KEY => {
            return Err(PickleProblem::Limit { what: "bytes in the key of a storage", limit: MAX_KEY });
        }
        (_, Some(text)) => text.to_owned(),
        (Value::Int(number), _) => number.to_string(),
        _ => return Err(wrong_type("the key of a storage", "str", *key, heap)),
    };
    let numel = count("the element count of a storage", *numel, heap)?;
    let (start, end) = match view.first() {
        None | Some(Value::None) => (0, numel),
        Some(&view) => view_range(view, numel, heap)?,
    };
    let decl = StorageDecl { kind, numel };
    if numel > i64::MAX as u64 / 8 {
        let rule = "no file is that large".to_owned();
        return Err(PickleProblem::BadValue { what: "the element count of a storage", got: numel.to_string(), rule });
    }
    let known = *heap.storages.entry(key.clone()).or_insert(decl);
    if known != decl {
        return Err(PickleProblem::BadValue {
            what: "the declaration of a storage",
            got: format!("{numel} elements of {kind:?} for key `{}`", shorten(&key)),
            rule: format!("it was {} elements of {:?} before", known.numel, known.kind),
        });
    }
    Ok(StorageSlice { key, kind, start, end })
}

/// `(key, offset, size)` of a view on a storage, as legacy files before torch 1.0 have it.
fn view_range(view: Value, numel: u64, heap: &Heap) -> Result<(u64, u64), PickleProblem> {
    let fields = list_of("the view of a storage", view, heap)?;
    let [_key, offset, size] = fields else {
        return Err(wrong_type("the view of a storage", "a tuple of three", view, heap));
    };
    let start = count("the offset of a storage view", *offset, heap)?;
    let size = count("the size of a storage view", *size, heap)?;
    match start.checked_add(size) {
        Some(end) if end <= numel => Ok((start, end)),
        _ => Err(PickleProblem::BadValue {
            what: "the view of a storage",
            got: format!("{size} elements from {start}"),
            rule: format!("the storage has {numel}"),
        }),
    }
}

/// `(storage, offset, size, stride, …)`; what follows concerns autograd.
fn rebuild_tensor(args: &[Value], heap: &Heap) -> Result<TensorView, PickleProblem> {
    let [storage, offset, size, stride, ..] = args else {
        return Err(PickleProblem::BadValue {
            what: "the arguments of _rebuild_tensor",
            got: format!("a tuple of {}", args.len()),
            rule: "at least four are needed".to_owned(),
        });
    };
    let Some(Object::Storage(slice)) = heap.object(*storage) else {
        return Err(wrong_type("the storage of a tensor", "a storage", *storage, heap));
    };
    let offset = count("the offset of a tensor", *offset, heap)?;
    let size = counts("the size of a tensor", *size, heap)?;
    let stride = counts("the stride of a tensor", *stride, heap)?;
    let bad = |got: String, rule: String| PickleProblem::BadValue { what: "a tensor", got, rule };
    if size.len() != stride.len() || size.len() > MAX_RANK {
        return Err(bad(
            format!("of {} sizes and {} strides", size.len(), stride.len()),
            format!("both must agree and be at most {MAX_RANK}"),
        ));
    }
    let available = slice.end - slice.start;
    let reach =
        size.iter().zip(&stride).try_fold(offset, |reach, (&n, &step)| reach.checked_add(n.saturating_sub(1).checked_mul(step)?));
    let needed = if size.contains(&0) { Some(offset) } else { reach.and_then(|last| last.checked_add(1)) };
    if needed.is_none_or(|needed| needed > available) {
        return Err(bad(
            format!("of size {size:?} and stride {stride:?} at offset {offset}"),
            format!("it leaves its storage `{}` of {available} elements", shorten(&slice.key)),
        ));
    }
    let signed = |numbers: Vec<u64>| numbers.into_iter().map(|n| n as i64).collect();
    let view = TensorView {
        key: slice.key.clone(),
        kind: slice.kind,
        start: slice.start + offset,
        size: signed(size),
        stride: signed(stride),
    };
    // Also for empty tensors: torch multiplies the other sizes into strides.
    if view.size.iter().try_fold(8_i64, |product, &n| product.checked_mul(n.max(1))).is_none() {
        return Err(bad(format!("of size {:?}", view.size), "no memory is that large".to_owned()));
    }
    Ok(view)
}

fn dict_items(pairs: Value, heap: &Heap) -> Result<Vec<(Value, Value)>, PickleProblem> {
    let pairs = list_of("the argument of OrderedDict", pairs, heap)?;
    let pair = |pair: &Value| match heap.items(*pair) {
        Some(&[key, value]) => Ok((key, value)),
        _ => Err(wrong_type("an item of OrderedDict", "a pair", *pair, heap)),
    };
    pairs.iter().map(pair).collect()
}

fn list_of<'h>(what: &'static str, value: Value, heap: &'h Heap) -> Result<&'h [Value], PickleProblem> {
    heap.items(value).ok_or_else(|| wrong_type(what, "a tuple", value, heap))
}

/// Non-negative integers that fit i64.
fn counts(what: &'static str, value: Value, heap: &Heap) -> Result<Vec<u64>, PickleProblem> {
    let items = list_of(what, value, heap)?;
    if items.len() > MAX_RANK {
        return Err(PickleProblem::BadValue {
            what,
            got: format!("{} numbers", items.len()),
            rule: format!("at most {MAX_RANK} dimensions are read"),
        });
    }
    items.iter().map(|&item| count(what, item, heap)).collect()
}

fn count(what: &'static str, value: Value, heap: &Heap) -> Result<u64, PickleProblem> {
    match value {
        Value::Int(n) => u64::try_from(n).map_err(|_| PickleProblem::BadValue {
            what,
            got: n.to_string(),
            rule: "it cannot be negative".to_owned(),
        }),
        _ => Err(wrong_type(what, "int", value, heap)),
    }
}

fn wrong_type(what: &'static str, expected: &'static str, got: Value, heap: &Heap) -> PickleProblem {
    PickleProblem::WrongType { what, expected, got: heap.type_name(got) }
}

/// Text of a hostile file, fit for a message.
pub fn shorten(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}
