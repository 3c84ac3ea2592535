//! The memory in which positions are found by content: a share of the link's budget, for all of its flows together.

use strait_net::{Charge, Pool, Runtime};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::limits;

/// Gives flows room to remember what their target holds.
pub(crate) struct MatchMemory {
    rt: Runtime,
    /// The link's account: what is remembered counts there, so that less is fetched meanwhile.
    pool: Pool,
    budget: usize,
    /// Records that one flow may remember: half of what all may together, so that a large one leaves room for others.
    records: u32,
    free: Semaphore,
}

/// Room for the hashes of so many records, until it is dropped.
pub(crate) struct Room<'a> {
    pub(crate) records: usize,
    _records: Option<SemaphorePermit<'a>>,
    _charge: Charge,
}

impl MatchMemory {
    pub(crate) fn new(rt: Runtime, pool: Pool, budget: usize) -> Self {
        let records = (budget / limits::MATCH_SHARE / size_of::<u128>())
            .clamp(limits::MATCH_LEAST_RECORDS, Semaphore::MAX_PERMITS);
        let records = u32::try_from(records).unwrap_or(u32::MAX);
        Self {
            rt,
            pool,
            budget,
            records: records / 2,
            free: Semaphore::new(records as usize),
        }
    }

    /// Counts what else has to be known for it, up to the same share of the budget: no more may be waited for.
    pub(crate) fn charge(&self, bytes: usize) -> Charge {
        self.pool
            .charge(bytes.min(self.budget / limits::MATCH_SHARE))
    }

    /// Room for `wanted` records, or for as many as there can be. Waits for those that came before, and until the link
    /// holds no more than its budget together with it: the target takes what is in flight, and nothing new is fetched.
    pub(crate) async fn room(&self, wanted: i64) -> Room<'_> {
        // Each also decodes batches, so many small ones are no cheap ones.
        let least = self.records / (limits::MATCHING_FLOWS / 2);
        let records = u32::try_from(wanted).map_or(self.records, |w| w.clamp(least, self.records));
        let turn = self.free.acquire_many(records).await;
        let bytes = records as usize * size_of::<u128>();
        let charge = self.charge(bytes);
        while self.pool.held() > self.budget {
            self.rt.sleep(limits::EMPTY_PAUSE).await;
        }
        Room {
            records: records as usize,
            _records: turn.ok(),
            _charge: charge,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    const BUDGET: usize = 16 << 20;

    fn memory(pool: &Pool) -> MatchMemory {
        MatchMemory::new(Runtime::system(), pool.clone(), BUDGET)
    }

    /// The room, where it can be had at once.
    fn at_once(memory: &MatchMemory, wanted: i64) -> Option<Room<'_>> {
        match polled(pin!(memory.room(wanted))) {
            Poll::Ready(room) => Some(room),
            Poll::Pending => None,
        }
    }

    #[test]
    fn all_flows_together_remember_no_more_than_a_quarter_of_the_budget() {
        let pool = Pool::new(0, BUDGET);
        let memory = memory(&pool);
        let most = BUDGET / 4;
        let large = at_once(&memory, i64::MAX).unwrap();
        assert_eq!((large.records * 16, pool.held()), (most / 2, most / 2));
        let other = at_once(&memory, i64::MAX).expect("a large one leaves as much to another");
        assert_eq!(pool.held(), most);
        assert!(at_once(&memory, 1).is_none(), "all of it is in use");
        drop((large, other));
        let rooms: Vec<_> = std::iter::from_fn(|| at_once(&memory, 1)).collect();
        assert_eq!((rooms.len(), pool.held()), (4, most));
        drop(rooms);
        assert_eq!(pool.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_link_holds_already_is_waited_for() {
        let pool = Pool::new(0, BUDGET);
        let memory = memory(&pool);
        let held = pool.charge(BUDGET - (1 << 20));
        let mut waiting = pin!(memory.room(i64::MAX));
        assert!(polled(waiting.as_mut()).is_pending());
        assert!(pool.held() > BUDGET, "nothing new is fetched");
        drop(held);
        waiting.await;
    }

    fn polled<F: Future>(waiting: Pin<&mut F>) -> Poll<F::Output> {
        waiting.poll(&mut Context::from_waker(Waker::noop()))
    }
}
