//! The neighbour cache through ARP and neighbour discovery, in virtual time.

use super::build::*;
use super::*;

const TO: &str = "192.0.2.2:7000";

fn answer(from: MacAddr) -> Vec<u8> {
    arp(2, from, B4, mac(1), A4)
}

fn target_mac(frame: &[u8]) -> MacAddr {
    MacAddr(frame[..6].try_into().unwrap())
}

fn is_arp(frame: &[u8]) -> bool {
    frame[12..14] == [8, 6]
}

/// A host that knows host 2.
fn acquainted() -> Host {
    let mut host = Host::new(host_config(1, 1500));
    host.send("192.0.2.1:1", TO, b"first").unwrap();
    assert!(is_arp(&host.frames()[0]));
    assert_eq!(host.receive(&answer(mac(2))), "consumed");
    let sent = host.frames();
    assert_eq!((sent.len(), target_mac(&sent[0])), (1, mac(2)));
    host
}

#[test]
fn one_question_for_many_frames_and_the_queue_is_bounded() {
    let limits = Limits { waiting_per_neighbour: 4, waiting: 6, ..Limits::default() };
    let mut host = Host::new(StackConfig { limits, ..host_config(1, 1500) });
    for i in 0..4 {
        host.send("192.0.2.1:1", TO, &[i]).unwrap();
    }
    assert_eq!(host.send("192.0.2.1:1", TO, &[4]), Err(Drop::NeighbourQueueFull));
    assert_eq!(host.frames().len(), 1);
    // Two more for all others together.
    host.send("192.0.2.1:1", "192.0.2.3:7", &[5]).unwrap();
    host.send("192.0.2.1:1", "192.0.2.4:7", &[6]).unwrap();
    assert_eq!(host.send("192.0.2.1:1", "192.0.2.5:7", &[7]), Err(Drop::NeighbourQueueFull));
    host.frames();
    host.receive(&answer(mac(2)));
    let sent = host.frames();
    let payloads: Vec<_> = sent.iter().map(|frame| frame[42]).collect();
    assert_eq!(payloads, [0, 1, 2, 3], "in order");
    host.finish();
}

#[test]
fn a_reachable_neighbour_goes_stale_and_is_asked_directly() {
    let mut host = acquainted();
    host.expire(ms(29_000));
    host.send("192.0.2.1:1", TO, b"x").unwrap();
    assert_eq!(host.frames().len(), 1);
    host.expire(ms(31_000));
    // Stale: used all the same, and checked five seconds later.
    host.send("192.0.2.1:1", TO, b"x").unwrap();
    assert_eq!(host.frames().len(), 1);
    host.expire(ms(35_999));
    assert!(host.frames().is_empty());
    host.expire(ms(36_000));
    let probe = host.frames().remove(0);
    assert!(is_arp(&probe) && target_mac(&probe) == mac(2), "a unicast question");
    host.receive(&answer(mac(2)));
    host.expire(ms(50_000));
    assert!(host.frames().is_empty(), "no more questions after the answer");
    host.finish();
}

#[test]
fn datagrams_in_turn_go_each_to_its_own_neighbour_and_to_ourselves() {
    let mut host = acquainted();
    host.receive(&arp(1, mac(3), "192.0.2.3", mac(0), A4));
    host.frames();
    for (to, expected) in [(2, 2), (2, 2), (3, 3), (1, 0), (3, 3), (2, 2), (1, 0), (2, 2)] {
        host.send("192.0.2.1:1", &format!("192.0.2.{to}:7000"), &[to]).unwrap();
        host.collect();
        match expected {
            0 => assert_eq!(host.datagrams.pop().map(|(.., payload)| payload), Some(vec![to])),
            n => assert_eq!(host.frames().iter().map(|f| target_mac(f)).collect::<Vec<_>>(), [mac(n)]),
        }
    }
    // Its entry is given up; the next datagram does not take it for one that is still there.
    host.stack.clear(&mut host.out);
    host.send("192.0.2.1:1", TO, b"x").unwrap();
    assert!(is_arp(&host.frames()[0]), "a question, not a datagram to an address that was forgotten");
    host.finish();
}

#[test]
fn a_neighbour_that_died_is_noticed_and_sought_again() {
    let mut host = acquainted();
    host.expire(ms(31_000));
    host.send("192.0.2.1:1", TO, b"x").unwrap();
    for tick in 310..=400 {
        host.expire(ms(tick * 100));
    }
    // The datagram, and three probes.
    assert_eq!(host.frames().len(), 4);
    host.send("192.0.2.1:1", TO, b"y").unwrap();
    let sought = host.frames().remove(0);
    assert_eq!(target_mac(&sought), MacAddr::BROADCAST);
    host.receive(&answer(mac(7)));
    assert_eq!(target_mac(&host.frames()[0]), mac(7));
    host.finish();
}

#[test]
fn a_dead_neighbour_is_refused_at_once_for_a_while() {
    let mut host = Host::new(host_config(1, 1500));
    host.send("192.0.2.1:1", TO, b"x").unwrap();
    for tick in 1..=30 {
        host.expire(ms(tick * 100));
    }
    assert_eq!(host.unreachable.len(), 1);
    assert_eq!(host.send("192.0.2.1:1", TO, b"x"), Err(Drop::NeighbourUnreachable));
    host.expire(ms(4_100));
    host.send("192.0.2.1:1", TO, b"x").unwrap();
    host.finish();
}

#[test]
fn announcements_move_an_entry_but_make_none() {
    let mut host = acquainted();
    assert_eq!(host.receive(&arp(1, mac(8), B4, mac(0), B4)), "consumed");
    host.send("192.0.2.1:1", TO, b"x").unwrap();
    assert_eq!(target_mac(&host.frames()[0]), mac(8));
    assert_eq!(host.receive(&arp(1, mac(3), "192.0.2.3", mac(0), "192.0.2.3")), "unrelated_neighbour");
    host.send("192.0.2.1:1", "192.0.2.3:1", b"x").unwrap();
    assert!(is_arp(&host.frames()[0]));
    host.finish();
}

#[test]
fn who_asks_for_us_is_known_from_then_on() {
    let mut host = Host::new(host_config(1, 1500));
    assert_eq!(host.receive(&arp(1, mac(2), B4, mac(0), A4)), "consumed");
    assert_eq!(
        host.receive(&neighbour(135, B6, "ff02::1:ff00:1", 0, A6, &[1, 1, 2, 0, 0, 0, 0, 2])),
        "consumed"
    );
    assert_eq!(host.frames().len(), 2);
    host.send("192.0.2.1:1", TO, b"x").unwrap();
    host.send("[2001:db8::1]:1", "[2001:db8::2]:7000", b"x").unwrap();
    let sent = host.frames();
    assert_eq!(sent.iter().map(|frame| target_mac(frame)).collect::<Vec<_>>(), [mac(2), mac(2)]);
    host.finish();
}

#[test]
fn probes_for_duplicates_are_answered_but_teach_nothing() {
    let mut host = Host::new(host_config(1, 1500));
    assert_eq!(host.receive(&arp(1, mac(2), "0.0.0.0", mac(0), A4)), "consumed");
    let answer = host.frames().remove(0);
    assert_eq!(answer[28..32], [192, 0, 2, 1]);
    // The same over IPv6, answered to all nodes.
    assert_eq!(host.receive(&neighbour(135, "::", "ff02::1:ff00:1", 0, A6, &[])), "consumed");
    let answer = host.frames().remove(0);
    assert_eq!(answer[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(answer[54 + 4], 0x20, "not solicited");
    host.finish();
}

#[test]
fn an_advertisement_that_does_not_override_only_casts_doubt() {
    let mut host = Host::new(host_config(1, 1500));
    let to = "[2001:db8::2]:7000";
    host.send("[2001:db8::1]:1", to, b"x").unwrap();
    host.receive(&neighbour(136, B6, A6, 0x60, B6, &[2, 1, 2, 0, 0, 0, 0, 2]));
    host.frames();
    host.receive(&neighbour(136, B6, A6, 0x40, B6, &[2, 1, 2, 0, 0, 0, 0, 9]));
    host.send("[2001:db8::1]:1", to, b"x").unwrap();
    assert_eq!(target_mac(&host.frames()[0]), mac(2));
    host.expire(ms(5_000));
    assert_eq!(host.frames().len(), 1, "it is asked again");
    // Without a link-layer address an answer confirms what is known (RFC 4861 section 7.2.5).
    host.receive(&neighbour(136, B6, A6, 0x40, B6, &[]));
    host.expire(ms(20_000));
    assert!(host.frames().is_empty());
    host.finish();
}

#[test]
fn strangers_cannot_flood_the_table() {
    let limits = Limits { neighbours: 64, ..Limits::default() };
    let mut host = Host::new(StackConfig { limits, ..host_config(1, 1500) });
    host.send("192.0.2.1:1", TO, b"x").unwrap();
    host.receive(&answer(mac(2)));
    host.frames();
    for i in 0..20_000u32 {
        host.now = ms(u64::from(i / 10));
        // Each echo would make us look for another neighbour; each question offers one.
        let source = format!("2001:db8::{:x}:{:x}", 1 + (i >> 16), i & 0xffff);
        let echo = icmpv6(&source, A6, vec![128, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(host.receive(&ipv6(&source, A6, 58, 64, &echo)), "consumed");
        host.receive(&neighbour(135, &source, "ff02::1:ff00:1", 0, A6, &[1, 1, 2, 0, 0, 1, 0, 2]));
        host.frames();
    }
    host.send("192.0.2.1:1", TO, b"x").unwrap();
    let sent = host.frames();
    assert!(!is_arp(&sent[0]) && target_mac(&sent[0]) == mac(2), "the neighbour in use was pushed out");
    // And a new one is still found.
    host.send("192.0.2.1:1", "192.0.2.3:1", b"x").unwrap();
    host.receive(&arp(2, mac(3), "192.0.2.3", mac(1), A4));
    assert!(host.frames().iter().any(|frame| target_mac(frame) == mac(3)), "no room for a new neighbour");
    host.finish();
}

#[test]
fn announcing_names_every_address() {
    let mut host = Host::new(host_config(1, 1500));
    host.stack.announce(host.now, &mut host.pool, &mut host.out);
    let frames = host.frames();
    // IPv4, IPv6, and the link-local address.
    assert_eq!(frames.len(), 3);
    assert_eq!(frames[0], [&MacAddr::BROADCAST.0[..], &arp_announcement()[6..]].concat());
    let mut peer = Host::new(host_config(2, 1500));
    peer.send("[2001:db8::2]:1", "[2001:db8::1]:1", b"x").unwrap();
    peer.frames();
    assert_eq!(peer.receive(&frames[1]), "consumed");
    assert_eq!(target_mac(&peer.frames()[0]), mac(1));
    host.finish();
    peer.finish();
}

fn arp_announcement() -> Vec<u8> {
    let mut frame = arp(1, mac(1), A4, mac(0), A4);
    frame[6..12].copy_from_slice(&mac(1).0);
    frame[32..38].fill(0);
    frame
}

/// Host `n` of the /16 that [`wide_host`] is on.
fn wide(n: u16) -> String {
    format!("10.9.{}.{}", n >> 8, n & 0xff)
}

/// A host on a large link, with room for so many neighbours.
fn wide_host(neighbours: usize) -> Host {
    let limits = Limits { neighbours, ..Limits::default() };
    let ports = vec![PortConfig::new(mac(1), 1500, vec![net("10.9.255.1/16")])];
    Host::new(StackConfig { limits, ..StackConfig::new(ports) })
}

/// Whether a datagram to host `n` goes out at once.
fn is_known(host: &mut Host, n: u16) -> bool {
    host.send("10.9.255.1:1", &format!("{}:1", wide(n)), b"x").unwrap();
    let frames = host.frames();
    !is_arp(&frames[0])
}

#[test]
fn neighbours_in_use_are_kept_and_idle_ones_give_way() {
    let mut host = wide_host(64);
    for n in 1..=64 {
        assert!(!is_known(&mut host, n));
        host.receive(&arp(2, mac(9), &wide(n), mac(1), "10.9.255.1"));
        host.frames();
    }
    assert_eq!(host.send("10.9.255.1:1", "10.9.1.1:1", b"x"), Err(Drop::NeighbourTableFull));
    host.expire(ms(50_000));
    assert!((2..=64).all(|n| is_known(&mut host, n)));
    host.expire(ms(61_000));
    // All but the first have been used since.
    assert!(!is_known(&mut host, 257));
    assert!((2..=64).all(|n| is_known(&mut host, n)));
    host.finish();
}

#[test]
fn unanswered_questions_push_out_only_each_other() {
    let mut host = wide_host(256);
    for n in 1..=100 {
        host.receive(&arp(1, mac(9), &wide(n), mac(0), "10.9.255.1"));
    }
    host.frames();
    for n in 1000..2000 {
        // Refused, or another unanswered question is.
        let _ = host.send("10.9.255.1:1", &format!("{}:1", wide(n)), b"x");
        host.frames();
    }
    assert!((1..=100).all(|n| is_known(&mut host, n)));
    host.finish();
}

#[test]
fn who_asks_for_us_fills_half_the_table_at_most() {
    let mut host = wide_host(64);
    for n in 1..=1000 {
        host.receive(&arp(1, mac(9), &wide(n), mac(0), "10.9.255.1"));
        host.frames();
    }
    let known = (1..=40).filter(|&n| is_known(&mut host, n)).count();
    assert_eq!(known, 32);
    host.finish();
}
