//! Buffers go home: from the owner, from other cores, from any thread, and after the pool is gone.

use pmd::{BURST, Burst, CoreSlot, Mbuf, MbufList, NoBuffers, Pool, PoolConfig};

fn pool(buffers: usize) -> Pool {
    PoolConfig::new("test", buffers).build().unwrap().claim()
}

#[test]
fn an_empty_pool_says_so_and_is_full_again_after_the_drop() {
    let mut pool = pool(40);
    let mut held = Vec::new();
    while let Some(mbuf) = pool.alloc() {
        held.push(mbuf);
    }
    assert_eq!((held.len(), pool.available(), pool.handle().in_use()), (40, 0, 40));
    assert_eq!(held[0].split_to(0, &mut pool).unwrap_err(), NoBuffers);
    drop(held);
    assert_eq!((pool.available(), pool.handle().in_use()), (40, 0));
}

#[test]
fn a_burst_takes_what_there_is() {
    let mut pool = pool(40);
    let (mut first, mut second) = (Burst::new(), Burst::new());
    assert_eq!(pool.alloc_burst(&mut first, 100), BURST);
    assert_eq!(pool.alloc_burst(&mut second, 100), 8);
    assert_eq!(pool.alloc_burst(&mut first, 1), 0, "no room");
    first.clear();
    assert_eq!(pool.alloc_burst(&mut second, 10), 10);
}

#[test]
fn no_two_packets_share_a_byte() {
    let mut pool = pool(64);
    let mut held: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc()).collect();
    for (i, mbuf) in held.iter_mut().enumerate() {
        let room = mbuf.tailroom();
        mbuf.append(room).unwrap().fill(i as u8);
        let head = mbuf.headroom();
        mbuf.prepend(head).unwrap().fill(i as u8);
    }
    for (i, mbuf) in held.iter().enumerate() {
        assert_eq!(mbuf.len(), pmd::HEADROOM + pmd::DATA_ROOM);
        assert!(mbuf.data().iter().all(|byte| *byte == i as u8));
    }
}

/// Packets made here, checked and dropped by two core threads and two ordinary ones; none is lost, none is damaged.
#[test]
fn buffers_come_home_from_every_kind_of_thread() {
    const ROUNDS: usize = 20_000;
    let mut pool = pool(256);
    let stats = pool.handle();
    std::thread::scope(|scope| {
        let mut senders = Vec::new();
        for core in [true, true, false, false] {
            let (tx, rx) = std::sync::mpsc::sync_channel::<Mbuf>(64);
            senders.push(tx);
            scope.spawn(move || {
                let _slot = core.then(|| CoreSlot::register().unwrap());
                for mbuf in rx {
                    let bytes = mbuf.data();
                    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
                }
            });
        }
        for round in 0..ROUNDS {
            let start = std::time::Instant::now();
            let mut mbuf = loop {
                match pool.alloc() {
                    Some(mbuf) => break mbuf,
                    None => std::thread::yield_now(),
                }
                assert!(start.elapsed().as_secs() < 10, "no buffer comes home: {:?}", pool.handle());
            };
            mbuf.append(64).unwrap().fill(round as u8);
            if round % 3 == 0 {
                let bytes = [round as u8; 3000];
                mbuf = match pool.copy_from(&bytes) {
                    Some(long) => long,
                    None => mbuf,
                };
            }
            senders[round % 4].send(mbuf).unwrap();
        }
    });
    assert_eq!(pool.available(), 256);
    assert_eq!(stats.in_use(), 0);
}

/// A slot that changes hands keeps its ring: the next thread goes on where the last one stopped.
#[test]
fn a_core_slot_can_be_reused() {
    let mut pool = pool(32);
    for round in 0..50 {
        let mut burst = Burst::new();
        assert_eq!(pool.alloc_burst(&mut burst, BURST), BURST, "round {round}");
        std::thread::spawn(move || {
            let _slot = CoreSlot::register().unwrap();
            drop(burst);
        })
        .join()
        .unwrap();
    }
    assert_eq!(pool.available(), 32);
}

/// The pool goes first. Its memory stays readable and writable until the last packet is gone, wherever that is.
#[test]
fn packets_outlive_their_pool() {
    for core in [false, true] {
        let mut pool = pool(128);
        let stats = pool.handle();
        let held: Vec<Mbuf> = std::iter::from_fn(|| pool.copy_from(&[7; 4000])).collect();
        assert_eq!(held.len(), 42);
        drop(pool);
        assert_eq!(stats.in_use(), 126);
        std::thread::spawn(move || {
            let _slot = core.then(|| CoreSlot::register().unwrap());
            for mut mbuf in held {
                assert!(mbuf.segments().flatten().all(|byte| *byte == 7));
                mbuf.data_mut().fill(9);
            }
        })
        .join()
        .unwrap();
        assert_eq!(stats.in_use(), 0);
    }
}

/// Pools dropped while other threads return buffers: every interleaving must end without a fault (run under a
/// sanitizer it shows touched-after-free).
#[test]
fn a_pool_may_vanish_while_buffers_return() {
    for round in 0..200 {
        let mut pool = pool(64);
        let mut halves = [MbufList::new(), MbufList::new()];
        for i in 0..64 {
            halves[i % 2].push_back(pool.copy_from(&[i as u8; 60]).unwrap());
        }
        let stats = pool.handle();
        std::thread::scope(|scope| {
            for (half, mut list) in halves.into_iter().enumerate() {
                scope.spawn(move || {
                    let _slot = (half == 0).then(|| CoreSlot::register().unwrap());
                    while let Some(mbuf) = list.pop_front() {
                        assert_eq!(mbuf.len(), 60);
                    }
                });
            }
            if round % 2 == 0 {
                pool.available();
            }
            drop(pool);
        });
        assert_eq!(stats.in_use(), 0);
    }
}

#[test]
fn the_owner_may_drop_packets_after_the_pool() {
    let mut pool = pool(4);
    let mbuf = pool.copy_from(b"still here").unwrap();
    drop(pool);
    assert_eq!(mbuf.data(), b"still here");
}

#[test]
fn lists_keep_order_bytes_and_buffers() {
    let mut pool = pool(64);
    let (mut list, mut other) = (MbufList::new(), MbufList::new());
    for n in 1..=3usize {
        list.push_back(pool.copy_from(&vec![n as u8; n * 1000]).unwrap());
        other.push_back(pool.copy_from(&[10 + n as u8]).unwrap());
    }
    assert_eq!((list.len(), list.bytes(), list.segments()), (3, 6000, 5));
    list.append(&mut other);
    assert!(other.is_empty() && other.pop_front().is_none());
    list.push_front(pool.copy_from(&[0]).unwrap());
    assert_eq!(list.front().unwrap().data(), [0]);
    let order: Vec<u8> = std::iter::from_fn(|| list.pop_front()).map(|mbuf| mbuf.data()[0]).collect();
    assert_eq!(order, [0, 1, 2, 3, 11, 12, 13]);
    assert_eq!((list.len(), list.bytes(), list.segments()), (0, 0, 0));
    list.push_back(pool.copy_from(&[1; 5000]).unwrap());
    drop(list);
    assert_eq!(pool.available(), 64);
}

#[test]
fn sizes_that_cannot_be_are_refused_by_name() {
    let error = PoolConfig::new("none", 0).build().unwrap_err().to_string();
    assert_eq!(error, "pool \"none\" cannot have 0 buffers; choose 1 to 16777216");
}

#[test]
fn a_shared_pool_works_like_a_private_one() {
    let mut pool = PoolConfig { shared: true, ..PoolConfig::new("shared", 16) }.build().unwrap().claim();
    let mbuf = pool.copy_from(&[5; 10_000]).unwrap();
    assert_eq!((mbuf.segment_count(), pool.available()), (6, 10));
    assert!(pool.handle().hugepages().contains("pages"));
}
