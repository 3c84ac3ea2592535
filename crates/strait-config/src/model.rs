//! The validated model every other part of Strait is given: what to connect to, and what to mirror.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::beside::Beside;
use crate::groups::GroupSettings;
use crate::heartbeats::Heartbeats;
use crate::naming::{DEFAULT_SEPARATOR, Naming};
use crate::pattern::Pattern;
use crate::secret::Secret;
use crate::selection::TopicSelection;
use crate::start::StartRules;
use crate::takeover::Takeover;

/// Where metrics and health are served when nothing else is said: this machine only.
pub const DEFAULT_ADMIN_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// How often a TOML link looks for new topics and partitions. MirrorMaker 2 waits ten minutes, which people take for
/// a fault; one Metadata request each 30 s costs nothing.
pub const DEFAULT_REFRESH_TOPICS: Duration = Duration::from_secs(30);
/// How often a link from a MirrorMaker 2 file does so (`refresh.topics.interval.seconds`, 600).
pub const MM2_REFRESH_TOPICS: Duration = Duration::from_secs(600);
/// Memory that the links of a process which name no budget of their own may hold together in fetched, not yet
/// acknowledged batches.
pub const DEFAULT_MEMORY_BUDGET: u64 = 256 << 20;
/// For [`LinkConfig::open_transaction_warning`].
pub const DEFAULT_OPEN_TRANSACTION_WARNING: Duration = Duration::from_secs(300);
/// The least a link can work with: one broker answer (a batch may be 1 MiB by default, and far larger where allowed)
/// on each side.
pub const MIN_MEMORY_BUDGET: u64 = 16 << 20;
/// Fetch connections to one source broker at the most, over a line with a long round trip.
pub const DEFAULT_FETCH_CONNECTIONS: u8 = 16;
/// The most that [`LinkConfig::fetch_connections`] may be.
pub const MAX_FETCH_CONNECTIONS: u8 = 64;
/// Topic properties that are not copied to the target: MirrorMaker 2's `config.properties.exclude` as of Kafka 4.3.
pub const DEFAULT_CONFIG_EXCLUDES: [&str; 8] = [
    "follower.replication.throttled.replicas",
    "leader.replication.throttled.replicas",
    "message.timestamp.difference.max.ms",
    "log.message.timestamp.before.max.ms",
    "log.message.timestamp.after.max.ms",
    "message.timestamp.type",
    "unclean.leader.election.enable",
    "min.insync.replicas",
];

/// Everything one `strait` process is told. Made by [`crate::load`], which has checked every value and every
/// reference between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The clusters by alias. Each has at least one bootstrap address.
    pub clusters: BTreeMap<String, ClusterConfig>,
    /// The links, in the order of the file. At least one; names are unique; sources and targets are in `clusters`.
    pub links: Vec<LinkConfig>,
    /// Metrics and health over HTTP.
    pub admin: AdminConfig,
    /// Whose tokens open the admin server's endpoints for the selection of topics, to be read with
    /// [`crate::AdminTokens::read`]. `None`: there are no such endpoints.
    pub admin_token_file: Option<PathBuf>,
    /// This process's name in leases. `None`: the caller makes one that is stable for the machine.
    pub instance: Option<String>,
    /// Where lock files are kept. `None`: the caller chooses the platform's place for state.
    pub state_dir: Option<PathBuf>,
    /// What the operator should read once at start; whole sentences, never secrets.
    pub warnings: Vec<String>,
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The name links and remote topics use for it.
    pub alias: String,
    /// `host:port` each, checked; IPv6 hosts in brackets. Not empty.
    pub bootstrap: Vec<String>,
    /// `None`: plaintext.
    pub tls: Option<TlsConfig>,
    /// `None`: no authentication other than a client certificate.
    pub sasl: Option<SaslConfig>,
}

/// TLS towards one cluster. Certificates are always checked against the broker's host name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM files of the authorities to trust. None: those of the system.
    pub ca_files: Vec<PathBuf>,
    /// PEM file of the client's certificate chain; set together with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client's private key; set together with `cert_file`.
    pub key_file: Option<PathBuf>,
}

/// SASL towards one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaslConfig {
    /// How to prove who we are.
    pub mechanism: SaslMechanism,
    /// Not empty.
    pub username: String,
    /// Not empty.
    pub password: Secret,
    /// Where the password was taken from, so that the effective configuration can name it.
    pub password_from: PasswordFrom,
}

/// The SASL mechanisms Strait speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// `PLAIN`: the password itself crosses the line.
    Plain,
    /// `SCRAM-SHA-256`.
    ScramSha256,
    /// `SCRAM-SHA-512`.
    ScramSha512,
}

impl SaslMechanism {
    /// The name on the wire and in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Where a password was taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordFrom {
    /// Written in the configuration file itself.
    Inline,
    /// Read from this file, without its last line end.
    File(PathBuf),
    /// Taken from this environment variable.
    Env(String),
}

/// One direction of mirroring, source to target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Unique; `source->target` unless named otherwise. Part of the `transactional.id` and of every position: a link
    /// that is renamed is another link.
    pub name: String,
    /// Alias in [`Config::clusters`].
    pub source: String,
    /// Alias in [`Config::clusters`], other than `source`.
    pub target: String,
    /// Which source topics are mirrored.
    pub topics: TopicSelection,
    /// What they are called on the target.
    pub naming: Naming,
    /// What stands between the parts of the names of MirrorMaker 2's own topics.
    pub internal_separator: String,
    /// Source topics that have another name on the target than [`naming`](Self::naming) gives them; checked topic
    /// names, no target name twice.
    pub names: BTreeMap<String, String>,
    /// For topics this link creates. `None`: chosen by the mirror and capped at the live brokers, with a warning.
    /// `Some(-1)`: the target broker's default. Anything else is used as it is or refused.
    pub replication_factor: Option<i16>,
    /// The same for the topics Strait keeps its own positions in (`offset-syncs.topic.replication.factor`).
    pub internal_replication_factor: Option<i16>,
    /// How often to look for new topics and partitions. `None`: only at start.
    pub refresh_topics: Option<Duration>,
    /// Whether topic properties are copied at creation and kept in step afterwards.
    pub sync_topic_configs: bool,
    /// Names of topic properties that are not copied; each matches a whole name.
    pub config_excludes: Vec<Pattern>,
    /// Where flows without a position begin.
    pub start: StartRules,
    /// Whether records of aborted transactions are mirrored.
    pub isolation: Isolation,
    /// Whether records that other links brought to the source are mirrored.
    pub forward: Forward,
    /// Whether a target topic is given more partitions when its source grows.
    pub grow_partitions: bool,
    /// Patience with brokers.
    pub timeouts: Timeouts,
    /// Bytes this link may hold in memory; at least [`MIN_MEMORY_BUDGET`].
    pub memory_budget: u64,
    /// Connections to one source broker at the most, beside those for flows that have caught up; how many are opened
    /// depends on the line's round trip. From 1 to [`MAX_FETCH_CONNECTIONS`].
    pub fetch_connections: u8,
    /// Whether a flow goes on or stops where either can be wanted.
    pub policies: Policies,
    /// How long an open transaction on the source may hold a flow back before it is reported.
    pub open_transaction_warning: Duration,
    /// Signs of life, and those of others.
    pub heartbeats: Heartbeats,
    /// What goes with topics beside records.
    pub beside: Beside,
    /// Consumer groups.
    pub groups: GroupSettings,
    /// What MirrorMaker 2 left, to go on from.
    pub takeover: Takeover,
    /// Whether offset syncs are written on the source too, for MirrorMaker 2's readers (`offset-syncs.topic.location`).
    pub syncs_on_source: bool,
}

impl LinkConfig {
    /// A link with every default of a TOML file.
    pub fn new(source: &str, target: &str, topics: TopicSelection) -> Self {
        Self {
            name: default_link_name(source, target),
            source: source.to_owned(),
            target: target.to_owned(),
            topics,
            naming: Naming::default(),
            internal_separator: DEFAULT_SEPARATOR.to_owned(),
            names: BTreeMap::new(),
            replication_factor: None,
            internal_replication_factor: None,
            refresh_topics: Some(DEFAULT_REFRESH_TOPICS),
            sync_topic_configs: true,
            config_excludes: DEFAULT_CONFIG_EXCLUDES
                .iter()
                .filter_map(|p| Pattern::new(p).ok())
                .collect(),
            start: StartRules::default(),
            isolation: Isolation::ReadCommitted,
            forward: Forward::All,
            grow_partitions: true,
            timeouts: Timeouts::default(),
            memory_budget: DEFAULT_MEMORY_BUDGET,
            fetch_connections: DEFAULT_FETCH_CONNECTIONS,
            policies: Policies::default(),
            open_transaction_warning: DEFAULT_OPEN_TRANSACTION_WARNING,
            heartbeats: Heartbeats::default(),
            beside: Beside::default(),
            groups: GroupSettings::default(),
            takeover: Takeover::from(source),
            syncs_on_source: false,
        }
    }

    /// Whether its target topics are declared to be those of other writers too, from the beginning.
    pub(crate) fn shares_targets(&self) -> bool {
        let policies = &self.policies;
        policies.foreign_writer == Policy::GoOn && policies.target_has_data == Policy::GoOn
    }

    /// What a source topic of this name is called on the target. Not checked against Kafka's limit for names.
    pub fn remote_name(&self, topic: &str) -> String {
        match self.names.get(topic) {
            Some(name) => name.clone(),
            None => self.naming.remote_name(&self.source, &self.target, topic),
        }
    }
}

/// Divides [`DEFAULT_MEMORY_BUDGET`] among the links without a budget of their own, whole MiB each, so that a process
/// with many links takes no more than one with a single link.
pub(crate) fn share_memory(links: &mut [LinkConfig], own: &[bool]) {
    let sharing = links.len() - own.iter().filter(|own| **own).count();
    for (index, link) in links.iter_mut().enumerate() {
        if !own.get(index).copied().unwrap_or(false) {
            let share = DEFAULT_MEMORY_BUDGET / (sharing.max(1) as u64);
            link.memory_budget = (share >> 20 << 20).max(MIN_MEMORY_BUDGET);
        }
    }
}

/// The name of a link that was given none: `source->target`, MirrorMaker 2's name for a flow.
pub fn default_link_name(source: &str, target: &str) -> String {
    format!("{source}->{target}")
}

/// Which records of a source partition are visible to the mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Records of aborted transactions are left out, and open transactions are waited for.
    #[default]
    ReadCommitted,
    /// Everything up to the high watermark, aborted records included, as MirrorMaker 2 does by default.
    ReadUncommitted,
}

impl Isolation {
    /// Kafka's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// Which records of the source are mirrored, by who wrote them there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forward {
    /// All.
    #[default]
    All,
    /// Those produced on the source, and none that a link of Strait's brought there: for links that go both ways under
    /// the same names. `policies.foreign_writer` and `policies.target_has_data` go on then: applications write to the
    /// target topics too.
    Local,
}

impl Forward {
    /// The word in a TOML file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Local => "local",
        }
    }
}

/// Whether a flow goes on or stops at something it can go on after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Go on; how depends on what happened.
    GoOn,
    /// Stop the flow until somebody decides.
    Stop,
}

/// One [`Policy`] for each failure after which a flow can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies {
    /// The source topic was deleted and created again. Going on appends the new topic's records.
    pub source_recreated: Policy,
    /// The source deleted records before they were mirrored. Going on leaves a gap.
    pub retention_overtook: Policy,
    /// The source lost records that were mirrored. Going on mirrors what it has in their place.
    pub source_truncated: Policy,
    /// The target lost records that it had acknowledged. Going on mirrors them again.
    pub target_lost: Policy,
    /// The target topic was deleted and created again. Going on mirrors everything again.
    pub target_recreated: Policy,
    /// The target deletes records that were mirrored a moment ago. Going on leaves them deleted.
    pub target_expired: Policy,
    /// Another producer wrote to the target partition. Going on writes beside it.
    pub foreign_writer: Policy,
    /// The target partition holds records, and the flow has no position yet. Going on begins behind them; only where
    /// `foreign_writer` goes on.
    pub target_has_data: Policy,
    /// The target refuses a record. Going on leaves it out.
    pub refused_record: Policy,
}

impl Default for Policies {
    /// Records are never left out, and never mixed with others, unless somebody asked for it.
    fn default() -> Self {
        Self {
            source_recreated: Policy::GoOn,
            retention_overtook: Policy::GoOn,
            source_truncated: Policy::GoOn,
            target_lost: Policy::GoOn,
            target_recreated: Policy::GoOn,
            target_expired: Policy::GoOn,
            foreign_writer: Policy::Stop,
            target_has_data: Policy::Stop,
            refused_record: Policy::Stop,
        }
    }
}

impl Policies {
    /// Each policy with its key in a TOML file and the word for going on there; the other word is `stop`.
    pub(crate) fn keyed(&mut self) -> [(&'static str, &'static str, &mut Policy); 9] {
        [
            (
                "on-source-recreated",
                "continue",
                &mut self.source_recreated,
            ),
            (
                "on-retention-overtook",
                "continue",
                &mut self.retention_overtook,
            ),
            (
                "on-source-truncated",
                "remirror",
                &mut self.source_truncated,
            ),
            ("on-target-lost", "remirror", &mut self.target_lost),
            (
                "on-target-recreated",
                "remirror",
                &mut self.target_recreated,
            ),
            ("on-target-expired", "continue", &mut self.target_expired),
            ("on-foreign-writer", "continue", &mut self.foreign_writer),
            ("on-target-has-data", "continue", &mut self.target_has_data),
            ("on-refused-record", "skip", &mut self.refused_record),
        ]
    }
}

/// Patience with brokers. The terms of the lease between processes are part of the position protocol and cannot be
/// set: two processes that disagreed about them could both write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To resolve and connect, per address; and again for the TLS handshake and each step of the login.
    pub connect: Duration,
    /// For one request to be answered.
    pub request: Duration,
    /// For the drain after SIGTERM or SIGINT, before what is not acknowledged is left to the next start.
    pub drain: Duration,
}

impl Default for Timeouts {
    /// 10 s to connect (Kafka's `socket.connection.setup.timeout.ms`), 30 s to answer (`request.timeout.ms`), 8 s to
    /// drain (so that a stop ends within 10 s).
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            request: Duration::from_secs(30),
            drain: Duration::from_secs(8),
        }
    }
}

/// Metrics and health over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// `None`: off. There is no authentication: an address other than loopback is served to whoever reaches it.
    pub listen: Option<SocketAddr>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: Some(DEFAULT_ADMIN_LISTEN),
        }
    }
}

impl AdminConfig {
    /// What an operator should know about this address, if anything.
    pub(crate) fn warning(&self) -> Option<String> {
        let listen = self.listen.filter(|address| !address.ip().is_loopback())?;
        Some(format!(
            "metrics and health are served on {listen} to whoever reaches it: there is no authentication"
        ))
    }
}

/// The port of Kafka Connect's REST API, which scripts around MirrorMaker 2 talk to.
const CONNECT_PORT: u16 = 8083;

impl Config {
    /// What an operator should know about the admin server.
    pub(crate) fn admin_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::from_iter(self.admin.warning());
        let Some(listen) = self.admin.listen else {
            if self.admin_token_file.is_some() {
                warnings.push(
                    "admin.token-file is of no use while admin.listen is off: nothing is served"
                        .to_owned(),
                );
            }
            return warnings;
        };
        if listen.port() == CONNECT_PORT {
            warnings.push(format!(
                "admin.listen = {listen}: port {CONNECT_PORT} is that of Kafka Connect's REST API; scripts that look for connectors there would talk to Strait"
            ));
        }
        if self.admin_token_file.is_some() && !listen.ip().is_loopback() {
            warnings.push(format!(
                "the tokens of admin.token-file cross the network readable on {listen}: put TLS in front of it"
            ));
        }
        warnings
    }

    /// Takes another token file, and keeps `warnings` true. For the command line, as [`set_admin`](Self::set_admin).
    pub fn set_admin_token_file(&mut self, file: PathBuf) {
        let old = self.admin_warnings();
        self.warnings.retain(|warning| !old.contains(warning));
        self.admin_token_file = Some(file);
        self.warnings.extend(self.admin_warnings());
    }

    /// Takes another address for metrics and health, and keeps `warnings` true. For the command line, because a
    /// MirrorMaker 2 file has no key for it.
    pub fn set_admin(&mut self, admin: AdminConfig) {
        let old = self.admin_warnings();
        self.warnings.retain(|warning| !old.contains(warning));
        self.admin = admin;
        self.warnings.extend(self.admin_warnings());
    }
}
