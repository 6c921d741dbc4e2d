//! [`Gateway`]: the app on an engine of its own, from start to closing report.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use engine::{CoreInfo, Engine, EngineStats, SocketHandle};
use pmd::Port;
use rxrpc::{ClientPorts, OpenError, OpenLocal, RxControl, RxHandler, RxViewer};
use serde::Serialize;
use trace::TraceSinks;

use crate::app::{Command, GatewayApp, endpoint_config};
use crate::config::{self, Config, ListenerMode};
use crate::figures::{CoreFigures, Shared};
use crate::secrets::{Secrets, SecretsError, Tickets};
use crate::stats::{self, GatewayStats};

/// How often a control thread looks whether the cores have done what they were told.
const LOOK: Duration = Duration::from_millis(2);
/// How long the last ACKs and ABORTs may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Starts gateways.
pub struct Gateway;

/// A gateway that runs. Dropping it stops it at once; [`GatewayHandle::drain`] lets calls end first.
pub struct GatewayHandle {
    // In the order in which they are closed.
    listeners: Vec<OpenLocal<Command>>,
    relay_ports: Vec<SocketHandle>,
    clients: ClientPorts<Command>,
    engine: Engine<RxHandler<GatewayApp>>,
    shared: Arc<Shared>,
    config: Arc<Config>,
    tickets: Tickets,
    started: Instant,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Ports, addresses, memory or cores.
    #[error(transparent)]
    Engine(#[from] engine::StartError),
    /// Files of keys or tickets.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// A listener's address.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// The listener's.
        address: SocketAddr,
        /// Why.
        source: OpenError,
    },
    /// The ports that backends are called from.
    #[error("cannot open ports to call backends from: {0}")]
    Clients(OpenError),
    /// The ports that relayed clients are given.
    #[error("cannot open the {wanted} ports of [relay] on {address}: {source}; write fewer in `ports`")]
    Relay {
        /// The address towards backends.
        address: IpAddr,
        /// How many there were to be.
        wanted: usize,
        /// Why.
        source: OpenError,
    },
    /// A core has ended already.
    #[error("the engine was shut down")]
    Shutdown,
}

/// How a gateway ended.
pub struct Report {
    /// The last figures.
    pub stats: GatewayStats,
    /// How long the drain took.
    pub drained_in: Duration,
    /// Lists that should have been empty and were not, before the engine stopped.
    unfinished: Vec<String>,
    engine: engine::Report,
}

impl Gateway {
    /// Starts a gateway. `ports` are devices that are open already, in the order of the configuration's; without any, the
    /// configuration's URLs are opened.
    pub fn start(config: Config, ports: Vec<Box<dyn Port>>) -> Result<GatewayHandle, StartError> {
        Gateway::start_traced(config, ports, None)
    }

    /// The same with an event log.
    pub fn start_traced(
        config: Config,
        ports: Vec<Box<dyn Port>>,
        trace: Option<TraceSinks>,
    ) -> Result<GatewayHandle, StartError> {
        let secrets = Arc::new(Secrets::load(&config)?);
        let tickets = Tickets::of(&config, &secrets);
        let config = Arc::new(config);
        let shared = Shared::new(&config, config.cores.count());
        let endpoint = endpoint_config(&config);
        let make = {
            let (config, shared) = (config.clone(), shared.clone());
            move |info: CoreInfo| {
                let (config, secrets, shared) = (config.clone(), secrets.clone(), shared.clone());
                let app = GatewayApp::new(config, secrets, shared, info.core, info.seed, info.now);
                let sink = trace.as_ref().map(|trace| trace.sink(info.core));
                RxHandler::new(endpoint.clone(), info.seed, app).traced(sink)
            }
        };
        let engine = builder(&config, ports).start_with(make)?;
        // Before the first call can come, the ports that it would be passed on from.
        let clients = engine.open_clients().map_err(StartError::Clients)?;
        let relay_ports = open_relay(&engine, &config)?;
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            let address = listener.address;
            let open = match listener.mode {
                ListenerMode::Terminate => engine.open(address),
                ListenerMode::Relay => engine.open_gate(address),
            };
            listeners.push(open.map_err(|source| StartError::Listen { address, source })?);
        }
        let started = Instant::now();
        Ok(GatewayHandle { listeners, relay_ports, clients, engine, shared, config, tickets, started })
    }
}

/// The ports that relayed clients are given, on each address towards backends; every core knows of them before it is told of a
/// listener.
fn open_relay(
    engine: &Engine<RxHandler<GatewayApp>>,
    config: &Config,
) -> Result<Vec<SocketHandle>, StartError> {
    let wanted = config.relay.ports;
    let mut ports = Vec::new();
    for address in config.relay_sources() {
        for _ in 0..wanted {
            let bound = engine.bind_gate(SocketAddr::new(address, 0), ports.len() as u32);
            ports.push(bound.map_err(|source| StartError::Relay { address, wanted, source })?);
        }
    }
    let addresses: Arc<[SocketAddr]> = ports.iter().map(SocketHandle::local_addr).collect();
    for core in 0..engine.cores() {
        engine.tell(core, Command::RelayPorts(addresses.clone())).map_err(|_| StartError::Shutdown)?;
    }
    Ok(ports)
}

fn builder(config: &Config, ports: Vec<Box<dyn Port>>) -> engine::Builder {
    let mut builder = Engine::builder().name("gateway").idle(config.idle).pool_buffers(config.memory.buffers);
    builder = match &config.cores {
        config::Cores::Count(cores) => builder.core_count(*cores),
        config::Cores::Cpus(cpus) => builder.cores(cpus.iter().copied()),
    };
    let mut ports = ports.into_iter();
    for port in &config.ports {
        builder = match ports.next() {
            Some(open) => builder.open_port(open),
            None => builder.port(&port.url),
        };
        builder = port.addresses.iter().fold(builder, |builder, own| builder.address(own.to_string()));
        builder = port.gateways.iter().fold(builder, |builder, via| builder.gateway(via.to_string()));
        builder = port
            .routes
            .iter()
            .fold(builder, |builder, route| builder.route(route.to.to_string(), route.via.to_string()));
        builder = port.mtu.into_iter().fold(builder, engine::Builder::mtu);
        builder = port.vlan.into_iter().fold(builder, engine::Builder::vlan);
    }
    builder
}

impl GatewayHandle {
    /// All figures, now.
    pub fn stats(&self) -> GatewayStats {
        stats::read(&self.config, &self.shared, self.started.elapsed(), &self.engine.stats())
    }

    /// The engine's own figures.
    pub fn engine_stats(&self) -> EngineStats {
        self.engine.stats()
    }

    /// Looks at its engine from other threads.
    pub fn rx_viewer(&self) -> RxViewer {
        self.engine.rx_viewer()
    }

    /// Takes tickets that last longer than those in use out of the credential caches. To be called every now and then, for tickets
    /// end; returns what stood against it, each thing once.
    pub fn renew_tickets(&mut self) -> Vec<SecretsError> {
        let mut errors = Vec::new();
        for renewed in self.tickets.renew(&self.config) {
            match renewed {
                Ok((pool, token, level)) => self.tell(Command::Proof { pool, token, level }),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// How long the configuration lets calls in progress go on.
    pub fn drain_limit(&self) -> Duration {
        self.config.drain
    }

    /// Refuses new calls, lets those in progress end for at most `limit`, aborts what is left, and stops.
    ///
    /// `look` is called every now and then meanwhile; false cuts the waiting short.
    pub fn drain(self, limit: Duration, mut look: impl FnMut(&GatewayStats) -> bool) -> Report {
        let begun = Instant::now();
        self.tell(Command::Drain);
        while !self.is_drained() && begun.elapsed() < limit && look(&self.stats()) {
            sleep(LOOK);
        }
        self.tell(Command::AbortAll);
        let aborted = Instant::now();
        while !self.is_quiet() && aborted.elapsed() < LAST_WORDS {
            sleep(LOOK);
        }
        let drained_in = begun.elapsed();
        let unfinished = self.unfinished();
        let Self { listeners, relay_ports, clients, engine, shared, config, started, tickets: _ } = self;
        drop((listeners, relay_ports, clients));
        let engine = engine.shutdown();
        let stats = stats::read(&config, &shared, started.elapsed(), &engine.stats);
        Report { stats, drained_in, unfinished, engine }
    }

    fn tell(&self, command: Command) {
        for core in 0..self.engine.cores() {
            // Refused only by a core that has ended; the report says so.
            let _ = self.engine.tell(core, command.clone());
        }
    }

    /// Every core refuses new calls, none is in progress, and nothing was relayed lately.
    fn is_drained(&self) -> bool {
        let cores = &self.shared.cores;
        let drained = |core: &CoreFigures| core.drain.get() > 0 && core.relay.busy.get() == 0;
        cores.iter().all(drained) && self.shared.calls().in_progress == 0
    }

    /// And none has anything left to say, or remembers a connection.
    fn is_quiet(&self) -> bool {
        let quiet = |core: &CoreFigures| core.drain.get() == 2 && core.relay.connections.get() == 0;
        self.is_drained() && self.shared.cores.iter().all(quiet)
    }

    /// Lists that should be empty by now, and figures that should add up.
    fn unfinished(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        let calls = self.shared.calls();
        if calls.in_progress > 0 {
            leaks.push(format!("{} calls are in progress still", calls.in_progress));
        }
        if !calls.closes() {
            leaks.push(format!("the calls' figures do not add up: {calls:?}"));
        }
        let relay = self.shared.relay();
        if relay.connections > 0 || !relay.closes() {
            leaks.push(format!("the relay's figures do not add up: {relay:?}"));
        }
        for backend in self.shared.backends.iter().filter(|backend| backend.outstanding() > 0) {
            leaks.push(format!("{} calls to {} are open still", backend.outstanding(), backend.address));
        }
        leaks
    }
}

impl Report {
    /// What should be empty or full and is not; nothing leaked if it is empty. Buffers that went to another engine of this
    /// process, over a `memory:` wire, come home when that one stops: then ask after the last one.
    pub fn leaks(&self) -> Vec<String> {
        let mut leaks = self.unfinished.clone();
        leaks.extend(self.engine.leaks());
        leaks
    }

    /// For people: what was done, by whom, and whether everything came home.
    pub fn text(&self, leaks: &[String]) -> String {
        let calls = &self.stats.calls;
        let home = match leaks.len() {
            0 => "every buffer home, every list empty".to_string(),
            n => format!("{n} leaks"),
        };
        format!(
            "drained in {:.1} s after {:.1} s of service\n\
             calls: {} in, {} forwarded ({} unacknowledged), {} failed ({} aborted by backends, {} by clients, {} lost with their backend, {} for want of our proof, {} with their client, \
             {} cut off), {} refused\n{}{home}\n",
            self.drained_in.as_secs_f64(),
            self.stats.seconds,
            calls.accepted,
            calls.succeeded + calls.client_left,
            calls.client_left,
            calls.failed(),
            calls.backend_aborted,
            calls.client_aborted,
            calls.backend_failed,
            calls.proof_refused,
            calls.client_lost,
            calls.drained,
            calls.refused(),
            self.stats.backend_table(),
        )
    }

    /// The same as one line of JSON: the last figures, and how it ended.
    pub fn json(&self, leaks: &[String]) -> String {
        #[derive(Serialize)]
        struct Closing<'a> {
            closing: bool,
            drained_in_seconds: f64,
            leaks: &'a [String],
            #[serde(flatten)]
            stats: &'a GatewayStats,
        }
        let drained_in_seconds = self.drained_in.as_secs_f64();
        let closing = Closing { closing: true, drained_in_seconds, leaks, stats: &self.stats };
        serde_json::to_string(&closing).expect("plain data")
    }
}
