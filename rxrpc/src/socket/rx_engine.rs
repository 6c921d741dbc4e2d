//! Starting an engine with Rx on its cores, and `engine.rx()`.

use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use engine::{Builder, Engine, Report, StartError};
use rtrb::RingBuffer;

use super::ServiceId;
use super::api::{Api, CoreLink, Local, lock};
use super::budget::ReadAccount;
use super::call_table::CallTable;
use super::client::Client;
use super::config::SocketConfig;
use super::core::SocketApp;
use super::error::BindFailed;
use super::rx_socket::RxSocket;
use super::service::Service;
use super::socket_table::SocketTable;
use super::views::SocketCallView;
use crate::handler::RxHandler;
use crate::{EndpointConfig, RxControl, RxViewer, Security};

/// Starts engines that speak Rx.
pub trait RxExt {
    /// Starts the engine with the socket API of Rx on its cores, within the default limits.
    fn start_rx(self) -> Result<RxEngine, StartError>;

    /// The same within limits of your own.
    fn start_rx_with(self, config: SocketConfig) -> Result<RxEngine, StartError>;
}

impl RxExt for Builder {
    fn start_rx(self) -> Result<RxEngine, StartError> {
        self.start_rx_with(SocketConfig::default())
    }

    fn start_rx_with(self, config: SocketConfig) -> Result<RxEngine, StartError> {
        let (built, links) = mpsc::channel();
        let (endpoint, budget) = (config.endpoint.clone(), config.unread_budget);
        let buffers = (config.receive_buffer, config.send_buffer);
        let sockets = Arc::new(SocketTable::new(config.sockets_max));
        let published = sockets.clone();
        let engine = self.start_with(move |core| {
            let account = Arc::new(ReadAccount::new(budget));
            let table = CallTable::new(core.core, buffers, account.clone());
            // Each call comes back once, and puts one queued run at most after that.
            let (returns, ended) = RingBuffer::new(2 * account.calls_max());
            let panicked = Arc::new(AtomicU64::new(0));
            let app = SocketApp::new(budget, table.clone(), published.clone(), returns, panicked.clone());
            // Fails only if the start failed on another core meanwhile.
            let _ = built.send((core.core, account, table, ended, panicked));
            RxHandler::new(within_pool(&endpoint, core.buffers), core.seed, app)
        })?;
        // Every core is built, or `start_with` had failed; each sent its link before that.
        let mut links: Vec<_> = links.iter().take(engine.cores()).collect();
        links.sort_by_key(|(core, ..)| *core);
        let link = |(core, account, table, ended, panicked)| CoreLink {
            commands: engine.commands(core),
            account,
            table,
            ended: Mutex::new(ended),
            panicked,
        };
        let api = Arc::new(Api::new(config, sockets, links.into_iter().map(link).collect()));
        Ok(RxEngine { engine, api })
    }
}

/// The endpoint's budgets, such that a quarter of the pool is left for receiving and transmission.
fn within_pool(config: &EndpointConfig, buffers: usize) -> EndpointConfig {
    let most = EndpointConfig::for_pool(buffers);
    EndpointConfig {
        unread_buffers_max: config.unread_buffers_max.min(most.unread_buffers_max),
        send_buffers_max: config.send_buffers_max.min(most.send_buffers_max),
        ..config.clone()
    }
}

/// An engine with the socket API of Rx on its cores. It is an [`Engine`] besides.
pub struct RxEngine {
    engine: Engine<RxHandler<SocketApp>>,
    api: Arc<Api>,
}

impl RxEngine {
    /// Its Rx sockets.
    pub fn rx(&self) -> RxApi<'_> {
        RxApi { engine: &self.engine, api: &self.api }
    }

    /// Looks at its cores and at what threads share of calls, from other threads, for as long as it runs.
    pub fn rx_viewer(&self) -> RxViewer {
        let tables = self.api.cores.iter().map(|core| Arc::downgrade(&core.table));
        self.engine.rx_viewer().with_shared(tables)
    }

    /// Stops the engine and reports what was left. Whoever waits on a socket or call is told that it was shut down.
    pub fn shutdown(self) -> Report {
        self.engine.shutdown()
    }
}

impl Deref for RxEngine {
    type Target = Engine<RxHandler<SocketApp>>;

    fn deref(&self) -> &Self::Target {
        &self.engine
    }
}

/// What `engine.rx()` can do: make sockets, and say how many calls there are.
#[derive(Clone, Copy)]
pub struct RxApi<'e> {
    engine: &'e Engine<RxHandler<SocketApp>>,
    pub(super) api: &'e Arc<Api>,
}

impl RxApi<'_> {
    /// Binds an address and takes calls for a service on it. Several services may share an address.
    pub fn bind(&self, addr: impl IntoAddr, service: ServiceId) -> Result<Service, BindFailed> {
        Service::bind(self.api, self.local(addr.into_addr()?)?, service, Security::none())
    }

    /// A socket to call from.
    pub fn client(&self) -> Result<Client, BindFailed> {
        self.open_clients()?;
        Client::open(self.api)
    }

    /// A socket in the vocabulary of AF_RXRPC, for calling only.
    pub fn socket(&self) -> Result<RxSocket, BindFailed> {
        self.open_clients()?;
        RxSocket::open(self.api, None, None)
    }

    /// A socket in the vocabulary of AF_RXRPC that listens. Calls come in as far as accepts are charged, of which there
    /// may be `backlog`.
    pub fn listen(
        &self,
        addr: impl IntoAddr,
        service: ServiceId,
        backlog: usize,
    ) -> Result<RxSocket, BindFailed> {
        let local = self.local(addr.into_addr()?)?;
        RxSocket::open(self.api, Some(local), Some((service, backlog)))
    }

    /// Calls that somebody holds a reference on: in progress, charged, or not released yet.
    pub fn live_calls(&self) -> usize {
        self.api.free_ended();
        self.api.ledger.live()
    }

    /// Calls ever begun or charged.
    pub fn begun_calls(&self) -> u64 {
        self.api.ledger.begun()
    }

    /// The calls that somebody holds a reference on, as threads share them. Reads under RCU: no core notices.
    pub fn calls(&self) -> Vec<SocketCallView> {
        self.api.free_ended();
        self.api.cores.iter().flat_map(|core| core.table.views()).collect()
    }

    /// Bytes received that lie in readers' rings, on all cores.
    pub fn unread_bytes(&self) -> u64 {
        self.api.cores.iter().map(|core| core.account.unread()).sum()
    }

    /// Calls aborted because the function that a service answers them with on its cores panicked.
    pub fn panicked_calls(&self) -> u64 {
        self.api.cores.iter().map(|core| core.panicked.load(Ordering::Relaxed)).sum()
    }

    /// Opens an address, or finds it open.
    fn local(&self, addr: SocketAddr) -> Result<Arc<Local>, BindFailed> {
        let mut locals = lock(&self.api.locals);
        locals.retain(|_, local| local.strong_count() > 0);
        let slot = match locals.entry(addr) {
            Entry::Occupied(slot) => match slot.get().upgrade() {
                Some(local) => return Ok(local),
                None => Entry::Occupied(slot),
            },
            vacant => vacant,
        };
        let local = Arc::new(self.engine.open(addr)?);
        slot.insert_entry(Arc::downgrade(&local));
        Ok(local)
    }

    /// Opens the engine's client ports, once.
    fn open_clients(&self) -> Result<(), BindFailed> {
        let _one_at_a_time = lock(&self.api.locals);
        if self.api.clients.get().is_none() {
            let _ = self.api.clients.set(self.engine.open_clients()?);
        }
        Ok(())
    }
}

/// What can be meant as a socket's address. Names are not looked up.
pub trait IntoAddr {
    /// The address.
    fn into_addr(self) -> Result<SocketAddr, BindFailed>;
}

impl IntoAddr for SocketAddr {
    fn into_addr(self) -> Result<SocketAddr, BindFailed> {
        Ok(self)
    }
}

impl IntoAddr for &str {
    fn into_addr(self) -> Result<SocketAddr, BindFailed> {
        self.parse().map_err(|_| BindFailed::BadAddress { text: self.into() })
    }
}

impl<I: Into<IpAddr>> IntoAddr for (I, u16) {
    fn into_addr(self) -> Result<SocketAddr, BindFailed> {
        Ok(SocketAddr::new(self.0.into(), self.1))
    }
}
