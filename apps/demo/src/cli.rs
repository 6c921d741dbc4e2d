//! `rxline demo`.

use crate::{Demo, DemoConfig, DemoError, Ending, POLICIES, Price, Table};
use cli::{Exit, Live};
use control::Sources;
use engine::{BadIdle, Idle};
use rxperf::Latency;
use std::fmt;
use std::process::ExitCode;
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Run a gateway, two services and a load in this process, over memory
///
/// Needs no privilege, no hugepages and no interface, and works on one CPU. Ends with a summary; exits 0 only if every
/// call was answered and every byte of every answer was right.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How long to run
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// The summary as one JSON object, the last line of stdout
    #[arg(long)]
    json: bool,

    /// CPUs to poll on: 0,1; all that this process may use, up to four, if not given
    #[arg(long, value_name = "CPUS", value_delimiter = ',')]
    cores: Vec<usize>,

    /// What a core does when there is nothing to do: spin, pause, or sleep[:SPINS]; all compares them
    ///
    /// `all` makes one call at a time, 2 ms apart, so that each finds the cores idle, and prints for each policy what it costs: latency and CPU
    /// time. See `rxline rxperf server --help` for what each does.
    #[arg(long, value_name = "POLICY", default_value_t)]
    idle: IdleArg,

    /// Calls in progress at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=2_048))]
    in_flight: usize,

    /// Connections from the load to the gateway; each carries at most four calls at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_024))]
    connections: usize,

    /// Bytes that a call sends
    #[arg(long, value_name = "N", default_value_t = 128)]
    request_bytes: u32,

    /// Bytes that a call receives
    #[arg(long, value_name = "N", default_value_t = 1024)]
    reply_bytes: u32,

    #[command(flatten)]
    control: control::ServeArgs,
}

/// One policy, or all of them side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdleArg {
    One(Idle),
    All,
}

impl Default for IdleArg {
    fn default() -> Self {
        IdleArg::One(Idle::default())
    }
}

impl FromStr for IdleArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(IdleArg::All),
            one => one.parse().map(IdleArg::One).map_err(|error: BadIdle| format!("{error}; or all")),
        }
    }
}

impl fmt::Display for IdleArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdleArg::One(idle) => idle.fmt(f),
            IdleArg::All => f.write_str("all"),
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  rxline demo
  rxline demo --seconds 2 --json | tail -1
  rxline demo --reply-bytes 1000000 --in-flight 4
  rxline demo --idle all

Exits 0 if every call was verified and none failed, 1 if not, 2 for wrong arguments, 3 if this machine lacks something.";

/// More CPUs than there are engines are of no use.
const CPUS_MAX: usize = 4;

/// Runs it.
pub fn run(args: Args) -> ExitCode {
    let cpus = if args.cores.is_empty() { allowed_cpus() } else { args.cores.clone() };
    if cpus.is_empty() {
        return Exit::Environment.because(
            "demo",
            "the system does not say which CPUs this process may use: name them with --cores",
        );
    }
    let config = DemoConfig {
        cpus,
        idle: if let IdleArg::One(idle) = args.idle { idle } else { Idle::default() },
        in_flight: args.in_flight,
        gap: Duration::ZERO,
        connections: args.connections,
        request_bytes: args.request_bytes,
        reply_bytes: args.reply_bytes,
    };
    if args.idle == IdleArg::All {
        return compare(&config, Duration::from_secs(args.seconds), args.json);
    }
    let mut demo = match Demo::start(&config) {
        Ok(demo) => demo,
        Err(error) => return exit_for(&error).because("demo", error),
    };
    let control = match args.control.serve("demo", Sources::new("demo", demo.rx_viewers())) {
        Ok(control) => control,
        Err(error) => return Exit::Environment.because("demo", error),
    };
    play(&mut demo, Duration::from_secs(args.seconds), args.json);
    drop(control);
    let ending = demo.finish();
    report(&ending, args.json);
    if ending.holds() { Exit::Ok.into() } else { Exit::Failed.into() }
}

/// What each policy costs, in equal shares of the time.
fn compare(config: &DemoConfig, how_long: Duration, json: bool) -> ExitCode {
    let each = how_long / POLICIES.len() as u32;
    let prices = POLICIES.map(|idle| Price::of(idle, config, each));
    let prices: Vec<Price> = match prices.into_iter().collect() {
        Ok(prices) => prices,
        Err(error) => return exit_for(&error).because("demo", error),
    };
    for leak in prices.iter().flat_map(|price| &price.leaks) {
        eprintln!("rxline demo: {leak}");
    }
    if json {
        cli::say(format_args!("{}\n", serde_json::to_string(&prices).expect("plain data")));
    } else {
        cli::say(Table(&prices));
    }
    if prices.iter().all(Price::holds) { Exit::Ok.into() } else { Exit::Failed.into() }
}

fn allowed_cpus() -> Vec<usize> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    ids.into_iter().map(|core| core.id).take(CPUS_MAX).collect()
}

fn exit_for(error: &DemoError) -> Exit {
    match error {
        DemoError::Run(error) if error.is_usage() => Exit::Usage,
        _ => Exit::Environment,
    }
}

/// Lets the load work, and shows figures each second.
fn play(demo: &mut Demo, how_long: Duration, quiet: bool) {
    let mut live = Live::new(quiet);
    demo.begin();
    let started = Instant::now();
    for second in 1.. {
        let next = Duration::from_secs(second).min(how_long);
        sleep(next.saturating_sub(started.elapsed()));
        if next == how_long {
            return;
        }
        let interval = demo.interval();
        let Latency { p50, p99, .. } = Latency::of(&interval);
        live.show(&format!(
            "{second:>3} s  {:>8} calls/s  p50 {p50:>5.0} us  p99 {p99:>5.0} us  {} in flight  {} failed  services {:?}",
            interval.verified(),
            demo.in_flight(),
            interval.failed(),
            demo.served(),
        ));
    }
}

fn report(ending: &Ending, json: bool) {
    for leak in &ending.leaks {
        eprintln!("rxline demo: {leak}");
    }
    if json {
        cli::say(format_args!("{}\n", serde_json::to_string(&ending.summary).expect("plain data")));
        return;
    }
    let [a, b] = ending.served;
    let verdict = if ending.holds() {
        "every call was verified, every buffer is home"
    } else {
        "NOT every call was verified, or something leaked"
    };
    let summary = &ending.summary;
    cli::say(format_args!("{summary}services   {a} and {b} calls answered\nverdict    {verdict}\n"));
}
