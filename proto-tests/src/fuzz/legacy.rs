//! Message formats v0 and v1.

use bytes::Bytes;
use flate2::Crc;
use strait_testkit::codec::Codec;
use strait_wire::{Batch, Entries, Entry, upgrade};

use super::{INFLATE, within};

/// See `batches`: codecs' tables, LZ4's blocks, and for each byte of a set its messages as records and as a batch.
const ALLOWED: usize = (512 << 10) + (13 << 20) + 20 * INFLATE;

/// Any messages, as they are and with right checksums.
pub(super) fn message(data: &[u8]) {
    for entry in Entries::new(Bytes::copy_from_slice(data)) {
        let Ok(Entry::Legacy {
            magic,
            offset,
            bytes,
        }) = entry
        else {
            continue;
        };
        let mut mended = bytes.to_vec();
        mend(&mut mended);
        for bytes in [bytes, mended.into()] {
            check(magic, offset, &bytes);
        }
    }
}

/// The messages inside of a set: first magic, codec and flags and the wrapper's offset, then the messages, plain, which
/// are given right checksums, or with the highest bit not, and compressed.
pub(super) fn message_set(data: &[u8]) {
    let &[first, offset, ref inner @ ..] = data else {
        return;
    };
    let mut inner = inner.to_vec();
    if first & 0x80 == 0 {
        let mut at = 0;
        while let Some(size) = mend(inner.get_mut(at..).unwrap_or_default()) {
            at += size;
        }
    }
    let codec = first & 0x03;
    let Some(packed) = packed(codec, &inner) else {
        return;
    };
    let magic = first >> 6 & 1;
    let mut body = vec![0; 4];
    body.extend([magic, codec | first & 0x08]);
    body.extend(&[0x11; 8][..usize::from(magic) * 8]);
    body.extend((-1i32).to_be_bytes());
    body.extend(i32::try_from(packed.len()).unwrap_or(-1).to_be_bytes());
    body.extend(packed);
    let mut message = i64::from(offset).to_be_bytes().to_vec();
    message.extend(i32::try_from(body.len()).unwrap_or(-1).to_be_bytes());
    message.extend(body);
    mend(&mut message);
    check(
        magic.cast_signed(),
        i64::from(offset),
        &Bytes::from(message),
    );
}

fn check(magic: i8, offset: i64, message: &Bytes) {
    let from = offset - 1;
    let allowed = ALLOWED + 20 * message.len();
    let Ok(up) = within("a message", allowed, || {
        upgrade(magic, message, from, INFLATE)
    }) else {
        return;
    };
    assert_eq!(up.last, offset);
    assert!(up.first >= from && up.first <= up.last);
    if up.batch.header.count > 0 {
        let batch = Batch::parse(up.batch.bytes);
        let read = batch.and_then(|batch| batch.decode(64 * INFLATE));
        assert!(read.is_ok_and(|read| read.len() <= 2));
    }
}

/// Gives the first message of `bytes` a right checksum. Its size, if it is whole.
fn mend(bytes: &mut [u8]) -> Option<usize> {
    let &[.., s0, s1, s2, s3] = bytes.first_chunk::<12>()?;
    let size = usize::try_from(i32::from_be_bytes([s0, s1, s2, s3])).ok()?;
    let (checksum, body) = bytes.get_mut(12..size + 12)?.split_first_chunk_mut::<4>()?;
    let mut crc = Crc::new();
    crc.update(body);
    *checksum = crc.sum().to_be_bytes();
    Some(size + 12)
}

/// `plain` packed with the codec of this number; as it is where there is none.
pub(super) fn packed(codec: u8, plain: &[u8]) -> Option<Vec<u8>> {
    match Codec::from_id(i16::from(codec)) {
        Some(codec) => codec.compress(plain).ok(),
        None => Some(plain.to_vec()),
    }
}
