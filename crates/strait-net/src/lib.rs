//! Connections to Kafka: TCP, TLS, SASL, pipelining, metadata; and the runtime seam.
