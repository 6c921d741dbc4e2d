//! Calls are accepted, answered, aborted and dropped, and services come and go with calls on their way to them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rxrpc::socket::{AcceptFailed, CallFailed};
use rxrpc::{Client, RxEngine, Service, ServiceId};

use crate::sockets::doze;
use crate::tally::Tally;

/// The address of the engine that serves.
pub const SERVER_NET: &str = "192.0.2.10/24";
const SERVER: &str = "192.0.2.10:7009";
const SERVICE: ServiceId = ServiceId(147);
/// Where services come and go.
const FLEETING: &str = "192.0.2.10:7010";
/// Longer than a caller may sleep on.
const PATIENCE: Duration = Duration::from_secs(3);
/// What aborted calls are aborted with.
const CODE: i32 = -4711;

/// Starts all of it.
pub fn start<'s>(
    scope: &'s Scope<'s, '_>,
    (server, client): (&'s RxEngine, &'s RxEngine),
    stop: &'s AtomicBool,
    tally: &'s Tally,
    (acceptors, callers): (u64, u64),
    rng: &mut impl FnMut() -> Rng,
) {
    let service =
        std::sync::Arc::new(server.rx().bind(SERVER, SERVICE).expect("the service's address is free"));
    for _ in 0..acceptors {
        let (service, rng) = (service.clone(), rng());
        scope.spawn(move || accept(&service, stop, tally, rng));
    }
    for _ in 0..callers {
        let rng = rng();
        let caller = client.rx().client().expect("a client");
        scope.spawn(move || call(&caller, stop, tally, rng));
    }
    let rng = rng();
    scope.spawn(move || serve_fleetingly(server, client, stop, tally, rng));
}

/// Takes calls: answers most, aborts some, drops some.
fn accept(service: &Service, stop: &AtomicBool, tally: &Tally, mut rng: Rng) {
    while !stop.load(Ordering::Relaxed) {
        let mut call = match service.accept_timeout(Duration::from_millis(100)) {
            Ok(call) => call,
            Err(AcceptFailed::TimedOut) => continue,
            Err(error) => return tally.fail(format!("accept: {error}")),
        };
        Tally::count(&tally.accepts);
        call.set_timeout(Some(PATIENCE));
        match rng.u8(..8) {
            0 => {
                call.abort(CODE);
                Tally::count(&tally.aborts);
            }
            1 => drop(call),
            _ => {
                // A client may give up at any time.
                let _ = call.read_all().and_then(|request| call.reply(&request));
            }
        }
    }
}

/// Calls, and sleeps until the answer or the abort comes; gives up some calls at once.
fn call(caller: &Client, stop: &AtomicBool, tally: &Tally, mut rng: Rng) {
    let (server, request) = (SERVER.parse().expect("an address"), [7; 100]);
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = one_call(caller, server, &request, tally, &mut rng) {
            return tally.fail(error);
        }
        doze(&mut rng, 200);
    }
}

fn one_call(
    caller: &Client,
    server: SocketAddr,
    request: &[u8],
    tally: &Tally,
    rng: &mut Rng,
) -> Result<(), String> {
    let began = Instant::now();
    let mut call = match caller.call(server, SERVICE) {
        Ok(call) => call,
        // Those that were dropped are on their way out.
        Err(CallFailed::TooManyCalls { .. }) => return Ok(()),
        Err(error) => return Err(format!("call: {error}")),
    };
    call.set_timeout(Some(PATIENCE));
    let sent = call.send(request).and_then(|()| call.finish());
    match rng.u8(..8) {
        0 => {
            call.abort(CODE);
            Tally::count(&tally.aborts);
            return Ok(());
        }
        1 => return Ok(()),
        _ => {}
    }
    match sent.and_then(|()| call.read_all()) {
        Ok(reply) if reply == request => {}
        Ok(reply) => return Err(format!("{} bytes were answered with other {}", request.len(), reply.len())),
        // Aborted, dropped, or refused because no accept was charged just then.
        Err(error) if error.abort_code().is_some() => {}
        Err(error) => return Err(format!("a call that nobody gave up: {error}")),
    }
    tally.woken("a caller", began.elapsed());
    Ok(())
}

/// Binds a service, calls it, and closes it with the call on its way, accepted, or answered.
fn serve_fleetingly(server: &RxEngine, client: &RxEngine, stop: &AtomicBool, tally: &Tally, mut rng: Rng) {
    let caller = client.rx().client().expect("a client");
    let address = FLEETING.parse().expect("an address");
    while !stop.load(Ordering::Relaxed) {
        let service = match server.rx().bind(FLEETING, SERVICE) {
            Ok(service) => service,
            Err(error) => return tally.fail(format!("bind {FLEETING}: {error}")),
        };
        Tally::count(&tally.binds);
        let call = caller.call(address, SERVICE);
        if let (Ok(call), true) = (call, rng.bool()) {
            if let Ok(Some(accepted)) = service.try_accept() {
                Tally::count(&tally.accepts);
                drop(accepted);
            }
            doze(&mut rng, 200);
            if rng.bool() {
                call.abort(CODE);
                Tally::count(&tally.aborts);
            }
        }
        drop(service);
        Tally::count(&tally.closes);
    }
}
