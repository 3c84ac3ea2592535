//! The groups in what `strait plan` prints.

use std::fmt::Write as _;

use strait_mirror::{PlannedGroups, PlannedKind};

use crate::gaps::quoted;

/// Names that are told.
const TOLD: usize = 10;

/// For people; nothing where a link looks after no groups.
pub(crate) fn text(groups: Option<&Result<PlannedGroups, String>>) -> String {
    let Some(groups) = groups else {
        return String::new();
    };
    let mut out = "\nconsumer groups\n".to_owned();
    // Writing to a String cannot fail.
    let _ = match groups {
        Err(why) => writeln!(out, "not known: {why}"),
        Ok(groups) => lines(&mut out, groups),
    };
    out
}

fn lines(out: &mut String, groups: &PlannedGroups) -> std::fmt::Result {
    kind(out, &groups.consumer, "", "commits")?;
    if groups.share.selected > 0 {
        kind(out, &groups.share, "share groups: ", "start offsets")?;
    }
    for (group, why) in &groups.refused {
        writeln!(out, "REFUSED {group}: {why}")?;
    }
    Ok(())
}

/// The groups of one kind, and what offsets of it are called.
fn kind(out: &mut String, groups: &PlannedKind, named: &str, offsets: &str) -> std::fmt::Result {
    if let Some(why) = &groups.untranslated {
        return writeln!(out, "{named}none is looked after: {why}");
    }
    writeln!(
        out,
        "{named}{} selected by name, {} of them with {offsets} on these topics",
        groups.selected, groups.with_offsets
    )?;
    match &groups.active {
        None => writeln!(
            out,
            "{named}which of them have members on the target, its brokers do not tell"
        ),
        Some(active) if active.is_empty() => Ok(()),
        Some(active) => {
            let told: Vec<&str> = active.iter().take(TOLD).map(String::as_str).collect();
            let more = match active.len().saturating_sub(TOLD) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            writeln!(
                out,
                "{named}{} with members on the target, which are left alone: {}{more}",
                active.len(),
                told.join(", ")
            )
        }
    }
}

/// For machines: an object or null.
pub(crate) fn json(groups: Option<&Result<PlannedGroups, String>>) -> String {
    match groups {
        None => "null".to_owned(),
        Some(Err(why)) => format!("{{\"unknown\":{}}}", quoted(why)),
        Some(Ok(groups)) => {
            let refused = groups.refused.iter().map(|(group, why)| {
                format!("{{\"group\":{},\"why\":{}}}", quoted(group), quoted(why))
            });
            format!(
                "{{{},\"refused\":[{}],\"share\":{{{}}}}}",
                fields(&groups.consumer, "with_commits"),
                refused.collect::<Vec<_>>().join(","),
                fields(&groups.share, "with_start_offsets")
            )
        }
    }
}

fn fields(groups: &PlannedKind, offsets: &str) -> String {
    let list = |names: &Vec<String>| {
        let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        format!("[{}]", names.join(","))
    };
    let active = groups.active.as_ref().map_or("null".to_owned(), list);
    let untranslated = groups.untranslated.as_deref();
    format!(
        "\"selected\":{},\"{offsets}\":{},\"active\":{active},\"untranslated\":{}",
        groups.selected,
        groups.with_offsets,
        untranslated.map_or("null".to_owned(), quoted)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_alone_and_what_is_refused_is_named() {
        let groups = PlannedGroups {
            consumer: PlannedKind {
                selected: 12,
                with_offsets: 7,
                active: Some((0..12).map(|n| format!("g{n}")).collect()),
                untranslated: None,
            },
            share: PlannedKind {
                selected: 2,
                with_offsets: 1,
                active: Some(vec!["hand".to_owned()]),
                untranslated: None,
            },
            refused: vec![("secret".to_owned(), "a right".to_owned())],
            unlisted: Vec::new(),
        };
        let told = text(Some(&Ok(groups.clone())));
        assert!(told.contains("12 selected by name, 7 of them"), "{told}");
        assert!(told.contains("left alone: g0, g1, "), "{told}");
        assert!(
            told.contains(
                "g9 and 2 more\nshare groups: 2 selected by name, 1 of them with start offsets"
            ),
            "{told}"
        );
        assert!(
            told.ends_with("share groups: 1 with members on the target, which are left alone: hand\nREFUSED secret: a right\n"),
            "{told}"
        );
        let machines = json(Some(&Ok(groups)));
        assert!(
            machines.contains("\"with_commits\":7,\"active\":[\"g0\","),
            "{machines}"
        );
        assert!(
            machines.contains(
                "\"share\":{\"selected\":2,\"with_start_offsets\":1,\"active\":[\"hand\"],"
            ),
            "{machines}"
        );
        let why = PlannedKind {
            untranslated: Some("others".to_owned()),
            ..PlannedKind::default()
        };
        let shared = PlannedGroups {
            consumer: why,
            ..PlannedGroups::default()
        };
        assert!(text(Some(&Ok(shared))).ends_with("\nnone is looked after: others\n"));
        assert_eq!((text(None), json(None)), (String::new(), "null".to_owned()));
    }
}
