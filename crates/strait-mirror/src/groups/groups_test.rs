use std::collections::HashMap;
use std::fmt;
use std::sync::{LazyLock, Mutex, Once};
use std::thread::{self, ThreadId};

use strait_config::{Pattern, TopicSelection};
use strait_engine::{FlowSpec, Link, LinkSpec, Policies, Start, Takeover};
use strait_testkit::{Broker, Codec, Fault, KitRecord, Rule};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::*;
use crate::carried::Carried;
use crate::translation::Exactness;
use crate::two_clusters::TwoClusters;
use crate::unread::Unread;

/// The fields of all that a thread said, but for what helps to debug: each test has a thread of its own. One for all of them, since
/// a subscriber of a single thread misses what another thread was the first to say.
#[derive(Default)]
struct Said(Mutex<HashMap<ThreadId, String>>);

static SAID: LazyLock<Said> = LazyLock::new(Said::default);

impl Said {
    fn listen() {
        static LISTENING: Once = Once::new();
        LISTENING.call_once(|| tracing::subscriber::set_global_default(&*SAID).unwrap());
    }

    fn count(part: &str) -> usize {
        let said = SAID.0.lock().unwrap();
        let here = said.get(&thread::current().id());
        here.map_or(0, |text| text.matches(part).count())
    }
}

impl Subscriber for &'static Said {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Fields<'a>(&'a mut String);
        impl Visit for Fields<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                self.0.push_str(&format!("{}={value:?} ", field.name()));
            }
        }
        let mut said = self.0.lock().unwrap();
        let here = said.entry(thread::current().id()).or_default();
        event.record(&mut Fields(here));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Rounds of many share groups may follow one on the other without a pause.
#[test]
fn ladders_are_kept_though_share_groups_always_have_something_to_do() {
    let mut now = Runtime::system().now();
    let (until, mut keep_at) = (now + Duration::from_secs(1), now);
    let mut turns = Vec::new();
    while turn(now, until, keep_at, Some(now)) != Turn::Round {
        let next = turn(now, until, keep_at, Some(now));
        // There are more ladders than go into this pause.
        if next == Turn::Keep {
            keep_at = now + KEEP_PAUSE;
        }
        turns.push(next);
        now += Duration::from_millis(30);
    }
    let kept = turns.iter().filter(|t| **t == Turn::Keep).count();
    let shares = turns.iter().filter(|t| **t == Turn::Share).count();
    assert!(kept >= 5 && shares >= 2 * kept, "{turns:?}");
    assert_eq!(kept + shares, turns.len());
}

#[test]
fn between_two_rounds_it_is_waited_for_what_comes_first() {
    let now = Runtime::system().now();
    let after = |ms| now + Duration::from_millis(ms);
    let (until, never) = (after(1_000), after(5_000));
    let next = |keep_at, share| turn(now, until, keep_at, share);
    assert_eq!(next(never, None), Turn::Wait(until));
    assert_eq!(next(never, Some(after(300))), Turn::Wait(after(300)));
    assert_eq!(next(after(200), Some(after(300))), Turn::Wait(after(200)));
    // Too little time is left for a piece.
    assert_eq!(next(after(950), None), Turn::Wait(until));
    assert_eq!(next(now, None), Turn::Keep);
    assert_eq!(turn(until, until, now, Some(now)), Turn::Round);
}

fn config() -> LinkConfig {
    let topics = TopicSelection::new(vec![Pattern::new("t").unwrap()], Vec::new());
    LinkConfig::new("source", "target", topics)
}

/// A link that mirrors one topic of ten records, and its groups.
struct Scene {
    rt: Runtime,
    source: Broker,
    target: Broker,
    groups: Groups,
    running: tokio::task::JoinHandle<Result<(), SessionError>>,
}

impl Scene {
    /// Of one consumer group, and a share group: both clusters know none, which is found out with their first turn.
    async fn new() -> Self {
        let TwoClusters {
            rt,
            source,
            target,
            here,
            there,
        } = TwoClusters::new();
        source.create_topic("t", 1, &[]).unwrap();
        target.create_topic("source.t", 1, &[]).unwrap();
        let records: Vec<_> = (0..10)
            .map(|_| KitRecord::new(source.now_ms(), None, Some(b"x")))
            .collect();
        source
            .plain_producer()
            .send("t", 0, Codec::None, &records)
            .unwrap();
        source.commit("billing", "t", 0, 1);
        let config = config();
        let spec = LinkSpec {
            name: config.name.clone(),
            source: here.clone(),
            target: there.clone(),
            isolation: strait_wire::Isolation::ReadCommitted,
            instance: "one".to_owned(),
            lock_dir: None,
            internal_replication: None,
            take_over: false,
            memory_budget: 64 << 20,
            lanes: 1,
            long_poll: Duration::from_millis(500),
            request_timeout: Duration::from_secs(5),
            open_transaction: Duration::from_secs(300),
            drain: Duration::from_secs(5),
            policies: Policies::default(),
            only_local: false,
            takeover: Takeover::default(),
        };
        let (link, handle) = Link::new(rt.clone(), spec);
        let running = rt.spawn(link.run());
        let flow = FlowKey {
            topic: "t".to_owned(),
            partition: 0,
        };
        let flows = vec![FlowSpec {
            key: flow.clone(),
            target_topic: "source.t".to_owned(),
            start: Start::Earliest,
            compacted: false,
            target_compacted: false,
            min_insync: 1,
            max_batch_bytes: None,
        }];
        handle.set_flows(flows).await;
        let mirrored = watch::Sender::new(Arc::new(BTreeSet::from([flow.clone()])));
        let seen = mirrored.subscribe();
        let mut groups = Groups::new(rt.clone(), &config, here, there, handle, seen);
        assert!(groups.owns().await);
        // All of it is mirrored.
        let known = |groups: &mut Groups| {
            let known = groups.translator.known(&flow, 10);
            known.is_some_and(|known| known.exactness == Exactness::Exact)
        };
        while !known(&mut groups) {
            rt.sleep(Duration::from_secs(1)).await;
            groups.translator.refresh().await.unwrap();
        }
        groups.groups = vec!["billing".to_owned()];
        groups.share.names = vec!["hand".to_owned()];
        groups.listed = Some(rt.now());
        Self {
            rt,
            source,
            target,
            groups,
            running,
        }
    }

    /// Where the group stands on the target.
    fn stands(&self) -> Option<i64> {
        let commits = self.target.commits("billing");
        let commit = commits.get(&("source.t".to_owned(), 0));
        commit.map(|commit| commit.offset)
    }

    async fn share_groups_had_their_turn(&mut self) {
        self.groups.pause(RETRY).await;
        let next = self.groups.share_due(self.rt.now());
        let had = next.is_some_and(|at| at > self.rt.now());
        assert!(had, "none had its turn");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.running.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn share_groups_have_their_turn_where_checkpoints_cannot_be_written() {
    let mut scene = Scene::new().await;
    // CreateTopics, TOPIC_AUTHORIZATION_FAILED
    let denied = Rule::on(19, Fault::Error(29));
    scene.target.faults().add(denied);
    scene.groups.round().await.unwrap_err();
    scene.share_groups_had_their_turn().await;
}

/// Their partition has no leader for a while.
#[tokio::test(start_paused = true)]
async fn checkpoints_that_are_not_taken_end_a_round_and_go_on_later() {
    let mut scene = Scene::new().await;
    scene.groups.round().await.unwrap();
    let first = scene.stands().unwrap();
    scene.source.commit("billing", "t", 0, 5);
    // Produce, NOT_LEADER_OR_FOLLOWER
    let taken = Rule::on(0, Fault::Error(6)).topic("source.checkpoints.internal");
    let rule = scene.target.faults().add(taken);
    let minute = Duration::from_secs(60);
    let ended = tokio::time::timeout(minute, scene.groups.round()).await;
    ended.expect("the round waits for ever").unwrap_err();
    scene.share_groups_had_their_turn().await;
    assert_eq!(scene.stands(), Some(first));
    scene.target.faults().remove(rule);
    scene.groups.round().await.unwrap();
    assert_eq!(scene.stands(), Some(first + 4));
}

/// Consumers come to the target, read and go again while it is slow to answer.
#[tokio::test(start_paused = true)]
async fn who_has_gone_on_since_it_was_looked_is_not_overwritten() {
    let mut scene = Scene::new().await;
    scene.groups.round().await.unwrap();
    let first = scene.stands().unwrap();
    scene.source.commit("billing", "t", 0, 5);
    // OffsetFetch, and the Produce of a checkpoint.
    let late = |api| Rule::on(api, Fault::Delay(Duration::from_secs(9)));
    let checkpoints = "source.checkpoints.internal";
    let faults = scene.target.faults().clone();
    let rules = [late(9), late(0).topic(checkpoints)].map(|rule| faults.add(rule));
    let (rt, target) = (scene.rt.clone(), scene.target.clone());
    let consumers = async {
        rt.sleep(Duration::from_secs(12)).await;
        target.commit("billing", "source.t", 0, first + 8);
    };
    let (ended, ()) = tokio::join!(scene.groups.round(), consumers);
    ended.unwrap();
    assert_eq!(scene.stands(), Some(first + 8));
    for rule in rules {
        faults.remove(rule);
    }
    scene.groups.round().await.unwrap();
    assert_eq!(scene.stands(), Some(first + 8));
    // It goes back there, and is carried on again.
    scene.target.commit("billing", "source.t", 0, first);
    scene.groups.round().await.unwrap();
    assert_eq!(scene.stands(), Some(first + 4));
}

/// Commits are made sixteen at a time, and the first ones take so long that the look behind the others is an old one.
#[tokio::test(start_paused = true)]
async fn those_whose_turn_comes_late_are_looked_at_again_first() {
    Said::listen();
    let mut scene = Scene::new().await;
    scene.groups.round().await.unwrap();
    let names: Vec<String> = (0..40).map(|n| format!("g{n}")).collect();
    for name in &names {
        scene.source.commit(name, "t", 0, 5);
    }
    scene.groups.groups.clone_from(&names);
    let (target, place) = (scene.target.clone(), ("source.t".to_owned(), 0));
    let committed = || {
        let has = |name: &&String| target.commits(name).contains_key(&place);
        names.iter().filter(has).count()
    };
    // OffsetFetch, and the first OffsetCommit.
    let late = |api| Rule::on(api, Fault::Delay(Duration::from_secs(9)));
    let faults = scene.target.faults().clone();
    let rules = [late(9), late(8).once()].map(|rule| faults.add(rule));
    scene.groups.round().await.unwrap();
    assert_eq!(committed(), 16);
    assert_eq!(Said::count("id=\"groups-late\" groups=24 "), 1);
    for rule in rules {
        faults.remove(rule);
    }
    scene.groups.round().await.unwrap();
    assert_eq!(committed(), 40);
    assert_eq!(Said::count("groups-late"), 1);
    assert_eq!(Said::count("in time again"), 1);
}

/// Its consumers have left, and the coordinator has not finished their last transaction: a commit now would win over its offsets.
#[tokio::test(start_paused = true)]
async fn offsets_of_a_transaction_that_is_not_finished_are_not_overtaken() {
    let mut scene = Scene::new().await;
    scene.groups.round().await.unwrap();
    let first = scene.stands().unwrap();
    scene.source.commit("billing", "t", 0, 5);
    scene.target.set_group_pending("billing", true);
    scene.groups.round().await.unwrap();
    assert_eq!(scene.stands(), Some(first));
    scene.target.set_group_pending("billing", false);
    scene.groups.round().await.unwrap();
    assert_eq!(scene.stands(), Some(first + 4));
}

/// What a transaction is about to commit on the source belongs on the target too: whoever waits does not take what stands now.
#[tokio::test(start_paused = true)]
async fn a_wait_for_groups_waits_for_the_last_transaction_on_the_source() {
    let mut scene = Scene::new().await;
    scene.groups.round().await.unwrap();
    let config = config();
    let clusters = (scene.groups.source.clone(), scene.groups.target.clone());
    let flows = scene.groups.mirrored.borrow().as_ref().clone();
    let mut carried = Carried::new(&scene.rt, &config, clusters, flows);
    scene.source.set_group_pending("billing", true);
    let (behind, untold) = carried.look().await.unwrap();
    assert_eq!((behind.len(), carried.groups()), (0, 0));
    let told: Vec<&str> = untold.iter().map(|one| one.what.as_str()).collect();
    assert_eq!(told, ["what group billing has committed on cluster source"]);
    scene.source.commit("billing", "t", 0, 7);
    scene.source.set_group_pending("billing", false);
    let (behind, untold) = carried.look().await.unwrap();
    assert_eq!((untold.len(), carried.groups()), (0, 1));
    let stands = scene.stands().unwrap();
    assert_eq!(behind[0].stands, Some(stands));
    assert_eq!(behind[0].belongs, stands + 6);
}

/// A broker that was restarted may tell of older times for a moment.
#[tokio::test(start_paused = true)]
async fn a_topic_that_was_there_counts_as_deleted_once_it_was_away_for_ten_seconds() {
    let mut scene = Scene::new().await;
    scene.groups.round().await.unwrap();
    scene.running.abort();
    let (target, second) = (scene.groups.target.clone(), Duration::from_secs(1));
    let mut unread = Unread::new(&scene.rt, &config(), target, &[], &[]);
    let (found, untold) = unread.look(second).await.unwrap();
    assert_eq!((found.len(), untold.len()), (1, 0));
    assert!(scene.target.delete_topic("source.t"));
    let begun = scene.rt.now();
    loop {
        let (_, untold) = unread.look(second).await.unwrap();
        let away = scene.rt.now() - begun;
        if unread.deleted().contains("source.t") {
            assert!(away >= second * 10, "{away:?}");
            assert_eq!(untold.len(), 0);
            break;
        }
        assert_eq!(
            untold[0].what,
            "what topic source.t on cluster target holds"
        );
        assert!(away < second * 20, "{away:?}");
        scene.rt.sleep(second).await;
    }
}
