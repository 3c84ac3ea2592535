//! An in-memory Kafka broker with the real one's rejection rules and fault hooks, and a harness for real Kafka.
//!
//! # Map
//! - [`broker`]: the handle: connections, topics, white-box access. [`config`]: its settings, `release` those of older
//!   releases. [`clock`]: its time.
//! - [`producer`], [`workload`]: write data without a network. [`compare`]: what differs between two clusters, in words.
//!   [`tail`]: what a partition has been given since the last look.
//! - [`fault`]: dropped requests, lost responses, late requests, errors, by script or by seed.
//! - [`records`], [`codec`], [`legacy`]: an own codec for record batches and the formats before them, independent of
//!   Strait's: the oracle.
//! - [`kafka`]: the harness for real Apache Kafka nodes and their own Java client.
//! - `api/`: one file per Kafka API, each stating its versions and where it deviates from Apache Kafka.
//! - `log`, `validate`, `producers`, `epochs`, `transactions`, `compaction`, `groups`: the state, without input or output.
//!
//! # What to know before changing it
//! - Nothing runs by itself. Markers, expiry and retention happen when a request, or a test, looks at the cluster and
//!   their time has come; a waiting request wakes for them. So a paused tokio clock decides everything.
//! - Waiting Fetches are told when an offset or a leader changes, not by a timer, and in the order in which they
//!   began to wait (`changes`): tokio's `watch` wakes its receivers at random.
//! - Maps are ordered and `select!`s are biased: one seed, one history.
//! - Clients are trusted with their frames: requests are decoded by kafka-protocol, whose arrays are not bounded.
//! - Partitions are stored once per cluster: a follower shows the leader's log up to the high watermark.

pub mod broker;
pub mod clock;
pub mod code;
pub mod codec;
pub mod compare;
pub mod config;
pub mod fault;
pub mod groups;
pub mod kafka;
pub mod legacy;
pub mod log;
pub mod producer;
pub mod producers;
pub mod records;
pub mod tail;
pub mod transactions;
pub mod workload;

mod api;
mod changes;
mod cluster;
mod compaction;
mod epochs;
mod release;
mod server;
mod topic_config;
mod validate;

pub use broker::Broker;
pub use changes::Waiter;
pub use cluster::KitError;
pub use codec::Codec;
pub use config::BrokerConfig;
pub use fault::{Fault, FaultPlan, FrameLie, Rewrite, Rule};
pub use log::StoredBatch;
pub use producer::KitProducer;
pub use records::KitRecord;
pub use release::Release;
pub use tail::Tail;
