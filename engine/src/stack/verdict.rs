//! What the stack says about a frame, and what it wants done.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use pmd::{Mbuf, MbufList};

use super::neighbour::Claim;
use crate::stats::{Drop, DropCounts};

/// A UDP datagram, headers taken off. The payload may be segmented.
pub struct Datagram {
    /// The address and port of ours that it was sent to.
    pub local: SocketAddr,
    /// Who sent it.
    pub peer: SocketAddr,
    /// The UDP data.
    pub payload: Mbuf,
}

/// What became of one received frame.
pub enum Verdict {
    /// It was, or completed, a UDP datagram for one of our addresses.
    Datagram(Datagram),
    /// ARP, neighbour discovery or ICMP took it.
    Consumed,
    /// A fragment that waits for the rest of its datagram. Settled later, in [`Outbox::take_tally`].
    Held,
    /// An ICMP error about a datagram that we sent; the frame is consumed.
    Unreachable(Unreachable),
    /// Refused, for this reason.
    Drop(Drop, Mbuf),
}

/// What we sent from `local` to `peer` does not get there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreachable {
    /// The address and port of ours that sent it.
    pub local: SocketAddr,
    /// Whom it was for.
    pub peer: SocketAddr,
    /// Why.
    pub error: NetError,
}

/// Why something that we sent did not arrive, as the network tells it (RFC 792, RFC 4443) or as we found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NetError {
    /// Nobody listens on that port.
    #[error("port unreachable")]
    PortUnreachable,
    /// A router cannot find the host.
    #[error("host unreachable")]
    HostUnreachable,
    /// A router has no route.
    #[error("network unreachable")]
    NetUnreachable,
    /// The host has no UDP.
    #[error("protocol unreachable")]
    ProtocolUnreachable,
    /// A filter forbids it.
    #[error("administratively prohibited")]
    Prohibited,
    /// The hop limit ran out, or fragments did not arrive in time.
    #[error("time exceeded")]
    TimeExceeded,
    /// A router or the host did not understand a header.
    #[error("parameter problem")]
    ParameterProblem,
    /// Larger than a link on the way carries.
    #[error("message too big for a path MTU of {mtu}")]
    MessageTooBig {
        /// The largest IP packet that passes.
        mtu: u16,
    },
    /// The next hop did not answer ARP or neighbour discovery.
    #[error("the neighbour does not answer")]
    NeighbourUnresolved,
}

/// Something learnt on one core that the other cores' stacks should hear of. It is advice: losing it costs a
/// repetition, and each stack applies its own rules to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Update {
    /// A station said where an address is.
    Neighbour(Claim),
    /// A router said how large a packet may be.
    PathMtu {
        /// On the way to this host.
        to: IpAddr,
        /// The largest IP packet, bytes.
        mtu: u16,
    },
}

/// Frames and datagrams whose fate was settled after their verdict or their `send`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Received fragments that became part of a whole (the last one is the datagram itself and is not counted).
    pub consumed: u64,
    /// Received fragments given up.
    pub rx: DropCounts,
    /// Frames to send given up after `send` had taken them, and answers of our own that could not be sent.
    pub tx: DropCounts,
}

/// How many updates, notices and loopback datagrams may wait for the loop to take them.
const NOTES_MAX: usize = 256;

/// What the stack wants done: frames for each port, advice for other cores, notices for sockets. One per core,
/// bounded, nothing allocated after its creation. The loop drains it every turn.
pub struct Outbox {
    frames: Vec<MbufList>,
    frames_max: usize,
    updates: VecDeque<Update>,
    unreachable: VecDeque<Unreachable>,
    loopback: VecDeque<Datagram>,
    tally: Tally,
    /// Whether the tally has anything in it.
    settled: bool,
}

impl Outbox {
    /// An outbox for `ports` ports, each holding at most `frames_max` frames.
    pub fn new(ports: usize, frames_max: usize) -> Self {
        Outbox {
            frames: (0..ports).map(|_| MbufList::new()).collect(),
            frames_max,
            updates: VecDeque::with_capacity(NOTES_MAX),
            unreachable: VecDeque::with_capacity(NOTES_MAX),
            loopback: VecDeque::with_capacity(NOTES_MAX),
            tally: Tally::default(),
            settled: false,
        }
    }

    /// The complete frames that wait for `port`, oldest first.
    pub fn frames(&mut self, port: usize) -> &mut MbufList {
        &mut self.frames[port]
    }

    /// Something for the other cores' stacks.
    pub fn pop_update(&mut self) -> Option<Update> {
        self.updates.pop_front()
    }

    /// Something for a socket that has to do with no received frame.
    pub fn pop_unreachable(&mut self) -> Option<Unreachable> {
        self.unreachable.pop_front()
    }

    /// A datagram that we sent to an address of our own.
    pub fn pop_loopback(&mut self) -> Option<Datagram> {
        self.loopback.pop_front()
    }

    /// Whether datagrams to ourselves wait to be taken up.
    pub fn has_loopback(&self) -> bool {
        !self.loopback.is_empty()
    }

    /// What was settled since the last call, if anything.
    pub fn take_tally(&mut self) -> Option<Tally> {
        std::mem::take(&mut self.settled).then(|| std::mem::take(&mut self.tally))
    }

    /// Queues a complete frame for `port`.
    pub(super) fn push(&mut self, port: usize, frame: Mbuf) -> Result<(), Drop> {
        let frames = &mut self.frames[port];
        if frames.len() >= self.frames_max {
            return Err(Drop::TransmitFull);
        }
        frames.push_back(frame);
        Ok(())
    }

    pub(super) fn push_update(&mut self, update: Update) {
        push_bounded(&mut self.updates, update);
    }

    pub(super) fn push_unreachable(&mut self, notice: Unreachable) {
        push_bounded(&mut self.unreachable, notice);
    }

    pub(super) fn push_loopback(&mut self, datagram: Datagram) -> Result<(), Drop> {
        if push_bounded(&mut self.loopback, datagram) { Ok(()) } else { Err(Drop::TransmitFull) }
    }

    pub(super) fn count_consumed(&mut self, n: usize) {
        self.tally.consumed += n as u64;
        self.settled = true;
    }

    pub(super) fn count_rx(&mut self, reason: Drop, n: usize) {
        self.tally.rx.add(reason, n as u64);
        self.settled = true;
    }

    pub(super) fn count_tx(&mut self, reason: Drop, n: usize) {
        self.tally.tx.add(reason, n as u64);
        self.settled = true;
    }
}

/// Pushes unless the queue is full; what does not fit is dropped.
fn push_bounded<T>(queue: &mut VecDeque<T>, value: T) -> bool {
    let room = queue.len() < NOTES_MAX;
    if room {
        queue.push_back(value);
    }
    room
}
