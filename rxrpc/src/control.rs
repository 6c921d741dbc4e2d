//! The control side of an engine that runs Rx: opening and closing local addresses on all its cores.
//!
//! An address is withdrawn from the endpoints after the engine let it go, so no datagram finds a socket whose endpoint
//! knows it no more; one that comes between binding and announcing is refused by name. Nothing here is on the data path:
//! it waits for cores.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, Thread};

use engine::{BindError, CommandSender, Engine, SocketHandle};

use crate::handler::{GATE, Look, RxCommand, RxHandler};
use crate::{App, Endpoint, RxViewer};

/// Lets a control thread wait until every core has done something, or will never do it.
///
/// A token travels with each core's command; it counts when it is dropped, so a core that stops counts too.
pub struct Done(Arc<Waiting>);

struct Waiting {
    left: AtomicUsize,
    refused: AtomicUsize,
    thread: Thread,
}

impl Done {
    /// A token for each of `n` cores, and what waits for them.
    pub(crate) fn tokens(n: usize) -> (Vec<Done>, DoneWait) {
        let waiting = Arc::new(Waiting {
            left: AtomicUsize::new(n),
            refused: AtomicUsize::new(0),
            thread: thread::current(),
        });
        ((0..n).map(|_| Done(waiting.clone())).collect(), DoneWait(waiting))
    }

    /// Says that this core could not do it.
    pub(crate) fn refuse(self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `wait`.
        if self.0.left.fetch_sub(1, Ordering::Release) == 1 {
            self.0.thread.unpark();
        }
    }
}

/// The waiting side of [`Done`]. Stays on the thread that made it.
pub(crate) struct DoneWait(Arc<Waiting>);

impl DoneWait {
    /// Waits for every core. Returns how many refused.
    pub(crate) fn wait(self) -> usize {
        while self.0.left.load(Ordering::Acquire) > 0 {
            thread::park();
        }
        self.0.refused.load(Ordering::Relaxed)
    }
}

/// Why an address could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The engine could not bind it.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An endpoint has as many addresses as it may.
    #[error("an endpoint has as many local addresses as it may: raise `locals_max`")]
    TooMany,
    /// An unspecified address has no meaning here: replies leave from the address that was called.
    #[error("{0} names no address: open each address of the engine by itself")]
    Unspecified(SocketAddr),
    /// The engine has no address to call from.
    #[error("the engine has no address: give it one with `address(\"192.0.2.10/24\")`")]
    NoAddress,
    /// The engine is shut down.
    #[error("the engine was shut down")]
    Shutdown,
}

/// A local address, open on every core while this lives.
///
/// Dropping it closes the address: the engine unbinds it and lets a grace period pass, then every core's endpoint
/// aborts and forgets its calls.
pub struct OpenLocal<C: Send + 'static> {
    addr: SocketAddr,
    cookie: u64,
    bound: Option<SocketHandle>,
    cores: Arc<[CommandSender<RxCommand<C>>]>,
}

impl<C: Send + 'static> OpenLocal<C> {
    /// The address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl<C: Send + 'static> Drop for OpenLocal<C> {
    fn drop(&mut self) {
        drop(self.bound.take());
        let (tokens, done) = Done::tokens(self.cores.len());
        for (core, token) in self.cores.iter().zip(tokens) {
            let _ = core.send(RxCommand::Close { cookie: self.cookie, done: token });
        }
        done.wait();
    }
}

/// Ports for clients to call from, as many as it takes that each core finds one to which its replies come. Open while
/// this lives.
pub struct ClientPorts<C: Send + 'static> {
    #[allow(dead_code, reason = "held for what dropping them does")]
    locals: Vec<OpenLocal<C>>,
}

/// Client ports for each core: the chance that none of them suits one core and peer is below 2^-23.
const CLIENT_PORTS_PER_CORE: usize = 16;

/// What an engine with Rx on its cores can do besides.
pub trait RxControl {
    /// The command of the app on the cores.
    type Command: Send + 'static;

    /// Tells the app on core `core` something. Blocks while the core's inbox is full.
    fn tell(&self, core: usize, command: Self::Command) -> Result<(), engine::SendError<Self::Command>>;

    /// Runs `look` on a core's endpoint between two packets, and returns what it saw: for views. The core waits meanwhile.
    /// `None`: the core has stopped.
    fn inspect<R: Send + 'static>(
        &self,
        core: usize,
        look: impl FnOnce(&Endpoint) -> R + Send + 'static,
    ) -> Option<R>;

    /// Looks at the cores from other threads, page by page, for as long as the engine runs.
    fn rx_viewer(&self) -> RxViewer;

    /// Opens a local address on every core; [`App::opened`] runs on each of them before this returns.
    ///
    /// Must not be called on a polling thread: it waits for the cores.
    fn open(&self, addr: SocketAddr) -> Result<OpenLocal<Self::Command>, OpenError>;

    /// As [`open`](Self::open), and the app is shown each datagram to it first ([`App::datagram`]).
    fn open_gate(&self, addr: SocketAddr) -> Result<OpenLocal<Self::Command>, OpenError>;

    /// Binds a port that the endpoints know nothing of; datagrams to it come to [`App::datagram`] with `tag`, on the core
    /// that owns their flow. The cores are not told: whoever binds it does that.
    fn bind_gate(&self, addr: SocketAddr, tag: u32) -> Result<SocketHandle, OpenError>;

    /// Opens client ports on each of the engine's addresses, for [`Rx::client_local`](crate::Rx::client_local).
    fn open_clients(&self) -> Result<ClientPorts<Self::Command>, OpenError>;
}

static NEXT_COOKIE: AtomicU64 = AtomicU64::new(1);

/// Opens an address, as [`RxControl::open`], as one of the client ports, or as a gate.
fn open<A: App>(
    engine: &Engine<RxHandler<A>>,
    addr: SocketAddr,
    client: bool,
    gate: bool,
) -> Result<OpenLocal<A::Command>, OpenError> {
    if addr.ip().is_unspecified() {
        return Err(OpenError::Unspecified(addr));
    }
    let cookie = NEXT_COOKIE.fetch_add(1, Ordering::Relaxed);
    let cores: Arc<[_]> = (0..engine.cores()).map(|core| engine.commands(core)).collect();
    let bound = engine.bind(addr, cookie)?;
    let local = OpenLocal { addr: bound.local_addr(), cookie, bound: Some(bound), cores };
    let (tokens, done) = Done::tokens(local.cores.len());
    for (core, token) in local.cores.iter().zip(tokens) {
        let open = RxCommand::Open { cookie, addr: local.addr, client, gate, done: token };
        core.send(open).map_err(|_| OpenError::Shutdown)?;
    }
    match done.wait() {
        0 => Ok(local),
        _ => Err(OpenError::TooMany),
    }
}

impl<A: App> RxControl for Engine<RxHandler<A>> {
    type Command = A::Command;

    fn tell(&self, core: usize, command: A::Command) -> Result<(), engine::SendError<A::Command>> {
        use engine::SendError;
        let unwrap = |command| match command {
            RxCommand::App(command) => command,
            _ => unreachable!("it comes back as it was sent"),
        };
        self.commands(core).send(RxCommand::App(command)).map_err(|error| match error {
            SendError::Full(command) => SendError::Full(unwrap(command)),
            SendError::Stopped(command) => SendError::Stopped(unwrap(command)),
        })
    }

    fn inspect<R: Send + 'static>(
        &self,
        core: usize,
        look: impl FnOnce(&Endpoint) -> R + Send + 'static,
    ) -> Option<R> {
        let (seen, result) = mpsc::sync_channel(1);
        let look = Box::new(move |core: Look<'_>| {
            // Fails only if nobody waits for it any more.
            let _ = seen.try_send(look(core.endpoint));
        });
        self.commands(core).send(RxCommand::Inspect(look)).ok()?;
        result.recv().ok()
    }

    fn rx_viewer(&self) -> RxViewer {
        RxViewer::new(self.viewer(), (0..self.cores()).map(|core| self.commands(core)))
    }

    fn open(&self, addr: SocketAddr) -> Result<OpenLocal<A::Command>, OpenError> {
        open(self, addr, false, false)
    }

    fn open_gate(&self, addr: SocketAddr) -> Result<OpenLocal<A::Command>, OpenError> {
        open(self, addr, false, true)
    }

    fn bind_gate(&self, addr: SocketAddr, tag: u32) -> Result<SocketHandle, OpenError> {
        Ok(self.bind(addr, GATE | u64::from(tag))?)
    }

    fn open_clients(&self) -> Result<ClientPorts<A::Command>, OpenError> {
        // One core gets every reply, whatever the port.
        let ports = if self.cores() == 1 { 1 } else { CLIENT_PORTS_PER_CORE * self.cores() };
        let mut locals = Vec::new();
        for address in self.addresses() {
            for _ in 0..ports {
                locals.push(open(self, SocketAddr::new(address, 0), true, false)?);
            }
        }
        if locals.is_empty() {
            return Err(OpenError::NoAddress);
        }
        Ok(ClientPorts { locals })
    }
}
