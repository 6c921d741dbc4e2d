//! Two stacks back to back.

use super::*;

fn all(_: &[u8]) -> bool {
    true
}

#[test]
fn datagrams_of_every_size_arrive_over_both_versions() {
    let mut pair = Pair::new(1500);
    let sizes = [0, 1, 2, 17, 18, 1431, 1432, 1452, 1453, 1472, 1473, 2960, 5712, 9000, 65507];
    for (i, &size) in sizes.iter().enumerate() {
        for (from, to) in [("192.0.2.1:7000", "192.0.2.2:7001"), ("[2001:db8::1]:7000", "[2001:db8::2]:7001")]
        {
            pair.a.send(from, to, &pattern(size, i as u8)).unwrap();
            pair.settle(&mut all);
            let got = pair.b.datagrams.pop().expect("it arrived");
            assert_eq!((got.0, got.1), (addr(to), addr(from)));
            assert!(got.2 == pattern(size, i as u8), "{size} bytes to {to} arrived changed");
        }
    }
    assert_eq!(pair.b.drops.total() + pair.a.drops.total(), 0);
    pair.a.finish();
    pair.b.finish();
}

#[test]
fn what_is_too_big_or_has_no_way_is_refused_by_name() {
    let mut host = Host::new(host_config(1, 1500));
    assert_eq!(host.send("192.0.2.1:1", "192.0.2.2:1", &pattern(65508, 0)), Err(Drop::TooBig));
    assert_eq!(host.send("192.0.2.1:1", "198.51.100.1:1", b"x"), Err(Drop::NoRoute));
    assert_eq!(host.send("192.0.2.1:1", "192.0.2.255:1", b"x"), Err(Drop::NoRoute));
    assert_eq!(host.send("192.0.2.3:1", "192.0.2.2:1", b"x"), Err(Drop::BadSource));
    assert_eq!(host.send("[2001:db8::1]:1", "192.0.2.2:1", b"x"), Err(Drop::BadSource));
    assert_eq!(host.send("192.0.2.1:0", "192.0.2.2:1", b"x"), Err(Drop::ZeroPort));
    assert!(host.frames().is_empty());
    host.finish();
}

#[test]
fn link_local_addresses_speak_to_each_other_and_name_their_port() {
    let mut pair = Pair::new(1500);
    pair.a.send("[::]:7000", "[fe80::ff:fe00:2%1]:7001", b"hello").unwrap();
    pair.settle(&mut all);
    let got = pair.b.datagrams.pop().unwrap();
    assert_eq!((got.0, got.1), (addr("[fe80::ff:fe00:2%1]:7001"), addr("[fe80::ff:fe00:1%1]:7000")));
}

#[test]
fn a_tagged_wire_works_and_keeps_others_out() {
    let tagged = |n, vlan| {
        let mut config = host_config(n, 1500);
        config.ports[0].vlan = Some(vlan);
        Host::new(config)
    };
    let mut pair = Pair { a: tagged(1, 7), b: tagged(2, 7) };
    pair.a.send("192.0.2.1:7000", "192.0.2.2:7001", &pattern(4000, 1)).unwrap();
    pair.a.send("[2001:db8::1]:7000", "[2001:db8::2]:7001", &pattern(4000, 2)).unwrap();
    pair.settle(&mut all);
    assert_eq!(pair.b.datagrams.len(), 2);

    let mut other = Pair { a: tagged(1, 7), b: tagged(2, 8) };
    other.a.send("192.0.2.1:7000", "192.0.2.2:7001", b"x").unwrap();
    other.settle(&mut all);
    assert_eq!(other.b.drops.get(Drop::WrongVlan), 1);
}

#[test]
fn to_our_own_address_needs_no_wire() {
    let mut host = Host::new(host_config(1, 1500));
    host.send("0.0.0.0:5", "192.0.2.1:6", &pattern(65507, 3)).unwrap();
    host.collect();
    let (local, peer, payload) = host.datagrams.pop().unwrap();
    assert_eq!((local, peer), (addr("192.0.2.1:6"), addr("192.0.2.1:5")));
    assert!(payload == pattern(65507, 3));
    assert!(host.frames().is_empty());
    host.finish();
}

#[test]
fn through_a_gateway() {
    let mut config = host_config(1, 1500);
    config.ports[0].routes = vec![Route::default_via(ip("192.0.2.2")), Route::default_via(ip("2001:db8::2"))];
    let mut pair = Pair { a: Host::new(config), b: Host::new(host_config(2, 1500)) };
    pair.a.send("0.0.0.0:1", "198.51.100.7:9", b"v4").unwrap();
    pair.a.send("[::]:1", "[2001:db8:9::7]:9", b"v6").unwrap();
    pair.settle(&mut all);
    // They came to the gateway's MAC address, and it does not forward.
    assert_eq!(pair.b.drops.get(Drop::NotOurAddress), 2);
    assert_eq!(pair.a.stack.source_for(addr("198.51.100.7:9")), Some(ip("192.0.2.1")));
}

#[test]
fn nothing_is_lost_for_good_on_a_lossy_wire_while_neighbours_are_sought() {
    let mut seed = 7u64;
    for round in 0..50u64 {
        let mut pair = Pair::new(1500);
        let mut lossy = |_: &[u8]| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            seed >> 33 & 3 != 0
        };
        for i in 0..20 {
            for (from, to) in [("192.0.2.1:1", "192.0.2.2:2"), ("[2001:db8::1]:1", "[2001:db8::2]:2")] {
                // Refused is fine, as long as it is by name: the neighbour did not answer three times.
                if let Err(reason) = pair.a.send(from, to, &pattern(3000, i)) {
                    assert_eq!(reason, Drop::NeighbourUnreachable);
                }
            }
            pair.run(Duration::from_millis(200), &mut lossy);
        }
        pair.run(Duration::from_secs(120), &mut lossy);
        assert!(pair.b.datagrams.len() > 3, "round {round}: only {} arrived", pair.b.datagrams.len());
        for (_, _, payload) in &pair.b.datagrams {
            assert_eq!(payload.len(), 3000);
        }
        assert_eq!(pair.b.stack.held(), 0, "round {round}");
        pair.a.finish();
        pair.b.finish();
    }
}

#[test]
fn an_absent_neighbour_is_reported_to_each_sender() {
    let mut host = Host::new(host_config(1, 1500));
    host.send("192.0.2.1:7000", "192.0.2.9:7001", b"one").unwrap();
    host.send("[2001:db8::1]:7000", "[2001:db8::9]:7001", &pattern(3000, 0)).unwrap();
    for tick in 1..=40 {
        host.expire(ms(tick * 100));
    }
    let expected = |local, peer| Unreachable { local, peer, error: NetError::NeighbourUnresolved };
    assert_eq!(
        host.unreachable,
        [
            expected(addr("192.0.2.1:7000"), addr("192.0.2.9:7001")),
            expected(addr("[2001:db8::1]:7000"), addr("[2001:db8::9]:7001")),
        ]
    );
    // One datagram, and three fragments of which only the first names ports.
    assert_eq!(host.tx_drops.get(Drop::NeighbourUnreachable), 4);
    assert_eq!(host.frames().len(), 6, "three questions each");
    host.finish();
}

#[test]
fn ports_nobody_has_are_reported_back() {
    let mut pair = Pair::new(1500);
    for (from, to) in [("192.0.2.1:7000", "192.0.2.2:7001"), ("[2001:db8::1]:7000", "[2001:db8::2]:7001")] {
        for size in [0, 11, 1400] {
            pair.a.send(from, to, &pattern(size, 0)).unwrap();
            let mut frames = pair.a.frames();
            if size == 0 {
                // Neighbours first.
                frames.iter().for_each(|frame| pair.b.take(frame));
                pair.b.frames().iter().for_each(|frame| pair.a.take(frame));
                frames = pair.a.frames();
            }
            let b = &mut pair.b;
            let frame = b.pool.copy_from(&frames[0]).unwrap();
            let Verdict::Datagram(datagram) = b.stack.demux(b.now, 0, frame, &mut b.pool, &mut b.out) else {
                panic!("not a datagram");
            };
            b.stack.port_unreachable(b.now, datagram, &mut b.pool, &mut b.out);
            pair.settle(&mut all);
            let notice = pair.a.unreachable.pop().expect("it was reported");
            let expected =
                Unreachable { local: addr(from), peer: addr(to), error: NetError::PortUnreachable };
            assert_eq!(notice, expected, "{size} bytes");
        }
    }
}

#[test]
fn two_cores_share_what_one_hears() {
    let core = |core| {
        let mut host = Host::new(StackConfig { core, cores: 2, ..host_config(1, 1500) });
        host.out = Outbox::new(1, 64);
        host
    };
    let (mut first, mut second, mut peer) = (core(0), core(1), Host::new(host_config(2, 1500)));
    second.send("192.0.2.1:1", "192.0.2.2:2", b"from the second core").unwrap();
    let question = second.frames().remove(0);
    peer.receive(&question);
    // The answer comes to the first core, which did not ask.
    let answer = peer.frames().remove(0);
    assert_eq!(first.receive(&answer), "consumed");
    assert!(second.frames().is_empty());
    let update = first.out.pop_update().expect("something to tell the others");
    second.stack.apply(second.now, update, &mut second.pool, &mut second.out);
    for frame in second.frames() {
        assert_eq!(peer.receive(&frame), "datagram");
    }
    assert_eq!(peer.datagrams.len(), 1);
    first.finish();
    second.finish();
}

#[test]
fn icmp_errors_keep_to_their_rate() {
    let limits = Limits { icmp_errors_per_second: 100, ..Limits::default() };
    let mut pair = Pair::new(1500);
    pair.b = Host::new(StackConfig { limits, ..host_config(2, 1500) });
    pair.a.send("192.0.2.1:1", "192.0.2.2:2", b"hello").unwrap();
    pair.settle(&mut all);
    let mut answered = 0;
    for i in 0..2000 {
        let b = &mut pair.b;
        b.now = ms(i);
        pair.a.send("192.0.2.1:1", "192.0.2.2:2", b"x").unwrap();
        let frame = b.pool.copy_from(&pair.a.frames()[0]).unwrap();
        let Verdict::Datagram(datagram) = b.stack.demux(b.now, 0, frame, &mut b.pool, &mut b.out) else {
            panic!("not a datagram");
        };
        b.stack.port_unreachable(b.now, datagram, &mut b.pool, &mut b.out);
        answered += b.frames().len();
    }
    // A tenth of a second's worth at once, then a hundred a second.
    assert_eq!(answered, 10 + 200 - 1);
}

#[test]
fn an_empty_pool_is_a_named_drop_and_nothing_leaks() {
    let mut host = Host::new(host_config(1, 1500));
    host.send("192.0.2.1:1", "192.0.2.2:2", &pattern(3000, 0)).unwrap();
    let payload = host.pool.copy_from(&pattern(5000, 0)).unwrap();
    let mut hoard = Vec::new();
    while let Some(mbuf) = host.pool.alloc() {
        hoard.push(mbuf);
    }
    let sent = host.stack.send(
        host.now,
        addr("192.0.2.1:1"),
        addr("192.0.2.2:2"),
        payload,
        &mut host.pool,
        &mut host.out,
    );
    assert_eq!(sent, Err(Drop::NoBuffers));
    drop(hoard);
    host.frames();
    host.finish();
}

#[test]
fn a_checksum_that_comes_to_zero_is_sent_as_ones() {
    let mut pair = Pair::new(1500);
    let (from, to) = ("[2001:db8::1]:7000", "[2001:db8::2]:7001");
    pair.a.send(from, to, b"hello").unwrap();
    pair.settle(&mut all);
    let mut ones = 0;
    for word in 0..=u16::MAX {
        pair.a.send(from, to, &word.to_be_bytes()).unwrap();
        let frame = pair.a.frames().remove(0);
        assert_ne!(frame[60..62], [0, 0], "no checksum, for {word:#x}");
        ones += usize::from(frame[60..62] == [0xff, 0xff]);
        // IPv6 demands one: a zero would be refused.
        assert_eq!(pair.b.receive(&frame), "datagram");
    }
    // The two representations of the one word that complements the rest.
    assert!((1..=2).contains(&ones), "{ones} of 65536");
}

#[test]
fn what_is_sent_on_says_nothing_of_how_it_came() {
    let mut host = Host::new(host_config(1, 1500));
    let mut payload = host.pool.copy_from(b"relayed").unwrap();
    *payload.meta_mut() =
        pmd::Meta { checksum: pmd::Checksum::Partial, vlan: Some(9), queue: 3, rss_hash: 5 };
    host.stack
        .send(host.now, addr("192.0.2.1:1"), addr("192.0.2.2:2"), payload, &mut host.pool, &mut host.out)
        .unwrap();
    host.frames();
    host.receive(&super::build::arp(2, mac(2), "192.0.2.2", mac(1), "192.0.2.1"));
    // A driver would "finish" the checksum of a frame marked Partial, and tag one with a VLAN.
    let frame = host.out.frames(0).pop_front().unwrap();
    assert_eq!(*frame.meta(), pmd::Meta::default());
    drop(frame);
    host.finish();
}
