//! One cluster: finding a broker, metadata, leaders, coordinators, and the typed calls.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod peer;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::describe_share_group_offsets_response::DescribeShareGroupOffsetsResponseGroup;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use peer::{Asked, MODERN, Net, Peer, encode, identity};
use strait_net::CoordinatorKind::Transaction as TRANSACTION;
use strait_net::{Action, Cluster, KafkaError, NewTopic, Security};

/// What the brokers of a scripted cluster know and were asked.
struct Script {
    cluster_id: &'static str,
    /// Leader and epoch of partition 0 of every topic, as the metadata has it.
    leader: (i32, i32),
    /// The broker that really leads, if the metadata is behind; it catches up when asked again.
    really: Option<(i32, i32)>,
    coordinator: i32,
    /// Answers InitProducerId with these (error, producer id), then with success.
    producer_ids: Vec<(i16, i64)>,
    delay: Duration,
    /// This broker closes every connection at its next request, and new ones at once.
    dead: Option<i32>,
    /// This broker takes connections and answers nothing.
    hung: Option<i32>,
    /// This API of this broker has no answer.
    mute: Option<(i32, i16)>,
    ranges: &'static [(i16, i16, i16)],
    /// (broker, API) of every request but ApiVersions.
    asked: Vec<(i32, i16)>,
}

impl Script {
    fn new() -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            cluster_id: "cluster-a",
            leader: (1, 5),
            really: None,
            coordinator: 2,
            producer_ids: Vec::new(),
            delay: Duration::ZERO,
            dead: None,
            hung: None,
            mute: None,
            ranges: MODERN,
            asked: Vec::new(),
        }))
    }

    fn count(&self, api: i16) -> usize {
        self.asked.iter().filter(|(_, a)| *a == api).count()
    }

    /// What broker `id` answers.
    fn handle(&mut self, id: i32, asked: &Asked) -> Bytes {
        self.asked.push((id, asked.api));
        let v = asked.version;
        let leads = self.really.unwrap_or(self.leader).0 == id;
        match asked.api {
            2 => {
                let request: ListOffsetsRequest = asked.decode();
                let partition = &request.topics[0].partitions[0];
                // A follower answers replica id -2 with its own end and no error.
                let (error, offset) = match (leads, request.replica_id.0) {
                    (true, -2) => (0, 10),
                    (true, _) if request.isolation_level == 1 => (0, 3),
                    (true, _) => (0, 6),
                    (false, -2) => (0, 4),
                    (false, _) => (6, -1),
                };
                let partition = ListOffsetsPartitionResponse::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(error)
                    .with_offset(offset)
                    .with_leader_epoch(partition.current_leader_epoch);
                let topic = ListOffsetsTopicResponse::default()
                    .with_name(request.topics[0].name.clone())
                    .with_partitions(vec![partition]);
                encode(&ListOffsetsResponse::default().with_topics(vec![topic]), v)
            }
            3 => {
                let request: MetadataRequest = asked.decode();
                assert!(!request.allow_auto_topic_creation);
                encode(&self.metadata(request), v)
            }
            8 => {
                let request: OffsetCommitRequest = asked.decode();
                let error = if self.coordinator == id { 0 } else { 16 };
                let topics = request.topics.into_iter().map(|topic| {
                    let partitions = topic.partitions.into_iter().map(|p| {
                        OffsetCommitResponsePartition::default()
                            .with_partition_index(p.partition_index)
                            .with_error_code(error)
                    });
                    OffsetCommitResponseTopic::default()
                        .with_name(topic.name)
                        .with_partitions(partitions.collect())
                });
                let answer = OffsetCommitResponse::default().with_topics(topics.collect());
                encode(&answer, v)
            }
            9 => {
                let request: OffsetFetchRequest = asked.decode();
                let groups = request
                    .groups
                    .into_iter()
                    .map(|group| OffsetFetchResponseGroup::default().with_group_id(group.group_id));
                let answer = OffsetFetchResponse::default().with_groups(groups.collect());
                encode(&answer, v)
            }
            90 => {
                let request: DescribeShareGroupOffsetsRequest = asked.decode();
                let groups = request.groups.into_iter().map(|group| {
                    DescribeShareGroupOffsetsResponseGroup::default().with_group_id(group.group_id)
                });
                let answer = DescribeShareGroupOffsetsResponse::default();
                encode(&answer.with_groups(groups.collect()), v)
            }
            10 => {
                let request: FindCoordinatorRequest = asked.decode();
                assert!(matches!(request.key_type, 0 | 1));
                let answer = FindCoordinatorResponse::default();
                let answer = if v < 4 {
                    answer
                        .with_node_id(BrokerId(self.coordinator))
                        .with_host(StrBytes::from_static_str("unused"))
                        .with_port(1)
                } else {
                    let keys = request.coordinator_keys.into_iter();
                    answer.with_coordinators(
                        keys.map(|key| {
                            Coordinator::default()
                                .with_key(key)
                                .with_node_id(BrokerId(self.coordinator))
                                .with_port(1)
                        })
                        .collect(),
                    )
                };
                encode(&answer, v)
            }
            19 => {
                let request: CreateTopicsRequest = asked.decode();
                let name = request.topics[0].name.clone();
                let error = if name.as_str() == "taken" { 36 } else { 0 };
                let topic = CreatableTopicResult::default()
                    .with_name(name)
                    .with_topic_id(uuid::Uuid::from_u128(77))
                    .with_error_code(error)
                    .with_error_message(Some(StrBytes::from_static_str("it exists")));
                encode(&CreateTopicsResponse::default().with_topics(vec![topic]), v)
            }
            22 => {
                let request: InitProducerIdRequest = asked.decode();
                assert_ne!(
                    request.transactional_id.as_deref().map(|t| t.as_str()),
                    Some("")
                );
                let (error, id) = if request.transactional_id.is_some() && self.coordinator != id {
                    (16, -1)
                } else if self.producer_ids.is_empty() {
                    (0, 42)
                } else {
                    self.producer_ids.remove(0)
                };
                let answer = InitProducerIdResponse::default()
                    .with_error_code(error)
                    .with_producer_id(ProducerId(id))
                    .with_producer_epoch(7);
                encode(&answer, v)
            }
            23 => {
                let request: OffsetForLeaderEpochRequest = asked.decode();
                let (error, end) = if leads { (0, 10) } else { (6, -1) };
                let end = EpochEndOffset::default()
                    .with_error_code(error)
                    .with_leader_epoch(request.topics[0].partitions[0].leader_epoch)
                    .with_end_offset(end);
                let topic = OffsetForLeaderTopicResult::default()
                    .with_topic(request.topics[0].topic.clone())
                    .with_partitions(vec![end]);
                encode(
                    &OffsetForLeaderEpochResponse::default().with_topics(vec![topic]),
                    v,
                )
            }
            24 => {
                let request: AddPartitionsToTxnRequest = asked.decode();
                let error = if self.coordinator == id { 0 } else { 16 };
                let topics = request
                    .v3_and_below_topics
                    .iter()
                    .map(|t| {
                        let partitions = t
                            .partitions
                            .iter()
                            .map(|p| {
                                AddPartitionsToTxnPartitionResult::default()
                                    .with_partition_index(*p)
                                    .with_partition_error_code(error)
                            })
                            .collect();
                        AddPartitionsToTxnTopicResult::default()
                            .with_name(t.name.clone())
                            .with_results_by_partition(partitions)
                    })
                    .collect();
                let answer = AddPartitionsToTxnResponse::default()
                    .with_results_by_topic_v3_and_below(topics);
                encode(&answer, v)
            }
            32 => {
                let request: DescribeConfigsRequest = asked.decode();
                let results = request
                    .resources
                    .iter()
                    .map(|r| {
                        assert_eq!(r.configuration_keys, None, "all keys are asked for");
                        let config = DescribeConfigsResourceResult::default()
                            .with_name(StrBytes::from_static_str("retention.ms"))
                            .with_value(Some(StrBytes::from_static_str("5")))
                            .with_config_source(1);
                        let denied = r.resource_name.as_str() == "secret";
                        DescribeConfigsResult::default()
                            .with_resource_name(r.resource_name.clone())
                            .with_error_code(if denied { 29 } else { 0 })
                            .with_configs(if denied { vec![] } else { vec![config] })
                    })
                    .collect();
                encode(&DescribeConfigsResponse::default().with_results(results), v)
            }
            other => panic!("API {other} is not scripted"),
        }
    }

    fn metadata(&mut self, request: MetadataRequest) -> MetadataResponse {
        let (leader, epoch) = self.leader;
        if let Some(really) = self.really.take_if(|_| request.topics.is_some()) {
            // Behind once, then up to date.
            self.leader = really;
            self.really = Some(really);
        }
        let topics = request.topics.unwrap_or_default().into_iter().map(|t| {
            let exists = t.name.as_ref().is_some_and(|n| n.as_str() != "missing");
            let partition = MetadataResponsePartition::default()
                .with_leader_id(BrokerId(leader))
                .with_leader_epoch(epoch);
            MetadataResponseTopic::default()
                .with_name(t.name)
                .with_error_code(if exists { 0 } else { 3 })
                .with_partitions(if exists { vec![partition] } else { vec![] })
        });
        MetadataResponse::default()
            .with_cluster_id(Some(StrBytes::from_static_str(self.cluster_id)))
            .with_controller_id(BrokerId(2))
            .with_topics(topics.collect())
            .with_brokers(
                [1, 2]
                    .map(|id| {
                        MetadataResponseBroker::default()
                            .with_node_id(BrokerId(id))
                            .with_host(StrBytes::from_string(format!("b{id}")))
                            .with_port(9092)
                    })
                    .into(),
            )
    }
}

/// Puts brokers 1 and 2 of a scripted cluster on the network.
fn serve(net: &Arc<Net>, script: &Arc<Mutex<Script>>) {
    for id in [1, 2] {
        let script = script.clone();
        net.serve(&format!("b{id}"), 9092, move |stream| {
            let script = script.clone();
            async move {
                let mut peer = Peer(stream);
                let dead = || script.lock().unwrap().dead == Some(id);
                if dead() {
                    return;
                }
                if script.lock().unwrap().hung == Some(id) {
                    return std::future::pending().await;
                }
                let ranges = script.lock().unwrap().ranges;
                peer.greet(ranges).await;
                while let Some(asked) = peer.next().await {
                    if dead() {
                        return;
                    }
                    if script.lock().unwrap().mute == Some((id, asked.api)) {
                        return std::future::pending().await;
                    }
                    let delay = script.lock().unwrap().delay;
                    tokio::time::sleep(delay).await;
                    let answer = script.lock().unwrap().handle(id, &asked);
                    peer.answer(&asked, &answer).await;
                }
            }
        });
    }
}

fn cluster(net: &Arc<Net>, bootstrap: &[&str]) -> Cluster {
    let bootstrap = bootstrap.iter().map(|b| (*b).to_owned()).collect();
    Cluster::new(
        net.runtime(),
        "A",
        bootstrap,
        Security::default(),
        identity(),
    )
}

fn scripted() -> (Arc<Net>, Arc<Mutex<Script>>, Cluster) {
    let (net, script) = (Net::new(), Script::new());
    serve(&net, &script);
    let cluster = cluster(&net, &["b1:9092"]);
    (net, script, cluster)
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_broker_that_hangs_does_not_try_after_the_others() {
    let (_net, script, cluster) = scripted();
    cluster.metadata(None).await.unwrap();
    script.lock().unwrap().hung = Some(2);
    let begun = tokio::time::Instant::now();
    let first = cluster.reader(2).await.unwrap_err();
    let one = begun.elapsed();
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let cluster = cluster.clone();
        tries.spawn(async move { cluster.reader(2).await.map(|_| ()) });
    }
    let begun = tokio::time::Instant::now();
    while let Some(tried) = tries.join_next().await {
        assert_eq!(tried.unwrap().unwrap_err().id(), first.id());
    }
    assert!(begun.elapsed() <= one, "{:?}", begun.elapsed());
    script.lock().unwrap().hung = None;
    cluster.reader(2).await.unwrap();
}

fn names(topics: &[&str]) -> Vec<String> {
    topics.iter().map(|t| (*t).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_cluster_names_every_address_and_its_cause() {
    let net = Net::new();
    net.silent("b", 9092);
    let cluster = cluster(&net, &["a:9092", "b:9092", "c"]);
    let error = cluster.metadata(None).await.unwrap_err();
    let expected = "cannot reach cluster 'A': tried a:9092 (connection refused), \
        b:9092 (timed out after 5 s), c ('c' is not of the form host:port); \
        check the bootstrap addresses, that the brokers run, and that no firewall is in between";
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.id(), "cluster-unreachable");
    assert_eq!(error.action(), Action::Reconnect);
    // The next attempt begins with another address.
    net.dialled.lock().unwrap().clear();
    cluster.metadata(None).await.unwrap_err();
    assert_eq!(net.dialled.lock().unwrap()[0], "b:9092");
}

#[tokio::test(start_paused = true)]
async fn addresses_that_can_never_work_stop() {
    let net = Net::new();
    for wrong in [&["c", "d"][..], &[]] {
        let error = cluster(&net, wrong).any().await.unwrap_err();
        assert_eq!(error.action(), Action::Stop, "{error}");
        assert!(error.to_string().contains("settings"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_working_bootstrap_address_is_enough() {
    let (net, script) = (Net::new(), Script::new());
    serve(&net, &script);
    let cluster = cluster(&net, &["gone:9092", "b2:9092"]);
    let metadata = cluster.metadata(Some(&names(&["orders"]))).await.unwrap();
    assert_eq!(metadata.cluster_id, "cluster-a");
    assert_eq!(metadata.controller, 2);
    assert_eq!(metadata.brokers[&1].host, "b1");
    assert_eq!(metadata.leader("orders", 0), Some((1, 5)));
    assert_eq!(metadata.leader("orders", 1), None);
}

#[tokio::test(start_paused = true)]
async fn overlapping_questions_share_one_request() {
    let (_net, script, cluster) = scripted();
    script.lock().unwrap().delay = Duration::from_millis(100);
    let mut tasks = Vec::new();
    for _ in 0..50 {
        let cluster = cluster.clone();
        tasks.push(tokio::spawn(async move {
            cluster.metadata(Some(&["orders".to_owned()])).await
        }));
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    // One was under way when the others called; those share a second, begun after their call.
    assert_eq!(script.lock().unwrap().count(3), 2);
}

#[tokio::test(start_paused = true)]
async fn connections_are_shared_for_control_and_new_for_lanes() {
    let (net, _script, cluster) = scripted();
    let one = cluster.control(1).await.unwrap();
    let again = cluster.control(1).await.unwrap();
    assert_eq!((one.broker(), again.broker()), (1, 1));
    // One for the bootstrap, one for broker 1.
    assert_eq!(*net.dialled.lock().unwrap(), ["b1:9092", "b1:9092"]);
    let lane = cluster.connect(1).await.unwrap();
    lane.close();
    assert!(!one.is_closed());
    assert_eq!(net.dialled.lock().unwrap().len(), 3);
    one.close();
    let reopened = cluster.control(1).await.unwrap();
    assert!(!reopened.is_closed());
    assert_eq!(net.dialled.lock().unwrap().len(), 4);
    let error = cluster.connect(9).await.unwrap_err();
    assert_eq!(error.to_string(), "cluster 'A' has no broker 9 at present");
    assert_eq!(error.id(), "broker-unknown");
    assert_eq!(error.action(), Action::Reconnect);
}

#[tokio::test(start_paused = true)]
async fn what_every_broker_can_answer_is_asked_of_another_when_one_dies() {
    let (_net, script, cluster) = scripted();
    for ask in 0..3 {
        script.lock().unwrap().dead = None;
        // Two connections to the broker that dies: one of the bootstrap address, one of its id.
        cluster.metadata(None).await.unwrap();
        cluster.control(1).await.unwrap();
        script.lock().unwrap().dead = Some(1);
        match ask {
            0 => drop(cluster.metadata(None).await.unwrap()),
            1 => drop(
                cluster
                    .describe_topic_configs(&names(&["orders"]))
                    .await
                    .unwrap(),
            ),
            _ => assert_eq!(cluster.coordinator(TRANSACTION, "t").await.unwrap(), 2),
        }
    }
}

/// Ten thousand groups would be as many round trips.
#[tokio::test(start_paused = true)]
async fn coordinators_of_many_are_asked_for_at_once_where_the_broker_takes_that() {
    let older = MODERN.iter().map(|&(api, low, high)| match api {
        10 => (api, low, 3),
        _ => (api, low, high),
    });
    let older = older.collect::<Vec<_>>().leak();
    for (ranges, requests) in [(MODERN, 2), (&*older, 700)] {
        let (_net, script, cluster) = scripted();
        script.lock().unwrap().ranges = ranges;
        let ids: Vec<String> = (0..700).map(|n| format!("id-{n}")).collect();
        let found = cluster.coordinators(TRANSACTION, &ids).await;
        assert!(ids.iter().all(|id| found[id].as_ref().unwrap() == &2));
        assert_eq!(script.lock().unwrap().count(10), requests);
        cluster.coordinator(TRANSACTION, "id-3").await.unwrap();
        cluster.coordinators(TRANSACTION, &ids).await;
        assert_eq!(script.lock().unwrap().count(10), requests, "it is known");
    }
}

/// Waited for group by group, it would hold up those of all other brokers for hours.
#[tokio::test(start_paused = true)]
async fn a_broker_that_hangs_fails_its_groups_once() {
    let (_net, script, cluster) = scripted();
    cluster.metadata(None).await.unwrap();
    script.lock().unwrap().hung = Some(2);
    let began = tokio::time::Instant::now();
    let groups: Vec<String> = (0..1_000).map(|n| format!("group-{n}")).collect();
    for _ in 0..3 {
        let found = cluster.committed_offsets(&groups).await;
        assert!(groups.iter().all(|group| found[group].is_err()));
    }
    let offsets = [(("t".to_owned(), 0), strait_net::CommittedOffset::default())];
    let refused = cluster.commit_offsets("group-3", &offsets.into()).await;
    assert!(refused.is_err());
    assert!(began.elapsed() <= Duration::from_secs(11), "{began:?}");
}

/// Asked in every round, it would otherwise be away for as long as there are rounds.
#[tokio::test(start_paused = true)]
async fn a_broker_that_hung_is_asked_again() {
    let (_net, script, cluster) = scripted();
    cluster.metadata(None).await.unwrap();
    script.lock().unwrap().hung = Some(2);
    let groups = names(&["billing"]);
    let found = cluster.committed_offsets(&groups).await;
    assert!(found["billing"].is_err());
    script.lock().unwrap().hung = None;
    let mut rounds = 0;
    while cluster.committed_offsets(&groups).await["billing"].is_err() {
        rounds += 1;
        assert!(rounds < 10, "50 s after it answers again");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert!(rounds > 3, "it was left alone for a while");
}

/// Their state lies in a log of its own: what hangs there says nothing about consumer groups.
#[tokio::test(start_paused = true)]
async fn share_groups_that_hang_leave_consumer_groups_alone() {
    let (_net, script, cluster) = scripted();
    let ranges = MODERN.iter().copied().chain([(90, 0, 0), (91, 0, 0)]);
    script.lock().unwrap().ranges = ranges.collect::<Vec<_>>().leak();
    script.lock().unwrap().mute = Some((2, 90));
    let groups = names(&["billing"]);
    let began = tokio::time::Instant::now();
    for _ in 0..3 {
        assert!(cluster.share_offsets(&groups).await["billing"].is_err());
        let found = cluster.committed_offsets(&groups).await;
        assert_eq!(found["billing"].as_ref().unwrap().len(), 0);
    }
    let offsets = [(("t".to_owned(), 0), 5)].into();
    let refused = cluster.alter_share_offsets("billing", &offsets).await;
    assert_eq!(refused.unwrap_err().id(), "timed-out");
    assert!(began.elapsed() <= Duration::from_secs(11), "{began:?}");
    // The other way round it is: a broker that answers nothing about groups hangs.
    script.lock().unwrap().mute = Some((2, 9));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(cluster.committed_offsets(&groups).await["billing"].is_err());
    let found = cluster.share_offsets(&groups).await;
    assert_eq!(found["billing"].as_ref().unwrap_err().id(), "timed-out");
}

/// The group moved to a broker that hangs: the one that told of it goes on with its other groups.
#[tokio::test(start_paused = true)]
async fn the_broker_that_failed_is_the_one_left_alone() {
    let (_net, script, cluster) = scripted();
    script.lock().unwrap().coordinator = 1;
    let offsets = [(("t".to_owned(), 0), strait_net::CommittedOffset::default())].into();
    let done = cluster.commit_offsets("billing", &offsets).await;
    assert_eq!(done.unwrap()[&("t".to_owned(), 0)].0, 0);
    script.lock().unwrap().coordinator = 2;
    script.lock().unwrap().hung = Some(2);
    assert!(cluster.commit_offsets("billing", &offsets).await.is_err());
    script.lock().unwrap().coordinator = 1;
    let found = cluster.committed_offsets(&names(&["shipping"])).await;
    assert_eq!(found["shipping"].as_ref().unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn another_cluster_behind_the_same_address_is_refused() {
    let (_net, script, cluster) = scripted();
    cluster.metadata(None).await.unwrap();
    script.lock().unwrap().cluster_id = "cluster-b";
    let error = cluster.metadata(None).await.unwrap_err();
    assert_eq!(error.id(), "other-cluster", "{error:?}");
    assert_eq!(error.action(), Action::Stop);
    assert!(error.to_string().contains("cluster-a"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_does_not_exist_has_no_leader() {
    let (_net, _script, cluster) = scripted();
    let error = cluster.leader("missing", 0).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Metadata of topic 'missing' partition 0 of cluster 'A' failed: UNKNOWN_TOPIC_OR_PARTITION (3)"
    );
    assert_eq!(cluster.leader("orders", 0).await.unwrap(), (1, 5));
    let error = cluster.leader("orders", 7).await.unwrap_err();
    assert_eq!(error.code(), Some(KafkaError::UNKNOWN_TOPIC_OR_PARTITION));
}

#[tokio::test(start_paused = true)]
async fn offsets_follow_the_leader() {
    let (_net, script, cluster) = scripted();
    let leader = (1, 5);
    let end = cluster.list_offsets("t", 0, leader, -1, false, false).await;
    assert_eq!(end.unwrap(), (6, 5));
    let stable = cluster.list_offsets("t", 0, leader, -1, true, false).await;
    assert_eq!(stable.unwrap(), (3, 5));
    let log_end = cluster.list_offsets("t", 0, leader, -1, false, true).await;
    assert_eq!(log_end.unwrap(), (10, 5));

    script.lock().unwrap().leader = (2, 6);
    let moved = cluster.list_offsets("t", 0, leader, -1, false, false).await;
    assert_eq!(moved.unwrap(), (6, 6));
    let epoch_end = cluster.offset_for_leader_epoch("t", 0, leader, 5).await;
    assert_eq!(epoch_end.unwrap(), (5, 10));
    assert_eq!(script.lock().unwrap().count(3), 3);
}

#[tokio::test(start_paused = true)]
async fn the_log_end_is_never_a_followers() {
    let (_net, script, cluster) = scripted();
    assert_eq!(cluster.log_end("t", 0).await.unwrap(), (10, 5));
    // The metadata still names broker 1, which follows by now and would answer 4.
    script.lock().unwrap().really = Some((2, 6));
    assert_eq!(cluster.log_end("t", 0).await.unwrap(), (10, 6));
}

#[tokio::test(start_paused = true)]
async fn a_producer_id_below_zero_is_an_error_to_retry() {
    let (_net, script, cluster) = scripted();
    script.lock().unwrap().producer_ids = vec![(14, -1), (0, -1), (51, -1)];
    for (code, with_tid) in [(14, true), (14, false), (51, true)] {
        let tid = with_tid.then_some("strait.link.0");
        let error = cluster
            .init_producer_id(tid, 10_000, None)
            .await
            .unwrap_err();
        assert_eq!(error.code(), Some(KafkaError(code)), "{error}");
        assert_eq!(error.action(), Action::Retry);
    }
    let given = cluster
        .init_producer_id(Some("strait.link.0"), 10_000, None)
        .await;
    assert_eq!(given.unwrap(), (42, 7));
    assert_eq!(
        cluster.init_producer_id(None, 0, None).await.unwrap(),
        (42, 7)
    );
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_moved_is_looked_up_again() {
    let (_net, script, cluster) = scripted();
    let tid = "strait.link.0";
    cluster.init_producer_id(Some(tid), 1, None).await.unwrap();
    script.lock().unwrap().coordinator = 1;
    let partitions = [("a".to_owned(), vec![0, 1]), ("b".to_owned(), vec![4])];
    let added = cluster.add_partitions_to_txn(tid, 42, 7, &partitions).await;
    let expected = [("a", 0, 0), ("a", 1, 0), ("b", 4, 0)].map(|(t, p, c)| (t.to_owned(), p, c));
    assert_eq!(added.unwrap(), expected);
    let script = script.lock().unwrap();
    assert_eq!(script.count(10), 2);
    assert!(
        script.asked.ends_with(&[(2, 24), (1, 10), (1, 24)])
            || script.asked.ends_with(&[(2, 24), (2, 10), (1, 24)]),
        "{:?}",
        script.asked
    );
}

#[tokio::test(start_paused = true)]
async fn topics_are_created_at_the_controller() {
    let (_net, script, cluster) = scripted();
    let topic = |name: &str| NewTopic {
        name: name.to_owned(),
        partitions: 3,
        replication: 1,
        configs: vec![("retention.ms".to_owned(), "5".to_owned())],
    };
    let created = cluster.create_topic(&topic("fresh")).await.unwrap();
    assert_eq!(created.id.as_u128(), 77);
    assert!(script.lock().unwrap().asked.contains(&(2, 19)));
    let error = cluster.create_topic(&topic("taken")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "CreateTopics of topic 'taken' on broker 2 (b2:9092) of cluster 'A' failed: TOPIC_ALREADY_EXISTS (36): it exists"
    );
    assert_eq!(error.id(), "request-refused");
    assert_eq!(error.action(), Action::Stop);
}

#[tokio::test(start_paused = true)]
async fn configurations_come_per_topic() {
    let (_net, _script, cluster) = scripted();
    let topics = names(&["a", "secret"]);
    let configs = cluster.describe_topic_configs(&topics).await.unwrap();
    assert_eq!(configs["a"].as_ref().unwrap()[0].name, "retention.ms");
    assert_eq!(configs["a"].as_ref().unwrap()[0].source, 1);
    assert_eq!(configs["secret"], Err(KafkaError(29)));
    let broker = cluster.broker_configs(2).await.unwrap();
    assert_eq!(broker[0].value.as_deref(), Some("5"));
}

#[tokio::test(start_paused = true)]
async fn what_an_old_broker_lacks_is_named() {
    let (_net, script, cluster) = scripted();
    script.lock().unwrap().ranges = &[(3, 0, 7), (10, 0, 2), (18, 0, 2), (2, 0, 4)];
    let set = [("retention.ms".to_owned(), "5".to_owned())];
    let error = cluster
        .alter_topic_configs("t", &set, &[])
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "broker 2 (b2:9092) of cluster 'A' does not support IncrementalAlterConfigs in a version from 0 to 1: it does not offer this API"
    );
    assert_eq!(error.action(), Action::Stop);
    let end = cluster.list_offsets("t", 0, (1, 5), -1, true, false).await;
    assert_eq!(end.unwrap(), (3, 5));
}
