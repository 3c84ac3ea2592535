//! A `strait` process that ends by itself, and what it said.
#![allow(dead_code, clippy::disallowed_methods)]

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the process.
const PAUSE: Duration = Duration::from_millis(20);

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

/// `strait run FILE --state-dir STATE ARGUMENTS`, to its end, which must come by itself within a minute.
pub(crate) fn run(file: &Path, state: &Path, arguments: &[&str]) -> Outcome {
    let begun = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_strait"))
        .args([
            OsStr::new("run"),
            file.as_os_str(),
            OsStr::new("--state-dir"),
            state.as_os_str(),
        ])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let text = |file: &Path| std::fs::read_to_string(file).unwrap();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it still ran after {PATIENCE:?}:\n{}", text(&err));
        }
        std::thread::sleep(PAUSE);
    };
    Outcome {
        code: status.code(),
        stdout: text(&out),
        log: text(&err),
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
