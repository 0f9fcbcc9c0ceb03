//! What several tests need.

pub mod allocations;

use std::path::PathBuf;

/// A path under the shared reference data: `$PIVOTAL_SHARED`, or `../shared` beside the repository.
///
/// # Panics
/// When it is not there: a test that needs it must fail loudly, never pass by skipping.
pub fn shared(path: &str) -> PathBuf {
    let root = std::env::var_os("PIVOTAL_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let full = root.join(path);
    assert!(
        full.exists(),
        "reference data {} is missing; set PIVOTAL_SHARED to the folder that holds golden/ and data/",
        full.display()
    );
    full
}
