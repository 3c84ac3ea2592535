//! Patterns for topic and property names, read as MirrorMaker 2 reads them.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// How many steps a pattern with look-around may take on one name: more than any that a person wrote needs on 249
/// characters.
const BACKTRACK_LIMIT: usize = 1_000_000;

/// Memory one compiled pattern may take. A pattern comes from a file a person wrote; ten of these fit the budget.
const COMPILED_LIMIT: usize = 4 << 20;

/// A regular expression that must match a WHOLE name, as `java.util.regex.Matcher.matches` does in MirrorMaker 2's
/// `DefaultTopicFilter`. Classes such as `\d` and `\w` are ASCII, as Java's are.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    matcher: Matcher,
}

#[derive(Clone)]
enum Matcher {
    Linear(Regex),
    /// Look-around, back-references and possessive quantifiers.
    Backtracking(fancy_regex::Regex),
}

impl Pattern {
    /// Compiles a pattern. The error is a sentence without a full stop that says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let whole = format!("^(?:{text})$");
        let matcher = if java_only(text)? {
            let regex = fancy_regex::RegexBuilder::new(&whole)
                .backtrack_limit(BACKTRACK_LIMIT)
                .delegate_size_limit(COMPILED_LIMIT)
                .build();
            regex
                .map(Matcher::Backtracking)
                .map_err(|error| last_line(&error.to_string()))
        } else {
            // Topic names are ASCII; with Unicode off, `\d`, `\w` and `(?i)` mean what they mean in Java.
            let regex = RegexBuilder::new(&whole)
                .unicode(false)
                .size_limit(COMPILED_LIMIT)
                .build();
            regex.map(Matcher::Linear).map_err(|error| match error {
                regex::Error::CompiledTooBig(limit) => {
                    format!("it takes more than {limit} bytes when compiled")
                }
                other => last_line(&other.to_string()),
            })
        };
        Ok(Self {
            text: text.to_owned(),
            matcher: matcher?,
        })
    }

    /// Whether the whole name matches. Where that takes more steps than there may be, it does not.
    pub fn matches(&self, name: &str) -> bool {
        self.decide(name).unwrap_or(false)
    }

    /// Whether a name is to be left out by this pattern: where it takes too many steps to tell, it is.
    pub fn leaves_out(&self, name: &str) -> bool {
        self.decide(name).unwrap_or(true)
    }

    fn decide(&self, name: &str) -> Option<bool> {
        match &self.matcher {
            Matcher::Linear(regex) => Some(regex.is_match(name.as_bytes())),
            Matcher::Backtracking(regex) => regex.is_match(name).ok(),
        }
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

/// The parser's message has the pattern and a caret on lines of their own; the last line is the reason.
fn last_line(message: &str) -> String {
    let last = message.lines().last().unwrap_or_default();
    // A position would be one in the whole of what is compiled.
    let last = match last.split_once("Parsing error at position ") {
        Some((_, rest)) => rest.split_once(": ").map_or(rest, |(_, why)| why),
        None => last,
    };
    let reason = last.trim_start_matches("error: ");
    format!("it is not a regular expression: {reason}")
}

/// Whether a pattern has forms of Java's that the linear engine has not, or reads otherwise: `a++` is `(?:a+)+` to it.
///
/// # Errors
/// With those stands an escape that the backtracking engine reads otherwise than Java does.
fn java_only(text: &str) -> Result<bool, String> {
    let (mut found, mut odd) = (false, None);
    let mut chars = text.char_indices().peekable();
    let mut class = 0_usize;
    let mut quantified = false;
    while let Some((at, c)) = chars.next() {
        let quantifier = matches!(c, '*' | '+' | '?' | '}') && class == 0;
        // A quantifier after a quantifier.
        found |= c == '+' && quantified;
        quantified = quantifier && !quantified;
        match c {
            '\\' => {
                let escaped = chars.next().map_or(' ', |(_, c)| c);
                found |= class == 0 && matches!(escaped, '1'..='9' | 'k');
                let same = "dDwWsSbBAzkntrf".contains(escaped);
                if escaped.is_ascii_alphabetic() && !same {
                    odd = Some(escaped);
                }
            }
            '[' => class += 1,
            ']' => class = class.saturating_sub(1),
            '(' if class == 0 => {
                let rest = &text[at..];
                let forms = ["(?=", "(?!", "(?<=", "(?<!", "(?>"];
                found |= forms.iter().any(|form| rest.starts_with(form));
                // Its question mark is no quantifier.
                if rest.starts_with("(?") {
                    chars.next();
                }
            }
            _ => {}
        }
    }
    match odd {
        Some(escaped) if found => Err(format!(
            "`\\{escaped}` cannot be read as Java does beside look-around"
        )),
        _ => Ok(found),
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
        for (text, why) in [
            (
                r"\h+",
                "it is not a regular expression: unrecognized escape sequence",
            ),
            (
                r"(?!x)\h+",
                r"`\h` cannot be read as Java does beside look-around",
            ),
            (
                r"(?!x)\Qa\E",
                r"`\E` cannot be read as Java does beside look-around",
            ),
        ] {
            assert_eq!(Pattern::new(text).unwrap_err(), why, "{text}");
        }
        assert!(Pattern::new("(?!x").is_err() && Pattern::new("(?=[)").is_err());
    }

    /// Each as `java.util.regex` answers it.
    #[test]
    fn what_only_java_has_means_the_same_here() {
        for (pattern, name, matched) in [
            ("(?!mm2-|__).*", "orders", true),
            ("(?!mm2-|__).*", "mm2-status", false),
            (".*(?<!-tmp)", "orders", true),
            (".*(?<!-tmp)", "orders-tmp", false),
            ("(?=.*eu)orders.*", "orders.eu", true),
            ("(?=.*eu)orders.*", "orders.us", false),
            ("a++a", "aa", false),
            ("a+a", "aa", true),
            (".*+x", "x", false),
            ("(?>a|ab)c", "abc", false),
            (r"(\w+)-\1", "ab-ab", true),
            (r"(\w+)-\1", "ab-ba", false),
            (r"(?i)(?!X).*", "x", false),
            // In a class they are characters.
            ("[*+]+x", "*+x", true),
            (r"a\++", "a+", true),
            ("(?:a|b)+", "ab", true),
        ] {
            assert_eq!(matches(pattern, name), matched, "{pattern} on {name}");
        }
    }

    /// A name has 249 characters at most; what takes for ever on it selects nothing, and leaves out.
    #[test]
    fn a_pattern_cannot_take_for_ever() {
        let endless = Pattern::new("(?=x)(x+x+)+y").unwrap();
        let name = "x".repeat(249);
        assert!(!endless.matches(&name) && endless.leaves_out(&name));
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
