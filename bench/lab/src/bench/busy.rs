//! CPU time of the whole machine, softirqs included, which no process's own figures show.

use std::fs;

use crate::fault::{Context, Fault, Result};

/// /proc counts in these, whatever the kernel's own tick is (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds that all CPUs spent on anything since boot.
pub fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context(|| "read /proc/stat".into())?;
    busy_ticks(&stat)
        .map(|ticks| ticks as f64 / TICKS_PER_SECOND)
        .ok_or_else(|| Fault::Check("/proc/stat does not begin with `cpu`".into()))
}

/// user, nice, system, irq, softirq; not idle, iowait, nor what the hypervisor took (steal).
fn busy_ticks(stat: &str) -> Option<u64> {
    let words = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks = words.map(|word| word.parse().ok()).collect::<Option<Vec<u64>>>()?;
    let counted = ticks.get(..7)?;
    Some(counted.iter().sum::<u64>() - counted[3] - counted[4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_does_not_count() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 2000 8 16 4000 0 0\ncpu0 1\n"), Some(1 + 2 + 4 + 8 + 16));
        assert_eq!(busy_ticks("intr 1\n"), None);
    }
}
