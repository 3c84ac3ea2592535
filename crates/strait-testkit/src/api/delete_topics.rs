//! DeleteTopics (20), versions 1..6; by name or, in v6, by id. Deletion is immediate and takes the records along.

use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Call;
use crate::cluster::Cluster;
use crate::code;

/// Deletes each topic.
pub(super) fn handle(
    cluster: &mut Cluster,
    call: &Call,
    request: &DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let by_name = request
        .topic_names
        .iter()
        .map(|name| (Some(name.to_string()), Uuid::nil()));
    let by_state = request.topics.iter().map(|topic| match &topic.name {
        Some(name) => (Some(name.to_string()), Uuid::nil()),
        None => (cluster.name_of(topic.topic_id), topic.topic_id),
    });
    let wanted: Vec<_> = by_name.chain(by_state).collect();
    let rows = wanted.into_iter().map(|(name, id)| {
        let Some(name) = name else {
            return DeletableTopicResult::default()
                .with_name(None)
                .with_topic_id(id)
                .with_error_code(code::UNKNOWN_TOPIC_ID);
        };
        let row = DeletableTopicResult::default()
            .with_name(Some(TopicName(StrBytes::from(name.clone()))));
        if let Some(code) = call.forced(&name, -1) {
            return row.with_topic_id(id).with_error_code(code);
        }
        cluster.touched += 1;
        match cluster.topics.remove(&name) {
            Some(topic) => row.with_topic_id(topic.id),
            None => row
                .with_topic_id(id)
                .with_error_code(code::UNKNOWN_TOPIC_OR_PARTITION),
        }
    });
    DeleteTopicsResponse::default().with_responses(rows.collect())
}
