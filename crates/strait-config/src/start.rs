//! Where a flow without a position begins.

use crate::pattern::Pattern;

/// Where in the source partition a flow begins when it has no position yet. Never applied to a flow that has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartPosition {
    /// At the oldest record that is still there.
    #[default]
    Earliest,
    /// At the end: only records that come after.
    Latest,
    /// At the first record whose timestamp is not before this one, in milliseconds since 1970-01-01 UTC; at the end
    /// when there is none.
    Timestamp(i64),
}

/// The start position of a link, with exceptions per topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartRules {
    /// For topics no rule matches.
    pub default: StartPosition,
    /// In the order of the file; the first rule that matches the source topic's whole name holds.
    pub rules: Vec<(Pattern, StartPosition)>,
}

impl StartRules {
    /// Where flows of this source topic begin.
    pub fn for_topic(&self, topic: &str) -> StartPosition {
        let rule = self
            .rules
            .iter()
            .find(|(pattern, _)| pattern.matches(topic));
        rule.map_or(self.default, |(_, start)| *start)
    }
}

impl StartPosition {
    /// Reads `earliest`, `latest`, or an RFC 3339 time such as `2026-11-01T00:00:00Z`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "earliest" => Some(Self::Earliest),
            "latest" => Some(Self::Latest),
            time => time
                .parse::<jiff::Timestamp>()
                .ok()
                .map(|t| Self::Timestamp(t.as_millisecond())),
        }
    }

    /// As it is written in a file.
    pub(crate) fn to_text(self) -> String {
        match self {
            Self::Earliest => "earliest".to_owned(),
            Self::Latest => "latest".to_owned(),
            Self::Timestamp(ms) => jiff::Timestamp::from_millisecond(ms)
                .map_or_else(|_| ms.to_string(), |t| format!("{t:.3}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{StartPosition, StartRules};
    use crate::pattern::Pattern;

    #[test]
    fn the_first_matching_rule_holds() {
        let rules = StartRules {
            default: StartPosition::Latest,
            rules: vec![
                (Pattern::new("orders").unwrap(), StartPosition::Earliest),
                (Pattern::new("o.*").unwrap(), StartPosition::Timestamp(5)),
            ],
        };
        assert_eq!(rules.for_topic("orders"), StartPosition::Earliest);
        assert_eq!(rules.for_topic("offers"), StartPosition::Timestamp(5));
        assert_eq!(rules.for_topic("invoices"), StartPosition::Latest);
    }

    #[test]
    fn times_are_read_with_their_offset_and_written_in_utc() {
        let start = StartPosition::parse("2026-11-01T01:00:00.250+01:00").unwrap();
        assert_eq!(start, StartPosition::Timestamp(1_793_491_200_250));
        assert_eq!(start.to_text(), "2026-11-01T00:00:00.250Z");
        assert_eq!(StartPosition::parse("yesterday"), None);
        assert_eq!(StartPosition::parse("2026-11-01T00:00:00"), None);
    }
}
