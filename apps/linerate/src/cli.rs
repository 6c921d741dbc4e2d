//! `rxline linerate`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use cli::Exit;
use pmd::MacAddr;

use crate::flow_args::FlowArgs;
use crate::forward::Rewrite;
use crate::rate::Rate;
use crate::replay::{Capture, ReplayError};
use crate::report::{Place, PlaceError, Report};
use crate::rfc2544;
use crate::run::{Load, Run, RunConfig, RunError};
use crate::summary::Summary;
use crate::template::{Sizes, Template};
use crate::view::{Rates, Scene, View, Wish};

/// How long to wait for frames that are still under way when all are sent: RFC 2544, section 23.
const DRAIN: Duration = Duration::from_secs(2);
/// How long cores may take to send what was due at the end.
const FINISH: Duration = Duration::from_secs(1);

/// Test what a NIC, a path or a device carries: forward, receive, send, answer pings, generate and judge traffic, replay captures
///
/// Ports are opened by URL and belong to the command alone while it runs: memory:NAME, af_packet:INTERFACE, af_xdp:INTERFACE, igb:ADDRESS, ...
/// Frame sizes are RFC 2544's, FCS included; bits a second are those of the wire, preamble, FCS and gap included. Frames that a device did
/// not take were never sent, and are not counted as lost.
#[derive(ClapArgs, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples, from no privilege to a NIC:
  rxline linerate generate --port memory:a --port memory:a --rate 100kpps --duration 5
  rxline linerate generate --port sim:loss=0.01,seed=7@memory:a --port memory:a --rate 50kpps --duration 5 --loss-tolerance 3
  rxline linerate icmp --port tap:rx0 --address 192.0.2.10        # then ping it from the kernel's side of the tap
  rxline linerate forward --mode macswap --port af_packet:veth1
  rxline linerate generate --port igb:0000:03:00.0 --port igb:0000:03:00.1 --rate 40% --size imix --cores 2,3

Exit codes:
  0  done, and everything held
  1  it ran, and more was lost than --loss-tolerance allows, or nothing was sent
  2  wrong arguments
  3  the machine lacks something (interface, permission, memory); the message says what and the mend";

#[derive(Subcommand, Debug)]
enum Command {
    Forward(ForwardArgs),
    Rxonly(RxonlyArgs),
    Txonly(TxonlyArgs),
    Icmp(IcmpArgs),
    Generate(GenerateArgs),
    Replay(ReplayArgs),
    Rfc2544(rfc2544::cli::Args),
}

/// What all modes take.
#[derive(ClapArgs, Debug, Clone)]
pub struct CommonArgs {
    /// A port, by URL; several are paired: the first with the second, the third with the fourth, an odd one out with itself
    #[arg(long = "port", value_name = "URL", required = true)]
    ports: Vec<String>,

    /// CPUs to poll on, each with a queue of every port: 0,1; the first one allowed if not given
    #[arg(long, value_name = "CPUS", value_delimiter = ',')]
    cores: Vec<usize>,

    /// Packet buffers of each core, 2 KiB each
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    buffers: usize,

    /// IP MTU of ports that have none of their own (memory:, null:)
    #[arg(long, value_name = "BYTES")]
    mtu: Option<usize>,

    /// Stop after so many seconds; without it at SIGINT or SIGTERM
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,

    /// The summary as one JSON object, the last line of stdout
    #[arg(long)]
    json: bool,

    /// Write index.html, report.json and CSV files to this directory
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,

    /// One line, on a terminal too
    #[arg(long)]
    plain: bool,

    /// What random sizes, addresses and ports are drawn from; another one each time if not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    #[command(flatten)]
    idle: cli::IdleArgs,
}

impl CommonArgs {
    /// What a run is made of.
    pub fn config(&self) -> RunConfig {
        RunConfig {
            ports: self.ports.clone(),
            cpus: self.cores.clone(),
            buffers: self.buffers,
            mtu: self.mtu,
            idle: self.idle.idle,
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..)),
        }
    }
}

/// What frames look like.
#[derive(ClapArgs, Debug, Clone)]
pub struct FrameArgs {
    /// Frame sizes in bytes, FCS included: 64, a list 64,128,1518 sent in turn, a range to draw from 64-1518, or imix (7:4:1 of 64, 594, 1518)
    #[arg(long, alias = "sizes", value_name = "SIZES", default_value = "64")]
    size: Sizes,

    #[command(flatten)]
    flow: FlowArgs,
}

impl FrameArgs {
    /// The template, but for the Ethernet addresses, which the ports give.
    pub fn template(&self) -> Template {
        Template { sizes: self.size.clone(), ..self.flow.template() }
    }
}

/// How much is sent.
#[derive(ClapArgs, Debug, Clone)]
struct LoadArgs {
    #[command(flatten)]
    frame: FrameArgs,

    /// How fast each port sends: 100kpps, 1.5Mpps, 2.5Gbit (on the wire), 40% of line rate, or max
    #[arg(long, value_name = "RATE", default_value = "max")]
    rate: Rate,

    /// Stop after so many frames from each port
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,

    /// Only the first port of each pair sends
    #[arg(long)]
    one_way: bool,
}

impl LoadArgs {
    fn load(&self, duration: Option<Duration>) -> Load {
        Load {
            template: self.frame.template(),
            peer: self.frame.flow.peer_mac(),
            rate: self.rate,
            duration,
            frames: self.frames,
            one_way: self.one_way,
        }
    }
}

/// Forward every frame to the port at the other end; one port alone sends them back
#[derive(ClapArgs, Debug)]
struct ForwardArgs {
    #[command(flatten)]
    common: CommonArgs,

    /// What is changed in them
    #[arg(long, value_enum, default_value_t = ModeArg::Io)]
    mode: ModeArg,

    /// In mode mac: whom they are for; unchanged if not given
    #[arg(long, value_name = "MAC")]
    peer_mac: Option<MacAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    /// Nothing
    Io,
    /// The Ethernet source becomes the port's own address, the destination --peer-mac
    Mac,
    /// Ethernet source and destination are swapped
    Macswap,
    /// Ethernet and IP addresses and the ports of UDP and TCP are swapped
    #[value(name = "5tuple")]
    FiveTuple,
}

/// Receive and count
#[derive(ClapArgs, Debug)]
struct RxonlyArgs {
    #[command(flatten)]
    common: CommonArgs,
}

/// Send, and take no notice of what comes back
#[derive(ClapArgs, Debug)]
struct TxonlyArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    load: LoadArgs,
}

/// Answer ARP, neighbour solicitations and pings for the addresses given, and nothing else
#[derive(ClapArgs, Debug)]
struct IcmpArgs {
    #[command(flatten)]
    common: CommonArgs,

    /// An address to answer for; several with commas
    #[arg(long = "address", value_name = "ADDRS", value_delimiter = ',', required = true)]
    addresses: Vec<IpAddr>,
}

/// Send marked frames and tell what became of them: lost, duplicated, reordered, corrupted, and how long each took
///
/// Each frame carries a sequence number, the time of its burst and a checksum. With one port the device under test sends frames back where they came
/// from; with two it passes them from one to the other. Measure latencies with --idle spin: a core that sleeps adds its own waking. Latency is from the time stamp of a frame's burst to the time of the burst in which
/// it arrives, both on this machine's clock.
#[derive(ClapArgs, Debug)]
struct GenerateArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    load: LoadArgs,

    /// Lost frames that are allowed, in per cent of those sent; corrupted ones are lost
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    loss_tolerance: f64,
}

/// Send the frames of a pcap or pcapng file from every port, as recorded or at a rate
#[derive(ClapArgs, Debug)]
struct ReplayArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    common: CommonArgs,

    /// How fast to send, instead of as recorded: 100kpps, 2.5Gbit (on the wire), 40% of line rate, or max
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,

    /// Send it so many times over; 0 is without end
    #[arg(long = "loop", value_name = "N", default_value_t = 1)]
    rounds: u64,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=31_536_000.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("seconds from 0.001 to a year".into()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("per cent, 0 to 100".into()),
    }
}

/// Why a command could not run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Place(#[from] PlaceError),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Failure::Run(error) if error.is_usage() => Exit::Usage,
            Failure::Place(PlaceError::Occupied { .. }) => Exit::Usage,
            _ => Exit::Environment,
        }
    }
}

/// Runs it.
pub fn run(args: Args) -> ExitCode {
    let done = match args.command {
        Command::Forward(args) => forward(&args),
        Command::Rxonly(args) => play("rxonly", &args.common, None, |run| Ok(run.receive()?)),
        Command::Txonly(args) => {
            let load = args.load.load(args.common.duration);
            play("txonly", &args.common, None, |run| Ok(run.send(&load)?))
        }
        Command::Icmp(args) => play("icmp", &args.common, None, |run| Ok(run.answer(&args.addresses)?)),
        Command::Generate(args) => {
            let load = args.load.load(args.common.duration);
            play("generate", &args.common, Some(args.loss_tolerance), |run| Ok(run.generate(&load)?))
        }
        Command::Replay(args) => replay(&args),
        Command::Rfc2544(args) => return rfc2544::cli::run(args),
    };
    done.map_or_else(|error| error.exit().because("linerate", error), ExitCode::from)
}

fn forward(args: &ForwardArgs) -> Result<Exit, Failure> {
    let rewrite = match args.mode {
        ModeArg::Io => Rewrite::Io,
        ModeArg::Mac => Rewrite::Mac { peer: args.peer_mac },
        ModeArg::Macswap => Rewrite::MacSwap,
        ModeArg::FiveTuple => Rewrite::FiveTuple,
    };
    play("forward", &args.common, None, |run| Ok(run.forward(rewrite)?))
}

fn replay(args: &ReplayArgs) -> Result<Exit, Failure> {
    let capture = Arc::new(Capture::read(&args.file)?);
    if capture.cut + capture.left_out > 0 {
        let Capture { cut, left_out, .. } = &*capture;
        eprintln!("rxline linerate: {cut} frames were cut when they were recorded, {left_out} are no frames");
    }
    let rounds = if args.rounds == 0 { u64::MAX } else { args.rounds };
    play("replay", &args.common, None, |run| Ok(run.replay(&capture, args.rate, rounds)?))
}

/// Set once SIGINT or SIGTERM has come.
pub fn interrupted() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, flag.clone()).expect("SIGINT and SIGTERM can be caught");
    }
    flag
}

/// Starts a run, begins what it is for, shows it until it is over, and sums it up.
fn play(
    mode: &'static str,
    common: &CommonArgs,
    tolerance: Option<f64>,
    begin: impl FnOnce(&mut Run) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let interrupted = interrupted();
    let place = common.report.as_deref().map(Place::take).transpose()?;
    let mut report = Report::new(mode, std::env::args());
    let mut run = Run::start(&common.config())?;
    cli::port_notes("linerate", &run.stats());
    begin(&mut run)?;
    let took = watch(&run, common, &interrupted, &mut report);
    if tolerance.is_some() {
        report.sending_ended(&run.snapshot());
        run.wait_arrived(DRAIN);
    }
    let last = run.snapshot();
    let summary = Summary::new(mode, &last, took, tolerance);
    let leaks = run.shutdown().leaks();
    leaks.iter().for_each(|leak| eprintln!("rxline linerate: {leak}"));
    if common.json {
        cli::say(format_args!("{}\n", serde_json::to_string(&summary).expect("plain data")));
    } else {
        cli::say(&summary);
    }
    if let Some(place) = place {
        report.look(&last);
        report.finish();
        let page = place.write(&report)?;
        // Stdout's last line may be the summary's.
        eprintln!("rxline linerate: the report is {}", page.display());
    }
    Ok(if summary.holds() && leaks.is_empty() { Exit::Ok } else { Exit::Failed })
}

/// Shows figures each second until the time is up, everything is sent, or somebody has enough of it; how long that took.
fn watch(run: &Run, common: &CommonArgs, interrupted: &AtomicBool, report: &mut Report) -> Duration {
    let started = Instant::now();
    let sends = run.sends();
    let mut view = View::new(common.plain || common.json, false);
    let (mut next, mut before) = (started + Duration::from_secs(1), run.snapshot());
    report.look(&before);
    let mut wish = Wish::GoOn;
    loop {
        let elapsed = started.elapsed();
        if sends && run.is_over() {
            // Who ends by time has sent for just as long.
            return common.duration.map_or(elapsed, |duration| duration.min(elapsed));
        }
        // Cores that send end by themselves, with what was due before the end.
        let patience = if sends { FINISH } else { Duration::ZERO };
        if common.duration.is_some_and(|duration| elapsed >= duration + patience)
            || interrupted.load(Ordering::Relaxed)
            || wish == Wish::Quit
        {
            run.stop();
            run.wait_over(FINISH);
            return common.duration.map_or(elapsed, |duration| duration.min(elapsed));
        }
        if Instant::now() >= next {
            next += Duration::from_secs(1);
            let now = run.snapshot();
            report.look(&now);
            let rates = Rates::between(&before, &now);
            before = now;
            let left = common.duration.map(|duration| duration.saturating_sub(elapsed));
            let (mode, rates) = (report.mode.as_str(), Some(&rates));
            wish = view.show(&Scene { mode, rates, progress: None, elapsed, left });
        }
        if wish == Wish::GoOn {
            wish = view.wait(Duration::from_millis(5));
        }
    }
}
