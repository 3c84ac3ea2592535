//! Topics and configurations.

use std::collections::BTreeMap;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::call::Call;
use crate::cluster::{Cluster, REQUEST_TIMEOUT};
use crate::connection::Connection;
use crate::coordinator::refusal;
use crate::error::NetError;
use crate::kafka_error::KafkaError;
use crate::metadata::{text, topic_name};

/// Time the broker may take for a change; below [`REQUEST_TIMEOUT`], so that its answer arrives.
const BROKER_TIMEOUT_MS: i32 = 25_000;

/// Resource types of the configuration APIs.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Topics described in one request: keeps an answer to some MB.
const TOPICS_PER_DESCRIBE: usize = 500;

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// Number of partitions; -1 for the broker's default (2.4 and later).
    pub partitions: i32,
    /// Replication factor; -1 for the broker's default (2.4 and later).
    pub replication: i16,
    /// Configurations that differ from the defaults.
    pub configs: Vec<(String, String)>,
}

/// What a creation gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// The new topic's id; zeros where the broker does not say (before 2.8).
    pub id: Uuid,
}

/// One configuration of a topic or broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Name.
    pub name: String,
    /// Value; `None` for sensitive ones.
    pub value: Option<String>,
    /// Where it comes from: 1 the topic itself, 2 this broker, 3 all brokers (dynamic), 4 the
    /// broker's file, 5 Kafka's default.
    pub source: i8,
    /// Whether it cannot be changed.
    pub read_only: bool,
    /// Whether its value is a secret.
    pub sensitive: bool,
}

impl Cluster {
    /// Creates a topic.
    ///
    /// # Errors
    /// [`NetError::Kafka`], for example TOPIC_ALREADY_EXISTS (36), INVALID_CONFIG (40),
    /// INVALID_REPLICATION_FACTOR (38), with the broker's words.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<Created, NetError> {
        let configs = topic
            .configs
            .iter()
            .map(|(name, value)| {
                CreatableTopicConfig::default()
                    .with_name(text(name))
                    .with_value(Some(text(value)))
            })
            .collect();
        let request = CreateTopicsRequest::default()
            .with_timeout_ms(BROKER_TIMEOUT_MS)
            .with_topics(vec![
                CreatableTopic::default()
                    .with_name(topic_name(&topic.name))
                    .with_num_partitions(topic.partitions)
                    .with_replication_factor(topic.replication)
                    .with_configs(configs),
            ]);
        let (connection, answer) = self
            .ask_controller(request, |r| r.topics.first().map_or(0, |t| t.error_code))
            .await?;
        let found = answer
            .topics
            .into_iter()
            .find(|t| t.name.as_str() == topic.name);
        let found =
            found.ok_or_else(|| lacks(&connection, CreateTopicsRequest::NAME, &topic.name))?;
        refusal(
            found.error_code,
            CreateTopicsRequest::NAME,
            || place(&topic.name, &connection),
            found.error_message,
        )?;
        Ok(Created { id: found.topic_id })
    }

    /// Raises a topic's number of partitions to `total`.
    ///
    /// # Errors
    /// [`NetError::Kafka`], for example INVALID_PARTITIONS (37) if it has as many already.
    pub async fn create_partitions(&self, topic: &str, total: i32) -> Result<(), NetError> {
        let request = CreatePartitionsRequest::default()
            .with_timeout_ms(BROKER_TIMEOUT_MS)
            .with_topics(vec![
                CreatePartitionsTopic::default()
                    .with_name(topic_name(topic))
                    .with_count(total)
                    .with_assignments(None),
            ]);
        let (connection, answer) = self
            .ask_controller(request, |r| r.results.first().map_or(0, |t| t.error_code))
            .await?;
        let found = answer
            .results
            .into_iter()
            .find(|t| t.name.as_str() == topic);
        let found =
            found.ok_or_else(|| lacks(&connection, CreatePartitionsRequest::NAME, topic))?;
        refusal(
            found.error_code,
            CreatePartitionsRequest::NAME,
            || place(topic, &connection),
            found.error_message,
        )
    }

    /// The configurations of topics. Every topic asked for is in the answer, with its own error if
    /// it could not be described.
    ///
    /// # Errors
    /// The usual ones of a connection.
    pub async fn describe_topic_configs(
        &self,
        topics: &[String],
    ) -> Result<BTreeMap<String, Result<Vec<ConfigEntry>, KafkaError>>, NetError> {
        let mut described = BTreeMap::new();
        for chunk in topics.chunks(TOPICS_PER_DESCRIBE) {
            let resources = chunk.iter().map(|name| resource(TOPIC, name)).collect();
            let request = DescribeConfigsRequest::default().with_resources(resources);
            let (_, answer) = self.ask_any(request).await?;
            for result in answer.results {
                let name = result.resource_name.to_string();
                described.insert(
                    name,
                    match result.error_code {
                        0 => Ok(entries(result)),
                        code => Err(KafkaError(code)),
                    },
                );
            }
        }
        for name in topics {
            described
                .entry(name.clone())
                .or_insert(Err(KafkaError::UNKNOWN_TOPIC_OR_PARTITION));
        }
        Ok(described)
    }

    /// The configurations of a broker, asked of that broker.
    ///
    /// # Errors
    /// [`NetError::Kafka`], for example CLUSTER_AUTHORIZATION_FAILED (31).
    pub async fn broker_configs(&self, broker: i32) -> Result<Vec<ConfigEntry>, NetError> {
        let connection = self.control(broker).await?;
        let name = broker.to_string();
        let request =
            DescribeConfigsRequest::default().with_resources(vec![resource(BROKER, &name)]);
        let answer = connection.request(request, REQUEST_TIMEOUT).await?;
        let found = answer
            .results
            .into_iter()
            .find(|r| r.resource_name.as_str() == name)
            .ok_or_else(|| NetError::Malformed {
                peer: connection.peer().clone(),
                what: format!("the answer to DescribeConfigs lacks broker {broker}"),
            })?;
        refusal(
            found.error_code,
            DescribeConfigsRequest::NAME,
            || format!("the configuration of {}", connection.peer()),
            found.error_message.clone(),
        )?;
        Ok(entries(found))
    }

    /// Sets and deletes single configurations of a topic; others stay as they are.
    ///
    /// # Errors
    /// [`NetError::Kafka`], for example INVALID_CONFIG (40); [`NetError::Unsupported`] for brokers
    /// before 2.3, which could only replace all configurations at once.
    pub async fn alter_topic_configs(
        &self,
        topic: &str,
        sets: &[(String, String)],
        deletes: &[String],
    ) -> Result<(), NetError> {
        const SET: i8 = 0;
        const DELETE: i8 = 1;
        let set = sets.iter().map(|(name, value)| {
            AlterableConfig::default()
                .with_name(text(name))
                .with_config_operation(SET)
                .with_value(Some(text(value)))
        });
        let delete = deletes.iter().map(|name| {
            AlterableConfig::default()
                .with_name(text(name))
                .with_config_operation(DELETE)
                .with_value(None)
        });
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
            AlterConfigsResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(text(topic))
                .with_configs(set.chain(delete).collect()),
        ]);
        let (connection, answer) = self
            .ask_controller(request, |r| r.responses.first().map_or(0, |t| t.error_code))
            .await?;
        let name = IncrementalAlterConfigsRequest::NAME;
        let found = answer
            .responses
            .into_iter()
            .find(|r| r.resource_name.as_str() == topic)
            .ok_or_else(|| lacks(&connection, name, topic))?;
        refusal(
            found.error_code,
            name,
            || place(topic, &connection),
            found.error_message,
        )
    }

    /// Asks the controller, and once more after new metadata if it is no longer that.
    pub(crate) async fn ask_controller<R: Call + Clone>(
        &self,
        request: R,
        error: fn(&R::Response) -> i16,
    ) -> Result<(Connection, R::Response), NetError> {
        let connection = self.controller(false).await?;
        let answer = connection.request(request.clone(), REQUEST_TIMEOUT).await?;
        if error(&answer) != KafkaError::NOT_CONTROLLER.0 {
            return Ok((connection, answer));
        }
        let connection = self.controller(true).await?;
        let answer = connection.request(request, REQUEST_TIMEOUT).await?;
        Ok((connection, answer))
    }
}

fn resource(kind: i8, name: &str) -> DescribeConfigsResource {
    DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(None)
}

fn entries(result: DescribeConfigsResult) -> Vec<ConfigEntry> {
    let plain = |s: StrBytes| s.to_string();
    result
        .configs
        .into_iter()
        .map(|c| ConfigEntry {
            name: plain(c.name),
            value: c.value.map(plain),
            source: c.config_source,
            read_only: c.read_only,
            sensitive: c.is_sensitive,
        })
        .collect()
}

fn place(topic: &str, connection: &Connection) -> String {
    format!("topic '{topic}' on {}", connection.peer())
}

fn lacks(connection: &Connection, api: &str, topic: &str) -> NetError {
    NetError::Malformed {
        peer: connection.peer().clone(),
        what: format!("the answer to {api} lacks topic '{topic}'"),
    }
}
