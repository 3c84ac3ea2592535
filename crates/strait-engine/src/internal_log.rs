//! Strait's own topics on the target: one partition, compacted, written in order by one task.

pub(crate) mod plain_log;
pub(crate) mod positions;
pub(crate) mod registry_log;
pub(crate) mod side_log;

use std::sync::Arc;
use std::time::Duration;

use strait_net::{KafkaError, Runtime};
use strait_wire::{BatchBuilder, Codec, Isolation, Record, Stamp};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::appender::Appender;
use crate::error::FlowError;
use crate::limits;
use crate::partition::{PartitionReader, batches_from};
use crate::routes::Routes;
use crate::sequence::advance;
use crate::session::error::SessionError;

/// A handle to append to one of Strait's own topics. Appends are acknowledged by all replicas, keep their
/// order, and are repeated under the same sequence until the broker answers: these records carry the
/// present time, so the broker remembers the last batch even across its own restart.
#[derive(Clone, Debug)]
pub(crate) struct InternalLog {
    queue: mpsc::Sender<Append>,
}

struct Append {
    records: Vec<Record>,
    done: oneshot::Sender<Result<(), Refusal>>,
}

#[derive(Clone, Debug)]
enum Refusal {
    Fenced(String),
    Lost(String),
}

impl InternalLog {
    /// The writing task's handle and the task itself, to be spawned by the session.
    pub(crate) fn new(
        rt: Runtime,
        link: &str,
        routes: Arc<Routes>,
        topic: String,
        producer: (i64, i16),
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, requests) = mpsc::channel(4_096);
        let task = Task {
            rt,
            link: link.to_owned(),
            appender: Appender::new(routes, topic),
            producer,
            next_sequence: 0,
        };
        (Self { queue }, task.run(requests))
    }

    /// Appends the records in one batch or joined with what waits before them; returns once all in-sync
    /// replicas have them.
    pub(crate) async fn append(
        &self,
        link: &str,
        records: Vec<Record>,
    ) -> Result<(), SessionError> {
        let (done, answer) = oneshot::channel();
        let ended = || SessionError::Lost("its writing task ended".to_owned());
        self.queue
            .send(Append { records, done })
            .await
            .map_err(|_| ended())?;
        answer
            .await
            .map_err(|_| ended())?
            .map_err(|refusal| match refusal {
                Refusal::Fenced(why) => SessionError::Fenced {
                    link: link.to_owned(),
                    owner: None,
                    why,
                },
                Refusal::Lost(why) => SessionError::Lost(why),
            })
    }
}

struct Task {
    rt: Runtime,
    link: String,
    appender: Appender,
    producer: (i64, i16),
    next_sequence: i32,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<Append>) {
        while let Some(first) = requests.recv().await {
            let mut appends = vec![first];
            let mut records: usize = appends.iter().map(|a| a.records.len()).sum();
            while records < limits::SYNCS_PER_BATCH {
                let Ok(next) = requests.try_recv() else { break };
                records += next.records.len();
                appends.push(next);
            }
            let all = appends.iter().flat_map(|a| a.records.iter().cloned());
            let result = self.append(all.collect()).await;
            let failed = result.is_err();
            for append in appends {
                let _ = append.done.send(result.clone());
            }
            if failed {
                return;
            }
        }
    }

    /// Appends them in their order, in one batch if the topic takes one of that size.
    async fn append(&mut self, records: Vec<Record>) -> Result<(), Refusal> {
        let mut parts = vec![records];
        while let Some(mut part) = parts.pop() {
            if !self.append_batch(&part).await? {
                let second = part.split_off(part.len() / 2);
                parts.extend([second, part]);
            }
        }
        Ok(())
    }

    /// Appends them in one batch; `false` where the topic takes none of that size.
    async fn append_batch(&mut self, records: &[Record]) -> Result<bool, Refusal> {
        let mut builder = BatchBuilder::new(Codec::Lz4);
        for record in records {
            builder.push(record.clone());
        }
        let count = i32::try_from(records.len()).unwrap_or(i32::MAX);
        if count == 0 {
            return Ok(true);
        }
        let (producer_id, producer_epoch) = self.producer;
        let stamp = Stamp {
            producer_id,
            producer_epoch,
            base_sequence: self.next_sequence,
        };
        let batch = builder
            .build(stamp)
            .map_err(|e| Refusal::Lost(e.to_string()))?;
        let mut wait = limits::BACKOFF_MIN;
        let mut said = None;
        loop {
            let why = match self.appender.produce(batch.clone()).await {
                Ok((0, _)) => break,
                Ok((code @ (47 | 90), _)) => {
                    return Err(Refusal::Fenced(KafkaError(code).to_string()));
                }
                // With one batch in flight this is no repetition: the broker lost what we wrote.
                Ok((45, _)) => {
                    return Err(Refusal::Lost(format!(
                        "{}: {}",
                        self.appender.topic(),
                        KafkaError(45)
                    )));
                }
                Ok((code @ (29 | 31 | 53), _)) => {
                    return Err(Refusal::Lost(format!(
                        "{}: {}; give Strait's user Write on the topic",
                        self.appender.topic(),
                        KafkaError(code)
                    )));
                }
                // MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE
                Ok((10 | 18, _)) if count > 1 => return Ok(false),
                Ok((code, message)) => match message {
                    Some(message) => format!("{} ({message})", KafkaError(code)),
                    None => KafkaError(code).to_string(),
                },
                Err(error) => error.to_string(),
            };
            let now = self.rt.now();
            if said.is_none_or(|said| now.saturating_duration_since(said) >= limits::REMIND) {
                warn!(
                    link = %self.link, id = "positions-unwritten", topic = %self.appender.topic(),
                    "cannot write positions or the lease on cluster {}, trying again: {why}",
                    self.appender.cluster()
                );
                said = Some(now);
            }
            self.appender.anew();
            self.rt.sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(2));
        }
        self.next_sequence = advance(self.next_sequence, count);
        Ok(true)
    }
}

/// Appends one record outside of any session: without a producer id, so that it touches nobody's sequences and needs no
/// lease. It is repeated until it is acknowledged by all replicas, and may then stand more than once: only for what means
/// the same twice.
///
/// # Errors
/// The topic refuses it, or does not answer in time; then it may have been appended all the same.
pub(crate) async fn append_once(
    rt: &Runtime,
    routes: &Arc<Routes>,
    topic: &str,
    record: Record,
) -> Result<(), SessionError> {
    let refused = |why: String, denied| SessionError::Internal {
        cluster: routes.cluster().alias().to_owned(),
        topic: topic.to_owned(),
        why,
        denied,
    };
    let failed = |why: String| refused(why, false);
    let mut builder = BatchBuilder::new(Codec::Lz4);
    builder.push(record);
    let batch = builder
        .build(Stamp::NONE)
        .map_err(|e| failed(e.to_string()))?;
    let mut appender = Appender::new(routes.clone(), topic.to_owned());
    let deadline = rt.now() + limits::REQUEST_TIMEOUT;
    loop {
        let why = match appender.produce(batch.clone()).await {
            Ok((0, _)) => return Ok(()),
            Ok((code @ (29 | 31), _)) => {
                let error = KafkaError(code);
                let why = format!("{error}; give Strait's user Write on the topic");
                return Err(refused(why, true));
            }
            // MESSAGE_TOO_LARGE, INVALID_TOPIC, RECORD_LIST_TOO_LARGE, INVALID_RECORD: the same the next time.
            Ok((code @ (10 | 17 | 18 | 87), _)) => {
                return Err(failed(KafkaError(code).to_string()));
            }
            Ok((code, Some(message))) => format!("{} ({message})", KafkaError(code)),
            Ok((code, None)) => KafkaError(code).to_string(),
            Err(error) => error.to_string(),
        };
        if rt.now() >= deadline {
            return Err(failed(why));
        }
        appender.anew();
        rt.sleep(limits::ROUTES_MIN_AGE).await;
    }
}

/// How far to read one of Strait's own topics.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// To the log end at the moment of the call.
    End,
    /// Up to the marker of (producer id, epoch).
    Marker(i64, i16),
}

/// Reads an own topic from `from` (or its log start); calls `each` for every record with its offset.
/// Returns the next offset.
pub(crate) async fn read_log(
    rt: &Runtime,
    routes: &Arc<Routes>,
    topic: &str,
    from: i64,
    until: Until,
    each: impl FnMut(i64, &Record) -> Result<(), SessionError>,
) -> Result<i64, SessionError> {
    let reader = own_reader(rt, routes, topic, false);
    read_with(&reader, from, until, each).await
}

/// A reader of one of Strait's own topics, on the source or the target.
pub(crate) fn own_reader(
    rt: &Runtime,
    routes: &Arc<Routes>,
    topic: &str,
    source: bool,
) -> PartitionReader {
    PartitionReader {
        source,
        rt: rt.clone(),
        routes: routes.clone(),
        topic: topic.to_owned(),
        partition: 0,
        isolation: Isolation::ReadUncommitted,
    }
}

/// [`read_log`] with this reader.
pub(crate) async fn read_with(
    reader: &PartitionReader,
    from: i64,
    until: Until,
    mut each: impl FnMut(i64, &Record) -> Result<(), SessionError>,
) -> Result<i64, SessionError> {
    let internal = |e: FlowError| SessionError::Internal {
        cluster: reader.routes.cluster().alias().to_owned(),
        topic: reader.topic.clone(),
        why: e.to_string(),
        denied: matches!(e, FlowError::Denied { .. }),
    };
    let mut offset = from.max(reader.log_start().await.map_err(internal)?);
    let end = reader.log_end().await.map_err(internal)?;
    let mut patience = reader.patience(offset);
    let mut read = offset;
    loop {
        if matches!(until, Until::End) && offset >= end {
            return Ok(offset);
        }
        let fetched = reader
            .fetch(offset, -1, Duration::from_millis(100))
            .await
            .map_err(internal)?;
        let batches = if fetched.part.error == 0 {
            batches_from(&fetched.part, offset).map_err(internal)?
        } else {
            // The beginning was deleted meanwhile.
            offset = reader.log_start().await.map_err(internal)?;
            Vec::new()
        };
        for batch in batches {
            offset = batch.header.last_offset() + 1;
            read = read.max(offset);
            if batch.header.attributes.control() {
                if let Until::Marker(id, epoch) = until
                    && (batch.header.producer_id, batch.header.producer_epoch) == (id, epoch)
                {
                    return Ok(offset);
                }
                continue;
            }
            let records = batch
                .decode(limits::DECODE_LEAST_BYTES)
                .map_err(|e| internal(e.into()))?;
            for record in &records {
                each(record.offset, record)?;
            }
        }
        if !patience.asks_again(read).await {
            return Err(internal(reader.nothing_read(offset, end)));
        }
    }
}
