//! The same protocol core over the kernel's UDP: an [`Endpoint`] driven from a socket by recvmmsg(2) and sendmmsg(2), in one thread that
//! polls, as an engine's core does. Both sides speak rxperf with the code of `rxline rxperf`.
//!
//! Deliberately absent: GSO and GRO, which would need Rx packets of one length to one peer; and sleeping.

mod client;
mod server;
mod socket;

pub use client::call;
pub use server::serve;

use std::net::SocketAddr;

use pmd::Instant;
use rxrpc::{CallError, CallId, Endpoint, EndpointConfig, Event, LocalId};
use socket::Socket;

/// Payload bytes copied at a time.
const SCRATCH_LEN: usize = 16 * 1024;

/// What either side does with its calls.
trait Side {
    /// Something happened.
    fn event(&mut self, now: Instant, rx: &mut Rx, event: Event);
}

/// An endpoint on a socket.
struct Rx {
    endpoint: Endpoint,
    local: LocalId,
    socket: Socket,
}

impl Rx {
    fn bind(addr: SocketAddr) -> Rx {
        let socket = Socket::bind(addr);
        // A kernel socket fragments what is too long, so padded PINGs would prove jumbograms that the path does not carry whole.
        let config = EndpointConfig { jumbo_send_max: 1, ..EndpointConfig::for_pool(socket::BUFFERS) };
        let mut endpoint = Endpoint::new(config, fastrand::u64(..));
        let local = endpoint.add_local(socket.local_addr()).expect("an endpoint without addresses");
        Rx { endpoint, local, socket }
    }

    /// One burst in, what it brings about, and everything out.
    fn turn(&mut self, now: Instant, side: &mut impl Side) {
        self.socket.receive(|pool, from, packet| {
            // Refused packets are counted by the endpoint; peers send them again.
            let _ = self.endpoint.input(now, pool, self.local, from, packet);
        });
        self.endpoint.expire(now);
        while let Some(event) = self.endpoint.poll_event() {
            side.event(now, self, event);
        }
        while self.endpoint.wants_transmit() && self.socket.send(now, &mut self.endpoint) {}
    }

    /// Gives as much as there is room for. `peek` copies what comes next of `left` bytes, `advance` is told how much was taken. Whether
    /// everything was; an error means that the call has ended, and its Complete follows.
    fn write<C>(
        &mut self,
        now: Instant,
        call: CallId,
        state: &mut C,
        left: impl Fn(&C) -> u64,
        peek: impl Fn(&C, &mut [u8]) -> usize,
        advance: impl Fn(&mut C, &[u8]),
    ) -> Result<bool, CallError> {
        let mut scratch = [0; SCRATCH_LEN];
        loop {
            // Without room it is tried all the same: only then a Writable follows.
            let room = self.endpoint.send_room(call).clamp(1, SCRATCH_LEN);
            let left = left(state);
            let len = peek(state, &mut scratch[..room]);
            let more = (len as u64) < left;
            let taken = self.endpoint.send(now, self.socket.pool(), call, &scratch[..len], more)?;
            advance(state, &scratch[..taken]);
            if taken < len {
                return Ok(false);
            }
            if !more {
                return Ok(true);
            }
        }
    }
}
