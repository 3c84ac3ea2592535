//! What a cluster should be like.

use super::install::Version;

/// A user of the SASL listener; every user may log in with PLAIN and with SCRAM-SHA-256 and SCRAM-SHA-512.
#[derive(Clone, Debug)]
pub struct SaslUser {
    /// The user's name.
    pub name: String,
    /// The user's password: test data, printed like any other.
    pub password: String,
}

/// Options of a [`KafkaCluster`](super::KafkaCluster). The default is one 4.3.1 node with a PLAINTEXT listener.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    pub(crate) version: Version,
    pub(crate) nodes: usize,
    pub(crate) properties: Vec<(String, String)>,
    pub(crate) ssl: bool,
    pub(crate) users: Vec<SaslUser>,
    pub(crate) heap: String,
    pub(crate) nice: i32,
    pub(crate) fast: bool,
    pub(crate) advertised: Option<String>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            version: Version::default(),
            nodes: 1,
            properties: Vec::new(),
            ssl: false,
            users: Vec::new(),
            heap: "512m".to_owned(),
            nice: 0,
            fast: false,
            advertised: None,
        }
    }
}

impl KafkaOptions {
    /// One 4.3.1 node with a PLAINTEXT listener, quick to start.
    pub fn new() -> Self {
        Self::default()
    }

    /// The release to run.
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// The number of nodes, each broker and controller in one; at least 1. Killing the majority of a larger cluster
    /// leaves the rest without a controller.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes.max(1);
        self
    }

    /// A property of every node's `server.properties`; wins over what the harness sets by itself.
    #[must_use]
    pub fn property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((key.into(), value.into()));
        self
    }

    /// Adds an SSL listener: a certificate for `localhost` and 127.0.0.1 from a certificate authority of its own, see
    /// [`KafkaCluster::ca_file`](super::KafkaCluster::ca_file). With users, adds a SASL_SSL listener too.
    #[must_use]
    pub fn ssl(mut self) -> Self {
        self.ssl = true;
        self
    }

    /// Adds a SASL_PLAINTEXT listener (once) and a user of it. Neither may contain quotes, commas or brackets.
    #[must_use]
    pub fn sasl_user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.users.push(SaslUser {
            name: name.into(),
            password: password.into(),
        });
        self
    }

    /// The JVM's `-Xmx`, for example `1g`; 512m unless set.
    #[must_use]
    pub fn heap(mut self, heap: impl Into<String>) -> Self {
        self.heap = heap.into();
        self
    }

    /// Runs the nodes at this niceness (0..=19), so that they do not starve the test beside them.
    #[must_use]
    pub fn nice(mut self, nice: i32) -> Self {
        self.nice = nice;
        self
    }

    /// Lets the JVM compile for peak speed instead of quick start-up: for measurements.
    #[must_use]
    pub fn peak_speed(mut self) -> Self {
        self.fast = true;
        self
    }

    /// Listens on every address and advertises `host` to clients, for nodes that are reached from another network namespace.
    #[must_use]
    pub fn advertise(mut self, host: impl Into<String>) -> Self {
        self.advertised = Some(host.into());
        self
    }
}
