//! The directory a model lives in: weights.safetensors, spec.yaml, SHA256SUMS, provenance.json.
//!
//! Deals with writing it whole or not at all, and with reading it only when everything agrees: hashes, the spec, and every
//! tensor's name, shape, element type and values. A directory that disagrees yields one error with every disagreement.
//! Counters of the training framework (`num_batches_tracked`, `global_step`) are no weights and have no place in it.

mod error;
pub mod provenance;
mod weights_file;

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::params::{Weights, differences};
use super::spec::ModelSpec;
pub(crate) use error::lines;
pub use error::{DirectoryError, Problem};
use provenance::Provenance;
pub use weights_file::WeightsDtype;

/// Tensors, as safetensors.
pub const WEIGHTS_FILE: &str = "weights.safetensors";
/// What the tensors dictate, as YAML.
pub const SPEC_FILE: &str = "spec.yaml";
/// Where they come from, as JSON.
pub const PROVENANCE_FILE: &str = "provenance.json";
/// Hashes of the other three, for `sha256sum -c`.
pub const SUMS_FILE: &str = "SHA256SUMS";

/// What the names of folders begin with in which a model directory is being written beside its place.
pub(crate) const STAGING: &str = ".model-";

/// Each file with the largest size read, in bytes.
const FILES: [(&str, u64); 3] = [(WEIGHTS_FILE, 4 << 30), (SPEC_FILE, 1 << 20), (PROVENANCE_FILE, 16 << 20)];
const SUMS_LIMIT: u64 = 1 << 16;

/// A model directory that was found to agree with itself.
#[derive(Debug)]
pub struct LoadedModel {
    /// Architecture, grid, classes, thresholds.
    pub spec: ModelSpec,
    /// Every tensor the spec's network needs and no other, f32 on the CPU.
    pub weights: Weights,
    /// Where they come from.
    pub provenance: Provenance,
    /// SHA-256 of weights.safetensors in lower-case hex: the identity of the weights.
    pub sha256: String,
}

/// How [`save`] writes.
#[derive(Debug, Clone, Copy)]
pub struct SaveOptions {
    /// Element type on disk.
    pub dtype: WeightsDtype,
    /// Whether a model directory of that name is replaced.
    pub overwrite: bool,
}

/// Every way in which weights are not those of a spec's network: names, shapes, element types, values.
pub fn weight_problems(spec: &ModelSpec, weights: &Weights) -> Vec<Problem> {
    let mut problems: Vec<Problem> =
        differences(&super::expected_params(spec), weights).into_iter().map(Problem::Tensor).collect();
    problems.extend(weights.iter().filter_map(|(name, tensor)| weights_file::value_problem(name, tensor)));
    problems
}

/// Writes a model directory: beside its place first, then moved there whole.
///
/// # Errors
/// [`DirectoryError`] when the weights are not those of the spec, something is there already, or the file system refuses.
pub fn save(
    dir: &Path,
    spec: &ModelSpec,
    weights: &Weights,
    provenance: &Provenance,
    options: SaveOptions,
) -> Result<(), DirectoryError> {
    let problems = weight_problems(spec, weights);
    if !problems.is_empty() {
        return Err(DirectoryError::Problems { dir: dir.to_owned(), problems });
    }
    let occupied = is_occupied(dir, options.overwrite)?;

    let encode = |file, message: String| DirectoryError::Encode { file, message };
    let weight_bytes = weights_file::encode(weights, options.dtype).map_err(|message| encode(WEIGHTS_FILE, message))?;
    let spec_text = spec.to_yaml().map_err(|error| encode(SPEC_FILE, error.to_string()))?;
    let provenance_text = provenance.to_json().map_err(|message| encode(PROVENANCE_FILE, message))?;
    let contents =
        [(WEIGHTS_FILE, weight_bytes), (SPEC_FILE, spec_text.into_bytes()), (PROVENANCE_FILE, provenance_text.into_bytes())];
    let sums: String = contents.iter().map(|(file, bytes)| format!("{}  {file}\n", sha256_hex(bytes))).collect();

    let refused = |path: &Path, source| DirectoryError::Write { path: path.to_owned(), source };
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(|error| refused(parent, error))?;
    // A staging folder is private; what is moved out of it is made inside, with the usual permissions.
    let staging = tempfile::Builder::new().prefix(STAGING).tempdir_in(parent).map_err(|error| refused(parent, error))?;
    let (fresh, old) = (staging.path().join("new"), staging.path().join("old"));
    fs::create_dir(&fresh).map_err(|error| refused(&fresh, error))?;
    for (file, bytes) in contents.iter().map(|(file, bytes)| (*file, &bytes[..])).chain([(SUMS_FILE, sums.as_bytes())]) {
        let path = fresh.join(file);
        write_synced(&path, bytes).map_err(|error| refused(&path, error))?;
    }
    if occupied {
        fs::rename(dir, &old).map_err(|error| refused(dir, error))?;
    }
    fs::rename(&fresh, dir).map_err(|error| {
        if occupied {
            // Best effort: the error below is what the caller must hear of.
            let _ = fs::rename(&old, dir);
        }
        refused(dir, error)
    })
}

/// Whether a model directory has to make way; nothing and an empty directory do not.
fn is_occupied(dir: &Path, overwrite: bool) -> Result<bool, DirectoryError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(DirectoryError::Write { path: dir.to_owned(), source }),
        Ok(entries) => entries.count(),
    };
    if entries == 0 {
        Ok(false)
    } else if !overwrite {
        Err(DirectoryError::Exists { dir: dir.to_owned() })
    } else if dir.join(SUMS_FILE).is_file() {
        Ok(true)
    } else {
        Err(DirectoryError::NotAModel { dir: dir.to_owned() })
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Reads a model directory.
///
/// # Errors
/// [`DirectoryError::Problems`] with everything that is wrong with it.
pub fn load(dir: &Path) -> Result<LoadedModel, DirectoryError> {
    let mut problems = Vec::new();
    let mut keep = |result: Result<Vec<u8>, Problem>| result.map_err(|problem| problems.push(problem)).ok();
    let contents = FILES.map(|(file, limit)| (file, keep(read_limited(dir, file, limit))));
    let sums = keep(read_limited(dir, SUMS_FILE, SUMS_LIMIT));
    if let Some(sums) = sums {
        check_sums(&String::from_utf8_lossy(&sums), &contents, &mut problems);
    }
    let [(_, weights_bytes), (_, spec_bytes), (_, provenance_bytes)] = &contents;

    let spec = spec_bytes.as_ref().and_then(|bytes| {
        let origin = dir.join(SPEC_FILE).display().to_string();
        let parsed = std::str::from_utf8(bytes)
            .map_err(|error| Problem::Syntax { file: SPEC_FILE, message: error.to_string() })
            .and_then(|text| Ok(ModelSpec::from_yaml(text, &origin)?));
        parsed.map_err(|problem| problems.push(problem)).ok()
    });
    let provenance = provenance_bytes.as_ref().and_then(|bytes| {
        let parsed = Provenance::from_json(bytes);
        parsed.map_err(|message| problems.push(Problem::Syntax { file: PROVENANCE_FILE, message })).ok()
    });
    let weights = weights_bytes.as_ref().and_then(|bytes| {
        let decoded = weights_file::decode(bytes);
        decoded.map_err(|message| problems.push(Problem::Syntax { file: WEIGHTS_FILE, message })).ok()
    });
    if let (Some(spec), Some(weights)) = (&spec, &weights) {
        problems.extend(weight_problems(spec, weights));
    }
    match (spec, weights, provenance, weights_bytes) {
        (Some(spec), Some(weights), Some(provenance), Some(bytes)) if problems.is_empty() => {
            Ok(LoadedModel { spec, weights, provenance, sha256: sha256_hex(bytes) })
        }
        _ => Err(DirectoryError::Problems { dir: dir.to_owned(), problems }),
    }
}

fn read_limited(dir: &Path, file: &'static str, limit: u64) -> Result<Vec<u8>, Problem> {
    let read = || {
        let handle = fs::File::open(dir.join(file))?;
        let bytes = handle.metadata()?.len();
        let mut content = Vec::new();
        if bytes <= limit {
            handle.take(limit).read_to_end(&mut content)?;
        }
        Ok((bytes, content))
    };
    match read() {
        Ok((bytes, _)) if bytes > limit => Err(Problem::TooLarge { file, bytes, limit }),
        Ok((_, content)) => Ok(content),
        Err(source) => Err(Problem::Unreadable { file, source }),
    }
}

fn check_sums(text: &str, contents: &[(&'static str, Option<Vec<u8>>)], problems: &mut Vec<Problem>) {
    let mut listed: Vec<(&str, &str)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        // `sha256sum` separates by two blanks, or by a blank and a star for binary mode.
        let parsed = line.split_once(' ').and_then(|(hash, name)| Some((hash, name.strip_prefix([' ', '*'])?)));
        match parsed {
            Some((hash, name)) if hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                listed.push((hash, name));
            }
            _ => problems.push(Problem::SumsSyntax { line: index + 1, text: line.chars().take(100).collect() }),
        }
    }
    for (file, bytes) in contents {
        let hashes: Vec<&str> = listed.iter().filter(|(_, name)| name == file).map(|(hash, _)| *hash).collect();
        match (&hashes[..], bytes) {
            ([listed], Some(bytes)) => {
                let computed = sha256_hex(bytes);
                if !listed.eq_ignore_ascii_case(&computed) {
                    problems.push(Problem::Hash { file, computed, listed: (*listed).to_owned() });
                }
            }
            ([_], None) => {}
            (hashes, _) => problems.push(Problem::SumsCount { file: (*file).to_owned(), found: hashes.len() }),
        }
    }
    let strangers = listed.iter().filter(|(_, name)| !contents.iter().any(|(file, _)| file == name));
    problems.extend(strangers.map(|(_, name)| Problem::SumsStranger { file: (*name).to_owned() }));
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
