//! Frames: a length, a header, a body.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;

use crate::shape::Cursor;

/// The header version of requests and responses of one API version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeaderKinds {
    /// Request header 2 (with tagged fields) rather than 1.
    pub(crate) flexible_request: bool,
    /// Response header 1 (with tagged fields) rather than 0.
    pub(crate) flexible_response: bool,
}

/// The header kinds of an API version, or `None` for an API that this program does not know.
pub(crate) fn header_kinds(api: i16, version: i16) -> Option<HeaderKinds> {
    let key = ApiKey::try_from(api).ok()?;
    Some(HeaderKinds {
        flexible_request: key.request_header_version(version) >= 2,
        // ApiVersions answers with header 0 in every version, so that a client which asked in a
        // version the broker does not know can still read the answer (KIP-511).
        flexible_response: key != ApiKey::ApiVersions && key.response_header_version(version) >= 1,
    })
}

/// `Fetch v12`: how errors name a request.
pub(crate) fn request_name(api: i16, version: i16) -> String {
    match ApiKey::try_from(api) {
        Ok(key) => format!("{key:?} v{version}"),
        Err(()) => format!("API {api} v{version}"),
    }
}

/// The frame's length and request header; the body follows as it is. `None` if the frame would be
/// longer than a length field can say, or the client id longer than a string may be.
pub(crate) fn request_head(
    api: i16,
    version: i16,
    correlation: i32,
    client_id: &str,
    flexible: bool,
    body_len: usize,
) -> Option<Bytes> {
    let header_len = 2 + 2 + 4 + 2 + client_id.len() + usize::from(flexible);
    let frame_len = i32::try_from(header_len.checked_add(body_len)?).ok()?;
    let mut head = BytesMut::with_capacity(4 + header_len);
    head.put_i32(frame_len);
    head.put_i16(api);
    head.put_i16(version);
    head.put_i32(correlation);
    head.put_i16(i16::try_from(client_id.len()).ok()?);
    head.put_slice(client_id.as_bytes());
    if flexible {
        head.put_u8(0);
    }
    Some(head.freeze())
}

/// The response's body: what follows the header's tagged fields (`rest` begins after the
/// correlation id). Shares memory with `rest`.
pub(crate) fn response_body(flexible: bool, rest: Bytes) -> Result<Bytes, String> {
    if !flexible {
        return Ok(rest);
    }
    let mut cursor = Cursor::new(&rest, true);
    cursor
        .tags(&[])
        .map_err(|e| format!("in its header, {e}"))?;
    let skip = rest.len() - cursor.left();
    Ok(rest.slice(skip..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions_answers_with_the_old_header() {
        let kinds = header_kinds(18, 4).unwrap();
        assert!(kinds.flexible_request && !kinds.flexible_response);
        let fetch = header_kinds(1, 12).unwrap();
        assert!(fetch.flexible_request && fetch.flexible_response);
        let old = header_kinds(1, 11).unwrap();
        assert!(!old.flexible_request && !old.flexible_response);
        assert_eq!(header_kinds(9_999, 0), None);
    }

    #[test]
    fn a_header_is_what_kafka_protocol_writes() {
        use kafka_protocol::messages::RequestHeader;
        use kafka_protocol::protocol::{StrBytes, encode_request_header_into_buffer};
        for (api, version) in [(1, 11), (1, 12), (3, 7), (3, 12), (18, 3)] {
            let header = RequestHeader::default()
                .with_request_api_key(api)
                .with_request_api_version(version)
                .with_correlation_id(77)
                .with_client_id(Some(StrBytes::from_static_str("strait")));
            let mut expected = BytesMut::new();
            encode_request_header_into_buffer(&mut expected, &header).unwrap();
            let flexible = header_kinds(api, version).unwrap().flexible_request;
            let head = request_head(api, version, 77, "strait", flexible, 5).unwrap();
            assert_eq!(&head[4..], &expected[..]);
            assert_eq!(&head[..4], &(expected.len() as i32 + 5).to_be_bytes());
        }
    }

    #[test]
    fn tagged_fields_of_a_response_header_are_skipped() {
        let rest = Bytes::from_static(&[1, 9, 2, 0xaa, 0xbb, b'x', b'y']);
        assert_eq!(response_body(true, rest.clone()).unwrap(), &b"xy"[..]);
        assert_eq!(response_body(false, rest.clone()).unwrap(), rest);
        let lying = Bytes::from_static(&[1, 9, 200, 1, 0]);
        assert!(response_body(true, lying).is_err());
    }
}
