//! `memory:NAME[,queues=N][,ring=N]`: a wire inside this process.
//!
//! The first to open a name gets one end, the second the other. Queue n of one end talks with queue n of the other
//! through two bounded SPSC rings of packets; nothing is copied. An end is free again when its port and queues
//! are dropped, and the wire when both are. While the other end is not open, the link is down and frames sent are dropped
//! by name. The first to open chooses queues, ring and MTU.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::mbuf_ring::{MbufReceiver, MbufSender, mbuf_ring};
use super::{DROP_OVERSIZE, DROP_RUNT, FRAME_OVERHEAD, admit};
use crate::counters::{Counters, QueueStats};
use crate::mac::MacAddr;
use crate::mbuf::{Burst, Mbuf};
use crate::pool::{Pool, PoolHandle};
use crate::port::{
    LinkState, MTU_DEFAULT, MTU_MAX, OpenOptions, Port, PortError, PortInfo, PortStats, Queue, QueuesOnce,
};
use crate::time::Instant;
use crate::url::Url;

const RING_DEFAULT: usize = 1024;
const DROP_NO_PEER: usize = 2;
const DROPS: &[&str] = &[DROP_RUNT.1, DROP_OVERSIZE.1, "tx_no_peer"];

/// What an end sends to and receives from, per queue.
struct Half {
    tx: MbufSender,
    rx: MbufReceiver,
}

/// Two ends and the rings between them.
struct Wire {
    queues: usize,
    mtu: usize,
    /// Whether each end is open.
    open: [AtomicBool; 2],
    /// The halves that are not in use, per end and queue.
    parked: Mutex<[Vec<Option<Half>>; 2]>,
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
    url.finish()?;

    let mut wires = wires();
    wires.retain(|_, wire| wire.strong_count() > 0);
    let wire = match wires.get(name).and_then(Weak::upgrade) {
        Some(wire) => wire,
        None => {
            let mtu = mtu.or(options.mtu).unwrap_or(MTU_DEFAULT);
            let wire = Arc::new(Wire::new(queues.unwrap_or(options.queues.max(1)), ring, mtu));
            wires.insert(name.to_owned(), Arc::downgrade(&wire));
            wire
        }
    };
    if let Some(wanted) = queues.filter(|queues| *queues != wire.queues) {
        let mend = format!("write queues={} as its other end did, or nothing", wire.queues);
        return Err(url.bad(format!("queues={wanted} on an existing wire"), mend));
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
    Ok(Box::new(MemoryPort { url: url.text().to_owned(), mac, once, end, counters: Vec::new() }))
}

impl Wire {
    fn new(queues: usize, ring: usize, mtu: usize) -> Wire {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for _ in 0..queues {
            let (to_second, from_first) = mbuf_ring(ring);
            let (to_first, from_second) = mbuf_ring(ring);
            first.push(Some(Half { tx: to_second, rx: from_second }));
            second.push(Some(Half { tx: to_first, rx: from_first }));
        }
        Wire {
            queues,
            mtu,
            open: [AtomicBool::new(false), AtomicBool::new(false)],
            parked: Mutex::new([first, second]),
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
}

impl Drop for End {
    fn drop(&mut self) {
        // Release: pairs with the swap in `open`; the halves were parked before.
        self.wire.open[self.end].store(false, Ordering::Release);
    }
}

struct MemoryPort {
    url: String,
    mac: MacAddr,
    once: QueuesOnce,
    end: Arc<End>,
    counters: Vec<Arc<Counters>>,
}

impl Port for MemoryPort {
    fn info(&self) -> PortInfo {
        PortInfo::in_process(&self.url, "memory", self.mac, self.end.wire.mtu, self.once.max())
    }

    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError> {
        let n = pools.len();
        self.once.check(n)?;
        let mut parked = self.end.wire.parked();
        let mut queues: Vec<Box<dyn Queue>> = Vec::new();
        for (index, slot) in parked[self.end.end].iter_mut().enumerate().take(n) {
            let mut half = slot.take().expect("an end's halves are parked while it has no queues");
            // What was sent to the last holder of this end is not ours.
            half.rx.clear();
            let counters = Counters::new(DROPS);
            self.counters.push(counters.clone());
            let frame_max = self.end.wire.mtu + FRAME_OVERHEAD;
            queues.push(Box::new(MemoryQueue {
                half: Some(half),
                index,
                frame_max,
                end: self.end.clone(),
                counters,
            }));
        }
        self.once.done();
        Ok(queues)
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
}

impl Queue for MemoryQueue {
    fn rx_burst(&mut self, _now: Instant, _pool: &mut Pool, burst: &mut Burst) -> usize {
        let Some(half) = &mut self.half else { return 0 };
        let before = burst.len();
        half.rx.pop_burst(burst);
        let new = &burst[before..];
        new.iter().for_each(Mbuf::prefetch);
        self.counters.rx(new.len(), new.iter().map(Mbuf::len).sum());
        new.len()
    }

    fn tx_burst(&mut self, _now: Instant, burst: &mut Burst) -> usize {
        let Some(half) = &mut self.half else { return 0 };
        let given = burst.len();
        let mut bytes = admit(burst, self.frame_max, &self.counters);
        if !self.end.peer_open() {
            self.counters.dropped(DROP_NO_PEER, burst.len() as u64);
            burst.clear();
            return given;
        }
        let sent = half.tx.push_burst(burst);
        if !burst.is_empty() {
            self.counters.tx_full.add(1);
            bytes -= burst.iter().map(Mbuf::len).sum::<usize>();
        }
        self.counters.tx(sent, bytes);
        given - burst.len()
    }

    fn stats(&self) -> QueueStats {
        self.counters.snapshot()
    }
}

impl Drop for MemoryQueue {
    fn drop(&mut self) {
        // Before `end`: whoever opens this end next finds the half.
        self.end.wire.parked()[self.end.end][self.index] = self.half.take();
    }
}
