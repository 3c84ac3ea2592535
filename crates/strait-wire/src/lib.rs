//! Kafka's bytes: batch headers, Fetch and Produce codecs, MirrorMaker 2's records. No I/O, no clock.

mod batch;
mod compress;
mod crc;
mod error;
mod judge;
mod reader;
mod record;
mod rewrite;
mod writer;

pub use batch::{Attributes, Batch, BatchHeader, Codec, ControlType, Entries, Entry, HEADER_LEN};
pub use error::WireError;
pub use judge::{AbortedTxn, Isolation, Judge, Verdict};
pub use reader::Reader;
pub use record::{BatchBuilder, Record};
pub use rewrite::{RepackCause, Stamp, needs_repack, repack, restamp};
pub use writer::Writer;
