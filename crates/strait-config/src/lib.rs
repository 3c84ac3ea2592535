//! Strait's configuration: TOML, MirrorMaker 2 properties and Strimzi resources to one validated model.
//!
//! [`load`] is the one way in: it tells the kind of file, reads it whole, and either answers a [`Config`] in which
//! every value and every reference is valid, or a [`ConfigError`] that lists everything wrong at once.
//! [`Config::to_toml`] writes the effective configuration, defaults included; [`load`] reads it back as the same model.

mod address;
mod admin_tokens;
mod beside;
mod check;
mod cluster_toml;
mod error;
mod groups;
mod heartbeats;
mod includes;
mod jaas;
mod mm2_beside;
mod mm2_file;
mod mm2_groups;
mod mm2_heartbeats;
mod mm2_keys;
mod mm2_naming;
mod mm2_providers;
mod mm2_security;
mod model;
mod naming;
mod naming_toml;
mod nearest;
mod pattern;
mod properties;
mod quantity;
mod render;
mod secret;
mod selection;
mod start;
mod strimzi_file;
mod table;
mod takeover;
mod toml_file;
mod yaml;

pub use admin_tokens::AdminTokens;
pub use beside::{Beside, DEFAULT_ACLS_INTERVAL, DefaultsFrom, MM2_CONFIGS_INTERVAL};
pub use error::{ConfigError, Problem};
pub use groups::{
    DEFAULT_EMIT_CHECKPOINTS, DEFAULT_GROUPS_EXCLUDE, DEFAULT_REFRESH_GROUPS,
    DEFAULT_SYNC_GROUP_OFFSETS, GroupSettings, MM2_GROUPS_INTERVAL, MM2_REFRESH_GROUPS,
};
pub use heartbeats::{DEFAULT_HEARTBEATS_INTERVAL, EmitHeartbeats, Heartbeats};
pub use includes::{MAX_INCLUDES, MAX_INCLUDES_BYTES, read_includes, read_select};
pub use model::{
    AdminConfig, ClusterConfig, Config, DEFAULT_ADMIN_LISTEN, DEFAULT_CONFIG_EXCLUDES,
    DEFAULT_FETCH_CONNECTIONS, DEFAULT_MEMORY_BUDGET, DEFAULT_OPEN_TRANSACTION_WARNING,
    DEFAULT_REFRESH_TOPICS, Forward, Isolation, LinkConfig, MAX_FETCH_CONNECTIONS,
    MIN_MEMORY_BUDGET, MM2_REFRESH_TOPICS, PasswordFrom, Policies, Policy, SaslConfig,
    SaslMechanism, Timeouts, TlsConfig, default_link_name,
};
pub use naming::{DEFAULT_SEPARATOR, MAX_TOPIC_NAME, Naming, Template, check_topic_name};
pub use pattern::Pattern;
pub use quantity::{parse_duration, parse_size};
pub use secret::Secret;
pub use selection::{DEFAULT_TOPICS_EXCLUDE, TopicSelection};
pub use start::{StartPosition, StartRules};
pub use takeover::Takeover;
pub use toml_file::check_name;

use std::path::Path;

/// Files larger than this are no configuration.
const MAX_FILE: u64 = 1 << 20;

/// Reads and validates a configuration file: TOML, MirrorMaker 2 properties, or Strimzi's `KafkaMirrorMaker2`.
///
/// The kind is told by the extension (`.toml`, `.properties`, `.yaml`), else by the content. Errors name the file, the line, the
/// key, the value, why it cannot stand and what to write instead; all problems are listed at once. Files that the
/// configuration names (certificates, passwords) are read as well; nothing is connected to.
pub fn load(file: &Path) -> Result<Config, ConfigError> {
    load_with(file, &|name| std::env::var(name).ok())
}

/// [`load`] with another environment than the process's.
pub fn load_with(file: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    let whole = |why: String, instead: &str| ConfigError::one(file, Problem::whole(why, instead));
    let unreadable = |error: std::io::Error| {
        whole(
            format!("it cannot be read: {error}"),
            "Name a configuration file that exists and can be read",
        )
    };
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    if size > MAX_FILE {
        return Err(whole(
            format!("it has {size} bytes and is no configuration"),
            "Name a configuration file",
        ));
    }
    let bytes = std::fs::read(file).map_err(unreadable)?;
    let lossy = String::from_utf8_lossy(&bytes);
    match Kind::of(file, &lossy) {
        Some(Kind::Properties) => mm2_file::read(&bytes, file, env),
        Some(Kind::Toml) => match std::str::from_utf8(&bytes) {
            Ok(text) => toml_file::read(text, file, env),
            Err(_) => Err(whole(
                "it is not UTF-8, as TOML must be".to_owned(),
                "Save it as UTF-8",
            )),
        },
        Some(Kind::Strimzi) => match std::str::from_utf8(&bytes) {
            Ok(text) => strimzi_file::read(text, file, env),
            Err(_) => Err(whole(
                "it is not UTF-8, as YAML must be".to_owned(),
                "Save it as UTF-8",
            )),
        },
        None => Err(whole(
            "neither its name nor its content tells what it is".to_owned(),
            "Name it .toml (with [clusters] and [[links]]), .properties (MirrorMaker 2, with clusters = A, B) or .yaml (Strimzi)",
        )),
    }
}

/// The kinds of files people have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Toml,
    Properties,
    Strimzi,
}

impl Kind {
    fn of(file: &Path, text: &str) -> Option<Self> {
        let extension = file
            .extension()
            .and_then(|e| e.to_str())
            .map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("toml") => return Some(Self::Toml),
            Some("properties") => return Some(Self::Properties),
            Some("yaml" | "yml") => return Some(Self::Strimzi),
            _ => {}
        }
        let mut lines = text
            .lines()
            .map(str::trim_start)
            .filter(|line| !line.starts_with(['#', '!']));
        lines.find_map(|line| {
            if line.starts_with("[clusters")
                || line.starts_with("[[links]]")
                || line.starts_with("[admin]")
            {
                Some(Self::Toml)
            } else if line.contains("KafkaMirrorMaker2") {
                Some(Self::Strimzi)
            } else if line.contains(".bootstrap.servers") || line.contains("->") {
                Some(Self::Properties)
            } else {
                None
            }
        })
    }
}
