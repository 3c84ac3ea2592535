//! Leader epochs of one partition: which epoch began at which offset (Kafka's `LeaderEpochFileCache`).

/// Epoch start offsets, ascending in both columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Epochs(Vec<(i32, i64)>);

impl Epochs {
    /// A leader of `epoch` begins at `start`; epochs that began there or later are gone (they hold no records).
    pub(crate) fn assign(&mut self, epoch: i32, start: i64) {
        self.0.retain(|&(e, s)| e < epoch && s < start);
        self.0.push((epoch, start));
    }

    /// The log now ends at `end`.
    pub(crate) fn truncate(&mut self, end: i64) {
        self.0.retain(|&(_, s)| s < end);
    }

    /// The log now starts at `start`: the epoch in force there begins there.
    pub(crate) fn start_moved(&mut self, start: i64) {
        let in_force = self
            .0
            .iter()
            .rev()
            .find(|&&(_, s)| s <= start)
            .map(|&(e, _)| e);
        if let Some(epoch) = in_force {
            self.0.retain(|&(_, s)| s > start);
            self.0.insert(0, (epoch, start));
        }
    }

    /// Epoch in force at `offset`, -1 if unknown.
    pub(crate) fn at(&self, offset: i64) -> i32 {
        self.0
            .iter()
            .rev()
            .find(|&&(_, s)| s <= offset)
            .map_or(-1, |&(e, _)| e)
    }

    /// Largest epoch not above `asked` with its end offset: OffsetForLeaderEpoch's answer, (-1, -1) for an epoch
    /// above the newest.
    pub(crate) fn end_of(&self, asked: i32, log_end: i64) -> (i32, i64) {
        match self.0.last() {
            _ if asked < 0 => (-1, -1),
            Some(&(newest, _)) if newest == asked => (asked, log_end),
            _ => {
                let above = self.0.iter().find(|&&(e, _)| e > asked);
                let below = self.0.iter().rev().find(|&&(e, _)| e <= asked);
                match (above, below) {
                    (None, _) => (-1, -1),
                    (Some(&(_, start)), None) => (asked, start),
                    (Some(&(_, start)), Some(&(epoch, _))) => (epoch, start),
                }
            }
        }
    }
}
