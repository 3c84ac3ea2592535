use strait_wire::{Isolation, Losses};

use super::*;
use crate::two_clusters::TwoClusters;

fn position(kind: SyncKind, source: i64, target: i64, forwarded: i64) -> KnownPosition {
    KnownPosition::Strait(Box::new(Position {
        kind,
        isolation: Isolation::ReadCommitted,
        flags: PositionFlags::default(),
        source_next: source,
        target_next: target,
        forwarded,
        producer_id: 1,
        producer_epoch: 0,
        next_sequence: 0,
        source_epoch: 0,
        source_topic_id: Default::default(),
        target_topic_id: Default::default(),
        target_partition: 0,
        wall_ms: 0,
        target_topic: "a.t".to_owned(),
        link: "a->b".to_owned(),
        gaps: Vec::new(),
        lost: Losses::default(),
    }))
}

fn flow() -> FlowKey {
    FlowKey {
        topic: "t".to_owned(),
        partition: 0,
    }
}

fn history(positions: Vec<KnownPosition>) -> History {
    let mut flows = BTreeMap::new();
    for known in positions {
        follow(&mut flows, "a->b", flow(), known);
    }
    flows.remove(&flow()).unwrap()
}

use SyncKind::{Periodic, Rebase};

#[test]
fn a_restart_still_knows_what_was_kept() {
    // The tail has recent positions only.
    let mut history = history(vec![
        position(Periodic, 1_100, 1_000, 1_000),
        position(Periodic, 1_200, 1_100, 1_100),
    ]);
    assert_eq!(history.ladder.find(50), Found::Unknown);
    history.restore(&vec![(1_150, 1_050, 1_050), (600, 500, 500), (100, 0, 0)]);
    assert_eq!(history.ladder.find(50), Found::Exact(0));
    assert_eq!(history.ladder.find(350), Found::Exact(250));
    assert_eq!(history.ladder.find(1_110), Found::Exact(1_010));
}

#[test]
fn a_rebase_ends_what_was_known_before() {
    let mut rebased = history(vec![
        position(Periodic, 500, 500, 500),
        position(Rebase, 100, 501, 500),
        position(Periodic, 200, 601, 600),
    ]);
    assert_eq!(rebased.ladder.find(150), Found::Exact(551));
    assert_eq!(rebased.ladder.find(50), Found::Unknown);
    // Kept by somebody who had not seen it.
    rebased.restore(&vec![(90, 90, 90), (0, 0, 0)]);
    assert_eq!(rebased.ladder.find(50), Found::Unknown);
}

/// Records of others may stand on the target between two positions, also where nobody may write there any more.
#[test]
fn positions_of_a_shared_target_bound_nothing() {
    let shared = |source, target, forwarded| {
        let mut known = position(Periodic, source, target, forwarded);
        if let KnownPosition::Strait(position) = &mut known {
            position.flags = PositionFlags::SHARED;
        }
        known
    };
    let positions = [
        position(Periodic, 100, 100, 100),
        shared(200, 250, 200),
        shared(300, 360, 300),
        position(SyncKind::Session, 300, 370, 300),
        position(Periodic, 400, 475, 400),
    ];
    let mut known = history(positions.to_vec());
    let open = [150, 200, 250, 299].map(|offset| known.ladder.find(offset));
    assert_eq!(open, [Found::Unknown; 4]);
    assert_eq!(known.ladder.find(300), Found::Exact(370));
    let counted = interval((300, 370, 300), (400, 475, 400));
    assert_eq!(known.ladder.find(350), Found::Between(counted));
    assert!(!known.uncountable(&counted));
    // Kept before others began to write.
    known.restore(&vec![(90, 90, 90), (0, 0, 0)]);
    assert_eq!(known.ladder.find(250), Found::Unknown);
    let mut open = history(positions[2..3].to_vec());
    open.restore(&vec![(90, 90, 90), (0, 0, 0)]);
    assert_eq!(open.ladder.find(250), Found::Unknown);
    assert!(open.uncountable(&counted));
}

#[test]
fn another_writer_of_positions_ends_it() {
    let mut flows = BTreeMap::new();
    follow(&mut flows, "a->b", flow(), position(Periodic, 5, 5, 5));
    follow(&mut flows, "a->b", flow(), KnownPosition::MirrorMaker2);
    assert!(flows.is_empty());
}

fn translator() -> Translator {
    let clusters = TwoClusters::new();
    Translator::new(&clusters.rt, "a->b", clusters.here, clusters.there)
}

/// Groups may read through very many partitions of which compaction has left too little to know offsets exactly.
#[tokio::test]
async fn what_was_counted_to_no_end_is_bounded_over_all_flows() {
    let mut translator = translator();
    for partition in 0..150 {
        let flow = FlowKey {
            topic: "t".to_owned(),
            partition,
        };
        let known = position(Periodic, 10, 10, 10);
        follow(&mut translator.flows, "a->b", flow.clone(), known);
        let answers = (0..TRIED.0 as i64).map(|at| Answer::Placed(at, at));
        translator.learn(Done {
            flow,
            answers: answers.collect(),
            begun: None,
        });
    }
    let all: usize = translator.flows.values().map(|h| h.tried.len()).sum();
    assert!(all <= TRIED.1 + 150 * FEW, "{all}");
    // Whoever comes later has some too.
    assert!(translator.flows.values().all(|h| h.tried.len() >= FEW));
}

/// With more flows than are kept at once none may wait for ever.
#[tokio::test]
async fn every_ladder_is_kept_in_its_turn() {
    let mut translator = translator();
    let written = |translator: &mut Translator, at: i64| {
        for partition in 0..120 {
            let flow = FlowKey {
                topic: "t".to_owned(),
                partition,
            };
            let known = position(Periodic, at, at, at);
            follow(&mut translator.flows, "a->b", flow, known);
        }
    };
    written(&mut translator, 10);
    let mut seen = BTreeSet::new();
    for round in 1..4 {
        let (kept, all) = translator.to_keep(50);
        seen.extend(kept.iter().filter_map(|record| match record {
            RegistryRecord::Ladder { partition, .. } => Some(*partition),
            _ => None,
        }));
        assert_eq!((seen.len(), all), ((50 * round).min(120), round == 3));
        // All of them go on meanwhile.
        written(&mut translator, 10 + round as i64);
    }
}

fn interval(below: (i64, i64, i64), above: (i64, i64, i64)) -> Interval {
    let rung = |(source, target, forwarded)| Rung {
        source,
        target,
        forwarded,
    };
    Interval {
        below: rung(below),
        above: rung(above),
    }
}

/// The source has them still: counted, they would lead too far.
#[test]
fn records_that_were_not_forwarded_keep_an_interval_from_being_counted() {
    let mut known = history(vec![
        position(Periodic, 0, 0, 0),
        position(Periodic, 200, 150, 150),
    ]);
    let here = interval((100, 90, 90), (200, 150, 150));
    assert!(!known.uncountable(&here));
    known.position.lost.add(GapReason::Refused, 40, 50);
    known.position.gaps = vec![(GapReason::Control, 40), (GapReason::Refused, 10)];
    assert!(!known.uncountable(&here), "it lies below");
    known.position.gaps = vec![(GapReason::Refused, 11)];
    assert!(known.uncountable(&here), "one more is listed nowhere");
    known.position.lost.add(GapReason::Refused, 199, 200);
    assert!(known.uncountable(&here));
    known.position.lost = Losses::default();
    known.position.gaps = vec![(GapReason::OtherLink, 1)];
    assert!(known.uncountable(&here));
    known.position.gaps.clear();
    known.position.flags = PositionFlags::PROVENANCE;
    assert!(known.uncountable(&here));
    // What is at least right then: the offsets above are no more than so many records.
    assert_eq!(here.at_least(180), 40);
}
