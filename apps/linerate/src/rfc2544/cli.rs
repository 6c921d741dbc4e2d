//! `rxline linerate rfc2544`.
//!
//! A thread of its own opens the ports and runs the trials; this one shows how far it is. What was found when it ends, for whatever reason, is said.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use cli::Exit;
use pmd::Clock;

use super::tester::{MachineTime, PortTester, TestError, TestPort, Time, VirtualTime};
use super::watch::Watch;
use super::{FRAMES, Options, Progress, Results, Test, suite, text};
use crate::figures::{PortFigures, Snapshot};
use crate::flow_args::FlowArgs;
use crate::rate::Rate;
use crate::report::{Place, PlaceError, PortEntry, Report};
use crate::template::{Sizes, Template};
use crate::view::{Rates, Scene, View, Wish};

const COMMAND: &str = "linerate rfc2544";
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);
const SHOW: Duration = Duration::from_secs(1);

/// Benchmark a device between two ports by RFC 2544: throughput, latency, frame loss rate, back-to-back
///
/// Frames go out on --tx, through the device, and come back on --rx. Frame sizes are with FCS, as the RFC's. A device that is no
/// slower than its link has line rate as its throughput; one that queues passes a little more than it can carry for as long as its queue
/// fills, which is why trials take a minute.
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub struct Args {
    /// Port that sends
    #[arg(long, value_name = "URL")]
    tx: String,

    /// Port that receives [default: the one that sends]
    #[arg(long, value_name = "URL")]
    rx: Option<String>,

    #[command(flatten)]
    flow: FlowArgs,

    /// Line rate of the link, as 10Gbit: for ports that know no speed, or to offer less than the link carries
    #[arg(long, value_name = "RATE", value_parser = bits)]
    line_rate: Option<u64>,

    /// Frame sizes in bytes, FCS included
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', default_values_t = FRAMES)]
    frames: Vec<usize>,

    /// Which tests
    #[arg(long, value_enum, value_name = "TEST,...", value_delimiter = ',',
        default_values_t = [Test::Throughput, Test::Latency, Test::LossRate, Test::BackToBack])]
    tests: Vec<Test>,

    /// Length of a trial; latency takes twice that
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
    trial: Duration,

    /// Quiet time before each trial
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds_or_none)]
    settle: Duration,

    /// Time after each trial for frames still under way; less is waited if all have come
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds_or_none)]
    drain: Duration,

    /// Searches end when what passed and what failed are so close
    #[arg(long, value_name = "PERCENT", default_value = "0.1", value_parser = part)]
    resolution: f64,

    /// Loss that is tolerated: a throughput for each
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', default_value = "0,0.5", value_parser = part_or_none)]
    tolerance: Vec<f64>,

    /// How often a rate may fail before it has failed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,

    /// Trials of latency
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    latency_trials: u32,

    /// Rate of those, of the throughput found
    #[arg(long, value_name = "PERCENT", default_value = "100", value_parser = part)]
    latency_load: f64,

    /// Step of the loss curve, of line rate; the RFC allows 10 at most
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = part)]
    loss_step: f64,

    /// Searches for the longest burst
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    bursts: u32,

    /// Longest burst that is tried
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    burst_max: Duration,

    /// Run in virtual time, as fast as it goes: for ports inside this process (memory:, and sim: around it)
    #[arg(long)]
    virtual_time: bool,

    /// Write index.html, report.json and CSV files to this directory
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,

    /// The report as JSON on stdout
    #[arg(long)]
    json: bool,

    /// Plain lines, on a terminal too
    #[arg(long)]
    plain: bool,

    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

const HELP: &str = "\
A rate that our ports could not send is said to be the generator's limit, and is no figure of the device.

Examples:
  rxline linerate rfc2544 --tx af_xdp:eth0 --rx af_xdp:eth1 --report result
  rxline linerate rfc2544 --tx igb:0000:01:00.0 --rx igb:0000:01:00.1 --trial 2 --settle 1 --frames 64,1518 --tests throughput
  rxline linerate rfc2544 --virtual-time --tx sim:rate=100M,delay=1ms,limit=400@memory:w --rx memory:w --line-rate 1Gbit --frames 64,512 --trial 2 --latency-load 95

Exit codes:
  0  done; every throughput was found, and latency trials lost no more than is tolerated
  1  some was not, or it was stopped before its end
  2  wrong arguments
  3  the machine lacks something (interface, permission, memory), or a port went away";

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("seconds from 0.001 to 86400".into()),
    }
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    if text.parse() == Ok(0.0) { Ok(Duration::ZERO) } else { seconds(text) }
}

fn part(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0001..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("per cent from 0.0001 to 100".into()),
    }
}

fn part_or_none(text: &str) -> Result<f64, String> {
    if text.parse() == Ok(0.0) { Ok(0.0) } else { part(text) }
}

fn bits(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(Rate::Bits(bits)) => Ok(bits as u64),
        _ => Err("bits a second, as 10Gbit or 100Mbit".into()),
    }
}

/// Why it ended before its end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Test(#[from] TestError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(
        "{url:?} knows no speed, so nobody knows what its link carries; say it with --line-rate, as --line-rate 10Gbit"
    )]
    NoSpeed { url: String },
    #[error("{url:?} is not inside this process: --virtual-time is for memory: ports, and sim: around them")]
    NotVirtual { url: String },
    #[error("latency is measured at the throughput found: --tests needs throughput too")]
    LatencyAlone,
    #[error("the thread that ran the trials ended with a panic")]
    Panic,
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Failure::Test(TestError::Stopped) | Failure::Panic => Exit::Failed,
            Failure::Test(TestError::Template(_)) => Exit::Usage,
            Failure::NoSpeed { .. } | Failure::NotVirtual { .. } | Failure::LatencyAlone => Exit::Usage,
            Failure::Place(PlaceError::Occupied { .. }) => Exit::Usage,
            _ => Exit::Environment,
        }
    }
}

/// Runs it.
pub fn run(args: Args) -> ExitCode {
    let mut report = Report::new("rfc2544", std::env::args());
    let place = match check(&args) {
        Ok(place) => place,
        Err(failure) => return failure.exit().because(COMMAND, failure),
    };
    let ended = measure(&args, &mut report);
    report.finish();
    if let Err(failure) = &ended {
        report.notes.push(format!("It ended early: {failure}."));
    }
    if report.rfc2544.is_some()
        && let Err(failure) = say(&args, &report, place.as_ref())
    {
        return failure.exit().because(COMMAND, failure);
    }
    match ended {
        Err(failure) => failure.exit().because(COMMAND, failure),
        Ok(()) if report.rfc2544.as_ref().is_some_and(Results::held) => Exit::Ok.into(),
        Ok(()) => Exit::Failed.because(
            COMMAND,
            "not every throughput was found, or latency trials lost more than is tolerated",
        ),
    }
}

/// What can be known to be wrong before anything is opened.
fn check(args: &Args) -> Result<Option<Place>, Failure> {
    if args.tests.contains(&Test::Latency) && !args.tests.contains(&Test::Throughput) {
        return Err(Failure::LatencyAlone);
    }
    if args.virtual_time {
        let inside = |url: &str| {
            let inner = if url.starts_with("sim:") { url.rsplit('@').next().unwrap_or(url) } else { url };
            inner.starts_with("memory:")
        };
        if let Some(url) = std::iter::once(&args.tx).chain(&args.rx).find(|url| !inside(url)) {
            return Err(Failure::NotVirtual { url: url.clone() });
        }
    }
    Ok(args.report.as_deref().map(Place::take).transpose()?)
}

/// Results on stdout, and the report where it is wanted.
fn say(args: &Args, report: &Report, place: Option<&Place>) -> Result<(), Failure> {
    if args.json {
        cli::say(serde_json::to_string_pretty(report).expect("plain data") + "\n");
    } else if let Some(results) = &report.rfc2544 {
        cli::say(text::text(results));
    }
    if let Some(place) = place {
        let page = place.write(report)?;
        if !args.json {
            cli::say(format_args!("\nreport: {}\n", page.display()));
        }
    }
    Ok(())
}

/// What the thread that tests tells.
enum News {
    Opened(Vec<PortFigures>),
    Trial(Progress),
}

fn measure(args: &Args, report: &mut Report) -> Result<(), Failure> {
    let watch = Arc::<Watch>::default();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // Without it, Ctrl-C ends the process as ever.
        let _ = signal_hook::flag::register(signal, watch.stop().clone());
    }
    let (tell, news) = channel();
    std::thread::scope(|scope| {
        let test = || test(args, &watch, &tell);
        let tester = std::thread::Builder::new().name("rfc2544".into()).spawn_scoped(scope, test);
        let tester = tester.map_err(Failure::Thread)?;
        show(args, &watch, &news, &|| tester.is_finished(), report);
        let (results, ended) = tester.join().map_err(|_| Failure::Panic)?;
        report.rfc2544 = results;
        ended
    })
}

/// The other thread: opens the ports and runs the trials.
fn test(args: &Args, watch: &Arc<Watch>, tell: &Sender<News>) -> (Option<Results>, Result<(), Failure>) {
    match open(args, tell) {
        Err(failure) => (None, Err(failure)),
        Ok(setup) if args.virtual_time => trials(VirtualTime::default(), setup, watch, tell),
        Ok(setup) => trials(MachineTime, setup, watch, tell),
    }
}

fn trials<T: Time>(
    time: T,
    Setup { tx, rx, template, options }: Setup,
    watch: &Arc<Watch>,
    tell: &Sender<News>,
) -> (Option<Results>, Result<(), Failure>) {
    let mut tester = PortTester::new(time, tx, rx, template, &options, watch.clone());
    let mut told = |progress: &Progress| {
        // Who does not listen any more has asked for an end.
        let _ = tell.send(News::Trial(progress.clone()));
    };
    let (results, ended) = suite::run(&mut tester, &options, &mut told);
    (Some(results).filter(|results| !results.sizes.is_empty()), ended.map_err(Failure::from))
}

/// What the trials are run with.
struct Setup {
    tx: TestPort,
    rx: Option<TestPort>,
    template: Template,
    options: Options,
}

fn open(args: &Args, tell: &Sender<News>) -> Result<Setup, Failure> {
    let tx = TestPort::open(&args.tx)?;
    let rx = args.rx.as_deref().map(TestPort::open).transpose()?;
    std::iter::once(&tx).chain(&rx).for_each(TestPort::await_link);
    let ports: Vec<PortFigures> = std::iter::once(&tx).chain(&rx).map(TestPort::figures).collect();
    let speed = args.line_rate.or(ports[0].bits_per_second);
    let speed = speed.ok_or_else(|| Failure::NoSpeed { url: args.tx.clone() })?;
    let _ = tell.send(News::Opened(ports));
    let mut tolerances = args.tolerance.clone();
    tolerances.sort_by(f64::total_cmp);
    let options = Options {
        frame_bytes: args.frames.clone(),
        tests: args.tests.clone(),
        trial: args.trial,
        settle: args.settle,
        drain: args.drain,
        resolution: args.resolution,
        attempts: args.attempts,
        tolerances,
        latency_trials: args.latency_trials,
        latency_load: args.latency_load,
        loss_step: args.loss_step,
        back_to_back_trials: args.bursts,
        burst_max: args.burst_max,
        ..Options::new(speed)
    };
    let template = Template {
        source_mac: tx.mac(),
        destination_mac: args.flow.peer_mac().unwrap_or_else(|| rx.as_ref().unwrap_or(&tx).mac()),
        ..args.flow.template()
    };
    let sizes = Sizes::List(args.frames.clone());
    Template { sizes, ..template.clone() }.check().map_err(TestError::from)?;
    Ok(Setup { tx, rx, template, options })
}

/// Shows how far it is until it is done, or the user has enough.
fn show(args: &Args, watch: &Watch, news: &Receiver<News>, done: &dyn Fn() -> bool, report: &mut Report) {
    let ports = loop {
        match news.recv_timeout(LOOK) {
            Ok(News::Opened(ports)) => break ports,
            Ok(News::Trial(_)) => {}
            Err(_) if done() => return,
            Err(_) => {}
        }
    };
    report.ports = ports.iter().map(PortEntry::of).collect();
    for port in &ports {
        port.notes.iter().for_each(|note| eprintln!("rxline {COMMAND}: {}: {note}", port.url));
    }
    let mut view = View::new(args.plain || args.json, args.quiet);
    let began = Instant::now();
    let mut progress: Option<(String, Duration, Instant)> = None;
    let mut looks = Looks::default();
    loop {
        // Asked before the news are read: then none is left behind.
        let over = done();
        for new in news.try_iter() {
            let News::Trial(trial) = new else { continue };
            let line = trial.line();
            view.step(&line);
            progress = Some((line, trial.left, Instant::now()));
        }
        if over {
            return;
        }
        if view.is_screen() {
            if !args.virtual_time {
                looks.look(watch.look(Clock::now(), &ports));
            }
            let scene = Scene {
                mode: "rfc2544",
                rates: looks.rates.as_ref(),
                progress: progress.as_ref().map(|(line, ..)| line.as_str()),
                elapsed: began.elapsed(),
                left: progress.as_ref().map(|(_, left, at)| left.saturating_sub(at.elapsed())),
            };
            if view.show(&scene) == Wish::Quit {
                stop(watch);
            }
        }
        if view.wait(LOOK) == Wish::Quit {
            stop(watch);
        }
    }
}

fn stop(watch: &Watch) {
    watch.stop().store(true, std::sync::atomic::Ordering::Relaxed);
}

/// Rates within a trial, from looks that are a second apart.
#[derive(Default)]
struct Looks {
    last: Option<(u64, Snapshot)>,
    rates: Option<Rates>,
}

impl Looks {
    fn look(&mut self, now: Option<(u64, Snapshot)>) {
        let Some((number, snapshot)) = now else { return };
        match &self.last {
            Some((last, before)) if *last == number => {
                if snapshot.elapsed.saturating_sub(before.elapsed) >= SHOW {
                    self.rates = Some(Rates::between(before, &snapshot));
                    self.last = Some((number, snapshot));
                }
            }
            _ => self.last = Some((number, snapshot)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Result<Args, clap::Error> {
        Cli::try_parse_from(std::iter::once("test").chain(line.split(' '))).map(|cli| cli.args)
    }

    #[test]
    fn the_defaults_are_the_rfcs() {
        let args = args("--tx memory:a").unwrap();
        assert_eq!((args.frames.len(), args.trial, args.bursts), (8, Duration::from_secs(60), 50));
        assert_eq!((args.tolerance.as_slice(), args.loss_step), ([0.0, 0.005].as_slice(), 0.1));
        assert_eq!(args.tests.len(), 4);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "--tx a --line-rate 10",
            "--tx a --line-rate 5Mpps",
            "--tx a --loss-step 0",
            "--tx a --tolerance 101",
            "--tx a --trial 0",
            "--tx a --tests speed",
        ] {
            assert!(args(line).is_err(), "{line}");
        }
        let failure = |line| check(&args(line).unwrap()).unwrap_err();
        assert!(matches!(failure("--tx memory:a --tests latency"), Failure::LatencyAlone));
        assert!(matches!(failure("--tx tap:x --virtual-time"), Failure::NotVirtual { .. }));
        assert!(matches!(failure("--tx sim:loss=0.1@tap:x --virtual-time"), Failure::NotVirtual { .. }));
        assert!(check(&args("--tx sim:loss=0.1@memory:a --rx memory:a --virtual-time").unwrap()).is_ok());
    }

    fn measured(line: &str) -> (Report, Result<(), Failure>) {
        let mut report = Report::new("rfc2544", []);
        let ended = measure(&args(line).unwrap(), &mut report);
        (report, ended)
    }

    #[test]
    fn a_port_without_a_speed_needs_a_line_rate() {
        let (report, ended) = measured("--tx memory:cli-speed --quiet");
        assert!(matches!(ended, Err(Failure::NoSpeed { .. })) && report.rfc2544.is_none());
    }

    #[test]
    fn a_whole_command_in_virtual_time() {
        let (report, ended) = measured(
            "--virtual-time --tx sim:rate=100M,limit=32@memory:cli --rx memory:cli --line-rate 1Gbit --frames 64,512 --trial 0.1 \
             --settle 0 --drain 0.05 --resolution 0.5 --latency-trials 1 --latency-load 95 --bursts 1 --burst-max 0.05 --quiet",
        );
        ended.unwrap();
        let results = report.rfc2544.unwrap();
        assert_eq!((results.sizes.len(), report.ports.len(), report.ports[0].driver.as_str()), (2, 2, "sim"));
        assert!(results.held());
    }

    #[test]
    fn a_wire_that_is_not_there_ends_it_with_the_mend() {
        let (report, ended) = measured("--tx memory:cli-alone --line-rate 1Gbit --settle 0 --quiet");
        let failure = ended.unwrap_err();
        assert!(matches!(failure, Failure::Test(TestError::LinkDown { .. })), "{failure}");
        assert_eq!((failure.exit(), report.rfc2544.is_none()), (Exit::Environment, true));
    }
}
