//! One connection: order, matching, deadlines, guards, and answers that are not Kafka's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod peer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use peer::{MODERN, Net, Peer, identity, versions};
use strait_net::{Action, Connection, Limits, NetError, Security, WriteGuard};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const LONG: Duration = Duration::from_secs(30);

/// A connection, and the broker's side of it after the greeting.
async fn connected(limits: Limits) -> (Connection, Peer) {
    let net = Net::new();
    let (hand_over, mut taken) = mpsc::unbounded_channel();
    net.serve("broker", 9092, move |stream| {
        let hand_over = hand_over.clone();
        async move {
            let mut peer = Peer(stream);
            peer.greet(MODERN).await;
            hand_over.send(peer).ok();
        }
    });
    let connection = open(&net, limits).await.unwrap();
    (connection, taken.recv().await.unwrap())
}

async fn open(net: &Arc<Net>, limits: Limits) -> Result<Connection, NetError> {
    let rt = net.runtime();
    let security = Security::default();
    Connection::open(&rt, "broker", 9092, &security, &identity(), limits).await
}

fn body(text: &'static str) -> Vec<Bytes> {
    vec![Bytes::from_static(text.as_bytes())]
}

#[tokio::test(start_paused = true)]
async fn requests_go_out_in_the_order_of_calls_and_answers_find_their_request() {
    let (connection, mut peer) = connected(Limits::default()).await;
    let pending: Vec<_> = ["one", "two", "three"]
        .map(|t| connection.send(FETCH, 12, body(t), LONG, None))
        .into();
    let split = vec![
        Bytes::from_static(b"fo"),
        Bytes::new(),
        Bytes::from_static(b"ur"),
    ];
    let last = connection.send(PRODUCE, 8, split, LONG, None);
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(peer.next().await.unwrap());
    }
    let bodies: Vec<_> = asked.iter().map(|a| a.body.clone()).collect();
    assert_eq!(bodies, ["one", "two", "three", "four"].map(Bytes::from));
    assert_eq!(asked[0].client_id, "strait-test");
    for (asked, answer) in asked.iter().zip(["1", "2", "3", "4"]) {
        peer.answer(asked, answer.as_bytes()).await;
    }
    for (pending, answer) in pending.into_iter().zip(["1", "2", "3"]) {
        assert_eq!(pending.await.unwrap(), answer);
    }
    assert_eq!(last.await.unwrap(), "4");
    assert!(!connection.is_closed());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_waits_for_is_passed_over() {
    let (connection, mut peer) = connected(Limits::default()).await;
    drop(connection.send(FETCH, 12, body("one"), LONG, None));
    let second = connection.send(FETCH, 12, body("two"), LONG, None);
    for answer in ["1", "2"] {
        let asked = peer.next().await.unwrap();
        peer.answer(&asked, answer.as_bytes()).await;
    }
    assert_eq!(second.await.unwrap(), "2");
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_arrives_whole_though_little_is_allocated_ahead() {
    let limits = Limits {
        eager_bytes: 100,
        ..Limits::default()
    };
    let (connection, mut peer) = connected(limits).await;
    let content: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let pending = connection.send(FETCH, 12, body("all"), LONG, None);
    let asked = peer.next().await.unwrap();
    let (answer, ()) = tokio::join!(pending, peer.answer(&asked, &content));
    assert_eq!(answer.unwrap(), content);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_answer_closes_the_connection_and_says_what_and_who() {
    let (connection, mut peer) = connected(Limits::default()).await;
    let begun = tokio::time::Instant::now();
    let first = connection.send(FETCH, 12, body("slow"), Duration::from_secs(60), None);
    let second = connection.send(PRODUCE, 9, body("quick"), Duration::from_secs(20), None);
    let error = second.await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::from_secs(20));
    assert_eq!(
        error.to_string(),
        "Produce v9 to broker:9092 had no answer within 20 s: the broker hangs or is overloaded, or the line to it is cut"
    );
    assert_eq!(error.id(), "timed-out");
    assert_eq!(error.action(), Action::Reconnect);
    let other = first.await.unwrap_err();
    assert_eq!(other.id(), "connection-closed", "{other:?}");
    assert!(other.to_string().contains("Produce v9"), "{other}");
    assert!(connection.is_closed());
    let late = connection.send(FETCH, 12, body("late"), LONG, None).await;
    assert!(late.unwrap_err().to_string().contains("Produce v9"));
    while peer.next().await.is_some() {}
}

/// Longer than any request here may take without progress.
const STEP: Duration = Duration::from_secs(8);
const TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn a_slow_line_is_no_broker_that_does_not_answer() {
    let (connection, mut peer) = connected(Limits::default()).await;
    let pending =
        ["one", "two", "three"].map(|t| connection.send(FETCH, 12, body(t), TIMEOUT, None));
    let broker = async {
        let mut asked = Vec::new();
        for _ in 0..3 {
            asked.push(peer.next().await.unwrap());
        }
        // Each behind the others: the last comes 24 s after it was asked for.
        for asked in &asked {
            tokio::time::sleep(STEP).await;
            peer.answer(asked, b"here").await;
        }
        // And one whose parts need 32 s.
        let asked = peer.next().await.unwrap();
        let mut frame = (3_000_005i32).to_be_bytes().to_vec();
        frame.extend(asked.correlation.to_be_bytes());
        // No tagged fields.
        frame.push(0);
        frame.extend(vec![7; 3_000_000]);
        for part in frame.chunks(800_000) {
            tokio::time::sleep(STEP).await;
            peer.0.write_all(part).await.unwrap();
        }
    };
    let client = async {
        for answer in pending {
            assert_eq!(answer.await.unwrap(), "here");
        }
        let large = connection
            .send(FETCH, 12, body("large"), TIMEOUT, None)
            .await;
        assert_eq!(large.unwrap().len(), 3_000_000);
    };
    tokio::join!(broker, client);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_brings_a_byte_now_and_then_does_not_answer() {
    let (connection, mut peer) = connected(Limits::default()).await;
    let pending = connection.send(FETCH, 12, body("x"), TIMEOUT, None);
    let broker = async {
        let asked = peer.next().await.unwrap();
        peer.0.write_all(&3_000_004i32.to_be_bytes()).await.unwrap();
        peer.0
            .write_all(&asked.correlation.to_be_bytes())
            .await
            .unwrap();
        while peer.0.write_all(&[7; 1_000]).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (answer, ()) = tokio::join!(pending, broker);
    assert!(
        matches!(answer, Err(NetError::TimedOut { .. })),
        "{answer:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_broker_asks_for_is_not_counted() {
    let (connection, mut peer) = connected(Limits::default()).await;
    let first = connection.send(PRODUCE, 9, body("first"), TIMEOUT, None);
    let second = connection.send(PRODUCE, 9, body("second"), TIMEOUT, None);
    let broker = async {
        let asked = [peer.next().await.unwrap(), peer.next().await.unwrap()];
        peer.answer(&asked[0], b"wait").await;
        tokio::time::sleep(Duration::from_secs(60) + STEP).await;
        peer.answer(&asked[1], b"done").await;
        // What it asks for is not for ever.
        peer.next().await.unwrap();
    };
    let client = async {
        assert_eq!(first.await.unwrap(), "wait");
        connection.paused(Duration::from_secs(60));
        assert_eq!(second.await.unwrap(), "done");
        connection.paused(Duration::MAX);
        let begun = tokio::time::Instant::now();
        let third = connection
            .send(PRODUCE, 9, body("third"), TIMEOUT, None)
            .await;
        assert!(matches!(third, Err(NetError::TimedOut { .. })), "{third:?}");
        assert_eq!(begun.elapsed(), Duration::from_secs(600) + TIMEOUT);
    };
    tokio::join!(broker, client);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_for_a_request_that_could_not_even_be_written() {
    let (connection, _peer) = connected(Limits::default()).await;
    // More than the pipe holds, and nobody reads.
    let big = vec![Bytes::from(vec![7; peer::PIPE * 2])];
    let stuck = connection.send(PRODUCE, 9, big, Duration::from_secs(50), None);
    let behind = connection.send(FETCH, 12, body("x"), Duration::from_secs(5), None);
    let error = behind.await.unwrap_err();
    assert!(error.to_string().contains("Fetch v12"), "{error}");
    assert!(matches!(stuck.await, Err(NetError::Closed { .. })));
}

#[tokio::test(start_paused = true)]
async fn no_deadline_is_too_far() {
    let (connection, mut peer) = connected(Limits::default()).await;
    let pending = connection.send(FETCH, 12, body("x"), Duration::MAX, None);
    let asked = peer.next().await.unwrap();
    peer.answer(&asked, b"y").await;
    assert_eq!(pending.await.unwrap(), "y");
}

struct Lease(AtomicBool);

impl WriteGuard for Lease {
    fn may_write(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_never_reaches_the_broker_and_ends_the_connection() {
    let (connection, mut peer) = connected(Limits::default()).await;
    let lease = Arc::new(Lease(AtomicBool::new(true)));
    let first = connection.send(PRODUCE, 9, body("in time"), LONG, Some(lease.clone()));
    let asked = peer.next().await.unwrap();
    peer.answer(&asked, b"ok").await;
    assert_eq!(first.await.unwrap(), "ok");

    let open = connection.send(FETCH, 12, body("open"), LONG, None);
    assert_eq!(peer.next().await.unwrap().body, "open");
    lease.0.store(false, Ordering::SeqCst);
    let refused = connection.send(PRODUCE, 9, body("too late"), LONG, Some(lease));
    let error = refused.await.unwrap_err();
    assert_eq!(error.id(), "lease-lapsed", "{error:?}");
    assert_eq!(error.action(), Action::Stop);
    assert!(matches!(open.await, Err(NetError::Closed { .. })));
    assert!(peer.next().await.is_none(), "nothing of it was written");
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_stuck_half_way_is_not_completed_after_the_lease() {
    let (connection, mut peer) = connected(Limits::default()).await;
    let lease = Arc::new(Lease(AtomicBool::new(true)));
    let big = vec![Bytes::from(vec![7; peer::PIPE * 2])];
    let stuck = connection.send(PRODUCE, 9, big, LONG, Some(lease.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    lease.0.store(false, Ordering::SeqCst);
    // The broker reads on, so that there is room again.
    let mut arrived = Vec::new();
    peer.0.read_to_end(&mut arrived).await.unwrap();
    assert!(arrived.len() <= peer::PIPE, "{} bytes", arrived.len());
    let error = stuck.await.unwrap_err();
    assert!(matches!(error, NetError::GuardRefused { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn the_socket_closes_with_the_last_handle() {
    let (connection, mut peer) = connected(Limits::default()).await;
    let other = connection.clone();
    let pending = connection.send(FETCH, 12, body("x"), LONG, None);
    drop(connection);
    assert_eq!(peer.next().await.unwrap().body, "x");
    drop(other);
    assert!(peer.next().await.is_none());
    assert!(matches!(pending.await, Err(NetError::Closed { .. })));
}

#[tokio::test(start_paused = true)]
async fn closing_fails_what_is_pending_and_all_that_follows() {
    let (connection, _peer) = connected(Limits::default()).await;
    let pending = connection.send(FETCH, 12, body("x"), LONG, None);
    connection.close();
    assert!(connection.is_closed());
    assert!(matches!(pending.await, Err(NetError::Closed { .. })));
    let late = connection.send(FETCH, 12, body("x"), LONG, None).await;
    assert!(matches!(late, Err(NetError::Closed { .. })));
}

/// Sends one fetch, has the broker write `bytes` and close, and returns the fetch's error.
async fn answered_with(bytes: &[u8]) -> NetError {
    let (connection, mut peer) = connected(Limits::default()).await;
    let pending = connection.send(FETCH, 11, body("x"), LONG, None);
    let asked = peer.next().await.unwrap();
    assert_eq!(asked.correlation, 1);
    peer.0.write_all(bytes).await.unwrap();
    drop(peer);
    let error = pending.await.unwrap_err();
    assert!(connection.is_closed());
    error
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_not_kafkas_end_the_connection() {
    let wrong_id = answered_with(&[0, 0, 0, 5, 0, 0, 0, 9, 1]).await;
    assert_eq!(wrong_id.id(), "answer-unreadable");
    assert!(
        wrong_id.to_string().contains("correlation id 9"),
        "{wrong_id}"
    );
    for length in [i32::MAX, -1, 3, (128 << 20) + 1] {
        let frame = [length.to_be_bytes(), [0, 0, 0, 1]].concat();
        let error = answered_with(&frame).await;
        assert!(matches!(error, NetError::Malformed { .. }), "{error:?}");
        assert!(error.to_string().contains(&length.to_string()), "{error}");
    }
    let tls = answered_with(&[0x15, 3, 3, 0, 2, 2, 10, 0]).await;
    assert!(tls.to_string().contains("speaks TLS"), "{tls}");
    assert_eq!(tls.id(), "mismatch");
    // 100 MiB promised, three bytes sent.
    let frame = [&(100i32 << 20).to_be_bytes()[..], &[0, 0, 0, 1, 1, 2, 3]].concat();
    let cut = answered_with(&frame).await;
    assert!(cut.to_string().contains("in the middle"), "{cut}");
    assert_eq!(cut.action(), Action::Reconnect);
    let closed = answered_with(&[]).await;
    assert!(closed.to_string().contains("TLS or SASL"), "{closed}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_no_request_ends_the_connection() {
    let (connection, mut peer) = connected(Limits::default()).await;
    peer.0.write_all(&[0, 0, 0, 4, 0, 0, 0, 1]).await.unwrap();
    assert!(peer.next().await.is_none());
    let error = connection.send(FETCH, 12, body("x"), LONG, None).await;
    assert!(error.unwrap_err().to_string().contains("no request"));
}

#[tokio::test(start_paused = true)]
async fn a_hostile_count_in_a_response_is_an_error_not_an_abort() {
    let (connection, mut peer) = connected(Limits::default()).await;
    let asking = connection.request(MetadataRequest::default(), LONG);
    let script = async {
        let asked = peer.next().await.unwrap();
        assert_eq!((asked.api, asked.version), (3, 12));
        let hostile = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
        peer.answer(&asked, &hostile).await;
    };
    let (answer, ()) = tokio::join!(asking, script);
    let error = answer.unwrap_err();
    assert!(matches!(error, NetError::Malformed { .. }), "{error:?}");
    assert!(error.to_string().contains("Metadata v12"), "{error}");
    assert!(connection.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_request_speaks_the_highest_version_both_know() {
    let net = Net::new();
    net.serve("broker", 9092, |stream| async move {
        let mut peer = Peer(stream);
        peer.greet(&[(3, 0, 7), (1, 4, 10)]).await;
        let asked = peer.next().await.unwrap();
        assert_eq!((asked.api, asked.version), (3, 7));
        peer.reply(&asked, &MetadataResponse::default()).await;
    });
    let connection = open(&net, Limits::default()).await.unwrap();
    connection
        .request(MetadataRequest::default(), LONG)
        .await
        .unwrap();
    assert_eq!(connection.version(FETCH, 17, 4).unwrap(), 10);
    let error = connection.version(FETCH, 17, 12).unwrap_err();
    assert_eq!(
        error.to_string(),
        "broker:9092 does not support Fetch in a version from 12 to 17: it offers 4 to 10"
    );
    assert_eq!(error.id(), "unsupported");
    assert_eq!(error.action(), Action::Stop);
    let error = connection.version(PRODUCE, 9, 3).unwrap_err();
    assert!(error.to_string().contains("does not offer"), "{error}");
}

/// Plays a broker that knows ApiVersions up to `highest` and says so or not; returns the versions
/// that were asked for.
async fn negotiated(highest: i16, says_so: bool) -> Vec<i16> {
    let net = Net::new();
    let (tell, mut told) = mpsc::unbounded_channel();
    net.serve("broker", 9092, move |stream: DuplexStream| {
        let tell = tell.clone();
        async move {
            let mut peer = Peer(stream);
            while let Some(asked) = peer.next().await {
                tell.send(asked.version).unwrap();
                if asked.version <= highest {
                    peer.reply(&asked, &versions(MODERN)).await;
                } else {
                    let known: &[_] = if says_so { &[(18, 0, highest)] } else { &[] };
                    let refusal = versions(known).with_error_code(35);
                    peer.answer(&asked, &peer::encode(&refusal, 0)).await;
                }
            }
        }
    });
    let connection = open(&net, Limits::default()).await.unwrap();
    assert_eq!(connection.version(FETCH, 17, 4).unwrap(), 17);
    let mut asked = Vec::new();
    while let Ok(version) = told.try_recv() {
        asked.push(version);
    }
    asked
}

#[tokio::test(start_paused = true)]
async fn api_versions_falls_back_as_kip_511_has_it() {
    assert_eq!(negotiated(4, true).await, [4]);
    assert_eq!(negotiated(3, true).await, [4, 3]);
    assert_eq!(negotiated(2, true).await, [4, 0]);
    assert_eq!(negotiated(0, false).await, [4, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_cannot_be_made_says_why() {
    let net = Net::new();
    let refused = open(&net, Limits::default()).await.unwrap_err();
    assert!(
        refused.to_string().contains("connection refused"),
        "{refused}"
    );
    assert_eq!(refused.id(), "connect-failed");
    net.silent("broker", 9092);
    let begun = tokio::time::Instant::now();
    let silent = open(&net, Limits::default()).await.unwrap_err();
    assert!(
        silent.to_string().contains("timed out after 5 s"),
        "{silent}"
    );
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    net.unknown("broker", 9092);
    let unknown = open(&net, Limits::default()).await.unwrap_err();
    assert_eq!(unknown.id(), "host-unknown", "{unknown:?}");
    // Connects, but never says a word.
    net.serve("broker", 9092, |stream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    });
    let mute = open(&net, Limits::default()).await.unwrap_err();
    assert_eq!(
        mute.to_string(),
        "ApiVersions v4 to broker:9092 had no answer within 10 s: the broker hangs or is overloaded, or the line to it is cut"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_in_memory_of_its_own() {
    let (connection, mut peer) = connected(Limits::default()).await;
    let (first, second) = (
        connection.send(FETCH, 12, body("a"), LONG, None),
        connection.send(FETCH, 12, body("b"), LONG, None),
    );
    for _ in 0..2 {
        let asked = peer.next().await.unwrap();
        peer.answer(&asked, &[9; 1_000]).await;
    }
    let first = first.await.unwrap();
    let kept = first.slice(10..20);
    drop(first);
    let second = second.await.unwrap();
    // Alone in its buffer: it can be reused once nobody else holds it.
    assert!(second.try_into_mut().is_ok());
    assert_eq!(kept, &[9; 10][..]);
}

#[tokio::test]
async fn a_real_socket_works_too() {
    let rt = strait_net::Runtime::system();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (done, finished) = oneshot::channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = Peer(stream);
        let greeting = peer.greet(MODERN).await.unwrap();
        let hello: kafka_protocol::messages::ApiVersionsRequest = greeting.decode();
        let asked = peer.next().await.unwrap();
        peer.answer(&asked, &vec![5; 1 << 20]).await;
        drop(listener);
        done.send(hello.client_software_name.to_string()).unwrap();
    });
    let security = Security::default();
    let limits = Limits::default();
    let identity = identity();
    let connection = Connection::open(&rt, "127.0.0.1", port, &security, &identity, limits)
        .await
        .unwrap();
    let many: Vec<Bytes> = (0..500).map(|_| Bytes::from(vec![1; 4_000])).collect();
    let answer = connection.send(PRODUCE, 9, many, LONG, None).await.unwrap();
    assert_eq!(answer.len(), 1 << 20);
    assert_eq!(finished.await.unwrap(), "strait");
    let refused = Connection::open(&rt, "127.0.0.1", port, &security, &identity, limits).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("connection refused"), "{refused}");
}
