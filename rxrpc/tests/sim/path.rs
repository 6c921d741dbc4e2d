//! Jumbograms: only where a datagram of their size has arrived, and no longer than it does.

use crate::bulk::Path;
use crate::common::{Faults, Net};
use crate::table::path;
use rxrpc::wire::{Ack, AckReason, Flags, Header, PacketType};
use rxrpc::{CallOptions, CongestionAlgorithm, EndpointConfig, Event, ServiceConfig, Target};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Largest DATA datagram and largest PING seen, and how many datagrams of DATA came from the client.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    data_max: usize,
    ping_max: usize,
    data: u64,
}

/// Sends for so long over a path that becomes `later` bytes wide halfway. Returns what was seen in either half, and the
/// bytes that arrived.
fn transfer(server: EndpointConfig, mtu: usize, later: usize) -> ([Seen; 2], u64) {
    let configs = vec![EndpointConfig::default(), server];
    let mut net = Net::new(1, Faults::none(5_000), configs, 4_096);
    net.mtu = mtu;
    let to = net.nodes[1].addr;
    net.nodes[1].listen(ServiceConfig::new(7));
    let seen = Rc::new(RefCell::new(Seen::default()));
    let tape = seen.clone();
    net.tap = Some(Box::new(move |node, bytes| {
        let (header, body) = Header::parse(bytes).unwrap();
        let mut seen = tape.borrow_mut();
        match header.packet_type {
            PacketType::Data if node == 0 => {
                seen.data += 1;
                seen.data_max = seen.data_max.max(bytes.len());
                assert_eq!(header.flags.contains(Flags::JUMBO), bytes.len() > 1_444, "{header:?}");
            }
            PacketType::Ack if Ack::parse(body).unwrap().reason == AckReason::Ping => {
                seen.ping_max = seen.ping_max.max(bytes.len());
            }
            _ => {}
        }
        true
    }));
    let node = &mut net.nodes[0];
    let call = node.rx.begin(net.now, node.local, Target::new(to, 7), CallOptions::default()).unwrap();
    let (mut got, mut halves) = (0_u64, [Seen::default(); 2]);
    for half in &mut halves {
        let end = net.now + Duration::from_secs(3);
        while net.now < end {
            let node = &mut net.nodes[0];
            while node.rx.send(net.now, &mut node.pool, call, &[9; 20_000], true).unwrap() == 20_000 {}
            while node.rx.poll_event().is_some() {}
            net.step_until(end);
            let node = &mut net.nodes[1];
            while let Some(event) = node.rx.poll_event() {
                let (Event::Readable { call } | Event::Incoming { call, .. }) = event else {
                    panic!("{event:?}")
                };
                while let Some((data, _)) = node.rx.recv_mbuf(net.now, call).unwrap() {
                    got += data.len() as u64;
                }
            }
        }
        *half = seen.replace(Seen::default());
        net.mtu = later;
    }
    (halves, got)
}

fn takes(jumbo_max: u32, mtu: u32) -> EndpointConfig {
    EndpointConfig { jumbo_max, mtu, ..EndpointConfig::default() }
}

#[test]
fn jumbograms_are_as_large_as_the_path_and_the_peer_allow() {
    for (server, mtu, data, ping) in [
        (takes(6, 1_444), 8_972, 8_520, 8_520),
        (takes(4, 1_444), 8_972, 5_688, 5_688),
        // One that answers padded pings itself says how large a packet may be.
        (takes(0, 6_000), 8_972, 5_688, 5_688),
        (takes(6, 1_444), 4_472, 4_272, 8_520),
        (takes(6, 1_444), 1_472, 1_444, 5_688),
        (takes(1, 65_535), 8_972, 1_444, 93),
    ] {
        let ([seen, _], got) = transfer(server.clone(), mtu, mtu);
        assert_eq!(seen.data_max, data, "{server:?} {mtu} {seen:?}");
        assert!(seen.ping_max <= ping, "{server:?} {mtu} {seen:?}");
        assert!(got > 100_000_000, "{got} bytes in six seconds: {seen:?}");
    }
}

#[test]
fn a_path_that_swallows_jumbograms_is_left_at_once() {
    let ([before, after], got) = transfer(takes(6, 1_444), 8_972, 1_472);
    assert_eq!(before.data_max, 8_520);
    let ([_, _], plain) = transfer(takes(1, 1_444), 8_972, 1_472);
    assert!(got as f64 > 0.8 * plain as f64, "{got} bytes where plain packets bring {plain}: {after:?}");
    assert!(after.data > 50_000, "most are plain packets again: {after:?}");
}

#[test]
fn jumbograms_fill_the_window_as_plain_packets_do() {
    let mut path = path(CongestionAlgorithm::Cubic, 10, 0.0, 255);
    path.config.jumbo_max = 6;
    let flow = Path { seed: 3, ..path.clone() }.run()[0];
    let share = path.rate(flow.bytes) / path.limit();
    assert!(share > 0.9, "{share}");
}
