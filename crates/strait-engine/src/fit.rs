//! What the target takes: batches that are too large are split, and records that it refused are left out.
//!
//! Pure, between the stitch and the writer's queue: before anything has a sequence.

use strait_wire::{Batch, BatchBuilder, GapReason, Record, Stamp, WireError, split};

use crate::stitch::{Item, Original, Outgoing};

/// The batch as one or more items that the target takes. No piece but a single record is larger than `limit` bytes;
/// source offsets in `refused`, half-open ranges in order, become gaps.
///
/// # Errors
/// The batch has to be decoded and cannot be.
pub fn fit(
    outgoing: Outgoing,
    limit: usize,
    refused: &[(i64, i64)],
) -> Result<Vec<Item>, WireError> {
    let touched = |&(from, to): &(i64, i64)| from <= outgoing.last && outgoing.first < to;
    let whole = outgoing.count() <= 1 || outgoing.size() <= limit;
    if whole && !refused.iter().any(touched) {
        return Ok(vec![Item::Batch(outgoing)]);
    }
    let mut items = Vec::new();
    let dense = outgoing.last - outgoing.first + 1 == i64::from(outgoing.count());
    if dense && !refused.iter().any(touched) {
        let offsets: Vec<i64> = (outgoing.first..=outgoing.last).collect();
        let (batch, range) = (outgoing.batch.clone(), (outgoing.first, outgoing.last + 1));
        cut(&outgoing, batch, &offsets, range, limit, &mut items)?;
        return Ok(items);
    }
    let records = outgoing.records()?;
    let is_refused = |offset: i64| {
        refused
            .iter()
            .any(|&(from, to)| (from..to).contains(&offset))
    };
    let mut from = outgoing.first;
    for run in records.chunk_by(|a, b| is_refused(a.offset) == is_refused(b.offset)) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            continue;
        };
        if is_refused(first.offset) {
            gap(
                &mut items,
                &outgoing,
                GapReason::Compacted,
                from,
                first.offset,
            );
            from = last.offset + 1;
            gap(
                &mut items,
                &outgoing,
                GapReason::Refused,
                first.offset,
                from,
            );
        } else {
            // Offsets without a record behind the last one belong to it, as in a batch with holes.
            let behind = records.iter().find(|record| record.offset > last.offset);
            let to = behind.map_or(outgoing.last + 1, |record| record.offset);
            pack(&outgoing, run, (from, to), limit, &mut items)?;
            from = to;
        }
    }
    gap(
        &mut items,
        &outgoing,
        GapReason::Compacted,
        from,
        outgoing.last + 1,
    );
    Ok(items)
}

fn gap(items: &mut Vec<Item>, outgoing: &Outgoing, reason: GapReason, from: i64, to: i64) {
    if from < to {
        items.push(Item::Gap {
            reason,
            from,
            to,
            source_epoch: outgoing.source_epoch,
        });
    }
}

/// Packs records that account for source offsets `[from, to)`, in as many batches as it takes.
fn pack(
    outgoing: &Outgoing,
    records: &[Record],
    (from, to): (i64, i64),
    limit: usize,
    items: &mut Vec<Item>,
) -> Result<(), WireError> {
    let header = &outgoing.batch.header;
    let mut builder = BatchBuilder::with_room(header.attributes.codec()?, records);
    for record in records {
        builder.push(record.clone());
    }
    let first = records.first().map_or(from, |record| record.offset);
    let batch = builder.build_at(first, header.leader_epoch, Stamp::NONE)?;
    let offsets: Vec<i64> = records.iter().map(|record| record.offset).collect();
    cut(outgoing, batch, &offsets, (from, to), limit, items)
}

/// Cuts a batch whose records have these offsets in the source, and which accounts for `[from, to)` there.
fn cut(
    outgoing: &Outgoing,
    batch: Batch,
    offsets: &[i64],
    (mut from, to): (i64, i64),
    limit: usize,
    items: &mut Vec<Item>,
) -> Result<(), WireError> {
    let pieces = if batch.header.count <= 1 || batch.bytes.len() <= limit {
        vec![batch]
    } else {
        split(&batch, limit, outgoing.max_decoded)?
    };
    let original = || Original::Batch(Box::new(outgoing.batch.clone()));
    let mut behind = 0;
    for batch in pieces {
        behind += usize::try_from(batch.header.count).unwrap_or(0);
        // Offsets without a record behind the last one belong to it, as in a batch with holes.
        let next = offsets.get(behind).copied().unwrap_or(to);
        items.push(Item::Batch(Outgoing {
            batch,
            first: from,
            last: next - 1,
            source_epoch: outgoing.source_epoch,
            original: Some(outgoing.original.clone().unwrap_or_else(original)),
            alone: false,
            max_decoded: outgoing.max_decoded,
        }));
        from = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::sample;

    /// Items as (what, first, last).
    fn shape(items: &[Item]) -> Vec<(String, i64, i64)> {
        items
            .iter()
            .map(|item| match item {
                Item::Batch(o) => (format!("{} records", o.count()), o.first, o.last),
                Item::Gap {
                    reason, from, to, ..
                } => (format!("{reason:?}"), *from, to - 1),
            })
            .collect()
    }

    /// Nothing between two items is missing, and the records are those of the batch.
    fn assert_whole(items: &[Item], outgoing: &Outgoing, refused: &[(i64, i64)]) {
        let mut next = outgoing.first;
        let mut offsets = Vec::new();
        for item in items {
            assert_eq!(item.first(), next);
            next = match item {
                Item::Gap { to, .. } => *to,
                Item::Batch(piece) => {
                    assert!(piece.batch.header.is_dense());
                    let sent = piece.batch.decode(1 << 20).unwrap();
                    let meant = piece.records().unwrap();
                    assert_eq!(sent.len(), meant.len());
                    for (sent, meant) in sent.iter().zip(&meant) {
                        assert_eq!(sent.hash(), meant.hash());
                    }
                    offsets.extend(meant.iter().map(|record| record.offset));
                    piece.last + 1
                }
            };
        }
        assert_eq!(next, outgoing.last + 1);
        let mut expected: Vec<i64> = outgoing
            .records()
            .unwrap()
            .iter()
            .map(|record| record.offset)
            .collect();
        expected.retain(|offset| {
            !refused
                .iter()
                .any(|&(from, to)| (from..to).contains(offset))
        });
        assert_eq!(offsets, expected);
    }

    #[test]
    fn a_batch_that_fits_stays_untouched() {
        let outgoing = sample(10, 20).outgoing();
        let before = outgoing.batch.bytes.clone();
        let items = fit(outgoing, 1 << 20, &[(0, 10), (30, 40)]).unwrap();
        let [Item::Batch(same)] = items.as_slice() else {
            panic!("{items:?}")
        };
        assert_eq!(same.batch.bytes.as_ptr(), before.as_ptr());
    }

    #[test]
    fn a_batch_that_is_too_large_is_split_until_every_piece_fits() {
        let outgoing = sample(10, 100).outgoing();
        let limit = 200;
        let items = fit(outgoing.clone(), limit, &[]).unwrap();
        assert!(items.len() > 5);
        for item in &items {
            let Item::Batch(piece) = item else {
                panic!("{item:?}")
            };
            assert!(piece.size() <= limit);
        }
        assert_whole(&items, &outgoing, &[]);
        let single = fit(sample(5, 1).outgoing(), 10, &[]).unwrap();
        assert_eq!(shape(&single), [("1 records".to_owned(), 5, 5)]);
        let alone = fit(sample(5, 4).outgoing(), 0, &[]).unwrap();
        assert_eq!(alone.len(), 4);
    }

    #[test]
    fn refused_records_become_gaps_and_nothing_else_does() {
        let outgoing = sample(10, 10).outgoing();
        let table = [
            (
                vec![(13, 14), (17, 18)],
                vec![
                    ("3 records", 10, 12),
                    ("Refused", 13, 13),
                    ("3 records", 14, 16),
                    ("Refused", 17, 17),
                    ("2 records", 18, 19),
                ],
            ),
            (
                vec![(10, 12)],
                vec![("Refused", 10, 11), ("8 records", 12, 19)],
            ),
            (
                vec![(19, 20)],
                vec![("9 records", 10, 18), ("Refused", 19, 19)],
            ),
            (vec![(10, 20)], vec![("Refused", 10, 19)]),
        ];
        for (refused, expected) in table {
            let items = fit(outgoing.clone(), 1 << 20, &refused).unwrap();
            let expected: Vec<_> = expected
                .iter()
                .map(|&(what, first, last): &(&str, i64, i64)| (what.to_owned(), first, last))
                .collect();
            assert_eq!(shape(&items), expected);
            assert_whole(&items, &outgoing, &refused);
        }
    }

    #[test]
    fn holes_in_a_batch_stay_accounted_for() {
        let cleaned = sample(0, 10).holding(&[2, 5, 7]);
        let outgoing = Outgoing {
            batch: strait_wire::repack(&cleaned, 0, 1 << 20).unwrap(),
            original: Some(Original::Batch(Box::new(cleaned))),
            alone: false,
            max_decoded: 1 << 20,
            first: 0,
            last: 9,
            source_epoch: 0,
        };
        let items = fit(outgoing.clone(), 1 << 20, &[(5, 6)]).unwrap();
        assert_eq!(
            shape(&items),
            [
                ("1 records".to_owned(), 0, 4),
                ("Refused".to_owned(), 5, 5),
                ("1 records".to_owned(), 6, 9),
            ]
        );
        assert_whole(&items, &outgoing, &[(5, 6)]);
        let items = fit(outgoing, 1 << 20, &[(7, 8)]).unwrap();
        assert_eq!(
            shape(&items)[1..],
            [("Refused".to_owned(), 7, 7), ("Compacted".to_owned(), 8, 9),]
        );
    }
}
