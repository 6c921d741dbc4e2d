//! A call: both directions of its data, its windows, its deadlines.
//!
//! A call belongs to one endpoint and with it to one core. It knows its connection by identifier only, and has one
//! exactly as long as it is under way: who ends a call takes it off its channel (endpoint_calls.rs).

use crate::ack::AckState;
use crate::congestion::{Congestion, CongestionAlgorithm, CongestionControl, Pace};
use crate::recv_queue::RecvQueue;
use crate::rtt::Rtt;
use crate::security::{Identity, Level};
use crate::send_queue::SendQueue;
use crate::shared::{Shared, Work};
use crate::slab::Recycle;
use crate::timer::{Timer, TimerKey};
use crate::wire::JUMBO_PAYLOAD_LEN;
use crate::{
    BundleId, CallId, CallState, CallTimeouts, CallView, Completion, ConnId, EndpointConfig, Event, LocalId,
    PeerId, Role,
};
use pmd::Instant;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A call.
pub struct Call {
    pub id: CallId,
    pub user: u64,
    pub role: Role,
    pub local: LocalId,
    pub addr: SocketAddr,
    pub service: u16,
    pub peer: PeerId,
    /// Where it is carried; `None` before its turn and after its end.
    pub conn: Option<ConnId>,
    pub channel: usize,
    pub number: u32,
    pub epoch: u32,
    pub cid: u32,
    /// The bundle of a client call.
    pub bundle: Option<BundleId>,
    /// A service call that its user has been told of.
    pub announced: bool,
    /// A service call that its user has not been told of: it has an accept that goes back if that never happens.
    pub holds_charge: bool,
    /// The level at which its packets are sealed, as soon as that is known.
    pub seal: Option<Level>,
    /// Who made it, where the service asks for proof.
    pub identity: Option<Arc<Identity>>,
    pub completion: Option<Completion>,

    pub send: SendQueue,
    pub recv: RecvQueue,
    pub ack: AckState,
    pub congestion: Congestion,
    pub pace: Pace,
    /// Packets that a datagram of it may carry.
    pub jumbo: u8,
    /// Packets that the peer takes beyond what it hard-acknowledged.
    pub peer_window: u32,
    /// Serial of the newest ACK seen.
    pub ack_serial: Option<u32>,
    /// The congestion window or the pace, and not a lack of data, ended the last transmission.
    pub limited: bool,
    /// The user ended its direction.
    pub send_closed: bool,
    /// Bytes still to be sent, where their number was declared.
    pub tx_left: Option<u64>,
    /// A reply began: for a client, the rest of the request is not wanted; for a service, what is left of it is not read.
    pub reply_begun: bool,

    /// A `Readable` is in the queue.
    pub readable_queued: bool,
    /// A `Writable` is in the queue.
    pub writable_queued: bool,
    /// The user found no room.
    pub wants_room: bool,
    /// It is among the starved.
    pub starved: bool,
    /// It waits for its turn to send.
    pub queued: bool,

    pub deadlines: Deadlines,
    /// The slot's timer, and when it fires: both stay for the slot's next call.
    timer: Timer,
    pub wake_at: Option<Instant>,

    pub bytes_sent: u64,
    pub retransmits: u64,
}

/// The times that a call watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadlines {
    pub began: Instant,
    /// The retransmission timer.
    pub resend: Option<Instant>,
    /// What it fires for.
    pub resend_for: Resend,
    /// The tail was probed since anything was last acknowledged.
    pub probed: bool,
    /// A tail probe is to be sent.
    pub probe: bool,
    /// When the pace lets the next packet go.
    pub pace: Option<Instant>,
    /// Doublings of the retransmission timeout.
    pub backoff: u32,
    /// When the peer was last heard of.
    pub heard: Instant,
    /// When it was last pinged.
    pub pinged: Instant,
    /// When data last moved.
    pub moved: Instant,
    /// Since when the server has been saying that it is busy.
    pub busy: Option<Instant>,
    pub hard: Option<Instant>,
    pub idle: Option<Duration>,
    pub dead: Duration,
}

/// What the retransmission timer fires for (RFC 8985).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resend {
    /// Nothing was acknowledged for a retransmission timeout.
    #[default]
    Timeout,
    /// The tail of what was sent may be lost: a probe finds out.
    Probe,
    /// A packet that was overtaken has had its time.
    Reorder,
}

/// What either side may send before the other has said what it takes.
pub const INITIAL_WINDOW: u32 = 16;

impl Default for Call {
    fn default() -> Self {
        Self {
            id: CallId::default(),
            user: 0,
            role: Role::Client,
            local: LocalId::default(),
            addr: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            service: 0,
            peer: PeerId::default(),
            conn: None,
            channel: 0,
            number: 0,
            epoch: 0,
            cid: 0,
            bundle: None,
            announced: false,
            holds_charge: false,
            seal: None,
            identity: None,
            completion: None,
            send: SendQueue::default(),
            recv: RecvQueue::default(),
            ack: AckState::new(INITIAL_WINDOW),
            congestion: Congestion::new(CongestionAlgorithm::Cubic),
            pace: Pace::default(),
            jumbo: 1,
            peer_window: INITIAL_WINDOW,
            ack_serial: None,
            limited: false,
            send_closed: false,
            tx_left: None,
            reply_begun: false,
            readable_queued: false,
            writable_queued: false,
            wants_room: false,
            starved: false,
            queued: false,
            deadlines: Deadlines::default(),
            timer: Timer::default(),
            wake_at: None,
            bytes_sent: 0,
            retransmits: 0,
        }
    }
}

impl Recycle for Call {
    #[rustfmt::skip]
    fn recycle(&mut self) {
        let Self {
            send, recv, timer: _, wake_at: _,
            id, user, role, local, addr, service, peer, conn, channel, number, epoch, cid, bundle,
            announced, holds_charge, seal, identity, completion, ack, congestion, pace, jumbo, peer_window,
            ack_serial, limited, send_closed, tx_left, reply_begun, readable_queued, writable_queued,
            wants_room, starved, queued, deadlines, bytes_sent, retransmits,
        } = self;
        send.recycle();
        recv.recycle();
        *id = CallId::default();
        *user = 0;
        *role = Role::Client;
        *local = LocalId::default();
        *addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        *service = 0;
        *peer = PeerId::default();
        *conn = None;
        *channel = 0;
        *number = 0;
        *epoch = 0;
        *cid = 0;
        *bundle = None;
        *announced = false;
        *holds_charge = false;
        *seal = None;
        *identity = None;
        *completion = None;
        *ack = AckState::new(INITIAL_WINDOW);
        *congestion = Congestion::new(CongestionAlgorithm::Cubic);
        *pace = Pace::default();
        *jumbo = 1;
        *peer_window = INITIAL_WINDOW;
        *ack_serial = None;
        *limited = false;
        *send_closed = false;
        *tx_left = None;
        *reply_begun = false;
        *readable_queued = false;
        *writable_queued = false;
        *wants_room = false;
        *starved = false;
        *queued = false;
        *deadlines = Deadlines::default();
        *bytes_sent = 0;
        *retransmits = 0;
    }
}

impl Call {
    /// Queues it for transmission.
    pub fn schedule(&mut self, shared: &mut Shared) {
        if !self.queued && self.conn.is_some() {
            self.queued = true;
            shared.work.push_back(Work::Call(self.id));
        }
    }

    /// Tells the user that there is something to read.
    pub fn notify_readable(&mut self, shared: &mut Shared) {
        if !self.readable_queued && self.announced {
            self.readable_queued = true;
            shared.events.push_back(Event::Readable { call: self.id });
        }
    }

    /// Packets that it may hold for sending: its share of the budget, but not much more than can be under way.
    fn send_limit(&self, shared: &Shared) -> usize {
        let under_way = self.congestion.window().min(self.peer_window.max(INITIAL_WINDOW)) as usize;
        shared.send_share().min(2 * under_way + INITIAL_WINDOW as usize)
    }

    /// Bytes that go into one of its packets: what the path takes, less what protects them.
    pub fn payload(&self, shared: &Shared) -> usize {
        let room = shared.config.packet_payload;
        let room = if self.jumbo > 1 { room.min(JUMBO_PAYLOAD_LEN) } else { room };
        self.seal.map_or(room, |level| level.payload(room))
    }

    /// Packets that it may add to its send queue.
    pub fn send_packets_room(&self, shared: &Shared) -> usize {
        let (config, held) = (&shared.config, self.send.len());
        let free = config.send_buffers_max.saturating_sub(shared.queued);
        self.send_limit(shared).saturating_sub(held).min(free.max(config.send_reserve.saturating_sub(held)))
    }

    /// Bytes that `send` would take.
    pub fn send_room(&self, shared: &Shared) -> usize {
        if self.completion.is_some() || self.send_closed || self.send.ended() {
            return 0;
        }
        let payload = self.payload(shared);
        self.send_packets_room(shared) * payload + self.send.tail_room(payload)
    }

    /// Tells a user who found no room that there is some again; not for every packet, but when a part of the queue
    /// worth the trip is free.
    pub fn notify_writable(&mut self, shared: &mut Shared) {
        if !self.wants_room || self.writable_queued || self.completion.is_some() {
            return;
        }
        let room = self.send_packets_room(shared);
        if room > 0 && (room >= self.send_limit(shared) / 4 || self.send.len() == 0) {
            self.wants_room = false;
            self.writable_queued = true;
            shared.events.push_back(Event::Writable { call: self.id });
        }
    }

    /// The user found no room: he is told when there is some. If nothing in flight will remind us, a timer does.
    pub fn want_room(&mut self, now: Instant, shared: &mut Shared) {
        self.wants_room = true;
        if self.send.len() == 0 && !self.starved {
            self.starved = true;
            shared.starve(now, self.id);
        }
    }

    /// The receive window to tell the peer: what the call may still hold, less what is unread.
    pub fn receive_window(&self, shared: &Shared) -> u32 {
        let held = self.recv.ready() + self.recv.out_of_order();
        let room = (shared.recv_share().saturating_sub(self.recv.ready())) as u32;
        // A window once granted is not taken back, except for what the reader left unread.
        let granted = self.ack.edge.saturating_sub(self.recv.next().wrapping_sub(1));
        let least = if held == 0 { 1 } else { 0 };
        room.max(granted.min(shared.config.receive_window)).max(least)
    }

    /// Whether the peer may be waiting for the room that the reader just made.
    pub fn window_update_due(&self, shared: &Shared) -> bool {
        if self.recv.complete() || !self.recv.begun() || self.conn.is_none() || self.reply_ends_request() {
            return false;
        }
        let left = self.ack.edge.saturating_sub(self.recv.next().wrapping_sub(1));
        let window = self.receive_window(shared);
        let share = shared.recv_share() as u32;
        left <= share / 4 && window > left && (window - left >= share / 4 || self.recv.ready() == 0)
    }

    /// Whether what is left of the request is of no interest: the reply has begun.
    pub fn reply_ends_request(&self) -> bool {
        self.role == Role::Service && self.reply_begun
    }

    /// Ends the direction that we send. The end travels on the last packet; if that is under way already, output adds
    /// an empty one when it has a buffer for it.
    pub fn end_send(&mut self) {
        self.send_closed = true;
        self.send.end();
    }

    /// Sets its time limits; `rearm_all` is to follow.
    pub fn set_timeouts(&mut self, now: Instant, timeouts: &CallTimeouts, config: &EndpointConfig) {
        let d = &mut self.deadlines;
        d.hard = timeouts.hard.map(|hard| now + hard);
        d.idle = timeouts.idle;
        d.dead = timeouts.normal.unwrap_or(config.dead);
    }

    /// Sets the retransmission timer after a transmission or an acknowledgement. `asked`: the peer was asked for an ACK.
    pub fn arm_resend(&mut self, now: Instant, rtt: &Rtt, config: &EndpointConfig, asked: bool) {
        /// What a peer may take to acknowledge what did not ask for it.
        const PATIENCE: Duration = Duration::from_millis(150);
        /// A tail probe is not sent sooner: timers are no finer.
        const PROBE_MIN: Duration = Duration::from_millis(10);
        let patience = if asked { Duration::ZERO } else { PATIENCE };
        let d = &mut self.deadlines;
        let rto = rtt.rto(config.initial_rto, config.min_rto, config.max_rto);
        let rto = (rto * (1 << d.backoff.min(16))).min(config.max_rto) + patience;
        (d.resend_for, d.resend) = (Resend::Timeout, Some(now + rto));
        if let Some(smoothed) = rtt.smoothed().filter(|_| !d.probed && self.send.in_flight() > 0) {
            let probe = (smoothed * 2).max(PROBE_MIN) + patience;
            if probe < rto {
                (d.resend_for, d.resend) = (Resend::Probe, Some(now + probe));
            }
        }
        if let Some(check) = self.send.check_at()
            && d.resend.is_none_or(|at| check < at)
        {
            (d.resend_for, d.resend) = (Resend::Reorder, Some(check));
        }
    }

    /// Whether the peer's silence means something: it knows of the call.
    pub fn watches_peer(&self) -> bool {
        self.conn.is_some() && (self.role == Role::Service || self.send.begun())
    }

    /// When a silent peer is to be pinged: often enough that it is asked several times before it counts as dead.
    pub fn ping_at(&self, shared: &Shared) -> Instant {
        let d = &self.deadlines;
        d.heard.max(d.pinged) + shared.config.keep_alive.min(d.dead / 4)
    }

    /// When the call has something to do next if nothing comes.
    pub fn next_deadline(&self, shared: &Shared) -> Option<Instant> {
        if self.completion.is_some() {
            return None;
        }
        let d = &self.deadlines;
        let mut next = d.hard.unwrap_or(Instant::FAR_FUTURE);
        if self.watches_peer() {
            next = next.min(d.heard + d.dead).min(self.ping_at(shared));
        }
        if self.conn.is_some() {
            next = next
                .min(self.next_of_packets())
                .min(d.idle.map_or(Instant::FAR_FUTURE, |idle| d.moved + idle));
        }
        (next < Instant::FAR_FUTURE).then_some(next)
    }

    /// The first of the deadlines that packets set.
    fn next_of_packets(&self) -> Instant {
        let or_never = |at: Option<Instant>| at.unwrap_or(Instant::FAR_FUTURE);
        let d = &self.deadlines;
        or_never(d.resend).min(or_never(d.pace)).min(or_never(self.ack.deadline()))
    }

    /// Makes sure that the wheel wakes the call in time for all of its deadlines.
    pub fn rearm_all(&mut self, shared: &mut Shared) {
        if let Some(next) = self.next_deadline(shared) {
            self.wake_by(next, shared);
        }
    }

    /// The same for those that packets bring nearer. The others only move away, once the wheel knows of them.
    pub fn rearm(&mut self, shared: &mut Shared) {
        let next = self.next_of_packets();
        if next < Instant::FAR_FUTURE {
            self.wake_by(next, shared);
        }
    }

    /// Makes sure that the wheel wakes the call by then. It may wake it early: moving an entry for each packet would cost
    /// more than a look now and then.
    fn wake_by(&mut self, at: Instant, shared: &mut Shared) {
        if self.wake_at.is_none_or(|wakes| at < wakes) {
            self.wake_at = Some(at);
            shared.timers.arm(&mut self.timer, TimerKey::Call(self.id.slot() as u32), at);
        }
    }

    /// How far it is.
    pub fn state(&self) -> CallState {
        let waiting = self.conn.is_none();
        match self.role {
            _ if self.completion.is_some() => CallState::Complete,
            Role::Client if waiting => CallState::Waiting,
            Role::Client if self.reply_begun => CallState::ClientReceive,
            Role::Client if self.send_closed => CallState::ClientAwaitReply,
            Role::Client => CallState::ClientSend,
            Role::Service if !self.announced => CallState::ServiceSecuring,
            Role::Service if self.send_closed => CallState::ServiceAwaitAck,
            Role::Service if self.reply_begun => CallState::ServiceSend,
            Role::Service if self.recv.complete() => CallState::ServiceWork,
            Role::Service => CallState::ServiceReceive,
        }
    }

    pub fn view(&self, local_addr: SocketAddr) -> CallView {
        CallView {
            id: self.id,
            user: self.user,
            shared: None,
            role: self.role,
            state: self.state(),
            completion: self.completion,
            local: self.local,
            local_addr,
            peer: self.addr,
            service: self.service,
            identity: self.identity.clone(),
            conn: self.conn,
            epoch: self.epoch,
            cid: self.cid,
            number: self.number,
            began: self.deadlines.began,
            tx_first: self.send.first(),
            rx_next: self.recv.next(),
            receive_window: (self.ack.edge.wrapping_add(1)).saturating_sub(self.recv.next()),
            unsent_packets: self.send.unsent(),
            unacked_packets: self.send.outstanding(),
            congestion_window: self.congestion.window(),
            peer_window: self.peer_window,
            unread_packets: self.recv.ready(),
            out_of_order_packets: self.recv.out_of_order(),
            bytes_sent: self.bytes_sent,
            bytes_received: self.recv.bytes(),
            retransmits: self.retransmits,
        }
    }
}
