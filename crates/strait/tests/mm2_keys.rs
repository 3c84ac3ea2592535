//! The book's table of MirrorMaker 2's keys against the keys that its own classes define.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use strait_testkit::kafka::run_java;

#[test]
fn the_book_says_what_becomes_of_every_key_of_mirror_maker_2() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let keys = run_java(&here.join("tests/look/Keys.java"), &[]).unwrap();
    let keys: Vec<&str> = keys.lines().collect();
    assert!(keys.len() > 120, "{keys:?}");
    let page = std::fs::read_to_string(here.join("book/configuration.md")).unwrap();
    let section = page.split("## MirrorMaker 2 properties").nth(1).unwrap();
    let quoted: Vec<&str> = section.split('`').skip(1).step_by(2).collect();
    let beginnings = section.split("key that begins with").nth(1).unwrap();
    let beginnings = beginnings.split("\n\n").next().unwrap();
    let beginnings: Vec<&str> = beginnings.split('`').skip(1).step_by(2).collect();
    let secures = |key: &str| {
        key.split('.')
            .any(|part| ["security", "ssl", "sasl"].contains(&part))
    };
    let missing: Vec<&&str> = keys
        .iter()
        .filter(|key| !quoted.contains(key) && !secures(key))
        .filter(|key| !beginnings.iter().any(|begin| key.starts_with(begin)))
        .collect();
    assert!(
        missing.is_empty(),
        "configuration.md does not tell of {missing:?}"
    );
}
