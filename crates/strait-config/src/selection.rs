//! Which topics of the source a link mirrors.

use crate::pattern::Pattern;

/// What MirrorMaker 2 (4.x) leaves out by default: its own internal topics, replicas by the old naming, and Kafka's
/// internal topics. Internal topics of Kafka Streams and Kafka Connect are NOT in it: they are application data.
pub const DEFAULT_TOPICS_EXCLUDE: [&str; 3] = [r"mm2.*\.internal", r".*\.replica", "__.*"];

/// Includes and excludes over source topic names; both match whole names, and an exclude wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSelection {
    includes: Vec<Pattern>,
    excludes: Vec<Pattern>,
}

impl TopicSelection {
    /// A selection. No includes select nothing, as in MirrorMaker 2.
    pub fn new(includes: Vec<Pattern>, excludes: Vec<Pattern>) -> Self {
        Self { includes, excludes }
    }

    /// Other includes with the same excludes.
    pub fn with_includes(&self, includes: Vec<Pattern>) -> Self {
        Self::new(includes, self.excludes.clone())
    }

    /// Whether a source topic of this name is mirrored.
    pub fn selects(&self, topic: &str) -> bool {
        self.includes.iter().any(|p| p.matches(topic))
            && !self.excludes.iter().any(|p| p.leaves_out(topic))
    }

    /// The include patterns as written, in order.
    pub fn includes(&self) -> Vec<String> {
        self.includes
            .iter()
            .map(|p| p.as_str().to_owned())
            .collect()
    }

    /// The exclude patterns as written, in order.
    pub fn excludes(&self) -> Vec<String> {
        self.excludes
            .iter()
            .map(|p| p.as_str().to_owned())
            .collect()
    }

    /// Includes that read as one plain topic name, so that a name that does not exist can be reported.
    /// A bare `.` counts as itself here: people write `orders.v1` and mean that topic.
    pub fn named_topics(&self) -> Vec<String> {
        self.includes
            .iter()
            .filter_map(Pattern::plain_name)
            .collect()
    }

    /// Whether some topic name may be selected by both. `false` is certain, `true` is not.
    pub(crate) fn may_overlap(&self, other: &Self) -> bool {
        // `topics = ".*", exclude = "orders.*"` beside `topics = "orders.*"` is how people part topics between links.
        let left_out = |by: &Self, pattern: &Pattern| by.excludes.contains(pattern);
        self.includes.iter().any(|mine| {
            other.includes.iter().any(|theirs| {
                if left_out(other, mine) || left_out(self, theirs) {
                    return false;
                }
                let ((a, a_whole), (b, b_whole)) = (mine.literal_prefix(), theirs.literal_prefix());
                match (a_whole, b_whole) {
                    (true, _) => self.selects(&a) && other.selects(&a),
                    (_, true) => self.selects(&b) && other.selects(&b),
                    _ => a.starts_with(&b) || b.starts_with(&a),
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT_TOPICS_EXCLUDE, TopicSelection};
    use crate::pattern::Pattern;

    fn selection(includes: &[&str], excludes: &[&str]) -> TopicSelection {
        let compile = |list: &[&str]| list.iter().map(|p| Pattern::new(p).unwrap()).collect();
        TopicSelection::new(compile(includes), compile(excludes))
    }

    #[test]
    fn the_default_excludes_leave_out_internal_topics_only() {
        let all = selection(&[".*"], &DEFAULT_TOPICS_EXCLUDE);
        for topic in [
            "__consumer_offsets",
            "mm2-offset-syncs.b.internal",
            "orders.replica",
        ] {
            assert!(!all.selects(topic), "{topic}");
        }
        for topic in [
            "orders",
            "app-KSTREAM-AGGREGATE-changelog",
            "connect-offsets",
            "billing.internal",
        ] {
            assert!(all.selects(topic), "{topic}");
        }
    }

    #[test]
    fn no_includes_select_nothing() {
        assert!(!selection(&[], &[]).selects("orders"));
    }

    #[test]
    fn plain_names_are_known_as_such() {
        assert_eq!(
            selection(&["orders.v1", r"^eu\.hr$", "x.*", ""], &[]).named_topics(),
            ["orders.v1", "eu.hr"]
        );
    }

    #[test]
    fn overlap_is_denied_only_where_it_is_impossible() {
        let overlap = |a: &[&str], b: &[&str]| selection(a, &[]).may_overlap(&selection(b, &[]));
        assert!(!overlap(&["orders"], &["invoices"]));
        assert!(!overlap(&["eu-.*"], &["us-.*"]));
        assert!(overlap(&["eu-.*"], &["eu-west-.*"]));
        assert!(overlap(&["orders"], &["ord.*"]));
        assert!(!overlap(&["orders"], &["orders.+"]));
        assert!(overlap(&[".*"], &["orders"]));
        let rest = selection(&[".*"], &["orders.*"]);
        assert!(!rest.may_overlap(&selection(&["orders.*"], &[])));
        assert!(!selection(&["orders-eu"], &[]).may_overlap(&rest));
    }
}
