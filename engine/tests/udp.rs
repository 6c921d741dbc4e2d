//! Plain UDP between two engines in one process: every way to read, errors of the network, closing, and what is left at the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use engine::{BindError, Builder, Engine, NetError, Outcome, RecvError, StartError, UdpHandler, UdpSocket};

const LONG: Duration = Duration::from_secs(10);

fn builder(wire: &str, host: u8) -> Builder {
    let builder = Engine::builder().name(format!("{wire}.{host}")).pool_buffers(1024);
    builder
        .port(format!("memory:{wire}"))
        .address(format!("192.0.2.{host}/24"))
        .address(format!("2001:db8::{host}/64"))
}

fn pair(wire: &str) -> (Engine<UdpHandler>, Engine<UdpHandler>) {
    (builder(wire, 1).start().unwrap(), builder(wire, 2).start().unwrap())
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Shuts both down; nothing may be left behind.
fn end(a: Engine<UdpHandler>, b: Engine<UdpHandler>) {
    let reports = [a.shutdown(), b.shutdown()];
    for report in &reports {
        assert_eq!(report.leaks(), Vec::<String>::new(), "{}", report.stats.ledger());
    }
}

fn echo(cx: &mut engine::Cx<'_>, _: &engine::Socket, datagram: engine::Datagram) -> Outcome {
    match cx.send(datagram.local, datagram.peer, datagram.payload) {
        Ok(()) => Outcome::Delivered,
        Err(reason) => Outcome::Dropped(reason),
    }
}

#[test]
fn datagrams_of_any_size_come_back_over_both_protocols() {
    let (server, client) = pair("sizes");
    let service = server.udp().serve(addr("0.0.0.0:7"), echo).unwrap();
    let service6 = server.udp().serve(addr("[::]:7"), echo).unwrap();
    for (from, to) in [("192.0.2.2:0", "192.0.2.1:7"), ("[2001:db8::2]:0", "[2001:db8::1]:7")] {
        let socket = client.udp().bind(addr(from)).unwrap();
        for len in [0, 1, 100, 1472, 1473, 9000, 65_000] {
            let sent: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
            socket.send_to(&sent, addr(to)).unwrap();
            let mut buffer = vec![0; 70_000];
            let (n, peer) =
                socket.recv_timeout(LONG, &mut buffer).unwrap_or_else(|e| panic!("{to}, {len} bytes: {e}"));
            assert_eq!((n, peer), (len, addr(to)));
            assert!(buffer[..n] == sent, "{to}: {len} bytes came back changed");
        }
        let mut small = [0; 10];
        socket.send_to(&[5; 100], addr(to)).unwrap();
        assert_eq!(
            socket.recv_timeout(LONG, &mut small).unwrap().0,
            100,
            "the full length of a cut datagram"
        );
        assert_eq!(small, [5; 10]);
    }
    drop((service, service6));
    end(server, client);
}

#[test]
fn tasks_and_event_loops_are_woken() {
    struct Unpark(thread::Thread, AtomicU64);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.unpark();
        }
    }
    let (server, client) = pair("tasks");
    let _service = server.udp().serve(addr("192.0.2.1:7"), echo).unwrap();
    let socket = client.udp().bind(addr("192.0.2.2:0")).unwrap();
    let woken = Arc::new(Unpark(thread::current(), AtomicU64::new(0)));
    let waker = Waker::from(woken.clone());
    let mut buffer = [0; 64];
    for round in 0..100u8 {
        let mut poll = || socket.poll_recv_from(&mut Context::from_waker(&waker), &mut buffer);
        assert!(poll().is_pending());
        socket.send_to(&[round], addr("192.0.2.1:7")).unwrap();
        let received = loop {
            match poll() {
                Poll::Ready(received) => break received.unwrap(),
                Poll::Pending => thread::park_timeout(LONG),
            }
        };
        assert_eq!((received.0, buffer[0]), (1, round));
    }
    assert!(woken.1.load(Ordering::SeqCst) > 0);

    let fd = socket.event_fd().unwrap();
    for round in 0..100u8 {
        assert_eq!(socket.try_recv_from(&mut buffer), Err(RecvError::WouldBlock));
        socket.send_to(&[round], addr("192.0.2.1:7")).unwrap();
        let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        let timeout = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1), "round {round}");
        assert_eq!(socket.try_recv_from(&mut buffer).unwrap().0, 1);
        assert_eq!(buffer[0], round);
    }
    drop((_service, socket));
    end(server, client);
}

#[test]
fn an_unbound_port_is_told_to_the_connected_sender() {
    let (server, client) = pair("unbound");
    let peer = addr("192.0.2.1:9");
    let socket = client.udp().connect(addr("192.0.2.2:0"), peer).unwrap();
    socket.send_to(b"anyone?", peer).unwrap();
    let error = socket.recv_timeout(LONG, &mut [0; 8]).unwrap_err();
    assert_eq!(error, RecvError::Unreachable { peer, error: NetError::PortUnreachable });
    assert_eq!(server.stats().ledger().drops.get(engine::Drop::NoSocket), 1);
    drop(socket);
    end(server, client);
}

#[test]
fn the_most_specific_socket_gets_the_datagram() {
    let (server, client) = pair("specific");
    let sender = client.udp().bind(addr("192.0.2.2:5000")).unwrap();
    let from = sender.local_addr();
    let sockets = [
        server.udp().bind(addr("0.0.0.0:7")).unwrap(),
        server.udp().bind(addr("192.0.2.1:7")).unwrap(),
        server.udp().connect(addr("0.0.0.0:7"), from).unwrap(),
        server.udp().connect(addr("192.0.2.1:7"), from).unwrap(),
    ];
    let mut sockets = Vec::from(sockets);
    while let Some(expected) = sockets.pop() {
        sender.send_to(b"x", addr("192.0.2.1:7")).unwrap();
        assert_eq!(
            expected.recv_timeout(LONG, &mut [0; 8]),
            Ok((1, from)),
            "{} sockets less specific",
            sockets.len()
        );
        for other in &sockets {
            assert_eq!(other.try_recv_from(&mut [0; 8]), Err(RecvError::WouldBlock));
        }
    }
    drop(sender);
    end(server, client);
}

#[test]
fn binding_refuses_by_name() {
    let engine = builder("names", 1).sockets_max(2).start().unwrap();
    let first = engine.udp().bind(addr("192.0.2.1:7")).unwrap();
    assert_eq!(
        engine.udp().bind(addr("192.0.2.1:7")).err(),
        Some(BindError::InUse { addr: addr("192.0.2.1:7") })
    );
    assert_eq!(
        engine.udp().bind(addr("192.0.2.3:7")).err(),
        Some(BindError::NotOurs { addr: addr("192.0.2.3:7") })
    );
    let _second = engine.udp().bind(addr("192.0.2.1:0")).unwrap();
    assert_eq!(engine.udp().bind(addr("192.0.2.1:0")).err(), Some(BindError::TooMany { max: 2 }));
    drop(first);
    let again = engine.udp().bind(addr("192.0.2.1:7")).expect("closing frees the address and the slot");
    let binder = engine.binder();
    drop(engine);
    assert_eq!(binder.bind(addr("192.0.2.1:8"), 0).err(), Some(BindError::Stopped));
    assert_eq!(again.recv_from(&mut [0; 8]), Err(RecvError::Closed));
}

#[test]
fn starting_refuses_by_name() {
    let refuse = |builder: Builder| builder.start().err().expect("must not start").to_string();
    assert!(matches!(Engine::builder().start().err(), Some(StartError::NoPort)));
    assert!(refuse(Engine::builder().address("192.0.2.1/24")).contains("192.0.2.1/24"));
    assert!(
        refuse(builder("bad", 1).address("192.0.2.1"))
            .contains("\"192.0.2.1\" is not an address with its prefix")
    );
    assert!(refuse(builder("bad", 1).gateway("router")).contains("router"));
    assert!(refuse(builder("bad", 1).cores([4095])).contains("CPU 4095"));
    assert!(refuse(builder("bad", 1).core_count(0)).contains("0 cores"));
    assert!(refuse(builder("bad", 1).core_count(65)).contains("65 cores"));
    assert!(refuse(builder("bad", 1).pool_buffers(3)).contains("3 buffers"));
    assert!(refuse(Engine::builder().port("nonsense:x")).contains("nonsense"));
    let panics = builder("bad", 1).start_with(|_| -> UdpHandler { panic!("no handler today") });
    assert!(panics.err().expect("must not start").to_string().contains("no handler today"));
}

#[test]
fn closing_wakes_the_readers_and_receiving_goes_on_elsewhere() {
    let (server, client) = pair("closing");
    let sender = client.udp().bind(addr("192.0.2.2:0")).unwrap();
    let (delivered, stop) = (&AtomicU64::new(0), &AtomicU64::new(0));
    let read_until_closed = |socket: &UdpSocket| loop {
        match socket.recv_from(&mut [0; 256]) {
            Ok(_) => delivered.fetch_add(1, Ordering::Relaxed),
            Err(RecvError::Closed) => return,
            Err(error) => panic!("{error}"),
        };
    };
    thread::scope(|scope| {
        scope.spawn(move || {
            while stop.load(Ordering::Relaxed) == 0 {
                sender.send_to(&[1; 200], addr("192.0.2.1:7")).unwrap();
            }
        });
        for _ in 0..50 {
            let socket = server.udp().bind(addr("192.0.2.1:7")).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| read_until_closed(&socket));
                scope.spawn(|| read_until_closed(&socket));
                thread::sleep(Duration::from_millis(2));
                socket.close();
            });
        }
        stop.store(1, Ordering::Relaxed);
    });
    assert!(delivered.load(Ordering::Relaxed) > 0);
    end(server, client);
}

#[test]
fn unread_datagrams_stay_within_the_budgets_and_harm_nobody() {
    let server = builder("budget", 1).socket_budget(64 << 10).core_budget(128 << 10).start().unwrap();
    let client = builder("budget", 2).start().unwrap();
    let unread: Vec<_> = (0..3)
        .map(|i| server.udp().bind(SocketAddr::new(addr("192.0.2.1:0").ip(), 100 + i)).unwrap())
        .collect();
    let _service = server.udp().serve(addr("192.0.2.1:7"), echo).unwrap();
    let socket = client.udp().bind(addr("192.0.2.2:0")).unwrap();
    for i in 0..300u32 {
        let target = &unread[i as usize / 100];
        socket.send_to(&i.to_be_bytes(), target.local_addr()).unwrap();
        socket.send_to(b"still there?", addr("192.0.2.1:7")).unwrap();
        socket.recv_timeout(LONG, &mut [0; 64]).unwrap_or_else(|error| panic!("round {i}: {error}"));
    }
    let stats = server.stats();
    let drops = &stats.ledger().drops;
    let (by_socket, by_core) = (drops.get(engine::Drop::SocketBudget), drops.get(engine::Drop::CoreBudget));
    // 32 buffers of 2 KiB a socket, 64 for all of them.
    // The second socket fills the core's budget along with its own; the core's is looked at first.
    assert_eq!((by_socket, by_core), (100 - 32, 100 - 32 + 100), "{}", stats.ledger());
    for i in 0..32u32 {
        let mut buffer = [0; 4];
        assert_eq!(unread[0].recv_timeout(LONG, &mut buffer).unwrap().0, 4);
        assert_eq!(u32::from_be_bytes(buffer), i, "what fits the budget is kept, in order");
    }
    // What was read makes room.
    socket.send_to(b"more", unread[0].local_addr()).unwrap();
    assert_eq!(unread[0].recv_timeout(LONG, &mut [0; 8]).unwrap().0, 4);
    drop((unread, _service, socket));
    end(server, client);
}

#[test]
fn a_panicking_handler_ends_its_own_core_only() {
    let (server, client) = pair("panic");
    let _bad = server.udp().serve(addr("192.0.2.1:13"), |_, _, _| panic!("unlucky")).unwrap();
    let other = builder("panic-other", 3).start().unwrap();
    let loopback = other.udp().bind(addr("192.0.2.3:7")).unwrap();
    let socket = client.udp().bind(addr("192.0.2.2:0")).unwrap();
    socket.send_to(b"x", addr("192.0.2.1:13")).unwrap();
    let report = loop {
        if server.commands(0).try_send(engine::UdpCommand::Stop { cookie: 0 }).is_err()
            || server.stats().ledger().received > 1
        {
            thread::sleep(Duration::from_millis(20));
            break server.shutdown();
        }
        thread::sleep(Duration::from_millis(1));
    };
    assert!(
        report.panics.iter().any(|(core, message)| *core == 0 && message == "unlucky"),
        "{:?}",
        report.panics
    );
    loopback.send_to(b"alive", addr("192.0.2.3:7")).unwrap();
    assert_eq!(
        loopback.recv_timeout(LONG, &mut [0; 8]).unwrap().0,
        5,
        "another engine on the same thread runs on"
    );
}

/// Whoever waits for a socket, in whatever way, moves to the queue that is grafted on it; two sockets share one; a closed one has none.
#[test]
fn who_waits_moves_to_the_queue_that_is_grafted() {
    use engine::wq::SocketWq;
    let (server, client) = pair("graft");
    let sockets = [1, 2].map(|n| server.udp().bind(addr(&format!("192.0.2.1:{n}"))).unwrap());
    let sender = client.udp().bind(addr("192.0.2.2:0")).unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| sockets[0].recv_timeout(LONG, &mut [0; 10]).map(|(len, _)| len));
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(5));
            assert!(sockets[0].graft(Arc::new(SocketWq::default())));
        }
        sender.send_to(&[1; 3], addr("192.0.2.1:1")).unwrap();
        let sent = std::time::Instant::now();
        assert_eq!(reader.join().unwrap().expect("the datagram waits"), 3);
        assert!(sent.elapsed() < LONG / 2, "it slept on with the queue of before");
    });
    let both = Arc::new(SocketWq::default());
    assert!(sockets.iter().all(|socket| socket.graft(both.clone())));
    for (n, len) in [(1, 5), (2, 7), (1, 9)] {
        sender.send_to(&vec![0; len], addr(&format!("192.0.2.1:{n}"))).unwrap();
        let sent = std::time::Instant::now();
        let any = || sockets.iter().find_map(|socket| socket.try_recv_from(&mut [0; 10]).ok());
        assert_eq!(both.wait(Some(sent + LONG), any).expect("one queue, two sockets").0, len);
        assert!(sent.elapsed() < LONG / 2, "the sockets' wakers do not use it");
    }
    sockets[0].close();
    assert!(!sockets[0].graft(both), "a closed socket stays orphaned");
    drop((sockets, sender));
    end(server, client);
}

/// With more sockets than a core's cache has room for, a burst's sockets are looked for together: each datagram still reaches its own.
#[test]
fn among_thousands_of_sockets_each_datagram_reaches_its_own() {
    let (server, client) = pair("many");
    let local = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
    let bound: Vec<UdpSocket> = (0..4000).map(|n| server.udp().bind(local(10_000 + n)).unwrap()).collect();
    let sender = client.udp().bind(addr("192.0.2.2:9")).unwrap();
    let connected = server.udp().connect(local(10_000), addr("192.0.2.2:9")).unwrap();
    let mut buffer = [0; 16];
    for round in 0..20u16 {
        let ports = || (0..40).map(|n| 10_001 + (round * 40 + n) * 17 % 3999);
        for port in ports() {
            sender.send_to(&port.to_be_bytes(), local(port)).unwrap();
        }
        sender.send_to(b"connected", local(10_000)).unwrap();
        sender.send_to(b"nobody", local(9)).unwrap();
        for port in ports() {
            let socket = &bound[usize::from(port - 10_000)];
            let (len, peer) = socket.recv_timeout(LONG, &mut buffer).unwrap();
            assert_eq!((&buffer[..len], peer), (&port.to_be_bytes()[..], addr("192.0.2.2:9")));
        }
        assert_eq!(connected.recv_timeout(LONG, &mut buffer).unwrap().0, b"connected".len());
    }
    let refused = server.stats().ledger();
    assert!(refused.to_string().contains("no_socket"), "{refused}");
    drop((bound, sender, connected));
    end(server, client);
}
