//! Why a model directory was not written or not read.

use std::io;
use std::path::PathBuf;

use tch::Kind;

use super::SUMS_FILE;
use crate::model::spec::SpecError;

/// Why a model directory was not written or not read.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The directory, or a model about to be saved, disagrees with itself.
    #[error("{} is not a usable model, {} problem{}:{}", .dir.display(), .problems.len(), if .problems.len() == 1 { "" } else { "s" }, lines(.problems))]
    Problems {
        /// The directory.
        dir: PathBuf,
        /// Every disagreement.
        problems: Vec<Problem>,
    },
    /// Something is there already and was not to be replaced.
    #[error("{} exists already; ask for it to be overwritten or name another place", .dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// Something that is no model directory is there, and would have been replaced.
    #[error("{} holds no {SUMS_FILE}, so it is no model directory and is not overwritten", .dir.display())]
    NotAModel {
        /// The directory.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// File or directory.
        path: PathBuf,
        /// The system's words.
        r#source: io::Error,
    },
    /// A part cannot be written in its format.
    #[error("{file} cannot be written: {message}")]
    Encode {
        /// Which file.
        file: &'static str,
        /// The serialiser's words.
        message: String,
    },
}

/// One disagreement in a model directory.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file that is missing or cannot be read.
    #[error("{file}: {source}")]
    Unreadable {
        /// Its name.
        file: &'static str,
        /// The system's words.
        r#source: io::Error,
    },
    /// A file larger than any model's.
    #[error("{file} has {bytes} bytes, at most {limit} are read")]
    TooLarge {
        /// Its name.
        file: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A line that `sha256sum` would not write.
    #[error("{SUMS_FILE} line {line}: `{text}` is not a hash and a file name")]
    SumsSyntax {
        /// Line number from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// A file of the directory without a hash, or the reverse.
    #[error("{SUMS_FILE} has {found} entries for {file}, 1 needed")]
    SumsCount {
        /// Its name.
        file: String,
        /// Entries for it.
        found: usize,
    },
    /// A name in the list of hashes that is no part of a model directory.
    #[error("{SUMS_FILE} lists `{file}`, which is no part of a model directory")]
    SumsStranger {
        /// The name.
        file: String,
    },
    /// A file that changed after its hash was taken.
    #[error("{file} has SHA-256 {computed}, {SUMS_FILE} says {listed}")]
    Hash {
        /// Its name.
        file: &'static str,
        /// Hash of the file.
        computed: String,
        /// Hash in the list.
        listed: String,
    },
    /// A refused spec.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A file that cannot be parsed.
    #[error("{file}: {message}")]
    Syntax {
        /// Its name.
        file: &'static str,
        /// The parser's words.
        message: String,
    },
    /// A tensor that is missing, unexpected or of the wrong shape.
    #[error("{0}")]
    Tensor(String),
    /// A tensor of an element type that is not for weights.
    #[error("`{name}` is {found:?}, f32 or f16 needed")]
    Dtype {
        /// Its name.
        name: String,
        /// Its element type.
        found: Kind,
    },
    /// A tensor with infinities or NaN.
    #[error("{count} of {numel} values of `{name}` are not finite, the first at flat index {first}")]
    NotFinite {
        /// Its name.
        name: String,
        /// How many.
        count: i64,
        /// Of how many.
        numel: usize,
        /// Where the first one is.
        first: i64,
    },
}

/// Each problem on a line of its own.
pub(crate) fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}
