//! Kafka's four codecs, with a hard limit on what bytes may inflate to.

use std::io::{Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use crate::{Codec, WireError};

/// snappy-java's stream: this magic, INT32 version, INT32 lowest compatible version, then blocks of INT32
/// length and that many bytes of raw Snappy (`SnappyOutputStream`).
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_LEN: usize = 16;
/// snappy-java's default block size.
const XERIAL_BLOCK: usize = 32 * 1024;
/// A copy of 64 bytes takes 3: Snappy cannot do better, so a length that claims more is false.
const SNAPPY_BEST_RATIO: usize = 64;
/// What is reserved at first for data of unknown size.
const FIRST_RESERVE: usize = 64 * 1024;

/// Compresses `raw` as Kafka's Java client does with the codec's default level.
pub(crate) fn compress(codec: Codec, raw: &[u8]) -> Result<Vec<u8>, WireError> {
    let done = match codec {
        Codec::None => Some(raw.to_vec()),
        Codec::Gzip => gzip(raw),
        Codec::Snappy => snappy(raw),
        Codec::Lz4 => lz4(raw),
        Codec::Zstd => zstd::stream::encode_all(raw, zstd::DEFAULT_COMPRESSION_LEVEL).ok(),
    };
    done.ok_or(WireError::Encode {
        what: "record batch",
        why: "its records could not be compressed",
    })
}

fn gzip(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(raw).ok()?;
    out.finish().ok()
}

fn snappy(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = XERIAL_MAGIC.to_vec();
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in raw.chunks(XERIAL_BLOCK) {
        let packed = encoder.compress_vec(block).ok()?;
        out.extend_from_slice(&u32::try_from(packed.len()).ok()?.to_be_bytes());
        out.extend_from_slice(&packed);
    }
    Some(out)
}

/// Independent blocks: `Lz4BlockInputStream` refuses others.
fn lz4(raw: &[u8]) -> Option<Vec<u8>> {
    let info = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Independent);
    let mut out = FrameEncoder::with_frame_info(info, Vec::new());
    out.write_all(raw).ok()?;
    out.finish().ok()
}

/// Decompresses `packed`, the records of the batch at `offset`, into at most `limit` bytes.
///
/// Memory besides the result is bounded by the codecs: LZ4's largest block, and for Zstandard a window of at
/// most 128 MiB, which the library takes for its own limit (level 22 of a Java producer may need it).
pub(crate) fn decompress(
    codec: Codec,
    packed: &[u8],
    limit: usize,
    offset: i64,
) -> Result<Vec<u8>, WireError> {
    let failed = |why: String| WireError::Decompress {
        offset,
        codec: codec.name(),
        why,
    };
    let stream = |source: &mut dyn Read| {
        let mut out =
            Vec::with_capacity(FIRST_RESERVE.min(limit).min(packed.len().saturating_mul(4)));
        // One byte more than is allowed tells what is too large.
        let end = limit.saturating_add(1);
        while out.len() < end {
            make_room(&mut out, 1, end);
            let room = out.capacity().min(end) - out.len();
            let read = source
                .take(u64::try_from(room).unwrap_or(u64::MAX))
                .read_to_end(&mut out)
                .map_err(|e| failed(e.to_string()))?;
            if read < room {
                break;
            }
        }
        Ok(out)
    };
    let out = match codec {
        Codec::None => packed.to_vec(),
        Codec::Gzip => stream(&mut MultiGzDecoder::new(packed))?,
        Codec::Snappy => unsnappy(packed, limit, offset)?,
        Codec::Lz4 => stream(&mut FrameDecoder::new(packed))?,
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)
                .map_err(|e| failed(e.to_string()))?;
            stream(&mut decoder)?
        }
    };
    if out.len() > limit {
        return Err(WireError::TooLarge { offset, limit });
    }
    Ok(out)
}

/// Room for `more` bytes, by doubling, but never for more than `most` in all: a vector's own growth would take up to twice
/// that.
fn make_room(out: &mut Vec<u8>, more: usize, most: usize) {
    let (needed, held) = (out.len().saturating_add(more), out.capacity());
    if needed <= held {
        return;
    }
    let doubled = held.saturating_mul(2).max(FIRST_RESERVE);
    // The last step goes all the way, so that it is not followed by a small one.
    let next = if doubled >= most - most / 8 {
        most
    } else {
        doubled
    };
    out.reserve_exact(next.max(needed) - out.len());
}

/// Both framings: what does not begin as xerial's is one raw block, as librdkafka and others once sent it.
fn unsnappy(packed: &[u8], limit: usize, offset: i64) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::new();
    if !packed.starts_with(&XERIAL_MAGIC) {
        unsnappy_block(packed, limit, offset, &mut out)?;
        return Ok(out);
    }
    let cut = || WireError::Decompress {
        offset,
        codec: Codec::Snappy.name(),
        why: "a block is cut off".into(),
    };
    let mut rest = packed;
    while !rest.is_empty() {
        // A stream may be followed by another one (`SnappyInputStream.hasNextChunk`).
        if rest.starts_with(&XERIAL_MAGIC) {
            rest = rest.get(XERIAL_HEADER_LEN..).ok_or_else(cut)?;
            continue;
        }
        let (length, behind) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut())?;
        let (block, behind) = behind.split_at_checked(length).ok_or_else(cut)?;
        unsnappy_block(block, limit, offset, &mut out)?;
        rest = behind;
    }
    Ok(out)
}

/// Appends one raw block to `out`, whose size stays within `limit`.
fn unsnappy_block(
    block: &[u8],
    limit: usize,
    offset: i64,
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    let failed = |why: String| WireError::Decompress {
        offset,
        codec: Codec::Snappy.name(),
        why,
    };
    let size = snap::raw::decompress_len(block).map_err(|e| failed(e.to_string()))?;
    if size > block.len().saturating_mul(SNAPPY_BEST_RATIO) {
        return Err(failed(format!(
            "{} bytes cannot hold the {size} they claim",
            block.len()
        )));
    }
    let start = out.len();
    if size > limit.saturating_sub(start) {
        return Err(WireError::TooLarge { offset, limit });
    }
    make_room(out, size, limit);
    out.resize(start + size, 0);
    snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(|e| failed(e.to_string()))?;
    Ok(())
}
