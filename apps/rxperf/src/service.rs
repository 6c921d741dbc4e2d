//! The rxperf service, inline on a polling core.

use crate::figures::Counter;
use crate::{Refusal, SERVICE, ServerCall};
use rxrpc::{App, CallId, Completion, Event, LocalId, Rx, Security, ServiceConfig};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// Calls that one core serves at once; what comes on top is refused with [`TOO_MANY`].
pub const CALLS_MAX: usize = 16_384;
/// Abort code for a call too many: RX_RESTARTING, which clients take as "try again".
pub const TOO_MANY: i32 = rxrpc::code::RESTARTING;

/// Reply bytes copied at a time.
const SCRATCH_LEN: usize = 16 * 1024;

/// What a service on one core has done.
#[derive(Debug, Default)]
pub struct ServiceFigures {
    /// Calls whose reply the client has.
    pub served: Counter,
    /// Calls refused, aborted or given up.
    pub failed: Counter,
    /// Request bytes.
    pub received: Counter,
    /// Reply bytes.
    pub sent: Counter,
}

/// Serves rxperf calls on one core.
pub struct PerfService {
    /// Addresses to serve on; those of other users of the engine are left alone.
    listen: Vec<SocketAddr>,
    security: Security,
    upgrade_to: Option<u16>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    scratch: Box<[u8; SCRATCH_LEN]>,
    figures: Arc<ServiceFigures>,
}

#[derive(Clone)]
struct Slot {
    call: ServerCall,
    /// The whole reply has been handed to the endpoint.
    ended: bool,
}

impl PerfService {
    /// A service that offers itself on these addresses as they are opened; to clients that ask for an upgrade, under that id.
    pub fn new(
        listen: Vec<SocketAddr>,
        security: Security,
        upgrade_to: Option<u16>,
        figures: Arc<ServiceFigures>,
    ) -> Self {
        Self {
            listen,
            security,
            upgrade_to,
            slots: vec![Slot { call: ServerCall::new(), ended: false }; CALLS_MAX],
            free: (0..CALLS_MAX as u32).rev().collect(),
            scratch: Box::new([0; SCRATCH_LEN]),
            figures,
        }
    }

    /// Takes what has come of a request, and begins the reply at its end.
    fn read(&mut self, rx: &mut Rx<'_>, call: CallId) {
        let index = rx.endpoint.user(call) as usize;
        // An error means that the call has ended; its Complete follows.
        while let Ok(Some((data, more))) = rx.recv_mbuf(call) {
            let slot = &mut self.slots[index].call;
            self.figures.received.add(data.len() as u64);
            let fed = data.segments().try_for_each(|bytes| slot.feed(bytes));
            let fed = if more { fed } else { fed.and_then(|()| slot.finish()) };
            if let Err(refusal) = fed {
                return refuse(rx, call, refusal);
            }
        }
        if self.slots[index].call.replies() {
            self.write(rx, call);
        }
    }

    /// Gives as much of the reply as there is room for.
    fn write(&mut self, rx: &mut Rx<'_>, call: CallId) {
        let slot = &mut self.slots[rx.endpoint.user(call) as usize];
        while !slot.ended {
            // Without room it is tried all the same: only then a Writable follows.
            let room = rx.endpoint.send_room(call).clamp(1, SCRATCH_LEN);
            let left = slot.call.reply_left();
            let len = slot.call.peek(&mut self.scratch[..room]);
            let more = (len as u64) < left;
            // An error means that the call has ended; its Complete follows.
            let Ok(taken) = rx.send(call, &self.scratch[..len], more) else { return };
            slot.call.advance(taken);
            self.figures.sent.add(taken as u64);
            slot.ended = !more && taken == len;
            if taken < len {
                return;
            }
        }
    }

    fn begin(&mut self, rx: &mut Rx<'_>, call: CallId) {
        let Some(index) = self.free.pop() else {
            self.figures.failed.add(1);
            return rx.reject(call, TOO_MANY);
        };
        self.slots[index as usize] = Slot { call: ServerCall::new(), ended: false };
        rx.endpoint.set_user(call, u64::from(index));
        self.read(rx, call);
    }

    fn end(&mut self, rx: &mut Rx<'_>, call: CallId, completion: Completion) {
        self.free.push(rx.endpoint.user(call) as u32);
        rx.release(call);
        let well = completion == Completion::Succeeded;
        if well { self.figures.served.add(1) } else { self.figures.failed.add(1) }
    }
}

fn refuse(rx: &mut Rx<'_>, call: CallId, refusal: Refusal) {
    rx.abort(call, refusal.abort_code());
}

impl App for PerfService {
    /// Nobody tells it anything.
    type Command = std::convert::Infallible;

    fn opened(&mut self, rx: &mut Rx<'_>, local: LocalId, addr: SocketAddr) {
        if !self.listen.contains(&addr) {
            return;
        }
        for service in self.upgrade_to.into_iter().chain([SERVICE]) {
            let upgrade_to = self.upgrade_to.filter(|_| service == SERVICE);
            let security = self.security.clone();
            let service = ServiceConfig { upgrade_to, security, ..ServiceConfig::new(service) };
            rx.listen(local, service).expect("a fresh local offers no service yet");
        }
    }

    fn closed(&mut self, rx: &mut Rx<'_>, _local: LocalId, _addr: SocketAddr) {
        // Calls of a closed address vanish without an event: the place of one that is gone is free again. One that had not been given
        // its whole reply was cut off.
        let held: HashSet<_> = rx.endpoint.calls().map(|call| call.user as u32).collect();
        let free: HashSet<_> = self.free.drain(..).collect();
        self.free.extend((0..CALLS_MAX as u32).rev().filter(|index| !held.contains(index)));
        let gone = self.free.iter().filter(|index| !free.contains(index));
        let cut_off = gone.filter(|index| !self.slots[**index as usize].ended).count();
        self.figures.failed.add(cut_off as u64);
    }

    fn event(&mut self, rx: &mut Rx<'_>, event: Event) {
        match event {
            Event::Incoming { call, .. } => self.begin(rx, call),
            Event::Readable { call } => self.read(rx, call),
            Event::Writable { call } => self.write(rx, call),
            Event::Complete { call, completion } => self.end(rx, call, completion),
            Event::Version { .. } | Event::Debug { .. } => {}
        }
    }

    fn command(&mut self, _rx: &mut Rx<'_>, command: Self::Command) {
        match command {}
    }
}
