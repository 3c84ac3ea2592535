//! What can end a session or a link, in words for the person who has to act.

use strait_net::{Action, NetError};
use thiserror::Error;

/// Why a link's session ended.
#[derive(Debug, Error)]
pub enum SessionError {
    /// Another process took the link over.
    #[error(
        "link {link} was taken over by {}: this process stops and writes nothing more ({why}); \
         if that was not meant, stop the other one and start this one again",
        owner.as_ref().map_or_else(|| "another process".to_owned(), |o| format!("instance '{o}'"))
    )]
    Fenced {
        /// The link.
        link: String,
        /// The owner's instance name, where known.
        owner: Option<String>,
        /// What told us.
        why: String,
    },
    /// Another process runs the link already.
    #[error(
        "link {link} is run by instance '{owner}', which goes on renewing its lease: this process stops and has written nothing; \
         stop the other one first, or start with --take-over to fence it"
    )]
    Owned {
        /// The link.
        link: String,
        /// The owner's instance name.
        owner: String,
    },
    /// Another process on this machine runs the link.
    #[error(
        "link {link} already runs on this machine, in process {pid} (it holds {path}): this process stops and has written nothing; stop the other one first"
    )]
    Locked {
        /// The link.
        link: String,
        /// The lock file.
        path: String,
        /// Its holder.
        pid: String,
    },
    /// The lock file cannot be made.
    #[error(
        "cannot create the lock file {path}: {source}; set state-dir to a directory that can be written"
    )]
    LockFile {
        /// The lock file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The registry or the syncs cannot be read by this version.
    #[error("{topic} offset {offset}: {why}")]
    Registry {
        /// The topic.
        topic: String,
        /// The record's offset.
        offset: i64,
        /// What is wrong.
        why: String,
    },
    /// The link was set up between other clusters.
    #[error(
        "link {link} was set up from cluster {known_source} to cluster {known_target}, but now connects {source_id} to {target_id}: \
         this process stops and has written nothing; check the bootstrap addresses; if a cluster was really replaced, give the link another name and the source another alias"
    )]
    OtherClusters {
        /// The link.
        link: String,
        /// Source id in the registry.
        known_source: String,
        /// Target id in the registry.
        known_target: String,
        /// Source id found.
        source_id: String,
        /// Target id found.
        target_id: String,
    },
    /// MirrorMaker 2 writes what this link would.
    #[error(
        "MirrorMaker 2 still runs: its group {group} on cluster {cluster} has {members} {}: link {link} mirrors nothing, so that no record is written twice; \
         stop MirrorMaker 2, and the link goes on by itself; if these are not its workers, or not for this flow, set takeover-group = \"off\" (`strait check` makes TOML of a properties file or a resource)",
        if *members == 1 { "member" } else { "members" }
    )]
    Mm2Running {
        /// The link.
        link: String,
        /// The target's alias.
        cluster: String,
        /// Connect's group.
        group: String,
        /// Its members.
        members: usize,
    },
    /// One of Strait's own topics cannot be made.
    #[error(
        "cannot create {topic} on the target, where Strait keeps its positions: {error}; {}",
        own_topic_advice(error)
    )]
    OwnTopic {
        /// The topic.
        topic: String,
        /// The answer.
        error: NetError,
    },
    /// One of Strait's own topics cannot be read, or has no leader.
    #[error("cannot use {topic} on cluster {cluster}, where Strait keeps its positions: {why}")]
    Internal {
        /// The target's alias.
        cluster: String,
        /// The topic.
        topic: String,
        /// Why.
        why: String,
        /// Whether Strait's user lacks a right on it.
        denied: bool,
    },
    /// The register of links on the source is another cluster's, and the link forwards only what was produced there.
    #[error(
        "mm2-strait.internal on cluster {cluster}, which is {id}, has at offset {offset} a record of link {link}, which writes to {other}: \
         the topic or the whole cluster is a copy, so that nobody can tell there what links brought from what was produced; \
         this process stops; take forward = \"local\" from this link, or delete that topic if links never wrote to this cluster under the same names"
    )]
    Register {
        /// The source's alias.
        cluster: String,
        /// Its id.
        id: String,
        /// The record's offset.
        offset: i64,
        /// The link it speaks of.
        link: String,
        /// The id of the cluster that link writes to.
        other: String,
    },
    /// The session's producer id or epoch is no longer valid; a new session begins.
    #[error("the session ended: {0}; a new one begins")]
    Lost(String),
    /// A request failed.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl SessionError {
    /// The name under which this kind of failure stands in logs, metrics and the book; it never changes.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Fenced { .. } => "taken-over",
            Self::Owned { .. } => "link-owned",
            Self::Locked { .. } => "link-locked",
            Self::LockFile { .. } => "lock-file",
            Self::Registry { .. } => "registry-unreadable",
            Self::OtherClusters { .. } => "other-clusters",
            Self::Mm2Running { .. } => "mm2-running",
            Self::OwnTopic { .. } => "own-topic",
            Self::Internal { .. } => "own-topic-unavailable",
            Self::Register { .. } => "register-copied",
            Self::Lost(_) => "session-ended",
            Self::Net(error) => error.id(),
        }
    }

    /// Whether Strait's user lacks a right, so that waiting alone does not help.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Internal { denied: true, .. })
    }

    /// Whether a new session may be tried.
    pub fn action(&self) -> Action {
        match self {
            Self::Fenced { .. }
            | Self::Owned { .. }
            | Self::Locked { .. }
            | Self::LockFile { .. }
            | Self::Registry { .. }
            | Self::OtherClusters { .. }
            | Self::Register { .. } => Action::Stop,
            Self::Mm2Running { .. } => Action::Retry,
            Self::Internal { .. } | Self::Lost(_) => Action::Reconnect,
            Self::OwnTopic { error, .. } | Self::Net(error) => error.action(),
        }
    }
}

fn own_topic_advice(error: &NetError) -> &'static str {
    match error.code().map(|code| code.0) {
        Some(38) => {
            "lower internal-replication-factor (offset-syncs.topic.replication.factor in a properties file), or leave it out to have it capped at the live brokers"
        }
        Some(29 | 31) => {
            "give Strait's user Create on the target's topics, or create it yourself with one partition and cleanup.policy=compact"
        }
        Some(44) => {
            "the target's policy refuses it: create it yourself with one partition and cleanup.policy=compact"
        }
        _ => {
            "look at the target's brokers, or create it yourself with one partition and cleanup.policy=compact"
        }
    }
}
