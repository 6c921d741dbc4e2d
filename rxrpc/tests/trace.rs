//! The event log says what happened: all of it, in order, and what it had to leave out.

mod common;

use common::{Faults, Net, stretch};
use rxrpc::wire::{Flags, HEADER_LEN, Header, PacketType};
use rxrpc::{
    CallOptions, Completion, EndpointConfig, Event, Happened, Role, RxDrop, ServiceConfig, Target,
    TraceEvent, TraceReader, TracedCall, trace_ring,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const SERVICE: u16 = 7;
const REQUEST: usize = 200_000;

/// A call of 200 kB from node 0 to node 1 over a wire with faults; node 0 is traced, and each header on the wire noted.
struct Run {
    events: Vec<TraceEvent>,
    /// What node 0 put on the wire.
    wire: Vec<Header>,
    retransmits: u64,
}

fn all(reader: &mut TraceReader) -> Vec<TraceEvent> {
    std::iter::from_fn(|| reader.next_event()).collect()
}

fn run(seed: u64, faults: Faults, ring: usize) -> Run {
    let mut net = Net::new(seed, faults, vec![EndpointConfig::default(); 2], 4096);
    let (sink, mut reader) = trace_ring(ring);
    net.nodes[0].rx.set_trace(Some(sink));
    let wire = Rc::new(RefCell::new(Vec::new()));
    let noted = wire.clone();
    net.tap = Some(Box::new(move |from, bytes| {
        if from == 0 {
            noted.borrow_mut().push(Header::parse(bytes).unwrap().0);
        }
        true
    }));
    net.nodes[1].listen(ServiceConfig::new(SERVICE));
    let (now, to) = (net.now, net.nodes[1].addr);
    let client = &mut net.nodes[0];
    let call = client.rx.begin(now, client.local, Target::new(to, SERVICE), CallOptions::default()).unwrap();
    let bytes = stretch(1, 0, REQUEST);
    let (mut at, mut retransmits, mut done) = (0, 0, false);
    for _ in 0..200_000 {
        let now = net.now;
        let client = &mut net.nodes[0];
        if at < bytes.len() {
            at += client.rx.send(now, &mut client.pool, call, &bytes[at..], false).unwrap();
        }
        while let Some(event) = client.rx.poll_event() {
            if let Event::Complete { completion, .. } = event {
                assert_eq!(completion, Completion::Succeeded);
                retransmits = client.rx.call(call).unwrap().retransmits;
                client.rx.release(now, call);
                done = true;
            }
        }
        serve(&mut net);
        if done || !net.step() {
            break;
        }
    }
    assert!(done, "the call did not end");
    net.transmit();
    // What is missing at the end is told when the sink goes.
    net.nodes[0].rx.set_trace(None);
    let wire = wire.borrow().clone();
    Run { events: all(&mut reader), wire, retransmits }
}

/// Node 1 reads everything, and answers at the end.
fn serve(net: &mut Net) {
    let now = net.now;
    let server = &mut net.nodes[1];
    while let Some(event) = server.rx.poll_event() {
        let (Event::Incoming { call, .. } | Event::Readable { call }) = event else {
            if let Event::Complete { call, .. } = event {
                server.rx.release(now, call);
            }
            continue;
        };
        let mut out = [0; 4096];
        while let Ok(got) = server.rx.recv(now, call, &mut out) {
            if !got.more {
                let _ = server.rx.send(now, &mut server.pool, call, b"done", false);
            }
            if got.bytes == 0 || !got.more {
                break;
            }
        }
    }
}

fn lossy() -> Faults {
    Faults { loss: 0.03, ..Faults::none(5_000) }
}

#[test]
fn every_packet_on_the_wire_is_there_and_in_order() {
    for faults in [Faults::none(5_000), lossy()] {
        let run = run(3, faults, 1 << 16);
        let sent: Vec<_> = run
            .events
            .iter()
            .filter_map(|event| match event.happened {
                Happened::Sent(packet) => Some((event.call, packet)),
                _ => None,
            })
            .collect();
        assert_eq!(sent.len(), run.wire.len());
        for ((call, packet), header) in sent.iter().zip(&run.wire) {
            let name = TracedCall { epoch: header.epoch, cid: header.cid.0, number: header.call };
            assert_eq!(*call, name);
            assert_eq!(
                (packet.kind, packet.seq, packet.serial),
                (header.packet_type, header.seq, header.serial)
            );
            assert_eq!(packet.flags, header.flags);
            assert!(packet.len as usize >= HEADER_LEN && packet.packets == 1);
        }
        assert!(run.events.is_sorted_by_key(|event| event.at));
    }
}

#[test]
fn a_call_begins_and_ends_once_with_its_packets_between() {
    let run = run(4, Faults::none(5_000), 1 << 16);
    let Some(Happened::Begun { role: Role::Client, service: SERVICE, .. }) =
        run.events.first().map(|e| e.happened)
    else {
        panic!("the first event is {:?}", run.events.first());
    };
    let ends: Vec<_> =
        run.events.iter().filter(|event| matches!(event.happened, Happened::Ended(_))).collect();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].happened, Happened::Ended(Completion::Succeeded));
    let name = ends[0].call;
    let data = |event: &&TraceEvent| matches!(event.happened, Happened::Sent(packet) if packet.kind == PacketType::Data);
    let last = run.events.iter().rfind(data).unwrap();
    assert!(last.call == name && last.at <= ends[0].at);
    let Happened::Sent(packet) = last.happened else { unreachable!() };
    assert!(packet.flags.contains(Flags::LAST));
    let quiet = |event: &TraceEvent| {
        matches!(
            event.happened,
            Happened::Lost { .. } | Happened::TimedOut { .. } | Happened::Overflow { .. }
        )
    };
    assert!(!run.events.iter().any(quiet), "nothing was lost");
}

#[test]
fn acks_rtt_and_windows_are_those_of_the_call() {
    let run = run(5, Faults::none(5_000), 1 << 16);
    let mut first = 0;
    for event in &run.events {
        match event.happened {
            Happened::Received(packet) if packet.kind == PacketType::Ack => {
                let ack = packet.ack.expect("an ACK has a body");
                assert!(ack.first >= first, "hard acknowledgements go on");
                assert!(ack.window.is_some_and(|window| window <= 255));
                first = ack.first;
            }
            Happened::Rtt { sample, smoothed, minimum, timeout } => {
                assert!(sample >= Duration::from_millis(10) && minimum <= smoothed && smoothed < timeout);
            }
            Happened::Windows { congestion, peer, in_flight } => {
                assert!(congestion >= 1 && peer <= 255 && in_flight <= 255);
            }
            _ => {}
        }
    }
    assert!(first > 100, "the last ACK frees most of the request's packets: {first}");
    let of = |wanted: fn(&Happened) -> bool| run.events.iter().filter(|e| wanted(&e.happened)).count();
    assert!(of(|h| matches!(h, Happened::Rtt { .. })) > 1);
    assert!(of(|h| matches!(h, Happened::Windows { .. })) > 3);
}

#[test]
fn losses_are_told_where_packets_are_sent_again() {
    let run = run(6, lossy(), 1 << 16);
    let told: u32 = run
        .events
        .iter()
        .map(|event| match event.happened {
            Happened::Lost { packets } | Happened::TimedOut { packets } => packets,
            _ => 0,
        })
        .sum();
    assert!(run.retransmits > 0, "3 % of 140 packets");
    assert!(told > 0, "{} packets were sent again", run.retransmits);
}

#[test]
fn a_refusal_follows_its_packet() {
    let faults = Faults { duplication: 0.5, ..Faults::none(1_000) };
    let run = run(7, faults, 1 << 16);
    let refused = run.events.windows(2).filter(|pair| matches!(pair[1].happened, Happened::Refused(_)));
    let mut count = 0;
    for pair in refused {
        assert!(matches!(pair[0].happened, Happened::Received(_)), "{pair:?}");
        assert_eq!(pair[0].call, pair[1].call);
        assert!(
            matches!(pair[1].happened, Happened::Refused(RxDrop::OldAck | RxDrop::Duplicate)),
            "{pair:?}"
        );
        count += 1;
    }
    assert!(count > 0, "half of all datagrams came twice");
}

#[test]
fn what_finds_no_room_is_counted() {
    let whole = run(8, lossy(), 1 << 16);
    // Nobody reads it before the end.
    let short = run(8, lossy(), 16);
    assert_eq!(short.events.len(), 16);
    assert_eq!(short.events, whole.events[..16]);
    // With room again, the count comes first, and nothing is counted twice.
    let (sink, mut reader) = trace_ring(4);
    let mut net = Net::new(8, Faults::none(1_000), vec![EndpointConfig::default(); 2], 1024);
    net.nodes[0].rx.set_trace(Some(sink));
    let (now, to) = (net.now, net.nodes[1].addr);
    let mut read = Vec::new();
    for round in 0..2 {
        let client = &mut net.nodes[0];
        // To a service that is not there: each call is answered with an ABORT.
        for _ in 0..4 {
            let target = Target::new(to, SERVICE);
            let call = client.rx.begin(now, client.local, target, CallOptions::default()).unwrap();
            client.rx.send(now, &mut client.pool, call, b"x", false).unwrap();
        }
        net.run_for(Duration::from_millis(if round == 0 { 10 } else { 100 }));
        read.extend(all(&mut reader));
    }
    net.nodes[0].rx.set_trace(None);
    read.extend(all(&mut reader));
    let missing: u64 = read
        .iter()
        .map(|event| if let Happened::Overflow { events } = event.happened { events } else { 0 })
        .sum();
    let there =
        read.iter().filter(|event| !matches!(event.happened, Happened::Overflow { .. })).count() as u64;
    // Each call begins, is sent, is answered and ends.
    assert_eq!(there + missing, 8 * 4, "{read:#?}");
    assert!(missing > 0);
}
