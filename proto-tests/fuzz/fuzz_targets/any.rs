//! Any of the fuzz targets, under libFuzzer; `STRAIT_FUZZ_TARGET` names it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use proto_tests::fuzz::{Counting, TARGETS, Target};

#[global_allocator]
static HEAP: Counting = Counting;

static CHOSEN: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("STRAIT_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        panic!("STRAIT_FUZZ_TARGET={name:?}: it must be one of {names:?}")
    })
});

fuzz_target!(|data: &[u8]| (CHOSEN.run)(data));
