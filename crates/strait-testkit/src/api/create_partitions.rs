//! CreatePartitions (37), versions 0..3. Deviation: manual assignments are ignored; new leaders go round the nodes.

use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use kafka_protocol::protocol::StrBytes;

use super::Call;
use crate::cluster::{Cluster, KitError};

/// Grows topics; a number not above the present one gets 37.
pub(super) fn handle(
    cluster: &mut Cluster,
    call: &Call,
    request: &CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let rows = request.topics.iter().map(|wanted| {
        let row = CreatePartitionsTopicResult::default().with_name(wanted.name.clone());
        let outcome = match call.forced(&wanted.name, -1) {
            Some(code) => Err(KitError::refused(code, "forced by a fault rule")),
            None => cluster.grow(&wanted.name, wanted.count, request.validate_only),
        };
        match outcome {
            Ok(()) => row,
            Err(error) => row
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from(error.to_string()))),
        }
    });
    CreatePartitionsResponse::default().with_results(rows.collect())
}
