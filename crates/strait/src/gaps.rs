//! `strait gaps`: what each partition has forwarded, left out and lost, from the positions on the target.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use strait_config::LinkConfig;
use strait_engine::{FlowKey, KnownPosition, SessionError, read_positions};
use strait_net::{Cluster, Runtime};
use strait_wire::{GapReason, Losses, Position};

use crate::exit::Exit;
use crate::links::{self, OfLinks};

/// One partition's line.
#[derive(Clone)]
struct Row {
    flow: FlowKey,
    known: Result<Box<Position>, String>,
}

/// Prints the positions of the configured links to stdout.
pub(crate) fn gaps(of: &OfLinks) -> Exit {
    let (config, chosen) = match links::read(of) {
        Ok(read) => read,
        Err(exit) => return exit,
    };
    let looked = links::look(&config, &chosen, async |rt, link, _, target| {
        Ok(read(rt, link, target).await?)
    });
    let (found, exit) = match looked {
        Ok(looked) => looked,
        Err(exit) => return exit,
    };
    let text = match of.json {
        true => json(&found),
        false => table(&found, Runtime::system().wall_ms()),
    };
    links::print(&text, exit)
}

async fn read(rt: &Runtime, link: &LinkConfig, target: Cluster) -> Result<Vec<Row>, SessionError> {
    let positions = read_positions(rt, target, &link.source).await?;
    let rows = positions.into_iter().filter_map(|(flow, known)| {
        let known = match known {
            KnownPosition::Strait(position) if position.link == link.name => Ok(position),
            // Another link's.
            KnownPosition::Strait(_) => return None,
            KnownPosition::MirrorMaker2 => Err("written by MirrorMaker 2".to_owned()),
            KnownPosition::Unreadable(why) => Err(why),
        };
        Some(Row { flow, known })
    });
    Ok(rows.collect())
}

/// What was left out of several flows, by reason.
fn totals(rows: &[Row]) -> (i64, BTreeMap<GapReason, i64>) {
    let (mut forwarded, mut gaps) = (0, BTreeMap::new());
    for position in rows.iter().filter_map(|row| row.known.as_ref().ok()) {
        forwarded += position.forwarded;
        for &(reason, offsets) in &position.gaps {
            *gaps.entry(reason).or_default() += offsets;
        }
    }
    (forwarded, gaps)
}

fn left_out(gaps: impl Iterator<Item = (GapReason, i64)>) -> String {
    let parts: Vec<String> = gaps
        .filter(|(_, offsets)| *offsets > 0)
        .map(|(reason, offsets)| format!("{reason} {offsets}"))
        .collect();
    if parts.is_empty() {
        "-".to_owned()
    } else {
        parts.join(", ")
    }
}

fn table(links: &[(&LinkConfig, Vec<Row>)], now_ms: i64) -> String {
    let mut text = String::new();
    for (link, rows) in links {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "link {}", link.name);
        if rows.is_empty() {
            text.push_str("no positions yet\n");
            continue;
        }
        let head = [
            "SOURCE",
            "TARGET",
            "NEXT SOURCE",
            "NEXT TARGET",
            "FORWARDED",
            "AGE",
            "LEFT OUT",
        ];
        let mut lines = vec![head.map(str::to_owned)];
        for row in rows {
            lines.push(match &row.known {
                Ok(p) => [
                    row.flow.to_string(),
                    format!("{}-{}", p.target_topic, p.target_partition),
                    p.source_next.to_string(),
                    p.target_next.to_string(),
                    p.forwarded.to_string(),
                    age(now_ms - p.wall_ms),
                    left_out(p.gaps.iter().copied()),
                ],
                Err(why) => {
                    let unknown = || "?".to_owned();
                    [
                        row.flow.to_string(),
                        unknown(),
                        unknown(),
                        unknown(),
                        unknown(),
                        unknown(),
                        why.clone(),
                    ]
                }
            });
        }
        let (forwarded, gaps) = totals(rows);
        lines.push([
            "total".to_owned(),
            String::new(),
            String::new(),
            String::new(),
            forwarded.to_string(),
            String::new(),
            left_out(gaps.into_iter()),
        ]);
        aligned(&mut text, &lines, 2..=5);
        let lost: Vec<[String; 4]> = rows.iter().flat_map(lost_lines).collect();
        if !lost.is_empty() {
            text.push('\n');
            let head = ["LOST FROM", "REASON", "OFFSETS", "COUNT"];
            let lines: Vec<_> = std::iter::once(head.map(str::to_owned))
                .chain(lost)
                .collect();
            aligned(&mut text, &lines, 2..=2);
        }
    }
    text
}

/// Appends the lines in columns; `right`: those with numbers.
pub(crate) fn aligned<const N: usize>(
    text: &mut String,
    lines: &[[String; N]],
    right: std::ops::RangeInclusive<usize>,
) {
    let mut widths = [0; N];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for line in lines {
        let cells = line.iter().zip(widths);
        let padded: Vec<String> = cells
            .enumerate()
            .map(|(column, (cell, width))| {
                if right.contains(&column) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        let _ = writeln!(text, "{}", padded.join("  ").trim_end());
    }
}

/// One line for each range of source offsets that the partition lost.
fn lost_lines(row: &Row) -> Vec<[String; 4]> {
    let Ok(position) = &row.known else {
        return Vec::new();
    };
    let line = |reason: GapReason, offsets: String, count: String| {
        [row.flow.to_string(), reason.to_string(), offsets, count]
    };
    let ranges = position.lost.ranges().iter().map(|range| {
        let offsets = format!("{}-{}", range.from, range.last());
        let count = if range.offsets < range.width() {
            format!("{} of {}", range.offsets, range.width())
        } else {
            range.offsets.to_string()
        };
        line(range.reason, offsets, count)
    });
    let earlier = unlisted(position)
        .map(|(reason, offsets)| line(reason, "not kept".to_owned(), offsets.to_string()));
    ranges.chain(earlier).collect()
}

/// What was lost and counted by a version that kept no ranges.
fn unlisted(position: &Position) -> impl Iterator<Item = (GapReason, i64)> {
    position.gaps.iter().filter_map(|&(reason, sum)| {
        let offsets = sum.saturating_sub(position.lost.offsets(reason));
        (reason.is_loss() && offsets > 0).then_some((reason, offsets))
    })
}

/// `3s`, `12m`, `5h`, `2d`.
fn age(ms: i64) -> String {
    let s = ms.max(0) / 1_000;
    match s {
        0..=119 => format!("{s}s"),
        120..=7_199 => format!("{}m", s / 60),
        7_200..=172_799 => format!("{}h", s / 3_600),
        _ => format!("{}d", s / 86_400),
    }
}

fn json(links: &[(&LinkConfig, Vec<Row>)]) -> String {
    let links: Vec<String> = links
        .iter()
        .map(|(link, rows)| {
            let flows: Vec<String> = rows.iter().map(json_row).collect();
            let (forwarded, gaps) = totals(rows);
            format!(
                "{{\"link\":{},\"flows\":[{}],\"total\":{{\"forwarded\":{forwarded},\"left_out\":{}}}}}",
                quoted(&link.name),
                flows.join(","),
                json_gaps(gaps.into_iter())
            )
        })
        .collect();
    format!("[{}]\n", links.join(","))
}

fn json_row(row: &Row) -> String {
    let flow = format!(
        "\"source_topic\":{},\"source_partition\":{}",
        quoted(&row.flow.topic),
        row.flow.partition
    );
    match &row.known {
        Ok(p) => format!(
            "{{{flow},\"target_topic\":{},\"target_partition\":{},\"source_next\":{},\"target_next\":{},\"forwarded\":{},\"left_out\":{},\"lost\":[{}],{}\"written_ms\":{}}}",
            quoted(&p.target_topic),
            p.target_partition,
            p.source_next,
            p.target_next,
            p.forwarded,
            json_gaps(p.gaps.iter().copied()),
            json_lost(&p.lost),
            json_unlisted(p),
            p.wall_ms
        ),
        Err(why) => format!("{{{flow},\"unreadable\":{}}}", quoted(why)),
    }
}

fn json_gaps(gaps: impl Iterator<Item = (GapReason, i64)>) -> String {
    let parts: Vec<String> = gaps
        .map(|(reason, offsets)| format!("{}:{offsets}", quoted(reason.as_str())))
        .collect();
    format!("{{{}}}", parts.join(","))
}

/// `to` is the last offset, as in the table.
fn json_lost(lost: &Losses) -> String {
    let parts: Vec<String> = lost
        .ranges()
        .iter()
        .map(|range| {
            format!(
                "{{\"reason\":{},\"from\":{},\"to\":{},\"offsets\":{}}}",
                quoted(range.reason.as_str()),
                range.from,
                range.last(),
                range.offsets
            )
        })
        .collect();
    parts.join(",")
}

/// A field of its own, where there is any.
fn json_unlisted(position: &Position) -> String {
    if unlisted(position).next().is_none() {
        return String::new();
    }
    format!("\"lost_not_kept\":{},", json_gaps(unlisted(position)))
}

pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use strait_config::{Pattern, TopicSelection};
    use strait_wire::{Isolation, PositionFlags, SyncKind};

    fn link() -> LinkConfig {
        let topics = TopicSelection::new(vec![Pattern::new("orders").unwrap()], Vec::new());
        LinkConfig::new("paris", "tokyo", topics)
    }

    fn row(partition: i32, gaps: Vec<(GapReason, i64)>) -> Row {
        let position = Position {
            kind: SyncKind::Periodic,
            isolation: Isolation::ReadCommitted,
            flags: PositionFlags::default(),
            source_next: 1_000,
            target_next: 994,
            forwarded: 990,
            producer_id: 1,
            producer_epoch: 0,
            next_sequence: 0,
            source_epoch: 0,
            source_topic_id: uuid::Uuid::nil(),
            target_topic_id: uuid::Uuid::nil(),
            target_partition: partition,
            wall_ms: 5_000,
            target_topic: "paris.orders".to_owned(),
            link: "paris->tokyo".to_owned(),
            gaps,
            lost: Losses::default(),
        };
        Row {
            flow: FlowKey {
                topic: "orders".to_owned(),
                partition,
            },
            known: Ok(Box::new(position)),
        }
    }

    fn lost(ranges: &[(GapReason, i64, i64)]) -> Losses {
        let mut losses = Losses::default();
        for &(reason, from, to) in ranges {
            losses.add(reason, from, to);
        }
        losses
    }

    /// A partition that lost these ranges.
    fn losing(partition: i32, gaps: Vec<(GapReason, i64)>, lost: Losses) -> Row {
        let mut row = row(partition, gaps);
        if let Ok(position) = &mut row.known {
            position.lost = lost;
        }
        row
    }

    fn rows() -> Vec<Row> {
        vec![
            losing(
                0,
                vec![(GapReason::Control, 8), (GapReason::Refused, 2)],
                lost(&[(GapReason::Refused, 7, 8), (GapReason::Refused, 512, 513)]),
            ),
            row(1, vec![(GapReason::Control, 1)]),
            Row {
                flow: FlowKey {
                    topic: "orders".to_owned(),
                    partition: 2,
                },
                known: Err("written by MirrorMaker 2".to_owned()),
            },
        ]
    }

    #[test]
    fn each_partition_has_its_line_and_the_totals_follow() {
        let link = link();
        let text = table(&[(&link, rows())], 8_000);
        assert_eq!(
            text,
            "link paris->tokyo\n\
             SOURCE    TARGET          NEXT SOURCE  NEXT TARGET  FORWARDED  AGE  LEFT OUT\n\
             orders-0  paris.orders-0         1000          994        990   3s  control 8, refused 2\n\
             orders-1  paris.orders-1         1000          994        990   3s  control 1\n\
             orders-2  ?                         ?            ?          ?    ?  written by MirrorMaker 2\n\
             total                                                    1980       control 9, refused 2\n\
             \n\
             LOST FROM  REASON   OFFSETS  COUNT\n\
             orders-0   refused      7-7  1\n\
             orders-0   refused  512-512  1\n"
        );
        assert_eq!(
            table(&[(&link, Vec::new())], 0),
            "link paris->tokyo\nno positions yet\n"
        );
    }

    #[test]
    fn only_partitions_with_losses_are_listed_below() {
        use GapReason::{Expired, Refused};
        // Every other record is refused: more ranges than are kept.
        let many: Vec<_> = (0..40).map(|i| (Refused, 2 * i, 2 * i + 1)).collect();
        let mut dense = many.clone();
        dense.push((Expired, 1_000, 2_000));
        let rows = vec![
            losing(0, vec![(Expired, 1_000), (Refused, 40)], lost(&dense)),
            row(1, vec![(GapReason::Control, 1)]),
            // Some of it was counted before ranges were kept, and one range was lost twice.
            losing(
                2,
                vec![(Expired, 250), (Refused, 3)],
                lost(&[(Expired, 100, 200), (Expired, 100, 200)]),
            ),
        ];
        let link = link();
        let machines = json(&[(&link, rows.clone())]);
        assert!(
            machines.contains("],\"lost_not_kept\":{\"expired\":50,\"refused\":3},\"written_ms\""),
            "{machines}"
        );
        let text = table(&[(&link, rows)], 8_000);
        let lines: Vec<&str> = text.lines().skip_while(|l| !l.is_empty()).collect();
        assert_eq!(
            lines[..4],
            [
                "",
                "LOST FROM  REASON     OFFSETS  COUNT",
                "orders-0   expired  1000-1999  1000",
                "orders-0   refused       0-18  10 of 19",
            ]
        );
        assert_eq!(lines[4], "orders-0   refused      20-20  1");
        assert_eq!(
            lines[lines.len() - 5..],
            [
                "orders-0   refused      78-78  1",
                "orders-2   expired    100-199  100",
                "orders-2   expired    100-199  100",
                "orders-2   expired   not kept  50",
                "orders-2   refused   not kept  3",
            ]
        );
    }

    #[test]
    fn machines_get_the_same() {
        let link = link();
        let text = json(&[(&link, rows())]);
        assert!(text.starts_with("[{\"link\":\"paris->tokyo\",\"flows\":[{\"source_topic\":\"orders\",\"source_partition\":0,\"target_topic\":\"paris.orders\",\"target_partition\":0,\"source_next\":1000,\"target_next\":994,\"forwarded\":990,\"left_out\":{\"control\":8,\"refused\":2},\"lost\":[{\"reason\":\"refused\",\"from\":7,\"to\":7,\"offsets\":1},{\"reason\":\"refused\",\"from\":512,\"to\":512,\"offsets\":1}],\"written_ms\":5000}"), "{text}");
        assert!(
            text.contains("\"left_out\":{\"control\":1},\"lost\":[],"),
            "{text}"
        );
        assert!(
            text.ends_with(
                "\"total\":{\"forwarded\":1980,\"left_out\":{\"control\":9,\"refused\":2}}}]\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn ages_have_one_unit() {
        let ages = [900, 119_000, 120_000, 7_200_000, 172_800_000].map(age);
        assert_eq!(ages, ["0s", "119s", "2m", "2h", "2d"]);
    }
}
