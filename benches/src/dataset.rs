//! The data that is mirrored, written by Kafka's own `ProducerPerformance`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use strait_testkit::kafka::{Codec, Oracle};

use crate::Failure;

/// Bytes of a record of the uncompressed set.
const RECORD_BYTES: usize = 1_000;

/// One topic full of records.
#[derive(Clone, Debug)]
pub(crate) struct Dataset {
    pub(crate) codec: Codec,
    pub(crate) records: u64,
    /// The payload's lines, one for each record; none for [`RECORD_BYTES`] of letters.
    payload: Option<PathBuf>,
    /// Bytes of all values together.
    pub(crate) value_bytes: f64,
    /// The producer's `batch.size`.
    batch_bytes: usize,
}

/// The producer's own default.
pub(crate) const BATCH_BYTES: usize = 16_384;

impl Dataset {
    /// `records` of 1,000 bytes, uncompressed.
    pub(crate) fn letters(records: u64) -> Self {
        Self {
            codec: Codec::None,
            records,
            payload: None,
            value_bytes: records as f64 * RECORD_BYTES as f64,
            batch_bytes: BATCH_BYTES,
        }
    }

    /// `records` JSON events, compressed; the events are made in `dir`.
    pub(crate) fn events(codec: Codec, records: u64, dir: &Path) -> Result<Self, Failure> {
        let payload = dir.join("payload.jsonl");
        if !payload.exists() {
            let made = Command::new("python3")
                .arg(peers()?.join("payload.py"))
                .arg(&payload)
                .status()
                .map_err(|e| format!("python3, which makes the payload: {e}"))?;
            if !made.success() {
                return Err(format!("the payload's generator ended with {made}").into());
            }
        }
        let text = std::fs::read_to_string(&payload)?;
        let lines = text.lines().count().max(1);
        let mean = text.lines().map(str::len).sum::<usize>() as f64 / lines as f64;
        Ok(Self {
            codec,
            records,
            payload: Some(payload),
            value_bytes: records as f64 * mean,
            batch_bytes: BATCH_BYTES,
        })
    }

    /// The same records in batches of another size.
    pub(crate) fn batches(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// The codec's name in Kafka's settings.
    pub(crate) fn name(&self) -> &'static str {
        match self.codec {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// Creates the topic and writes all of it.
    pub(crate) fn produce(
        &self,
        oracle: &Oracle,
        bootstrap: &str,
        topic: &str,
        partitions: i32,
    ) -> Result<(), Failure> {
        oracle.create_topic(bootstrap, topic, partitions, 1, &[])?;
        let mut command = java();
        command
            .args([
                "org.apache.kafka.tools.ProducerPerformance",
                "--topic",
                topic,
            ])
            .args(["--throughput", "-1", "--num-records"])
            .arg(self.records.to_string());
        match &self.payload {
            Some(payload) => command.arg("--payload-file").arg(payload),
            None => command.args(["--record-size", &RECORD_BYTES.to_string()]),
        };
        command
            .arg("--producer-props")
            .arg(format!("bootstrap.servers={bootstrap}"))
            .arg(format!("compression.type={}", self.name()))
            .arg(format!("batch.size={}", self.batch_bytes));
        if self.batch_bytes > BATCH_BYTES {
            // Larger ones are only filled when the producer waits for them.
            command.args(["linger.ms=50", "buffer.memory=134217728"]);
        }
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .map_err(|e| format!("java: {e}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or_default();
            return Err(format!("ProducerPerformance ended with {}: {last}", output.status).into());
        }
        Ok(())
    }
}

/// A JVM with Kafka 4.3.1 on its class path.
pub(crate) fn java() -> Command {
    let home =
        std::env::var_os("STRAIT_KAFKA_DIR").map_or_else(|| PathBuf::from(".kafka"), PathBuf::from);
    let mut command = Command::new("java");
    command
        .args([
            "-Xmx2g",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
        ])
        .arg(home.join("4.3.1").join("libs").join("*"));
    command
}

/// The folder of the peers that are measured beside.
pub(crate) fn peers() -> Result<PathBuf, Failure> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    Ok(dir.canonicalize()?)
}
