//! What the process says by its exit code.

use std::process::ExitCode;

/// The end of a run, as scripts see it. The table in `strait --help` ([`TABLE`]) is the promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or stopped on request. What could not be written in time is in the log, and costs no record.
    Ok,
    /// Failed for a reason that the last log lines tell.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The configuration is wrong, or what it says to prove who we are.
    Configuration,
    /// The comparison found differences; a plan, something that would be refused.
    Different,
    /// A cluster cannot be reached, and nothing else is mirrored meanwhile.
    Unreachable,
    /// What was waited for did not come within the time given.
    NotYet,
    /// A second SIGINT came before everything was written.
    Interrupted,
    /// A second SIGTERM came before everything was written.
    Terminated,
}

/// The table in `--help`.
pub(crate) const TABLE: &str = "\
Exit codes:
    0  done, or stopped by SIGINT or SIGTERM; what could not be written is told on stderr
    1  failed; the last lines on stderr tell why
    2  wrong usage of the command line
    3  wrong configuration, or credentials or certificates that a cluster refuses
    4  differences found; by plan: something that is asked for would be refused
    5  a cluster cannot be reached, tried for three times the connect timeout
    6  by wait: not caught up, or not drained, within --timeout
  130  ended by a second SIGINT before everything was written
  143  ended by a second SIGTERM before everything was written";

impl Exit {
    /// The number, as in [`TABLE`].
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Configuration => 3,
            Self::Different => 4,
            Self::Unreachable => 5,
            Self::NotYet => 6,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::{Exit, TABLE};

    #[test]
    fn the_table_has_every_code() {
        let all = [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::Configuration,
            Exit::Different,
            Exit::Unreachable,
            Exit::NotYet,
            Exit::Interrupted,
            Exit::Terminated,
        ];
        for exit in all {
            let start = format!("{:>5}  ", exit.code());
            assert!(
                TABLE.lines().any(|line| line.starts_with(&start)),
                "{exit:?}"
            );
        }
        assert_eq!(TABLE.lines().count(), all.len() + 1);
    }
}
