//! What a person sees while the demo runs, on stderr: a line that is redrawn at a terminal, one line a second
//! elsewhere, nothing with `--quiet`.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::gauge::Reading;
use crate::output::complain;

/// Steps of the bar.
const STEPS: u64 = 1_000;
/// Between two lines where nothing can be redrawn.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// The same once nothing is expected to end.
const SETTLED_LINE_EVERY: Duration = Duration::from_secs(10);

const BUSY_TICK: Duration = Duration::from_millis(100);

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(bool);

impl Paint {
    /// For a stream that is or is not a terminal: <https://no-color.org> is respected, and so is `TERM=dumb`.
    pub(crate) fn new(terminal: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR");
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self::decide(terminal && !dumb, no_color.as_deref())
    }

    fn decide(able: bool, no_color: Option<&OsStr>) -> Self {
        Self(able && no_color.is_none_or(OsStr::is_empty))
    }

    pub(crate) fn bold(self, text: impl Display) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(self, text: impl Display) -> String {
        self.with("2", text)
    }

    pub(crate) fn green(self, text: impl Display) -> String {
        self.with("1;32", text)
    }

    pub(crate) fn red(self, text: impl Display) -> String {
        self.with("1;31", text)
    }

    fn with(self, code: &str, text: impl Display) -> String {
        if self.0 {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_string()
        }
    }
}

enum Kind {
    Silent,
    Lines {
        next: Option<Instant>,
        every: Duration,
    },
    Live(ProgressBar),
}

/// The screen. What is drawn on it is wiped when it is dropped; what was said stays.
pub(crate) struct Screen {
    kind: Kind,
    paint: Paint,
    began: Instant,
}

impl Screen {
    /// For this process's stderr.
    pub(crate) fn new(quiet: bool, now: Instant) -> Self {
        let terminal = io::stderr().is_terminal();
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let paint = Paint::new(terminal);
        let kind = match (quiet, terminal && !dumb) {
            (true, _) => Kind::Silent,
            (false, false) => Kind::Lines {
                next: None,
                every: LINE_EVERY,
            },
            (false, true) => Kind::Live(bar(paint)),
        };
        Self {
            kind,
            paint,
            began: now,
        }
    }

    /// The colours of this screen.
    pub(crate) fn paint(&self) -> Paint {
        self.paint
    }

    /// A line that stays.
    pub(crate) fn say(&self, text: impl Display) {
        match &self.kind {
            Kind::Silent => {}
            Kind::Lines { .. } => complain(text),
            Kind::Live(bar) => bar.suspend(|| complain(text)),
        }
    }

    /// A line that stays, with the time since the start.
    pub(crate) fn tell(&self, now: Instant, text: impl Display) {
        self.say(format_args!("{} {text}", self.stamp(now)));
    }

    /// What goes on, without numbers.
    pub(crate) fn busy(&self, text: &str) {
        if let Kind::Live(bar) = &self.kind {
            bar.set_message(text.to_owned());
            // Whoever is busy does not come back to draw.
            bar.enable_steady_tick(BUSY_TICK);
        }
    }

    /// How it goes. `done` is the part of all data that has arrived.
    pub(crate) fn show(&mut self, now: Instant, done: f64, reading: &Reading, rate: f64) {
        let text = format!(
            "{:>9} records  {:>6} MB/s  lag {:<7}",
            count(reading.records),
            megabytes(rate),
            count(reading.lag)
        );
        let done = done.clamp(0.0, 1.0);
        let stamp = self.stamp(now);
        match &mut self.kind {
            Kind::Silent => {}
            Kind::Lines { next, every } => {
                if next.is_none_or(|next| now >= next) {
                    *next = Some(now + *every);
                    complain(format_args!(
                        "{stamp} {:>3.0} %  {}",
                        done * 100.0,
                        text.trim_end()
                    ));
                }
            }
            Kind::Live(bar) => {
                bar.disable_steady_tick();
                bar.set_position((done * STEPS as f64) as u64);
                bar.set_message(text);
            }
        }
    }

    /// From now on nothing has an end: no bar, and fewer lines.
    pub(crate) fn settle(&mut self) {
        match &mut self.kind {
            Kind::Silent => {}
            Kind::Lines { every, .. } => *every = SETTLED_LINE_EVERY,
            Kind::Live(bar) => *bar = draw("        {spinner} {msg}"),
        }
    }

    /// Wipes what is redrawn.
    pub(crate) fn clear(&self) {
        if let Kind::Live(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }

    fn stamp(&self, now: Instant) -> String {
        let since = now.saturating_duration_since(self.began);
        self.paint
            .dim(format_args!("{:>5.1} s", since.as_secs_f64()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.clear();
    }
}

fn bar(paint: Paint) -> ProgressBar {
    draw(if paint.0 {
        "        {bar:24.green/dim} {percent:>3} %  {msg}"
    } else {
        "        {bar:24} {percent:>3} %  {msg}"
    })
}

fn draw(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
    bar.set_style(style.progress_chars("━━╌"));
    bar
}

/// `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes as megabytes (10^6), with one decimal.
pub(crate) fn megabytes(bytes: f64) -> String {
    format!("{:.1}", bytes / 1e6)
}

/// `12 ms`, `0.34 s`, `12.3 s`.
pub(crate) fn span(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..100 => format!("{ms} ms"),
        100..10_000 => format!("{:.2} s", time.as_secs_f64()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Paint, count, span};

    #[test]
    fn numbers_are_easy_to_read() {
        let counts = [0, 999, 1_000, 1_234_567].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
        let spans = [12, 340, 12_345].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(spans, ["12 ms", "0.34 s", "12.3 s"]);
    }

    #[test]
    fn colours_are_for_terminals_whose_user_did_not_ask_for_none() {
        assert_eq!(Paint::decide(true, None).bold("x"), "\u{1b}[1mx\u{1b}[0m");
        for plain in [
            Paint::decide(false, None),
            Paint::decide(true, Some("1".as_ref())),
        ] {
            assert_eq!(plain.red("x"), "x");
        }
    }
}
