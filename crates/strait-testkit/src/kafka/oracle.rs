//! The independent client: Kafka's own, in one long-lived JVM.

use super::error::HarnessError;
use super::install::{Install, Version};
use super::node::tail;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tempfile::TempDir;

type Waiting = Arc<Mutex<Option<HashMap<u64, mpsc::Sender<Value>>>>>;

/// Kafka's own clients in a JVM of their own: writes workloads, reads topics, compares them. Calls block until the answer
/// is there and may be made from several threads at once; in async tests, from `spawn_blocking`. The JVM ends with the
/// last clone, or with the test process.
///
/// `bootstrap` in its methods is a list of addresses separated by commas. Settings of the connection may follow, each on a
/// line of its own: `"127.0.0.1:9092\nsecurity.protocol=SSL\nssl.truststore.type=PEM"`.
#[derive(Clone, Debug)]
pub struct Oracle {
    process: Arc<Process>,
}

#[derive(Debug)]
struct Process {
    child: Mutex<Child>,
    stdin: Mutex<Option<ChildStdin>>,
    waiting: Waiting,
    next: AtomicU64,
    log: PathBuf,
    _dir: TempDir,
}

impl Oracle {
    /// Starts the JVM.
    pub fn start() -> Result<Self, HarnessError> {
        let install = Install::find(Version::default())?;
        let dir = TempDir::with_prefix("strait-oracle-")
            .map_err(HarnessError::io("make a folder for the oracle"))?;
        let log = dir.path().join("oracle.log");
        let err =
            File::create(&log).map_err(HarnessError::io(format!("create {}", log.display())))?;
        // Records are hashed by the million: it is worth the second compiler.
        let mut command = install.java(0, "1g", true);
        command
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg("Oracle")
            .arg(dir.path());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(err);
        let mut child = command.spawn().map_err(HarnessError::io(
            "start `java`, which `just setup` installs",
        ))?;
        let stdin = Mutex::new(child.stdin.take());
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        if let Some(stdout) = child.stdout.take() {
            let waiting = Arc::clone(&waiting);
            std::thread::Builder::new()
                .name("oracle-answers".to_owned())
                .spawn(move || deliver(stdout, &waiting))
                .map_err(HarnessError::io("start a thread for the oracle's answers"))?;
        }
        let process = Process {
            child: Mutex::new(child),
            stdin,
            waiting,
            next: AtomicU64::new(1),
            log,
            _dir: dir,
        };
        Ok(Self {
            process: Arc::new(process),
        })
    }

    /// The oracle of this test binary, started at the first call.
    pub fn shared() -> Result<Self, HarnessError> {
        static SHARED: Mutex<Option<Oracle>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(oracle) = &*shared {
            return Ok(oracle.clone());
        }
        let oracle = Self::start()?;
        *shared = Some(oracle.clone());
        Ok(oracle)
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn ask<T: DeserializeOwned>(
        &self,
        command: &str,
        mut request: Value,
    ) -> Result<T, HarnessError> {
        let id = self.process.next.fetch_add(1, Ordering::Relaxed);
        request["id"] = id.into();
        request["command"] = command.into();
        let (sender, receiver) = mpsc::channel();
        match self
            .process
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(self.ended()),
        };
        let line = format!("{request}\n");
        let sent = match self
            .process
            .stdin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            Some(stdin) => stdin.write_all(line.as_bytes()).is_ok(),
            None => false,
        };
        if !sent {
            return Err(self.ended());
        }
        let mut answer = receiver.recv().map_err(|_| self.ended())?;
        if let Some(error) = answer.get("error").and_then(Value::as_str) {
            return Err(HarnessError::Refused {
                command: command.to_owned(),
                error: error.to_owned(),
            });
        }
        serde_json::from_value(answer["ok"].take()).map_err(|source| HarnessError::Answer {
            command: command.to_owned(),
            source,
        })
    }

    /// [`ask`](Self::ask) for a command whose answer says nothing.
    pub(crate) fn tell(&self, command: &str, request: Value) -> Result<(), HarnessError> {
        self.ask::<Value>(command, request).map(|_| ())
    }

    fn ended(&self) -> HarnessError {
        HarnessError::OracleEnded {
            log: self.process.log.clone(),
            tail: tail(&self.process.log),
        }
    }
}

/// Hands each answer to its caller; at the end of the process every caller learns of it by its closed channel.
fn deliver(stdout: ChildStdout, waiting: &Waiting) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let Ok(answer) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let Some(id) = answer["id"].as_u64() else {
            continue;
        };
        let sender = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .and_then(|waiting| waiting.remove(&id));
        if let Some(sender) = sender {
            // The caller may have panicked meanwhile.
            let _ = sender.send(answer);
        }
    }
    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // It has nothing to save; there is nobody left to tell of an error.
        let _ = child.kill();
        let _ = child.wait();
    }
}
