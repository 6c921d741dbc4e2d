//! What time it took: of this process, and of the machine's CPUs, softirqs included, which no process's own figures show.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use pmd::{Clock, Instant};
use rustix::time::{ClockId, clock_gettime};

use crate::figures::{CpuShare, Machine};

/// /proc counts in these, whatever the kernel's own tick is (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of this process so far, all its threads, user and system.
pub fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// When this program was executed, as nearly as it can know: until `main` it did nothing but run. To be asked there first.
pub fn executed() -> Instant {
    static EXECUTED: OnceLock<Instant> = OnceLock::new();
    *EXECUTED.get_or_init(|| {
        let before = process_cpu().as_nanos() as u64;
        Instant::from_nanos(Clock::now().as_nanos().saturating_sub(before))
    })
}

/// Ticks of CPUs at some time.
#[derive(Clone, Debug)]
pub struct Ticks {
    at: Instant,
    /// Number, any work, and thereof softirq.
    cpus: Vec<(usize, u64, u64)>,
}

impl Ticks {
    /// Now. Where there is no /proc/stat, of no CPU.
    pub fn read(now: Instant) -> Ticks {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        Ticks { at: now, cpus: stat.lines().filter_map(cpu_line).collect() }
    }

    /// What was done since `before`; the shares are of these CPUs.
    pub fn since(&self, before: &Ticks, cpus: &[usize]) -> Machine {
        let seconds = (self.at - before.at).as_secs_f64();
        let (mut busy, mut softirq, mut shares) = (0, 0, Vec::new());
        for (now, then) in self.cpus.iter().zip(&before.cpus) {
            let (all, soft) = (now.1.saturating_sub(then.1), now.2.saturating_sub(then.2));
            (busy, softirq) = (busy + all, softirq + soft);
            if cpus.contains(&now.0) {
                let share = if seconds > 0.0 { soft as f64 / TICKS_PER_SECOND / seconds } else { 0.0 };
                shares.push(CpuShare { cpu: now.0, share });
            }
        }
        Machine {
            machine_seconds: seconds,
            machine_busy_seconds: busy as f64 / TICKS_PER_SECOND,
            machine_softirq_seconds: softirq as f64 / TICKS_PER_SECOND,
            softirq_shares: shares,
        }
    }
}

/// `cpuN user nice system idle iowait irq softirq ...`. Neither idle nor waiting nor what the hypervisor took is work.
fn cpu_line(line: &str) -> Option<(usize, u64, u64)> {
    let mut words = line.strip_prefix("cpu")?.split_whitespace();
    let cpu = words.next()?.parse().ok().filter(|_| !line.starts_with("cpu "))?;
    let ticks = words.take(7).map(|word| word.parse().ok()).collect::<Option<Vec<u64>>>()?;
    let [user, nice, system, _idle, _iowait, irq, softirq] = ticks[..] else { return None };
    Some((cpu, user + nice + system + irq + softirq, softirq))
}

/// Seconds of CPU for a million of something; 0 for none.
pub fn per_million(cpu_seconds: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { cpu_seconds * 1e6 / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_told_from_waiting_and_softirq_from_work() {
        assert_eq!(cpu_line("cpu1 1 2 4 1000 2000 8 16 4000 0 0"), Some((1, 31, 16)));
        assert_eq!(cpu_line("cpu  1 2 4 1000 2000 8 16 4000 0 0"), None);
        assert_eq!(cpu_line("intr 1 2 3"), None);
    }

    #[test]
    fn a_share_is_of_the_cpus_that_were_asked_for() {
        let ticks =
            |at, cpus: &[(usize, u64, u64)]| Ticks { at: Instant::from_nanos(at), cpus: cpus.to_vec() };
        let before = ticks(0, &[(0, 100, 10), (1, 200, 20)]);
        let machine = ticks(2_000_000_000, &[(0, 300, 110), (1, 300, 20)]).since(&before, &[0]);
        assert_eq!((machine.machine_busy_seconds, machine.machine_softirq_seconds), (3.0, 1.0));
        assert_eq!(machine.softirq_shares.len(), 1);
        assert_eq!((machine.softirq_shares[0].cpu, machine.softirq_shares[0].share), (0, 0.5));
    }

    #[test]
    fn time_passes_while_one_works() {
        let (executed, cpu) = (executed(), process_cpu());
        while process_cpu() - cpu < Duration::from_millis(5) {}
        assert!(Clock::now() - executed >= Duration::from_millis(5));
        assert_eq!(super::executed(), executed);
    }
}
