//! Metrics, health and the selection of topics over HTTP.
//!
//! Three pages without authentication, so that the address should stay on the machine: `/metrics` in Prometheus' text
//! format, `/healthz` (the process is alive) and `/readyz` (every link is mirroring). And Event Streams' endpoints under
//! `/admin/mirroring/`, for whoever has one of two tokens; what they do is a [`Mirroring`]'s.
//! The caller owns the task: [`Admin::serve`] is one future that ends when told to.

mod access;
mod error;
mod health;
mod metrics_page;
mod mirroring;
mod server;

pub use access::{Access, Role};
pub use error::AdminError;
pub use health::{Health, State};
pub use metrics_page::Metrics;
pub use mirroring::{Answer, Caller, LinkName, Mirroring, Refusal};
pub use server::Admin;
