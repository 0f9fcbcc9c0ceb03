//! Counts the allocations of a thread, so that a test can hold code to making none per point.
#![allow(unsafe_code)] // a global allocator cannot be written without; every call goes to the system's one as it came

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator with a count.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    // Constant and without a destructor: reading it never allocates.
    static N_ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    N_ALLOCATIONS.with(|n| n.set(n.get() + 1));
}

// SAFETY: the four functions hand their arguments to `System` unchanged and return what it returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(old, layout, new_size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        unsafe { System.dealloc(old, layout) }
    }
}

/// How often `work` allocated, or enlarged what was allocated, on this thread.
pub fn allocations_of<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = N_ALLOCATIONS.with(Cell::get);
    let result = work();
    (N_ALLOCATIONS.with(Cell::get) - before, result)
}
