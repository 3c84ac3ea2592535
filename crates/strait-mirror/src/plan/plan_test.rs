use std::io;
use std::sync::Arc;

use strait_config::{Naming, TopicSelection};
use strait_net::{Identity, Security, World};
use strait_testkit::{Broker, BrokerConfig};
use tokio::io::DuplexStream;

use super::*;

/// A network that has both clusters.
struct Both(Broker, Broker);

impl World for Both {
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

/// A running link keeps the name, since Kafka lets no other exist that differs in `.` and `_` alone.
#[tokio::test(start_paused = true)]
async fn heartbeats_are_planned_under_the_name_that_is_there() {
    for there in [None, Some("source.heartbeats")] {
        let broker = |id: &str| Broker::new(BrokerConfig::simulated(id));
        let (source, target) = (broker("source"), broker("target"));
        source.create_topic(HEARTBEATS, 1, &[]).unwrap();
        if let Some(name) = there {
            target.create_topic(name, 1, &[]).unwrap();
        }
        let rt = Runtime::simulated(Arc::new(Both(source.clone(), target.clone())), 1);
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
        let topics = TopicSelection::new(Vec::new(), Vec::new());
        let config = LinkConfig {
            naming: Naming::Identity,
            internal_separator: "_".to_owned(),
            ..LinkConfig::new("source", "target", topics)
        };
        let (here, away) = (cluster(&source, "source"), cluster(&target, "target"));
        let watch = Duration::from_secs(1);
        let plan = plan(&rt, &config, &here, &away, watch).await.unwrap();
        let names: Vec<&str> = plan.topics.iter().map(|t| t.target.as_str()).collect();
        assert_eq!(names, [there.unwrap_or("source_heartbeats")]);
    }
}
