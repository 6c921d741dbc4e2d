//! Steady receiving over `memory:`, for whoever wants to look at it from outside: `cargo lab test rcu/instructions` under valgrind.
//!
//! `receive_in_memory polled|blocking|inline|threads COUNT`: COUNT datagrams to a UDP socket whose reader polls or blocks, or
//! COUNT calls that start and end, answered on the core or by threads. Prints what was received, and in how many busy turns
//! of the cores: a turn takes one burst from each port. `locked`, `exchanging` and `fencing` instead of these do for
//! each datagram, on the core, what receiving never does: whoever looks must see it.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::thread;
use std::time::Duration;

use rxrpc::engine::{
    Builder, Engine, EngineStats, Idle, Outcome, RecvError, Report, UdpSendError, UdpSocket,
};
use rxrpc::{Client, RxExt, ServiceId};

const SERVICE: ServiceId = ServiceId(147);
const SERVER: &str = "192.0.2.1:7";
/// Datagrams on their way at once: fewer than a socket queue holds.
const WINDOW: u64 = 64;
/// Datagrams or calls before it counts: everything has grown to its size by then.
const WARM_UP: u64 = 2_000;
/// Threads that call, and threads that answer.
const THREADS: u64 = 2;
/// A run in which nothing arrives for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: receive_in_memory polled|blocking|inline|threads|locked|exchanging|fencing COUNT";
    let (Some(how), Some(count), None) = (args.next(), args.next(), args.next()) else {
        return Err(usage.into());
    };
    let count = count.parse()?;
    match how.as_str() {
        "polled" => datagrams(count, false),
        "blocking" => datagrams(count, true),
        "inline" => calls(count, true),
        "threads" => calls(count, false),
        "locked" => planted(count, |read| _ = read.fetch_add(1, Ordering::Relaxed)),
        "exchanging" => {
            planted(count, |read| _ = read.swap(read.load(Ordering::Relaxed) + 1, Ordering::Relaxed))
        }
        "fencing" => planted(count, |read| {
            read.store(read.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
        }),
        _ => Err(usage.into()),
    }
}

/// From here on nothing is new to anybody: whoever watches the program begins when this is entered.
#[inline(never)]
fn steady_from_here() {
    std::hint::black_box(());
}

/// Busy turns of these cores.
fn busy_turns(engines: &[&EngineStats]) -> u64 {
    engines.iter().flat_map(|engine| &engine.cores).map(|core| core.busy_turns).sum()
}

/// All on one polling thread, which gives way as soon as it is idle: under valgrind one thread runs at a time.
fn engine(address: &str) -> Builder {
    let idle = Idle::Sleep { spins: 2, pauses: 2 };
    Engine::builder().port("memory:steady").address(address).core_count(1).idle(idle).pool_buffers(4_096)
}

fn datagrams(count: u64, blocking: bool) -> Result<(), Box<dyn Error>> {
    let (server, client) = (engine("192.0.2.1/24").start()?, engine("192.0.2.2/24").start()?);
    let (receiver, sender) =
        (server.udp().bind(SERVER.parse()?)?, client.udp().bind("192.0.2.2:0".parse()?)?);
    let read = AtomicU64::new(0);
    thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<(), RecvError> {
            let mut buffer = [0; 64];
            while read.load(Ordering::Relaxed) < WARM_UP + count {
                if blocking {
                    receiver.recv_timeout(PATIENCE, &mut buffer)?;
                } else if let Err(error) = receiver.try_recv_from(&mut buffer) {
                    if error != RecvError::WouldBlock {
                        return Err(error);
                    }
                    thread::yield_now();
                    continue;
                }
                read.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        // A reader that gave up has an error to tell.
        let gave_up = || if reader.is_finished() { u64::MAX / 2 } else { 0 };
        let turns = send(&server, &sender, count, || read.load(Ordering::Relaxed).max(gave_up()))?;
        reader.join().expect("the reader does not panic")?;
        println!("datagrams={count} calls=0 busy_turns={}", busy_turns(&[&server.stats()]) - turns);
        Ok::<_, Box<dyn Error>>(())
    })?;
    drop((receiver, sender));
    closed([server.shutdown(), client.shutdown()])
}

/// A service on the core that does `something` with the count of datagrams.
fn planted(count: u64, something: fn(&AtomicU64)) -> Result<(), Box<dyn Error>> {
    let (server, client) = (engine("192.0.2.1/24").start()?, engine("192.0.2.2/24").start()?);
    let read = Arc::new(AtomicU64::new(0));
    let counted = read.clone();
    let service = server.udp().serve(SERVER.parse()?, move |_, _, _| {
        something(&counted);
        Outcome::Delivered
    })?;
    let sender = client.udp().bind("192.0.2.2:0".parse()?)?;
    let turns = send(&server, &sender, count, || read.load(Ordering::Relaxed))?;
    println!("datagrams={count} calls=0 busy_turns={}", busy_turns(&[&server.stats()]) - turns);
    drop((service, sender));
    closed([server.shutdown(), client.shutdown()])
}

/// Sends datagrams until `count` were `read` after the first [`WARM_UP`], never more than the window ahead of those. Yields the
/// server's busy turns before these.
fn send(
    server: &Engine,
    sender: &UdpSocket,
    count: u64,
    read: impl Fn() -> u64,
) -> Result<u64, UdpSendError> {
    let to = SERVER.parse().expect("an address");
    let mut turns = 0;
    for sent in 0..WARM_UP + count {
        while sent >= read() + WINDOW {
            thread::yield_now();
        }
        if sent == WARM_UP {
            turns = busy_turns(&[&server.stats()]);
            steady_from_here();
        }
        sender.send_to(&sent.to_be_bytes(), to)?;
    }
    while read() < WARM_UP + count {
        thread::yield_now();
    }
    Ok(turns)
}

fn calls(count: u64, inline: bool) -> Result<(), Box<dyn Error>> {
    let (server, client) = (engine("192.0.2.1/24").start_rx()?, engine("192.0.2.2/24").start_rx()?);
    let service = server.rx().bind(SERVER, SERVICE)?;
    let caller = client.rx().client()?;
    let both = || {
        call(&caller, WARM_UP)?;
        let before = busy_turns(&[&server.stats(), &client.stats()]);
        steady_from_here();
        call(&caller, count)?;
        let turns = busy_turns(&[&server.stats(), &client.stats()]) - before;
        println!("datagrams=0 calls={count} busy_turns={turns}");
        Ok::<_, Box<dyn Error>>(())
    };
    if inline {
        let served = service.serve(|call| {
            let mut reply = [0; size_of::<u64>()];
            reply.copy_from_slice(call.request());
            call.reply(&reply);
        })?;
        both()?;
        drop(served);
    } else {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for mut call in service.incoming() {
                        // A client that gave up is the client's business.
                        let _ = call.read_all().and_then(|request| call.reply(&request));
                    }
                });
            }
            let called = both();
            service.close();
            called
        })?;
        drop(service);
    }
    drop(caller);
    closed([server.shutdown(), client.shutdown()])
}

/// Makes `count` calls from several threads, each with a request of its own.
fn call(caller: &Client, count: u64) -> Result<(), Box<dyn Error>> {
    thread::scope(|scope| {
        let callers: Vec<_> = (0..THREADS)
            .map(|first| {
                scope.spawn(move || -> Result<(), String> {
                    let server = SERVER.parse().expect("an address");
                    for number in (first..count).step_by(THREADS as usize) {
                        let request = number.to_be_bytes();
                        let reply =
                            caller.request(server, SERVICE, &request).map_err(|error| error.to_string())?;
                        if reply != request {
                            return Err(format!("call {number} was answered with {reply:?}"));
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        callers.into_iter().try_for_each(|caller| caller.join().expect("a caller does not panic"))
    })?;
    Ok(())
}

/// Nothing is left of the engines.
fn closed(reports: [Report; 2]) -> Result<(), Box<dyn Error>> {
    let leaks: Vec<String> = reports.iter().flat_map(Report::leaks).collect();
    if leaks.is_empty() { Ok(()) } else { Err(leaks.join("; ").into()) }
}
