//! What goes with topics beside records, as a MirrorMaker 2 file has it.

use crate::beside::{Beside, DefaultsFrom, MM2_CONFIGS_INTERVAL};
use crate::mm2_file::{Flow, Reading, wrong};

impl Reading {
    pub(crate) fn read_beside(&mut self, flow: &Flow) -> Option<Beside> {
        let mut beside = Beside {
            configs_interval: Some(MM2_CONFIGS_INTERVAL),
            sync_acls: true,
            ..Beside::default()
        };
        if let Some(entry) = self.flow_entry(flow, "sync.topic.configs.interval.seconds") {
            let off = "sync.topic.configs.enabled = false";
            beside.configs_interval = Some(self.read_seconds(&entry, off)?);
        }
        if let Some(entry) = self.flow_entry(flow, "use.defaults.from") {
            beside.defaults_from = match self.value_of(&entry)? {
                "source" => DefaultsFrom::Source,
                "target" => DefaultsFrom::Target,
                _ => {
                    let why = "this is not one of its values";
                    self.problems
                        .push(wrong(&entry, why, "Write target or source"));
                    return None;
                }
            };
        }
        if let Some(entry) = self.flow_entry(flow, "sync.topic.acls.enabled") {
            beside.sync_acls = self.read_bool(&entry)?;
        }
        if let Some(entry) = self.flow_entry(flow, "sync.topic.acls.interval.seconds") {
            let off = "sync.topic.acls.enabled = false";
            beside.acls_interval = self.read_seconds(&entry, off)?;
        }
        Some(beside)
    }
}
