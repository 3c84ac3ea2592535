//! What groups have left to read, as it is printed.

use strait_mirror::UnreadTopic;

use crate::gaps::{aligned, quoted};

/// `1 group`, `3 groups`.
pub(crate) fn count(n: usize, one: &str, many: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        _ => format!("{n} {many}"),
    }
}

/// `billing has 12 records left in orders.A`.
pub(crate) fn unread_text(unread: &UnreadTopic) -> String {
    let records = match (unread.left.records, unread.unknown) {
        (1, 0) if unread.left.exact => "1 record".to_owned(),
        _ => format!("{} records", number(unread)),
    };
    format!("{} has {records} left in {}", unread.group, unread.topic)
}

fn number(unread: &UnreadTopic) -> String {
    let records = unread.left.records;
    match (unread.unknown, unread.left.exact) {
        (0, true) => records.to_string(),
        (0, false) => format!("at most {records}"),
        // What it holds is not known of some partitions, and may be anything.
        (_, true) => format!("at least {records}"),
        (_, false) => "?".to_owned(),
    }
}

/// What groups have left, one line for each group and topic.
pub(crate) fn unread_table(out: &mut String, left: &[UnreadTopic]) {
    let mut lines = vec![["GROUP", "MIRRORED TOPIC", "RECORDS LEFT", ""].map(str::to_owned)];
    lines.extend(left.iter().map(|unread| {
        let mut notes = Vec::new();
        for (n, what) in [
            (unread.uncommitted, "nothing committed in"),
            (unread.unknown, "not known what is in"),
        ] {
            if n > 0 {
                notes.push(format!("{what} {}", count(n, "partition", "partitions")));
            }
        }
        [
            unread.group.clone(),
            unread.topic.clone(),
            number(unread),
            notes.join("; "),
        ]
    }));
    aligned(out, &lines, 2..=2);
}

/// The same for a machine.
pub(crate) fn unread_json(left: &[UnreadTopic]) -> String {
    let rows: Vec<String> = left
        .iter()
        .map(|unread| {
            format!(
                "{{\"group\":{},\"topic\":{},\"records_left\":{},\"exact\":{},\"uncommitted_partitions\":{},\"unknown_partitions\":{}}}",
                quoted(&unread.group),
                quoted(&unread.topic),
                unread.left.records,
                unread.left.exact && unread.unknown == 0,
                unread.uncommitted,
                unread.unknown
            )
        })
        .collect();
    format!("[{}]", rows.join(","))
}
