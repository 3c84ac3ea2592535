//! Logs on stderr: one line per event that matters, in UTC, with repeats held back.

mod fields;
mod line;
mod repeats;

use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::args::{LogArgs, LogFormat, LogLevel};
use fields::Fields;
use line::Line;
use repeats::Repeats;

/// Prints what is held back when it is dropped. Keep it until the process ends.
#[must_use]
pub(crate) struct Logging {
    log: Log,
}

impl Logging {
    /// Logs the whole process's events from now on, as the command line says. Call it once. `clock` tells
    /// milliseconds since 1970-01-01 UTC.
    pub(crate) fn install(args: LogArgs, clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        let stderr = std::io::stderr();
        let no_color = std::env::var_os("NO_COLOR");
        let color = wants_color(args.log_format, no_color.as_deref(), stderr.is_terminal());
        let log = Log::new(args.log_format, color, Box::new(clock), Box::new(stderr));
        let subscriber = tracing_subscriber::registry().with(log.clone().with_filter(filter(args)));
        // Fails only when a subscriber is there already, which then logs.
        let _ = tracing::subscriber::set_global_default(subscriber);
        Self { log }
    }

    /// Prints what has been held back for a minute, with its count. Call it now and then, so that a trouble that
    /// ended is counted too.
    pub(crate) fn flush_repeats(&self) {
        self.log.print_held(|_| false);
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.log.print_held(|_| true);
    }
}

/// Colours are for people at a terminal who did not ask for none (<https://no-color.org>: set and not empty).
fn wants_color(format: LogFormat, no_color: Option<&OsStr>, terminal: bool) -> bool {
    format == LogFormat::Text && terminal && no_color.is_none_or(OsStr::is_empty)
}

/// Strait's own events from the level asked for; those of libraries when they warn.
fn filter(args: LogArgs) -> Targets {
    let level = match args.log_level {
        _ if args.quiet => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Targets match by the beginning: strait, strait_engine, strait_net and so on.
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("strait", level)
}

/// The layer that prints. Clones print to one place.
#[derive(Clone)]
struct Log {
    format: LogFormat,
    color: bool,
    clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    state: Arc<Mutex<Printer>>,
}

struct Printer {
    repeats: Repeats,
    out: Box<dyn Write + Send>,
}

impl Log {
    fn new(
        format: LogFormat,
        color: bool,
        clock: Box<dyn Fn() -> i64 + Send + Sync>,
        out: Box<dyn Write + Send>,
    ) -> Self {
        let printer = Printer {
            repeats: Repeats::default(),
            out,
        };
        Self {
            format,
            color,
            clock: clock.into(),
            state: Arc::new(Mutex::new(printer)),
        }
    }

    fn print_held(&self, due: impl Fn(&Line) -> bool) {
        self.print_held_by(&mut self.printer(), due);
    }

    fn print_held_by(&self, printer: &mut Printer, due: impl Fn(&Line) -> bool) {
        for held in printer.repeats.take_held((self.clock)(), due) {
            // The count alone tells that this stands for more than one.
            let text = held
                .line
                .render(self.format, self.color, held.last_ms, held.count);
            let _ = printer.out.write_all(text.as_bytes());
        }
    }

    fn printer(&self) -> MutexGuard<'_, Printer> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Log {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // From the innermost span outwards, so that the outermost ends up in front.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.put_before(outer);
            }
        }
        let metadata = event.metadata();
        let level: Level = *metadata.level();
        let line = Line {
            level,
            target: metadata.target(),
            fields,
        };
        let now = (self.clock)();
        let mut printer = self.printer();
        // What is no trouble may tell the end of one: what was held back until then stands before it.
        if level == Level::INFO {
            self.print_held_by(&mut printer, |held| {
                line.link().is_none() || held.link() == line.link()
            });
        }
        if let Some(repeated) = printer.repeats.admit(&metadata.callsite(), &line, now) {
            let text = line.render(self.format, self.color, now, repeated);
            // One write per line keeps lines whole; a closed stderr must not stop a mirror.
            let _ = printer.out.write_all(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Log, LogFormat};
    use std::io::{self, Write};
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        /// What was printed since the last look, without the times.
        fn take(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap());
            let text = String::from_utf8(bytes).unwrap();
            text.lines()
                .map(|line| line.split_once(' ').unwrap().1.to_owned())
                .collect()
        }
    }

    fn logged(test: impl FnOnce(&Log, &Page, &AtomicI64)) {
        let (page, now) = (Page::default(), Arc::new(AtomicI64::new(1_795_251_600_000)));
        let clock = Arc::clone(&now);
        let clock = Box::new(move || clock.load(Ordering::Relaxed));
        let log = Log::new(LogFormat::Text, false, clock, Box::new(page.clone()));
        let subscriber = tracing_subscriber::registry().with(log.clone());
        tracing::subscriber::with_default(subscriber, || test(&log, &page, &now));
    }

    fn lag(topic: &str, records: u64) {
        tracing::warn!(topic, records, "behind");
    }

    #[test]
    fn a_repeated_event_is_printed_at_once_then_once_a_minute_with_a_count() {
        logged(|_, page, now| {
            lag("orders", 1);
            assert_eq!(page.take(), ["WARN  topic=orders records=1 behind"]);
            lag("orders", 2);
            now.fetch_add(59_999, Ordering::Relaxed);
            lag("orders", 3);
            assert!(page.take().is_empty());
            lag("invoices", 7);
            assert_eq!(page.take(), ["WARN  topic=invoices records=7 behind"]);
            now.fetch_add(1, Ordering::Relaxed);
            lag("orders", 4);
            assert_eq!(
                page.take(),
                ["WARN  topic=orders records=4 repeated=3 behind"]
            );
            lag("orders", 5);
            assert!(page.take().is_empty());
        });
    }

    #[test]
    fn partitions_are_told_apart_and_debugging_is_never_held_back() {
        logged(|_, page, _| {
            for partition in [0, 1, 0] {
                tracing::error!(partition, "lost");
                tracing::debug!(partition, "detail");
            }
            let lines = [
                "ERROR partition=0 lost",
                "DEBUG partition=0 detail",
                "ERROR partition=1 lost",
                "DEBUG partition=1 detail",
                "DEBUG partition=0 detail",
            ];
            assert_eq!(page.take(), lines);
        });
    }

    #[test]
    fn what_is_held_back_is_printed_when_its_minute_is_over_and_at_the_end() {
        logged(|log, page, now| {
            lag("orders", 1);
            lag("orders", 2);
            lag("orders", 3);
            page.take();
            log.print_held(|_| false);
            assert!(page.take().is_empty());
            now.fetch_add(60_000, Ordering::Relaxed);
            log.print_held(|_| false);
            assert_eq!(
                page.take(),
                ["WARN  topic=orders records=3 repeated=2 behind"]
            );
            lag("orders", 4);
            log.print_held(|_| true);
            assert_eq!(page.take(), ["WARN  topic=orders records=4 behind"]);
            log.print_held(|_| true);
            assert!(page.take().is_empty());
        });
    }

    #[test]
    fn what_is_held_back_stands_before_the_end_of_the_trouble_with_its_own_time() {
        logged(|_, page, now| {
            for _ in 0..3 {
                tracing::warn!(link = "a", "behind");
                tracing::warn!(link = "b", "behind");
                now.fetch_add(1_000, Ordering::Relaxed);
            }
            page.take();
            tracing::info!(link = "a", "goes on");
            tracing::info!(link = "a", "goes on");
            let bytes = std::mem::take(&mut *page.0.lock().unwrap());
            assert_eq!(
                String::from_utf8(bytes).unwrap(),
                "2026-11-21T09:00:02.000Z WARN  link=a repeated=2 behind\n\
                 2026-11-21T09:00:03.000Z INFO  link=a goes on\n\
                 2026-11-21T09:00:03.000Z INFO  link=a goes on\n"
            );
            tracing::info!("signal received");
            assert_eq!(
                page.take(),
                ["WARN  link=b repeated=2 behind", "INFO  signal received"]
            );
        });
    }

    #[test]
    fn colours_are_for_terminals_whose_user_did_not_ask_for_none() {
        let color = |no_color: Option<&str>, terminal| {
            super::wants_color(LogFormat::Text, no_color.map(AsRef::as_ref), terminal)
        };
        assert!(color(None, true) && color(Some(""), true));
        assert!(!color(Some("1"), true) && !color(None, false));
        assert!(!super::wants_color(LogFormat::Json, None, true));
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nothing() {
        logged(|_, page, now| {
            lag("orders", 1);
            now.fetch_sub(3_600_000, Ordering::Relaxed);
            lag("orders", 2);
            assert_eq!(page.take().len(), 2);
        });
    }

    #[test]
    fn fields_of_spans_stand_in_front() {
        logged(|_, page, _| {
            let link = tracing::info_span!("link", link = "a->b", topic = tracing::field::Empty);
            link.record("topic", "orders");
            let _link = link.entered();
            let _flow = tracing::info_span!("flow", partition = 3).entered();
            let error = io::Error::other("no route");
            tracing::info!(
                error = &error as &dyn std::error::Error,
                broker = 1,
                "reconnecting"
            );
            assert_eq!(
                page.take(),
                [
                    "INFO  link=a->b topic=orders partition=3 error=\"no route\" broker=1 reconnecting"
                ]
            );
        });
    }

    #[test]
    fn a_thousand_different_troubles_do_not_grow_without_bound() {
        logged(|_, page, now| {
            for number in 0..10_000 {
                now.fetch_add(1, Ordering::Relaxed);
                lag(&format!("topic-{number}"), 0);
            }
            assert_eq!(page.take().len(), 10_000);
        });
    }
}
