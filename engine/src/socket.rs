//! Sockets: an address that is bound, its wait queue, and one receive queue per core.
//!
//! A core finds a socket in its table under its read guard, pushes datagrams on its own queue of that socket, and wakes whoever
//! waits once per burst. A reader takes whole lists of buffers from the cores' mailboxes, under the socket's reader lock.
//! What readers have not taken counts against a budget of the socket and one of the core.
//!
//! A queue costs its header and no memory of its own: datagrams wait linked through their buffers.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};

use crossbeam_utils::CachePadded;
use pmd::{Mbuf, MbufList, STRIDE};

use crate::rcu::{RcuCell, ReadGuard};
use crate::ring::Mailbox;
use crate::stack::NetError;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering, UnsafeCell};
use crate::table::{Key, Quiesced};
use crate::wq::{Barrier, Event, SocketWq};

/// Names a socket for as long as the engine runs; resolved under a read guard, where "gone" is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SocketId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A bound socket, as cores and handles share it.
pub struct Socket {
    id: SocketId,
    engine: u64,
    key: Key,
    cookie: u64,
    /// Null once orphaned.
    wq: RcuCell<SocketWq>,
    closed: AtomicBool,
    /// What the network last said about datagrams sent from here.
    error: Mutex<Option<(SocketAddr, NetError)>>,
    has_error: AtomicBool,
    queues: Box<[CachePadded<SocketQueue>]>,
    /// Bytes of buffers that may wait on one core's queue.
    queue_budget: u64,
    reader: Mutex<ReaderSide>,
}

/// What the reader lock protects: the list taken last, and where to look next.
#[derive(Default)]
struct ReaderSide {
    list: MbufList,
    /// The core whose queue `list` came from.
    from: usize,
    next: usize,
}

/// One core's queue of one socket.
#[derive(Default)]
struct SocketQueue {
    mailbox: Mailbox<MbufList>,
    /// The core holds more than the mailbox does, and waits to be asked for it.
    more: AtomicBool,
    core: UnsafeCell<CoreSide>,
    /// Bytes of buffers ever pushed (written by the core) and taken (written under the reader lock).
    pushed: AtomicU64,
    taken: AtomicU64,
}

#[derive(Default)]
struct CoreSide {
    pending: MbufList,
    /// On the core's list of sockets to wake.
    touched: bool,
}

// SAFETY: `core` is the only field that is not Sync by itself; it is reached only through a `&mut CoreToken`, of which each core has
// the only one, or by the closer after a grace period.
unsafe impl Sync for SocketQueue {}

/// The right to use one core's side of the queues of an engine's sockets. There is exactly one for each core of an engine.
pub(crate) struct CoreToken {
    engine: u64,
    core: usize,
}

impl CoreToken {
    /// Whose it is.
    pub fn core(&self) -> usize {
        self.core
    }
}

/// The tokens of a new engine's cores, and the number that its sockets are made with. No number is given out twice.
pub(crate) fn tokens(cores: usize) -> (u64, Vec<CoreToken>) {
    static ENGINES: AtomicU64 = AtomicU64::new(0);
    let engine = ENGINES.fetch_add(1, Ordering::Relaxed);
    (engine, (0..cores).map(|core| CoreToken { engine, core }).collect())
}

/// What a queue says to a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits; the socket is on the core's wake list already.
    Again,
    /// It waits, and the core must put the socket on its wake list.
    First,
}

/// Bytes of memory that a datagram holds while it waits.
#[inline]
pub(crate) fn weight(mbuf: &Mbuf) -> u64 {
    (mbuf.segment_count() * STRIDE) as u64
}

impl Socket {
    pub(crate) fn new(
        engine: u64,
        id: SocketId,
        key: Key,
        cookie: u64,
        cores: usize,
        queue_budget: u64,
    ) -> Self {
        Socket {
            engine,
            id,
            key,
            cookie,
            wq: RcuCell::new(Default::default()),
            closed: AtomicBool::new(false),
            error: Mutex::new(None),
            has_error: AtomicBool::new(false),
            queues: (0..cores).map(|_| CachePadded::default()).collect(),
            queue_budget,
            reader: Mutex::default(),
        }
    }

    /// Its name.
    #[inline]
    pub fn id(&self) -> SocketId {
        self.id
    }

    #[inline]
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The address it is bound to; an unspecified IP means any of ours.
    #[inline]
    pub fn local(&self) -> SocketAddr {
        self.key.local
    }

    /// The only peer it hears, if it is connected.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.key.peer
    }

    /// The number that the binder gave it.
    #[inline]
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Whether it was closed. A core may still see a closed socket until its next quiescent state.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// The wait queue; `None` once the socket is orphaned.
    pub fn wq<'g>(&'g self, guard: ReadGuard<'g>) -> Option<&'g SocketWq> {
        self.wq.load(guard)
    }

    pub(crate) fn wq_cell(&self) -> &RcuCell<SocketWq> {
        &self.wq
    }

    /// Takes the wait queue away: later wakers see none and do nothing. Who sleeps is woken.
    pub(crate) fn orphan(&self) {
        self.exchange_wq(None);
    }

    /// Publishes another wait queue: later wakers use that one. Who sleeps on the one before is woken, to move.
    pub(crate) fn graft(&self, wq: Arc<SocketWq>) {
        self.exchange_wq(Some(wq));
    }

    fn exchange_wq(&self, wq: Option<Arc<SocketWq>>) {
        let before = self.wq.load_owned(crate::rcu::pin().guard());
        self.wq.replace(wq);
        if let Some(before) = before {
            before.wake_all();
        }
    }

    pub(crate) fn set_error(&self, peer: SocketAddr, error: NetError) {
        // A core never waits: if a reader is just taking the previous error, this one is lost, as a second error always is.
        if let Ok(mut slot) = self.error.try_lock() {
            *slot = Some((peer, error));
            self.has_error.store(true, Ordering::Release);
        }
    }

    /// What the network last said about datagrams sent from here; each error is told once.
    pub fn take_error(&self) -> Option<(SocketAddr, NetError)> {
        if !self.has_error.swap(false, Ordering::Acquire) {
            return None;
        }
        lock(&self.error).take()
    }

    // ---- the core's side ----

    /// Puts the socket on the wake list, unless it is.
    #[inline]
    pub(crate) fn touch(&self, token: &mut CoreToken) -> Pushed {
        let side = self.core_side(token);
        if std::mem::replace(&mut side.touched, true) { Pushed::Again } else { Pushed::First }
    }

    /// Queues a datagram; gives it back when the socket's budget is used up.
    #[inline]
    pub(crate) fn push(&self, token: &mut CoreToken, mbuf: Mbuf) -> Result<Pushed, Mbuf> {
        let queue = &self.queues[token.core];
        let pushed = queue.pushed.load(Ordering::Relaxed);
        let weight = weight(&mbuf);
        if pushed.wrapping_sub(queue.taken.load(Ordering::Relaxed)) + weight > self.queue_budget {
            return Err(mbuf);
        }
        queue.pushed.store(pushed.wrapping_add(weight), Ordering::Relaxed);
        self.core_side(token).pending.push_back(mbuf);
        Ok(self.touch(token))
    }

    /// First half of the end of a burst: offers what is pending to the readers. The barrier follows.
    #[inline]
    pub(crate) fn publish(&self, token: &mut CoreToken) {
        let queue = &self.queues[token.core];
        let side = self.core_side(token);
        if side.pending.is_empty() {
            return;
        }
        // SAFETY: only this core puts into its own mailbox, and `token` is its only token.
        match unsafe { queue.mailbox.put(std::mem::take(&mut side.pending)) } {
            Ok(()) => queue.more.store(false, Ordering::Relaxed),
            Err(back) => {
                side.pending = back;
                queue.more.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Second half, after the barrier: wakes. What the mailbox had no room for is published already, as `more`; to offer it
    /// once more here would need a barrier of its own.
    #[inline]
    pub(crate) fn wake(&self, token: &mut CoreToken, guard: ReadGuard<'_>, barrier: &Barrier) {
        self.core_side(token).touched = false;
        if let Some(wq) = self.wq.load(guard) {
            // Relaxed: written by this core, or by another, which then wakes too.
            let error = self.has_error.load(Ordering::Relaxed);
            wq.notify(if error { Event::Error } else { Event::Readable }, guard, barrier);
        }
    }

    #[inline]
    fn core_side<'a>(&'a self, token: &'a mut CoreToken) -> &'a mut CoreSide {
        assert_eq!(token.engine, self.engine, "a socket of another engine");
        // SAFETY: the token is this core's only one in this engine (see `tokens`) and is borrowed exclusively for as long as the result
        // lives; but for it, only `drain` gets here, after the last core is gone.
        self.queues[token.core].core.with_mut(|side| unsafe { &mut *side })
    }

    // ---- the readers' side ----

    /// Takes the next datagram, and the core whose queue it waited on. `ask` is called, with a core's number, when that core holds
    /// more than the mailbox did and must be asked to send it; it says whether the request was taken.
    pub(crate) fn take(&self, mut ask: impl FnMut(usize) -> bool) -> Option<(Mbuf, usize)> {
        let mut reader = lock(&self.reader);
        if reader.list.is_empty() {
            self.refill(&mut reader, &mut ask);
        }
        let mbuf = reader.list.pop_front()?;
        let taken = &self.queues[reader.from].taken;
        taken.store(taken.load(Ordering::Relaxed).wrapping_add(weight(&mbuf)), Ordering::Relaxed);
        Some((mbuf, reader.from))
    }

    fn refill(&self, reader: &mut ReaderSide, ask: &mut dyn FnMut(usize) -> bool) {
        for i in 0..self.queues.len() {
            let core = (reader.next + i) % self.queues.len();
            let queue = &self.queues[core];
            // SAFETY: the reader lock is held, so this is the only consumer.
            if let Some(list) = unsafe { queue.mailbox.take() } {
                reader.list = list;
                reader.from = core;
                reader.next = core + 1;
            }
            // Relaxed: a reader that sleeps looks again after it joined the wait queue, and the barriers there order this as well.
            if queue.more.load(Ordering::Relaxed) && !queue.mailbox.is_full() {
                // If the core has just published by itself, it is asked in vain.
                queue.more.store(false, Ordering::Relaxed);
                if !ask(core) {
                    queue.more.store(true, Ordering::Relaxed);
                }
            }
            if !reader.list.is_empty() {
                return;
            }
        }
    }

    /// Whether [`take`](Self::take) would find something, or something to ask a core for. Sleepers test it after they joined the wait queue.
    pub(crate) fn is_readable(&self) -> bool {
        let holds = |queue: &SocketQueue| queue.mailbox.is_full() || queue.more.load(Ordering::Relaxed);
        self.queues.iter().any(|queue| holds(queue)) || !lock(&self.reader).list.is_empty()
    }

    /// Takes everything out, also what cores still held. Yields bytes of buffers per core.
    ///
    /// # Safety
    /// The socket is unpublished on every core and a grace period has passed since.
    unsafe fn drain(&self, mut account: impl FnMut(usize, u64)) {
        let mut reader = lock(&self.reader);
        reader.list.clear();
        for (core, queue) in self.queues.iter().enumerate() {
            // SAFETY: the reader lock is held.
            drop(unsafe { queue.mailbox.take() });
            // SAFETY: no core can reach the socket any more (the caller's promise), so its side is ours under the reader lock.
            queue.core.with_mut(|side| unsafe { (*side).pending.clear() });
            let pushed = queue.pushed.load(Ordering::Relaxed);
            account(core, pushed.wrapping_sub(queue.taken.swap(pushed, Ordering::Relaxed)));
        }
    }
}

/// Frees what the queues of a closed socket hold; `account` hears of the bytes of buffers, per core.
pub(crate) fn drain(closed: &Quiesced<Socket>, account: impl FnMut(usize, u64)) {
    // SAFETY: `Quiesced` says that the table lost the socket and that a grace period has passed since.
    unsafe { closed.value().drain(account) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rcu::{self, Reader};
    use pmd::PoolConfig;
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn a_socket_touched_often_in_a_burst_is_woken_once() {
        let (engine, mut tokens) = tokens(1);
        let mut token = tokens.remove(0);
        let key = Key { local: "10.0.0.1:7".parse().unwrap(), peer: None };
        let id = SocketId { slot: 0, generation: 0 };
        let socket = Socket::new(engine, id, key, 0, 1, 64 * STRIDE as u64);
        let woken = Arc::new(AtomicU64::new(0));
        let count = woken.clone();
        let pin = rcu::pin();
        socket.wq(pin.guard()).unwrap().call_on(move |event| {
            assert_eq!(event, Event::Readable);
            count.fetch_add(1, Ordering::Relaxed);
        });
        let mut pool = PoolConfig::new("burst", 64).build().unwrap().claim();
        for burst in 1..=3 {
            // As `Cx` does: what is touched first goes on the wake list.
            let push = |_| socket.push(&mut token, pool.copy_from(b"datagram").unwrap()).unwrap();
            let wake_list: Vec<_> = (0..10).map(push).filter(|pushed| *pushed == Pushed::First).collect();
            socket.publish(&mut token);
            let barrier = Barrier::publish();
            wake_list.iter().for_each(|_| socket.wake(&mut token, pin.guard(), &barrier));
            assert_eq!(woken.load(Ordering::Relaxed), burst, "ten datagrams, one wake-up");
        }
    }

    /// A core pushes bursts and serves requests for more; a reader with pauses of its own must get everything, in order, and never
    /// sleep through the last of it.
    #[test]
    fn everything_pushed_is_read_in_order_by_a_reader_that_sleeps() {
        const DATAGRAMS: u32 = 100_000;
        let (engine, mut tokens) = tokens(1);
        let mut token = tokens.remove(0);
        let key = Key { local: "10.0.0.1:7".parse().unwrap(), peer: None };
        let id = SocketId { slot: 0, generation: 0 };
        let socket = Arc::new(Socket::new(engine, id, key, 0, 1, 64 * STRIDE as u64));
        let shared = socket.clone();
        let (ask, asked) = mpsc::channel();
        let core = thread::spawn(move || {
            let mut pool = PoolConfig::new("socket test", 256).build().unwrap().claim();
            let reader = Reader::register("socket test");
            let mut next = 0;
            while next < DATAGRAMS {
                for _ in 0..asked.try_iter().count() {
                    shared.touch(&mut token);
                }
                for _ in 0..next % 7 + 1 {
                    let Some(mbuf) = pool.copy_from(&next.to_be_bytes()) else { break };
                    if shared.push(&mut token, mbuf).is_err() {
                        break;
                    }
                    next += 1;
                }
                shared.publish(&mut token);
                shared.wake(&mut token, reader.guard(), &Barrier::publish());
            }
            // The last are kept back until they are asked for.
            while asked.recv().is_ok() {
                shared.touch(&mut token);
                shared.publish(&mut token);
                shared.wake(&mut token, reader.guard(), &Barrier::publish());
            }
        });
        for expected in 0..DATAGRAMS {
            let wq = socket.wq_cell().load_owned(rcu::pin().guard()).unwrap();
            let deadline = Instant::now() + Duration::from_secs(10);
            let taken = wq.wait(Some(deadline), || socket.take(|_| ask.send(()).is_ok()));
            let (mbuf, _) = taken.unwrap_or_else(|| panic!("datagram {expected} was lost, or its wake-up"));
            assert_eq!(mbuf.data(), expected.to_be_bytes());
            if expected % 5000 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        drop(ask);
        core.join().unwrap();
    }
}
