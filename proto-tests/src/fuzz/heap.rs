//! An allocator that counts, so that a decoder's appetite can be held against its input.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes this thread has, and the most it had since the last reset. What another thread frees is not seen.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting what each thread takes. To be a program's `#[global_allocator]`; without it, every
/// peak is 0. It does not see what C libraries take: Zstandard's window, of at most 128 MiB.
#[derive(Debug)]
pub struct Counting;

fn count(bytes: isize) {
    // Fails only while a thread ends.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it is.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there while one is copied into the other.
        count(size.cast_signed());
        let new = unsafe { System.realloc(ptr, layout, size) };
        count(-layout.size().cast_signed());
        new
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// The result of `work`, and the most bytes that this thread had meanwhile beyond what it had before.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (
        result,
        PEAK.get().saturating_sub(before).max(0).cast_unsigned(),
    )
}
