//! Two simulated clusters on one network, for tests on virtual time.

use std::io;
use std::sync::Arc;

use strait_net::{Cluster, Identity, Runtime, Security, World};
use strait_testkit::{Broker, BrokerConfig};
use tokio::io::DuplexStream;

struct Network(Broker, Broker);

impl World for Network {
    fn connect(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
        let at = |broker: &Broker| broker.at_address(host, port);
        let broker = at(&self.0).or_else(|| at(&self.1));
        broker
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?
            .connect()
    }

    fn wall_ms(&self) -> i64 {
        self.0.now_ms()
    }
}

/// Both sides of a link, as brokers that can be looked into and as the clusters that it sees.
pub(crate) struct TwoClusters {
    pub(crate) rt: Runtime,
    pub(crate) source: Broker,
    pub(crate) target: Broker,
    /// The source.
    pub(crate) here: Cluster,
    /// The target.
    pub(crate) there: Cluster,
}

impl TwoClusters {
    /// Empty ones, with the aliases `source` and `target`.
    pub(crate) fn new() -> Self {
        let [source, target] =
            ["source", "target"].map(|id| Broker::new(BrokerConfig::simulated(id)));
        let network = Network(source.clone(), target.clone());
        let rt = Runtime::simulated(Arc::new(network), 1);
        let cluster = |broker: &Broker, alias: &str| {
            let identity = Identity {
                client_id: "test".to_owned(),
                software_name: "test".to_owned(),
                software_version: "0".to_owned(),
            };
            let (host, port) = broker.address();
            let bootstrap = vec![format!("{host}:{port}")];
            Cluster::new(rt.clone(), alias, bootstrap, Security::default(), identity)
        };
        let (here, there) = (cluster(&source, "source"), cluster(&target, "target"));
        Self {
            rt,
            source,
            target,
            here,
            there,
        }
    }
}
