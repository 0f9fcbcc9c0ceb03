//! The folder a replay fills: never over somebody's files.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::ReplayError;

/// Paths of everything a replay writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutDir {
    /// The folder itself.
    pub root: PathBuf,
}

/// Files a replay leaves in its folder.
const FILES: [&str; 5] = [LINES, "latency.json", "index.html", "foxglove.mcap", "foxglove-layout.json"];
/// Marks the folder as a replay's.
const LINES: &str = "detections.jsonl";
const DETECTIONS: &str = "detections";
const FRAMES: &str = "frames";

impl OutDir {
    /// Makes the folder, or empties it of an earlier replay when `overwrite` is set. Other files in it are left alone.
    ///
    /// # Errors
    /// [`ReplayError::OutNotEmpty`] when something is there and `overwrite` is not set, or it holds no earlier replay;
    /// [`ReplayError::Write`].
    pub fn prepare(&self, overwrite: bool) -> Result<(), ReplayError> {
        let root = &self.root;
        fs::create_dir_all(root).map_err(|source| write_error(root, source))?;
        let is_empty = fs::read_dir(root).map_err(|source| write_error(root, source))?.next().is_none();
        if !is_empty {
            let holds_replay = self.lines().is_file();
            if !(overwrite && holds_replay) {
                return Err(ReplayError::OutNotEmpty { path: root.to_owned(), holds_replay });
            }
            self.clear()?;
        }
        let frames = self.frames();
        fs::create_dir_all(&frames).map_err(|source| write_error(&frames, source))?;
        Ok(())
    }

    /// The detections as a rosbag2 folder.
    pub fn detections(&self) -> PathBuf {
        self.path(DETECTIONS)
    }

    /// The detections, one line a cloud.
    pub fn lines(&self) -> PathBuf {
        self.path(LINES)
    }

    /// The pictures.
    pub fn frames(&self) -> PathBuf {
        self.path(FRAMES)
    }

    /// A file directly in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn clear(&self) -> Result<(), ReplayError> {
        for name in FILES {
            remove(&self.path(name), |path| fs::remove_file(path))?;
        }
        for name in [DETECTIONS, FRAMES] {
            remove(&self.path(name), |path| fs::remove_dir_all(path))?;
        }
        Ok(())
    }
}

fn remove(path: &Path, how: impl Fn(&Path) -> std::io::Result<()>) -> Result<(), ReplayError> {
    match how(path) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|source| write_error(path, source)),
    }
}

/// Writes a whole file.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ReplayError> {
    fs::write(path, bytes).map_err(|source| write_error(path, source))
}

pub(super) fn write_error(path: &Path, source: std::io::Error) -> ReplayError {
    ReplayError::Write { path: path.to_owned(), source }
}

/// A file of one JSON value per line.
pub(super) struct JsonLines {
    path: PathBuf,
    file: BufWriter<fs::File>,
}

impl JsonLines {
    pub(super) fn create(path: PathBuf) -> Result<Self, ReplayError> {
        let file = fs::File::create(&path).map_err(|source| write_error(&path, source))?;
        Ok(Self { path, file: BufWriter::new(file) })
    }

    pub(super) fn push(&mut self, line: &impl Serialize) -> Result<(), ReplayError> {
        let written = serde_json::to_writer(&mut self.file, line).map_err(std::io::Error::from);
        written.and_then(|()| self.file.write_all(b"\n")).map_err(|source| write_error(&self.path, source))
    }

    pub(super) fn finish(mut self) -> Result<(), ReplayError> {
        self.file.flush().map_err(|source| write_error(&self.path, source))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn full_disk_is_an_error_that_names_the_file() {
        let mut lines = JsonLines::create(PathBuf::from("/dev/full")).unwrap();
        lines.push(&[1, 2, 3]).unwrap();
        let expected = "writing /dev/full: No space left on device";
        let at_the_end = lines.finish().unwrap_err().to_string();
        let at_once = write_file(Path::new("/dev/full"), b"picture").unwrap_err().to_string();
        for message in [at_the_end, at_once] {
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
