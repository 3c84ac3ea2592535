//! Fault rules: scripted, counted, by chance; pauses; connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use std::time::Duration;

use kafka_protocol::messages::{ApiVersionsRequest, FetchRequest, MetadataRequest, ProduceRequest};
use strait_testkit::{Broker, BrokerConfig, Fault, Rule};
use wire::{Client, broker, fetch_at, plain, produce_request, with_pid};

const PRODUCE: i16 = 0;

fn with_topic() -> Broker {
    let broker = broker();
    broker.create_topic("t", 2, &[]).unwrap();
    broker
}

#[tokio::test(start_paused = true)]
async fn what_each_fault_leaves_in_the_log_and_tells_the_client() {
    // (fault, answered, records in the log right away, records in the log a second later)
    for (fault, answered, at_once, later) in [
        (Fault::DropBefore, false, 0, 0),
        (Fault::DropAfter, false, 1, 1),
        (Fault::Late(Duration::from_millis(300)), false, 0, 1),
        (Fault::Delay(Duration::from_millis(300)), true, 1, 1),
        (Fault::Truncate(11), false, 1, 1),
        (Fault::Error(19), true, 0, 0),
        (Fault::ErrorAfter(7), true, 1, 1),
    ] {
        let broker = with_topic();
        let rule = broker.faults().add(Rule::on(PRODUCE, fault.clone()).once());
        let mut client = Client::new(&broker);
        client
            .send(9, &produce_request(-1, &[("t", 0, with_pid(7, 0, 0, 1))]))
            .await
            .unwrap();
        let answer = client.receive::<ProduceRequest>(9).await;
        assert_eq!(answer.is_ok(), answered, "{fault:?}");
        assert_eq!(broker.log_end("t", 0), at_once, "{fault:?}");
        if let (Fault::Error(code) | Fault::ErrorAfter(code), Ok(answer)) = (&fault, answer) {
            assert_eq!(answer.responses[0].partition_responses[0].error_code, *code);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(broker.log_end("t", 0), later, "{fault:?}");
        assert_eq!(broker.faults().fired(rule), 1);
        let mut client = Client::new(&broker);
        assert_eq!(
            client.put(&with_pid(7, 0, 0, 1)).await,
            (0, 0),
            "{fault:?}: the resend"
        );
        assert_eq!(broker.log_end("t", 0), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_request_may_come_after_the_reconnected_clients_next_one() {
    let broker = with_topic();
    let late = Rule::on(PRODUCE, Fault::Late(Duration::from_millis(300))).once();
    broker.faults().add(late);
    let mut client = Client::new(&broker);
    client
        .send(9, &produce_request(1, &[("t", 0, plain(3))]))
        .await
        .unwrap();
    assert!(client.frame().await.is_err());
    let mut client = Client::new(&broker);
    assert_eq!(client.put(&plain(1)).await, (0, 0));
    tokio::time::sleep(Duration::from_millis(301)).await;
    assert_eq!(broker.log_end("t", 0), 4);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_request_is_handled_and_never_answered() {
    let broker = with_topic();
    broker.faults().add(Rule::on(PRODUCE, Fault::Hang).once());
    let mut client = Client::new(&broker);
    client
        .send(9, &produce_request(1, &[("t", 0, plain(1))]))
        .await
        .unwrap();
    client
        .send(9, &produce_request(1, &[("t", 0, plain(1))]))
        .await
        .unwrap();
    let wait = tokio::time::timeout(Duration::from_secs(100), client.frame()).await;
    assert!(wait.is_err());
    assert_eq!(broker.log_end("t", 0), 1);
}

#[tokio::test(start_paused = true)]
async fn rules_match_by_topic_partition_and_count() {
    let broker = with_topic();
    broker.create_topic("other", 1, &[]).unwrap();
    let rule = Rule::on(PRODUCE, Fault::Error(19))
        .topic("t")
        .partition(1)
        .skip(1)
        .times(2);
    let rule = broker.faults().add(rule);
    let mut client = Client::new(&broker);
    let mut errors = Vec::new();
    for _ in 0..5 {
        let entries = [
            ("t", 0, plain(1)),
            ("t", 1, plain(1)),
            ("other", 0, plain(1)),
        ];
        let response = client.call(9, &produce_request(1, &entries)).await.unwrap();
        let rows = response
            .responses
            .iter()
            .flat_map(|t| t.partition_responses.iter().map(move |p| (t, p)));
        let failed = rows
            .filter(|(_, p)| p.error_code != 0)
            .map(|(t, p)| format!("{}/{}", t.name.0, p.index));
        errors.push(failed.collect::<Vec<_>>().join(","));
    }
    assert_eq!(errors, ["", "t/1", "t/1", "", ""]);
    assert_eq!(broker.faults().fired(rule), 2);
    assert_eq!((broker.log_end("t", 0), broker.log_end("t", 1)), (5, 3));
}

#[tokio::test(start_paused = true)]
async fn chance_is_decided_by_the_seed() {
    let mut histories = Vec::new();
    for seed in [1, 1, 2] {
        let broker = with_topic();
        broker.faults().seed(seed);
        broker
            .faults()
            .add(Rule::on(PRODUCE, Fault::Error(6)).one_in(3));
        let mut client = Client::new(&broker);
        let mut history = Vec::new();
        for _ in 0..60 {
            history.push(client.put(&plain(1)).await.0);
        }
        let hits = history.iter().filter(|e| **e == 6).count();
        assert!((5..40).contains(&hits), "{hits} of 60");
        histories.push(history);
    }
    assert_eq!(histories[0], histories[1]);
    assert_ne!(histories[0], histories[2]);
}

#[tokio::test(start_paused = true)]
async fn refused_connections_offline_nodes_and_cut_connections() {
    let broker = with_topic();
    broker
        .faults()
        .add(Rule::any(Fault::RefuseConnection).times(2));
    assert!(broker.connect().is_err());
    assert!(broker.connect().is_err());
    let mut client = Client::new(&broker);
    assert_eq!(client.put(&plain(1)).await.0, 0);
    broker.cut_connections();
    assert!(client.frame().await.is_err());
    let mut client = Client::new(&broker);
    client.send(12, &fetch_at(1)).await.unwrap();
    broker.set_online(false);
    assert!(client.receive::<FetchRequest>(12).await.is_err());
    assert!(broker.connect().is_err());
    broker.set_online(true);
    assert_eq!(Client::new(&broker).put(&plain(1)).await, (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_paused_broker_answers_when_it_goes_on() {
    let broker = with_topic();
    let mut client = Client::new(&broker);
    broker.pause();
    client
        .send(9, &produce_request(1, &[("t", 0, plain(1))]))
        .await
        .unwrap();
    let wait = tokio::time::timeout(Duration::from_secs(30), client.frame()).await;
    assert!(wait.is_err());
    assert_eq!(broker.log_end("t", 0), 0);
    broker.resume();
    client.frame().await.unwrap();
    assert_eq!(broker.log_end("t", 0), 1);
}

#[tokio::test(start_paused = true)]
async fn disorder_never_loses_what_a_patient_client_resends() {
    for seed in 0..20 {
        let broker = with_topic();
        broker.faults().disorder(seed, 4);
        let mut client = Client::new(&broker);
        let mut resends = 0;
        for sequence in 0..60 {
            loop {
                let request = produce_request(-1, &[("t", 0, with_pid(7, 0, sequence, 1))]);
                let answer = client.call(9, &request).await;
                let row = answer
                    .ok()
                    .map(|a| a.responses[0].partition_responses[0].clone());
                match row {
                    Some(row) if row.error_code == 0 => {
                        assert_eq!(row.base_offset, i64::from(sequence));
                        break;
                    }
                    Some(_) => {}
                    None => client = Client::new(&broker),
                }
                resends += 1;
                assert!(resends < 1000);
            }
        }
        assert!(resends > 5, "seed {seed}: {resends} resends");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(broker.records("t", 0, true).len(), 60, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn errors_can_be_forced_on_any_api() {
    let broker = with_topic();
    broker.faults().add(Rule::on(3, Fault::Error(5)).topic("t"));
    broker
        .faults()
        .add(Rule::on(1, Fault::Error(56)).partition(0));
    broker.faults().add(Rule::on(2, Fault::Error(78)));
    broker.faults().add(Rule::on(18, Fault::Error(42)));
    let mut client = Client::new(&broker);
    let topic = kafka_protocol::messages::metadata_request::MetadataRequestTopic::default();
    let topic = topic.with_name(Some(wire::name("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    assert_eq!(
        client.call(12, &request).await.unwrap().topics[0].error_code,
        5
    );
    assert_eq!(client.fetch(&fetch_at(0)).await.error_code, 56);
    assert_eq!(client.offset(-1, -1, false).await.0, 78);
    assert_eq!(
        client
            .call(3, &ApiVersionsRequest::default())
            .await
            .unwrap()
            .error_code,
        42
    );
}

#[tokio::test]
async fn real_sockets_serve_several_nodes() {
    let cluster = Broker::new(BrokerConfig {
        nodes: 3,
        ..BrokerConfig::default()
    });
    for node in cluster.nodes() {
        let addr = node.listen("127.0.0.1:0").await.unwrap();
        assert_eq!(node.address(), ("127.0.0.1".to_owned(), addr.port()));
        let found = cluster.at_address("127.0.0.1", addr.port()).unwrap();
        assert_eq!(found.id(), node.id());
    }
    cluster.create_replicated("t", 6, 2, &[]).unwrap();
    let leaders: std::collections::BTreeSet<_> =
        (0..6).filter_map(|p| cluster.leader("t", p).0).collect();
    assert_eq!(leaders.len(), 3, "leaders go round");
    let address = cluster.address();
    let stream = tokio::net::TcpSocket::new_v4().unwrap();
    let mut stream = stream
        .connect(format!("{}:{}", address.0, address.1).parse().unwrap())
        .await
        .unwrap();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // ApiVersions v0, correlation 9, null client id.
    stream
        .write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 9, 0xff, 0xff])
        .await
        .unwrap();
    let mut head = [0; 10];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head[4..], [0, 0, 0, 9, 0, 0]);
}
