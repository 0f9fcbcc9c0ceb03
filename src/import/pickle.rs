//! A pickle machine that builds plain data and never calls anything.
//!
//! Deals with the opcodes `torch.save` writes in protocols 2 to 5; every other opcode and every global outside
//! [`super::torch`]'s list is refused by name and position. Values live in one heap and refer to each other by index, as
//! Python objects do: sharing costs nothing, cycles are harmless, and no nesting can exhaust the call stack.

use std::collections::{BTreeMap, HashMap};

use super::torch::{self, Global, StorageDecl, StorageSlice, TensorView};

/// Longest pickle read; the largest checkpoint of the paper with optimizer state has 0.3 MB.
const MAX_BYTES: usize = 64 << 20;
/// Values on the stack; Python's pickler flushes containers after 1000.
const MAX_STACK: usize = 1 << 20;
/// Heap objects, memo entries and container slots together.
const MAX_CELLS: usize = 1 << 21;
/// Longest module or attribute name of a global.
const MAX_NAME: usize = 256;

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

/// A finished pickle.
#[derive(Debug)]
pub struct Pickle {
    /// Its objects.
    pub heap: Heap,
    /// The value `STOP` found.
    pub root: Value,
    /// Position after `STOP`.
    pub end: usize,
}

/// Why a pickle was refused, and where.
#[derive(Debug, thiserror::Error)]
#[error("byte {at}: {problem}")]
pub struct PickleError {
    /// Position of the opcode, counted from the start of the file or zip entry.
    pub at: usize,
    /// What is wrong there.
    pub problem: PickleProblem,
}

/// What is wrong with an opcode.
#[derive(Debug, thiserror::Error)]
pub enum PickleProblem {
    /// Not an opcode of any protocol.
    #[error("0x{0:02x} is not a pickle opcode")]
    UnknownOpcode(u8),
    /// An opcode that checkpoints of tensors do not need.
    #[error("opcode {name} (0x{code:02x}) is refused; torch.save does not write it")]
    RefusedOpcode {
        /// Its name in Python's pickletools.
        name: &'static str,
        /// Its byte.
        code: u8,
    },
    /// A class or function outside the list.
    #[error("global `{0}` is refused; only torch's tensor rebuilders and plain containers are read, nothing is ever called")]
    RefusedGlobal(String),
    /// The bytes end inside an opcode.
    #[error("{needed} bytes needed, {left} left")]
    Truncated {
        /// Bytes the opcode asks for.
        needed: u64,
        /// Bytes there are.
        left: usize,
    },
    /// A protocol after the newest known one.
    #[error("protocol {0}; 2 to 5 are read")]
    Protocol(u8),
    /// Fewer values than the opcode takes.
    #[error("the stack is empty")]
    StackUnderflow,
    /// A closing opcode without its MARK.
    #[error("no MARK is open")]
    NoMark,
    /// A memo entry nobody wrote.
    #[error("memo entry {0} was never stored")]
    MemoMissing(u32),
    /// More than a reader should hold.
    #[error("more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// A value of another type than its place needs.
    #[error("{what} is {got}, {expected} needed")]
    WrongType {
        /// The place.
        what: &'static str,
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        got: String,
    },
    /// A value of the right type that breaks a rule.
    #[error("{what} is {got}; {rule}")]
    BadValue {
        /// The place.
        what: &'static str,
        /// What is there.
        got: String,
        /// The rule.
        rule: String,
    },
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

    fn charge(&mut self, cells: usize) -> Result<(), PickleProblem> {
        self.cells += cells;
        if self.cells > MAX_CELLS { Err(PickleProblem::Limit { what: "values", limit: MAX_CELLS }) } else { Ok(()) }
    }

    fn object_mut(&mut self, value: Value) -> Option<&mut Object> {
        match value {
            Value::Ref(ObjectId(index)) => self.objects.get_mut(index as usize),
            _ => None,
        }
    }
}

/// Reads one pickle that starts at `start` of `bytes`.
///
/// # Errors
/// [`PickleError`] on the first opcode that is damaged, refused or over a limit.
pub fn read_pickle(bytes: &[u8], start: usize) -> Result<Pickle, PickleError> {
    let last = bytes.len().min(start.saturating_add(MAX_BYTES));
    let mut machine = Machine {
        input: Input { bytes: &bytes[..last], at: start },
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        heap: Heap::default(),
    };
    loop {
        let at = machine.input.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => return Ok(Pickle { heap: machine.heap, root, end: machine.input.at }),
            Err(PickleProblem::Truncated { .. }) if last < bytes.len() => {
                return Err(PickleError { at, problem: PickleProblem::Limit { what: "bytes of pickle", limit: MAX_BYTES } });
            }
            Err(problem) => return Err(PickleError { at, problem }),
        }
    }
}

struct Machine<'a> {
    input: Input<'a>,
    stack: Vec<Value>,
    /// Stack heights at the open MARKs.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    heap: Heap,
}

impl Machine<'_> {
    /// Runs one opcode; the root value on STOP.
    fn step(&mut self) -> Result<Option<Value>, PickleProblem> {
        let code = self.input.u8()?;
        match code {
            0x80 => match self.input.u8()? {
                2..=5 => {}
                other => return Err(PickleProblem::Protocol(other)),
            },
            0x95 => drop(self.input.u64()?), // FRAME: a hint for buffering
            b'.' => return self.pop().map(Some),
            b'(' => {
                self.limit("open MARKs", self.marks.len(), MAX_STACK)?;
                self.marks.push(self.stack.len());
            }
            b'0' => drop(self.pop()?),
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => self.int(4, true)?,
            b'K' => self.int(1, false)?,
            b'M' => self.int(2, false)?,
            b'G' => {
                let bits = self.input.array::<8>()?;
                self.push(Value::Float(f64::from_be_bytes(bits)))?;
            }
            0x8a => {
                let length = self.input.uint(1)?;
                self.long(length)?;
            }
            b'X' | b'T' => self.text(4)?,
            0x8c | b'U' => self.text(1)?,
            0x8d => self.text(8)?,
            b'B' => self.bytes(4)?,
            b'C' => self.bytes(1)?,
            0x8e => self.bytes(8)?,
            b')' => self.push_object(Object::Tuple(Vec::new()))?,
            b']' => self.push_object(Object::List(Vec::new()))?,
            b'}' => self.push_object(Object::Dict(Vec::new()))?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let items = self.pop_mark()?;
                self.push_object(Object::Tuple(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(&[item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend_list(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)?;
            }
            b'q' => self.put(1)?,
            b'r' => self.put(4)?,
            0x94 => self.put_at(self.memo.len() as u32)?,
            b'h' => self.get(1)?,
            b'j' => self.get(4)?,
            b'c' => {
                let module = self.input.line()?;
                let name = self.input.line()?;
                self.global(module, name)?;
            }
            0x93 => self.stack_global()?,
            b'R' | 0x81 => self.call()?,
            b'b' => self.build()?,
            b'Q' => {
                let id = self.pop()?;
                let storage = torch::persistent_id(id, &mut self.heap)?;
                self.push_object(Object::Storage(storage))?;
            }
            other => {
                return Err(match refused_opcode(other) {
                    Some(name) => PickleProblem::RefusedOpcode { name, code: other },
                    None => PickleProblem::UnknownOpcode(other),
                });
            }
        }
        Ok(None)
    }

    fn limit(&self, what: &'static str, have: usize, limit: usize) -> Result<(), PickleProblem> {
        if have < limit { Ok(()) } else { Err(PickleProblem::Limit { what, limit }) }
    }

    fn push(&mut self, value: Value) -> Result<(), PickleProblem> {
        self.limit("values on the stack", self.stack.len(), MAX_STACK)?;
        self.stack.push(value);
        Ok(())
    }

    fn push_object(&mut self, object: Object) -> Result<(), PickleProblem> {
        let value = self.heap.store(object)?;
        self.push(value)
    }

    fn pop(&mut self) -> Result<Value, PickleProblem> {
        if self.marks.last().is_some_and(|&mark| mark >= self.stack.len()) {
            return Err(PickleProblem::StackUnderflow);
        }
        self.stack.pop().ok_or(PickleProblem::StackUnderflow)
    }

    fn top(&self) -> Result<Value, PickleProblem> {
        self.stack.last().copied().ok_or(PickleProblem::StackUnderflow)
    }

    /// The values above the innermost MARK, which is closed. `pop` keeps every mark within the stack.
    fn pop_mark(&mut self) -> Result<Vec<Value>, PickleProblem> {
        let mark = self.marks.pop().ok_or(PickleProblem::NoMark)?;
        Ok(self.stack.split_off(mark))
    }

    fn int(&mut self, width: usize, signed: bool) -> Result<(), PickleProblem> {
        let raw = self.input.uint(width)? as i64;
        self.push(Value::Int(if signed { i64::from(raw as i32) } else { raw }))
    }

    fn long(&mut self, length: u64) -> Result<(), PickleProblem> {
        let digits = self.input.take(length)?;
        if digits.len() > 8 {
            return self.push_object(Object::BigInt(digits.to_vec()));
        }
        let fill = if digits.last().is_some_and(|top| top & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..digits.len()].copy_from_slice(digits);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn text(&mut self, length_width: usize) -> Result<(), PickleProblem> {
        let length = self.input.uint(length_width)?;
        let text = std::str::from_utf8(self.input.take(length)?).map_err(|_| PickleProblem::NotUtf8)?;
        self.push_object(Object::Str(text.to_owned()))
    }

    fn bytes(&mut self, length_width: usize) -> Result<(), PickleProblem> {
        let length = self.input.uint(length_width)?;
        let bytes = self.input.take(length)?.to_vec();
        self.push_object(Object::Bytes(bytes))
    }

    fn tuple(&mut self, n: usize) -> Result<(), PickleProblem> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push_object(Object::Tuple(items))
    }

    fn extend_list(&mut self, items: &[Value]) -> Result<(), PickleProblem> {
        let target = self.top()?;
        self.heap.charge(items.len())?;
        match self.heap.object_mut(target) {
            Some(Object::List(list)) => list.extend_from_slice(items),
            _ => return Err(self.wrong_type("the target of APPEND", "a list", target)),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Value]) -> Result<(), PickleProblem> {
        let target = self.top()?;
        self.heap.charge(items.len())?;
        let (pairs, rest) = items.as_chunks::<2>();
        match self.heap.object_mut(target) {
            Some(Object::Dict(entries)) if rest.is_empty() => entries.extend(pairs.iter().map(|&[key, value]| (key, value))),
            Some(Object::Dict(_)) => return Err(PickleProblem::StackUnderflow),
            _ => return Err(self.wrong_type("the target of SETITEM", "a dict", target)),
        }
        Ok(())
    }

    fn put(&mut self, width: usize) -> Result<(), PickleProblem> {
        let index = self.input.uint(width)? as u32;
        self.put_at(index)
    }

    fn put_at(&mut self, index: u32) -> Result<(), PickleProblem> {
        let value = self.top()?;
        self.heap.charge(1)?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn get(&mut self, width: usize) -> Result<(), PickleProblem> {
        let index = self.input.uint(width)? as u32;
        let value = *self.memo.get(&index).ok_or(PickleProblem::MemoMissing(index))?;
        self.push(value)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), PickleProblem> {
        let global = Global::named(module, name)
            .ok_or_else(|| PickleProblem::RefusedGlobal(format!("{}.{}", module.escape_debug(), name.escape_debug())))?;
        self.push_object(Object::Global(global))
    }

    fn stack_global(&mut self) -> Result<(), PickleProblem> {
        let name = self.pop()?;
        let module = self.pop()?;
        for part in [module, name] {
            match self.heap.text(part) {
                Some(text) => self.limit("bytes in a global's name", text.len(), MAX_NAME)?,
                None => return Err(self.wrong_type("a global's name", "str", part)),
            }
        }
        let [module, name] = [module, name].map(|part| self.heap.text(part).unwrap_or_default().to_owned());
        self.global(&module, &name)
    }

    /// REDUCE and NEWOBJ: what the callable would have made of its arguments, for the few callables known.
    fn call(&mut self) -> Result<(), PickleProblem> {
        let args = self.pop()?;
        let callable = self.pop()?;
        let Some(Object::Global(global)) = self.heap.object(callable) else {
            return Err(self.wrong_type("the callable of REDUCE", "a class", callable));
        };
        let global = *global;
        let result = torch::call(global, args, &mut self.heap)?;
        self.push(result)
    }

    /// BUILD: attributes of an `OrderedDict` (its `_metadata`) or of something inert; both are dropped.
    fn build(&mut self) -> Result<(), PickleProblem> {
        self.pop()?;
        let target = self.top()?;
        match self.heap.object(target) {
            Some(Object::Dict(_) | Object::Inert(_)) => Ok(()),
            _ => Err(self.wrong_type("the target of BUILD", "a dict", target)),
        }
    }

    fn wrong_type(&self, what: &'static str, expected: &'static str, got: Value) -> PickleProblem {
        PickleProblem::WrongType { what, expected, got: self.heap.type_name(got) }
    }
}

/// The bytes and how far they are read.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], PickleProblem> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let taken = taken.ok_or(PickleProblem::Truncated { needed: length, left: rest.len() })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleProblem> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    /// A little-endian unsigned integer of 1, 2, 4 or 8 bytes.
    fn uint(&mut self, width: usize) -> Result<u64, PickleProblem> {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(self.take(width as u64)?);
        Ok(u64::from_le_bytes(wide))
    }

    fn u8(&mut self) -> Result<u8, PickleProblem> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Result<u64, PickleProblem> {
        self.array().map(u64::from_le_bytes)
    }

    /// Text up to a newline, which is consumed.
    fn line(&mut self) -> Result<&'a str, PickleProblem> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let window = &rest[..rest.len().min(MAX_NAME + 1)];
        let Some(length) = window.iter().position(|&byte| byte == b'\n') else {
            return Err(if rest.len() > MAX_NAME {
                PickleProblem::Limit { what: "bytes in a global's name", limit: MAX_NAME }
            } else {
                PickleProblem::Truncated { needed: rest.len() as u64 + 1, left: rest.len() }
            });
        };
        self.at += length + 1;
        std::str::from_utf8(&window[..length]).map_err(|_| PickleProblem::NotUtf8)
    }
}

/// Names of the opcodes that exist but are not read.
fn refused_opcode(code: u8) -> Option<&'static str> {
    Some(match code {
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'F' => "FLOAT",
        b'I' => "INT",
        b'L' => "LONG",
        b'P' => "PERSID",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'd' => "DICT",
        b'g' => "GET",
        b'i' => "INST",
        b'l' => "LIST",
        b'o' => "OBJ",
        b'p' => "PUT",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8b => "LONG4",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => return None,
    })
}
