//! What each key of a MirrorMaker 2 file means here. Names and defaults are those of Kafka 4.3's
//! `MirrorMakerConfig`, `MirrorConnectorConfig`, `MirrorSourceConfig`, `MirrorCheckpointConfig`,
//! `MirrorHeartbeatConfig` and of Connect's `WorkerConfig` and `ConnectorConfig`, with the older spellings of 3.x.

use crate::mm2_security;
use crate::properties::Scope;

/// Keys that are obeyed, globally and per flow.
pub(crate) const FLOW_KEYS: [&str; 33] = [
    "topics",
    "topics.exclude",
    "topics.blacklist",
    "replication.factor",
    "offset-syncs.topic.replication.factor",
    "refresh.topics.enabled",
    "refresh.topics.interval.seconds",
    "replication.policy.class",
    "replication.policy.separator",
    "replication.policy.internal.topic.separator.enabled",
    "sync.topic.configs.enabled",
    "config.properties.exclude",
    "config.properties.blacklist",
    "enabled",
    "emit.heartbeats.enabled",
    "emit.heartbeats.interval.seconds",
    "heartbeats.topic.replication.factor",
    "heartbeats.replication.enabled",
    "sync.topic.acls.enabled",
    "sync.topic.acls.interval.seconds",
    "sync.topic.configs.interval.seconds",
    "use.defaults.from",
    "groups",
    "groups.exclude",
    "groups.blacklist",
    "refresh.groups.enabled",
    "refresh.groups.interval.seconds",
    "emit.checkpoints.enabled",
    "emit.checkpoints.interval.seconds",
    "checkpoints.topic.replication.factor",
    "sync.group.offsets.enabled",
    "sync.group.offsets.interval.seconds",
    "offset-syncs.topic.location",
];

/// The topic of Connect's worker on the target with the offsets of sources: the global key wins over the cluster's.
pub(crate) const OFFSETS_TOPIC: &str = "offset.storage.topic";
/// Its group there, a key of the target cluster alone.
pub(crate) const WORKER_GROUP: &str = "group.id";

/// Keys that have no meaning here, by whole name.
const NO_EFFECT: [&str; 40] = [
    "tasks.max",
    "tasks.max.enforce",
    "offset.lag.max",
    "emit.offset-syncs.enabled",
    "admin.timeout.ms",
    "consumer.poll.timeout.ms",
    "name",
    "connector.class",
    "client.id",
    "client.rack",
    "client.dns.lookup",
    "group.id",
    "metric.reporters",
    "metric.names.formats",
    "add.source.alias.to.metrics",
    "auto.include.jmx.reporter",
    "dedicated.mode.enable.internal.rest",
    "listeners",
    "bootstrap.servers",
    "plugin.path",
    "plugin.discovery",
    "exactly.once.support",
    "exactly.once.source.support",
    "config.action.reload",
    "connect.protocol",
    "connections.max.idle.ms",
    "request.timeout.ms",
    "receive.buffer.bytes",
    "send.buffer.bytes",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "rebalance.timeout.ms",
    "scheduled.rebalance.max.delay.ms",
    "offsets.storage.topic",
    "emit.heartbeats",
    "use.incremental.alter.configs",
    "connector.plugin.version",
    "key.converter.plugin.version",
    "value.converter.plugin.version",
    "header.converter.plugin.version",
];

/// The same, by beginning: settings of Connect's workers and of clients that Strait does not have.
const NO_EFFECT_UNDER: [&str; 30] = [
    "config.providers.",
    "consumer.",
    "producer.",
    "admin.",
    "source.consumer.",
    "source.producer.",
    "source.admin.",
    "target.consumer.",
    "target.producer.",
    "target.admin.",
    "offset.storage.",
    "config.storage.",
    "status.storage.",
    "offset.flush.",
    "errors.",
    "metrics.",
    "metadata.",
    "listeners.",
    "rest.",
    "worker.",
    "task.",
    "topic.creation.",
    "topic.tracking.",
    "inter.worker.",
    "reconnect.",
    "retry.",
    "socket.",
    "transaction.boundary",
    "access.control.",
    "response.http.",
];

/// What a key is to Strait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Obeyed.
    Used,
    /// Known, and without a counterpart here.
    NoEffect,
    /// Neither MirrorMaker 2 nor Strait knows it.
    Unknown,
    /// Obeying it is not possible, and not obeying it would connect or copy as something else than asked.
    Refused(Refusal),
}

/// Why a key stops the start. Keys of one refusal and one scope are reported together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    Security,
    Transforms,
    Filter,
    ForwardingAdmin,
    Policy,
    Converter,
    Interceptor,
    Alias,
    OtherBrokers,
    EnabledForAll,
}

impl Refusal {
    /// Why, and what to do instead. `alias` is the cluster the key is about, if it is about one.
    pub(crate) fn explain(self, alias: Option<&str>) -> (&'static str, String) {
        match self {
            Self::Security => match alias {
                Some(alias) => (
                    "Strait connects to a cluster in one way and as one user, whatever the flow",
                    format!("Write it for the cluster: {alias}.security.protocol, {alias}.ssl.truststore.location, {alias}.sasl.jaas.config and so on"),
                ),
                None => (
                    "this is about none of the clusters, and to leave it out would connect otherwise than asked",
                    "Write it for a cluster, as A.security.protocol, or for all of them, with nothing before it".to_owned(),
                ),
            },
            Self::Transforms => (
                "Strait forwards record batches as they are and runs no transformations",
                "Remove it, or keep MirrorMaker 2 for this flow".to_owned(),
            ),
            Self::Filter => (
                "filters written in Java cannot be run",
                "Say the same with topics, topics.exclude and config.properties.exclude, and remove it".to_owned(),
            ),
            Self::ForwardingAdmin => (
                "admin classes written in Java cannot be run: topics are created on the target cluster itself",
                "Remove it, or create the topics beforehand by your own means".to_owned(),
            ),
            Self::Policy => (
                "this replication policy is not known here, and topics would be named otherwise than asked",
                "Use org.apache.kafka.connect.mirror.DefaultReplicationPolicy or org.apache.kafka.connect.mirror.IdentityReplicationPolicy".to_owned(),
            ),
            Self::Converter => (
                "Strait forwards bytes as they are and runs no converters",
                "Remove it, or use org.apache.kafka.connect.converters.ByteArrayConverter".to_owned(),
            ),
            Self::Interceptor => (
                "interceptors written in Java cannot be run",
                "Remove it, or keep MirrorMaker 2 for this flow".to_owned(),
            ),
            Self::Alias => (
                "a flow's clusters are those in its name",
                "Rename the cluster in clusters and in the flow's keys instead".to_owned(),
            ),
            Self::OtherBrokers => (
                "Strait connects to a cluster by one list of brokers",
                format!("Put these brokers into {}.bootstrap.servers", alias.unwrap_or("A")),
            ),
            Self::EnabledForAll => (
                "this would enable every flow between every two clusters",
                "Write A->B.enabled = true for each flow that is meant".to_owned(),
            ),
        }
    }
}

/// What one key means. `rest` is the key without its scope; `bootstrap` the brokers of the cluster in scope.
pub(crate) fn meaning(scope: &Scope, rest: &str, value: &str, bootstrap: &str) -> Meaning {
    if let Some(refusal) = refusal(scope, rest, value, bootstrap) {
        return Meaning::Refused(refusal);
    }
    let used = match scope {
        Scope::Global => {
            FLOW_KEYS.contains(&rest)
                || rest == "clusters"
                || rest == "bootstrap.servers"
                || rest == OFFSETS_TOPIC
                || is_reader_key(rest)
        }
        Scope::Flow(..) => FLOW_KEYS.contains(&rest) || is_reader_key(rest),
        Scope::Cluster(_) => {
            rest == "bootstrap.servers"
                || is_worker_key(rest)
                || (rest.starts_with("consumer.") && is_reader_key(rest))
        }
        Scope::UnknownFlow(_) => false,
    };
    let security_off = rest.ends_with("security.protocol");
    let idle = mm2_security::setting(rest).is_some_and(mm2_security::without_effect);
    if is_security(scope, rest) && idle {
        Meaning::NoEffect
    } else if used || security_off || is_security(scope, rest) || is_provider(rest) {
        Meaning::Used
    } else if NO_EFFECT.contains(&rest)
        || NO_EFFECT_UNDER
            .iter()
            .any(|prefix| rest.starts_with(prefix))
        || is_default_class(rest)
        || matches!(scope, Scope::Cluster(_)) && FLOW_KEYS.contains(&rest)
    {
        Meaning::NoEffect
    } else {
        Meaning::Unknown
    }
}

/// Every key with a meaning, to find the one a misspelt key was meant to be.
pub(crate) fn known_keys() -> impl Iterator<Item = &'static str> {
    FLOW_KEYS.into_iter().chain(NO_EFFECT).chain(["clusters"])
}

/// The two settings of the source's consumer that decide what is mirrored.
fn is_reader_key(rest: &str) -> bool {
    let role = rest.strip_prefix("source.").unwrap_or(rest);
    matches!(
        role,
        "consumer.auto.offset.reset" | "consumer.isolation.level"
    )
}

/// Settings of TLS and SASL that are read: a cluster's, and those of all clusters.
fn is_security(scope: &Scope, rest: &str) -> bool {
    match (scope, mm2_security::setting(rest)) {
        (Scope::Cluster(_), Some(_)) => true,
        (Scope::Global, Some(setting)) => setting == rest,
        _ => false,
    }
}

/// Config providers and their classes.
fn is_provider(rest: &str) -> bool {
    rest == "config.providers"
        || (rest.starts_with("config.providers.") && rest.ends_with(".class"))
}

/// The two settings of Connect's worker that tell where MirrorMaker 2 stopped, and whether it did.
pub(crate) fn is_worker_key(rest: &str) -> bool {
    rest == OFFSETS_TOPIC || rest == WORKER_GROUP
}

/// Keys that name a class, refused unless the class is MirrorMaker 2's own default.
fn is_default_class(rest: &str) -> bool {
    rest.ends_with(".filter.class")
        || rest == "forwarding.admin.class"
        || matches!(
            rest,
            "key.converter" | "value.converter" | "header.converter"
        )
        || matches!(rest, "transforms" | "predicates")
        || rest.ends_with("interceptor.classes")
        || matches!(rest, "source.cluster.alias" | "target.cluster.alias")
        || rest.ends_with(".bootstrap.servers")
}

fn refusal(scope: &Scope, rest: &str, value: &str, bootstrap: &str) -> Option<Refusal> {
    // The REST server of Connect is not there to be secured.
    if rest.starts_with("listeners.") || rest.starts_with("admin.listeners") {
        return None;
    }
    let simple = value.rsplit('.').next().unwrap_or(value);
    let has_segment = |segment: &str| {
        rest.split('.').any(|part| part == segment) && !rest.starts_with("replication.policy")
    };
    if is_security(scope, rest) {
        return None;
    }
    if rest.ends_with("security.protocol") && value.eq_ignore_ascii_case("PLAINTEXT") {
        return None;
    }
    if ["security", "ssl", "sasl"]
        .iter()
        .any(|segment| has_segment(segment))
    {
        return Some(Refusal::Security);
    }
    if rest == "transforms" || rest == "predicates" {
        return (!value.is_empty()).then_some(Refusal::Transforms);
    }
    if rest.starts_with("transforms.") || rest.starts_with("predicates.") {
        return Some(Refusal::Transforms);
    }
    if rest.ends_with(".filter.class") {
        let own = [
            "DefaultTopicFilter",
            "DefaultGroupFilter",
            "DefaultConfigPropertyFilter",
        ];
        return (!own.contains(&simple)).then_some(Refusal::Filter);
    }
    if rest == "forwarding.admin.class" {
        return (simple != "ForwardingAdmin").then_some(Refusal::ForwardingAdmin);
    }
    if rest == "replication.policy.class" && !matches!(scope, Scope::Cluster(_)) {
        return Policy::of(value).is_none().then_some(Refusal::Policy);
    }
    if matches!(
        rest,
        "key.converter" | "value.converter" | "header.converter"
    ) {
        return (simple != "ByteArrayConverter").then_some(Refusal::Converter);
    }
    if rest.ends_with("interceptor.classes") {
        return (!value.is_empty()).then_some(Refusal::Interceptor);
    }
    if let Scope::Flow(source, target) = scope {
        let other = (rest == "source.cluster.alias" && value != source)
            || (rest == "target.cluster.alias" && value != target);
        if other {
            return Some(Refusal::Alias);
        }
        if rest.ends_with(".bootstrap.servers") {
            return Some(Refusal::OtherBrokers);
        }
    }
    if matches!(scope, Scope::Cluster(_)) && rest.ends_with(".bootstrap.servers") {
        return (value != bootstrap).then_some(Refusal::OtherBrokers);
    }
    if *scope == Scope::Global && rest == "enabled" {
        return value
            .eq_ignore_ascii_case("true")
            .then_some(Refusal::EnabledForAll);
    }
    None
}

/// The naming policies of MirrorMaker 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Default,
    Identity,
}

impl Policy {
    /// By its class name, with or without the package.
    pub(crate) fn of(class: &str) -> Option<Self> {
        // Strimzi had an identity policy of its own before Kafka had one.
        let strimzi = "io.strimzi.kafka.connect.mirror.IdentityReplicationPolicy";
        if class == strimzi {
            return Some(Self::Identity);
        }
        match class
            .strip_prefix("org.apache.kafka.connect.mirror.")
            .unwrap_or(class)
        {
            "DefaultReplicationPolicy" => Some(Self::Default),
            "IdentityReplicationPolicy" => Some(Self::Identity),
            _ => None,
        }
    }
}
