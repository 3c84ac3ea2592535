//! A stretch of one partition, as a consumer of the reader's isolation sees it.

use std::time::Duration;

use crate::error::FlowError;
use crate::partition::PartitionReader;
use crate::stitch::{Item, Outgoing, Stitch, StitchError};
use crate::transfer::readable_end;

impl PartitionReader {
    /// Gives the batches of `[from, to)` in order to `each`, until it answers false or nothing more can be read. Returns the
    /// offset that was reached.
    ///
    /// # Errors
    /// What the partition answers, `from` outside of its log included; bytes that are no records.
    pub(crate) async fn each_batch(
        &self,
        from: i64,
        to: i64,
        max_decoded: usize,
        mut each: impl FnMut(&Outgoing) -> Result<bool, FlowError>,
    ) -> Result<i64, FlowError> {
        // Holes are counted by nobody here.
        let mut stitch = Stitch::new(from, -1, true, self.isolation, max_decoded);
        let mut patience = self.patience(from);
        while stitch.head() < to {
            let fetched = self.fetch(stitch.head(), -1, Duration::ZERO).await?;
            if fetched.part.error != 0 {
                return Err(self.answered(fetched.part.error, stitch.head()));
            }
            let mut items = Vec::new();
            match stitch.admit(&fetched.part, true, &mut items) {
                // The next answer decides; what came before counts.
                Ok(()) | Err(StitchError::Hole { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            for item in &items {
                if let Item::Batch(outgoing) = item
                    && outgoing.first < to
                    && !each(outgoing)?
                {
                    return Ok(outgoing.last + 1);
                }
            }
            let end = readable_end(&fetched.part, self.isolation);
            if items.is_empty() && stitch.head() >= end {
                break;
            }
            if !patience.asks_again(stitch.head()).await {
                return Err(self.nothing_read(stitch.head(), end));
            }
        }
        Ok(stitch.head())
    }
}
