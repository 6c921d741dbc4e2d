//! What all calls of an endpoint share: configuration, counters, timers, queues and budgets.

use crate::conn::KeyedHash;
use crate::timer::Timers;
use crate::trace::TraceSink;
use crate::{CallId, ConnId, EndpointConfig, Event, LocalId, PeerId, RxStats};
use pmd::{Instant, Mbuf};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// A map under the endpoint's own hash key.
pub type Keyed<K, V> = HashMap<K, V, KeyedHash>;

/// Who has something to send.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    Call(CallId),
    /// Answers from the memory of a connection's channels.
    Conn(ConnId),
}

/// A packet that belongs to no call.
pub struct Reply {
    pub local: LocalId,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub packet: Mbuf,
}

/// How much of a shared budget one call may use: an eighth of what is free, so that what is left after any number of
/// greedy calls still serves the others; but never less than the call's own reserve.
const SHARE: usize = 8;
/// How long a call that found no buffer waits before it looks again.
const STARVED_RETRY: Duration = Duration::from_millis(1);

/// See the module's head.
pub struct Shared {
    pub config: EndpointConfig,
    pub stats: RxStats,
    pub timers: Timers,
    pub work: VecDeque<Work>,
    pub replies: VecDeque<Reply>,
    /// Peers that a keep-alive is due to.
    pub keep_alives: VecDeque<PeerId>,
    pub events: VecDeque<Event>,
    /// Buffers that hold received data.
    pub unread: usize,
    /// Buffers that hold data to be sent.
    pub queued: usize,
    /// Calls that found no buffer and have nothing in flight whose acknowledgement would remind us of them.
    pub starved: VecDeque<CallId>,
    pub starved_at: Option<Instant>,
    /// Who is told of everything, if anybody is.
    pub tracer: Option<Box<TraceSink>>,
}

impl Shared {
    pub fn new(config: EndpointConfig) -> Self {
        let config = config.clamped();
        Self {
            timers: Timers::new(config.calls_max + config.conns_max + config.peers_max),
            config,
            stats: RxStats::default(),
            work: VecDeque::new(),
            replies: VecDeque::new(),
            keep_alives: VecDeque::new(),
            events: VecDeque::new(),
            unread: 0,
            queued: 0,
            starved: VecDeque::new(),
            starved_at: None,
            tracer: None,
        }
    }

    /// Packets that one call may hold for sending.
    pub fn send_share(&self) -> usize {
        let config = &self.config;
        share(config.send_buffers_max, self.queued, config.send_reserve, config.send_packets_max)
    }

    /// Packets that one call may hold unread.
    pub fn recv_share(&self) -> usize {
        let config = &self.config;
        share(config.unread_buffers_max, self.unread, config.receive_reserve, config.receive_window as usize)
    }

    /// Whether a call that holds `held` buffers may take one more off the wire: within its share of the budget, or of what
    /// is each call's own, so that those who do not read cannot stop those who do.
    pub fn takes(&self, held: usize) -> bool {
        let config = &self.config;
        held < config.receive_reserve || self.unread < config.unread_buffers_max && held < self.recv_share()
    }

    /// Remembers a call that found no buffer.
    pub fn starve(&mut self, now: Instant, call: CallId) {
        if self.starved.len() < self.config.calls_max {
            self.starved.push_back(call);
            self.starved_at = self.starved_at.or(Some(now + STARVED_RETRY));
        }
    }
}

fn share(max: usize, used: usize, reserve: usize, cap: usize) -> usize {
    let free = max.saturating_sub(used);
    (free / SHARE).max(reserve).min(cap)
}
