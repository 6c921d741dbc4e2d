//! The socket tables, one per core: local address and port, with or without a peer, to socket.
//!
//! Open addressing. The core reads with plain loads under its read guard; writers (bind, close) serialise on the registry's mutex,
//! which readers never see. An entry owns a strong reference in an [`RcuCell`], so a socket that is taken out lives until
//! the grace period has passed. Growing publishes a new array and retires the old one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::owner::HashKeys;
use crate::rcu::{self, RcuCell, ReadGuard};
use crate::socket::{Socket, SocketId};

/// Tags of entries without a socket. Tags of entries with one have the bit of [`LIVE`].
const EMPTY: u64 = 0;
const TOMBSTONE: u64 = 1;
const LIVE: u64 = 2;
const SLOTS_MIN: usize = 16;

/// What a socket is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    /// The IP may be unspecified: any of ours.
    pub local: SocketAddr,
    /// Connected to this peer only.
    pub peer: Option<SocketAddr>,
}

impl Key {
    /// The four ways to match a datagram, most specific first.
    #[inline]
    fn kind(&self) -> usize {
        usize::from(self.local.ip().is_unspecified()) + if self.peer.is_some() { 0 } else { 2 }
    }
}

/// Where an engine's sockets can be found: by name, and in each core's table.
pub(crate) struct Directory {
    slots: Box<[RcuCell<Socket>]>,
    tables: Box<[Table]>,
}

/// A socket that was taken out of the directory. What is found is borrowed under a guard, so once a grace period has passed no core
/// reaches it.
pub(crate) struct Unpublished(Arc<Socket>);

impl Unpublished {
    /// The socket.
    pub fn socket(&self) -> &Arc<Socket> {
        &self.0
    }
}

impl Directory {
    pub fn new(keys: HashKeys, cores: usize, sockets_max: usize) -> Self {
        Directory {
            slots: (0..sockets_max).map(|_| RcuCell::empty()).collect(),
            tables: (0..cores).map(|_| Table::new(keys)).collect(),
        }
    }

    /// How many sockets it has room for.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The socket of that name, unless it is gone.
    #[inline]
    pub fn get<'g>(&'g self, id: SocketId, guard: ReadGuard<'g>) -> Option<&'g Socket> {
        self.slots.get(id.slot as usize)?.load(guard).filter(|socket| socket.id() == id)
    }

    /// The socket for a datagram, in `core`'s table.
    #[inline]
    pub fn lookup<'g>(
        &'g self,
        core: usize,
        local: SocketAddr,
        peer: SocketAddr,
        guard: ReadGuard<'g>,
    ) -> Option<&'g Socket> {
        self.tables[core].lookup(local, peer, guard)
    }

    /// Whether exactly this key is bound.
    pub fn contains(&self, key: &Key, guard: ReadGuard<'_>) -> bool {
        self.tables[0].contains(key, guard)
    }

    /// Makes the socket findable on every core. Under the registry's mutex; its slot is free and its key is not bound.
    pub fn publish(&self, socket: &Arc<Socket>) {
        self.slots[socket.id().slot as usize].replace(Some(socket.clone()));
        for table in &self.tables {
            table.publish(socket);
        }
    }

    /// Makes the socket unfindable on every core. Under the registry's mutex.
    pub fn unpublish(&self, socket: &Arc<Socket>) -> Unpublished {
        for table in &self.tables {
            table.unpublish(socket);
        }
        self.slots[socket.id().slot as usize].replace(None);
        Unpublished(socket.clone())
    }

    /// Every socket there is.
    pub fn all(&self) -> Vec<Arc<Socket>> {
        let pin = rcu::pin();
        self.slots.iter().filter_map(|slot| slot.load_owned(pin.guard())).collect()
    }

    /// The sum of all tables' entries.
    pub fn entries(&self) -> usize {
        self.tables.iter().map(Table::len).sum()
    }
}

/// One core's table.
struct Table {
    keys: HashKeys,
    slots: RcuCell<Slots>,
    /// Sockets of each kind, so that a lookup tries only kinds that exist.
    kinds: [AtomicUsize; 4],
}

struct Slots {
    entries: Box<[Entry]>,
    /// Entries that are not [`EMPTY`]. Written under the registry's mutex.
    used: AtomicUsize,
}

struct Entry {
    tag: AtomicU64,
    socket: RcuCell<Socket>,
}

impl Slots {
    fn new(len: usize) -> Self {
        let entry = |_| Entry { tag: AtomicU64::new(EMPTY), socket: RcuCell::empty() };
        Slots { entries: (0..len).map(entry).collect(), used: AtomicUsize::new(0) }
    }

    /// The entries in probing order for `hash`.
    #[inline]
    fn probe(&self, hash: u64) -> impl Iterator<Item = &Entry> {
        let mask = self.entries.len() - 1;
        (0..self.entries.len()).map(move |i| &self.entries[(hash as usize).wrapping_add(i) & mask])
    }

    #[inline]
    fn get<'g>(&'g self, hash: u64, key: &Key, guard: ReadGuard<'g>) -> Option<&'g Socket> {
        for entry in self.probe(hash >> 2) {
            // Acquire: pairs with the release in `insert`, so the socket is seen with its tag.
            match entry.tag.load(Ordering::Acquire) {
                EMPTY => return None,
                tag if tag == hash | LIVE => {
                    if let Some(socket) = entry.socket.load(guard).filter(|socket| socket.key() == key) {
                        return Some(socket);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Under the registry's mutex; there is room.
    fn insert(&self, hash: u64, socket: Arc<Socket>) {
        let free = |entry: &&Entry| entry.tag.load(Ordering::Relaxed) & LIVE == 0;
        let entry = self.probe(hash >> 2).find(free).expect("the caller made room");
        if entry.tag.load(Ordering::Relaxed) == EMPTY {
            self.used.fetch_add(1, Ordering::Relaxed);
        }
        entry.socket.replace(Some(socket));
        entry.tag.store(hash | LIVE, Ordering::Release);
    }
}

impl Table {
    fn new(keys: HashKeys) -> Self {
        Table { keys, slots: RcuCell::new(Arc::new(Slots::new(SLOTS_MIN))), kinds: Default::default() }
    }

    /// The socket for a datagram from `peer` to `local`: connected before unconnected, exact before wildcard.
    #[inline]
    fn lookup<'g>(&'g self, local: SocketAddr, peer: SocketAddr, guard: ReadGuard<'g>) -> Option<&'g Socket> {
        let slots = self.slots.load(guard)?;
        for (kind, count) in self.kinds.iter().enumerate() {
            // Acquire: a socket that is counted can be found.
            if count.load(Ordering::Acquire) == 0 {
                continue;
            }
            let local = if kind & 1 == 0 { local } else { SocketAddr::new(unspecified(local), local.port()) };
            let key = Key { local, peer: (kind < 2).then_some(peer) };
            let found = slots.get(self.hash(&key), &key, guard);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Whether exactly this key is bound.
    fn contains(&self, key: &Key, guard: ReadGuard<'_>) -> bool {
        self.slots.load(guard).is_some_and(|slots| slots.get(self.hash(key), key, guard).is_some())
    }

    /// Makes the socket findable. Under the registry's mutex; its key is not in the table.
    fn publish(&self, socket: &Arc<Socket>) {
        self.make_room();
        let pin = rcu::pin();
        let slots = self.slots.load(pin.guard()).expect("a table always has slots");
        slots.insert(self.hash(socket.key()), socket.clone());
        self.kinds[socket.key().kind()].fetch_add(1, Ordering::Release);
    }

    /// Makes the socket unfindable. Under the registry's mutex. Readers that found it before keep it until they are quiescent.
    fn unpublish(&self, socket: &Socket) {
        let pin = rcu::pin();
        let slots = self.slots.load(pin.guard()).expect("a table always has slots");
        let hash = self.hash(socket.key());
        let holds =
            |entry: &&Entry| entry.socket.load(pin.guard()).is_some_and(|held| held.id() == socket.id());
        let mut probe = slots.probe(hash >> 2).take_while(|entry| entry.tag.load(Ordering::Relaxed) != EMPTY);
        if let Some(entry) = probe.find(holds) {
            entry.tag.store(TOMBSTONE, Ordering::Release);
            entry.socket.replace(None);
            self.kinds[socket.key().kind()].fetch_sub(1, Ordering::Release);
        }
    }

    /// Sockets in the table.
    fn len(&self) -> usize {
        self.kinds.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    #[inline]
    fn hash(&self, key: &Key) -> u64 {
        self.keys.hash(key.local, key.peer) & !(LIVE | TOMBSTONE)
    }

    /// Keeps at least half of the entries empty, so that probing ends soon.
    fn make_room(&self) {
        let pin = rcu::pin();
        let old = self.slots.load(pin.guard()).expect("a table always has slots");
        if (old.used.load(Ordering::Relaxed) + 1) * 2 <= old.entries.len() {
            return;
        }
        let new = Slots::new(((self.len() + 1) * 4).next_power_of_two().max(SLOTS_MIN));
        for entry in &old.entries {
            if let Some(socket) = entry.socket.load_owned(pin.guard()) {
                new.insert(self.hash(socket.key()), socket);
            }
        }
        self.slots.replace(Some(Arc::new(new)));
    }
}

#[inline]
fn unspecified(addr: SocketAddr) -> IpAddr {
    match addr {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    const KEYS: HashKeys = HashKeys(11, 12);

    fn key(n: u32) -> Key {
        let ip = if n.is_multiple_of(3) { [0, 0, 0, 0] } else { [10, 0, 0, 1] };
        let peer = n.is_multiple_of(2).then(|| SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 9)));
        Key { local: SocketAddr::from((ip, 1000 + (n / 6 % 50_000) as u16)), peer }
    }

    fn socket(n: u32, key: Key) -> Arc<Socket> {
        Arc::new(Socket::new(0, SocketId { slot: n, generation: 0 }, key, n.into(), 1, 0))
    }

    #[test]
    fn agrees_with_a_hash_map_through_growth_and_churn() {
        let table = Table::new(KEYS);
        let mut model: HashMap<Key, Arc<Socket>> = HashMap::new();
        let mut random = fastrand::Rng::with_seed(7);
        for n in 0..20_000 {
            let key = key(random.u32(..3000));
            match model.remove(&key) {
                Some(socket) => table.unpublish(&socket),
                None => {
                    let socket = socket(n, key);
                    table.publish(&socket);
                    model.insert(key, socket);
                }
            }
            if n % 500 == 0 {
                let pin = rcu::pin();
                for n in 0..3000 {
                    let key = self::key(n);
                    assert_eq!(table.contains(&key, pin.guard()), model.contains_key(&key), "{key:?}");
                }
            }
            assert_eq!(table.len(), model.len());
        }
    }

    #[test]
    fn what_stays_bound_is_always_found_while_others_come_and_go() {
        let table = Arc::new(Table::new(KEYS));
        let stable: Vec<_> = (0..40).map(|n| socket(n, key(6 * n + 1))).collect();
        stable.iter().for_each(|socket| table.publish(socket));
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, halt) = (table.clone(), stop.clone());
        let reader = thread::spawn(move || {
            let mut reader = rcu::Reader::register();
            let peer = SocketAddr::from(([10, 9, 9, 9], 9));
            let mut rounds = 0u64;
            while !halt.load(Ordering::Relaxed) {
                for n in 0..40 {
                    let found = theirs.lookup(key(6 * n + 1).local, peer, reader.guard());
                    assert_eq!(found.map(Socket::cookie), Some(n.into()), "round {rounds}");
                }
                rounds += 1;
                reader.quiescent();
            }
            rounds
        });
        for round in 0..200 {
            let churn: Vec<_> = (0..100).map(|n| socket(1000 + n, key(6 * (100 + n + round) + 1))).collect();
            churn.iter().for_each(|socket| table.publish(socket));
            churn.iter().for_each(|socket| table.unpublish(socket));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
        assert_eq!(table.len(), 40);
    }
}
