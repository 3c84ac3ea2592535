//! The HTTP server.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::access::Access;
use crate::error::AdminError;
use crate::health::Health;
use crate::metrics_page::Metrics;
use crate::mirroring::{Endpoints, Mirroring, Subject, answer};

/// Samples wait this long in memory at most.
const UPKEEP: Duration = Duration::from_secs(5);
/// A client that does not take its answer holds up the end of the process by this at most.
const GRACE: Duration = Duration::from_secs(1);
const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A bound address, ready to serve metrics and health.
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    metrics: Metrics,
    health: Health,
    endpoints: Option<Endpoints>,
}

impl Admin {
    /// Takes the address. From here on connections are accepted by the system and answered by [`Self::serve`].
    pub async fn bind(
        address: SocketAddr,
        metrics: Metrics,
        health: Health,
    ) -> Result<Self, AdminError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|cause| match cause.kind() {
                io::ErrorKind::AddrInUse => AdminError::AddressTaken(address),
                _ => AdminError::Listen { address, cause },
            })?;
        let bound = listener
            .local_addr()
            .map_err(|cause| AdminError::Listen { address, cause })?;
        Ok(Self {
            listener,
            address: bound,
            metrics,
            health,
            endpoints: None,
        })
    }

    /// Serves the endpoints for mirroring too, to those with a token. Without them they answer that there are none.
    pub fn with_mirroring(mut self, access: Access, mirroring: Arc<dyn Mirroring>) -> Self {
        self.endpoints = Some(Endpoints { access, mirroring });
        self
    }

    /// The address with the port that was really given, where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is done; then open answers get one second to end.
    pub async fn serve(
        self,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), AdminError> {
        let (stopping, stopped) = oneshot::channel::<()>();
        let pages = pages(self.metrics.clone(), self.health, self.endpoints);
        let pages = pages.into_make_service_with_connect_info::<SocketAddr>();
        let server = axum::serve(self.listener, pages).with_graceful_shutdown(async move {
            stop.await;
            // Nobody listens when the server has ended by itself.
            let _ = stopping.send(());
        });
        let overdue = async move {
            let _ = stopped.await;
            tokio::time::sleep(GRACE).await;
        };
        let metrics = self.metrics;
        let upkeep = async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                metrics.upkeep();
            }
        };
        tokio::select! {
            ended = async move { server.await } => ended.map_err(AdminError::Serve),
            () = overdue => Ok(()),
            () = upkeep => Ok(()),
        }
    }
}

fn pages(metrics: Metrics, health: Health, endpoints: Option<Endpoints>) -> Router {
    let about = |subject| {
        let endpoints = endpoints.clone();
        any(
            move |ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request| {
                answer(endpoints.clone(), subject, peer, request)
            },
        )
    };
    let text =
        |status: StatusCode, body: String| (status, [(CONTENT_TYPE, TEXT)], body).into_response();
    Router::new()
        .route(
            "/",
            get(move || async move {
                let index = "strait\n/metrics  for Prometheus\n/healthz  200 while the process is alive\n/readyz   200 while every link is mirroring, else 503 and why\n";
                text(StatusCode::OK, index.to_owned())
            }),
        )
        .route(
            "/metrics",
            get(move || async move { ([(CONTENT_TYPE, PROMETHEUS_TEXT)], metrics.render()) }),
        )
        .route("/healthz", get(move || async move { text(StatusCode::OK, "alive\n".to_owned()) }))
        .route(
            "/readyz",
            get(move || async move {
                match health.readiness() {
                    Ok(line) => text(StatusCode::OK, line),
                    Err(lines) => text(StatusCode::SERVICE_UNAVAILABLE, lines),
                }
            }),
        )
        .route("/admin/mirroring/topic-selection", about(Subject::Selection))
        .route("/admin/mirroring/active-topics", about(Subject::ActiveTopics))
        .fallback(move || async move {
            text(StatusCode::NOT_FOUND, "not found; see /\n".to_owned())
        })
}
