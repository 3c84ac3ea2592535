//! Where logs begin and end, of many partitions at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest};
use tokio::task::JoinSet;

use crate::call::Call;
use crate::cluster::{Cluster, Spared};
use crate::connection::Connection;
use crate::coordinator::refusal;
use crate::error::NetError;
use crate::kafka_error::KafkaError;
use crate::metadata::topic_name;
use crate::offsets::{missing, place};

/// Topics asked about in one Metadata request, and partitions in one ListOffsets.
const AT_ONCE: usize = 1_000;
/// Time a broker has to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A topic and one of its partitions.
type Place = (String, i32);

/// How to ask for the ends of logs.
#[derive(Clone, Copy, Debug)]
pub struct AskEnds {
    /// The end is the last stable offset instead of the high watermark (from ListOffsets v2 on).
    pub committed: bool,
    /// Time a broker has to answer.
    pub within: Duration,
}

impl Default for AskEnds {
    /// The high watermark, within ten seconds.
    fn default() -> Self {
        Self {
            committed: false,
            within: PATIENCE,
        }
    }
}

/// Log start and end by partition.
pub type LogEnds = BTreeMap<(String, i32), Result<(i64, i64), NetError>>;

impl Cluster {
    /// Log start and high watermark of each partition, by new metadata, asked of all leaders side by side and of each in
    /// few requests. One partition's error is its own; a broker that cannot be reached fails its partitions at once, and
    /// is left alone for a while.
    pub async fn log_ends(&self, places: &BTreeSet<Place>) -> LogEnds {
        self.log_ends_as(places, AskEnds::default()).await
    }

    /// [`log_ends`](Self::log_ends), asked for like this.
    pub async fn log_ends_as(&self, places: &BTreeSet<Place>, ask: AskEnds) -> LogEnds {
        self.offsets_of(places, ask, None).await
    }

    /// The offset of each partition's first record with a timestamp in ms at or after `time`, -1 if there is none; asked for
    /// like [`log_ends`](Self::log_ends).
    pub async fn offsets_for_time(
        &self,
        places: &BTreeSet<Place>,
        time: i64,
        ask: AskEnds,
    ) -> BTreeMap<(String, i32), Result<i64, NetError>> {
        let found = self.offsets_of(places, ask, Some(time)).await;
        let offset = |(place, found): (Place, Result<(i64, i64), NetError>)| {
            (place, found.map(|(_, offset)| offset))
        };
        found.into_iter().map(offset).collect()
    }

    /// Start and end, or twice the offset for a time.
    async fn offsets_of(
        &self,
        places: &BTreeSet<Place>,
        ask: AskEnds,
        time: Option<i64>,
    ) -> LogEnds {
        let mut found = LogEnds::new();
        let mut by_leader: BTreeMap<i32, Vec<(Place, i32)>> = BTreeMap::new();
        let mut topics: Vec<String> = places.iter().map(|(topic, _)| topic.clone()).collect();
        topics.dedup();
        for topics in topics.chunks(AT_ONCE) {
            let these: BTreeSet<&String> = topics.iter().collect();
            let asked = places.iter().filter(|(topic, _)| these.contains(topic));
            match self.metadata(Some(topics)).await {
                Ok(metadata) => {
                    for place in asked {
                        match metadata.leader(&place.0, place.1) {
                            Some((leader, epoch)) => {
                                let of = by_leader.entry(leader).or_default();
                                of.push((place.clone(), epoch));
                            }
                            None => {
                                let code = KafkaError::LEADER_NOT_AVAILABLE.0;
                                let what = format!(
                                    "topic '{}' partition {} of cluster '{}'",
                                    place.0,
                                    place.1,
                                    self.alias()
                                );
                                let error = NetError::kafka(code, "Metadata", what);
                                found.insert(place.clone(), Err(error));
                            }
                        }
                    }
                }
                Err(error) => found.extend(asked.map(|p| (p.clone(), Err(error.clone())))),
            }
        }
        let mut jobs = JoinSet::new();
        for (leader, places) in by_leader {
            let cluster = self.clone();
            jobs.spawn(async move { cluster.offsets_led_by(leader, &places, ask, time).await });
        }
        while let Some(done) = jobs.join_next().await {
            found.extend(done.into_iter().flatten());
        }
        found
    }

    async fn offsets_led_by(
        &self,
        leader: i32,
        places: &[(Place, i32)],
        ask: AskEnds,
        time: Option<i64>,
    ) -> LogEnds {
        let mut found = LogEnds::new();
        for places in places.chunks(AT_ONCE) {
            let asking = self.offsets_asked_of(leader, places, ask, time);
            match self.sparing(leader, Spared::Everything, asking).await {
                Ok(answers) => found.extend(answers),
                Err(error) => {
                    let all = places.iter();
                    found.extend(all.map(|(p, _)| (p.clone(), Err(error.clone()))));
                }
            }
        }
        found
    }

    async fn offsets_asked_of(
        &self,
        leader: i32,
        places: &[(Place, i32)],
        ask: AskEnds,
        time: Option<i64>,
    ) -> Result<LogEnds, NetError> {
        let connection = self.control(leader).await?;
        if let Some(time) = time {
            let found = offsets(&connection, places, time, ask).await?;
            let twice = |(place, offset): (Place, Result<i64, NetError>)| {
                (place, offset.map(|offset| (offset, offset)))
            };
            return Ok(found.into_iter().map(twice).collect());
        }
        // A partition may stand only once in a request.
        let starts = offsets(&connection, places, -2, ask).await?;
        let mut ends = offsets(&connection, places, -1, ask).await?;
        let both = starts.into_iter().map(|(place, start)| {
            let end = ends.remove(&place).unwrap_or_else(|| {
                Err(missing(
                    &connection,
                    ListOffsetsRequest::NAME,
                    &place.0,
                    place.1,
                ))
            });
            (place, start.and_then(|start| Ok((start, end?))))
        });
        Ok(both.collect())
    }
}

/// One offset of each partition, for a time.
async fn offsets(
    connection: &Connection,
    places: &[(Place, i32)],
    timestamp: i64,
    ask: AskEnds,
) -> Result<BTreeMap<Place, Result<i64, NetError>>, NetError> {
    let api = ListOffsetsRequest::API;
    // The isolation level exists since version 2; below, everything is uncommitted.
    let min = if ask.committed {
        2
    } else {
        ListOffsetsRequest::MIN
    };
    let version = connection.version(api, ListOffsetsRequest::MAX, min)?;
    let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for ((topic, partition), epoch) in places {
        topics.entry(topic).or_default().push(
            ListOffsetsPartition::default()
                .with_partition_index(*partition)
                .with_current_leader_epoch(if version >= 4 { *epoch } else { -1 })
                .with_timestamp(timestamp),
        );
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(partitions)
    });
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(i8::from(ask.committed))
        .with_topics(topics.collect());
    let answer = connection.request_at(request, version, ask.within).await?;
    let mut answers = BTreeMap::new();
    for topic in &answer.topics {
        for p in &topic.partitions {
            answers.insert(
                (topic.name.as_str(), p.partition_index),
                (p.error_code, p.offset),
            );
        }
    }
    let found = places.iter().map(|((topic, partition), _)| {
        let name = ListOffsetsRequest::NAME;
        let answer = answers.get(&(topic.as_str(), *partition));
        let offset = match answer {
            // A time may have no record; a log has a start and an end.
            None => Err(missing(connection, name, topic, *partition)),
            Some((0, offset)) if timestamp < 0 && *offset < 0 => {
                Err(missing(connection, name, topic, *partition))
            }
            Some((code, offset)) => {
                let what = || place(topic, *partition, connection);
                refusal(*code, name, what, None).map(|()| *offset)
            }
        };
        ((topic.clone(), *partition), offset)
    });
    Ok(found.collect())
}
