//! `rxline rxdebug`.

use crate::{Patience, Probe, ProbeError, json, text};
use cli::Exit;
use rxrpc::wire::debug::{CallState, Connection, Peer, RxStatistics, Stats};
use serde_json::{Map, Value};
use std::fmt;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

/// Ask an Rx server for its version, counters, connections and peers
///
/// Works against every OpenAFS server and client and against rxline's own services. Without a choice it shows the basic
/// figures and the connections that are in use.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name or address of the server
    host: String,

    /// Its UDP port: 7000 fileserver, 7001 client, 7002 protection, 7003 volume location, 7009 rxperf
    #[arg(default_value_t = 7000, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// Show its version, and nothing else
    #[arg(long, conflicts_with_all = ["rxstats", "connections", "all_connections", "peers", "nodally"])]
    version: bool,

    /// Show all counters
    #[arg(long)]
    rxstats: bool,

    /// Show the connections that are in use
    #[arg(long)]
    connections: bool,

    /// Show all connections
    #[arg(long)]
    all_connections: bool,

    /// Show all peers
    #[arg(long)]
    peers: bool,

    /// Leave out connections whose calls are all over
    #[arg(long)]
    nodally: bool,

    /// One JSON object instead of text
    #[arg(long)]
    json: bool,

    /// Seconds to wait for one answer
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,

    /// Questions before giving up
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    tries: u32,
}

const EXAMPLES: &str = "\
Examples:
  rxline rxdebug afs1.example.org 7003 --version
  rxline rxdebug 192.0.2.10 7009 --rxstats --peers
  rxline rxdebug 192.0.2.10 --all-connections --nodally --json

Exits 0 with all that was asked for, 1 if the server did not answer or does not know the question, 2 for wrong arguments or an unknown host, 3 if this machine cannot send.";

/// What a server told. What was not asked for is absent.
#[derive(Default)]
struct Report {
    version: Option<String>,
    stats: Option<Stats>,
    counters: Option<RxStatistics>,
    connections: Option<Vec<Connection>>,
    /// Connections left out by `--nodally`.
    dallying: usize,
    peers: Option<Vec<Peer>>,
}

/// Asks, and prints what came.
pub fn run(args: Args) -> ExitCode {
    let server = match resolve(&args.host, args.port) {
        Ok(server) => server,
        Err(reason) => return Exit::Usage.because("rxdebug", reason),
    };
    let report = match Report::fetch(&args, server) {
        Ok(report) => report,
        Err(error @ ProbeError::Socket { .. }) => return Exit::Environment.because("rxdebug", error),
        Err(error) => return Exit::Failed.because("rxdebug", error),
    };
    let output = if args.json { report.json(server).to_string() + "\n" } else { report.text(server) };
    match std::io::stdout().write_all(output.as_bytes()) {
        Ok(()) => Exit::Ok.into(),
        Err(error) => Exit::Environment.because("rxdebug", format_args!("cannot write: {error}")),
    }
}

/// The server's address: IPv4 if the name has one, as most Rx servers have no other.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    let found: Vec<_> =
        (host, port).to_socket_addrs().map_err(|error| format!("no host {host:?}: {error}"))?.collect();
    let v4 = found.iter().find(|addr| addr.is_ipv4());
    v4.or(found.first()).copied().ok_or_else(|| format!("host {host:?} has no address"))
}

impl Report {
    fn fetch(args: &Args, server: SocketAddr) -> Result<Self, ProbeError> {
        let patience = Patience { timeout: Duration::from_secs(args.timeout), tries: args.tries };
        let mut probe = Probe::open(server, patience)?;
        let mut report = Self::default();
        if args.version {
            report.version = Some(probe.version()?);
            return Ok(report);
        }
        report.stats = Some(probe.stats()?);
        if args.rxstats {
            report.counters = Some(probe.rx_statistics()?);
        }
        let chosen = args.rxstats || args.peers || args.connections || args.all_connections;
        if args.connections || args.all_connections || args.nodally || !chosen {
            let mut connections = probe.connections(args.all_connections)?;
            let all = connections.len();
            connections.retain(|conn| !(args.nodally && dallies(conn)));
            report.dallying = all - connections.len();
            report.connections = Some(connections);
        }
        if args.peers {
            report.peers = Some(probe.peers()?);
        }
        Ok(report)
    }

    fn json(&self, server: SocketAddr) -> Value {
        let mut all = Map::from_iter([("server".to_owned(), Value::from(server.to_string()))]);
        let mut add =
            |name: &str, value: Option<Value>| all.extend(value.map(|value| (name.to_owned(), value)));
        add("version", self.version.as_deref().map(Value::from));
        add("stats", self.stats.as_ref().map(json::stats));
        add("rx_statistics", self.counters.as_ref().map(json::rx_statistics));
        add("connections", self.connections.as_ref().map(|list| list.iter().map(json::connection).collect()));
        add("connections_left_out", self.connections.as_ref().map(|_| Value::from(self.dallying)));
        add("peers", self.peers.as_ref().map(|list| list.iter().map(json::peer).collect()));
        all.into()
    }

    fn text(&self, server: SocketAddr) -> String {
        let mut out = String::new();
        self.write_text(&mut out, server).expect("a String takes everything");
        out
    }

    fn write_text(&self, out: &mut String, server: SocketAddr) -> fmt::Result {
        use fmt::Write;
        if let Some(version) = &self.version {
            return writeln!(out, "{version}");
        }
        writeln!(out, "server       {server}")?;
        self.stats.iter().try_for_each(|stats| text::stats(out, stats))?;
        self.counters.iter().try_for_each(|counters| text::rx_statistics(out, counters))?;
        if let Some(list) = &self.connections {
            list.iter().try_for_each(|conn| text::connection(out, conn))?;
            writeln!(out, "connections  {} shown, {} left out", list.len(), self.dallying)?;
        }
        if let Some(list) = &self.peers {
            list.iter().try_for_each(|peer| text::peer(out, peer))?;
            writeln!(out, "peers        {} shown", list.len())?;
        }
        Ok(())
    }
}

/// Whether every call of a connection is over.
fn dallies(conn: &Connection) -> bool {
    let over = [CallState::NotInitialised as u8, CallState::Dally as u8];
    conn.call_state.iter().all(|state| over.contains(state))
}
