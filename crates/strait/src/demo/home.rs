//! The demo's folder, and the mirror that lives in it: a process of its own, run as a user would run it.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use strait_net::Runtime;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::DemoError;

/// Lines of the mirror's log that are shown when something failed.
const TAIL: usize = 12;

/// A temporary folder with the mirror's configuration, log and state. It is removed when dropped.
pub(crate) struct Home {
    folder: TempDir,
    admin: Option<SocketAddr>,
}

impl Home {
    /// Makes the folder and writes the configuration.
    pub(crate) fn make(
        source: SocketAddr,
        target: SocketAddr,
        admin: Option<SocketAddr>,
    ) -> Result<Self, DemoError> {
        let folder = tempfile::Builder::new()
            .prefix("strait-demo-")
            .tempdir()
            .map_err(DemoError::io("making a temporary folder"))?;
        let home = Self { folder, admin };
        let text = configuration(source, target);
        std::fs::write(home.config(), text).map_err(DemoError::io("writing the configuration"))?;
        Ok(home)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("mirror.toml")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("mirror.log")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.folder.path().join("mirror.pid")
    }

    /// Where the mirror serves metrics, if it does.
    pub(crate) fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Starts the mirror.
    pub(crate) fn start(&self) -> Result<Mirror, DemoError> {
        let binary = std::env::current_exe().map_err(DemoError::io("finding this binary"))?;
        let log = append(&self.log())?;
        let errors = log.try_clone().map_err(DemoError::io("opening the log"))?;
        let admin = self.admin.map_or("off".to_owned(), |a| a.to_string());
        let child = Command::new(binary)
            .arg("run")
            .arg(self.config())
            .args(["--admin-listen", &admin])
            .arg("--state-dir")
            .arg(self.folder.path().join("state"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C at the terminal is the demo's to handle.
            .process_group(0)
            .spawn()
            .map_err(DemoError::io("starting the mirror"))?;
        let pid = child.id().unwrap_or(0);
        let mirror = Mirror { child, pid };
        std::fs::write(self.pid_file(), format!("{pid}\n"))
            .map_err(DemoError::io("writing the process id"))?;
        Ok(mirror)
    }

    /// The last lines of the mirror's log.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(TAIL);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    /// Leaves the folder where it is, for whoever has to find out why something failed.
    pub(crate) fn keep(self) -> PathBuf {
        self.folder.keep()
    }
}

/// The five lines that a mirror needs.
pub(crate) fn configuration(source: impl Display, target: impl Display) -> String {
    format!(
        "[clusters]\nparis = \"{source}\"\ntokyo = \"{target}\"\n\n[[links]]\nsource = \"paris\"\ntarget = \"tokyo\"\ntopics = [\".*\"]\n"
    )
}

fn append(path: &Path) -> Result<File, DemoError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(DemoError::io("opening the log"))
}

/// A running mirror process. Dropped, it is killed, and gone when the drop returns: then nothing writes to its folder.
pub(crate) struct Mirror {
    child: Child,
    pid: u32,
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // Not one that was waited for: its id may be another process's by now.
        if self.child.start_kill().is_err() {
            return;
        }
        if let Some(pid) = Pid::from_raw(self.pid.cast_signed()) {
            let gone = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let _ = waitid(WaitId::Pid(pid), gone);
        }
        let _ = self.child.try_wait();
    }
}

impl Mirror {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, DemoError> {
        self.child
            .try_wait()
            .map_err(DemoError::io("watching the mirror"))
    }

    /// SIGKILL; returns when the process is gone.
    pub(crate) async fn kill(mut self) -> Result<(), DemoError> {
        self.child
            .kill()
            .await
            .map_err(DemoError::io("killing the mirror"))
    }

    /// SIGTERM: the mirror finishes what it is at. None if it has not ended within `patience`, and was killed.
    pub(crate) async fn stop(
        mut self,
        rt: &Runtime,
        patience: Duration,
    ) -> Result<Option<ExitStatus>, DemoError> {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        tokio::select! {
            biased;
            ended = self.child.wait() => ended.map(Some).map_err(DemoError::io("stopping the mirror")),
            () = rt.sleep(patience) => self.kill().await.map(|()| None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Home;

    #[test]
    fn the_configuration_is_one_that_strait_accepts() {
        let [source, target] = ["127.0.0.1:9092", "127.0.0.1:9093"].map(|a| a.parse().unwrap());
        let home = Home::make(source, target, None).unwrap();
        let config = strait_config::load(&home.config()).unwrap();
        assert_eq!(config.links.len(), 1);
        assert_eq!(config.links[0].name, "paris->tokyo");
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
}
