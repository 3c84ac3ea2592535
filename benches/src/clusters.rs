//! The pair of real Kafka nodes that everything is measured on.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use strait_net::{Cluster, Identity, Runtime, Security};
use strait_testkit::kafka::{KafkaCluster, KafkaOptions, Oracle};

use crate::Failure;
use crate::process::Usage;

/// The id of the harness's only node, the leader of everything.
const NODE: i32 = 1;
/// How long a deleted topic's files may take to go.
const DELETED_WITHIN: Duration = Duration::from_secs(60);

/// A source and a target of one node each, and Kafka's own client to prepare and check them.
pub(crate) struct Clusters {
    pub(crate) source: KafkaCluster,
    pub(crate) target: KafkaCluster,
    pub(crate) oracle: Oracle,
    rt: tokio::runtime::Runtime,
}

impl Clusters {
    /// Starts both.
    pub(crate) fn start() -> Result<Self, Failure> {
        let [source, target] = KafkaCluster::start_all([options(), options()])?;
        Self::of(source, target)
    }

    /// Two that run.
    pub(crate) fn of(source: KafkaCluster, target: KafkaCluster) -> Result<Self, Failure> {
        Ok(Self {
            source,
            target,
            oracle: Oracle::start()?,
            rt: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
        })
    }

    /// A look at the target from this process, which costs it less than Kafka's own client would.
    pub(crate) fn watch(&self, topic: &str, partitions: i32) -> Result<Watch<'_>, Failure> {
        let identity = Identity {
            client_id: "bench".to_owned(),
            software_name: "bench".to_owned(),
            software_version: "0".to_owned(),
        };
        let cluster = Cluster::new(
            Runtime::system(),
            "target",
            self.target.bootstrap_list(),
            Security::default(),
            identity,
        );
        // Where the node listens has to be known before it is asked for offsets.
        self.rt.block_on(cluster.metadata(Some(&[])))?;
        Ok(Watch {
            rt: &self.rt,
            cluster,
            topic: topic.to_owned(),
            partitions,
        })
    }

    /// What the target's process has used since it started.
    pub(crate) fn target_usage(&self) -> Result<Usage, Failure> {
        Usage::of(self.target.pid(0).ok_or("the target does not run")?)
    }

    /// Deletes a topic of the target and returns when its files are gone.
    pub(crate) fn delete(&self, topic: &str) -> Result<(), Failure> {
        self.oracle.delete_topic(&self.target.bootstrap(), topic)?;
        let folder = self
            .target
            .partition_dir(0, topic, 0)
            .ok_or("the target has no folder")?;
        let data = folder.parent().map(PathBuf::from).unwrap_or_default();
        let begun = Instant::now();
        let left = || -> Result<bool, Failure> {
            for entry in std::fs::read_dir(&data)? {
                if entry?.file_name().to_string_lossy().starts_with(topic) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        while left()? {
            if begun.elapsed() > DELETED_WITHIN {
                return Err(format!("the files of {topic} are still in {}", data.display()).into());
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// A node with compilers for peak speed and the broker's defaults, except that a deleted topic's files go at once and not after
/// a minute: the next run must not pay for them.
pub(crate) fn options() -> KafkaOptions {
    KafkaOptions::new()
        .heap("1g")
        .peak_speed()
        .property("log.segment.delete.delay.ms", "500")
        .property("log.initial.task.delay.ms", "500")
        .property("num.network.threads", "3")
        .property("num.io.threads", "8")
}

/// Looks at the end of a topic.
pub(crate) struct Watch<'a> {
    rt: &'a tokio::runtime::Runtime,
    cluster: Cluster,
    topic: String,
    partitions: i32,
}

impl Watch<'_> {
    /// The sum of the partitions' ends, as consumers see them: records, and markers of transactions. 0 while there is no
    /// such topic.
    pub(crate) fn end(&self) -> u64 {
        self.rt.block_on(async {
            let mut sum = 0;
            for partition in 0..self.partitions {
                let end = self
                    .cluster
                    .list_offsets(&self.topic, partition, (NODE, -1), -1, false, false)
                    .await;
                sum += end.map_or(0, |(offset, _)| u64::try_from(offset).unwrap_or(0));
            }
            sum
        })
    }
}
