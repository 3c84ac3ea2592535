//! Whom we talk to, as errors name it.

use std::fmt;
use std::sync::Arc;

/// One end of a connection: a host and port, and, where known, the broker and the cluster's alias.
///
/// Cheap to clone. Its `Display` reads `broker 2 (b.example:9092) of cluster 'east'`, leaving out
/// what is not known.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer(Arc<Inner>);

#[derive(PartialEq, Eq)]
struct Inner {
    cluster: Option<Arc<str>>,
    broker: i32,
    host: String,
    port: u16,
}

impl Peer {
    /// A peer of which only the address is known.
    pub fn address(host: &str, port: u16) -> Self {
        Self(Arc::new(Inner {
            cluster: None,
            broker: -1,
            host: host.to_owned(),
            port,
        }))
    }

    /// A broker of a cluster; `broker` is -1 for a bootstrap address.
    pub fn broker_of(cluster: &Arc<str>, broker: i32, host: &str, port: u16) -> Self {
        Self(Arc::new(Inner {
            cluster: Some(cluster.clone()),
            broker,
            host: host.to_owned(),
            port,
        }))
    }

    /// The broker's node id, or -1 when it is not known (a bootstrap address).
    pub fn broker(&self) -> i32 {
        self.0.broker
    }

    /// The host name or address that was connected to.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The port that was connected to.
    pub fn port(&self) -> u16 {
        self.0.port
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            cluster,
            broker,
            host,
            port,
        } = &*self.0;
        match *broker {
            id if id >= 0 => write!(f, "broker {id} ({host}:{port})")?,
            _ => write!(f, "{host}:{port}")?,
        }
        match cluster {
            Some(alias) => write!(f, " of cluster '{alias}'"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({self})")
    }
}
