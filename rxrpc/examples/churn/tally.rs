//! What was done, how long sleepers slept, and what failed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rxrpc::engine::rcu;

/// A sleeper that sleeps on for so long after its message has lost its wake-up.
pub const LOST_AFTER: Duration = Duration::from_secs(1);

/// The most that the histogram tells.
const LONGEST_NANOS: u64 = 60_000_000_000;

/// See the module. All threads share one.
pub struct Tally {
    pub binds: AtomicU64,
    pub closes: AtomicU64,
    pub accepts: AtomicU64,
    pub aborts: AtomicU64,
    /// Messages to sleepers that the flood pushed out.
    pub missed: AtomicU64,
    received: Mutex<(u64, u64)>,
    slept: Mutex<Histogram<u64>>,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    pub fn new() -> Self {
        Tally {
            binds: AtomicU64::new(0),
            closes: AtomicU64::new(0),
            accepts: AtomicU64::new(0),
            aborts: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            received: Mutex::default(),
            slept: Mutex::new(Histogram::new_with_bounds(1, LONGEST_NANOS, 3).expect("sound bounds")),
            failures: Mutex::default(),
        }
    }

    /// One more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub fn operations(&self) -> u64 {
        [&self.binds, &self.closes, &self.accepts, &self.aborts]
            .map(|n| n.load(Ordering::Relaxed))
            .iter()
            .sum()
    }

    pub fn fail(&self, what: String) {
        lock(&self.failures).push(what);
    }

    pub fn failures(&self) -> Vec<String> {
        lock(&self.failures).clone()
    }

    /// A sleeper was woken so long after its message.
    pub fn woken(&self, whom: &str, after: Duration) {
        lock(&self.slept).saturating_record(after.as_nanos() as u64);
        if after > LOST_AFTER {
            self.fail(format!("{whom} slept on for {after:?} after its message"));
        }
    }

    /// Datagrams and packets of calls that were received.
    pub fn received(&self, datagrams: u64, packets: u64) {
        *lock(&self.received) = (datagrams, packets);
    }

    /// Looks at what is retired: the most ever, and just now.
    pub fn look_at_retired(&self, cap: usize) {
        let retired = rcu::stats().retired_bytes_max.max(rcu::retired_bytes());
        if retired > cap {
            self.fail(format!("{retired} bytes were retired at once, of {cap} allowed"));
        }
    }

    pub fn summary(&self, elapsed: Duration) -> String {
        let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [p50, p99, max] = self.slept_us();
        let (datagrams, packets) = *lock(&self.received);
        let received = if datagrams + packets > 0 {
            format!("; received {datagrams} datagrams and {packets} packets of calls")
        } else {
            String::new()
        };
        format!(
            "{:.0} s: {} binds, {} closes, {} accepts, {} aborts; {} sleepers woken after p50 {p50} us, p99 {p99} us, max {max} us; \
             at most {} bytes retired{received}",
            elapsed.as_secs_f64(),
            n(&self.binds),
            n(&self.closes),
            n(&self.accepts),
            n(&self.aborts),
            lock(&self.slept).len(),
            rcu::stats().retired_bytes_max,
        )
    }

    pub fn json(&self, seed: u64, elapsed: Duration) -> String {
        let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [p50, p99, max] = self.slept_us();
        let (datagrams, packets) = *lock(&self.received);
        format!(
            r#"{{"seed":{seed},"seconds":{:.1},"binds":{},"closes":{},"accepts":{},"aborts":{},"sleepers_woken":{},"wake_us_p50":{p50},"wake_us_p99":{p99},"wake_us_max":{max},"messages_missed":{},"retired_bytes_max":{},"freed":{},"datagrams":{datagrams},"call_packets":{packets},"failures":{}}}"#,
            elapsed.as_secs_f64(),
            n(&self.binds),
            n(&self.closes),
            n(&self.accepts),
            n(&self.aborts),
            lock(&self.slept).len(),
            n(&self.missed),
            rcu::stats().retired_bytes_max,
            rcu::stats().freed,
            self.failures().len(),
        )
    }

    fn slept_us(&self) -> [u64; 3] {
        let slept = lock(&self.slept);
        [slept.value_at_quantile(0.5), slept.value_at_quantile(0.99), slept.max()].map(|nanos| nanos / 1_000)
    }
}

/// Whether `condition` comes true in time.
pub fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    while !condition() {
        if Instant::now() > until {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
