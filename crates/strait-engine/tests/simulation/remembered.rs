//! A position that has to be found by content, behind more than the link's memory budget lets it remember.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::journal::live;
use crate::pair::{Pair, TOPIC};

const SOON: Duration = Duration::from_secs(60);
/// Records that are mirrored before the first position behind them is written.
const UNSYNCED: i64 = 5_000;

/// What is said, and how many records stand twice, with a budget of so many bytes.
fn repeated_with(memory_budget: u64) -> (Vec<String>, usize) {
    live(async |journal| {
        let mut pair = Pair::new(journal, 1, 1, -1);
        pair.memory_budget = memory_budget;
        pair.start();
        pair.write(0, 10);
        let mirrored = |pair: &Pair| Pair::serials(&pair.target, 0).len() as i64 >= pair.serial;
        assert!(pair.holds_within(SOON, mirrored).await);
        tokio::time::sleep(Duration::from_secs(3)).await;
        // A new epoch: how far it was mirrored cannot be counted along the source any more.
        let end = pair.source.log_end(TOPIC, 0);
        pair.source.truncate(TOPIC, 0, end, 20);
        for _ in 0..UNSYNCED / 100 {
            pair.write(0, 100);
        }
        assert!(pair.holds_within(SOON, mirrored).await);
        pair.crash();
        pair.start();
        tokio::time::sleep(SOON).await;
        assert_eq!(pair.told("position found by content").len(), 1);
        let found = Pair::serials(&pair.target, 0);
        let different: BTreeSet<i64> = found.iter().copied().collect();
        assert!(different.iter().copied().eq(0..pair.serial));
        let said = pair.told("an eighth of memory-budget does not hold");
        (said, found.len() - different.len())
    })
}

/// 16 bytes for each record: of 512 KiB one flow remembers 4,096, of 1 MiB 8,192.
#[test]
fn what_was_forwarded_beyond_an_eighth_of_the_budget_is_repeated_and_told() {
    let (said, repeated) = repeated_with(512 << 10);
    let remembered = (512 << 10) / 8 / 16;
    assert_eq!(repeated as i64, UNSYNCED - remembered);
    let text = format!("at most {repeated} records are repeated");
    assert!(
        said.len() == 1 && said[0].contains("source-changed") && said[0].contains(&text),
        "{said:?}"
    );
    assert_eq!(repeated_with(1 << 20), (Vec::new(), 0));
}
