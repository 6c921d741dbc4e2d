//! [`GatewayApp`]: the forwarder as an app on a polling core.

use std::net::SocketAddr;
use std::sync::Arc;

use pmd::Instant;
use rxrpc::{App, EndpointConfig, Event, LocalId, Rx, ServiceConfig};

use crate::config::{BUFFERS_PER_CALL, Config, ListenerMode, RECEIVE_RESERVE, SEND_RESERVE};
use crate::figures::Shared;
use crate::forward::{CALLS_PER_CONNECTION, Forwarder, Io};

/// What the control thread tells every core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Refuse new calls; those in progress go on.
    Drain,
    /// Abort what is in progress.
    AbortAll,
}

/// One core of the gateway.
pub struct GatewayApp {
    config: Arc<Config>,
    shared: Arc<Shared>,
    core: usize,
    forwarder: Forwarder,
}

impl GatewayApp {
    /// For the core with index `core`; `seed` decides its random choices.
    pub fn new(config: Arc<Config>, shared: Arc<Shared>, core: usize, seed: u64, now: Instant) -> Self {
        let forwarder = Forwarder::new(&config, shared.clone(), core, seed, now);
        Self { config, shared, core, forwarder }
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

    fn opened(&mut self, rx: &mut Rx<'_>, local: LocalId, addr: SocketAddr) {
        self.forwarder.choose_sources(|peer| rx.client_local(peer));
        for listener in self.config.listeners.iter().filter(|listener| listener.address == addr) {
            // Here, before there is a connection, is decided what becomes of one.
            match listener.mode {
                ListenerMode::Terminate => {}
            }
            for service in &listener.services {
                for id in &service.ids {
                    let offer =
                        ServiceConfig { backlog: self.config.limits.calls, ..ServiceConfig::new(*id) };
                    rx.listen(local, offer).expect("the configuration names an id once for each listener");
                    self.forwarder.add_route(local, *id, service.pool);
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
            Command::Drain => self.forwarder.drain(),
            Command::AbortAll => self.forwarder.abort_all(&mut io(rx)),
        }
    }

    fn expire(&mut self, rx: &mut Rx<'_>) {
        self.forwarder.expire(&mut io(rx));
        self.publish(rx);
    }

    fn next_timeout(&self) -> Option<Instant> {
        Some(self.forwarder.next_timeout())
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
        bundles_max: backends * services.max(1),
        receive_reserve: RECEIVE_RESERVE,
        send_reserve: SEND_RESERVE,
        unread_buffers_max: shared / 2,
        send_buffers_max: shared / 4,
        ..EndpointConfig::default()
    }
}
