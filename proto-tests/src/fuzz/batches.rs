//! Magic 2 batches: the walk over a Fetch answer's records, and all that may be done with a batch.

use bytes::{Bytes, BytesMut};
use strait_wire::{
    AbortedTxn, Attributes, Batch, BatchHeader, Codec, Entries, Entry, HEADER_LEN, Isolation,
    Judge, Record, Stamp, join as join_plain, join_compressed, joinable, joinable_compressed,
    joined_bound, repack, restamp, split,
};

use super::{INFLATE, within};

/// Beside what a decoder's input justifies: codecs' tables and small things.
const FIXED: usize = 512 * 1024;
/// LZ4 frames may have blocks of 4 MiB; its decoder has one packed and up to two plain ones.
const LZ4_BLOCKS: usize = 13 << 20;

/// A walk takes nothing per entry, but what a batch may need is only its own.
pub(super) fn entries(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let aborted = [AbortedTxn {
        producer_id: 77,
        first_offset: 0,
    }];
    let mut judge = Judge::new(&aborted, Isolation::ReadCommitted);
    let mut walk = within("a walk", 64, || Entries::new(data.clone()));
    let (mut next, mut seen) = (0, 0);
    while let Some(entry) = within("the next entry", 64, || walk.next()) {
        let Ok(entry) = entry else { continue };
        assert!(entry.next_offset() > next, "offsets rise");
        next = entry.next_offset();
        match entry {
            Entry::Batch(batch) => {
                seen += batch.bytes.len();
                assert_eq!(BatchHeader::parse(&batch.header.encode()), Ok(batch.header));
                within("a verdict", FIXED, || judge.judge(&batch.header, &batch));
                let damaged = batch.verify_crc().is_err();
                let parts = within("a new header", 256, || restamp(&batch, Stamp::NONE));
                let sent = Batch::parse(parts.concat().into());
                assert_eq!(
                    sent.is_ok_and(|sent| sent.verify_crc().is_ok()),
                    !damaged,
                    "a checksum stays as right or wrong as it was"
                );
                assert!(!damaged || repack(&batch, 0, INFLATE).is_err());
            }
            Entry::Legacy { bytes, .. } => seen += bytes.len(),
        }
    }
    assert!(seen <= data.len());
}

/// One batch whose records are the input: first its attributes, offsets and count, then plain records, which are
/// compressed here, or with the highest bit bytes that are to be inflated. Its checksum is right.
pub(super) fn records(data: &[u8]) {
    let &[attributes, delta, count, from, ref plain @ ..] = data else {
        return;
    };
    let Some(batch) = forged(attributes, i32::from(delta), i32::from(count), plain) else {
        return;
    };
    let allowed = allowed(&batch);
    let from = i64::from(from);
    let read = within("decoding", allowed, || batch.decode(INFLATE));
    let _ = within("a marker", allowed, || batch.control_type());
    let packed = within("packing anew", allowed, || repack(&batch, from, INFLATE));
    assert_eq!(
        read.as_ref().err().filter(|_| packed.is_ok()),
        None,
        "what cannot be decoded is not packed anew"
    );
    if let (Ok(read), Ok(packed)) = (&read, &packed) {
        let kept = read.iter().filter(|record| record.offset >= from);
        same(kept, packed);
    }
    let limit = HEADER_LEN + plain.len() / 3;
    let pieces = within("splitting", 2 * allowed, || split(&batch, limit, INFLATE));
    if let (Ok(read), Ok(pieces)) = (&read, pieces) {
        let mut rest = read.iter();
        for piece in pieces {
            let count = piece.header.count.unsigned_abs() as usize;
            assert!(piece.bytes.len() <= limit.max(batch.bytes.len()) || count == 1);
            same(rest.by_ref().take(count), &piece);
        }
        assert_eq!(rest.count(), 0, "no record is lost");
    }
}

/// A walk's batches of either kind, joined. Their offsets are made to follow each other, and their checksums right.
pub(super) fn join(data: &[u8]) {
    let batches: Vec<Batch> = Entries::new(Bytes::copy_from_slice(data))
        .filter_map(|entry| match entry {
            Ok(Entry::Batch(batch)) => Some(batch),
            _ => None,
        })
        .collect();
    let chain = |joinable: fn(&BatchHeader) -> bool| {
        let mut next = 0;
        let mut chain = Vec::new();
        for batch in batches.iter().filter(|batch| joinable(&batch.header)) {
            let mut header = batch.header;
            header.base_offset = next;
            next = header.next_offset();
            chain.push(sealed(header, &batch.records()));
        }
        chain
    };
    let (plain, packed) = (chain(joinable), chain(joinable_compressed));
    let plain: Vec<&Batch> = plain.iter().collect();
    let packed: Vec<&Batch> = packed.iter().collect();
    let read = |batch: &&Batch| batch.decode(64 * INFLATE);
    let bound = joined_bound(&plain);
    assert!(bound <= data.len() * 4 + HEADER_LEN, "the bound is bounded");
    let joined = within("joining", bound + 64, || {
        let mut out = BytesMut::with_capacity(bound);
        join_plain(&plain, &mut out).map(|header| Batch {
            header,
            bytes: out.freeze(),
        })
    });
    if let Ok(joined) = joined {
        let parts: Result<Vec<_>, _> = plain.iter().map(read).collect();
        assert_eq!(
            parts.map(|parts| parts.concat()),
            joined.decode(64 * INFLATE)
        );
    }
    let allowed = packed.iter().map(|batch| allowed(batch)).sum::<usize>() + FIXED;
    let joined = within("joining compressed", allowed, || {
        join_compressed(&packed, INFLATE)
    });
    if let Ok(joined) = joined {
        let parts: Result<Vec<_>, _> = packed.iter().map(read).collect();
        assert_eq!(
            parts.map(|parts| parts.concat()),
            joined.decode(64 * INFLATE)
        );
    }
}

/// Records and headers take space of their own in a decoded batch: at most this for each byte of it.
const DECODED: usize = 34;

/// The most that is justified for one batch: its records inflated and decoded, within the limit together (a buffer that
/// grows may be there twice), and what they are packed into.
fn allowed(batch: &Batch) -> usize {
    let (plain, blocks) = match batch.header.attributes.codec() {
        Ok(Codec::None) => (INFLATE.min(DECODED * batch.bytes.len()), 0),
        Ok(Codec::Lz4) => (INFLATE, LZ4_BLOCKS),
        _ => (INFLATE, 0),
    };
    FIXED + blocks + 6 * plain
}

fn forged(attributes: u8, delta: i32, count: i32, plain: &[u8]) -> Option<Batch> {
    let records = match attributes & 0x80 {
        0 => super::legacy::packed(attributes & 0x07, plain)?,
        _ => plain.to_vec(),
    };
    let header = BatchHeader {
        base_offset: 0,
        length: 0,
        leader_epoch: 3,
        magic: 2,
        crc: 0,
        attributes: Attributes(i16::from(attributes & 0x7f)),
        last_offset_delta: delta,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_000,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        count,
    };
    let batch = sealed(header, &records);
    Batch::parse(batch.bytes).ok()
}

/// The batch of these records with a right length and checksum.
fn sealed(mut header: BatchHeader, records: &[u8]) -> Batch {
    header.length = i32::try_from(HEADER_LEN - 12 + records.len()).unwrap_or(i32::MAX);
    let front = header.encode();
    header.crc = crc32c::crc32c_append(crc32c::crc32c(&front[21..]), records);
    let bytes = [&header.encode()[..], records].concat().into();
    Batch { header, bytes }
}

/// `batch` has the records of `all`, whatever their offsets.
fn same<'a>(all: impl Iterator<Item = &'a Record>, batch: &Batch) {
    let hashes = |records: &mut dyn Iterator<Item = u128>| records.collect::<Vec<_>>();
    let read = batch.decode(64 * INFLATE);
    let ours = read.map(|read| hashes(&mut read.iter().map(Record::hash)));
    assert_eq!(ours, Ok(hashes(&mut all.map(Record::hash))));
}
