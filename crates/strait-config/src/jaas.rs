//! `sasl.jaas.config`: one login module and its options, as Kafka's `JaasConfig` reads it.

use std::collections::BTreeMap;

/// What one entry says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Login {
    /// The module's class.
    pub(crate) module: String,
    pub(crate) options: BTreeMap<String, String>,
}

/// Reads `CLASS FLAG option=value ... ;`. Values may stand in quotes, double or single ones, with `\` before a quote or a
/// backslash.
///
/// # Errors
/// Why it is none; no part of the text is in the answer, it may be the password.
pub(crate) fn parse(text: &str) -> Result<Login, &'static str> {
    let mut rest = text.trim_start();
    let module = word(&mut rest).ok_or("it names no login module")?;
    let flag = word(&mut rest).ok_or("a word such as required has to follow the login module")?;
    let flags = ["required", "requisite", "sufficient", "optional"];
    if !flags.iter().any(|known| flag.eq_ignore_ascii_case(known)) {
        return Err("a word such as required has to follow the login module");
    }
    let mut options = BTreeMap::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(';') {
            return match after.trim() {
                "" => Ok(Login { module, options }),
                _ => Err("it has more than one login module"),
            };
        }
        let unclosed = "it does not end with a semicolon";
        let name = word(&mut rest).ok_or(unclosed)?;
        rest = rest.trim_start();
        rest = rest
            .strip_prefix('=')
            .ok_or("an option has no = behind its name")?
            .trim_start();
        let value = if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            rest = &rest[1..];
            quoted(&mut rest, quote).ok_or("a quote is not closed")?
        } else {
            word(&mut rest).ok_or("an option has no value")?
        };
        options.insert(name, value);
    }
}

/// A name or a bare value.
fn word(rest: &mut &str) -> Option<String> {
    *rest = rest.trim_start();
    let end = rest
        .find(|c: char| c.is_whitespace() || matches!(c, '=' | ';' | '"'))
        .unwrap_or(rest.len());
    let (found, after) = rest.split_at(end);
    *rest = after;
    (!found.is_empty()).then(|| found.to_owned())
}

/// What stands before the closing quote.
fn quoted(rest: &mut &str, quote: char) -> Option<String> {
    let mut value = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => {
                *rest = &rest[at + 1..];
                return Some(value);
            }
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn kafkas_spellings_are_understood() {
        for (text, module, options) in [
            (
                "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"a\" password=\"b;c=d\";",
                "org.apache.kafka.common.security.plain.PlainLoginModule",
                vec![("password", "b;c=d"), ("username", "a")],
            ),
            (
                "M REQUIRED\n  user = x\n  k=\"q\\\"\\\\\" ; ",
                "M",
                vec![("k", "q\"\\"), ("user", "x")],
            ),
            ("M optional;", "M", vec![]),
            (
                "M required k='a\"b' l='';",
                "M",
                vec![("k", "a\"b"), ("l", "")],
            ),
        ] {
            let found = parse(text).unwrap();
            let pairs: Vec<_> = found
                .options
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect();
            assert_eq!((found.module.as_str(), pairs), (module, options));
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_without_its_text() {
        for (text, why) in [
            ("", "it names no login module"),
            (
                "M",
                "a word such as required has to follow the login module",
            ),
            (
                "M secret",
                "a word such as required has to follow the login module",
            ),
            (
                "M required password=\"secret\"",
                "it does not end with a semicolon",
            ),
            (
                "M required password secret;",
                "an option has no = behind its name",
            ),
            ("M required password=\"secret;", "a quote is not closed"),
            ("M required password=\"secret\\", "a quote is not closed"),
            ("M required password=;", "an option has no value"),
            (
                "M required; N required;",
                "it has more than one login module",
            ),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
    }
}
