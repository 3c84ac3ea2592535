//! What topics are called, as a MirrorMaker 2 file has it: mirrored ones, and MirrorMaker 2's own.

use crate::mm2_file::{Flow, Reading, wrong};
use crate::mm2_keys::Policy;
use crate::naming::{DEFAULT_SEPARATOR, Naming};
use crate::naming_toml::{check_internal_separator, check_separator};

impl Reading {
    /// With what is between the parts of MirrorMaker 2's own topics' names: the separator there as well since Kafka 3.1,
    /// whatever the policy (`DefaultReplicationPolicy.internalSeparator`, KIP-690 and KIP-949).
    pub(crate) fn read_naming(&mut self, flow: &Flow) -> Option<(Naming, String)> {
        let class = self.flow_entry(flow, "replication.policy.class");
        // Any other class has been refused with the rest.
        let identity = class.is_some_and(|c| Policy::of(&c.value) == Some(Policy::Identity));
        let Some(entry) = self.flow_entry(flow, "replication.policy.separator") else {
            let naming = if identity {
                Naming::Identity
            } else {
                Naming::default()
            };
            return Some((naming, DEFAULT_SEPARATOR.to_owned()));
        };
        let separator = self.value_of(&entry)?.to_owned();
        let check = if identity {
            check_internal_separator
        } else {
            check_separator
        };
        if let Err((why, instead)) = check(&separator) {
            self.problems.push(wrong(&entry, why, instead));
            return None;
        }
        let key = "replication.policy.internal.topic.separator.enabled";
        let everywhere = match self.flow_entry(flow, key) {
            Some(entry) => self.read_bool(&entry)?,
            None => true,
        };
        let internal = if everywhere {
            separator.clone()
        } else {
            DEFAULT_SEPARATOR.to_owned()
        };
        let naming = if identity {
            Naming::Identity
        } else {
            Naming::Default { separator }
        };
        Some((naming, internal))
    }
}
