//! WriteTxnMarkers (27), version 1: markers written by a client, answered after the append.
//!
//! Any producer id is taken, also an invented one; a lower coordinator epoch gets 52, a lower producer epoch 47, a
//! partition under its minimum ISR 19. Deviation: no authorization.

use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::Call;
use crate::cluster::Cluster;
use crate::code;
use crate::log::Marker;

/// Writes every marker to every partition it names.
pub(super) fn handle(
    cluster: &mut Cluster,
    call: &Call,
    request: &WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let mut markers = Vec::new();
    for marker in &request.markers {
        let mut topics = Vec::new();
        for topic in &marker.topics {
            let rows = topic.partition_indexes.iter().map(|index| {
                let code = write(cluster, call, marker, &topic.name, *index)
                    .err()
                    .unwrap_or(code::NONE);
                WritableTxnMarkerPartitionResult::default()
                    .with_partition_index(*index)
                    .with_error_code(code)
            });
            topics.push(
                WritableTxnMarkerTopicResult::default()
                    .with_name(topic.name.clone())
                    .with_partitions(rows.collect()),
            );
        }
        markers.push(
            WritableTxnMarkerResult::default()
                .with_producer_id(marker.producer_id)
                .with_topics(topics),
        );
    }
    WriteTxnMarkersResponse::default().with_markers(markers)
}

fn write(
    cluster: &mut Cluster,
    call: &Call,
    wanted: &WritableTxnMarker,
    topic: &str,
    index: i32,
) -> Result<(), i16> {
    if let Some(code) = call.forced(topic, index) {
        return Err(code);
    }
    let (settings, partition) = cluster
        .with_settings(topic, index)
        .ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)?;
    partition.led_by(call.node)?;
    if partition.under_min_isr {
        return Err(code::NOT_ENOUGH_REPLICAS);
    }
    let marker = Marker {
        producer_id: wanted.producer_id.0,
        epoch: wanted.producer_epoch,
        coordinator_epoch: wanted.coordinator_epoch,
        commit: wanted.transaction_result,
    };
    let epoch = partition.leader_epoch;
    partition
        .log
        .append_marker(marker, &settings, epoch, call.now_ms)?;
    Ok(())
}
