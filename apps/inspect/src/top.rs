//! `rxline top`: cores, ports, calls and drops of a running rxline, live.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cli::Exit;
use control::{AskArgs, AskError, Asker, Snapshot};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};

use crate::exit_for;
use crate::rates::Rates;
use crate::screen;

/// Show what a running rxline does: cores, calls, ports, drops, grace periods
///
/// A live screen on a terminal (q quits, p pauses), plain tables in a pipe. Rates are means over the interval.
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    ask: AskArgs,

    /// Seconds between two looks
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = interval)]
    interval: f64,

    /// Stop after so many reports
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// One JSON object a line for each interval
    #[arg(long, conflicts_with = "plain")]
    json: bool,

    /// Tables of plain text, on a terminal too
    #[arg(long)]
    plain: bool,

    /// All counters once, as Prometheus text
    #[arg(long, conflicts_with_all = ["json", "plain", "interval", "count"])]
    prometheus: bool,
}

const HELP: &str = "\
BUSY% is the share of turns that had something to do: near 100 a core has no time left. POOL is packet buffers in use.
UNREAD is packet buffers that wait for readers.

Examples:
  rxline top
  rxline top --json --count 1 | jq '.engines[].cores[].busy_percent'
  rxline top --prometheus > /var/lib/node_exporter/rxline.prom
  rxline gateway --config gateway.toml --metrics 9464     # for a Prometheus server, without rxline top

Exit codes:
  0  done
  1  the process ended or did not answer
  2  wrong arguments, or several are running: choose one with --control
  3  none is running, or it is not ours to look into";

fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds from 0.1 to 3600".into()),
    }
}

/// Shows it.
pub fn run(args: Args) -> ExitCode {
    let shown = Asker::find(args.ask.control.as_deref()).and_then(|asker| show(&args, asker));
    match shown {
        Ok(()) => Exit::Ok.into(),
        Err(error) => exit_for(&error).because("top", error),
    }
}

fn show(args: &Args, mut asker: Asker) -> Result<(), AskError> {
    if args.prometheus {
        cli::say(asker.metrics()?);
        return Ok(());
    }
    let mut watch =
        Watch { last: asker.snapshot()?, asker, interval: Duration::from_secs_f64(args.interval) };
    if args.json || args.plain || !std::io::stdout().is_terminal() {
        return lines(args, &mut watch);
    }
    let mut terminal = ratatui::init();
    let ended = live(args, &mut watch, &mut terminal);
    ratatui::restore();
    ended
}

/// A process, looked at again and again.
struct Watch {
    asker: Asker,
    last: Snapshot,
    interval: Duration,
}

impl Watch {
    fn look(&mut self) -> Result<Rates, AskError> {
        let now = self.asker.snapshot()?;
        let rates = Rates::between(&self.last, &now);
        self.last = now;
        Ok(rates)
    }
}

fn lines(args: &Args, watch: &mut Watch) -> Result<(), AskError> {
    for count in 1.. {
        std::thread::sleep(watch.interval);
        let rates = watch.look()?;
        let text = if args.json {
            serde_json::to_string(&rates).expect("plain data") + "\n"
        } else {
            screen::text(&rates)
        };
        let mut out = std::io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        // A reader that has gone away is no reason to go on.
        if written.is_err() || args.count == Some(count) {
            break;
        }
    }
    Ok(())
}

fn live(args: &Args, watch: &mut Watch, terminal: &mut ratatui::DefaultTerminal) -> Result<(), AskError> {
    let (mut rates, mut paused, mut shown) = (None, false, 0);
    let mut next = Instant::now() + watch.interval;
    loop {
        // A terminal that cannot be drawn on has gone away.
        if terminal.draw(|frame| screen::draw(frame, rates.as_ref(), paused)).is_err() {
            return Ok(());
        }
        if args.count == Some(shown) {
            return Ok(());
        }
        match key(next.saturating_duration_since(Instant::now())) {
            Key::Quit => return Ok(()),
            Key::Pause => paused = !paused,
            Key::None => {}
        }
        if Instant::now() >= next {
            next = Instant::now() + watch.interval;
            if !paused {
                rates = Some(watch.look()?);
                shown += 1;
            }
        }
    }
}

enum Key {
    Quit,
    Pause,
    None,
}

/// What the user wants within so much time.
fn key(within: Duration) -> Key {
    match event::poll(within) {
        Ok(false) => return Key::None,
        Ok(true) => {}
        Err(_) => return Key::Quit,
    }
    let Ok(Event::Key(key)) = event::read() else { return Key::None };
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
        KeyCode::Char('p') => Key::Pause,
        _ => Key::None,
    }
}
