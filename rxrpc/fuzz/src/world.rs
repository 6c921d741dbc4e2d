//! One endpoint with small limits and every peer of it played by the input. At the end everything must be as it was.

use pmd::{Hugepages, Instant, Pool, PoolConfig};
use rxrpc::security::{DesKey, Enctype, Krb5Key};
use rxrpc::{
    Credentials, Endpoint, EndpointConfig, Event, Level, LocalId, RxDrop, Security, ServerKeys,
    ServiceConfig, Token,
};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

/// A service, which is upgraded to [`UPGRADED`] on request.
pub const SERVICE: u16 = 147;
/// Its successor.
pub const UPGRADED: u16 = 148;
/// A service that takes calls only as far as accepts are charged by hand.
pub const CHARGED: u16 = 149;

/// Buffers of the pool: enough that no target runs out of them by what it may queue.
const BUFFERS: usize = 1_024;

thread_local! {
    /// Made once: a run gives every buffer back, which is looked at.
    static POOL: RefCell<Pool> = RefCell::new({
        let config = PoolConfig { hugepages: Hugepages::Never, ..PoolConfig::new("fuzz", BUFFERS) };
        config.build().expect("memory").claim()
    });
}

/// See the module.
pub struct World<'p> {
    pub rx: Endpoint,
    pub pool: &'p mut Pool,
    pub local: LocalId,
    pub now: Instant,
}

/// Everything is scarce, so that an input of a few hundred bytes reaches each limit.
pub fn config() -> EndpointConfig {
    EndpointConfig {
        conns_max: 8,
        unsecured_conns_max: 2,
        calls_max: 12,
        peers_max: 6,
        bundles_max: 5,
        bundle_conns_max: 2,
        bundle_waiting_max: 3,
        replies_max: 6,
        receive_window: 32,
        unread_buffers_max: 64,
        send_buffers_max: 96,
        packet_payload: 32,
        burst_packets: 8,
        client_conn_idle: Duration::from_secs(40),
        service_conn_idle: Duration::from_secs(60),
        ..EndpointConfig::default()
    }
}

/// The service's keys: always the same, because an input must do the same each time.
pub const DES_KEY: [u8; 8] = *b"fuzz-key";
/// Number of the DES key.
pub const DES_KVNO: u32 = 4;
/// Of Kerberos 5, type aes256-cts-hmac-sha1-96.
pub const AES_KEY: [u8; 32] = *b"fuzzing needs a key of 32 bytes.";
/// Number of that key.
pub const AES_KVNO: u32 = 9;

fn key() -> DesKey {
    DesKey::new(DES_KEY).expect("not a weak key")
}

fn keys() -> ServerKeys {
    let krb5 = Krb5Key::new(AES_KVNO, Enctype::Aes256, &AES_KEY).expect("a key of 32 bytes");
    ServerKeys::new().with_des(DES_KVNO, key()).with_krb5(krb5)
}

/// What our calls may bring along. Nobody here can open the ticket.
pub fn credentials() -> Credentials {
    let token = Token::new(DES_KVNO, vec![0x5a; 64], key()).expect("a short ticket");
    Credentials::rxkad(token, Level::Encrypt)
}

impl World<'_> {
    /// Runs a target in a new world, and holds the world's end against its beginning.
    pub fn run(target: impl FnOnce(&mut World<'_>)) {
        POOL.with_borrow_mut(|pool| {
            let mut rx = Endpoint::new(config(), 1);
            let local = rx.add_local(address()).expect("a free address");
            let mut world = World { rx, pool, local, now: Instant::from_nanos(1_000_000_000) };
            // Some time in 2026: tickets have a time.
            world.rx.set_unix_time(world.now, Duration::from_secs(1_790_000_000));
            world.listen();
            target(&mut world);
            world.end();
        });
    }

    /// Offers the services, as far as they are not.
    pub fn listen(&mut self) {
        let (rx, local) = (&mut self.rx, self.local);
        // Those who want to prove who they are may.
        let security = Security::rxkad(keys()).or_none();
        let services = [
            ServiceConfig { backlog: 4, upgrade_to: Some(UPGRADED), security, ..ServiceConfig::new(SERVICE) },
            ServiceConfig { backlog: 2, ..ServiceConfig::new(UPGRADED) },
            ServiceConfig { backlog: 3, auto_charge: false, ..ServiceConfig::new(CHARGED) },
        ];
        for service in services {
            let _ = rx.listen(local, service);
        }
    }

    /// One of the few addresses that packets come from.
    pub fn peer(&self, number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 2 + number % 4], 7_001))
    }

    /// A datagram comes in.
    pub fn input(&mut self, peer: u8, bytes: &[u8]) -> Result<(), RxDrop> {
        let from = self.peer(peer);
        let Some(packet) = self.pool.copy_from(bytes) else { return Err(RxDrop::NoBuffers) };
        let result = self.rx.input(self.now, self.pool, self.local, from, packet);
        self.check();
        result
    }

    /// Sends at most so many packets.
    pub fn transmit(&mut self, most: usize) {
        let mut sent = 0;
        self.rx.transmit(self.now, self.pool, &mut |_, from, _, packet| {
            assert!(from == address() && packet.len() >= 28);
            sent += 1;
            sent < most
        });
        self.check();
    }

    /// Lets milliseconds pass, a timer at a time.
    pub fn wait(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        for _ in 0..10_000 {
            let Some(next) = self.rx.next_timeout().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            self.rx.expire(self.now);
            self.transmit(usize::MAX);
        }
        self.now = end;
        self.rx.expire(end);
        self.check();
    }

    /// Takes all events; calls that have ended are released.
    pub fn events(&mut self) {
        while let Some(event) = self.rx.poll_event() {
            if let Event::Complete { call, .. } = event {
                assert!(self.rx.release(self.now, call), "a call's end is told once, before its release");
            }
        }
        self.check();
    }

    /// What must hold at every moment.
    fn check(&self) {
        let (rx, config) = (&self.rx, self.rx.config());
        assert!(rx.conns().count() <= config.conns_max);
        assert!(rx.calls().count() <= config.calls_max);
        assert!(rx.peers().count() <= config.peers_max);
        assert!(rx.stats().ledger_closes(), "{:?}", rx.stats());
        let (unread, queued) = rx.buffers_held();
        let calls = rx.calls().count();
        assert!(unread <= config.unread_buffers_max + config.receive_reserve * calls, "{unread} unread");
        // An end that comes late travels alone, on a buffer more.
        assert!(queued <= config.send_buffers_max + (config.send_reserve + 1) * calls, "{queued} queued");
    }

    /// Everything that began ends, and nothing is left.
    fn end(&mut self) {
        self.events();
        let calls: Vec<_> = self.rx.calls().map(|call| call.id).collect();
        for call in calls {
            // One that was never announced has no user who could release it; its time limits do.
            self.rx.release(self.now, call);
        }
        // Idle connections last longest: a minute, as they are configured here.
        for _ in 0..100 {
            self.transmit(usize::MAX);
            if self.rx.next_timeout().is_none() {
                break;
            }
            self.wait(5_000);
            self.events();
        }
        assert!(self.rx.is_idle(), "{:?}", self.rx.calls().collect::<Vec<_>>());
        assert_eq!((self.rx.conns().count(), self.rx.peers().count()), (0, 0));
        assert_eq!(self.rx.next_timeout(), None, "a timer is left");
        assert_eq!(self.pool.available(), self.pool.capacity(), "a buffer is left");
    }
}

fn address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 7_000))
}
