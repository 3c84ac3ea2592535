//! What happens in one history, drawn from its seed.

use std::fmt;
use std::time::Duration;

use strait_testkit::{Fault, Rule};

use crate::network::{Climate, Side};

/// When records claim to have been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    Recent,
    /// Two years ago: the target forgets who wrote them at its next check.
    Historic,
    Mixed,
}

/// How a topic is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Idempotent,
    Transactional,
    /// Idempotent, keyed, `cleanup.policy=compact`.
    Compacted,
}

#[derive(Clone, Debug)]
pub(crate) struct TopicScript {
    pub(crate) name: String,
    pub(crate) partitions: i32,
    pub(crate) kind: Kind,
    pub(crate) age: Age,
}

/// A partition of the source, or of the target (they have the same names).
pub(crate) type At = (String, i32);

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// The mirror dies: what its sockets hold arrives `linger` ms later, or not at all.
    Crash {
        linger: Option<u64>,
        down_ms: u64,
    },
    /// The mirror is started; it dies again once it has sent so many pieces of data.
    Start {
        dies_after: Option<u64>,
    },
    /// The mirror is told to stop.
    Stop,
    /// A second process is started by mistake, and killed later.
    Second {
        for_ms: u64,
    },
    SecondEnds,
    /// The cleaner runs on a topic of the source.
    Compact(String),
    /// The brokers of a cluster restart.
    Restart(Side),
    /// Another broker leads a partition.
    Elect(Side, At, i32),
    /// All connections to a cluster are cut.
    Cut(Side),
    /// Nothing passes to or from a cluster for a while.
    Stall(Side, u64),
    /// A partition has no leader for a while.
    Leaderless(Side, At, u64),
    HasLeader(Side, At, i32),
    /// A partition of the target has too few replicas in sync for a while.
    UnderMinIsr(At, u64),
    InSync(At),
    /// The high watermark of a target partition stands still for a while.
    Hold(At, u64),
    Release(At),
    /// The target forgets all producers of a partition that have not written for its expiration time.
    Expire,
    /// The target's coordinator forgets the transactional id: the next session gets a new producer id.
    Forget,
    /// Requests meet a fault for a while.
    Fault(Side, Rule, u64),
    FaultEnds(Side, usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) at_ms: u64,
    pub(crate) what: What,
}

/// One history before it has happened.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) nodes: i32,
    pub(crate) topics: Vec<TopicScript>,
    pub(crate) climate: Climate,
    /// `producer.id.expiration.ms` of the target.
    pub(crate) expiration_ms: i64,
    /// The fence does not hold for ever (historic records, an expired transactional id), so that only the lease
    /// keeps late requests out: what is late stays well below it.
    pub(crate) leased: bool,
    /// Batches before the first start.
    pub(crate) preload: u32,
    /// The largest pause between two batches, in ms.
    pub(crate) pause_ms: u64,
    /// When faults and load end.
    pub(crate) calm_at_ms: u64,
    pub(crate) request_timeout: Duration,
    /// With little memory fetches are small, so that a partition is read in several ranges at once, and make room.
    pub(crate) memory_budget: u64,
    pub(crate) steps: Vec<Step>,
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} nodes, producer expiration {} ms, {} batches before the start, pause up to {} ms, calm at {} ms, request timeout {:?}, memory {} bytes, {:?}",
            self.seed,
            self.nodes,
            self.expiration_ms,
            self.preload,
            self.pause_ms,
            self.calm_at_ms,
            self.request_timeout,
            self.memory_budget,
            self.climate,
        )?;
        for topic in &self.topics {
            writeln!(
                f,
                "  topic {} with {} partitions: {:?}, {:?}",
                topic.name, topic.partitions, topic.kind, topic.age
            )?;
        }
        for step in &self.steps {
            writeln!(f, "  {:>6} ms {:?}", step.at_ms, step.what)?;
        }
        Ok(())
    }
}

impl Script {
    pub(crate) fn draw(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring histories.
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let old = rng.u32(0..6) == 0;
        let topics: Vec<TopicScript> = (0..rng.u32(1..=3))
            .map(|i| {
                let kinds = [
                    Kind::Plain,
                    Kind::Idempotent,
                    Kind::Transactional,
                    Kind::Transactional,
                    Kind::Compacted,
                ];
                TopicScript {
                    name: format!("t{i}"),
                    partitions: rng.i32(1..=2),
                    kind: kinds[rng.usize(0..kinds.len())],
                    age: match rng.u32(0..3) {
                        0 if old => Age::Historic,
                        1 if old => Age::Mixed,
                        _ => Age::Recent,
                    },
                }
            })
            .collect();
        let expires = rng.u32(0..6) == 0;
        let leased = old || expires;
        let calm_at_ms = rng.u64(6_000..25_000);
        let mut script = Self {
            seed,
            nodes: rng.i32(1..=2),
            climate: Climate {
                latency_ms: [1, 5, 40][rng.usize(0..3)],
                stall_one_in: [0, 0, 200, 1_000][rng.usize(0..4)],
                stall_ms: if leased { 2_000 } else { 8_000 },
            },
            expiration_ms: [600_000, 600_000, 25_000][rng.usize(0..3)],
            leased,
            preload: rng.u32(0..60),
            pause_ms: [50, 150, 600][rng.usize(0..3)],
            calm_at_ms,
            request_timeout: Duration::from_millis([2_000, 5_000][rng.usize(0..2)]),
            memory_budget: [64 << 20, 64 << 20, 64 << 10, 24 << 10][rng.usize(0..4)],
            topics,
            steps: Vec::new(),
        };
        script.steps.push(Step {
            at_ms: 0,
            what: What::Start {
                dies_after: dies_after(&mut rng),
            },
        });
        for _ in 0..rng.u32(4..24) {
            let at_ms = rng.u64(0..calm_at_ms);
            if let Some(what) = script.event(&mut rng) {
                script.steps.push(Step { at_ms, what });
            }
        }
        for _ in 0..if expires { rng.u32(1..4) } else { 0 } {
            script.steps.push(Step {
                at_ms: rng.u64(0..calm_at_ms),
                what: What::Forget,
            });
        }
        script.steps.sort_by_key(|s| s.at_ms);
        script
    }

    fn historic(&self) -> bool {
        self.topics.iter().any(|t| t.age != Age::Recent)
    }

    fn event(&self, rng: &mut fastrand::Rng) -> Option<What> {
        // The longest that anything is held up.
        let late = if self.leased { 2_000 } else { 8_000 };
        let side = if rng.u32(0..4) == 0 {
            Side::Source
        } else {
            Side::Target
        };
        let topic = &self.topics[rng.usize(0..self.topics.len())];
        let at = (topic.name.clone(), rng.i32(0..topic.partitions));
        Some(match rng.u32(0..30) {
            0..=6 => What::Crash {
                linger: match rng.u32(0..4) {
                    0 => None,
                    1 => Some(rng.u64(0..late)),
                    _ => Some(rng.u64(0..100)),
                },
                down_ms: rng.u64(0..3_000),
            },
            7..=8 => What::Stop,
            9 => What::Second {
                for_ms: rng.u64(4_000..14_000),
            },
            10..=11 if topic.kind == Kind::Compacted => What::Compact(topic.name.clone()),
            10..=11 => return None,
            12 => What::Restart(side),
            13 => What::Elect(side, at, rng.i32(1..=self.nodes)),
            14 => What::Cut(side),
            15 => What::Stall(side, rng.u64(100..late)),
            16 if side == Side::Source && topic.kind == Kind::Transactional => return None,
            16 => What::Leaderless(side, at, rng.u64(100..12_000)),
            17 => What::UnderMinIsr(at, rng.u64(100..8_000)),
            18 => What::Hold(at, rng.u64(100..6_000)),
            19 => What::Expire,
            _ => {
                let (rule, topic_named) = fault(rng, late);
                let often = [1, 3, 10][rng.usize(0..3)];
                // Of a pipeline on historic records either all batches are refused or none: a target that forgot their
                // producer would take the successors, which then stand twice.
                let rule = rule.one_in(if self.historic() { 1 } else { often });
                let rule = if topic_named && rng.bool() {
                    rule.topic(&at.0).partition(at.1)
                } else {
                    rule
                };
                What::Fault(side, rule, rng.u64(200..5_000))
            }
        })
    }
}

fn dies_after(rng: &mut fastrand::Rng) -> Option<u64> {
    // Often while it still opens its session or its flows.
    (rng.u32(0..3) == 0).then(|| {
        let most = [40, 100, 400][rng.usize(0..3)];
        rng.u64(1..most)
    })
}

/// A start after a crash or a stop.
pub(crate) fn start(rng: &mut fastrand::Rng) -> What {
    What::Start {
        dies_after: dies_after(rng),
    }
}

/// A rule, and whether it may be narrowed to one partition.
fn fault(rng: &mut fastrand::Rng, late: u64) -> (Rule, bool) {
    let ms = |rng: &mut fastrand::Rng, most| Duration::from_millis(rng.u64(0..most));
    let pick = |rng: &mut fastrand::Rng, codes: &[i16]| codes[rng.usize(0..codes.len())];
    match rng.u32(0..10) {
        0..=4 => {
            let fault = match rng.u32(0..9) {
                0 => Fault::DropBefore,
                1 | 2 => Fault::DropAfter,
                3 => Fault::Late(ms(rng, late)),
                4 => Fault::Delay(ms(rng, late.min(3_000))),
                5 => Fault::Truncate(rng.usize(0..40)),
                6 => Fault::Error(pick(rng, &[6, 19, 5, 56])),
                7 => Fault::ErrorAfter(pick(rng, &[7, 20, 6, 56, -1])),
                _ => Fault::Hang,
            };
            (Rule::on(0, fault), true)
        }
        5 | 6 => {
            let fault = match rng.u32(0..4) {
                0 => Fault::DropAfter,
                1 => Fault::Delay(ms(rng, late.min(3_000))),
                2 => Fault::Error(pick(rng, &[6, 74, 75, 3])),
                _ => Fault::Truncate(rng.usize(0..400)),
            };
            (Rule::on(1, fault), true)
        }
        7 => {
            let api = pick(rng, &[2, 3, 10, 22, 24, 26]);
            let fault = match rng.u32(0..4) {
                0 => Fault::DropBefore,
                1 => Fault::DropAfter,
                2 => Fault::Late(ms(rng, late)),
                _ => Fault::Delay(ms(rng, late)),
            };
            (Rule::on(api, fault), false)
        }
        8 => {
            let api = pick(rng, &[22, 24, 26]);
            (Rule::on(api, Fault::Error(pick(rng, &[14, 16, 51]))), false)
        }
        _ => (Rule::any(Fault::RefuseConnection), false),
    }
}
