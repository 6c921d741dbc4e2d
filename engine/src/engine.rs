//! A running engine, as other threads see it; its figures, and its end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pmd::{PoolHandle, PortInfo};

use crate::control::{BindError, CommandSender, Op, SocketHandle, Sockets};
use crate::figures::{EngineStats, Figures, Viewer};
use crate::handler::Handler;
use crate::poll::Exit;
use crate::start_error::StartError;
use crate::udp::UdpHandler;

/// How long a shut-down engine waits for buffers that are on their way home from other threads.
const HOMECOMING: Duration = Duration::from_secs(1);

/// A running engine: cores that poll ports, and the sockets bound on them. Dropping it stops it; [`shutdown`](Self::shutdown) also
/// reports.
pub struct Engine<H: Handler = UdpHandler> {
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) commands: Vec<CommandSender<H::Command>>,
    pub(crate) figures: Arc<Figures>,
    /// Behind locks that only stopping takes, so that threads may share the engine.
    pub(crate) exits: Vec<std::sync::Mutex<Receiver<Exit>>>,
}

impl<H: Handler> Engine<H> {
    /// How many cores it has.
    pub fn cores(&self) -> usize {
        self.figures.cores.len()
    }

    /// The way to tell a core's handler something.
    pub fn commands(&self, core: usize) -> CommandSender<H::Command> {
        self.commands[core].clone()
    }

    /// Binds a socket on every core. Port 0 means any free port; `cookie` is for the handler.
    pub fn bind(&self, addr: SocketAddr, cookie: u64) -> Result<SocketHandle, BindError> {
        self.sockets.bind(addr, None, cookie)
    }

    /// Binds a socket that hears only `peer`.
    pub fn bind_connected(
        &self,
        addr: SocketAddr,
        peer: SocketAddr,
        cookie: u64,
    ) -> Result<SocketHandle, BindError> {
        self.sockets.bind(addr, Some(peer), cookie)
    }

    /// Binds a socket that hears only `peer`, on a port such that its flow belongs to core `core`: the replies come to that core. The
    /// address must be one of the engine's, its port 0.
    pub fn bind_on(
        &self,
        core: usize,
        addr: SocketAddr,
        peer: SocketAddr,
        cookie: u64,
    ) -> Result<SocketHandle, BindError> {
        self.sockets.bind_on(core, addr, peer, cookie)
    }

    /// Binds sockets from other threads, for as long as the engine runs.
    pub fn binder(&self) -> Binder {
        Binder { sockets: self.sockets.clone() }
    }

    /// The core that owns the flow between `local` and `peer`.
    pub fn owner(&self, local: SocketAddr, peer: SocketAddr) -> usize {
        self.sockets.ownership.owner(local, peer)
    }

    /// The addresses of its ports, in ascending order.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<_> = self.sockets.addresses().collect();
        addresses.sort_unstable();
        addresses
    }

    /// What the ports are, in the order they were given.
    pub fn ports(&self) -> Vec<PortInfo> {
        self.figures.ports().iter().map(|port| port.info()).collect()
    }

    /// All figures, now.
    pub fn stats(&self) -> EngineStats {
        self.figures.read()
    }

    /// Reads the figures from other threads, for as long as the engine runs.
    pub fn viewer(&self) -> Viewer {
        Viewer::new(&self.figures)
    }

    /// Waits until every core is built, or says which one failed.
    pub(crate) fn await_start(&self, started: &Receiver<(usize, Exit)>) -> Result<(), StartError> {
        for _ in 0..self.cores() {
            match started.recv() {
                Ok((_, Ok(()))) => {}
                Ok((core, Err(message))) => return Err(StartError::Handler { core, message }),
                Err(_) => return Err(StartError::System(io::ErrorKind::BrokenPipe.into())),
            }
        }
        Ok(())
    }

    /// Stops: closes every socket, ends the cores, and reports what was left.
    ///
    /// # Panics
    /// On a polling thread, which would wait for itself.
    pub fn shutdown(mut self) -> Report {
        let panics = self.stop();
        crate::rcu::barrier();
        let stats = self.stats();
        let (sockets, table_entries) = (self.sockets.open(), self.sockets.entries());
        Report {
            stats,
            sockets,
            table_entries,
            panics,
            pools: self.figures.cores.iter().map(|view| view.pool.clone()).collect(),
        }
    }

    fn stop(&mut self) -> Vec<(usize, String)> {
        if self.exits.is_empty() {
            return Vec::new();
        }
        assert!(
            !crate::rcu::is_core(),
            "an engine was stopped on a polling thread, which would wait for itself"
        );
        self.sockets.stop();
        for (command, link) in self.commands.iter().zip(&self.sockets.cores) {
            command.inbox.close();
            // Refused only by a core that has ended.
            let _ = link.ops.send(Op::Stop, None);
            link.ops.close();
        }
        let exits = std::mem::take(&mut self.exits);
        let ended = exits.into_iter().enumerate().map(|(core, exit)| {
            match exit.into_inner().unwrap_or_else(PoisonError::into_inner).recv() {
                Ok(Ok(())) => None,
                Ok(Err(message)) => Some((core, message)),
                Err(_) => Some((core, "its polling thread is gone".into())),
            }
        });
        let panics = ended.flatten().collect();
        for link in &self.sockets.cores {
            let mut credits = link.credits.lock().unwrap_or_else(PoisonError::into_inner);
            while credits.pop().is_ok() {}
            link.credits_wq.wake_all();
        }
        panics
    }
}

/// Threads may share an engine, to bind and to look at it.
const _: () = {
    const fn is_sync<T: Sync>() {}
    is_sync::<Engine>();
};

impl<H: Handler> Drop for Engine<H> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Binds sockets on an engine; may be kept and cloned by other threads.
#[derive(Clone)]
pub struct Binder {
    sockets: Arc<Sockets>,
}

impl Binder {
    /// As [`Engine::bind`].
    pub fn bind(&self, addr: SocketAddr, cookie: u64) -> Result<SocketHandle, BindError> {
        self.sockets.bind(addr, None, cookie)
    }

    /// As [`Engine::owner`].
    pub fn owner(&self, local: SocketAddr, peer: SocketAddr) -> usize {
        self.sockets.ownership.owner(local, peer)
    }
}

/// What was left when an engine stopped.
pub struct Report {
    /// The last figures.
    pub stats: EngineStats,
    /// Sockets still open: zero.
    pub sockets: usize,
    /// Entries in the socket table: zero.
    pub table_entries: usize,
    /// Cores that ended by a panic, with its message.
    pub panics: Vec<(usize, String)>,
    pools: Vec<PoolHandle>,
}

impl Report {
    /// Everything that should not be: buffers that are not home, entries left in tables, panics, a ledger that does not close. Empty: all
    /// is well. Buffers that passed to another engine (over `memory:`) come home when that one stops too, so ask after the last one; those
    /// on their way are waited for, up to a second.
    pub fn leaks(&self) -> Vec<String> {
        let deadline = Instant::now() + HOMECOMING;
        while self.pools.iter().any(|pool| pool.in_use() > 0) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let mut leaks = Vec::new();
        for pool in self.pools.iter().filter(|pool| pool.in_use() > 0) {
            leaks.push(format!(
                "pool {:?}: {} of {} buffers are not home",
                pool.name(),
                pool.in_use(),
                pool.capacity()
            ));
        }
        if self.sockets > 0 || self.table_entries > 0 {
            leaks.push(format!("{} sockets and {} table entries are left", self.sockets, self.table_entries));
        }
        for (core, message) in &self.panics {
            leaks.push(format!("core {core} panicked: {message}"));
        }
        for core in &self.stats.cores {
            if core.ledger.imbalance() != 0 {
                leaks.push(format!(
                    "core {}: the ledger is off by {}: {}",
                    core.core,
                    core.ledger.imbalance(),
                    core.ledger
                ));
            }
        }
        leaks
    }
}
