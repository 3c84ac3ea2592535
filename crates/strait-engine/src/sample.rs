//! Sample batches of a source or a target, for the tests of the pure machines.

use strait_testkit::KitRecord;
use strait_testkit::records::{BatchSpec, CONTROL, TRANSACTIONAL, marker_record};
use strait_wire::{
    Batch, BatchHeader, FetchedPartition, GapReason, Isolation, Losses, Position, PositionFlags,
    SyncKind, TopicRef,
};
use uuid::Uuid;

use crate::stitch::Outgoing;

/// What a sample batch is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) base: i64,
    pub(crate) count: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) producer: (i64, i16),
    pub(crate) sequence: i32,
}

/// A batch of `count` records from offset `base`, written without a producer id in leader epoch 0.
pub(crate) fn sample(base: i64, count: i64) -> Sample {
    Sample {
        base,
        count,
        leader_epoch: 0,
        producer: (-1, -1),
        sequence: -1,
    }
}

/// A position: source 1000, target 100, the next sequence of producer (7, 3) is 50, source leader epoch 2.
pub(crate) fn position(gaps: Vec<(GapReason, i64)>) -> Position {
    Position {
        kind: SyncKind::Periodic,
        isolation: Isolation::ReadCommitted,
        flags: PositionFlags::default(),
        source_next: 1_000,
        target_next: 100,
        forwarded: 90,
        producer_id: 7,
        producer_epoch: 3,
        next_sequence: 50,
        source_epoch: 2,
        source_topic_id: Uuid::nil(),
        target_topic_id: Uuid::nil(),
        target_partition: 0,
        wall_ms: 0,
        target_topic: "t".to_owned(),
        link: "l".to_owned(),
        gaps,
        lost: Losses::default(),
    }
}

impl Sample {
    pub(crate) fn epoch(self, leader_epoch: i32) -> Self {
        Self {
            leader_epoch,
            ..self
        }
    }

    pub(crate) fn by(self, producer: (i64, i16), sequence: i32) -> Self {
        Self {
            producer,
            sequence,
            ..self
        }
    }

    fn spec(self) -> BatchSpec {
        BatchSpec {
            base_offset: self.base,
            leader_epoch: self.leader_epoch,
            producer_id: self.producer.0,
            producer_epoch: self.producer.1,
            base_sequence: self.sequence,
            ..BatchSpec::default()
        }
    }

    /// The batch; the value of each record is its offset.
    pub(crate) fn batch(self) -> Batch {
        let offsets: Vec<i64> = (self.base..self.base + self.count).collect();
        self.holding(&offsets)
    }

    /// The same as the cleaner left it: only these offsets of it.
    pub(crate) fn holding(self, offsets: &[i64]) -> Batch {
        let records: Vec<KitRecord> = offsets
            .iter()
            .map(|offset| KitRecord {
                offset: *offset,
                ..KitRecord::new(1_000 + offset, None, Some(offset.to_string().as_bytes()))
            })
            .collect();
        let spec = BatchSpec {
            last_offset_delta: Some(self.count as i32 - 1),
            ..self.spec()
        };
        whole(spec.build_at(&records).unwrap())
    }

    /// A transaction marker at `base`.
    pub(crate) fn marker(self, commit: bool) -> Batch {
        let spec = BatchSpec {
            flags: TRANSACTIONAL | CONTROL,
            ..self.spec()
        };
        whole(spec.build(&[marker_record(commit, 0, 1_000)]).unwrap())
    }

    /// Ready to be forwarded.
    pub(crate) fn outgoing(self) -> Outgoing {
        Outgoing {
            batch: self.batch(),
            first: self.base,
            last: self.base + self.count - 1,
            source_epoch: self.leader_epoch,
            original: None,
            alone: false,
            max_decoded: 1 << 20,
        }
    }
}

fn whole(bytes: bytes::Bytes) -> Batch {
    Batch {
        header: BatchHeader::parse(&bytes).unwrap(),
        bytes,
    }
}

/// A fetch's answer that holds these batches.
pub(crate) fn fetched(batches: &[Batch]) -> FetchedPartition {
    let end = batches.last().map_or(0, |b| b.header.last_offset() + 1);
    FetchedPartition {
        topic: TopicRef::Name("t".to_owned()),
        partition: 0,
        error: 0,
        high_watermark: end,
        last_stable_offset: end,
        log_start_offset: 0,
        diverging: None,
        aborted: Vec::new(),
        preferred_replica: -1,
        records: batches
            .iter()
            .flat_map(|b| b.bytes.iter().copied())
            .collect::<Vec<u8>>()
            .into(),
    }
}
