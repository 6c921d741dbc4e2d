//! What a load came to, for people and for programs.

use crate::SERVICE;
use crate::load::Tally;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// Half of the calls were faster.
    pub p50: f64,
    /// 99 % were.
    pub p99: f64,
    /// 99.9 % were.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

/// The result of a load.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Calls that ended.
    pub calls: u64,
    /// Of these, answered and every byte right.
    pub verified: u64,
    /// Of these, anything else.
    pub failed: u64,
    /// Calls that were aborted because the time was up; not among those that ended.
    pub cut: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Verified calls a second.
    pub calls_per_second: f64,
    /// Request bytes sent.
    pub bytes_sent: u64,
    /// Reply bytes received.
    pub bytes_received: u64,
    /// Latencies of the verified calls.
    pub latency_us: Latency,
    /// Verified calls by the service that answered: another one than was called after an upgrade.
    pub services: BTreeMap<u16, u64>,
    /// Why calls failed, and how many for each reason.
    pub failures: BTreeMap<String, u64>,
    /// Packets thrown away by our engines, by name.
    pub drops: BTreeMap<String, u64>,
}

/// What an engine threw away, in either direction, by name.
pub fn drops(stats: &engine::EngineStats) -> BTreeMap<String, u64> {
    let ledger = stats.ledger();
    let sent = ledger.tx_drops.iter().map(|(reason, count)| (reason.name(), count));
    let mut drops = BTreeMap::new();
    for (name, count) in ledger.dropped().chain(sent) {
        *drops.entry(name.to_owned()).or_default() += count;
    }
    drops
}

impl Latency {
    /// Of a tally's verified calls.
    pub fn of(tally: &Tally) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |quantile| us(tally.latency_ns.value_at_quantile(quantile));
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: us(tally.latency_ns.max()) }
    }
}

impl Summary {
    /// Of what all cores counted in `took`.
    pub fn new(tally: &Tally, took: Duration) -> Self {
        let (verified, failed) = (tally.verified(), tally.failed());
        let seconds = took.as_secs_f64();
        Self {
            calls: verified + failed,
            verified,
            failed,
            cut: tally.cut,
            seconds,
            calls_per_second: if seconds > 0.0 { verified as f64 / seconds } else { 0.0 },
            latency_us: Latency::of(tally),
            services: tally.services.iter().copied().collect(),
            failures: tally.failures.iter().map(|(failure, count)| (failure.to_string(), *count)).collect(),
            ..Self::default()
        }
    }

    /// Adds what an engine threw away, in either direction.
    pub fn add_drops(&mut self, stats: &engine::EngineStats) {
        for (name, count) in drops(stats) {
            *self.drops.entry(name).or_default() += count;
        }
    }

    /// Counts calls that never ended as failed.
    pub fn lose(&mut self, calls: u64) {
        if calls > 0 {
            self.calls += calls;
            self.failed += calls;
            self.failures.insert("it did not end".to_owned(), calls);
        }
    }

    /// Whether there were calls and every one was verified, or was right as far as it came when it was cut short.
    pub fn holds(&self) -> bool {
        self.calls + self.cut > 0 && self.failed == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, verified, failed, seconds, calls_per_second, .. } = self;
        writeln!(f, "calls      {calls}: {verified} verified, {failed} failed, in {seconds:.2} s")?;
        if self.cut > 0 {
            writeln!(f, "cut        {} more: the time was up", self.cut)?;
        }
        writeln!(f, "rate       {calls_per_second:.0} calls/s")?;
        let rate = |bytes: u64| bytes as f64 / 1e6 / seconds.max(f64::MIN_POSITIVE);
        let (sent, received) = (self.bytes_sent, self.bytes_received);
        writeln!(
            f,
            "payload    {:.1} MB sent ({:.1} MB/s), {:.1} MB received ({:.1} MB/s)",
            sent as f64 / 1e6,
            rate(sent),
            received as f64 / 1e6,
            rate(received)
        )?;
        let Latency { p50, p99, p999, max } = self.latency_us;
        writeln!(f, "latency    p50 {p50:.0} us, p99 {p99:.0} us, p99.9 {p999:.0} us, most {max:.0} us")?;
        for (service, count) in self.services.iter().filter(|(service, _)| **service != SERVICE) {
            writeln!(f, "upgraded   {count} calls to service {service}")?;
        }
        for (name, count) in &self.failures {
            writeln!(f, "failed     {count} x {name}")?;
        }
        if self.drops.is_empty() {
            writeln!(f, "drops      none")?;
        }
        for (name, count) in &self.drops {
            writeln!(f, "drop       {name} {count}")?;
        }
        Ok(())
    }
}
