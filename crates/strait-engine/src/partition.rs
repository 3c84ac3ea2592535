//! Reading one partition outside the lanes: for resumes, for the registry, for the syncs.

pub(crate) mod patience;
pub(crate) mod reading;
pub(crate) mod remaining;

use std::sync::Arc;
use std::time::Duration;

use strait_net::{KafkaError, NetError, Runtime};
use strait_wire::{
    Batch, Entries, Entry, FetchPartition, FetchRequest, FetchResponse, FetchTopic,
    FetchedPartition, Isolation,
};
use uuid::Uuid;

use crate::error::FlowError;
use crate::limits;
use crate::partition::patience::Patience;
use crate::routes::{Lookup, Route, Routes};

/// How long a broker may wait for batches that are not there yet.
const BATCHES_WAIT: Duration = Duration::from_millis(200);
/// Fetch's API key.
pub(crate) const FETCH: i16 = 1;
/// Fetch by topic name; from 13 on by topic id (KIP-516).
pub(crate) const FETCH_BY_NAME: i16 = 12;
/// The newest Fetch version spoken.
pub(crate) const FETCH_NEWEST: i16 = 17;
/// From this version on a fetch carries the last fetched epoch (KIP-595).
pub(crate) const FETCH_PROVES_EPOCH: i16 = 12;

/// How an answer's error has to be taken, whoever asked.
pub(crate) fn moved(code: i16) -> bool {
    matches!(
        code,
        3 | 5 | 6 | 8 | 9 | 13 | 72 | 74 | 75 | 78 | 100 | 103 | 106
    )
}

/// One partition of one cluster.
pub(crate) struct PartitionReader {
    pub(crate) rt: Runtime,
    pub(crate) routes: Arc<Routes>,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// Whether it lies on the source; for messages.
    pub(crate) source: bool,
    pub(crate) isolation: Isolation,
}

/// A fetch's answer with what it was asked of.
pub(crate) struct Fetched {
    pub(crate) part: FetchedPartition,
    pub(crate) proven: bool,
}

impl PartitionReader {
    /// The partition's route; waits a little for a leader.
    pub(crate) async fn route(&self) -> Result<Route, FlowError> {
        for attempt in 0..6u32 {
            match self.routes.find(&self.topic, self.partition).await? {
                Lookup::Leader(route) => return Ok(route),
                Lookup::Denied => return Err(FlowError::denied(&self.routes, &self.topic)),
                found => {
                    // Those without a leader are looked after by the routes themselves.
                    if found != Lookup::NoLeader {
                        self.routes.invalidate();
                    }
                    self.rt.sleep(limits::ROUTES_MIN_AGE * (attempt + 1)).await;
                }
            }
        }
        Err(match self.routes.lookup(&self.topic, self.partition) {
            Lookup::Missing if self.source => FlowError::SourceMissing,
            Lookup::Missing => FlowError::TargetMissing,
            _ => FlowError::NoLeader {
                cluster: self.routes.cluster().alias().to_owned(),
                topic: self.topic.clone(),
                partition: self.partition,
            },
        })
    }

    /// Fetches at `offset`. Answers with error 0 or 1 (OFFSET_OUT_OF_RANGE) come back as they are; a leader
    /// that moved is followed for a while.
    pub(crate) async fn fetch(
        &self,
        offset: i64,
        last_epoch: i32,
        wait: Duration,
    ) -> Result<Fetched, FlowError> {
        let mut deadline = self.rt.now() + limits::REQUEST_TIMEOUT;
        loop {
            let route = self.route().await?;
            let result = self.fetch_from(route, offset, last_epoch, wait).await;
            let error = match result {
                Ok(None) => {
                    // The broker throttles: that is an answer, and it has been waited for.
                    deadline = self.rt.now() + limits::REQUEST_TIMEOUT;
                    continue;
                }
                Ok(Some(fetched)) if matches!(fetched.part.error, 0 | 1) => return Ok(fetched),
                Ok(Some(fetched)) if moved(fetched.part.error) => {
                    self.answered(fetched.part.error, offset)
                }
                Ok(Some(fetched)) => return Err(self.answered(fetched.part.error, offset)),
                Err(error) => error,
            };
            self.routes.invalidate();
            if self.rt.now() >= deadline {
                return Err(error);
            }
            self.rt.sleep(limits::ROUTES_MIN_AGE).await;
        }
    }

    /// This partition answered `code` to a fetch at `offset`.
    pub(crate) fn answered(&self, code: i16, offset: i64) -> FlowError {
        let error = KafkaError(code);
        if self.source {
            FlowError::Source { error, offset }
        } else {
            FlowError::Target { error, offset }
        }
    }

    /// The batches from `offset` on that one fetch brings, none where it waited in vain.
    ///
    /// # Errors
    /// Any error of the partition's, an `offset` that is not in its log included.
    pub(crate) async fn batches(&self, offset: i64) -> Result<Vec<Batch>, FlowError> {
        let fetched = self.fetch(offset, -1, BATCHES_WAIT).await?;
        if fetched.part.error != 0 {
            return Err(self.answered(fetched.part.error, offset));
        }
        batches_from(&fetched.part, offset)
    }

    /// One fetch; nothing where the broker throttled and gave nothing, after the time it asked for.
    async fn fetch_from(
        &self,
        route: Route,
        offset: i64,
        last_epoch: i32,
        wait: Duration,
    ) -> Result<Option<Fetched>, FlowError> {
        let connection = self.routes.cluster().reader(route.broker).await?;
        let read = self.routes.read();
        let newest = if route.topic_id.is_nil() {
            FETCH_BY_NAME
        } else {
            FETCH_NEWEST
        };
        let version = connection.version(FETCH, newest, 4)?;
        let request = FetchRequest {
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: 1,
            max_bytes: limits::FETCH_BYTES,
            isolation: self.isolation,
            rack: String::new(),
            topics: vec![FetchTopic {
                name: self.topic.clone(),
                id: route.topic_id,
                partitions: vec![FetchPartition {
                    partition: self.partition,
                    leader_epoch: route.epoch,
                    offset,
                    last_fetched_epoch: last_epoch,
                    max_bytes: read.bytes,
                }],
            }],
        };
        let malformed = |what: &str| NetError::malformed(connection.peer(), "Fetch", version, what);
        let body = vec![request.encode(version)?];
        let answer = connection
            .send(FETCH, version, body, limits::REQUEST_TIMEOUT + wait, None)
            .await?;
        let mut response = FetchResponse::decode(version, answer)
            .map_err(|error| malformed(&error.to_string()))?;
        if response.error != 0 {
            return Err(self.answered(response.error, offset));
        }
        if let Some(pause) = response.throttled() {
            connection.paused(pause);
            if response.partitions.is_empty() {
                self.rt.sleep(pause.min(limits::THROTTLED_MAX)).await;
                return Ok(None);
            }
        }
        let part = response
            .partitions
            .pop()
            .ok_or_else(|| malformed("it lacks the partition"))?;
        Ok(Some(Fetched {
            part,
            proven: version >= FETCH_PROVES_EPOCH,
        }))
    }

    /// What is said where reading ends without progress at `offset`, below `end`.
    pub(crate) fn nothing_read(&self, offset: i64, end: i64) -> FlowError {
        FlowError::NothingRead {
            cluster: self.routes.cluster().alias().to_owned(),
            topic: self.topic.clone(),
            partition: self.partition,
            offset,
            end,
            waited: limits::REQUEST_TIMEOUT,
        }
    }

    /// The patience of a reader that begins at `offset`.
    pub(crate) fn patience(&self, offset: i64) -> Patience {
        Patience::new(&self.rt, limits::REQUEST_TIMEOUT, offset)
    }

    /// The log start offset.
    pub(crate) async fn log_start(&self) -> Result<i64, FlowError> {
        self.offset_at(-2).await
    }

    /// The offset for a timestamp: -2 the log start, -1 the end under this reader's isolation, else the first
    /// record at or after it, -1 when there is none.
    pub(crate) async fn offset_at(&self, timestamp: i64) -> Result<i64, FlowError> {
        self.list(timestamp, false).await
    }

    /// The true log end, which the high watermark may not have reached yet (replica_id -2).
    pub(crate) async fn log_end(&self) -> Result<i64, FlowError> {
        self.list(-1, true).await
    }

    async fn list(&self, timestamp: i64, log_end: bool) -> Result<i64, FlowError> {
        let deadline = self.rt.now() + limits::REQUEST_TIMEOUT;
        loop {
            let route = self.route().await?;
            let committed = self.isolation == Isolation::ReadCommitted;
            let leader = (route.broker, route.epoch);
            let cluster = self.routes.cluster();
            match cluster
                .list_offsets(
                    &self.topic,
                    self.partition,
                    leader,
                    timestamp,
                    committed,
                    log_end,
                )
                .await
            {
                Ok((offset, _)) => return Ok(offset),
                Err(NetError::Kafka { code, .. }) if moved(code.0) && self.rt.now() < deadline => {
                    self.routes.invalidate();
                    self.rt.sleep(limits::ROUTES_MIN_AGE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The topic's id as the cluster knows it now.
    pub(crate) async fn topic_id(&self) -> Result<Uuid, FlowError> {
        Ok(self.route().await?.topic_id)
    }
}

/// The record batches of a fetched stretch that lie at or above `offset`.
pub(crate) fn batches_from(part: &FetchedPartition, offset: i64) -> Result<Vec<Batch>, FlowError> {
    let mut batches = Vec::new();
    for entry in Entries::new(part.records.clone()) {
        match entry? {
            Entry::Batch(batch) if batch.header.last_offset() >= offset => batches.push(batch),
            Entry::Batch(_) | Entry::Legacy { .. } => {}
        }
    }
    Ok(batches)
}
