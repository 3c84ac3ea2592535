//! InitProducerId (22), versions 0..5, with and without a transactional id.
//!
//! While the coordinator loads (after a start, if configured) it answers 14 with producer id -1, which a careless
//! client takes for success. Deviation: a producer id without transactional id is never refused.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::Call;
use crate::cluster::Cluster;
use crate::code;
use crate::transactions::Stamp;

/// Hands out a producer id, or the next epoch of a transactional id's.
pub(super) fn handle(
    cluster: &mut Cluster,
    call: &Call,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |code| {
        InitProducerIdResponse::default()
            .with_error_code(code)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    let outcome = init(cluster, call, request);
    match call.forced_whole_after().map_or(outcome, Err) {
        Ok(stamp) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(stamp.producer_id))
            .with_producer_epoch(stamp.epoch),
        Err(code) => refused(code),
    }
}

fn init(cluster: &mut Cluster, call: &Call, request: &InitProducerIdRequest) -> Result<Stamp, i16> {
    if let Some(code) = call.forced_whole() {
        return Err(code);
    }
    if call.now_ms < cluster.loading_until_ms {
        return Err(code::COORDINATOR_LOAD_IN_PROGRESS);
    }
    let Some(tid) = &request.transactional_id else {
        let producer_id = cluster.coordinator.new_producer_id();
        return Ok(Stamp {
            producer_id,
            epoch: 0,
        });
    };
    if cluster.coordinator_of(tid) != call.node {
        return Err(code::NOT_COORDINATOR);
    }
    let claimed = call.version >= 3 && request.producer_id.0 >= 0;
    let expected = claimed.then_some(Stamp {
        producer_id: request.producer_id.0,
        epoch: request.producer_epoch,
    });
    cluster
        .coordinator
        .init(tid, request.transaction_timeout_ms, expected, call.now_ms)
}
