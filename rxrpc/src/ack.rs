//! When a call owes its peer an ACK.
//!
//! At most one is owed at a time, however many datagrams came in a burst and however many packets a jumbogram had: the
//! flag is raised by input and lowered by output.

use crate::wire::AckReason;
use pmd::Instant;

/// What is owed.
#[derive(Clone, Copy, Debug, Default)]
pub struct AckState {
    /// To be sent at once: why, and the serial of the packet that caused it.
    due: Option<(AckReason, u32)>,
    /// When a delayed one falls due.
    delayed: Option<Instant>,
    /// Datagrams since the last ACK was sent.
    datagrams: u32,
    /// Serial of the latest DATA packet.
    serial: u32,
    /// Highest sequence number that the peer was told it may send.
    pub edge: u32,
    /// A ping is owed.
    pub ping: bool,
    /// The ping that is on its way: its serial, and when it was sent.
    pub pinged: Option<(u32, Instant)>,
}

/// What a received DATA datagram calls for, least urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// An ACK some time.
    Later,
    /// The peer asked for one.
    Requested,
    /// It sent something twice.
    Duplicate,
    /// It sent something too early.
    Window,
    /// There is no buffer for it.
    NoSpace,
    /// Something is missing.
    OutOfSequence,
}

impl AckState {
    /// The state of a new call, whose peer may send up to `edge` before it is told more.
    pub fn new(edge: u32) -> Self {
        Self { edge, ..Self::default() }
    }

    /// Raises the flag. What shows a hole is not hidden by a mere request that comes later, and the answer to a PING is
    /// hidden only by a refusal: whoever asked waits for it, and its slots show holes as well.
    pub fn raise(&mut self, reason: AckReason, serial: u32) {
        use AckReason::{Delay, Duplicate, Idle, OutOfSequence, PingResponse, Requested};
        let keep = match self.due {
            Some((OutOfSequence, _)) => matches!(reason, Requested | Idle | Duplicate | Delay),
            Some((PingResponse, _)) => matches!(reason, Requested | Idle | Duplicate | Delay | OutOfSequence),
            _ => false,
        };
        if !keep {
            self.due = Some((reason, serial));
        }
    }

    /// A DATA datagram came in.
    pub fn data(&mut self, need: Need, serial: u32, every: u32, later: Instant) {
        self.serial = serial;
        self.datagrams += 1;
        match need {
            Need::OutOfSequence => self.raise(AckReason::OutOfSequence, serial),
            Need::NoSpace => self.raise(AckReason::NoSpace, serial),
            Need::Window => self.raise(AckReason::ExceedsWindow, serial),
            Need::Duplicate => self.raise(AckReason::Duplicate, serial),
            Need::Requested => self.raise(AckReason::Requested, serial),
            Need::Later if self.datagrams >= every => self.raise(AckReason::Idle, serial),
            Need::Later => self.delayed = self.delayed.or(Some(later)),
        }
    }

    /// The reader has made room that the peer should hear of.
    pub fn window_opened(&mut self) {
        let serial = self.serial;
        self.raise(AckReason::Idle, serial);
    }

    /// When `expire` is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.delayed
    }

    /// Turns a delayed ACK that is due into one to be sent.
    pub fn expire(&mut self, now: Instant) {
        if self.delayed.is_some_and(|at| at <= now) {
            self.delayed = None;
            let serial = self.serial;
            self.raise(AckReason::Delay, serial);
        }
    }

    /// What is to be sent at once.
    pub fn due(&self) -> Option<(AckReason, u32)> {
        self.due
    }

    /// It was sent; `edge` is the highest sequence number that it allows.
    pub fn sent(&mut self, edge: u32) {
        (self.due, self.delayed, self.datagrams, self.edge) = (None, None, 0, edge);
    }

    /// Our own DATA says the same: a reply acknowledges its request.
    pub fn implied(&mut self) {
        if !matches!(self.due, Some((AckReason::PingResponse, _))) {
            self.due = None;
        }
        (self.delayed, self.datagrams) = (None, 0);
    }
}
