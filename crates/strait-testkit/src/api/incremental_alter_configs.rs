//! IncrementalAlterConfigs (44), versions 0..1: topics (2), and broker settings (4) for the whole cluster.
//!
//! `producer.id.expiration.ms` is an INT on the broker: more than 2147483647 gets 42. Deviation: a setting for one
//! broker counts for all.

use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::Call;
use crate::cluster::{Cluster, KitError};
use crate::code;
use crate::topic_config::{check, effective};

/// Alters each resource, all of its settings or none.
pub(super) fn handle(
    cluster: &mut Cluster,
    call: &Call,
    request: &IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let rows = request.resources.iter().map(|wanted| {
        let row = AlterConfigsResourceResponse::default()
            .with_resource_type(wanted.resource_type)
            .with_resource_name(wanted.resource_name.clone());
        let outcome = match call.forced(&wanted.resource_name, -1) {
            Some(code) => Err(KitError::refused(code, "forced by a fault rule")),
            None => alter(cluster, wanted, request.validate_only),
        };
        match outcome {
            Ok(()) => row,
            Err(error) => row
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from(error.to_string()))),
        }
    });
    IncrementalAlterConfigsResponse::default().with_responses(rows.collect())
}

fn alter(
    cluster: &mut Cluster,
    wanted: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), KitError> {
    let defaults = cluster.defaults();
    let on_topic = wanted.resource_type == 2;
    let mut settings = match wanted.resource_type {
        2 => cluster
            .topic(&wanted.resource_name)
            .map_err(|code| KitError::refused(code, wanted.resource_name.to_string()))?
            .overrides
            .clone(),
        4 => cluster.broker_overrides.clone(),
        other => {
            let what = format!("resource type {other} has no settings here");
            return Err(KitError::refused(code::INVALID_REQUEST, what));
        }
    };
    for config in &wanted.configs {
        let name = config.name.to_string();
        let given = config.value.as_deref().unwrap_or_default();
        let value = match config.config_operation {
            0 => given.to_owned(),
            1 => {
                settings.remove(&name);
                continue;
            }
            operation @ (2 | 3) => {
                let present = effective(&name, &settings, &defaults);
                let mut items: Vec<&str> = present
                    .split(',')
                    .filter(|i| !i.is_empty() && *i != given)
                    .collect();
                if operation == 2 {
                    items.push(given);
                }
                items.join(",")
            }
            other => {
                let what = format!("unknown operation {other} on {name}");
                return Err(KitError::refused(code::INVALID_REQUEST, what));
            }
        };
        if on_topic {
            check(&name, &value).map_err(|what| KitError::refused(code::INVALID_CONFIG, what))?;
        } else if value.parse::<i32>().is_err() && name == "producer.id.expiration.ms" {
            let what = format!("{name} must be an INT, not {value}");
            return Err(KitError::refused(code::INVALID_REQUEST, what));
        }
        settings.insert(name, value);
    }
    if !validate_only {
        if !on_topic {
            cluster.broker_overrides = settings;
        } else if let Some(topic) = cluster.topics.get_mut(wanted.resource_name.as_str()) {
            topic.overrides = settings;
        }
    }
    Ok(())
}
