//! Builds and starts an engine.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use pmd::{Clock, Hugepages, OpenOptions, PoolConfig, PoolSeed, Port, Queue, Region, STRIDE};

use crate::control::{Limits, Sockets};
use crate::core::{Core, CoreSeed};
use crate::cx::CoreState;
use crate::engine::Engine;
use crate::figures::{CoreView, Figures};
use crate::flow::HashKeys;
use crate::handler::{CoreInfo, Handler};
use crate::idle::Idle;
use crate::ledger::CoreCounters;
use crate::owner::Ownership;
use crate::poll;
use crate::stack::{IpNet, PortConfig, Route, Stack, StackConfig};
use crate::start_error::StartError;
use crate::udp::UdpHandler;
use crate::wires;

/// Cores of one engine: as many as a word has bits.
pub const CORES_MAX: usize = 64;

/// Fewest buffers of a core's pool.
pub(crate) const POOL_MIN: usize = 256;

enum Device {
    Url(String),
    Open(Box<dyn Port>),
}

struct PortSpec {
    device: Device,
    mtu: Option<usize>,
    vlan: Option<u16>,
    addresses: Vec<String>,
    gateways: Vec<String>,
    routes: Vec<(String, String)>,
}

enum Cpus {
    Named(Vec<usize>),
    Count(usize),
}

/// Ports, the cores' pools, and the queues by core and port.
type Opened = (Vec<Box<dyn Port>>, Vec<PoolSeed>, Vec<Vec<Box<dyn Queue>>>);

type Tune = Box<dyn Fn(&mut StackConfig)>;

/// Says what an engine is made of. Addresses, gateways, routes, MTU and VLAN belong to the port named last before them.
pub struct Builder {
    name: String,
    ports: Vec<PortSpec>,
    early: Option<String>,
    cpus: Cpus,
    idle: Idle,
    pool_buffers: usize,
    hugepages: Hugepages,
    sockets_max: usize,
    socket_budget: usize,
    core_budget: Option<usize>,
    seed: Option<u64>,
    tune: Option<Tune>,
}

impl Engine<UdpHandler> {
    /// Begins an engine: one core, no ports yet.
    pub fn builder() -> Builder {
        Builder {
            name: "engine".into(),
            ports: Vec::new(),
            early: None,
            cpus: Cpus::Count(1),
            idle: Idle::default(),
            pool_buffers: 8192,
            hugepages: Hugepages::Try,
            sockets_max: 65_536,
            socket_budget: 4 << 20,
            core_budget: None,
            seed: None,
            tune: None,
        }
    }
}

impl Builder {
    /// Names the engine, in its pools and reports.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds a port by URL: see [`pmd::open`].
    pub fn port(self, url: impl Into<String>) -> Self {
        self.device(Device::Url(url.into()))
    }

    /// Adds a port that is open already, its queues not yet.
    pub fn open_port(self, port: Box<dyn Port>) -> Self {
        self.device(Device::Open(port))
    }

    fn device(mut self, device: Device) -> Self {
        let (addresses, gateways, routes) = Default::default();
        self.ports.push(PortSpec { device, mtu: None, vlan: None, addresses, gateways, routes });
        self
    }

    fn with_port(mut self, what: impl FnOnce() -> String, change: impl FnOnce(&mut PortSpec)) -> Self {
        match self.ports.last_mut() {
            Some(port) => change(port),
            None => self.early = self.early.or_else(|| Some(what())),
        }
        self
    }

    /// Gives the port an address with its prefix length, as in "192.0.2.10/24".
    pub fn address(self, address: impl Into<String>) -> Self {
        let address = address.into();
        self.with_port(|| format!("the address {address}"), |port| port.addresses.push(address.clone()))
    }

    /// Routes everything without a better route through this host on the port.
    pub fn gateway(self, via: impl Into<String>) -> Self {
        let via = via.into();
        self.with_port(|| format!("the gateway {via}"), |port| port.gateways.push(via.clone()))
    }

    /// Routes a prefix through a host on the port.
    pub fn route(self, prefix: impl Into<String>, via: impl Into<String>) -> Self {
        let route = (prefix.into(), via.into());
        self.with_port(|| format!("the route to {}", route.0), |port| port.routes.push(route.clone()))
    }

    /// The port's IP MTU, bytes, where the device has none of its own or a smaller one is wanted.
    pub fn mtu(self, mtu: usize) -> Self {
        self.with_port(|| format!("the MTU {mtu}"), |port| port.mtu = Some(mtu))
    }

    /// The port's 802.1Q VLAN.
    pub fn vlan(self, vlan: u16) -> Self {
        self.with_port(|| format!("the VLAN {vlan}"), |port| port.vlan = Some(vlan))
    }

    /// One core on each of these CPUs. Cores of any engine that name the same CPU share its polling thread.
    pub fn cores(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
        self.cpus = Cpus::Named(cpus.into_iter().collect());
        self
    }

    /// That many cores, spread over the CPUs that the process may use; where these are fewer, cores share polling threads.
    pub fn core_count(mut self, cores: usize) -> Self {
        self.cpus = Cpus::Count(cores);
        self
    }

    /// What cores do when there is nothing to do.
    pub fn idle(mut self, idle: Idle) -> Self {
        self.idle = idle;
        self
    }

    /// Buffers of each core's pool, 2 KiB each.
    pub fn pool_buffers(mut self, buffers: usize) -> Self {
        self.pool_buffers = buffers;
        self
    }

    /// Which pages the pools use.
    pub fn hugepages(mut self, hugepages: Hugepages) -> Self {
        self.hugepages = hugepages;
        self
    }

    /// How many sockets may be open at once: 65536 unless said otherwise, and at most 2^30. The table is laid out for so many at the
    /// start, in address space; memory is used as they come.
    pub fn sockets_max(mut self, sockets: usize) -> Self {
        self.sockets_max = sockets;
        self
    }

    /// Bytes of buffers that may wait, unread, for one socket: divided among the cores.
    pub fn socket_budget(mut self, bytes: usize) -> Self {
        self.socket_budget = bytes;
        self
    }

    /// Bytes of buffers that may wait, unread, for all sockets of one core. Half of its pool unless said otherwise.
    pub fn core_budget(mut self, bytes: usize) -> Self {
        self.core_budget = Some(bytes);
        self
    }

    /// Derives every key from `seed` instead of drawing them: for tests, never where others can send to us.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Changes the stack's configuration (limits and switches) before it is used.
    pub fn stack(mut self, tune: impl Fn(&mut StackConfig) + 'static) -> Self {
        self.tune = Some(Box::new(tune));
        self
    }

    /// Starts a plain UDP engine.
    pub fn start(self) -> Result<Engine<UdpHandler>, StartError> {
        self.start_with(|_| UdpHandler::default())
    }

    /// Starts an engine whose cores run what `make` builds. `make` is called on each core's own thread, one core at a time.
    pub fn start_with<H, F>(mut self, make: F) -> Result<Engine<H>, StartError>
    where
        H: Handler,
        F: FnMut(CoreInfo) -> H + Send + 'static,
    {
        let cpus = self.choose_cpus()?;
        let keys = self.keys();
        let (ports, pools, queues) = self.open_ports(cpus.len(), keys)?;
        let stacks = self.stacks(&ports, keys, cpus.len(), H::CHECKSUM_REQUIRED)?;
        let addresses: HashSet<IpAddr> = stacks[0].addresses().map(|(_, address)| address).collect();
        let views = pools.iter().zip(&cpus).map(|(pool, &cpu)| CoreView {
            cpu,
            counters: Arc::new(CoreCounters::new(H::REFUSALS)),
            pool: pool.handle(),
        });
        let views: Vec<_> = views.collect();
        let wires = wires::wires::<H::Command>(cpus.len())?;
        let (number, tokens) = crate::socket::tokens(cpus.len());
        let sockets_max = self.sockets_max;
        let ownership = Ownership::new(keys, cpus.len(), ports.iter().map(|port| port.rss()));
        let limits = self.limits(cpus.len());
        let sockets = Sockets::new(number, keys, ownership, wires.links, limits, addresses)
            .map_err(|source| StartError::Table { sockets_max, source })?;
        let sockets = Arc::new(sockets);
        let figures = Figures {
            name: self.name,
            cores: views,
            ports: Mutex::new(ports),
            sockets: sockets.clone(),
            captured: Arc::default(),
        };
        let mut engine =
            Engine { sockets, commands: wires.commands, figures: Arc::new(figures), exits: Vec::new() };
        let make = Arc::new(Mutex::new(make));
        let (ready, started) = mpsc::channel();
        let parts = pools
            .into_iter()
            .zip(stacks)
            .zip(queues)
            .zip(tokens)
            .zip(wires.inboxes.into_iter().zip(wires.peers));
        for (core, ((((pool, stack), queues), token), (inbox, peers))) in parts.enumerate() {
            let info = CoreInfo {
                core,
                cores: cpus.len(),
                cpu: cpus[core],
                buffers: self.pool_buffers,
                seed: keys.derive(100 + core as u64),
                now: Clock::now(),
            };
            let make = make.clone();
            let seed = CoreSeed {
                name: format!("{}/core-{core}", engine.figures.name),
                make: Box::new(move |now| {
                    (make.lock().unwrap_or_else(PoisonError::into_inner))(CoreInfo { now, ..info })
                }),
                inbox,
                state: CoreState::new(
                    token,
                    stack,
                    queues,
                    peers,
                    self.pool_buffers,
                    engine.figures.cores[core].counters.clone(),
                    &engine.sockets,
                ),
                pool,
                sockets: engine.sockets.clone(),
                idle: self.idle,
            };
            let (exit, exited) = mpsc::channel();
            let ready = ready.clone();
            let build = move || {
                let built = catch_unwind(AssertUnwindSafe(|| seed.build()));
                let told = built.as_ref().map(drop).map_err(|panic| poll::message(&**panic));
                // Nobody listens if the start has failed already.
                let _ = ready.send((core, told));
                let built: Core<H> = built.unwrap_or_else(|panic| resume_unwind(panic));
                Box::new(built) as Box<dyn poll::Turn>
            };
            poll::run_on(cpus[core], Box::new(build), exit)?;
            engine.exits.push(Mutex::new(exited));
        }
        drop(ready);
        engine.await_start(&started)?;
        Ok(engine)
    }

    fn choose_cpus(&self) -> Result<Vec<usize>, StartError> {
        let allowed: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        let cpus = match &self.cpus {
            Cpus::Named(cpus) => cpus.clone(),
            Cpus::Count(cores) => {
                allowed.iter().copied().cycle().take(if allowed.is_empty() { 0 } else { *cores }).collect()
            }
        };
        if cpus.is_empty() || cpus.len() > CORES_MAX {
            return Err(StartError::Cores { cores: cpus.len() });
        }
        match cpus.iter().find(|cpu| !allowed.contains(cpu)) {
            Some(&cpu) => Err(StartError::NoSuchCpu { cpu, allowed }),
            None => Ok(cpus),
        }
    }

    fn keys(&self) -> HashKeys {
        match self.seed {
            Some(seed) => HashKeys(seed, !seed.rotate_left(32)),
            // The standard library seeds these from the system's randomness.
            None => HashKeys(RandomState::new().hash_one(0), RandomState::new().hash_one(1)),
        }
    }

    fn limits(&self, cores: usize) -> Limits {
        Limits {
            sockets_max: self.sockets_max,
            queue_budget: (self.socket_budget / cores) as u64,
            core_budget: self.core_budget.unwrap_or(self.pool_buffers * STRIDE / 2) as u64,
        }
    }

    /// A pool for each core, on `memory` where that is not empty.
    fn pools(&self, cores: usize, memory: Vec<Region>) -> Result<Vec<PoolSeed>, StartError> {
        let mut memory = memory.into_iter();
        let mut build = |core| {
            let mut config = PoolConfig::new(format!("{} core {core}", self.name), self.pool_buffers);
            config.hugepages = self.hugepages;
            match memory.next() {
                Some(region) => config.build_on(region),
                None => config.build(),
            }
        };
        (0..cores).map(|core| Ok(build(core)?)).collect()
    }

    /// Opens every port with one queue for each core, and makes the cores' pools; the queues by core, then by port.
    fn open_ports(&mut self, cores: usize, keys: HashKeys) -> Result<Opened, StartError> {
        if let Some(what) = self.early.take() {
            return Err(StartError::BeforePort { what });
        }
        if self.ports.is_empty() {
            return Err(StartError::NoPort);
        }
        let mut ports = Vec::new();
        let mut memory = Vec::new();
        let rss_key = Some(Ownership::device_key(keys));
        for spec in &mut self.ports {
            let addresses =
                spec.addresses.iter().filter_map(|value| Some(value.parse::<IpNet>().ok()?.addr()));
            let addresses = addresses.collect();
            let mut port = match std::mem::replace(&mut spec.device, Device::Url(String::new())) {
                Device::Open(port) => port,
                Device::Url(url) => {
                    let options = OpenOptions { queues: cores, mtu: spec.mtu, addresses, rss_key };
                    pmd::open(&url, &options)?
                }
            };
            let wanted = port.memory();
            if !wanted.is_empty() {
                if !memory.is_empty() {
                    return Err(StartError::TwoMemories { url: port.info().url });
                }
                memory = wanted;
            }
            ports.push(port);
        }
        if let Some(smallest) = memory.iter().map(Region::len).min() {
            self.pool_buffers = smallest / STRIDE;
        }
        if self.pool_buffers < POOL_MIN {
            return Err(StartError::PoolTooSmall { buffers: self.pool_buffers });
        }
        let pools = self.pools(cores, memory)?;
        let handles: Vec<_> = pools.iter().map(PoolSeed::handle).collect();
        let mut queues: Vec<Vec<_>> = (0..cores).map(|_| Vec::new()).collect();
        for port in &mut ports {
            for (queue, of_core) in port.open_queues(&handles)?.into_iter().zip(&mut queues) {
                of_core.push(queue);
            }
        }
        Ok((ports, pools, queues))
    }

    fn stacks(
        &self,
        ports: &[Box<dyn Port>],
        keys: HashKeys,
        cores: usize,
        checksum_required: bool,
    ) -> Result<Vec<Stack>, StartError> {
        let ports: Vec<_> = ports
            .iter()
            .zip(&self.ports)
            .map(|(port, spec)| port_config(&**port, spec))
            .collect::<Result<_, _>>()?;
        let stack = |core| {
            let mut config = StackConfig::new(ports.clone());
            config.seed = keys.derive(1);
            config.accept_zero_checksum &= !checksum_required;
            config.limits.reassembly_buffers = config.limits.reassembly_buffers.min(self.pool_buffers / 4);
            config.limits.waiting = config.limits.waiting.min(self.pool_buffers / 8);
            if let Some(tune) = &self.tune {
                tune(&mut config);
            }
            (config.core, config.cores) = (core, cores);
            Ok(Stack::new(config)?)
        };
        (0..cores).map(stack).collect()
    }
}

fn port_config(port: &dyn Port, spec: &PortSpec) -> Result<PortConfig, StartError> {
    let info = port.info();
    let addresses = spec
        .addresses
        .iter()
        .map(|value| value.parse().map_err(|_| StartError::BadAddress { value: value.clone() }));
    let via =
        |value: &String| value.parse::<IpAddr>().map_err(|_| StartError::BadGateway { value: value.clone() });
    let mut routes = Vec::new();
    for gateway in &spec.gateways {
        routes.push(Route::default_via(via(gateway)?));
    }
    for (value, gateway) in &spec.routes {
        let prefix: IpNet = value.parse().map_err(|_| StartError::BadPrefix { value: value.clone() })?;
        routes.push(Route { prefix, via: via(gateway)? });
    }
    let mtu = spec.mtu.map_or(info.mtu, |mtu| mtu.min(info.mtu));
    Ok(PortConfig {
        vlan: spec.vlan,
        routes,
        ..PortConfig::new(info.mac, mtu, addresses.collect::<Result<_, _>>()?)
    })
}
