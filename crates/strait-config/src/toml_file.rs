//! A TOML file: its top level and its links.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::beside;
use crate::check::{self, Place};
use crate::cluster_toml::{Surroundings, read_clusters};
use crate::error::{ConfigError, Problem};
use crate::groups::GroupSettings;
use crate::heartbeats;
use crate::model::{
    AdminConfig, Config, DEFAULT_ADMIN_LISTEN, Forward, Isolation, LinkConfig,
    MAX_FETCH_CONNECTIONS, MIN_MEMORY_BUDGET, Policy, share_memory,
};
use crate::naming::Naming;
use crate::naming_toml::{
    read_forward, read_heartbeats_separator, read_internal_separator, read_names, read_naming,
};
use crate::nearest::nearest;
use crate::pattern::Pattern;
use crate::quantity::{parse_duration, parse_size};
use crate::selection::{DEFAULT_TOPICS_EXCLUDE, TopicSelection};
use crate::start::{StartPosition, StartRules};
use crate::table::{Field, Reader, Table};
use crate::takeover;

const TOP_KEYS: [&str; 5] = ["clusters", "links", "admin", "instance", "state-dir"];
const LINK_KEYS: [&str; 54] = [
    "name",
    "source",
    "target",
    "topics",
    "exclude",
    "naming",
    "separator",
    "internal-separator",
    "names",
    "replication-factor",
    "internal-replication-factor",
    "refresh-topics",
    "sync-topic-configs",
    "config-exclude",
    "start",
    "start-rules",
    "isolation",
    "forward",
    "grow-partitions",
    "connect-timeout",
    "request-timeout",
    "drain-timeout",
    "memory-budget",
    "fetch-connections",
    "on-source-recreated",
    "on-retention-overtook",
    "on-source-truncated",
    "on-target-lost",
    "on-target-recreated",
    "on-target-expired",
    "on-foreign-writer",
    "on-target-has-data",
    "on-refused-record",
    "open-transaction-warning",
    "emit-heartbeats",
    "heartbeats-interval",
    "heartbeats-replication-factor",
    "replicate-heartbeats",
    "sync-topic-configs-interval",
    "config-defaults-from",
    "sync-topic-acls",
    "sync-topic-acls-interval",
    "report-missing-users",
    "takeover-offsets-topic",
    "takeover-group",
    "offset-syncs-on-source",
    "groups",
    "groups-exclude",
    "refresh-groups",
    "sync-group-offsets",
    "sync-group-offsets-interval",
    "emit-checkpoints",
    "emit-checkpoints-interval",
    "checkpoints-replication-factor",
];
const LINK_EXAMPLE: &str =
    "[[links]] and under it source = \"paris\", target = \"tokyo\" and topics = [\"orders.*\"]";
const START_EXAMPLE: &str = "\"earliest\", \"latest\" or a time such as 2026-11-01T00:00:00Z";
const MAX_NAME: usize = 200;

/// Reads and validates the text of a TOML file.
pub(crate) fn read(
    text: &str,
    file: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    let mut reader = Reader::new(text);
    let document = DeTable::parse(text).map_err(|error| {
        let line = error.span().map(|span| reader.line(span.start));
        let why = format!("this is not TOML: {}", error.message().replace('\n', ", "));
        ConfigError::one(file, Problem::at(line, "", why, "Mend this line"))
    })?;
    let around = Surroundings::of(file, env);
    let top = Table::open(&mut reader, "", None, document.get_ref(), &TOP_KEYS);

    let clusters = match top.field(&reader, "clusters") {
        Some(field) => read_clusters(&mut reader, &around, &field),
        None => {
            let example =
                "Write [clusters] and under it one line per cluster, paris = \"paris-1:9092\"";
            top.missing(&mut reader, "clusters", example);
            Default::default()
        }
    };
    let (admin, admin_token_file) = match top.field(&reader, "admin") {
        Some(field) => read_admin(&mut reader, &around, &field).unwrap_or_default(),
        None => Default::default(),
    };
    let instance = top
        .field(&reader, "instance")
        .and_then(|field| read_name(&mut reader, &field));
    let state_dir = top.field(&reader, "state-dir").and_then(|field| {
        Some(around.path(field.string(&mut reader, "state-dir = \"/var/lib/strait\"")?))
    });
    let mut places = Vec::new();
    let mut links = Vec::new();
    let mut own_budget = Vec::new();
    match top.field(&reader, "links") {
        Some(field) => {
            let list = field.array(&mut reader, LINK_EXAMPLE).unwrap_or_default();
            if list.is_empty() && reader.problems.is_empty() {
                let problem = field.problem(
                    "there is nothing to mirror",
                    format!("Write {LINK_EXAMPLE}"),
                );
                reader.problems.push(problem);
            }
            for (index, value) in list.iter().enumerate() {
                let element = field.element(&reader, index, value);
                if let Some(link) = read_link(&mut reader, &element) {
                    let table = element.value.get_ref().as_table();
                    own_budget.push(table.is_some_and(|table| table.contains_key("memory-budget")));
                    links.push(link);
                    places.push(Place {
                        line: Some(element.line),
                        key: element.key,
                    });
                }
            }
        }
        None => top.missing(&mut reader, "links", format!("Write {LINK_EXAMPLE}")),
    }

    share_memory(&mut links, &own_budget);
    heartbeats::settle(&mut links);
    let mut config = Config {
        clusters,
        links,
        admin,
        admin_token_file,
        instance,
        state_dir,
        warnings: Vec::new(),
    };
    if reader.problems.is_empty() {
        reader.problems = check::problems(&config, &places);
    }
    if !reader.problems.is_empty() {
        return Err(ConfigError::new(file, reader.problems));
    }
    config.warnings = check::warnings(&config);
    Ok(config)
}

fn read_admin(
    reader: &mut Reader<'_>,
    around: &Surroundings<'_>,
    field: &Field<'_, '_>,
) -> Option<(AdminConfig, Option<PathBuf>)> {
    let entries = field.table(reader, "[admin] and under it listen = \"127.0.0.1:9464\"")?;
    let known = ["listen", "token-file"];
    let table = Table::open(reader, "admin", Some(field.line), entries, &known);
    let tokens = match table.field(reader, "token-file") {
        Some(entry) => Some(around.path(entry.string(reader, "token-file = \"admin-tokens\"")?)),
        None => None,
    };
    Some((read_listen(reader, &table)?, tokens))
}

fn read_listen(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Option<AdminConfig> {
    let Some(entry) = table.field(reader, "listen") else {
        return Some(AdminConfig {
            listen: Some(DEFAULT_ADMIN_LISTEN),
        });
    };
    let text = entry.string(reader, "listen = \"127.0.0.1:9464\"")?;
    if text == "off" {
        return Some(AdminConfig { listen: None });
    }
    match text.parse::<SocketAddr>() {
        Ok(address) => Some(AdminConfig {
            listen: Some(address),
        }),
        Err(_) => {
            let instead = "Write an IP address and a port, \"127.0.0.1:9464\", or \"off\"";
            reader
                .problems
                .push(entry.problem("this is no address to listen on", instead));
            None
        }
    }
}

fn read_link(reader: &mut Reader<'_>, field: &Field<'_, '_>) -> Option<LinkConfig> {
    let entries = field.table(reader, LINK_EXAMPLE)?;
    let table = Table::open(reader, &field.key, Some(field.line), entries, &LINK_KEYS);
    let source = required(reader, &table, "source");
    let target = required(reader, &table, "target");
    let includes = match table.field(reader, "topics") {
        Some(field) => read_patterns(reader, &field, "topics = [\"orders.*\", \"invoices\"]"),
        None => {
            let instead = "Write topics = [\"orders.*\"], or topics = [\".*\"] for all of them";
            table.missing(reader, "topics", instead);
            None
        }
    };
    let excludes = match table.field(reader, "exclude") {
        Some(field) => read_patterns(reader, &field, "exclude = [\"tmp-.*\"]"),
        None => Some(
            DEFAULT_TOPICS_EXCLUDE
                .iter()
                .filter_map(|p| Pattern::new(p).ok())
                .collect(),
        ),
    };
    let (source, target) = (source?, target?);
    let mut link = LinkConfig::new(
        source,
        target,
        TopicSelection::new(includes?, excludes.unwrap_or_default()),
    );
    if let Some(field) = table.field(reader, "name") {
        link.name = read_name(reader, &field)?;
    }
    link.naming = read_naming(reader, &table)?;
    link.internal_separator = read_internal_separator(reader, &table, &link.naming)?;
    link.names = read_names(reader, &table)?;
    if let Some(field) = table.field(reader, "replication-factor") {
        link.replication_factor = read_replication(reader, &field);
    }
    if let Some(field) = table.field(reader, "internal-replication-factor") {
        link.internal_replication_factor = read_replication(reader, &field);
    }
    if let Some(field) = table.field(reader, "refresh-topics") {
        link.refresh_topics = match field.value.get_ref().as_str() {
            Some("off") => None,
            _ => read_duration(
                reader,
                &field,
                Duration::from_secs(1)..=Duration::from_secs(86_400),
            ),
        };
    }
    if let Some(field) = table.field(reader, "sync-topic-configs") {
        link.sync_topic_configs = field.bool(reader)?;
    }
    if let Some(field) = table.field(reader, "config-exclude") {
        let example = "config-exclude = [\"min.insync.replicas\"]";
        link.config_excludes = read_patterns(reader, &field, example)?;
    }
    link.start = read_start_rules(reader, &table)?;
    if let Some(field) = table.field(reader, "isolation") {
        let all = [Isolation::ReadCommitted, Isolation::ReadUncommitted];
        link.isolation = read_choice(reader, &field, &all, Isolation::as_str)?;
    }
    if let Some(field) = table.field(reader, "grow-partitions") {
        link.grow_partitions = field.bool(reader)?;
    }
    let (least, most) = (Duration::from_millis(100), Duration::from_secs(600));
    if let Some(field) = table.field(reader, "connect-timeout") {
        link.timeouts.connect = read_duration(reader, &field, least..=most)?;
    }
    if let Some(field) = table.field(reader, "request-timeout") {
        link.timeouts.request = read_duration(reader, &field, Duration::from_secs(1)..=most)?;
    }
    if let Some(field) = table.field(reader, "drain-timeout") {
        link.timeouts.drain = read_duration(reader, &field, Duration::ZERO..=most)?;
    }
    if let Some(field) = table.field(reader, "memory-budget") {
        link.memory_budget = read_budget(reader, &field)?;
    }
    if let Some(field) = table.field(reader, "fetch-connections") {
        link.fetch_connections = read_connections(reader, &field)?;
    }
    for (key, go_on, policy) in link.policies.keyed() {
        if let Some(field) = table.field(reader, key) {
            let all = match *policy {
                Policy::GoOn => [Policy::GoOn, Policy::Stop],
                Policy::Stop => [Policy::Stop, Policy::GoOn],
            };
            let name = |policy| match policy {
                Policy::GoOn => go_on,
                Policy::Stop => "stop",
            };
            *policy = read_choice(reader, &field, &all, name)?;
        }
    }
    read_forward(reader, &table, &mut link)?;
    if let Some(field) = table.field(reader, "open-transaction-warning") {
        let range = Duration::from_secs(1)..=Duration::from_secs(86_400);
        link.open_transaction_warning = read_duration(reader, &field, range)?;
    }
    link.heartbeats = heartbeats::read(reader, &table)?;
    if link.naming == Naming::Identity {
        link.heartbeats.separator = read_heartbeats_separator(reader, &table)?;
    }
    link.beside = beside::read(reader, &table)?;
    if link.forward == Forward::Local {
        // A group of the same name on either side may be two that know nothing of each other.
        link.groups.sync_offsets = false;
        link.groups.emit_checkpoints = false;
    }
    read_groups(reader, &table, &mut link.groups)?;
    no_checkpoints(reader, &table, &link)?;
    link.takeover = takeover::read(reader, &table, source)?;
    if let Some(field) = table.field(reader, "offset-syncs-on-source") {
        link.syncs_on_source = field.bool(reader)?;
    }
    Some(link)
}

fn read_groups(
    reader: &mut Reader<'_>,
    table: &Table<'_, '_>,
    groups: &mut GroupSettings,
) -> Option<()> {
    let range = Duration::from_secs(1)..=Duration::from_secs(86_400);
    if let Some(field) = table.field(reader, "groups") {
        groups.includes = read_patterns(reader, &field, "groups = [\"billing\", \"orders-.*\"]")?;
    }
    if let Some(field) = table.field(reader, "groups-exclude") {
        groups.excludes = read_patterns(reader, &field, "groups-exclude = [\"test-.*\"]")?;
    }
    if let Some(field) = table.field(reader, "refresh-groups") {
        groups.refresh = match field.value.get_ref().as_str() {
            Some("off") => None,
            _ => Some(read_duration(reader, &field, range.clone())?),
        };
    }
    if let Some(field) = table.field(reader, "sync-group-offsets") {
        groups.sync_offsets = field.bool(reader)?;
    }
    if let Some(field) = table.field(reader, "sync-group-offsets-interval") {
        groups.sync_interval = read_duration(reader, &field, range.clone())?;
    }
    if let Some(field) = table.field(reader, "emit-checkpoints") {
        groups.emit_checkpoints = field.bool(reader)?;
    }
    if let Some(field) = table.field(reader, "emit-checkpoints-interval") {
        groups.checkpoints_interval = read_duration(reader, &field, range)?;
    }
    if let Some(field) = table.field(reader, "checkpoints-replication-factor") {
        groups.checkpoints_replication_factor = Some(read_replication(reader, &field)?);
    }
    Some(())
}

/// A checkpoint tells one offset of a group on both sides; between links that go both ways it has none that is exact.
fn no_checkpoints(reader: &mut Reader<'_>, table: &Table<'_, '_>, link: &LinkConfig) -> Option<()> {
    if link.forward == Forward::All || !link.groups.emit_checkpoints {
        return Some(());
    }
    let field = table.field(reader, "emit-checkpoints")?;
    let why = "with forward = \"local\" no checkpoints are written: a group goes on at the first record of either side that it has not read, which is no translation of one offset";
    let instead =
        "Leave it out; sync-group-offsets = true commits what groups have read on the other side";
    reader.problems.push(field.problem(why, instead));
    None
}

fn required<'a>(reader: &mut Reader<'_>, table: &Table<'a, '_>, key: &str) -> Option<&'a str> {
    match table.field(reader, key) {
        Some(field) => field.string(reader, "an alias from [clusters], in quotes"),
        None => {
            table.missing(
                reader,
                key,
                format!("Write {key} = and an alias from [clusters], in quotes"),
            );
            None
        }
    }
}

fn read_patterns(
    reader: &mut Reader<'_>,
    field: &Field<'_, '_>,
    example: &str,
) -> Option<Vec<Pattern>> {
    let mut patterns = Vec::new();
    let before = reader.problems.len();
    for (element, text) in field.strings(reader, example)? {
        if text.is_empty() {
            let instead = "Leave it out; an empty list selects nothing";
            reader
                .problems
                .push(element.problem("an empty pattern matches nothing", instead));
        } else if has_bare_comma(text) {
            let parts: Vec<String> = text
                .split(',')
                .map(|part| format!("{:?}", part.trim()))
                .collect();
            let instead = format!("Write [{}]", parts.join(", "));
            reader.problems.push(element.problem(
                "one string is one pattern, and no topic has a comma",
                instead,
            ));
        } else {
            match Pattern::new(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(why) => {
                    let instead = "Write a regular expression that matches the whole name";
                    reader.problems.push(element.problem(why, instead));
                }
            }
        }
    }
    (reader.problems.len() == before).then_some(patterns)
}

/// A comma outside `{1,3}` and `[a,b]`.
pub(crate) fn has_bare_comma(pattern: &str) -> bool {
    let mut depth = 0_usize;
    pattern.chars().any(|c| {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

/// Names become part of transactional ids, record keys and file names.
fn read_name(reader: &mut Reader<'_>, field: &Field<'_, '_>) -> Option<String> {
    let name = field.string(reader, "a name in quotes")?;
    if let Err(why) = check_name(name) {
        reader
            .problems
            .push(field.problem(why, "Choose another name"));
        return None;
    }
    Some(name.to_owned())
}

/// Whether a text can name a link or an instance; the error is a sentence without a full stop.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '>');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
        return Err(format!(
            "a name may have 1 to {MAX_NAME} letters, digits, '.', '_', '-' and '>'"
        ));
    }
    Ok(())
}

pub(crate) fn read_choice<T: Copy>(
    reader: &mut Reader<'_>,
    field: &Field<'_, '_>,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Option<T> {
    let names: Vec<&str> = all.iter().map(|choice| name(*choice)).collect();
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let choices = match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    };
    let text = field.string(reader, &choices)?;
    let found = all.iter().find(|choice| name(**choice) == text);
    if found.is_none() {
        let instead = match nearest(text, names) {
            Some(meant) => format!("Did you mean \"{meant}\"?"),
            None => format!("Write {choices}"),
        };
        reader
            .problems
            .push(field.problem("this is not one of its values", instead));
    }
    found.copied()
}

pub(crate) fn read_replication(reader: &mut Reader<'_>, field: &Field<'_, '_>) -> Option<i16> {
    let value = field.integer(reader, "3")?;
    match i16::try_from(value) {
        Ok(factor) if factor > 0 || factor == -1 => Some(factor),
        _ => {
            let instead = "Write 1 to 32767, or -1 for the broker's default";
            reader
                .problems
                .push(field.problem("no topic can have so many replicas", instead));
            None
        }
    }
}

fn read_connections(reader: &mut Reader<'_>, field: &Field<'_, '_>) -> Option<u8> {
    let value = field.integer(reader, "16")?;
    match u8::try_from(value) {
        Ok(connections @ 1..=MAX_FETCH_CONNECTIONS) => Some(connections),
        _ => {
            let instead = format!("Write 1 to {MAX_FETCH_CONNECTIONS}");
            let why = "so many connections to one broker are of no use";
            reader.problems.push(field.problem(why, instead));
            None
        }
    }
}

pub(crate) fn read_duration(
    reader: &mut Reader<'_>,
    field: &Field<'_, '_>,
    range: RangeInclusive<Duration>,
) -> Option<Duration> {
    let example = "a time with its unit, \"30s\" or \"5m\"";
    let text = field.string(reader, example)?;
    match parse_duration(text) {
        Some(value) if range.contains(&value) => Some(value),
        Some(_) => {
            let show = crate::quantity::duration_text;
            let instead = format!("Write {} to {}", show(*range.start()), show(*range.end()));
            reader
                .problems
                .push(field.problem("this is out of range", instead));
            None
        }
        None => {
            reader
                .problems
                .push(field.problem("this is not a time", format!("Write {example}")));
            None
        }
    }
}

fn read_budget(reader: &mut Reader<'_>, field: &Field<'_, '_>) -> Option<u64> {
    let example = "a size with its unit, \"256MiB\"";
    let text = field.string(reader, example)?;
    match parse_size(text) {
        Some(bytes) if bytes >= MIN_MEMORY_BUDGET => Some(bytes),
        Some(_) => {
            let least = crate::quantity::size_text(MIN_MEMORY_BUDGET);
            let why = "a link cannot work with so little";
            reader
                .problems
                .push(field.problem(why, format!("Write {least} or more")));
            None
        }
        None => {
            reader
                .problems
                .push(field.problem("this is not a size", format!("Write {example}")));
            None
        }
    }
}

fn read_start_rules(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Option<StartRules> {
    let mut start = StartRules::default();
    if let Some(field) = table.field(reader, "start") {
        start.default = read_start(reader, &field)?;
    }
    let Some(field) = table.field(reader, "start-rules") else {
        return Some(start);
    };
    let example = "[{ topics = [\"orders.*\"], start = \"latest\" }]";
    for (index, value) in field.array(reader, example)?.iter().enumerate() {
        let element = field.element(reader, index, value);
        let entries = element.table(reader, example)?;
        let known = ["topics", "start"];
        let rule = Table::open(reader, &element.key, Some(element.line), entries, &known);
        let (Some(topics), Some(position)) =
            (rule.field(reader, "topics"), rule.field(reader, "start"))
        else {
            let key = if rule.field(reader, "topics").is_some() {
                "start"
            } else {
                "topics"
            };
            rule.missing(reader, key, format!("Write {example}"));
            return None;
        };
        let patterns = read_patterns(reader, &topics, "topics = [\"orders.*\"]")?;
        let position = read_start(reader, &position)?;
        start
            .rules
            .extend(patterns.into_iter().map(|pattern| (pattern, position)));
    }
    Some(start)
}

fn read_start(reader: &mut Reader<'_>, field: &Field<'_, '_>) -> Option<StartPosition> {
    let text = match field.value.get_ref() {
        DeValue::Datetime(time) => time.to_string(),
        _ => field.string(reader, START_EXAMPLE)?.to_owned(),
    };
    let found = StartPosition::parse(&text);
    if found.is_none() {
        let why = "this is no place to start from (a time needs its offset, such as Z)";
        reader
            .problems
            .push(field.problem(why, format!("Write {START_EXAMPLE}")));
    }
    found
}
