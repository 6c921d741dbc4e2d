//! The process's one domain: who reads, what waits to be freed, and how long that takes.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{hint, thread};

use crossbeam_utils::CachePadded;
use pmd::Clock;

use super::grace::Epoch;
use super::histogram::{Histogram, Latency};
use super::member::Members;
use super::reclaim::Reclaim;
use super::stall::{PastStalls, Stall, Watch};

/// A waiting thread spins at first: a core's turn takes less than a microsecond when there is nothing to do, and seldom more than ten.
const SPINS: u32 = 1000;
/// Then it yields until it has waited this long, because the core it waits for may need this CPU; and then it sleeps between looks.
const YIELD_UNTIL: Duration = Duration::from_micros(200);
const NAP: Duration = Duration::from_micros(100);

pub(super) static DOMAIN: LazyLock<Domain> = LazyLock::new(|| {
    let reclaimer = thread::Builder::new().name("rcu".into()).spawn(|| DOMAIN.reclaim.run(&DOMAIN));
    let reclaimer = reclaimer.expect("the system can start one more thread");
    Domain {
        epoch: CachePadded::new(Epoch::new()),
        members: Members::default(),
        reclaim: Reclaim::new(reclaimer.thread().clone()),
        watch: Watch::new(),
        synchronized: Histogram::new(),
        waiting: AtomicUsize::new(0),
    }
});

pub(super) struct Domain {
    /// Every core reads it every turn; written when a grace period begins.
    pub epoch: CachePadded<Epoch>,
    pub members: Members,
    pub reclaim: Reclaim,
    pub watch: Watch,
    pub synchronized: Histogram,
    /// Threads in [`Domain::grace_period`].
    waiting: AtomicUsize,
}

/// What is known of the domain.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Bytes retired and not yet freed.
    pub retired_bytes: usize,
    /// The most that there ever were: looked at whenever a writer retires, and whenever the reclaimer takes what cores retired.
    pub retired_bytes_max: usize,
    /// What they are limited to.
    pub cap_bytes: usize,
    /// Objects retired and not yet freed, as far as the reclaimer has heard of them.
    pub retired: u64,
    /// Objects freed, ever.
    pub freed: u64,
    /// Readers that are online now: cores, and threads that hold a pin.
    pub online: usize,
    /// Threads that wait for a grace period now.
    pub waiting: usize,
    /// How long [`synchronize`](super::synchronize) took.
    pub synchronize: Latency,
    /// From the retirement of an object until it was freed.
    pub reclaim: Latency,
    /// Readers that hold up a grace period for longer than the threshold right now.
    pub stalls: Vec<Stall>,
    /// Those that did, the latest last.
    pub past_stalls: Vec<PastStalls>,
}

impl Domain {
    /// Waits until every read section that began before has ended. Tells how long that took.
    pub fn grace_period(&self) -> Duration {
        let began = Clock::now();
        let target = self.epoch.advance();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut looked = false;
        let mut spins = 0;
        for member in self.members.iter() {
            while !member.progress().has_passed(target) {
                if spins < SPINS {
                    spins += 1;
                    hint::spin_loop();
                } else if Clock::now() - began < YIELD_UNTIL {
                    thread::yield_now();
                } else {
                    looked = true;
                    self.watch.look(&self.members, target, began);
                    thread::sleep(NAP);
                }
            }
        }
        if looked {
            self.watch.look(&self.members, target, began);
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Clock::now() - began
    }

    pub fn stats(&self) -> Stats {
        Stats {
            retired_bytes: self.reclaim.retired_bytes(),
            retired_bytes_max: self.reclaim.most_bytes(),
            cap_bytes: self.reclaim.cap_bytes(),
            retired: self.reclaim.waiting(),
            freed: self.reclaim.freed(),
            online: self.members.iter().filter(|member| member.progress().is_online()).count(),
            waiting: self.waiting.load(Ordering::Relaxed),
            synchronize: self.synchronized.latency(),
            reclaim: self.reclaim.latency(),
            stalls: self.watch.current(),
            past_stalls: self.watch.past(),
        }
    }
}
