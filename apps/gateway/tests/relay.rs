//! The gateway as a relay on real engines, over `memory:` wires.

#[allow(dead_code, reason = "the other test uses more of it")]
mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{Net, config, gateway_address, reply_to, request, server_address};
use engine::{Engine, UdpSocket};
use gateway::Gateway;
use rxrpc::code;

fn start(name: &str, first: &str) -> Net {
    let net = Net::start_as(name, config(name, "", first, "relay"));
    net.wait_for("the backends are probed", |stats| stats.backends.iter().all(|backend| backend.alive));
    net
}

#[test]
fn calls_cross_it_whole_and_nothing_is_left_afterwards() {
    let net = start("relay-whole", "");
    for n in 0..200 {
        let (reply, payload) = ([0, 4, 1412, 100_000][n % 4], [0, 100, 5_000, 200_000, 1_400][n % 5]);
        let request = request(reply, 0, payload);
        assert!(net.call(&request).expect("a reply") == reply_to(&request), "call {n}: other bytes");
    }
    let page = net.gateway.rx_viewer().relayed(0, 0).expect("the core answers");
    let [row] = &page.rows[..] else { panic!("one connection, not {:?}", page.rows) };
    assert_eq!((row.listener, row.proven), (gateway_address(), true));
    assert!(row.client.ip().to_string() == "192.0.2.200" && row.port.ip().to_string() == "198.51.100.10");
    let failed = net.call(&request(0, 5377, 3000)).expect_err("it is aborted");
    assert_eq!(failed.abort_code(), Some(5377), "{failed}");
    let stats = net.gateway.stats();
    assert_eq!(stats.calls.accepted, 0, "a call ended at the gateway");
    assert_eq!((stats.relay.clients, stats.relay.connected), (1, 1), "{:?}", stats.relay);
    let moved = 200 * (100_000 + 4 + 1412) / 4;
    assert!(stats.relay.bytes_to_clients > moved && stats.relay.packets_to_clients > 1000);
    let report = net.finish();
    assert_eq!(report.stats.ledger.imbalance, 0);
    assert!(report.stats.relay.closes() && report.stats.relay.connections == 0);
}

#[test]
fn with_several_cores_the_way_back_comes_to_the_core_that_has_the_client() {
    let mut net = start("relay-cores", "cores = 2");
    for host in 100..124 {
        net.replace_client(host);
        for _ in 0..5 {
            let request = request(20_000, 0, 5_000 + host);
            assert!(net.call(&request).expect("a reply") == reply_to(&request), "other bytes");
        }
        if net.gateway.engine_stats().cores.iter().all(|core| core.ledger.delivered > 100) {
            break;
        }
    }
    let engine = net.gateway.engine_stats();
    assert!(engine.cores.iter().all(|core| core.ledger.delivered > 100), "a core did nothing: {engine:?}");
    assert!(net.gateway.stats().drops.keys().all(|name| !name.starts_with("relay")), "{engine:?}");
    net.finish();
}

#[test]
fn when_a_backend_dies_its_connections_end_and_new_ones_go_elsewhere() {
    let mut net = start("relay-dead", "");
    net.call(&request(4, 0, 10)).expect("a reply");
    let first = usize::from(net.gateway.stats().backends[0].outstanding == 0);
    net.serving[first] = None;
    net.wait_for("it is dead", |stats| !stats.backends[first].alive);
    let failed = net.call(&request(4, 0, 10)).expect_err("its connection is aborted");
    assert_eq!(failed.abort_code(), Some(code::CALL_DEAD), "{failed}");
    for _ in 0..20 {
        net.call(&request(4, 0, 10)).expect("the other one answers");
    }
    let report = net.finish();
    assert!(report.stats.relay.aborts > 0 && report.stats.drops["relay_backend_dead"] > 0);
}

/// Everything in the header and behind it that a relay could be tempted to touch.
fn packet(kind: u8, flags: u8, cid: u32, payload: usize, seed: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xdead_beef, cid, 7, 1, 0x0102_0304] {
        bytes.extend(u32::to_be_bytes(word));
    }
    bytes.extend([kind, flags, 0x5a, 2, 0xab, 0xcd, 0, 147]);
    bytes.extend((0..payload).map(|at| (at as u8).wrapping_mul(37) ^ (at >> 8) as u8 ^ seed));
    bytes
}

/// The next packet that is no VERSION; those are answered, so that the server stays alive.
fn hear(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    loop {
        let (len, from) = socket.recv_timeout(Duration::from_secs(5), &mut buffer).expect("a packet");
        if buffer[20] != 13 {
            return (buffer[..len].to_vec(), from);
        }
        buffer[21] &= !1;
        socket.send_to(&buffer[..93], from).expect("sent");
    }
}

/// No byte of any packet changes, in fragments neither; the client sees the listener alone, the server a port of ours.
#[test]
fn every_byte_of_rx_stays() {
    const NAME: &str = "relay-bytes";
    let gateway = Gateway::start(config(NAME, "", "cores = 2", "relay"), Vec::new()).expect("it starts");
    let engine = |end: &str, address: &str, more: &str| {
        let builder = Engine::builder().name(end).port(format!("memory:{NAME}{end}")).address(address);
        builder.address(more).core_count(2).start().expect("an engine")
    };
    let clients = engine("c", "192.0.2.200/24", "192.0.2.201/24");
    let servers = engine("s", "198.51.100.1/24", "198.51.100.2/24");
    let client = clients.udp().bind("192.0.2.200:7001".parse().expect("address")).expect("binds");
    let bound: Vec<UdpSocket> =
        (0..2).map(|n| servers.udp().bind(server_address(n)).expect("binds")).collect();
    let mut seen = Vec::new();
    for (n, payload) in [0, 4, 100, 1412, 5000, 20_000].into_iter().enumerate() {
        let sent = packet(1, 1, 0x40 * (n as u32 + 1), payload, n as u8);
        client.send_to(&sent, gateway_address()).expect("sent");
        // Whichever was chosen.
        let (server, (got, from)) = std::thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel();
            for (index, socket) in bound.iter().enumerate() {
                let tell = tell.clone();
                scope.spawn(move || {
                    let mut buffer = vec![0; 65_536];
                    for _ in 0..200 {
                        match socket.recv_timeout(Duration::from_millis(5), &mut buffer) {
                            Ok((len, from)) if buffer[20] != 13 => {
                                let _ = tell.send((index, (buffer[..len].to_vec(), from)));
                                return;
                            }
                            Ok((_, from)) => {
                                buffer[21] &= !1;
                                let _ = socket.send_to(&buffer[..93], from);
                            }
                            Err(_) => {}
                        }
                    }
                });
            }
            drop(tell);
            told.recv().expect("one of the servers got it")
        });
        assert!(got == sent, "{payload} bytes: the request has changed on its way");
        assert_eq!(from.ip().to_string(), "198.51.100.10");
        seen.push((server, from));
        // Its reply, an odd packet of a connection that nobody knows, and a call of its own.
        for (flags, cid) in [(0, 0x40 * (n as u32 + 1)), (0, 0x7000_0000), (1, 0x6000_0000 + 4 * n as u32)] {
            let back = packet(1, flags, cid, payload, 0x80 | n as u8);
            bound[server].send_to(&back, from).expect("sent");
            let (got, from) = hear(&client);
            assert!(got == back, "{payload} bytes: the reply has changed on its way");
            assert_eq!(from, gateway_address());
        }
        // The client answers that call: it finds its way without being the client of it.
        let answer = packet(2, 0, 0x6000_0000 + 4 * n as u32, payload, n as u8);
        client.send_to(&answer, gateway_address()).expect("sent");
        let (got, again) = hear(&bound[server]);
        assert!(got == answer && again == from, "{payload} bytes: the answer has changed on its way");
    }
    for server in 0..2 {
        let ports: Vec<_> = seen.iter().filter(|(index, _)| *index == server).map(|(_, from)| from).collect();
        assert!(ports.windows(2).all(|pair| pair[0] == pair[1]), "one client, one port: {ports:?}");
    }
    let report = gateway.drain(Duration::from_secs(5), |_| true);
    drop((client, bound));
    assert!(clients.shutdown().leaks().is_empty() && servers.shutdown().leaks().is_empty());
    assert_eq!(report.leaks(), [""; 0]);
    assert_eq!(report.stats.relay.called_back, 6);
    assert_eq!(report.stats.ledger.imbalance, 0);
}
