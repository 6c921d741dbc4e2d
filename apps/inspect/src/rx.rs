//! `rxline rx`: the calls, connections, peers and local addresses of a running rxline, as /proc/net/rxrpc has the kernel's.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use cli::Exit;
use control::protocol::{Ask, Cursor};
use control::rows::{CallRow, ConnRow, LocalRow, PeerRow, RelayRow, STATES};
use control::{AskArgs, AskError, Asker};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exit_for;
use crate::table::Side::{Left, Right};
use crate::table::{Column, Layout};

/// List the calls, connections, relayed connections, peers or local addresses of a running rxline
///
/// Asks a gateway, demo or rxperf server of the same user over its control socket. The process goes on meanwhile: its
/// cores write down a few rows between two packets, so a list is no single moment's.
#[derive(clap::Args, Debug)]
#[command(after_help = cli::EXIT_CODES)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Calls: connection, state, reference letters, windows
    #[command(after_help = CALLS_HELP)]
    Calls(Options),
    /// Connections: service, epoch, calls on their channels
    #[command(after_help = CONNS_HELP)]
    Conns(Options),
    /// Connections that a gateway relays: client, its port towards the server, server
    #[command(after_help = RELAYED_HELP)]
    Relayed(Options),
    /// Remote addresses: round trip, timeout, packets
    #[command(after_help = PEERS_HELP)]
    Peers(Options),
    /// Local addresses and their services
    #[command(after_help = LOCALS_HELP)]
    Locals(Options),
}

const CALLS_HELP: &str = "\
Columns:
  CORE    engine and core that own the call
  SVID    service id            CONNID  connection id with channel, hex
  CALLID  call number, hex      END     Clt: we call; Svc: we are called
  USER    the user's number     STATE   as in /proc/net/rxrpc/calls, or how it ended
  ABORT   abort code
  REFS    who holds a socket's call: U user-ID tree, A accept queue, S service or client, W queued work, R receive queue
  TXSEQ   first packet not acknowledged    TW  the peer's window    CW  congestion window
  UNSENT, UNACKED, RESENT  packets
  RXSEQ   next packet expected             RW  our window           UNREAD  packets not read
  AGE     seconds since it began

Examples:
  rxline rx calls
  rxline rx calls --watch 1
  rxline rx calls --json | jq 'select(.state == \"service_send\") | .remote'";

const CONNS_HELP: &str = "\
Columns:
  END   Clt: we call; Svc: we are called    ACT   channels with a call
  SEC   security index                      IDLE  seconds since it last carried a call
  CALLS latest call number of each channel, hex

Example:
  rxline rx conns --json | jq -s 'group_by(.remote) | map({remote: .[0].remote, conns: length})'";

const RELAYED_HELP: &str = "\
Columns:
  PORT  our port towards the server, the client's own there
  BY    who opened it: Clt, or Svc for a call back
  NEW   * until both ends have been heard    IDLE  seconds since a packet last crossed

Example:
  rxline rx relayed --json | jq -s 'group_by(.server) | map({server: .[0].server, connections: length})'";

const PEERS_HELP: &str = "\
Columns:
  RTT, DEV, RTO  round trip, its mean deviation, retransmission timeout in microseconds
  MTU            largest packet it takes    JUMBO   packets it takes in a jumbogram
  SENT, RESENT   DATA packets               TX, RX  UDP payload bytes";

const LOCALS_HELP: &str = "\
Each core serves each address; one line for each service on it.

Columns:
  SVID     service id; - for an address to call from
  CHARGED  calls that may come in before anybody takes one, of BACKLOG at most";

#[derive(clap::Args, Debug)]
struct Options {
    #[command(flatten)]
    ask: AskArgs,

    /// One JSON object a line for each row; numbers as numbers, names that stay
    #[arg(long)]
    json: bool,

    /// List again every so many seconds, until interrupted
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
}

/// Lists.
pub fn run(args: Args) -> ExitCode {
    let listed = match &args.what {
        What::Calls(options) => list::<CallRow>(options),
        What::Conns(options) => list::<ConnRow>(options),
        What::Relayed(options) => list::<RelayRow>(options),
        What::Peers(options) => list::<PeerRow>(options),
        What::Locals(options) => list::<LocalRow>(options),
    };
    match listed {
        Ok(()) => Exit::Ok.into(),
        Err(error) => exit_for(&error).because("rx", error),
    }
}

/// What can be listed.
trait Row: DeserializeOwned + Serialize {
    const ASK: Ask;
    const COLUMNS: &'static [Column];
    /// The lines of this row.
    fn cells(&self) -> Vec<Vec<String>>;
}

fn list<T: Row>(options: &Options) -> Result<(), AskError> {
    let mut asker = Asker::find(options.ask.control.as_deref())?;
    loop {
        if options.watch.is_some() && !options.json && std::io::stdout().is_terminal() {
            cli::say("\x1b[H\x1b[2J");
        }
        if !once::<T>(&mut asker, options.json)? {
            return Ok(());
        }
        let Some(seconds) = options.watch else { return Ok(()) };
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

/// Page by page, so that a million rows take the memory of one page. False: nobody reads any more.
fn once<T: Row>(asker: &mut Asker, json: bool) -> Result<bool, AskError> {
    let mut layout = Layout::new(T::COLUMNS);
    let mut next = Some(Cursor::default());
    while let Some(from) = next {
        let page = asker.rows::<T>(T::ASK, from)?;
        let text = if json {
            let line = |row: &T| serde_json::to_string(row).expect("plain data") + "\n";
            page.rows.iter().map(line).collect()
        } else {
            let cells: Vec<_> = page.rows.iter().flat_map(Row::cells).collect();
            // Heads come with the first rows, so that columns are wide enough; or at the end, if there are none.
            if cells.is_empty() && page.next.is_some() { String::new() } else { layout.rows(&cells) }
        };
        if std::io::stdout().lock().write_all(text.as_bytes()).is_err() {
            return Ok(false);
        }
        next = page.next;
    }
    Ok(std::io::stdout().flush().is_ok())
}

fn core(engine: &str, core: usize) -> String {
    format!("{engine}/{core}")
}

fn end(role: &str) -> String {
    if role == "service" { "Svc".into() } else { "Clt".into() }
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".into(), |value| value.to_string())
}

/// The state as the kernel's listing names it; of a call that has ended, how.
fn state(call: &CallRow) -> String {
    match call.completion.as_deref() {
        Some("succeeded") => "Complete",
        Some("remote_abort") => "RmtAbort",
        Some("local_abort") => "LocAbort",
        Some("network_error") => "NetError",
        Some("timed_out") => "TimedOut",
        Some("busy") => "SvBusy",
        _ => STATES.iter().find(|state| state.1 == call.state).map_or(&*call.state, |state| state.2),
    }
    .into()
}

impl Row for CallRow {
    const ASK: Ask = Ask::Calls;
    const COLUMNS: &'static [Column] = &[
        ("CORE", Left),
        ("LOCAL", Left),
        ("REMOTE", Left),
        ("SVID", Right),
        ("CONNID", Left),
        ("CALLID", Left),
        ("END", Left),
        ("USER", Right),
        ("STATE", Left),
        ("ABORT", Right),
        ("REFS", Left),
        ("TXSEQ", Left),
        ("TW", Right),
        ("CW", Right),
        ("UNSENT", Right),
        ("UNACKED", Right),
        ("RESENT", Right),
        ("RXSEQ", Left),
        ("RW", Right),
        ("UNREAD", Right),
        ("AGE", Right),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            core(&self.engine, self.core),
            self.local.clone(),
            self.remote.clone(),
            self.service.to_string(),
            format!("{:08x}", self.cid),
            format!("{:08x}", self.call),
            end(&self.role),
            or_dash(self.user_id),
            state(self),
            or_dash(self.abort_code),
            or_dash(self.refs.clone()),
            format!("{:08x}", self.tx_first),
            self.tx_window.to_string(),
            self.cwnd.to_string(),
            self.tx_unsent.to_string(),
            self.tx_unacked.to_string(),
            self.retransmits.to_string(),
            format!("{:08x}", self.rx_next),
            self.rx_window.to_string(),
            self.rx_unread.to_string(),
            format!("{:.3}", self.age_seconds),
        ]]
    }
}

impl Row for ConnRow {
    const ASK: Ask = Ask::Conns;
    const COLUMNS: &'static [Column] = &[
        ("CORE", Left),
        ("LOCAL", Left),
        ("REMOTE", Left),
        ("SVID", Right),
        ("EPOCH", Left),
        ("CONNID", Left),
        ("END", Left),
        ("ACT", Right),
        ("SEC", Right),
        ("SERIAL", Left),
        ("ABORT", Right),
        ("IDLE", Right),
        ("CALLS", Left),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            core(&self.engine, self.core),
            self.local.clone(),
            self.remote.clone(),
            self.service.to_string(),
            format!("{:08x}", self.epoch),
            format!("{:08x}", self.cid),
            end(&self.role),
            self.active_calls.to_string(),
            self.security.to_string(),
            format!("{:08x}", self.serial),
            or_dash(self.abort_code),
            format!("{:.3}", self.idle_seconds),
            self.call_numbers.map(|number| format!("{number:x}")).join(","),
        ]]
    }
}

impl Row for RelayRow {
    const ASK: Ask = Ask::Relayed;
    const COLUMNS: &'static [Column] = &[
        ("CORE", Left),
        ("CLIENT", Left),
        ("LISTENER", Left),
        ("PORT", Left),
        ("SERVER", Left),
        ("EPOCH", Left),
        ("CONNID", Left),
        ("BY", Left),
        ("NEW", Left),
        ("IDLE", Right),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            core(&self.engine, self.core),
            self.client.clone(),
            self.listener.clone(),
            self.port.clone(),
            self.server.clone(),
            format!("{:08x}", self.epoch),
            format!("{:08x}", self.cid),
            end(&self.opened_by),
            if self.proven { "-" } else { "*" }.into(),
            format!("{:.0}", self.idle_seconds),
        ]]
    }
}

impl Row for PeerRow {
    const ASK: Ask = Ask::Peers;
    const COLUMNS: &'static [Column] = &[
        ("CORE", Left),
        ("LOCAL", Left),
        ("REMOTE", Left),
        ("CONNS", Right),
        ("RTT", Right),
        ("DEV", Right),
        ("RTO", Right),
        ("MTU", Right),
        ("JUMBO", Right),
        ("SENT", Right),
        ("RESENT", Right),
        ("TX", Right),
        ("RX", Right),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            core(&self.engine, self.core),
            self.local.clone(),
            self.remote.clone(),
            self.conns.to_string(),
            or_dash(self.rtt_us),
            self.rtt_deviation_us.to_string(),
            self.rto_us.to_string(),
            self.max_mtu.to_string(),
            self.jumbo_max.to_string(),
            self.packets_sent.to_string(),
            self.retransmits.to_string(),
            self.bytes_sent.to_string(),
            self.bytes_received.to_string(),
        ]]
    }
}

impl Row for LocalRow {
    const ASK: Ask = Ask::Locals;
    const COLUMNS: &'static [Column] = &[
        ("CORE", Left),
        ("LOCAL", Left),
        ("CONNS", Right),
        ("SVID", Right),
        ("CHARGED", Right),
        ("BACKLOG", Right),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let line = |service: [String; 3]| {
            let [id, charged, backlog] = service;
            vec![
                core(&self.engine, self.core),
                self.local.clone(),
                self.conns.to_string(),
                id,
                charged,
                backlog,
            ]
        };
        if self.services.is_empty() {
            return vec![line([(); 3].map(|()| "-".into()))];
        }
        let services = self.services.iter();
        services
            .map(|s| line([s.service.to_string(), s.charged.to_string(), s.backlog.to_string()]))
            .collect()
    }
}
