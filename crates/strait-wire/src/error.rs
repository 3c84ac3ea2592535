//! What can be wrong with bytes that came from outside.

use thiserror::Error;

/// Why bytes could not be read or written. Never the reader's fault: the sender broke the protocol, the
/// data was damaged on the way, or it is of a kind this crate does not know.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes end before the value does.
    #[error("{what}: {need} bytes needed, {have} left")]
    Truncated {
        /// The value that was being read.
        what: &'static str,
        /// Bytes it needs.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// Bytes are left over behind a complete value.
    #[error("{what}: {left} bytes left over")]
    Trailing {
        /// The value that was read.
        what: &'static str,
        /// Bytes behind it.
        left: usize,
    },
    /// A length or count that cannot be: negative, or more than the bytes that are there could hold.
    #[error("{what}: count {count} cannot be right, {have} bytes are left")]
    BadCount {
        /// The value.
        what: &'static str,
        /// The count found.
        count: i64,
        /// Bytes there are.
        have: usize,
    },
    /// A value outside of what the protocol allows.
    #[error("{what}: value {value} is not allowed")]
    BadValue {
        /// The field.
        what: &'static str,
        /// The value found.
        value: i64,
    },
    /// A string that is not UTF-8.
    #[error("{what}: not UTF-8")]
    NotUtf8 {
        /// The field.
        what: &'static str,
    },
    /// The checksum does not fit the bytes.
    #[error(
        "record batch at offset {offset}: checksum {found:#010x}, but its bytes give {computed:#010x}"
    )]
    Crc {
        /// The batch's base offset.
        offset: i64,
        /// The checksum in the header.
        found: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// Compressed records that do not decompress.
    #[error("record batch at offset {offset}: {codec} data cannot be decompressed: {why}")]
    Decompress {
        /// The batch's base offset.
        offset: i64,
        /// The codec.
        codec: &'static str,
        /// The decompressor's words.
        why: String,
    },
    /// Records that inflate beyond what the caller allows.
    #[error("record batch at offset {offset} inflates beyond {limit} bytes")]
    TooLarge {
        /// The batch's base offset.
        offset: i64,
        /// The limit.
        limit: usize,
    },
    /// A version of a request or response that this crate does not speak.
    #[error("{api} version {version} is not spoken, only {min} to {max}")]
    Version {
        /// The API.
        api: &'static str,
        /// The version asked for.
        version: i16,
        /// The lowest spoken.
        min: i16,
        /// The highest spoken.
        max: i16,
    },
    /// Something that cannot be encoded.
    #[error("cannot encode {what}: {why}")]
    Encode {
        /// What.
        what: &'static str,
        /// Why.
        why: &'static str,
    },
}
