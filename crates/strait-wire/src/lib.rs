//! Kafka's bytes: batch headers, Fetch and Produce codecs, MirrorMaker 2's records. No I/O, no clock.

mod error;
mod judge;
mod reader;
mod record;
mod writer;

pub use error::WireError;
pub use judge::{AbortedTxn, Isolation};
pub use reader::Reader;
pub use record::Record;
pub use writer::Writer;
