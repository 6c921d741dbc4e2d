//! [`Snapshot`]: every figure at one moment, as it passes over the socket. Counters run from the start; rates are the
//! asker's to compute. The names are stable.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::{CoreStats, DropCounts, EngineStats, PortView};
use serde::{Deserialize, Serialize};

use crate::protocol::Hello;

/// Counts by reason. Reasons that never occurred are left out.
pub type Counts = BTreeMap<String, u64>;

/// All figures of a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Whose they are.
    #[serde(flatten)]
    pub hello: Hello,
    /// By engine.
    #[serde(rename = "engine_figures")]
    pub engines: Vec<EngineFigures>,
    /// Of the whole process.
    pub rcu: RcuFigures,
}

/// An engine's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineFigures {
    /// Its name.
    pub engine: String,
    /// Open sockets.
    pub sockets: usize,
    /// Whether its ports bring flows to the cores that own them, by one Toeplitz hash.
    pub steered: bool,
    /// Ports that binds for one core looked at.
    pub ports_tried: u64,
    /// By core.
    pub cores: Vec<CoreFigures>,
    /// By port, in the order they were given.
    pub ports: Vec<PortFigures>,
}

/// A core's. `received + handed_in = delivered + consumed + handed_out + held + drops`, up to what is in flight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CoreFigures {
    /// Its number.
    pub core: usize,
    /// The CPU whose polling thread runs it.
    pub cpu: usize,
    /// Turns of the loop.
    pub turns: u64,
    /// Turns with something to do.
    pub busy_turns: u64,
    /// Times it slept.
    pub sleeps: u64,
    /// Frames taken from the ports' queues.
    pub received: u64,
    /// Datagrams that came in by the queue of the core that owns them.
    pub at_owner: u64,
    /// Datagrams that other cores handed over.
    pub handed_in: u64,
    /// Datagrams handed to the cores that own them.
    pub handed_out: u64,
    /// Local ports that its clients looked at before they had one whose replies come here.
    pub ports_tried: u64,
    /// Datagrams given to a socket's user.
    pub delivered: u64,
    /// Frames that a protocol took.
    pub consumed: u64,
    /// Fragments that wait for the rest of their datagram.
    pub held: u64,
    /// Thrown away on the way in.
    pub drops: Counts,
    /// Datagrams that the stack took to send.
    pub sent: u64,
    /// Datagrams not sent.
    pub send_drops: Counts,
    /// Buffers of its pool.
    pub buffers: usize,
    /// Of these, not in the pool.
    pub buffers_in_use: usize,
    /// Bytes of buffers on sockets' queues.
    pub unread_bytes: u64,
    /// What its endpoint has and did; `null` if the core did not answer.
    pub rx: Option<RxFigures>,
}

/// A core's Rx endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RxFigures {
    /// Calls open.
    pub calls: usize,
    /// Connections.
    pub conns: usize,
    /// Remote addresses.
    pub peers: usize,
    /// Local addresses.
    pub locals: usize,
    /// Buffers that wait for readers.
    pub unread_buffers: usize,
    /// Buffers that wait to be sent or acknowledged.
    pub send_buffers: usize,
    /// Calls begun here.
    pub calls_begun: u64,
    /// Calls that came in.
    pub calls_accepted: u64,
    /// Calls that ended well.
    pub calls_succeeded: u64,
    /// Calls that ended otherwise.
    pub calls_failed: u64,
    /// DATA packets sent for the first time.
    pub data_sent: u64,
    /// DATA packets sent again.
    pub data_resent: u64,
    /// DATA packets that brought something new.
    pub data_received: u64,
    /// DATA packets that were here already.
    pub data_duplicate: u64,
}

/// A port's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortFigures {
    /// Its place among the engine's.
    pub port: usize,
    /// As it was opened.
    pub url: String,
    /// How it runs, in words: what was probed, and what is missing and why.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Whether frames can pass.
    pub up: bool,
    /// Line rate, where there is one.
    pub speed_mbps: Option<u32>,
    /// Frames given to cores.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that the device took.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Times that the transmit ring was full.
    pub tx_full: u64,
    /// Lost in the driver or the device.
    pub drops: Counts,
}

/// Retired memory and grace periods, of the whole process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RcuFigures {
    /// Bytes that wait for a grace period.
    pub retired_bytes: u64,
    /// What they are limited to.
    pub cap_bytes: u64,
    /// Grace periods that somebody waited for.
    pub grace_periods: u64,
    /// Half of them took at most so long.
    pub grace_p50_us: f64,
    /// 99 of 100 did.
    pub grace_p99_us: f64,
    /// The longest.
    pub grace_max_us: f64,
    /// Readers that hold one up now.
    pub stalls: Vec<StallFigures>,
    /// Readers that did.
    pub past_stalls: Vec<PastStallFigures>,
}

/// A core, or a thread, that holds up a grace period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StallFigures {
    /// Its name: `gateway/core-0`.
    pub reader: String,
    /// For how long.
    pub seconds: f64,
}

/// One that did, and goes on again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastStallFigures {
    /// Its name.
    pub reader: String,
    /// How often.
    pub count: u64,
    /// The longest.
    pub longest_seconds: f64,
    /// All together.
    pub total_seconds: f64,
}

/// Thrown away by the engine's names and by the handler's.
fn counts(drops: impl Iterator<Item = (&'static str, u64)>) -> Counts {
    let mut counts = Counts::new();
    for (name, n) in drops.filter(|(_, n)| *n > 0) {
        *counts.entry(name.into()).or_default() += n;
    }
    counts
}

fn by_reason(drops: &DropCounts) -> Counts {
    counts(drops.iter().map(|(reason, n)| (reason.name(), n)))
}

pub(crate) fn rcu() -> RcuFigures {
    let stats = engine::rcu::stats();
    let us = |duration: Duration| duration.as_nanos() as f64 / 1e3;
    let stalls = stats.stalls.into_iter();
    let past = stats.past_stalls.into_iter();
    RcuFigures {
        retired_bytes: stats.retired_bytes as u64,
        cap_bytes: stats.cap_bytes as u64,
        grace_periods: stats.synchronize.count,
        grace_p50_us: us(stats.synchronize.p50),
        grace_p99_us: us(stats.synchronize.p99),
        grace_max_us: us(stats.synchronize.max),
        stalls: stalls
            .map(|stall| StallFigures { reader: stall.reader, seconds: stall.length.as_secs_f64() })
            .collect(),
        past_stalls: past
            .map(|past| PastStallFigures {
                reader: past.reader,
                count: past.count,
                longest_seconds: past.longest.as_secs_f64(),
                total_seconds: past.total.as_secs_f64(),
            })
            .collect(),
    }
}

pub(crate) fn engine(
    engine: String,
    stats: EngineStats,
    rx: impl Fn(usize) -> Option<rxrpc::RxFigures>,
) -> EngineFigures {
    let cores = stats.cores.iter().map(|stats| core(stats, rx(stats.core))).collect();
    let ports = stats.ports.iter().enumerate().map(|(place, view)| port(place, view)).collect();
    let EngineStats { sockets, steered, ports_tried, .. } = stats;
    EngineFigures { engine, sockets, steered, ports_tried, cores, ports }
}

fn core(stats: &CoreStats, rx: Option<rxrpc::RxFigures>) -> CoreFigures {
    let ledger = &stats.ledger;
    CoreFigures {
        core: stats.core,
        cpu: stats.cpu,
        turns: stats.turns,
        busy_turns: stats.busy_turns,
        sleeps: stats.sleeps,
        received: ledger.received,
        at_owner: ledger.at_owner,
        handed_in: ledger.handed_in,
        handed_out: ledger.handed_out,
        ports_tried: stats.ports_tried,
        delivered: ledger.delivered,
        consumed: ledger.consumed,
        held: ledger.held,
        drops: counts(ledger.dropped()),
        sent: ledger.sent,
        send_drops: by_reason(&ledger.tx_drops),
        buffers: stats.buffers,
        buffers_in_use: stats.buffers_in_use,
        unread_bytes: stats.unread_bytes,
        rx: rx.map(|rx| endpoint(&rx)),
    }
}

fn endpoint(rx: &rxrpc::RxFigures) -> RxFigures {
    let stats = &rx.stats;
    RxFigures {
        calls: rx.calls,
        conns: rx.conns,
        peers: rx.peers,
        locals: rx.locals,
        unread_buffers: rx.unread_buffers,
        send_buffers: rx.send_buffers,
        calls_begun: stats.calls_begun,
        calls_accepted: stats.calls_accepted,
        calls_succeeded: stats.calls_succeeded,
        calls_failed: stats.calls_failed,
        data_sent: stats.data_sent,
        data_resent: stats.data_resent,
        data_received: stats.data_new,
        data_duplicate: stats.data_duplicate,
    }
}

fn port(place: usize, view: &PortView) -> PortFigures {
    let PortView { url, notes, speed_mbps, link, stats } = view;
    let no_buffer = ("no_buffer", stats.rx_no_buffer);
    PortFigures {
        port: place,
        url: url.clone(),
        notes: notes.clone(),
        up: *link == engine::pmd::LinkState::Up,
        speed_mbps: *speed_mbps,
        rx_frames: stats.rx_frames,
        rx_bytes: stats.rx_bytes,
        tx_frames: stats.tx_frames,
        tx_bytes: stats.tx_bytes,
        tx_full: stats.tx_full,
        drops: counts(stats.drops.iter().chain([no_buffer])),
    }
}
