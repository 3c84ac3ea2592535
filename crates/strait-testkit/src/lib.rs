//! An in-memory Kafka broker with the real one's rejection rules and fault hooks, and a harness for real Kafka.

pub mod kafka;
