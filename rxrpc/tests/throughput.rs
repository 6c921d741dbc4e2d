//! How fast one long transfer goes, in virtual time: the protocol's limit is 255 packets a round trip.

mod common;

use common::{Faults, Net};
use rxrpc::{CallOptions, Completion, EndpointConfig, Event, ServiceConfig, Target};
use std::time::Duration;

/// Megabytes a second of one call that sends `bytes`, and what was retransmitted.
fn bulk(bytes: usize, faults: Faults) -> (f64, u64) {
    let mut net = Net::new(1, faults, vec![EndpointConfig::default(); 2], 8_192);
    let to = net.nodes[1].addr;
    net.nodes[1].listen(ServiceConfig::new(7));
    let node = &mut net.nodes[0];
    let call = node.rx.begin(net.now, node.local, Target::new(to, 7), CallOptions::default()).unwrap();
    let (began, block) = (net.now, vec![5; 1 << 20]);
    let (mut sent, mut got) = (0, 0);
    while net.nodes[0].rx.completion(call).is_none() {
        let node = &mut net.nodes[0];
        while sent < bytes {
            let len = (bytes - sent).min(block.len());
            let taken =
                node.rx.send(net.now, &mut node.pool, call, &block[..len], sent + len < bytes).unwrap();
            sent += taken;
            if taken < len {
                break;
            }
        }
        while node.rx.poll_event().is_some() {}
        assert!(net.step(), "the transfer hangs");
        let node = &mut net.nodes[1];
        while let Some(event) = node.rx.poll_event() {
            let Event::Readable { call } = event else { continue };
            while let Some((data, more)) = node.rx.recv_mbuf(net.now, call).unwrap() {
                got += data.len();
                drop(data);
                if !more {
                    node.rx.send(net.now, &mut node.pool, call, b"", false).unwrap();
                }
            }
        }
    }
    assert_eq!(net.nodes[0].rx.completion(call), Some(Completion::Succeeded));
    assert_eq!(got, bytes);
    (bytes as f64 / 1e6 / (net.now - began).as_secs_f64(), net.nodes[0].rx.stats().data_resent)
}

fn faults(rtt_ms: u64, loss: f64) -> Faults {
    Faults { loss, delay: Duration::from_millis(rtt_ms) / 2, ..Faults::default() }
}

/// What the window allows, in megabytes a second.
fn limit(rtt_ms: u64) -> f64 {
    255.0 * f64::from(rxrpc::PACKET_PAYLOAD as u32) / 1e6 / (rtt_ms as f64 / 1e3)
}

#[test]
fn without_loss_the_window_is_filled() {
    for rtt in [1, 10, 50] {
        let bytes = (limit(rtt) * 1e6 * rtt as f64 / 1e3) as usize * 200;
        let (rate, resent) = bulk(bytes, faults(rtt, 0.0));
        assert!(rate >= 0.9 * limit(rtt), "{rate:.1} MB/s of {:.1} at {rtt} ms", limit(rtt));
        assert_eq!(resent, 0, "nothing was lost");
    }
}

#[test]
fn loss_costs_what_halving_costs_and_no_timeouts() {
    // The square-root law for Reno with an ACK for every second packet: about 0.87 packets a round trip / sqrt(loss).
    for (loss, packets) in [(0.001, 27.0), (0.01, 8.7)] {
        let (rate, _) = bulk(4_000_000, faults(10, loss));
        let law = packets * f64::from(rxrpc::PACKET_PAYLOAD as u32) / 1e6 / 0.010;
        assert!(rate >= 0.8 * law, "{rate:.2} MB/s where the law says {law:.2} at {loss} loss");
    }
}
