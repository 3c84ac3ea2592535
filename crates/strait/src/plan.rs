//! `strait plan`: what each link would do, before anything is written.

use std::fmt::Write as _;
use std::time::Duration;

use strait_config::LinkConfig;
use strait_mirror::{Change, Plan, PlannedTopic};

use crate::args::PlanArgs;
use crate::exit::Exit;
use crate::gaps::{aligned, quoted};
use crate::links::{self, size};
use crate::plan_groups;

/// Between the two looks that the source's rate is taken from.
const WATCH: Duration = Duration::from_secs(3);
const HOUR: f64 = 3_600.0;
const DAY: f64 = 86_400.0;

/// Prints the plans to stdout. The code says whether something would be refused.
pub(crate) fn plan(args: &PlanArgs) -> Exit {
    let (config, chosen) = match links::read(&args.of) {
        Ok(read) => read,
        Err(exit) => return exit,
    };
    let planned = links::look(&config, &chosen, async |rt, link, source, target| {
        strait_mirror::plan(rt, link, &source, &target, WATCH).await
    });
    let (plans, exit) = match planned {
        Ok(planned) => planned,
        Err(exit) => return exit,
    };
    let refused = plans.iter().any(|(_, plan)| {
        let groups = plan.groups.as_ref().and_then(|groups| groups.as_ref().ok());
        !plan.refused.is_empty() || groups.is_some_and(|groups| !groups.refused.is_empty())
    });
    let told: Vec<String> = plans
        .iter()
        .map(|(link, plan)| match args.of.json {
            true => json(link, plan, args.bandwidth),
            false => text(link, plan, args.bandwidth),
        })
        .collect();
    let whole = match args.of.json {
        true => format!("[{}]\n", told.join(",")),
        false => told.join("\n"),
    };
    let done = match (exit, refused) {
        (Exit::Ok, true) => Exit::Different,
        _ => exit,
    };
    links::print(&whole, done)
}

/// All topics together.
struct Total {
    offsets: i64,
    bytes: Option<u64>,
    per_second: f64,
    bytes_per_second: Option<f64>,
    new_topics: usize,
    new_partitions: usize,
    new_replicas: usize,
    disk: Option<u64>,
}

/// What all of them make together: 0 and not -0, which `sum` begins with, where there are none.
fn rate(of_topics: impl Iterator<Item = f64>) -> f64 {
    of_topics.fold(0.0, |sum, of_topic| sum + of_topic)
}

impl Total {
    fn of(plan: &Plan) -> Self {
        let topics = &plan.topics;
        let made = |t: &PlannedTopic| match t.change {
            Change::Create => t.partitions,
            Change::Grow(from) => t.partitions.saturating_sub(from),
            Change::Exists => 0,
        };
        let known: Option<Vec<u64>> = topics.iter().map(|t| t.bytes).collect();
        let with_replicas = topics.iter().map(|t| Some(t.bytes? * t.replicas as u64));
        let rates: Option<Vec<f64>> = topics.iter().map(|t| t.bytes_per_second).collect();
        Self {
            offsets: topics.iter().map(|t| t.offsets).sum(),
            bytes: known.map(|bytes| bytes.iter().sum()),
            per_second: rate(topics.iter().map(|t| t.offsets_per_second)),
            bytes_per_second: rates.map(|rates| rate(rates.into_iter())),
            new_topics: topics.iter().filter(|t| t.change == Change::Create).count(),
            new_partitions: topics.iter().map(made).sum(),
            new_replicas: topics.iter().map(|t| made(t) * t.replicas).sum(),
            disk: with_replicas.sum(),
        }
    }

    /// Bytes a second to keep up, to catch up within an hour, and within a day.
    fn bandwidths(&self) -> Option<[f64; 3]> {
        let (bytes, rate) = (self.bytes? as f64, self.bytes_per_second?);
        Some([rate, rate + bytes / HOUR, rate + bytes / DAY])
    }

    /// Seconds until a mirror of this many bytes a second has caught up; none if never.
    fn seconds_at(&self, bandwidth: u64) -> Option<f64> {
        let left = bandwidth as f64 - self.bytes_per_second?;
        let bytes = self.bytes? as f64;
        match bytes > 0.0 {
            true => (left > 0.0).then_some(bytes / left),
            false => Some(0.0),
        }
    }
}

fn text(link: &LinkConfig, plan: &Plan, bandwidth: u64) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_text(&mut out, link, plan, bandwidth);
    out
}

fn write_text(
    out: &mut String,
    link: &LinkConfig,
    plan: &Plan,
    bandwidth: u64,
) -> std::fmt::Result {
    let (source, target) = (&link.source, &link.target);
    let brokers = |count| match count {
        1 => "1 broker".to_owned(),
        count => format!("{count} brokers"),
    };
    writeln!(
        out,
        "link {}: from {source} ({}) to {target} ({}); nothing was written",
        link.name,
        brokers(plan.brokers.0),
        brokers(plan.brokers.1)
    )?;
    if plan.topics.is_empty() {
        out.push_str("no topic would be mirrored\n");
    } else {
        let head = [
            "TOPIC",
            "ON THE TARGET",
            "PARTITIONS",
            "REPLICAS",
            "OFFSETS",
            "BYTES",
            "WOULD BE",
        ];
        let mut lines = vec![head.map(str::to_owned)];
        lines.extend(plan.topics.iter().map(|t| {
            [
                t.source.clone(),
                t.target.clone(),
                t.partitions.to_string(),
                t.replicas.to_string(),
                t.offsets.to_string(),
                shown(t.bytes.map(|b| b as f64)),
                match t.change {
                    Change::Create => "created".to_owned(),
                    Change::Exists => "used as it is".to_owned(),
                    Change::Grow(from) => format!(
                        "given {} more partitions",
                        t.partitions.saturating_sub(from)
                    ),
                },
            ]
        }));
        aligned(out, &lines, 2..=5);
    }
    if !plan.unseen.is_empty() {
        let unseen = plan.unseen.join(", ");
        writeln!(
            out,
            "\nnot seen on cluster {source}, and mirrored as soon as they are: {unseen}"
        )?;
    }
    let taken: Vec<[String; 2]> = plan.topics.iter().filter_map(taken_over).collect();
    if !taken.is_empty() {
        out.push_str("\ntaken over from MirrorMaker 2\n");
        aligned(out, &taken, 2..=2);
    }
    let settings: Vec<[String; 2]> = plan.topics.iter().flat_map(settings).collect();
    if !settings.is_empty() {
        out.push_str("\nsettings that would be set\n");
        aligned(out, &settings, 2..=2);
    }
    match &plan.acls {
        None => {}
        Some(Ok(acls)) if acls.is_empty() => out.push_str("\nno ACLs would be made\n"),
        Some(Ok(acls)) => {
            out.push_str("\nACLs that would be made\n");
            for acl in acls {
                writeln!(out, "{acl}")?;
            }
        }
        Some(Err(why)) => writeln!(out, "\nno ACLs would be made: {why}")?,
    }
    out.push_str(&plan_groups::text(plan.groups.as_ref()));
    let total = Total::of(plan);
    let mut facts = vec![
        fact(
            "to copy now",
            format!(
                "{} offsets, {}",
                total.offsets,
                shown(total.bytes.map(|b| b as f64))
            ),
        ),
        fact(
            "written to the source",
            format!(
                "{:.1} offsets/s, {}/s, seen over {} s",
                total.per_second,
                shown(total.bytes_per_second),
                plan.watched.as_secs()
            ),
        ),
        fact(
            "new on the target",
            format!(
                "{} topics, {} partitions with {} replicas, {} of disk",
                total.new_topics,
                total.new_partitions,
                total.new_replicas,
                shown(total.disk.map(|b| b as f64))
            ),
        ),
    ];
    if let Some([keep_up, hour, day]) = total.bandwidths() {
        facts.push(fact(
            "bandwidth",
            format!(
                "{}/s to keep up; {}/s to catch up within an hour, {}/s within a day",
                size(keep_up),
                size(hour),
                size(day)
            ),
        ));
        let at = size(bandwidth as f64);
        facts.push(fact(
            "time",
            match total.seconds_at(bandwidth) {
                Some(seconds) => format!("{} at {at}/s", time(seconds)),
                None => format!("never at {at}/s: more is written to the source"),
            },
        ));
    }
    out.push('\n');
    aligned(out, &facts, 2..=2);
    if !plan.unknown.is_empty() {
        out.push_str("\nnot known\n");
        for what in &plan.unknown {
            writeln!(out, "{what}")?;
        }
    }
    if !plan.refused.is_empty() {
        out.push_str("\nREFUSED\n");
        for (topic, why) in &plan.refused {
            writeln!(out, "{topic}: {why}")?;
        }
    }
    Ok(())
}

fn fact(name: &str, text: String) -> [String; 2] {
    [name.to_owned(), text]
}

/// Where MirrorMaker 2 says that it stopped. What it wrote behind that is found on the target at the start.
fn taken_over(topic: &PlannedTopic) -> Option<[String; 2]> {
    let taken = topic.takeover?;
    let partitions = match taken.partitions {
        1 => "1 partition".to_owned(),
        partitions => format!("{partitions} partitions"),
    };
    let at = match taken.from == taken.to {
        true => format!("offset {}", taken.from),
        false => format!("offsets {} to {}", taken.from, taken.to),
    };
    Some([
        topic.target.clone(),
        format!("{partitions} at {at}, or behind what it mirrored since"),
    ])
}

fn settings(topic: &PlannedTopic) -> Vec<[String; 2]> {
    let line = |what: String| [topic.target.clone(), what];
    let sets = topic
        .sets
        .iter()
        .map(|(name, value)| line(format!("{name}={value}")));
    let deletes = topic
        .deletes
        .iter()
        .map(|name| line(format!("{name} back to its default")));
    sets.chain(deletes).collect()
}

fn shown(bytes: Option<f64>) -> String {
    bytes.map_or_else(|| "?".to_owned(), size)
}

/// `40 s`, `12 min`, `5 h`, `3 d`.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 2.0 * HOUR => format!("{:.0} min", s / 60.0),
        s if s < 2.0 * DAY => format!("{:.0} h", s / HOUR),
        s => format!("{:.0} d", s / DAY),
    }
}

fn json(link: &LinkConfig, plan: &Plan, bandwidth: u64) -> String {
    let topics: Vec<String> = plan.topics.iter().map(json_topic).collect();
    let refused: Vec<String> = plan
        .refused
        .iter()
        .map(|(topic, why)| format!("{{\"topic\":{},\"why\":{}}}", quoted(topic), quoted(why)))
        .collect();
    let total = Total::of(plan);
    let bandwidths = match total.bandwidths() {
        Some([keep_up, hour, day]) => {
            format!(
                "{{\"keep_up\":{keep_up:.0},\"within_an_hour\":{hour:.0},\"within_a_day\":{day:.0}}}"
            )
        }
        None => "null".to_owned(),
    };
    let acls = match &plan.acls {
        None => "null".to_owned(),
        Some(Ok(acls)) => list(acls),
        Some(Err(why)) => format!("{{\"unknown\":{}}}", quoted(why)),
    };
    let seconds = number(total.seconds_at(bandwidth).map(f64::round));
    format!(
        "{{\"link\":{},\"topics\":[{}],\"unseen\":{},\"acls\":{acls},\"groups\":{},\"offsets\":{},\"bytes\":{},\"offsets_per_second\":{:.1},\"bytes_per_second\":{},\"new_topics\":{},\"new_partitions\":{},\"new_replicas\":{},\"target_bytes\":{},\"bandwidth\":{bandwidths},\"seconds\":{seconds},\"seconds_at\":{bandwidth},\"unknown\":{},\"refused\":[{}]}}",
        quoted(&link.name),
        topics.join(","),
        list(&plan.unseen),
        plan_groups::json(plan.groups.as_ref()),
        total.offsets,
        number(total.bytes),
        total.per_second,
        number(total.bytes_per_second.map(f64::round)),
        total.new_topics,
        total.new_partitions,
        total.new_replicas,
        number(total.disk),
        list(&plan.unknown),
        refused.join(",")
    )
}

fn json_topic(topic: &PlannedTopic) -> String {
    let sets: Vec<String> = topic
        .sets
        .iter()
        .map(|(name, value)| format!("{}:{}", quoted(name), quoted(value)))
        .collect();
    let taken = topic.takeover.map_or_else(
        || "null".to_owned(),
        |t| {
            let (partitions, from, to) = (t.partitions, t.from, t.to);
            format!("{{\"partitions\":{partitions},\"from\":{from},\"to\":{to}}}")
        },
    );
    let change = match topic.change {
        Change::Create => "create",
        Change::Exists => "exists",
        Change::Grow(_) => "grow",
    };
    format!(
        "{{\"source\":{},\"target\":{},\"change\":\"{change}\",\"partitions\":{},\"replicas\":{},\"set\":{{{}}},\"take_off\":{},\"taken_over\":{taken},\"offsets\":{},\"bytes\":{}}}",
        quoted(&topic.source),
        quoted(&topic.target),
        topic.partitions,
        topic.replicas,
        sets.join(","),
        list(&topic.deletes),
        topic.offsets,
        number(topic.bytes)
    )
}

fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(","))
}

fn number(value: Option<impl std::fmt::Display>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use strait_config::TopicSelection;

    fn planned(name: &str, change: Change, bytes: Option<u64>) -> PlannedTopic {
        PlannedTopic {
            source: name.to_owned(),
            target: format!("A.{name}"),
            change,
            partitions: 4,
            replicas: 3,
            sets: [("retention.ms".to_owned(), "1".to_owned())].into(),
            deletes: vec!["segment.ms".to_owned()],
            takeover: None,
            offsets: 1_000,
            bytes,
            offsets_per_second: 10.0,
            bytes_per_second: bytes.map(|_| 1_000.0),
        }
    }

    fn plan_of(topics: Vec<PlannedTopic>) -> Plan {
        Plan {
            topics,
            refused: vec![("long".to_owned(), "its name".to_owned())],
            unseen: Vec::new(),
            acls: Some(Ok(vec!["A.a (Read for User:alice)".to_owned()])),
            groups: None,
            brokers: (3, 1),
            unknown: Vec::new(),
            watched: Duration::from_secs(3),
        }
    }

    fn link() -> LinkConfig {
        LinkConfig::new("A", "B", TopicSelection::new(Vec::new(), Vec::new()))
    }

    #[test]
    fn totals_count_replicas_and_what_is_new() {
        let plan = plan_of(vec![
            planned("a", Change::Create, Some(3_600_000)),
            planned("b", Change::Grow(3), Some(3_600_000)),
            planned("c", Change::Exists, Some(0)),
        ]);
        let total = Total::of(&plan);
        assert_eq!(
            (total.new_topics, total.new_partitions, total.new_replicas),
            (1, 5, 15)
        );
        assert_eq!(total.disk, Some(21_600_000));
        let [keep_up, hour, _] = total.bandwidths().unwrap();
        assert_eq!((keep_up, hour), (3_000.0, 5_000.0));
        assert_eq!(total.seconds_at(3_000), None);
        assert_eq!(total.seconds_at(10_200), Some(1_000.0));
    }

    #[test]
    fn nothing_to_mirror_is_a_rate_of_nothing() {
        let plan = plan_of(Vec::new());
        let told = text(&link(), &plan, 1_000);
        assert!(
            told.contains("  0.0 offsets/s, 0 B/s, seen over 3 s\n"),
            "{told}"
        );
        assert!(!json(&link(), &plan, 1_000).contains("-0"), "{told}");
    }

    #[test]
    fn refusals_come_last_and_bytes_that_are_not_known_are_not_guessed() {
        let plan = plan_of(vec![planned("a", Change::Create, None)]);
        let told = text(&link(), &plan, 1_000);
        assert!(told.ends_with("\nREFUSED\nlong: its name\n"), "{told}");
        assert!(told.contains("1000 offsets, ?"), "{told}");
        assert!(!told.contains("bandwidth"), "{told}");
        let machines = json(&link(), &plan, 1_000);
        assert!(machines.contains("\"bytes\":null"), "{machines}");
        assert!(
            machines.contains("\"take_off\":[\"segment.ms\"]"),
            "{machines}"
        );
    }
}
