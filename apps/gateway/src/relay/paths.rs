//! Which of our ports towards a server is which client's.
//!
//! A client has a port of its own towards each server that it was connected to, and keeps it over all its connections: so
//! that the server sees as many addresses as there are clients, and may call them there. Ports are given out in turn: one
//! that was given back rests for as long as it can, because its server may still know the old client by it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use pmd::Instant;

use super::table::{Age, Id, Table};

/// A client of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    /// Index of the listener.
    pub listener: u32,
    pub address: SocketAddr,
}

/// A client at a server.
pub(crate) struct Path {
    /// Which of our ports.
    pub port: u32,
    /// Since when the connections it began are counted, and how many they are.
    pub counted_from: Instant,
    pub begun: usize,
    /// The network said not long ago that the server is not there: until then its connections are told so.
    pub lost_until: Instant,
}

/// A server, and who is connected to it.
pub(crate) struct Server {
    pub address: SocketAddr,
    pub paths: Table<Client, Path>,
    /// By port: whose it is.
    holders: Vec<Option<Id>>,
    /// Ports whose replies come to this core, those that rested longest first.
    free: VecDeque<u32>,
}

impl Server {
    /// With no port yet.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, paths: Table::new(0, (0, 0)), holders: Vec::new(), free: VecDeque::new() }
    }

    /// May use those of `ports` that `suits` says yes to, for `clients_max` clients at most.
    pub fn open(
        &mut self,
        ports: &[SocketAddr],
        clients_max: usize,
        keys: (u64, u64),
        suits: impl Fn(SocketAddr) -> bool,
    ) {
        self.free = (0..ports.len() as u32).filter(|port| suits(ports[*port as usize])).collect();
        self.holders = vec![None; ports.len()];
        self.paths = Table::new(self.free.len().min(clients_max), keys);
    }

    /// Whose port this is.
    pub fn holder(&self, port: u32) -> Option<Id> {
        *self.holders.get(port as usize)?
    }

    /// Gives a client a port. `None`: all are taken.
    pub fn insert(&mut self, now: Instant, client: Client) -> Option<Id> {
        if self.paths.is_full() {
            return None;
        }
        let port = self.free.pop_front()?;
        let path = Path { port, counted_from: now, begun: 0, lost_until: Instant::ZERO };
        let id = self.paths.insert(now, client, path);
        self.holders[port as usize] = Some(id);
        Some(id)
    }

    /// Takes a client's port away.
    pub fn remove(&mut self, id: Id) {
        let Some((_, path)) = self.paths.remove(id) else { return };
        self.holders[path.port as usize] = None;
        // Never more than there were at the start: no allocation.
        self.free.push_back(path.port);
    }

    /// Which path is to go when there is no room: one that is new, or one that was idle since `idle_since`.
    pub fn least(&self, idle_since: Instant) -> Option<Id> {
        least(&self.paths, idle_since)
    }
}

/// Which entry is to go when there is no room: the oldest new one, or one that was idle since `idle_since`.
pub(crate) fn least<K: std::hash::Hash + Eq + Copy, V>(
    table: &Table<K, V>,
    idle_since: Instant,
) -> Option<Id> {
    let new = table.oldest(Age::New).map(|(id, _)| id);
    new.or_else(|| table.oldest(Age::Proven).filter(|(_, used)| *used <= idle_since).map(|(id, _)| id))
}
