//! What a reader of committed records is given, batch by batch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::{Bytes, BytesMut};
use strait_wire::{
    AbortedTxn, Batch, BatchBuilder, Codec, Isolation, Judge, Record, Stamp, Verdict,
};

const TRANSACTIONAL: u8 = 0x10;
const MARKER: u8 = 0x30;

/// `count` records of producer `producer_id` at `offset`.
fn data(producer_id: i64, offset: i64, count: i32, attributes: u8) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    for _ in 0..count {
        builder.push(Record {
            offset: 0,
            timestamp: 1,
            key: None,
            value: None,
            headers: vec![],
        });
    }
    placed(builder, producer_id, offset, attributes)
}

/// A marker whose key is `version 0, kind`.
fn marker(producer_id: i64, offset: i64, kind: u8) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    let key = Some(Bytes::copy_from_slice(&[0, 0, 0, kind]));
    builder.push(Record {
        offset: 0,
        timestamp: 1,
        key,
        value: Some(Bytes::from_static(&[0; 6])),
        headers: vec![],
    });
    placed(builder, producer_id, offset, MARKER)
}

fn placed(builder: BatchBuilder, producer_id: i64, offset: i64, attributes: u8) -> Batch {
    let batch = builder
        .build(Stamp {
            producer_id,
            producer_epoch: 0,
            base_sequence: 0,
        })
        .unwrap();
    let mut bytes = BytesMut::from(&batch[..]);
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    bytes[22] = attributes;
    sealed(bytes)
}

/// As the cleaner leaves it: the header stays, no record does.
fn emptied(batch: &Batch) -> Batch {
    let mut bytes = BytesMut::from(&batch.bytes[..61]);
    bytes[8..12].copy_from_slice(&49i32.to_be_bytes());
    bytes[57..61].copy_from_slice(&[0; 4]);
    sealed(bytes)
}

fn sealed(mut bytes: BytesMut) -> Batch {
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Batch::parse(bytes.freeze()).unwrap()
}

fn verdicts(aborted: &[(i64, i64)], isolation: Isolation, batches: &[Batch]) -> Vec<Verdict> {
    let aborted: Vec<_> = aborted
        .iter()
        .map(|&(producer_id, first_offset)| AbortedTxn {
            producer_id,
            first_offset,
        })
        .collect();
    let mut judge = Judge::new(&aborted, isolation);
    batches
        .iter()
        .map(|batch| judge.judge(&batch.header, batch))
        .collect()
}

use Isolation::{ReadCommitted, ReadUncommitted};
use Verdict::{Aborted, Control, Empty, Forward};

#[test]
fn aborted_data_is_left_out_until_its_marker() {
    let log = [
        data(1, 0, 5, TRANSACTIONAL), // committed
        marker(1, 5, 1),
        data(1, 6, 2, TRANSACTIONAL), // aborted
        data(2, 8, 2, TRANSACTIONAL), // committed, in between
        data(1, 10, 1, 0),            // not transactional, though of the same producer
        data(-1, 11, 1, 0),
        data(1, 12, 1, TRANSACTIONAL),
        marker(1, 13, 0),
        data(1, 14, 1, TRANSACTIONAL), // the next transaction
        marker(2, 15, 1),
    ];
    let expected = [
        Forward, Control, Aborted, Forward, Forward, Forward, Aborted, Control, Forward, Control,
    ];
    assert_eq!(verdicts(&[(1, 6)], ReadCommitted, &log), expected);
    // From the middle of the aborted transaction: the list still names its first offset.
    assert_eq!(verdicts(&[(1, 6)], ReadCommitted, &log[6..]), expected[6..]);
}

#[test]
fn reading_uncommitted_leaves_out_only_what_is_no_data() {
    let log = [
        data(1, 0, 5, TRANSACTIONAL),
        emptied(&data(1, 5, 2, TRANSACTIONAL)),
        marker(1, 7, 0),
        data(2, 8, 1, 0),
    ];
    assert_eq!(
        verdicts(&[(1, 0)], ReadUncommitted, &log),
        [Forward, Empty, Control, Forward]
    );
}

#[test]
fn several_aborted_transactions_in_any_order() {
    let log = [
        data(1, 0, 1, TRANSACTIONAL),
        data(2, 1, 1, TRANSACTIONAL),
        marker(1, 2, 0),
        data(1, 3, 1, TRANSACTIONAL),
        marker(2, 4, 0),
        marker(1, 5, 1),
        data(1, 6, 1, TRANSACTIONAL),
        data(2, 7, 1, TRANSACTIONAL),
        marker(1, 8, 0),
    ];
    let expected = [
        Aborted, Aborted, Control, Forward, Control, Control, Aborted, Forward, Control,
    ];
    assert_eq!(
        verdicts(&[(1, 6), (2, 1), (1, 0)], ReadCommitted, &log),
        expected
    );
}

#[test]
fn a_marker_that_was_emptied_or_damaged_ends_the_transaction_too() {
    let mut damaged = BytesMut::from(&marker(1, 5, 0).bytes[..]);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let damaged = Batch::parse(damaged.freeze()).unwrap();
    for end in [emptied(&marker(1, 5, 0)), damaged] {
        let log = [
            data(1, 0, 1, TRANSACTIONAL),
            end,
            data(1, 6, 1, TRANSACTIONAL),
        ];
        assert_eq!(
            verdicts(&[(1, 0)], ReadCommitted, &log),
            [Aborted, Control, Forward]
        );
    }
    // One of another kind is no marker.
    let log = [
        data(1, 0, 1, TRANSACTIONAL),
        marker(1, 5, 2),
        data(1, 6, 1, TRANSACTIONAL),
    ];
    assert_eq!(
        verdicts(&[(1, 0)], ReadCommitted, &log),
        [Aborted, Control, Aborted]
    );
}

#[test]
fn an_emptied_batch_of_an_aborted_transaction_is_empty() {
    let log = [
        emptied(&data(1, 0, 3, TRANSACTIONAL)),
        data(1, 3, 1, TRANSACTIONAL),
    ];
    assert_eq!(verdicts(&[(1, 0)], ReadCommitted, &log), [Empty, Aborted]);
}
