//! ApiVersions: which versions a broker speaks.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::protocol::{Encodable, StrBytes};

use crate::connection::{Connection, Identity};
use crate::error::NetError;
use crate::kafka_error::KafkaError;
use crate::shape::{Cursor, Misshapen};

pub(crate) const API_VERSIONS: i16 = 18;

type Versions = BTreeMap<i16, (i16, i16)>;

/// Asks for the broker's versions in 4, then in the highest version it names, then in 0.
///
/// KIP-511: a broker that does not know the version asked for answers UNSUPPORTED_VERSION in the
/// layout of version 0, with at least the range of ApiVersions itself (older ones: with nothing).
pub(crate) async fn negotiate(
    connection: &Connection,
    identity: &Identity,
    timeout: Duration,
) -> Result<Versions, NetError> {
    let mut version = 4;
    loop {
        let body = request(identity, version).map_err(|what| NetError::Invalid { what })?;
        let answer = connection
            .send(API_VERSIONS, version, vec![body], timeout, None)
            .await?;
        let malformed =
            |what: String| NetError::malformed(connection.peer(), "ApiVersions", version, what);
        let (error, versions) = decode(version, &answer).map_err(|e| malformed(e.to_string()))?;
        match KafkaError(error) {
            KafkaError(0) => return Ok(versions),
            KafkaError::UNSUPPORTED_VERSION if version > 0 => {
                let highest = versions.get(&API_VERSIONS).map_or(0, |range| range.1);
                version = if highest >= 3 && version > 3 { 3 } else { 0 };
            }
            _ => {
                return Err(NetError::kafka(
                    error,
                    "ApiVersions",
                    connection.peer().to_string(),
                ));
            }
        }
    }
}

fn request(identity: &Identity, version: i16) -> Result<Bytes, String> {
    let mut request = ApiVersionsRequest::default();
    if version >= 3 {
        request = request
            .with_client_software_name(software(&identity.software_name))
            .with_client_software_version(software(&identity.software_version));
    }
    let mut body = bytes::BytesMut::new();
    request
        .encode(&mut body, version)
        .map_err(|e| format!("ApiVersions cannot be encoded: {e:#}"))?;
    Ok(body.freeze())
}

/// Brokers accept `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?` only (KIP-511) and refuse the whole
/// request otherwise.
fn software(name: &str) -> StrBytes {
    let mapped: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let trimmed = mapped.trim_matches(['-', '.']);
    StrBytes::from_string(
        if trimmed.is_empty() {
            "unknown"
        } else {
            trimmed
        }
        .to_owned(),
    )
}

/// Error code and versions. Read by hand: the layout of version 0 may come in answer to any
/// version, and what follows the versions (features) is not needed.
pub(crate) fn decode(version: i16, body: &[u8]) -> Result<(i16, Versions), Misshapen> {
    let mut peek = Cursor::new(body, false);
    let error = i16::from_be_bytes(peek.array()?);
    let flexible = version >= 3 && error != KafkaError::UNSUPPORTED_VERSION.0;
    let mut cursor = Cursor::new(&body[2..], flexible);
    let mut versions = Versions::new();
    if error != 0 && cursor.left() == 0 {
        return Ok((error, versions));
    }
    for _ in 0..cursor.count()? {
        let api = i16::from_be_bytes(cursor.array()?);
        let min = i16::from_be_bytes(cursor.array()?);
        let max = i16::from_be_bytes(cursor.array()?);
        if flexible {
            cursor.tags(&[])?;
        }
        versions.insert(api, (min, max));
    }
    Ok((error, versions))
}
