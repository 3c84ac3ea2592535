//! Fuzz targets: functions that take any bytes and must come back, without a panic, and without having asked for more
//! memory than the bytes justify.
//!
//! The stable runner is the test `fuzz` of this crate.

mod answers;
mod batches;
mod heap;
mod legacy;
mod logins;
mod positions;

pub use heap::{Counting, peak};

/// What one decoder is given.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, also that of its corpus in `testdata/fuzz`.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($module:ident::$name:ident),+ $(,)?) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $module::$name }),+];
    };
}

targets! {
    batches::entries,
    batches::records,
    batches::join,
    legacy::message,
    legacy::message_set,
    answers::fetch,
    answers::produce,
    answers::control,
    answers::metadata,
    logins::scram,
    positions::sync,
    positions::registry,
    positions::mm2,
}

/// What compressed data may inflate to in all targets.
const INFLATE: usize = 128 * 1024;

/// Runs `decode`, and fails if it had more than `allowed` bytes at one time.
fn within<T>(what: &str, allowed: usize, decode: impl FnOnce() -> T) -> T {
    let (result, peak) = heap::peak(decode);
    assert!(
        peak <= allowed,
        "{what} took {peak} bytes, {allowed} are allowed"
    );
    result
}
