//! Real Apache Kafka for tests: KRaft nodes as child processes, and an independent client to judge what they hold.
//!
//! `just setup` fetches what this needs (Kafka's jars, the compiled Java of `java/`); without it every start fails with
//! an error that says so, never with a silent skip.
//!
//! A [`KafkaCluster`] is one or more nodes on ports of their own, killed with the value or with the test process,
//! whichever goes first. An [`Oracle`] is one JVM running Kafka's own clients, asked over its stdin: it writes the
//! workloads, reads both sides back and compares them, and shares no code with the product.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real processes live in real time and on real sockets"
)]

mod access;
mod cluster;
mod error;
mod groups;
mod install;
mod mirror_maker;
mod node;
mod options;
mod oracle;
mod ports;
mod probe;
mod program;
mod reading;
mod segments;
mod topics;
mod workload;

pub use access::Right;
pub use cluster::KafkaCluster;
pub use error::HarnessError;
pub use groups::{GroupMember, GroupOffsets};
pub use install::Version;
pub use mirror_maker::MirrorMaker;
pub use options::{KafkaOptions, SaslUser};
pub use oracle::Oracle;
pub use program::run_java;
pub use reading::{
    Comparison, Difference, Dump, DumpOptions, DumpedRecord, HeaderValue, Isolation, Offsets,
    PartitionComparison, PartitionDump,
};
pub use segments::StoredBatch;
pub use topics::{PartitionState, TopicConfig, TopicState};
pub use workload::{
    Background, Codec, HeaderSpec, OpenTransaction, ProduceReport, RecordSpec, TransactionSpec,
    Workload,
};
