//! Kafka's bytes: batch headers, Fetch and Produce codecs, MirrorMaker 2's records. No I/O, no clock.

mod error;
mod reader;
mod writer;

pub use error::WireError;
pub use reader::Reader;
pub use writer::Writer;
