//! Devices of DPDK's on Linux interfaces. Run as root in a network namespace of your own:
//!
//! `unshare -n cargo test -p pmd --features dpdk,privileged-tests --test conformance_dpdk_privileged -- --test-threads=1`
//!
//! Interfaces are made and removed here; their names begin with `rxd`.

mod suite;

use std::time::{Duration, Instant as Wall};

use pmd::{Burst, Clock, LinkState, OpenOptions, Queue};
use suite::Wire;
use suite::veth::Veth;

fn send(queue: &mut dyn Queue, pool: &mut pmd::Pool) {
    let mut burst: Burst = [pool.copy_from(&[2; 60]).unwrap()].into_iter().collect();
    queue.tx_burst(Clock::now(), &mut burst);
}

#[test]
fn net_af_packet() {
    let veth = Veth::new("rxdpk", "");
    let urls = [0, 1].map(|n| format!("dpdk:net_af_packet{n},iface={}", veth.ends[n]));
    // What the kernel drops for want of room in the ring, DPDK's driver does not tell.
    suite::run(&Wire { set_link: Some(veth.set_link(1)), uncounted: true, ..Wire::new(urls) });
}

/// Its driver tells no link, so that the suite would not do.
#[test]
fn net_pcap_on_an_interface() {
    let veth = Veth::new("rxdpc", "");
    let mut pool = suite::pool(2048);
    let mut ends = [0, 1].map(|n| {
        let url = format!("dpdk:net_pcap1{n},rx_iface_in={},tx_iface={}", veth.ends[n], veth.ends[n]);
        let mut port = pmd::open(&url, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"));
        (port.open_queues(&[pool.handle()]).unwrap_or_else(|error| panic!("{error}")).remove(0), port)
    });
    let (mut received, start) = (Vec::new(), Wall::now());
    for number in 0..100u8 {
        let frame = pool.copy_from(&[number; 60]).unwrap();
        ends[0].0.tx_burst(Clock::now(), &mut [frame].into_iter().collect());
    }
    while received.len() < 100 && start.elapsed() < Duration::from_secs(5) {
        let mut burst = Burst::new();
        ends[1].0.rx_burst(Clock::now(), &mut pool, &mut burst);
        received.extend(burst.iter().map(|mbuf| mbuf.data().to_vec()));
    }
    let expected: Vec<Vec<u8>> = (0..100).map(|number| vec![number; 60]).collect();
    assert_eq!(received, expected);
    drop(ends);
    assert_eq!(pool.available(), 2048);
}

/// The interface under a port is deleted: no crash, no hang, and what is sent has a counter or stays with the caller.
#[test]
fn an_interface_that_goes_away_is_no_crash() {
    let veth = Veth::new("rxdgo", "");
    let mut pool = suite::pool(2048);
    let url = format!("dpdk:net_af_packet5,iface={}", veth.ends[0]);
    let mut port = pmd::open(&url, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let mut queue = port.open_queues(&[pool.handle()]).unwrap_or_else(|error| panic!("{error}")).remove(0);
    assert_eq!(port.link(), LinkState::Up);
    send(&mut *queue, &mut pool);
    assert_eq!(queue.stats().tx_frames, 1);
    drop(veth);
    let start = Wall::now();
    let mut burst = Burst::new();
    while port.link() == LinkState::Up && start.elapsed() < Duration::from_secs(5) {
        queue.rx_burst(Clock::now(), &mut pool, &mut burst);
        send(&mut *queue, &mut pool);
    }
    assert_eq!(port.link(), LinkState::Down);
    let before = queue.stats();
    send(&mut *queue, &mut pool);
    assert_eq!(queue.rx_burst(Clock::now(), &mut pool, &mut burst), 0);
    assert_eq!(queue.stats().drops.get("tx_device_gone"), before.drops.get("tx_device_gone") + 1);
    drop((port, queue));
    assert_eq!(pool.available(), 2048);
}
