//! Names: what a source topic is called on the target, and which topics must never be mirrored.

use strait_config::Naming;
use thiserror::Error;

/// The longest name a topic may have (`Topic.MAX_NAME_LENGTH` in Kafka).
const MAX_TOPIC_NAME: usize = 249;

/// What becomes of a source topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// It is mirrored under this name.
    Mirror(String),
    /// It is left out: it belongs to a mirror itself, or came from the target.
    Leave,
    /// It is left out: the target's alias stands further inside its name, so it came through there, as far as one can tell.
    CameThrough,
}

/// Why a selected topic cannot be mirrored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NamingError {
    /// The remote name is longer than Kafka allows.
    #[error(
        "the name '{name}' on the target has {length} characters, Kafka allows {MAX_TOPIC_NAME}: use another naming for this link, or exclude the topic"
    )]
    TooLong {
        /// The name.
        name: String,
        /// Its length.
        length: usize,
    },
}

/// Decides about one topic that the selection chose.
///
/// Left out, whatever the selection says: topics that a mirror keeps its own state in, and, with the source's alias
/// in names, topics that came from the target (`A.orders` or `orders.A` on B never goes back to A) or through it
/// (`B.A.orders` on C does not either), as MirrorMaker 2's `isCycle` has it.
///
/// # Errors
/// [`NamingError::TooLong`].
pub fn route(
    naming: &Naming,
    source: &str,
    target: &str,
    topic: &str,
) -> Result<Route, NamingError> {
    if is_mirror_state(topic) {
        return Ok(Route::Leave);
    }
    // A remote topic carries the aliases of its whole way: `C.A.orders` was on A before C, and so was `orders.A.C`.
    let (separator, from_target, name) = match naming {
        Naming::Default { separator } => (
            Some(separator),
            topic.starts_with(&format!("{target}{separator}")),
            format!("{source}{separator}{topic}"),
        ),
        Naming::Suffix { separator } => (
            Some(separator),
            topic.ends_with(&format!("{separator}{target}")),
            format!("{topic}{separator}{source}"),
        ),
        _ => (None, false, topic.to_owned()),
    };
    if from_target {
        return Ok(Route::Leave);
    }
    if separator.is_some_and(|s| topic.contains(&format!("{s}{target}{s}"))) {
        return Ok(Route::CameThrough);
    }
    match name.len() {
        length if length > MAX_TOPIC_NAME => Err(NamingError::TooLong { name, length }),
        _ => Ok(Route::Mirror(name)),
    }
}

/// Topics in which MirrorMaker 2 or Strait keep positions: mirroring them would hand one cluster's positions to
/// another.
fn is_mirror_state(topic: &str) -> bool {
    let syncs = topic.starts_with("mm2-offset-syncs.") && topic.ends_with(".internal");
    let connect = ["mm2-configs.", "mm2-offsets.", "mm2-status."]
        .iter()
        .any(|p| topic.starts_with(p))
        && topic.ends_with(".internal");
    syncs
        || connect
        || topic == strait_engine::STRAIT_TOPIC
        || topic.ends_with(".checkpoints.internal")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(separator: &str, topic: &str) -> Route {
        route(
            &Naming::Default {
                separator: separator.to_owned(),
            },
            "A",
            "B",
            topic,
        )
        .unwrap()
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
            route(&Naming::Identity, "A", "B", "orders").unwrap(),
            Route::Mirror("orders".into())
        );
    }

    fn suffixed(topic: &str) -> Route {
        let separator = ".".to_owned();
        route(&Naming::Suffix { separator }, "A", "B", topic).unwrap()
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
            assert_eq!(suffixed(topic), Route::Leave, "{topic}");
        }
        for topic in ["orders.B.A", "orders.B.C", "orders.B.C.A"] {
            assert_eq!(suffixed(topic), Route::CameThrough, "{topic}");
        }
    }

    #[test]
    fn nothing_goes_back_to_where_it_came_from() {
        assert_eq!(named(".", "B.orders"), Route::Leave);
        assert_eq!(named(".", "B.A.orders"), Route::Leave);
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
                route(&Naming::Identity, "A", "B", topic).unwrap(),
                Route::Leave,
                "{topic}"
            );
        }
        assert_eq!(
            named(".", "billing.internal"),
            Route::Mirror("A.billing.internal".into())
        );
    }

    #[test]
    fn a_name_beyond_kafkas_limit_is_an_error() {
        let naming = Naming::default();
        assert!(route(&naming, "A", "B", &"x".repeat(247)).is_ok());
        let error = route(&naming, "A", "B", &"x".repeat(248))
            .unwrap_err()
            .to_string();
        assert!(error.contains("250 characters"), "{error}");
    }
}
