//! A file as shared memory.
//!
//! The one use of `unsafe` in this module. Mapping is unsound when another process shortens or rewrites the file meanwhile:
//! a shortened file ends the process with SIGBUS, a rewritten one shows changing bytes. Recordings are written once and then
//! only read, and nothing here relies on two reads of the same byte being equal for memory safety (all accesses are bounds-checked
//! slices of plain bytes), so the gain, messages that borrow the page cache, is taken. Do not replay a bag that is being recorded.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;

/// Maps the file read-only; an empty file gives empty bytes.
///
/// # Errors
/// When it cannot be opened or mapped.
pub(crate) fn map_file(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: see the module header; the mapping is read-only, shares the file's pages, and lives as long as the `Bytes`.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}
