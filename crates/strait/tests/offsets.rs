//! Random offsets of topics with transactions, compaction and gaps, translated: every answer exact, or the nearest safe one.
//!
//! What that is, is computed from the brokers' own log files and from what Java's consumer reads, without Strait's code (`Left`).
//!
//! `STRAIT_OFFSETS` is how many (`just offsets`): then a real MirrorMaker 2 mirrors the same topics at the same time, and groups
//! with these commits are looked up in the checkpoints of both. `STRAIT_OFFSETS_REPORT` names a file for the result.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rig::{Mirror, wait_until, west_to_east};
use strait_testkit::kafka::{
    Dump, DumpOptions, Isolation, KafkaCluster, KafkaOptions, MirrorMaker, Oracle, TransactionSpec,
    Workload, run_java,
};

const SOON: Duration = Duration::from_secs(120);
const SEED: u64 = 77;
/// No record is old enough to be compacted away.
const NOTHING_YET: (&str, &str) = ("min.compaction.lag.ms", "9000000000000");

/// A topic, its partitions, and whether it is compacted before or after it is mirrored.
const TOPICS: [(&str, i32, &str); 6] = [
    ("asked-paid", 2, "transactions"),
    ("asked-latest", 1, "compacted before"),
    ("asked-state", 1, "compacted since"),
    ("asked-done", 1, "committed transactions, compacted since"),
    ("asked-later", 1, ABORTED),
    ("asked-twice", 1, TWICE),
];
/// Those of which not everything can be known: what was aborted, or gone before, is gone as well as what was superseded since.
const ABORTED: &str = "transactions, a third aborted, compacted since";
const TWICE: &str = "compacted before and since";

/// The next number from a simple generator.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn look(file: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/look");
    tests.join(file)
}

/// By topic and partition.
type By<T> = BTreeMap<(String, i32), T>;

/// Offsets of what a consumer is shown, each with the record's hash.
type Shown = By<Vec<(i64, String)>>;

fn dump(oracle: &Oracle, kafka: &str, topic: &str, isolation: Isolation) -> Dump {
    let options = DumpOptions {
        hashes: true,
        ..DumpOptions::default()
    };
    oracle.dump(kafka, topic, isolation, options).unwrap()
}

fn shown(oracle: &Oracle, kafka: &str, prefix: &str, isolation: Isolation) -> Shown {
    let mut all = Shown::new();
    for (topic, ..) in TOPICS {
        for partition in dump(oracle, kafka, &format!("{prefix}{topic}"), isolation).partitions {
            let records = partition.records.into_iter();
            let records = records.map(|r| (r.offset, r.hash)).collect();
            all.insert((topic.to_owned(), partition.partition), records);
        }
    }
    all
}

fn hashes(shown: &Shown) -> Vec<Vec<&String>> {
    let all = shown.values();
    all.map(|p| p.iter().map(|(_, hash)| hash).collect())
        .collect()
}

/// How many records below an offset.
fn below(records: &[(i64, String)], offset: i64) -> i64 {
    records.partition_point(|(o, _)| *o < offset) as i64
}

/// What is left of a source partition to tell how many records were mirrored below an offset.
///
/// Safe is a target offset with no record below it that was mirrored from the source offset or from one above, whether the
/// source has that record still or not. Nearest is the greatest one that is safe in every history of which this can be left.
#[derive(PartialEq)]
struct Left {
    /// For each offset whether it was certainly mirrored, certainly not, or either.
    offsets: Vec<Option<bool>>,
    /// Records that are there still, with how many were mirrored before them; and the ends of the log.
    known: Vec<(i64, i64)>,
}

impl Left {
    /// `once` is what was mirrored, `now` what of it the source has still; some was gone `before`.
    fn read(
        kafka: &KafkaCluster,
        place: &(String, i32),
        once: &[(i64, String)],
        now: &[(i64, String)],
        before: bool,
    ) -> Self {
        let end = once.last().unwrap().0 + 1;
        let mut offsets = vec![None; end as usize];
        for batch in kafka.stored_batches(0, &place.0, place.1).unwrap() {
            let range = batch.base_offset..(batch.last_offset + 1).min(end);
            // A marker; a batch, of which every offset was a record; or what was aborted and is there still.
            let was = match batch.is_control() {
                true => Some(false),
                false if batch.count == 0 || before => None,
                false => Some(now.iter().any(|(offset, _)| range.contains(offset))),
            };
            range.for_each(|offset| offsets[offset as usize] = was);
        }
        for (offset, _) in now {
            offsets[*offset as usize] = Some(true);
        }
        let mut known = vec![(-1, -1)];
        // No two records are alike, so the hash tells which of those that were mirrored it is.
        let numbers: BTreeMap<&String, usize> =
            once.iter().map(|(_, hash)| hash).zip(0..).collect();
        known.extend(
            now.iter()
                .map(|(offset, hash)| (*offset, numbers[hash] as i64)),
        );
        known.push((end, once.len() as i64));
        Self { offsets, known }
    }

    /// How many records below `offset` were mirrored in any case. Of the offsets between two that are known each was a record or
    /// not whatever the others were, but for their number: so both the least and the most that the two sides allow are possible.
    fn least(&self, offset: i64) -> i64 {
        let at = self.known.partition_point(|(known, _)| *known < offset);
        let (before, after) = (self.known[at - 1], self.known[at]);
        let count = |from: i64, to: i64, what: fn(&Option<bool>) -> bool| {
            let offsets = &self.offsets[from as usize..to as usize];
            offsets.iter().filter(|was| what(was)).count() as i64
        };
        let certain = count(before.0 + 1, offset, |was| *was == Some(true));
        let possible = count(offset, after.0, |was| *was != Some(false));
        (before.1 + 1 + certain).max(after.1 - possible)
    }
}

/// What became of the answers for one topic.
#[derive(Clone, Copy, Debug, Default)]
struct Score {
    asked: i64,
    none: i64,
    exact: i64,
    /// Early, but none that is safe leads further.
    nearest: i64,
    again: i64,
    most: i64,
    skipping: i64,
    skipped: i64,
}

impl Score {
    /// Takes how many records too far the answer leads.
    fn take(&mut self, answer: Option<i64>) {
        self.asked += 1;
        match answer {
            None => self.none += 1,
            Some(0) => self.exact += 1,
            Some(skipped @ 1..) => {
                self.skipping += 1;
                self.skipped += skipped;
            }
            Some(again) => {
                self.again -= again;
                self.most = self.most.max(-again);
            }
        }
    }

    fn row(&self, who: &str, topic: &str) -> String {
        format!(
            "| {who} | {topic} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            self.asked,
            self.exact,
            self.asked - self.exact - self.skipping - self.none,
            self.nearest,
            self.again,
            self.most,
            self.skipped,
            self.none
        )
    }
}

/// What `strait offsets translate` answers: target offsets, and how good they are.
fn translate(folder: &Path, topic: &str, partition: i32, offsets: &BTreeSet<i64>) -> Vec<Answer> {
    let list: Vec<String> = offsets.iter().map(i64::to_string).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(["offsets", "translate"])
        .arg(folder.join("mirror.toml"))
        .args(["--json", "--topic", topic, "--partition"])
        .args([&partition.to_string(), "--offset", &list.join(",")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.trim().trim_matches(['[', ']']).split("},{");
    let answers = rows.map(|row| {
        let field = |name: &str| {
            let rest = row.split(&format!("\"{name}\":")).nth(1).unwrap();
            rest.split([',', '}']).next().unwrap().trim_matches('"')
        };
        Answer {
            source: field("source_offset").parse().unwrap(),
            target: field("target_offset").parse().unwrap(),
            how: field("how").to_owned(),
        }
    });
    answers.collect()
}

#[derive(Debug)]
struct Answer {
    source: i64,
    target: i64,
    how: String,
}

/// A real MirrorMaker 2 of the same topics, at work until this is dropped; with the folder of its file.
struct Other {
    _runs: MirrorMaker,
    _folder: tempfile::TempDir,
}

impl Other {
    fn start(west: &str, east: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut text = format!(
            "clusters=mm,T\nmm.bootstrap.servers={west}\nT.bootstrap.servers={east}\nmm->T.enabled=true\nT->mm.enabled=false\nmm->T.topics=asked-.*\nmm->T.groups=asked-.*\nemit.checkpoints.interval.seconds=1\nrefresh.groups.interval.seconds=5\nrefresh.topics.interval.seconds=5\n"
        );
        for topic in [
            "",
            "checkpoints.topic.",
            "heartbeats.topic.",
            "offset-syncs.topic.",
            "config.storage.",
            "offset.storage.",
            "status.storage.",
        ] {
            writeln!(text, "{topic}replication.factor=1").unwrap();
        }
        let file = folder.path().join("mm2.properties");
        std::fs::write(&file, text).unwrap();
        Self {
            _runs: MirrorMaker::start(&file, &folder.path().join("mm2.log")).unwrap(),
            _folder: folder,
        }
    }
}

/// What the checkpoints under an alias say, once they come to rest: by group, topic and partition upstream and downstream.
fn checkpoints(east: &str, alias: &str) -> BTreeMap<(String, String, i32), (i64, i64)> {
    let text = run_java(&look("Checkpoints.java"), &[east, alias, "20"]).unwrap();
    let lines = text.lines().map(|line| {
        let parts: Vec<&str> = line.split(' ').collect();
        let topic = parts[1].strip_prefix(&format!("{alias}.")).unwrap();
        let number = |at: usize| parts[at].parse::<i64>().unwrap();
        let key = (parts[0].to_owned(), topic.to_owned(), number(2) as i32);
        (key, (number(3), number(4)))
    });
    lines.collect()
}

/// Waits until three looks, a second apart, find the same: the cleaner has done what it could.
fn wait_for_rest<T: PartialEq>(mut look: impl FnMut() -> T) {
    let mut last = look();
    let mut equal = 1;
    wait_until("the cleaner rests", SOON, || {
        rig::pass(Duration::from_secs(1));
        let now = look();
        equal = if now == last { equal + 1 } else { 1 };
        last = now;
        equal == 3
    });
}

/// Random offsets of each partition, as many as wanted in all.
fn questions(source: &Shown, seed: u64, wanted: usize) -> By<Vec<i64>> {
    let mut state = seed;
    let each = wanted.div_ceil(source.len());
    let mut all = By::new();
    for (place, records) in source {
        let end = records.last().unwrap().0 + 1;
        let offsets = (0..each).map(|_| (random(&mut state) % (end as u64)) as i64);
        all.insert(place.clone(), offsets.collect());
    }
    all
}

#[test]
fn random_offsets_are_exact_or_the_nearest_safe_ones() {
    let wanted = std::env::var("STRAIT_OFFSETS").ok();
    let wanted: Option<usize> = wanted.map(|n| n.parse().unwrap());
    let own = wanted
        .map(|_| KafkaCluster::start_all([KafkaOptions::new(), KafkaOptions::new()]).unwrap());
    let [kafka, east] = match &own {
        Some(own) => own,
        None => KafkaCluster::shared_pair().unwrap(),
    };
    let (west, east) = (&kafka.bootstrap(), &east.bootstrap());
    let oracle = &Oracle::shared().unwrap();
    oracle
        .alter_broker_configs(west, &[("log.cleaner.backoff.ms", "100")], &[])
        .unwrap();
    let each = if wanted.is_some() { 4_000 } else { 400 };
    let rate = each as f64 / if wanted.is_some() { 1.5 } else { 0.7 };
    for (topic, partitions, kind) in TOPICS {
        let compacted = [
            ("cleanup.policy", "compact"),
            ("segment.ms", "50"),
            ("min.cleanable.dirty.ratio", "0.01"),
        ];
        let settings = if kind.contains("compacted") {
            &compacted[..]
        } else {
            &[]
        };
        oracle
            .create_topic(west, topic, partitions, 1, settings)
            .unwrap();
        oracle
            .create_topic(east, &format!("west.{topic}"), partitions, 1, &[])
            .unwrap();
    }
    let count =
        |kafka: &str, topic: &str| dump(oracle, kafka, topic, Isolation::ReadCommitted).count();
    let of_kind = |what: &str| {
        let of = TOPICS.iter().filter(|t| t.2.contains(what));
        of.map(|t| t.0).collect::<Vec<&str>>()
    };
    let (before, since) = (of_kind("before"), of_kind("since"));
    let rest = |topic: &str, lag: (&str, &str)| {
        oracle
            .alter_topic_configs(west, topic, &[lag], &[])
            .unwrap();
    };
    // Gaps in the source before anybody mirrors it.
    let mut firsts: BTreeMap<&str, u64> = BTreeMap::new();
    for topic in &before {
        // In parts: each begins a segment, however quickly a producer that starts late catches up.
        let first = firsts.entry(topic).or_default();
        for _ in 0..4 {
            let workload = Workload::new(*topic)
                .keys(each / 3)
                .first_id(*first)
                .rate(rate)
                .flush_every(9);
            *first = oracle.produce(west, &workload, each / 4).unwrap().next_id;
        }
    }
    for topic in &before {
        wait_until("the cleaner has been there", SOON, || {
            count(west, topic) < each * 4 / 5
        });
    }
    for (topic, _, kind) in TOPICS {
        if kind.contains("compacted") {
            rest(topic, NOTHING_YET);
        }
    }
    wait_for_rest(|| -> Vec<u64> { before.iter().map(|topic| count(west, topic)).collect() });

    let names: Vec<&str> = TOPICS.iter().map(|t| t.0).collect();
    let more = "name = \"asked\"\nsync-topic-configs = false\ngroups = [\"asked-.*\"]\nrefresh-groups = \"1s\"\nsync-group-offsets-interval = \"1s\"\nemit-checkpoints-interval = \"1s\"\n";
    let mut mirror = Mirror::new(&west_to_east(west, east, &names, more)).started();
    let other = wanted.map(|_| Other::start(west, east));
    mirror.wait_for_log("mirroring", SOON);
    for round in 0..3 {
        for (topic, partitions, kind) in TOPICS {
            let first = firsts.entry(topic).or_default();
            let mut workload = Workload::new(topic)
                .seed(9)
                .keys(37)
                .first_id(*first)
                .rate(rate)
                .flush_every(11);
            if kind.contains("transactions") {
                let aborted = if kind.contains("committed") { 0 } else { 3 };
                let spec = TransactionSpec::new(topic, 17).abort_every(aborted);
                workload = workload.transaction(spec);
            }
            let records = each * partitions as u64;
            *first = oracle.produce(west, &workload, records).unwrap().next_id;
        }
        if round < 2 {
            mirror.kill9();
            mirror.start();
        }
    }
    let source = shown(oracle, west, "", Isolation::ReadCommitted);
    let records: usize = source.values().map(Vec::len).sum();
    wait_until("everything has arrived", SOON, || {
        let arrived = names
            .iter()
            .map(|topic| count(east, &format!("west.{topic}")));
        arrived.sum::<u64>() == records as u64
    });
    let target = shown(oracle, east, "west.", Isolation::ReadCommitted);
    assert_eq!(hashes(&source), hashes(&target));
    // The positions behind the last records are written.
    for ((topic, partition), records) in &source {
        let end = [records.last().unwrap().0 + 1].into();
        wait_until("the end is mirrored", SOON, || {
            translate(mirror.folder(), topic, *partition, &end)[0].how == "exact"
        });
    }
    let left = || -> By<Left> {
        let now = shown(oracle, west, "", Isolation::ReadCommitted);
        let left = source.iter().map(|(place, once)| {
            let kind = TOPICS.iter().find(|t| t.0 == place.0).unwrap().2;
            let before = kind.contains("before");
            let left = Left::read(kafka, place, once, &now[place], before);
            (place.clone(), left)
        });
        left.collect()
    };
    // The answers of the command, and how many of them are exact.
    let ask = |seed: u64| {
        let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
        let left = left();
        for (place, asked) in questions(&source, seed, wanted.unwrap_or(1_000)) {
            let (from, to) = (&source[&place], &target[&place]);
            let kind = TOPICS.iter().find(|t| t.0 == place.0).unwrap().2;
            let score = scores.entry(kind).or_default();
            for answer in translate(
                mirror.folder(),
                &place.0,
                place.1,
                &asked.into_iter().collect(),
            ) {
                let (leads, right) = (below(to, answer.target), below(from, answer.source));
                let skipped = leads - right;
                score.take(Some(skipped));
                match answer.how.as_str() {
                    "exact" => assert_eq!(skipped, 0, "{place:?} {answer:?}"),
                    "lower bound" => assert!(skipped <= 0, "{place:?} {answer:?} skips"),
                    other => panic!("{other}: {place:?} {answer:?}"),
                }
                let nearest = left[&place].least(answer.source);
                assert!(
                    nearest <= right,
                    "{place:?} {answer:?}: {nearest} is not safe"
                );
                assert!(
                    nearest <= leads,
                    "{place:?} {answer:?}: {nearest} is nearer than {leads}"
                );
                score.nearest += i64::from(skipped < 0);
            }
        }
        scores
    };
    for (kind, score) in ask(SEED) {
        assert_eq!(
            score.exact, score.asked,
            "{kind}: nothing is gone since it was mirrored"
        );
    }

    let everything = shown(oracle, west, "", Isolation::ReadUncommitted);
    let other_target = other.as_ref().map(|_| {
        let all: usize = everything.values().map(Vec::len).sum();
        let arrived = || {
            let topics = oracle.list_topics(east).unwrap();
            let named = names.iter().map(|topic| format!("mm.{topic}"));
            let named: Vec<String> = named.filter(|topic| topics.contains(topic)).collect();
            named.iter().map(|topic| count(east, topic)).sum::<u64>()
        };
        wait_until("MirrorMaker 2 has everything", SOON, || {
            arrived() == all as u64
        });
        let target = shown(oracle, east, "mm.", Isolation::ReadCommitted);
        assert_eq!(hashes(&everything), hashes(&target));
        target
    });
    for topic in &since {
        rest(topic, ("min.compaction.lag.ms", "0"));
    }
    for topic in &since {
        let before = source[&((*topic).to_owned(), 0)].len() as u64;
        wait_until("the cleaner has been there", SOON, || {
            count(west, topic) < before / 2
        });
    }
    wait_for_rest(left);
    let asked = ask(SEED + 1);
    eprintln!("{asked:?}");
    for (kind, score) in &asked {
        assert!(
            [ABORTED, TWICE].contains(kind) && score.exact > 0 || score.exact == score.asked,
            "{kind}: {score:?}"
        );
    }

    let mut table = String::new();
    for (kind, score) in &asked {
        table.push_str(&score.row("`strait offsets translate`", kind));
    }
    if let (Some(other), Some(other_target)) = (other, other_target) {
        let questions = questions(&source, SEED + 2, wanted.unwrap_or_default());
        let groups = questions.values().next().unwrap().len();
        for n in 0..groups {
            let commits: Vec<(&str, i32, i64)> = questions
                .iter()
                .map(|((topic, partition), offsets)| (topic.as_str(), *partition, offsets[n]))
                .collect();
            oracle
                .commit_offsets(west, &format!("asked-{n}"), &commits)
                .unwrap();
        }
        let sides = [
            ("Strait's checkpoints", "west", &source, &target),
            ("MirrorMaker 2's", "mm", &everything, &other_target),
        ];
        let left = left();
        for (who, alias, from, to) in sides {
            let found = checkpoints(east, alias);
            let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
            for (place, offsets) in &questions {
                let kind = TOPICS.iter().find(|t| t.0 == place.0).unwrap().2;
                let score = scores.entry(kind).or_default();
                for (n, offset) in offsets.iter().enumerate() {
                    let key = (format!("asked-{n}"), place.0.clone(), place.1);
                    let answer = found.get(&key).filter(|(upstream, _)| upstream == offset);
                    let leads = answer.map(|(_, downstream)| below(&to[place], *downstream));
                    let early = leads.map(|leads| leads - below(&from[place], *offset));
                    score.take(early);
                    if let (Some(leads), Some(..0), "west") = (leads, early, alias) {
                        let nearest = left[place].least(*offset);
                        assert!(
                            nearest <= leads,
                            "{key:?}: {nearest} is nearer than {leads}"
                        );
                        score.nearest += 1;
                    }
                }
            }
            for (kind, score) in scores {
                table.push_str(&score.row(who, kind));
                if alias == "west" {
                    assert_eq!((score.skipping, score.none), (0, 0), "{kind}: {score:?}");
                }
            }
        }
        drop(other);
    }
    eprintln!("{table}");
    if let Some(file) = std::env::var_os("STRAIT_OFFSETS_REPORT") {
        std::fs::write(file, report(&table, wanted.unwrap_or(1_000), records)).unwrap();
    }
    mirror.stop();
}

/// The result as a page.
fn report(table: &str, wanted: usize, records: usize) -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or_else(
            |_| String::new(),
            |o| String::from_utf8_lossy(&o.stdout).trim().to_owned(),
        )
    };
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let threads = std::thread::available_parallelism().map_or(0, usize::from);
    let changes = [
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":/crates",
    ];
    let mut commit = said("git", &["rev-parse", "--short=12", "HEAD"]);
    if !said("git", &changes).is_empty() {
        commit.push_str(" and changes");
    }
    format!(
        "# Offsets of consumer groups, translated\n\n\
         The last result of `just offsets`: two nodes of Apache Kafka 4.3.1, {records} records in 7 partitions, Strait (killed twice while they were written) and MirrorMaker 2 4.3.1 with its defaults mirroring them at the same time. \
         {wanted} random offsets are drawn and asked of the command, those drawn twice once; {wanted} more were committed on the source by groups, and stand in the checkpoints of both, as MirrorMaker 2's own client decodes them. \
         The judge is Kafka's own consumer: records below the source offset beside records below the answer, MirrorMaker 2's with the aborted records that it copies. The offsets lie anywhere in the log: MirrorMaker 2 keeps fine positions near a partition's head only.\n\n\
         | | |\n|---|---|\n| date | {} |\n| commit | {commit} |\n| seed | {SEED} |\n| machine | {model}, {threads} threads |\n\n\
         | Answers of | topic | offsets | exact | early | of them the nearest safe ones | records read again in all | at most for one | records skipped | no answer |\n|---|---|---|---|---|---|---|---|---|---|\n{table}\n\
         *Early*: an answer before the exact place: records are read again, none is skipped. *The nearest safe ones*: no answer further on is safe in every history of which the source's log files can be left, \
         as the test computes from them. *No answer*: no checkpoint; a consumer begins as \
         `auto.offset.reset` says. *Compacted since*: after both had mirrored it and before the questions were asked; what was removed cannot be counted any more.\n",
        said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
    )
}
