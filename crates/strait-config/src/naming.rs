//! What mirrored topics are called.

/// MirrorMaker 2's separator between the source's alias and the topic (`replication.policy.separator`).
pub const DEFAULT_SEPARATOR: &str = ".";
/// The longest name a topic may have (`Topic.MAX_NAME_LENGTH` in Kafka).
pub const MAX_TOPIC_NAME: usize = 249;

const TOPIC: &str = "{topic}";
const SOURCE: &str = "{source}";
const TARGET: &str = "{target}";

/// What a mirrored topic is called on the target.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Naming {
    /// `<source alias><separator><topic>`: MirrorMaker 2's `DefaultReplicationPolicy`.
    Default {
        /// Not empty; characters a topic name may have.
        separator: String,
    },
    /// `<topic><separator><source alias>`: IBM Event Streams' way, by which `orders.*` finds local and remote topics.
    Suffix {
        /// As above.
        separator: String,
    },
    /// The same name: `IdentityReplicationPolicy`.
    Identity,
    /// A name of its own shape.
    Template(Template),
}

impl Default for Naming {
    fn default() -> Self {
        Self::Default {
            separator: DEFAULT_SEPARATOR.to_owned(),
        }
    }
}

impl Naming {
    /// What a topic of the cluster `source` is called on `target`.
    pub fn remote_name(&self, source: &str, target: &str, topic: &str) -> String {
        match self {
            Self::Default { separator } => format!("{source}{separator}{topic}"),
            Self::Suffix { separator } => format!("{topic}{separator}{source}"),
            Self::Identity => topic.to_owned(),
            Self::Template(template) => {
                let (before, behind) = template.around(source, target);
                format!("{before}{topic}{behind}")
            }
        }
    }
}

/// The shape of a remote name: text with `{topic}` in it once, and perhaps `{source}` and `{target}`, the aliases.
/// More than `{topic}` alone, which would be identity naming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    before: String,
    behind: String,
}

impl Template {
    /// Reads a template. The error is a sentence without a full stop that says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let Some((before, behind)) = text.split_once(TOPIC) else {
            return Err(format!("it has no {TOPIC} in it"));
        };
        if behind.contains(TOPIC) {
            return Err(format!("it has {TOPIC} in it more than once"));
        }
        if before.is_empty() && behind.is_empty() {
            return Err("it changes nothing".to_owned());
        }
        for part in [before, behind] {
            let rest = part.replace(SOURCE, "").replace(TARGET, "");
            if let Some(wrong) = rest.chars().find(|c| !fits(*c)) {
                return Err(format!(
                    "'{wrong}' cannot stand in a topic name; known are {TOPIC}, {SOURCE} and {TARGET}"
                ));
            }
        }
        Ok(Self {
            before: before.to_owned(),
            behind: behind.to_owned(),
        })
    }

    /// The template as it was written.
    pub fn text(&self) -> String {
        format!("{}{TOPIC}{}", self.before, self.behind)
    }

    /// Whether the source's alias is part of the names, so that topics of several sources have names of their own.
    pub fn names_source(&self) -> bool {
        self.before.contains(SOURCE) || self.behind.contains(SOURCE)
    }

    /// Whether a name has the shape that topics of `source` get on `target`.
    pub fn fits(&self, source: &str, target: &str, name: &str) -> bool {
        let (before, behind) = self.around(source, target);
        let topic = name
            .strip_prefix(before.as_str())
            .and_then(|rest| rest.strip_suffix(behind.as_str()));
        topic.is_some_and(|topic| !topic.is_empty())
    }

    /// Whether a name holds what names of topics that came from `source` have before or behind the topic, wherever it
    /// stands: such a topic was on `source` on its way here. `false` where the template has nothing beside the alias.
    pub fn came_through(&self, source: &str, name: &str) -> bool {
        let pieces = self.before.split(TARGET).chain(self.behind.split(TARGET));
        pieces
            .filter(|piece| piece.contains(SOURCE) && *piece != SOURCE)
            .any(|piece| name.contains(&piece.replace(SOURCE, source)))
    }

    fn around(&self, source: &str, target: &str) -> (String, String) {
        let filled = |part: &str| part.replace(SOURCE, source).replace(TARGET, target);
        (filled(&self.before), filled(&self.behind))
    }
}

/// Whether topics of different sources have different names.
pub(crate) fn names_source(naming: &Naming) -> bool {
    match naming {
        Naming::Default { .. } | Naming::Suffix { .. } => true,
        Naming::Identity => false,
        Naming::Template(template) => template.names_source(),
    }
}

/// Whether a topic may be called so. The error is a sentence without a full stop.
pub fn check_topic_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name == "." || name == ".." {
        return Err("no topic can be called so".to_owned());
    }
    if name.len() > MAX_TOPIC_NAME {
        return Err(format!(
            "it has {} characters, Kafka allows {MAX_TOPIC_NAME}",
            name.len()
        ));
    }
    match name.chars().find(|c| !fits(*c)) {
        Some(wrong) => Err(format!(
            "'{wrong}' cannot stand in a topic name: letters, digits, '.', '_' and '-' can"
        )),
        None => Ok(()),
    }
}

/// What Kafka lets stand in a topic's name.
fn fits(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::{Naming, Template, check_topic_name};

    #[test]
    fn a_template_puts_a_topic_into_a_text() {
        let template = Template::new("dr-{topic}.from-{source}.{target}").unwrap();
        assert!(template.names_source());
        assert!(template.fits("A", "B", "dr-orders.from-A.B"));
        assert!(!template.fits("A", "B", "dr-.from-A.B"));
        assert!(!template.fits("A", "B", "dr-orders.from-B.A"));
        assert_eq!(template.text(), "dr-{topic}.from-{source}.{target}");
        assert!(template.came_through("B", "dr-dr-orders.from-B.C.from-C.A"));
        assert!(!template.came_through("D", "dr-dr-orders.from-B.C.from-C.A"));
        let naming = Naming::Template(template);
        assert_eq!(naming.remote_name("A", "B", "orders"), "dr-orders.from-A.B");
        assert!(!Template::new("dr.{topic}").unwrap().names_source());
    }

    #[test]
    fn what_is_no_template_is_said() {
        for (text, why) in [
            ("orders", "no {topic}"),
            ("{topic}-{topic}", "more than once"),
            ("{topic}", "changes nothing"),
            ("{topic} copy", "' ' cannot stand"),
            ("{cluster}.{topic}", "'{' cannot stand"),
        ] {
            let error = Template::new(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn names_are_kafkas() {
        for fine in ["orders", "a.b_c-D9", &"x".repeat(249)] {
            assert_eq!(check_topic_name(fine), Ok(()));
        }
        for wrong in ["", ".", "..", "a b", "\u{fc}", &"x".repeat(250)] {
            assert!(check_topic_name(wrong).is_err(), "{wrong}");
        }
    }
}
