//! A queue of both directions, and the device that queues and port share.
//!
//! A device runs until the last of its queues is dropped. Only then it is halted and kept from memory, and the rings, which queues leave
//! behind, give their buffers back. It stays open, and tells what it dropped, until its port is gone too.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::bar::Bar;
use super::bus::Bus;
use super::chip::{Chip, Link};
use super::ring;
use super::rx::RxRing;
use super::tx::TxRing;
use crate::counters::{Counters, QueueStats};
use crate::drivers::{DROP_OVERSIZE, DROP_RUNT, admit};
use crate::mbuf::{Burst, Mbuf};
use crate::pool::Pool;
use crate::port::Queue;
use crate::time::Instant;

pub(crate) const DROP_LINK_DOWN: usize = 2;
const DROP_NO_HEADROOM: usize = 4;
/// What a queue can drop; [`super::rx::DROP_BAD_LENGTH`] is the fourth.
pub(crate) const DROPS: &[&str] =
    &[DROP_RUNT.1, DROP_OVERSIZE.1, "tx_link_down", "rx_bad_length", "tx_no_headroom"];

/// How often a queue looks at the link: one read of a register, about a microsecond.
const LINK_PERIOD: Duration = Duration::from_millis(10);

/// A running device.
pub(crate) struct Device<C: Chip> {
    pub chip: C,
    pub bar: Bar,
    /// Before the bus: mappings end while it is still open.
    shared: Mutex<Shared>,
    pub bus: Bus,
}

/// What its queues and its port share.
#[derive(Default)]
struct Shared {
    /// As it was started with, and those of them that are still there.
    queues: usize,
    left: usize,
    stopped: bool,
    /// Rings of those that are not.
    retired: Vec<(RxRing, TxRing)>,
    /// What the device dropped, by [`Chip::DROPS`].
    drops: Vec<u64>,
}

impl<C: Chip> Device<C> {
    pub(crate) fn new(chip: C, bar: Bar, bus: Bus) -> Device<C> {
        Device { chip, bar, shared: Mutex::default(), bus }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It runs, with so many queues.
    pub(crate) fn runs(&self, queues: usize) {
        let mut shared = self.shared();
        (shared.queues, shared.left) = (queues, queues);
    }

    /// What it dropped so far, by [`Chip::DROPS`].
    pub(crate) fn drops(&self) -> Vec<u64> {
        let mut shared = self.shared();
        self.count_drops(&mut shared);
        shared.drops.clone()
    }

    /// Adds what the registers count, which are zero again then.
    fn count_drops(&self, shared: &mut Shared) {
        shared.drops.resize(C::DROPS.len(), 0);
        if self.chip.link(&self.bar) != Link::Gone {
            self.chip.drops(&self.bar, shared.queues, &mut shared.drops);
        }
    }

    /// Halts it, once.
    fn stop(&self, shared: &mut Shared) {
        if !std::mem::replace(&mut shared.stopped, true) {
            self.chip.halt(&self.bar);
            self.bus.stop_dma();
        }
    }

    /// A queue is dropped, and leaves its rings.
    fn retire(&self, rings: (RxRing, TxRing)) {
        let mut shared = self.shared();
        shared.retired.push(rings);
        shared.left -= 1;
        if shared.left == 0 {
            self.count_drops(&mut shared);
            self.stop(&mut shared);
            shared.retired.clear();
        }
    }
}

impl<C: Chip> Drop for Device<C> {
    fn drop(&mut self) {
        self.stop(&mut self.shared());
    }
}

pub(crate) struct IntelQueue<C: Chip> {
    device: Arc<Device<C>>,
    index: usize,
    /// Taken only by `drop`.
    rings: Option<(RxRing, TxRing)>,
    counters: Arc<Counters>,
    frame_max: usize,
    /// The device puts tags into frames.
    inserts_vlan: bool,
    link: Link,
    /// When to look at the link again.
    look_at: Instant,
    /// Connected with the queue's interrupt vector.
    interrupt: Option<OwnedFd>,
}

/// What a queue is made of.
pub(crate) struct QueueParts {
    pub index: usize,
    pub rx: RxRing,
    pub tx: TxRing,
    pub counters: Arc<Counters>,
    pub frame_max: usize,
    pub inserts_vlan: bool,
    pub interrupt: Option<OwnedFd>,
}

impl<C: Chip> IntelQueue<C> {
    pub(crate) fn new(device: Arc<Device<C>>, parts: QueueParts) -> IntelQueue<C> {
        let QueueParts { index, rx, tx, counters, frame_max, inserts_vlan, interrupt } = parts;
        let (link, look_at) = (Link::Down, Instant::ZERO);
        IntelQueue {
            device,
            index,
            rings: Some((rx, tx)),
            counters,
            frame_max,
            inserts_vlan,
            link,
            look_at,
            interrupt,
        }
    }

    /// Whether frames can pass, as of the last look.
    #[inline]
    fn look(&mut self, now: Instant) -> Link {
        if now >= self.look_at && self.link != Link::Gone {
            self.link = self.device.chip.link(&self.device.bar);
            self.look_at = now + LINK_PERIOD;
        }
        self.link
    }

    /// Tags of frames that another port took out, where this device does not put them in.
    #[cold]
    fn insert_tags(&self, burst: &mut Burst) {
        let before = burst.len();
        burst.retain(insert_tag);
        self.counters.dropped(DROP_NO_HEADROOM, (before - burst.len()) as u64);
    }

    #[cold]
    fn drop_all(&self, burst: &mut Burst, given: usize) -> usize {
        self.counters.dropped(DROP_LINK_DOWN, burst.len() as u64);
        burst.clear();
        given
    }
}

impl<C: Chip> Queue for IntelQueue<C> {
    fn rx_burst(&mut self, now: Instant, pool: &mut Pool, burst: &mut Burst) -> usize {
        if self.look(now) == Link::Gone {
            return 0;
        }
        let Some((rx, tx)) = &mut self.rings else { return 0 };
        let before = burst.len();
        let bytes = rx.receive::<C>(burst, &self.counters);
        let received = burst.len() - before;
        self.counters.rx(received, bytes);
        if rx.hungry()
            && let Some(tail) = rx.refill(pool)
        {
            ring::publish();
            self.device.bar.write(C::rx_tail(self.index), tail);
        }
        if received == 0 {
            // An idle queue does not sit on what it has sent; and an empty pool may get some of its own back.
            tx.reclaim();
        }
        received
    }

    fn tx_burst(&mut self, now: Instant, burst: &mut Burst) -> usize {
        let given = burst.len();
        if !self.inserts_vlan && burst.iter().any(|frame| frame.meta().vlan.is_some()) {
            self.insert_tags(burst);
        }
        let offered = admit(burst, self.frame_max, &self.counters);
        if !matches!(self.look(now), Link::Up(_)) {
            return self.drop_all(burst, given);
        }
        let Some((_, tx)) = &mut self.rings else { return 0 };
        tx.reclaim();
        let admitted = burst.len();
        if let Some(tail) = tx.send::<C>(burst, &self.counters) {
            ring::publish();
            self.device.bar.write(C::tx_tail(self.index), tail);
        }
        let left: usize = burst.iter().map(Mbuf::len).sum();
        self.counters.tx(admitted - burst.len(), offered - left);
        if !burst.is_empty() {
            self.counters.tx_full.add(1);
        }
        given - burst.len()
    }

    fn arm(&mut self) -> bool {
        if self.interrupt.is_none() {
            return false;
        }
        self.device.chip.arm(&self.device.bar, self.index);
        // What came before the interrupt was armed raises none: look once more. The read of the register in `arm` has waited for it.
        !self.rings.as_ref().is_some_and(|(rx, _)| rx.waits())
    }

    fn disarm(&mut self) {
        let Some(interrupt) = &self.interrupt else { return };
        self.device.chip.disarm(&self.device.bar, self.index);
        let mut count = 0u64;
        // SAFETY: eight bytes are written into `count`. The eventfd does not block.
        unsafe { libc::read(interrupt.as_raw_fd(), std::ptr::from_mut(&mut count).cast(), 8) };
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.interrupt.as_ref().map(AsFd::as_fd)
    }

    fn stats(&self) -> QueueStats {
        self.counters.snapshot()
    }
}

/// Puts the tag that the frame's metadata has behind its addresses. False when there is no room.
fn insert_tag(frame: &mut Mbuf) -> bool {
    let Some(tag) = frame.meta().vlan else { return true };
    if frame.data().len() < 12 || frame.prepend(4).is_none() {
        return false;
    }
    let data = frame.data_mut();
    data.copy_within(4..16, 0);
    data[12..14].copy_from_slice(&[0x81, 0x00]);
    data[14..16].copy_from_slice(&tag.to_be_bytes());
    frame.meta_mut().vlan = None;
    true
}

impl<C: Chip> Drop for IntelQueue<C> {
    fn drop(&mut self) {
        self.device.chip.disarm(&self.device.bar, self.index);
        if let Some(rings) = self.rings.take() {
            self.device.retire(rings);
        }
    }
}
