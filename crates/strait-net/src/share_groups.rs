//! Share groups (KIP-932): where they begin to read, and setting that from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use kafka_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use kafka_protocol::messages::{
    AlterShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequest, GroupId,
};

use crate::call::Call;
use crate::cluster::Cluster;
use crate::coordinator::{CoordinatorKind, refusal};
use crate::error::{Action, NetError};
use crate::kafka_error::KafkaError;
use crate::metadata::{text, topic_name};

/// Groups that are asked about in one request.
const GROUPS_PER_REQUEST: usize = 100;
/// Time a broker has to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// GROUP_ID_NOT_FOUND.
const NO_SUCH_GROUP: i16 = 69;

/// Start offsets of a share group by topic and partition: everything below was taken care of.
pub type ShareOffsets = BTreeMap<(String, i32), i64>;

impl Cluster {
    /// The start offset of each share group on each partition that it has one for. A group that does not exist has none. One
    /// group's error is its own.
    pub async fn share_offsets(
        &self,
        groups: &[String],
    ) -> BTreeMap<String, Result<ShareOffsets, NetError>> {
        let mut found = BTreeMap::new();
        let mut by_broker: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        for (group, broker) in self.coordinators(CoordinatorKind::Group, groups).await {
            match broker {
                Ok(broker) => by_broker.entry(broker).or_default().push(group),
                Err(error) => drop(found.insert(group, Err(error))),
            }
        }
        for (broker, groups) in by_broker {
            for groups in groups.chunks(GROUPS_PER_REQUEST) {
                let answers = match self.away(broker) {
                    Some(error) => Err(error),
                    None => self.share_offsets_at(broker, groups).await,
                };
                let error = match answers {
                    Ok(answers) => {
                        found.extend(answers);
                        continue;
                    }
                    Err(error) => error,
                };
                self.went_away(broker, &error);
                for group in groups {
                    if error.action() == Action::Reconnect {
                        self.forget_coordinator(CoordinatorKind::Group, group);
                    }
                    found.insert(group.clone(), Err(error.clone()));
                }
            }
        }
        found
    }

    async fn share_offsets_at(
        &self,
        broker: i32,
        groups: &[String],
    ) -> Result<BTreeMap<String, Result<ShareOffsets, NetError>>, NetError> {
        let connection = self.control(broker).await?;
        let asked = groups.iter().map(|group| {
            DescribeShareGroupOffsetsRequestGroup::default()
                .with_group_id(GroupId(text(group)))
                .with_topics(None)
        });
        let request = DescribeShareGroupOffsetsRequest::default().with_groups(asked.collect());
        let answer = connection.request(request, PATIENCE).await?;
        let mut found = BTreeMap::new();
        for group in answer.groups {
            let id = group.group_id.to_string();
            if KafkaError(group.error_code) == KafkaError::NOT_COORDINATOR {
                self.forget_coordinator(CoordinatorKind::Group, &id);
            }
            let what = || format!("group '{id}' on {}", connection.peer());
            let name = DescribeShareGroupOffsetsRequest::NAME;
            let code = match group.error_code {
                NO_SUCH_GROUP => 0,
                code => code,
            };
            let offsets = refusal(code, name, what, group.error_message).map(|()| {
                let topics = group.topics.into_iter().flat_map(|topic| {
                    let name = topic.topic_name.to_string();
                    let partitions = topic.partitions.into_iter();
                    let known = partitions.filter(|p| p.error_code == 0 && p.start_offset >= 0);
                    known.map(move |p| ((name.clone(), p.partition_index), p.start_offset))
                });
                topics.collect()
            });
            found.insert(id, offsets);
        }
        if let Some(group) = groups.iter().find(|group| !found.contains_key(*group)) {
            return Err(NetError::Malformed {
                peer: connection.peer().clone(),
                what: format!("the answer to DescribeShareGroupOffsets lacks group '{group}'"),
            });
        }
        Ok(found)
    }

    /// Sets where a share group without members begins to read; the coordinator refuses others with NON_EMPTY_GROUP (68). A
    /// group that does not exist is created by it. The answer has each partition's code.
    ///
    /// # Errors
    /// The group's code; the usual ones of a coordinator and a connection.
    pub async fn alter_share_offsets(
        &self,
        group: &str,
        offsets: &ShareOffsets,
    ) -> Result<BTreeMap<(String, i32), KafkaError>, NetError> {
        let mut topics: BTreeMap<&str, Vec<AlterShareGroupOffsetsRequestPartition>> =
            BTreeMap::new();
        for ((topic, partition), offset) in offsets {
            topics.entry(topic).or_default().push(
                AlterShareGroupOffsetsRequestPartition::default()
                    .with_partition_index(*partition)
                    .with_start_offset(*offset),
            );
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            AlterShareGroupOffsetsRequestTopic::default()
                .with_topic_name(topic_name(topic))
                .with_partitions(partitions)
        });
        let request = AlterShareGroupOffsetsRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_topics(topics.collect());
        let (connection, answer) = self
            .ask_coordinator(CoordinatorKind::Group, group, request, |a| a.error_code)
            .await?;
        let what = || format!("group '{group}' on {}", connection.peer());
        let name = AlterShareGroupOffsetsRequest::NAME;
        refusal(answer.error_code, name, what, answer.error_message)?;
        let mut codes = BTreeMap::new();
        for topic in answer.responses {
            let name = topic.topic_name.to_string();
            for p in topic.partitions {
                codes.insert((name.clone(), p.partition_index), KafkaError(p.error_code));
            }
        }
        Ok(codes)
    }
}
