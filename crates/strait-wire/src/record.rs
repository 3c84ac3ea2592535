//! Records, and batches built from them.

use bytes::Bytes;

/// One record of a batch. Its bytes share the memory they were decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset in the partition it was read from.
    pub offset: i64,
    /// Its effective timestamp, ms since the Unix epoch: that of its batch if the batch has log append time.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers in their order, duplicate keys included.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}
