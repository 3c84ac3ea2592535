//! EndTxn (26), versions 0..5. The answer comes when the decision is stored; the markers follow later
//! (`BrokerConfig::marker_delay_ms`). v5 is transaction version 2: marker and answer carry the next epoch.

use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};

use super::Call;
use crate::cluster::Cluster;
use crate::code;
use crate::transactions::Stamp;

/// Decides a transaction.
pub(super) fn handle(
    cluster: &mut Cluster,
    call: &Call,
    request: &EndTxnRequest,
) -> EndTxnResponse {
    let outcome = end(cluster, call, request);
    match call.forced_whole_after().map_or(outcome, Err) {
        Ok(stamp) if call.version >= 5 => EndTxnResponse::default()
            .with_producer_id(ProducerId(stamp.producer_id))
            .with_producer_epoch(stamp.epoch),
        Ok(_) => EndTxnResponse::default(),
        Err(code::PRODUCER_FENCED) if call.version < 2 => {
            EndTxnResponse::default().with_error_code(code::INVALID_PRODUCER_EPOCH)
        }
        Err(code) => EndTxnResponse::default().with_error_code(code),
    }
}

fn end(cluster: &mut Cluster, call: &Call, request: &EndTxnRequest) -> Result<Stamp, i16> {
    if let Some(code) = call.forced_whole() {
        return Err(code);
    }
    let tid = request.transactional_id.0.as_str();
    if cluster.coordinator_of(tid) != call.node {
        return Err(code::NOT_COORDINATOR);
    }
    let stamp = Stamp {
        producer_id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let bump = call.version >= 5;
    cluster
        .coordinator
        .end(tid, stamp, request.committed, bump, call.now_ms)
}
