//! Consumer groups: members that read, and what MirrorMaker 2's own client tells of them on another cluster.

use super::error::HarnessError;
use super::oracle::Oracle;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

/// By topic and partition an offset and its metadata.
pub type GroupOffsets = BTreeMap<(String, i32), (i64, String)>;

/// A member of a group that stays until it is told to leave, and commits nothing.
#[derive(Debug)]
pub struct GroupMember {
    oracle: Oracle,
    handle: u64,
}

impl GroupMember {
    /// Leaves the group; returns once it has.
    pub fn leave(self) -> Result<(), HarnessError> {
        self.oracle
            .tell("leave_group", json!({"handle": self.handle}))
    }
}

#[derive(Deserialize)]
struct At {
    topic: String,
    partition: i32,
    offset: i64,
    metadata: String,
}

fn by_partition(offsets: Vec<At>) -> GroupOffsets {
    offsets
        .into_iter()
        .map(|at| ((at.topic, at.partition), (at.offset, at.metadata)))
        .collect()
}

impl Oracle {
    /// Reads as a member of the group from its committed offsets, `count` records at the most or to the end, commits what it
    /// has read, and leaves. Returns the numbers of the workload's records. `reset` is `auto.offset.reset`: with "none" it
    /// fails where there is nothing committed.
    pub fn consume_group(
        &self,
        bootstrap: &str,
        (group, topic): (&str, &str),
        count: u64,
        reset: &str,
    ) -> Result<Vec<u64>, HarnessError> {
        let request = json!({"bootstrap": bootstrap, "group": group, "topic": topic, "count": count, "reset": reset, "protocol": "classic"});
        self.ask("consume_group", request)
    }

    /// A member that has its partitions when this returns. `protocol`: "classic" or "consumer".
    pub fn join_group(
        &self,
        bootstrap: &str,
        (group, topic): (&str, &str),
        protocol: &str,
    ) -> Result<GroupMember, HarnessError> {
        #[derive(Deserialize)]
        struct Joined {
            handle: u64,
        }
        let request = json!({"bootstrap": bootstrap, "group": group, "topic": topic, "reset": "earliest", "protocol": protocol});
        let joined: Joined = self.ask("join_group", request)?;
        Ok(GroupMember {
            oracle: self.clone(),
            handle: joined.handle,
        })
    }

    /// A group's committed offsets with their metadata.
    pub fn committed(&self, bootstrap: &str, group: &str) -> Result<GroupOffsets, HarnessError> {
        let request = json!({"bootstrap": bootstrap, "group": group});
        Ok(by_partition(self.ask("committed_offsets", request)?))
    }

    /// What MirrorMaker 2's `RemoteClusterUtils.translateOffsets` tells of a group of the cluster with the alias `source`.
    pub fn translated_offsets(
        &self,
        target: &str,
        source: &str,
        group: &str,
    ) -> Result<GroupOffsets, HarnessError> {
        let request = json!({"bootstrap": target, "source": source, "group": group});
        Ok(by_partition(self.ask("translated_offsets", request)?))
    }

    /// The topics of checkpoints that MirrorMaker 2's `RemoteClusterUtils.checkpointTopics` finds.
    pub fn checkpoint_topics(&self, target: &str) -> Result<Vec<String>, HarnessError> {
        self.ask("checkpoint_topics", json!({"bootstrap": target}))
    }
}
