//! The book's own example files, on the clusters of a test.
#![allow(dead_code)]

use std::path::Path;

/// The example of this name with other addresses in it, and more lines in each of its links.
pub(crate) fn example(name: &str, addresses: &[(&str, &str)], more: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("book/examples");
    let mut text = std::fs::read_to_string(folder.join(name)).unwrap();
    for (written, real) in addresses {
        let written = format!("{written}-1:9092");
        assert!(text.contains(&written), "{name} has no {written}");
        text = text.replace(&written, real);
    }
    assert!(!text.contains("-1:9092"), "{text}");
    text.replace("[[links]]\n", &format!("[[links]]\n{more}\n"))
}

/// What makes a link look at everything once a second, and leaves out what other tests' links keep alive.
pub(crate) const QUICK: &str = "replicate-heartbeats = false\nrefresh-topics = \"1s\"\nrefresh-groups = \"1s\"\n\
    sync-group-offsets-interval = \"1s\"\nemit-checkpoints-interval = \"1s\"";
