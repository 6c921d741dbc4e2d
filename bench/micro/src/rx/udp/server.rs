//! The rxperf service on a socket, as `rxline rxperf server` has it on a core.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pmd::{Clock, Instant};
use rxperf::{SERVICE, ServerCall};
use rxrpc::{CallId, Event, ServiceConfig};

use super::{Rx, Side};

/// Turns from one look at the flag that ends it all to the next.
const TURNS: usize = 64;
/// Calls at once.
const CALLS_MAX: usize = 1024;

/// Serves until SIGINT or SIGTERM.
pub fn serve(addr: SocketAddr) {
    let stop = Arc::<AtomicBool>::default();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).expect("SIGINT and SIGTERM can be caught");
    }
    let mut rx = Rx::bind(addr);
    let service = ServiceConfig::new(SERVICE);
    rx.endpoint.listen(rx.local, service).expect("a new service");
    let mut server =
        Server { calls: vec![ServerCall::new(); CALLS_MAX], free: (0..CALLS_MAX).rev().collect() };
    while !stop.load(Ordering::Relaxed) {
        (0..TURNS).for_each(|_| rx.turn(Clock::now(), &mut server));
    }
}

struct Server {
    calls: Vec<ServerCall>,
    free: Vec<usize>,
}

impl Side for Server {
    fn event(&mut self, now: Instant, rx: &mut Rx, event: Event) {
        match event {
            Event::Incoming { call, .. } => {
                let index = self.free.pop().expect("fewer calls than the lab makes");
                self.calls[index] = ServerCall::new();
                rx.endpoint.set_user(call, index as u64);
                self.read(now, rx, call);
            }
            Event::Readable { call } => self.read(now, rx, call),
            Event::Writable { call } => self.write(now, rx, call),
            Event::Complete { call, .. } => {
                self.free.push(rx.endpoint.user(call) as usize);
                rx.endpoint.release(now, call);
            }
            _ => {}
        }
    }
}

impl Server {
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
