//! OffsetFetch (9), versions 1..9: one group up to v7, several from v8.
//!
//! Deviation: transactions have no offsets; a test says which groups wait for one.

use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::Call;
use crate::cluster::Cluster;
use crate::code;
use crate::groups::Commit;

/// A transaction has offsets that are not finished.
const UNSTABLE_OFFSET_COMMIT: i16 = 88;

/// A topic with its partitions and what is committed there.
type Found = Vec<(String, Vec<(i32, Option<Commit>)>)>;

/// Reads offsets; -1 where nothing is committed.
pub(super) fn handle(
    cluster: &Cluster,
    call: &Call,
    request: &OffsetFetchRequest,
) -> OffsetFetchResponse {
    let refusal = |group: &str| {
        let elsewhere = cluster.coordinator_of(group) != call.node;
        call.forced_whole().unwrap_or(if elsewhere {
            code::NOT_COORDINATOR
        } else {
            code::NONE
        })
    };
    if call.version < 8 {
        let wanted = request.topics.as_ref().map(|topics| {
            let rows = topics
                .iter()
                .map(|t| (t.name.to_string(), t.partition_indexes.clone()));
            rows.collect()
        });
        let error = refusal(&request.group_id);
        let found = if error == code::NONE {
            find(cluster, &request.group_id, wanted)
        } else {
            Vec::new()
        };
        return OffsetFetchResponse::default()
            .with_error_code(error)
            .with_topics(found.into_iter().map(old_topic).collect());
    }
    let groups = request.groups.iter().map(|group| {
        let wanted = group.topics.as_ref().map(|topics| {
            let rows = topics
                .iter()
                .map(|t| (t.name.to_string(), t.partition_indexes.clone()));
            rows.collect()
        });
        let error = refusal(&group.group_id);
        let found = if error == code::NONE {
            find(cluster, &group.group_id, wanted)
        } else {
            Vec::new()
        };
        OffsetFetchResponseGroup::default()
            .with_group_id(group.group_id.clone())
            .with_error_code(error)
            .with_topics(found.into_iter().map(new_topic).collect())
    });
    let mut groups: Vec<OffsetFetchResponseGroup> = groups.collect();
    let pending = |id: &str| cluster.groups.get(id).is_some_and(|group| group.pending);
    for group in groups.iter_mut().filter(|g| pending(&g.group_id)) {
        let partitions = group.topics.iter_mut().flat_map(|t| &mut t.partitions);
        for partition in partitions.filter(|_| request.require_stable) {
            (partition.committed_offset, partition.error_code) = (-1, UNSTABLE_OFFSET_COMMIT);
        }
    }
    OffsetFetchResponse::default().with_groups(groups)
}

fn find(cluster: &Cluster, group: &str, wanted: Option<Vec<(String, Vec<i32>)>>) -> Found {
    let commits = cluster
        .groups
        .get(group)
        .map(|g| g.commits.clone())
        .unwrap_or_default();
    let wanted = wanted.unwrap_or_else(|| {
        let mut all: Vec<(String, Vec<i32>)> = Vec::new();
        for (topic, partition) in commits.keys() {
            match all.last_mut().filter(|(name, _)| name == topic) {
                Some((_, partitions)) => partitions.push(*partition),
                None => all.push((topic.clone(), vec![*partition])),
            }
        }
        all
    });
    let look_up = |(topic, partitions): (String, Vec<i32>)| {
        let rows = partitions
            .into_iter()
            .map(|p| (p, commits.get(&(topic.clone(), p)).cloned()))
            .collect();
        (topic, rows)
    };
    wanted.into_iter().map(look_up).collect()
}

fn parts(commit: Option<Commit>) -> (i64, i32, StrBytes) {
    commit.map_or((-1, -1, StrBytes::new()), |c| {
        (c.offset, c.leader_epoch, StrBytes::from(c.metadata))
    })
}

fn old_topic((name, rows): (String, Vec<(i32, Option<Commit>)>)) -> OffsetFetchResponseTopic {
    let row = |(index, commit)| {
        let (offset, epoch, metadata) = parts(commit);
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(Some(metadata))
    };
    OffsetFetchResponseTopic::default()
        .with_name(TopicName(StrBytes::from(name)))
        .with_partitions(rows.into_iter().map(row).collect())
}

fn new_topic((name, rows): (String, Vec<(i32, Option<Commit>)>)) -> OffsetFetchResponseTopics {
    let row = |(index, commit)| {
        let (offset, epoch, metadata) = parts(commit);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(Some(metadata))
    };
    OffsetFetchResponseTopics::default()
        .with_name(TopicName(StrBytes::from(name)))
        .with_partitions(rows.into_iter().map(row).collect())
}
