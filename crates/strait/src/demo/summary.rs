//! The comparison of both clusters, and what is printed about it.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use strait_testkit::compare::{Report, compare};
use strait_testkit::records::HEADER_LEN;
use strait_testkit::{Broker, Codec, Tail};

use super::play::TICK;
use super::screen::{Paint, count, megabytes, span};
use super::shop::TOPICS;
use super::target_name;
use crate::exit::Exit;

/// One kill, and what followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    /// Committed records that the target lacked when the signal was sent.
    pub(crate) missing: u64,
    /// From the kill to the first record that the next process wrote; none if that was killed before it wrote.
    pub(crate) resumed: Option<Duration>,
}

/// What happened, measured from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    pub(crate) seed: u64,
    pub(crate) kills: Vec<Kill>,
    /// From the first start of the mirror to the last record.
    pub(crate) lasted: Duration,
    /// The best bytes per second over a while.
    pub(crate) peak: f64,
    /// How old the oldest missing record was, look by look.
    pub(crate) behind: Vec<Duration>,
}

/// One topic, both sides.
struct Row {
    topic: &'static str,
    partitions: i32,
    codec: Codec,
    records: u64,
    batches: u64,
    /// Batches whose records have the same bytes on both sides.
    untouched: u64,
    bytes: u64,
    equal: bool,
    about: &'static str,
    /// Source records of aborted transactions, which no read_committed consumer sees.
    aborted: u64,
}

/// What the comparison found.
pub(crate) struct Verdict {
    report: Report,
    rows: Vec<Row>,
}

impl Verdict {
    /// Compares the clusters record by record, with the test kit's own reader.
    pub(crate) fn reach(source: &Broker, target: &Broker) -> Self {
        let mut report = compare(source, target, target_name);
        // Whoever plays with `--keep` may have made topics that are not mirrored yet.
        let ours = |topic: &str| TOPICS.iter().any(|t| t.name == topic);
        report.partitions.retain(|p| ours(&p.source_topic));
        let rows = TOPICS.iter().map(|topic| {
            let mut row = Row {
                topic: topic.name,
                partitions: topic.partitions,
                codec: topic.codec,
                records: 0,
                batches: 0,
                untouched: 0,
                bytes: 0,
                equal: true,
                about: topic.about,
                aborted: 0,
            };
            for partition in &report.partitions {
                if partition.source_topic == topic.name {
                    row.records += partition.target_records as u64;
                    row.equal &= partition.differences.is_empty();
                    row.look_at(source, target, partition.partition);
                }
            }
            row
        });
        Self {
            rows: rows.collect(),
            report,
        }
    }

    /// Whether the target has every record once, in order and unchanged, and nothing else.
    pub(crate) fn is_equal(&self) -> bool {
        self.report.is_equal()
    }

    /// What the process says by its exit code.
    pub(crate) fn exit(&self) -> Exit {
        if self.is_equal() {
            Exit::Ok
        } else {
            Exit::Different
        }
    }

    /// Records on the source.
    pub(crate) fn records(&self) -> u64 {
        self.report.source_records() as u64
    }

    /// One line; and what differs, if anything does.
    pub(crate) fn line(&self, kills: usize, paint: Paint) -> String {
        let records = count(self.records());
        if self.is_equal() {
            return format!(
                "{} All {records} records arrived once, in order and unchanged, across {kills} kills.",
                paint.green("EQUAL.")
            );
        }
        let found = self.report.to_string();
        format!("{} {}", paint.red("DIFFERENT."), found.trim_end())
    }

    /// The whole summary.
    pub(crate) fn summary(&self, story: &Story, paint: Paint) -> String {
        let mut out = self.table(paint);
        out.push('\n');
        for (what, text) in self.figures(story) {
            out.push_str(&format!("  {} {text}\n", paint.bold(pad(what, 11))));
        }
        out.push_str(&format!("\n{}", self.line(story.kills.len(), paint)));
        out
    }

    fn table(&self, paint: Paint) -> String {
        let head = [
            "topic",
            "partitions",
            "codec",
            "records",
            "batches",
            "MB",
            "as they were",
            "equal",
            "what is in it",
        ];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        lines.extend(self.rows.iter().map(Row::cells));
        let sum = |of: fn(&Row) -> u64| self.rows.iter().map(of).sum::<u64>();
        let partitions: i32 = self.rows.iter().map(|row| row.partitions).sum();
        let (batches, untouched) = (sum(|r| r.batches), sum(|r| r.untouched));
        lines.push(vec![
            "together".to_owned(),
            partitions.to_string(),
            String::new(),
            count(sum(|r| r.records)),
            count(batches),
            megabytes(sum(|r| r.bytes) as f64),
            percent(untouched, batches),
            yes(self.is_equal()).to_owned(),
            String::new(),
        ]);
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut out = String::new();
        for (number, line) in lines.iter().enumerate() {
            let mut text = String::from(" ");
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                // Words stand left, numbers right.
                let cell = match column {
                    8 => cell.clone(),
                    0 | 2 | 7 => pad(cell, *width),
                    _ => format!("{cell:>width$}"),
                };
                let cell = match (column, cell.trim()) {
                    (7, "yes") => paint.green(cell),
                    (7, "NO") => paint.red(cell),
                    _ if number == 0 => paint.dim(cell),
                    (0, _) => paint.bold(cell),
                    _ => cell,
                };
                text.push_str(&format!(" {cell} "));
            }
            out.push_str(text.trim_end());
            out.push('\n');
        }
        out
    }

    fn figures(&self, story: &Story) -> Vec<(&'static str, String)> {
        let kills = story.kills.len();
        let mut resumed: Vec<Duration> = story.kills.iter().filter_map(|k| k.resumed).collect();
        resumed.sort_unstable();
        let missing = story.kills.iter().map(|kill| kill.missing);
        let (least, most) = (missing.clone().min(), missing.max());
        let mut out = vec![(
            "kills",
            format!(
                "{kills} with SIGKILL, each with {} to {} records still to come",
                count(least.unwrap_or(0)),
                count(most.unwrap_or(0))
            ),
        )];
        if let (Some(fastest), Some(slowest)) = (resumed.first(), resumed.last()) {
            let note = match kills - resumed.len() {
                0 => String::new(),
                early => format!("; {early} killed before it wrote anything"),
            };
            out.push((
                "resumed",
                format!(
                    "{} times, {} to {} after the kill{note}",
                    resumed.len(),
                    span(*fastest),
                    span(*slowest)
                ),
            ));
        }
        let (records, bytes): (u64, u64) = self
            .rows
            .iter()
            .fold((0, 0), |(r, b), row| (r + row.records, b + row.bytes));
        let seconds = story.lasted.as_secs_f64().max(0.001);
        out.push((
            "throughput",
            format!(
                "{} records/s and {} MB/s over {}, dead times included; {} MB/s at best",
                count((records as f64 / seconds) as u64),
                megabytes(bytes as f64 / seconds),
                span(story.lasted),
                megabytes(story.peak)
            ),
        ));
        let mut behind = story.behind.clone();
        behind.sort_unstable();
        if let (Some(usual), Some(worst)) = (behind.get(behind.len() / 2), behind.last()) {
            let usual = match usual {
                usual if *usual < TICK => format!("below {}", span(TICK)),
                usual => span(*usual),
            };
            out.push((
                "RPO",
                format!(
                    "{usual} usually (median), {} at worst: the age of what tokyo lacked",
                    span(*worst)
                ),
            ));
        }
        out.push((
            "seed",
            format!("{} (data and kills are drawn from it)", story.seed),
        ));
        out
    }
}

impl Row {
    fn look_at(&mut self, source: &Broker, target: &Broker, partition: i32) {
        let left = source.read_log(self.topic, partition);
        let mut known: HashMap<&[u8], u64> = HashMap::new();
        for batch in &left {
            *known.entry(records_of(&batch.bytes)).or_default() += 1;
        }
        let right = target.read_log(&target_name(self.topic), partition);
        // The mirror ends a dead predecessor's transaction, if there was one: markers are no data.
        for batch in right.iter().filter(|batch| batch.marker().is_none()) {
            self.batches += 1;
            self.bytes += batch.bytes.len() as u64;
            if let Some(left) = known.get_mut(records_of(&batch.bytes))
                && *left > 0
            {
                *left -= 1;
                self.untouched += 1;
            }
        }
        let mut tail = Tail::new(source, self.topic, partition);
        tail.look();
        self.aborted += tail.aborted();
    }

    fn cells(&self) -> Vec<String> {
        let about = match self.aborted {
            0 => self.about.to_owned(),
            aborted => format!("{}; {} aborted left out", self.about, count(aborted)),
        };
        vec![
            self.topic.to_owned(),
            self.partitions.to_string(),
            format!("{:?}", self.codec).to_lowercase(),
            count(self.records),
            count(self.batches),
            megabytes(self.bytes as f64),
            percent(self.untouched, self.batches),
            yes(self.equal).to_owned(),
            about,
        ]
    }
}

/// The compressed records of a batch: what a mirror that forwards batches must not touch.
fn records_of(batch: &[u8]) -> &[u8] {
    batch.get(HEADER_LEN..).unwrap_or_default()
}

fn pad(text: impl Display, width: usize) -> String {
    format!("{:<width$}", text.to_string())
}

fn yes(equal: bool) -> &'static str {
    if equal { "yes" } else { "NO" }
}

/// Never rounded up to 100.
fn percent(part: u64, whole: u64) -> String {
    format!("{} %", part * 100 / whole.max(1))
}

#[cfg(test)]
mod tests {
    use super::{Story, Verdict};
    use crate::demo::screen::Paint;
    use crate::demo::shop::{Shop, TOPICS};
    use crate::demo::target_name;
    use crate::exit::Exit;
    use strait_testkit::{Broker, BrokerConfig, KitRecord};

    /// A source with data, and a target on which `tamper` had its way with every record.
    fn clusters(tamper: impl Fn(&str, usize, KitRecord) -> Vec<KitRecord>) -> (Broker, Broker) {
        let (source, target) = (
            Broker::new(BrokerConfig::default()),
            Broker::new(BrokerConfig::default()),
        );
        let mut shop = Shop::open(&source, 3).unwrap();
        for _ in 0..150 {
            shop.write(20, 0).unwrap();
        }
        shop.finish().unwrap();
        let mut writer = target.plain_producer();
        for topic in &TOPICS {
            let mirrored = target_name(topic.name);
            target
                .create_topic(&mirrored, topic.partitions, &[])
                .unwrap();
            for partition in 0..topic.partitions {
                let records = source.records(topic.name, partition, true);
                let records = records.into_iter().enumerate();
                let records: Vec<_> = records
                    .flat_map(|(place, record)| tamper(topic.name, place, record))
                    .collect();
                if !records.is_empty() {
                    writer
                        .send(&mirrored, partition, topic.codec, &records)
                        .unwrap();
                }
            }
        }
        (source, target)
    }

    fn verdict(tamper: impl Fn(&str, usize, KitRecord) -> Vec<KitRecord>) -> (Exit, String) {
        let (source, target) = clusters(tamper);
        let verdict = Verdict::reach(&source, &target);
        let text = verdict.summary(&Story::default(), Paint::new(false));
        (verdict.exit(), text)
    }

    #[test]
    fn an_honest_copy_is_equal() {
        let (exit, text) = verdict(|_, _, record| vec![record]);
        assert_eq!(exit.code(), 0);
        assert!(text.contains("\nEQUAL. All "), "{text}");
        assert!(!text.contains("NO"), "{text}");
        assert!(text.contains("aborted left out"), "{text}");
    }

    #[test]
    fn one_record_lost_doubled_or_changed_is_found_and_named() {
        type Tamper = fn(KitRecord) -> Vec<KitRecord>;
        let cases: [(Tamper, &str); 4] = [
            (|_| vec![], "1 missing on the target"),
            (|r| vec![r.clone(), r], "1 written more than once"),
            (
                |mut r| {
                    r.value = Some(r.value.unwrap().slice(1..));
                    vec![r]
                },
                "arrived changed",
            ),
            (
                |mut r| {
                    r.headers.clear();
                    vec![r]
                },
                ": headers",
            ),
        ];
        for (tamper, found) in cases {
            let (exit, text) = verdict(|topic, place, record| match (topic, place) {
                ("orders", 5) if record.value.is_some() => tamper(record),
                _ => vec![record],
            });
            assert_eq!(exit.code(), 4, "{text}");
            assert!(
                text.contains("DIFFERENT. 4 of 19 partitions differ"),
                "{text}"
            );
            assert!(text.contains(found), "{found} is not in\n{text}");
        }
    }

    #[test]
    fn a_target_that_lacks_a_topic_is_different() {
        let (source, target) = clusters(|_, _, record| vec![record]);
        target.delete_topic(&target_name("meters"));
        let verdict = Verdict::reach(&source, &target);
        assert_eq!(verdict.exit().code(), 4);
        assert_eq!(verdict.rows.iter().filter(|row| !row.equal).count(), 1);
    }
}
