//! Who is in a group.

use kafka_protocol::messages::{DescribeGroupsRequest, GroupId};

use crate::call::Call;
use crate::cluster::{Cluster, Spared};
use crate::coordinator::refusal;
use crate::error::NetError;
use crate::metadata::text;

/// GROUP_ID_NOT_FOUND: what DescribeGroups answers from version 6 on (KIP-1043).
const NOT_FOUND: i16 = 69;

impl Cluster {
    /// The live members of a group of the classic protocol, as its coordinator counts them: one that died counts until its
    /// session runs out. A group that does not exist has none.
    ///
    /// # Errors
    /// The usual ones of a coordinator and a connection; GROUP_AUTHORIZATION_FAILED (30) without the right to Describe it.
    pub async fn group_members(&self, group: &str) -> Result<usize, NetError> {
        let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
        let (connection, answer) = self
            .ask_group(Spared::Everything, group, request, |answer| {
                answer.groups.first().map_or(0, |g| g.error_code)
            })
            .await?;
        let Some(found) = answer.groups.into_iter().next() else {
            return Err(NetError::Malformed {
                peer: connection.peer().clone(),
                what: format!("the answer to DescribeGroups lacks group '{group}'"),
            });
        };
        if found.error_code == NOT_FOUND {
            return Ok(0);
        }
        let what = || format!("group '{group}' on {}", connection.peer());
        refusal(found.error_code, DescribeGroupsRequest::NAME, what, None)?;
        Ok(found.members.len())
    }
}
