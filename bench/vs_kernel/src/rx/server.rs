//! The rxperf service on a wire, as `rxline rxperf server` has it on a core.

use std::time::Duration;

use pmd::{Clock, Instant};
use rxperf::{SERVICE, ServerCall};
use rxrpc::{CallId, Completion, Event, ServiceConfig};

use super::{Rx, Side};
use crate::Trouble;
use crate::serving::{Counts, TURNS};
use crate::wire::Wire;

/// Calls at once.
const CALLS_MAX: usize = 4096;
/// So often a sleeping server looks whether it shall end.
const LOOK: Duration = Duration::from_millis(100);

/// Serves until it shall stop; how many datagrams were lost because nobody took them in time.
pub fn serve(wire: Box<dyn Wire>, counts: &Counts) -> Result<u64, Trouble> {
    let mut rx = Rx::on(wire, CALLS_MAX);
    let service = ServiceConfig { backlog: CALLS_MAX, ..ServiceConfig::new(SERVICE) };
    rx.endpoint.listen(rx.local, service).expect("a new service");
    let mut server =
        Server { calls: vec![ServerCall::new(); CALLS_MAX], free: (0..CALLS_MAX).rev().collect(), counts };
    let mut now = Clock::now();
    while !counts.stopped() {
        for _ in 0..TURNS {
            let begun = now;
            now = rx.receive(now, LOOK, &mut server)?;
            rx.transmit(now)?;
            // It has slept: time to look at the flag.
            if now - begun >= LOOK / 2 {
                break;
            }
        }
    }
    Ok(rx.wire.end().dropped())
}

struct Server<'a> {
    calls: Vec<ServerCall>,
    free: Vec<usize>,
    counts: &'a Counts,
}

impl Side for Server<'_> {
    fn event(&mut self, now: Instant, rx: &mut Rx, event: Event) {
        match event {
            Event::Incoming { call, .. } => {
                let Some(index) = self.free.pop() else {
                    self.counts.failed(1);
                    return rx.endpoint.reject(now, call, rxrpc::code::RESTARTING);
                };
                self.calls[index] = ServerCall::new();
                rx.endpoint.set_user(call, index as u64);
                self.read(now, rx, call);
            }
            Event::Readable { call } => self.read(now, rx, call),
            Event::Writable { call } => self.write(now, rx, call),
            Event::Complete { call, completion } => {
                self.free.push(rx.endpoint.user(call) as usize);
                rx.endpoint.release(now, call);
                match completion {
                    Completion::Succeeded => self.counts.served(1),
                    _ => self.counts.failed(1),
                }
            }
            _ => {}
        }
    }
}

impl Server<'_> {
    fn read(&mut self, now: Instant, rx: &mut Rx, call: CallId) {
        let state = &mut self.calls[rx.endpoint.user(call) as usize];
        while let Ok(Some((data, more))) = rx.endpoint.recv_mbuf(now, call) {
            let fed = data.segments().try_for_each(|bytes| state.feed(bytes));
            let fed = if more { fed } else { fed.and_then(|()| state.finish()) };
            if let Err(refusal) = fed {
                return rx.endpoint.abort(now, call, refusal.abort_code());
            }
        }
        if self.calls[rx.endpoint.user(call) as usize].replies() {
            self.write(now, rx, call);
        }
    }

    fn write(&mut self, now: Instant, rx: &mut Rx, call: CallId) {
        let state = &mut self.calls[rx.endpoint.user(call) as usize];
        if state.reply_left() > 0 {
            // An error means that the call has ended; its Complete follows.
            let _ = rx.write(now, call, state, ServerCall::reply_left, ServerCall::peek, |state, taken| {
                state.advance(taken.len());
            });
        }
    }
}
