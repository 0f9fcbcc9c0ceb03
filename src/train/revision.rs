//! Which code is running, as far as the folder it was built in can tell.

use std::path::Path;
use std::process::Command;

/// The commit of the source folder this program was built from, with `-dirty` where files differ from it; `unknown` where that folder
/// or git is not there, for instance on another machine.
pub fn code_revision() -> String {
    revision_of(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_or_else(|| "unknown".to_owned())
}

fn revision_of(folder: &Path) -> Option<String> {
    let commit = git(folder, &["rev-parse", "HEAD"])?;
    let changes = git(folder, &["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// The output of a git command that succeeds.
fn git(folder: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn revision_outside_of_a_repository_is_unknown_and_inside_is_a_commit() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(revision_of(folder.path()), None);
        let run = |args: &[&str]| {
            let status = Command::new("git").arg("-C").arg(folder.path()).args(args).output().unwrap().status;
            assert!(status.success(), "git {args:?}");
        };
        std::fs::write(folder.path().join("a"), "1").unwrap();
        run(&["init", "-q"]);
        run(&["add", "a"]);
        run(&["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "a"]);
        let clean = revision_of(folder.path()).unwrap();
        assert!(clean.len() == 40 && clean.bytes().all(|b| b.is_ascii_hexdigit()), "{clean}");
        std::fs::write(folder.path().join("a"), "2").unwrap();
        assert_eq!(revision_of(folder.path()).unwrap(), format!("{clean}-dirty"));
    }
}
