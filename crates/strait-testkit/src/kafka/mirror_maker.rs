//! MirrorMaker 2 itself as a process, in its dedicated mode or as a worker of Kafka Connect that its connectors run on: for
//! what Strait has to go on from.

use super::error::HarnessError;
use super::install::{Install, Version};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long a stop may take: it flushes, commits, and leaves its group.
const STOP: Duration = Duration::from_secs(120);

/// `connect-mirror-maker.sh mm2.properties`, or `connect-distributed.sh`. It is killed when dropped.
#[derive(Debug)]
pub struct MirrorMaker {
    child: Child,
    log: PathBuf,
}

impl MirrorMaker {
    /// Starts it with this file; it writes its log to `log`.
    ///
    /// # Errors
    /// Kafka is not installed, or `java` cannot be started.
    pub fn start(properties: &Path, log: &Path) -> Result<Self, HarnessError> {
        Self::run(
            "org.apache.kafka.connect.mirror.MirrorMaker",
            properties,
            log,
        )
    }

    /// Starts a worker of Kafka Connect with this file, as [`start`](Self::start). Connectors are given to it by its REST
    /// interface.
    ///
    /// # Errors
    /// As there.
    pub fn start_worker(properties: &Path, log: &Path) -> Result<Self, HarnessError> {
        Self::run(
            "org.apache.kafka.connect.cli.ConnectDistributed",
            properties,
            log,
        )
    }

    fn run(class: &str, properties: &Path, log: &Path) -> Result<Self, HarnessError> {
        let install = Install::find(Version::default())?;
        let create = || format!("create {}", log.display());
        let out = File::create(log).map_err(HarnessError::io(create()))?;
        let err = out.try_clone().map_err(HarnessError::io(create()))?;
        let child = install
            .java(0, "512m", false)
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg(class)
            .arg(properties)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(HarnessError::io(
                "start `java`, which `just setup` installs",
            ))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// The end of what it said.
    pub fn tail(&self) -> String {
        super::node::tail(&self.log)
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill9(mut self) -> Result<(), HarnessError> {
        let ended = self.child.try_wait().ok().flatten();
        if ended.is_some() {
            return Err(self.ended("it ended by itself"));
        }
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed
            .map(drop)
            .map_err(HarnessError::io("kill MirrorMaker 2"))
    }

    /// Stops it with SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(mut self) -> Result<(), HarnessError> {
        let pid = i32::try_from(self.child.id()).ok();
        let pid = pid.and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| self.ended("it has no process id"))?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .map_err(|e| HarnessError::io("stop MirrorMaker 2")(e.into()))?;
        let begun = Instant::now();
        while begun.elapsed() < STOP {
            let ended = self.child.try_wait();
            if ended
                .map_err(HarnessError::io("wait for MirrorMaker 2"))?
                .is_some()
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(self.ended("it does not stop"))
    }

    fn ended(&self, why: &str) -> HarnessError {
        HarnessError::Refused {
            command: format!("MirrorMaker 2: {why}"),
            error: self.tail(),
        }
    }
}

impl Drop for MirrorMaker {
    fn drop(&mut self) {
        // There is nobody left to tell of an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
