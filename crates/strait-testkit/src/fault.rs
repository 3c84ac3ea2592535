//! Faults a test injects: scripted rules ("the second Produce to orders/3 loses its response") or seeded chance.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
pub use kafka_protocol::messages::ResponseKind;

/// What happens to a request that a rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed before the request is handled.
    DropBefore,
    /// The request is handled, then the connection is closed without a response ("response lost after append").
    DropAfter,
    /// The connection is closed at once and the request is handled this much later: the late request of a client that
    /// has long reconnected.
    Late(Duration),
    /// The request is handled this much later; everything behind it on the connection waits too.
    Delay(Duration),
    /// The request is handled, its response begins (with its full length) but only so many bytes of the frame are sent
    /// before the connection is closed.
    Truncate(usize),
    /// The request is not handled and answered with this error code: for the matching topic and partition, or for
    /// everything.
    Error(i16),
    /// The request is handled, and answered with this error code all the same (say 7 or 20 after an append).
    ErrorAfter(i16),
    /// The request is handled (Produce: appended) but never answered; the connection stays open and dead.
    Hang,
    /// The request is handled, and its frame lies.
    Frame(FrameLie),
    /// The request is handled, and its answer is rewritten.
    Answer(Rewrite),
    /// The connection is refused. Matched when a client connects; only the rule's node counts.
    RefuseConnection,
}

/// How the frame of an answer lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameLie {
    /// Its length field says this; the bytes are those of the answer.
    Length(i32),
    /// Its correlation id is that of another request.
    Correlation,
    /// Its body is cut to so many bytes, and the length says so.
    Cut(usize),
    /// It promises so many bytes and sends one after the other, for ever.
    Endless {
        /// What the length field says.
        promised: i32,
        /// Between two bytes.
        every: Duration,
    },
    /// It comes twice.
    Twice,
}

/// Changes an answer before it is encoded.
#[derive(Clone)]
pub struct Rewrite(Arc<dyn Fn(&mut ResponseKind) + Send + Sync>);

impl Rewrite {
    /// A rewriting of any answer.
    #[must_use]
    pub fn new(change: impl Fn(&mut ResponseKind) + Send + Sync + 'static) -> Self {
        Self(Arc::new(change))
    }

    /// A rewriting of the records fetched of one topic, known by its id (Fetch 13 and newer).
    #[must_use]
    pub fn records(
        topic: uuid::Uuid,
        change: impl Fn(Bytes) -> Bytes + Send + Sync + 'static,
    ) -> Self {
        Self::new(move |answer| {
            let ResponseKind::Fetch(fetched) = answer else {
                return;
            };
            let topics = fetched.responses.iter_mut().filter(|t| t.topic_id == topic);
            let partitions = topics.flat_map(|t| &mut t.partitions);
            for records in partitions.filter_map(|p| p.records.as_mut()) {
                if !records.is_empty() {
                    *records = change(std::mem::take(records));
                }
            }
        })
    }

    /// Several rewritings, one after the other.
    #[must_use]
    pub fn all(rewrites: Vec<Self>) -> Self {
        Self::new(move |answer| {
            for rewrite in &rewrites {
                rewrite.apply(answer);
            }
        })
    }

    pub(crate) fn apply(&self, answer: &mut ResponseKind) {
        (self.0)(answer);
    }
}

impl std::fmt::Debug for Rewrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rewrite")
    }
}

impl PartialEq for Rewrite {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Rewrite {}

/// One rule: which requests it matches, how often it fires, what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    api: Option<i16>,
    node: Option<i32>,
    topic: Option<String>,
    partition: Option<i32>,
    skip: u32,
    times: Option<u32>,
    one_in: u32,
    fault: Fault,
}

impl Rule {
    /// A rule for every request of one API key, each time.
    #[must_use]
    pub fn on(api: i16, fault: Fault) -> Self {
        Self {
            api: Some(api),
            ..Self::any(fault)
        }
    }

    /// A rule for every request of every API (or every connection attempt), each time.
    #[must_use]
    pub fn any(fault: Fault) -> Self {
        Self {
            api: None,
            node: None,
            topic: None,
            partition: None,
            skip: 0,
            times: None,
            one_in: 1,
            fault,
        }
    }

    /// Only on this node.
    #[must_use]
    pub fn node(mut self, node: i32) -> Self {
        self.node = Some(node);
        self
    }

    /// Only requests that name this topic.
    #[must_use]
    pub fn topic(mut self, topic: &str) -> Self {
        self.topic = Some(topic.to_owned());
        self
    }

    /// Only requests that name this partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Lets this many matching requests pass first.
    #[must_use]
    pub fn skip(mut self, count: u32) -> Self {
        self.skip = count;
        self
    }

    /// Fires at most this often.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.times = Some(count);
        self
    }

    /// Fires at most once.
    #[must_use]
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Fires by chance, for one matching request in `count`, drawn from the plan's seed.
    #[must_use]
    pub fn one_in(mut self, count: u32) -> Self {
        self.one_in = count.max(1);
        self
    }

    fn matches(&self, request: &Seen<'_>) -> bool {
        let target = |(topic, partition): &(String, i32)| {
            self.topic.as_ref().is_none_or(|t| t == topic)
                && self.partition.is_none_or(|p| p == *partition)
        };
        let about =
            self.topic.is_none() && self.partition.is_none() || request.targets.iter().any(target);
        let connecting = self.fault == Fault::RefuseConnection;
        connecting == request.api.is_none()
            && (connecting || self.api.is_none_or(|api| Some(api) == request.api))
            && self.node.is_none_or(|node| node == request.node)
            && (connecting || about)
    }
}

/// What rules are matched against.
pub(crate) struct Seen<'a> {
    /// None for a connection attempt.
    pub(crate) api: Option<i16>,
    pub(crate) node: i32,
    pub(crate) targets: &'a [(String, i32)],
}

/// The fault that fires, with the topic and partition it is meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fired {
    pub(crate) fault: Fault,
    pub(crate) topic: Option<String>,
    pub(crate) partition: Option<i32>,
}

/// Number of a rule in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(u64);

/// The rules of one cluster. Clones share them.
#[derive(Debug, Clone)]
pub struct FaultPlan(Arc<Mutex<Rules>>);

#[derive(Debug)]
struct Rules {
    rules: Vec<(RuleId, Rule, u32)>,
    next: u64,
    chance: fastrand::Rng,
}

impl FaultPlan {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Rules {
            rules: Vec::new(),
            next: 0,
            chance: fastrand::Rng::with_seed(seed),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Rules> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule; rules are asked in the order they were added and the first that fires wins.
    pub fn add(&self, rule: Rule) -> RuleId {
        let mut rules = self.lock();
        let id = RuleId(rules.next);
        rules.next += 1;
        rules.rules.push((id, rule, 0));
        id
    }

    /// Restarts the chance of [`Rule::one_in`] with a seed.
    pub fn seed(&self, seed: u64) {
        self.lock().chance = fastrand::Rng::with_seed(seed);
    }

    /// Seeded disorder on the data path: about one in `one_in` Produce, Fetch, ListOffsets, Metadata and
    /// InitProducerId requests meets a dropped request, a lost response, a late request, a cut response or a retriable
    /// error.
    pub fn disorder(&self, seed: u64, one_in: u32) {
        self.seed(seed);
        let each = one_in.max(1).saturating_mul(2);
        for api in [0, 1, 2, 3, 22] {
            self.add(Rule::on(api, Fault::DropBefore).one_in(each));
            self.add(Rule::on(api, Fault::DropAfter).one_in(each));
            self.add(Rule::on(api, Fault::Truncate(9)).one_in(each * 2));
        }
        self.add(Rule::on(0, Fault::Late(Duration::from_millis(300))).one_in(each * 2));
        self.add(Rule::on(0, Fault::ErrorAfter(crate::code::REQUEST_TIMED_OUT)).one_in(each * 2));
        self.add(Rule::on(0, Fault::Error(crate::code::NOT_LEADER_OR_FOLLOWER)).one_in(each * 2));
    }

    /// Removes one rule.
    pub fn remove(&self, id: RuleId) {
        self.lock().rules.retain(|(known, ..)| *known != id);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.lock().rules.clear();
    }

    /// How often a rule has fired; 0 for a removed one.
    #[must_use]
    pub fn fired(&self, id: RuleId) -> u32 {
        let rules = self.lock();
        rules
            .rules
            .iter()
            .find(|(known, ..)| *known == id)
            .map_or(0, |(_, _, fired)| *fired)
    }

    /// The first rule that fires for what was seen.
    pub(crate) fn decide(&self, seen: &Seen<'_>) -> Option<Fired> {
        let mut guard = self.lock();
        let Rules { rules, chance, .. } = &mut *guard;
        for (_, rule, fired) in rules {
            if rule.times.is_some_and(|times| *fired >= times) || !rule.matches(seen) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.one_in > 1 && chance.u32(0..rule.one_in) != 0 {
                continue;
            }
            *fired += 1;
            return Some(Fired {
                fault: rule.fault.clone(),
                topic: rule.topic.clone(),
                partition: rule.partition,
            });
        }
        None
    }
}
