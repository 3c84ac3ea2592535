//! Which batches of a Fetch response a reader of committed records may see.

/// One entry of a Fetch response's `aborted_transactions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbortedTxn {
    /// The producer whose transaction was aborted.
    pub producer_id: i64,
    /// The transaction's first offset in the partition.
    pub first_offset: i64,
}

/// What a Fetch request asks to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Isolation {
    /// Everything below the high watermark.
    ReadUncommitted,
    /// Everything below the last stable offset, without aborted transactions.
    #[default]
    ReadCommitted,
}
