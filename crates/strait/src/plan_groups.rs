//! The groups in what `strait plan` prints.

use std::fmt::Write as _;

use strait_mirror::PlannedGroups;

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
    if let Some(why) = &groups.untranslated {
        return writeln!(out, "none is looked after: {why}");
    }
    writeln!(
        out,
        "{} selected by name, {} of them with commits on these topics",
        groups.selected, groups.with_commits
    )?;
    match &groups.active {
        None => writeln!(
            out,
            "which of them have members on the target, its brokers do not tell"
        )?,
        Some(active) if active.is_empty() => {}
        Some(active) => {
            let named: Vec<&str> = active.iter().take(TOLD).map(String::as_str).collect();
            let more = match active.len().saturating_sub(TOLD) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            writeln!(
                out,
                "{} with members on the target, which are left alone: {}{more}",
                active.len(),
                named.join(", ")
            )?;
        }
    }
    for (group, why) in &groups.refused {
        writeln!(out, "REFUSED {group}: {why}")?;
    }
    Ok(())
}

/// For machines: an object or null.
pub(crate) fn json(groups: Option<&Result<PlannedGroups, String>>) -> String {
    let list = |names: &[String]| {
        let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        format!("[{}]", names.join(","))
    };
    match groups {
        None => "null".to_owned(),
        Some(Err(why)) => format!("{{\"unknown\":{}}}", quoted(why)),
        Some(Ok(groups)) => {
            let active = groups.active.as_deref().map_or("null".to_owned(), list);
            let refused = groups.refused.iter().map(|(group, why)| {
                format!("{{\"group\":{},\"why\":{}}}", quoted(group), quoted(why))
            });
            let untranslated = groups.untranslated.as_deref();
            format!(
                "{{\"selected\":{},\"with_commits\":{},\"active\":{active},\"refused\":[{}],\"untranslated\":{}}}",
                groups.selected,
                groups.with_commits,
                refused.collect::<Vec<_>>().join(","),
                untranslated.map_or("null".to_owned(), quoted)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_alone_and_what_is_refused_is_named() {
        let groups = PlannedGroups {
            unlisted: Vec::new(),
            selected: 12,
            with_commits: 7,
            active: Some((0..12).map(|n| format!("g{n}")).collect()),
            refused: vec![("secret".to_owned(), "a right".to_owned())],
            untranslated: None,
        };
        let told = text(Some(&Ok(groups.clone())));
        assert!(told.contains("12 selected by name, 7 of them"), "{told}");
        assert!(told.contains("left alone: g0, g1, "), "{told}");
        assert!(
            told.contains("g9 and 2 more\nREFUSED secret: a right\n"),
            "{told}"
        );
        let machines = json(Some(&Ok(groups)));
        assert!(
            machines.contains("\"with_commits\":7,\"active\":[\"g0\","),
            "{machines}"
        );
        let shared = PlannedGroups {
            untranslated: Some("others".to_owned()),
            ..PlannedGroups::default()
        };
        assert!(text(Some(&Ok(shared))).ends_with("none is looked after: others\n"));
        assert_eq!((text(None), json(None)), (String::new(), "null".to_owned()));
    }
}
