//! The mirror of all histories: one link between the two clusters, and its flows.

use std::time::Duration;

use strait_engine::{FlowKey, FlowSpec, LinkSpec, Policies, Start, Takeover};
use strait_net::{Cluster, Identity, Runtime, Security};
use strait_testkit::Broker;
use strait_wire::Isolation;

/// The link as one process runs it.
pub(crate) fn link(rt: &Runtime, source: &Broker, target: &Broker, instance: &str) -> LinkSpec {
    let cluster = |broker: &Broker, alias: &str| {
        let addresses = broker.nodes().into_iter().map(|node| node.address());
        let bootstrap = addresses.map(|(host, port)| format!("{host}:{port}"));
        let identity = Identity {
            client_id: instance.to_owned(),
            software_name: "strait".to_owned(),
            software_version: "0".to_owned(),
        };
        let security = Security::default();
        Cluster::new(rt.clone(), alias, bootstrap.collect(), security, identity)
    };
    LinkSpec {
        name: "link".to_owned(),
        source: cluster(source, "source"),
        target: cluster(target, "target"),
        isolation: Isolation::ReadCommitted,
        instance: instance.to_owned(),
        lock_dir: None,
        internal_replication: None,
        take_over: false,
        memory_budget: 64 << 20,
        lanes: 4,
        long_poll: Duration::from_millis(500),
        request_timeout: Duration::from_secs(5),
        open_transaction: Duration::from_secs(300),
        drain: Duration::from_secs(5),
        policies: Policies::default(),
        only_local: false,
        takeover: Takeover::default(),
    }
}

/// The flow of a partition, from the source's first record on, under the same name.
pub(crate) fn flow(topic: &str, partition: i32) -> FlowSpec {
    FlowSpec {
        key: FlowKey {
            topic: topic.to_owned(),
            partition,
        },
        target_topic: topic.to_owned(),
        start: Start::Earliest,
        compacted: false,
        target_compacted: false,
        min_insync: 1,
        max_batch_bytes: None,
    }
}
