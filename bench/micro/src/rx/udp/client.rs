//! The rxperf load on a socket, as `rxline rxperf client` has it on a core: a closed loop, every byte of each reply verified.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pmd::{Clock, Instant};
use rxperf::{ClientCall, SERVICE, Verify, Work};
use rxrpc::{CallId, CallOptions, Completion, Event, Target};
use serde::Serialize;

use super::{Rx, Side};

const REQUEST_BYTES: u32 = 64;
/// A call that takes longer has failed, and the run with it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a load came to; the names are those of `rxline rxperf client --json`.
#[derive(Serialize)]
pub struct Called {
    calls: u64,
    seconds: f64,
    calls_per_second: f64,
}

/// Calls for so long, so many at once, four to a connection.
pub fn call(server: SocketAddr, seconds: u64, in_flight: usize, reply_bytes: u32) -> Called {
    let mut rx = Rx::bind((Ipv4Addr::UNSPECIFIED, 0).into());
    let work = Work::rpc(REQUEST_BYTES, reply_bytes);
    let mut client =
        Client { server, work, conns: in_flight.div_ceil(4), calls: Vec::new(), done: 0, stopping: false };
    let begun = Clock::now();
    (0..in_flight).for_each(|index| client.begin(begun, &mut rx, index));
    let mut now = begun;
    while now - begun < Duration::from_secs(seconds) {
        rx.turn(now, &mut client);
        now = Clock::now();
    }
    let (calls, seconds) = (client.done, (now - begun).as_secs_f64());
    // What is in progress may end, so that the server is not told of a client that left.
    client.stopping = true;
    while rx.endpoint.calls().next().is_some() && Clock::now() - now < PATIENCE {
        rx.turn(Clock::now(), &mut client);
    }
    Called { calls, seconds, calls_per_second: calls as f64 / seconds }
}

struct Client {
    server: SocketAddr,
    work: Work,
    conns: usize,
    calls: Vec<ClientCall>,
    done: u64,
    stopping: bool,
}

impl Client {
    fn begin(&mut self, now: Instant, rx: &mut Rx, index: usize) {
        let state = ClientCall::new(self.work, Verify::Digest, fastrand::u64(..));
        match self.calls.get_mut(index) {
            Some(old) => *old = state,
            None => self.calls.push(state),
        }
        let options = CallOptions {
            hard_timeout: Some(PATIENCE),
            bundle_conns_max: Some(self.conns),
            user: index as u64,
            ..CallOptions::default()
        };
        let target = Target::new(self.server, SERVICE);
        let call = rx.endpoint.begin(now, rx.local, target, options).expect("a place");
        self.write(now, rx, call);
    }

    fn write(&mut self, now: Instant, rx: &mut Rx, call: CallId) {
        let state = &mut self.calls[rx.endpoint.user(call) as usize];
        if state.request_left() > 0 {
            // An error means that the call has ended; its Complete follows.
            let _ =
                rx.write(now, call, state, ClientCall::request_left, ClientCall::peek, ClientCall::advance);
        }
    }

    fn read(&mut self, now: Instant, rx: &mut Rx, call: CallId) {
        let state = &mut self.calls[rx.endpoint.user(call) as usize];
        while let Ok(Some((data, more))) = rx.endpoint.recv_mbuf(now, call) {
            data.segments().for_each(|bytes| state.feed(bytes).expect("the bytes that were asked for"));
            if !more {
                break;
            }
        }
    }
}

impl Side for Client {
    fn event(&mut self, now: Instant, rx: &mut Rx, event: Event) {
        match event {
            Event::Readable { call } => self.read(now, rx, call),
            Event::Writable { call } => self.write(now, rx, call),
            Event::Complete { call, completion } => {
                assert_eq!(completion, Completion::Succeeded, "a call failed");
                self.read(now, rx, call);
                let index = rx.endpoint.user(call) as usize;
                self.calls[index].finish().expect("a whole reply");
                rx.endpoint.release(now, call);
                self.done += 1;
                if !self.stopping {
                    self.begin(now, rx, index);
                }
            }
            _ => {}
        }
    }
}
