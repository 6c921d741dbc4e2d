//! Rx calls by the protocol core on a wire: an [`Endpoint`] in one thread that takes and sends bursts, as an engine's core does. Both sides speak
//! rxperf with the code of `rxline rxperf`.
//!
//! Deliberately absent: jumbograms. A kernel's socket fragments what is too long, so padded PINGs would prove lengths that the path does
//! not carry whole.

mod load;
mod server;

pub use load::RxLoad;
pub use server::serve;

use std::time::Duration;

use pmd::{Clock, Instant};
use rxrpc::{CallError, CallId, Endpoint, EndpointConfig, Event, LocalId};

use crate::Trouble;
use crate::wire::{Batch, Wire};

/// Buffers of a wire.
pub const BUFFERS: usize = 16_384;
/// Payload bytes copied at a time.
const SCRATCH_LEN: usize = 16 * 1024;

/// What either side does with its calls.
trait Side {
    /// Something happened.
    fn event(&mut self, now: Instant, rx: &mut Rx, event: Event);
}

/// An endpoint on a wire.
struct Rx {
    endpoint: Endpoint,
    local: LocalId,
    wire: Box<dyn Wire>,
    came: Batch,
    out: Batch,
}

impl Rx {
    /// An endpoint at the wire's address, for so many calls at once.
    fn on(mut wire: Box<dyn Wire>, calls: usize) -> Rx {
        let config = EndpointConfig::for_pool(BUFFERS);
        let config = EndpointConfig {
            jumbo_send_max: 1,
            calls_max: config.calls_max.max(2 * calls),
            bundle_waiting_max: config.bundle_waiting_max.max(calls),
            ..config
        };
        let mut endpoint = Endpoint::new(config, fastrand::u64(..));
        let local = endpoint.add_local(wire.end().local_addr()).expect("an endpoint without addresses");
        Rx { endpoint, local, wire, came: Batch::new(), out: Batch::new() }
    }

    /// One burst in, and what it brings about. The endpoint's timers and what is left to be sent limit how long it sleeps for want of one. Returns
    /// the time at which the burst was taken.
    fn receive(&mut self, now: Instant, wait: Duration, side: &mut impl Side) -> Result<Instant, Trouble> {
        let due = self.endpoint.next_timeout().map_or(wait, |due| due - now);
        let idle = !self.endpoint.wants_transmit() && self.out.is_empty();
        self.wire.receive(now, if idle { wait.min(due) } else { Duration::ZERO }, &mut self.came)?;
        let now = Clock::now();
        for (from, packet) in self.came.drain(..) {
            // Refused packets are counted by the endpoint; peers send them again.
            let _ = self.endpoint.input(now, self.wire.end().pool(), self.local, from, packet);
        }
        self.endpoint.expire(now);
        while let Some(event) = self.endpoint.poll_event() {
            side.event(now, self, event);
        }
        Ok(now)
    }

    /// Sends what the endpoint has, as far as the wire takes it.
    fn transmit(&mut self, now: Instant) -> Result<(), Trouble> {
        loop {
            let out = &mut self.out;
            if !out.is_full() && self.endpoint.wants_transmit() {
                self.endpoint.transmit(now, self.wire.end().pool(), &mut |_, _, to, packet| {
                    out.push((to, packet));
                    !out.is_full()
                });
            }
            let staged = self.out.len();
            if staged == 0 {
                return Ok(());
            }
            self.wire.send(now, &mut self.out)?;
            if !self.out.is_empty() || staged < self.out.capacity() {
                return Ok(());
            }
        }
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
            let taken = self.endpoint.send(now, self.wire.end().pool(), call, &scratch[..len], more)?;
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
