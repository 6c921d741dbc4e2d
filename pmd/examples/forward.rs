//! Forwards frames between ports of any kind, or sends them back where they came from: the smallest packet program there is, and the
//! one that the lab runs in guests and beside DPDK's testpmd.
//!
//! ```text
//! cargo run --release -p pmd --example forward -- af_packet:eth0               # every frame back, with its addresses swapped
//! cargo run --release -p pmd --example forward -- igb:0000:01:00.0 --queues 4 --idle sleep
//! cargo run --release -p pmd --example forward -- null:rx=60 --mode io --seconds 5 --json
//! cargo run --release -p pmd --example forward -- memif:/run/a.sock memif:/run/b.sock,role=slave
//! ```
//!
//! One thread for each queue, pinned when `--cpus` names CPUs. What a device cannot take at once waits, so that nothing is lost here.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant as Wall};

use clap::{Parser, ValueEnum};
use pmd::{
    BURST, Burst, Checksum, Clock, CoreSlot, LinkState, Mbuf, OpenOptions, Pool, PoolConfig, PoolHandle,
    Port, Queue,
};
use pmd::{PoolSeed, QueueStats};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde_json::{Value, json};

/// Forward frames between two ports, or back out of one.
#[derive(Parser)]
struct Args {
    /// One port, two, or several pairs of them, by URL
    #[arg(required = true)]
    ports: Vec<String>,
    /// What is done to each frame
    #[arg(long, value_enum, default_value_t = Mode::Macswap)]
    mode: Mode,
    /// Queues of each port, and threads
    #[arg(long, default_value_t = 1)]
    queues: usize,
    /// CPUs to pin the threads to, in turn
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// What a thread does when nothing comes
    #[arg(long, value_enum, default_value_t = Idle::Spin)]
    idle: Idle,
    /// Buffers of each thread's pool
    #[arg(long, default_value_t = 8192)]
    buffers: usize,
    /// Send so many frames first, for ports that give back what they are given
    #[arg(long, default_value_t = 0)]
    inject: usize,
    /// Bytes of an injected frame
    #[arg(long, default_value_t = 60)]
    len: usize,
    /// End after so many seconds; else with SIGINT or SIGTERM
    #[arg(long)]
    seconds: Option<f64>,
    /// End with a report as one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    /// Nothing: the frame is not even looked at
    Io,
    /// Source and destination address change places
    Macswap,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Idle {
    /// Poll on
    Spin,
    /// Block in the device's file descriptor
    Sleep,
}

/// Turns from one look at the clock to the next, and to the flag that ends it all.
const TURNS: usize = 32;
/// Idle turns before a thread sleeps.
const SPINS: usize = 1000;

/// One thread's work: queue i of every port.
struct Worker {
    queues: Vec<Box<dyn Queue>>,
    /// What the port behind has not taken yet.
    waiting: Vec<Burst>,
    mode: Mode,
    counts: Counts,
}

/// Where frames of port `from` go: to the other one of its pair, or back.
fn other(from: usize, ports: usize) -> usize {
    if ports == 1 { 0 } else { from ^ 1 }
}

#[derive(Default)]
struct Counts {
    /// By `Checksum`.
    checksums: [u64; 4],
    vlans: u64,
    sleeps: u64,
}

impl Worker {
    /// Polls every queue once; how many frames came.
    fn turn(&mut self, now: pmd::Instant, pool: &mut Pool) -> usize {
        let mut came = 0;
        for from in 0..self.queues.len() {
            let to = other(from, self.queues.len());
            let burst = &mut self.waiting[from];
            if burst.is_empty() {
                came += self.queues[from].rx_burst(now, pool, burst);
                if self.mode == Mode::Macswap {
                    for mbuf in burst.iter_mut() {
                        self.counts.look_at(mbuf);
                        swap_addresses(mbuf.data_mut());
                    }
                }
            }
            self.queues[to].tx_burst(now, burst);
        }
        came
    }

    fn inject(&mut self, frames: usize, len: usize, pool: &mut Pool) {
        let frame = [0x02; 2048];
        let mut left = frames;
        while left > 0 {
            let mut burst: Burst =
                (0..left.min(BURST)).filter_map(|_| pool.copy_from(&frame[..len.min(2048)])).collect();
            if self.queues[0].tx_burst(Clock::now(), &mut burst) == 0 {
                return;
            }
            left -= left.min(BURST) - burst.len();
        }
    }

    /// Blocks until a device has something, for at most a tenth of a second.
    fn sleep(&mut self) {
        let armed = self.queues.iter_mut().all(|queue| queue.arm());
        let mut fds: Vec<_> = self.queues.iter().filter_map(|queue| queue.wait_fd()).collect::<Vec<_>>();
        if armed && fds.len() == self.queues.len() {
            let mut polled: Vec<_> =
                fds.drain(..).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            // Whatever ends it, the next turn looks at everything.
            let _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 }));
            self.counts.sleeps += 1;
        }
        self.queues.iter_mut().for_each(|queue| queue.disarm());
    }

    fn run(&mut self, pool: &mut Pool, idle: Idle, stop: &AtomicBool) {
        let mut quiet = 0;
        while !stop.load(Ordering::Relaxed) {
            let now = Clock::now();
            let came: usize = (0..TURNS).map(|_| self.turn(now, pool)).sum();
            quiet = if came > 0 { 0 } else { quiet + TURNS };
            let waits = self.waiting.iter().any(|burst| !burst.is_empty());
            if idle == Idle::Sleep && quiet > SPINS && !waits {
                self.sleep();
            }
        }
    }
}

impl Counts {
    fn look_at(&mut self, mbuf: &Mbuf) {
        let which = match mbuf.meta().checksum {
            Checksum::Unknown => 0,
            Checksum::Good => 1,
            Checksum::Bad => 2,
            Checksum::Partial => 3,
        };
        self.checksums[which] += 1;
        self.vlans += u64::from(mbuf.meta().vlan.is_some());
    }
}

fn swap_addresses(frame: &mut [u8]) {
    if let Some((to, rest)) = frame.split_first_chunk_mut::<6>()
        && let Some(from) = rest.first_chunk_mut::<6>()
    {
        std::mem::swap(to, from);
    }
}

fn main() -> ExitCode {
    match forward(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forward: {error}");
            ExitCode::FAILURE
        }
    }
}

fn forward(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, signalled.clone())?;
    }
    if args.ports.len() > 1 && args.ports.len() % 2 == 1 {
        return Err(format!("{} ports are no pairs: name one, or an even number", args.ports.len()).into());
    }
    let (ports, seeds, queues) = open(&args)?;
    let pools: Vec<_> = seeds.iter().map(PoolSeed::handle).collect();
    for port in &ports {
        let info = port.info();
        eprintln!("{}: {}, MTU {}, link {:?}", info.url, info.mac, info.mtu, port.link());
        info.notes.iter().for_each(|note| eprintln!("  {note}"));
    }
    let (stop, asleep) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Barrier::new(args.queues + 1);
    let (told, watched) = std::thread::scope(|scope| {
        let start = |(index, (seed, queues)): (usize, (PoolSeed, Vec<Box<dyn Queue>>))| {
            let (args, stop, asleep, started) = (&args, &stop, &asleep, &started);
            scope.spawn(move || {
                if !args.cpus.is_empty() {
                    let id = args.cpus[index % args.cpus.len()];
                    core_affinity::set_for_current(core_affinity::CoreId { id });
                }
                let _slot = CoreSlot::register();
                let mut pool = seed.claim();
                let waiting = queues.iter().map(|_| Burst::new()).collect();
                let mut worker = Worker { queues, waiting, mode: args.mode, counts: Counts::default() };
                worker.inject(args.inject, args.len, &mut pool);
                // The first turn gives the device its buffers.
                worker.turn(Clock::now(), &mut pool);
                started.wait();
                worker.run(&mut pool, args.idle, stop);
                asleep.fetch_add(worker.counts.sleeps, Ordering::Relaxed);
                let stats: Vec<_> = worker.queues.iter().map(|queue| told(&queue.stats())).collect();
                worker.queues.clear();
                worker.waiting.clear();
                let [unknown, good, bad, partial] = worker.counts.checksums;
                json!({"ports": stats, "sleeps": worker.counts.sleeps, "vlans": worker.counts.vlans,
                       "checksums": {"unknown": unknown, "good": good, "bad": bad, "partial": partial}})
            })
        };
        let threads: Vec<_> = seeds.into_iter().zip(queues).enumerate().map(start).collect();
        started.wait();
        eprintln!("ready");
        let watched = watch(&args, &ports, &signalled);
        stop.store(true, Ordering::Relaxed);
        let told: Vec<Value> =
            threads.into_iter().map(|thread| thread.join().expect("a worker does not panic")).collect();
        (told, watched)
    });
    report(&args, ports, &pools, &watched, told, asleep.into_inner());
    Ok(())
}

type Opened = (Vec<Box<dyn Port>>, Vec<PoolSeed>, Vec<Vec<Box<dyn Queue>>>);

fn open(args: &Args) -> Result<Opened, Box<dyn std::error::Error>> {
    let options = OpenOptions { queues: args.queues, ..OpenOptions::default() };
    let mut ports = Vec::new();
    let mut memory = Vec::new();
    for url in &args.ports {
        let mut port = pmd::open(url, &options)?;
        memory.extend(port.memory());
        ports.push(port);
    }
    let mut memory = memory.into_iter();
    let pool = |index| {
        let mut config = PoolConfig::new(format!("forward {index}"), args.buffers);
        match memory.next() {
            Some(region) => {
                config.buffers = region.len() / pmd::STRIDE;
                config.build_on(region)
            }
            None => config.build(),
        }
    };
    let seeds: Vec<PoolSeed> = (0..args.queues).map(pool).collect::<Result<_, _>>()?;
    let handles: Vec<_> = seeds.iter().map(PoolSeed::handle).collect();
    let mut queues: Vec<Vec<_>> = seeds.iter().map(|_| Vec::new()).collect();
    for port in &mut ports {
        for (queue, of_thread) in port.open_queues(&handles)?.into_iter().zip(&mut queues) {
            of_thread.push(queue);
        }
    }
    let until = Wall::now() + Duration::from_secs(10);
    while ports.iter().any(|port| port.link() == LinkState::Down) && Wall::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok((ports, seeds, queues))
}

/// What was seen while it ran.
struct Watched {
    /// Of each second, received, in millions of frames.
    rates: Vec<f64>,
    /// Which links were up at the end, before the queues were dropped: some devices stop with them.
    links: Vec<bool>,
    seconds: f64,
}

/// Until the end: what was received in each second, in millions of frames.
fn watch(args: &Args, ports: &[Box<dyn Port>], stop: &AtomicBool) -> Watched {
    let begun = Wall::now();
    let received = || ports.iter().map(|port| port.stats().rx_frames).sum::<u64>();
    let (mut rates, mut last, mut since) = (Vec::new(), received(), begun);
    while !stop.load(Ordering::Relaxed) {
        let left = args.seconds.map_or(1.0, |seconds| seconds - begun.elapsed().as_secs_f64());
        if left <= 0.0 {
            break;
        }
        std::thread::sleep(Duration::from_secs_f64(left.min(0.05)));
        let elapsed = since.elapsed();
        if elapsed >= Duration::from_secs(1) {
            let now = received();
            rates.push((now - last) as f64 / elapsed.as_secs_f64() / 1e6);
            eprintln!("{:.3} Mpps", rates[rates.len() - 1]);
            (last, since) = (now, Wall::now());
        }
    }
    let links = ports.iter().map(|port| port.link() == LinkState::Up).collect();
    Watched { rates, links, seconds: begun.elapsed().as_secs_f64() }
}

fn report(
    args: &Args,
    ports: Vec<Box<dyn Port>>,
    pools: &[PoolHandle],
    Watched { rates, links, seconds }: &Watched,
    queues: Vec<Value>,
    sleeps: u64,
) {
    // The first second covers the start.
    let mut counted = rates.get(1..).unwrap_or_default().to_vec();
    counted.sort_by(f64::total_cmp);
    let mpps = counted.get(counted.len() / 2).copied().unwrap_or(0.0);
    let stats: Vec<Value> = ports.iter().map(|port| told(&port.stats())).collect();
    let frames: u64 = ports.iter().map(|port| port.stats().rx_frames).sum();
    let rss: Vec<_> = ports.iter().map(|port| port.rss().map(chosen)).collect();
    // A device may keep buffers until it is closed, because only then it writes to them no more.
    drop(ports);
    let out: usize = pools.iter().map(PoolHandle::in_use).sum();
    if args.json {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        println!(
            "{}",
            json!({"name": "forward", "mpps": mpps, "rates_mpps": rates, "frames": frames, "seconds": seconds,
                   "cpu_seconds": cpu_seconds, "sleeps": sleeps, "up": links, "rss": rss, "buffers_out": out,
                   "ports": stats, "queues": queues})
        );
    } else {
        println!(
            "{frames} frames in {seconds:.1} s; {mpps:.3} Mpps in the middle of {} seconds",
            counted.len()
        );
        stats.iter().zip(&args.ports).for_each(|(stats, url)| println!("{url}: {stats}"));
    }
}

/// How a port chooses a queue.
fn chosen(rss: pmd::Rss) -> Value {
    json!({"key": rss.key.to_vec(), "table": rss.table, "udp_ports": rss.udp_ports})
}

fn told(stats: &QueueStats) -> Value {
    let drops: serde_json::Map<_, _> =
        stats.drops.iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name.to_owned(), n.into())).collect();
    json!({"rx_frames": stats.rx_frames, "rx_bytes": stats.rx_bytes, "tx_frames": stats.tx_frames,
           "tx_bytes": stats.tx_bytes, "rx_no_buffer": stats.rx_no_buffer, "tx_full": stats.tx_full,
           "tx_copied": stats.tx_copied, "drops": drops})
}
