//! Connections to Kafka: TCP, TLS, SASL, pipelining, metadata; and the runtime seam.
//!
//! [`Runtime`] is the only way to time, randomness, tasks, names and sockets, real or simulated.
//! [`Connection`] is one pipelined connection to one broker. [`Cluster`] knows which broker leads
//! what and offers the control plane as typed calls. Every error is a [`NetError`] that names the
//! cluster, the broker and the API, and answers [`NetError::action`].

mod acls;
mod admin;
mod call;
mod cluster;
mod connection;
mod coordinator;
mod driver;
mod error;
mod frame;
mod group_coordinators;
mod group_members;
mod groups;
mod handshake;
mod kafka_error;
mod log_dirs;
mod log_ends;
mod metadata;
mod offsets;
mod peer;
mod pool;
mod runtime;
mod sasl;
mod scram;
mod security;
mod shape;
mod shapes;
#[cfg(test)]
mod shapes_test;
mod share_groups;
mod socket;
mod tls;
mod transactions;
mod unanswered;
mod users;

pub use acls::TopicAcl;
pub use admin::{ConfigEntry, Created, NewTopic};
pub use call::Call;
#[doc(hidden)]
pub use call::{ANSWERS, decode_answer};
pub use cluster::Cluster;
pub use connection::{Connection, Identity, Limits, Pending, WriteGuard};
pub use coordinator::CoordinatorKind;
pub use error::{Action, NetError};
pub use groups::{CommittedOffset, GroupOffsets, ListedGroup};
pub use kafka_error::KafkaError;
pub use log_ends::{AskEnds, LogEnds};
#[doc(hidden)]
pub use metadata::read_metadata;
pub use metadata::{BrokerAddress, Metadata, PartitionMetadata, TopicMetadata};
pub use peer::Peer;
pub use pool::{Buffer, Charge, Pool};
pub use runtime::{Runtime, World};
#[doc(hidden)]
pub use scram::scram_exchange;
pub use security::{ClientCertificate, Sasl, Security, Tls};
pub use share_groups::ShareOffsets;
pub use socket::{Socket, Stream};
pub use transactions::{ProducerState, TransactionDescription};
pub use unanswered::Unanswered;
