//! [`Rates`]: two snapshots made into what happened between them. The names are stable: they are `rxline top --json`'s.

use control::snapshot::{CoreFigures, Counts, EngineFigures, PortFigures, RcuFigures, RxFigures, Snapshot};
use serde::Serialize;

/// What a process did in an interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// The `rxline` command.
    pub command: String,
    /// Process id.
    pub pid: u32,
    /// Since its start.
    pub uptime_seconds: f64,
    /// The interval.
    pub interval_seconds: f64,
    /// By engine.
    pub engines: Vec<EngineRates>,
    /// Now.
    pub rcu: RcuFigures,
}

/// An engine's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EngineRates {
    /// Its name.
    pub engine: String,
    /// Open sockets, now.
    pub sockets: usize,
    /// Whether its ports bring flows to the cores that own them.
    pub steered: bool,
    /// By core.
    pub cores: Vec<CoreRates>,
    /// By port.
    pub ports: Vec<PortRates>,
}

/// A core's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CoreRates {
    /// Its number.
    pub core: usize,
    /// The CPU whose polling thread runs it.
    pub cpu: usize,
    /// Turns of the loop.
    pub turns_per_second: f64,
    /// Turns with something to do, of all turns.
    pub busy_percent: f64,
    /// Times it slept.
    pub sleeps_per_second: f64,
    /// Frames that came in.
    pub received_per_second: f64,
    /// Given to a socket's user.
    pub delivered_per_second: f64,
    /// Taken by a protocol.
    pub consumed_per_second: f64,
    /// Came in by the queue of the core that owns them.
    pub at_owner_per_second: f64,
    /// Handed over to other cores.
    pub handed_out_per_second: f64,
    /// Datagrams sent.
    pub sent_per_second: f64,
    /// Thrown away, all reasons together.
    pub drops_per_second: f64,
    /// The same by reason, in the interval; reasons that did not occur are left out.
    pub drops: Counts,
    /// Not sent, by reason, in the interval.
    pub send_drops: Counts,
    /// Buffers of its pool, now.
    pub buffers: usize,
    /// Of these, not in the pool, now.
    pub buffers_in_use: usize,
    /// Bytes on UDP sockets' queues, now.
    pub unread_bytes: u64,
    /// Its endpoint's; `null` if the core did not answer.
    pub rx: Option<RxRates>,
}

/// An endpoint's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RxRates {
    /// Calls open, now.
    pub calls: usize,
    /// Connections, now.
    pub conns: usize,
    /// Remote addresses, now.
    pub peers: usize,
    /// Calls begun here or come in.
    pub calls_per_second: f64,
    /// Calls that ended well.
    pub succeeded_per_second: f64,
    /// Calls that ended otherwise.
    pub failed_per_second: f64,
    /// DATA packets sent again.
    pub resent_per_second: f64,
    /// Buffers that wait for readers, now.
    pub unread_buffers: usize,
}

/// A port's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PortRates {
    /// As it was opened.
    pub url: String,
    /// Whether frames can pass, now.
    pub up: bool,
    /// Frames in, in millions.
    pub rx_mpps: f64,
    /// The same in 10^9 bits, without preamble and gaps.
    pub rx_gbps: f64,
    /// Frames out, in millions.
    pub tx_mpps: f64,
    /// The same in 10^9 bits.
    pub tx_gbps: f64,
    /// Lost in the driver or the device in the interval, by reason.
    pub drops: Counts,
}

/// Computes rates over so many seconds.
struct Over(f64);

impl Over {
    fn rate(&self, was: u64, is: u64) -> f64 {
        is.saturating_sub(was) as f64 / self.0
    }
}

fn grown(was: &Counts, is: &Counts) -> Counts {
    let since = |(name, n): (&String, &u64)| {
        let grown = n.saturating_sub(was.get(name).copied().unwrap_or(0));
        (grown > 0).then(|| (name.clone(), grown))
    };
    is.iter().filter_map(since).collect()
}

impl Rates {
    /// What happened from `was` to `is`. Times are the process's own, so that an answer that took long spoils nothing.
    pub fn between(was: &Snapshot, is: &Snapshot) -> Rates {
        let interval_seconds = (is.hello.uptime_seconds - was.hello.uptime_seconds).max(1e-6);
        let over = Over(interval_seconds);
        let engine = |is: &EngineFigures| {
            let was = was.engines.iter().find(|was| was.engine == is.engine);
            over.engine(was.unwrap_or(is), is)
        };
        Rates {
            command: is.hello.command.clone(),
            pid: is.hello.pid,
            uptime_seconds: is.hello.uptime_seconds,
            interval_seconds,
            engines: is.engines.iter().map(engine).collect(),
            rcu: is.rcu.clone(),
        }
    }
}

impl Over {
    fn engine(&self, was: &EngineFigures, is: &EngineFigures) -> EngineRates {
        let cores = was.cores.iter().zip(&is.cores).map(|(was, is)| self.core(was, is));
        let ports = was.ports.iter().zip(&is.ports).map(|(was, is)| self.port(was, is));
        EngineRates {
            engine: is.engine.clone(),
            sockets: is.sockets,
            steered: is.steered,
            cores: cores.collect(),
            ports: ports.collect(),
        }
    }

    fn core(&self, was: &CoreFigures, is: &CoreFigures) -> CoreRates {
        let turns = is.turns.saturating_sub(was.turns);
        let busy = is.busy_turns.saturating_sub(was.busy_turns);
        let drops = grown(&was.drops, &is.drops);
        CoreRates {
            core: is.core,
            cpu: is.cpu,
            turns_per_second: self.rate(was.turns, is.turns),
            busy_percent: 100.0 * busy as f64 / turns.max(1) as f64,
            sleeps_per_second: self.rate(was.sleeps, is.sleeps),
            received_per_second: self.rate(was.received, is.received),
            delivered_per_second: self.rate(was.delivered, is.delivered),
            consumed_per_second: self.rate(was.consumed, is.consumed),
            at_owner_per_second: self.rate(was.at_owner, is.at_owner),
            handed_out_per_second: self.rate(was.handed_out, is.handed_out),
            sent_per_second: self.rate(was.sent, is.sent),
            drops_per_second: self.rate(0, drops.values().sum()),
            drops,
            send_drops: grown(&was.send_drops, &is.send_drops),
            buffers: is.buffers,
            buffers_in_use: is.buffers_in_use,
            unread_bytes: is.unread_bytes,
            rx: is.rx.as_ref().map(|rx| self.rx(was.rx.as_ref().unwrap_or(rx), rx)),
        }
    }

    fn rx(&self, was: &RxFigures, is: &RxFigures) -> RxRates {
        let begun = |rx: &RxFigures| rx.calls_begun + rx.calls_accepted;
        RxRates {
            calls: is.calls,
            conns: is.conns,
            peers: is.peers,
            calls_per_second: self.rate(begun(was), begun(is)),
            succeeded_per_second: self.rate(was.calls_succeeded, is.calls_succeeded),
            failed_per_second: self.rate(was.calls_failed, is.calls_failed),
            resent_per_second: self.rate(was.data_resent, is.data_resent),
            unread_buffers: is.unread_buffers,
        }
    }

    fn port(&self, was: &PortFigures, is: &PortFigures) -> PortRates {
        PortRates {
            url: is.url.clone(),
            up: is.up,
            rx_mpps: self.rate(was.rx_frames, is.rx_frames) / 1e6,
            rx_gbps: self.rate(was.rx_bytes, is.rx_bytes) * 8.0 / 1e9,
            tx_mpps: self.rate(was.tx_frames, is.tx_frames) / 1e6,
            tx_gbps: self.rate(was.tx_bytes, is.tx_bytes) * 8.0 / 1e9,
            drops: grown(&was.drops, &is.drops),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::protocol::Hello;

    fn snapshot(uptime_seconds: f64, factor: u64) -> Snapshot {
        let core = CoreFigures {
            turns: 1000 * factor,
            busy_turns: 250 * factor,
            received: 10 * factor,
            at_owner: 6 * factor,
            handed_out: 4 * factor,
            drops: [("runt".to_string(), 3 * factor)].into(),
            rx: Some(RxFigures { calls_accepted: 8 * factor, calls: 2, ..RxFigures::default() }),
            ..CoreFigures::default()
        };
        let engine = EngineFigures {
            engine: "e".into(),
            sockets: 1,
            steered: true,
            ports_tried: 0,
            cores: vec![core],
            ports: vec![],
        };
        let hello = Hello {
            command: "c".into(),
            version: "v".into(),
            pid: 1,
            uptime_seconds,
            engines: vec!["e".into()],
        };
        Snapshot { hello, engines: vec![engine], rcu: RcuFigures::default() }
    }

    #[test]
    fn rates_are_over_the_time_of_the_process() {
        let rates = Rates::between(&snapshot(10.0, 1), &snapshot(12.0, 3));
        let core = &rates.engines[0].cores[0];
        assert_eq!(
            (core.turns_per_second, core.busy_percent, core.received_per_second),
            (1000.0, 25.0, 10.0)
        );
        assert_eq!((core.at_owner_per_second, core.handed_out_per_second), (6.0, 4.0));
        assert_eq!((core.drops["runt"], core.drops_per_second), (6, 3.0));
        assert_eq!(core.rx.as_ref().map(|rx| (rx.calls, rx.calls_per_second)), Some((2, 8.0)));
        // An engine that was not there before, or figures that went back, are no reason to panic.
        let mut new = snapshot(12.0, 3);
        new.engines[0].engine = "other".into();
        assert_eq!(Rates::between(&snapshot(10.0, 1), &new).engines[0].cores[0].received_per_second, 0.0);
        Rates::between(&snapshot(12.0, 3), &snapshot(10.0, 1));
    }
}
