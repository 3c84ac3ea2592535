//! A cluster as MirrorMaker 2's own client and Kafka's admin client see it.
#![allow(dead_code)]

use std::path::Path;

use strait_testkit::kafka::run_java;

/// Lines that `Separated.java` prints.
pub(crate) fn separated(arguments: &[&str]) -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/look/Separated.java");
    let printed = run_java(&source, arguments).unwrap();
    printed.lines().map(str::to_owned).collect()
}

/// Lines that `Look.java` prints.
pub(crate) fn look(arguments: &[&str]) -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/look/Look.java");
    let printed = run_java(&source, arguments).unwrap();
    printed.lines().map(str::to_owned).collect()
}
