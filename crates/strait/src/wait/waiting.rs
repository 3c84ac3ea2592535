//! One loop for whatever is waited for: look, tell, pause.

use std::time::Duration;

use strait_engine::SessionError;
use strait_mirror::{MirrorError, SelectionError};
use strait_net::{Action, Cluster, NetError, Runtime};
use tokio::time::Instant;

use crate::exit::Exit;
use crate::links::unanswered;
use crate::output::complain;
use crate::serve::exit_for;

/// What the first look is given whatever the time.
const LEAST: Duration = Duration::from_secs(5);
/// Between two looks; and between two while nothing changes.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));
/// Between two lines that tell how far it is.
pub(super) const TELL: Duration = Duration::from_secs(5);
/// What a broker is given to answer, at the most and at the least.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));
/// How many times the time to connect a cluster may be out of reach from the beginning.
const OUT_OF_REACH: u32 = 3;

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    begun: Instant,
    /// When no further look begins.
    deadline: Option<Instant>,
    /// How long a cluster may be out of reach from the beginning.
    out_of_reach: Duration,
}

impl Times {
    pub(super) fn new(begun: Instant, timeout: Option<Duration>, connect: Duration) -> Self {
        Self {
            begun,
            deadline: timeout.map(|timeout| begun + timeout),
            out_of_reach: connect * OUT_OF_REACH,
        }
    }

    /// When a look that is under way is given up.
    fn end(&self) -> Option<Instant> {
        Some(self.deadline?.max(self.begun + LEAST))
    }
}

/// What is waited for.
pub(super) trait Look {
    /// What one look brings.
    type Found;
    /// Looks once. A broker that does not answer within `patience` holds up only what it alone knows.
    async fn look(&mut self, patience: Duration) -> Result<Self::Found, Trouble>;
    /// What that means.
    fn state(&self, found: &Self::Found) -> State;
}

/// What a look means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has come.
    Done,
    /// It may still come; what lacks, in a line.
    Open(String),
    /// It never comes.
    Never,
}

/// Why there was nothing to be seen.
#[derive(Debug)]
pub(super) struct Trouble {
    text: String,
    /// Waiting may mend it.
    passes: bool,
    /// A whole cluster is out of reach.
    unreachable: bool,
    exit: Exit,
}

impl Trouble {
    /// There is nothing that could be waited for.
    pub(super) fn nothing(text: String) -> Self {
        Self {
            text,
            passes: false,
            unreachable: false,
            exit: Exit::Failed,
        }
    }
}

impl From<MirrorError> for Trouble {
    fn from(error: MirrorError) -> Self {
        let exit = exit_for(&error);
        let net = match &error {
            MirrorError::Net(net) | MirrorError::Session(SessionError::Net(net)) => Some(net),
            MirrorError::Session(_) => None,
        };
        let passes = match (&error, net) {
            (_, Some(_)) => exit == Exit::Unreachable,
            // A log that cannot be read at the moment: its leader may just move.
            (MirrorError::Session(error), _) => {
                error.action() != Action::Stop && !error.is_denied()
            }
            _ => false,
        };
        Self {
            text: format!("{error} (id={})", error.id()),
            passes,
            unreachable: matches!(net, Some(NetError::Unreachable { .. })),
            exit,
        }
    }
}

impl From<SelectionError> for Trouble {
    fn from(error: SelectionError) -> Self {
        match error {
            SelectionError::Registry(error) => MirrorError::from(error).into(),
            error => Self::nothing(format!("{error} (id={})", error.id())),
        }
    }
}

/// How it ended.
pub(super) struct Seen<F> {
    /// What the last look brought that brought anything.
    pub(super) found: Option<F>,
    /// Why there was nothing to be seen in the end, if so.
    pub(super) trouble: Option<String>,
    pub(super) exit: Exit,
}

/// Waits for one link, and tells on stderr what for: what has changed, not too often.
pub(super) struct Waiting<'a> {
    pub(super) rt: &'a Runtime,
    link: &'a str,
    /// Those that are asked.
    clusters: Vec<Cluster>,
    times: Times,
    quiet: bool,
    told: Option<(String, Instant)>,
    /// A look has brought something: the clusters were to be reached.
    reached: bool,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(
        rt: &'a Runtime,
        link: &'a str,
        clusters: Vec<Cluster>,
        times: Times,
        quiet: bool,
    ) -> Self {
        Self {
            rt,
            link,
            clusters,
            times,
            quiet,
            told: None,
            reached: false,
        }
    }

    /// Looks again and again: until it has come, or never comes, or the time is over.
    pub(super) async fn until<L: Look>(&mut self, what: &mut L) -> Seen<L::Found> {
        let mut seen = Seen {
            found: None,
            trouble: None,
            exit: Exit::Ok,
        };
        let (mut pause, mut last) = (PAUSE.0, String::new());
        // Why the last look brought nothing.
        let mut lacks: Option<Trouble> = None;
        loop {
            let looked = self.in_time(what).await;
            let over = self.over();
            let line = match looked {
                None => {
                    return match unanswered(&self.clusters, PATIENCE.1) {
                        Some(why) => self.ends(seen, Exit::NotYet, why),
                        // Everybody answers: what was seen before counts, and this look came too late.
                        None => self.time_is_over(seen, lacks),
                    };
                }
                Some(Ok(found)) => {
                    let state = what.state(&found);
                    (seen.found, lacks) = (Some(found), None);
                    self.reached = true;
                    match state {
                        State::Done => return seen,
                        State::Never => {
                            seen.exit = Exit::Failed;
                            return seen;
                        }
                        State::Open(line) => line,
                    }
                }
                Some(Err(trouble)) => {
                    let waited = self.rt.now().saturating_duration_since(self.times.begun);
                    let lost =
                        !self.reached && trouble.unreachable && waited >= self.times.out_of_reach;
                    if !trouble.passes || lost || over && trouble.unreachable {
                        return self.ends(seen, trouble.exit, trouble.text);
                    }
                    let line = format!("{}; trying again", trouble.text);
                    lacks = Some(trouble);
                    line
                }
            };
            if !(over && lacks.is_some()) {
                self.say(&line);
            }
            if over {
                return self.time_is_over(seen, lacks);
            }
            pause = match line == last {
                true => (pause * 2).min(PAUSE.1),
                false => PAUSE.0,
            };
            last = line;
            let next = self.rt.now() + pause;
            let next = self.times.deadline.map_or(next, |at| at.min(next));
            self.rt.sleep_until(next).await;
            // Another look would have no time.
            if self.over() {
                return self.time_is_over(seen, lacks);
            }
        }
    }

    /// What the last whole look saw; or why the last one saw nothing.
    fn time_is_over<F>(&self, mut seen: Seen<F>, lacks: Option<Trouble>) -> Seen<F> {
        match lacks {
            Some(trouble) => {
                let exit = if trouble.unreachable {
                    trouble.exit
                } else {
                    Exit::NotYet
                };
                self.ends(seen, exit, trouble.text)
            }
            None if seen.found.is_some() => {
                seen.exit = Exit::NotYet;
                seen
            }
            None => {
                let why = "what was asked had no answer in time";
                self.ends(seen, Exit::NotYet, why.to_owned())
            }
        }
    }

    fn ends<F>(&self, seen: Seen<F>, exit: Exit, why: String) -> Seen<F> {
        complain(format_args!("link {}: {why}", self.link));
        let trouble = Some(why);
        Seen {
            trouble,
            exit,
            ..seen
        }
    }

    /// One look, unless that takes longer than there is time; meanwhile it is told who does not answer.
    async fn in_time<L: Look>(&mut self, what: &mut L) -> Option<Result<L::Found, Trouble>> {
        let end = self.times.end();
        let left = end.map(|end| end.saturating_duration_since(self.rt.now()));
        let left = left.map_or(PATIENCE.0, |left| left.saturating_sub(PATIENCE.1));
        let mut looking = std::pin::pin!(what.look(left.clamp(PATIENCE.1, PATIENCE.0)));
        let rt = self.rt;
        let late = async {
            match end {
                Some(end) => rt.sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        let mut late = std::pin::pin!(late);
        loop {
            tokio::select! {
                biased;
                looked = &mut looking => return Some(looked),
                () = &mut late => return None,
                () = rt.sleep(TELL) => {
                    if let Some(why) = unanswered(&self.clusters, PATIENCE.1) {
                        self.say(&why);
                    }
                }
            }
        }
    }

    /// Whether there is no time for another look.
    fn over(&self) -> bool {
        let now = self.rt.now();
        self.times.deadline.is_some_and(|at| at <= now)
    }

    fn say(&mut self, line: &str) {
        let now = self.rt.now();
        let soon = |(_, at): &(String, Instant)| now.saturating_duration_since(*at) < TELL;
        if self.quiet || self.told.as_ref().is_some_and(soon) {
            return;
        }
        if self.told.as_ref().is_none_or(|(told, _)| told != line) {
            complain(format_args!("link {}: {line}", self.link));
        }
        self.told = Some((line.to_owned(), now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks that take this long and never bring what is waited for; after so many they fail, with this.
    struct Slow {
        rt: Runtime,
        takes: Duration,
        good: u32,
        unreachable: bool,
    }

    impl Look for Slow {
        type Found = ();

        async fn look(&mut self, _: Duration) -> Result<(), Trouble> {
            self.rt.sleep(self.takes).await;
            if self.good == 0 {
                return Err(Trouble {
                    text: "away".to_owned(),
                    passes: true,
                    unreachable: self.unreachable,
                    exit: Exit::Unreachable,
                });
            }
            self.good -= 1;
            Ok(())
        }

        fn state(&self, (): &()) -> State {
            State::Open("not yet".to_owned())
        }
    }

    /// Waits so many seconds for looks of so many milliseconds.
    async fn wait(secs: u64, (takes, good, unreachable): (u64, u32, bool)) -> Seen<()> {
        let rt = Runtime::system();
        let (begun, timeout) = (rt.now(), Duration::from_secs(secs));
        let times = Times::new(begun, Some(timeout), Duration::from_secs(10));
        let mut waiting = Waiting::new(&rt, "l", Vec::new(), times, true);
        let mut slow = Slow {
            rt: rt.clone(),
            takes: Duration::from_millis(takes),
            good,
            unreachable,
        };
        let seen = waiting.until(&mut slow).await;
        assert!(rt.now() - begun <= timeout.max(LEAST), "{secs} {takes}");
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_time_is_over_the_last_whole_look_counts() {
        // (a look's time in ms, the time to wait in s, whether one was whole)
        let cases = [
            (10, 12, true),
            (10, 2, true),
            (3_000, 12, true),
            (4_000, 1, true),
            (7_000, 6, false),
        ];
        for (takes, secs, whole) in cases {
            let seen = wait(secs, (takes, u32::MAX, false)).await;
            assert_eq!(seen.exit, Exit::NotYet);
            assert_eq!(seen.found.is_some(), whole, "{takes} {secs}");
            assert_eq!(seen.trouble.is_none(), whole, "{takes} {secs}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_time_is_over_what_kept_the_last_look_from_seeing_is_told() {
        for (unreachable, exit) in [(true, Exit::Unreachable), (false, Exit::NotYet)] {
            for good in [0, 2] {
                for secs in [2, 12] {
                    let seen = wait(secs, (10, good, unreachable)).await;
                    assert_eq!(seen.exit, exit, "{good} {secs}");
                    assert_eq!(seen.trouble.as_deref(), Some("away"), "{good} {secs}");
                    assert_eq!(seen.found.is_some(), good > 0, "{good} {secs}");
                }
            }
        }
    }
}
