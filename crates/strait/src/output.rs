//! Results for stdout, and messages for a person on stderr that are no log lines.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes results to stdout.
///
/// A reader that went away (`strait check FILE | head`) is no failure: what is left is dropped in silence. Any other
/// failure, such as a full disk behind a redirection, is the caller's to report.
#[derive(Debug, Default)]
pub(crate) struct Out {
    gone: bool,
}

impl Out {
    /// Writes to this process's stdout.
    pub(crate) fn stdout() -> Self {
        Self::default()
    }

    /// Writes one line.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        self.text(format_args!("{text}\n"))
    }

    /// Writes text as it is, and flushes.
    pub(crate) fn text(&mut self, text: impl Display) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        match stdout
            .write_all(text.to_string().as_bytes())
            .and_then(|()| stdout.flush())
        {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(())
            }
            other => other,
        }
    }
}

/// Tells a person at a terminal what is wrong. There is nowhere to report that stderr is closed.
pub(crate) fn complain(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
