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

use crate::call::Call;
use crate::cluster::{Cluster, Spared};
use crate::connection::Connection;
use crate::coordinator::refusal;
use crate::error::NetError;
use crate::group_coordinators::Answers;
use crate::kafka_error::KafkaError;
use crate::metadata::{text, topic_name};

/// Time a broker has to answer about groups; it is asked again with the next round.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// From this version on one OffsetFetch takes many groups (KIP-709).
const FETCH_MANY: i16 = 8;
/// From this version on OffsetFetch tells of offsets in transactions that are not finished (KIP-447).
const FETCH_STABLE: i16 = 7;
const UNSTABLE_OFFSET_COMMIT: i16 = 88;
/// From this version on ListGroups tells the groups in some states (KIP-518).
const LIST_STATES: i16 = 4;
/// States of groups that have members, of any protocol.
const WITH_MEMBERS: [&str; 5] = [
    "PreparingRebalance",
    "CompletingRebalance",
    "Assigning",
    "Reconciling",
    "Stable",
];
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
    /// The groups that `broker` coordinates and shows to Strait's user. Who coordinates them is known from then on.
    ///
    /// # Errors
    /// [`NetError::Kafka`] with the broker's code, for instance while it loads its groups; the usual ones of a connection.
    pub async fn list_groups(&self, broker: i32) -> Result<Vec<ListedGroup>, NetError> {
        let asking = async {
            let connection = self.control(broker).await?;
            let request = ListGroupsRequest::default();
            let answer = connection.request(request, PATIENCE).await?;
            Ok((connection, answer))
        };
        let asked = self.sparing(broker, Spared::Everything, asking).await;
        let (connection, answer) = asked?;
        let what = || connection.peer().to_string();
        refusal(answer.error_code, ListGroupsRequest::NAME, what, None)?;
        let groups = answer.groups.into_iter().map(|g| ListedGroup {
            id: g.group_id.to_string(),
            protocol_type: g.protocol_type.to_string(),
            kind: g.group_type.to_string(),
            state: g.group_state.to_string(),
        });
        let groups: Vec<ListedGroup> = groups.collect();
        self.set_groups_of(broker, groups.iter().map(|group| group.id.as_str()));
        Ok(groups)
    }

    /// Those that have members of the groups that `broker` coordinates and shows to Strait's user; nothing where the broker does
    /// not tell (before Kafka 2.6).
    ///
    /// # Errors
    /// As [`Cluster::list_groups`].
    pub async fn groups_with_members(&self, broker: i32) -> Result<Option<Vec<String>>, NetError> {
        let asking = async {
            let connection = self.control(broker).await?;
            let (api, newest) = (ListGroupsRequest::API, ListGroupsRequest::MAX);
            let Ok(version) = connection.version(api, newest, LIST_STATES) else {
                return Ok(None);
            };
            let states = WITH_MEMBERS.map(text).to_vec();
            let request = ListGroupsRequest::default().with_states_filter(states);
            let answer = connection.request_at(request, version, PATIENCE).await?;
            Ok(Some((connection, answer)))
        };
        let asked = self.sparing(broker, Spared::Everything, asking).await?;
        let Some((connection, answer)) = asked else {
            return Ok(None);
        };
        let what = || connection.peer().to_string();
        refusal(answer.error_code, ListGroupsRequest::NAME, what, None)?;
        let groups = answer.groups.into_iter().map(|g| g.group_id.to_string());
        Ok(Some(groups.collect()))
    }

    /// What each group has committed, asked of its coordinator, the coordinators side by side; many groups in one request
    /// where the broker takes that (from Kafka 3.0 on). A group that does not exist has no commits. One group's error is its
    /// own. A broker that cannot be reached fails its groups at once, and is left alone for a while.
    pub async fn committed_offsets(
        &self,
        groups: &[String],
    ) -> BTreeMap<String, Result<GroupOffsets, NetError>> {
        self.ask_committed(groups, false).await
    }

    /// The same for who moves them: a group with offsets in a transaction that is not finished yet has UNSTABLE_OFFSET_COMMIT (88)
    /// for an answer (from Kafka 2.5 on), since a commit now would win over those.
    pub async fn stable_offsets(
        &self,
        groups: &[String],
    ) -> BTreeMap<String, Result<GroupOffsets, NetError>> {
        self.ask_committed(groups, true).await
    }

    async fn ask_committed(&self, groups: &[String], stable: bool) -> Answers<GroupOffsets> {
        self.ask_about_groups(
            Spared::Everything,
            groups,
            move |cluster, broker, groups| async move {
                cluster.committed_at(broker, &groups, stable).await
            },
        )
        .await
    }

    async fn committed_at(
        &self,
        broker: i32,
        groups: &[String],
        stable: bool,
    ) -> Result<(Connection, Answers<GroupOffsets>), NetError> {
        let connection = self.control(broker).await?;
        let version = connection.version(
            OffsetFetchRequest::API,
            OffsetFetchRequest::MAX,
            FETCH_ALL_TOPICS,
        )?;
        let stable = stable && version >= FETCH_STABLE;
        let mut found = BTreeMap::new();
        if version < FETCH_MANY {
            for group in groups {
                let request = OffsetFetchRequest::default()
                    .with_group_id(GroupId(text(group)))
                    .with_require_stable(stable)
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
            let request = OffsetFetchRequest::default()
                .with_groups(asked.collect())
                .with_require_stable(stable);
            let answer = connection.request_at(request, version, PATIENCE).await?;
            for group in answer.groups {
                let id = group.group_id.to_string();
                let offsets = refused(&connection, &id, group.error_code).and_then(|()| {
                    let topics = group.topics.into_iter().flat_map(|topic| {
                        let name = topic.name.to_string();
                        topic.partitions.into_iter().map(move |p| {
                            let key = (name.clone(), p.partition_index);
                            (key, p.error_code, p.committed_offset, p.metadata)
                        })
                    });
                    let told = topics.map(|(key, error, offset, metadata)| {
                        (key, error, offset, metadata.map(|m| m.to_string()))
                    });
                    collect(&connection, &id, told)
                });
                found.insert(id, offsets);
            }
        }
        Ok((connection, found))
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
        let (_, answer) = self
            .ask_group(Spared::Everything, group, request, |answer| {
                let mut codes = answer.topics.iter().flat_map(|t| &t.partitions);
                codes.next().map_or(0, |p| p.error_code)
            })
            .await?;
        let mut codes = BTreeMap::new();
        for topic in answer.topics {
            let name = topic.name.to_string();
            for p in topic.partitions {
                codes.insert((name.clone(), p.partition_index), KafkaError(p.error_code));
            }
        }
        Ok(codes)
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
    collect(connection, group, topics)
}

/// Partitions with a commit. Those with an error (a topic that is gone, or that Strait's user may not see) have none; but of a
/// group whose offsets stand in a transaction nothing is told.
fn collect(
    connection: &Connection,
    group: &str,
    partitions: impl Iterator<Item = ((String, i32), i16, i64, Option<String>)>,
) -> Result<GroupOffsets, NetError> {
    let mut found = GroupOffsets::new();
    for (key, error, offset, metadata) in partitions {
        if error == UNSTABLE_OFFSET_COMMIT {
            refused(connection, group, error)?;
        }
        if error == 0 && offset >= 0 {
            let metadata = metadata.unwrap_or_default();
            found.insert(key, CommittedOffset { offset, metadata });
        }
    }
    Ok(found)
}
