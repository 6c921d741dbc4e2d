//! Relaying: a listener's packets go to a server and back with other addresses and ports, and nothing else changed.
//!
//! What two ends have agreed on stays between them: no key is here, and every byte of Rx arrives as it was sent. A client
//! is an address and a port; its connections (epoch and connection id) each stay with the backend that the balancer
//! chose for the first packet. Towards a server a client has a port of its own ([`paths`]), by which the server may open
//! connections of its own towards it, as AFS file servers do; those of its packets that fit no connection we know cross
//! as well.
//!
//! Plain logic: no engine, no clock. One core's state is its own: a client's packets come to the core that owns their flow,
//! and its ports are such that the servers' come there too.
//!
//! **Limits.** Connections, clients at a server, and connections that one client begins within [`SPARE_IDLE`] have each a limit.
//! What has not been heard from both ends is forgotten after [`NEW_IDLE`], and first of all when room is wanted; what has, after the configured time, or
//! when room is wanted and it was idle for [`SPARE_IDLE`]. Else a newcomer is refused.
//!
//! **What a client is told.** A newcomer that finds no backend or no room: its call is aborted with `RX_RESTARTING`, since
//! nothing was given to a backend. A connection whose backend is dead: it is aborted with `RX_CALL_DEAD`, as often as it asks,
//! and never given to another backend, which would know nothing of it, or carry a call out twice. A new connection
//! goes elsewhere.
//!
//! Deliberately absent: retransmission, knowledge of calls, security. ICMP errors about clients do not go on to servers; the
//! stack fragments what is too large for the other side.

mod paths;
mod refusal;
mod table;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pmd::Instant;
use rxrpc::wire::{Cid, Header, PacketType};
use rxrpc::{LocalId, PAGE_ROWS, PAGE_SLOTS, RelayView, Role};

use crate::balance::{Balancer, NoBackend, Outcome};
use crate::config::{Config, ListenerMode};
use crate::figures::{RelayCounters, Shared};
use paths::{Client, Server, least};
pub use refusal::Refusal;
use table::{Age, Id, Table};

/// How long something new is remembered that was not heard from both ends.
pub const NEW_IDLE: Duration = Duration::from_secs(30);
/// How long something must have been idle to make room for others.
pub const SPARE_IDLE: Duration = Duration::from_secs(60);
/// How long a server counts as unreachable for a client after the network said so.
pub const LOST: Duration = Duration::from_secs(1);
/// Without a packet for so long, a relay that drains counts as quiet.
const QUIET: Duration = Duration::from_secs(2);
/// Of the connections there may be, the share that one client may begin at one server within [`SPARE_IDLE`].
const CLIENT_SHARE: usize = 4;
/// A first packet from beyond a first window is one from before we knew the connection.
const FIRST_WINDOW: u32 = 32;
/// What one turn forgets at most.
const FORGET_BURST: usize = 64;

/// A packet's way on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// An address and port of ours.
    pub from: SocketAddr,
    /// Who gets it.
    pub to: SocketAddr,
}

/// What becomes of a client's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It goes on.
    Pass(Way),
    /// It asks us: VERSION and DEBUG.
    Ours,
}

struct Listener {
    address: SocketAddr,
    local: Option<LocalId>,
    /// Service ids, and the pool of each. A handful.
    services: Vec<(u16, usize)>,
}

/// What names a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ConnKey {
    client: Client,
    epoch: u32,
    cid: Cid,
    /// Opened by the server, towards the client.
    by_server: bool,
}

struct Conn {
    server: u32,
    path: Id,
    /// Index of the backend that the balancer chose; none where the server began.
    backend: Option<usize>,
    /// The other end has been heard.
    answered: bool,
}

/// One core's part. See the module's head.
pub struct Relay {
    shared: Arc<Shared>,
    core: usize,
    listeners: Vec<Listener>,
    servers: Vec<Server>,
    server_of: HashMap<SocketAddr, u32>,
    /// Addresses of our ports towards servers, by their tags.
    ports: Arc<[SocketAddr]>,
    conns: Table<ConnKey, Conn>,
    clients_max: usize,
    /// Connections that one client may begin at one server within [`SPARE_IDLE`].
    per_client: usize,
    idle: Duration,
    keys: (u64, u64),
    draining: bool,
}

impl Relay {
    /// For the core with index `core`; `seed` keys its hashes. Without a port until [`Relay::open`].
    pub fn new(config: &Config, shared: Arc<Shared>, core: usize, seed: u64) -> Self {
        let relayed = config.listeners.iter().filter(|listener| listener.mode == ListenerMode::Relay);
        let listeners: Vec<Listener> = relayed
            .map(|listener| Listener {
                address: listener.address,
                local: None,
                services: listener
                    .services
                    .iter()
                    .flat_map(|service| service.ids.iter().map(|id| (*id, service.pool)))
                    .collect(),
            })
            .collect();
        let mut servers: Vec<Server> = Vec::new();
        let mut server_of = HashMap::new();
        let is_relayed =
            |pool| listeners.iter().flat_map(|listener| &listener.services).any(|(_, p)| *p == pool);
        for backend in shared.backends.iter().filter(|backend| is_relayed(backend.pool)) {
            server_of.entry(backend.address).or_insert_with(|| {
                servers.push(Server::new(backend.address));
                servers.len() as u32 - 1
            });
        }
        let keys = (seed, seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15);
        let connections = if listeners.is_empty() { 0 } else { config.limits.connections };
        Self {
            conns: Table::new(connections, keys),
            per_client: (connections / CLIENT_SHARE).max(1),
            clients_max: config.limits.peers,
            idle: config.relay.idle,
            ports: Arc::new([]),
            draining: false,
            shared,
            core,
            listeners,
            servers,
            server_of,
            keys,
        }
    }

    /// From now on clients are given these ports, by index. `suits` is told a port and a server, and says whether what the server
    /// sends there comes to this core.
    pub fn open(&mut self, ports: Arc<[SocketAddr]>, suits: impl Fn(SocketAddr, SocketAddr) -> bool) {
        for server in &mut self.servers {
            let address = server.address;
            server.open(&ports, self.clients_max, self.keys, |port| suits(port, address));
        }
        self.ports = ports;
    }

    /// The listener that [`Relay::listen`] was told of.
    pub fn listener(&self, local: LocalId) -> Option<usize> {
        self.listeners.iter().position(|listener| listener.local == Some(local))
    }

    /// The endpoint has a relaying listener's address under this id.
    pub fn listen(&mut self, local: LocalId, address: SocketAddr) {
        if let Some(listener) = self.listeners.iter_mut().find(|listener| listener.address == address) {
            listener.local = Some(local);
        }
    }

    fn figures(&self) -> &RelayCounters {
        &self.shared.cores[self.core].relay
    }

    // Packets.

    /// A client's packet to a listener.
    pub fn from_client(
        &mut self,
        now: Instant,
        balancer: &mut Balancer,
        listener: usize,
        client: SocketAddr,
        header: &Header,
    ) -> Result<Step, Refusal> {
        let asks = matches!(header.packet_type, PacketType::Version | PacketType::Debug);
        if asks && header.from_client() {
            return Ok(Step::Ours);
        }
        let client = Client { listener: listener as u32, address: client };
        let key = ConnKey {
            client,
            epoch: header.epoch,
            cid: header.cid.connection(),
            by_server: !header.from_client(),
        };
        let id = match self.find(balancer, &key) {
            Some(id) => id,
            None => self.connect(now, balancer, key, header)?,
        };
        let (_, conn) = self.conns.get(id).expect("found or made just now");
        let Conn { server, path: path_id, backend, answered } = *conn;
        let server = &mut self.servers[server as usize];
        let (_, path) = server.paths.get(path_id).expect("`find` looked");
        let dead = backend.is_some_and(|backend| !self.shared.backends.is_alive(backend));
        if dead || now < path.lost_until {
            return Err(Refusal::BackendDead);
        }
        let way = Way { from: self.ports[path.port as usize], to: server.address };
        // What answers has been asked: both ends are there.
        let proven = answered || key.by_server;
        let age = |age| if proven { Age::Proven } else { age };
        server.paths.touch(now, path_id, age(server.paths.age(path_id)));
        self.conns.touch(now, id, age(self.conns.age(id)));
        Ok(Step::Pass(way))
    }

    /// A packet to one of our ports towards servers.
    pub fn from_server(
        &mut self,
        now: Instant,
        balancer: &mut Balancer,
        port: u32,
        peer: SocketAddr,
        header: &Header,
    ) -> Result<Way, Refusal> {
        let at = *self.server_of.get(&peer).ok_or(Refusal::NotAServer)?;
        let server = &mut self.servers[at as usize];
        let path = server.holder(port).ok_or(Refusal::NoClient)?;
        let (&client, _) = server.paths.get(path).ok_or(Refusal::NoClient)?;
        server.paths.get_mut(path).expect("looked just now").lost_until = Instant::ZERO;
        server.paths.touch(now, path, server.paths.age(path));
        let key = ConnKey {
            client,
            epoch: header.epoch,
            cid: header.cid.connection(),
            by_server: header.from_client(),
        };
        match self.find(balancer, &key) {
            Some(id) => {
                self.conns.touch(now, id, self.conns.age(id));
                let conn = self.conns.get_mut(id).expect("found just now");
                conn.answered |= !key.by_server;
                let backend = conn.backend;
                if let Some(backend) = backend {
                    balancer.heard(&self.shared.backends, backend);
                }
            }
            None if key.by_server => {
                self.make_room(now, balancer)?;
                self.insert(now, key, Conn { server: at, path, backend: None, answered: false });
                self.figures().called_back.add(1);
            }
            // A connection that we have forgotten, or one that was never ours: the client will know.
            None => {}
        }
        Ok(Way { from: self.listeners[client.listener as usize].address, to: client.address })
    }

    /// The network says that a server does not hear what is sent from one of our ports.
    pub fn server_unreachable(&mut self, now: Instant, balancer: &mut Balancer, port: u32, peer: SocketAddr) {
        let Some(&at) = self.server_of.get(&peer) else { return };
        let server = &mut self.servers[at as usize];
        let Some(path) = server.holder(port).and_then(|id| server.paths.get_mut(id)) else { return };
        // Errors can be forged and may come in crowds: one in a while counts.
        if now < path.lost_until {
            return;
        }
        path.lost_until = now + LOST;
        for (index, backend) in self.shared.backends.iter().enumerate() {
            if backend.address == peer {
                balancer.failed(&self.shared.backends, index);
            }
        }
    }

    /// The network says that a client does not hear us: it is remembered no longer than a newcomer, unless it speaks.
    pub fn client_unreachable(&mut self, now: Instant, listener: usize, client: SocketAddr) {
        let client = Client { listener: listener as u32, address: client };
        for server in &mut self.servers {
            if let Some(id) = server.paths.find(&client) {
                server.paths.touch(now, id, Age::New);
            }
        }
    }

    /// Counts a packet that went on.
    pub fn passed(&self, to_server: bool, bytes: usize) {
        let figures = self.figures();
        let (packets, total) = match to_server {
            true => (&figures.packets_to_servers, &figures.bytes_to_servers),
            false => (&figures.packets_to_clients, &figures.bytes_to_clients),
        };
        packets.add(1);
        total.add(bytes as u64);
    }

    /// Counts an ABORT that a client was sent.
    pub fn aborted(&self) {
        self.figures().aborts.add(1);
    }

    /// A page of the connections, for views.
    pub fn page(&self, from: usize, rows: &mut Vec<RelayView>) -> Option<usize> {
        self.conns.page(from, PAGE_SLOTS, |key, conn, age, used| {
            let server = &self.servers[conn.server as usize];
            // One whose client has lost its port is gone already.
            let Some((_, path)) = server.paths.get(conn.path) else { return true };
            if rows.len() == PAGE_ROWS {
                return false;
            }
            rows.push(RelayView {
                listener: self.listeners[key.client.listener as usize].address,
                client: key.client.address,
                port: self.ports[path.port as usize],
                server: server.address,
                epoch: key.epoch,
                cid: key.cid.0,
                opened_by: if key.by_server { Role::Service } else { Role::Client },
                proven: age == Age::Proven,
                used,
            });
            true
        })
    }

    // Connections.

    /// The connection under a key. One whose client has lost its port is none any more.
    fn find(&mut self, balancer: &mut Balancer, key: &ConnKey) -> Option<Id> {
        let id = self.conns.find(key)?;
        let (_, conn) = self.conns.get(id)?;
        if self.servers[conn.server as usize].paths.get(conn.path).is_some() {
            return Some(id);
        }
        self.forget(balancer, id);
        None
    }

    /// Begins a connection for a client, if that is what its packet may do.
    fn connect(
        &mut self,
        now: Instant,
        balancer: &mut Balancer,
        key: ConnKey,
        header: &Header,
    ) -> Result<Id, Refusal> {
        let begins = header.packet_type == PacketType::Data && (1..=FIRST_WINDOW).contains(&header.seq);
        if key.by_server || !begins {
            return Err(Refusal::NoConnection);
        }
        let listener = &self.listeners[key.client.listener as usize];
        let pool = listener.services.iter().find(|(id, _)| *id == header.service).map(|(_, pool)| *pool);
        let pool = pool.ok_or(Refusal::NoService)?;
        if self.draining {
            return Err(Refusal::Draining);
        }
        let picked = balancer.pick(now, &self.shared.backends, pool);
        let backend = picked.map_err(|_: NoBackend| Refusal::NoBackend)?;
        let at = self.server_of[&self.shared.backends.address(backend)];
        let path = self.path(now, at, key.client).ok_or(Refusal::Full)?;
        let held = self.servers[at as usize].paths.get_mut(path).expect("found or made just now");
        if now.saturating_duration_since(held.counted_from) >= SPARE_IDLE {
            (held.counted_from, held.begun) = (now, 0);
        }
        if held.begun >= self.per_client {
            return Err(Refusal::ClientFull);
        }
        held.begun += 1;
        self.make_room(now, balancer)?;
        balancer.begun(&self.shared.backends, backend);
        self.figures().connected.add(1);
        Ok(self.insert(now, key, Conn { server: at, path, backend: Some(backend), answered: false }))
    }

    fn insert(&mut self, now: Instant, key: ConnKey, conn: Conn) -> Id {
        let id = self.conns.insert(now, key, conn);
        self.figures().connections.set(self.conns.len() as u64);
        id
    }

    /// A client's path to a server, made if there is none.
    fn path(&mut self, now: Instant, at: u32, client: Client) -> Option<Id> {
        let server = &mut self.servers[at as usize];
        if let Some(id) = server.paths.find(&client) {
            return Some(id);
        }
        let path = match server.insert(now, client) {
            Some(id) => id,
            None => {
                server.remove(server.least(spare(now))?);
                server.insert(now, client)?
            }
        };
        self.count_clients();
        Some(path)
    }

    fn make_room(&mut self, now: Instant, balancer: &mut Balancer) -> Result<(), Refusal> {
        if self.conns.is_full() {
            let id = least(&self.conns, spare(now)).ok_or(Refusal::Full)?;
            self.figures().displaced.add(1);
            self.forget(balancer, id);
        }
        Ok(())
    }

    /// The one place where a connection ends.
    fn forget(&mut self, balancer: &mut Balancer, id: Id) {
        let Some((_, conn)) = self.conns.remove(id) else { return };
        if let Some(backend) = conn.backend {
            balancer.ended(&self.shared.backends, backend, Outcome::Cancelled);
        }
        self.figures().forgotten.add(1);
        self.figures().connections.set(self.conns.len() as u64);
    }

    fn count_clients(&self) {
        let clients = self.servers.iter().map(|server| server.paths.len()).sum::<usize>();
        self.figures().clients.set(clients as u64);
    }

    // Time.

    /// Forgets what was idle for too long.
    pub fn expire(&mut self, now: Instant, balancer: &mut Balancer) {
        let idle = self.idle;
        for _ in 0..FORGET_BURST {
            let Some(id) = due(&self.conns, idle, now) else { break };
            self.forget(balancer, id);
        }
        let mut fewer = false;
        for server in &mut self.servers {
            for _ in 0..FORGET_BURST {
                let Some(id) = due(&server.paths, idle, now) else { break };
                server.remove(id);
                fewer = true;
            }
        }
        if fewer {
            self.count_clients();
        }
        if self.draining {
            self.figures().busy.set(u64::from(self.is_busy(now)));
        }
    }

    /// When `expire` next has something to do.
    pub fn next_timeout(&self) -> Instant {
        let paths = self.servers.iter().map(|server| next_due(&server.paths, self.idle));
        let next = paths.fold(next_due(&self.conns, self.idle), Instant::min);
        match self.conns.last_used() {
            Some(used) if self.figures().busy.get() > 0 => next.min(used + QUIET),
            _ => next,
        }
    }

    /// From now on new connections are refused; those there are go on.
    pub fn drain(&mut self, now: Instant) {
        self.draining = true;
        self.figures().busy.set(u64::from(self.is_busy(now)));
    }

    /// Whether packets still cross.
    fn is_busy(&self, now: Instant) -> bool {
        self.conns.last_used().is_some_and(|used| now < used + QUIET)
    }

    /// Forgets everything.
    pub fn clear(&mut self, balancer: &mut Balancer) {
        for age in [Age::New, Age::Proven] {
            while let Some((id, _)) = self.conns.oldest(age) {
                self.forget(balancer, id);
            }
            for server in &mut self.servers {
                while let Some((id, _)) = server.paths.oldest(age) {
                    server.remove(id);
                }
            }
        }
        self.count_clients();
        self.figures().busy.set(0);
    }
}

/// Who was idle since then may go for another's sake.
fn spare(now: Instant) -> Instant {
    Instant::from_nanos(now.as_nanos().saturating_sub(SPARE_IDLE.as_nanos() as u64))
}

/// An entry that was idle for too long.
fn due<K: std::hash::Hash + Eq + Copy, V>(table: &Table<K, V>, idle: Duration, now: Instant) -> Option<Id> {
    let limits = [(Age::New, NEW_IDLE.min(idle)), (Age::Proven, idle)];
    limits
        .into_iter()
        .find_map(|(age, idle)| table.oldest(age).filter(|(_, used)| *used + idle <= now).map(|(id, _)| id))
}

/// When there is one next.
fn next_due<K: std::hash::Hash + Eq + Copy, V>(table: &Table<K, V>, idle: Duration) -> Instant {
    let limits = [(Age::New, NEW_IDLE.min(idle)), (Age::Proven, idle)];
    let times = limits.into_iter().filter_map(|(age, idle)| Some(table.oldest(age)?.1 + idle));
    times.min().unwrap_or(Instant::FAR_FUTURE)
}

#[cfg(test)]
#[path = "../relay_tests.rs"]
mod tests;
