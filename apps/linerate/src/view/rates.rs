//! [`Rates`]: two snapshots of a run made into what happened between them. The names are stable: they are those of `--json` and of the report.

use std::collections::BTreeMap;

use pmd::BURST;
use serde::Serialize;

use crate::bottleneck::{self, Verdict};
use crate::figures::{LatencyFigures, MarkedFigures, PortFigures, QueueFigures, Snapshot};
use crate::line_rate::OVERHEAD;

/// Sizes of bursts that are shown together: from, to.
pub const BURST_CLASSES: [(usize, usize); 7] =
    [(0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, BURST)];

/// What a run did in an interval.
#[derive(Clone, Debug, Serialize)]
pub struct Rates {
    /// From the run's beginning to the interval's end.
    pub elapsed_seconds: f64,
    /// The interval.
    pub interval_seconds: f64,
    /// By port, in the order in which they were given.
    pub ports: Vec<PortRates>,
    /// What became of marked frames in the interval; `null` if none is marked.
    pub marked: Option<MarkedRates>,
    /// Of marked frames, since the run's beginning; `null` if none arrived.
    pub latency: Option<LatencyFigures>,
    /// Who was in the way.
    pub bottleneck: Verdict,
}

/// A port's.
#[derive(Clone, Debug, Serialize)]
pub struct PortRates {
    /// As it was opened.
    pub url: String,
    /// The driver's name.
    pub driver: &'static str,
    /// Line rate; `null` where the port has none.
    pub line_rate_bits_per_second: Option<u64>,
    /// Its queues together.
    pub total: QueueRates,
    /// By queue.
    pub queues: Vec<QueueRates>,
    /// What its driver and core dropped in the interval, by name; what did not occur is left out.
    pub drops: BTreeMap<String, u64>,
}

/// A queue's, or a port's. Bits are those on the wire: preamble, FCS and gap included.
#[derive(Clone, Debug, Default, Serialize)]
pub struct QueueRates {
    /// The core's CPU; `null` for a whole port.
    pub cpu: Option<usize>,
    /// Frames in.
    pub rx_frames_per_second: f64,
    /// The same on the wire.
    pub rx_bits_per_second: f64,
    /// The same as a part of line rate; `null` on a port without a speed.
    pub rx_line_rate_percent: Option<f64>,
    /// Frames out.
    pub tx_frames_per_second: f64,
    /// The same on the wire.
    pub tx_bits_per_second: f64,
    /// The same as a part of line rate.
    pub tx_line_rate_percent: Option<f64>,
    /// Frames due that the device did not take.
    pub unsent_per_second: f64,
    /// Frames due that the core came too late for.
    pub behind_per_second: f64,
    /// Time stamp counter ticks for each frame received or sent; `null` if there was none, or nobody counts them.
    pub cycles_per_frame: Option<f64>,
    /// Polls by what they found, by [`BURST_CLASSES`].
    pub rx_bursts: [u64; BURST_CLASSES.len()],
    /// Bursts given to the device by how much it took, by [`BURST_CLASSES`].
    pub tx_bursts: [u64; BURST_CLASSES.len()],
}

/// Of marked frames in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MarkedRates {
    /// Sent.
    pub sent_frames: u64,
    /// Arrived whole, each once.
    pub received_frames: u64,
    /// Sent and not arrived since the run's beginning: includes what is under way.
    pub missing_frames: u64,
    /// The same, of all sent since then.
    pub missing_percent: f64,
    /// Arrived again.
    pub duplicate_frames: u64,
    /// Arrived after a later one.
    pub reordered_frames: u64,
    /// Arrived too late to be judged.
    pub late_frames: u64,
    /// Arrived damaged.
    pub corrupted_frames: u64,
    /// Arrived without a mark.
    pub foreign_frames: u64,
}

impl Rates {
    /// What happened from `was` to `is`.
    pub fn between(was: &Snapshot, is: &Snapshot) -> Rates {
        let interval_seconds = is.elapsed.saturating_sub(was.elapsed).as_secs_f64().max(1e-9);
        let ports = was.ports.iter().zip(&is.ports).map(|(was, is)| port(was, is, interval_seconds));
        let any_marked = is.marked != MarkedFigures::default();
        Rates {
            elapsed_seconds: is.elapsed.as_secs_f64(),
            interval_seconds,
            ports: ports.collect(),
            marked: any_marked.then(|| marked(&was.marked, &is.marked)),
            latency: LatencyFigures::of(&is.latency),
            bottleneck: bottleneck::judge(was, is),
        }
    }
}

fn port(was: &PortFigures, is: &PortFigures, seconds: f64) -> PortRates {
    let rates = |was: &QueueFigures, now: &QueueFigures| rates(&now.since(was), seconds, is.bits_per_second);
    let queues = was.queues.iter().zip(&is.queues).map(|(was, is)| rates(was, is));
    let drops = is.drops.iter().map(|(name, n)| (name.to_owned(), n.saturating_sub(was.drops.get(name))));
    let total = rates(&QueueFigures::sum(&was.queues), &QueueFigures::sum(&is.queues));
    PortRates {
        url: is.url.clone(),
        driver: is.driver,
        line_rate_bits_per_second: is.bits_per_second,
        total: QueueRates { cpu: None, ..total },
        queues: queues.collect(),
        drops: drops.filter(|(_, n)| *n > 0).collect(),
    }
}

/// What a queue's growth in so many seconds comes to.
fn rates(grown: &QueueFigures, seconds: f64, line_rate: Option<u64>) -> QueueRates {
    let rate = |count: u64| count as f64 / seconds;
    let bits = |bytes: u64, frames: u64| rate((bytes + frames * OVERHEAD as u64) * 8);
    let rx_bits = bits(grown.rx_bytes, grown.rx_frames);
    let tx_bits = bits(grown.tx_bytes, grown.tx_frames);
    let percent = |bits: f64| line_rate.map(|speed| bits * 100.0 / speed as f64);
    let (frames, cycles) = (grown.rx_frames + grown.tx_frames, grown.busy_cycles);
    QueueRates {
        cpu: Some(grown.cpu),
        rx_frames_per_second: rate(grown.rx_frames),
        rx_bits_per_second: rx_bits,
        rx_line_rate_percent: percent(rx_bits),
        tx_frames_per_second: rate(grown.tx_frames),
        tx_bits_per_second: tx_bits,
        tx_line_rate_percent: percent(tx_bits),
        unsent_per_second: rate(grown.unsent),
        behind_per_second: rate(grown.behind),
        cycles_per_frame: (frames > 0 && cycles > 0).then(|| cycles as f64 / frames as f64),
        rx_bursts: classes(&grown.rx_bursts),
        tx_bursts: classes(&grown.tx_bursts),
    }
}

fn classes(bursts: &[u64; BURST + 1]) -> [u64; BURST_CLASSES.len()] {
    BURST_CLASSES.map(|(from, to)| bursts[from..=to].iter().sum())
}

fn marked(was: &MarkedFigures, is: &MarkedFigures) -> MarkedRates {
    let missing_percent = if is.sent == 0 { 0.0 } else { is.missing as f64 * 100.0 / is.sent as f64 };
    MarkedRates {
        sent_frames: is.sent.saturating_sub(was.sent),
        received_frames: is.received.saturating_sub(was.received),
        missing_frames: is.missing,
        missing_percent,
        duplicate_frames: is.duplicates.saturating_sub(was.duplicates),
        reordered_frames: is.reordered.saturating_sub(was.reordered),
        late_frames: is.late.saturating_sub(was.late),
        corrupted_frames: is.corrupted.saturating_sub(was.corrupted),
        foreign_frames: is.foreign.saturating_sub(was.foreign),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use hdrhistogram::Histogram;
    use pmd::Drops;
    use std::time::Duration;

    /// A run after so many seconds at a million frames of 60 bytes a second, on a port of 1 Gbit/s and on one without a speed.
    pub(crate) fn snapshot(seconds: u64) -> Snapshot {
        let frames = seconds * 1_000_000;
        let (mut rx_bursts, mut tx_bursts) = ([0; BURST + 1], [0; BURST + 1]);
        (rx_bursts[0], rx_bursts[5], rx_bursts[BURST]) = (frames, frames / 10, frames / 64);
        (tx_bursts[5], tx_bursts[BURST]) = (frames / 10, frames / 64);
        let queue = QueueFigures {
            cpu: 1,
            rx_frames: frames,
            rx_bytes: frames * 60,
            tx_frames: frames,
            tx_bytes: frames * 60,
            unsent: seconds * 10,
            behind: seconds,
            rx_bursts,
            tx_bursts,
            busy_cycles: frames * 2 * 150,
        };
        let mut drops = Drops::default();
        drops.add("rx_ring_full", seconds * 3);
        drops.add("tx_runt", 0);
        let port = |url: &str, bits_per_second| PortFigures {
            url: url.into(),
            driver: "memory",
            bits_per_second,
            notes: vec!["a note <of> the \"port\" & more".into()],
            queues: vec![queue.clone(), QueueFigures { cpu: 0, ..queue.clone() }],
            drops: drops.clone(),
        };
        let mut latency = Histogram::new(3).unwrap();
        latency.record_n(1000, 990).unwrap();
        latency.record_n(50_000, 10).unwrap();
        Snapshot {
            elapsed: Duration::from_secs(seconds),
            ports: vec![port("memory:a", Some(10_000_000_000)), port("memory:<b>", None)],
            marked: MarkedFigures {
                sent: frames,
                received: frames - seconds * 7,
                missing: seconds * 7,
                ..Default::default()
            },
            latency,
        }
    }

    #[test]
    fn rates_are_those_of_the_interval_and_bits_those_on_the_wire() {
        let rates = Rates::between(&snapshot(2), &snapshot(6));
        assert_eq!((rates.interval_seconds, rates.elapsed_seconds), (4.0, 6.0));
        let queue = &rates.ports[0].queues[0];
        assert_eq!((queue.rx_frames_per_second, queue.tx_frames_per_second), (1e6, 1e6));
        // 60 bytes, FCS, preamble and gap: 84 bytes of each.
        assert_eq!((queue.rx_bits_per_second, queue.cycles_per_frame), (672e6, Some(150.0)));
        assert_eq!((queue.unsent_per_second, queue.behind_per_second), (10.0, 1.0));
        let total = &rates.ports[0].total;
        assert_eq!((total.tx_frames_per_second, total.tx_line_rate_percent), (2e6, Some(13.44)));
        assert_eq!(rates.ports[1].total.tx_line_rate_percent, None);
        assert_eq!(total.rx_bursts, [8_000_000, 0, 0, 800_000, 0, 0, 125_000]);
        assert_eq!(rates.ports[0].drops.get("rx_ring_full"), Some(&12));
        assert_eq!(rates.ports[0].drops.len(), 1);
    }

    #[test]
    fn marked_frames_and_their_latency() {
        let rates = Rates::between(&snapshot(2), &snapshot(6));
        let marked = rates.marked.unwrap();
        assert_eq!((marked.sent_frames, marked.missing_frames), (4_000_000, 42));
        let latency = rates.latency.unwrap();
        assert_eq!((latency.frames, latency.p50_ns), (1000, 1000));
        assert!(latency.p99_9_ns > 49_000 && latency.p99_ns < 2000);
        let mut none = snapshot(1);
        (none.marked, none.latency) = (MarkedFigures::default(), Histogram::new(3).unwrap());
        let rates = Rates::between(&none, &none);
        assert!(rates.marked.is_none() && rates.latency.is_none());
        assert!(rates.ports[0].total.cycles_per_frame.is_none());
    }
}
