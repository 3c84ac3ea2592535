//! The handle of an in-memory cluster's broker: connections from outside, white-box access for tests.

mod replication;
mod topics;
mod view;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpListener;

use crate::changes::{Changes, Waiter};
use crate::cluster::Cluster;
use crate::config::BrokerConfig;
use crate::fault::{FaultPlan, Seen};
use crate::server;

/// Bytes in flight in each direction of an in-memory connection.
const DUPLEX_BYTES: usize = 256 << 10;
/// Requests kept for [`Broker::requests`].
const REQUESTS_KEPT: usize = 10_000;

/// One request a broker has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenRequest {
    /// When, by the cluster's clock.
    pub at_ms: i64,
    /// The node that received it.
    pub node: i32,
    /// Its API key.
    pub api: i16,
    /// Its version.
    pub version: i16,
}

/// State shared by all handles and connections of a cluster.
pub(crate) struct Shared {
    cluster: Mutex<Cluster>,
    requests: Mutex<VecDeque<SeenRequest>>,
    config: BrokerConfig,
    faults: FaultPlan,
    changed: Arc<Changes>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state at the present time, after everything that was due, and tells whoever waits.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Cluster, i64) -> T) -> T {
        let now_ms = self.now_ms();
        let mut cluster = self.lock();
        let due = cluster.run_due(now_ms);
        let before = cluster.touched;
        let out = change(&mut cluster, now_ms);
        let changed = due || cluster.touched != before;
        drop(cluster);
        if changed {
            self.tell();
        }
        out
    }

    pub(crate) fn tell(&self) {
        self.changed.tell();
    }

    pub(crate) fn changes(&self) -> Waiter {
        Changes::waiter(&self.changed)
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.config.clock.now_ms()
    }

    pub(crate) fn config(&self) -> &BrokerConfig {
        &self.config
    }

    pub(crate) fn faults(&self) -> &FaultPlan {
        &self.faults
    }

    pub(crate) fn note_request(&self, node: i32, api: i16, version: i16) {
        let mut seen = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() == REQUESTS_KEPT {
            seen.pop_front();
        }
        seen.push_back(SeenRequest {
            at_ms: self.now_ms(),
            node,
            api,
            version,
        });
    }
}

/// One broker of an in-memory cluster. Clones, and the handles of the other nodes, share the cluster.
///
/// Methods about topics act on the whole cluster; methods about connections act on this node.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
    node: i32,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("cluster", &self.shared.config.cluster_id)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Connections.
impl Broker {
    /// A new, empty cluster; the handle is that of its first node.
    #[must_use]
    pub fn new(config: BrokerConfig) -> Self {
        let node = config.node_id;
        Self {
            shared: Arc::new(Shared {
                faults: FaultPlan::new(config.seed),
                requests: Mutex::new(VecDeque::new()),
                cluster: Mutex::new(Cluster::new(config.clone())),
                config,
                changed: Arc::default(),
            }),
            node,
        }
    }

    /// The handles of all nodes, by rising id.
    #[must_use]
    pub fn nodes(&self) -> Vec<Self> {
        let ids: Vec<i32> = self.shared.lock().nodes.keys().copied().collect();
        let handle = |node| Self {
            shared: Arc::clone(&self.shared),
            node,
        };
        ids.into_iter().map(handle).collect()
    }

    /// The handle of another node, if there is one with this id.
    #[must_use]
    pub fn node(&self, id: i32) -> Option<Self> {
        self.nodes().into_iter().find(|broker| broker.node == id)
    }

    /// This node's id.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.node
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> String {
        self.shared.config.cluster_id.clone()
    }

    /// The address this node advertises.
    #[must_use]
    pub fn address(&self) -> (String, u16) {
        let cluster = self.shared.lock();
        let node = cluster.nodes.get(&self.node);
        node.map_or_else(Default::default, |n| (n.host.clone(), n.port))
    }

    /// Makes this node advertise another address.
    pub fn set_address(&self, host: &str, port: u16) {
        self.change_node(|node| {
            host.clone_into(&mut node.host);
            node.port = port;
        });
    }

    /// The node of this cluster that advertises an address: what a simulated network asks.
    #[must_use]
    pub fn at_address(&self, host: &str, port: u16) -> Option<Self> {
        self.nodes()
            .into_iter()
            .find(|broker| broker.address() == (host.to_owned(), port))
    }

    /// Accepts TCP connections for this node at `addr` (port 0: any) and advertises that address.
    ///
    /// # Errors
    /// When the address cannot be bound. Needs a tokio runtime; the listener lives as long as that.
    pub async fn listen(&self, addr: &str) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(addr).await?;
        let local = listener.local_addr()?;
        self.set_address(&local.ip().to_string(), local.port());
        let broker = self.clone();
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                if broker.accepts() {
                    spawn(broker.serve(stream));
                }
            }
        });
        Ok(local)
    }

    /// Opens an in-memory connection to this node, served on the present runtime.
    ///
    /// # Errors
    /// `ConnectionRefused` while the node is offline or a rule refuses connections.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        if !self.accepts() {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        }
        let (client, server) = tokio::io::duplex(DUPLEX_BYTES);
        spawn(self.serve(server));
        Ok(client)
    }

    /// Serves one connection of this node until it ends; it ends at once when the node is or goes offline.
    pub fn serve<S>(&self, stream: S) -> impl Future<Output = ()> + Send + 'static
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        server::serve(Arc::clone(&self.shared), self.node, stream)
    }

    fn accepts(&self) -> bool {
        let online = self
            .shared
            .lock()
            .nodes
            .get(&self.node)
            .is_some_and(|n| n.online);
        let seen = Seen {
            api: None,
            node: self.node,
            targets: &[],
        };
        online && self.faults().decide(&seen).is_none()
    }

    /// The cluster's fault rules.
    #[must_use]
    pub fn faults(&self) -> FaultPlan {
        self.shared.faults.clone()
    }

    /// Stops (false) or starts this node: connections are cut and refused, Metadata no longer lists it.
    /// Leadership does not move by itself; see [`Self::elect`] and [`Self::set_leaderless`].
    pub fn set_online(&self, online: bool) {
        self.change_node(|node| {
            node.online = online;
            node.generation += 1;
        });
    }

    /// Cuts all connections of this node; new ones are accepted.
    pub fn cut_connections(&self) {
        self.change_node(|node| node.generation += 1);
    }

    /// Makes this node stop handling requests (they stay in the connection) until [`Self::resume`].
    pub fn pause(&self) {
        self.change_node(|node| node.paused = true);
    }

    /// Ends [`Self::pause`].
    pub fn resume(&self) {
        self.change_node(|node| node.paused = false);
    }

    fn change_node(&self, change: impl FnOnce(&mut crate::cluster::Node)) {
        if let Some(node) = self.shared.lock().nodes.get_mut(&self.node) {
            change(node);
        }
        self.shared.tell();
    }

    /// The last 10,000 requests of all nodes, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<SeenRequest> {
        let seen = self
            .shared
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.iter().copied().collect()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the kit serves its own connections"
)]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
