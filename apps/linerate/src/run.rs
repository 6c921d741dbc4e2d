//! A run: ports, the cores that poll them, what they are told to do, and what they counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use engine::{Engine, Idle, Report, StartError};
use pmd::{Clock, Instant, LinkState, MacAddr, PortInfo};

use crate::answer::Answerer;
use crate::counters::{MarkCounters, QueueCounters, histogram};
use crate::figures::{MarkedFigures, PortFigures, Snapshot};
use crate::forward::Rewrite;
use crate::handler::{Command, Input, Source, Traffic};
use crate::rate::{Rate, RateError};
use crate::replay::{Capture, Player};
use crate::template::{FCS, Frames, Template, TemplateError};
use crate::traffic::{Receiver, Sender};

/// Streams at once, one for each queue that sends: each queue that receives has a window for each.
const STREAMS_MAX: usize = 64;
/// How long before traffic begins, so that all ports begin together.
const LEAD: Duration = Duration::from_millis(2);
/// How long links may take to come up once their ports are open: some NICs negotiate for seconds.
pub(crate) const LINK_UP: Duration = Duration::from_secs(10);
/// How long a core may take to hear a command: a loaded machine may starve its thread.
const HEARD: Duration = Duration::from_secs(5);

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Ports by URL: see [`pmd::open`].
    pub ports: Vec<String>,
    /// CPUs, each with a core that has a queue of every port; none: one core, on the first CPU allowed.
    pub cpus: Vec<usize>,
    /// Buffers of each core, 2 KiB each.
    pub buffers: usize,
    /// MTU of ports that have none of their own.
    pub mtu: Option<usize>,
    /// What cores do when there is nothing to do.
    pub idle: Idle,
    /// What everything is drawn from.
    pub seed: u64,
}

/// Frames to make, and to judge when they come back.
#[derive(Clone, Debug)]
pub struct Load {
    /// What they look like. Odd ports send what goes back: source and destination swapped.
    pub template: Template,
    /// The destination's address; without one that of the port at the other end: 0 sends to 1, 1 to 0, 2 to 3, an odd one out to itself.
    pub peer: Option<MacAddr>,
    /// How fast each port sends.
    pub rate: Rate,
    /// How long; without a time, until stopped.
    pub duration: Option<Duration>,
    /// How many frames each port sends at most.
    pub frames: Option<u64>,
    /// Only even ports send.
    pub one_way: bool,
}

/// Why a run does not start, or not do what it is told.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Ports, memory or CPUs.
    #[error(transparent)]
    Engine(#[from] StartError),
    /// Such frames cannot be.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Such a rate cannot be.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// A frame does not pass the port.
    #[error(
        "frames of {size} bytes do not pass {url:?}, whose MTU of {mtu} takes {most}: send smaller ones, or raise the MTU (--mtu where the device has none of its own)"
    )]
    TooLong {
        /// Bytes, FCS included.
        size: usize,
        /// The port.
        url: String,
        /// Its MTU.
        mtu: usize,
        /// The longest that pass.
        most: usize,
    },
    /// More queues than a mark can tell apart.
    #[error("{queues} queues send: at most {STREAMS_MAX} can be told apart; use fewer ports or cores")]
    TooManyStreams {
        /// How many.
        queues: usize,
    },
    /// Nothing can be sent.
    #[error(
        "the link of {url:?} is not up {} s after it was opened: is its other end connected, open and up?",
        LINK_UP.as_secs()
    )]
    LinkDown {
        /// The port.
        url: String,
    },
    /// A core does not take commands: it has ended.
    #[error("core {core} has ended; its report at the end says why")]
    CoreGone {
        /// Which.
        core: usize,
    },
}

impl RunError {
    /// Whether something was asked for that cannot be; otherwise the machine lacks something.
    pub fn is_usage(&self) -> bool {
        use pmd::PortError::{BadOption, Queues, UnknownDriver};
        match self {
            RunError::Engine(StartError::Port(port)) => {
                matches!(port, UnknownDriver { .. } | BadOption { .. } | Queues { .. })
            }
            RunError::Engine(StartError::Pool(_) | StartError::System(_) | StartError::Handler { .. }) => {
                false
            }
            RunError::LinkDown { .. } | RunError::CoreGone { .. } => false,
            _ => true,
        }
    }
}

/// What was begun last, as far as it is marked.
struct Marked {
    /// By core.
    counters: Vec<Arc<MarkCounters>>,
    /// Frames sent before it began.
    sent_before: u64,
}

/// A run.
pub struct Run {
    engine: Engine<Traffic>,
    ports: Vec<PortInfo>,
    /// By port, then by core.
    queues: Vec<Vec<Arc<QueueCounters>>>,
    marked: Option<Marked>,
    /// Sources of frames that were begun.
    begun: AtomicU64,
    started: Instant,
    random: fastrand::Rng,
}

impl Run {
    /// Opens the ports and starts the cores. They ignore what comes until they are told what to do.
    pub fn start(config: &RunConfig) -> Result<Run, RunError> {
        let cores = config.cpus.len().max(1);
        let counters = || (0..cores).map(|_| Arc::default()).collect();
        let queues: Vec<Vec<Arc<QueueCounters>>> = config.ports.iter().map(|_| counters()).collect();
        let mut builder = Engine::builder().name("linerate").idle(config.idle).pool_buffers(config.buffers);
        builder =
            if config.cpus.is_empty() { builder.core_count(1) } else { builder.cores(config.cpus.clone()) };
        for url in &config.ports {
            builder = builder.port(url);
            if let Some(mtu) = config.mtu {
                builder = builder.mtu(mtu);
            }
        }
        let of_core: Vec<Vec<_>> =
            (0..cores).map(|core| queues.iter().map(|queues| queues[core].clone()).collect()).collect();
        // Sockets there are none.
        let engine = builder.sockets_max(1).start_with(move |info| Traffic::new(&of_core[info.core]))?;
        let ports = engine.ports();
        let random = fastrand::Rng::with_seed(config.seed);
        let (marked, begun, started) = (None, AtomicU64::new(0), Clock::now());
        Ok(Run { engine, ports, queues, marked, begun, started, random })
    }

    /// What the ports are.
    pub fn ports(&self) -> &[PortInfo] {
        &self.ports
    }

    /// How many cores there are, each with a queue of every port.
    pub fn cores(&self) -> usize {
        self.engine.cores()
    }

    /// The port at the other end of `port`, as far as we know: they are paired, and an odd one out is its own.
    pub fn other_end(&self, port: usize) -> usize {
        if (port ^ 1) < self.ports.len() { port ^ 1 } else { port }
    }

    fn tell(&self, core: usize, command: Command) -> Result<(), RunError> {
        self.engine.commands(core).send(command).map_err(|_| RunError::CoreGone { core })
    }

    fn tell_source(&self, core: usize, port: usize, source: Source) -> Result<(), RunError> {
        self.begun.fetch_add(1, Relaxed);
        self.tell(core, Command::Source(port, source))
    }

    /// Says on every core what becomes of what each port receives, and waits until all of them know: only then may anything be sent that is
    /// to be seen.
    fn set_inputs(&self, mut input: impl FnMut(usize, usize) -> Input) -> Result<(), RunError> {
        let heard = |core: usize| self.queues.iter().map(|queues| queues[core].inputs.get()).sum::<u64>();
        let before: Vec<u64> = (0..self.cores()).map(heard).collect();
        for core in 0..self.cores() {
            for port in 0..self.ports.len() {
                self.tell(core, Command::Input(port, input(core, port)))?;
            }
        }
        for (core, before) in before.into_iter().enumerate() {
            let all = before + self.ports.len() as u64;
            if !wait(HEARD, || heard(core) >= all) {
                return Err(RunError::CoreGone { core });
            }
        }
        Ok(())
    }

    /// Counts what comes.
    pub fn receive(&self) -> Result<(), RunError> {
        self.set_inputs(|_, _| Input::Drop)
    }

    /// Forwards what comes to the port at the other end.
    pub fn forward(&self, rewrite: Rewrite) -> Result<(), RunError> {
        self.set_inputs(|_, port| {
            let to = self.other_end(port);
            Input::Forward { to, out: self.ports[to].mac, rewrite }
        })
    }

    /// Answers for these addresses on every port.
    pub fn answer(&self, addresses: &[IpAddr]) -> Result<(), RunError> {
        self.set_inputs(|_, port| Input::Answer(Answerer::new(self.ports[port].mac, addresses)))
    }

    /// Waits until these ports can send: what is sent before is not lost on the way, but was never on it.
    fn await_links(&self, sends: impl Fn(usize) -> bool) -> Result<(), RunError> {
        let down = || {
            let views = self.engine.stats().ports.into_iter().enumerate();
            let mut down = views.filter(|(port, view)| sends(*port) && view.link == LinkState::Down);
            down.next().map(|(_, view)| view.url)
        };
        match wait(LINK_UP, || down().is_none()) {
            true => Ok(()),
            false => Err(RunError::LinkDown { url: down().unwrap_or_default() }),
        }
    }

    fn speed(&self, port: usize) -> Option<u64> {
        self.ports[port].speed_mbps.map(|mbps| u64::from(mbps) * 1_000_000)
    }

    /// Frames of `size` bytes pass this port.
    fn check_size(&self, port: usize, size: usize, tags: usize) -> Result<(), RunError> {
        let info = &self.ports[port];
        let most = info.mtu + 14 + 4 * tags + FCS;
        if size > most {
            return Err(RunError::TooLong { size, url: info.url.clone(), mtu: info.mtu, most });
        }
        Ok(())
    }

    /// The template of what a port sends.
    fn template(&self, load: &Load, port: usize) -> Template {
        let there = Template {
            source_mac: self.ports[port].mac,
            destination_mac: load.peer.unwrap_or(self.ports[self.other_end(port)].mac),
            ..load.template.clone()
        };
        if port.is_multiple_of(2) {
            return there;
        }
        let (source_mac, destination_mac) = (there.source_mac, there.destination_mac);
        Template { source_mac, destination_mac, ..there.reversed() }
    }

    /// Sends, and drops what comes.
    pub fn send(&mut self, load: &Load) -> Result<(), RunError> {
        self.begin(load, false)
    }

    /// Sends, and judges what comes. Marked figures and latencies are counted anew from here; what is still under way of earlier traffic counts
    /// as foreign when it comes.
    pub fn generate(&mut self, load: &Load) -> Result<(), RunError> {
        self.begin(load, true)
    }

    fn begin(&mut self, load: &Load, judged: bool) -> Result<(), RunError> {
        let (cores, ports) = (self.cores(), self.ports.len());
        if cores * ports > STREAMS_MAX {
            return Err(RunError::TooManyStreams { queues: cores * ports });
        }
        load.template.check()?;
        let templates: Vec<Template> = (0..ports).map(|port| self.template(load, port)).collect();
        let mut rates = Vec::new();
        for port in 0..ports {
            self.check_size(port, load.template.sizes.ends().1, load.template.vlans.len())?;
            rates.push(load.rate.share(cores, self.speed(port), &self.ports[port].url)?);
        }
        let sends = |port: usize| !load.one_way || port.is_multiple_of(2);
        self.await_links(sends)?;
        // By stream: port by port, and of each core by core.
        let first: Vec<u64> = (0..cores * ports).map(|_| self.random.u64(..1 << 39)).collect();
        let counters: Vec<Arc<MarkCounters>> = (0..cores).map(|_| Arc::default()).collect();
        self.set_inputs(|core, port| match judged {
            true => {
                Input::Judge(Receiver::new(templates[port].mark_offset(), &first, counters[core].clone()))
            }
            false => Input::Drop,
        })?;
        let sent_before = self.sent();
        self.marked = judged.then_some(Marked { counters, sent_before });
        let start = Clock::now() + LEAD;
        for port in (0..ports).filter(|&port| sends(port)) {
            for core in 0..cores {
                let stream = port * cores + core;
                let frames = Frames::new(&templates[port], self.random.u64(..), core as u64)?;
                let counters = self.queues[port][core].clone();
                let mut sender =
                    Sender::new(frames, rates[port], stream as u8, first[stream], counters, start);
                if let Some(duration) = load.duration {
                    sender = sender.until(start + duration);
                }
                if let Some(frames) = load.frames {
                    // The first cores send what does not divide.
                    let (each, more) = (frames / cores as u64, frames % cores as u64);
                    sender = sender.limit(each + u64::from((core as u64) < more));
                }
                self.tell_source(core, port, Source::Frames(sender))?;
            }
        }
        Ok(())
    }

    /// Sends a capture from every port, that many times over, at `rate` or as it was recorded; drops what comes.
    pub fn replay(&self, capture: &Arc<Capture>, rate: Option<Rate>, rounds: u64) -> Result<(), RunError> {
        for port in 0..self.ports.len() {
            // A device takes frames with two tags.
            self.check_size(port, capture.longest(), 2)?;
        }
        self.await_links(|_| true)?;
        self.receive()?;
        let start = Clock::now() + LEAD;
        for port in 0..self.ports.len() {
            let rate = rate.map(|rate| rate.share(1, self.speed(port), &self.ports[port].url)).transpose()?;
            let player = Player::new(capture.clone(), rate, rounds, self.queues[port][0].clone(), start);
            self.tell_source(0, port, Source::File(player))?;
        }
        Ok(())
    }

    /// Sends nothing more, and goes on with what comes.
    pub fn stop(&self) {
        // A core that does not listen has ended with its panic; `shutdown` reports it.
        (0..self.cores()).for_each(|core| drop(self.tell(core, Command::Stop)));
    }

    /// Whether something was ever to be sent by itself.
    pub fn sends(&self) -> bool {
        self.begun.load(Relaxed) > 0
    }

    /// Whether everything that was to be sent is sent.
    pub fn is_over(&self) -> bool {
        self.queues.iter().flatten().map(|queue| queue.ended.get()).sum::<u64>() == self.begun.load(Relaxed)
    }

    /// Waits until it is over, at most so long. False: it is not.
    pub fn wait_over(&self, at_most: Duration) -> bool {
        wait(at_most, || self.is_over())
    }

    /// Waits, once all is sent, until nothing is missing, at most so long.
    pub fn wait_arrived(&self, at_most: Duration) -> bool {
        wait(at_most, || self.marked().0.missing == 0)
    }

    /// Frames that the devices took.
    fn sent(&self) -> u64 {
        self.queues.iter().flatten().map(|queue| queue.sent_frames()).sum()
    }

    fn marked(&self) -> (MarkedFigures, hdrhistogram::Histogram<u64>) {
        let (mut figures, mut latency) = (MarkedFigures::default(), histogram());
        if let Some(marked) = &self.marked {
            // What came is read first, so that no more seems to have come than was sent.
            marked.counters.iter().for_each(|counters| counters.read(&mut figures, &mut latency));
            figures.sent = self.sent() - marked.sent_before;
            figures.missing = figures.sent.saturating_sub(figures.received + figures.corrupted);
        }
        (figures, latency)
    }

    /// Everything, now.
    pub fn snapshot(&self) -> Snapshot {
        let (marked, latency) = self.marked();
        let stats = self.engine.stats();
        let ports = stats.ports.iter().zip(&self.queues).enumerate().map(|(port, (view, queues))| {
            let mut drops = view.stats.drops.clone();
            if view.stats.rx_no_buffer > 0 {
                drops.add("rx_no_buffer", view.stats.rx_no_buffer);
            }
            PortFigures {
                url: view.url.clone(),
                driver: self.ports[port].driver,
                bits_per_second: view.speed_mbps.map(|mbps| u64::from(mbps) * 1_000_000),
                notes: view.notes.clone(),
                queues: queues.iter().zip(&stats.cores).map(|(queue, core)| queue.read(core.cpu)).collect(),
                drops,
            }
        });
        Snapshot { elapsed: Clock::now() - self.started, ports: ports.collect(), marked, latency }
    }

    /// The engine's figures.
    pub fn stats(&self) -> engine::EngineStats {
        self.engine.stats()
    }

    /// Stops the cores.
    pub fn shutdown(self) -> Report {
        self.engine.shutdown()
    }
}

/// Waits until it is done, at most so long. False: it is not.
pub(crate) fn wait(at_most: Duration, done: impl Fn() -> bool) -> bool {
    let deadline = std::time::Instant::now() + at_most;
    while !done() {
        if std::time::Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
