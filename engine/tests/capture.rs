//! Captures of running engines: every frame once, with what became of it; and nothing left behind.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::{
    Builder, Capture, CaptureConfig, CaptureError, CapturedFrame, Engine, Fate, Outcome, SNAPLEN_MIN, Viewer,
};

const LONG: Duration = Duration::from_secs(10);
const ALL: CaptureConfig =
    CaptureConfig { port: None, received: true, sent: true, drops: true, snaplen: 65_535 };

fn builder(wire: &str, host: u8) -> Builder {
    let builder = Engine::builder().name(format!("{wire}.{host}")).pool_buffers(1024);
    builder
        .port(format!("memory:{wire}"))
        .address(format!("192.0.2.{host}/24"))
        .address(format!("2001:db8::{host}/64"))
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Reads until `enough` says so.
fn read_until(capture: &mut Capture, enough: impl Fn(&[CapturedFrame]) -> bool) -> Vec<CapturedFrame> {
    let (mut frames, until) = (Vec::new(), Instant::now() + LONG);
    while !enough(&frames) {
        assert!(Instant::now() < until, "waited in vain, have {frames:#?}");
        match capture.next_frame() {
            Some(frame) => frames.push(frame),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    frames
}

fn of(frames: &[CapturedFrame], fate: Fate) -> impl Iterator<Item = &CapturedFrame> {
    frames.iter().filter(move |frame| frame.fate == fate)
}

fn end(engines: impl IntoIterator<Item = Engine>) {
    let reports: Vec<_> = engines.into_iter().map(Engine::shutdown).collect();
    for report in &reports {
        assert_eq!(report.leaks(), Vec::<String>::new());
    }
}

#[test]
fn every_frame_appears_once_with_what_became_of_it() {
    let server = builder("cap-all", 1).start().unwrap();
    // Before anybody can have said anything.
    let mut capture = server.viewer().capture(ALL).unwrap();
    let client = builder("cap-all", 2).start().unwrap();
    let echo = |cx: &mut engine::Cx<'_>, _: &engine::Socket, datagram: engine::Datagram| match cx.send(
        datagram.local,
        datagram.peer,
        datagram.payload,
    ) {
        Ok(()) => Outcome::Delivered,
        Err(reason) => Outcome::Dropped(reason),
    };
    let service = server.udp().serve(addr("0.0.0.0:7"), echo).unwrap();
    let socket = client.udp().bind(addr("192.0.2.2:5000")).unwrap();
    for round in 0..50u8 {
        socket.send_to(&[round; 100], addr("192.0.2.1:7")).unwrap();
        assert_eq!(socket.recv_timeout(LONG, &mut [0; 200]).unwrap().0, 100);
        // Nobody is there: dropped, and an ICMP error goes back.
        socket.send_to(&[round; 60], addr("192.0.2.1:9")).unwrap();
    }
    let enough = |frames: &[CapturedFrame]| {
        of(frames, Fate::Dropped("no_socket")).count() == 50 && of(frames, Fate::Sent).count() >= 51
    };
    let frames = read_until(&mut capture, enough);
    let ledger = server.stats().ledger();
    let (came, kept) = (frames.len() - of(&frames, Fate::Sent).count(), of(&frames, Fate::Received).count());
    assert_eq!(came as u64, ledger.received, "{ledger}");
    assert_eq!(kept as u64, ledger.delivered + ledger.consumed, "{ledger}");
    let dropped = of(&frames, Fate::Dropped("no_socket"));
    for frame in dropped {
        assert_eq!((frame.len, frame.bytes.len(), frame.rebuilt), (14 + 28 + 60, 14 + 28 + 60, false));
        assert_eq!(frame.bytes[36..38], 9u16.to_be_bytes(), "the whole frame, its headers in front");
    }
    let replies: Vec<u8> = of(&frames, Fate::Sent)
        .filter(|frame| frame.len == 14 + 28 + 100)
        .map(|frame| frame.bytes[141])
        .collect();
    assert_eq!(replies, (0..50).collect::<Vec<u8>>(), "what was sent, in its order");
    assert!(frames.windows(2).all(|pair| pair[0].when <= pair[1].when));
    assert_eq!((capture.missed(0, 0), capture.frameless()), (0, 0));
    drop((capture, service, socket));
    end([server, client]);
}

#[test]
fn what_is_not_wanted_is_not_shown_and_frames_are_cut() {
    let (server, client) = (builder("cap-some", 1).start().unwrap(), builder("cap-some", 2).start().unwrap());
    let config = CaptureConfig { received: false, sent: false, snaplen: 0, ..ALL };
    let mut capture = client.viewer().capture(config).unwrap();
    let socket = client.udp().bind(addr("192.0.2.2:0")).unwrap();
    socket.send_to(&[1; 500], addr("192.0.2.1:9")).unwrap();
    // Not sent: there is no route.
    socket.send_to(&[2; 500], addr("203.0.113.1:9")).unwrap();
    let mut frames = read_until(&mut capture, |frames| of(frames, Fate::NotSent("no_route")).count() > 0);
    // The server's announcement of its addresses may come as late as this.
    frames.retain(|frame| frame.fate != Fate::Dropped("unrelated_neighbour"));
    assert_eq!((frames.len(), frames[0].fate, frames[0].rebuilt), (1, Fate::NotSent("no_route"), true));
    assert_eq!(frames[0].bytes[30..34], [203, 0, 113, 1]);
    drop(capture);
    let mut capture = server.viewer().capture(CaptureConfig { sent: false, snaplen: 0, ..ALL }).unwrap();
    socket.send_to(&[3; 500], addr("192.0.2.1:9")).unwrap();
    let frames = read_until(&mut capture, |frames| frames.iter().any(|frame| frame.len == 542));
    let cut = frames.iter().find(|frame| frame.len == 542).unwrap();
    assert_eq!((cut.bytes.len(), cut.fate), (SNAPLEN_MIN, Fate::Dropped("no_socket")));
    drop((capture, socket));
    end([server, client]);
}

#[test]
fn a_reader_that_does_not_read_costs_frames_and_nothing_else() {
    let (server, client) = (builder("cap-full", 1).start().unwrap(), builder("cap-full", 2).start().unwrap());
    let echo = |cx: &mut engine::Cx<'_>, _: &engine::Socket, datagram: engine::Datagram| {
        let _ = cx.send(datagram.local, datagram.peer, datagram.payload);
        Outcome::Delivered
    };
    let service = server.udp().serve(addr("0.0.0.0:7"), echo).unwrap();
    let capture = server.viewer().capture(ALL).unwrap();
    let socket = client.udp().bind(addr("192.0.2.2:0")).unwrap();
    // 1,400 bytes received and sent again, and a ring of 4 MiB.
    for round in 0..2000 {
        socket.send_to(&[0; 1400], addr("192.0.2.1:7")).unwrap();
        let received = socket.recv_timeout(LONG, &mut [0; 1500]);
        assert!(received.is_ok(), "the engine waits for nobody, round {round}: {received:?}");
    }
    assert!(capture.missed(0, 0) > 0);
    assert_eq!(capture.missed(0, 1), 0, "there is no such port");
    let before = Instant::now();
    drop((capture, service, socket));
    assert!(before.elapsed() < Duration::from_secs(1));
    end([server, client]);
}

#[test]
fn one_captures_at_a_time_and_an_end_is_an_end() {
    let engine = builder("cap-one", 1).start().unwrap();
    let viewer: Viewer = engine.viewer();
    let first = viewer.capture(ALL).unwrap();
    assert_eq!(viewer.capture(ALL).err(), Some(CaptureError::Busy));
    drop(first);
    let no_port = viewer.capture(CaptureConfig { port: Some(1), ..ALL });
    assert_eq!(no_port.err(), Some(CaptureError::NoPort { port: 1, ports: 1 }));
    let mut last = viewer.capture(ALL).unwrap();
    assert!(!last.is_over());
    end([engine]);
    // What a late announcement of the address left there comes first.
    while last.next_frame().is_some() {}
    assert!(last.is_over());
    drop(last);
    assert_eq!(viewer.capture(ALL).err(), Some(CaptureError::Stopped));
}

#[test]
fn cores_show_what_others_handed_to_them() {
    // No queue of a memory wire with one queue per core knows the owner: datagrams cross over.
    let server = builder("cap-cores", 1).core_count(2).start().unwrap();
    let client = builder("cap-cores", 2).core_count(2).start().unwrap();
    let mut capture = server.viewer().capture(ALL).unwrap();
    let sockets: Vec<_> = (0..40).map(|_| client.udp().bind(addr("192.0.2.2:0")).unwrap()).collect();
    for socket in &sockets {
        socket.send_to(&[7; 33], addr("192.0.2.1:9")).unwrap();
    }
    let frames =
        read_until(&mut capture, |frames| of(frames, Fate::Dropped("no_socket")).count() == sockets.len());
    let ledger = server.stats().ledger();
    let rebuilt: Vec<_> = frames.iter().filter(|frame| frame.rebuilt).collect();
    assert_eq!(rebuilt.len() as u64, ledger.handed_in, "{ledger}");
    assert!(!rebuilt.is_empty(), "nothing crossed over: {ledger}");
    for frame in &rebuilt {
        assert_eq!((frame.len, &frame.bytes[26..34]), (14 + 28 + 33, &[192, 0, 2, 2, 192, 0, 2, 1][..]));
        assert_eq!(frame.bytes[42..], [7; 33]);
    }
    drop((capture, sockets));
    end([server, client]);
}
