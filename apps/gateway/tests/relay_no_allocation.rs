//! A counting allocator proves it: packets of known connections cross the relay without allocating or freeing anything.
//!
//! All engines of the process are on one polling thread for each CPU, so that what counts is the gateway together with the client's and the
//! servers' engines. Backends are not looked for meanwhile: that allocates a little, now and then.

#[allow(dead_code, reason = "the other tests use more of it")]
mod common;
#[path = "../../../engine/tests/counting/mod.rs"]
mod counting;

use std::time::{Duration, Instant};

use common::{Net, SERVICE, config_text, gateway_address, parse};
use counting::{counts, operations};
use rxrpc::socket::ServedCall;
use rxrpc::{RxControl, Security};

/// Calls before it counts: everything has grown to its size by then.
const WARM_UP: usize = 2_000;
const STEADY: Duration = Duration::from_secs(1);

static REPLY: [u8; 50_000] = [7; 50_000];

/// As many bytes as the request has, or many.
fn answer(call: &mut ServedCall<'_, '_>) {
    let len = call.request().len();
    call.reply(if len > 64 { &REPLY } else { &REPLY[..len] });
}

fn call(net: &Net, buffer: &mut [u8], len: usize) {
    let mut call = net.client.call(gateway_address(), SERVICE).expect("a call");
    call.send(&REPLY[..len]).expect("sent");
    call.finish().expect("sent");
    let mut read = 0;
    loop {
        match call.recv(&mut buffer[read..]).expect("a reply") {
            0 => break,
            n => read += n,
        }
    }
    assert_eq!(read, if len > 64 { REPLY.len() } else { len });
}

#[test]
fn packets_cross_the_relay_without_allocating() {
    let name = "relay-no-allocation";
    let text = config_text(name, "", "", "relay").replace("interval_ms = 100", "interval_ms = 60000");
    let mut net = Net::start_as(name, parse(name, &text));
    (0..2).for_each(|n| net.serve_as(n, Security::none(), answer));
    net.wait_for("the backends are probed", |stats| stats.backends.iter().all(|backend| backend.alive));
    let mut buffer = vec![0; REPLY.len() + 1];
    let len = |n: usize| if n.is_multiple_of(10) { 20_000 } else { 64 };
    (0..WARM_UP).for_each(|n| call(&net, &mut buffer, len(n)));
    let relayed = net.gateway.stats().relay.packets_to_clients;
    let core = |on| net.client_engine.inspect(0, move |_| counts(on)).expect("the core runs");
    core(true);
    let seen = operations();
    net.client_engine.inspect(0, |_| drop(std::hint::black_box(Box::new(1)))).expect("the core runs");
    assert!(operations() > seen, "the counter must see what a core allocates");
    // What asked for that is let go of a little later.
    (0..WARM_UP).for_each(|n| call(&net, &mut buffer, len(n)));
    let (before, end) = (operations(), Instant::now() + STEADY);
    let mut made = 0;
    while Instant::now() < end {
        call(&net, &mut buffer, len(made));
        made += 1;
    }
    let allocated = operations() - before;
    core(false);
    assert!(made > 100, "only {made} calls");
    assert!(net.gateway.stats().relay.packets_to_clients > relayed + made as u64, "they did not cross it");
    assert_eq!(allocated, 0, "allocations and frees on the polling thread, over {made} calls");
    net.finish();
}
