//! Versions, topics, settings, groups, SASL: everything around the data.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use bytes::Bytes;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, StrBytes};
use strait_testkit::{Broker, BrokerConfig};
use wire::{Client, broker, fetch_at, list_offsets, name, plain, produce_request};

fn text(value: &str) -> StrBytes {
    StrBytes::from(value.to_owned())
}

#[tokio::test(start_paused = true)]
async fn an_unknown_api_versions_version_is_answered_in_the_form_of_v0() {
    let broker = broker();
    let mut client = Client::new(&broker);
    // Key 18, version 99, correlation 5, and nothing that could be decoded.
    client
        .raw(&[0, 18, 0, 99, 0, 0, 0, 5, 1, 2, 3])
        .await
        .unwrap();
    let mut frame = client.frame().await.unwrap();
    ResponseHeader::decode(&mut frame, 0).unwrap();
    let answer = ApiVersionsResponse::decode(&mut frame, 0).unwrap();
    assert_eq!(answer.error_code, 35);
    assert_eq!(
        (answer.api_keys[0].api_key, answer.api_keys[0].max_version),
        (18, 4)
    );
    for version in 0..=4 {
        let answer = client
            .call(version, &ApiVersionsRequest::default())
            .await
            .unwrap();
        let produce = &answer.api_keys[0];
        assert_eq!(
            (produce.api_key, produce.min_version, produce.max_version),
            (0, 0, 13)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn versions_out_of_range_close_the_connection() {
    let broker = Broker::new(BrokerConfig {
        max_versions: [(1, 11), (0, 7)].into(),
        hidden_apis: [44].into(),
        ..BrokerConfig::simulated("old")
    });
    // (key, version): Produce 2 is advertised and closes all the same.
    for (key, version) in [
        (2, 0),
        (1, 3),
        (0, 2),
        (1, 12),
        (0, 8),
        (44, 0),
        (3, 14),
        (9999, 0),
    ] {
        let mut client = Client::new(&broker);
        let mut body = Vec::new();
        body.extend_from_slice(&i16::to_be_bytes(key));
        body.extend_from_slice(&i16::to_be_bytes(version));
        body.extend_from_slice(&[0; 60]);
        client.raw(&body).await.unwrap();
        assert!(client.frame().await.is_err(), "key {key} version {version}");
    }
    let answer = Client::new(&broker)
        .call(3, &ApiVersionsRequest::default())
        .await
        .unwrap();
    let max = |key| {
        answer
            .api_keys
            .iter()
            .find(|a| a.api_key == key)
            .map(|a| a.max_version)
    };
    assert_eq!((max(0), max(1), max(44)), (Some(7), Some(11), None));
}

#[tokio::test(start_paused = true)]
async fn every_version_of_every_api_is_answered_in_its_own_form() {
    let broker = broker();
    broker.create_topic("t", 1, &[]).unwrap();
    broker.commit("g", "t", 0, 1);
    let mut client = Client::new(&broker);
    for version in 3..=12 {
        client
            .call(
                version,
                &produce_request(1, &[("t", 0, plain(1)), ("x", 0, plain(1))]),
            )
            .await
            .unwrap();
    }
    for version in 4..=12 {
        let mut request = fetch_at(0);
        request.topics[0].partitions[0].current_leader_epoch = if version < 9 { -1 } else { 0 };
        client.call(version, &request).await.unwrap();
        client.call(version, &fetch_at(99)).await.unwrap();
    }
    for version in 1..=10 {
        client
            .call(version, &list_offsets("t", -1, -1, false))
            .await
            .unwrap();
    }
    for version in 0..=13 {
        client
            .call(version, &MetadataRequest::default().with_topics(None))
            .await
            .unwrap();
    }
    for version in 0..=6 {
        let request = FindCoordinatorRequest::default();
        let request = if version < 4 {
            request.with_key(text("g"))
        } else {
            request.with_coordinator_keys(vec![text("g")])
        };
        let request = if version > 0 {
            request.with_key_type(1)
        } else {
            request
        };
        client.call(version, &request).await.unwrap();
    }
    for version in 2..=7 {
        let topic = CreatableTopic::default()
            .with_name(name(&format!("made{version}")))
            .with_num_partitions(2)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!(answer.topics[0].error_code, 0);
        let again = client.call(version, &request).await.unwrap();
        assert_eq!(again.topics[0].error_code, 36);
        let request = DeleteTopicsRequest::default();
        let request = if version - 1 < 6 {
            request.with_topic_names(vec![name(&format!("made{version}"))])
        } else {
            let state = delete_topics_request::DeleteTopicState::default();
            request.with_topics(vec![state.with_name(Some(name(&format!("made{version}"))))])
        };
        assert_eq!(
            client.call(version - 1, &request).await.unwrap().responses[0].error_code,
            0
        );
    }
    for version in 1..=4 {
        let resources = [(2, "t"), (4, "1"), (2, "nope")].map(|(kind, name)| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(name))
                .with_configuration_keys(None)
        });
        let request = DescribeConfigsRequest::default().with_resources(resources.to_vec());
        let answer = client.call(version, &request).await.unwrap();
        let errors: Vec<_> = answer.results.iter().map(|r| r.error_code).collect();
        assert_eq!(errors, [0, 0, 3]);
    }
    for version in 0..=5 {
        client
            .call(version, &ListGroupsRequest::default())
            .await
            .unwrap();
    }
    for version in 0..=2 {
        let request = DescribeClusterRequest::default();
        let request = if version > 0 {
            request.with_endpoint_type(1)
        } else {
            request
        };
        assert_eq!(
            &*client.call(version, &request).await.unwrap().cluster_id,
            "test"
        );
    }
    for version in 0..=5 {
        let request = EndTxnRequest::default();
        assert_eq!(client.call(version, &request).await.unwrap().error_code, 49);
    }
    for version in 2..=9 {
        assert_eq!(
            commit(&mut client, version, "g", -1).await,
            0,
            "OffsetCommit v{version}"
        );
    }
    for version in 1..=7 {
        let topic = offset_fetch_request::OffsetFetchRequestTopic::default()
            .with_name(name("t"))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_topics(Some(vec![topic]));
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!(answer.topics[0].partitions[0].committed_offset, 1_000_000);
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_creates_topics_only_when_allowed() {
    let broker = broker();
    let mut client = Client::new(&broker);
    let ask = |allow| {
        let topic = MetadataRequestTopic::default().with_name(Some(name("new")));
        MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(allow)
    };
    assert_eq!(
        client.call(9, &ask(false)).await.unwrap().topics[0].error_code,
        3
    );
    assert!(broker.topics().is_empty());
    assert_eq!(
        client.call(9, &ask(true)).await.unwrap().topics[0].error_code,
        5
    );
    let answer = client.call(12, &ask(false)).await.unwrap();
    assert_eq!(answer.cluster_id.as_deref(), Some("test"));
    let topic = &answer.topics[0];
    assert_eq!(
        (topic.error_code, Some(topic.topic_id)),
        (0, broker.topic_id("new"))
    );
    let partition = &topic.partitions[0];
    assert_eq!((partition.leader_id.0, partition.leader_epoch), (1, 0));
    broker.set_leaderless("new", 0);
    let answer = client.call(12, &ask(false)).await.unwrap();
    let partition = &answer.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.leader_id.0), (5, -1));
}

#[tokio::test(start_paused = true)]
async fn creation_is_checked() {
    let broker = broker();
    broker.create_topic("there", 2, &[]).unwrap();
    let mut client = Client::new(&broker);
    for (topic, partitions, replication, config, error) in [
        ("there", 1, 1, None, 36),
        ("no spaces", 1, 1, None, 17),
        ("a", 0, 1, None, 37),
        ("a", 1, 2, None, 38),
        ("a", 1, 1, Some(("retention.ms", "soon")), 40),
        ("a", 1, 1, Some(("no.such.setting", "1")), 40),
        ("a", -1, -1, Some(("cleanup.policy", "compact")), 0),
    ] {
        let configs = config.map(|(key, value)| {
            CreatableTopicConfig::default()
                .with_name(text(key))
                .with_value(Some(text(value)))
        });
        let wanted = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(replication)
            .with_configs(configs.into_iter().collect());
        let request = CreateTopicsRequest::default().with_topics(vec![wanted]);
        let answer = client.call(7, &request).await.unwrap();
        assert_eq!(answer.topics[0].error_code, error, "{topic} {config:?}");
    }
    for (total, error) in [(2, 37), (1, 37), (5, 0)] {
        let topic = CreatePartitionsTopic::default()
            .with_name(name("there"))
            .with_count(total)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic]);
        assert_eq!(
            client.call(3, &request).await.unwrap().results[0].error_code,
            error
        );
    }
    assert_eq!(broker.topics()["there"], 5);
}

#[tokio::test(start_paused = true)]
async fn settings_are_altered_at_run_time() {
    let broker = broker();
    broker.create_topic("t", 1, &[]).unwrap();
    let mut client = Client::new(&broker);
    let alter = |kind, resource: &str, key: &str, operation, value: &str| {
        let config = AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(operation)
            .with_value(Some(text(value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(resource))
            .with_configs(vec![config]);
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
    };
    for (request, error) in [
        (alter(2, "t", "max.message.bytes", 0, "100"), 0),
        (alter(2, "t", "nonsense", 0, "100"), 40),
        (alter(2, "u", "max.message.bytes", 0, "100"), 3),
        (alter(2, "t", "cleanup.policy", 2, "compact"), 0),
        (
            alter(4, "", "producer.id.expiration.ms", 0, "2147483647"),
            0,
        ),
        (
            alter(4, "", "producer.id.expiration.ms", 0, "315360000000"),
            42,
        ),
    ] {
        let answer = client.call(1, &request).await.unwrap();
        assert_eq!(answer.responses[0].error_code, error);
    }
    assert_eq!(
        broker.topic_configs("t")["cleanup.policy"],
        "delete,compact"
    );
    assert_eq!(client.put(&plain(5)).await.0, 10);
    client
        .call(1, &alter(2, "t", "max.message.bytes", 1, ""))
        .await
        .unwrap();
    assert_eq!(client.put(&plain(5)).await.0, 0);
}

async fn commit(client: &mut Client, version: i16, group: &str, generation: i32) -> i16 {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(1_000_000);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![topic]);
    let answer = client.call(version, &request).await.unwrap();
    answer.topics[0].partitions[0].error_code
}

#[tokio::test(start_paused = true)]
async fn offsets_are_committed_from_outside_unless_the_group_lives() {
    let broker = broker();
    broker.create_topic("t", 1, &[]).unwrap();
    let mut client = Client::new(&broker);
    assert_eq!(
        commit(&mut client, 9, "g", -1).await,
        0,
        "beyond the log end, unknown group"
    );
    assert_eq!(broker.commits("g")[&("t".to_owned(), 0)].offset, 1_000_000);
    assert_eq!(commit(&mut client, 9, "h", 3).await, 22);
    broker.set_group_live("g", true);
    assert_eq!(commit(&mut client, 9, "g", -1).await, 25);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(Some(vec![
            OffsetFetchRequestTopics::default()
                .with_name(name("t"))
                .with_partition_indexes(vec![0, 1]),
        ]));
    let all = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![group, all]);
    let answer = client.call(8, &request).await.unwrap();
    let rows = &answer.groups[0].topics[0].partitions;
    assert_eq!(
        (rows[0].committed_offset, rows[1].committed_offset),
        (1_000_000, -1)
    );
    assert_eq!(answer.groups[1].topics[0].partitions.len(), 1);
    let groups = client
        .call(5, &ListGroupsRequest::default())
        .await
        .unwrap()
        .groups;
    assert_eq!(
        (&*groups[0].group_id.0, &*groups[0].group_state),
        ("g", "Stable")
    );
}

#[tokio::test(start_paused = true)]
async fn sasl_plain_is_required_when_configured() {
    let broker = Broker::new(BrokerConfig {
        sasl_plain: Some(("alice".to_owned(), "secret".to_owned())),
        ..BrokerConfig::simulated("safe")
    });
    let metadata = MetadataRequest::default().with_topics(None);
    assert!(Client::new(&broker).call(9, &metadata).await.is_err());
    for (token, error) in [("\0alice\0wrong", 58), ("\0alice\0secret", 0)] {
        let mut client = Client::new(&broker);
        client
            .call(3, &ApiVersionsRequest::default())
            .await
            .unwrap();
        let wrong = SaslHandshakeRequest::default().with_mechanism(text("SCRAM-SHA-256"));
        assert_eq!(client.call(1, &wrong).await.unwrap().error_code, 33);
        let handshake = SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
        assert_eq!(client.call(1, &handshake).await.unwrap().error_code, 0);
        let token = SaslAuthenticateRequest::default()
            .with_auth_bytes(Bytes::copy_from_slice(token.as_bytes()));
        assert_eq!(client.call(2, &token).await.unwrap().error_code, error);
        assert_eq!(client.call(9, &metadata).await.is_ok(), error == 0);
    }
}
