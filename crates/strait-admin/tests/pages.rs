//! The pages as an HTTP client sees them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;
use std::time::Duration;

use strait_admin::{Admin, AdminError, Health, Metrics, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

const ANY_PORT: &str = "127.0.0.1:0";

// This crate has no runtime of Strait's: its client in tests is a plain socket.
#[allow(clippy::disallowed_methods)]
async fn connect(address: SocketAddr) -> tokio::net::TcpStream {
    tokio::net::TcpStream::connect(address).await.unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = connect(address).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Metrics are one per process, so everything that needs them is one test.
#[tokio::test]
async fn pages_tell_health_readiness_and_metrics_until_stopped() {
    let metrics = Metrics::install("1.2.3", "abc").unwrap();
    let Err(again) = Metrics::install("1.2.3", "abc") else {
        panic!("installed twice")
    };
    assert!(matches!(again, AdminError::AlreadyInstalled));

    let health = Health::new();
    let admin = Admin::bind(ANY_PORT.parse().unwrap(), metrics.clone(), health.clone())
        .await
        .unwrap();
    let address = admin.address();

    let Err(taken) = Admin::bind(address, metrics.clone(), health.clone()).await else {
        panic!("bound twice")
    };
    assert_eq!(
        taken.to_string(),
        format!(
            "metrics and health cannot be served on {address}: another process listens there. \
             Stop it, or choose another address with `--admin-listen 127.0.0.1:0` (any free port), \
             `--admin-listen off`, or listen = \"...\" under [admin] in the configuration"
        )
    );

    let (stop, stopped) = oneshot::channel::<()>();
    let serving = admin.serve(async move {
        let _ = stopped.await;
    });
    let asking = async {
        let alive = get(address, "/healthz").await;
        assert!(alive.starts_with("HTTP/1.1 200 OK"), "{alive}");
        assert!(alive.ends_with("\r\n\r\nalive\n"), "{alive}");

        health.set("a->b", State::Starting);
        let waiting = get(address, "/readyz").await;
        assert!(waiting.starts_with("HTTP/1.1 503 "), "{waiting}");
        assert!(waiting.ends_with("\r\n\r\na->b: starting\n"), "{waiting}");
        health.set("a->b", State::Mirroring);
        let ready = get(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 200 OK"), "{ready}");
        assert!(ready.ends_with("\r\n\r\n1 link mirroring\n"), "{ready}");

        metrics::histogram!("strait_test_seconds").record(0.03);
        metrics::histogram!("strait_test_bytes").record(5_000.0);
        metrics::histogram!("strait_test_batches").record(3.0);
        let page = get(address, "/metrics").await;
        assert!(
            page.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
            "{page}"
        );
        for line in [
            "strait_build_info{version=\"1.2.3\",commit=\"abc\"} 1",
            "strait_test_seconds_bucket{le=\"0.05\"} 1",
            "strait_test_bytes_bucket{le=\"4096\"} 0",
            "strait_test_bytes_bucket{le=\"16384\"} 1",
            "strait_test_batches_bucket{le=\"5\"} 1",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }

        let index = get(address, "/").await;
        assert!(index.contains("/readyz"), "{index}");
        let nothing = get(address, "/nothing").await;
        assert!(nothing.starts_with("HTTP/1.1 404 "), "{nothing}");

        // A client that asks and never reads must not hold up the end.
        let _silent = connect(address).await;
        stop.send(()).unwrap();
    };
    let both = async { tokio::join!(serving, asking) };
    let (served, ()) = tokio::time::timeout(Duration::from_secs(60), both)
        .await
        .unwrap();
    served.unwrap();
}

#[test]
fn an_address_of_another_machine_is_refused_with_advice() {
    let address: SocketAddr = "192.0.2.1:9464".parse().unwrap();
    let shown = AdminError::Listen {
        address,
        cause: std::io::Error::from(std::io::ErrorKind::AddrNotAvailable),
    };
    assert_eq!(
        shown.to_string(),
        "metrics and health cannot be served on 192.0.2.1:9464: address not available. \
         Choose an address of this machine and a port from 1024, with `--admin-listen` or \
         listen = \"...\" under [admin] in the configuration"
    );
}
