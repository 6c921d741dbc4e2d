//! Single frames: golden ones from other stacks, and one for each reason to refuse it.

use super::build::*;
use super::*;

/// Bytes of a hexadecimal text.
fn hex(text: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The host that a Linux 6 kernel talked to over a TAP interface when the golden frames were recorded.
fn golden_host() -> Host {
    let addresses = vec![net("10.99.0.2/24"), net("fd99::2/64")];
    Host::new(StackConfig::new(vec![PortConfig::new(mac(9), 1500, addresses)]))
}

const LINUX_ARP: &str =
    "fffffffffffffeb7917aeafe08060001080006040001feb7917aeafe0a6300010000000000000a630002";
const LINUX_NS: &str = "3333ff000002feb7917aeafe86dd6000000000203afffd990000000000000000000000000001ff02000000000000\
    00000001ff0000028700033500000000fd9900000000000000000000000000020101feb7917aeafe";
const LINUX_ECHO: &str = "020000000009feb7917aeafe080045000054f30b4000400132d50a6300010a6300020800e739672f0001deef016b\
    000000000568050000000000101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637";
const LINUX_UDP: &str = "020000000009feb7917aeafe080045000030fe444000401127b00a6300010a630002c7b70009001c6e78\
    7878787878787878787878787878787878787878";
const LINUX_UDP6: &str = "020000000009feb7917aeafe86dd600b3c65001c1140fd990000000000000000000000000001fd9900000000000000\
    00000000000002a8090009001ca7b87878787878787878787878787878787878787878";

#[test]
fn golden_arp_is_answered() {
    let mut host = golden_host();
    assert_eq!(host.receive(&hex(LINUX_ARP)), "consumed");
    let answer = "feb7917aeafe020000000009080600010800060400020200000000090a630002feb7917aeafe0a630001";
    assert_eq!(host.frames(), [hex(answer)]);
}

#[test]
fn golden_neighbour_solicitation_is_answered() {
    let mut host = golden_host();
    assert_eq!(host.receive(&hex(LINUX_NS)), "consumed");
    // Linux took this answer; its checksum was verified by tshark.
    let answer = "feb7917aeafe02000000000986dd6000000000203afffd990000000000000000000000000002fd9900000000000000000000\
        000000018800 1ac860000000fd990000000000000000000000000002020102 0000000009";
    assert_eq!(host.frames(), [hex(&answer.replace(' ', ""))]);
}

#[test]
fn golden_echo_comes_back_to_the_byte() {
    let mut host = golden_host();
    host.receive(&hex(LINUX_ARP));
    host.frames();
    let request = hex(LINUX_ECHO);
    assert_eq!(host.receive(&request), "consumed");
    let reply = host.frames().remove(0);
    assert_eq!(&reply[26..34], [10, 99, 0, 2, 10, 99, 0, 1]);
    assert_eq!(naive_checksum(&reply[14..34]), 0);
    // As Linux's own reply would have it: type 0, and a checksum that is larger by what the type was.
    assert_eq!(&reply[34..38], [0, 0, 0xef, 0x39]);
    assert_eq!(reply[38..], request[38..]);
}

#[test]
fn golden_datagrams_are_delivered() {
    let mut host = golden_host();
    for frame in [LINUX_UDP, LINUX_UDP6] {
        assert_eq!(host.receive(&hex(frame)), "datagram");
    }
    assert_eq!(host.datagrams[0], (addr("10.99.0.2:9"), addr("10.99.0.1:51127"), vec![b'x'; 20]));
    assert_eq!(host.datagrams[1], (addr("[fd99::2]:9"), addr("[fd99::1]:43017"), vec![b'x'; 20]));
}

#[test]
fn each_reason_has_a_frame() {
    let udp4 = datagram4(b"payload");
    let udp6 = datagram6(b"payload");
    let v4 = |src, dst, protocol, payload: &[u8]| ipv4(src, dst, protocol, (1, 0), &[], payload);
    let option = |options: &[u8]| ipv4(B4, A4, 17, (1, 0), options, &udp(B4, A4, b"payload"));
    let extension =
        |next, header: &[u8]| ipv6(B6, A6, next, 64, &[header, &udp(B6, A6, b"payload")[..]].concat());
    let echo = icmp(vec![8, 0, 0, 0, 1, 2, 3, 4, 5]);
    let padding_chain = [60, 0, 1, 4, 0, 0, 0, 0].repeat(9);
    let lladdr = [2, 1, 2, 0, 0, 0, 0, 2];
    let cases: Vec<(Drop, Vec<u8>)> = vec![
        (Drop::Runt, udp4[..13].to_vec()),
        (Drop::Runt, udp4[..33].to_vec()),
        (Drop::Runt, udp6[..53].to_vec()),
        (Drop::NotOurMac, with(&udp4, 5, 77)),
        (Drop::BadSourceMac, with(&udp4, 6, 3)),
        (Drop::UnknownEthertype, ethernet(0x88cc, b"lldp")),
        (Drop::UnknownEthertype, ethernet(0x0026, b"802.3 length")),
        (Drop::WrongVlan, [&udp4[..12], &[0x81, 0, 0, 7], &udp4[12..]].concat()),
        (Drop::BadArp, arp(3, mac(2), B4, mac(0), A4)),
        (Drop::BadArp, arp(1, MacAddr::BROADCAST, B4, mac(0), A4)),
        (Drop::BadArp, arp(1, mac(2), B4, mac(0), A4)[..41].to_vec()),
        (Drop::UnrelatedNeighbour, arp(1, mac(2), B4, mac(0), "192.0.2.77")),
        (Drop::UnrelatedNeighbour, arp(2, mac(2), B4, mac(1), A4)),
        (Drop::UnrelatedNeighbour, arp(1, mac(2), "198.51.100.1", mac(0), A4)),
        (Drop::AddressConflict, arp(1, mac(2), A4, mac(0), A4)),
        (Drop::AddressConflict, neighbour(136, B6, "ff02::1", 0x20, A6, &lladdr)),
        (Drop::BadNeighbourDiscovery, with_hop_limit(neighbour(136, B6, A6, 0x60, B6, &lladdr), 64)),
        (Drop::BadNeighbourDiscovery, neighbour(136, B6, A6, 0x60, B6, &[2, 0, 0, 0, 0, 0, 0, 0])),
        (Drop::BadNeighbourDiscovery, neighbour(136, B6, "ff02::1", 0x60, B6, &lladdr)),
        (Drop::BadNeighbourDiscovery, neighbour(135, B6, A6, 0, "ff02::5", &[])),
        (Drop::UnrelatedNeighbour, neighbour(136, B6, A6, 0x60, B6, &lladdr)),
        (Drop::UnrelatedNeighbour, neighbour(135, B6, "ff02::1:ff00:1", 0, "2001:db8:5::1", &[])),
        (Drop::BadIpVersion, with(&udp4, 14, 0x65)),
        (Drop::BadIpVersion, with(&udp6, 14, 0x40)),
        (Drop::BadIpLength, with(&udp4, 17, 200)),
        (Drop::BadIpLength, with(&udp4, 14, 0x44)),
        (Drop::BadIpLength, with(&udp6, 19, 200)),
        (Drop::BadIpChecksum, {
            let mut f = udp4.clone();
            f[24] ^= 1;
            f
        }),
        (Drop::MartianSource, v4("127.0.0.1", A4, 17, &udp("127.0.0.1", A4, b""))),
        (Drop::MartianSource, v4(A4, A4, 17, &udp(A4, A4, b""))),
        (Drop::MartianSource, v4("192.0.2.255", A4, 17, &udp("192.0.2.255", A4, b""))),
        (Drop::MartianSource, ipv6("::1", A6, 17, 64, &udp("::1", A6, b""))),
        (Drop::MartianSource, ipv6("ff02::1", A6, 17, 64, &udp("ff02::1", A6, b""))),
        (Drop::MartianSource, ipv6("::", A6, 17, 64, &udp("::", A6, b""))),
        (Drop::MartianSource, ipv6("::ffff:1.2.3.4", A6, 17, 64, &udp("::ffff:1.2.3.4", A6, b""))),
        (Drop::NotOurAddress, v4(B4, "192.0.2.3", 17, &udp(B4, "192.0.2.3", b""))),
        (Drop::NotOurAddress, ipv6(B6, "ff02::fb", 17, 64, &udp(B6, "ff02::fb", b""))),
        (Drop::NotOurAddress, ipv6(B6, "ff02::1", 17, 64, &udp(B6, "ff02::1", b""))),
        (Drop::UnknownProtocol, v4(B4, A4, 6, &[0; 20])),
        (Drop::UnknownProtocol, v4(B4, A4, 58, &[0; 20])),
        (Drop::UnknownProtocol, ipv6(B6, A6, 59, 64, &[])),
        (Drop::BadIpOption, option(&[7, 1, 0, 0])),
        (Drop::BadIpOption, option(&[1, 1, 1, 7])),
        (Drop::BadIpOption, option(&[7, 9, 0, 0])),
        (Drop::BadIpOption, extension(0, &[17, 0, 0xc2, 4, 0, 0, 0, 0])),
        (Drop::BadIpOption, extension(60, &[17, 0, 1, 9, 0, 0, 0, 0])),
        (Drop::SourceRoute, option(&[131, 3, 4, 0])),
        (Drop::SourceRoute, extension(43, &[17, 0, 0, 1, 0, 0, 0, 0])),
        (Drop::BadIpLength, extension(60, &[17, 9, 1, 4, 0, 0, 0, 0])),
        (Drop::HeaderChainTooLong, extension(60, &padding_chain)),
        (Drop::UnknownProtocol, extension(60, &[0, 0, 1, 4, 0, 0, 0, 0])),
        (Drop::BadFragment, ipv4(B4, A4, 17, (1, 0x2000), &[], &[0; 7])),
        (Drop::BadFragment, ipv4(B4, A4, 17, (1, 0x2000), &[], &[])),
        (Drop::BadFragment, ipv4(B4, A4, 17, (1, 0x1fff), &[], &[0; 16])),
        (Drop::BadUdpLength, v4(B4, A4, 17, &udp(B4, A4, b"")[..7])),
        (Drop::BadUdpLength, with(&udp4, 39, 7)),
        (Drop::BadUdpLength, with(&udp4, 39, 16)),
        (Drop::BadUdpChecksum, with(&udp4, 42, b'P')),
        (Drop::BadUdpChecksum, with(&udp6, 62, b'P')),
        (Drop::NoUdpChecksum, with(&with(&udp6, 60, 0), 61, 0)),
        (Drop::ZeroPort, with(&with(&udp4, 34, 0), 35, 0)),
        (Drop::ZeroPort, with(&with(&udp4, 36, 0), 37, 0)),
        (Drop::BadIcmpChecksum, v4(B4, A4, 1, &with(&echo, 8, 6))),
        (Drop::BadIcmp, v4(B4, A4, 1, &icmp(vec![8, 0, 0, 0]))),
        (Drop::BadIcmp, v4(B4, A4, 1, &icmp(vec![3, 3, 0, 0, 0, 0, 0, 0]))),
        (Drop::UnhandledIcmp, v4(B4, A4, 1, &icmp(vec![13, 0, 0, 0, 0, 0, 0, 0]))),
        (Drop::UnhandledIcmp, ipv6(B6, A6, 58, 255, &icmpv6(B6, A6, vec![134, 0, 0, 0, 0, 0, 0, 0]))),
    ];
    for (i, (reason, frame)) in cases.iter().enumerate() {
        let mut host = Host::new(host_config(1, 1500));
        assert_eq!(host.receive(frame), reason.name(), "case {i}: {frame:02x?}");
        host.finish();
    }
}

fn with_hop_limit(mut frame: Vec<u8>, hop_limit: u8) -> Vec<u8> {
    frame[21] = hop_limit;
    frame
}

#[test]
fn what_is_unusual_but_legal_is_delivered() {
    let udp4 = datagram4(b"payload");
    let good = udp(B4, A4, b"payload");
    let padded = [&udp4[..], &[0xee; 20]].concat();
    let slack = ipv4(B4, A4, 17, (1, 0), &[], &[&good[..], b"behind the datagram"].concat());
    let no_checksum = with(&with(&udp4, 40, 0), 41, 0);
    let extension =
        |next, header: &[u8]| ipv6(B6, A6, next, 64, &[header, &udp(B6, A6, b"payload")[..]].concat());
    let cases = [
        ("Ethernet padding", padded),
        ("a UDP length shorter than the packet", slack),
        ("no checksum over IPv4", no_checksum),
        ("a priority tag", [&udp4[..12], &[0x81, 0, 0xe0, 0], &udp4[12..]].concat()),
        ("don't fragment", with(&udp4, 20, 0x40)),
        ("an IPv4 option", ipv4(B4, A4, 17, (1, 0), &[7, 4, 4, 0, 1, 1, 1, 0], &good)),
        ("hop-by-hop padding", extension(0, &[17, 0, 1, 4, 0, 0, 0, 0])),
        ("a router alert", extension(0, &[17, 0, 5, 2, 0, 0, 1, 0])),
        ("a routing header with nothing left", extension(43, &[17, 0, 0, 0, 0, 0, 0, 0])),
        ("an atomic fragment", extension(44, &[17, 0, 0, 0, 1, 2, 3, 4])),
        ("several extensions", extension(60, &[60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0])),
    ];
    for (name, frame) in cases {
        let mut host = Host::new(host_config(1, 1500));
        assert_eq!(host.receive(&frame), "datagram", "{name}");
        assert_eq!(host.datagrams[0].2, b"payload", "{name}");
        host.finish();
    }
}

#[test]
fn what_the_device_says_of_checksums_is_believed() {
    use pmd::Checksum;
    let broken = with(&datagram4(b"payload"), 42, b'P');
    for (status, verdict) in [
        (Checksum::Good, "datagram"),
        (Checksum::Partial, "datagram"),
        (Checksum::Unknown, "bad_udp_checksum"),
        (Checksum::Bad, "bad_udp_checksum"),
    ] {
        let mut host = Host::new(host_config(1, 1500));
        let mut frame = host.pool.copy_from(&broken).unwrap();
        frame.meta_mut().checksum = status;
        assert_eq!(host.receive_mbuf(frame), verdict, "{status:?}");
    }
}

#[test]
fn zero_checksums_can_be_refused() {
    let frame = with(&with(&datagram4(b"payload"), 40, 0), 41, 0);
    let mut host = Host::new(StackConfig { accept_zero_checksum: false, ..host_config(1, 1500) });
    assert_eq!(host.receive(&frame), "no_udp_checksum");
}

#[test]
fn errors_about_what_we_sent_name_both_ends() {
    let quoted4 = &ipv4(A4, B4, 17, (9, 0), &[], &udp(A4, B4, b"data"))[14..];
    let quoted6 = &ipv6(A6, B6, 17, 64, &udp(A6, B6, b"data"))[14..];
    let v4 = |kind: u8, code: u8, rest: [u8; 4]| {
        let message = icmp([&[kind, code, 0, 0], &rest[..], quoted4].concat());
        ipv4("198.51.100.9", A4, 1, (1, 0), &[], &message)
    };
    let v6 = |kind: u8, code: u8, rest: [u8; 4]| {
        let message = [&[kind, code, 0, 0], &rest[..], quoted6].concat();
        ipv6("2001:db8:9::9", A6, 58, 60, &icmpv6("2001:db8:9::9", A6, message))
    };
    let none = [0; 4];
    let cases = [
        (v4(3, 0, none), NetError::NetUnreachable),
        (v4(3, 1, none), NetError::HostUnreachable),
        (v4(3, 2, none), NetError::ProtocolUnreachable),
        (v4(3, 3, none), NetError::PortUnreachable),
        (v4(3, 4, [0, 0, 0x05, 0]), NetError::MessageTooBig { mtu: 1280 }),
        (v4(3, 4, [0, 0, 0, 0]), NetError::MessageTooBig { mtu: 576 }),
        (v4(3, 13, none), NetError::Prohibited),
        (v4(11, 0, none), NetError::TimeExceeded),
        (v4(12, 0, none), NetError::ParameterProblem),
        (v6(1, 0, none), NetError::NetUnreachable),
        (v6(1, 1, none), NetError::Prohibited),
        (v6(1, 3, none), NetError::HostUnreachable),
        (v6(1, 4, none), NetError::PortUnreachable),
        (v6(2, 0, [0, 0, 0x05, 0x78]), NetError::MessageTooBig { mtu: 1400 }),
        (v6(2, 0, [0, 0, 0, 68]), NetError::MessageTooBig { mtu: 1280 }),
        (v6(3, 1, none), NetError::TimeExceeded),
        (v6(4, 0, none), NetError::ParameterProblem),
    ];
    for (frame, error) in cases {
        let mut host = Host::new(host_config(1, 1500));
        assert_eq!(host.receive(&frame), "unreachable", "{error:?}");
        let (local, peer) = if frame[12] == 8 {
            (addr("192.0.2.1:7001"), addr("192.0.2.2:7000"))
        } else {
            (addr("[2001:db8::1]:7001"), addr("[2001:db8::2]:7000"))
        };
        assert_eq!(host.unreachable, [Unreachable { local, peer, error }]);
        if let NetError::MessageTooBig { mtu } = error {
            let headers = if local.is_ipv4() { 28 } else { 48 };
            assert_eq!(host.stack.mtu_for(host.now, peer), usize::from(mtu) - headers);
        }
        host.finish();
    }
    // Somebody else's packet is no business of ours.
    let strange = &ipv4(B4, "192.0.2.3", 17, (9, 0), &[], &udp(B4, "192.0.2.3", b"data"))[14..];
    let mut host = Host::new(host_config(1, 1500));
    let message = icmp([&[3, 3, 0, 0, 0, 0, 0, 0], strange].concat());
    assert_eq!(host.receive(&ipv4(B4, A4, 1, (1, 0), &[], &message)), "bad_icmp");
}

#[test]
fn a_reported_path_mtu_makes_smaller_fragments() {
    let mut host = Host::new(host_config(1, 1500));
    host.receive(&arp(1, mac(2), B4, mac(0), A4));
    host.frames();
    assert_eq!(host.stack.mtu_for(host.now, addr("192.0.2.2:1")), 1472);
    let quoted = &ipv4(A4, B4, 17, (9, 0), &[], &udp(A4, B4, b"data"))[14..];
    let message = icmp([&[3, 4, 0, 0, 0, 0, 2, 88], quoted].concat());
    host.receive(&ipv4("192.0.2.254", A4, 1, (1, 0), &[], &message));
    host.send("192.0.2.1:7001", "192.0.2.2:7000", &pattern(1400, 0)).unwrap();
    let sizes: Vec<_> = host.frames().iter().map(|frame| frame.len() - 14).collect();
    // 600 bytes: 20 of header and 576 of data, a multiple of 8 (580 is not).
    assert_eq!(sizes, [596, 596, 20 + 1408 - 2 * 576]);
    let identifications = |frames: &[Vec<u8>]| frames.iter().map(|f| [f[18], f[19]]).collect::<Vec<_>>();
    host.send("192.0.2.1:7001", "192.0.2.2:7000", &pattern(1400, 0)).unwrap();
    let ids = identifications(&host.frames());
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "fragments of one datagram share it: {ids:?}");
}
