//! [`RxViewer`]: other threads look at the Rx objects of an engine's cores.
//!
//! A core's objects are its own, so it is the core that looks, in its read section and between two packets: it copies a
//! page of at most [`PAGE_ROWS`] rows into memory that the asking thread brought, and goes on. So a view sees no object
//! half changed and none that is freed, takes no lock that a core could meet, and holds no core longer than a burst does.

use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};

use engine::{Capture, CaptureConfig, CaptureError, CommandSender, EngineStats, Viewer};

use crate::handler::{Inspect, Look, RxCommand};
use crate::socket::{CallName, CallTable};
use crate::views::{PAGE_ROWS, RxFigures};
use crate::{CallView, ConnView, LocalView, PeerView, RelayView};

/// How long a core may take to answer. Its turn takes microseconds; a machine under load may starve its thread.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks at an engine that runs Rx. Does not keep it: an engine that was stopped says so.
#[derive(Clone)]
pub struct RxViewer {
    engine: Viewer,
    cores: Arc<[Box<dyn Ask>]>,
    /// By core, where calls are sockets': what threads share of them.
    shared: Arc<[Weak<CallTable>]>,
}

/// The name of what threads share of a call. Resolved by the looking thread, under RCU: a core takes no lock for it.
#[derive(Clone, Copy, Debug)]
pub struct SharedCall(pub(crate) CallName);

/// Rows of a table, and where to go on.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// At most [`PAGE_ROWS`]; none does not mean the end.
    pub rows: Vec<T>,
    /// To be asked for next; `None`: the table ends here.
    pub next: Option<usize>,
}

/// Why a core could not be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The engine has stopped.
    #[error("the engine has stopped")]
    Stopped,
    /// The core does not turn.
    #[error("core {core} did not answer within {} s: its thread is starved, or its handler does not return", PATIENCE.as_secs())]
    Silent {
        /// Which.
        core: usize,
    },
    /// There is no such core.
    #[error("there is no core {core}, only {cores}")]
    NoCore {
        /// Asked for.
        core: usize,
        /// That there are.
        cores: usize,
    },
}

/// Sends a core a look, whatever else its app may be told.
trait Ask: Send + Sync {
    fn ask(&self, look: Inspect, until: Instant) -> Result<(), engine::SendError<()>>;
}

impl<C: Send + 'static> Ask for CommandSender<RxCommand<C>> {
    fn ask(&self, look: Inspect, until: Instant) -> Result<(), engine::SendError<()>> {
        use engine::SendError;
        self.send_until(RxCommand::Inspect(look), until).map_err(|error| match error {
            SendError::Full(_) => SendError::Full(()),
            SendError::Stopped(_) => SendError::Stopped(()),
        })
    }
}

impl RxViewer {
    pub(crate) fn new<C: Send + 'static>(
        engine: Viewer,
        cores: impl Iterator<Item = CommandSender<RxCommand<C>>>,
    ) -> Self {
        let cores = cores.map(|core| Box::new(core) as Box<dyn Ask>).collect();
        RxViewer { engine, cores, shared: Arc::new([]) }
    }

    /// Shows what threads share of calls too; by core.
    pub(crate) fn with_shared(self, shared: impl Iterator<Item = Weak<CallTable>>) -> Self {
        RxViewer { shared: shared.collect(), ..self }
    }

    /// How many cores it has.
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// The engine's figures. No core is asked.
    pub fn stats(&self) -> Result<EngineStats, ViewError> {
        self.engine.stats().ok_or(ViewError::Stopped)
    }

    /// Captures the engine's frames, until the [`Capture`] is dropped.
    pub fn capture(&self, config: CaptureConfig) -> Result<Capture, CaptureError> {
        self.engine.capture(config)
    }

    /// How many Rx objects a core has, and its counters.
    pub fn figures(&self, core: usize) -> Result<RxFigures, ViewError> {
        self.look(core, |at| at.endpoint.figures())
    }

    /// A page of a core's calls, with what threads share of them. `from` is 0, or `next` of the page before.
    pub fn calls(&self, core: usize, from: usize) -> Result<Page<CallView>, ViewError> {
        // Allocated here, so that the core does not.
        let (mut rows, mut names) = (Vec::with_capacity(PAGE_ROWS), Vec::with_capacity(PAGE_ROWS));
        let (mut page, names) = self.look(core, move |at| {
            let next = at.endpoint.calls_page(from, &mut rows);
            names.extend(rows.iter().map(|call| (at.shared)(call.id)));
            (Page { rows, next }, names)
        })?;
        let shared = self.shared.get(core).and_then(Weak::upgrade);
        for (call, name) in page.rows.iter_mut().zip(names) {
            call.shared = shared.as_ref().zip(name).and_then(|(table, SharedCall(name))| table.view(name));
        }
        Ok(page)
    }

    /// A page of its connections.
    pub fn conns(&self, core: usize, from: usize) -> Result<Page<ConnView>, ViewError> {
        self.page(core, move |at, rows| at.endpoint.conns_page(from, rows))
    }

    /// A page of the connections that its app passes on.
    pub fn relayed(&self, core: usize, from: usize) -> Result<Page<RelayView>, ViewError> {
        self.page(core, move |at, rows| (at.relayed)(from, rows))
    }

    /// A page of its peers.
    pub fn peers(&self, core: usize, from: usize) -> Result<Page<PeerView>, ViewError> {
        self.page(core, move |at, rows| at.endpoint.peers_page(from, rows))
    }

    /// A page of its local addresses.
    pub fn locals(&self, core: usize, from: usize) -> Result<Page<LocalView>, ViewError> {
        self.page(core, move |at, rows| at.endpoint.locals_page(from, rows))
    }

    fn page<T: Send + 'static>(
        &self,
        core: usize,
        fill: impl FnOnce(Look<'_>, &mut Vec<T>) -> Option<usize> + Send + 'static,
    ) -> Result<Page<T>, ViewError> {
        // Allocated here, so that the core does not.
        let mut rows = Vec::with_capacity(PAGE_ROWS);
        self.look(core, move |at| {
            let next = fill(at, &mut rows);
            Page { rows, next }
        })
    }

    fn look<R: Send + 'static>(
        &self,
        core: usize,
        look: impl FnOnce(Look<'_>) -> R + Send + 'static,
    ) -> Result<R, ViewError> {
        let until = Instant::now() + PATIENCE;
        let cores = self.cores.len();
        let ask = self.cores.get(core).ok_or(ViewError::NoCore { core, cores })?;
        let (seen, result) = mpsc::sync_channel(1);
        let look = Box::new(move |at: Look<'_>| {
            // Fails only if nobody waits for it any more.
            let _ = seen.try_send(look(at));
        });
        ask.ask(look, until).map_err(|error| match error {
            engine::SendError::Full(()) => ViewError::Silent { core },
            engine::SendError::Stopped(()) => ViewError::Stopped,
        })?;
        result.recv_timeout(until.saturating_duration_since(Instant::now())).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => ViewError::Silent { core },
            mpsc::RecvTimeoutError::Disconnected => ViewError::Stopped,
        })
    }
}
