//! `rxline rxperf server` and `rxline rxperf client`.

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

/// Measure Rx: serve rxperf calls, or make them and verify every byte of the answers
///
/// Speaks the rxperf protocol of OpenAFS and Linux (UDP 7009, service 147). The address given with --address belongs
/// to rxline, not to the kernel: choose one that no kernel interface has.
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
pub struct PortArgs {
    /// Port: tap:NAME, af_packet:INTERFACE, memory:NAME, ...
    #[arg(long, value_name = "URL")]
    pub port: String,

    /// Our own address and its prefix, such as 192.0.2.10/24
    #[arg(long, value_name = "CIDR")]
    pub address: String,

    /// Router to other networks
    #[arg(long, value_name = "ADDR")]
    pub gateway: Option<IpAddr>,

    /// CPU to poll on; the first one allowed if not given
    #[arg(long, value_name = "CPU")]
    pub core: Option<usize>,
}

/// Serve rxperf calls until SIGINT or SIGTERM
#[derive(ClapArgs, Debug)]
pub struct ServerArgs {
    #[command(flatten)]
    port: PortArgs,

    /// Address and port to serve on; our own address and port 7009 if not given
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,

    /// Stop after this time
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,

    /// Figures as one JSON object a second
    #[arg(long)]
    json: bool,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OpArg {
    /// Send a request, receive a reply
    Rpc,
    /// Send bytes
    Send,
    /// Receive bytes
    Recv,
    /// Send bytes, then receive bytes, as OpenAFS's file operation does
    File,
}

/// Make rxperf calls, as many at once as asked, each as soon as one ends
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  rxline rxperf client --port tap:rx0 --address 192.0.2.20/24 --server 192.0.2.10:7009 --seconds 10
  rxline rxperf client --port af_packet:veth0 --address 192.0.2.20/24 --server 192.0.2.10:7009 \\
         --op recv --reply-bytes 1000000 --calls 100 --in-flight 4 --json

Exits 1 if any call failed or any byte of an answer was wrong.")]
pub struct ClientArgs {
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
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    calls: Option<u64>,

    /// Stop after so many seconds; 5 if neither this nor --calls is given
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,

    /// Calls in progress at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    in_flight: usize,

    /// Connections; each carries at most four calls at once
    #[arg(long, value_name = "N", default_value_t = 2)]
    connections: usize,

    /// Append the four bytes that Linux's rxperf server wants behind a request; OpenAFS's does not take them
    #[arg(long)]
    linux_trailer: bool,

    /// Give a call up after so many seconds without an end
    #[arg(long, value_name = "N", default_value_t = 30)]
    timeout: u64,

    /// The summary as one JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: Args) -> ExitCode {
    cli::Exit::Environment.because("rxperf", format_args!("cannot run {args:?} yet"))
}
