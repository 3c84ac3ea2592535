//! The control-plane requests that can be made, each with its versions and its response's shape.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, AlterShareGroupOffsetsRequest,
    AlterShareGroupOffsetsResponse, CreateAclsRequest, CreateAclsResponse, CreatePartitionsRequest,
    CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DescribeAclsRequest,
    DescribeAclsResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
    DescribeConfigsRequest, DescribeConfigsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeProducersRequest,
    DescribeProducersResponse, DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse,
    DescribeTransactionsRequest, DescribeTransactionsResponse, DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse, EndTxnRequest, EndTxnResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    InitProducerIdRequest, InitProducerIdResponse, ListGroupsRequest, ListGroupsResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, SaslAuthenticateRequest,
    SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::frame::{header_kinds, response_body};
use crate::handshake::{self, API_VERSIONS};
use crate::shapes;

/// A control-plane request of the `kafka-protocol` crate which [`crate::Connection::request`] can
/// make. Implemented here only, and only together with the response's shape, so that no response is
/// decoded that has not been checked.
pub trait Call: Encodable + Send + sealed::Shaped {
    /// What the broker answers.
    type Response: Decodable + Send;
    /// Kafka's number of the API.
    const API: i16;
    /// Kafka's name of the API.
    const NAME: &'static str;
    /// The lowest version that does what Strait needs.
    const MIN: i16;
    /// The highest version that Strait speaks.
    const MAX: i16;
}

pub(crate) mod sealed {
    /// Keeps [`super::Call`] closed: a response's shape is part of it.
    pub trait Shaped {
        #[doc(hidden)]
        fn check(version: i16, body: &[u8]) -> Result<(), String>;
    }
}

macro_rules! calls {
    ($($request:ident -> $response:ident: $key:literal $name:literal $min:literal..=$max:literal $shape:ident;)+) => {
        $(
            impl sealed::Shaped for $request {
                fn check(version: i16, body: &[u8]) -> Result<(), String> {
                    shapes::$shape.check(version, body).map_err(|e| e.to_string())
                }
            }
            impl Call for $request {
                type Response = $response;
                const API: i16 = $key;
                const NAME: &'static str = $name;
                const MIN: i16 = $min;
                const MAX: i16 = $max;
            }
        )+

        /// The APIs of [`decode_answer`], each with its versions.
        #[doc(hidden)]
        pub const ANSWERS: &[(i16, i16, i16)] = &[(API_VERSIONS, 0, 4), $(($key, $min, $max)),+];

        /// Reads `rest`, what follows the correlation id of an answer, as a connection does, and drops it: for tests that
        /// give it hostile bytes.
        ///
        /// # Errors
        /// What is wrong with the bytes, or an API that is none of [`ANSWERS`].
        #[doc(hidden)]
        pub fn decode_answer(api: i16, version: i16, rest: Bytes) -> Result<(), String> {
            let kinds = header_kinds(api, version).ok_or("unknown API")?;
            let body = response_body(kinds.flexible_response, rest)?;
            match api {
                API_VERSIONS => handshake::decode(version, &body).map(drop).map_err(|e| e.to_string()),
                $($key => decode::<$request>(version, body).map(drop),)+
                _ => Err("unknown API".to_owned()),
            }
        }
    };
}

// Upper bounds that are lower than what exists have a reason:
// Metadata 13 only moves errors to the top; FindCoordinator 5 and 6 are for others than clients of groups;
// AddPartitionsToTxn 4 is for brokers and EndTxn 5 raises the producer's epoch.
calls! {
    ListOffsetsRequest -> ListOffsetsResponse: 2 "ListOffsets" 1..=9 LIST_OFFSETS;
    MetadataRequest -> MetadataResponse: 3 "Metadata" 4..=12 METADATA;
    OffsetCommitRequest -> OffsetCommitResponse: 8 "OffsetCommit" 2..=9 OFFSET_COMMIT;
    OffsetFetchRequest -> OffsetFetchResponse: 9 "OffsetFetch" 1..=9 OFFSET_FETCH;
    FindCoordinatorRequest -> FindCoordinatorResponse: 10 "FindCoordinator" 1..=4 FIND_COORDINATOR;
    DescribeGroupsRequest -> DescribeGroupsResponse: 15 "DescribeGroups" 0..=6 DESCRIBE_GROUPS;
    ListGroupsRequest -> ListGroupsResponse: 16 "ListGroups" 0..=5 LIST_GROUPS;
    SaslHandshakeRequest -> SaslHandshakeResponse: 17 "SaslHandshake" 1..=1 SASL_HANDSHAKE;
    CreateTopicsRequest -> CreateTopicsResponse: 19 "CreateTopics" 2..=7 CREATE_TOPICS;
    InitProducerIdRequest -> InitProducerIdResponse: 22 "InitProducerId" 0..=5 INIT_PRODUCER_ID;
    OffsetForLeaderEpochRequest -> OffsetForLeaderEpochResponse: 23 "OffsetForLeaderEpoch" 2..=4 OFFSET_FOR_LEADER_EPOCH;
    AddPartitionsToTxnRequest -> AddPartitionsToTxnResponse: 24 "AddPartitionsToTxn" 0..=3 ADD_PARTITIONS_TO_TXN;
    EndTxnRequest -> EndTxnResponse: 26 "EndTxn" 0..=4 END_TXN;
    DescribeConfigsRequest -> DescribeConfigsResponse: 32 "DescribeConfigs" 1..=4 DESCRIBE_CONFIGS;
    SaslAuthenticateRequest -> SaslAuthenticateResponse: 36 "SaslAuthenticate" 0..=2 SASL_AUTHENTICATE;
    CreatePartitionsRequest -> CreatePartitionsResponse: 37 "CreatePartitions" 0..=3 CREATE_PARTITIONS;
    IncrementalAlterConfigsRequest -> IncrementalAlterConfigsResponse: 44 "IncrementalAlterConfigs" 0..=1 INCREMENTAL_ALTER_CONFIGS;
    DescribeProducersRequest -> DescribeProducersResponse: 61 "DescribeProducers" 0..=0 DESCRIBE_PRODUCERS;
    DescribeTransactionsRequest -> DescribeTransactionsResponse: 65 "DescribeTransactions" 0..=0 DESCRIBE_TRANSACTIONS;
    DescribeAclsRequest -> DescribeAclsResponse: 29 "DescribeAcls" 1..=3 DESCRIBE_ACLS;
    CreateAclsRequest -> CreateAclsResponse: 30 "CreateAcls" 1..=3 CREATE_ACLS;
    DescribeLogDirsRequest -> DescribeLogDirsResponse: 35 "DescribeLogDirs" 1..=4 DESCRIBE_LOG_DIRS;
    DescribeClientQuotasRequest -> DescribeClientQuotasResponse: 48 "DescribeClientQuotas" 0..=1 DESCRIBE_CLIENT_QUOTAS;
    DescribeUserScramCredentialsRequest -> DescribeUserScramCredentialsResponse: 50 "DescribeUserScramCredentials" 0..=0 DESCRIBE_USER_SCRAM_CREDENTIALS;
    DescribeShareGroupOffsetsRequest -> DescribeShareGroupOffsetsResponse: 90 "DescribeShareGroupOffsets" 0..=0 DESCRIBE_SHARE_GROUP_OFFSETS;
    AlterShareGroupOffsetsRequest -> AlterShareGroupOffsetsResponse: 91 "AlterShareGroupOffsets" 0..=0 ALTER_SHARE_GROUP_OFFSETS;
}

/// The request's body in `version`.
pub(crate) fn encode<R: Call>(request: &R, version: i16) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    request
        .encode(&mut body, version)
        .map_err(|e| format!("{e:#}"))?;
    Ok(body.freeze())
}

/// The response in `body`, after its shape has been checked.
pub(crate) fn decode<R: Call>(version: i16, mut body: Bytes) -> Result<R::Response, String> {
    R::check(version, &body)?;
    R::Response::decode(&mut body, version).map_err(|e| format!("{e:#}"))
}
