//! Offsets in an interval between two positions: larger than what a round may read, they become exact all the same; and
//! compacted, as exact as what is left allows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use strait_engine::FlowKey;
use strait_net::Runtime;
use strait_testkit::{Broker, Codec, KitProducer, KitRecord};
use strait_wire::{GapReason, Isolation, Losses, Position, PositionFlags, SyncKind, SyncRecord};
use uuid::Uuid;

use super::{Budget, Exactness, Translator};
use crate::two_clusters::TwoClusters;

const TOPIC: &str = "t";
const MIRRORED: &str = "source.t";
const SYNCS: &str = "mm2-offset-syncs.source.internal";
const LINK: &str = "source->target";
/// What a round may read of each side.
const ROUND: u64 = 1 << 20;
const RECORDS: i64 = 6_000;
const RECORD: usize = 2_000;

/// Two clusters, what one has of the other, and two positions: before everything and behind it.
struct Scene {
    rt: Runtime,
    translator: Translator,
    /// Source and target offset of each record that was mirrored, and that the target has still.
    pairs: Vec<(i64, i64)>,
    /// The source's end.
    end: i64,
}

fn record(broker: &Broker, n: i64) -> KitRecord {
    let value = vec![b'x'; RECORD];
    KitRecord::new(
        broker.now_ms(),
        Some(n.to_string().as_bytes()),
        Some(&value),
    )
}

fn write(producer: &mut KitProducer, broker: &Broker, topic: &str, numbers: &[i64]) -> Vec<i64> {
    let mut offsets = Vec::new();
    for some in numbers.chunks(7) {
        let records: Vec<_> = some.iter().map(|n| record(broker, *n)).collect();
        let base = producer.send(topic, 0, Codec::None, &records).unwrap();
        offsets.extend((0..some.len() as i64).map(|n| base + n));
    }
    offsets
}

fn clusters() -> TwoClusters {
    let clusters = TwoClusters::new();
    let (source, target) = (&clusters.source, &clusters.target);
    let compacted = [("cleanup.policy", "compact")];
    source.create_topic(TOPIC, 1, &compacted).unwrap();
    target.create_topic(MIRRORED, 1, &compacted).unwrap();
    target.create_topic(SYNCS, 1, &[]).unwrap();
    clusters
}

impl Scene {
    /// `fences`: markers stand on the target too.
    fn new(fences: bool, compacted: bool) -> Self {
        let clusters = clusters();
        let (source, target) = (clusters.source.clone(), clusters.target.clone());
        let mut here = source.transactional_producer("here").unwrap();
        let mut there = match fences {
            true => target.transactional_producer("there").unwrap(),
            false => target.plain_producer(),
        };
        let mut pairs = Vec::new();
        let mut next = 0;
        for transaction in 0.. {
            if next >= RECORDS {
                break;
            }
            let numbers: Vec<i64> = (next..next + 20).collect();
            next += 20;
            here.begin();
            let from = write(&mut here, &source, TOPIC, &numbers);
            if transaction % 3 == 1 {
                here.abort().unwrap();
                continue;
            }
            here.commit().unwrap();
            there.begin();
            let to = write(&mut there, &target, MIRRORED, &numbers);
            there.commit().unwrap();
            pairs.extend(from.into_iter().zip(to));
        }
        // Behind the last marker of each side.
        let end = write(&mut source.plain_producer(), &source, TOPIC, &[-1])[0];
        let target_end = write(&mut target.plain_producer(), &target, MIRRORED, &[-1])[0];
        let flags = match compacted {
            true => PositionFlags::COMPACTED,
            false => PositionFlags::default(),
        };
        Self::of(clusters, pairs, (end, target_end), flags, 0)
    }

    /// A compacted topic with keys at random, of which some was `gone` before it was mirrored, and the more since: on the
    /// source, or on both sides.
    fn compacted(seed: u64, gone: bool, both_sides: bool) -> (Self, Broker) {
        let clusters = clusters();
        let (source, target) = (clusters.source.clone(), clusters.target.clone());
        let mut random = seed;
        let mut some = |count: usize| {
            let mut producer = source.plain_producer();
            let mut records = Vec::new();
            for n in 0..count {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let key = (random >> 33) % 40;
                let value = format!("{count}/{n}");
                let key = key.to_string();
                let now = source.now_ms();
                records.push(KitRecord::new(
                    now,
                    Some(key.as_bytes()),
                    Some(value.as_bytes()),
                ));
            }
            for batch in records.chunks(7) {
                producer.send(TOPIC, 0, Codec::None, batch).unwrap();
            }
        };
        some(300);
        if gone {
            source.compact(TOPIC);
        }
        some(100);
        let mut records = source.records(TOPIC, 0, true);
        let end = records.pop().unwrap().offset;
        let mut there = target.plain_producer();
        let mut pairs = Vec::new();
        for batch in records.chunks(11) {
            let base = there.send(MIRRORED, 0, Codec::None, batch).unwrap();
            pairs.extend(batch.iter().map(|r| r.offset).zip(base..));
        }
        let (target_end, holes) = (pairs.len() as i64, end - pairs.len() as i64);
        let mut scene = Self::of(
            clusters,
            pairs,
            (end, target_end),
            PositionFlags::COMPACTED,
            holes,
        );
        some(150);
        source.compact(TOPIC);
        if both_sides {
            target.compact(MIRRORED);
            let left = target.records(MIRRORED, 0, true);
            let left: BTreeSet<i64> = left.iter().map(|record| record.offset).collect();
            scene.pairs.retain(|(_, there)| left.contains(there));
        }
        (scene, source)
    }

    fn of(
        clusters: TwoClusters,
        pairs: Vec<(i64, i64)>,
        (end, target_end): (i64, i64),
        flags: PositionFlags,
        holes: i64,
    ) -> Self {
        let target = &clusters.target;
        let mut syncs = target.plain_producer();
        for (kind, s, t, f) in [
            (SyncKind::Session, 0, 0, 0),
            (SyncKind::Periodic, end, target_end, pairs.len() as i64),
        ] {
            let position = Position {
                kind,
                isolation: Isolation::ReadCommitted,
                flags,
                source_next: s,
                target_next: t,
                forwarded: f,
                producer_id: 1,
                producer_epoch: 0,
                next_sequence: 0,
                source_epoch: 0,
                source_topic_id: Uuid::nil(),
                target_topic_id: Uuid::nil(),
                target_partition: 0,
                wall_ms: target.now_ms(),
                target_topic: MIRRORED.to_owned(),
                link: LINK.to_owned(),
                gaps: vec![(GapReason::Compacted, if s > 0 { holes } else { 0 })],
                lost: Losses::default(),
            };
            let sync = SyncRecord {
                topic: TOPIC.to_owned(),
                partition: 0,
                upstream: s - 1,
                downstream: t - 1,
                position: Some(position),
            };
            let sync = sync.to_record(target.now_ms());
            let mut record =
                KitRecord::new(sync.timestamp, sync.key.as_deref(), sync.value.as_deref());
            record.headers = sync.headers;
            syncs.send(SYNCS, 0, Codec::None, &[record]).unwrap();
        }
        let TwoClusters {
            rt, here, there, ..
        } = clusters;
        Self {
            translator: Translator::new(&rt, LINK, here, there),
            rt,
            pairs,
            end,
        }
    }

    /// Whether an offset is known exactly; it never lies too far, and an exact one is right.
    fn known(&mut self, offset: i64) -> bool {
        let known = self.translator.known(&flow(), offset).unwrap();
        let read = self.pairs.partition_point(|(source, _)| *source < offset);
        let skipped = self
            .pairs
            .partition_point(|(_, target)| *target < known.offset);
        assert!(skipped <= read, "{offset}: {known:?} skips");
        let exact = known.exactness == Exactness::Exact;
        assert!(
            !exact || skipped == read,
            "{offset}: {known:?} is no such thing"
        );
        exact
    }

    /// Rounds until all that is wanted then is exact; `wanted` is told how many there were.
    async fn rounds(&mut self, wanted: impl Fn(i64) -> Vec<i64>) -> i64 {
        for round in 0..100 {
            let offsets: BTreeSet<i64> = wanted(round).into_iter().collect();
            self.translator.refresh().await.unwrap();
            let open: Vec<i64> = offsets
                .iter()
                .copied()
                .filter(|o| !self.known(*o))
                .collect();
            if open.is_empty() {
                return round;
            }
            let open = open
                .into_iter()
                .filter(|o| self.translator.countable(&flow(), *o));
            let open: BTreeSet<i64> = open.collect();
            let budget = Arc::new(Budget::new(&self.rt, ROUND, Duration::from_secs(5)));
            self.translator.count([(flow(), open)], &budget).await;
        }
        panic!("never exact");
    }
}

fn flow() -> FlowKey {
    FlowKey {
        topic: TOPIC.to_owned(),
        partition: 0,
    }
}

/// Rounds that it takes to read a side once: first the source, then the target.
const ALL: i64 = RECORDS * RECORD as i64 / ROUND as i64 + 2;

#[tokio::test(start_paused = true)]
async fn offsets_between_fences_become_exact_after_some_rounds() {
    for compacted in [false, true] {
        let mut scene = Scene::new(true, compacted);
        let (end, far) = (scene.end, |end: i64| end * 9 / 10 + 3);
        let rounds = scene.rounds(|_| vec![far(end)]).await;
        assert!(
            (3..=2 * ALL).contains(&rounds),
            "compacted {compacted}: {rounds}"
        );
        // Several, some of them below what was counted.
        let mut scene = Scene::new(true, compacted);
        let several = |_| vec![end / 10, end / 2 + 11, end / 2 + 12, far(end)];
        let rounds = scene.rounds(several).await;
        assert!(
            (3..=2 * ALL).contains(&rounds),
            "compacted {compacted}: {rounds}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_without_fences_become_exact_from_below_and_from_above() {
    let mut scene = Scene::new(false, false);
    let end = scene.end;
    let rounds = scene.rounds(|_| vec![end * 6 / 10]).await;
    assert!((3..=2 * ALL).contains(&rounds), "{rounds}");
    let mut scene = Scene::new(false, false);
    let rounds = scene.rounds(|_| vec![end * 85 / 100]).await;
    assert!((2..=4).contains(&rounds), "a part is read: {rounds}");
}

/// A group that reads on meanwhile keeps nothing from becoming known.
#[tokio::test(start_paused = true)]
async fn a_group_that_moves_is_caught_up_with() {
    for fences in [false, true] {
        let mut scene = Scene::new(fences, false);
        let end = scene.end;
        let wanted = |round: i64| vec![(end / 2 + round * 5).min(end)];
        let mut exact = 0;
        for round in 0..2 * ALL {
            let offset = wanted(round)[0];
            scene.translator.refresh().await.unwrap();
            if scene.translator.countable(&flow(), offset) {
                let budget = Arc::new(Budget::new(&scene.rt, ROUND, Duration::from_secs(5)));
                let open = BTreeSet::from([offset]);
                scene.translator.count([(flow(), open)], &budget).await;
            }
            exact += i64::from(scene.known(offset));
        }
        assert!(exact > ALL / 2, "fences {fences}: {exact} of {}", 2 * ALL);
    }
}

/// A batch that was compacted before it was mirrored tells nothing of the records that are gone: they were not mirrored.
#[tokio::test(start_paused = true)]
async fn what_is_left_of_batches_tells_how_much_of_them_was_mirrored() {
    let (mut exact, mut asked) = ([0, 0], [0, 0]);
    for seed in 1..40 {
        for (gone, both_sides) in [(false, false), (false, true), (true, false), (true, true)] {
            let (mut scene, source) = Scene::compacted(seed, gone, both_sides);
            let left = source.records(TOPIC, 0, true).len();
            assert!(left < 100, "{left}");
            scene.translator.refresh().await.unwrap();
            let offsets: BTreeSet<i64> = (0..scene.end).collect();
            let budget = Arc::new(Budget::new(&scene.rt, ROUND, Duration::from_secs(5)));
            scene.translator.count([(flow(), offsets)], &budget).await;
            let known = (0..scene.end).filter(|offset| scene.known(*offset));
            exact[usize::from(gone)] += known.count();
            asked[usize::from(gone)] += scene.end as usize;
        }
    }
    assert!(
        exact[0] == asked[0] && exact[1] > 0,
        "{exact:?} of {asked:?}"
    );
}
