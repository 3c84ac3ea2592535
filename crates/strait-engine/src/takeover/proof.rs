//! Whether two offsets, one on either side, stand for one record.

use strait_wire::Record;

use crate::error::FlowError;
use crate::matching::timeless;
use crate::partition::PartitionReader;
use crate::takeover::comparison::{appended, records};
use crate::takeover::mm2_positions::Pair;

/// Whether the records at these offsets are alike; nothing where one of them is not there any more, or not yet. Where the target
/// stamps records itself their times do not count.
///
/// # Errors
/// A side cannot be read.
pub(crate) async fn same_record(
    source: &PartitionReader,
    target: &PartitionReader,
    (upstream, downstream): Pair,
    max_decoded: usize,
) -> Result<Option<bool>, FlowError> {
    let Some((held, stamped)) = at(target, downstream, max_decoded).await? else {
        return Ok(None);
    };
    let original = at(source, upstream, max_decoded).await?;
    Ok(original.map(|(original, _)| match stamped {
        true => timeless(&original) == timeless(&held),
        false => original.hash() == held.hash(),
    }))
}

/// The record at this offset, and whether the broker stamped it itself.
async fn at(
    reader: &PartitionReader,
    offset: i64,
    max_decoded: usize,
) -> Result<Option<(Record, bool)>, FlowError> {
    if offset < reader.log_start().await? || offset >= reader.offset_at(-1).await? {
        return Ok(None);
    }
    let mut found = None;
    reader
        .each_batch(offset, offset + 1, max_decoded, |batch| {
            let record = records(batch)?.into_iter().find(|r| r.offset == offset);
            found = record.map(|record| (record, appended(batch)));
            Ok(found.is_none())
        })
        .await?;
    Ok(found)
}
