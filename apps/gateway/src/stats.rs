//! One look at a running gateway, and how it is shown: a table on a terminal, a line in a pipe, JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use engine::EngineStats;
use serde::Serialize;

use crate::config::Config;
use crate::figures::{CallFigures, RelayFigures, Shared};

/// What there is to know at one moment. Counters run from the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GatewayStats {
    /// Since the start.
    pub seconds: f64,
    /// Calls and bytes, over all cores.
    pub calls: CallFigures,
    /// Clients, connections and packets that are relayed, over all cores.
    pub relay: RelayFigures,
    /// In the order of the configuration.
    pub backends: Vec<BackendStats>,
    /// What became of every frame.
    pub ledger: Ledger,
    /// Frames and datagrams thrown away, by reason; reasons that never occurred are left out.
    pub drops: BTreeMap<String, u64>,
    /// Packet memory.
    pub pools: Vec<PoolLevel>,
}

/// One server.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BackendStats {
    /// Its pool's name.
    pub pool: String,
    /// Address and port.
    pub address: String,
    /// Whether it is given calls.
    pub alive: bool,
    /// Calls in flight; of a relayed pool, connections.
    pub outstanding: u64,
    /// Calls that ended with the whole reply.
    pub succeeded: u64,
    /// Calls that it aborted.
    pub aborted: u64,
    /// Calls lost to the network, to silence, or to a limit.
    pub failed: u64,
    /// Calls that the client gave up.
    pub cancelled: u64,
    /// From the end of a request to the first byte of its reply, in microseconds; 0: not known.
    pub latency_us: u64,
}

/// `received = delivered + consumed + dropped + held`, as far as nothing is in flight between cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Frames that came in.
    pub received: u64,
    /// Given to a socket.
    pub delivered: u64,
    /// Used up by a protocol.
    pub consumed: u64,
    /// Thrown away under a name.
    pub dropped: u64,
    /// Fragments that wait for the rest of their datagram.
    pub held: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// What came in less what it became: 0 at rest, the sum over the cores.
    pub imbalance: i64,
}

/// One core's packet memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolLevel {
    /// The pool's name.
    pub name: String,
    /// Buffers that it has.
    pub buffers: usize,
    /// Of these, in use.
    pub in_use: usize,
}

/// What happened between two looks, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Calls that came in.
    pub calls_per_second: f64,
    /// Bytes of requests passed on.
    pub request_bytes_per_second: f64,
    /// Bytes of replies passed on.
    pub reply_bytes_per_second: f64,
    /// Packets relayed, in both directions.
    pub relayed_per_second: f64,
}

/// Reads the gateway's figures and its engine's.
pub(crate) fn read(config: &Config, shared: &Shared, up: Duration, engine: &EngineStats) -> GatewayStats {
    let backends = shared.backends.iter().map(|backend| BackendStats {
        pool: config.pools[backend.pool].name.clone(),
        address: backend.address.to_string(),
        alive: backend.is_alive(),
        outstanding: backend.outstanding(),
        succeeded: backend.sum(|column| &column.succeeded),
        aborted: backend.sum(|column| &column.aborted),
        failed: backend.sum(|column| &column.failed),
        cancelled: backend.sum(|column| &column.cancelled),
        latency_us: backend.latency().as_micros() as u64,
    });
    let sum = engine.ledger();
    let ledger = Ledger {
        received: sum.received,
        delivered: sum.delivered,
        consumed: sum.consumed,
        dropped: sum.dropped().map(|(_, n)| n).sum(),
        held: sum.held,
        sent: sum.sent,
        imbalance: engine.cores.iter().map(|core| core.ledger.imbalance()).sum(),
    };
    let pools = engine.cores.iter().map(|core| PoolLevel {
        name: format!("core {}", core.core),
        buffers: core.buffers,
        in_use: core.buffers_in_use,
    });
    GatewayStats {
        seconds: up.as_secs_f64(),
        calls: shared.calls(),
        relay: shared.relay(),
        backends: backends.collect(),
        ledger,
        drops: drops(engine, &sum),
        pools: pools.collect(),
    }
}

/// Every name under which something was thrown away: on the way in, on the way out, and by the devices.
fn drops(engine: &EngineStats, sum: &engine::Ledger) -> BTreeMap<String, u64> {
    let incoming = sum.dropped().map(|(name, n)| (name.to_string(), n));
    let outgoing = sum.tx_drops.iter().map(|(reason, n)| (format!("tx {}", reason.name()), n));
    let devices = engine.ports.iter().flat_map(|port| {
        let named = port.stats.drops.iter().map(move |(name, n)| (format!("{}: {name}", port.url), n));
        named.chain([(format!("{}: rx_no_buffer", port.url), port.stats.rx_no_buffer)])
    });
    incoming.chain(outgoing).chain(devices).filter(|(_, n)| *n > 0).collect()
}

impl GatewayStats {
    /// What happened since `earlier`.
    pub fn since(&self, earlier: &Self) -> Rates {
        let seconds = (self.seconds - earlier.seconds).max(1e-9);
        let rate = |figure: fn(&CallFigures) -> u64| {
            figure(&self.calls).saturating_sub(figure(&earlier.calls)) as f64 / seconds
        };
        Rates {
            calls_per_second: rate(|calls| calls.accepted),
            request_bytes_per_second: rate(|calls| calls.request_bytes),
            reply_bytes_per_second: rate(|calls| calls.reply_bytes),
            relayed_per_second: self.relay.packets().saturating_sub(earlier.relay.packets()) as f64 / seconds,
        }
    }

    /// One line of JSON: the figures and the rates.
    pub fn json(&self, rates: &Rates) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            rates: &'a Rates,
            #[serde(flatten)]
            stats: &'a GatewayStats,
        }
        serde_json::to_string(&Line { rates, stats: self }).expect("plain data")
    }

    /// One line for a log.
    pub fn line(&self, rates: &Rates) -> String {
        let calls = &self.calls;
        let mut line = format!(
            "{:.0} s: {} calls in progress, {:.0} calls/s, {} up, {} down, {} ok, {} failed, {} refused",
            self.seconds,
            calls.in_progress,
            rates.calls_per_second,
            bytes(rates.request_bytes_per_second),
            bytes(rates.reply_bytes_per_second),
            calls.succeeded,
            calls.failed(),
            calls.refused(),
        );
        if self.relay.connected + self.relay.called_back > 0 {
            let RelayFigures { connections, clients, .. } = self.relay;
            let rate = rates.relayed_per_second;
            let _ = write!(
                line,
                ", relaying {connections} connections of {clients} clients, {rate:.0} packets/s"
            );
        }
        let dead: Vec<&str> =
            self.backends.iter().filter(|backend| !backend.alive).map(|backend| &*backend.address).collect();
        if !dead.is_empty() {
            let _ = write!(line, ", dead: {}", dead.join(" "));
        }
        let dropped: u64 = self.drops.values().sum();
        if dropped > 0 {
            let _ = write!(line, ", {dropped} drops");
        }
        line
    }

    /// A screen for people, one fact a line.
    pub fn table(&self, rates: &Rates) -> String {
        let calls = &self.calls;
        let mut out = format!(
            "calls    {:>9} in progress {:>12.0} /s  {:>10} up {:>10} down\n",
            calls.in_progress,
            rates.calls_per_second,
            bytes(rates.request_bytes_per_second),
            bytes(rates.reply_bytes_per_second),
        );
        let _ = writeln!(
            out,
            "ended    {:>9} ok {:>9} aborted by backends {:>7} by clients {:>7} lost {:>7} refused",
            calls.succeeded + calls.client_left,
            calls.backend_aborted,
            calls.client_aborted,
            calls.backend_failed + calls.proof_refused + calls.client_lost + calls.drained,
            calls.refused(),
        );
        if self.relay.connected + self.relay.called_back > 0 {
            let RelayFigures { connections, clients, called_back, displaced, aborts, .. } = self.relay;
            let _ = writeln!(
                out,
                "relay    {connections:>9} connections {clients:>9} clients {:>9.0} packets/s {called_back:>6} called back {displaced:>6} displaced {aborts:>6} aborts",
                rates.relayed_per_second,
            );
        }
        out.push_str(&self.backend_table());
        let Ledger { received, delivered, consumed, dropped, held, sent, .. } = self.ledger;
        let _ = writeln!(
            out,
            "frames   {received:>9} received = {delivered} delivered + {consumed} consumed + {dropped} dropped + {held} held; {sent} sent"
        );
        for (reason, n) in &self.drops {
            let _ = writeln!(out, "drop     {n:>9} {reason}");
        }
        for PoolLevel { name, buffers, in_use } in &self.pools {
            let _ = writeln!(out, "buffers  {in_use:>9} of {buffers} in use  {name}");
        }
        out
    }

    /// The backends, one a line under a head.
    pub fn backend_table(&self) -> String {
        let width = self.backends.iter().map(|backend| backend.address.len()).max().unwrap_or(0).max(7);
        let mut out = format!(
            "{:<width$} state {:>7} {:>9} {:>8} {:>7} {:>9} {:>9}  pool\n",
            "backend", "open", "ok", "aborted", "failed", "cancelled", "latency"
        );
        for backend in &self.backends {
            let state = if backend.alive { "alive" } else { "dead" };
            let BackendStats { pool, address, outstanding, succeeded, aborted, failed, cancelled, .. } =
                backend;
            let latency = match backend.latency_us {
                0 => "-".to_string(),
                micros => format!("{:?}", Duration::from_micros(micros)),
            };
            let _ = writeln!(
                out,
                "{address:<width$} {state:<5} {outstanding:>7} {succeeded:>9} {aborted:>8} {failed:>7} {cancelled:>9} {latency:>9}  {pool}"
            );
        }
        out
    }
}

/// Bytes a second, for people.
fn bytes(rate: f64) -> String {
    match rate {
        rate if rate >= 1e9 => format!("{:.2} GB/s", rate / 1e9),
        rate if rate >= 1e6 => format!("{:.1} MB/s", rate / 1e6),
        rate if rate >= 1e3 => format!("{:.1} kB/s", rate / 1e3),
        rate => format!("{rate:.0} B/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> GatewayStats {
        let backend = |address: &str, alive| BackendStats {
            pool: "vldb".into(),
            address: address.into(),
            alive,
            succeeded: 10,
            latency_us: 1500,
            ..BackendStats::default()
        };
        GatewayStats {
            seconds: 3.0,
            calls: CallFigures { accepted: 21, succeeded: 20, in_progress: 1, ..CallFigures::default() },
            backends: vec![backend("198.51.100.1:7003", true), backend("198.51.100.2:7003", false)],
            drops: [("rx_duplicate".to_string(), 4)].into(),
            ..GatewayStats::default()
        }
    }

    #[test]
    fn rates_are_differences_by_the_second() {
        let earlier = GatewayStats { seconds: 1.0, ..GatewayStats::default() };
        let mut later = sample();
        later.calls.reply_bytes = 3000;
        let expected = Rates { calls_per_second: 10.5, reply_bytes_per_second: 1500.0, ..Rates::default() };
        assert_eq!(later.since(&earlier), expected);
    }

    #[test]
    fn a_line_says_who_is_dead_and_what_was_dropped() {
        let line = sample().line(&Rates { calls_per_second: 7.0, ..Rates::default() });
        assert!(line.contains("1 calls in progress, 7 calls/s"), "{line}");
        assert!(line.ends_with("20 ok, 0 failed, 0 refused, dead: 198.51.100.2:7003, 4 drops"), "{line}");
    }

    #[test]
    fn json_is_one_object_with_rates_and_figures() {
        let text = sample().json(&Rates::default());
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["calls_per_second"], 0.0);
        assert_eq!(value["calls"]["succeeded"], 20);
        assert_eq!(value["backends"][1]["alive"], false);
        assert_eq!(value["drops"]["rx_duplicate"], 4);
        assert!(!text.contains('\n'));
    }

    #[test]
    fn the_table_has_a_line_for_each_backend() {
        let table = sample().table(&Rates::default());
        let row =
            |address: &str| table.lines().find(|line| line.starts_with(address)).expect("a row").to_string();
        assert!(
            row("198.51.100.1:7003").contains("alive") && row("198.51.100.1:7003").contains("1.5ms"),
            "{table}"
        );
        assert!(row("198.51.100.2:7003").contains("dead"), "{table}");
    }
}
