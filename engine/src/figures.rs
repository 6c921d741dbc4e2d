//! What other threads read of a running engine: counters of cores, pools, ports and sockets, as plain values.
//!
//! Cores and drivers write their counters with plain stores and never wait for a reader. A [`Viewer`] does not keep its
//! engine: a control socket may outlive the engine it shows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pmd::{LinkState, PoolHandle, Port, PortStats};

use crate::capture::{Capture, CaptureConfig, CaptureError};
use crate::control::Sockets;
use crate::ledger::{CoreCounters, Ledger};

/// Where the figures of an engine are.
pub(crate) struct Figures {
    pub name: String,
    pub cores: Vec<CoreView>,
    pub ports: Mutex<Vec<Box<dyn Port>>>,
    pub sockets: Arc<Sockets>,
    /// Whether somebody captures: one at a time.
    pub captured: Arc<AtomicBool>,
}

/// What other threads see of a core.
pub(crate) struct CoreView {
    pub cpu: usize,
    pub counters: Arc<CoreCounters>,
    pub pool: PoolHandle,
}

impl Figures {
    /// The ports' control sides. Drivers take no lock of the data path to tell what they are and did.
    pub fn ports(&self) -> MutexGuard<'_, Vec<Box<dyn Port>>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn read(&self) -> EngineStats {
        let cores = self.cores.iter().enumerate().map(|(core, view)| self.core(core, view)).collect();
        let ports = self.ports().iter().map(|port| port_view(&**port)).collect();
        EngineStats {
            name: self.name.clone(),
            cores,
            ports,
            sockets: self.sockets.open(),
            steered: self.sockets.ownership.is_the_devices(),
            ports_tried: self.sockets.ports_tried(),
        }
    }

    fn core(&self, core: usize, view: &CoreView) -> CoreStats {
        let CoreView { cpu, counters, pool } = view;
        let taken = self.sockets.cores[core].taken.load(Ordering::Relaxed);
        CoreStats {
            core,
            cpu: *cpu,
            ledger: counters.snapshot(),
            turns: counters.turns.get(),
            busy_turns: counters.busy_turns.get(),
            sleeps: counters.sleeps.get(),
            ports_tried: counters.ports_tried.get(),
            unread_bytes: counters.queued.get().saturating_sub(taken),
            buffers: pool.capacity(),
            buffers_in_use: pool.in_use(),
        }
    }
}

fn port_view(port: &dyn Port) -> PortView {
    let info = port.info();
    PortView {
        url: info.url,
        notes: info.notes,
        speed_mbps: info.speed_mbps,
        link: port.link(),
        stats: port.stats(),
    }
}

/// Reads the figures of an engine from any thread, without keeping the engine.
#[derive(Clone)]
pub struct Viewer(Weak<Figures>);

impl Viewer {
    pub(crate) fn new(figures: &Arc<Figures>) -> Self {
        Viewer(Arc::downgrade(figures))
    }

    /// All figures, now. `None`: the engine is gone.
    pub fn stats(&self) -> Option<EngineStats> {
        self.0.upgrade().map(|figures| figures.read())
    }

    /// Captures frames until the [`Capture`] is dropped. Not from a polling thread, which would wait for itself.
    pub fn capture(&self, config: CaptureConfig) -> Result<Capture, CaptureError> {
        let figures = self.0.upgrade().ok_or(CaptureError::Stopped)?;
        Capture::start(&figures, config)
    }
}

/// The figures of an engine.
#[derive(Clone, Debug)]
pub struct EngineStats {
    /// Its name.
    pub name: String,
    /// By core.
    pub cores: Vec<CoreStats>,
    /// By port.
    pub ports: Vec<PortView>,
    /// Open sockets.
    pub sockets: usize,
    /// Whether the ports bring flows to their owners: by one Toeplitz hash, the engine's ownership function.
    pub steered: bool,
    /// Ports that binds for one core ([`Engine::bind_on`](crate::Engine::bind_on)) looked at.
    pub ports_tried: u64,
}

impl EngineStats {
    /// The sum of the cores' ledgers.
    pub fn ledger(&self) -> Ledger {
        let mut sum = Ledger::default();
        for core in &self.cores {
            sum.merge(&core.ledger);
        }
        sum
    }
}

/// The figures of a core.
#[derive(Clone, Debug)]
pub struct CoreStats {
    /// Its number.
    pub core: usize,
    /// The CPU whose polling thread runs it.
    pub cpu: usize,
    /// What became of every frame.
    pub ledger: Ledger,
    /// Turns of the loop.
    pub turns: u64,
    /// Turns with something to do.
    pub busy_turns: u64,
    /// Times it slept.
    pub sleeps: u64,
    /// Local ports that clients on it looked at before they had one whose replies come here.
    pub ports_tried: u64,
    /// Bytes of buffers that lie unread on sockets' queues.
    pub unread_bytes: u64,
    /// Buffers of its pool.
    pub buffers: usize,
    /// Of these, not in the pool now.
    pub buffers_in_use: usize,
}

/// A port, as seen now.
#[derive(Clone, Debug)]
pub struct PortView {
    /// As it was opened.
    pub url: String,
    /// How it runs, in words: what was probed, and what is missing and why.
    pub notes: Vec<String>,
    /// Line rate, where there is one.
    pub speed_mbps: Option<u32>,
    /// Whether frames can pass.
    pub link: LinkState,
    /// What it did.
    pub stats: PortStats,
}
