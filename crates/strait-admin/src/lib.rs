//! Metrics and health over HTTP.
//!
//! Three pages, served on an address that should stay on the machine, because there is no authentication:
//! `/metrics` in Prometheus' text format, `/healthz` (the process is alive) and `/readyz` (every link is mirroring).
//! The caller owns the task: [`Admin::serve`] is one future that ends when told to.

mod error;
mod health;
mod metrics_page;
mod server;

pub use error::AdminError;
pub use health::{Health, State};
pub use metrics_page::Metrics;
pub use server::Admin;
