//! The two ways out of a shard: fetch lanes to source brokers and produce channels to target brokers.

use std::collections::BTreeMap;
use std::time::Duration;

use strait_net::{Connection, NetError};
use strait_wire::{
    FetchRequest, FetchResponse, FetchedPartition, Isolation, ProduceResponse, ProducedPartition,
    TopicRef,
};
use tokio::time::Instant;

use crate::appender::PRODUCE;
use crate::error::FlowError;
use crate::limits;
use crate::partition::{FETCH, FETCH_PROVES_EPOCH};
use crate::routes::Routes;

/// What a flow waits for: those that are behind never wait for the long poll of those that are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pace {
    /// Records wait at the source: answered at once.
    Bulk,
    /// Caught up: the broker holds the fetch until something comes.
    Tail,
}

impl Pace {
    /// Fetches outstanding on one lane. A long poll holds up what is behind it.
    pub(crate) fn outstanding(self) -> usize {
        match self {
            Self::Bulk => limits::FETCHES_PER_LANE,
            Self::Tail => 1,
        }
    }
}

/// One fetch connection to a broker: its number among those of the same pace.
pub(crate) type Lane = (i32, Pace, u8);

/// One produce connection to a broker: its number. A flow always takes the same one, so its batches keep their order.
pub(crate) type Channel = (i32, u8);

/// A connection and what is outstanding on it.
#[derive(Default)]
pub(crate) struct Way {
    pub(crate) connection: Option<Connection>,
    pub(crate) connecting: bool,
    pub(crate) outstanding: usize,
    /// Since when the oldest request, or the one behind the last answer, is waited for.
    pub(crate) waiting_since: Option<Instant>,
}

impl Way {
    /// The connection, if it is open.
    pub(crate) fn open(&mut self) -> Option<Connection> {
        if self.connection.as_ref().is_some_and(Connection::is_closed) {
            self.connection = None;
        }
        self.connection.clone()
    }

    /// A request was sent.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.outstanding += 1;
        self.waiting_since.get_or_insert(now);
    }

    /// A request was answered, or given up.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.waiting_since = (self.outstanding > 0).then_some(now);
    }

    /// Whether the broker keeps everybody waiting.
    pub(crate) fn stalled(&self, now: Instant) -> bool {
        self.waiting_since
            .is_some_and(|since| now.saturating_duration_since(since) >= limits::STALL)
    }
}

/// How many bulk lanes to a broker a line with this round trip is worth. A connection brings about one send
/// buffer of the broker (`socket.send.buffer.bytes`, 100 KiB by default) per round trip, so what one lane
/// does nearby takes many over a distance.
pub(crate) fn lanes(round_trip: Duration, most: u8) -> u8 {
    let lanes = round_trip.as_micros() / limits::ROUND_TRIP_PER_LANE.as_micros();
    u8::try_from(lanes).unwrap_or(u8::MAX).clamp(1, most.max(1))
}

/// One flow's part of a request.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) flow: usize,
    pub(crate) generation: u64,
    pub(crate) topic: TopicRef,
    pub(crate) partition: i32,
    /// The batch's ticket (produce), or the range's id (fetch).
    pub(crate) mark: u64,
}

impl Part {
    /// How requests and answers name it; brokers answer in any order.
    fn name(&self) -> (TopicRef, i32) {
        (self.topic.clone(), self.partition)
    }
}

/// What a fetch brought for each flow it asked for.
pub(crate) struct FetchAnswer {
    /// Nothing for any of them where the client's quota is used up.
    pub(crate) parts: Vec<(Part, Option<FetchedPartition>)>,
    pub(crate) proven: bool,
    /// How long the broker will not read from the connection.
    pub(crate) throttled: Duration,
}

/// Asks over a lane; the answers come in the order of the parts.
pub(crate) async fn fetch(
    connection: Connection,
    version: i16,
    request: FetchRequest,
    parts: Vec<Part>,
    timeout: Duration,
) -> (Vec<Part>, Result<FetchAnswer, FlowError>) {
    let ask = async {
        let timeout = timeout + Duration::from_millis(request.max_wait_ms.max(0) as u64);
        let body = vec![request.encode(version)?];
        let answer = connection.send(FETCH, version, body, timeout, None).await?;
        let response = FetchResponse::decode(version, answer)
            .map_err(|error| malformed(&connection, version, &error.to_string()))?;
        if response.error != 0 {
            // Of the whole answer: it speaks of no partition and no offset.
            let what = connection.peer().to_string();
            return Err(NetError::kafka(response.error, "Fetch", what).into());
        }
        // Above the quota a broker answers without any topic and reads nothing more for this time (KIP-219).
        let throttled = response.throttled();
        if let Some(pause) = throttled {
            connection.paused(pause);
        }
        let empty = response.partitions.is_empty();
        let answers = response.partitions.into_iter();
        let answers: BTreeMap<_, _> = answers
            .map(|a| ((a.topic.clone(), a.partition), a))
            .collect();
        // A broker answers for everything it was asked for, and it was asked without a session.
        let lacking = parts.iter().find(|p| !answers.contains_key(&p.name()));
        if let Some(part) = lacking.filter(|_| throttled.is_none() || !empty) {
            let topic = match &part.topic {
                TopicRef::Name(name) => name.clone(),
                TopicRef::Id(id) => format!("topic id {id}"),
            };
            let what = format!("it lacks {topic} partition {}", part.partition);
            return Err(malformed(&connection, version, &what));
        }
        Ok((answers, throttled.unwrap_or_default()))
    };
    match ask.await {
        Err(error) => (parts, Err(error)),
        Ok((mut answers, throttled)) => {
            let matched = parts
                .iter()
                .map(|part| (part.clone(), answers.remove(&part.name())));
            let answer = FetchAnswer {
                parts: matched.collect(),
                proven: version >= FETCH_PROVES_EPOCH,
                throttled,
            };
            (parts, Ok(answer))
        }
    }
}

/// The broker is no broker, or not well: its connection is given up.
fn malformed(connection: &Connection, version: i16, what: &str) -> FlowError {
    connection.close();
    NetError::malformed(connection.peer(), "Fetch", version, what).into()
}

/// What a produce request was answered.
pub(crate) struct ProduceAnswer {
    pub(crate) parts: Vec<(Part, Option<ProducedPartition>)>,
    /// Why there is no answer.
    pub(crate) failure: Option<String>,
    /// How long the broker will not read from the connection.
    pub(crate) throttled: Duration,
}

impl ProduceAnswer {
    /// None came.
    pub(crate) fn none(parts: Vec<Part>, why: String) -> Self {
        Self {
            parts: parts.into_iter().map(|part| (part, None)).collect(),
            failure: Some(why),
            throttled: Duration::ZERO,
        }
    }
}

/// Awaits the answer to a produce request that was already put on the wire.
pub(crate) async fn produced(
    pending: impl Future<Output = Result<bytes::Bytes, NetError>>,
    connection: Connection,
    version: i16,
    parts: Vec<Part>,
) -> ProduceAnswer {
    let malformed = |error| NetError::malformed(connection.peer(), "Produce", version, error);
    let answer = match pending.await {
        Ok(body) => ProduceResponse::decode(version, body).map_err(malformed),
        Err(error) => Err(error),
    };
    match answer {
        Err(error) => ProduceAnswer::none(parts, error.to_string()),
        Ok(response) => {
            let throttled = response.throttled().unwrap_or_default();
            if !throttled.is_zero() {
                connection.paused(throttled);
            }
            let mut answers: BTreeMap<_, _> = response
                .partitions
                .into_iter()
                .map(|a| ((a.topic.clone(), a.partition), a))
                .collect();
            let parts = parts.into_iter().map(|part| {
                let answer = answers.remove(&part.name());
                (part, answer)
            });
            ProduceAnswer {
                parts: parts.collect(),
                failure: None,
                throttled,
            }
        }
    }
}

/// The produce API of a connection: its version by topic id where the topic has one.
pub(crate) fn produce_version(connection: &Connection, by_id: bool) -> Result<i16, NetError> {
    let newest = if by_id {
        crate::appender::PRODUCE_NEWEST
    } else {
        crate::appender::PRODUCE_BY_NAME
    };
    connection.version(PRODUCE, newest, 3)
}

/// The epoch check that older Fetch versions leave to the client: whether the admitted epoch really reaches
/// up to `at` on the leader (KIP-320).
pub(crate) async fn epoch_reaches(
    routes: &Routes,
    topic: &str,
    partition: i32,
    epoch: i32,
    at: i64,
) -> Result<(i32, i64, bool), FlowError> {
    let crate::routes::Lookup::Leader(route) = routes.find(topic, partition).await? else {
        return Err(FlowError::NoLeader {
            cluster: routes.cluster().alias().to_owned(),
            topic: topic.to_owned(),
            partition,
        });
    };
    let leader = (route.broker, route.epoch);
    let (found, end) = routes
        .cluster()
        .offset_for_leader_epoch(topic, partition, leader, epoch)
        .await?;
    Ok((found, end, found == epoch && end >= at))
}

/// The isolation's end of a fetched partition: how far records may be read.
pub(crate) fn readable_end(part: &FetchedPartition, isolation: Isolation) -> i64 {
    match isolation {
        Isolation::ReadCommitted if part.last_stable_offset >= 0 => part.last_stable_offset,
        _ => part.high_watermark,
    }
}
