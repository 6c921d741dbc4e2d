//! `memory:NAME[,queues=N][,ring=N][,rss]`: a wire inside this process.
//!
//! The first to open a name gets one end, the second the other. Queue n of one end talks with queue n of the other
//! through two bounded SPSC rings of packets; nothing is copied. With `rss` the receiving end spreads frames over its queues as a NIC
//! does, by their Toeplitz hash: then each queue shares its ring among the sender's queues. An end is free again when its port and queues
//! are dropped, and the wire when both are. While the other end is not open, the link is down and frames sent are dropped
//! by name. The first to open chooses queues, ring, MTU and `rss`.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crossbeam_utils::CachePadded;

use super::doorbell::Doorbell;
use super::mbuf_ring::{MbufReceiver, MbufSender, mbuf_ring};
use super::spread::Spreader;
use super::{DROP_OVERSIZE, DROP_RUNT, FRAME_OVERHEAD, admit};
use crate::counters::{Counters, QueueStats};
use crate::mac::MacAddr;
use crate::mbuf::{BURST, Burst, Mbuf};
use crate::pool::{Pool, PoolHandle};
use crate::port::{
    Capabilities, LinkState, MTU_DEFAULT, MTU_MAX, OpenOptions, Port, PortError, PortInfo, PortStats, Queue,
    QueuesOnce,
};
use crate::rss::{RSS_KEY_LEN, Rss, rss_key};
use crate::time::Instant;
use crate::url::Url;

const RING_DEFAULT: usize = 1024;
const DROP_NO_PEER: usize = 2;
const DROPS: &[&str] = &[DROP_RUNT.1, DROP_OVERSIZE.1, "tx_no_peer"];

/// What a queue of an end sends to and receives from: one ring each way, or with `rss` one for each queue of the other end.
#[derive(Default)]
struct Half {
    tx: Vec<MbufSender>,
    rx: Vec<MbufReceiver>,
}

/// Two ends and the rings between them.
struct Wire {
    queues: usize,
    mtu: usize,
    /// Whether each end is open.
    open: [AtomicBool; 2],
    /// With `rss`: how each end spreads what it receives.
    inbound: Option<[Inbound; 2]>,
    /// To wake the owners of each end's queues; empty where the system cannot.
    bells: [Vec<CachePadded<Doorbell>>; 2],
    /// The halves that are not in use, per end and queue.
    parked: Mutex<[Vec<Option<Half>>; 2]>,
}

/// How an end spreads what it receives: for the other end, which does it. Nothing as long as its queues are not open.
#[derive(Default)]
struct Inbound {
    /// Changes with `how`.
    version: AtomicU32,
    how: Mutex<Option<Arc<Spreader>>>,
}

impl Inbound {
    fn set(&self, how: Option<Arc<Spreader>>) {
        *self.how() = how;
        // Release: pairs with the Acquire load in `Outbound::look`.
        self.version.fetch_add(1, Ordering::Release);
    }

    fn how(&self) -> MutexGuard<'_, Option<Arc<Spreader>>> {
        self.how.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The other end's [`Inbound`], as a queue last saw it.
#[derive(Default)]
struct Outbound {
    version: u32,
    how: Option<Arc<Spreader>>,
}

impl Outbound {
    #[inline]
    fn look(&mut self, inbound: &Inbound) -> Option<&Spreader> {
        // Acquire: pairs with the Release in `Inbound::set`.
        let version = inbound.version.load(Ordering::Acquire);
        if version != self.version {
            // The lock is free but for the moment in which the other end opens or closes.
            (self.version, self.how) = (version, inbound.how().clone());
        }
        self.how.as_deref()
    }
}

type Wires = HashMap<String, Weak<Wire>>;

/// All wires by name. Its lock is held while an end is taken, so that of two openers each gets one.
fn wires() -> MutexGuard<'static, Wires> {
    static WIRES: OnceLock<Mutex<Wires>> = OnceLock::new();
    WIRES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn open(url: Url<'_>, options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    let name = url.head("NAME")?;
    let queues = url.number("queues", 1..=64)?.map(|n| n as usize);
    let ring = url.number("ring", 1..=1 << 20)?.map_or(RING_DEFAULT, |n| n as usize);
    let mtu = url.number("mtu", 68..=MTU_MAX as u64)?.map(|n| n as usize);
    let rss = url.flag("rss")?;
    url.finish()?;

    let mut wires = wires();
    wires.retain(|_, wire| wire.strong_count() > 0);
    let wire = match wires.get(name).and_then(Weak::upgrade) {
        Some(wire) => wire,
        None => {
            let mtu = mtu.or(options.mtu).unwrap_or(MTU_DEFAULT);
            let wire = Arc::new(Wire::new(queues.unwrap_or(options.queues.max(1)), ring, mtu, rss));
            wires.insert(name.to_owned(), Arc::downgrade(&wire));
            wire
        }
    };
    if let Some(wanted) = queues.filter(|queues| *queues != wire.queues) {
        let mend = format!("write queues={} as its other end did, or nothing", wire.queues);
        return Err(url.bad(format!("queues={wanted} on an existing wire"), mend));
    }
    if rss && wire.inbound.is_none() {
        let mend = "let the end that is opened first say rss".to_owned();
        return Err(url.bad("rss on a wire that exists without".to_owned(), mend));
    }
    let Some(end) = (0..2).find(|end| !wire.open[*end].swap(true, Ordering::AcqRel)) else {
        return Err(PortError::Taken {
            url: url.text().to_owned(),
            mend: "a wire has two ends; close one, or use another name",
        });
    };
    let mac = MacAddr::local_from(&format!("memory:{name}/{end}"));
    let once = QueuesOnce::new(&url, wire.queues);
    let end = Arc::new(End { wire, end });
    let (url, key) = (url.text().to_owned(), options.rss_key);
    Ok(Box::new(MemoryPort { url, mac, once, end, key, counters: Vec::new() }))
}

impl Wire {
    fn new(queues: usize, ring: usize, mtu: usize, rss: bool) -> Wire {
        let ends = || (0..queues).map(|_| Half::default()).collect::<Vec<_>>();
        let (mut first, mut second) = (ends(), ends());
        let ring = if rss { (ring / queues).max(BURST) } else { ring };
        for (from, to) in (0..queues).flat_map(|from| (0..queues).map(move |to| (from, to))) {
            if rss || from == to {
                let (to_second, from_first) = mbuf_ring(ring);
                let (to_first, from_second) = mbuf_ring(ring);
                first[from].tx.push(to_second);
                second[to].rx.push(from_first);
                second[from].tx.push(to_first);
                first[to].rx.push(from_second);
            }
        }
        let bells =
            [(); 2].map(|()| (0..queues).map_while(|_| Some(Doorbell::new()?.into())).collect::<Vec<_>>());
        let complete = bells.iter().all(|bells| bells.len() == queues);
        Wire {
            queues,
            mtu,
            bells: if complete { bells } else { Default::default() },
            open: Default::default(),
            inbound: rss.then(Default::default),
            parked: Mutex::new([first, second].map(|half| half.into_iter().map(Some).collect())),
        }
    }

    fn parked(&self) -> MutexGuard<'_, [Vec<Option<Half>>; 2]> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end, held by its port and queues; closed with the last of them.
struct End {
    wire: Arc<Wire>,
    end: usize,
}

impl End {
    #[inline]
    fn peer_open(&self) -> bool {
        // Relaxed: a frame that just misses the opening or closing of the other end is like one lost on the wire.
        self.wire.open[1 - self.end].load(Ordering::Relaxed)
    }

    /// Of the other end's queue `index`.
    #[inline]
    fn ring(&self, index: usize) {
        if let Some(bell) = self.wire.bells[1 - self.end].get(index) {
            bell.ring();
        }
    }

    /// How the other end spreads what this one sends, if it does.
    #[inline]
    fn outbound(&self) -> Option<&Inbound> {
        Some(&self.wire.inbound.as_ref()?[1 - self.end])
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(inbound) = &self.wire.inbound {
            inbound[self.end].set(None);
        }
        // Release: pairs with the swap in `open`; the halves were parked before.
        self.wire.open[self.end].store(false, Ordering::Release);
    }
}

struct MemoryPort {
    url: String,
    mac: MacAddr,
    once: QueuesOnce,
    end: Arc<End>,
    /// To spread by.
    key: Option<[u8; RSS_KEY_LEN]>,
    counters: Vec<Arc<Counters>>,
}

impl Port for MemoryPort {
    fn info(&self) -> PortInfo {
        let info = PortInfo::in_process(&self.url, "memory", self.mac, self.end.wire.mtu, self.once.max());
        let spreads_flows = self.end.wire.inbound.is_some();
        let wait_fd = !self.end.wire.bells[self.end.end].is_empty();
        PortInfo { capabilities: Capabilities { spreads_flows, wait_fd, ..info.capabilities }, ..info }
    }

    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError> {
        let n = pools.len();
        self.once.check(n)?;
        let mut parked = self.end.wire.parked();
        let mut queues: Vec<Box<dyn Queue>> = Vec::new();
        for (index, slot) in parked[self.end.end].iter_mut().enumerate().take(n) {
            let mut half = slot.take().expect("an end's halves are parked while it has no queues");
            // What was sent to the last holder of this end is not ours.
            half.rx.iter_mut().for_each(MbufReceiver::clear);
            let counters = Counters::new(DROPS);
            self.counters.push(counters.clone());
            let frame_max = self.end.wire.mtu + FRAME_OVERHEAD;
            queues.push(Box::new(MemoryQueue {
                half: Some(half),
                index,
                frame_max,
                end: self.end.clone(),
                counters,
                next: 0,
                outbound: Outbound::default(),
            }));
        }
        drop(parked);
        if let Some(inbound) = &self.end.wire.inbound {
            let key = self.key.unwrap_or_else(|| rss_key(|| fastrand::u64(..)));
            inbound[self.end.end].set(Some(Arc::new(Spreader::new(Rss::spread(key, n)))));
        }
        self.once.done();
        Ok(queues)
    }

    fn rss(&self) -> Option<Rss> {
        let inbound = self.end.wire.inbound.as_ref()?;
        inbound[self.end.end].how().as_ref().map(|how| how.rss.clone())
    }

    fn link(&self) -> LinkState {
        if self.end.peer_open() { LinkState::Up } else { LinkState::Down }
    }

    fn stats(&self) -> PortStats {
        super::sum(&self.counters)
    }
}

struct MemoryQueue {
    /// Taken only by `drop`.
    half: Option<Half>,
    index: usize,
    frame_max: usize,
    end: Arc<End>,
    counters: Arc<Counters>,
    /// The ring to receive from first.
    next: usize,
    outbound: Outbound,
}

impl MemoryQueue {
    /// Moves frames to the other end as far as there is room; returns how many. `None`: nobody is there.
    #[inline]
    fn send(&mut self, burst: &mut Burst) -> Option<usize> {
        let half = self.half.as_mut().filter(|_| self.end.peer_open())?;
        let sent = match self.end.outbound() {
            None => {
                let sent = half.tx[0].push_burst(burst);
                self.end.ring(self.index);
                sent
            }
            Some(inbound) => {
                let (sent, mut queues) = spread(self.outbound.look(inbound)?, &mut half.tx, burst);
                while queues != 0 {
                    self.end.ring(queues.trailing_zeros() as usize);
                    queues &= queues - 1;
                }
                sent
            }
        };
        Some(sent)
    }

    fn bell(&self) -> Option<&Doorbell> {
        Some(self.end.wire.bells[self.end.end].get(self.index)?)
    }
}

/// Moves frames to the queues that their hashes choose, up to the first that finds its ring full. Returns how many, and to which queues, as
/// bits.
fn spread(how: &Spreader, rings: &mut [MbufSender], burst: &mut Burst) -> (usize, u64) {
    let (mut sent, mut queues, mut left) = (0, 0, Burst::new());
    for mut frame in burst.drain(..) {
        let queue = how.queue_of(&mut frame);
        match if left.is_empty() { rings[queue].push(frame) } else { Err(frame) } {
            Ok(()) => (sent, queues) = (sent + 1, queues | 1 << queue),
            Err(frame) => left.push(frame),
        }
    }
    *burst = left;
    (sent, queues)
}

impl Queue for MemoryQueue {
    fn rx_burst(&mut self, _now: Instant, _pool: &mut Pool, burst: &mut Burst) -> usize {
        let Some(half) = &mut self.half else { return 0 };
        let before = burst.len();
        for _ in 0..half.rx.len() {
            half.rx[self.next].pop_burst(burst);
            // Before the burst is full, too: a ring that always fills it must not keep the others from their turn.
            self.next = if self.next + 1 < half.rx.len() { self.next + 1 } else { 0 };
            if burst.is_full() {
                break;
            }
        }
        let new = &burst[before..];
        new.iter().for_each(Mbuf::prefetch);
        self.counters.rx(new.len(), new.iter().map(Mbuf::len).sum());
        new.len()
    }

    fn tx_burst(&mut self, _now: Instant, burst: &mut Burst) -> usize {
        let given = burst.len();
        let mut bytes = admit(burst, self.frame_max, &self.counters);
        let Some(sent) = self.send(burst) else {
            self.counters.dropped(DROP_NO_PEER, burst.len() as u64);
            burst.clear();
            return given;
        };
        if !burst.is_empty() {
            self.counters.tx_full.add(1);
            bytes -= burst.iter().map(Mbuf::len).sum::<usize>();
        }
        self.counters.tx(sent, bytes);
        given - burst.len()
    }

    fn arm(&mut self) -> bool {
        let Some((bell, half)) = self.bell().zip(self.half.as_ref()) else { return true };
        bell.arm() && half.rx.iter().all(MbufReceiver::is_empty)
    }

    fn disarm(&mut self) {
        if let Some(bell) = self.bell() {
            bell.disarm();
        }
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell()?.fd())
    }

    fn stats(&self) -> QueueStats {
        self.counters.snapshot()
    }
}

impl Drop for MemoryQueue {
    fn drop(&mut self) {
        self.disarm();
        // Before `end`: whoever opens this end next finds the half.
        self.end.wire.parked()[self.end.end][self.index] = self.half.take();
    }
}
