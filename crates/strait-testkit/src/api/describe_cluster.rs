//! DescribeCluster (60), versions 0..2. Deviation: no controller endpoints (type 2 gets 114), no racks.

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use crate::cluster::Cluster;
use crate::code;

/// Names the cluster, its controller and its brokers.
pub(super) fn handle(
    cluster: &Cluster,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    if request.endpoint_type == 2 {
        return DescribeClusterResponse::default().with_error_code(code::MISMATCHED_ENDPOINT_TYPE);
    }
    let nodes = cluster
        .nodes
        .iter()
        .filter(|(_, node)| node.online || request.include_fenced_brokers);
    let brokers = nodes.map(|(id, node)| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(*id))
            .with_host(StrBytes::from(node.host.clone()))
            .with_port(i32::from(node.port))
            .with_is_fenced(!node.online && request.include_fenced_brokers)
    });
    DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from(cluster.config.cluster_id.clone()))
        .with_controller_id(BrokerId(cluster.config.node_id))
        .with_brokers(brokers.collect())
}
