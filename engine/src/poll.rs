//! Polling threads: one per CPU and process, shared by every core that names that CPU, whatever its engine.
//!
//! So there are never more polling threads than CPUs that the process may use. A thread is pinned, lives as long as it has
//! cores, and idles as its cores allow. A core that panics is ended by itself; its neighbours run on.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use arrayvec::ArrayVec;
use pmd::{Clock, CoreSlot, Instant};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::idle::{self, Idle, Step};
use crate::ring::Bell;

/// File descriptors that a thread can sleep on; with more it naps.
const FDS_MAX: usize = 128;
/// What a thread sleeps on.
#[derive(Default)]
pub(crate) struct Fds<'a>(ArrayVec<PollFd<'a>, FDS_MAX>);

impl<'a> Fds<'a> {
    pub fn push(&mut self, fd: BorrowedFd<'a>) -> bool {
        self.0.try_push(PollFd::from_borrowed_fd(fd, PollFlags::IN)).is_ok()
    }
}

/// A core, as its polling thread sees it.
pub(crate) trait Turn {
    /// One turn of the loop. Tells whether there was anything to do.
    fn turn(&mut self) -> bool;
    /// Whether it has ended.
    fn is_done(&self) -> bool;
    fn idle(&self) -> Idle;
    /// Goes offline and announces that it sleeps; when it wants to be woken at the latest. `None`: there is work after all.
    fn prepare_sleep(&mut self) -> Option<Instant>;
    /// What wakes it; false: not everything found room.
    fn fds<'a>(&'a self, fds: &mut Fds<'a>) -> bool;
    /// The opposite of `prepare_sleep`.
    fn wake(&mut self, slept: bool);
}

/// Builds a core on its thread.
pub(crate) type Seed = Box<dyn FnOnce() -> Box<dyn Turn> + Send>;

/// How a core ended: in order, or with this panic message.
pub(crate) type Exit = Result<(), String>;

struct Newcomer {
    seed: Seed,
    exit: Sender<Exit>,
}

struct Resident {
    core: Box<dyn Turn>,
    exit: Sender<Exit>,
}

struct PollThread {
    incoming: Mutex<Vec<Newcomer>>,
    has_incoming: AtomicBool,
    bell: Bell,
}

/// The polling threads of this process, by CPU.
static THREADS: Mutex<Option<HashMap<usize, Arc<PollThread>>>> = Mutex::new(None);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a core on `cpu`'s polling thread, which is started if there is none. `exit` hears how it ends.
pub(crate) fn run_on(cpu: usize, seed: Seed, exit: Sender<Exit>) -> io::Result<()> {
    let mut threads = lock(&THREADS);
    let threads = threads.get_or_insert_default();
    let newcomer = Newcomer { seed, exit };
    if let Some(thread) = threads.get(&cpu) {
        lock(&thread.incoming).push(newcomer);
        thread.has_incoming.store(true, Ordering::Release);
        thread.bell.ring();
        return Ok(());
    }
    let thread = PollThread {
        incoming: Mutex::new(vec![newcomer]),
        has_incoming: AtomicBool::new(true),
        bell: Bell::new()?,
    };
    let thread = Arc::new(thread);
    let shared = thread.clone();
    thread::Builder::new().name(format!("poll-{cpu}")).spawn(move || poll_thread(cpu, &shared))?;
    threads.insert(cpu, thread);
    Ok(())
}

/// Not inlined, so that profiles name it.
#[inline(never)]
fn poll_thread(cpu: usize, shared: &PollThread) {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
    // Without a slot (64 polling threads already) buffers go home by a slower way, and everything else works.
    let _slot = CoreSlot::register();
    let mut cores: Vec<Resident> = Vec::new();
    let mut idle_turns = 0u32;
    loop {
        if shared.has_incoming.swap(false, Ordering::Acquire) {
            move_in(&mut cores, shared);
        }
        if cores.is_empty() && leave(cpu, shared) {
            return;
        }
        if turn_all(&mut cores) {
            idle_turns = 0;
            continue;
        }
        idle_turns = idle_turns.saturating_add(1);
        let step = cores.iter().map(|resident| resident.core.idle().step(idle_turns)).min();
        match step.unwrap_or(Step::Poll) {
            Step::Poll => std::hint::spin_loop(),
            Step::Pause(paused) => idle::pause(paused),
            Step::Sleep => sleep(&mut cores, shared),
        }
    }
}

/// One turn of each core. Tells whether any had something to do. Cores that end leave.
fn turn_all(cores: &mut Vec<Resident>) -> bool {
    let mut busy = false;
    let mut ended = false;
    for resident in cores.iter_mut() {
        match catch_unwind(AssertUnwindSafe(|| resident.core.turn())) {
            Ok(worked) => busy |= worked,
            Err(panic) => {
                let _ = resident.exit.send(Err(message(&*panic)));
                ended = true;
                end(resident);
            }
        }
        ended |= resident.core.is_done();
    }
    if ended {
        cores.retain_mut(|resident| {
            let done = resident.core.is_done();
            if done {
                // Its buffers go home here, on its own thread, before anybody hears that it has ended.
                end(resident);
                let _ = resident.exit.send(Ok(()));
            }
            !done
        });
    }
    busy || ended
}

/// Drops a core. Should that panic as well, the thread still lives for the others.
fn end(resident: &mut Resident) {
    let core = std::mem::replace(&mut resident.core, Box::new(Gone));
    let _ = catch_unwind(AssertUnwindSafe(|| drop(core)));
}

fn move_in(cores: &mut Vec<Resident>, shared: &PollThread) {
    let newcomers = std::mem::take(&mut *lock(&shared.incoming));
    for Newcomer { seed, exit } in newcomers {
        match catch_unwind(AssertUnwindSafe(seed)) {
            Ok(core) => cores.push(Resident { core, exit }),
            Err(panic) => {
                let _ = exit.send(Err(message(&*panic)));
            }
        }
    }
}

/// Ends the thread unless a core has just moved in.
fn leave(cpu: usize, shared: &PollThread) -> bool {
    let mut threads = lock(&THREADS);
    if shared.has_incoming.load(Ordering::Acquire) {
        return false;
    }
    if let Some(threads) = &mut *threads {
        threads.remove(&cpu);
    }
    true
}

/// Blocks until a device, an inbox or a timer has something, unless something came meanwhile.
fn sleep(cores: &mut [Resident], shared: &PollThread) {
    shared.bell.prepare();
    let mut until =
        if shared.has_incoming.load(Ordering::Acquire) { None } else { Some(Instant::FAR_FUTURE) };
    for resident in cores.iter_mut() {
        // Every core is prepared, so that each can be woken below.
        let wanted = resident.core.prepare_sleep();
        until = until.zip(wanted).map(|(a, b)| a.min(b));
    }
    if let Some(until) = until {
        let mut fds = Fds::default();
        fds.push(shared.bell.fd());
        let complete = cores.iter().all(|resident| resident.core.fds(&mut fds));
        let left = until - Clock::now();
        let left = if complete { left } else { left.min(std::time::Duration::from_millis(1)) };
        let timeout =
            Timespec { tv_sec: left.as_secs().min(3600) as i64, tv_nsec: left.subsec_nanos().into() };
        // Whatever ends it (an event, the time, a signal), the next turn looks at everything.
        let _ = poll(&mut fds.0, Some(&timeout));
    }
    for resident in cores.iter_mut() {
        resident.core.wake(until.is_some());
    }
    shared.bell.silence();
}

/// What is left of a core that has ended.
struct Gone;

impl Turn for Gone {
    fn turn(&mut self) -> bool {
        false
    }
    fn is_done(&self) -> bool {
        true
    }
    fn idle(&self) -> Idle {
        Idle::Spin
    }
    fn prepare_sleep(&mut self) -> Option<Instant> {
        None
    }
    fn fds<'a>(&'a self, _fds: &mut Fds<'a>) -> bool {
        true
    }
    fn wake(&mut self, _slept: bool) {}
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}
