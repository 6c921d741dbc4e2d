//! Services and loads on engines of their own, as the command line and other apps run them.

use crate::figures::Counter;
use crate::load::{Load, LoadCommand, LoadConfig, LoadFigures, Tally};
use crate::service::{PerfService, ServiceFigures};
use crate::summary::Summary;
use engine::{Builder, Engine, StartError};
use rxrpc::{
    ClientPorts, CongestionAlgorithm, Credentials, EndpointConfig, OpenError, OpenLocal, RxControl,
    RxHandler, RxViewer, Security,
};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use trace::TraceSinks;

/// Why a service or a load did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Ports, addresses, memory or CPUs.
    #[error(transparent)]
    Engine(#[from] StartError),
    /// The address to serve on.
    #[error("cannot serve on {address}: {error}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: OpenError,
    },
    /// The ports to call from.
    #[error("cannot open ports to call from: {0}")]
    Clients(OpenError),
}

impl RunError {
    /// Whether something was asked for that cannot be; otherwise the machine lacks something.
    pub fn is_usage(&self) -> bool {
        use pmd::PortError::{BadOption, Queues, UnknownDriver};
        match self {
            Self::Engine(StartError::Port(port)) => {
                matches!(port, UnknownDriver { .. } | BadOption { .. } | Queues { .. })
            }
            Self::Engine(StartError::Pool(_) | StartError::System(_) | StartError::Handler { .. }) => false,
            Self::Engine(_) | Self::Listen { .. } | Self::Clients(_) => true,
        }
    }
}

/// How many calls may be open at an endpoint beyond those that are expected.
const SPARE_CALLS: usize = 1024;

/// How a service treats its callers.
#[derive(Clone, Default)]
pub struct Service {
    /// How they prove who they are.
    pub security: Security,
    /// What decides how much of a reply may be in flight.
    pub congestion: CongestionAlgorithm,
    /// The same calls under another service id, for clients that ask for an upgrade.
    pub upgrade_to: Option<u16>,
}

/// A running rxperf service.
pub struct ServiceRun {
    // Closed before the engine stops.
    listeners: Vec<OpenLocal<Infallible>>,
    engine: Engine<RxHandler<PerfService>>,
    figures: Vec<Arc<ServiceFigures>>,
}

impl ServiceRun {
    /// Starts an engine of `cores` cores and pools of `buffers` that serves on these addresses.
    pub fn start(
        builder: Builder,
        cores: usize,
        buffers: usize,
        listen: &[SocketAddr],
    ) -> Result<Self, RunError> {
        Self::start_with(builder, cores, buffers, listen, Service::default(), None)
    }

    /// The same with what the service asks of its callers and how it sends, and with an event log.
    pub fn start_with(
        builder: Builder,
        cores: usize,
        buffers: usize,
        listen: &[SocketAddr],
        Service { security, congestion, upgrade_to }: Service,
        trace: Option<TraceSinks>,
    ) -> Result<Self, RunError> {
        let figures: Vec<_> = (0..cores).map(|_| Arc::new(ServiceFigures::default())).collect();
        let (addresses, of_core) = (listen.to_vec(), figures.clone());
        let engine = builder.pool_buffers(buffers).start_with(move |info| {
            let mut endpoint = EndpointConfig::for_pool(buffers);
            endpoint.version = concat!("rxline rxperf ", env!("CARGO_PKG_VERSION")).into();
            endpoint.calls_max = crate::service::CALLS_MAX + SPARE_CALLS;
            endpoint.congestion = congestion;
            let figures = of_core[info.core].clone();
            let service = PerfService::new(addresses.clone(), security.clone(), upgrade_to, figures);
            let sink = trace.as_ref().map(|trace| trace.sink(info.core));
            RxHandler::new(endpoint, info.seed, service).traced(sink)
        })?;
        let open = |&address| engine.open(address).map_err(|error| RunError::Listen { address, error });
        let listeners = listen.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { listeners, engine, figures })
    }

    /// Looks at its engine from other threads.
    pub fn rx_viewer(&self) -> RxViewer {
        self.engine.rx_viewer()
    }

    /// The sum over all cores of one of the figures.
    pub fn sum(&self, figure: impl Fn(&ServiceFigures) -> &Counter) -> u64 {
        self.figures.iter().map(|figures| figure(figures).get()).sum()
    }

    /// The engine's figures.
    pub fn stats(&self) -> engine::EngineStats {
        self.engine.stats()
    }

    /// Aborts what is in progress, which counts as failed, and serves no more.
    pub fn close(&mut self) {
        self.listeners.clear();
    }

    /// Aborts what is in progress and stops.
    pub fn shutdown(mut self) -> engine::Report {
        self.close();
        self.engine.shutdown()
    }
}

/// A running load.
pub struct LoadRun {
    // Closed before the engine stops.
    clients: ClientPorts<LoadCommand>,
    engine: Engine<RxHandler<Load>>,
    figures: Vec<Arc<LoadFigures>>,
    /// A tally to trade with each core.
    spare: Vec<Option<Box<Tally>>>,
    total: Tally,
    started: Option<Instant>,
    /// When it was cut short: what comes later does not count.
    cut: Option<Instant>,
}

/// How long a core may take to trade tallies. Its loop takes microseconds; a loaded machine may starve its thread.
const TRADE_MAX: Duration = Duration::from_secs(5);

impl LoadRun {
    /// Starts an engine of `cores` cores and pools of `buffers`, ready to call. Calls, connections and limits of `config`
    /// are divided among the cores.
    pub fn start(
        builder: Builder,
        cores: usize,
        buffers: usize,
        config: LoadConfig,
    ) -> Result<Self, RunError> {
        Self::start_with(builder, cores, buffers, config, None, None)
    }

    /// The same with calls that prove who makes them, and with an event log.
    pub fn start_with(
        builder: Builder,
        cores: usize,
        buffers: usize,
        config: LoadConfig,
        credentials: Option<Credentials>,
        trace: Option<TraceSinks>,
    ) -> Result<Self, RunError> {
        let figures: Vec<_> = (0..cores).map(|_| Arc::new(LoadFigures::default())).collect();
        let of_core = figures.clone();
        let engine = builder.pool_buffers(buffers).start_with(move |info| {
            let mut endpoint = EndpointConfig::for_pool(buffers);
            endpoint.version = concat!("rxline rxperf ", env!("CARGO_PKG_VERSION")).into();
            endpoint.calls_max = config.in_flight + SPARE_CALLS;
            endpoint.bundle_waiting_max = config.in_flight;
            endpoint.congestion = config.congestion;
            let share = config.share(info.core, cores);
            let load = Load::new(share, credentials.clone(), of_core[info.core].clone());
            let sink = trace.as_ref().map(|trace| trace.sink(info.core));
            RxHandler::new(endpoint, info.seed, load).traced(sink)
        })?;
        let clients = engine.open_clients().map_err(RunError::Clients)?;
        let spare = (0..cores).map(|_| Some(Box::default())).collect();
        Ok(Self { clients, engine, figures, spare, total: Tally::default(), started: None, cut: None })
    }

    /// Looks at its engine from other threads.
    pub fn rx_viewer(&self) -> RxViewer {
        self.engine.rx_viewer()
    }

    fn tell(&self, command: impl Fn() -> LoadCommand) {
        // A core that does not listen has ended with its engine; `shutdown` reports it.
        (0..self.engine.cores()).for_each(|core| drop(self.engine.tell(core, command())));
    }

    /// Begins to call.
    pub fn begin(&mut self) {
        self.started = Some(Instant::now());
        self.tell(|| LoadCommand::Start);
    }

    /// Begins no further call.
    pub fn stop(&self) {
        self.tell(|| LoadCommand::Stop);
    }

    /// Begins no further call, and aborts those in progress.
    pub fn cut(&mut self) {
        self.cut = Some(Instant::now());
        self.tell(|| LoadCommand::Cut);
    }

    /// Whether the last call has begun and ended, on all cores.
    pub fn is_over(&self) -> bool {
        self.figures.iter().all(|figures| figures.is_over())
    }

    /// Waits until it is over. False: it is not, and the time is up.
    pub fn wait_over(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        while !self.is_over() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// The sum over all cores of one of the figures.
    pub fn sum(&self, figure: impl Fn(&LoadFigures) -> &Counter) -> u64 {
        self.figures.iter().map(|figures| figure(figures).get()).sum()
    }

    /// What was counted since the last time this was asked, over all cores.
    pub fn interval(&mut self) -> Tally {
        let mut interval = Tally::default();
        for core in 0..self.engine.cores() {
            let Some(spare) = self.spare[core].take() else { continue };
            let (back, traded) = sync_channel(1);
            let _ = self.engine.tell(core, LoadCommand::Trade(spare, back));
            // A core that does not answer has ended, and what it counted is lost with it.
            if let Ok(tally) = traded.recv_timeout(TRADE_MAX) {
                interval.add(&tally);
                self.spare[core] = Some(tally);
            }
        }
        self.total.add(&interval);
        interval
    }

    /// The result so far. A call that has not ended counts as none.
    pub fn summary(&mut self) -> Summary {
        let until = self.cut.unwrap_or_else(Instant::now);
        let took = self.started.map_or(Duration::ZERO, |started| until - started);
        self.interval();
        let mut summary = Summary::new(&self.total, took);
        (summary.bytes_sent, summary.bytes_received) = (self.sum(|f| &f.sent), self.sum(|f| &f.received));
        summary.add_drops(&self.engine.stats());
        summary
    }

    /// The engine's figures.
    pub fn stats(&self) -> engine::EngineStats {
        self.engine.stats()
    }

    /// Aborts what is in progress and stops.
    pub fn shutdown(self) -> engine::Report {
        drop(self.clients);
        self.engine.shutdown()
    }
}
