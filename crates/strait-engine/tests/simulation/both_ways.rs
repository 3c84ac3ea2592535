//! Two links that go both ways under the same names, while applications write on both sides, links die, and their
//! transactional ids are forgotten: both sides end with the same records, each once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use strait_engine::{Link, LinkHandle, LinkSpec, Policies, Policy};
use strait_net::Runtime;
use strait_testkit::records::{BatchSpec, CONTROL};
use strait_testkit::{Broker, BrokerConfig, KitRecord};
use tokio::task::JoinHandle;

use crate::journal::{Journal, live};
use crate::mirror;
use crate::network::{Climate, Network, Weather};
use crate::pair::{Pair, TOPIC};

const SEEDS: u64 = 150;
const STEPS: usize = 60;
/// Virtual time for both sides to become equal: a lease may have to run out, and a link to be opened again.
const REST: Duration = Duration::from_secs(150);
/// Below it are the brokers' own producer ids.
const APPLICATIONS: i64 = 1_000_000;

struct Sides {
    clusters: [Broker; 2],
    links: [Option<(Network, LinkHandle, JoinHandle<()>)>; 2],
    journal: Journal,
    rng: fastrand::Rng,
    start_ms: i64,
    serial: i64,
    producers: i64,
}

impl Sides {
    /// The link that writes to this side.
    fn start(&mut self, to: usize) {
        let [source, target] = [1 - to, to].map(|side| self.clusters[side].clone());
        let network = Network::new(
            (source.clone(), target.clone()),
            Arc::<Weather>::default(),
            Climate {
                latency_ms: 5,
                stall_one_in: 0,
                stall_ms: 0,
            },
            self.rng.u64(..),
            self.start_ms,
            Arc::default(),
        );
        let rt = Runtime::simulated(Arc::new(network.clone()), self.rng.u64(..));
        let spec = LinkSpec {
            name: format!("to-{to}"),
            policies: Policies {
                foreign_writer: Policy::GoOn,
                ..Policies::default()
            },
            only_local: true,
            ..mirror::link(&rt, &source, &target, "one")
        };
        let (link, handle) = Link::new(rt, spec);
        let journal = self.journal.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = link.run().await {
                journal.note(&format!("link to {to} ended: id={:?} {error}", error.id()));
            }
        });
        let steering = handle.clone();
        tokio::spawn(async move { steering.set_flows(vec![mirror::flow(TOPIC, 0)]).await });
        self.links[to] = Some((network, handle, task));
    }

    fn crash(&mut self, to: usize) {
        if let Some((network, _, task)) = self.links[to].take() {
            self.journal.note(&format!("link to {to} dies"));
            network.cut(Some(0));
            task.abort();
        }
    }

    /// It ends by itself, with everything answered and its lease closed.
    async fn stop(&mut self, to: usize) {
        if let Some((_, handle, task)) = self.links[to].take() {
            self.journal.note(&format!("link to {to} stops"));
            handle.stop().await;
            task.await.unwrap();
        }
    }

    /// A batch of an application: of a new producer, or of none.
    fn write(&mut self, side: usize) {
        let cluster = &self.clusters[side];
        let count = self.rng.i64(1..20);
        let now = cluster.now_ms();
        let records: Vec<KitRecord> = (self.serial..self.serial + count)
            .map(|serial| KitRecord::new(now, None, Some(serial.to_string().as_bytes())))
            .collect();
        self.serial += count;
        let mut spec = BatchSpec::default();
        if self.rng.bool() {
            self.producers += 1;
            (spec.producer_id, spec.producer_epoch, spec.base_sequence) =
                (APPLICATIONS + self.producers, 0, 0);
        }
        cluster
            .append(TOPIC, 0, &spec.build(&records).unwrap())
            .unwrap();
    }

    /// Whether both sides hold everything that was written, once.
    fn equal(&self) -> bool {
        self.clusters.iter().all(|cluster| {
            let found = Pair::serials(cluster, 0);
            let distinct: BTreeSet<i64> = found.iter().copied().collect();
            found.len() as i64 == self.serial && distinct.len() == found.len()
        })
    }
}

/// Two sides with nothing on them, and no links.
fn sides(seed: u64, journal: Journal) -> Sides {
    let broker = |name: &str| {
        Broker::new(BrokerConfig {
            nodes: 1,
            seed,
            ..BrokerConfig::simulated(name)
        })
    };
    let clusters = [broker("left"), broker("right")];
    for cluster in &clusters {
        cluster.create_topic(TOPIC, 1, &[]).unwrap();
    }
    Sides {
        start_ms: clusters[0].now_ms(),
        clusters,
        links: [None, None],
        journal,
        rng: fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        serial: 0,
        producers: 0,
    }
}

/// Whatever applications wrote to its target meanwhile: they cannot have written what the link did.
#[test]
fn a_link_that_stopped_cleanly_goes_on_without_a_marker() {
    live(async |journal| {
        let mut sides = sides(1, journal);
        for _ in 0..3 {
            sides.start(1);
            sides.write(0);
            while Pair::serials(&sides.clusters[1], 0).len() as i64 != sides.serial {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            sides.stop(1).await;
            for _ in 0..5 {
                sides.write(1);
            }
        }
        let log = sides.clusters[1].read_log(TOPIC, 0);
        let markers = log.iter().filter(|b| b.header.has(CONTROL)).count();
        assert_eq!((markers, log.len()), (0, 3 + 15));
    });
}

#[test]
fn both_sides_end_with_the_same_records() {
    let changed = AtomicU64::new(0);
    for seed in 0..SEEDS {
        live(async |journal| {
            let mut sides = sides(seed, journal);
            for _ in 0..STEPS {
                let side = sides.rng.usize(0..2);
                match sides.rng.u8(0..14) {
                    0..7 => sides.write(side),
                    7 => sides.crash(side),
                    // The next session of the link to this side has another producer id.
                    8 => sides.clusters[side].forget_transactional_ids(),
                    9 => sides.stop(side).await,
                    _ if sides.links[side].is_none() => sides.start(side),
                    _ => {}
                }
                let pause = sides.rng.u64(1..2_000);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            for side in [0, 1] {
                if sides.links[side].is_none() {
                    sides.start(side);
                }
            }
            let end = tokio::time::Instant::now() + REST;
            while !sides.equal() {
                if tokio::time::Instant::now() >= end {
                    let found = [0, 1].map(|side| Pair::serials(&sides.clusters[side], 0).len());
                    let lines = sides.journal.lines();
                    panic!(
                        "seed {seed}: {found:?} of {}:\n{}",
                        sides.serial,
                        lines[lines.len().saturating_sub(40)..].join("\n")
                    );
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            for side in [0, 1] {
                sides.crash(side);
            }
            let lines = sides.journal.lines();
            let expired = lines.iter().any(|l| l.contains("transactional-id-expired"));
            changed.fetch_add(u64::from(expired), Ordering::SeqCst);
        });
    }
    let changed = changed.into_inner();
    assert!(
        changed > SEEDS / 10,
        "producer ids changed in {changed} histories"
    );
}
