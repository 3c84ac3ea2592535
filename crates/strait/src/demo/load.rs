//! Writes while the mirror runs: at a steady pace, up to a mark that is moved ahead kill by kill.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use strait_net::Runtime;
use strait_testkit::KitError;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::shop::Shop;

/// What to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Batches in all.
    pub(crate) batches: usize,
    /// The time between two of them.
    pub(crate) interval: Duration,
    /// Records in the largest.
    pub(crate) largest: usize,
}

/// A task that writes. Dropping the handle stops it.
pub(crate) struct Load {
    written: Arc<AtomicUsize>,
    mark: watch::Sender<usize>,
    task: JoinHandle<Result<Shop, KitError>>,
}

impl Load {
    /// Starts to write, up to `mark` batches at first.
    pub(crate) fn start(rt: &Runtime, mut shop: Shop, pace: Pace, mark: usize) -> Self {
        let (mark, mut marked) = watch::channel(mark);
        let written = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&written);
        let clock = rt.clone();
        let task = rt.spawn(async move {
            let mut due = clock.now();
            for batch in 0..pace.batches {
                if *marked.borrow() <= batch {
                    if marked.wait_for(|mark| *mark > batch).await.is_err() {
                        break;
                    }
                    due = clock.now();
                }
                clock.sleep_until(due).await;
                due += pace.interval;
                shop.write(pace.largest, 0)?;
                count.store(batch + 1, Ordering::Relaxed);
                // Making a batch takes a while, and the brokers have work on these threads too.
                tokio::task::yield_now().await;
            }
            shop.finish()?;
            Ok(shop)
        });
        Self {
            written,
            mark,
            task,
        }
    }

    /// Batches written so far.
    pub(crate) fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// Lets it write up to `mark` batches, unless it may write more already.
    pub(crate) fn go_on_to(&self, mark: usize) {
        self.mark.send_if_modified(|now| {
            let less = *now < mark;
            *now = mark.max(*now);
            less
        });
    }

    /// Whether everything is written (or writing failed): [`Load::finish`] then answers at once.
    pub(crate) fn is_done(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until everything is written. None if the task was lost.
    pub(crate) async fn finish(mut self) -> Option<Result<Shop, KitError>> {
        (&mut self.task).await.ok()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}
