//! `rxline rxperf server` and `rxline rxperf client`.

use crate::load::LoadConfig;
use crate::{Latency, LoadRun, Op, RunError, SERVICE, Service, ServiceRun, UDP_PORT, Verify, Work, summary};
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use cli::{Exit, Live, SecurityArgs, SecurityError, TicketArgs};
use control::Sources;
use engine::{Builder, Engine, IpNet};
use rxrpc::CongestionAlgorithm;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use trace::TraceLog;

/// Measure Rx: serve rxperf calls, or make them and verify every byte of the answers
///
/// Speaks the rxperf protocol of OpenAFS and Linux (UDP 7009, service 147). The address given with --address belongs to
/// rxline, not to the kernel: choose one that no kernel interface has.
#[derive(ClapArgs, Debug)]
#[command(after_help = cli::EXIT_CODES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Server(ServerArgs),
    Client(ClientArgs),
}

/// Where our packets come from and go to.
#[derive(ClapArgs, Debug, Clone)]
struct PortArgs {
    /// Port: tap:NAME, af_packet:INTERFACE, ...
    #[arg(long, value_name = "URL")]
    port: String,

    /// Our own address and its prefix length, such as 192.0.2.10/24
    #[arg(long, value_name = "CIDR")]
    address: IpNet,

    /// Router to other networks
    #[arg(long, value_name = "ADDR")]
    gateway: Option<IpAddr>,

    /// CPUs to poll on, each with a queue of the port: 0,1; the first one allowed if not given
    #[arg(long, value_name = "CPUS", value_delimiter = ',')]
    cores: Vec<usize>,

    /// Packet buffers of each core, 2 KiB each; more for a client with thousands of calls at once
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    buffers: usize,

    /// Who decides how much a call may have in flight: CUBIC, or a control in the manner of BBR, which takes no notice of single losses
    #[arg(long, value_enum, default_value_t = Control::Cubic)]
    congestion: Control,

    #[command(flatten)]
    idle: cli::IdleArgs,

    #[command(flatten)]
    trace: trace::TraceArgs,
}

impl PortArgs {
    fn core_count(&self) -> usize {
        self.cores.len().max(1)
    }

    fn builder(&self, name: &str) -> Builder {
        let builder = Engine::builder()
            .name(name)
            .port(&*self.port)
            .address(self.address.to_string())
            .idle(self.idle.idle);
        let builder = self.gateway.iter().fold(builder, |builder, via| builder.gateway(via.to_string()));
        if self.cores.is_empty() { builder.core_count(1) } else { builder.cores(self.cores.iter().copied()) }
    }
}

/// Serve rxperf calls until SIGINT or SIGTERM
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Example:
  rxline rxperf server --port tap:rx0 --address 192.0.2.10/24

and from the kernel's side of the tap, with OpenAFS's rxdebug:
  ip address add 192.0.2.1/24 dev rx0; ip link set rx0 up
  rxdebug 192.0.2.10 7009 -version")]
struct ServerArgs {
    #[command(flatten)]
    port: PortArgs,

    /// Address and port to serve on; our own address and port 7009 if not given
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,

    /// Stop after so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,

    /// Figures on stdout, as one JSON object a second
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    security: SecurityArgs,

    /// Offer the calls as this service too, to clients that ask for an upgrade
    #[arg(long, value_name = "ID", value_parser = another_service)]
    upgrade_to: Option<u16>,

    #[command(flatten)]
    control: control::ServeArgs,
}

/// A congestion control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Control {
    /// RFC 9438
    Cubic,
    /// By measured bandwidth and round trip
    Bbr,
}

impl From<Control> for CongestionAlgorithm {
    fn from(control: Control) -> Self {
        match control {
            Control::Cubic => Self::Cubic,
            Control::Bbr => Self::Bbr,
        }
    }
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OpArg {
    /// Send a request, receive a reply
    Rpc,
    /// Send bytes
    Send,
    /// Receive bytes
    Recv,
    /// Send bytes, then receive bytes, as OpenAFS's file operation does
    File,
}

/// What replies must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum VerifyArg {
    /// What rxline's server makes of each request
    Digest,
    /// Zeros, as OpenAFS's and Linux's servers send
    Zeros,
}

/// Make rxperf calls, as many at once as asked, each as soon as one ends
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  rxline rxperf client --port tap:rx1 --address 192.0.2.20/24 --server 192.0.2.10:7009
  rxline rxperf client --port af_packet:veth0 --address 192.0.2.20/24 --server 192.0.2.10:7009 \\
         --op recv --reply-bytes 1000000 --calls 100 --in-flight 4 --verify zeros --json
  rxline rxperf client --port af_packet:veth0 --address 192.0.2.20/24 --server 192.0.2.10:7009 \\
         --security rxkad:encrypt --keyfile /etc/openafs/server/KeyFile

Exits 1 if any call failed or any byte of an answer was wrong.")]
struct ClientArgs {
    #[command(flatten)]
    port: PortArgs,

    /// The server
    #[arg(long, value_name = "ADDR:PORT")]
    server: SocketAddr,

    /// What each call does
    #[arg(long, value_enum, default_value_t = OpArg::Rpc)]
    op: OpArg,

    /// Bytes that a call sends (rpc, send, file)
    #[arg(long, value_name = "N", default_value_t = 64)]
    request_bytes: u32,

    /// Bytes that a call receives (rpc, recv, file)
    #[arg(long, value_name = "N", default_value_t = 64)]
    reply_bytes: u32,

    /// Stop after so many calls
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    calls: Option<u64>,

    /// Stop after so many seconds; 5 if neither this nor --calls is given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,

    /// When the time is up, abort the calls in progress instead of waiting for them, and count the bytes that came
    #[arg(long, requires = "seconds")]
    cut: bool,

    /// Calls in progress at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=60_000))]
    in_flight: usize,

    /// Connections; each carries at most four calls at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=16_384))]
    connections: usize,

    /// What replies must be: servers other than rxline's send zeros
    #[arg(long, value_enum, default_value_t = VerifyArg::Digest)]
    verify: VerifyArg,

    /// Append the four bytes that Linux's rxperf server wants behind a request; OpenAFS's does not take them
    #[arg(long)]
    linux_trailer: bool,

    /// Ask for an upgrade of the service; the summary names the one that answered
    #[arg(long)]
    upgrade: bool,

    /// Give a call up after so many seconds without an end
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,

    /// The summary as one JSON object, the last line of stdout
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    security: SecurityArgs,

    #[command(flatten)]
    ticket: TicketArgs,
}

/// A service id that is not rxperf's own.
fn another_service(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(SERVICE | 0) => Err(format!("{text} is no upgrade of {SERVICE}: choose another service id")),
        other => other.map_err(|_| "a service id: 1 to 65535".to_owned()),
    }
}

/// Runs it.
pub fn run(args: Args) -> ExitCode {
    let done = match args.command {
        Command::Server(args) => server(&args),
        Command::Client(args) => client(&args),
    };
    done.map_or_else(
        |error| {
            let exit = if error.is_usage() { Exit::Usage } else { Exit::Environment };
            exit.because("rxperf", error)
        },
        ExitCode::from,
    )
}

/// Why a command could not run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Control(#[from] control::ServeError),
    #[error(transparent)]
    Security(#[from] SecurityError),
    #[error(transparent)]
    Trace(#[from] trace::LogError),
}

impl Failure {
    fn is_usage(&self) -> bool {
        matches!(self, Failure::Security(_)) || matches!(self, Failure::Run(error) if error.is_usage())
    }
}

/// Set once SIGINT or SIGTERM has come.
fn interrupted() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, flag.clone()).expect("SIGINT and SIGTERM can be caught");
    }
    flag
}

fn server(args: &ServerArgs) -> Result<Exit, Failure> {
    let interrupted = interrupted();
    let listen = args.listen.unwrap_or(SocketAddr::new(args.port.address.addr(), UDP_PORT));
    let builder = args.port.builder("rxperf server");
    let log = args.port.trace.open("rxperf server")?;
    let sinks = log.as_ref().map(TraceLog::sinks);
    let (cores, buffers) = (args.port.core_count(), args.port.buffers);
    let service = Service {
        security: args.security.server()?,
        congestion: args.port.congestion.into(),
        upgrade_to: args.upgrade_to,
    };
    let mut service = ServiceRun::start_with(builder, cores, buffers, &[listen], service, sinks)?;
    let _control =
        args.control.serve("rxperf-server", Sources::new("rxperf server", [service.rx_viewer()]))?;
    if let Ok(stats) = service.rx_viewer().stats() {
        cli::port_notes("rxperf server", &stats);
    }
    let mut live = Live::new(args.json);
    live.show(&format!("serving rxperf on {listen}"));
    let started = Instant::now();
    let deadline = args.seconds.map(|seconds| started + Duration::from_secs(seconds));
    let (mut next, mut served) = (started + Duration::from_secs(1), 0);
    while !interrupted.load(Ordering::Relaxed) && deadline.is_none_or(|deadline| Instant::now() < deadline) {
        sleep(Duration::from_millis(20));
        if Instant::now() >= next {
            next += Duration::from_secs(1);
            let figures = ServerFigures::read(&service, served);
            served = figures.served;
            if args.json { cli::say(figures.json()) } else { live.show(&figures.line()) }
        }
    }
    drop(live);
    service.close();
    let last = ServerFigures::read(&service, served);
    cli::say(if args.json { last.json() } else { last.line() + "\n" });
    let leaks = service.shutdown().leaks();
    leaks.iter().for_each(|leak| eprintln!("rxline rxperf: {leak}"));
    finish(log)?;
    Ok(if leaks.is_empty() { Exit::Ok } else { Exit::Failed })
}

/// What a server has done.
#[derive(serde::Serialize)]
struct ServerFigures {
    /// Calls whose reply the client has.
    served: u64,
    /// Of these, since the last look, a second before.
    calls_per_second: u64,
    failed: u64,
    bytes_received: u64,
    bytes_sent: u64,
    drops: BTreeMap<String, u64>,
}

impl ServerFigures {
    fn read(service: &ServiceRun, before: u64) -> Self {
        let served = service.sum(|f| &f.served);
        Self {
            served,
            calls_per_second: served - before,
            failed: service.sum(|f| &f.failed),
            bytes_received: service.sum(|f| &f.received),
            bytes_sent: service.sum(|f| &f.sent),
            drops: summary::drops(&service.stats()),
        }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("plain data") + "\n"
    }

    fn line(&self) -> String {
        let Self { served, calls_per_second, failed, bytes_received, bytes_sent, drops } = self;
        let mut line = format!(
            "{served} calls served, {calls_per_second}/s, {failed} failed, {bytes_received} bytes in, {bytes_sent} out"
        );
        for (name, count) in drops {
            line += &format!(", {name} {count}");
        }
        line
    }
}

impl ClientArgs {
    fn config(&self) -> LoadConfig {
        let op = match self.op {
            OpArg::Rpc => Op::Rpc,
            OpArg::Send => Op::Send,
            OpArg::Recv => Op::Recv,
            OpArg::File => Op::File,
        };
        let verify = match self.verify {
            VerifyArg::Digest => Verify::Digest,
            VerifyArg::Zeros => Verify::Zeros,
        };
        let (request_bytes, reply_bytes, linux_trailer) =
            (self.request_bytes, self.reply_bytes, self.linux_trailer);
        LoadConfig {
            server: self.server,
            work: Work { op, request_bytes, reply_bytes, linux_trailer },
            verify,
            upgrade: self.upgrade,
            in_flight: self.in_flight,
            gap: Duration::ZERO,
            connections: self.connections,
            calls_max: self.calls,
            call_timeout: Duration::from_secs(self.timeout),
            seed: u64::from(std::process::id()),
            congestion: self.port.congestion.into(),
        }
    }

    fn time_limit(&self) -> Option<Duration> {
        let seconds = self.seconds.or(if self.calls.is_none() { Some(5) } else { None });
        seconds.map(Duration::from_secs)
    }
}

/// The log is whole once the engine has stopped.
fn finish(log: Option<TraceLog>) -> Result<(), Failure> {
    let Some(log) = log else { return Ok(()) };
    let written = log.finish()?;
    if written.missing > 0 {
        eprintln!("rxline rxperf: {} events are missing in the log: they came too fast", written.missing);
    }
    Ok(())
}

fn client(args: &ClientArgs) -> Result<Exit, Failure> {
    let interrupted = interrupted();
    let builder = args.port.builder("rxperf client");
    let log = args.port.trace.open("rxperf client")?;
    let sinks = log.as_ref().map(TraceLog::sinks);
    let (cores, buffers) = (args.port.core_count(), args.port.buffers);
    let credentials = args.security.client(&args.ticket)?;
    let mut load = LoadRun::start_with(builder, cores, buffers, args.config(), credentials, sinks)?;
    load.begin();
    let mut live = Live::new(false);
    let started = Instant::now();
    let mut next = started + Duration::from_secs(1);
    while !load.wait_over(next.saturating_duration_since(Instant::now()).min(Duration::from_millis(100))) {
        let time_is_up = args.time_limit().is_some_and(|limit| started.elapsed() >= limit);
        if time_is_up || interrupted.load(Ordering::Relaxed) {
            if args.cut {
                load.cut()
            } else {
                load.stop()
            }
            break;
        }
        if Instant::now() >= next {
            next += Duration::from_secs(1);
            live.show(&live_line(&mut load, started));
        }
    }
    // Every call ends by its own time limit at the latest.
    load.wait_over(Duration::from_secs(args.timeout + 5));
    drop(live);
    let left = load.sum(|f| &f.begun) - load.sum(|f| &f.ended);
    let mut summary = load.summary();
    summary.lose(left);
    load.shutdown().leaks().iter().for_each(|leak| eprintln!("rxline rxperf: {leak}"));
    finish(log)?;
    if args.json {
        cli::say(format_args!("{}\n", serde_json::to_string(&summary).expect("plain data")));
    } else {
        cli::say(&summary);
    }
    Ok(if summary.holds() { Exit::Ok } else { Exit::Failed })
}

/// The last second, in a line.
fn live_line(load: &mut LoadRun, started: Instant) -> String {
    let interval = load.interval();
    let Latency { p50, p99, .. } = Latency::of(&interval);
    let in_flight = load.sum(|f| &f.begun) - load.sum(|f| &f.ended);
    format!(
        "{:>4.0} s  {:>8} calls/s  {in_flight} in flight  p50 {p50:.0} us  p99 {p99:.0} us  {} failed",
        started.elapsed().as_secs_f64(),
        interval.verified(),
        interval.failed()
    )
}
