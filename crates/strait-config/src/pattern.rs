//! Patterns for topic and property names, read as MirrorMaker 2 reads them.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// Memory one compiled pattern may take. A pattern comes from a file a person wrote; ten of these fit the budget.
const COMPILED_LIMIT: usize = 4 << 20;

/// A regular expression that must match a WHOLE name, as `java.util.regex.Matcher.matches` does in MirrorMaker 2's
/// `DefaultTopicFilter`. Classes such as `\d` and `\w` are ASCII, as Java's are.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles a pattern. The error is a sentence without a full stop that says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        // Topic names are ASCII; with Unicode off, `\d`, `\w` and `(?i)` mean what they mean in Java.
        let regex = RegexBuilder::new(&format!("^(?:{text})$"))
            .unicode(false)
            .size_limit(COMPILED_LIMIT)
            .build();
        match regex {
            Ok(regex) => Ok(Self {
                text: text.to_owned(),
                regex,
            }),
            Err(error) => Err(reason(text, &error)),
        }
    }

    /// Whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name.as_bytes())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The one topic name this pattern is meant to be, when it has no regular expression in it but dots.
    pub(crate) fn plain_name(&self) -> Option<String> {
        let text = self.text.strip_prefix('^').unwrap_or(&self.text);
        let name = text.strip_suffix('$').unwrap_or(text).replace("\\.", ".");
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        (!name.is_empty() && name.chars().all(plain)).then_some(name)
    }

    /// The text every matching name begins with, as far as it can be told without solving the pattern.
    /// The second value says whether that text IS the only matching name.
    pub(crate) fn literal_prefix(&self) -> (String, bool) {
        let text = self.text.strip_prefix('^').unwrap_or(&self.text);
        let text = text.strip_suffix('$').unwrap_or(text);
        let mut prefix = String::new();
        let mut chars = text.chars().peekable();
        if text.contains('|') {
            return (prefix, false);
        }
        while let Some(c) = chars.next() {
            let literal = match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => c,
                '\\' => match chars.next() {
                    Some(escaped @ ('.' | '-' | '_')) => escaped,
                    _ => return (prefix, false),
                },
                _ => return (prefix, false),
            };
            if matches!(chars.peek(), Some('*' | '?' | '{' | '+')) {
                return (prefix, false);
            }
            prefix.push(literal);
        }
        (prefix, true)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

fn reason(text: &str, error: &regex::Error) -> String {
    let java_only = ["(?=", "(?!", "(?<=", "(?<!", "(?>", "*+", "++", "?+"];
    if let Some(found) = java_only.iter().find(|form| text.contains(*form)) {
        return format!("`{found}` is Java's alone and has no counterpart here");
    }
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("it takes more than {limit} bytes when compiled")
        }
        other => {
            // The parser's message has the pattern and a caret on lines of their own; the last line is the reason.
            let message = other.to_string();
            let last = message.lines().last().unwrap_or_default();
            format!(
                "it is not a regular expression: {}",
                last.trim_start_matches("error: ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_pattern_matches_whole_names_only() {
        assert!(matches("orders", "orders"));
        assert!(!matches("orders", "orders.eu"));
        assert!(!matches("orders", "my-orders"));
        assert!(matches("^orders$", "orders"));
        assert!(matches("a|b", "b"));
        assert!(!matches("a|b", "ab"));
        assert!(matches("^branch_[0-9]{3}_[a-z]*$", "branch_042_north"));
        assert!(matches(r"mm2.*\.internal", "mm2-offsets.a.internal"));
        assert!(matches("(?i)orders", "ORDERS"));
        assert!(matches(r"t\d+", "t7"));
    }

    #[test]
    fn a_wrong_pattern_says_why() {
        assert_eq!(
            Pattern::new("orders.(").unwrap_err(),
            "it is not a regular expression: unclosed group"
        );
        assert_eq!(
            Pattern::new("(?!x).*").unwrap_err(),
            "`(?!` is Java's alone and has no counterpart here"
        );
    }

    #[test]
    fn the_literal_prefix_never_claims_too_much() {
        let prefix = |text: &str| Pattern::new(text).unwrap().literal_prefix();
        assert_eq!(prefix("orders"), ("orders".to_owned(), true));
        assert_eq!(prefix(r"^eu\.orders$"), ("eu.orders".to_owned(), true));
        assert_eq!(prefix("orders.*"), ("orders".to_owned(), false));
        assert_eq!(prefix("ab?"), ("a".to_owned(), false));
        assert_eq!(prefix("a|b"), (String::new(), false));
        assert_eq!(prefix("(?i)a"), (String::new(), false));
    }
}
