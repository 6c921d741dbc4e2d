//! What each idle policy costs: the latency of calls that find every core idle, and the CPU time that it takes to be so quick.
//!
//! One call at a time, and a gap before the next, in which a policy that sleeps is asleep. A call crosses four cores' doorsteps: the gateway's
//! and a service's, and back. Under load no core is idle, and the policies do not differ.

use crate::{Demo, DemoConfig, DemoError};
use engine::Idle;
use rustix::time::{ClockId, clock_gettime};
use rxperf::Latency;
use serde::Serialize;
use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Between two calls: long enough to fall asleep in, by the policies' default number of turns.
const GAP: Duration = Duration::from_millis(2);
/// What is not measured: connections are made, memory is touched for the first time.
const WARM_UP: Duration = Duration::from_millis(200);

/// The policies that are compared.
pub const POLICIES: [Idle; 3] = [Idle::Spin, Idle::Pause, Idle::DEFAULT];

/// What one policy costs here and now.
#[derive(Clone, Debug, Serialize)]
pub struct Price {
    /// The policy, as `--idle` takes it.
    pub idle: String,
    /// Calls measured.
    pub calls: u64,
    /// Calls of the whole run that failed, or whose reply was wrong.
    pub failed: u64,
    /// Latency of a call that finds every core idle.
    pub latency_us: Latency,
    /// CPU time of the process in percent of one CPU.
    pub cpu_percent: f64,
    /// Times that a core slept, for each call of the whole run.
    pub sleeps_per_call: f64,
    /// What leaked. Empty: nothing did.
    pub leaks: Vec<String>,
}

impl Price {
    /// Measures a policy for so long.
    pub fn of(idle: Idle, config: &DemoConfig, how_long: Duration) -> Result<Price, DemoError> {
        let config = DemoConfig { idle, in_flight: 1, gap: GAP, ..config.clone() };
        let mut demo = Demo::start(&config)?;
        demo.begin();
        sleep(WARM_UP);
        demo.interval();
        let (started, cpu) = (Instant::now(), cpu_time());
        sleep(how_long);
        let (took, cpu) = (started.elapsed(), cpu_time() - cpu);
        let measured = demo.interval();
        let ending = demo.finish();
        Ok(Price {
            idle: idle.to_string(),
            calls: measured.verified(),
            failed: ending.summary.failed,
            latency_us: Latency::of(&measured),
            cpu_percent: 100.0 * cpu.as_secs_f64() / took.as_secs_f64(),
            sleeps_per_call: ending.sleeps as f64 / ending.summary.calls.max(1) as f64,
            leaks: ending.leaks,
        })
    }

    /// Whether there were calls, each was verified, and everything came home.
    pub fn holds(&self) -> bool {
        self.calls > 0 && self.failed == 0 && self.leaks.is_empty()
    }
}

/// A line for each policy.
pub struct Table<'a>(pub &'a [Price]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "idle      calls    p50 us    p99 us  CPU %  sleeps/call")?;
        for Price {
            idle, calls, latency_us: Latency { p50, p99, .. }, cpu_percent, sleeps_per_call, ..
        } in self.0
        {
            writeln!(
                f,
                "{idle:<8}{calls:>7}{p50:>10.1}{p99:>10.1}{cpu_percent:>7.1}{sleeps_per_call:>13.1}"
            )?;
        }
        writeln!(
            f,
            "one call at a time, {} ms apart: each finds the gateway and a service idle",
            GAP.as_millis()
        )
    }
}

/// Of all threads of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
