//! The kernel's limit on socket buffers, checked at start: with Linux's usual 208 KiB no DDS implementation receives a
//! 6 MB cloud reliably, and most receive none.

use std::path::Path;

/// What the sockets of a participant ask for, in bytes; the kernel cuts it to its limit without a word.
pub const WANTED_BYTES: usize = 32 * 1024 * 1024;

/// The least limit that holds a 6 MB cloud that came as Ethernet frames while its reader waits for the processor. Frames take
/// 1.6 times their content, and the kernel doubles the limit for its own bookkeeping. Half of it serves loopback.
pub const ENOUGH_BYTES: u64 = 8 * 1024 * 1024;

/// The limit the advice sets: room for several sensors.
const ADVISED_BYTES: u64 = 32 * 1024 * 1024;

/// Where Linux tells its limit; missing on other systems and in some containers.
const RMEM_MAX: &str = "/proc/sys/net/core/rmem_max";

/// Largest receive buffer a socket may have in bytes, where the system tells.
pub fn receive_limit_bytes() -> Option<u64> {
    read_limit(Path::new(RMEM_MAX))
}

fn read_limit(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What to tell the user when `limit_bytes` (of [`receive_limit_bytes`]) is too small for clouds, with the command that raises it.
pub fn receive_limit_warning(limit_bytes: Option<u64>) -> Option<String> {
    let limit_bytes = limit_bytes.filter(|limit| *limit < ENOUGH_BYTES)?;
    Some(format!(
        "net.core.rmem_max is {limit_bytes} bytes, less than the {ENOUGH_BYTES} that large clouds need: some or all \
         will be lost on arrival. Run: sudo sysctl -w net.core.rmem_max={ADVISED_BYTES} net.core.wmem_max={ADVISED_BYTES} \
         (to keep it, write both settings into /etc/sysctl.d/60-dds-buffers.conf)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receive_limit_too_small_is_warned_about_with_the_command() {
        assert_eq!(receive_limit_warning(Some(ENOUGH_BYTES)), None);
        assert_eq!(receive_limit_warning(None), None);
        let text = receive_limit_warning(Some(212_992)).expect("a warning");
        for part in ["212992", "sudo sysctl -w net.core.rmem_max=33554432"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn receive_limit_of_an_unreadable_file_is_unknown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rmem_max");
        assert_eq!(read_limit(&path), None);
        for (text, limit) in [("212992\n", Some(212_992)), ("lots\n", None)] {
            std::fs::write(&path, text).expect("a file");
            assert_eq!(read_limit(&path), limit);
        }
    }
}
