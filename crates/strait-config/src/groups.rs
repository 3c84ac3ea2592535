//! Which consumer groups a link looks after, and what it does for them on the target.

use std::time::Duration;

use crate::pattern::Pattern;

/// What MirrorMaker 2 (4.x) leaves out by default: `groups.exclude`.
pub const DEFAULT_GROUPS_EXCLUDE: [&str; 3] = ["console-consumer-.*", "connect-.*", "__.*"];
/// How often a TOML link commits translated offsets: what is committed last before a consumer moves is what it is spared.
pub const DEFAULT_SYNC_GROUP_OFFSETS: Duration = Duration::from_secs(5);
/// How often a TOML link writes checkpoints of what has changed.
pub const DEFAULT_EMIT_CHECKPOINTS: Duration = Duration::from_secs(5);
/// How often a TOML link looks for new groups.
pub const DEFAULT_REFRESH_GROUPS: Duration = Duration::from_secs(30);
/// `sync.group.offsets.interval.seconds` and `emit.checkpoints.interval.seconds` of MirrorMaker 2.
pub const MM2_GROUPS_INTERVAL: Duration = Duration::from_secs(60);
/// `refresh.groups.interval.seconds` of MirrorMaker 2.
pub const MM2_REFRESH_GROUPS: Duration = Duration::from_secs(600);

/// Consumer groups of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// Groups with a name that one of these matches as a whole. None select nothing.
    pub includes: Vec<Pattern>,
    /// An exclude wins.
    pub excludes: Vec<Pattern>,
    /// How often to look for new groups. `None`: only at start.
    pub refresh: Option<Duration>,
    /// Whether translated offsets are committed on the target.
    pub sync_offsets: bool,
    /// How often.
    pub sync_interval: Duration,
    /// Whether checkpoints are written on the target.
    pub emit_checkpoints: bool,
    /// How often.
    pub checkpoints_interval: Duration,
    /// For the topic of the checkpoints. `None`: as for Strait's other own topics.
    pub checkpoints_replication_factor: Option<i16>,
}

impl Default for GroupSettings {
    /// Those of a TOML file.
    fn default() -> Self {
        Self {
            includes: compiled(&[".*"]),
            excludes: compiled(&DEFAULT_GROUPS_EXCLUDE),
            refresh: Some(DEFAULT_REFRESH_GROUPS),
            sync_offsets: true,
            sync_interval: DEFAULT_SYNC_GROUP_OFFSETS,
            emit_checkpoints: true,
            checkpoints_interval: DEFAULT_EMIT_CHECKPOINTS,
            checkpoints_replication_factor: None,
        }
    }
}

impl GroupSettings {
    /// Those of a MirrorMaker 2 file.
    pub(crate) fn mm2() -> Self {
        Self {
            refresh: Some(MM2_REFRESH_GROUPS),
            sync_offsets: false,
            sync_interval: MM2_GROUPS_INTERVAL,
            checkpoints_interval: MM2_GROUPS_INTERVAL,
            ..Self::default()
        }
    }

    /// Whether a group of this name is looked after.
    pub fn selects(&self, group: &str) -> bool {
        self.includes.iter().any(|p| p.matches(group))
            && !self.excludes.iter().any(|p| p.leaves_out(group))
    }

    /// Whether there is anything to do for groups at all.
    pub fn wanted(&self) -> bool {
        (self.sync_offsets || self.emit_checkpoints) && !self.includes.is_empty()
    }
}

fn compiled(patterns: &[&str]) -> Vec<Pattern> {
    patterns
        .iter()
        .filter_map(|pattern| Pattern::new(pattern).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_excludes_are_mirror_maker_2s() {
        let groups = GroupSettings::default();
        for group in ["console-consumer-12345", "connect-sink", "__strimzi"] {
            assert!(!groups.selects(group), "{group}");
        }
        for group in ["billing", "my-connect-app", "console"] {
            assert!(groups.selects(group), "{group}");
        }
    }
}
