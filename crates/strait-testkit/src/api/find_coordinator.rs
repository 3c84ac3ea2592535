//! FindCoordinator (10), versions 0..6: groups (0) and transactional ids (1), several at once from v4.
//!
//! Deviation: the coordinator is a hash over the nodes; internal topics are not modelled.

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::Call;
use crate::cluster::Cluster;
use crate::code;

/// Names the coordinator of each key.
pub(super) fn handle(
    cluster: &Cluster,
    call: &Call,
    request: &FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let forced = call.forced_whole().or_else(|| call.forced_whole_after());
    let find = |key: &StrBytes| {
        let id = cluster.coordinator_of(key);
        let node = cluster
            .nodes
            .get(&id)
            .filter(|node| node.online && forced.is_none());
        match node {
            Some(node) => Coordinator::default()
                .with_key(key.clone())
                .with_node_id(BrokerId(id))
                .with_host(StrBytes::from(node.host.clone()))
                .with_port(i32::from(node.port)),
            None => Coordinator::default()
                .with_key(key.clone())
                .with_node_id(BrokerId(-1))
                .with_port(-1)
                .with_error_code(forced.unwrap_or(code::COORDINATOR_NOT_AVAILABLE)),
        }
    };
    if call.version >= 4 {
        let found = request.coordinator_keys.iter().map(find).collect();
        return FindCoordinatorResponse::default().with_coordinators(found);
    }
    let found = find(&request.key);
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}
