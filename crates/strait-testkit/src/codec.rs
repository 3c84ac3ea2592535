//! The five compression codecs of record batches, as Kafka frames them on the wire.

use std::io::{Read, Write};

use crate::records::RecordsError;

/// Compression of a batch's records (attribute bits 0..2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// Records lie in the batch as they are.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Snappy in xerial's framing, which Java clients write; raw Snappy is read too.
    Snappy,
    /// LZ4 frames with independent blocks.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

/// All codecs in the order of their numbers on the wire.
pub const ALL: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];

/// No batch of a test is larger than this when inflated; protects the test process from a bomb.
const INFLATED_LIMIT: u64 = 256 << 20;

const XERIAL_MAGIC: &[u8; 8] = &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_BLOCK: usize = 32 << 10;

impl Codec {
    /// The codec with wire number `id` (0..=4), none for the numbers Kafka does not define.
    #[must_use]
    pub fn from_id(id: i16) -> Option<Self> {
        usize::try_from(id).ok().and_then(|id| ALL.get(id).copied())
    }

    /// The codec's number on the wire.
    #[must_use]
    pub fn id(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The codec that a topic's `compression.type` names; none for `producer` and unknown names.
    #[must_use]
    pub fn from_config(name: &str) -> Option<Self> {
        match name {
            "uncompressed" => Some(Self::None),
            "gzip" => Some(Self::Gzip),
            "snappy" => Some(Self::Snappy),
            "lz4" => Some(Self::Lz4),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Compresses `plain`.
    ///
    /// # Errors
    /// [`RecordsError::Compression`] if the codec's library refuses.
    pub fn compress(self, plain: &[u8]) -> Result<Vec<u8>, RecordsError> {
        match self {
            Self::None => Ok(plain.to_vec()),
            Self::Gzip => {
                let mut out =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
                out.write_all(plain)
                    .and_then(|()| out.finish())
                    .map_err(|e| failed(self, &e))
            }
            Self::Snappy => xerial(plain),
            Self::Lz4 => {
                let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
                out.write_all(plain).map_err(|e| failed(self, &e))?;
                out.finish().map_err(|e| failed(self, &e))
            }
            Self::Zstd => zstd::encode_all(plain, 3).map_err(|e| failed(self, &e)),
        }
    }

    /// Inflates `packed`, up to 256 MiB.
    ///
    /// # Errors
    /// [`RecordsError::Compression`] if the bytes are not of this codec or inflate beyond the limit.
    pub fn decompress(self, packed: &[u8]) -> Result<Vec<u8>, RecordsError> {
        match self {
            Self::None => Ok(packed.to_vec()),
            Self::Gzip => read_bounded(self, flate2::read::MultiGzDecoder::new(packed)),
            Self::Snappy => unxerial(packed),
            Self::Lz4 => read_bounded(self, lz4_flex::frame::FrameDecoder::new(packed)),
            Self::Zstd => {
                let reader = zstd::Decoder::new(packed).map_err(|e| failed(self, &e))?;
                read_bounded(self, reader)
            }
        }
    }
}

fn failed(codec: Codec, cause: &dyn std::fmt::Display) -> RecordsError {
    RecordsError::Compression {
        codec,
        cause: cause.to_string(),
    }
}

fn read_bounded(codec: Codec, reader: impl Read) -> Result<Vec<u8>, RecordsError> {
    let mut out = Vec::new();
    reader
        .take(INFLATED_LIMIT + 1)
        .read_to_end(&mut out)
        .map_err(|e| failed(codec, &e))?;
    if out.len() as u64 > INFLATED_LIMIT {
        return Err(failed(codec, &"inflates beyond 256 MiB"));
    }
    Ok(out)
}

fn xerial(plain: &[u8]) -> Result<Vec<u8>, RecordsError> {
    let mut out = XERIAL_MAGIC.to_vec();
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in plain.chunks(XERIAL_BLOCK) {
        let packed = encoder
            .compress_vec(block)
            .map_err(|e| failed(Codec::Snappy, &e))?;
        let len = i32::try_from(packed.len()).map_err(|e| failed(Codec::Snappy, &e))?;
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&packed);
    }
    Ok(out)
}

fn unxerial(packed: &[u8]) -> Result<Vec<u8>, RecordsError> {
    let mut decoder = snap::raw::Decoder::new();
    let mut block = |bytes: &[u8], out: &mut Vec<u8>| -> Result<(), RecordsError> {
        let len = snap::raw::decompress_len(bytes).map_err(|e| failed(Codec::Snappy, &e))?;
        if (out.len() + len) as u64 > INFLATED_LIMIT {
            return Err(failed(Codec::Snappy, &"inflates beyond 256 MiB"));
        }
        out.extend(
            decoder
                .decompress_vec(bytes)
                .map_err(|e| failed(Codec::Snappy, &e))?,
        );
        Ok(())
    };
    let mut out = Vec::new();
    if !packed.starts_with(XERIAL_MAGIC) {
        block(packed, &mut out)?;
        return Ok(out);
    }
    let mut rest = packed.get(16..).unwrap_or_default();
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let len =
            usize::try_from(i32::from_be_bytes(*len)).map_err(|e| failed(Codec::Snappy, &e))?;
        let bytes = tail
            .get(..len)
            .ok_or_else(|| failed(Codec::Snappy, &"cut short"))?;
        block(bytes, &mut out)?;
        rest = tail.get(len..).unwrap_or_default();
    }
    Ok(out)
}
