//! A server from its start to its end: threads on wires of the kernel's, or an engine; and what it took.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use pmd::{Clock, Instant};

use crate::Trouble;
use crate::args::{ServeArgs, Workload};
use crate::figures::{Dropped, Machine, Served};
use crate::meter::{self, Ticks, process_cpu};
use crate::stop::Stop;
use crate::wire::{self, Bind, Wire};
use crate::{rx, udp};

/// Turns from one look at the flag that ends it all to the next.
pub const TURNS: usize = 64;
/// So often it is looked at what was served.
const SAMPLE: Duration = Duration::from_millis(10);
/// So often what the machine did.
const TICKS_EVERY: Duration = Duration::from_millis(100);

/// What one thread has done: it alone writes, and others look.
#[derive(Debug, Default)]
pub struct Counts {
    served: AtomicU64,
    failed: AtomicU64,
    stop: Stop,
}

impl Counts {
    /// Of a thread that ends with this flag.
    pub fn new(stop: Stop) -> Counts {
        Counts { stop, ..Counts::default() }
    }

    /// So many more went well.
    pub fn served(&self, count: u64) {
        self.served.store(self.served.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// So many more did not.
    pub fn failed(&self, count: u64) {
        self.failed.store(self.failed.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// Whether it shall end.
    pub fn stopped(&self) -> bool {
        self.stop.is_set()
    }
}

/// What serves.
pub trait Server {
    /// How many were served, and how many not.
    fn counts(&self) -> (u64, u64);
    /// How many each thread served, where that is known.
    fn by_thread(&self) -> Vec<u64> {
        Vec::new()
    }
    /// Whether it can go on.
    fn lives(&self) -> bool;
    /// Ends it: what was lost, by name, and what leaked.
    fn end(self: Box<Self>) -> Result<(Vec<Dropped>, Vec<String>), Trouble>;
}

/// The time in which requests came, seen in samples.
struct Busy {
    served: u64,
    /// At the last sample before the first request.
    before: (Instant, Duration, Ticks),
    /// At the last one that saw a new one.
    last: (Instant, Duration),
    /// The machine's, read less often because it takes longer.
    ticks: (Instant, Ticks),
}

impl Busy {
    fn begin() -> Busy {
        let now = Clock::now();
        let (cpu, ticks) = (process_cpu(), Ticks::read(now));
        Busy { served: 0, before: (now, cpu, ticks.clone()), last: (now, cpu), ticks: (now, ticks) }
    }

    fn sample(&mut self, served: u64) {
        if served == 0 {
            *self = Busy::begin();
        } else if served != self.served {
            let now = Clock::now();
            (self.served, self.last) = (served, (now, process_cpu()));
            if now - self.ticks.0 >= TICKS_EVERY {
                self.ticks = (now, Ticks::read(now));
            }
        }
    }

    /// How long, the process's CPU time, and the machine's.
    fn figures(&self, cpus: &[usize]) -> (f64, f64, Machine) {
        let (from, cpu_before, ticks) = &self.before;
        let cpu = self.last.1.saturating_sub(*cpu_before).as_secs_f64();
        ((self.last.0 - *from).as_secs_f64(), cpu, self.ticks.1.since(ticks, cpus))
    }
}

/// Watches a server until it shall stop, and ends it.
pub fn watch(
    server: Box<dyn Server>,
    args: &ServeArgs,
    ready: Instant,
    stop: &Stop,
) -> Result<Served, Trouble> {
    let mut busy = Busy::begin();
    while !stop.is_set() && server.lives() {
        thread::sleep(SAMPLE);
        busy.sample(server.counts().0);
    }
    stop.set();
    busy.sample(server.counts().0);
    let ((served, failed), served_by_thread) = (server.counts(), server.by_thread());
    let (seconds, cpu_seconds, machine) = busy.figures(&args.cpus);
    let (drops, leaks) = server.end()?;
    Ok(Served {
        workload: args.workload,
        arm: args.arm.to_string(),
        wait: args.wait,
        cpus: args.cpus.clone(),
        served,
        served_by_thread,
        failed,
        seconds,
        cpu_seconds,
        cpu_seconds_per_million_calls: meter::per_million(cpu_seconds, served),
        machine,
        ready_seconds: (ready - meter::executed()).as_secs_f64(),
        drops,
        leaks,
    })
}

/// Threads on sockets of the kernel's.
pub struct Threads {
    threads: Vec<thread::JoinHandle<Result<u64, Trouble>>>,
    counts: Vec<Arc<Counts>>,
}

impl Threads {
    /// Starts a thread on each CPU, each with a socket of its own. They answer when this returns.
    pub fn start(args: &ServeArgs, stop: &Stop) -> Result<Threads, Trouble> {
        let local = wire::address(&args.address, args.udp_port)?.0;
        let (mut threads, mut counts) = (Vec::new(), Vec::new());
        for &cpu in &args.cpus {
            let of_thread = Arc::new(Counts::new(stop.clone()));
            counts.push(of_thread.clone());
            let (opened, is_open) = sync_channel(1);
            let (arm, wait, workload) = (args.arm.clone(), args.wait, args.workload);
            let run = move || {
                let buffers = if workload == Workload::Rx { rx::BUFFERS } else { udp::BUFFERS };
                let bind = Bind { arm: &arm, local, peer: None, wait, buffers, flows: 1 };
                let wire = pin(cpu).and_then(|()| wire::open(&bind));
                let (wire, trouble) = match wire {
                    Ok(wire) => (Some(wire), None),
                    Err(trouble) => (None, Some(trouble)),
                };
                // Whoever started us waits for this.
                let _ = opened.send(trouble);
                wire.map_or(Ok(0), |wire| serve(workload, wire, &of_thread))
            };
            threads.push(thread::spawn(run));
            match is_open.recv() {
                Ok(None) => {}
                Ok(Some(trouble)) => {
                    stop.set();
                    threads.into_iter().for_each(|thread| drop(thread.join()));
                    return Err(trouble);
                }
                Err(_) => return Err(Trouble::Failed("a serving thread panicked".into())),
            }
        }
        Ok(Threads { threads, counts })
    }
}

/// Serves to the end; how many datagrams the kernel dropped because the socket was full.
fn serve(workload: Workload, mut wire: Box<dyn Wire>, counts: &Counts) -> Result<u64, Trouble> {
    match workload {
        Workload::Udp => udp::echo(&mut *wire, counts).map(|()| wire.end().dropped()),
        Workload::Rx => rx::serve(wire, counts),
    }
}

impl Server for Threads {
    fn counts(&self) -> (u64, u64) {
        let sum = |of: fn(&Counts) -> &AtomicU64| {
            self.counts.iter().map(|counts| of(counts).load(Ordering::Relaxed)).sum()
        };
        (sum(|counts| &counts.served), sum(|counts| &counts.failed))
    }

    fn by_thread(&self) -> Vec<u64> {
        self.counts.iter().map(|counts| counts.served.load(Ordering::Relaxed)).collect()
    }

    fn lives(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    fn end(self: Box<Self>) -> Result<(Vec<Dropped>, Vec<String>), Trouble> {
        let mut packets = 0;
        for thread in self.threads {
            packets += thread.join().map_err(|_| Trouble::Failed("a serving thread panicked".into()))??;
        }
        let drops = (packets > 0).then(|| Dropped { reason: "socket_full".into(), packets });
        Ok((drops.into_iter().collect(), Vec::new()))
    }
}

/// Keeps the calling thread on a CPU.
pub fn pin(cpu: usize) -> Result<(), Trouble> {
    usable(cpu)?;
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
    Ok(())
}

/// Whether this thread may use a CPU.
pub fn usable(cpu: usize) -> Result<(), Trouble> {
    let usable = core_affinity::get_core_ids().unwrap_or_default();
    if usable.iter().any(|usable| usable.id == cpu) {
        return Ok(());
    }
    let usable: Vec<String> = usable.iter().map(|usable| usable.id.to_string()).collect();
    Err(Trouble::Machine(format!("this process may not use CPU {cpu}, only {}: taskset", usable.join(","))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_is_not_there_is_named() {
        assert!(pin(1 << 20).unwrap_err().to_string().contains("CPU 1048576"));
    }
}
