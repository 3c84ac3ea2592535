//! Every shape held against what `kafka-protocol` itself encodes, in every version in use, and
//! against bodies with hostile counts.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

use crate::call::sealed::Shaped;
use crate::call::{Call, decode};

/// Encodes a filled response in every version of the call and holds the shape against it: whole, cut
/// short, too long, and with a hostile value written over every place.
fn holds<R: Call>(filled: impl Fn(i16) -> R::Response)
where
    R::Response: Encodable + PartialEq + std::fmt::Debug,
{
    for version in R::MIN..=R::MAX {
        let name = format!("{} v{version}", R::NAME);
        let response = filled(version);
        let mut body = BytesMut::new();
        response
            .encode(&mut body, version)
            .unwrap_or_else(|e| panic!("{name} cannot be encoded: {e:#}"));
        let body = body.freeze();
        R::check(version, &body).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            decode::<R>(version, body.clone()).unwrap(),
            response,
            "{name}"
        );
        if version == R::MAX {
            bless::<R>(&body);
        }
        for cut in 0..body.len() {
            R::check(version, &body[..cut]).expect_err(&name);
        }
        let longer = [&body[..], &[0]].concat();
        R::check(version, &longer).expect_err(&name);
        for hostile in HOSTILE {
            for at in 0..body.len() {
                let mut bytes = body.to_vec();
                let end = (at + hostile.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&hostile[..end - at]);
                // Whatever it says, it must not take the process down.
                let _ = decode::<R>(version, Bytes::from(bytes));
            }
        }
    }
}

/// With `STRAIT_BLESS=1`: an input for the fuzz target `control` of proto-tests.
fn bless<R: Call>(body: &[u8]) {
    if std::env::var_os("STRAIT_BLESS").is_none() {
        return;
    }
    let index = crate::ANSWERS
        .iter()
        .position(|(api, ..)| *api == R::API)
        .unwrap();
    let mut input = vec![index as u8, (R::MAX - R::MIN) as u8];
    if crate::frame::header_kinds(R::API, R::MAX)
        .unwrap()
        .flexible_response
    {
        input.push(0);
    }
    input.extend_from_slice(body);
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/fuzz/control");
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(format!("{dir}/{}.bin", R::NAME), input).unwrap();
}

const HOSTILE: &[&[u8]] = &[
    &i32::MAX.to_be_bytes(),
    &(-2i32).to_be_bytes(),
    &i32::MIN.to_be_bytes(),
    &[0x7f, 0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xfe, 0xff, 0xff, 0xff, 0x07],
    &[0x00],
    &[0x7f],
];

fn s(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic(name: &'static str) -> TopicName {
    TopicName(s(name))
}

fn ids() -> Vec<BrokerId> {
    vec![BrokerId(1), BrokerId(2)]
}

/// `value` from version `since` on, otherwise the default.
fn from<T: Default>(version: i16, since: i16, value: T) -> T {
    if version >= since {
        value
    } else {
        T::default()
    }
}

#[test]
fn metadata() {
    holds::<MetadataRequest>(|v| {
        let partition = MetadataResponsePartition::default()
            .with_partition_index(3)
            .with_leader_id(BrokerId(1))
            .with_leader_epoch(if v >= 7 { 9 } else { -1 })
            .with_replica_nodes(ids())
            .with_isr_nodes(ids())
            .with_offline_replicas(from(v, 5, ids()));
        let named = MetadataResponseTopic::default()
            .with_name(Some(topic("orders")))
            .with_topic_id(from(v, 10, Uuid::from_u128(7)))
            .with_partitions(vec![partition.clone(), partition]);
        MetadataResponse::default()
            .with_brokers(vec![
                MetadataResponseBroker::default()
                    .with_node_id(BrokerId(1))
                    .with_host(s("b1.example"))
                    .with_port(9092)
                    .with_rack(Some(s("r1"))),
                MetadataResponseBroker::default()
                    .with_node_id(BrokerId(2))
                    .with_rack(None),
            ])
            .with_cluster_id(Some(s("cluster")))
            .with_controller_id(BrokerId(2))
            .with_topics(vec![named, MetadataResponseTopic::default()])
    });
}

#[test]
fn offsets() {
    holds::<ListOffsetsRequest>(|v| {
        ListOffsetsResponse::default().with_topics(vec![
            ListOffsetsTopicResponse::default()
                .with_name(topic("a"))
                .with_partitions(vec![
                    ListOffsetsPartitionResponse::default()
                        .with_offset(5)
                        .with_leader_epoch(if v >= 4 { 2 } else { -1 }),
                    ListOffsetsPartitionResponse::default(),
                ]),
        ])
    });
    holds::<OffsetForLeaderEpochRequest>(|_| {
        OffsetForLeaderEpochResponse::default().with_topics(vec![
            OffsetForLeaderTopicResult::default()
                .with_topic(topic("a"))
                .with_partitions(vec![EpochEndOffset::default().with_end_offset(7); 2]),
        ])
    });
}

#[test]
fn topics_and_configurations() {
    holds::<CreateTopicsRequest>(|v| {
        let config = CreatableTopicConfigs::default()
            .with_name(s("retention.ms"))
            .with_value(Some(s("1")));
        CreateTopicsResponse::default().with_topics(vec![
            CreatableTopicResult::default()
                .with_name(topic("a"))
                .with_topic_id(from(v, 7, Uuid::from_u128(3)))
                .with_error_message(Some(s("words")))
                .with_topic_config_error_code(from(v, 5, 29))
                .with_configs(if v >= 5 {
                    Some(vec![config; 2])
                } else {
                    CreatableTopicResult::default().configs
                }),
        ])
    });
    holds::<CreatePartitionsRequest>(|_| {
        CreatePartitionsResponse::default().with_results(vec![
            CreatePartitionsTopicResult::default()
                .with_name(topic("a"))
                .with_error_message(Some(s("words"))),
            CreatePartitionsTopicResult::default().with_error_message(None),
        ])
    });
    holds::<DescribeConfigsRequest>(|v| {
        let synonym = DescribeConfigsSynonym::default()
            .with_name(s("log.retention.ms"))
            .with_value(None);
        let config = DescribeConfigsResourceResult::default()
            .with_name(s("retention.ms"))
            .with_value(Some(s("86400000")))
            .with_config_source(5)
            .with_synonyms(vec![synonym; 2])
            .with_config_type(from(v, 3, 5))
            .with_documentation(if v >= 3 {
                Some(s("how long"))
            } else {
                DescribeConfigsResourceResult::default().documentation
            });
        DescribeConfigsResponse::default().with_results(vec![
            DescribeConfigsResult::default()
                .with_resource_type(2)
                .with_resource_name(s("a"))
                .with_configs(vec![config; 2]),
            DescribeConfigsResult::default().with_error_message(None),
        ])
    });
    holds::<IncrementalAlterConfigsRequest>(|_| {
        IncrementalAlterConfigsResponse::default().with_responses(vec![
            AlterConfigsResourceResponse::default()
                .with_resource_name(s("a"))
                .with_error_message(Some(s("words"))),
        ])
    });
}

#[test]
fn producers_and_transactions() {
    holds::<InitProducerIdRequest>(|_| {
        InitProducerIdResponse::default().with_producer_id(ProducerId(4))
    });
    holds::<AddPartitionsToTxnRequest>(|_| {
        AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(vec![
            AddPartitionsToTxnTopicResult::default()
                .with_name(topic("a"))
                .with_results_by_partition(vec![AddPartitionsToTxnPartitionResult::default(); 2]),
        ])
    });
    holds::<EndTxnRequest>(|_| EndTxnResponse::default().with_error_code(48));
    holds::<DescribeTransactionsRequest>(|_| {
        DescribeTransactionsResponse::default().with_transaction_states(vec![
            TransactionState::default()
                .with_transactional_id(TransactionalId(s("strait.link.0")))
                .with_transaction_state(s("PrepareAbort"))
                .with_topics(vec![
                    TopicData::default()
                        .with_topic(topic("a"))
                        .with_partitions(vec![1, 2]),
                ]),
        ])
    });
    holds::<DescribeProducersRequest>(|_| {
        DescribeProducersResponse::default().with_topics(vec![
            TopicResponse::default()
                .with_name(topic("a"))
                .with_partitions(vec![
                    PartitionResponse::default().with_active_producers(vec![
                        ProducerState::default(
                        );
                        2
                    ]),
                    PartitionResponse::default().with_error_message(Some(s("words"))),
                ]),
        ])
    });
}

#[test]
fn groups() {
    holds::<FindCoordinatorRequest>(|v| {
        if v >= 4 {
            let one = Coordinator::default()
                .with_key(s("g"))
                .with_node_id(BrokerId(1))
                .with_host(s("b1.example"))
                .with_port(9092)
                .with_error_message(Some(s("words")));
            return FindCoordinatorResponse::default().with_coordinators(vec![one.clone(), one]);
        }
        FindCoordinatorResponse::default()
            .with_error_message(Some(s("words")))
            .with_node_id(BrokerId(1))
            .with_host(s("b1.example"))
            .with_port(9092)
    });
    holds::<DescribeShareGroupOffsetsRequest>(|_| {
        use describe_share_group_offsets_response as d;
        let partition = d::DescribeShareGroupOffsetsResponsePartition::default()
            .with_error_message(Some(s("words")));
        let topic = d::DescribeShareGroupOffsetsResponseTopic::default()
            .with_topic_name(TopicName(s("t")))
            .with_partitions(vec![partition.clone(), partition]);
        let group = d::DescribeShareGroupOffsetsResponseGroup::default()
            .with_group_id(GroupId(s("g")))
            .with_topics(vec![topic]);
        DescribeShareGroupOffsetsResponse::default().with_groups(vec![group.clone(), group])
    });
    holds::<AlterShareGroupOffsetsRequest>(|_| {
        use alter_share_group_offsets_response as a;
        let partition = a::AlterShareGroupOffsetsResponsePartition::default();
        let topic = a::AlterShareGroupOffsetsResponseTopic::default()
            .with_topic_name(TopicName(s("t")))
            .with_partitions(vec![partition.clone(), partition]);
        AlterShareGroupOffsetsResponse::default()
            .with_error_message(Some(s("words")))
            .with_responses(vec![topic])
    });
    holds::<ListGroupsRequest>(|v| {
        ListGroupsResponse::default().with_groups(vec![
            ListedGroup::default()
                .with_group_id(GroupId(s("g")))
                .with_protocol_type(s("consumer"))
                .with_group_state(from(v, 4, s("Empty")))
                .with_group_type(from(v, 5, s("classic"))),
        ])
    });
    holds::<DescribeGroupsRequest>(|v| {
        let member = DescribedGroupMember::default()
            .with_member_id(s("m"))
            .with_group_instance_id(if v >= 4 {
                Some(s("i"))
            } else {
                DescribedGroupMember::default().group_instance_id
            })
            .with_client_host(s("/10.0.0.1"))
            .with_member_metadata(Bytes::from_static(b"meta"))
            .with_member_assignment(Bytes::from_static(b"assigned"));
        DescribeGroupsResponse::default().with_groups(vec![
            DescribedGroup::default()
                .with_group_id(GroupId(s("g")))
                .with_group_state(s("Stable"))
                .with_members(vec![member; 2]),
        ])
    });
    holds::<OffsetCommitRequest>(|_| {
        OffsetCommitResponse::default().with_topics(vec![
            OffsetCommitResponseTopic::default()
                .with_name(topic("a"))
                .with_partitions(vec![OffsetCommitResponsePartition::default(); 2]),
        ])
    });
    holds::<OffsetFetchRequest>(|v| {
        if v >= 8 {
            let partition = OffsetFetchResponsePartitions::default()
                .with_committed_offset(9)
                .with_metadata(Some(s("meta")));
            let topics = OffsetFetchResponseTopics::default()
                .with_name(topic("a"))
                .with_partitions(vec![partition; 2]);
            OffsetFetchResponse::default().with_groups(vec![
                OffsetFetchResponseGroup::default()
                    .with_group_id(GroupId(s("g")))
                    .with_topics(vec![topics]),
            ])
        } else {
            let partition = OffsetFetchResponsePartition::default()
                .with_committed_offset(9)
                .with_metadata(Some(s("meta")));
            OffsetFetchResponse::default().with_topics(vec![
                OffsetFetchResponseTopic::default()
                    .with_name(topic("a"))
                    .with_partitions(vec![partition; 2]),
            ])
        }
    });
}

#[test]
fn authentication() {
    holds::<SaslHandshakeRequest>(|_| {
        SaslHandshakeResponse::default().with_mechanisms(vec![s("PLAIN"), s("GSSAPI")])
    });
    holds::<SaslAuthenticateRequest>(|v| {
        SaslAuthenticateResponse::default()
            .with_error_message(Some(s("words")))
            .with_auth_bytes(Bytes::from_static(b"token"))
            .with_session_lifetime_ms(from(v, 1, 3_600_000))
    });
}

#[test]
fn acls_users_and_log_dirs() {
    use create_acls_response::AclCreationResult;
    use describe_acls_response::{AclDescription, DescribeAclsResource};
    use describe_client_quotas_response::{EntityData, EntryData, ValueData};
    use describe_log_dirs_response::{
        DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
    };
    use describe_user_scram_credentials_response::{
        CredentialInfo, DescribeUserScramCredentialsResult,
    };
    holds::<DescribeAclsRequest>(|_| {
        let acl = AclDescription::default()
            .with_principal(s("User:alice"))
            .with_host(s("*"))
            .with_operation(3)
            .with_permission_type(3);
        let resource = DescribeAclsResource::default()
            .with_resource_type(2)
            .with_resource_name(s("orders"))
            .with_pattern_type(3)
            .with_acls(vec![acl; 2]);
        DescribeAclsResponse::default()
            .with_error_message(Some(s("words")))
            .with_resources(vec![resource; 2])
    });
    holds::<CreateAclsRequest>(|_| {
        let result = AclCreationResult::default()
            .with_error_code(31)
            .with_error_message(Some(s("words")));
        CreateAclsResponse::default().with_results(vec![result; 2])
    });
    holds::<DescribeLogDirsRequest>(|v| {
        let partition = DescribeLogDirsPartition::default().with_partition_size(9);
        let topic = DescribeLogDirsTopic::default()
            .with_name(topic("a"))
            .with_partitions(vec![partition; 2]);
        DescribeLogDirsResponse::default().with_results(vec![
            DescribeLogDirsResult::default()
                .with_log_dir(s("/data"))
                .with_topics(vec![topic; 2])
                .with_total_bytes(if v >= 4 { 10 } else { -1 })
                .with_usable_bytes(if v >= 4 { 5 } else { -1 }),
        ])
    });
    holds::<DescribeClientQuotasRequest>(|_| {
        let entity = EntityData::default()
            .with_entity_type(s("user"))
            .with_entity_name(Some(s("alice")));
        let value = ValueData::default()
            .with_key(s("producer_byte_rate"))
            .with_value(1.5);
        let entry = EntryData::default()
            .with_entity(vec![entity])
            .with_values(vec![value; 2]);
        DescribeClientQuotasResponse::default()
            .with_error_message(Some(s("words")))
            .with_entries(Some(vec![entry; 2]))
    });
    holds::<DescribeUserScramCredentialsRequest>(|_| {
        let info = CredentialInfo::default()
            .with_mechanism(2)
            .with_iterations(4096);
        let user = DescribeUserScramCredentialsResult::default()
            .with_user(s("alice"))
            .with_credential_infos(vec![info; 2]);
        DescribeUserScramCredentialsResponse::default().with_results(vec![user; 2])
    });
}

#[test]
fn a_tagged_field_which_the_decoder_reads_must_have_its_size() {
    // The decoder reads two bytes for tag 0, whatever its size says, and would then take what
    // follows for something else.
    let body = [
        &0i32.to_be_bytes()[..], // throttle time
        &[2, 2, b'a'],           // one topic
        &0i16.to_be_bytes(),
        &[0],                // no message
        &[0, 0, 0, 1, 0, 1], // partitions, replication factor
        &[1],                // no configurations
        &[1, 0, 0],          // one tag: 0, of no bytes
        &[0],
    ]
    .concat();
    let error = CreateTopicsRequest::check(5, &body).unwrap_err();
    assert!(error.contains("tagged field 0"), "{error}");
}
