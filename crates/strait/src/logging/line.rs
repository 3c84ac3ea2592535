//! One event as one line.

use std::fmt::Write as _;

use tracing::Level;

use super::fields::{Fields, Value};
use crate::args::LogFormat;

/// The keys that each JSON line has beside its fields. A field of such a name has another key, because keys are unique.
const KEYS: [&str; 5] = ["time", "level", "module", "repeated", "message"];

/// Everything of a line but its time.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) fields: Fields,
}

impl Line {
    /// The link it is about, if it is about one.
    pub(super) fn link(&self) -> Option<&str> {
        let mut named = self.fields.named.iter();
        named
            .find(|(name, _)| *name == "link")
            .map(|(_, value)| value.text())
    }

    /// The line with its end. `ms` is milliseconds since 1970-01-01 UTC; `repeated` is left out when it is 1.
    pub(super) fn render(&self, format: LogFormat, color: bool, ms: i64, repeated: u64) -> String {
        let time = jiff::Timestamp::from_millisecond(ms)
            .map_or_else(|_| ms.to_string(), |time| format!("{time:.3}"));
        match format {
            LogFormat::Text => self.render_text(color, &time, repeated),
            LogFormat::Json => self.render_json(&time, repeated),
        }
    }

    fn render_text(&self, color: bool, time: &str, repeated: u64) -> String {
        let mut line = String::with_capacity(160);
        let level = self.level.as_str();
        if color {
            let paint = match self.level {
                Level::ERROR => "31",
                Level::WARN => "33",
                Level::INFO => "32",
                _ => "2",
            };
            let _ = write!(line, "\x1b[2m{time}\x1b[0m \x1b[{paint}m{level:<5}\x1b[0m");
        } else {
            let _ = write!(line, "{time} {level:<5}");
        }
        for (name, value) in &self.fields.named {
            let _ = write!(line, " {name}=");
            push_value(&mut line, value.text());
        }
        if repeated > 1 {
            let _ = write!(line, " repeated={repeated}");
        }
        if !self.fields.message.is_empty() {
            line.push(' ');
            push_plain(&mut line, &self.fields.message);
        }
        line.push('\n');
        line
    }

    fn render_json(&self, time: &str, repeated: u64) -> String {
        let mut line = String::with_capacity(200);
        let _ = write!(
            line,
            "{{\"time\":\"{time}\",\"level\":\"{}\",\"module\":",
            self.level
        );
        push_json(&mut line, self.target);
        for (name, value) in &self.fields.named {
            line.push(',');
            if KEYS.contains(name) {
                push_json(&mut line, &format!("field_{name}"));
            } else {
                push_json(&mut line, name);
            }
            line.push(':');
            match value {
                Value::Text(text) => push_json(&mut line, text),
                Value::Bare(text) => line.push_str(text),
            }
        }
        if repeated > 1 {
            let _ = write!(line, ",\"repeated\":{repeated}");
        }
        line.push_str(",\"message\":");
        push_json(&mut line, &self.fields.message);
        line.push_str("}\n");
        line
    }
}

/// A value, in quotes where it would not be told from what follows.
fn push_value(line: &mut String, text: &str) {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=';
    if !text.is_empty() && text.chars().all(plain) {
        line.push_str(text);
        return;
    }
    line.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                line.push('\\');
                line.push(c);
            }
            c => push_char(line, c),
        }
    }
    line.push('"');
}

/// A message: as it is, but on one line and without terminal codes, whoever wrote it.
fn push_plain(line: &mut String, text: &str) {
    text.chars().for_each(|c| push_char(line, c));
}

fn push_char(line: &mut String, c: char) {
    if c.is_control() {
        line.extend(c.escape_default());
    } else {
        line.push(c);
    }
}

fn push_json(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::super::fields::{Fields, Value};
    use super::Line;
    use crate::args::LogFormat;
    use tracing::Level;

    const NINE: i64 = 1_795_251_600_123;

    fn line() -> Line {
        let text = |text: &str| Value::Text(text.to_owned());
        let named = vec![
            ("link", text("A->B")),
            ("topic", text("orders")),
            ("partition", Value::Bare("3".to_owned())),
            ("reason", text("broker said \"no\"\n\x1b[31m")),
        ];
        let fields = Fields {
            message: "flow stopped\nbadly".to_owned(),
            named,
        };
        Line {
            level: Level::WARN,
            target: "strait_engine::flow",
            fields,
        }
    }

    #[test]
    fn text_is_one_line_with_fields_before_the_message() {
        assert_eq!(
            line().render(LogFormat::Text, false, NINE, 1),
            "2026-11-21T09:00:00.123Z WARN  link=A->B topic=orders partition=3 reason=\"broker said \\\"no\\\"\\n\\u{1b}[31m\" flow stopped\\nbadly\n"
        );
        assert!(
            line()
                .render(LogFormat::Text, false, NINE, 4)
                .contains(" repeated=4 flow stopped")
        );
        let colored = line().render(LogFormat::Text, true, NINE, 1);
        assert!(
            colored.starts_with("\x1b[2m2026-11-21T09:00:00.123Z\x1b[0m \x1b[33mWARN \x1b[0m link")
        );
    }

    #[test]
    fn json_keys_are_unique_whatever_the_fields_are_called() {
        let mut line = line();
        line.fields.named = ["target", "time", "level", "module", "repeated", "message"]
            .map(|name| (name, Value::Bare("1".to_owned())))
            .to_vec();
        let json = line.render(LogFormat::Json, false, NINE, 2);
        let mut keys: Vec<&str> = json
            .split(['{', ','])
            .filter_map(|part| part.strip_prefix('"')?.split_once("\":"))
            .map(|(key, _)| key)
            .collect();
        assert_eq!(keys.len(), 11, "{json}");
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 11, "{json}");
    }

    #[test]
    fn json_is_one_object_per_line() {
        assert_eq!(
            line().render(LogFormat::Json, true, NINE, 2),
            "{\"time\":\"2026-11-21T09:00:00.123Z\",\"level\":\"WARN\",\"module\":\"strait_engine::flow\",\"link\":\"A->B\",\"topic\":\"orders\",\"partition\":3,\"reason\":\"broker said \\\"no\\\"\\n\\u001b[31m\",\"repeated\":2,\"message\":\"flow stopped\\nbadly\"}\n"
        );
    }
}
