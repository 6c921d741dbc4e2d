//! Bursts through a queue of each chip. Registers are plain memory, and the test writes descriptors back as the device does: this is the data
//! side alone, with no model in it for whoever counts the instructions of `tx_burst` and `rx_burst`.

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::bar::Bar;
use super::bus::Bus;
use super::chip::{Chip, TX_DONE, TX_REPORT};
use super::e1000e::E1000e;
use super::igb::Igb;
use super::ixgbe::Ixgbe;
use super::queue::{DROPS, Device, IntelQueue, QueueParts};
use super::ring::{DESCRIPTOR, Descriptors, Seen};
use super::rx::{RxConfig, RxRing};
use super::tx::{COPY, TxRing};
use super::vfio::Mapping;
use crate::counters::Counters;
use crate::drivers::FRAME_OVERHEAD;
use crate::mbuf::{BURST, Burst};
use crate::pool::{Pool, PoolConfig};
use crate::port::{MTU_DEFAULT, Queue};
use crate::time::Clock;

const FRAMES: usize = 20_480;
const FRAME: usize = 64;
const POOL: usize = 4096;
const RING: usize = 512;
const REGISTERS: usize = 512 << 10;
/// Where each of the chips says that its link is up.
const LINK_UP: [(usize, u32); 2] = [(0x0008, 1 << 1), (0x42a4, 1 << 30)];
/// Written back: done, and a frame's last piece.
const WHOLE: u64 = 3;

/// A queue, and what the device has of it.
struct Bench<C: Chip> {
    device: Arc<Device<C>>,
    queue: IntelQueue<C>,
    pool: Pool,
    received: Descriptors,
    sent: Descriptors,
    /// The device's places in them.
    heads: [usize; 2],
}

impl<C: Chip> Bench<C> {
    fn start() -> Bench<C> {
        let memory = OpenOptions::new().read(true).write(true).open("/dev/zero").unwrap();
        let bar = Bar::map(memory.as_fd(), 0, REGISTERS).unwrap();
        LINK_UP.iter().for_each(|(register, up)| bar.write(*register, *up));
        let device = Arc::new(Device::new(C::of(C::DEVICES[0].0), bar, Bus::Model));
        let pool = PoolConfig::new("bursts", POOL).build().unwrap().claim();
        let seen = Seen::new(Mapping::of_pool(&pool.handle()));
        let [received, sent] = [(); 2].map(|()| Mapping::of_own(RING * DESCRIPTOR));
        let ring = |mapping: &Arc<Mapping>| Descriptors::new(mapping.clone(), RING);
        let frame_max = MTU_DEFAULT + FRAME_OVERHEAD;
        let config = RxConfig {
            queue: 0,
            buffer_len: C::rx_buffer(frame_max),
            frame_max,
            pool_capacity: POOL,
            memory: seen.clone(),
        };
        let parts = QueueParts {
            index: 0,
            rx: RxRing::new(ring(&received), config),
            tx: TxRing::new(ring(&sent), vec![seen], Mapping::of_own(RING * COPY)),
            counters: Counters::new(DROPS),
            frame_max,
            inserts_vlan: false,
            interrupt: None,
        };
        device.runs(1);
        let queue = IntelQueue::new(device.clone(), parts);
        Bench { device, queue, pool, received: ring(&received), sent: ring(&sent), heads: [0; 2] }
    }

    /// The device sends all that it was given; returns how many frames that was.
    fn transmit(&mut self) -> usize {
        let (tail, mut frames) = (self.device.bar.read(C::tx_tail(0)) as usize, 0);
        while self.heads[0] != tail {
            let word = self.sent.read(self.heads[0], 1);
            assert_eq!(word as u16 as usize, FRAME, "the length of a whole frame");
            if word & TX_REPORT != 0 {
                self.sent.write(self.heads[0], [0, TX_DONE]);
            }
            self.heads[0] = self.sent.wrap(self.heads[0] + 1);
            frames += 1;
        }
        frames
    }

    /// The device receives a burst, for which it has buffers.
    fn receive(&mut self) {
        let tail = self.device.bar.read(C::rx_tail(0)) as usize;
        for _ in 0..BURST {
            assert_ne!(self.heads[1], tail, "the ring is kept full");
            self.received.write(self.heads[1], [0, WHOLE | (FRAME as u64) << 32]);
            self.heads[1] = self.received.wrap(self.heads[1] + 1);
        }
    }

    fn pass(&mut self, frames: usize) -> (usize, usize) {
        let (mut sent, mut received) = (0, 0);
        let mut burst = Burst::new();
        while sent < frames {
            self.pool.alloc_burst(&mut burst, BURST);
            for mbuf in &mut burst {
                mbuf.append(FRAME).unwrap().fill(2);
            }
            assert_eq!(self.queue.tx_burst(Clock::now(), &mut burst), BURST);
            sent += self.transmit();
            self.receive();
            received += self.queue.rx_burst(Clock::now(), &mut self.pool, &mut burst);
            assert!(burst.drain(..).all(|frame| frame.len() == FRAME));
        }
        (sent, received)
    }
}

/// Counting begins here.
#[inline(never)]
fn steady_from_here() {
    std::hint::black_box(());
}

fn bursts<C: Chip>() {
    let mut bench = Bench::<C>::start();
    assert_eq!(bench.queue.rx_burst(Clock::now(), &mut bench.pool, &mut Burst::new()), 0);
    bench.pass(64 * BURST);
    steady_from_here();
    let (sent, received) = bench.pass(FRAMES);
    println!("sent={sent} received={received}");
    assert_eq!((sent, received), (FRAMES, FRAMES));
    let stats = bench.queue.stats();
    assert_eq!((stats.tx_full, stats.tx_copied, stats.drops.total()), (0, 0, 0));
    drop((bench.queue, bench.device));
    assert_eq!(bench.pool.available(), POOL);
}

#[test]
fn igb() {
    bursts::<Igb>();
}

#[test]
fn e1000e() {
    bursts::<E1000e>();
}

#[test]
fn ixgbe() {
    bursts::<Ixgbe>();
}
