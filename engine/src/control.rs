//! The writers' side: which sockets exist, binding and closing them, and how other threads reach a core.
//!
//! Writers serialise on one mutex that cores never see. Closing a socket: mark it closed, unpublish it on every core, orphan its
//! wait queue, and after a grace period drain what it held; nobody waits for that.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use crossbeam_utils::CachePadded;
use pmd::{BURST, Mbuf, RegionError};

use crate::capture::Tap;
use crate::flow::{Flow, HashKeys};
use crate::owner::Ownership;
use crate::rcu::{self, ReadGuard};
use crate::ring::{Bell, Inbox, SendError};
use crate::socket::{self, Socket, SocketId};
use crate::table::{Key, SOCKETS_MAX, Table};
use crate::wq::SocketWq;

/// Ports given to sockets that ask for none: IANA's dynamic range.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=65_535;
/// Ports drawn before all are looked at: that many are taken by chance only if nearly all are.
const PORT_DRAWS: usize = 32;
/// Sockets that a core's cache of a megabyte has room for, with their buckets and slots.
const CACHED: usize = 2048;
/// How often, and how long each time, a bind waits for places of closed sockets to be free again.
const PLACE_WAITS: usize = 10_000;
const PLACE_WAIT: Duration = Duration::from_micros(100);

/// What the engine itself asks of a core.
pub(crate) enum Op {
    /// Send a datagram for an application thread.
    Send { from: SocketAddr, to: SocketAddr, payload: Mbuf },
    /// A reader has room for what this core keeps for the socket.
    Flush(SocketId),
    /// Capture frames, or no more; what was there before is the asker's to free.
    Capture { tap: Option<Box<Tap>>, reply: mpsc::SyncSender<Option<Box<Tap>>> },
    /// End after this turn.
    Stop,
}

/// How other threads reach one core.
pub(crate) struct CoreLink {
    pub ops: Inbox<Op>,
    pub bell: Arc<Bell>,
    /// Empty buffers of the core's pool, for application threads to fill.
    pub credits: Mutex<rtrb::Consumer<Mbuf>>,
    /// Threads that wait for such buffers.
    pub credits_wq: Arc<SocketWq>,
    /// Bytes of buffers that readers ever took from this core's socket queues.
    pub taken: CachePadded<AtomicU64>,
}

/// Limits on sockets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub sockets_max: usize,
    pub queue_budget: u64,
    pub core_budget: u64,
}

/// Every socket of an engine.
pub(crate) struct Sockets {
    engine: u64,
    table: Table<Socket>,
    pub cores: Box<[CoreLink]>,
    limits: Limits,
    addresses: HashSet<IpAddr>,
    pub ownership: Ownership,
    ports_tried: AtomicU64,
    writers: Mutex<Writers>,
}

struct Writers {
    random: fastrand::Rng,
    stopped: bool,
}

/// Why a socket could not be bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The address is taken.
    #[error("{addr} is bound already: close that socket first, or bind another port")]
    InUse {
        /// The address.
        addr: SocketAddr,
    },
    /// No port of the engine has the address.
    #[error("{addr} is not an address of this engine: give it to a port with .address(\"{}/..\"), or bind an unspecified address", addr.ip())]
    NotOurs {
        /// The address.
        addr: SocketAddr,
    },
    /// Every dynamic port is taken.
    #[error("no free port from 49152 to 65535 on {ip}: close sockets, or name a port")]
    NoPort {
        /// The address asked for.
        ip: IpAddr,
    },
    /// A port can be chosen for a core only where the address is known and the port is not.
    #[error(
        "{addr} leaves no port to choose, or no address to choose it for: give one of the engine's addresses with port 0"
    )]
    PortGiven {
        /// What was given.
        addr: SocketAddr,
    },
    /// The engine has fewer cores.
    #[error("the engine has no core {core}: name one from 0 to {}", cores - 1)]
    NoSuchCore {
        /// What was given.
        core: usize,
        /// How many there are.
        cores: usize,
    },
    /// As many sockets as may.
    #[error("{max} sockets are open, which is the limit: raise .sockets_max()")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// Sockets are closed faster than grace periods pass.
    #[error("every free place waits until no core can see its closed socket any more: try again")]
    Busy,
    /// The engine is shutting down.
    #[error("the engine has stopped")]
    Stopped,
}

impl Sockets {
    pub fn new(
        engine: u64,
        keys: HashKeys,
        ownership: Ownership,
        cores: Vec<CoreLink>,
        limits: Limits,
        addresses: HashSet<IpAddr>,
    ) -> Result<Self, RegionError> {
        Ok(Sockets {
            engine,
            table: Table::new(keys, limits.sockets_max)?,
            ownership,
            ports_tried: AtomicU64::new(0),
            cores: cores.into(),
            limits: Limits { sockets_max: limits.sockets_max.min(SOCKETS_MAX), ..limits },
            addresses,
            writers: Mutex::new(Writers { random: fastrand::Rng::with_seed(keys.derive(2)), stopped: false }),
        })
    }

    // ---- readers ----

    /// The socket of that name, unless it is gone.
    #[inline]
    pub fn get<'g>(&'g self, id: SocketId, guard: ReadGuard<'g>) -> Option<&'g Socket> {
        self.table.get(id, guard)
    }

    /// The socket for a datagram.
    #[inline]
    pub fn lookup<'g>(
        &'g self,
        local: SocketAddr,
        peer: SocketAddr,
        guard: ReadGuard<'g>,
    ) -> Option<&'g Socket> {
        self.table.lookup(&Flow::new(local, Some(peer)), guard)
    }

    /// The sockets for a burst of datagrams.
    #[inline]
    pub fn lookup_burst<'g>(
        &'g self,
        flows: &[Flow],
        guard: ReadGuard<'g>,
    ) -> ArrayVec<Option<&'g Socket>, BURST> {
        self.table.lookup_burst(flows, guard)
    }

    /// Whether they are too many for a core's cache.
    #[inline]
    pub fn are_many(&self) -> bool {
        self.table.len() > CACHED
    }

    /// Whether `core`, which ever queued `queued` bytes of buffers, may queue `weight` more.
    #[inline]
    pub fn core_budget_allows(&self, core: usize, queued: u64, weight: u64) -> bool {
        queued.wrapping_sub(self.cores[core].taken.load(Ordering::Relaxed)) + weight
            <= self.limits.core_budget
    }

    /// Ports that binds for one core looked at.
    pub fn ports_tried(&self) -> u64 {
        self.ports_tried.load(Ordering::Relaxed)
    }

    /// The addresses that sockets can be bound to, in no order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().copied()
    }

    // ---- writers ----

    fn writers(&self) -> MutexGuard<'_, Writers> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Binds a socket and publishes it for every core. Port 0 means any free port.
    pub fn bind(
        self: &Arc<Self>,
        local: SocketAddr,
        peer: Option<SocketAddr>,
        cookie: u64,
    ) -> Result<SocketHandle, BindError> {
        self.bind_where(local, peer, cookie, |_| true)
    }

    /// Binds a socket to a free port of which the flow with `peer` belongs to core `core`.
    pub fn bind_on(
        self: &Arc<Self>,
        core: usize,
        local: SocketAddr,
        peer: SocketAddr,
        cookie: u64,
    ) -> Result<SocketHandle, BindError> {
        let cores = self.cores.len();
        if core >= cores {
            return Err(BindError::NoSuchCore { core, cores });
        }
        if local.ip().is_unspecified() || local.port() != 0 {
            return Err(BindError::PortGiven { addr: local });
        }
        self.bind_where(local, Some(peer), cookie, |local| {
            self.ports_tried.fetch_add(1, Ordering::Relaxed);
            self.ownership.owner(local, peer) == core
        })
    }

    /// Binds a socket; if it may have any port, one that `suits`.
    fn bind_where(
        self: &Arc<Self>,
        local: SocketAddr,
        peer: Option<SocketAddr>,
        cookie: u64,
        suits: impl Fn(SocketAddr) -> bool,
    ) -> Result<SocketHandle, BindError> {
        if !local.ip().is_unspecified() && !self.addresses.contains(&local.ip()) {
            return Err(BindError::NotOurs { addr: local });
        }
        for _ in 0..PLACE_WAITS {
            if let Some(socket) = self.try_bind(local, peer, cookie, &suits)? {
                return Ok(SocketHandle { socket, sockets: self.clone() });
            }
            // A core never waits, least of all for itself.
            if rcu::is_core() {
                break;
            }
            thread::sleep(PLACE_WAIT);
        }
        Err(BindError::Busy)
    }

    /// `None` if no place in the table is free yet.
    fn try_bind(
        &self,
        local: SocketAddr,
        peer: Option<SocketAddr>,
        cookie: u64,
        suits: &impl Fn(SocketAddr) -> bool,
    ) -> Result<Option<Arc<Socket>>, BindError> {
        let mut writers = self.writers();
        if writers.stopped {
            return Err(BindError::Stopped);
        }
        let max = self.limits.sockets_max;
        if self.table.len() >= max {
            return Err(BindError::TooMany { max });
        }
        let key = self.choose_key(&mut writers, local, peer, suits)?;
        let Some(id) = self.table.reserve() else { return Ok(None) };
        let (cores, budget) = (self.cores.len(), self.limits.queue_budget);
        let socket = Arc::new(Socket::new(self.engine, id, key, cookie, cores, budget));
        let flow = key.flow();
        self.table.publish(id, &flow, flow.kind(local.ip()), socket.clone());
        Ok(Some(socket))
    }

    fn choose_key(
        &self,
        writers: &mut Writers,
        local: SocketAddr,
        peer: Option<SocketAddr>,
        suits: &impl Fn(SocketAddr) -> bool,
    ) -> Result<Key, BindError> {
        let pin = rcu::pin();
        let free = |port| {
            let key = Key { local: SocketAddr::new(local.ip(), port), peer };
            (suits(key.local) && !self.table.contains(&key.flow(), pin.guard())).then_some(key)
        };
        if local.port() != 0 {
            let key = Key { local, peer };
            let taken = self.table.contains(&key.flow(), pin.guard());
            return if taken { Err(BindError::InUse { addr: local }) } else { Ok(key) };
        }
        if let Some(key) = (0..PORT_DRAWS).find_map(|_| free(writers.random.u16(EPHEMERAL))) {
            return Ok(key);
        }
        let start = writers.random.u16(EPHEMERAL);
        let all = (start..=*EPHEMERAL.end()).chain(*EPHEMERAL.start()..start);
        all.into_iter().find_map(free).ok_or(BindError::NoPort { ip: local.ip() })
    }

    /// Closes a socket, once.
    fn close(self: &Arc<Self>, socket: &Arc<Socket>) {
        let unpublished = {
            let _writers = self.writers();
            if socket.is_closed() {
                return;
            }
            socket.mark_closed();
            let flow = socket.key().flow();
            self.table.unpublish(socket.id(), &flow, flow.kind(socket.local().ip()))
        };
        socket.orphan();
        let sockets = self.clone();
        unpublished.retire(move |quiesced| {
            socket::drain(&quiesced, |core, bytes| {
                sockets.cores[core].taken.fetch_add(bytes, Ordering::Relaxed);
            });
            sockets.table.recycle(quiesced);
        });
    }

    /// Exchanges a socket's wait queue, unless it is closed: `close` takes the queue away for good.
    fn graft(&self, socket: &Socket, wq: Arc<SocketWq>) -> bool {
        let _writers = self.writers();
        // Inside a read section nobody waits at the cap on retired memory: not under this mutex.
        let _pin = rcu::pin();
        let open = !socket.is_closed();
        if open {
            socket.graft(wq);
        }
        open
    }

    /// Closes every socket and refuses new ones.
    pub fn stop(self: &Arc<Self>) {
        self.writers().stopped = true;
        self.table.all().iter().for_each(|socket| self.close(socket));
    }

    /// Open sockets.
    pub fn open(&self) -> usize {
        self.table.len()
    }

    /// Entries of the table, counted one by one.
    pub fn entries(&self) -> usize {
        self.table.entries()
    }
}

/// How a wait on a queue ended.
enum Wait<R> {
    Over(R),
    /// The socket has another queue now.
    Elsewhere,
}

/// A bound socket, for the thread that bound it. Dropping it closes the socket.
pub struct SocketHandle {
    socket: Arc<Socket>,
    sockets: Arc<Sockets>,
}

impl SocketHandle {
    /// The socket's name, as cores know it.
    pub fn id(&self) -> SocketId {
        self.socket.id()
    }

    /// The address it is bound to, the port filled in.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.local()
    }

    /// The shared socket.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The wait queue; `None` once closed.
    pub fn wq(&self) -> Option<Arc<SocketWq>> {
        self.socket.wq_cell().load_owned(rcu::pin().guard())
    }

    /// Blocks until `condition` yields something, the socket is closed, or `deadline` passes (`None` then).
    pub fn wait<R>(&self, deadline: Option<Instant>, mut condition: impl FnMut() -> Option<R>) -> Option<R> {
        loop {
            let wq = self.wq()?;
            let ended = wq.wait(deadline, || match condition() {
                Some(result) => Some(Wait::Over(Some(result))),
                None if self.socket.is_closed() => Some(Wait::Over(None)),
                None => self.has_left(&wq).then_some(Wait::Elsewhere),
            })?;
            if let Wait::Over(result) = ended {
                return result;
            }
        }
    }

    /// The asynchronous form; ready with `None` once the socket is closed.
    pub fn poll<R>(&self, cx: &mut Context<'_>, mut condition: impl FnMut() -> Option<R>) -> Poll<Option<R>> {
        loop {
            let Some(wq) = self.wq() else { return Poll::Ready(condition()) };
            let polled = wq.poll(cx, || match condition() {
                Some(result) => Some(Wait::Over(Some(result))),
                None => self.has_left(&wq).then_some(Wait::Elsewhere),
            });
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Wait::Over(result)) => return Poll::Ready(result),
                Poll::Ready(Wait::Elsewhere) => {}
            }
        }
    }

    /// Asks for one signal on the wait queue's eventfd, at once if `condition` holds or the queue is the socket's no more.
    pub(crate) fn arm_event(&self, condition: impl FnOnce() -> bool) {
        if let Some(wq) = self.wq() {
            wq.arm_event(|| condition() || self.has_left(&wq));
        }
    }

    /// Whether the socket has another wait queue now, or none.
    fn has_left(&self, wq: &Arc<SocketWq>) -> bool {
        !self.socket.wq_cell().holds(wq)
    }

    /// Has the socket's wakers use `wq` from here on; whoever waits moves along. Several sockets may share one queue, so that one thread or
    /// task waits for all of them. An eventfd belongs to its queue: ask the new one for its own. False: the socket is closed.
    pub fn graft(&self, wq: Arc<SocketWq>) -> bool {
        self.sockets.graft(&self.socket, wq)
    }

    /// Closes the socket: no core finds it any more, who waits is told, what it held is freed after a grace period. Does not wait.
    pub fn close(&self) {
        self.sockets.close(&self.socket);
    }

    pub(crate) fn sockets(&self) -> &Arc<Sockets> {
        &self.sockets
    }

    /// The next datagram as the core packed it, with its unread bytes taken off the budgets.
    pub(crate) fn take(&self) -> Option<Mbuf> {
        let id = self.id();
        let (mbuf, core) = self.socket.take(|core| {
            let ops = &self.sockets.cores[core].ops;
            // A stopped core has nothing to send any more; a polling thread must not wait for itself.
            match if rcu::is_core() { ops.try_send(Op::Flush(id)) } else { ops.send(Op::Flush(id), None) } {
                Ok(()) | Err(SendError::Stopped(_)) => true,
                Err(SendError::Full(_)) => false,
            }
        })?;
        self.sockets.cores[core].taken.fetch_add(crate::socket::weight(&mbuf), Ordering::Relaxed);
        Some(mbuf)
    }
}

impl Drop for SocketHandle {
    fn drop(&mut self) {
        self.close();
    }
}

/// Sends commands to one core's handler. Clonable; any thread may use it. A sleeping core is woken.
pub struct CommandSender<C> {
    pub(crate) inbox: Arc<Inbox<C>>,
}

impl<C> Clone for CommandSender<C> {
    fn clone(&self) -> Self {
        CommandSender { inbox: self.inbox.clone() }
    }
}

impl<C> CommandSender<C> {
    /// Sends, or gives the command back at once if the inbox is full.
    pub fn try_send(&self, command: C) -> Result<(), SendError<C>> {
        self.inbox.try_send(command)
    }

    /// Sends, waiting for room. Not for use on a polling thread, which would wait for itself.
    pub fn send(&self, command: C) -> Result<(), SendError<C>> {
        self.inbox.send(command, None)
    }

    /// Sends, waiting for room until `deadline`.
    pub fn send_until(&self, command: C, deadline: Instant) -> Result<(), SendError<C>> {
        self.inbox.send(command, Some(deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;

    fn sockets(sockets_max: usize) -> Arc<Sockets> {
        let wires = crate::wires::wires::<()>(1).unwrap();
        let limits = Limits { sockets_max, queue_budget: 4096, core_budget: 4096 };
        let addresses = HashSet::from(["10.0.0.1".parse().unwrap()]);
        let (number, _tokens) = socket::tokens(1);
        let keys = HashKeys(1, 2);
        let ownership = Ownership::new(keys, 1, [None]);
        Arc::new(Sockets::new(number, keys, ownership, wires.links, limits, addresses).unwrap())
    }

    #[test]
    fn of_two_binds_of_one_address_one_wins() {
        const ROUNDS: usize = 3000;
        let sockets = sockets(16);
        let (start, end, won) = (Barrier::new(2), Barrier::new(2), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for round in 0..ROUNDS {
                        start.wait();
                        let bound = sockets.bind("10.0.0.1:7".parse().unwrap(), None, 0);
                        won.fetch_add(usize::from(bound.is_ok()), Ordering::Relaxed);
                        end.wait();
                        // Not asserted: the other thread would wait at the barrier for ever.
                        if won.load(Ordering::Relaxed) != round + 1 {
                            return;
                        }
                        assert!(bound.is_ok() || matches!(bound, Err(BindError::InUse { .. })));
                    }
                });
            }
        });
        assert_eq!(won.into_inner(), ROUNDS, "in some round none or both bound the address");
        assert_eq!((sockets.open(), sockets.entries()), (0, 0));
    }

    #[test]
    fn a_free_port_is_found_until_there_is_none() {
        let sockets = sockets(EPHEMERAL.len() + 2);
        let local = "10.0.0.1:0".parse().unwrap();
        let bound: Vec<_> = EPHEMERAL.map(|_| sockets.bind(local, None, 0).unwrap()).collect();
        let ports: HashSet<_> = bound.iter().map(|handle| handle.local_addr().port()).collect();
        assert_eq!(ports.len(), EPHEMERAL.len());
        let full = sockets.bind(local, None, 0);
        assert!(matches!(full, Err(BindError::NoPort { .. })));
        let peer = Some("10.0.0.2:9".parse().unwrap());
        assert!(sockets.bind(local, peer, 0).is_ok(), "a connected socket shares its port with others");
        drop(bound);
        assert!(sockets.bind(local, None, 0).is_ok());
    }

    /// Closing and binding faster than grace periods pass uses up the spare places; a bind then waits for one, and none is lost.
    #[test]
    fn binding_goes_on_when_every_free_place_waits_for_its_grace_period() {
        let sockets = sockets(1);
        for port in (1..=20_000).chain(1..=20_000) {
            let handle = sockets.bind(SocketAddr::from(([10, 0, 0, 1], port)), None, 0).unwrap();
            let other = sockets.bind("10.0.0.1:65535".parse().unwrap(), None, 0);
            assert_eq!(other.err(), Some(BindError::TooMany { max: 1 }));
            drop(handle);
        }
        assert_eq!((sockets.open(), sockets.entries()), (0, 0));
    }
}
