//! Topics that are selected and left out by their names alone: said once, many in one line.

use std::collections::BTreeSet;

use strait_config::LinkConfig;
use tracing::info;

use crate::naming::Route;

/// How many topics one line names.
const NAMED: usize = 10;

/// What one look at the source left out.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    from: Vec<String>,
    through: Vec<String>,
    shaped: Vec<String>,
}

impl LeftOut {
    pub(crate) fn add(&mut self, why: &Route, topic: &str) {
        let list = match why {
            Route::CameFrom => &mut self.from,
            Route::CameThrough => &mut self.through,
            Route::LooksMirrored => &mut self.shaped,
            Route::Mirror(_) | Route::Leave => return,
        };
        list.push(topic.to_owned());
    }

    /// Says it of topics of which it was not said before. It is no trouble: most of them are where links form a ring,
    /// or go both ways.
    pub(crate) fn report(self, link: &LinkConfig, said: &mut BTreeSet<String>) {
        let target = &link.target;
        let lines = [
            (
                self.from,
                format!("by their names they came from cluster {target}"),
            ),
            (
                self.through,
                format!("by their names they came through cluster {target}"),
            ),
            (
                self.shaped,
                "they have the shape of this link's names already".to_owned(),
            ),
        ];
        let mut all = BTreeSet::new();
        for (topics, why) in lines {
            let new: Vec<&str> = topics
                .iter()
                .filter(|topic| !said.contains(*topic))
                .map(String::as_str)
                .collect();
            if let Some(names) = listed(&new) {
                info!(
                    link = %link.name, topics = new.len(),
                    "not mirrored, because {why}: {names}; one that did not is mirrored when names gives it a name"
                );
            }
            all.extend(topics);
        }
        *said = all;
    }
}

/// The first few, and how many more; none where there is none.
fn listed(topics: &[&str]) -> Option<String> {
    match topics {
        [] => None,
        all if all.len() <= NAMED => Some(all.join(", ")),
        all => {
            let named: Vec<&str> = all.iter().take(NAMED).copied().collect();
            let more = topics.len() - NAMED;
            Some(format!("{} and {more} more", named.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::listed;

    #[test]
    fn a_line_names_a_few_topics() {
        assert_eq!(listed(&[]), None);
        assert_eq!(listed(&["a", "b"]).as_deref(), Some("a, b"));
        let many = listed(&["t"; 13]).unwrap_or_default();
        assert!(many.ends_with(", t and 3 more"), "{many}");
    }
}
