//! ListGroups (16), versions 0..5: the groups this node coordinates. Deviation: all are classic; filters are ignored.

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::Call;
use crate::cluster::Cluster;

/// Lists groups.
pub(super) fn handle(cluster: &Cluster, call: &Call) -> ListGroupsResponse {
    if let Some(code) = call.forced_whole() {
        return ListGroupsResponse::default().with_error_code(code);
    }
    let own = cluster
        .groups
        .iter()
        .filter(|(id, _)| cluster.coordinator_of(id) == call.node);
    let rows = own.map(|(id, group)| {
        let row = ListedGroup::default()
            .with_group_id(GroupId(StrBytes::from(id.clone())))
            .with_protocol_type(StrBytes::from_static_str(if group.live {
                "consumer"
            } else {
                ""
            }));
        let row = if call.version >= 4 {
            row.with_group_state(StrBytes::from_static_str(if group.live {
                "Stable"
            } else {
                "Empty"
            }))
        } else {
            row
        };
        if call.version >= 5 {
            row.with_group_type(StrBytes::from_static_str("classic"))
        } else {
            row
        }
    });
    ListGroupsResponse::default().with_groups(rows.collect())
}
