//! After the demo: what to try next, and `--keep`, which leaves everything running to play with.

use std::time::Duration;

use super::home::configuration;
use super::play::Play;
use super::screen::{Paint, count, span};
use super::summary::Verdict;
use super::{DemoError, Signals};
use crate::exit::Exit;
use crate::output::{Out, complain};

/// Between two batches that trickle in.
const TRICKLE: Duration = Duration::from_millis(100);
const TRICKLE_LARGEST: usize = 30;
/// Before a mirror that was killed is started again: long enough to see it dead.
const MOURNING: Duration = Duration::from_millis(500);

/// What to try after a demo.
pub(crate) fn next(seed: u64, paint: Paint) -> String {
    let example = ["paris-1:9092", "tokyo-1:9092"];
    let config: String = configuration(example[0], example[1])
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| format!("      {line}\n"))
        .collect();
    let program = std::env::args().next().unwrap_or("strait".to_owned());
    format!(
        "\n{}\n  {program} demo --keep          leaves it running: kill the mirror yourself, read both clusters\n  {program} demo --seed {seed:<8} the same data and the same schedule of kills\n  {program} run mirror.toml      mirrors your own clusters; these lines are enough:\n\n{config}",
        paint.bold("Next")
    )
}

/// Leaves clusters and mirror running, with data trickling in, until a signal comes. The exit code is that of the
/// last comparison.
pub(crate) async fn keep(
    mut play: Play,
    first: Exit,
    out: &mut Out,
    paint: Paint,
    signals: &mut Signals,
) -> Exit {
    let said = out.text(guide(&play, paint));
    if let Err(cause) = said.map_err(DemoError::io("writing to stdout")) {
        complain(cause);
        return Exit::Failed;
    }
    play.screen.settle();
    let mut last = first;
    let ended = tokio::select! {
        biased;
        _ = signals.next() => Ok(()),
        ended = run_on(&mut play, &mut last) => ended,
    };
    play.screen.clear();
    match ended {
        Ok(()) => {
            complain("stopped: the mirror is killed, its folder removed");
            last
        }
        Err(cause) => {
            complain(format_args!("FAILED: {cause}"));
            play.explain();
            Exit::Failed
        }
    }
}

/// Writes a little now and then. Whenever somebody ends the mirror it is started again, and both sides are compared.
async fn run_on(play: &mut Play, last: &mut Exit) -> Result<(), DemoError> {
    let mut due = play.rt.now();
    loop {
        let now = play.rt.now();
        if now >= due {
            due = now + TRICKLE;
            if let Some(shop) = &mut play.shop {
                shop.write(TRICKLE_LARGEST, 0)?;
            }
        }
        match play.tick(None).await {
            Ok(_) => {}
            // Killed, or asked to stop; not what ends by itself because it cannot go on.
            Err(DemoError::Ended(status)) if status.success() || status.code().is_none() => {
                *last = revive(play).await?;
            }
            Err(cause) => return Err(cause),
        }
    }
}

async fn revive(play: &mut Play) -> Result<Exit, DemoError> {
    let (rt, paint) = (play.rt.clone(), play.screen.paint());
    let died = rt.now();
    let lost = play.mirror.take().map_or(0, |mirror| mirror.pid());
    play.wait_for_resume(died);
    rt.sleep(MOURNING).await;
    let pid = play.start()?;
    play.screen.tell(
        died,
        format_args!(
            "process {lost} {}; {pid} is started in its place",
            paint.red("is gone")
        ),
    );
    if let Some(shop) = &mut play.shop {
        // Something to resume with.
        shop.write(TRICKLE_LARGEST, 0)?;
        shop.finish()?;
    }
    while play.tick(None).await?.lag > 0 {}
    play.screen.busy("comparing both sides, record by record");
    let compared = rt.now();
    let verdict = Verdict::reach(&play.source, &play.target);
    let took = span(rt.now().saturating_duration_since(compared));
    let text = match verdict.is_equal() {
        true => format!(
            "{} {} records compared in {took}",
            paint.green("EQUAL."),
            count(verdict.records())
        ),
        false => verdict.line(play.story.kills.len(), paint),
    };
    play.screen.tell(rt.now(), text);
    Ok(verdict.exit())
}

fn guide(play: &Play, paint: Paint) -> String {
    let (source, target) = play.addresses;
    let home = &play.home;
    let (config, log) = (home.config(), home.log());
    let pid = home.pid_file();
    let (config, log, pid) = (config.display(), log.display(), pid.display());
    let head = |text: &str| paint.bold(format_args!("{text:<8}"));
    let mut text = format!(
        "\n{}\n\n  {} {source}\n  {} {target}\n  {} {config}\n  {} {log}\n",
        paint.bold("Everything goes on, with a little load, until Ctrl-C."),
        head("paris"),
        head("tokyo"),
        head("config"),
        head("log"),
    );
    if let Some(admin) = home.admin() {
        text.push_str(&format!("  {} http://{admin}/metrics\n", head("admin")));
    }
    text.push_str(&format!(
        "\n{}\n\n",
        paint.bold("Try, from another terminal:")
    ));
    let mut tries = vec![
        (
            "kill the mirror; it is started again, and both sides are compared",
            format!("kill -9 $(cat {pid})"),
        ),
        (
            "read mirrored orders",
            format!("kcat -C -b {target} -t paris.orders -p 0 -o -3 -e"),
        ),
        (
            "the same with Kafka's own tool",
            format!(
                "kafka-console-consumer.sh --bootstrap-server {target} --topic paris.orders --partition 0 --max-messages 3 --offset 0"
            ),
        ),
        (
            "write an order of your own, and watch it arrive",
            format!("echo hello | kcat -P -b {source} -t orders -p 0"),
        ),
    ];
    if let Some(admin) = home.admin() {
        tries.push((
            "what the mirror says about itself",
            format!("curl -s http://{admin}/metrics | grep ^strait"),
        ));
    }
    for (what, command) in tries {
        let what = paint.dim(format_args!("# {what}"));
        text.push_str(&format!("  {what}\n  {command}\n"));
    }
    text.push('\n');
    text
}
