//! How long a stretch is read that a broker says is there: progress gives new time, an answer that brings nothing
//! costs a pause, and at the end there is an error instead of one more request.

use std::time::Duration;

use strait_net::Runtime;
use tokio::time::Instant;

use crate::limits;

/// A reader's patience with one log.
#[derive(Debug)]
pub(crate) struct Patience {
    rt: Runtime,
    lasts: Duration,
    until: Instant,
    asked: Instant,
    reached: i64,
}

impl Patience {
    /// Reading begins at offset `from`, and ends after `lasts` without progress.
    pub(crate) fn new(rt: &Runtime, lasts: Duration, from: i64) -> Self {
        let now = rt.now();
        Self {
            rt: rt.clone(),
            lasts,
            until: now + lasts,
            asked: now,
            reached: from,
        }
    }

    /// An answer was read up to offset `next`. Whether to ask again, which is waited for where the answer brought nothing
    /// and came at once; what lies below an offset that was reached before is no progress.
    pub(crate) async fn asks_again(&mut self, next: i64) -> bool {
        let now = self.rt.now();
        if next > self.reached {
            self.reached = next;
            self.until = now + self.lasts;
        } else if now >= self.until {
            return false;
        } else {
            self.rt.sleep_until(self.asked + limits::EMPTY_PAUSE).await;
        }
        self.asked = self.rt.now();
        true
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Virtual time.
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn progress_gives_new_time() {
        let rt = Runtime::system();
        let (mut patience, began) = (Patience::new(&rt, LASTS, 100), rt.now());
        for next in 101..200 {
            tokio::time::sleep(LASTS / 2).await;
            assert!(patience.asks_again(next).await);
        }
        assert_eq!(rt.now() - began, LASTS / 2 * 99, "and costs no pause");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_bring_nothing_are_paced_and_come_to_an_end() {
        let rt = Runtime::system();
        let (mut patience, began) = (Patience::new(&rt, LASTS, 100), rt.now());
        let mut asked = 0;
        // Back and forth is no progress either.
        while patience.asks_again([100, 50, 99][asked % 3]).await {
            asked += 1;
        }
        assert_eq!(rt.now() - began, LASTS);
        assert_eq!(
            asked as u128,
            LASTS.as_millis() / limits::EMPTY_PAUSE.as_millis()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_held_the_request_is_asked_again_at_once() {
        let rt = Runtime::system();
        let mut patience = Patience::new(&rt, LASTS, 100);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let answered = rt.now();
        assert!(patience.asks_again(100).await);
        assert_eq!(rt.now(), answered);
    }
}
