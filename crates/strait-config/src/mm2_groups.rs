//! Consumer groups, as a MirrorMaker 2 file has them.

use crate::groups::{GroupSettings, MM2_REFRESH_GROUPS};
use crate::mm2_file::{Flow, Reading};

impl Reading {
    pub(crate) fn read_groups(&mut self, flow: &Flow) -> Option<GroupSettings> {
        let mut groups = GroupSettings::mm2();
        if let Some(entry) = self.flow_entry(flow, "groups") {
            groups.includes = self.read_patterns(&entry);
        }
        let exclude = self
            .flow_entry(flow, "groups.exclude")
            .or_else(|| self.flow_entry(flow, "groups.blacklist"));
        if let Some(entry) = exclude {
            groups.excludes = self.read_patterns(&entry);
        }
        groups.refresh = self.read_refresh(flow, "groups", MM2_REFRESH_GROUPS);
        if let Some(entry) = self.flow_entry(flow, "emit.checkpoints.enabled") {
            groups.emit_checkpoints = self.read_bool(&entry)?;
        }
        if let Some(entry) = self.flow_entry(flow, "emit.checkpoints.interval.seconds") {
            groups.checkpoints_interval =
                self.read_seconds(&entry, "emit.checkpoints.enabled = false")?;
        }
        if let Some(entry) = self.flow_entry(flow, "checkpoints.topic.replication.factor") {
            groups.checkpoints_replication_factor = Some(self.read_replication(&entry)?);
        }
        if let Some(entry) = self.flow_entry(flow, "sync.group.offsets.enabled") {
            groups.sync_offsets = self.read_bool(&entry)?;
        }
        if let Some(entry) = self.flow_entry(flow, "sync.group.offsets.interval.seconds") {
            groups.sync_interval =
                self.read_seconds(&entry, "sync.group.offsets.enabled = false")?;
        }
        Some(groups)
    }
}
