//! The batches as a broker stores them, read from its segment files: the judge of "the bytes are unchanged".

use super::cluster::KafkaCluster;
use super::error::HarnessError;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Offset, length, leader epoch, magic, CRC, attributes, last offset delta, two timestamps, producer id, epoch,
/// sequence, count (DefaultRecordBatch of Kafka's clients).
const HEADER: usize = 61;
/// Between two looks at a folder in which the cleaner is at work, and for how long it is looked at.
const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// One record batch of a partition's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// The first offset.
    pub base_offset: i64,
    /// The last offset.
    pub last_offset: i64,
    /// The leader epoch in which it was written.
    pub leader_epoch: i32,
    /// The attribute bits: codec 0x07, LogAppendTime 0x08, transactional 0x10, control 0x20, delete horizon 0x40.
    pub attributes: i16,
    /// The first timestamp.
    pub base_timestamp: i64,
    /// The largest timestamp.
    pub max_timestamp: i64,
    /// The producer id, -1 for none.
    pub producer_id: i64,
    /// The producer epoch.
    pub producer_epoch: i16,
    /// The sequence number of the first record.
    pub base_sequence: i32,
    /// The number of records.
    pub count: i32,
    /// What follows the header: the records, compressed as they were.
    pub records: Vec<u8>,
}

impl StoredBatch {
    /// The codec's number: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub fn codec(&self) -> i16 {
        self.attributes & 0x07
    }

    /// Whether it is a control batch, such as a transaction's marker.
    pub fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }

    /// Bytes that it takes in the log.
    pub fn stored_bytes(&self) -> usize {
        HEADER + self.records.len()
    }
}

impl KafkaCluster {
    /// The batches of a partition in a node's log, in order, of one state of it: where the cleaner replaces segments
    /// meanwhile they are read again. A batch that is being appended meanwhile may be left out.
    pub fn stored_batches(
        &self,
        node: usize,
        topic: &str,
        partition: i32,
    ) -> Result<Vec<StoredBatch>, HarnessError> {
        let dir = self
            .partition_dir(node, topic, partition)
            .ok_or(HarnessError::NodeState {
                node,
                state: "unknown",
            })?;
        let begun = Instant::now();
        loop {
            match read(&dir) {
                Ok(Some(batches)) => return Ok(batches),
                Err(error)
                    if error.kind() != std::io::ErrorKind::NotFound
                        || begun.elapsed() > PATIENCE =>
                {
                    let what = format!("read the segments of {}", dir.display());
                    return Err(HarnessError::io(what)(error));
                }
                Ok(None) if begun.elapsed() > PATIENCE => {
                    return Err(HarnessError::NodeState {
                        node,
                        state: "cleaning its log all the time",
                    });
                }
                Ok(None) | Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }
}

/// The batches of all segments; none where segments were replaced meanwhile.
fn read(dir: &Path) -> std::io::Result<Option<Vec<StoredBatch>>> {
    let Some(before) = segments(dir)? else {
        return Ok(None);
    };
    let mut batches = Vec::new();
    for (file, _) in &before {
        let bytes = std::fs::read(file)?;
        let mut rest = bytes.as_slice();
        while let Some(batch) = take_batch(&mut rest) {
            batches.push(batch);
        }
    }
    // New ones may have been begun behind them.
    let same = segments(dir)?.is_some_and(|after| after.starts_with(&before));
    Ok(same.then_some(batches))
}

/// The segment files in order of their offsets, which is that of their zero-padded names, and their inodes: a cleaned
/// segment has the name of one that it replaces. None while some are being replaced.
fn segments(dir: &Path) -> std::io::Result<Option<Vec<(PathBuf, u64)>>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("log") => files.push((path, entry.metadata()?.ino())),
            Some("swap") => return Ok(None),
            _ => {}
        }
    }
    files.sort();
    Ok(Some(files))
}

/// The next batch; none where the file ends, or where a batch is not whole.
fn take_batch(bytes: &mut &[u8]) -> Option<StoredBatch> {
    let length = usize::try_from(i32::from_be_bytes(at(bytes, 8)?)).ok()?;
    if length + 12 < HEADER {
        return None;
    }
    let batch = bytes.split_off(..length + 12)?;
    let base_offset = i64::from_be_bytes(at(batch, 0)?);
    Some(StoredBatch {
        base_offset,
        last_offset: base_offset + i64::from(i32::from_be_bytes(at(batch, 23)?)),
        leader_epoch: i32::from_be_bytes(at(batch, 12)?),
        attributes: i16::from_be_bytes(at(batch, 21)?),
        base_timestamp: i64::from_be_bytes(at(batch, 27)?),
        max_timestamp: i64::from_be_bytes(at(batch, 35)?),
        producer_id: i64::from_be_bytes(at(batch, 43)?),
        producer_epoch: i16::from_be_bytes(at(batch, 51)?),
        base_sequence: i32::from_be_bytes(at(batch, 53)?),
        count: i32::from_be_bytes(at(batch, 57)?),
        records: batch[HEADER..].to_vec(),
    })
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}
