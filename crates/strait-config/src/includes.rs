//! Patterns for topics from elsewhere than a file: the command line, HTTP, and what is stored on a cluster.

use crate::check::{self, Place};
use crate::error::Problem;
use crate::model::Config;
use crate::pattern::Pattern;
use crate::selection::TopicSelection;
use crate::toml_file::has_bare_comma;

/// Patterns in one selection at the most.
pub const MAX_INCLUDES: usize = 500;
/// Bytes of all patterns of one selection together at the most.
pub const MAX_INCLUDES_BYTES: usize = 64 << 10;

/// Reads patterns as a list, each checked as one of a file's `topics`. An empty list, and one of nothing but empty
/// patterns, selects nothing. The error is a sentence without a full stop that names the pattern.
pub fn read_includes(texts: &[String]) -> Result<Vec<Pattern>, String> {
    if texts.iter().all(String::is_empty) {
        return Ok(Vec::new());
    }
    if texts.len() > MAX_INCLUDES {
        return Err(format!(
            "{} patterns are too many: {MAX_INCLUDES} at the most; write one for several topics",
            texts.len()
        ));
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    if bytes > MAX_INCLUDES_BYTES {
        return Err(format!(
            "the patterns have {bytes} bytes together: {MAX_INCLUDES_BYTES} at the most"
        ));
    }
    texts.iter().map(|text| read_include(text)).collect()
}

fn read_include(text: &str) -> Result<Pattern, String> {
    if text.is_empty() {
        return Err("an empty pattern beside others matches nothing; leave it out".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err(format!(
            "pattern {text:?} has a control character, and no topic has one"
        ));
    }
    if has_bare_comma(text) {
        return Err(format!(
            "pattern {text:?}: one string is one pattern, and no topic has a comma; make it several"
        ));
    }
    Pattern::new(text).map_err(|why| format!("pattern {text:?}: {why}"))
}

/// Reads patterns with commas between them, as Event Streams' `--select` has them: `^a.*,^b.*`. Commas in `{1,3}` and
/// `[a,b]` belong to their pattern; spaces around patterns do not.
pub fn read_select(text: &str) -> Result<Vec<Pattern>, String> {
    let mut texts = vec![String::new()];
    let mut depth = 0_usize;
    let mut escaped = false;
    for c in text.chars() {
        match c {
            _ if escaped => {}
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        match texts.last_mut() {
            Some(last) if c != ',' || depth > 0 => last.push(c),
            _ => texts.push(String::new()),
        }
    }
    let texts: Vec<String> = texts.iter().map(|t| t.trim().to_owned()).collect();
    read_includes(&texts)
}

impl Config {
    /// Why a link of this configuration cannot select these topics beside what the others select, if so: they would
    /// write the same topics, or send them round and round. `others` says what another link selects; nothing where
    /// that is not known yet.
    pub fn selection_problem(
        &self,
        link: &str,
        topics: &TopicSelection,
        others: &dyn Fn(&str) -> Option<TopicSelection>,
    ) -> Option<String> {
        let mut config = self.clone();
        for other in &mut config.links {
            other.topics = if other.name == link {
                topics.clone()
            } else {
                others(&other.name).unwrap_or_else(|| TopicSelection::new(Vec::new(), Vec::new()))
            };
        }
        let place = |key: &String| Place {
            line: None,
            key: key.clone(),
        };
        let places: Vec<Place> = config.links.iter().map(|l| place(&l.name)).collect();
        let said = |problem: Problem| format!("{}. {}", problem.why, problem.instead);
        let problems = check::conflicts(&config, &places);
        let mut texts: Vec<String> = problems.into_iter().map(said).collect();
        texts.dedup();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LinkConfig;
    use crate::naming::Naming;

    fn texts(patterns: &[Pattern]) -> Vec<&str> {
        patterns.iter().map(Pattern::as_str).collect()
    }

    fn selecting(pattern: &str) -> TopicSelection {
        TopicSelection::new(vec![Pattern::new(pattern).unwrap()], Vec::new())
    }

    #[test]
    fn commas_part_patterns_but_not_inside_of_them() {
        let select = |text| read_select(text).unwrap();
        assert_eq!(texts(&select("^a.*,^b.*")), ["^a.*", "^b.*"]);
        assert_eq!(
            texts(&select("^topic1$ , ^topic2$")),
            ["^topic1$", "^topic2$"]
        );
        assert_eq!(
            texts(&select("^branch_[0-9]{1,3}_[a,b]*$,x\\{1")),
            ["^branch_[0-9]{1,3}_[a,b]*$", "x\\{1"]
        );
        assert!(select("").is_empty());
        assert!(read_select("^a.*,").unwrap_err().contains("empty pattern"));
    }

    #[test]
    fn a_list_is_checked_as_a_file_is() {
        let read = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|t| (*t).to_owned()).collect();
            read_includes(&list)
        };
        assert!(read(&[]).unwrap().is_empty());
        assert!(read(&[""]).unwrap().is_empty());
        assert_eq!(texts(&read(&["^a.*", "b"]).unwrap()), ["^a.*", "b"]);
        for (list, why) in [
            (&["a,b"][..], "one string is one pattern"),
            (&["a\nb"], "control character"),
            (&["a", ""], "an empty pattern beside others"),
            (
                &["fine", "("],
                "pattern \"(\": it is not a regular expression",
            ),
            (
                &["x".repeat(MAX_INCLUDES_BYTES + 1).as_str()],
                "bytes together",
            ),
            (&["x"; MAX_INCLUDES + 1], "too many"),
        ] {
            let said = read(list).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_selection_that_closes_a_circle_is_refused() {
        let mut there = LinkConfig::new("a", "b", selecting("orders"));
        there.naming = Naming::Identity;
        let mut back = LinkConfig::new("b", "a", selecting("invoices"));
        back.naming = Naming::Identity;
        let cluster = |alias: &str| crate::model::ClusterConfig {
            alias: alias.to_owned(),
            bootstrap: vec![format!("{alias}:9092")],
            tls: None,
            sasl: None,
        };
        let config = Config {
            clusters: ["a", "b"].map(|a| (a.to_owned(), cluster(a))).into(),
            links: vec![there, back],
            admin: crate::AdminConfig::default(),
            admin_token_file: None,
            instance: None,
            state_dir: None,
            warnings: Vec::new(),
        };
        let of_file = |name: &str| {
            let link = config.links.iter().find(|l| l.name == name);
            link.map(|l| l.topics.clone())
        };
        let all = selecting(".*");
        let said = config.selection_problem("b->a", &all, &of_file).unwrap();
        assert!(said.contains("round and round: a->b, b->a"), "{said}");
        let fine = selecting("in.*");
        assert_eq!(config.selection_problem("b->a", &fine, &of_file), None);
        assert_eq!(config.selection_problem("b->a", &all, &|_| None), None);
    }
}
