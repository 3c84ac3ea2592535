//! OffsetCommit (8), versions 2..9, as a non-member uses it (generation -1, member "").
//!
//! As verified: an unknown group is created; a live group answers 25; a generation without a member 22; offsets are
//! not checked against the log. Deviation: groups have no real members; a test says which are live.

use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::Call;
use crate::cluster::Cluster;
use crate::code;
use crate::groups::Commit;

/// Stores offsets.
pub(super) fn handle(
    cluster: &mut Cluster,
    call: &Call,
    request: &OffsetCommitRequest,
) -> OffsetCommitResponse {
    let group = request.group_id.to_string();
    let live = cluster.groups.get(&group).is_some_and(|g| g.live);
    let whole = if let Some(code) = call.forced_whole() {
        Some(code)
    } else if cluster.coordinator_of(&group) != call.node {
        Some(code::NOT_COORDINATOR)
    } else if live {
        Some(code::UNKNOWN_MEMBER_ID)
    } else if request.generation_id_or_member_epoch >= 0 {
        Some(code::ILLEGAL_GENERATION)
    } else {
        None
    };
    let mut topics = Vec::new();
    for topic in &request.topics {
        let mut rows = Vec::new();
        for wanted in &topic.partitions {
            let known = cluster
                .partition(&topic.name, wanted.partition_index)
                .map(|_| ());
            let outcome = whole.map_or(known, Err);
            if outcome.is_ok() {
                let key = (topic.name.to_string(), wanted.partition_index);
                let commit = Commit {
                    offset: wanted.committed_offset,
                    leader_epoch: wanted.committed_leader_epoch,
                    metadata: wanted
                        .committed_metadata
                        .as_deref()
                        .unwrap_or_default()
                        .to_owned(),
                };
                cluster
                    .groups
                    .entry(group.clone())
                    .or_default()
                    .commits
                    .insert(key, commit);
            }
            rows.push(
                OffsetCommitResponsePartition::default()
                    .with_partition_index(wanted.partition_index)
                    .with_error_code(outcome.err().unwrap_or(code::NONE)),
            );
        }
        topics.push(
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(rows),
        );
    }
    OffsetCommitResponse::default().with_topics(topics)
}
