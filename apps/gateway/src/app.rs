//! [`GatewayApp`]: the forwarder as an app on a polling core.

use std::net::SocketAddr;
use std::sync::Arc;

use engine::{Cx, Datagram, NetError, Outcome};
use pmd::{Instant, Mbuf};
use rxrpc::wire::{HEADER_LEN, Header};
use rxrpc::{
    App, Claim, Credentials, EndpointConfig, Event, Gate, Level, LocalId, RelayView, Rx, ServiceConfig, Token,
};

use crate::config::{BUFFERS_PER_CALL, Config, ListenerMode, RECEIVE_RESERVE, SEND_RESERVE};
use crate::figures::Shared;
use crate::forward::{CALLS_PER_CONNECTION, Forwarder, Io};
use crate::relay::{Refusal, Relay, Step};
use crate::secrets::Secrets;

/// What the control thread tells every core.
#[derive(Clone, Debug)]
pub enum Command {
    /// The addresses of the ports that relayed clients are given, by their tags.
    RelayPorts(Arc<[SocketAddr]>),
    /// A pool's ticket was renewed.
    Proof {
        /// Index of the pool.
        pool: usize,
        /// The ticket.
        token: Token,
        /// How much of connections is protected.
        level: Level,
    },
    /// Refuse new calls and connections; those in progress go on.
    Drain,
    /// Abort what is in progress, and forget what is relayed.
    AbortAll,
}

/// One core of the gateway.
pub struct GatewayApp {
    config: Arc<Config>,
    secrets: Arc<Secrets>,
    shared: Arc<Shared>,
    core: usize,
    forwarder: Forwarder,
    relay: Relay,
}

impl GatewayApp {
    /// For the core with index `core`; `seed` decides its random choices.
    pub fn new(
        config: Arc<Config>,
        secrets: Arc<Secrets>,
        shared: Arc<Shared>,
        core: usize,
        seed: u64,
        now: Instant,
    ) -> Self {
        let forwarder = Forwarder::new(&config, &secrets, shared.clone(), core, seed, now);
        let relay = Relay::new(&config, shared.clone(), core, seed);
        Self { config, secrets, shared, core, forwarder, relay }
    }

    /// Sends a packet on, the buffer that it came in with new headers around it.
    fn pass(
        &self,
        cx: &mut Cx<'_>,
        from: SocketAddr,
        to: SocketAddr,
        to_server: bool,
        payload: Mbuf,
    ) -> Claim {
        let bytes = payload.len();
        match cx.send(from, to, payload) {
            Ok(()) => {
                self.relay.passed(to_server, bytes);
                Claim::Done(Outcome::Delivered)
            }
            Err(reason) => Claim::Done(Outcome::Dropped(reason)),
        }
    }

    /// Drops a client's packet under its name, and tells the client what it must know.
    fn refuse(&self, cx: &mut Cx<'_>, datagram: &Datagram, header: &Header, refusal: Refusal) -> Claim {
        let answer = refusal.answer(header).and_then(|answer| cx.pool.copy_from(&answer));
        if let Some(answer) = answer
            && cx.send(datagram.local, datagram.peer, answer).is_ok()
        {
            self.relay.aborted();
        }
        Claim::Done(Outcome::Refused(refusal as u8))
    }

    /// Of the ports, a client is given one whose replies come to this core.
    fn open_relay(&mut self, rx: &mut Rx<'_>, ports: Arc<[SocketAddr]>) {
        let suits =
            |port: SocketAddr, server| rx.source_for(server) == Some(port.ip()) && rx.suits(port, server);
        self.relay.open(ports, suits);
    }

    /// Tells the control thread how far a drain has come.
    fn publish(&self, rx: &Rx<'_>) {
        if self.forwarder.is_draining() {
            self.shared.cores[self.core].drain.set(1 + u64::from(rx.endpoint.is_idle()));
        }
    }
}

impl App for GatewayApp {
    type Command = Command;
    const REFUSALS: &'static [&'static str] = Refusal::NAMES;

    fn datagram(&mut self, cx: &mut Cx<'_>, gate: Gate, mut datagram: Datagram) -> Claim {
        let payload = &mut datagram.payload;
        let whole = payload.data().len() >= HEADER_LEN || payload.pull_up(HEADER_LEN, cx.pool);
        let Some((header, _)) = whole.then(|| Header::parse(payload.data()).ok()).flatten() else {
            return Claim::Done(Outcome::Refused(Refusal::BadHeader as u8));
        };
        let (now, peer, balancer) = (cx.now, datagram.peer, self.forwarder.balancer());
        let local = match gate {
            Gate::Local(local) => local,
            Gate::Port(port) => {
                return match self.relay.from_server(now, balancer, port, peer, &header) {
                    Ok(way) => self.pass(cx, way.from, way.to, false, datagram.payload),
                    Err(refusal) => Claim::Done(Outcome::Refused(refusal as u8)),
                };
            }
        };
        // None for a moment only, while the listener is opened.
        let Some(listener) = self.relay.listener(local) else { return Claim::Endpoint(datagram) };
        match self.relay.from_client(now, balancer, listener, peer, &header) {
            Ok(Step::Pass(way)) => self.pass(cx, way.from, way.to, true, datagram.payload),
            Ok(Step::Ours) => Claim::Endpoint(datagram),
            Err(refusal) => self.refuse(cx, &datagram, &header, refusal),
        }
    }

    fn unreachable(&mut self, cx: &mut Cx<'_>, gate: Gate, peer: SocketAddr, error: NetError) {
        if matches!(error, NetError::MessageTooBig { .. } | NetError::ParameterProblem) {
            return;
        }
        match gate {
            Gate::Port(port) => {
                let balancer = self.forwarder.balancer();
                self.relay.server_unreachable(cx.now, balancer, port, peer);
            }
            Gate::Local(local) => {
                if let Some(listener) = self.relay.listener(local) {
                    self.relay.client_unreachable(cx.now, listener, peer);
                }
            }
        }
    }

    fn relayed(&self, from: usize, rows: &mut Vec<RelayView>) -> Option<usize> {
        self.relay.page(from, rows)
    }

    fn opened(&mut self, rx: &mut Rx<'_>, local: LocalId, addr: SocketAddr) {
        self.forwarder.choose_sources(|peer| rx.client_local(peer));
        let listeners = self.config.listeners.iter().enumerate();
        for (index, listener) in listeners.filter(|(_, listener)| listener.address == addr) {
            // Here, before there is a connection, is decided what becomes of one.
            match listener.mode {
                ListenerMode::Terminate => {}
                ListenerMode::Relay => {
                    self.relay.listen(local, addr);
                    continue;
                }
            }
            for service in &listener.services {
                for id in &service.ids {
                    let (backlog, security) = (self.config.limits.calls, self.secrets.listener(index));
                    let offer = ServiceConfig { backlog, security, ..ServiceConfig::new(*id) };
                    rx.listen(local, offer).expect("the configuration names an id once for each listener");
                    let users = listener.security.as_ref().map_or(&[][..], |security| &security.users);
                    self.forwarder.add_route(local, *id, service.pool, users);
                }
            }
        }
    }

    fn closed(&mut self, rx: &mut Rx<'_>, _: LocalId, _: SocketAddr) {
        self.forwarder.choose_sources(|peer| rx.client_local(peer));
    }

    fn event(&mut self, rx: &mut Rx<'_>, event: Event) {
        self.forwarder.event(&mut io(rx), event);
    }

    fn command(&mut self, rx: &mut Rx<'_>, command: Command) {
        match command {
            Command::RelayPorts(ports) => self.open_relay(rx, ports),
            Command::Proof { pool, token, level } => {
                self.forwarder.set_proof(pool, Credentials::rxkad(token, level));
            }
            Command::Drain => {
                self.forwarder.drain();
                self.relay.drain(rx.now);
            }
            Command::AbortAll => {
                self.forwarder.abort_all(&mut io(rx));
                self.relay.clear(self.forwarder.balancer());
            }
        }
    }

    fn expire(&mut self, rx: &mut Rx<'_>) {
        self.forwarder.expire(&mut io(rx));
        if rx.now >= self.relay.next_timeout() {
            self.relay.expire(rx.now, self.forwarder.balancer());
        }
        self.publish(rx);
    }

    fn next_timeout(&self) -> Option<Instant> {
        Some(self.forwarder.next_timeout().min(self.relay.next_timeout()))
    }
}

fn io<'a>(rx: &'a mut Rx<'_>) -> Io<'a> {
    Io { now: rx.now, pool: rx.pool, endpoint: rx.endpoint }
}

/// The endpoint of each core: its limits follow from the configuration's.
pub fn endpoint_config(config: &Config) -> EndpointConfig {
    let limits = &config.limits;
    let backends: usize = config.pools.iter().map(|pool| pool.backends.len()).sum();
    let client_conns =
        config.pools.iter().map(|pool| pool.backends.len() * pool.calls.div_ceil(CALLS_PER_CONNECTION));
    // No more than the calls that may be in progress.
    let client_conns = client_conns.sum::<usize>().min(limits.calls + backends);
    let services: usize = config
        .listeners
        .iter()
        .flat_map(|listener| &listener.services)
        .map(|service| service.ids.len())
        .sum();
    // What calls have to themselves comes first. Of the rest all calls share three quarters; one quarter is for packets
    // on their way in and out.
    let shared = config.memory.buffers.saturating_sub(limits.calls * BUFFERS_PER_CALL);
    EndpointConfig {
        version: concat!("rxline gateway ", env!("CARGO_PKG_VERSION")).into(),
        // Each call in progress is two at the endpoint, and a call that is to be refused comes in first.
        calls_max: 2 * limits.calls + 64,
        conns_max: limits.connections + client_conns,
        peers_max: limits.peers + backends,
        // Calls of clients who have proved who they are, and of others, have connections of their own; and for a while those of a ticket that
        // was renewed.
        bundles_max: 3 * backends * services.max(1),
        receive_reserve: RECEIVE_RESERVE,
        send_reserve: SEND_RESERVE,
        unread_buffers_max: shared / 2,
        send_buffers_max: shared / 4,
        ..EndpointConfig::default()
    }
}
