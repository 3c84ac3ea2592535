//! The one error type of this crate, and what to do about each.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::kafka_error::KafkaError;
use crate::peer::Peer;

/// What a driver should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The same request may succeed on the same connection after a pause.
    Retry,
    /// The connection is gone, or the broker is the wrong one: refresh the metadata, connect again,
    /// then retry.
    Reconnect,
    /// Retrying does not help before somebody changes something.
    Stop,
}

/// Everything that can go wrong between us and a cluster. Cheap to clone, so that one broken
/// connection can tell all who wait on it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// No address of the cluster could be used.
    #[error(
        "cannot reach cluster '{cluster}': tried {tried}; {}", unreachable_hint(*.action, *.mismatch)
    )]
    Unreachable {
        /// The cluster's alias.
        cluster: Arc<str>,
        /// Every address that was tried, each with its cause.
        tried: String,
        /// `Stop` if every single cause needs the operator, otherwise `Reconnect`.
        action: Action,
        /// Whether every single address answered, but not as the settings say that it should.
        mismatch: bool,
    },
    /// The host name has no address.
    #[error("cannot resolve the host name of {peer}: {why}; check the name and this machine's DNS")]
    Resolve {
        /// Whom we wanted to reach.
        peer: Peer,
        /// The resolver's words.
        why: String,
    },
    /// No connection could be made.
    #[error("cannot connect to {peer}: {why}; {}", connect_hint(.peer))]
    Connect {
        /// Whom we wanted to reach.
        peer: Peer,
        /// Short cause, such as `connection refused`.
        why: String,
    },
    /// The connection ended, by either side, before the answer came. The request may or may not
    /// have been carried out.
    #[error("the connection to {peer} is closed: {why}")]
    Closed {
        /// The other end.
        peer: Peer,
        /// Why it ended.
        why: String,
    },
    /// No answer in time; the connection has been closed. The request may or may not have been
    /// carried out.
    #[error(
        "{what} to {peer} had no answer within {}: the broker hangs or is overloaded, or the line to it is cut",
        seconds(.after)
    )]
    TimedOut {
        /// The request, such as `Fetch v12`.
        what: String,
        /// The other end.
        peer: Peer,
        /// The time it was given.
        after: Duration,
    },
    /// The broker answered with an error code.
    #[error("{api} of {what} failed: {code}{}", detail(.message))]
    Kafka {
        /// The code.
        code: KafkaError,
        /// The API's name, such as `CreateTopics`.
        api: &'static str,
        /// What it was about, and where: `topic 'orders' on broker 1 (b:9092) of cluster 'east'`.
        what: String,
        /// The broker's own words, if it sent any.
        message: Option<String>,
    },
    /// The broker refused our credentials, or did not prove that it knows them.
    #[error("SASL {mechanism} authentication with {peer} failed: {why}")]
    Auth {
        /// The other end.
        peer: Peer,
        /// The mechanism in use.
        mechanism: &'static str,
        /// What was wrong, and what to do. Never holds a secret.
        why: String,
    },
    /// TLS could not be set up.
    #[error("TLS with {peer} failed: {why}")]
    Tls {
        /// The other end.
        peer: Peer,
        /// What was wrong, and what to do.
        why: String,
    },
    /// The broker does not offer what is needed.
    #[error("{peer} does not support {what}")]
    Unsupported {
        /// The other end.
        peer: Peer,
        /// The API and versions that are missing.
        what: String,
    },
    /// The other end answers, but speaks something else than the settings say: TLS or not, no Kafka at all. It may
    /// also be a broker that is just starting or stopping behind a proxy.
    #[error("{peer} does not speak as configured: {why}")]
    Mismatch {
        /// The other end.
        peer: Peer,
        /// What it seems to speak, and what to do.
        why: String,
    },
    /// The broker sent something that is not Kafka's protocol; the connection has been closed.
    #[error("{peer} sent an answer that cannot be understood: {what}")]
    Malformed {
        /// The other end.
        peer: Peer,
        /// What was wrong with it.
        what: String,
    },
    /// The guard forbade the write, so nothing of it was carried out; the connection is closed.
    #[error("{what} to {peer} was not sent: the permission to write has lapsed")]
    GuardRefused {
        /// The other end.
        peer: Peer,
        /// The request that was held back.
        what: String,
    },
    /// The cluster's metadata does not list this broker.
    #[error("cluster '{cluster}' has no broker {broker} at present")]
    UnknownBroker {
        /// The cluster's alias.
        cluster: Arc<str>,
        /// The node id that was asked for.
        broker: i32,
    },
    /// An address of this cluster now leads to another cluster.
    #[error(
        "cluster '{cluster}' was {expected} and now answers as {found}: its bootstrap addresses lead to different clusters, or it was replaced; check them, and restart if this is meant"
    )]
    OtherCluster {
        /// The cluster's alias.
        cluster: Arc<str>,
        /// The cluster id seen first.
        expected: String,
        /// The cluster id seen now.
        found: String,
    },
    /// A setting that cannot work: an address without a port, a file that cannot be read.
    #[error("{what}")]
    Invalid {
        /// What is wrong with which setting.
        what: String,
    },
}

impl NetError {
    /// The name under which this kind of failure stands in logs, metrics and the book; it never changes.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "cluster-unreachable",
            Self::Resolve { .. } => "host-unknown",
            Self::Connect { .. } => "connect-failed",
            Self::Closed { .. } => "connection-closed",
            Self::TimedOut { .. } => "timed-out",
            Self::Kafka { .. } => "request-refused",
            Self::Auth { .. } => "login-failed",
            Self::Tls { .. } => "tls-failed",
            Self::Unsupported { .. } => "unsupported",
            Self::Mismatch { .. } => "mismatch",
            Self::Malformed { .. } => "answer-unreadable",
            Self::GuardRefused { .. } => "lease-lapsed",
            Self::UnknownBroker { .. } => "broker-unknown",
            Self::OtherCluster { .. } => "other-cluster",
            Self::Invalid { .. } => "setting-invalid",
        }
    }

    /// What a driver should do: try again here, connect anew, or stop and report.
    pub fn action(&self) -> Action {
        match self {
            Self::Unreachable { action, .. } => *action,
            Self::Kafka { code, .. } => code.action(),
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Closed { .. }
            | Self::TimedOut { .. }
            | Self::Malformed { .. }
            | Self::Mismatch { .. }
            | Self::UnknownBroker { .. } => Action::Reconnect,
            Self::Auth { .. }
            | Self::Tls { .. }
            | Self::Unsupported { .. }
            | Self::GuardRefused { .. }
            | Self::OtherCluster { .. }
            | Self::Invalid { .. } => Action::Stop,
        }
    }

    /// Whether the settings of the cluster do not fit what its addresses speak, as far as can be told from here.
    pub fn is_mismatch(&self) -> bool {
        match self {
            Self::Unreachable { mismatch, .. } => *mismatch,
            Self::Mismatch { .. } | Self::Unsupported { .. } => true,
            _ => false,
        }
    }

    /// The broker's error code, if this is one.
    pub fn code(&self) -> Option<KafkaError> {
        match self {
            Self::Kafka { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// An error code that a broker answered with, without words of its own.
    pub fn kafka(code: i16, api: &'static str, what: impl Into<String>) -> Self {
        Self::Kafka {
            code: KafkaError(code),
            api,
            what: what.into(),
            message: None,
        }
    }

    /// An answer of `peer` to this version of `api` that says something it must not.
    pub fn malformed(peer: &Peer, api: &str, version: i16, why: impl fmt::Display) -> Self {
        Self::Malformed {
            peer: peer.clone(),
            what: format!("the answer to {api} v{version}: {why}"),
        }
    }

    /// The cause alone, for a list of attempts that names the address already.
    pub(crate) fn cause(&self) -> String {
        match self {
            Self::Resolve { why, .. } => format!("cannot resolve the name: {why}"),
            Self::Connect { why, .. } | Self::Closed { why, .. } => why.clone(),
            Self::TimedOut { what, after, .. } => {
                format!(
                    "connected, but {what} had no answer within {}",
                    seconds(after)
                )
            }
            Self::Auth { mechanism, why, .. } => format!("SASL {mechanism}: {why}"),
            Self::Tls { why, .. } => format!("TLS: {why}"),
            Self::Mismatch { why, .. } => why.clone(),
            other => other.to_string(),
        }
    }
}

/// `5 s`, `0.25 s`.
pub(crate) struct Seconds(Duration);

pub(crate) fn seconds(after: &Duration) -> Seconds {
    Seconds(*after)
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}

/// Where every cause is a setting, advice about the network would mislead.
fn unreachable_hint(action: Action, mismatch: bool) -> &'static str {
    match action {
        _ if mismatch => "correct these settings of the cluster",
        Action::Stop => "correct these settings of the cluster",
        _ => {
            "check the bootstrap addresses, that the brokers run, and that no firewall is in between"
        }
    }
}

fn connect_hint(peer: &Peer) -> &'static str {
    if peer.broker() >= 0 {
        "this is the address which the cluster advertises: check that it can be reached from here (advertised.listeners)"
    } else {
        "check the address, that the broker runs, and that no firewall is in between"
    }
}

fn detail(message: &Option<String>) -> String {
    match message.as_deref() {
        None | Some("") => String::new(),
        Some(words) => format!(": {}", words.trim_end_matches('.')),
    }
}
