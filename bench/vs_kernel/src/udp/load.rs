//! Asks for echoes as a generator wants them, on wires of one thread, and looks at every byte that comes back.

use std::net::SocketAddr;
use std::time::Duration;

use pmd::{Clock, Instant};

use super::{fill, verify};
use crate::Trouble;
use crate::generator::{Generator, Ticket};
use crate::loading::Load;
use crate::wire::{Batch, Wire};

/// A wire and what is on its way to it.
struct Lane {
    wire: Box<dyn Wire>,
    out: Batch,
}

/// See the module's head.
pub struct UdpLoad {
    lanes: Vec<Lane>,
    came: Batch,
    server: SocketAddr,
    payload: usize,
    seed: u64,
}

impl UdpLoad {
    /// Requests go by the wires in turn.
    pub fn new(wires: Vec<Box<dyn Wire>>, server: SocketAddr, payload: usize, seed: u64) -> UdpLoad {
        let lanes = wires.into_iter().map(|wire| Lane { wire, out: Batch::new() }).collect();
        UdpLoad { lanes, came: Batch::new(), server, payload, seed }
    }
}

impl Load for UdpLoad {
    fn take(
        &mut self,
        mut now: Instant,
        wait: Duration,
        generator: &mut Generator,
    ) -> Result<Instant, Trouble> {
        for lane in &mut self.lanes {
            lane.wire.receive(now, wait, &mut self.came)?;
            now = Clock::now();
            for (_, reply) in self.came.drain(..) {
                match verify(reply.data(), self.seed, self.payload) {
                    Ok(name) => generator.answered(now, Ticket(name), self.payload),
                    Err(why) => generator.error(|| why),
                }
            }
        }
        Ok(now)
    }

    fn ask(&mut self, now: Instant, generator: &mut Generator) -> Result<(), Trouble> {
        let lanes = self.lanes.len();
        while self.lanes.iter().all(|lane| !lane.out.is_full()) {
            let Some(ticket) = generator.next(now) else { break };
            let lane = &mut self.lanes[ticket.slot() % lanes];
            let request = lane.wire.end().pool().alloc().and_then(|mut request| {
                fill(request.append(self.payload)?, self.seed, ticket.0);
                Some(request)
            });
            match request {
                Some(request) => lane.out.push((self.server, request)),
                // Never made; it will be lost, and the load's own pool is named as the reason.
                None => generator
                    .error(|| "the load has no buffers left: fewer in flight, or smaller payloads".into()),
            }
        }
        for lane in self.lanes.iter_mut().filter(|lane| !lane.out.is_empty()) {
            lane.wire.send(now, &mut lane.out)?;
        }
        Ok(())
    }
}
