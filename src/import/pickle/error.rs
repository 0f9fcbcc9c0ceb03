//! Why a pickle was refused, and where.

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
