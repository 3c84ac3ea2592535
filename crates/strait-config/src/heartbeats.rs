//! Heartbeats: the signs of life by which MirrorMaker 2's clients see which cluster is mirrored into which.

use std::fmt::Write as _;
use std::time::Duration;

use crate::model::LinkConfig;
use crate::quantity::duration_text;
use crate::table::{Reader, Table};
use crate::toml_file::{read_choice, read_duration, read_replication};

/// MirrorMaker 2's `emit.heartbeats.interval.seconds`.
pub const DEFAULT_HEARTBEATS_INTERVAL: Duration = Duration::from_secs(1);

/// Where heartbeats are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmitHeartbeats {
    /// `A.heartbeats` on the target, kept by Strait itself. Nothing is written to the source, whose credentials are
    /// often read-only.
    #[default]
    Target,
    /// `heartbeats` on both clusters, as MirrorMaker 2 does, and the source's is mirrored as `A.heartbeats`; where
    /// the source may not be written, as [`Self::Target`] there.
    Both,
    /// Nowhere.
    Off,
}

impl EmitHeartbeats {
    fn as_str(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Both => "both",
            Self::Off => "off",
        }
    }
}

/// What a link does about heartbeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeats {
    /// Where they are written.
    pub emit: EmitHeartbeats,
    /// How often; at least a second.
    pub interval: Duration,
    /// For the topics that this link creates for them. `None`: 3, capped at the live brokers. `Some(-1)`: the
    /// broker's default.
    pub replication_factor: Option<i16>,
    /// Whether the source's heartbeat topics are mirrored whatever the selection says.
    pub replicate: bool,
    /// The separator in their names on the target, under identity naming, which has none of its own. `None`: that of MirrorMaker
    /// 2's own topics.
    pub separator: Option<String>,
    /// Whether those on the source are this link's to write; not if a link of the other direction does it.
    pub on_source: bool,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self {
            emit: EmitHeartbeats::default(),
            interval: DEFAULT_HEARTBEATS_INTERVAL,
            replication_factor: None,
            replicate: true,
            separator: None,
            on_source: false,
        }
    }
}

/// The keys of a TOML link.
pub(crate) fn read(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Option<Heartbeats> {
    let mut heartbeats = Heartbeats::default();
    if let Some(field) = table.field(reader, "emit-heartbeats") {
        let all = [
            EmitHeartbeats::Target,
            EmitHeartbeats::Both,
            EmitHeartbeats::Off,
        ];
        heartbeats.emit = read_choice(reader, &field, &all, EmitHeartbeats::as_str)?;
    }
    if let Some(field) = table.field(reader, "heartbeats-interval") {
        let range = Duration::from_secs(1)..=Duration::from_secs(86_400);
        heartbeats.interval = read_duration(reader, &field, range)?;
    }
    if let Some(field) = table.field(reader, "heartbeats-replication-factor") {
        heartbeats.replication_factor = read_replication(reader, &field);
    }
    if let Some(field) = table.field(reader, "replicate-heartbeats") {
        heartbeats.replicate = field.bool(reader)?;
    }
    Some(heartbeats)
}

/// The keys of a TOML link, written out.
pub(crate) fn write(out: &mut String, heartbeats: &Heartbeats) -> std::fmt::Result {
    writeln!(out, "emit-heartbeats = \"{}\"", heartbeats.emit.as_str())?;
    let interval = duration_text(heartbeats.interval);
    writeln!(out, "heartbeats-interval = \"{interval}\"")?;
    match heartbeats.replication_factor {
        Some(factor) => writeln!(out, "heartbeats-replication-factor = {factor}")?,
        None => out.push_str(
            "# heartbeats-replication-factor is not set: 3, capped at the live brokers\n",
        ),
    }
    writeln!(out, "replicate-heartbeats = {}", heartbeats.replicate)
}

/// Sees to it that of several links one writes each heartbeat, and one mirrors each topic of them.
pub(crate) fn settle(links: &mut [LinkConfig]) {
    for index in 0..links.len() {
        let (earlier, rest) = links.split_at_mut(index);
        let Some((link, later)) = rest.split_first_mut() else {
            return;
        };
        for twin in earlier.iter() {
            if (&twin.source, &twin.target) == (&link.source, &link.target) {
                if twin.heartbeats.emit != EmitHeartbeats::Off {
                    link.heartbeats.emit = EmitHeartbeats::Off;
                }
                link.heartbeats.replicate &= !twin.heartbeats.replicate;
            }
        }
        let back = |other: &LinkConfig| {
            (&other.source, &other.target) == (&link.target, &link.source)
                && other.heartbeats.emit == EmitHeartbeats::Both
        };
        let answered = earlier.iter().any(back) || later.iter().any(back);
        link.heartbeats.on_source = link.heartbeats.emit == EmitHeartbeats::Both && !answered;
    }
}

#[cfg(test)]
mod tests {
    use super::{EmitHeartbeats, settle};
    use crate::model::LinkConfig;
    use crate::selection::TopicSelection;

    fn link(source: &str, target: &str, emit: EmitHeartbeats) -> LinkConfig {
        let mut link = LinkConfig::new(source, target, TopicSelection::new(vec![], vec![]));
        link.heartbeats.emit = emit;
        link
    }

    #[test]
    fn each_heartbeat_is_one_links() {
        use EmitHeartbeats::{Both, Off, Target};
        let mut links = [
            link("a", "b", Both),
            link("b", "a", Both),
            link("a", "b", Both),
            link("b", "c", Both),
            link("c", "d", Target),
        ];
        settle(&mut links);
        let settled = links.map(|l| {
            let h = l.heartbeats;
            (h.emit, h.on_source, h.replicate)
        });
        assert_eq!(
            settled,
            [
                (Both, false, true),
                (Both, false, true),
                (Off, false, false),
                (Both, true, true),
                (Target, false, true),
            ]
        );
    }
}
