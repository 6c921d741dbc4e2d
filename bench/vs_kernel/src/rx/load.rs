//! Makes calls as a generator wants them, and looks at every byte of each reply. A call has its place for as long as it lives, and each lane the
//! calls of its own places.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use pmd::Instant;
use rxperf::{ClientCall, SERVICE, Verify, Work, WrongReply};
use rxrpc::{CallId, CallOptions, Completion, Event, Target};

use super::{Rx, Side};
use crate::Trouble;
use crate::generator::{Generator, Ticket};
use crate::loading::Load;
use crate::wire::Wire;

/// See the module's head.
pub struct RxLoad {
    lanes: Vec<Rx>,
    calls: Calls,
    options: CallOptions,
    server: SocketAddr,
}

/// The calls in flight, by their places.
struct Calls {
    slots: Vec<Slot>,
    work: Work,
    seed: u64,
    /// What has ended in this turn.
    ended: Vec<(Ticket, Result<usize, String>)>,
}

struct Slot {
    ticket: Ticket,
    call: ClientCall,
    wrong: Option<WrongReply>,
}

impl RxLoad {
    /// At most so many calls at once, four to a connection, by the wires in turn. One that takes longer than `patience` has failed.
    pub fn new(
        wires: Vec<Box<dyn Wire>>,
        server: SocketAddrV4,
        work: Work,
        in_flight: usize,
        patience: Duration,
        seed: u64,
    ) -> RxLoad {
        let options = CallOptions {
            hard_timeout: Some(patience),
            bundle_conns_max: Some(in_flight.div_ceil(4 * wires.len())),
            ..CallOptions::default()
        };
        let slot = || Slot { ticket: Ticket(0), call: ClientCall::new(work, Verify::Digest, 0), wrong: None };
        let slots = (0..in_flight).map(|_| slot()).collect();
        let calls = Calls { slots, work, seed, ended: Vec::with_capacity(in_flight) };
        let lanes = wires.into_iter().map(|wire| Rx::on(wire, in_flight)).collect();
        RxLoad { lanes, calls, options, server: server.into() }
    }

    fn begin(&mut self, now: Instant, ticket: Ticket, generator: &mut Generator) {
        let lanes = self.lanes.len();
        let rx = &mut self.lanes[ticket.slot() % lanes];
        let call = ClientCall::new(self.calls.work, Verify::Digest, self.calls.seed ^ ticket.0);
        self.calls.slots[ticket.slot()] = Slot { ticket, call, wrong: None };
        let options = CallOptions { user: ticket.slot() as u64, ..self.options.clone() };
        match rx.endpoint.begin(now, rx.local, Target::new(self.server, SERVICE), options) {
            Ok(call) => self.calls.write(now, rx, call),
            Err(error) => generator.failed(now, ticket, || format!("cannot begin a call: {error}")),
        }
    }
}

impl Load for RxLoad {
    fn take(
        &mut self,
        mut now: Instant,
        wait: Duration,
        generator: &mut Generator,
    ) -> Result<Instant, Trouble> {
        for rx in &mut self.lanes {
            now = rx.receive(now, wait, &mut self.calls)?;
            for (ticket, end) in self.calls.ended.drain(..) {
                match end {
                    Ok(bytes) => generator.answered(now, ticket, bytes),
                    Err(why) => generator.failed(now, ticket, || why),
                }
            }
        }
        Ok(now)
    }

    fn ask(&mut self, now: Instant, generator: &mut Generator) -> Result<(), Trouble> {
        while let Some(ticket) = generator.next(now) {
            self.begin(now, ticket, generator);
        }
        for rx in &mut self.lanes {
            rx.transmit(now)?;
        }
        Ok(())
    }
}

impl Calls {
    fn write(&mut self, now: Instant, rx: &mut Rx, call: CallId) {
        let state = &mut self.slots[rx.endpoint.user(call) as usize].call;
        if state.request_left() > 0 {
            // An error means that the call has ended; its Complete follows.
            let _ =
                rx.write(now, call, state, ClientCall::request_left, ClientCall::peek, ClientCall::advance);
        }
    }

    fn read(&mut self, now: Instant, rx: &mut Rx, call: CallId) {
        let slot = &mut self.slots[rx.endpoint.user(call) as usize];
        while let Ok(Some((data, more))) = rx.endpoint.recv_mbuf(now, call) {
            let fed = data.segments().try_for_each(|bytes| slot.call.feed(bytes));
            // The first thing that is wrong stands; the rest is taken all the same, so that the call ends.
            slot.wrong = slot.wrong.or(fed.err());
            if !more {
                break;
            }
        }
    }

    /// The call is over: whether its reply was whole and right, and of how many bytes.
    fn end(&mut self, index: usize, completion: Completion) -> Result<usize, String> {
        let slot = &self.slots[index];
        if completion != Completion::Succeeded {
            return Err(completion.to_string());
        }
        match slot.wrong.map_or_else(|| slot.call.finish(), Err) {
            Ok(()) => Ok(self.work.receives() as usize),
            Err(wrong) => Err(wrong.to_string()),
        }
    }
}

impl Side for Calls {
    fn event(&mut self, now: Instant, rx: &mut Rx, event: Event) {
        match event {
            Event::Readable { call } => self.read(now, rx, call),
            Event::Writable { call } => self.write(now, rx, call),
            Event::Complete { call, completion } => {
                self.read(now, rx, call);
                let index = rx.endpoint.user(call) as usize;
                let end = self.end(index, completion);
                rx.endpoint.release(now, call);
                self.ended.push((self.slots[index].ticket, end));
            }
            _ => {}
        }
    }
}
