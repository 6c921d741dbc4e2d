//! What runs on a core: for each port, what becomes of the frames that come in, and where the frames come from that go out.

use std::cell::Cell;
use std::sync::Arc;

use engine::{Cx, Datagram, Handler, Outcome, Socket};
use pmd::{Burst, Clock, Instant, MacAddr, Pool};

use crate::answer::Answerer;
use crate::counters::QueueCounters;
use crate::forward::Rewrite;
use crate::replay::Player;
use crate::traffic::{Receiver, Sender};

/// What becomes of the frames that a port receives.
#[derive(Debug)]
pub enum Input {
    /// They are not even counted: nothing was asked for yet.
    Ignore,
    /// They are counted.
    Drop,
    /// They are judged by their marks.
    Judge(Receiver),
    /// They leave by port `to`, whose address is `out`.
    Forward {
        /// The port.
        to: usize,
        /// Its address.
        out: MacAddr,
        /// What is changed in them.
        rewrite: Rewrite,
    },
    /// Requests are answered, the rest is dropped.
    Answer(Answerer),
}

/// Where frames come from that a port sends by itself.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one a port and core, which moves only when traffic begins"
)]
pub enum Source {
    /// They are made.
    Frames(Sender),
    /// They lie in a file.
    File(Player),
}

impl Source {
    fn fill(&mut self, now: Instant, pool: &mut Pool, burst: &mut Burst) {
        match self {
            Source::Frames(sender) => sender.fill(now, pool, burst),
            Source::File(player) => player.fill(now, pool, burst),
        }
    }

    fn settle(&mut self, burst: &mut Burst) {
        match self {
            Source::Frames(sender) => sender.settle(burst),
            Source::File(player) => player.settle(burst),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Source::Frames(sender) => sender.is_over(),
            Source::File(player) => player.is_over(),
        }
    }

    fn next_due(&self) -> Option<Instant> {
        match self {
            Source::Frames(sender) => sender.next_due(),
            Source::File(player) => player.next_due(),
        }
    }
}

/// What a core is told.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "few are ever sent")]
pub enum Command {
    /// What becomes of what a port receives from now on. What it sent by itself ends.
    Input(usize, Input),
    /// What a port sends by itself from now on.
    Source(usize, Source),
    /// Send nothing more of one's own.
    Stop,
}

/// One port, on one core.
struct Lane {
    counters: Arc<QueueCounters>,
    input: Input,
    source: Option<Source>,
    /// Something was received this turn.
    found: bool,
    /// Frames that had passed when the last turn ended.
    passed: u64,
}

impl Lane {
    fn end_source(&mut self) {
        if self.source.take().is_some() {
            self.counters.ended.add(1);
        }
    }
}

/// A core of linerate.
pub struct Traffic {
    lanes: Box<[Lane]>,
    burst: Burst,
    /// When the last turn ended, by the time stamp counter.
    turned: u64,
    /// It was about to sleep since: then the next turn is timed from its first frames on.
    dozed: Cell<bool>,
}

impl Traffic {
    /// A core that ignores what it receives and sends nothing, with the counters of its queue of each port.
    pub fn new(counters: &[Arc<QueueCounters>]) -> Traffic {
        let lane = |counters: &Arc<QueueCounters>| Lane {
            counters: counters.clone(),
            input: Input::Ignore,
            source: None,
            found: false,
            passed: 0,
        };
        Traffic {
            lanes: counters.iter().map(lane).collect(),
            burst: Burst::new(),
            turned: Clock::ticks(),
            dozed: Cell::new(true),
        }
    }

    /// Begins to time a turn, if the end of the last one is no beginning.
    fn begin_cycles(&mut self) {
        if self.dozed.replace(false) {
            self.turned = Clock::ticks();
        }
    }

    /// Shares out the cycles of a turn that did something among its ports, by frames.
    fn count_cycles(&mut self) {
        let ticks = Clock::ticks();
        let cycles = ticks.wrapping_sub(std::mem::replace(&mut self.turned, ticks));
        let moved: u64 = self.lanes.iter().map(|lane| lane.counters.frames() - lane.passed).sum();
        if moved == 0 {
            return;
        }
        for lane in &mut self.lanes {
            let frames = lane.counters.frames();
            lane.counters.busy_cycles.add(cycles * (frames - lane.passed) / moved);
            lane.passed = frames;
        }
    }
}

/// Offers a burst to a port and counts what it takes; the rest stays.
fn offer(cx: &mut Cx<'_>, port: usize, counters: &QueueCounters, burst: &mut Burst) {
    if burst.is_empty() {
        return;
    }
    let bytes = bytes(burst);
    let taken = cx.offer_burst(port, burst);
    counters.sent(taken, bytes - self::bytes(burst));
}

/// The same for frames that nobody can make again.
fn offer_once(cx: &mut Cx<'_>, port: usize, counters: &QueueCounters, burst: &mut Burst) {
    offer(cx, port, counters, burst);
    counters.not_sent(burst.len());
    burst.clear();
}

fn bytes(burst: &Burst) -> usize {
    burst.iter().map(|frame| frame.len()).sum()
}

impl Handler for Traffic {
    type Command = Command;
    const RAW: bool = true;

    fn raw(&mut self, cx: &mut Cx<'_>, port: usize, burst: &mut Burst) {
        self.begin_cycles();
        let lane = &mut self.lanes[port];
        if matches!(lane.input, Input::Ignore) {
            return burst.clear();
        }
        lane.counters.received(burst.len(), bytes(burst));
        lane.found = true;
        match &mut lane.input {
            Input::Ignore | Input::Drop => burst.clear(),
            Input::Judge(receiver) => receiver.take(cx.now, burst),
            Input::Answer(answerer) => {
                burst.retain(|frame| answerer.answer(frame));
                offer_once(cx, port, &lane.counters, burst);
            }
            Input::Forward { to, out, rewrite } => {
                burst.iter_mut().for_each(|frame| rewrite.apply(*out, frame));
                let to = *to;
                offer_once(cx, to, &self.lanes[to].counters, burst);
            }
        }
    }

    fn input(&mut self, _: &mut Cx<'_>, _: &Socket, _: Datagram) -> Outcome {
        unreachable!("a raw handler is given no datagrams")
    }

    fn command(&mut self, _: &mut Cx<'_>, command: Command) {
        match command {
            Command::Input(port, input) => {
                let lane = &mut self.lanes[port];
                lane.end_source();
                lane.input = input;
                lane.counters.inputs.add(1);
            }
            Command::Source(port, source) => {
                let lane = &mut self.lanes[port];
                lane.end_source();
                lane.source = Some(source);
            }
            Command::Stop => self.lanes.iter_mut().for_each(Lane::end_source),
        }
    }

    fn transmit(&mut self, cx: &mut Cx<'_>) {
        self.begin_cycles();
        for (port, lane) in self.lanes.iter_mut().enumerate() {
            if !std::mem::take(&mut lane.found) {
                lane.counters.received_nothing();
            }
            let Some(source) = &mut lane.source else { continue };
            source.fill(cx.now, cx.pool, &mut self.burst);
            offer(cx, port, &lane.counters, &mut self.burst);
            source.settle(&mut self.burst);
            if source.is_over() {
                lane.end_source();
            }
        }
        self.count_cycles();
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.dozed.set(true);
        self.lanes.iter().filter_map(|lane| lane.source.as_ref()?.next_due()).min()
    }
}
