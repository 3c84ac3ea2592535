//! What goes with a topic beside its records: settings, ACLs, users.

use std::fmt::Write as _;
use std::time::Duration;

use crate::quantity::duration_text;
use crate::table::{Reader, Table};
use crate::toml_file::{read_choice, read_duration};

/// MirrorMaker 2's `sync.topic.acls.interval.seconds`.
pub const DEFAULT_ACLS_INTERVAL: Duration = Duration::from_secs(600);
/// MirrorMaker 2's `sync.topic.configs.interval.seconds`.
pub const MM2_CONFIGS_INTERVAL: Duration = Duration::from_secs(600);

/// Whose defaults hold for a setting that the source topic does not have itself (`use.defaults.from`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultsFrom {
    /// The target's: the setting is taken off the target topic.
    #[default]
    Target,
    /// The source's: its present value is set on the target topic.
    Source,
}

impl DefaultsFrom {
    /// The word in both kinds of files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Source => "source",
        }
    }
}

/// What a link carries beside records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// How often the settings of topics that are there are compared, at the next look for topics. `None`: at every one.
    pub configs_interval: Option<Duration>,
    /// Whose defaults.
    pub defaults_from: DefaultsFrom,
    /// Whether ACLs of topics are copied.
    pub sync_acls: bool,
    /// How often.
    pub acls_interval: Duration,
    /// Whether users and quotas that the target lacks are named.
    pub report_missing_users: bool,
}

impl Default for Beside {
    fn default() -> Self {
        Self {
            configs_interval: None,
            defaults_from: DefaultsFrom::default(),
            sync_acls: false,
            acls_interval: DEFAULT_ACLS_INTERVAL,
            report_missing_users: false,
        }
    }
}

/// The keys of a TOML link.
pub(crate) fn read(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Option<Beside> {
    let mut beside = Beside::default();
    let range = Duration::from_secs(1)..=Duration::from_secs(86_400);
    if let Some(field) = table.field(reader, "sync-topic-configs-interval") {
        beside.configs_interval = Some(read_duration(reader, &field, range.clone())?);
    }
    if let Some(field) = table.field(reader, "config-defaults-from") {
        let all = [DefaultsFrom::Target, DefaultsFrom::Source];
        beside.defaults_from = read_choice(reader, &field, &all, DefaultsFrom::as_str)?;
    }
    if let Some(field) = table.field(reader, "sync-topic-acls") {
        beside.sync_acls = field.bool(reader)?;
    }
    if let Some(field) = table.field(reader, "sync-topic-acls-interval") {
        beside.acls_interval = read_duration(reader, &field, range)?;
    }
    if let Some(field) = table.field(reader, "report-missing-users") {
        beside.report_missing_users = field.bool(reader)?;
    }
    Some(beside)
}

/// The keys of a TOML link, written out.
pub(crate) fn write(out: &mut String, beside: &Beside) -> std::fmt::Result {
    match beside.configs_interval {
        Some(interval) => {
            let interval = duration_text(interval);
            writeln!(out, "sync-topic-configs-interval = \"{interval}\"")?;
        }
        None => {
            out.push_str("# sync-topic-configs-interval is not set: at every look for topics\n")
        }
    }
    let defaults = beside.defaults_from.as_str();
    writeln!(out, "config-defaults-from = \"{defaults}\"")?;
    writeln!(out, "sync-topic-acls = {}", beside.sync_acls)?;
    let interval = duration_text(beside.acls_interval);
    writeln!(out, "sync-topic-acls-interval = \"{interval}\"")?;
    writeln!(
        out,
        "report-missing-users = {}",
        beside.report_missing_users
    )
}
