//! The values of a pickle: one heap of objects that refer to each other by index.

use std::collections::BTreeMap;

use super::PickleProblem;
use crate::import::torch::{Global, StorageDecl, StorageSlice, TensorView};

/// Heap objects, memo entries and container slots together.
const MAX_CELLS: usize = 1 << 21;

/// Index of an [`Object`] in its [`Heap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectId(u32);

/// What the stack, the memo and containers hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// `None`
    None,
    /// `True`, `False`
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// A float.
    Float(f64),
    /// Everything else.
    Ref(ObjectId),
}

/// What a [`Value::Ref`] refers to.
#[derive(Debug)]
pub enum Object {
    /// Text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An integer of more than 64 bits, little-endian two's complement.
    BigInt(Vec<u8>),
    /// A tuple or `torch.Size`.
    Tuple(Vec<Value>),
    /// A list.
    List(Vec<Value>),
    /// A dict or `OrderedDict` in insertion order; a repeated key is kept twice.
    Dict(Vec<(Value, Value)>),
    /// An allowed class or function, not yet called.
    Global(Global),
    /// A storage named by a persistent id.
    Storage(StorageSlice),
    /// A tensor laid over a storage.
    Tensor(TensorView),
    /// The result of a call that means nothing to a reader of weights, under the callable's name.
    Inert(&'static str),
}

/// All objects of one pickle, and the storages its persistent ids declared.
#[derive(Debug, Default)]
pub struct Heap {
    objects: Vec<Object>,
    cells: usize,
    /// Storages by key.
    pub storages: BTreeMap<String, StorageDecl>,
}

impl Heap {
    /// The object behind a value, when it is one.
    pub fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Ref(ObjectId(index)) => self.objects.get(index as usize),
            _ => None,
        }
    }

    /// The text of a value, when it is text.
    pub fn text(&self, value: Value) -> Option<&str> {
        match self.object(value) {
            Some(Object::Str(text)) => Some(text),
            _ => None,
        }
    }

    /// The items of a tuple or list.
    pub fn items(&self, value: Value) -> Option<&[Value]> {
        match self.object(value) {
            Some(Object::Tuple(items) | Object::List(items)) => Some(items),
            _ => None,
        }
    }

    /// The entries of a dict.
    pub fn entries(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.object(value) {
            Some(Object::Dict(entries)) => Some(entries),
            _ => None,
        }
    }

    /// The type of a value in Python's words, for messages.
    pub fn type_name(&self, value: Value) -> String {
        let name = match value {
            Value::None => "None",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Ref(_) => match self.object(value) {
                None => "nothing",
                Some(Object::Str(_)) => "str",
                Some(Object::Bytes(_)) => "bytes",
                Some(Object::BigInt(_)) => "int",
                Some(Object::Tuple(_)) => "tuple",
                Some(Object::List(_)) => "list",
                Some(Object::Dict(_)) => "dict",
                Some(Object::Global(_)) => "a class",
                Some(Object::Storage(_)) => "a storage",
                Some(Object::Tensor(_)) => "a tensor",
                Some(Object::Inert(name)) => return format!("`{name}`"),
            },
        };
        name.to_owned()
    }

    /// Stores an object.
    ///
    /// # Errors
    /// When the heap is full.
    pub fn store(&mut self, object: Object) -> Result<Value, PickleProblem> {
        let slots = match &object {
            Object::Tuple(items) | Object::List(items) => items.len(),
            Object::Dict(entries) => 2 * entries.len(),
            Object::Tensor(view) => 2 * view.size.len(),
            _ => 0,
        };
        self.charge(1 + slots)?;
        let id = ObjectId(self.objects.len() as u32);
        self.objects.push(object);
        Ok(Value::Ref(id))
    }

    /// Counts cells against the limit.
    pub(super) fn charge(&mut self, cells: usize) -> Result<(), PickleProblem> {
        self.cells += cells;
        if self.cells > MAX_CELLS { Err(PickleProblem::Limit { what: "values", limit: MAX_CELLS }) } else { Ok(()) }
    }

    /// The object behind a value, to be filled.
    pub(super) fn object_mut(&mut self, value: Value) -> Option<&mut Object> {
        match value {
            Value::Ref(ObjectId(index)) => self.objects.get_mut(index as usize),
            _ => None,
        }
    }
}
