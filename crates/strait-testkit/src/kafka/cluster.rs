//! A cluster of real Kafka nodes.

use super::error::HarnessError;
use super::install::{Install, KEYSTORE_PASSWORD};
use super::node::{Launch, Node, Ports};
use super::options::KafkaOptions;
use super::ports::Port;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// A running cluster. Nodes are counted from 0 (their `node.id` from 1). They are killed, and their data removed, when
/// the value is dropped or the process ends, unless `STRAIT_KAFKA_KEEP` is set in the environment (then the data stays).
#[derive(Debug)]
pub struct KafkaCluster {
    cluster_id: String,
    nodes: Vec<Mutex<Node>>,
    launch: Launch,
    ssl: bool,
    /// After the nodes: they die before their data goes.
    dir: Option<TempDir>,
}

impl KafkaCluster {
    /// Starts a cluster and waits until every broker in it is ready for produce and fetch requests.
    pub fn start(options: KafkaOptions) -> Result<Self, HarnessError> {
        let cluster = Self::spawn(options)?;
        cluster.ready()?;
        Ok(cluster)
    }

    /// Starts several clusters at once, in little more than the time of one.
    pub fn start_all<const N: usize>(
        options: [KafkaOptions; N],
    ) -> Result<[Self; N], HarnessError> {
        let mut clusters = Vec::with_capacity(N);
        for options in options {
            clusters.push(Self::spawn(options)?);
        }
        clusters.iter().try_for_each(Self::ready)?;
        clusters.try_into().map_err(|_| HarnessError::NodeState {
            node: 0,
            state: "not running",
        })
    }

    /// Two 4.3.1 clusters of one node each, a source and a target: started at the first call, the same for every test
    /// of the binary. Tests that stop nodes start clusters of their own instead.
    pub fn shared_pair() -> Result<&'static [Self; 2], HarnessError> {
        static PAIR: Mutex<Option<&'static [KafkaCluster; 2]>> = Mutex::new(None);
        let mut pair = PAIR.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pair) = *pair {
            return Ok(pair);
        }
        let started: &'static [Self; 2] = Box::leak(Box::new(Self::start_all([
            for_long(KafkaOptions::new()),
            for_long(KafkaOptions::new()),
        ])?));
        *pair = Some(started);
        Ok(started)
    }

    /// The cluster called `name`: started with `options` at the first call, the same for every test of the binary.
    /// Tests that stop nodes start clusters of their own instead.
    pub fn shared(
        name: &str,
        options: impl FnOnce() -> KafkaOptions,
    ) -> Result<&'static Self, HarnessError> {
        static CLUSTERS: Mutex<BTreeMap<String, &'static KafkaCluster>> =
            Mutex::new(BTreeMap::new());
        let mut clusters = CLUSTERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = clusters.get(name) {
            return Ok(cluster);
        }
        let started: &'static Self = Box::leak(Box::new(Self::start(for_long(options()))?));
        clusters.insert(name.to_owned(), started);
        Ok(started)
    }

    /// The cluster id that the nodes report.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The number of nodes, running or not.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// `host:port` of every node's PLAINTEXT listener, separated by commas.
    pub fn bootstrap(&self) -> String {
        self.bootstrap_list().join(",")
    }

    /// `host:port` of every node's PLAINTEXT listener.
    pub fn bootstrap_list(&self) -> Vec<String> {
        self.addresses(|ports| Some(&ports.plaintext))
    }

    /// The SSL listeners; empty unless the options asked for them.
    pub fn ssl_bootstrap(&self) -> Vec<String> {
        self.addresses(|ports| ports.ssl.as_ref())
    }

    /// The SASL_PLAINTEXT listeners; empty unless the options asked for users.
    pub fn sasl_bootstrap(&self) -> Vec<String> {
        self.addresses(|ports| ports.sasl.as_ref())
    }

    /// The SASL_SSL listeners; empty unless the options asked for users and for SSL.
    pub fn sasl_ssl_bootstrap(&self) -> Vec<String> {
        self.addresses(|ports| ports.sasl_ssl.as_ref())
    }

    /// The port of a node's PLAINTEXT listener, on 127.0.0.1; it keeps it over restarts. None for an unknown node.
    pub fn port(&self, node: usize) -> Option<u16> {
        Some(lock(self.nodes.get(node)?).ports.plaintext.number)
    }

    /// The PEM file of the certificate authority that signed the SSL listeners' certificate; none without such a listener.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ssl.then_some(self.launch.install.ca_file.as_path())
    }

    /// The process id of a node, while it runs.
    pub fn pid(&self, node: usize) -> Option<u32> {
        lock(self.nodes.get(node)?).pid()
    }

    /// The log file of a node, appended to over restarts.
    pub fn log_file(&self, node: usize) -> Option<PathBuf> {
        Some(lock(self.nodes.get(node)?).log())
    }

    /// The folder in which a node keeps the segments of a partition.
    pub fn partition_dir(&self, node: usize, topic: &str, partition: i32) -> Option<PathBuf> {
        Some(
            lock(self.nodes.get(node)?)
                .dir
                .join("data")
                .join(format!("{topic}-{partition}")),
        )
    }

    /// Kills a node with SIGKILL and returns when its process is gone.
    pub fn kill9(&self, node: usize) -> Result<(), HarnessError> {
        self.node(node)?.kill9()
    }

    /// Stops a node with SIGTERM and returns when its process has ended by itself.
    pub fn stop(&self, node: usize) -> Result<(), HarnessError> {
        self.node(node)?.stop()
    }

    /// Freezes a node with SIGSTOP: its connections stay open and answer nothing.
    pub fn pause(&self, node: usize) -> Result<(), HarnessError> {
        self.node(node)?.signal(Signal::STOP)
    }

    /// Lets a frozen node go on with SIGCONT.
    pub fn resume(&self, node: usize) -> Result<(), HarnessError> {
        self.node(node)?.signal(Signal::CONT)
    }

    /// Starts a node that was killed or stopped, on the same ports and data, or stops a running one first; returns when
    /// it is ready.
    pub fn restart(&self, node: usize) -> Result<(), HarnessError> {
        let mut node = self.node(node)?;
        if node.pid().is_some() {
            node.stop()?;
        }
        node.spawn(&self.launch)?;
        node.ready(1)
    }

    fn node(&self, node: usize) -> Result<MutexGuard<'_, Node>, HarnessError> {
        self.nodes
            .get(node)
            .map(lock)
            .ok_or(HarnessError::NodeState {
                node,
                state: "not running",
            })
    }

    fn addresses(&self, port: impl Fn(&Ports) -> Option<&Port>) -> Vec<String> {
        let of = |node: &Mutex<Node>| {
            port(&lock(node).ports).map(|port| format!("127.0.0.1:{}", port.number))
        };
        self.nodes.iter().filter_map(of).collect()
    }

    fn spawn(options: KafkaOptions) -> Result<Self, HarnessError> {
        let install = Install::find(options.version)?;
        let dir = TempDir::with_prefix("strait-kafka-")
            .map_err(HarnessError::io("make a folder for a Kafka cluster"))?;
        let cluster_id = new_cluster_id();
        let mut nodes = Vec::new();
        for id in 1..=i32::try_from(options.nodes).unwrap_or(1) {
            let ports = Ports {
                plaintext: Port::reserve()?,
                controller: Port::reserve()?,
                ssl: options.ssl.then(Port::reserve).transpose()?,
                sasl: (!options.users.is_empty())
                    .then(Port::reserve)
                    .transpose()?,
                sasl_ssl: (options.ssl && !options.users.is_empty())
                    .then(Port::reserve)
                    .transpose()?,
            };
            nodes.push(Node::new(id, ports, dir.path().join(format!("node-{id}"))));
        }
        let voters: Vec<String> = nodes
            .iter()
            .map(|node| format!("{}@127.0.0.1:{}", node.id, node.ports.controller.number))
            .collect();
        let mut format = vec!["--cluster-id".to_owned(), cluster_id.clone()];
        for user in &options.users {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                format.push("--add-scram".to_owned());
                format.push(format!(
                    "{mechanism}=[name={},password={}]",
                    user.name, user.password
                ));
            }
        }
        let launch = Launch {
            install,
            nice: options.nice,
            heap: options.heap.clone(),
            fast: options.fast,
            cluster_dir: dir.path().to_owned(),
            format,
        };
        for node in &mut nodes {
            let text = properties(node, &voters.join(","), &options, &launch.install.keystore);
            std::fs::create_dir_all(&node.dir)
                .and_then(|()| std::fs::write(node.properties(), text))
                .map_err(HarnessError::io(format!(
                    "write {}",
                    node.properties().display()
                )))?;
            node.spawn(&launch)?;
        }
        let nodes = nodes.into_iter().map(Mutex::new).collect();
        Ok(Self {
            cluster_id,
            nodes,
            launch,
            ssl: options.ssl,
            dir: Some(dir),
        })
    }

    fn ready(&self) -> Result<(), HarnessError> {
        self.nodes
            .iter()
            .try_for_each(|node| lock(node).ready(self.nodes.len()))
    }
}

impl Drop for KafkaCluster {
    fn drop(&mut self) {
        self.nodes.clear();
        if let Some(dir) = self.dir.take()
            && std::env::var_os("STRAIT_KAFKA_KEEP").is_some()
        {
            let _ = dir.keep();
        }
    }
}

/// Options of a cluster whose nodes nobody stops: a node that a busy machine held up for some seconds is not fenced.
fn for_long(mut options: KafkaOptions) -> KafkaOptions {
    // Properties of its own are behind it and win.
    let patient = ("broker.session.timeout.ms", "30000");
    let patient = (patient.0.to_owned(), patient.1.to_owned());
    options.properties.insert(0, patient);
    options
}

/// A node's state is right after every step: a test that panicked meanwhile changes nothing.
fn lock(node: &Mutex<Node>) -> MutexGuard<'_, Node> {
    node.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 22 characters of base64, as Kafka wants it; the last carries two bits.
fn new_cluster_id() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    format!(
        "{:013x}{:05x}{:03x}A",
        now >> 8 & 0xf_ffff_ffff_ffff,
        std::process::id() & 0xf_ffff,
        COUNT.fetch_add(1, Ordering::Relaxed) & 0xfff
    )
}

/// The text of `server.properties`: small, quick to start and to fail over, and with nothing created by accident.
fn properties(node: &Node, voters: &str, options: &KafkaOptions, keystore: &Path) -> String {
    let replicas = options.nodes.min(3).to_string();
    let majority = (options.nodes.min(3) / 2 + 1).to_string();
    let ports = &node.ports;
    let mut listeners = vec![
        ("PLAINTEXT", &ports.plaintext),
        ("CONTROLLER", &ports.controller),
    ];
    listeners.extend(ports.ssl.as_ref().map(|port| ("SSL", port)));
    listeners.extend(ports.sasl.as_ref().map(|port| ("SASL_PLAINTEXT", port)));
    listeners.extend(ports.sasl_ssl.as_ref().map(|port| ("SASL_SSL", port)));
    let at = |host: &str, (name, port): &(&str, &Port)| format!("{name}://{host}:{}", port.number);
    let (host, everywhere) = match &options.advertised {
        Some(host) => (host.as_str(), "0.0.0.0"),
        None => ("127.0.0.1", "127.0.0.1"),
    };
    let advertised: Vec<String> = listeners
        .iter()
        .filter(|(name, _)| *name != "CONTROLLER")
        .map(|listener| at(host, listener))
        .collect();
    let listeners: Vec<String> = listeners.iter().map(|l| at(everywhere, l)).collect();
    let mut set: BTreeMap<String, String> = BTreeMap::new();
    let mut put = |key: &str, value: &str| {
        set.insert(
            key.to_owned(),
            value.replace("{node}", &node.id.to_string()),
        );
    };
    put("process.roles", "broker,controller");
    put("node.id", "{node}");
    put("controller.quorum.voters", voters);
    put("controller.listener.names", "CONTROLLER");
    put("inter.broker.listener.name", "PLAINTEXT");
    put("listeners", &listeners.join(","));
    put("advertised.listeners", &advertised.join(","));
    put(
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
    );
    put("log.dirs", &node.dir.join("data").display().to_string());
    put("auto.create.topics.enable", "false");
    put("offsets.topic.num.partitions", "4");
    put("offsets.topic.replication.factor", &replicas);
    put("transaction.state.log.num.partitions", "4");
    put("transaction.state.log.replication.factor", &replicas);
    put("transaction.state.log.min.isr", &majority);
    put("share.coordinator.state.topic.num.partitions", "2");
    put(
        "share.coordinator.state.topic.replication.factor",
        &replicas,
    );
    put("share.coordinator.state.topic.min.isr", &majority);
    put("group.initial.rebalance.delay.ms", "0");
    put("num.network.threads", "2");
    put("num.io.threads", "4");
    put("background.threads", "2");
    put("log.cleaner.dedupe.buffer.size", "8388608");
    // A killed node's session must expire before its next start can register; a lone node has nobody to fail over to,
    // so that a false alarm costs little.
    put("broker.heartbeat.interval.ms", "500");
    put(
        "broker.session.timeout.ms",
        if options.nodes == 1 { "3000" } else { "6000" },
    );
    if options.ssl {
        put("ssl.keystore.type", "PKCS12");
        put("ssl.keystore.location", &keystore.display().to_string());
        put("ssl.keystore.password", KEYSTORE_PASSWORD);
    }
    if !options.users.is_empty() {
        let mut plain =
            "org.apache.kafka.common.security.plain.PlainLoginModule required".to_owned();
        for user in &options.users {
            // Writing to a String cannot fail.
            let _ = write!(plain, " user_{}=\"{}\"", user.name, user.password);
        }
        plain.push(';');
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        put(
            "sasl.enabled.mechanisms",
            "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        );
        for listener in ["sasl_plaintext", "sasl_ssl"] {
            put(
                &format!("listener.name.{listener}.plain.sasl.jaas.config"),
                &plain,
            );
            put(
                &format!("listener.name.{listener}.scram-sha-256.sasl.jaas.config"),
                scram,
            );
            put(
                &format!("listener.name.{listener}.scram-sha-512.sasl.jaas.config"),
                scram,
            );
        }
    }
    for (key, value) in &options.properties {
        put(key, value);
    }
    // A backslash escapes in a properties file.
    set.iter()
        .map(|(key, value)| format!("{key}={}\n", value.replace('\\', "\\\\")))
        .collect()
}
