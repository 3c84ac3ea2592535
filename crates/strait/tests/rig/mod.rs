//! A `strait run` as a child process: its file, its state, its log, its end.
//!
//! Shared by test binaries that each use a part of it.
#![allow(dead_code, clippy::disallowed_methods, clippy::print_stderr)]

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Between two looks at something that cannot notify.
const PAUSE: Duration = Duration::from_millis(20);
const TAIL_LINES: usize = 60;
/// A stop drains for at most 10 s; the rest is for a slow machine.
pub(crate) const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// A mirror that can be started, killed and started again on the same configuration and state folder.
/// It is killed when dropped; a test that fails shows the end of its log.
pub(crate) struct Mirror {
    dir: TempDir,
    config: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Mirror {
    /// A mirror of this TOML text, not started. The admin server is off.
    pub(crate) fn new(toml: &str) -> Self {
        Self::with_file("mirror.toml", toml)
    }

    /// A mirror of a file of this name, for example `mm2.properties`.
    pub(crate) fn with_file(name: &str, text: &str) -> Self {
        let dir = TempDir::with_prefix("strait-e2e-").unwrap();
        let config = dir.path().join(name);
        std::fs::write(&config, text).unwrap();
        Self {
            dir,
            config,
            arguments: vec!["--admin-listen".to_owned(), "off".to_owned()],
            child: None,
        }
    }

    /// Replaces the arguments after the file's name; `--state-dir` is always given.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        self
    }

    /// Starts the process.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "the mirror runs already");
        let log = self.open_log();
        let child = Command::new(env!("CARGO_BIN_EXE_strait"))
            .arg("run")
            .arg(&self.config)
            .args(&self.arguments)
            .arg("--state-dir")
            .arg(self.dir.path().join("state"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Starts the process and returns the mirror.
    pub(crate) fn started(mut self) -> Self {
        self.start();
        self
    }

    /// Kills the process with SIGKILL; returns when it is gone, with how it ended.
    pub(crate) fn kill9(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the mirror does not run");
        child.kill().unwrap();
        child.wait().unwrap()
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the mirror does not run");
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end of the process, which must come within this time.
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let mut child = self.child.take().expect("the mirror does not run");
        let mut ended = None;
        let in_time = holds_within(within, || {
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
        if !in_time {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the mirror still ran after {within:?}:\n{}", self.tail());
        }
        ended.unwrap()
    }

    /// Stops the process with SIGTERM, which must end soon and with exit code 0.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait(STOPS_WITHIN);
        assert_eq!(status.code(), Some(0), "{}", self.tail());
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the mirror does not run").id()
    }

    /// Whether the process still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Everything it wrote, over all of its lives.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of its log.
    pub(crate) fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Waits until its log has this text.
    pub(crate) fn wait_for_log(&self, text: &str, within: Duration) {
        let said = holds_within(within, || self.log().contains(text));
        assert!(said, "no {text:?} within {within:?} in\n{}", self.tail());
    }

    /// Waits until its log has this text behind its first `before` bytes.
    pub(crate) fn wait_for_news(&self, before: usize, text: &str, within: Duration) {
        let said = holds_within(within, || self.log()[before..].contains(text));
        assert!(
            said,
            "no new {text:?} within {within:?} in\n{}",
            self.tail()
        );
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.dir.path().join("strait.log")
    }

    /// The folder of its configuration file, its log and its state.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    fn open_log(&self) -> File {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .unwrap()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let kept =
                Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.dir.path().file_name().unwrap());
            let _ = std::fs::copy(self.log_file(), &kept);
            eprintln!("the end of {}:\n{}", kept.display(), self.tail());
        }
        if std::env::var_os("STRAIT_KAFKA_KEEP").is_some() {
            self.dir.disable_cleanup(true);
            eprintln!("kept {}", self.dir.path().display());
        }
    }
}

/// A link from `west` to `east` for these topic patterns, topics looked at every second, with more lines of its
/// `[[links]]` table after it.
pub(crate) fn west_to_east(west: &str, east: &str, topics: &[&str], more: &str) -> String {
    format!(
        "[clusters]\nwest = {west:?}\neast = {east:?}\n\
         [[links]]\nsource = \"west\"\ntarget = \"east\"\ntopics = {topics:?}\nrefresh-topics = \"1s\"\n{more}\n"
    )
}

/// A port of 127.0.0.1 on which nothing listens.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Waits until the condition holds; the test fails if that takes longer.
pub(crate) fn wait_until(what: &str, within: Duration, condition: impl FnMut() -> bool) {
    assert!(
        holds_within(within, condition),
        "not within {within:?}: {what}"
    );
}

/// Whether the condition came to hold in time.
pub(crate) fn holds_within(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !condition() {
        if begun.elapsed() >= within {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    true
}

/// Lets this time pass: for instants that are the test itself.
pub(crate) fn pass(time: Duration) {
    std::thread::sleep(time);
}
