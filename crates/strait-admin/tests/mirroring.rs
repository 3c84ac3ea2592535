//! The endpoints for mirroring, as clients that do not keep to the rules see them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;

use strait_admin::{Access, Admin, Answer, Caller, Health, LinkName, Metrics, Mirroring, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One link whose target never answers.
struct Links;

impl Mirroring for Links {
    fn links(&self) -> Vec<LinkName> {
        vec![LinkName {
            name: "a->b".to_owned(),
            source: "a".to_owned(),
        }]
    }

    fn selection<'a>(&'a self, _: &'a str) -> Answer<'a> {
        let late = Refusal::Unavailable("the target did not answer".to_owned());
        Box::pin(async move { Err(late) })
    }

    fn select<'a>(&'a self, _: &'a str, includes: Vec<String>, _: Caller) -> Answer<'a> {
        Box::pin(async move { Ok(includes) })
    }

    fn active_topics(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}

/// On virtual time: it goes on where everybody waits.
#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods)]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let metrics = Metrics::install("1.2.3", "abc").unwrap();
    let admin = Admin::bind("127.0.0.1:0".parse().unwrap(), metrics, Health::new());
    let access = Access::new("viewer-0123456789abcdef", "manager-0123456789abcdef");
    let admin = admin.await.unwrap().with_mirroring(access, Arc::new(Links));
    let address = admin.address();
    let asking = async {
        let ask = async |request: &str, body: &str| {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!(
                "{request} /admin/mirroring/topic-selection HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: manager-0123456789abcdef\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{body}"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let whole = ask("POST", "{\"includes\":[ ]}").await;
        assert!(whole.starts_with("HTTP/1.1 200 "), "{whole}");
        let half = ask("POST", "{\"includes\":").await;
        assert!(half.starts_with("HTTP/1.1 408 "), "{half}");
        assert!(
            half.contains("{\"error_code\":408,\"incident_id\":\"")
                && half.contains("\"message\":\"the body did not arrive in time\"}"),
            "{half}"
        );
        let late = ask("GET", "{\"includes\":[ ]}").await;
        assert!(late.starts_with("HTTP/1.1 503 "), "{late}");
    };
    tokio::select! {
        ended = admin.serve(std::future::pending()) => ended.unwrap(),
        () = asking => {}
    }
}
