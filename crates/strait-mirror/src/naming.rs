//! Names: what a source topic is called on the target, and which topics must never be mirrored.

pub(crate) mod left_out;

use strait_config::{LinkConfig, MAX_TOPIC_NAME, Naming};
use thiserror::Error;

use crate::heartbeats::separator;

/// What becomes of a source topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// It is mirrored under this name.
    Mirror(String),
    /// It is left out: it belongs to a mirror itself.
    Leave,
    /// It is left out: by its name it came from the target.
    CameFrom,
    /// It is left out: the target's alias stands further inside its name, so it came through there, as far as one can tell.
    CameThrough,
    /// It is left out: it has the shape of the names that this link gives, so it is mirrored already, as far as one can
    /// tell.
    LooksMirrored,
}

/// Why a selected topic cannot be mirrored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NamingError {
    /// The remote name is longer than Kafka allows.
    #[error(
        "the name '{name}' on the target has {length} characters, Kafka allows {MAX_TOPIC_NAME}: use another naming for this link, name it under names, or exclude the topic"
    )]
    TooLong {
        /// The name.
        name: String,
        /// Its length.
        length: usize,
    },
    /// The remote name is one of Kafka's or of a mirror's own topics.
    #[error(
        "the name '{name}' on the target is of a topic in which Kafka or a mirror keeps its own state: use another naming for this link, name it under names, or exclude the topic"
    )]
    Reserved {
        /// The name.
        name: String,
    },
    /// Another topic of the link has the name.
    #[error(
        "the name '{name}' on the target belongs to the source topic '{other}': give one of them another under names, or exclude it"
    )]
    Taken {
        /// The name.
        name: String,
        /// Who has it.
        other: String,
    },
}

/// Decides about one topic that the selection chose.
///
/// Left out, whatever the selection says: topics that a mirror keeps its own state in, and, with the source's alias
/// in names, topics that came from the target (`A.orders` or `orders.A` on B never goes back to A) or through it
/// (`B.A.orders` on C does not either), as MirrorMaker 2's `isCycle` has it. With a template topics that came from the
/// target by it; and, where it has no `{source}`, those that have its shape already: two such links between two
/// clusters would make a longer name of each topic for ever. What stands under `names` is mirrored all the same.
///
/// # Errors
/// [`NamingError::TooLong`].
pub fn route(link: &LinkConfig, topic: &str) -> Result<Route, NamingError> {
    if is_mirror_state(link, topic) {
        return Ok(Route::Leave);
    }
    if !link.names.contains_key(topic)
        && let Some(left_out) = came_back(link, topic)
    {
        return Ok(left_out);
    }
    let name = link.remote_name(topic);
    if is_mirror_state(link, &name) || name.starts_with("__") {
        return Err(NamingError::Reserved { name });
    }
    match name.len() {
        length if length > MAX_TOPIC_NAME => Err(NamingError::TooLong { name, length }),
        _ => Ok(Route::Mirror(name)),
    }
}

/// Why a topic is left out by its name alone.
fn came_back(link: &LinkConfig, topic: &str) -> Option<Route> {
    let (source, target) = (&link.source, &link.target);
    // A remote topic carries the aliases of its whole way: `C.A.orders` was on A before C, and so was `orders.A.C`.
    let (separator, from_target) = match &link.naming {
        Naming::Default { separator } => (
            separator,
            topic.starts_with(&format!("{target}{separator}")),
        ),
        Naming::Suffix { separator } => {
            (separator, topic.ends_with(&format!("{separator}{target}")))
        }
        Naming::Template(template) if template.names_source() => {
            if template.fits(target, source, topic) {
                return Some(Route::CameFrom);
            }
            return template
                .came_through(target, topic)
                .then_some(Route::CameThrough);
        }
        Naming::Template(template) => {
            let shaped =
                template.fits(source, target, topic) || template.fits(target, source, topic);
            return shaped.then_some(Route::LooksMirrored);
        }
        _ => return None,
    };
    if from_target {
        return Some(Route::CameFrom);
    }
    topic
        .contains(&format!("{separator}{target}{separator}"))
        .then_some(Route::CameThrough)
}

/// The alias of the source where a topic there has it in its name as remote topics have theirs: readers take it for a
/// topic that came from elsewhere.
pub(crate) fn names_its_own_cluster(link: &LinkConfig, topic: &str) -> bool {
    let source = &link.source;
    match &link.naming {
        Naming::Default { separator } => topic.starts_with(&format!("{source}{separator}")),
        Naming::Suffix { separator } => topic.ends_with(&format!("{separator}{source}")),
        _ => false,
    }
}

/// Topics in which MirrorMaker 2 or Strait keep positions: mirroring them would hand one cluster's positions to
/// another.
///
/// MirrorMaker 2 puts its separator into their names as well (`replication.policy.internal.topic.separator.enabled`). Offset
/// syncs are known by any, others of the cluster may have other links.
fn is_mirror_state(link: &LinkConfig, topic: &str) -> bool {
    let own = |separator: &str| {
        let internal = format!("{separator}internal");
        let state = [
            "mm2-offset-syncs",
            "mm2-configs",
            "mm2-offsets",
            "mm2-status",
        ]
        .iter()
        .any(|kind| topic.starts_with(&format!("{kind}{separator}")));
        (state && topic.ends_with(&internal))
            || topic.ends_with(&format!("{separator}checkpoints{internal}"))
    };
    let separators = [
        strait_engine::SEPARATOR,
        separator(link),
        &link.internal_separator,
    ];
    separators.into_iter().any(own)
        || topic.starts_with("mm2-offset-syncs") && topic.ends_with("internal")
        || topic == strait_engine::STRAIT_TOPIC
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(naming: Naming) -> LinkConfig {
        let topics = strait_config::TopicSelection::new(Vec::new(), Vec::new());
        LinkConfig {
            naming,
            ..LinkConfig::new("A", "B", topics)
        }
    }

    fn named(separator: &str, topic: &str) -> Route {
        let separator = separator.to_owned();
        route(&link(Naming::Default { separator }), topic).unwrap()
    }

    fn templated(template: &str, topic: &str) -> Route {
        let template = strait_config::Template::new(template).unwrap();
        route(&link(Naming::Template(template)), topic).unwrap()
    }

    #[test]
    fn the_source_alias_goes_in_front() {
        assert_eq!(named(".", "orders"), Route::Mirror("A.orders".into()));
        assert_eq!(named("_", "orders"), Route::Mirror("A_orders".into()));
        assert_eq!(
            named(".", "Bank.orders"),
            Route::Mirror("A.Bank.orders".into())
        );
        assert_eq!(named(".", "C.orders"), Route::Mirror("A.C.orders".into()));
        assert_eq!(
            route(&link(Naming::Identity), "orders").unwrap(),
            Route::Mirror("orders".into())
        );
    }

    fn suffixed(topic: &str) -> Route {
        let separator = ".".to_owned();
        route(&link(Naming::Suffix { separator }), topic).unwrap()
    }

    #[test]
    fn the_source_alias_goes_behind() {
        for (topic, name) in [
            ("invoices", "invoices.A"),
            ("accounting.invoices", "accounting.invoices.A"),
            ("orders.C", "orders.C.A"),
            // A name that begins like an alias is no way that it went.
            ("B.orders", "B.orders.A"),
        ] {
            assert_eq!(suffixed(topic), Route::Mirror(name.into()));
        }
        for topic in ["invoices.B", "accounting.invoices.B", "orders.A.B"] {
            assert_eq!(suffixed(topic), Route::CameFrom, "{topic}");
        }
        for topic in ["orders.B.A", "orders.B.C", "orders.B.C.A"] {
            assert_eq!(suffixed(topic), Route::CameThrough, "{topic}");
        }
    }

    #[test]
    fn nothing_goes_back_to_where_it_came_from() {
        assert_eq!(named(".", "B.orders"), Route::CameFrom);
        assert_eq!(named(".", "B.A.orders"), Route::CameFrom);
        assert_eq!(named(".", "C.B.orders"), Route::CameThrough);
        assert_eq!(
            named(".", "C.D.orders"),
            Route::Mirror("A.C.D.orders".into())
        );
    }

    #[test]
    fn a_mirrors_own_topics_stay() {
        for topic in [
            "mm2-strait.internal",
            "mm2-offset-syncs.B.internal",
            "B.checkpoints.internal",
            "mm2-offsets.B.internal",
        ] {
            assert_eq!(named(".", topic), Route::Leave, "{topic}");
            assert_eq!(
                route(&link(Naming::Identity), topic).unwrap(),
                Route::Leave,
                "{topic}"
            );
        }
        for (separator, topic) in [
            ("_", "mm2-offset-syncs_B_internal"),
            (".", "mm2-offset-syncs_B_internal"),
            ("_", "C_checkpoints_internal"),
            ("_", "mm2-offsets.B.internal"),
        ] {
            assert_eq!(named(separator, topic), Route::Leave, "{topic}");
        }
        let under_their_names = LinkConfig {
            internal_separator: String::new(),
            ..link(Naming::Identity)
        };
        for topic in ["mm2-offset-syncsBinternal", "Ccheckpointsinternal"] {
            assert_eq!(route(&under_their_names, topic).unwrap(), Route::Leave);
        }
        assert_eq!(
            named(".", "flink_checkpoints_internal"),
            Route::Mirror("A.flink_checkpoints_internal".into())
        );
        assert_eq!(
            named(".", "billing.internal"),
            Route::Mirror("A.billing.internal".into())
        );
    }

    #[test]
    fn a_name_beyond_kafkas_limit_is_an_error() {
        let link = link(Naming::default());
        assert!(route(&link, &"x".repeat(247)).is_ok());
        let error = route(&link, &"x".repeat(248)).unwrap_err().to_string();
        assert!(error.contains("250 characters"), "{error}");
    }

    #[test]
    fn a_template_that_names_the_source_lets_nothing_back() {
        let template = "dr.{source}-{topic}";
        assert_eq!(
            templated(template, "orders"),
            Route::Mirror("dr.A-orders".into())
        );
        assert_eq!(templated(template, "dr.B-orders"), Route::CameFrom);
        assert_eq!(
            templated(template, "dr.C-orders"),
            Route::Mirror("dr.A-dr.C-orders".into())
        );
        assert_eq!(templated(template, "dr.C-dr.B-orders"), Route::CameThrough);
    }

    #[test]
    fn a_template_without_the_source_is_applied_once() {
        assert_eq!(
            templated("{topic}.copy", "orders"),
            Route::Mirror("orders.copy".into())
        );
        assert_eq!(
            templated("{topic}.copy", "orders.copy"),
            Route::LooksMirrored
        );
        // The other link's names hold the other alias.
        assert_eq!(
            templated("to-{target}.{topic}", "to-A.orders"),
            Route::LooksMirrored
        );
    }

    #[test]
    fn what_is_named_goes_by_its_name() {
        let mut link = link(Naming::default());
        link.names = [("B.orders", "orders-of-b"), ("mm2-strait.internal", "x")]
            .map(|(topic, name)| (topic.to_owned(), name.to_owned()))
            .into();
        let mirror = |name: &str| Route::Mirror(name.to_owned());
        assert_eq!(route(&link, "B.orders").unwrap(), mirror("orders-of-b"));
        assert_eq!(route(&link, "orders").unwrap(), mirror("A.orders"));
        assert_eq!(route(&link, "mm2-strait.internal").unwrap(), Route::Leave);
        for (topic, name) in [("a", "mm2-strait.internal"), ("b", "__consumer_offsets")] {
            link.names.insert(topic.to_owned(), name.to_owned());
            let error = route(&link, topic).unwrap_err();
            assert!(matches!(error, NamingError::Reserved { .. }), "{error}");
        }
    }

    #[test]
    fn a_name_like_that_of_a_remote_topic_is_noticed() {
        let default = link(Naming::default());
        assert!(names_its_own_cluster(&default, "A.orders"));
        assert!(!names_its_own_cluster(&default, "C.orders"));
        assert!(!names_its_own_cluster(&link(Naming::Identity), "A.orders"));
    }
}
