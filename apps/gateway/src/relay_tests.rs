use std::time::Duration;

use rxrpc::wire::{Abort, PacketType};
use rxrpc::{Completion, code};

use super::*;
use crate::relay_bed::{Bed, LISTENER, address, client_address, packet, server_address};
use crate::testbed::{Op, Wire, request};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn small(n: usize) -> Vec<u8> {
    request(Op::Reply, 100, 200, n as u8)
}

fn refused(bed: &Bed, refusal: Refusal) -> u64 {
    bed.refusals.get(&refusal).copied().unwrap_or(0)
}

#[test]
fn every_byte_crosses_a_bad_wire_in_both_directions() {
    for seed in 1..=10 {
        let mut bed = Bed::new(seed, (3, 2), "", Wire::LOSSY);
        for n in 0..24 {
            let (payload, reply) = ([0, 1400, 5_000, 60_000][n % 4], [0, 4, 1412, 100_000][n / 3 % 4]);
            bed.call(n % 3, request(Op::Reply, reply, payload, n as u8));
        }
        bed.run_calls(10 * MINUTE);
        for (n, call) in bed.calls.iter().enumerate() {
            assert!(call.is_right(), "SEED={seed}: call {n} ended with {:?}", call.completion);
        }
        let figures = bed.shared.relay();
        assert!(figures.packets_to_servers == 0, "counted by the app alone");
        assert_eq!(figures.aborts + figures.displaced, 0, "SEED={seed}: {figures:?}");
        bed.assert_forgotten();
    }
}

#[test]
fn a_server_sees_each_client_at_a_port_of_its_own() {
    let mut bed = Bed::new(2, (5, 2), "", Wire::CLEAN);
    // Enough connections that every client gets to both servers: four calls at a time fill one connection.
    for n in 0..5 * 64 {
        bed.call(n % 5, request(Op::Reply, 20_000, 20_000, n as u8));
    }
    bed.run_calls(10 * MINUTE);
    for index in 0..2 {
        let callers = &bed.server(index).callers;
        assert_eq!(callers.len(), 5, "{callers:?}");
        assert!(callers.iter().all(|caller| caller.ip() == address(LISTENER).ip()), "{callers:?}");
    }
    assert_eq!(bed.shared.relay().clients, 10);
}

#[test]
fn a_connection_stays_with_one_backend_and_the_balancer_counts_connections() {
    let mut bed = Bed::new(3, (1, 2), "", Wire::CLEAN);
    for n in 0..50 {
        bed.call(0, small(n));
        bed.run_calls(MINUTE);
    }
    let taken = [bed.server(0).taken, bed.server(1).taken];
    assert!(taken.contains(&0) && taken.contains(&50), "one connection at two servers: {taken:?}");
    let open: Vec<u64> = bed.shared.backends.iter().map(|backend| backend.outstanding()).collect();
    assert_eq!(open.iter().sum::<u64>(), 1, "{open:?}");
}

#[test]
fn a_server_may_call_a_client_at_the_address_it_saw() {
    for seed in 1..=10 {
        let mut bed = Bed::new(seed, (3, 1), "", Wire::LOSSY);
        for client in 0..3 {
            bed.call(client, small(client));
            bed.run_calls(MINUTE);
            let seen: Vec<_> = bed.server(0).callers.iter().copied().collect();
            let newest = *seen.iter().max_by_key(|caller| caller.port()).expect("it was called");
            let server = bed.server_party(0);
            bed.call_to(server, newest, request(Op::Reply, 30_000, 30_000, 9));
            bed.run_calls(MINUTE);
            assert_eq!(bed.parties[client].taken, 1, "SEED={seed}: the call went to another");
            // What the client saw is the listener, which it knows.
            assert!(bed.parties[client].callers.contains(&address(LISTENER)), "SEED={seed}");
        }
        assert!(bed.calls.iter().all(|call| call.is_right()), "SEED={seed}");
        assert_eq!(bed.shared.relay().called_back, 3, "SEED={seed}");
        bed.assert_forgotten();
    }
}

#[test]
fn the_way_back_is_open_for_as_long_as_the_server_uses_it() {
    let mut bed = Bed::new(4, (1, 1), "[relay]\nidle_seconds = 600", Wire::CLEAN);
    bed.call(0, small(0));
    bed.run_calls(MINUTE);
    let seen = *bed.server(0).callers.first().expect("it was called");
    let server = bed.server_party(0);
    for n in 0..5 {
        bed.pass(500 * SECOND);
        bed.call_to(server, seen, small(n));
        bed.run_calls(MINUTE);
    }
    assert!(bed.calls.iter().all(|call| call.is_right()));
    // For two minutes more the server's idle connection keeps the way open by itself, as it would through a NAT.
    bed.pass(800 * SECOND);
    bed.call_to(server, seen, small(9));
    bed.pass(SECOND);
    assert!(refused(&bed, Refusal::NoClient) > 0, "{:?}", bed.refusals);
}

#[test]
fn version_is_answered_by_us_and_the_clients_answer_to_a_server_crosses() {
    let mut bed = Bed::new(5, (1, 1), "", Wire::CLEAN);
    bed.call(0, small(0));
    bed.run_calls(MINUTE);
    let now = bed.now;
    let node = &mut bed.parties[0].node;
    node.endpoint.probe_version(now, node.local, address(LISTENER));
    let crossed = bed.came_from_servers;
    bed.pass(Duration::from_millis(50));
    assert_eq!(bed.parties[0].versions, [address(LISTENER)]);
    assert_eq!(bed.came_from_servers, crossed, "a server was asked");
    // The other way round: the question and the answer cross.
    let seen = *bed.server(0).callers.first().expect("it was called");
    let now = bed.now;
    let node = &mut bed.server(0).node;
    node.endpoint.probe_version(now, node.local, seen);
    bed.pass(Duration::from_millis(50));
    assert_eq!(bed.server(0).versions, [seen]);
}

#[test]
fn connections_of_a_dead_backend_are_aborted_and_new_ones_go_elsewhere() {
    let mut bed = Bed::new(6, (1, 2), "", Wire::CLEAN);
    bed.call(0, small(0));
    bed.run_calls(MINUTE);
    let first = usize::from(bed.server(0).taken == 0);
    bed.server(first).node.down = true;
    bed.pass(5 * SECOND);
    assert!(!bed.shared.backends.is_alive(first));
    let lost = bed.call(0, small(1));
    bed.run_calls(MINUTE);
    let call = &bed.calls[lost];
    assert_eq!(call.completion, Some(Completion::RemoteAbort(code::CALL_DEAD)));
    assert!(call.took < Duration::from_millis(10), "{:?}", call.took);
    let again = bed.call(0, small(2));
    bed.run_calls(MINUTE);
    assert!(bed.calls[again].is_right(), "{:?}", bed.calls[again].completion);
    assert_eq!(bed.server(1 - first).taken, 1);
    bed.assert_forgotten();
}

#[test]
fn a_backend_whose_host_refuses_is_found_out_by_the_first_packet() {
    let mut bed = Bed::new(7, (1, 2), "", Wire::CLEAN);
    bed.call(0, small(0));
    bed.run_calls(MINUTE);
    let first = usize::from(bed.server(0).taken == 0);
    bed.server(first).node.refuses = true;
    let lost = bed.call(0, small(1));
    bed.run_calls(MINUTE);
    let call = &bed.calls[lost];
    assert_eq!(call.completion, Some(Completion::RemoteAbort(code::CALL_DEAD)));
    // The packet that was lost is repeated once; no time-out of the call's has run.
    assert!(call.took < 3 * SECOND, "{:?}", call.took);
}

#[test]
fn none_alive_is_an_abort_at_once() {
    let mut bed = Bed::new(8, (1, 2), "", Wire::CLEAN);
    bed.server(0).node.down = true;
    bed.server(1).node.down = true;
    bed.pass(5 * SECOND);
    let call = bed.call(0, small(0));
    bed.run_calls(MINUTE);
    let call = &bed.calls[call];
    assert_eq!(call.completion, Some(Completion::RemoteAbort(code::RESTARTING)));
    assert!(call.took < Duration::from_millis(10), "{:?}", call.took);
    assert_eq!(bed.shared.relay().connected, 0);
}

#[test]
fn a_call_in_its_middle_is_not_given_to_anybody() {
    let mut bed = Bed::new(9, (1, 1), "", Wire::CLEAN);
    let mut send =
        |kind, seq| bed.arrive(client_address(0), address(LISTENER), packet(kind, true, 5, 8, 1, seq));
    send(PacketType::Data, 33);
    send(PacketType::Data, 0);
    send(PacketType::Ack, 0);
    send(PacketType::Response, 0);
    assert_eq!(refused(&bed, Refusal::NoConnection), 4);
    assert_eq!(bed.shared.relay().connected, 0);
}

#[test]
fn who_is_no_server_reaches_no_client() {
    let mut bed = Bed::new(10, (1, 1), "", Wire::CLEAN);
    bed.call(0, small(0));
    bed.run_calls(MINUTE);
    let port = *bed.server(0).callers.first().expect("it was called");
    let crossed = bed.came_from_servers;
    let data = || packet(PacketType::Data, true, 1, 4, 1, 1);
    bed.arrive(address("10.0.0.66:7009"), port, data());
    bed.arrive(address("10.0.0.1:7008"), port, data());
    assert_eq!(refused(&bed, Refusal::NotAServer), 2);
    bed.arrive(server_address(0), address("10.0.0.100:50001"), data());
    assert_eq!(refused(&bed, Refusal::NoClient), 1);
    assert_eq!(bed.came_from_servers, crossed);
    // From the server itself anything crosses, whatever connection it is of.
    bed.arrive(server_address(0), port, packet(PacketType::Ack, false, 77, 4, 1, 0));
    assert_eq!(bed.came_from_servers, crossed + 1);
}

#[test]
fn other_services_are_refused_by_name() {
    let mut bed = Bed::new(11, (1, 1), "", Wire::CLEAN);
    let mut data = packet(PacketType::Data, true, 1, 4, 1, 1);
    data[26..28].copy_from_slice(&7u16.to_be_bytes());
    bed.arrive(client_address(0), address(LISTENER), data);
    assert_eq!(refused(&bed, Refusal::NoService), 1);
}

/// A hundred thousand strangers, and one client who was there before and is there afterwards.
#[test]
fn a_flood_of_newcomers_displaces_none_who_has_proven_itself() {
    let limits = "[limits]\nconnections = 64\npeers = 32\n[relay]\nports = 100\nidle_seconds = 600";
    let mut bed = Bed::new(12, (1, 1), limits, Wire::CLEAN);
    bed.call(0, small(0));
    bed.run_calls(MINUTE);
    // With its last ACK the client has answered.
    bed.pass(2 * SECOND);
    let port = *bed.server(0).callers.first().expect("it was called");
    bed.server(0).node.down = true; // it need not hear the rest
    for n in 0..100_000u32 {
        let stranger = SocketAddr::from(([172, 16, (n >> 8) as u8, n as u8], 1024 + (n >> 16) as u16));
        bed.arrive(stranger, address(LISTENER), packet(PacketType::Data, true, n, 4 * n, 1, 1));
        let figures = bed.shared.relay();
        assert!(figures.connections <= 64 && figures.clients <= 32, "{figures:?}");
    }
    let figures = bed.shared.relay();
    assert_eq!((figures.connected, figures.closes()), (100_001, true), "{figures:?}");
    bed.pass(Duration::from_millis(100));
    bed.server(0).node.down = false;
    let again = bed.call(0, small(1));
    bed.run_calls(MINUTE);
    assert!(bed.calls[again].is_right(), "{:?}", bed.calls[again].completion);
    assert_eq!(bed.server(0).callers.iter().collect::<Vec<_>>(), [&port], "its port has changed");
    bed.assert_forgotten();
}

#[test]
fn pages_show_each_connection_once() {
    let mut bed = Bed::new(17, (0, 2), "[limits]\nconnections = 500\npeers = 500", Wire::CLEAN);
    for n in 0..300u32 {
        let client = SocketAddr::from(([10, 0, 2, n as u8], 7000 + (n >> 8) as u16));
        bed.arrive(client, address(LISTENER), packet(PacketType::Data, true, n, 4 * n + 1, 1, 1));
    }
    let (mut seen, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let mut rows = Vec::with_capacity(rxrpc::PAGE_ROWS);
        from = bed.relay.page(at, &mut rows);
        assert!(rows.len() <= rxrpc::PAGE_ROWS && from.is_none_or(|next| next > at));
        seen.extend(rows.into_iter().map(|row| {
            assert_eq!((row.listener, row.cid, row.proven), (address(LISTENER), 4 * row.epoch, false));
            row.epoch
        }));
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..300));
}

#[test]
fn one_client_cannot_take_all_connections() {
    let limits = "[limits]\nconnections = 64\npeers = 32\n[relay]\nidle_seconds = 600";
    let mut bed = Bed::new(13, (2, 1), limits, Wire::CLEAN);
    // It answers to what its server says, so that each of its connections has proven itself.
    for n in 0..200u32 {
        let (client, listener) = (client_address(0), address(LISTENER));
        bed.arrive(client, listener, packet(PacketType::Data, true, n, 4, 1, 1));
        let answer = packet(PacketType::Ack, false, n, 4, 1, 0);
        bed.arrive(server_address(0), address("10.0.0.100:50000"), answer);
        bed.arrive(client, listener, packet(PacketType::Ack, true, n, 4, 1, 0));
    }
    assert_eq!(refused(&bed, Refusal::ClientFull), 184);
    assert_eq!(bed.shared.relay().connections, 16);
    bed.call(1, small(0));
    bed.run_calls(MINUTE);
    assert!(bed.calls[0].is_right());
    // A minute later it may begin some more.
    bed.pass(SPARE_IDLE);
    bed.arrive(client_address(0), address(LISTENER), packet(PacketType::Data, true, 999, 4, 1, 1));
    assert_eq!(bed.shared.relay().connections, 18);
}

#[test]
fn who_was_idle_makes_room_and_who_was_not_does_not() {
    let limits = "[limits]\nconnections = 4\n[relay]\nidle_seconds = 600";
    let mut bed = Bed::new(14, (6, 1), limits, Wire::CLEAN);
    for client in 0..4 {
        bed.call(client, small(client));
    }
    bed.run_calls(MINUTE);
    // Later than NEW_IDLE: only what has proven itself is left.
    bed.pass(NEW_IDLE);
    assert_eq!(bed.shared.relay().connections, 4);
    let fifth = bed.call(4, small(4));
    bed.run_calls(MINUTE);
    assert_eq!(bed.calls[fifth].completion, Some(Completion::RemoteAbort(code::RESTARTING)));
    assert!(refused(&bed, Refusal::Full) > 0);
    bed.pass(SPARE_IDLE);
    let sixth = bed.call(5, small(5));
    bed.run_calls(MINUTE);
    assert!(bed.calls[sixth].is_right(), "{:?}", bed.calls[sixth].completion);
    assert_eq!(bed.shared.relay().displaced, 1);
    bed.assert_forgotten();
}

#[test]
fn a_port_that_was_given_back_rests_until_all_others_were_used() {
    let mut bed = Bed::new(15, (0, 1), "[relay]\nports = 4\nidle_seconds = 60", Wire::CLEAN);
    let mut given = Vec::new();
    for n in 0..8u32 {
        let client = SocketAddr::from(([10, 0, 2, n as u8], 7001));
        bed.arrive(client, address(LISTENER), packet(PacketType::Data, true, n, 4, 1, 1));
        let paths = &bed.relay.servers[0].paths;
        let path = paths.find(&Client { listener: 0, address: client }).expect("it has one");
        given.push(paths.get(path).expect("it has one").1.port);
        // The server gives its unanswered reply up before that.
        bed.pass(10 * MINUTE);
    }
    assert_eq!(given, [0, 1, 2, 3, 0, 1, 2, 3]);
}

#[test]
fn draining_lets_connections_go_on_and_refuses_new_ones() {
    let mut bed = Bed::new(16, (2, 1), "", Wire::CLEAN);
    bed.call(0, small(0));
    bed.run_calls(MINUTE);
    let now = bed.now;
    bed.relay.drain(now);
    assert_eq!(bed.shared.cores[0].relay.busy.get(), 1);
    let (old, new) = (bed.call(0, small(1)), bed.call(1, small(2)));
    bed.run_calls(MINUTE);
    assert!(bed.calls[old].is_right());
    assert_eq!(bed.calls[new].completion, Some(Completion::RemoteAbort(code::RESTARTING)));
    bed.pass(5 * SECOND);
    assert_eq!(bed.shared.cores[0].relay.busy.get(), 0, "quiet for long enough");
    bed.relay.clear(bed.forwarder.balancer());
    let figures = bed.shared.relay();
    assert!(figures.closes() && figures.connections == 0 && figures.clients == 0, "{figures:?}");
}

/// Whatever comes from wherever: no panic, no growth, and the figures close.
#[test]
fn noise_from_both_sides_is_survived() {
    for seed in 1..=20 {
        let limits = "[limits]\nconnections = 16\npeers = 8\n[relay]\nports = 8\nidle_seconds = 60";
        let mut bed = Bed::new(seed, (1, 2), limits, Wire::CLEAN);
        let mut random = fastrand::Rng::with_seed(seed);
        for n in 0..3000 {
            let kind = PacketType::from_u8(random.u8(1..12)).expect("a type");
            let few = |random: &mut fastrand::Rng| random.u32(0..6);
            let mut bytes = packet(
                kind,
                random.bool(),
                few(&mut random),
                random.u32(0..16),
                few(&mut random),
                few(&mut random),
            );
            if random.u8(..) < 20 {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            let (from, to) = if random.bool() {
                (SocketAddr::from(([10, 0, 3, random.u8(0..12)], 7001)), address(LISTENER))
            } else {
                (
                    server_address(random.usize(0..3)),
                    SocketAddr::from(([10, 0, 0, 100], 50_000 + random.u16(0..8))),
                )
            };
            bed.arrive(from, to, bytes);
            match random.u8(..) {
                0..=3 => bed.pass(Duration::from_millis(random.u64(0..40_000))),
                4 => bed.relay.client_unreachable(bed.now, 0, from),
                5 => {
                    let port = random.u32(0..9);
                    bed.relay.server_unreachable(bed.now, bed.forwarder.balancer(), port, server_address(0));
                }
                _ => {}
            }
            let figures = bed.shared.relay();
            assert!(figures.closes(), "SEED={seed} packet {n}: {figures:?}");
            assert!(figures.connections <= 16 && figures.clients <= 16, "SEED={seed}: {figures:?}");
        }
        bed.assert_forgotten();
    }
}

#[test]
fn an_abort_of_ours_names_the_call_or_the_whole_connection() {
    let bytes = packet(PacketType::Data, true, 5, 0x1003, 9, 1);
    let (header, _) = Header::parse(&bytes).expect("a header");
    let parse = |refusal: Refusal| {
        let answer = refusal.answer(&header).expect("an answer");
        let (header, body) = Header::parse(&answer).expect("a header");
        assert_eq!((header.packet_type, header.from_client()), (PacketType::Abort, false));
        (header.cid.0, header.call, Abort::parse(&header, body).expect("an abort").code)
    };
    assert_eq!(parse(Refusal::Full), (0x1003, 9, code::RESTARTING));
    assert_eq!(parse(Refusal::BackendDead), (0x1000, 0, code::CALL_DEAD));
    assert!(Refusal::NoConnection.answer(&header).is_none());
    for (kind, by_client) in [(PacketType::Abort, true), (PacketType::Busy, true), (PacketType::Data, false)]
    {
        let (header, _) =
            Header::parse(&packet(kind, by_client, 5, 4, 1, 1)).map(|(h, b)| (h, b.len())).unwrap();
        assert!(Refusal::BackendDead.answer(&header).is_none(), "ABORT and BUSY are never answered");
    }
}
