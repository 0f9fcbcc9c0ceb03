//! The end of a process that still has a thread in libtorch.
#![allow(unsafe_code)] // _exit has no safe wrapper in std; it touches no memory of this program

/// Ends the process at once. `std::process::exit` would run libtorch's destructors, which crash beside a thread at work.
pub fn without_destructors(code: u8) -> ! {
    // SAFETY: _exit takes any status and returns never; stderr is not buffered and stdout holds nothing of the live node.
    unsafe { libc::_exit(i32::from(code)) }
}
