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

/// Log start and high watermark by partition.
pub type LogEnds = BTreeMap<(String, i32), Result<(i64, i64), NetError>>;

impl Cluster {
    /// Log start and high watermark of each partition, by new metadata, asked of all leaders side by side and of each in
    /// few requests. One partition's error is its own; a broker that cannot be reached fails its partitions at once, and
    /// is left alone for a while.
    pub async fn log_ends(&self, places: &BTreeSet<Place>) -> LogEnds {
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
            jobs.spawn(async move { cluster.log_ends_of(leader, &places).await });
        }
        while let Some(done) = jobs.join_next().await {
            found.extend(done.into_iter().flatten());
        }
        found
    }

    async fn log_ends_of(&self, leader: i32, places: &[(Place, i32)]) -> LogEnds {
        let mut found = LogEnds::new();
        for places in places.chunks(AT_ONCE) {
            let asking = self.log_ends_at(leader, places);
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

    async fn log_ends_at(&self, leader: i32, places: &[(Place, i32)]) -> Result<LogEnds, NetError> {
        let connection = self.control(leader).await?;
        // A partition may stand only once in a request.
        let starts = offsets(&connection, places, -2).await?;
        let mut ends = offsets(&connection, places, -1).await?;
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
) -> Result<BTreeMap<Place, Result<i64, NetError>>, NetError> {
    let (api, min) = (ListOffsetsRequest::API, ListOffsetsRequest::MIN);
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
        .with_topics(topics.collect());
    let answer = connection.request_at(request, version, PATIENCE).await?;
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
            // A log has a start and an end.
            None => Err(missing(connection, name, topic, *partition)),
            Some((0, offset)) if *offset < 0 => Err(missing(connection, name, topic, *partition)),
            Some((code, offset)) => {
                let what = || place(topic, *partition, connection);
                refusal(*code, name, what, None).map(|()| *offset)
            }
        };
        ((topic.clone(), *partition), offset)
    });
    Ok(found.collect())
}
