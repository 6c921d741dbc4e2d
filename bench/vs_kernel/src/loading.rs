//! Drives a load to its end and measures what that takes.

use std::time::Duration;

use pmd::{Clock, Instant};

use crate::Trouble;
use crate::figures::{Latency, Machine};
use crate::generator::{Generator, Mode, Phase, Plan, Tally};
use crate::meter::{Ticks, process_cpu};
use crate::stop::Stop;

/// What asks, on one thread.
pub trait Load {
    /// Takes what has come, for which it may sleep for up to `wait`. Returns the time at which it came.
    fn take(&mut self, now: Instant, wait: Duration, generator: &mut Generator) -> Result<Instant, Trouble>;

    /// Asks for what is due, as far as there is room.
    fn ask(&mut self, now: Instant, generator: &mut Generator) -> Result<(), Trouble>;
}

/// What a run came to.
pub struct Measured {
    /// What became of the requests.
    pub tally: Tally,
    /// CPU time of the process in the measured time.
    pub cpu: Duration,
    /// What the machine did.
    pub machine: Machine,
}

/// In a closed loop a load that may sleep looks at the time so often.
const LOOK: Duration = Duration::from_millis(10);
/// The machine's ticks are read so long before the measured time, because that takes a while; they are as coarse.
const BEFORE: Duration = Duration::from_millis(10);
/// Turns from one look at the flag that ends it all to the next.
const TURNS: usize = 64;

/// Runs a load on the calling thread until its generator is done.
pub fn drive(load: &mut dyn Load, plan: Plan, cpus: &[usize], stop: &Stop) -> Result<Measured, Trouble> {
    let wait = if plan.mode == Mode::Closed { LOOK } else { Duration::ZERO };
    let mut now = Clock::now();
    let mut generator = Generator::new(plan, now);
    let mut phase = generator.phase();
    let (mut ticks, mut begun, mut cpu) = (None, Duration::ZERO, Duration::ZERO);
    while phase < Phase::Over {
        if stop.is_set() {
            return Err(Trouble::Failed("it was ended by a signal before it was done".into()));
        }
        for _ in 0..TURNS {
            now = load.take(now, wait, &mut generator)?;
            generator.turn(now);
            load.ask(now, &mut generator)?;
            let next = generator.phase();
            if ticks.is_none() && generator.window().is_some_and(|(from, _)| now + BEFORE >= from) {
                ticks = Some(Ticks::read(now));
            }
            if next != phase {
                let so_far = process_cpu();
                match (phase, next) {
                    (_, Phase::Measuring) => begun = so_far,
                    (Phase::Measuring, _) => cpu = so_far - begun,
                    _ => {}
                }
                phase = next;
            }
            if phase == Phase::Over {
                break;
            }
        }
    }
    let machine = ticks.map(|before| Ticks::read(Clock::now()).since(&before, cpus)).unwrap_or_default();
    Ok(Measured { tally: generator.into_tally(), cpu, machine })
}

/// Percentiles of what was counted.
pub fn latency(tally: &Tally) -> Latency {
    let counted = &tally.latency_ns;
    if counted.is_empty() {
        return Latency::default();
    }
    let at = |quantile| counted.value_at_quantile(quantile);
    Latency {
        latency_count: counted.len(),
        latency_ns_min: counted.min(),
        latency_ns_mean: counted.mean(),
        latency_ns_p50: at(0.5),
        latency_ns_p90: at(0.9),
        latency_ns_p99: at(0.99),
        latency_ns_p99_9: at(0.999),
        latency_ns_max: counted.max(),
    }
}
