//! One Kafka node: a JVM of its own, its ports, its directory.

use super::error::HarnessError;
use super::install::Install;
use super::ports::Port;
use super::probe;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A node starts in a few seconds; a loaded machine may need many times that.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// A clean stop of one node; without a controller it would retry for minutes.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at a process or port that cannot notify.
const PAUSE: Duration = Duration::from_millis(25);
const TAIL_LINES: usize = 40;

/// The ports of one node, reserved for its whole life.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) plaintext: Port,
    pub(crate) controller: Port,
    pub(crate) ssl: Option<Port>,
    pub(crate) sasl: Option<Port>,
    pub(crate) sasl_ssl: Option<Port>,
}

/// One node, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: i32,
    pub(crate) ports: Ports,
    pub(crate) dir: PathBuf,
    /// Its stdin stays open in here: the node halts when it closes.
    process: Option<Child>,
}

/// What a JVM of a node is started with, the same at each start.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) install: Install,
    pub(crate) nice: i32,
    pub(crate) heap: String,
    pub(crate) fast: bool,
    pub(crate) cluster_dir: PathBuf,
    pub(crate) format: Vec<String>,
}

impl Node {
    pub(crate) fn new(id: i32, ports: Ports, dir: PathBuf) -> Self {
        Self {
            id,
            ports,
            dir,
            process: None,
        }
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("broker.log")
    }

    pub(crate) fn properties(&self) -> PathBuf {
        self.dir.join("server.properties")
    }

    /// The process id while the node runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Starts the process; [`ready`](Self::ready) waits for the broker in it.
    pub(crate) fn spawn(&mut self, launch: &Launch) -> Result<(), HarnessError> {
        if self.process.is_some() {
            return Err(HarnessError::NodeState {
                node: self.index(),
                state: "running",
            });
        }
        let log = self.log();
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(HarnessError::io(format!("open {}", log.display())))?;
        let err = out
            .try_clone()
            .map_err(HarnessError::io(format!("open {}", log.display())))?;
        let properties = self.properties();
        let mut command = launch.install.java(launch.nice, &launch.heap, launch.fast);
        command
            .arg("Node")
            .arg(&launch.cluster_dir)
            .arg(&self.dir)
            .arg(&properties);
        command
            .arg("format")
            .args(&launch.format)
            .arg("--config")
            .arg(&properties);
        command.stdin(Stdio::piped()).stdout(out).stderr(err);
        self.process = Some(command.spawn().map_err(HarnessError::io(
            "start `java`, which `just setup` installs",
        ))?);
        Ok(())
    }

    /// Waits until the broker answers and knows itself and `live` brokers in all to be alive.
    pub(crate) fn ready(&mut self, live: usize) -> Result<(), HarnessError> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                self.process = None;
                let status = status.to_string();
                return Err(HarnessError::NodeEnded {
                    status,
                    log: self.log(),
                    tail: tail(&self.log()),
                });
            }
            let brokers = probe::live_brokers(self.ports.plaintext.number).unwrap_or_default();
            if brokers.contains(&self.id) && brokers.len() >= live {
                return Ok(());
            }
            if begun.elapsed() > READY_WITHIN {
                return Err(self.slow("ready", READY_WITHIN));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// SIGKILL, and the end of the process.
    pub(crate) fn kill9(&mut self) -> Result<(), HarnessError> {
        let mut child = self.take()?;
        // Waiting would close stdin, and a node that sees that removes its data.
        let stdin = child.stdin.take();
        child
            .kill()
            .and_then(|()| child.wait())
            .map_err(HarnessError::io("kill a Kafka node"))?;
        drop(stdin);
        Ok(())
    }

    /// SIGTERM, and the end of the process.
    pub(crate) fn stop(&mut self) -> Result<(), HarnessError> {
        self.signal(Signal::TERM)?;
        let begun = Instant::now();
        while self.ended()?.is_none() {
            if begun.elapsed() > STOPPED_WITHIN {
                return Err(self.slow("stopped", STOPPED_WITHIN));
            }
            std::thread::sleep(PAUSE);
        }
        self.process = None;
        Ok(())
    }

    /// Sends a signal to this node's process, and to no other.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), HarnessError> {
        let pid = self
            .pid()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        let pid = pid.ok_or(HarnessError::NodeState {
            node: self.index(),
            state: "not running",
        })?;
        kill_process(pid, signal).map_err(|e| HarnessError::io("signal a Kafka node")(e.into()))
    }

    fn take(&mut self) -> Result<Child, HarnessError> {
        let index = self.index();
        self.process.take().ok_or(HarnessError::NodeState {
            node: index,
            state: "not running",
        })
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, HarnessError> {
        match &mut self.process {
            Some(child) => child
                .try_wait()
                .map_err(HarnessError::io("wait for a Kafka node")),
            None => Err(HarnessError::NodeState {
                node: self.index(),
                state: "not running",
            }),
        }
    }

    fn slow(&self, state: &'static str, after: Duration) -> HarnessError {
        HarnessError::NodeSlow {
            state,
            after,
            log: self.log(),
            tail: tail(&self.log()),
        }
    }

    fn index(&self) -> usize {
        usize::try_from(self.id - 1).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.process.is_some() {
            // The owner goes in any case: there is nobody left to tell.
            let _ = self.kill9();
        }
    }
}

/// The last lines of a log file, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
