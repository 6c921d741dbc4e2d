//! A [`Snapshot`] as Prometheus text (exposition format 0.0.4).
//!
//! Names end in `_total`, `_bytes` or `_seconds` as the conventions have it; labels are `engine`, `core`, `port` and
//! `reason`. Every reason that this rxline knows has its series from the start, so that a first drop shows as a rate.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use rxrpc::RxDrop;

use crate::snapshot::{CoreFigures, Counts, EngineFigures, PortFigures, RxFigures, Snapshot};

/// The text.
pub fn text(snapshot: &Snapshot) -> String {
    let mut page = Page { text: String::new(), snapshot };
    page.process();
    page.cores();
    page.endpoints();
    page.ports();
    page.rcu();
    page.text
}

struct Page<'s> {
    text: String,
    snapshot: &'s Snapshot,
}

/// A label and its value.
type Label<'a> = (&'static str, &'a dyn Display);

/// What a family's numbers mean.
#[derive(Clone, Copy)]
enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

type OfCore = (&'static str, Kind, &'static str, fn(&CoreFigures) -> u64);
type OfEndpoint = (&'static str, Kind, &'static str, fn(&RxFigures) -> u64);
type OfPort = (&'static str, &'static str, fn(&PortFigures) -> u64);

use Kind::{Counter, Gauge};

const CORES: &[OfCore] = &[
    ("core_turns_total", Counter, "Turns of the loop.", |core| core.turns),
    ("core_busy_turns_total", Counter, "Turns of the loop that had something to do.", |core| core.busy_turns),
    ("core_sleeps_total", Counter, "Times that the core slept.", |core| core.sleeps),
    ("core_received_frames_total", Counter, "Frames taken from the ports' queues.", |core| core.received),
    (
        "core_at_owner_total",
        Counter,
        "Datagrams that came in by the queue of the core that owns them.",
        |core| core.at_owner,
    ),
    ("core_handed_in_total", Counter, "Datagrams that other cores handed over.", |core| core.handed_in),
    ("core_handed_out_total", Counter, "Datagrams handed to the cores that own them.", |core| {
        core.handed_out
    }),
    (
        "core_ports_tried_total",
        Counter,
        "Local ports that clients looked at for one whose replies come here.",
        |core| core.ports_tried,
    ),
    ("core_delivered_total", Counter, "Datagrams given to a socket's user.", |core| core.delivered),
    ("core_consumed_total", Counter, "Frames that a protocol took.", |core| core.consumed),
    ("core_held_fragments", Gauge, "Fragments that wait for the rest of their datagram.", |core| core.held),
    ("core_sent_total", Counter, "Datagrams that the stack took to send.", |core| core.sent),
    ("pool_buffers", Gauge, "Packet buffers of the core's pool.", |core| core.buffers as u64),
    ("pool_buffers_in_use", Gauge, "Packet buffers not in the pool.", |core| core.buffers_in_use as u64),
    ("socket_unread_bytes", Gauge, "Bytes of buffers on UDP sockets' queues.", |core| core.unread_bytes),
];

const ENDPOINTS: &[OfEndpoint] = &[
    ("rx_calls", Gauge, "Rx calls open.", |rx| rx.calls as u64),
    ("rx_connections", Gauge, "Rx connections.", |rx| rx.conns as u64),
    ("rx_peers", Gauge, "Remote addresses known.", |rx| rx.peers as u64),
    ("rx_locals", Gauge, "Local addresses open.", |rx| rx.locals as u64),
    ("rx_unread_buffers", Gauge, "Packet buffers that wait for readers.", |rx| rx.unread_buffers as u64),
    ("rx_send_buffers", Gauge, "Packet buffers that wait to be sent or acknowledged.", |rx| {
        rx.send_buffers as u64
    }),
    ("rx_calls_begun_total", Counter, "Rx calls begun here.", |rx| rx.calls_begun),
    ("rx_calls_accepted_total", Counter, "Rx calls that came in.", |rx| rx.calls_accepted),
    ("rx_calls_succeeded_total", Counter, "Rx calls that ended well.", |rx| rx.calls_succeeded),
    ("rx_calls_failed_total", Counter, "Rx calls that ended otherwise.", |rx| rx.calls_failed),
    ("rx_data_packets_sent_total", Counter, "DATA packets sent for the first time.", |rx| rx.data_sent),
    ("rx_data_packets_resent_total", Counter, "DATA packets sent again.", |rx| rx.data_resent),
    ("rx_data_packets_received_total", Counter, "DATA packets that brought something new.", |rx| {
        rx.data_received
    }),
    ("rx_data_packets_duplicate_total", Counter, "DATA packets that were here already.", |rx| {
        rx.data_duplicate
    }),
];

const PORTS: &[OfPort] = &[
    ("port_receive_frames_total", "Frames given to cores.", |port| port.rx_frames),
    ("port_receive_bytes_total", "Bytes of frames given to cores.", |port| port.rx_bytes),
    ("port_transmit_frames_total", "Frames that the device took.", |port| port.tx_frames),
    ("port_transmit_bytes_total", "Bytes of frames that the device took.", |port| port.tx_bytes),
    ("port_transmit_full_total", "Times that the transmit ring was full.", |port| port.tx_full),
];

impl Page<'_> {
    fn process(&mut self) {
        let Snapshot { hello, .. } = self.snapshot;
        self.family("build_info", Gauge, "Always 1; the labels say what runs.");
        self.series("build_info", &[("command", &hello.command), ("version", &hello.version)], 1);
        self.family("uptime_seconds", Gauge, "Since the start.");
        self.series("uptime_seconds", &[], hello.uptime_seconds);
        self.family("sockets", Gauge, "Open sockets.");
        for engine in &self.snapshot.engines {
            self.series("sockets", &[("engine", &engine.engine)], engine.sockets);
        }
        self.family("engine_steered", Gauge, "1 if the ports bring flows to the cores that own them.");
        for engine in &self.snapshot.engines {
            self.series("engine_steered", &[("engine", &engine.engine)], u8::from(engine.steered));
        }
        self.family("bind_ports_tried_total", Counter, "Ports that binds for one core looked at.");
        for engine in &self.snapshot.engines {
            self.series("bind_ports_tried_total", &[("engine", &engine.engine)], engine.ports_tried);
        }
    }

    fn cores(&mut self) {
        for &(name, kind, help, figure) in CORES {
            self.family(name, kind, help);
            for (engine, core) in each_core(self.snapshot) {
                self.series(name, &[("engine", &engine.engine), ("core", &core.core)], figure(core));
            }
        }
        let engine_names = || engine::Drop::ALL.iter().map(|reason| reason.name());
        let handler_names = RxDrop::ALL.iter().map(|reason| reason.name());
        self.family("core_drops_total", Counter, "Frames and datagrams thrown away on the way in.");
        for (engine, core) in each_core(self.snapshot) {
            let names = engine_names().chain(handler_names.clone());
            self.drops(
                "core_drops_total",
                &[("engine", &engine.engine), ("core", &core.core)],
                names,
                &core.drops,
            );
        }
        self.family("core_send_drops_total", Counter, "Datagrams not sent.");
        for (engine, core) in each_core(self.snapshot) {
            let labels: [Label<'_>; 2] = [("engine", &engine.engine), ("core", &core.core)];
            self.drops("core_send_drops_total", &labels, engine_names(), &core.send_drops);
        }
    }

    fn endpoints(&mut self) {
        for &(name, kind, help, figure) in ENDPOINTS {
            self.family(name, kind, help);
            for (engine, core) in each_core(self.snapshot) {
                let Some(rx) = &core.rx else { continue };
                self.series(name, &[("engine", &engine.engine), ("core", &core.core)], figure(rx));
            }
        }
    }

    fn ports(&mut self) {
        for &(name, help, figure) in PORTS {
            self.family(name, Counter, help);
            self.each_port(|page, labels, port| page.series(name, labels, figure(port)));
        }
        self.family("port_up", Gauge, "1 if frames can pass.");
        self.each_port(|page, labels, port| page.series("port_up", labels, u8::from(port.up)));
        self.family("port_drops_total", Counter, "Frames lost in the driver or the device.");
        self.each_port(|page, labels, port| {
            page.drops("port_drops_total", labels, ["no_buffer"].into_iter(), &port.drops);
        });
    }

    fn each_port(&mut self, mut show: impl FnMut(&mut Self, &[Label<'_>], &PortFigures)) {
        for engine in &self.snapshot.engines {
            for port in &engine.ports {
                show(self, &[("engine", &engine.engine), ("port", &port.port), ("url", &port.url)], port);
            }
        }
    }

    fn rcu(&mut self) {
        let rcu = &self.snapshot.rcu;
        self.family("rcu_retired_bytes", Gauge, "Bytes that wait for a grace period.");
        self.series("rcu_retired_bytes", &[], rcu.retired_bytes);
        self.family("rcu_retired_limit_bytes", Gauge, "What they are limited to.");
        self.series("rcu_retired_limit_bytes", &[], rcu.cap_bytes);
        self.family("rcu_grace_periods_total", Counter, "Grace periods that somebody waited for.");
        self.series("rcu_grace_periods_total", &[], rcu.grace_periods);
        self.family("rcu_grace_period_seconds", Gauge, "How long they took; quantile 1 is the longest.");
        for (quantile, us) in [("0.5", rcu.grace_p50_us), ("0.99", rcu.grace_p99_us), ("1", rcu.grace_max_us)]
        {
            self.series("rcu_grace_period_seconds", &[("quantile", &quantile)], us / 1e6);
        }
        self.family("rcu_stall_seconds", Gauge, "How long a reader has been holding up a grace period.");
        let mut longest = BTreeMap::<&str, f64>::new();
        for stall in &rcu.stalls {
            let seconds = longest.entry(&stall.reader).or_default();
            *seconds = seconds.max(stall.seconds);
        }
        for (reader, seconds) in longest {
            self.series("rcu_stall_seconds", &[("reader", &reader)], seconds);
        }
        self.family("rcu_stalls_total", Counter, "Stalls that are over.");
        for past in &rcu.past_stalls {
            self.series("rcu_stalls_total", &[("reader", &past.reader)], past.count);
        }
    }

    /// One series for each reason: those known, and whatever else has occurred.
    fn drops(
        &mut self,
        name: &str,
        labels: &[Label<'_>],
        known: impl Iterator<Item = &'static str>,
        drops: &Counts,
    ) {
        let mut all: Counts = known.map(|reason| (reason.to_string(), 0)).collect();
        all.extend(drops.iter().map(|(reason, n)| (reason.clone(), *n)));
        for (reason, n) in &all {
            let labels: Vec<Label<'_>> =
                labels.iter().copied().chain([("reason", reason as &dyn Display)]).collect();
            self.series(name, &labels, n);
        }
    }

    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Counter => "counter",
            Gauge => "gauge",
        };
        let _ = writeln!(self.text, "# HELP rxline_{name} {help}\n# TYPE rxline_{name} {kind}");
    }

    fn series(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        let _ = write!(self.text, "rxline_{name}");
        for (at, (label, value)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{open}{label}=\"{}\"", escaped(&value.to_string()));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

fn each_core(snapshot: &Snapshot) -> impl Iterator<Item = (&EngineFigures, &CoreFigures)> {
    snapshot.engines.iter().flat_map(|engine| engine.cores.iter().map(move |core| (engine, core)))
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
