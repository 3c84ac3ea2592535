//! `strait offsets back`: what a group has read on the target need not be read again on the source.

use strait_config::LinkConfig;
use strait_mirror::{Back, ReadBack, read_back};

use crate::args::BackArgs;
use crate::exit::Exit;
use crate::gaps::{aligned, quoted};
use crate::links;
use crate::output::complain;

/// Prints offsets of the source to stdout.
pub(crate) fn back(args: &BackArgs) -> Exit {
    let (config, chosen) = match links::read(&args.of) {
        Ok(read) => read,
        Err(exit) => return exit,
    };
    let looked = links::look(&config, &chosen, async |rt, link, source, target| {
        read_back(rt, link, &source, &target, &args.group).await
    });
    let (found, exit) = match looked {
        Ok(looked) => looked,
        Err(exit) => return exit,
    };
    for (link, back) in &found {
        for line in left_out(back, args.csv) {
            complain(format_args!("link {}: {line}", link.name));
        }
    }
    let (links, found): (Vec<&LinkConfig>, Vec<Vec<ReadBack>>) = found
        .into_iter()
        .map(|(link, back)| (link, back.read))
        .unzip();
    let text = match (args.csv, args.of.json) {
        (true, _) => csv(&found),
        (_, true) => json(&links, &found),
        _ => table(&found),
    };
    links::print(&text, exit)
}

/// What is not printed, and why; told on stderr, whatever stdout is for.
fn left_out(back: &Back, csv: bool) -> Vec<String> {
    let untold = back.left_out.iter();
    let mut lines: Vec<String> = untold
        .map(|(place, why)| format!("{place} is left out: {why}"))
        .collect();
    let behind = back.read.iter().filter(|one| csv && !further(one));
    lines.extend(behind.map(|one| {
        let (stands, offset) = (one.on_source.unwrap_or_default(), one.offset);
        format!(
            "{} is left out: the group stands at {stands} on the source, and has read up to {offset} by what it has committed on the target",
            one.flow
        )
    }));
    lines
}

fn table(found: &[Vec<ReadBack>]) -> String {
    let head = [
        "ON TARGET",
        "ON SOURCE",
        "TARGET COMMIT",
        "SOURCE COMMIT",
        "READ UP TO",
        "HOW",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(found.iter().flatten().map(|one| {
        let dash = || "-".to_owned();
        [
            format!("{}-{}", one.topic, one.partition),
            one.flow.to_string(),
            one.committed.to_string(),
            one.on_source.map_or_else(dash, |n| n.to_string()),
            one.offset.to_string(),
            how(one).to_owned(),
        ]
    }));
    if lines.len() == 1 {
        return "no committed offsets of mirrored topics\n".to_owned();
    }
    let mut text = String::new();
    aligned(&mut text, &lines, 2..=4);
    text
}

fn how(one: &ReadBack) -> &'static str {
    match one.exact {
        true => "exact",
        false => "lower bound",
    }
}

/// Only forward: what a group has read on the source counts as well.
fn csv(found: &[Vec<ReadBack>]) -> String {
    let line =
        |one: &ReadBack| format!("{},{},{}\n", one.flow.topic, one.flow.partition, one.offset);
    let forward = found.iter().flatten().filter(|one| further(one));
    forward.map(line).collect()
}

fn further(one: &ReadBack) -> bool {
    one.on_source.is_none_or(|stands| stands < one.offset)
}

fn json(links: &[&LinkConfig], found: &[Vec<ReadBack>]) -> String {
    let mut rows = Vec::new();
    for (link, found) in links.iter().zip(found) {
        rows.extend(found.iter().map(|one| {
            let on_source = one.on_source.map_or_else(|| "null".to_owned(), |n| n.to_string());
            format!(
                "{{\"link\":{},\"target_topic\":{},\"target_partition\":{},\"target_offset\":{},\"source_topic\":{},\"source_partition\":{},\"source_committed\":{on_source},\"source_offset\":{},\"how\":{}}}",
                quoted(&link.name),
                quoted(&one.topic),
                one.partition,
                one.committed,
                quoted(&one.flow.topic),
                one.flow.partition,
                one.offset,
                quoted(how(one))
            )
        }));
    }
    format!("[{}]\n", rows.join(","))
}

#[cfg(test)]
mod tests {
    use strait_engine::FlowKey;

    use super::*;

    fn found() -> Vec<Vec<ReadBack>> {
        let one = |partition, committed, offset, exact, on_source| ReadBack {
            flow: FlowKey {
                topic: "orders".to_owned(),
                partition,
            },
            topic: "orders.A".to_owned(),
            partition,
            committed,
            offset,
            exact,
            on_source,
        };
        vec![vec![
            one(0, 202, 200, true, Some(50)),
            one(1, 190, 188, false, None),
            one(2, 7, 7, true, Some(1_000)),
        ]]
    }

    #[test]
    fn people_get_a_table() {
        assert_eq!(
            table(&found()),
            "ON TARGET   ON SOURCE  TARGET COMMIT  SOURCE COMMIT  READ UP TO  HOW\n\
             orders.A-0  orders-0             202             50         200  exact\n\
             orders.A-1  orders-1             190              -         188  lower bound\n\
             orders.A-2  orders-2               7           1000           7  exact\n"
        );
        assert_eq!(table(&[]), "no committed offsets of mirrored topics\n");
    }

    #[test]
    fn kafkas_own_command_gets_what_goes_forward() {
        assert_eq!(csv(&found()), "orders,0,200\norders,1,188\n");
    }

    #[test]
    fn what_is_not_printed_is_told() {
        let mut back = Back {
            read: found().remove(0),
            ..Back::default()
        };
        assert!(left_out(&back, false).is_empty());
        let place = FlowKey {
            topic: "orders.A".to_owned(),
            partition: 3,
        };
        back.left_out
            .push((place, "it was created anew".to_owned()));
        assert_eq!(
            left_out(&back, true),
            [
                "orders.A-3 is left out: it was created anew",
                "orders-2 is left out: the group stands at 1000 on the source, and has read up to 7 by what it has committed on the target",
            ]
        );
    }
}
