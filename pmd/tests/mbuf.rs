//! Packets against a model: whatever is done to one, its bytes are those of a Vec to which the same was done, and every
//! buffer is home at the end.

use std::collections::VecDeque;

use pmd::{DATA_ROOM, HEADROOM, Mbuf, MbufList, NoBuffers, Pool, PoolConfig};
use proptest::prelude::*;

const BUFFERS: usize = 48;

fn pool() -> Pool {
    PoolConfig::new("model", BUFFERS).build().unwrap().claim()
}

fn bytes(mbuf: &Mbuf) -> Vec<u8> {
    mbuf.segments().flatten().copied().collect()
}

#[derive(Debug, Clone)]
enum Op {
    Prepend(usize),
    Append(usize),
    Advance(usize),
    Truncate(usize),
    Extend(usize),
    Chain(usize),
    SplitTo(usize),
    PullUp(usize),
    Overwrite,
    Enqueue,
    Dequeue,
}

fn op() -> impl Strategy<Value = Op> {
    let small = || prop_oneof![0usize..4, 0usize..200, 0usize..6000, Just(DATA_ROOM), Just(HEADROOM)];
    prop_oneof![
        (0usize..140).prop_map(Op::Prepend),
        (0usize..2000).prop_map(Op::Append),
        small().prop_map(Op::Advance),
        small().prop_map(Op::Truncate),
        small().prop_map(Op::Extend),
        small().prop_map(Op::Chain),
        small().prop_map(Op::SplitTo),
        (0usize..2000).prop_map(Op::PullUp),
        Just(Op::Overwrite),
        Just(Op::Enqueue),
        Just(Op::Dequeue),
    ]
}

/// A packet, its model, and the packets set aside with theirs.
struct World {
    pool: Pool,
    packet: Mbuf,
    model: Vec<u8>,
    list: MbufList,
    list_model: VecDeque<Vec<u8>>,
    stamp: u8,
}

impl World {
    fn fresh(&mut self, len: usize) -> Vec<u8> {
        self.stamp = self.stamp.wrapping_add(1);
        (0..len).map(|i| self.stamp ^ i as u8).collect()
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Prepend(n) => {
                let (new, room) = (self.fresh(n), self.packet.headroom());
                match self.packet.prepend(n) {
                    Some(bytes) => {
                        bytes.copy_from_slice(&new);
                        self.model.splice(0..0, new);
                    }
                    None => assert!(n > room),
                }
            }
            Op::Append(n) => {
                let (new, room) = (self.fresh(n), self.packet.tailroom());
                match self.packet.append(n) {
                    Some(bytes) => {
                        bytes.copy_from_slice(&new);
                        self.model.extend(new);
                    }
                    None => assert!(n > room),
                }
            }
            Op::Advance(n) => {
                self.packet.advance(n);
                self.model.drain(..n.min(self.model.len()));
            }
            Op::Truncate(n) => {
                self.packet.truncate(n);
                self.model.truncate(n);
            }
            Op::Extend(n) => {
                let new = self.fresh(n);
                match self.packet.extend_from_slice(&new, &mut self.pool) {
                    Ok(()) => self.model.extend(new),
                    Err(NoBuffers) => assert!(n.div_ceil(DATA_ROOM) > self.pool.available()),
                }
            }
            Op::Chain(n) => {
                let new = self.fresh(n);
                if let Some(tail) = self.pool.copy_from(&new) {
                    self.packet.chain(tail);
                    self.model.extend(new);
                }
            }
            Op::SplitTo(n) => match self.packet.split_to(n, &mut self.pool) {
                Ok(front) => {
                    let rest = self.model.split_off(n.min(self.model.len()));
                    let front_model = std::mem::replace(&mut self.model, rest);
                    assert_eq!(front.meta().queue, 7, "both sides keep the metadata");
                    self.list.push_back(front);
                    self.list_model.push_back(front_model);
                }
                Err(NoBuffers) => assert_eq!(self.pool.available(), 0),
            },
            Op::PullUp(n) => {
                let room = self.pool.available() > 0;
                let contiguous = n <= self.packet.data().len();
                let done = self.packet.pull_up(n, &mut self.pool);
                assert_eq!(done, contiguous || (n <= self.model.len() && n <= DATA_ROOM && room));
                assert!(!done || self.packet.data().len() >= n);
            }
            Op::Overwrite => {
                let new = self.fresh(self.model.len());
                let mut at = 0;
                for segment in self.packet.segments_mut() {
                    segment.copy_from_slice(&new[at..at + segment.len()]);
                    at += segment.len();
                }
                self.model = new;
            }
            Op::Enqueue => {
                let Some(mut new) = self.pool.alloc() else { return };
                new.meta_mut().queue = 7;
                self.list.push_back(std::mem::replace(&mut self.packet, new));
                self.list_model.push_back(std::mem::take(&mut self.model));
            }
            Op::Dequeue => {
                let Some(mut packet) = self.list.pop_front() else { return };
                packet.meta_mut().queue = 7;
                self.packet = packet;
                self.model = self.list_model.pop_front().unwrap();
            }
        }
    }

    fn check(&mut self) {
        assert_eq!(bytes(&self.packet), self.model);
        assert_eq!((self.packet.len(), self.packet.is_empty()), (self.model.len(), self.model.is_empty()));
        assert_eq!(self.packet.segments().count(), self.packet.segment_count());
        assert!(
            self.packet.segments().skip(1).all(|segment| !segment.is_empty()),
            "only the first may be empty"
        );
        assert_eq!(self.packet.meta().queue, 7);
        for (offset, len) in [(0, 10), (self.model.len() / 2, 3000), (self.model.len() + 1, 5)] {
            let mut out = vec![0; len];
            let n = self.packet.copy_to(offset, &mut out);
            assert_eq!(out[..n], self.model[offset.min(self.model.len())..][..n]);
            assert_eq!(n, len.min(self.model.len().saturating_sub(offset)));
        }
        let listed: usize = self.list_model.iter().map(Vec::len).sum();
        assert_eq!((self.list.len(), self.list.bytes()), (self.list_model.len(), listed));
        assert_eq!(self.list.front().map(bytes), self.list_model.front().cloned());
        // No buffer is in two places, and none in none.
        let out = self.packet.segment_count() + self.list.segments();
        assert_eq!(self.pool.available() + out, BUFFERS);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_packet_is_its_bytes(ops in proptest::collection::vec(op(), 1..60)) {
        let mut pool = pool();
        let mut packet = pool.alloc().unwrap();
        packet.meta_mut().queue = 7;
        let (list, list_model) = (MbufList::new(), VecDeque::new());
        let mut world = World { pool, packet, model: Vec::new(), list, list_model, stamp: 0 };
        for op in &ops {
            world.apply(op);
            world.check();
        }
        let World { mut pool, packet, list, list_model, .. } = world;
        for (packet, model) in std::iter::from_fn({ let mut list = list; move || list.pop_front() }).zip(list_model) {
            prop_assert_eq!(bytes(&packet), model);
        }
        drop(packet);
        prop_assert_eq!(pool.available(), BUFFERS);
    }
}

#[test]
fn a_fresh_packet_has_its_headroom() {
    let mut pool = pool();
    let mut mbuf = pool.alloc().unwrap();
    assert_eq!((mbuf.headroom(), mbuf.tailroom(), mbuf.len()), (HEADROOM, DATA_ROOM, 0));
    mbuf.append(3).unwrap().copy_from_slice(b"abc");
    mbuf.meta_mut().rss_hash = 9;
    drop(mbuf);
    let again = pool.alloc().unwrap();
    assert_eq!(
        (again.len(), again.meta().rss_hash, again.headroom()),
        (0, 0, HEADROOM),
        "nothing is left over"
    );
}

#[test]
fn splitting_moves_whole_segments_and_copies_only_the_shared_one() {
    let mut pool = pool();
    let mut mbuf = pool.copy_from(&[1; 3 * DATA_ROOM]).unwrap();
    let second = mbuf.segments().nth(1).unwrap().as_ptr();
    let third = mbuf.segments().nth(2).unwrap().as_ptr();
    let front = mbuf.split_to(2 * DATA_ROOM + 100, &mut pool).unwrap();
    assert_eq!(front.segments().nth(1).unwrap().as_ptr(), second, "moved");
    assert_eq!(mbuf.data().as_ptr(), third.wrapping_add(100), "stayed");
    assert_eq!((front.segment_count(), mbuf.segment_count(), pool.available()), (3, 1, BUFFERS - 4));
}

#[test]
fn data_begins_where_a_umem_wants_it() {
    let mut pool = pool();
    let mut mbuf = pool.alloc().unwrap();
    let at = mbuf.append(1).unwrap().as_ptr() as usize;
    assert_eq!(at % pmd::STRIDE, 256, "XDP_PACKET_HEADROOM");
}
