//! DescribeConfigs (32), versions 1..4: topics (2) and brokers (4). Deviation: no synonyms, no documentation, and of a
//! broker's settings only the few the kit acts on.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::Call;
use crate::cluster::Cluster;
use crate::code;
use crate::topic_config::{TOPIC_DEFAULTS, effective};

/// Describes each resource.
pub(super) fn handle(
    cluster: &Cluster,
    call: &Call,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let rows = request.resources.iter().map(|wanted| {
        let row = DescribeConfigsResult::default()
            .with_resource_type(wanted.resource_type)
            .with_resource_name(wanted.resource_name.clone());
        let forced = call.forced(&wanted.resource_name, -1).map_or(Ok(()), Err);
        match forced.and_then(|()| describe(cluster, wanted)) {
            Ok(configs) => row.with_configs(configs),
            Err(code) => row.with_error_code(code),
        }
    });
    DescribeConfigsResponse::default().with_results(rows.collect())
}

fn describe(
    cluster: &Cluster,
    wanted: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>, i16> {
    let mut rows = match wanted.resource_type {
        2 => topic(cluster, &wanted.resource_name)?,
        4 => broker(cluster),
        _ => return Err(code::INVALID_REQUEST),
    };
    if let Some(keys) = &wanted.configuration_keys {
        rows.retain(|row| keys.contains(&row.name));
    }
    Ok(rows)
}

fn row(name: &str, value: String, source: i8, read_only: bool) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from(name.to_owned()))
        .with_value(Some(StrBytes::from(value)))
        .with_config_source(source)
        .with_read_only(read_only)
}

/// Sources: 1 the topic's own, 3 set for the cluster at run time, 4 the broker's file, 5 Kafka's default.
fn topic(cluster: &Cluster, name: &str) -> Result<Vec<DescribeConfigsResourceResult>, i16> {
    let topic = cluster.topic(name)?;
    let defaults = cluster.defaults();
    let describe = |name: &str| {
        let source = if topic.overrides.contains_key(name) {
            1
        } else if cluster.broker_overrides.contains_key(name) {
            3
        } else if cluster.config.topic_defaults.contains_key(name) {
            4
        } else {
            5
        };
        row(
            name,
            effective(name, &topic.overrides, &defaults),
            source,
            false,
        )
    };
    Ok(TOPIC_DEFAULTS
        .iter()
        .map(|(name, _)| describe(name))
        .collect())
}

fn broker(cluster: &Cluster) -> Vec<DescribeConfigsResourceResult> {
    let config = &cluster.config;
    let overridden = |name: &str, value: i64| match cluster.broker_overrides.get(name) {
        Some(set) => row(name, set.clone(), 3, false),
        None => row(name, value.to_string(), 5, false),
    };
    vec![
        overridden("message.max.bytes", config.max_message_bytes),
        overridden(
            "producer.id.expiration.ms",
            config.producer_id_expiration_ms,
        ),
        row(
            "transactional.id.expiration.ms",
            config.transactional_id_expiration_ms.to_string(),
            5,
            true,
        ),
        row(
            "num.partitions",
            config.default_partitions.to_string(),
            5,
            true,
        ),
        row(
            "auto.create.topics.enable",
            config.auto_create_topics.to_string(),
            5,
            true,
        ),
    ]
}
