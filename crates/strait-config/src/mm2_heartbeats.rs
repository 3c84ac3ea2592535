//! Heartbeats, as a MirrorMaker 2 file has them.

use crate::heartbeats::{EmitHeartbeats, Heartbeats};
use crate::mm2_file::{Flow, Reading};
use crate::model::LinkConfig;

impl Reading {
    pub(crate) fn read_heartbeats(&mut self, flow: &Flow) -> Option<Heartbeats> {
        let mut heartbeats = Heartbeats {
            emit: EmitHeartbeats::Both,
            ..Heartbeats::default()
        };
        if let Some(entry) = self.flow_entry(flow, "emit.heartbeats.enabled")
            && !self.read_bool(&entry)?
        {
            heartbeats.emit = EmitHeartbeats::Off;
        }
        if let Some(entry) = self.flow_entry(flow, "emit.heartbeats.interval.seconds") {
            let off = "emit.heartbeats.enabled = false";
            heartbeats.interval = self.read_seconds(&entry, off)?;
        }
        if let Some(entry) = self.flow_entry(flow, "heartbeats.topic.replication.factor") {
            heartbeats.replication_factor = self.read_replication(&entry);
        }
        if let Some(entry) = self.flow_entry(flow, "heartbeats.replication.enabled") {
            heartbeats.replicate = self.read_bool(&entry)?;
        }
        Some(heartbeats)
    }

    /// Heartbeats on the source are the other direction's, which runs for them alone unless it is told not to
    /// (`MirrorMakerConfig.clusterPairs`).
    pub(crate) fn keep_off_source(&self, link: &mut LinkConfig) {
        let key = format!("{}->{}.emit.heartbeats.enabled", link.target, link.source);
        let off = self
            .properties
            .get(&key)
            .is_some_and(|entry| entry.value.eq_ignore_ascii_case("false"));
        if off && link.heartbeats.emit == EmitHeartbeats::Both {
            link.heartbeats.emit = EmitHeartbeats::Target;
        }
    }
}
