//! Kafka's bytes: batch headers, Fetch and Produce codecs, MirrorMaker 2's records. No I/O, no clock.
