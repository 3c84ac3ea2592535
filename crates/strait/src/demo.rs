//! `strait demo`: two clusters in this process, a mirror in another one that is killed again and again, and the proof
//! that nothing was lost, doubled or disordered.

mod gauge;
mod home;
mod load;
mod play;
mod playground;
mod screen;
mod shop;
mod summary;

use std::io::{self, IsTerminal};
use std::process::ExitStatus;
use std::time::Duration;

use strait_net::Runtime;
use strait_testkit::KitError;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::DemoArgs;
use crate::exit::Exit;
use crate::output::{Out, complain};
use play::Play;
use screen::Paint;

/// Threads for two clusters and the load; the mirror has its own.
const THREADS: usize = 4;
/// Seeds that nobody asked for are short, so that people can type them.
const SEEDS: u64 = 1_000_000;

/// Why a demo came to no verdict.
#[derive(Debug, Error)]
pub(crate) enum DemoError {
    #[error("{what} failed: {cause}")]
    Io {
        what: &'static str,
        cause: io::Error,
    },
    #[error("an embedded cluster refused the demo's own data: {0}")]
    Kit(#[from] KitError),
    #[error("the task that writes the demo's data was lost")]
    LoadLost,
    #[error("the mirror ended by itself ({0}) in the middle of the demo")]
    Ended(ExitStatus),
    #[error("the mirror did not end within {} s after SIGTERM", .0.as_secs())]
    NotStopped(Duration),
    #[error("the mirror ended with {0} after SIGTERM instead of code 0")]
    BadStop(ExitStatus),
    #[error("the mirror wrote nothing for {} s although {lag} records wait", .after.as_secs())]
    Stalled { after: Duration, lag: u64 },
}

impl DemoError {
    fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |cause| Self::Io { what, cause }
    }
}

/// What a source topic is called on the target: the mirror's default.
fn target_name(topic: &str) -> String {
    format!("paris.{topic}")
}

/// Runs the demo.
pub(crate) fn demo(args: &DemoArgs, quiet: bool) -> Exit {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(until_signal(args, quiet));
            runtime.shutdown_timeout(Duration::from_millis(200));
            exit
        }
        Err(cause) => {
            complain(format_args!("cannot start: {cause}"));
            Exit::Failed
        }
    }
}

/// Whatever the demo holds (the mirror, its folder) is dropped, and with that ended and removed, when a signal comes.
async fn until_signal(args: &DemoArgs, quiet: bool) -> Exit {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(cause) => {
            complain(format_args!("cannot listen for signals: {cause}"));
            return Exit::Failed;
        }
    };
    let rt = Runtime::system();
    let seed = args.seed.unwrap_or_else(|| rt.random() % SEEDS);
    let mut out = Out::stdout();
    let mut play = match Play::open(rt, seed, quiet, args.keep).await {
        Ok(play) => play,
        Err(cause) => {
            complain(cause);
            return Exit::Failed;
        }
    };
    let paint = Paint::new(io::stdout().is_terminal());
    let acts = async {
        let verdict = play.perform(!args.keep).await?;
        let summary = verdict.summary(play.story(), paint);
        out.line(format_args!("\n{summary}"))
            .map_err(DemoError::io("writing to stdout"))?;
        if !args.keep {
            let next = playground::next(seed, paint);
            out.text(next).map_err(DemoError::io("writing to stdout"))?;
        }
        Ok::<Exit, DemoError>(verdict.exit())
    };
    let ended = tokio::select! {
        biased;
        exit = signals.next() => {
            play.screen().clear();
            complain("interrupted: the mirror is killed, its folder removed");
            return exit;
        }
        ended = acts => ended,
    };
    match ended {
        Ok(exit) if args.keep => playground::keep(play, exit, &mut out, paint, &mut signals).await,
        Ok(Exit::Ok) => Exit::Ok,
        Ok(exit) => {
            play.explain();
            exit
        }
        Err(cause) => {
            play.screen().clear();
            complain(format_args!("FAILED: {cause}"));
            play.explain();
            Exit::Failed
        }
    }
}

/// The signals that end a demo.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Exit {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
            _ = self.hangup.recv() => Exit::Terminated,
        }
    }
}
