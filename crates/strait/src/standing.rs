//! How a link stands: told to health, metrics and the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use strait_admin::{Health, State};
use strait_engine::{LinkStatus, TakenOver};
use strait_mirror::{Selection, StoredSelection};
use tokio::sync::watch;
use tracing::{info, warn};

/// Topics named at most where troubles are told.
const NAMED: usize = 20;

/// The topics that each link of the process mirrors now, for those who ask. Clones share one table.
#[derive(Clone, Debug, Default)]
pub(crate) struct ActiveTopics {
    links: Arc<Mutex<BTreeMap<String, Arc<[String]>>>>,
}

impl ActiveTopics {
    fn set(&self, link: &str, topics: Arc<[String]>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.insert(link.to_owned(), topics);
    }

    /// Those of a link, sorted; none while it does not run.
    pub(crate) fn of(&self, link: &str) -> Arc<[String]> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.get(link).cloned().unwrap_or_default()
    }
}

/// The link ends: it mirrors nothing from here on.
struct UntilItEnds<'a>(&'a ActiveTopics, &'a str);

impl Drop for UntilItEnds<'_> {
    fn drop(&mut self) {
        self.0.set(self.1, Arc::default());
    }
}

/// What was said last about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Mirroring,
    StandsStill,
}

/// Tells how the link stands, at every change, until it ends.
pub(crate) async fn follow(
    link: String,
    mut status: watch::Receiver<LinkStatus>,
    mut selection: watch::Receiver<Selection>,
    health: Health,
    active: ActiveTopics,
) {
    let mut said = Said::Nothing;
    let mut taken = None;
    let _until = UntilItEnds(&active, &link);
    loop {
        // Whichever ends first: the link has ended, and the caller tells that.
        let changed = tokio::select! {
            biased;
            changed = status.changed() => changed,
            changed = selection.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        let now = status.borrow_and_update().clone();
        let topics = selection.borrow_and_update().clone();
        let state = state_of(&now, &topics);
        if let Some(all) = now.taken_over.as_ref().filter(|_| settled(&now, &topics)) {
            say_taken(&link, taken.as_ref(), all);
            taken = Some(all.clone());
        }
        said = say(&link, said, &now, &topics, &state);
        let troubled = u32::try_from(topics.troubles.len()).unwrap_or(u32::MAX);
        metrics::gauge!("strait_topics_troubled", "link" => link.clone()).set(f64::from(troubled));
        let runs = now.open && now.trouble.is_none();
        let mirrored = if runs {
            topics.active.clone()
        } else {
            Arc::default()
        };
        active.set(&link, mirrored);
        let notes = topics.stored.as_ref().map(selected).into_iter();
        let notes: Vec<String> = notes.chain(taken.as_ref().map(from_mm2)).collect();
        health.note(&link, (!notes.is_empty()).then(|| notes.join("; ")));
        report(&health, &link, state);
    }
}

/// What the page says about a link that went on where MirrorMaker 2 stopped.
fn from_mm2(taken: &TakenOver) -> String {
    format!(
        "{} partitions of {} topics were taken over from MirrorMaker 2 at the start",
        taken.partitions, taken.topics
    )
}

/// Said when each flow runs or is known to stand still, of each partition once: those that were waited for come later.
fn say_taken(link: &str, before: Option<&TakenOver>, all: &TakenOver) {
    let Some(new) = not_said(before, all) else {
        return;
    };
    let (topics, partitions, records) = (new.topics, new.partitions, new.records);
    let in_doubt = new.in_doubt;
    if before.is_none() {
        info!(
            link,
            topics,
            partitions,
            records,
            in_doubt,
            "took over from MirrorMaker 2; so many records behind its last word were found on the target"
        );
    } else {
        info!(
            link,
            topics,
            partitions,
            records,
            in_doubt,
            "took over more from MirrorMaker 2: what had to wait for a leader or a broker"
        );
    }
}

/// What was taken over beyond what was said; nothing where that is all.
fn not_said(before: Option<&TakenOver>, all: &TakenOver) -> Option<TakenOver> {
    let new = match before {
        Some(before) if before == all => return None,
        // A session counts what it takes over itself.
        Some(before) if all.partitions > before.partitions => TakenOver {
            // A topic may have been begun before.
            topics: all.topics.saturating_sub(before.topics).max(1),
            partitions: all.partitions - before.partitions,
            records: all.records.saturating_sub(before.records),
            in_doubt: all.in_doubt.saturating_sub(before.in_doubt),
        },
        _ => all.clone(),
    };
    Some(new)
}

/// Tells whoever asks for health or metrics.
pub(crate) fn report(health: &Health, link: &str, state: State) {
    let ready = matches!(state, State::Mirroring | State::Impaired(_));
    metrics::gauge!("strait_link_ready", "link" => link.to_owned()).set(f64::from(u8::from(ready)));
    health.set(link, state);
}

/// What the page says about a link that obeys a stored selection.
fn selected(stored: &StoredSelection) -> String {
    let since = stored.since();
    if stored.includes.is_empty() {
        return format!("no topic is selected, as stored on the target since {since}");
    }
    let patterns = stored.includes.join(", ");
    format!("topics = {patterns}, as stored on the target since {since}")
}

/// One line when everything that can run runs, one when nothing does.
fn say(link: &str, said: Said, now: &LinkStatus, topics: &Selection, state: &State) -> Said {
    match state {
        State::Failed(why)
            if said != Said::StandsStill && (now.trouble.is_some() || settled(now, topics)) =>
        {
            warn!(link, "the link stands still: {why}");
            Said::StandsStill
        }
        State::Mirroring | State::Impaired(_)
            if said != Said::Mirroring && settled(now, topics) =>
        {
            let (flows, running) = (now.flows, now.running);
            let troubled = now.troubled;
            let again = match said {
                Said::StandsStill => "mirroring again",
                _ => "mirroring",
            };
            info!(link, flows, running, troubled, "{again}");
            Said::Mirroring
        }
        _ if !now.open && said == Said::Mirroring => Said::Nothing,
        _ => said,
    }
}

/// Whether each flow runs or is known to stand still.
fn settled(now: &LinkStatus, topics: &Selection) -> bool {
    now.open && topics.known && now.flows >= topics.flows && now.running + now.troubled >= now.flows
}

fn state_of(now: &LinkStatus, topics: &Selection) -> State {
    if let Some(trouble) = &now.trouble {
        return State::Failed(trouble.clone());
    }
    if let Some(why) = topics.refused.as_ref().filter(|_| !topics.known) {
        return State::Failed(why.clone());
    }
    if !now.open || !topics.known || now.flows < topics.flows {
        return State::Starting;
    }
    let mut troubles = Vec::from_iter(topics.refused.clone());
    if let Some((flow, why)) = now.troubles.first() {
        let stand = if now.troubled == 1 { "stands" } else { "stand" };
        troubles.push(format!(
            "{} of {} flows {stand} still; {flow}: {why}",
            now.troubled, now.flows
        ));
    }
    if !topics.troubles.is_empty() {
        troubles.push(topics_in_trouble(topics));
    }
    if !troubles.is_empty() && now.running > 0 {
        return State::Impaired(troubles.join("; "));
    }
    // With topics in trouble the flows that there are may still be opened.
    if now.troubled > 0 || (now.flows == 0 && !troubles.is_empty()) {
        return State::Failed(troubles.join("; "));
    }
    if now.running < now.flows {
        State::Starting
    } else {
        State::Mirroring
    }
}

fn topics_in_trouble(topics: &Selection) -> String {
    let are = if topics.troubles.len() == 1 {
        "is"
    } else {
        "are"
    };
    let mut text = format!(
        "{} of {} topics {are} not mirrored, or not whole",
        topics.troubles.len(),
        topics.topics
    );
    for (topic, why) in topics.troubles.iter().take(NAMED) {
        text.push_str(&format!("; {topic}: {why}"));
    }
    if topics.troubles.len() > NAMED {
        text.push_str(&format!("; and {} more", topics.troubles.len() - NAMED));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Said, Selection, State, not_said, say, settled, state_of};
    use strait_engine::{LinkStatus, TakenOver};

    fn status(flows: usize, running: usize) -> LinkStatus {
        LinkStatus {
            open: true,
            flows,
            running,
            ..LinkStatus::default()
        }
    }

    fn topics(topics: usize, flows: usize, troubled: &[&str]) -> Selection {
        Selection {
            known: true,
            topics,
            flows,
            troubles: troubled
                .iter()
                .map(|topic| ((*topic).to_owned(), "refused".to_owned()))
                .collect(),
            ..Selection::default()
        }
    }

    #[test]
    fn a_link_whose_only_topic_is_refused_is_not_ready() {
        assert_eq!(
            state_of(&status(0, 0), &topics(1, 0, &["orders"])),
            State::Failed(
                "1 of 1 topics is not mirrored, or not whole; orders: refused".to_owned()
            )
        );
    }

    #[test]
    fn a_refused_topic_beside_others_is_named() {
        assert_eq!(
            state_of(&status(3, 3), &topics(2, 3, &["orders"])),
            State::Impaired(
                "1 of 2 topics is not mirrored, or not whole; orders: refused".to_owned()
            )
        );
        assert_eq!(
            state_of(&status(3, 0), &topics(2, 3, &["orders"])),
            State::Starting
        );
    }

    #[test]
    fn nothing_is_ready_before_topics_were_looked_for() {
        assert_eq!(
            state_of(&status(0, 0), &Selection::default()),
            State::Starting
        );
        assert_eq!(state_of(&status(0, 0), &topics(1, 3, &[])), State::Starting);
        assert_eq!(
            state_of(&status(0, 0), &topics(0, 0, &[])),
            State::Mirroring
        );
    }

    #[test]
    fn mirroring_is_said_when_all_flows_are_settled_and_again_after_a_standstill() {
        let all = topics(2, 7, &[]);
        let told = |said, now: &LinkStatus| say("a", said, now, &all, &state_of(now, &all));
        let mut now = status(7, 3);
        assert!(!settled(&now, &all));
        assert_eq!(told(Said::Nothing, &now), Said::Nothing);
        now = status(7, 7);
        assert_eq!(told(Said::Nothing, &now), Said::Mirroring);
        now.trouble = Some("no session".to_owned());
        assert_eq!(told(Said::Mirroring, &now), Said::StandsStill);
        assert_eq!(told(Said::StandsStill, &status(7, 3)), Said::StandsStill);
        assert_eq!(told(Said::StandsStill, &status(7, 7)), Said::Mirroring);
    }

    #[test]
    fn what_was_taken_over_is_said_once() {
        let taken = |topics, partitions, records| TakenOver {
            topics,
            partitions,
            records,
            in_doubt: 0,
        };
        let first = taken(2, 7, 300);
        assert_eq!(not_said(None, &first), Some(first.clone()));
        assert_eq!(not_said(Some(&first), &first), None);
        // One partition had no leader when the others were taken over.
        let all = taken(2, 8, 310);
        assert_eq!(not_said(Some(&first), &all), Some(taken(1, 1, 10)));
        // Another session found one that was not its predecessor's to take.
        let again = taken(1, 1, 4);
        assert_eq!(not_said(Some(&all), &again), Some(again.clone()));
    }
}
