//! Topic settings the broker obeys, their defaults, and which names and values it accepts.

use std::collections::BTreeMap;

use crate::codec::Codec;

/// `(name, default)` of every topic setting the kit knows. Those it does not act on are stored and described only.
pub(crate) const TOPIC_DEFAULTS: [(&str, &str); 22] = [
    ("cleanup.policy", "delete"),
    ("compression.type", "producer"),
    ("delete.retention.ms", "86400000"),
    ("file.delete.delay.ms", "60000"),
    ("flush.messages", "9223372036854775807"),
    ("flush.ms", "9223372036854775807"),
    ("index.interval.bytes", "4096"),
    ("max.compaction.lag.ms", "9223372036854775807"),
    ("max.message.bytes", "1048588"),
    ("message.timestamp.after.max.ms", "3600000"),
    ("message.timestamp.before.max.ms", "9223372036854775807"),
    ("message.timestamp.type", "CreateTime"),
    ("min.cleanable.dirty.ratio", "0.5"),
    ("min.compaction.lag.ms", "0"),
    ("min.insync.replicas", "1"),
    ("preallocate", "false"),
    ("retention.bytes", "-1"),
    ("retention.ms", "604800000"),
    ("segment.bytes", "1073741824"),
    ("segment.index.bytes", "10485760"),
    ("segment.ms", "604800000"),
    ("unclean.leader.election.enable", "false"),
];

/// Names that take text rather than a number.
const TEXT: [&str; 6] = [
    "cleanup.policy",
    "compression.type",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "preallocate",
    "unclean.leader.election.enable",
];

/// Whether a broker would accept `value` for the topic setting `name`; the text says what is wrong.
pub(crate) fn check(name: &str, value: &str) -> Result<(), String> {
    if !TOPIC_DEFAULTS.iter().any(|(known, _)| *known == name) {
        return Err(format!("Unknown topic config name: {name}"));
    }
    let good = match name {
        "cleanup.policy" => value
            .split(',')
            .all(|policy| policy.is_empty() || policy == "delete" || policy == "compact"),
        "compression.type" => value == "producer" || Codec::from_config(value).is_some(),
        "message.timestamp.type" => value == "CreateTime" || value == "LogAppendTime",
        _ if TEXT.contains(&name) => true,
        _ => value.parse::<i64>().is_ok(),
    };
    if good {
        Ok(())
    } else {
        Err(format!("Invalid value {value} for configuration {name}"))
    }
}

/// The settings of one topic in the form the log uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogSettings {
    pub(crate) max_message_bytes: i64,
    pub(crate) recompress: Option<Codec>,
    pub(crate) append_time: bool,
    pub(crate) before_max_ms: i64,
    pub(crate) after_max_ms: i64,
    pub(crate) compacted: bool,
    pub(crate) deleted: bool,
    pub(crate) retention_ms: i64,
    pub(crate) retention_bytes: i64,
    pub(crate) segment_bytes: i64,
    pub(crate) segment_ms: i64,
    pub(crate) delete_retention_ms: i64,
    pub(crate) min_isr: i64,
}

impl LogSettings {
    /// The settings that the topic's overrides and the broker's defaults amount to.
    pub(crate) fn new(
        overrides: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> Self {
        let text = |name: &str| effective(name, overrides, broker);
        let number = |name: &str| text(name).parse().unwrap_or(i64::MAX);
        let policy = text("cleanup.policy");
        Self {
            max_message_bytes: number("max.message.bytes"),
            recompress: Codec::from_config(&text("compression.type")),
            append_time: text("message.timestamp.type") == "LogAppendTime",
            before_max_ms: number("message.timestamp.before.max.ms"),
            after_max_ms: number("message.timestamp.after.max.ms"),
            compacted: policy.contains("compact"),
            deleted: policy.contains("delete"),
            retention_ms: number("retention.ms"),
            retention_bytes: number("retention.bytes"),
            segment_bytes: number("segment.bytes"),
            segment_ms: number("segment.ms"),
            delete_retention_ms: number("delete.retention.ms"),
            min_isr: number("min.insync.replicas"),
        }
    }
}

/// A setting's value: the topic's own, else the cluster's default, else Kafka's.
pub(crate) fn effective(
    name: &str,
    overrides: &BTreeMap<String, String>,
    broker: &BTreeMap<String, String>,
) -> String {
    let built_in = || {
        TOPIC_DEFAULTS
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| (*v).to_owned())
    };
    overrides
        .get(name)
        .or_else(|| broker.get(name))
        .cloned()
        .or_else(built_in)
        .unwrap_or_default()
}
