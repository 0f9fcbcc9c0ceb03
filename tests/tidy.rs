//! Invariants of the source tree that a compiler does not see (ARCHITECTURE.md).

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file of the library, in lines.
const MAX_LINES: usize = 600;

/// Crates that only some folders may name.
const CONFINED: [(&str, &[&str]); 8] = [
    // Its name is also that of the module: crate paths elsewhere would be `r2r::Node`, `r2r::std_msgs`, ….
    ("r2r", &["transport/r2r", "transport/service", "transport.rs"]),
    ("rustdds", &["transport/dds", "transport/settings", "node/logging"]),
    ("ros2_client", &["transport/dds", "transport/names"]),
    ("rusqlite", &["bag/"]),
    ("parry3d", &["synth/"]),
    ("anyhow", &["bin/"]),
    ("clap", &["bin/", "replay/args"]),
    (
        "tch",
        &[
            "data/batch",
            "device",
            "distill",
            "import",
            "model",
            "node",
            "parity",
            "pipeline",
            "postprocess",
            "sparse",
            "train",
            "voxel",
        ],
    ),
];

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(files.len() > 50, "only {} files were found", files.len());
    files
}

#[test]
fn every_file_says_what_it_deals_with_and_can_be_read_in_a_sitting() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "src/{name} does not begin with //!");
        let n_lines = text.lines().count();
        assert!(n_lines <= MAX_LINES, "src/{name} has {n_lines} lines, at most {MAX_LINES}");
    }
}

/// Whether a path in the line begins with the crate; `batch::` does not name `tch`.
fn names_crate(line: &str, name: &str) -> bool {
    let begins = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    line.match_indices(&format!("{name}::")).any(|(at, _)| begins(at))
}

#[test]
fn crates_stay_where_they_belong() {
    for (name, text) in sources() {
        for (used, allowed) in CONFINED {
            let names_it = text.lines().any(|line| !line.trim_start().starts_with("//") && names_crate(line, used));
            let may = allowed.iter().any(|prefix| name.starts_with(prefix));
            assert!(!names_it || may, "src/{name} uses {used}, which belongs to {allowed:?}");
        }
    }
}

/// Whoever prints the whole chain of causes would otherwise print a cause once in the message and once after it.
#[test]
fn errors_that_show_their_cause_do_not_give_it_as_their_source_too() {
    let mut n_shown = 0;
    for (name, text) in sources() {
        let mut message = String::new();
        for line in text.lines() {
            if line == "}" {
                message.clear();
            }
            let line = line.trim();
            let attribute = line.starts_with("#[error(") || (!message.is_empty() && !message.ends_with(")]"));
            if line.starts_with("#[error(") {
                message.clear();
            }
            if attribute {
                message += line;
                continue;
            }
            let as_source = line.starts_with("source: ") || line.contains("#[from]") || line.contains("#[source]");
            let shown = message.contains("{source}") || message.contains("{0}");
            assert!(
                !(as_source && shown),
                "src/{name}: {message} shows what it also has as its source: `{line}`; see ARCHITECTURE"
            );
            n_shown += usize::from(line.starts_with("r#source: ") && shown);
        }
    }
    assert!(n_shown > 20, "only {n_shown} errors were found");
}

#[test]
fn nothing_is_left_half_done() {
    for (name, text) in sources() {
        for word in ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "TODO", "allow(dead_code)"] {
            assert!(!text.contains(word), "src/{name} contains {word}");
        }
    }
}
