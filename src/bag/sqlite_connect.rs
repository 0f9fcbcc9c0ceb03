//! Opening a sqlite3 file that may be cut, come from anywhere, or have a journal beside it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use tempfile::TempPath;

/// An open connection and what is wrong with the file as a whole.
pub(super) struct Connected {
    pub connection: Connection,
    pub faults: Vec<String>,
    /// What the connection reads instead of a file that ends inside a page; to be kept as long as it.
    pub copy: Option<TempPath>,
}

/// Opens without writing anything beside the file. A recording that was interrupted may have left a write-ahead log; reading that
/// needs a folder that can be written, and where it cannot the file is taken as it is and the reason given.
pub(super) fn connect(path: &Path) -> Result<Connected, String> {
    let sqlite = |fault: rusqlite::Error| format!("sqlite: {fault}");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let pending = ["-wal", "-journal"].into_iter().find(|ending| bytes_of(&beside(path, ending)) > 0);
    let mut faults = Vec::new();
    if let Some(ending) = pending {
        let opened = Connection::open_with_flags(uri(path, "mode=ro"), flags).and_then(secured);
        let answer = opened.and_then(|connection| {
            connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
            Ok(connection)
        });
        match answer {
            Ok(connection) => return Ok(Connected { connection, faults, copy: None }),
            Err(fault) => {
                faults.push(format!("the {ending} file beside it cannot be replayed ({fault}); its messages are missing"))
            }
        }
    }
    let io = |fault: std::io::Error| format!("sqlite: {fault}");
    let size = FileSize::of(path).map_err(io)?;
    if size.got < size.declared {
        faults.push(format!("the file is cut: its header says {} bytes, it has {}", size.declared, size.got));
    }
    // SQLite fills a page that is there in part with zeros, and a message would silently end in zeros.
    let copy = (!size.got.is_multiple_of(size.page)).then(|| copy_of_whole_pages(path, size)).transpose().map_err(io)?;
    let uri = uri(copy.as_deref().unwrap_or(path), "mode=ro&immutable=1");
    let connection = Connection::open_with_flags(uri, flags).and_then(secured).map_err(sqlite)?;
    Ok(Connected { connection, faults, copy })
}

/// Bytes that messages can lie in: the file and the write-ahead log beside it.
pub(super) fn stored_bytes(path: &Path) -> u64 {
    bytes_of(path).saturating_add(bytes_of(&beside(path, "-wal")))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Length of a file, 0 where there is none.
fn bytes_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Bytes of a file by its header and by the file system.
#[derive(Clone, Copy)]
struct FileSize {
    page: u64,
    declared: u64,
    got: u64,
}

impl FileSize {
    /// # Source
    /// "Database File Format", section 1.3, <https://sqlite.org/fileformat2.html>.
    fn of(path: &Path) -> std::io::Result<Self> {
        let mut header = [0; 100];
        let mut file = File::open(path)?;
        file.read_exact(&mut header)?;
        let got = file.metadata()?.len();
        let word = |at: usize| header[at..].first_chunk().copied().map_or(0, u32::from_be_bytes);
        let page = match u64::from(word(16) >> 16) {
            1 => 65_536,
            page if page.is_power_of_two() && page >= 512 => page,
            // SQLite will say that this is no database.
            _ => return Ok(Self { page: 1, declared: 0, got }),
        };
        // The number of pages counts only if the change counter was copied behind it; old writers did not do that.
        let n_pages = if word(24) == word(92) { word(28) } else { 0 };
        Ok(Self { page, declared: page * u64::from(n_pages), got })
    }
}

fn copy_of_whole_pages(path: &Path, size: FileSize) -> std::io::Result<TempPath> {
    let mut target = tempfile::NamedTempFile::new()?;
    let whole_bytes = size.got - size.got % size.page;
    std::io::copy(&mut File::open(path)?.take(whole_bytes), target.as_file_mut())?;
    Ok(target.into_temp_path())
}

/// Refuses views and virtual tables under the names that are read: their queries would run, and need not end.
pub(super) fn require_tables(connection: &Connection) -> Result<(), String> {
    // SQLite's parsed schema, not the columns of sqlite_master, decides what a name stands for.
    let query = "SELECT name, type FROM pragma_table_list
        WHERE schema = 'main' AND lower(name) IN ('topics', 'messages', 'metadata') AND type <> 'table'";
    let stranger = connection.query_row(query, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
    match stranger.optional().map_err(|fault| format!("sqlite, schema: {fault}"))? {
        Some((name, kind)) => Err(format!("sqlite: `{name}` is of type {kind}, expected table")),
        None => Ok(()),
    }
}

/// A file from elsewhere may hold any schema: its functions are restricted to harmless ones, and cells are checked before use;
/// [`require_tables`] does the rest. Without `writable_schema` SQLite refuses a file that is shorter than its header says; the
/// connection is read-only all the same.
fn secured(connection: Connection) -> rusqlite::Result<Connection> {
    connection.pragma_update(None, "writable_schema", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

fn uri(path: &Path, query: &str) -> String {
    let mut uri = "file:".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'~' => uri.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            // Writing to a string cannot fail.
            byte => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri + "?" + query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_keeps_every_byte_of_a_path() {
        assert_eq!(uri(Path::new("/a b/ä?#%.db3"), "mode=ro"), "file:/a%20b/%C3%A4%3F%23%25.db3?mode=ro");
    }
}
