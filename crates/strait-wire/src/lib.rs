//! Kafka's bytes: batch headers, Fetch and Produce codecs, MirrorMaker 2's records. No I/O, no clock.

mod batch;
mod compress;
mod crc;
mod error;
mod fetch;
mod join;
mod judge;
mod legacy;
mod loss;
pub mod mm2;
mod mm2_offsets;
mod position;
mod produce;
mod raw;
mod reader;
mod record;
mod registry;
mod rewrite;
mod split;
mod writer;

pub use batch::{Attributes, Batch, BatchHeader, Codec, ControlType, Entries, Entry, HEADER_LEN};
pub use error::WireError;
pub use fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchedPartition, TopicRef,
};
pub use join::{join, join_compressed, joinable, joinable_compressed, joined_bound};
pub use judge::{AbortedTxn, Isolation, Judge, Verdict};
pub use legacy::{Upgraded, legacy_records, upgrade};
pub use loss::{LOST_RANGES, Losses, LostRange};
pub use mm2::{Checkpoint, Heartbeat, OffsetSync};
pub use mm2_offsets::Mm2Offset;
pub use position::{
    GapReason, POSITION_HEADER, POSITION_VERSION, Position, PositionError, PositionFlags, SyncKind,
    SyncRecord, has_position,
};
pub use produce::{ProducePartition, ProduceRequest, ProduceResponse, ProducedPartition};
pub use reader::Reader;
pub use record::{BatchBuilder, Record};
pub use registry::{MAX_RUNGS, REGISTRY_VERSION, RegistryError, RegistryRecord, SELECTION_RESET};
pub use rewrite::{RepackCause, Stamp, needs_repack, repack, restamp};
pub use split::split;
pub use writer::Writer;
