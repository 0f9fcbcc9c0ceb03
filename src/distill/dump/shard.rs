//! One file of a dump: names, element types, and bytes in and out.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use tch::{Device, Kind, Tensor};

use super::{DumpError, DumpHeader, FORMAT, HEADER_FILE};
use crate::data::SampleId;

/// Largest header read, in bytes.
const HEADER_LIMIT: u64 = 1 << 20;

/// Values of a stored box: seven of the box, score, class.
pub const BOX_VALUES: usize = 9;

/// A tensor of a frame on its way to disk.
#[derive(Debug)]
pub struct Blob {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Blob {
    /// A CPU copy of a tensor in an element type that holds its values.
    pub fn of_tensor(name: String, tensor: &Tensor, kind: Kind) -> Result<Self, DumpError> {
        let converted = tensor.f_to_device(Device::Cpu)?.f_to_kind(kind)?.f_contiguous()?;
        let mut bytes = vec![0; converted.numel() * kind.elt_size_in_bytes()];
        converted.f_copy_data_u8(&mut bytes, converted.numel())?;
        let dtype = if kind == Kind::Half { Dtype::F16 } else { Dtype::F32 };
        Ok(Self { name, dtype, shape: converted.size().iter().map(|&n| n as usize).collect(), bytes })
    }

    /// Rows of f32.
    pub fn of_rows(name: String, values: &[f32], columns: usize) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name, dtype: Dtype::F32, shape: vec![values.len() / columns.max(1), columns], bytes }
    }
}

/// Name of a frame's tensor.
pub fn tensor_name(epoch: u64, id: &SampleId, what: &str) -> String {
    format!("{epoch}/{}/{}/{what}", id.drive, id.frame)
}

/// Epoch, frame and `WHAT` of a name.
pub fn parse_name(name: &str) -> Option<(u64, SampleId, &str)> {
    let (epoch, rest) = name.split_once('/')?;
    let (rest, what) = rest.rsplit_once('/')?;
    let (drive, frame) = rest.rsplit_once('/')?;
    Some((epoch.parse().ok()?, SampleId { drive: drive.to_owned(), frame: frame.parse().ok()? }, what))
}

/// All shards of a folder, by name.
pub fn shard_paths(dir: &Path) -> Result<Vec<PathBuf>, DumpError> {
    let refused = |source| DumpError::Io { path: dir.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|extension| extension == "safetensors") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Writes a shard whole or not at all.
pub fn write_shard(path: &Path, blobs: &[Blob]) -> Result<(), DumpError> {
    let format_error = |reason: String| DumpError::Format { path: path.to_owned(), reason };
    let views = blobs.iter().map(|blob| Ok((&blob.name, TensorView::new(blob.dtype, blob.shape.clone(), &blob.bytes)?)));
    let views =
        views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>().map_err(|error| format_error(error.to_string()))?;
    let bytes = safetensors::serialize(views, None).map_err(|error| format_error(error.to_string()))?;
    write_whole(path, &bytes)
}

/// Writes a file beside its place and moves it there; what is there already stays and is an error.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DumpError> {
    let refused = |source| DumpError::Io { path: path.to_owned(), source };
    let dir = path.parent().unwrap_or(Path::new("."));
    // Temporary files are private unless told otherwise; the process's mask still applies.
    let permissions = Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().prefix(".part-").permissions(permissions).tempfile_in(dir).map_err(refused)?;
    file.write_all(bytes).map_err(refused)?;
    file.as_file().sync_all().map_err(refused)?;
    file.persist_noclobber(path).map_err(|error| refused(error.error))?;
    Ok(())
}

/// Reads `dump.json`.
pub fn read_header(dir: &Path) -> Result<DumpHeader, DumpError> {
    let path = dir.join(HEADER_FILE);
    let refused = |source| DumpError::Io { path: path.clone(), source };
    let format_error = |reason: String| DumpError::Format { path: path.clone(), reason };
    let n_bytes = fs::metadata(&path).map_err(refused)?.len();
    if n_bytes > HEADER_LIMIT {
        return Err(format_error(format!("{n_bytes} bytes, a header has at most {HEADER_LIMIT}")));
    }
    let header: DumpHeader =
        serde_json::from_slice(&fs::read(&path).map_err(refused)?).map_err(|error| format_error(error.to_string()))?;
    if header.format != FORMAT {
        return Err(format_error(format!("format {}, this build reads {FORMAT}", header.format)));
    }
    let whole = header.range.iter().chain(&header.voxel_size).all(|value| value.is_finite());
    let cells =
        whole && header.voxel_size.iter().all(|size| *size > 0.0) && (0..3).all(|i| header.range[i] < header.range[i + 3]);
    if !cells || header.stride == 0 || header.map_size().iter().any(|n| !(1..=1 << 16).contains(n)) {
        let DumpHeader { range, voxel_size, stride, .. } = &header;
        return Err(format_error(format!("range {range:?}, voxel_size {voxel_size:?} and stride {stride} give no map")));
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_whatever_the_drive_is_called() {
        for drive in ["a", "segment-10017090168044687777_6380_000_6400_000", "bags/monday/7", "", "1/2/heat_map", "ä b"] {
            let id = SampleId { drive: drive.to_owned(), frame: u64::MAX };
            let name = tensor_name(12, &id, "heat_map");
            assert_eq!(parse_name(&name), Some((12, id, "heat_map")), "{name}");
        }
        for wrong in ["", "1", "1/2", "1/2/boxes", "x/d/0/boxes", "1/d/x/boxes", "-1/d/0/boxes"] {
            assert_eq!(parse_name(wrong), None, "{wrong}");
        }
    }
}
