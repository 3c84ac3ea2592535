//! A `strait` process that ends by itself, and what it said.
#![allow(dead_code, clippy::disallowed_methods)]

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How a process ended.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    /// Its log.
    pub(crate) log: String,
    pub(crate) took: Duration,
}

impl Outcome {
    /// The log's lines of this level.
    pub(crate) fn lines(&self, level: &str) -> Vec<&str> {
        lines(&self.log, level)
    }
}

/// The lines of this level in a log.
pub(crate) fn lines<'l>(log: &'l str, level: &str) -> Vec<&'l str> {
    let of_level = |line: &&str| line.split_whitespace().nth(1) == Some(level);
    log.lines().filter(of_level).collect()
}

/// How many lines of a log have this text.
pub(crate) fn count(log: &str, text: &str) -> usize {
    log.lines().filter(|line| line.contains(text)).count()
}

/// `strait run FILE --state-dir STATE ARGUMENTS`, to its end.
pub(crate) fn run(file: &Path, state: &Path, arguments: &[&str]) -> Outcome {
    let begun = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_strait"))
        .args([
            OsStr::new("run"),
            file.as_os_str(),
            OsStr::new("--state-dir"),
            state.as_os_str(),
        ])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        log: String::from_utf8(output.stderr).unwrap(),
        took: begun.elapsed(),
    }
}

/// The same for the text of a file of this name, without pages.
pub(crate) fn run_text(name: &str, text: &str) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    std::fs::write(&file, text).unwrap();
    run(&file, folder.path(), &["--admin-listen", "off"])
}
