//! Strait's configuration: TOML and MirrorMaker 2 properties to one validated model.

mod address;
mod error;
mod model;
mod nearest;
mod pattern;
mod quantity;
mod secret;
mod selection;
mod start;
mod table;

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
