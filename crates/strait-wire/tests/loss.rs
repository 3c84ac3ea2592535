//! The ranges of what a flow lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use proptest::prelude::*;
use strait_wire::GapReason::{Aborted, Compacted, Control, Expired, OtherLink, Refused};
use strait_wire::{GapReason, LOST_RANGES, Losses, LostRange};

/// (reason, from, to, offsets) of each range.
fn listed(losses: &Losses) -> Vec<(GapReason, i64, i64, i64)> {
    let four = |r: &LostRange| (r.reason, r.from, r.to, r.offsets);
    losses.ranges().iter().map(four).collect()
}

fn of(ranges: &[(GapReason, i64, i64)]) -> Losses {
    let mut losses = Losses::default();
    for &(reason, from, to) in ranges {
        losses.add(reason, from, to);
    }
    losses
}

#[test]
fn ranges_that_follow_each_other_are_one() {
    let losses = of(&[
        (Refused, 10, 11),
        (Expired, 11, 20),
        (Refused, 12, 13),
        (Refused, 11, 12),
        (Refused, 30, 31),
    ]);
    let expected = [
        (Expired, 11, 20, 9),
        (Refused, 10, 13, 3),
        (Refused, 30, 31, 1),
    ];
    assert_eq!(listed(&losses), expected);
    assert_eq!(losses.ranges()[1].last(), 12);
}

#[test]
fn what_was_lost_in_two_histories_is_listed_twice() {
    let twice = of(&[
        (Expired, 100, 200),
        (Expired, 150, 300),
        (Expired, 100, 200),
    ]);
    let expected = [
        (Expired, 100, 200, 100),
        (Expired, 100, 200, 100),
        (Expired, 150, 300, 150),
    ];
    assert_eq!(listed(&twice), expected);
}

#[test]
fn of_some_it_is_only_known_where_they_lie() {
    let mut losses = of(&[(Expired, 100, 110)]);
    losses.add_among(Expired, 200, 210, 3);
    losses.add_among(Expired, 210, 220, 99);
    losses.add_among(Expired, 300, 310, 0);
    let expected = [(Expired, 100, 110, 10), (Expired, 200, 220, 13)];
    assert_eq!(listed(&losses), expected);
}

#[test]
fn what_was_never_a_record_is_not_listed() {
    let losses = of(&[
        (Control, 1, 2),
        (Aborted, 2, 3),
        (Compacted, 3, 4),
        (OtherLink, 4, 5),
        (Refused, 5, 5),
        (Refused, 7, 6),
    ]);
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_full_list_joins_the_two_that_are_nearest() {
    let mut losses = of(&[(Expired, 0, 5)]);
    // One record in ten is refused; number 20 is nearer to the one before it.
    for i in 1..=LOST_RANGES as i64 {
        let at = i * 10 - if i == 20 { 4 } else { 0 };
        losses.add(Refused, at, at + 1);
    }
    assert_eq!(losses.ranges().len(), LOST_RANGES);
    assert!(listed(&losses).contains(&(Refused, 190, 197, 2)));
    assert_eq!(losses.offsets(Refused), 32);
    assert_eq!(
        listed(&losses)[0],
        (Expired, 0, 5, 5),
        "alone of its reason"
    );
    // The oldest of equals: what was lost last stays exact.
    losses.add(Refused, 330, 331);
    assert_eq!(listed(&losses)[1], (Refused, 10, 21, 2));
    assert_eq!(listed(&losses).last(), Some(&(Refused, 330, 331, 1)));
}

#[test]
fn offsets_at_the_end_of_the_range_do_not_wrap() {
    let losses = of(&[(Expired, i64::MIN, i64::MAX), (Expired, 0, i64::MAX)]);
    assert_eq!(losses.offsets(Expired), i64::MAX);
    assert_eq!(losses.ranges()[0].width(), i64::MAX);
}

fn any_range() -> impl Strategy<Value = (GapReason, i64, i64)> {
    let reasons = proptest::sample::select(GapReason::ALL.to_vec());
    (reasons, 0..400_i64, 1..6_i64).prop_map(|(reason, from, width)| (reason, from, from + width))
}

proptest! {
    #[test]
    fn every_lost_offset_lies_in_a_range(added in proptest::collection::vec(any_range(), 0..120)) {
        let (mut losses, mut sums) = (Losses::default(), [0_i64; 10]);
        for &(reason, from, to) in &added {
            losses.add(reason, from, to);
            sums[reason as usize] += to - from;
            prop_assert!(losses.ranges().len() <= LOST_RANGES);
        }
        for reason in GapReason::ALL {
            let expected = if reason.is_loss() { sums[reason as usize] } else { 0 };
            prop_assert_eq!(losses.offsets(reason), expected);
        }
        for &(reason, from, to) in added.iter().filter(|(reason, ..)| reason.is_loss()) {
            let holds = |r: &&LostRange| r.reason == reason && r.from <= from && to <= r.to;
            prop_assert!(losses.ranges().iter().any(|r| holds(&r)), "{from}..{to} {losses:?}");
        }
        let in_order = |w: &[LostRange]| (w[0].reason, w[0].from) <= (w[1].reason, w[1].from);
        prop_assert!(losses.ranges().windows(2).all(in_order), "{losses:?}");
    }

    /// As the offsets of one history come: apart, in order.
    #[test]
    fn few_ranges_of_one_history_are_exact(
        steps in proptest::collection::vec((1..50_i64, 1..50_i64), 0..=LOST_RANGES)
    ) {
        let (mut losses, mut expected, mut at) = (Losses::default(), Vec::new(), 0);
        for (space, width) in steps {
            losses.add(Refused, at + space, at + space + width);
            expected.push((Refused, at + space, at + space + width, width));
            at += space + width;
        }
        prop_assert_eq!(listed(&losses), expected);
    }

    #[test]
    fn a_list_added_to_another_loses_nothing(
        one in proptest::collection::vec(any_range(), 0..60),
        other in proptest::collection::vec(any_range(), 0..60),
    ) {
        let (mut sum, other) = (of(&one), of(&other));
        let before = sum.clone();
        sum.add_all(&other);
        prop_assert!(sum.ranges().len() <= LOST_RANGES);
        for reason in GapReason::ALL {
            let expected = before.offsets(reason) + other.offsets(reason);
            prop_assert_eq!(sum.offsets(reason), expected);
        }
    }
}
