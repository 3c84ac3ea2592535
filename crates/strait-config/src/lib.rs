//! Strait's configuration: TOML and MirrorMaker 2 properties to one validated model.
//!
//! [`load`] is the one way in: it tells the kind of file, reads it whole, and either answers a [`Config`] in which
//! every value and every reference is valid, or a [`ConfigError`] that lists everything wrong at once.
//! [`Config::to_toml`] writes the effective configuration, defaults included; [`load`] reads it back as the same model.

mod address;
mod check;
mod cluster_toml;
mod error;
mod model;
mod nearest;
mod pattern;
mod quantity;
mod secret;
mod selection;
mod start;
mod table;
mod toml_file;

pub use error::{ConfigError, Problem};
pub use model::{
    AdminConfig, ClusterConfig, Config, DEFAULT_ADMIN_LISTEN, DEFAULT_CONFIG_EXCLUDES,
    DEFAULT_MEMORY_BUDGET, DEFAULT_REFRESH_TOPICS, DEFAULT_SEPARATOR, Isolation, LinkConfig,
    MIN_MEMORY_BUDGET, MM2_REFRESH_TOPICS, Naming, PasswordFrom, SaslConfig, SaslMechanism,
    Timeouts, TlsConfig, default_link_name,
};
pub use pattern::Pattern;
pub use secret::Secret;
pub use selection::{DEFAULT_TOPICS_EXCLUDE, TopicSelection};
pub use start::{StartPosition, StartRules};

use std::path::Path;

/// Reads and validates a configuration file, TOML or MirrorMaker 2 properties.
///
/// Errors name the file, the line, the key, the value, why it cannot stand and what to write instead; all problems
/// are listed at once. Files that the configuration names (certificates, passwords) are read as well; nothing is
/// connected to.
pub fn load(file: &Path) -> Result<Config, ConfigError> {
    load_with(file, &|name| std::env::var(name).ok())
}

/// [`load`] with another environment than the process's.
pub fn load_with(file: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        ConfigError::one(
            file,
            Problem::whole(format!("it cannot be read: {error}"), ""),
        )
    })?;
    toml_file::read(&text, file, env)
}
