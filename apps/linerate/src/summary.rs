//! What came out of a run, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::figures::{MarkedFigures, PortFigures, QueueFigures, Snapshot};
use crate::line_rate::OVERHEAD;

/// A run, summed up. Rates are means over `seconds`.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// What was done: the subcommand's name.
    pub mode: &'static str,
    /// How long traffic was sent, or waited for.
    pub seconds: f64,
    /// In the order in which they were given.
    pub ports: Vec<PortSummary>,
    /// What became of marked frames, in `generate`.
    pub marked: Option<MarkedSummary>,
}

/// What a port did, all its queues together.
#[derive(Clone, Debug, Serialize)]
pub struct PortSummary {
    /// As it was opened.
    pub port: String,
    /// The driver's name.
    pub driver: &'static str,
    /// Line rate; null for a port without a speed, and then so are the percentages.
    pub line_rate_bits_per_second: Option<u64>,
    /// What it received.
    pub rx: Direction,
    /// What it sent.
    pub tx: Direction,
    /// Due, and not taken by the device: never sent.
    pub unsent: u64,
    /// Due, and never made: the core came too late.
    pub behind: u64,
    /// Time stamp counter ticks a frame, received or sent, in turns that moved any; null without frames.
    pub cycles_per_frame: Option<f64>,
    /// What the driver dropped, by name.
    pub drops: BTreeMap<&'static str, u64>,
}

/// What passed in one direction.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Direction {
    /// Frames.
    pub frames: u64,
    /// Their bytes, without FCS.
    pub bytes: u64,
    /// Frames a second.
    pub frames_per_second: f64,
    /// Bits a second on the wire: with preamble, FCS and gap.
    pub bits_per_second: f64,
    /// Of line rate.
    pub percent_of_line_rate: Option<f64>,
}

/// What became of marked frames.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MarkedSummary {
    /// Taken by the devices.
    pub sent: u64,
    /// Arrived whole, each once.
    pub received: u64,
    /// Did not arrive.
    pub missing: u64,
    /// Arrived damaged.
    pub corrupted: u64,
    /// Arrived again.
    pub duplicates: u64,
    /// Arrived after a later one.
    pub reordered: u64,
    /// Arrived too long after later ones to be judged.
    pub late: u64,
    /// Were not ours.
    pub foreign: u64,
    /// Missing and corrupted ones, of those sent.
    pub loss_percent: f64,
    /// Of `loss_percent`.
    pub tolerance_percent: f64,
    /// From the time stamp of a frame's burst to its arrival, microseconds; null if none arrived.
    pub latency_us: Option<LatencySummary>,
}

/// Quantiles of latencies, microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(missing_docs, reason = "the names are what they are")]
pub struct LatencySummary {
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Direction {
    fn new(frames: u64, bytes: u64, seconds: f64, line_rate: Option<u64>) -> Direction {
        let seconds = seconds.max(1e-9);
        let bits_per_second = (bytes + frames * OVERHEAD as u64) as f64 * 8.0 / seconds;
        let percent_of_line_rate = line_rate.map(|line_rate| bits_per_second / line_rate as f64 * 100.0);
        let frames_per_second = frames as f64 / seconds;
        Direction { frames, bytes, frames_per_second, bits_per_second, percent_of_line_rate }
    }
}

impl PortSummary {
    /// What a port did between two looks, or since the beginning; `seconds` lie between.
    pub fn new(now: &PortFigures, before: Option<&PortFigures>, seconds: f64) -> PortSummary {
        let sum = |port: &PortFigures| QueueFigures::sum(&port.queues);
        let grown = before.map_or_else(|| sum(now), |before| sum(now).since(&sum(before)));
        let line_rate = now.bits_per_second;
        let rx = Direction::new(grown.rx_frames, grown.rx_bytes, seconds, line_rate);
        let tx = Direction::new(grown.tx_frames, grown.tx_bytes, seconds, line_rate);
        let (frames, cycles) = (rx.frames + tx.frames, grown.busy_cycles);
        PortSummary {
            port: now.url.clone(),
            driver: now.driver,
            line_rate_bits_per_second: line_rate,
            rx,
            tx,
            unsent: grown.unsent,
            behind: grown.behind,
            cycles_per_frame: (frames > 0).then(|| cycles as f64 / frames as f64),
            drops: now.drops.iter().filter(|(_, count)| *count > 0).collect(),
        }
    }
}

impl MarkedSummary {
    fn new(snapshot: &Snapshot, tolerance_percent: f64) -> MarkedSummary {
        let MarkedFigures { sent, received, missing, duplicates, reordered, late, corrupted, foreign } =
            snapshot.marked;
        // More than were sent can be damaged where a wire makes copies.
        let lost = (missing + corrupted).min(sent);
        let loss_percent = if sent == 0 { 0.0 } else { lost as f64 / sent as f64 * 100.0 };
        let latency = &snapshot.latency;
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let at = |quantile| micros(latency.value_at_quantile(quantile));
        let latency_us = (!latency.is_empty()).then(|| LatencySummary {
            min: micros(latency.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(latency.max()),
        });
        MarkedSummary {
            sent,
            received,
            missing,
            corrupted,
            duplicates,
            reordered,
            late,
            foreign,
            loss_percent,
            tolerance_percent,
            latency_us,
        }
    }

    /// Whether frames were sent and no more were lost than may be.
    pub fn holds(&self) -> bool {
        self.sent > 0 && self.loss_percent <= self.tolerance_percent
    }
}

impl Summary {
    /// Sums up a run whose traffic took `seconds`; with a tolerance if its frames were marked.
    pub fn new(mode: &'static str, snapshot: &Snapshot, took: Duration, tolerance: Option<f64>) -> Summary {
        let seconds = took.as_secs_f64();
        Summary {
            mode,
            seconds,
            ports: snapshot.ports.iter().map(|port| PortSummary::new(port, None, seconds)).collect(),
            marked: tolerance.map(|tolerance| MarkedSummary::new(snapshot, tolerance)),
        }
    }

    /// Whether the result is good.
    pub fn holds(&self) -> bool {
        self.marked.is_none_or(|marked| marked.holds())
    }
}

/// A number with a prefix, such as 14.88 M.
pub fn scaled(value: f64) -> String {
    match value {
        _ if value >= 1e9 => format!("{:.2} G", value / 1e9),
        _ if value >= 1e6 => format!("{:.2} M", value / 1e6),
        _ if value >= 1e3 => format!("{:.2} k", value / 1e3),
        _ => format!("{value:.0} "),
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}pps  {}bit/s", scaled(self.frames_per_second), scaled(self.bits_per_second))?;
        self.percent_of_line_rate.map_or(Ok(()), |percent| write!(f, "  {percent:.2} % of line rate"))
    }
}

impl fmt::Display for PortSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortSummary { port, driver, rx, tx, unsent, behind, .. } = self;
        write!(f, "port       {port} ({driver})")?;
        match self.line_rate_bits_per_second {
            Some(line_rate) => writeln!(f, ", {}bit/s", scaled(line_rate as f64))?,
            None => writeln!(f, ", which has no speed to compare with")?,
        }
        writeln!(f, "  received {:>12} frames  {rx}", rx.frames)?;
        writeln!(f, "  sent     {:>12} frames  {tx}", tx.frames)?;
        if unsent + behind > 0 {
            writeln!(
                f,
                "  not sent {unsent} that the device did not take, {behind} that were made too late"
            )?;
        }
        if let Some(cycles) = self.cycles_per_frame {
            writeln!(f, "  cycles   {cycles:.0} a frame")?;
        }
        self.drops.iter().try_for_each(|(name, count)| writeln!(f, "  dropped  {count} {name}"))
    }
}

impl fmt::Display for MarkedSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MarkedSummary {
            sent, received, missing, corrupted, duplicates, reordered, late, foreign, ..
        } = self;
        writeln!(
            f,
            "marked     {sent} sent = {received} received + {missing} missing + {corrupted} corrupted"
        )?;
        writeln!(
            f,
            "           {duplicates} duplicates, {reordered} reordered, {late} late, {foreign} foreign"
        )?;
        let (loss, allowed) = (self.loss_percent, self.tolerance_percent);
        writeln!(f, "loss       {loss:.4} %, of which {allowed} % are allowed")?;
        let Some(LatencySummary { min, p50, p90, p99, p999, max }) = self.latency_us else { return Ok(()) };
        writeln!(
            f,
            "latency    min {min:.1}  p50 {p50:.1}  p90 {p90:.1}  p99 {p99:.1}  p99.9 {p999:.1}  max {max:.1} us"
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} for {:.3} s; bits a second with preamble, FCS and gap", self.mode, self.seconds)?;
        self.ports.iter().try_for_each(|port| port.fmt(f))?;
        let Some(marked) = &self.marked else { return Ok(()) };
        marked.fmt(f)?;
        let verdict = match marked.holds() {
            true => "no more was lost than may be",
            false if marked.sent == 0 => "NOTHING was sent",
            false => "MORE was lost than may be",
        };
        writeln!(f, "verdict    {verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::QueueCounters;
    use crate::counters::histogram;

    fn snapshot(bits_per_second: Option<u64>, marked: MarkedFigures) -> Snapshot {
        let queue = QueueCounters::default();
        queue.sent(32, 32 * 60);
        let port = PortFigures {
            url: "x:y".into(),
            driver: "x",
            bits_per_second,
            notes: vec![],
            queues: vec![queue.read(0), queue.read(1)],
            drops: Default::default(),
        };
        Snapshot { elapsed: Duration::from_secs(1), ports: vec![port], marked, latency: histogram() }
    }

    #[test]
    fn rates_are_those_of_the_wire_and_percentages_need_a_speed() {
        let with = |speed| {
            Summary::new(
                "txonly",
                &snapshot(speed, MarkedFigures::default()),
                Duration::from_micros(10),
                None,
            )
        };
        let tx = with(Some(10_000_000_000)).ports[0].tx;
        // 64 frames of 84 bytes on the wire, in ten microseconds.
        assert_eq!((tx.frames, tx.bits_per_second.round()), (64, 4_300_800_000.0));
        assert_eq!(tx.percent_of_line_rate.map(f64::round), Some(43.0));
        let text = with(None).to_string();
        assert!(text.contains("no speed") && !text.contains('%'), "{text}");
        assert!(with(None).ports[0].tx.percent_of_line_rate.is_none());
    }

    #[test]
    fn loss_beyond_the_tolerance_does_not_hold() {
        let holds = |sent, missing, corrupted, tolerance| {
            let marked = MarkedFigures { sent, missing, corrupted, ..Default::default() };
            Summary::new("generate", &snapshot(None, marked), Duration::from_secs(1), Some(tolerance)).holds()
        };
        assert!(holds(1000, 0, 0, 0.0));
        assert!(!holds(1000, 1, 0, 0.0));
        assert!(!holds(1000, 0, 1, 0.0), "damaged is lost for whom it was for");
        assert!(holds(1000, 5, 0, 0.5) && !holds(1000, 5, 1, 0.5));
        assert!(!holds(0, 0, 0, 100.0), "nothing sent is nothing shown");
    }
}
