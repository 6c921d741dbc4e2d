use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::flow::HashKeys;
use crate::rcu::Reader;

const KEYS: HashKeys = HashKeys(11, 12);

thread_local! {
    static WORK: Cell<u64> = const { Cell::new(0) };
}

/// Called for every cache line of a table that this thread looks at.
pub(super) fn work() {
    WORK.set(WORK.get() + 1);
}

fn addr(ip: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::from((ip, port))
}

/// All four kinds, and few enough of each part for many near misses.
fn key(n: u32) -> Key {
    let ip = if n.is_multiple_of(3) { [0, 0, 0, 0] } else { [10, 0, 0, 1] };
    let peer = n.is_multiple_of(2).then(|| addr([10, 1, (n >> 8) as u8, n as u8], 9));
    Key { local: addr(ip, 1000 + (n / 6 % 50_000) as u16), peer }
}

type Numbers = Table<u64>;

fn table(slots: usize) -> Arc<Numbers> {
    Arc::new(Table::with_hash(FlowHash::new(KEYS), slots).unwrap())
}

fn kind(key: &Key) -> usize {
    key.flow().kind(key.local.ip())
}

fn bind<T: Send + Sync + 'static>(table: &Table<T>, key: &Key, value: T) -> Option<SocketId> {
    let id = table.reserve()?;
    table.publish(id, &key.flow(), kind(key), Arc::new(value));
    Some(id)
}

fn take<T: Send + Sync + 'static>(table: &Table<T>, key: &Key, id: SocketId) -> Unpublished<T> {
    table.unpublish(id, &key.flow(), kind(key))
}

fn close<T: Send + Sync + 'static>(table: &Arc<Table<T>>, key: &Key, id: SocketId) {
    let of = table.clone();
    take(table, key, id).retire(move |quiesced| of.recycle(quiesced));
}

/// For tests without readers: as if a grace period had passed.
fn close_now<T: Send + Sync + 'static>(table: &Table<T>, key: &Key, id: SocketId) {
    // SAFETY: the calling test has no readers.
    table.recycle(unsafe { take(table, key, id).quiesced() });
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(Duration::from_micros(100));
    }
}

/// The most specific of what is bound for a datagram, by four look-ups in a map.
fn expected(model: &HashMap<Key, (SocketId, u64)>, local: SocketAddr, peer: SocketAddr) -> Option<u64> {
    let any = addr([0, 0, 0, 0], local.port());
    let kinds = [(local, Some(peer)), (any, Some(peer)), (local, None), (any, None)];
    kinds.into_iter().find_map(|(local, peer)| Some(model.get(&Key { local, peer })?.1))
}

fn agrees_with_a_hash_map(hash: FlowHash, keys: u32, rounds: u64) {
    let table: Table<u64> = Table::with_hash(hash, keys as usize).unwrap();
    let mut model: HashMap<Key, (SocketId, u64)> = HashMap::new();
    let mut random = fastrand::Rng::with_seed(7);
    for n in 0..rounds {
        let chosen = key(random.u32(..keys));
        match model.remove(&chosen) {
            Some((id, _)) => close_now(&table, &chosen, id),
            None => {
                let id = bind(&table, &chosen, n).expect("a slot for each key");
                model.insert(chosen, (id, n));
            }
        }
        assert_eq!(table.len(), model.len());
        if n % (rounds / 40) == 0 {
            let pin = rcu::pin();
            let datagrams: Vec<_> = (0..keys)
                .map(|n| (addr([10, 0, 0, 1], key(n).local.port()), key(n & !1).peer.unwrap()))
                .collect();
            for (n, &(local, peer)) in (0..keys).zip(&datagrams) {
                let key = self::key(n);
                assert_eq!(table.contains(&key.flow(), pin.guard()), model.contains_key(&key), "{key:?}");
                let found = table.lookup(&Flow::new(local, Some(peer)), pin.guard()).copied();
                assert_eq!(found, expected(&model, local, peer), "{peer} to {local}");
            }
            for burst in datagrams.chunks(BURST) {
                let flows: Vec<_> = burst.iter().map(|&(local, peer)| Flow::new(local, Some(peer))).collect();
                let found = table.lookup_burst(&flows, pin.guard());
                for (&(local, peer), found) in burst.iter().zip(found) {
                    assert_eq!(
                        found.copied(),
                        expected(&model, local, peer),
                        "{peer} to {local}, in a burst"
                    );
                }
            }
            for (id, value) in model.values() {
                assert_eq!(table.get(*id, pin.guard()), Some(value));
            }
            assert_eq!(table.entries(), model.len(), "entries that nobody owns, or missing ones");
        }
    }
}

#[test]
fn agrees_with_a_hash_map_through_churn() {
    agrees_with_a_hash_map(FlowHash::new(KEYS), 3000, 20_000);
}

/// Tags and buckets tell nothing here: chains, overflow buckets and the comparison of flows have to do it all.
#[test]
fn agrees_with_a_hash_map_when_every_hash_is_the_same() {
    agrees_with_a_hash_map(FlowHash::worst(), 150, 4000);
}

#[test]
fn a_name_of_a_closed_socket_stays_gone_when_its_slot_is_used_again() {
    let table = table(1);
    let first = bind(&table, &key(1), 1).unwrap();
    assert_eq!(bind(&table, &key(2), 2), None, "there is one slot");
    close_now(&table, &key(1), first);
    let second = bind(&table, &key(2), 2).unwrap();
    assert_eq!(second.slot, first.slot);
    let pin = rcu::pin();
    assert_eq!(table.get(first, pin.guard()), None);
    assert_eq!(table.get(second, pin.guard()), Some(&2));
}

/// A reader that found a word compares the slot's flow and then follows its pointer: were the slot filled anew meanwhile, it would get
/// another's socket.
#[test]
fn a_slot_is_not_used_again_under_a_reader() {
    let table = table(1);
    let id = bind(&table, &key(1), 1).unwrap();
    let mut reader = Reader::register("test");
    let found = table.lookup(&Flow::new(key(1).local, Some(addr([1, 1, 1, 1], 1))), reader.guard());
    close(&table, &key(1), id);
    let until = Instant::now() + Duration::from_millis(20);
    while Instant::now() < until {
        assert_eq!(table.reserve(), None, "the slot was given out under a reader");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(found, Some(&1), "what was found stays until the reader is quiescent");
    assert_eq!(table.get(id, reader.guard()), None);
    eventually("the slot is free after the grace period", || {
        reader.quiescent();
        table.reserve().is_some()
    });
}

/// A reader in an overflow bucket goes on along its link: were the bucket linked elsewhere meanwhile, it would miss the rest of its chain.
#[test]
fn an_overflow_bucket_is_not_used_again_under_a_reader() {
    let table: Arc<Numbers> = Arc::new(Table::with_hash(FlowHash::worst(), 16).unwrap());
    let ids: Vec<_> = (0..15).map(|n| bind(&table, &key(n), n.into()).unwrap()).collect();
    let buckets = |table: &Numbers| table.index.chains().map(|(buckets, _)| buckets).max().unwrap();
    assert_eq!(buckets(&table), 3, "15 entries of one hash, 7 in a bucket");
    let mut reader = Reader::register("test");
    let _ = reader.guard();
    let spare = table.index.spare_taken();
    close(&table, &key(14), ids[14]);
    assert_eq!(buckets(&table), 2);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(table.index.spare_taken(), spare, "the bucket was given back under a reader");
    eventually("the bucket is free after the grace period", || {
        reader.quiescent();
        table.index.spare_taken() == spare - 1
    });
}

#[test]
fn a_value_is_freed_after_the_reader_and_not_before() {
    let table: Arc<Table<Arc<u64>>> = Arc::new(Table::with_hash(FlowHash::new(KEYS), 4).unwrap());
    let value = Arc::new(5);
    let weak: Weak<u64> = Arc::downgrade(&value);
    let id = bind(&table, &key(1), value).unwrap();
    let mut reader = Reader::register("test");
    let found = table.get(id, reader.guard()).unwrap();
    close(&table, &key(1), id);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(weak.strong_count(), 1, "freed under a reader");
    assert_eq!(**found, 5);
    eventually("the value is freed", || {
        reader.quiescent();
        weak.strong_count() == 0
    });
}

#[test]
fn dropping_a_table_drops_what_it_holds() {
    let table: Table<Arc<u64>> = Table::with_hash(FlowHash::new(KEYS), 4).unwrap();
    let value = Arc::new(5);
    bind(&table, &key(1), value.clone()).unwrap();
    assert_eq!(Arc::strong_count(&value), 2);
    drop(table);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn what_stays_bound_is_always_found_while_others_come_and_go() {
    for hash in [FlowHash::new(KEYS), FlowHash::worst()] {
        let table: Arc<Numbers> = Arc::new(Table::with_hash(hash, 4096).unwrap());
        // Spread over the chain that they share in the worst case: one stays, the next two go.
        let mut stable = Vec::new();
        let mut passing = Vec::new();
        for n in 0..60 {
            let id = bind(&table, &key(6 * n + 1), n.into()).unwrap();
            if n % 3 == 0 { stable.push(n) } else { passing.push((key(6 * n + 1), id)) }
        }
        let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut reader = Reader::register("test");
                let peer = addr([10, 9, 9, 9], 9);
                while !stop.load(Ordering::Relaxed) {
                    let round = rounds.fetch_add(1, Ordering::Relaxed);
                    for n in &stable {
                        let flow = Flow::new(key(6 * n + 1).local, Some(peer));
                        assert_eq!(
                            table.lookup(&flow, reader.guard()),
                            Some(&u64::from(*n)),
                            "round {round}"
                        );
                    }
                    reader.quiescent();
                }
            });
            let until = Instant::now() + Duration::from_secs(10);
            let mut turn = 0;
            while (rounds.load(Ordering::Relaxed) < 2000 || turn < 20)
                && !reader.is_finished()
                && Instant::now() < until
            {
                passing.drain(..).for_each(|(key, id)| close(&table, &key, id));
                turn += 1;
                for n in 0..40 {
                    let key = key(6 * (100 + n + turn % 64) + 1);
                    passing.extend(bind(&table, &key, 0).map(|id| (key, id)));
                }
            }
            passing.drain(..).for_each(|(key, id)| close(&table, &key, id));
            stop.store(true, Ordering::Relaxed);
            reader.join().unwrap();
            assert!(rounds.load(Ordering::Relaxed) > 10 && turn > 1, "no way was made: {rounds:?}, {turn}");
        });
        assert_eq!(table.len(), 20);
        assert_eq!(table.entries(), 20);
    }
}

/// Each value says whose it is, and slots change hands as fast as grace periods pass: no look-up may ever get another's.
#[test]
fn a_look_up_never_gets_anothers_socket() {
    let table = table(8);
    let keys: Vec<_> = (0..64).map(|n| key(6 * n + 1)).collect();
    let (stop, hits) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reader = Reader::register("test");
            let peer = addr([10, 9, 9, 9], 9);
            let flows: Vec<_> = keys.iter().map(|key| Flow::new(key.local, Some(peer))).collect();
            while !stop.load(Ordering::Relaxed) {
                for (n, flow) in flows.iter().enumerate() {
                    if let Some(found) = table.lookup(flow, reader.guard()) {
                        assert_eq!(*found as usize, n);
                        hits.fetch_add(1, Ordering::Relaxed);
                    }
                }
                for (chunk, flows) in flows.chunks(BURST).enumerate() {
                    let burst = table.lookup_burst(flows, reader.guard());
                    for (n, found) in burst.into_iter().enumerate() {
                        assert!(found.is_none_or(|found| *found as usize == chunk * BURST + n));
                    }
                }
                reader.quiescent();
            }
        });
        let mut random = fastrand::Rng::with_seed(3);
        let mut bound: Vec<Option<SocketId>> = vec![None; keys.len()];
        let begun = Instant::now();
        let mut turn = 0;
        // Two seconds at most, unless the machine is so busy that the reader has hardly run.
        while (hits.load(Ordering::Relaxed) < 100_000 || turn < 20_000)
            && !reader.is_finished()
            && (begun.elapsed() < Duration::from_secs(2) || hits.load(Ordering::Relaxed) <= 100)
            && begun.elapsed() < Duration::from_secs(30)
        {
            turn += 1;
            let n = random.usize(..keys.len());
            match bound[n].take() {
                Some(id) => close(&table, &keys[n], id),
                None => bound[n] = bind(&table, &keys[n], n as u64),
            }
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        assert!(hits.load(Ordering::Relaxed) > 100, "the reader found something");
    });
}

/// Ports in a row, addresses in strides, and hardly a bit that varies: chains must be as short as with random numbers.
#[test]
fn regular_addresses_do_not_pile_up() {
    const SOCKETS: u32 = 1 << 16;
    let sequential_ports = |n: u32| Key { local: addr([10, 0, (n >> 16) as u8, 1], n as u16), peer: None };
    let strided_peers = |n: u32| Key {
        local: addr([10, 0, 0, 1], 7000),
        peer: Some(SocketAddr::from(((n << 12).to_be_bytes(), 7001))),
    };
    let ports_and_peers = |n: u32| Key {
        local: addr([10, 0, 0, 1], (n & 0xff) as u16),
        peer: Some(addr([10, 0, 0, 2], (n >> 8 << 8) as u16)),
    };
    let strided_v6 = |n: u32| Key {
        local: "[2001:db8::1]:7000".parse().unwrap(),
        peer: Some(SocketAddr::from(((u128::from(n) << 64 | 0xfe80 << 112).to_be_bytes(), 7001))),
    };
    let families: [&dyn Fn(u32) -> Key; 4] =
        [&sequential_ports, &strided_peers, &ports_and_peers, &strided_v6];
    for (family, key) in families.into_iter().enumerate() {
        for seed in 0..8 {
            let hash = FlowHash::new(HashKeys(seed, 99));
            let table: Table<u32> = Table::with_hash(hash, SOCKETS as usize).unwrap();
            for n in 0..SOCKETS {
                bind(&table, &key(n), n).unwrap();
            }
            let longest = table.index.chains().map(|(_, entries)| entries).max().unwrap();
            let second_lines = table.index.chains().filter(|(buckets, _)| *buckets > 1).count();
            // Random numbers, with 2.5 entries a bucket on average: the longest of these 26215 chains has 11 entries (more than 14 once in
            // 1000 tables), and 111 chains, give or take 11, need a second bucket.
            assert!(longest <= 15, "family {family}, seed {seed}: {longest} in one chain");
            assert!(second_lines < 200, "family {family}, seed {seed}: {second_lines} buckets overflow");
        }
    }
}

/// Cache lines that one bind and one close of the same socket look at, on average, in a table that holds `sockets` already.
fn lines_per_bind_and_close(table: &Numbers, key: &dyn Fn(u32) -> Key, sockets: u32) -> f64 {
    const SAMPLES: u32 = 20_000;
    let before = WORK.get();
    let mut most = 0;
    for n in 0..SAMPLES {
        let before = WORK.get();
        let key = key(sockets + n);
        let pin = rcu::pin();
        assert!(!table.contains(&key.flow(), pin.guard()));
        let id = bind(table, &key, 0).unwrap();
        close_now(table, &key, id);
        most = most.max(WORK.get() - before);
    }
    assert!(most < 40, "one bind and close looked at {most} lines");
    (WORK.get() - before) as f64 / f64::from(SAMPLES)
}

/// 1,000,000 sockets and as many connected ones in one table: all found, and a bind costs what it cost in the empty table.
#[test]
fn a_million_sockets_and_a_million_connected_ones() {
    const EACH: u32 = 1_000_000;
    let key = |n: u32| {
        let i = n / 2;
        let local = addr([10, 0, (i >> 16) as u8, 1], i as u16);
        Key { local, peer: n.is_multiple_of(2).then(|| SocketAddr::from((i.to_be_bytes(), 7))) }
    };
    let table = table(2 * EACH as usize + 1024);
    let lines = |from| lines_per_bind_and_close(&table, &key, from);
    for n in 0..1000 {
        bind(&table, &key(n), n.into()).unwrap();
    }
    let at_1k = lines(1000);
    let mut most = 0;
    for n in 1000..2 * EACH {
        let before = WORK.get();
        bind(&table, &key(n), n.into()).unwrap();
        most = most.max(WORK.get() - before);
    }
    let at_2m = lines(2 * EACH);
    assert!(most < 16, "a bind looked at {most} lines: something grew");
    assert!(at_2m < at_1k * 1.25, "a bind and a close look at {at_2m:.2} lines at 2 M, {at_1k:.2} at 1 k");
    let pin = rcu::pin();
    for n in (0..2 * EACH).step_by(BURST) {
        let of = |n: u32| Flow::new(key(n).local, Some(key(n).peer.unwrap_or(addr([1, 1, 1, 1], 1))));
        let flows: ArrayVec<_, BURST> = (n..n + BURST as u32).map(of).collect();
        let found = table.lookup_burst(&flows, pin.guard());
        for (n, found) in (n..).zip(found) {
            assert_eq!(found, Some(&u64::from(n)));
        }
    }
    assert_eq!(table.len(), 2 * EACH as usize);
}
