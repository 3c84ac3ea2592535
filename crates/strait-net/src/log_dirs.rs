//! What logs weigh on disk.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::DescribeLogDirsRequest;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use tokio::task::JoinSet;

use crate::call::Call;
use crate::cluster::Cluster;
use crate::coordinator::refusal;
use crate::error::NetError;
use crate::kafka_error::KafkaError;
use crate::metadata::{Metadata, topic_name};

/// Topics asked about in one request: keeps an answer to some MB.
const TOPICS_PER_REQUEST: usize = 500;
/// Time a broker has to answer: it looks at its disks.
const PATIENCE: Duration = Duration::from_secs(15);

impl Cluster {
    /// The bytes of these topics' partitions: of each its leader's log, where the leader's broker tells. The brokers are asked
    /// side by side.
    ///
    /// # Errors
    /// [`NetError::Kafka`] with CLUSTER_AUTHORIZATION_FAILED (31) without Describe on the cluster; the usual ones of a
    /// connection.
    pub async fn log_bytes(
        &self,
        metadata: &Metadata,
        topics: &[String],
    ) -> Result<BTreeMap<(String, i32), i64>, NetError> {
        let mut by_broker: BTreeMap<i32, BTreeMap<&str, Vec<i32>>> = BTreeMap::new();
        for topic in topics {
            let partitions = metadata.topics.get(topic).map(|t| &t.partitions);
            for (&partition, found) in partitions.into_iter().flatten() {
                if found.leader >= 0 {
                    let of_broker = by_broker.entry(found.leader).or_default();
                    of_broker.entry(topic).or_default().push(partition);
                }
            }
        }
        let mut jobs = JoinSet::new();
        for (broker, topics) in by_broker {
            let topics: Vec<DescribableLogDirTopic> = topics
                .into_iter()
                .map(|(topic, partitions)| {
                    DescribableLogDirTopic::default()
                        .with_topic(topic_name(topic))
                        .with_partitions(partitions)
                })
                .collect();
            let cluster = self.clone();
            jobs.spawn(async move {
                let mut bytes = BTreeMap::new();
                for chunk in topics.chunks(TOPICS_PER_REQUEST) {
                    let chunk = chunk.to_vec();
                    cluster.log_bytes_on(broker, chunk, &mut bytes).await?;
                }
                Ok::<_, NetError>(bytes)
            });
        }
        let mut bytes = BTreeMap::new();
        while let Some(done) = jobs.join_next().await {
            if let Ok(of_broker) = done {
                bytes.extend(of_broker?);
            }
        }
        Ok(bytes)
    }

    async fn log_bytes_on(
        &self,
        broker: i32,
        topics: Vec<DescribableLogDirTopic>,
        bytes: &mut BTreeMap<(String, i32), i64>,
    ) -> Result<(), NetError> {
        let connection = self.control(broker).await?;
        let request = DescribeLogDirsRequest::default().with_topics(Some(topics));
        let answer = connection.request(request, PATIENCE).await?;
        // Before version 3 the answer to who may not ask is an empty one.
        let code = match answer.results.is_empty() {
            true if answer.error_code == 0 => KafkaError(31).0,
            _ => answer.error_code,
        };
        let what = || format!("topics on {}", connection.peer());
        refusal(code, DescribeLogDirsRequest::NAME, what, None)?;
        for topic in answer.results.into_iter().flat_map(|dir| dir.topics) {
            for partition in topic.partitions.iter().filter(|p| !p.is_future_key) {
                let key = (topic.name.to_string(), partition.partition_index);
                bytes.insert(key, partition.partition_size.max(0));
            }
        }
        Ok(())
    }
}
