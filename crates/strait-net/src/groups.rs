//! Consumer groups: which there are, what they have committed, and commits from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    GroupId, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse,
};

use tokio::task::JoinSet;

use crate::call::Call;
use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::coordinator::{CoordinatorKind, refusal};
use crate::error::{Action, NetError};
use crate::kafka_error::KafkaError;
use crate::metadata::{text, topic_name};

/// Time a broker has to answer about groups; it is asked again with the next round.
const PATIENCE: Duration = Duration::from_secs(10);
/// Groups whose offsets are asked for in one request.
const GROUPS_PER_FETCH: usize = 100;
/// From this version on one OffsetFetch takes many groups (KIP-709).
const FETCH_MANY: i16 = 8;
/// From this version on OffsetFetch without topics means all of them.
const FETCH_ALL_TOPICS: i16 = 2;

/// A group as a cluster lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its id.
    pub id: String,
    /// `consumer` for consumers, empty where offsets were only ever committed from outside.
    pub protocol_type: String,
    /// `classic`, `consumer`, `share`, ... in the broker's spelling; empty where the broker does not tell (before Kafka 3.7).
    pub kind: String,
    /// `Empty`, `Stable`, ...; empty where the broker does not tell (before Kafka 2.6).
    pub state: String,
}

impl ListedGroup {
    /// Whether it can have committed offsets of the kind consumers have.
    pub fn has_offsets(&self) -> bool {
        matches!(self.protocol_type.as_str(), "" | "consumer" | "streams") && !self.is_share()
    }

    /// Whether it is a share group (KIP-932).
    pub fn is_share(&self) -> bool {
        self.kind.eq_ignore_ascii_case("share")
    }
}

/// What a group committed for one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset of the next record it wants to read.
    pub offset: i64,
    /// Its metadata; often empty.
    pub metadata: String,
}

/// A group's commits by topic and partition.
pub type GroupOffsets = BTreeMap<(String, i32), CommittedOffset>;

impl Cluster {
    /// The groups that `broker` coordinates and shows to Strait's user. A group's coordinator is known from then on.
    ///
    /// # Errors
    /// [`NetError::Kafka`] with the broker's code, for instance while it loads its groups; the usual ones of a connection.
    pub async fn list_groups(&self, broker: i32) -> Result<Vec<ListedGroup>, NetError> {
        if let Some(error) = self.away(broker) {
            return Err(error);
        }
        let asked = async {
            let connection = self.control(broker).await?;
            let request = ListGroupsRequest::default();
            let answer = connection.request(request, PATIENCE).await?;
            Ok::<_, NetError>((connection, answer))
        };
        let (connection, answer) = asked
            .await
            .inspect_err(|error| self.went_away(broker, error))?;
        let what = || connection.peer().to_string();
        refusal(answer.error_code, ListGroupsRequest::NAME, what, None)?;
        let groups = answer.groups.into_iter().map(|g| ListedGroup {
            id: g.group_id.to_string(),
            protocol_type: g.protocol_type.to_string(),
            kind: g.group_type.to_string(),
            state: g.group_state.to_string(),
        });
        let groups: Vec<ListedGroup> = groups.collect();
        for group in &groups {
            self.set_coordinator(CoordinatorKind::Group, &group.id, Some(broker));
        }
        Ok(groups)
    }

    /// What each group has committed, asked of its coordinator, the coordinators side by side; many groups in one request
    /// where the broker takes that (from Kafka 3.0 on). A group that does not exist has no commits. One group's error is its
    /// own. A broker that cannot be reached fails its groups at once, and is left alone for a while.
    pub async fn committed_offsets(
        &self,
        groups: &[String],
    ) -> BTreeMap<String, Result<GroupOffsets, NetError>> {
        let mut found = BTreeMap::new();
        let mut by_broker: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        for (group, broker) in self.coordinators(CoordinatorKind::Group, groups).await {
            match broker {
                Ok(broker) => by_broker.entry(broker).or_default().push(group),
                Err(error) => drop(found.insert(group, Err(error))),
            }
        }
        let mut jobs = JoinSet::new();
        for (broker, groups) in by_broker {
            let cluster = self.clone();
            jobs.spawn(async move { cluster.committed_of(broker, &groups).await });
        }
        while let Some(done) = jobs.join_next().await {
            found.extend(done.into_iter().flatten());
        }
        found
    }

    async fn committed_of(
        &self,
        broker: i32,
        groups: &[String],
    ) -> BTreeMap<String, Result<GroupOffsets, NetError>> {
        let mut found = BTreeMap::new();
        for piece in groups.chunks(GROUPS_PER_FETCH) {
            let answers = match self.away(broker) {
                Some(error) => Err(error),
                None => self.committed_at(broker, piece).await,
            };
            match answers {
                Ok(answers) => found.extend(answers),
                Err(error) => {
                    self.went_away(broker, &error);
                    for group in piece {
                        self.group_failed(group, &error);
                        found.insert(group.clone(), Err(error.clone()));
                    }
                }
            }
        }
        found
    }

    async fn committed_at(
        &self,
        broker: i32,
        groups: &[String],
    ) -> Result<BTreeMap<String, Result<GroupOffsets, NetError>>, NetError> {
        let connection = self.control(broker).await?;
        let version = connection.version(
            OffsetFetchRequest::API,
            OffsetFetchRequest::MAX,
            FETCH_ALL_TOPICS,
        )?;
        let mut found = BTreeMap::new();
        if version < FETCH_MANY {
            for group in groups {
                let request = OffsetFetchRequest::default()
                    .with_group_id(GroupId(text(group)))
                    .with_topics(None);
                let answer = connection.request_at(request, version, PATIENCE).await?;
                let offsets = single(&connection, group, answer);
                found.insert(group.clone(), offsets);
            }
        } else {
            let asked = groups.iter().map(|group| {
                OffsetFetchRequestGroup::default()
                    .with_group_id(GroupId(text(group)))
                    .with_member_id(None)
                    .with_member_epoch(-1)
                    .with_topics(None)
            });
            let request = OffsetFetchRequest::default().with_groups(asked.collect());
            let answer = connection.request_at(request, version, PATIENCE).await?;
            for group in answer.groups {
                let id = group.group_id.to_string();
                let offsets = refused(&connection, &id, group.error_code).map(|()| {
                    let topics = group.topics.into_iter().flat_map(|topic| {
                        let name = topic.name.to_string();
                        topic.partitions.into_iter().map(move |p| {
                            let key = (name.clone(), p.partition_index);
                            (key, p.error_code, p.committed_offset, p.metadata)
                        })
                    });
                    collect(topics.map(|(key, error, offset, metadata)| {
                        (key, error, offset, metadata.map(|m| m.to_string()))
                    }))
                });
                found.insert(id, offsets);
            }
        }
        for group in groups {
            match found.get(group) {
                Some(Err(error)) => self.group_failed(group, error),
                Some(Ok(_)) => {}
                None => {
                    let error = NetError::Malformed {
                        peer: connection.peer().clone(),
                        what: format!("the answer to OffsetFetch lacks group '{group}'"),
                    };
                    found.insert(group.clone(), Err(error));
                }
            }
        }
        Ok(found)
    }

    /// Commits for a group as one that is no member of it: the coordinator takes that from groups without live members only,
    /// and answers the others with UNKNOWN_MEMBER_ID (25) for every partition. Leader epochs are left open. The answer has
    /// each partition's code.
    ///
    /// # Errors
    /// The usual ones of a coordinator and a connection.
    pub async fn commit_offsets(
        &self,
        group: &str,
        offsets: &GroupOffsets,
    ) -> Result<BTreeMap<(String, i32), KafkaError>, NetError> {
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for ((topic, partition), committed) in offsets {
            topics.entry(topic).or_default().push(
                OffsetCommitRequestPartition::default()
                    .with_partition_index(*partition)
                    .with_committed_offset(committed.offset)
                    .with_committed_leader_epoch(-1)
                    .with_committed_metadata(Some(text(&committed.metadata))),
            );
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            OffsetCommitRequestTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(partitions)
        });
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(-1)
            .with_group_instance_id(None)
            .with_topics(topics.collect());
        let broker = self.coordinator(CoordinatorKind::Group, group).await?;
        if let Some(error) = self.away(broker) {
            self.forget_coordinator(CoordinatorKind::Group, group);
            return Err(error);
        }
        let asked = self
            .ask_coordinator(CoordinatorKind::Group, group, request, |answer| {
                let mut codes = answer.topics.iter().flat_map(|t| &t.partitions);
                codes.next().map_or(0, |p| p.error_code)
            })
            .await;
        let (_, answer) = asked.inspect_err(|error| self.went_away(broker, error))?;
        let mut codes = BTreeMap::new();
        for topic in answer.topics {
            let name = topic.name.to_string();
            for p in topic.partitions {
                codes.insert((name.clone(), p.partition_index), KafkaError(p.error_code));
            }
        }
        Ok(codes)
    }

    /// Asks for the coordinator anew after an error that may come from a wrong one.
    fn group_failed(&self, group: &str, error: &NetError) {
        let moved = error.code().is_some_and(|code| {
            code == KafkaError::NOT_COORDINATOR || code == KafkaError::COORDINATOR_NOT_AVAILABLE
        });
        if moved || error.action() == Action::Reconnect {
            self.forget_coordinator(CoordinatorKind::Group, group);
        }
    }
}

fn refused(connection: &Connection, group: &str, code: i16) -> Result<(), NetError> {
    let what = || format!("group '{group}' on {}", connection.peer());
    refusal(code, OffsetFetchRequest::NAME, what, None)
}

/// The answer of a version that takes one group.
fn single(
    connection: &Connection,
    group: &str,
    answer: OffsetFetchResponse,
) -> Result<GroupOffsets, NetError> {
    refused(connection, group, answer.error_code)?;
    let topics = answer.topics.into_iter().flat_map(|topic| {
        let name = topic.name.to_string();
        topic.partitions.into_iter().map(move |p| {
            let metadata = p.metadata.map(|m| m.to_string());
            let key = (name.clone(), p.partition_index);
            (key, p.error_code, p.committed_offset, metadata)
        })
    });
    Ok(collect(topics))
}

/// Partitions with a commit. Those with an error (a topic that is gone, or that Strait's user may not see) have none.
fn collect(
    partitions: impl Iterator<Item = ((String, i32), i16, i64, Option<String>)>,
) -> GroupOffsets {
    partitions
        .filter(|(_, error, offset, _)| *error == 0 && *offset >= 0)
        .map(|(key, _, offset, metadata)| {
            let metadata = metadata.unwrap_or_default();
            (key, CommittedOffset { offset, metadata })
        })
        .collect()
}
