//! UDP sockets come and go under the flood, and threads and tasks sleep on them.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Scope, Thread};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rxrpc::engine::{BindError, Engine, RecvError, UdpSocket};

use crate::flood::{FLOODED, PINGED, Pings, RECEIVER_NET};
use crate::tally::{LOST_AFTER, Tally};

/// Longer than a sleeper may sleep on.
const PATIENCE: Duration = Duration::from_secs(3);
/// One socket in so many is given to a sleeper before it is closed.
const SLEPT_ON: u32 = 32;
/// Ports that nobody sends to.
const QUIET: u16 = 11_000;

/// Starts all of it.
pub fn start<'s>(
    scope: &'s Scope<'s, '_>,
    engine: &'s Engine,
    pings: &'s Pings,
    stop: &'s AtomicBool,
    tally: &'s Tally,
    binders: u64,
    rng: &mut impl FnMut() -> Rng,
) {
    for index in 0..PINGED {
        let socket = engine.udp().bind(Pings::address(index)).expect("the sleepers' ports are free");
        let mut rng = rng();
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                be_pinged(index, &socket, pings, tally);
                doze(&mut rng, 300);
            }
        });
    }
    for binder in 0..binders {
        let (give, take) = sync_channel(1);
        let rng = rng();
        scope.spawn(move || bind_and_close(engine, binder, give, stop, tally, rng));
        scope.spawn(move || sleep_until_closed(take, tally));
    }
}

/// Asks for one message and sleeps until it comes: a thread, or every other time a task.
fn be_pinged(index: usize, socket: &UdpSocket, pings: &Pings, tally: &Tally) {
    let mut message = [0; 8];
    pings.ask(index);
    let received = if index.is_multiple_of(2) {
        socket.recv_timeout(PATIENCE, &mut message)
    } else {
        let deadline = Instant::now() + PATIENCE;
        block_on(socket.recv_from_async(&mut message), deadline).unwrap_or(Err(RecvError::TimedOut))
    };
    match received {
        Ok(_) => {
            let slept = crate::now().saturating_sub(u64::from_be_bytes(message));
            tally.woken("a reader", Duration::from_nanos(slept));
        }
        // The flood filled the wire. If it was the wake-up that is missing, the message waits.
        Err(RecvError::TimedOut) => match socket.try_recv_from(&mut message) {
            Ok(_) => tally.fail(format!("reader {index} slept for {PATIENCE:?} on a message that was there")),
            Err(_) => Tally::count(&tally.missed),
        },
        Err(error) => tally.fail(format!("reader {index}: {error}")),
    }
}

/// A socket to be slept on, and when it was closed.
type Slept = (Arc<UdpSocket>, Arc<AtomicU64>);

/// Binds sockets under the flood and closes them, some while somebody sleeps on them.
fn bind_and_close(
    engine: &Engine,
    binder: u64,
    give: SyncSender<Slept>,
    stop: &AtomicBool,
    tally: &Tally,
    mut rng: Rng,
) {
    let ip = RECEIVER_NET.split('/').next().and_then(|ip| ip.parse().ok()).expect("an address");
    let at = |port| std::net::SocketAddr::new(ip, port);
    while !stop.load(Ordering::Relaxed) {
        let quiet = rng.u32(..SLEPT_ON) == 0;
        let local = at(if quiet { QUIET + binder as u16 } else { rng.u16(FLOODED) });
        let bound = match rng.u8(..4) {
            0 => engine.udp().connect(local, "192.0.2.2:20000".parse().expect("an address")),
            _ => engine.udp().bind(local),
        };
        let socket = match bound {
            Ok(socket) => Arc::new(socket),
            // The other binder's.
            Err(BindError::InUse { .. }) => continue,
            Err(error) => return tally.fail(format!("bind {local}: {error}")),
        };
        Tally::count(&tally.binds);
        for _ in 0..rng.u8(..4) {
            let _ = socket.try_recv_from(&mut [0; 8]);
        }
        let closed_at = Arc::new(AtomicU64::new(0));
        if rng.u32(..SLEPT_ON) == 0 || quiet {
            match give.try_send((socket.clone(), closed_at.clone())) {
                Ok(()) => doze(&mut rng, 500),
                Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
        closed_at.store(crate::now(), Ordering::Release);
        socket.close();
        Tally::count(&tally.closes);
    }
}

/// Sleeps on each socket until another thread closes it.
fn sleep_until_closed(sockets: Receiver<Slept>, tally: &Tally) {
    for (socket, closed_at) in sockets {
        let woken = loop {
            match socket.recv_timeout(PATIENCE, &mut [0; 8]) {
                Ok(_) => {}
                other => break other,
            }
        };
        let closed_at = closed_at.load(Ordering::Acquire);
        match woken {
            Err(RecvError::Closed) => {
                let slept = crate::now().saturating_sub(closed_at);
                tally.woken("a reader of a closed socket", Duration::from_nanos(slept));
            }
            other => tally.fail(format!("a reader slept through the close of its socket: {other:?}")),
        }
    }
}

/// Yields, spins or sleeps for up to so many microseconds.
pub fn doze(rng: &mut Rng, micros_max: u64) {
    match rng.u8(..3) {
        0 => {}
        1 => thread::yield_now(),
        _ => thread::sleep(Duration::from_micros(rng.u64(..micros_max))),
    }
}

/// Runs a future on this thread until `deadline`.
fn block_on<F: Future>(future: F, deadline: Instant) -> Option<F::Output> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

const _: () = assert!(PATIENCE.as_secs() > LOST_AFTER.as_secs());
