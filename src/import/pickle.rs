//! A pickle machine that builds plain data and never calls anything.
//!
//! Deals with the opcodes `torch.save` writes in protocols 2 to 5; every other opcode and every global outside
//! [`super::torch`]'s list is refused by name and position. Values live in one heap and refer to each other by index, as
//! Python objects do: sharing costs nothing, cycles are harmless, and no nesting can exhaust the call stack.

mod error;
mod heap;
mod input;

use std::collections::HashMap;

use super::torch::{self, Global};
pub use error::{PickleError, PickleProblem};
pub use heap::{Heap, Object, ObjectId, Value};
use input::{Input, MAX_NAME};

/// Longest pickle read; that of a 21 MB pillar checkpoint has 26 kB.
const MAX_BYTES: usize = 64 << 20;
/// Values on the stack; Python's pickler flushes containers after 1000.
const MAX_STACK: usize = 1 << 20;

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
