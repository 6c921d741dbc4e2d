//! What runs on a core, and what the engine tells it.
//!
//! The loop is monomorphic over its [`Handler`]: plain UDP is one, raw forwarding another, Rx a third. The engine knows no RPC.

use pmd::{Burst, Instant};

use crate::cx::Cx;
use crate::socket::Socket;
use crate::stack::{Datagram, NetError};
use crate::stats::Drop;

/// How many refusals of its own a handler may name.
pub const REFUSALS_MAX: usize = 48;

/// What became of a datagram given to a handler. Every datagram has exactly one outcome, so the ledger closes by construction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Outcome {
    /// A user has it, or it waits for one.
    Delivered,
    /// The handler's protocol took it.
    Consumed,
    /// Thrown away for a reason that the engine names.
    Dropped(Drop),
    /// Thrown away for a reason that the handler names: an index into [`Handler::REFUSALS`].
    Refused(u8),
}

/// What runs on a core. Built on the core's own thread, where it stays: it need not be `Send`. It must never block.
pub trait Handler: 'static {
    /// What other threads may ask of it, through a [`CommandSender`](crate::CommandSender).
    type Command: Send + 'static;

    /// True: frames go to [`raw`](Self::raw) instead of the stack.
    const RAW: bool = false;

    /// True: datagrams over IPv4 without a UDP checksum are dropped before they get here.
    const CHECKSUM_REQUIRED: bool = false;

    /// The names that [`Outcome::Refused`] refers to, in snake case.
    const REFUSALS: &'static [&'static str] = &[];

    /// A burst of frames from port `port`, if [`RAW`](Self::RAW). Frames taken out of `burst` count as consumed, or as delivered if they
    /// are sent; those left in it are dropped as unclaimed.
    fn raw(&mut self, cx: &mut Cx<'_>, port: usize, burst: &mut Burst) {
        let _ = (cx, port, burst);
    }

    /// A datagram for a socket.
    fn input(&mut self, cx: &mut Cx<'_>, socket: &Socket, datagram: Datagram) -> Outcome;

    /// The network says that what was sent from `socket` to `peer` does not arrive.
    fn unreachable(&mut self, cx: &mut Cx<'_>, socket: &Socket, peer: std::net::SocketAddr, error: NetError) {
        let _ = (cx, socket, peer, error);
    }

    /// Another thread wants something.
    fn command(&mut self, cx: &mut Cx<'_>, command: Self::Command);

    /// Once a turn, after all input: what is due.
    fn expire(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// Once a turn, at its end: what is to be sent.
    fn transmit(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// When the next turn is wanted although nothing happens. May be early, never late. `None`: never.
    fn next_timeout(&self) -> Option<Instant> {
        None
    }
}

/// What a handler is told when it is built.
#[derive(Clone, Copy, Debug)]
pub struct CoreInfo {
    /// This core's number, `0..cores`.
    pub core: usize,
    /// How many cores the engine has.
    pub cores: usize,
    /// The CPU whose polling thread runs this core.
    pub cpu: usize,
    /// Buffers of this core's pool.
    pub buffers: usize,
    /// Randomness for this core's handler, different on each core.
    pub seed: u64,
    /// The time.
    pub now: Instant,
}
