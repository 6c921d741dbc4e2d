//! `rxline gateway`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cli::Exit;
use control::Sources;
use engine::Idle;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use trace::TraceLog;

use crate::config::Config;
use crate::gateway::{Gateway, GatewayHandle, Report};
use crate::secrets::Secrets;
use crate::stats::GatewayStats;

/// How often credential caches are looked into.
const RENEW: Duration = Duration::from_secs(30);
/// How soon a signal is seen.
const LOOK: Duration = Duration::from_millis(50);

/// Forward Rx calls from clients to pools of servers
///
/// A listener ends its clients' calls and makes calls of its own, or, with `mode = "relay"`, passes packets on and changes
/// addresses and ports alone.
///
/// SIGTERM or SIGINT drains: new calls are refused, those in progress may end, then it stops with a report; a second
/// signal cuts the waiting short.
#[derive(clap::Args, Debug)]
#[command(after_help = cli::EXIT_CODES)]
pub struct Args {
    /// Configuration: ports, cores, addresses, listeners, services and their backends (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// What a core does when there is nothing to do, whatever `idle` in the configuration says: spin, pause, or sleep[:SPINS]
    ///
    /// spin has the lowest latency and takes whole CPUs; sleep costs nothing while idle, and 10 to 50 us more for what finds a core asleep.
    /// `rxline demo --idle all` measures it on this machine.
    #[arg(long, value_name = "POLICY")]
    pub idle: Option<Idle>,

    /// Only look for mistakes in the configuration
    #[arg(long)]
    pub check: bool,

    /// Figures as one JSON object per line, the closing report as the last
    #[arg(long)]
    pub json: bool,

    /// Seconds between two looks at the figures; 0: none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub interval: u64,

    /// How it can be looked into.
    #[command(flatten)]
    pub control: control::ServeArgs,

    /// What it writes down.
    #[command(flatten)]
    pub trace: trace::TraceArgs,
}

/// Runs it until SIGTERM or SIGINT.
pub fn run(args: Args) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => Config { idle: args.idle.unwrap_or(config.idle), ..config },
        Err(error) => {
            eprintln!("{error}");
            return Exit::Usage.into();
        }
    };
    if args.check {
        if let Err(error) = Secrets::load(&config) {
            return Exit::Usage.because("gateway", error);
        }
        let (listeners, pools) = (config.listeners.len(), config.pools.len());
        println!("{}: no mistake found ({listeners} listeners, {pools} pools)", args.config.display());
        return Exit::Ok.into();
    }
    let mut signals = match Signals::new([SIGTERM, SIGINT]) {
        Ok(signals) => signals,
        Err(error) => return Exit::Environment.because("gateway", error),
    };
    let log = match args.trace.open("gateway") {
        Ok(log) => log,
        Err(error) => return Exit::Environment.because("gateway", error),
    };
    let sinks = log.as_ref().map(TraceLog::sinks);
    let gateway = match Gateway::start_traced(config, Vec::new(), sinks) {
        Ok(gateway) => gateway,
        Err(error) => return Exit::Environment.because("gateway", error),
    };
    cli::port_notes("gateway", &gateway.engine_stats());
    // Served until the closing report: a drain can be watched.
    match args.control.serve("gateway", Sources::new("gateway", [gateway.rx_viewer()])) {
        Ok(_control) => {
            let exit = serve(gateway, &args, &mut signals);
            match log.map(TraceLog::finish).transpose() {
                Ok(_) => exit,
                Err(error) => Exit::Environment.because("gateway", error),
            }
        }
        Err(error) => Exit::Environment.because("gateway", error),
    }
}

fn serve(mut gateway: GatewayHandle, args: &Args, signals: &mut Signals) -> ExitCode {
    let mut figures = Figures::new(args, gateway.stats());
    let mut renewed = Instant::now();
    while signals.pending().next().is_none() {
        figures.show_if_due(|| gateway.stats());
        if renewed.elapsed() >= RENEW {
            renewed = Instant::now();
            gateway.renew_tickets().iter().for_each(|error| eprintln!("rxline gateway: {error}"));
        }
        sleep(LOOK);
    }
    let limit = gateway.drain_limit();
    eprintln!("rxline gateway: no new calls; those in progress have {} s", limit.as_secs());
    let report = gateway.drain(limit, |stats| {
        figures.show_if_due(|| stats.clone());
        signals.pending().next().is_none()
    });
    figures.close(&report)
}

/// Where figures go: a table on a terminal, lines in a pipe, JSON if asked.
struct Figures {
    json: bool,
    terminal: bool,
    interval: Option<Duration>,
    shown: Instant,
    last: GatewayStats,
    /// Lines of the table that is on the terminal.
    lines: usize,
}

impl Figures {
    fn new(args: &Args, first: GatewayStats) -> Self {
        let terminal = !args.json && std::io::stdout().is_terminal();
        let interval = (args.interval > 0).then(|| Duration::from_secs(args.interval));
        Self { json: args.json, terminal, interval, shown: Instant::now(), last: first, lines: 0 }
    }

    fn show_if_due(&mut self, stats: impl FnOnce() -> GatewayStats) {
        if self.interval.is_none_or(|interval| self.shown.elapsed() < interval) {
            return;
        }
        let stats = stats();
        self.show(&stats);
        self.shown = Instant::now();
        self.last = stats;
    }

    fn show(&mut self, stats: &GatewayStats) {
        let rates = stats.since(&self.last);
        let mut out = std::io::stdout().lock();
        // A closed stdout is no reason to stop serving.
        let _ = if self.json {
            writeln!(out, "{}", stats.json(&rates))
        } else if self.terminal {
            let table = stats.table(&rates);
            // Up to the first line of the last table, then clear to the end of the screen.
            let up = if self.lines > 0 { format!("\x1b[{}A", self.lines) } else { String::new() };
            self.lines = table.lines().count();
            write!(out, "{up}\r\x1b[J{table}")
        } else {
            writeln!(out, "{}", stats.line(&rates))
        };
        let _ = out.flush();
    }

    fn close(&self, report: &Report) -> ExitCode {
        let leaks = report.leaks();
        let text = if self.json { report.json(&leaks) + "\n" } else { report.text(&leaks) };
        let _ = std::io::stdout().write_all(text.as_bytes());
        for leak in &leaks {
            eprintln!("rxline gateway: leak: {leak}");
        }
        if leaks.is_empty() { Exit::Ok.into() } else { Exit::Failed.into() }
    }
}
