//! [`Demo`]: the four engines, from start to end.

use engine::{Engine, EngineStats, Idle};
use gateway::config::{Config, ConfigError};
use gateway::{Gateway, GatewayHandle};
use rxperf::load::{LoadConfig, Tally};
use rxperf::{LoadRun, RunError, ServiceRun, Summary, Verify, Work};
use rxrpc::RxViewer;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where clients call the gateway.
const FRONT: &str = "192.0.2.1:7009";
/// The services, each on a wire of its own: the gateway's address and the service's.
const SERVICES: [(&str, &str); 2] = [("198.51.100.1", "198.51.100.11"), ("203.0.113.1", "203.0.113.11")];
/// Give a call up after so long.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// What a demo does.
#[derive(Clone, Debug)]
pub struct DemoConfig {
    /// CPUs to poll on, at least one; the engines are spread over them.
    pub cpus: Vec<usize>,
    /// What a core does when there is nothing to do.
    pub idle: Idle,
    /// Calls at once.
    pub in_flight: usize,
    /// So long after a call has ended the next one begins in its place; zero: at once.
    pub gap: Duration,
    /// Connections from the load to the gateway; each carries four calls at once.
    pub connections: usize,
    /// Payload of a request in bytes.
    pub request_bytes: u32,
    /// Payload of a reply in bytes.
    pub reply_bytes: u32,
}

/// Calls that the gateway may hold beyond those of the load: ones that have ended and are not forgotten yet.
const SPARE_CALLS: usize = 16;

impl DemoConfig {
    /// Calls that the gateway may hold.
    fn calls(&self) -> usize {
        self.in_flight + SPARE_CALLS
    }

    /// Packet buffers of each engine, 2 KiB each: what the gateway wants for so many calls, and no less than it ever wants.
    fn buffers(&self) -> usize {
        (4096 + 24 * self.calls()).max(8192)
    }
}

/// A demo that runs.
pub struct Demo {
    load: LoadRun,
    gateway: GatewayHandle,
    /// Two, in the order of [`SERVICES`].
    services: Vec<ServiceRun>,
}

/// Why a demo did not start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A service or the load.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The gateway.
    #[error(transparent)]
    Gateway(#[from] gateway::StartError),
    /// The gateway's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// How a demo ended.
#[derive(Clone, Debug)]
pub struct Ending {
    /// The load's result, with the drops of all engines.
    pub summary: Summary,
    /// Calls that each service answered.
    pub served: [u64; 2],
    /// Times that a core slept.
    pub sleeps: u64,
    /// What should be empty or full and is not, in any engine. Empty: nothing leaked.
    pub leaks: Vec<String>,
}

impl Ending {
    /// Whether every call was verified and everything came home.
    pub fn holds(&self) -> bool {
        self.summary.holds() && self.leaks.is_empty()
    }
}

/// A number for the wires' names, so that two demos in one process do not meet.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Demo {
    /// Starts services, gateway and load. No call is made yet.
    pub fn start(config: &DemoConfig) -> Result<Self, DemoError> {
        let wires = format!("demo{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let cpus = Cpus::spread(&config.cpus);
        let services = SERVICES.iter().enumerate().map(|(which, (_, address))| {
            let engine = Engine::builder()
                .name(format!("service {address}"))
                .cores([cpus.services[which]])
                .idle(config.idle)
                .port(format!("memory:{wires}-service{which}"))
                .address(format!("{address}/24"));
            ServiceRun::start(engine, 1, config.buffers(), &[socket(&format!("{address}:7009"))])
        });
        let services = services.collect::<Result<_, _>>()?;
        let gateway = Gateway::start(gateway_config(config, &wires, cpus.gateway)?, Vec::new())?;
        let engine = Engine::builder()
            .name("load")
            .cores([cpus.load])
            .idle(config.idle)
            .port(format!("memory:{wires}-front"))
            .address("192.0.2.2/24");
        let load = LoadRun::start(engine, 1, config.buffers(), load_config(config))?;
        Ok(Self { load, gateway, services })
    }

    /// Looks at its engines from other threads: the gateway's, the load's, the services'.
    pub fn rx_viewers(&self) -> Vec<RxViewer> {
        let services = self.services.iter().map(ServiceRun::rx_viewer);
        [self.gateway.rx_viewer(), self.load.rx_viewer()].into_iter().chain(services).collect()
    }

    /// Begins to call.
    pub fn begin(&mut self) {
        self.load.begin();
    }

    /// What was counted since the last time this was asked.
    pub fn interval(&mut self) -> Tally {
        self.load.interval()
    }

    /// Calls in progress at the load.
    pub fn in_flight(&self) -> u64 {
        self.load.sum(|f| &f.begun) - self.load.sum(|f| &f.ended)
    }

    /// Calls that each service answered.
    pub fn served(&self) -> [u64; 2] {
        std::array::from_fn(|which| self.services[which].sum(|f| &f.served))
    }

    /// Lets calls in progress end, stops everything, and looks whether all is well.
    pub fn finish(mut self) -> Ending {
        self.load.stop();
        // The rate is that of the load at work, so it is taken before the last calls are waited for.
        let rate = self.load.summary().calls_per_second;
        self.load.wait_over(CALL_TIMEOUT + Duration::from_secs(5));
        let left = self.in_flight();
        let mut summary = self.load.summary();
        summary.calls_per_second = rate;
        summary.lose(left);
        // Buffers that went to another engine come home when that one stops, so leaks are asked for at the end.
        let load = self.load.shutdown();
        let gateway = self.gateway.engine_stats();
        summary.add_drops(&gateway);
        let drained = self.gateway.drain(CALL_TIMEOUT, |_| true);
        let served = std::array::from_fn(|which| self.services[which].sum(|f| &f.served));
        let services: Vec<_> = self.services.into_iter().map(ServiceRun::shutdown).collect();
        let mut leaks = drained.leaks();
        for report in services.iter().chain([&load]) {
            leaks.extend(report.leaks());
        }
        services.iter().for_each(|report| summary.add_drops(&report.stats));
        let slept = |stats: &EngineStats| stats.cores.iter().map(|core| core.sleeps).sum::<u64>();
        let reports = services.iter().chain([&load]).map(|report| &report.stats);
        let sleeps = reports.chain([&gateway]).map(slept).sum();
        Ending { summary, served, sleeps, leaks }
    }
}

/// Which engine polls on which CPU. The gateway carries every packet twice: it is the last to share.
struct Cpus {
    gateway: usize,
    load: usize,
    services: [usize; 2],
}

impl Cpus {
    fn spread(cpus: &[usize]) -> Self {
        let (gateway, load, services) = match *cpus {
            [] => unreachable!("a demo has a CPU"),
            [one] => (one, one, [one, one]),
            [a, b] => (a, b, [b, b]),
            [a, b, c] => (a, b, [c, c]),
            [a, b, c, d, ..] => (a, b, [c, d]),
        };
        Self { gateway, load, services }
    }
}

fn load_config(config: &DemoConfig) -> LoadConfig {
    LoadConfig {
        server: socket(FRONT),
        work: Work::rpc(config.request_bytes, config.reply_bytes),
        verify: Verify::Digest,
        upgrade: false,
        in_flight: config.in_flight,
        gap: config.gap,
        connections: config.connections,
        calls_max: None,
        call_timeout: CALL_TIMEOUT,
        seed: 1,
        congestion: Default::default(),
    }
}

/// The gateway's configuration, written as an operator would.
fn gateway_config(config: &DemoConfig, wires: &str, cpu: usize) -> Result<Config, ConfigError> {
    let (buffers, calls, idle) = (config.buffers(), config.calls(), config.idle);
    let mut text = format!(
        "cores = [{cpu}]\n\
         idle = \"{idle}\"\n\
         [memory]\n\
         buffers = {buffers}\n\
         [limits]\n\
         calls = {calls}\n\
         [[port]]\n\
         url = \"memory:{wires}-front\"\n\
         addresses = [\"192.0.2.1/24\"]\n"
    );
    for (which, (address, _)) in SERVICES.iter().enumerate() {
        let url = format!("memory:{wires}-service{which}");
        text += &format!("[[port]]\nurl = \"{url}\"\naddresses = [\"{address}/24\"]\n");
    }
    let [(_, a), (_, b)] = SERVICES;
    text += &format!(
        "[[pool]]\n\
         name = \"rxperf\"\n\
         backends = [\"{a}:7009\", \"{b}:7009\"]\n\
         calls = {calls}\n\
         [[listener]]\n\
         address = \"{FRONT}\"\n\
         [[listener.service]]\n\
         ids = [147]\n\
         pool = \"rxperf\"\n"
    );
    Config::parse("the demo's configuration", &text)
}

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}
