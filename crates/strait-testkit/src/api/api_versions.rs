//! ApiVersions (18), versions 0..4. An unknown version is answered in the form of v0 with error 35 (KIP-511).

use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::protocol::StrBytes;

use super::{Call, advertised};
use crate::cluster::Cluster;
use crate::code;

/// Lists every API with its versions.
pub(super) fn handle(cluster: &Cluster, call: &Call) -> ApiVersionsResponse {
    let rows = advertised(&cluster.config).map(row).collect();
    let forced = call.forced_whole().or_else(|| call.forced_whole_after());
    let answer = ApiVersionsResponse::default()
        .with_error_code(forced.unwrap_or(code::NONE))
        .with_api_keys(rows);
    if call.version < 3 {
        return answer;
    }
    let feature = StrBytes::from_static_str("transaction.version");
    let supported = SupportedFeatureKey::default()
        .with_name(feature.clone())
        .with_min_version(0)
        .with_max_version(2);
    let finalized = FinalizedFeatureKey::default()
        .with_name(feature)
        .with_min_version_level(2)
        .with_max_version_level(2);
    answer
        .with_supported_features(vec![supported])
        .with_finalized_features_epoch(1)
        .with_finalized_features(vec![finalized])
}

/// The answer to a version the broker does not speak; to be encoded as v0.
pub(crate) fn unsupported(cluster: &Cluster) -> ApiVersionsResponse {
    // Before KIP-511 (2.4) nothing was listed.
    let own = advertised(&cluster.config).filter(|(key, _, high)| *key == 18 && *high >= 3);
    ApiVersionsResponse::default()
        .with_error_code(code::UNSUPPORTED_VERSION)
        .with_api_keys(own.map(row).collect())
}

fn row((key, low, high): (i16, i16, i16)) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(key)
        .with_min_version(low)
        .with_max_version(high)
}
