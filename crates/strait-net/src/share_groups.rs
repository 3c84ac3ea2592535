//! Share groups (KIP-932): where they begin to read, and setting that from outside.

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use kafka_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use kafka_protocol::messages::{
    AlterShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequest, GroupId,
};

use crate::call::Call;
use crate::cluster::{Cluster, Spared};
use crate::connection::Connection;
use crate::coordinator::refusal;
use crate::error::NetError;
use crate::group_coordinators::Answers;
use crate::groups::PATIENCE;
use crate::kafka_error::KafkaError;
use crate::metadata::{text, topic_name};

/// GROUP_ID_NOT_FOUND.
const NO_SUCH_GROUP: i16 = 69;

/// Start offsets of a share group by topic and partition: everything below was taken care of.
pub type ShareOffsets = BTreeMap<(String, i32), i64>;

impl Cluster {
    /// The start offset of each share group on each partition that it has one for, asked like
    /// [`committed_offsets`](Self::committed_offsets). A group that does not exist has none. One group's error is its own.
    pub async fn share_offsets(
        &self,
        groups: &[String],
    ) -> BTreeMap<String, Result<ShareOffsets, NetError>> {
        self.ask_about_groups(Spared::ShareGroups, groups, |cluster, broker, groups| async move {
            cluster.share_offsets_at(broker, &groups).await
        })
        .await
    }

    async fn share_offsets_at(
        &self,
        broker: i32,
        groups: &[String],
    ) -> Result<(Connection, Answers<ShareOffsets>), NetError> {
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
        Ok((connection, found))
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
            .ask_group(Spared::ShareGroups, group, request, |a| a.error_code)
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
