//! CreateTopics (19), versions 2..7. Deviation: every node acts as controller; creation is immediate.

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Call;
use crate::cluster::{Cluster, KitError, TopicPlan};
use crate::code;
use crate::topic_config::{TOPIC_DEFAULTS, effective};

/// Creates each topic, or only checks it.
pub(super) fn handle(
    cluster: &mut Cluster,
    call: &Call,
    request: &CreateTopicsRequest,
) -> CreateTopicsResponse {
    let rows = request.topics.iter().map(|wanted| {
        let row = CreatableTopicResult::default()
            .with_name(wanted.name.clone())
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_configs(None);
        match create(cluster, call, wanted, request.validate_only) {
            Ok((plan, id)) => row
                .with_topic_id(id)
                .with_num_partitions(plan.partitions)
                .with_replication_factor(plan.replication)
                .with_configs(Some(configs(cluster, &plan)))
                .with_error_code(call.forced_after(&wanted.name, -1).unwrap_or(code::NONE)),
            Err(error) => row
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from(error.to_string()))),
        }
    });
    CreateTopicsResponse::default().with_topics(rows.collect())
}

fn create(
    cluster: &mut Cluster,
    call: &Call,
    wanted: &CreatableTopic,
    validate_only: bool,
) -> Result<(TopicPlan, Uuid), KitError> {
    if let Some(code) = call.forced(&wanted.name, -1) {
        return Err(KitError::refused(code, "forced by a fault rule"));
    }
    let mut assignments = wanted.assignments.clone();
    assignments.sort_by_key(|a| a.partition_index);
    let configs = wanted.configs.iter().filter_map(|c| {
        let value = c.value.as_ref()?;
        Some((c.name.to_string(), value.to_string()))
    });
    let plan = TopicPlan {
        partitions: wanted.num_partitions,
        replication: wanted.replication_factor,
        assignments: assignments
            .iter()
            .map(|a| a.broker_ids.iter().map(|id| id.0).collect())
            .collect(),
        configs: configs.collect(),
    };
    let plan = cluster.check_topic(&wanted.name, &plan)?;
    let id = if validate_only {
        Uuid::nil()
    } else {
        cluster.create_topic(&wanted.name, &plan)?
    };
    Ok((plan, id))
}

fn configs(cluster: &Cluster, plan: &TopicPlan) -> Vec<CreatableTopicConfigs> {
    let defaults = cluster.defaults();
    let row = |name: &str| {
        let source = if plan.configs.contains_key(name) {
            1
        } else {
            5
        };
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from(name.to_owned()))
            .with_value(Some(StrBytes::from(effective(
                name,
                &plan.configs,
                &defaults,
            ))))
            .with_config_source(source)
    };
    TOPIC_DEFAULTS.iter().map(|(name, _)| row(name)).collect()
}
