//! Noise: random and mutated packets, hundreds of thousands of them, while real calls go on. No panic, no growth, and
//! every datagram is accounted for.

mod common;

use common::{Faults, Net, Rerun, seeds};
use rxrpc::wire::{Cid, Flags, Header, PacketType};
use rxrpc::{CallOptions, Completion, EndpointConfig, Event, ServiceConfig, Target};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const PACKETS: usize = 200_000;
const SERVICE: u16 = 147;

struct Noise {
    net: Net,
    /// Packets of real calls, to be mutated.
    seen: Rc<RefCell<Vec<Vec<u8>>>>,
    done: usize,
    begun: usize,
    /// How the client's other calls ended.
    ends: std::collections::HashMap<String, usize>,
}

impl Noise {
    fn new(seed: u64) -> Self {
        let config = EndpointConfig {
            conns_max: 500,
            calls_max: 8_000,
            peers_max: 300,
            unread_buffers_max: 1_000,
            send_buffers_max: 1_000,
            ..EndpointConfig::default()
        };
        let mut net = Net::new(seed, Faults::none(50), vec![EndpointConfig::default(), config], 4_096);
        let server = &mut net.nodes[1];
        server.rx.listen(server.local, ServiceConfig::new(SERVICE)).unwrap();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let tape = seen.clone();
        net.tap = Some(Box::new(move |_, bytes| {
            let mut tape: std::cell::RefMut<'_, Vec<Vec<u8>>> = tape.borrow_mut();
            if tape.len() > 64 {
                tape.remove(0);
            }
            tape.push(bytes.to_vec());
            true
        }));
        Self { net, seen, done: 0, begun: 0, ends: Default::default() }
    }

    /// A packet nobody meant: pure noise, a plausible header with noise behind it, or a real packet with some bits wrong.
    fn junk(&mut self) -> Vec<u8> {
        let random = &mut self.net.random;
        let seen = self.seen.borrow();
        if random.u8(..) < 40 || seen.is_empty() {
            return (0..random.usize(..200)).map(|_| random.u8(..)).collect();
        }
        if random.u8(..) < 100 {
            let kinds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13];
            let header = Header {
                epoch: random.u32(..4),
                cid: Cid(random.u32(..64)),
                call: random.u32(..4),
                seq: random.u32(..6),
                serial: random.u32(..),
                flags: Flags(random.u8(..)),
                service: if random.u8(..) < 200 { SERVICE } else { random.u16(..) },
                security_index: if random.u8(..) < 240 { 0 } else { random.u8(..) },
                ..Header::new(PacketType::from_u8(kinds[random.usize(..kinds.len())]).unwrap())
            };
            let body: Vec<u8> = (0..random.usize(..64)).map(|_| random.u8(..)).collect();
            return [&header.to_bytes()[..], &body].concat();
        }
        let mut bytes = seen[random.usize(..seen.len())].clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes[at] = random.u8(..),
                _ => bytes[at] ^= 1 << random.u8(..8),
            }
        }
        bytes
    }

    fn throw(&mut self, to: usize) {
        let bytes = self.junk();
        let random = &mut self.net.random;
        // Now and then from the other node's own address, so that it may hit a real connection; mutated copies of real
        // packets end real calls then, since nothing signs them.
        let from = match random.u8(..) {
            0 => self.net.nodes[1 - to].addr,
            _ => SocketAddr::from(([10, 1, random.u8(..), random.u8(..)], random.u16(1..))),
        };
        let node = &mut self.net.nodes[to];
        let Some(packet) = node.pool.copy_from(&bytes) else { panic!("the pool is empty: something grows") };
        let _ = node.rx.input(self.net.now, &mut node.pool, node.local, from, packet);
    }

    fn begin(&mut self) {
        let target = Target::new(self.net.nodes[1].addr, SERVICE);
        let node = &mut self.net.nodes[0];
        let call = node.rx.begin(self.net.now, node.local, target, CallOptions::default()).unwrap();
        node.rx.send(self.net.now, &mut node.pool, call, &[7; 3_000], false).unwrap();
        self.begun += 1;
    }

    /// Both users: the server echoes the length, the client counts what ended well. Calls of nobody's are taken too.
    fn users(&mut self) {
        for at in 0..2 {
            let node = &mut self.net.nodes[at];
            while let Some(event) = node.rx.poll_event() {
                match event {
                    Event::Readable { call } => {
                        let mut out = [0; 20_000];
                        if let Ok(recv) = node.rx.recv(self.net.now, call, &mut out)
                            && at == 1
                            && !recv.more
                        {
                            let _ = node.rx.send(self.net.now, &mut node.pool, call, b"done", false);
                        }
                    }
                    Event::Complete { call, completion } => {
                        self.done += usize::from(at == 0 && completion == Completion::Succeeded);
                        if at == 0 {
                            *self.ends.entry(completion.to_string()).or_default() += 1;
                        }
                        node.rx.release(self.net.now, call);
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn noise_breaks_nothing() {
    for seed in seeds(0..1) {
        let _rerun = Rerun { test: "noise", seed };
        let mut noise = Noise::new(seed);
        for round in 0..PACKETS / 50 {
            if round % 20 == 0 {
                noise.begin();
            }
            for _ in 0..25 {
                noise.throw(0);
                noise.throw(1);
            }
            noise.users();
            noise.net.run_for(Duration::from_micros(500));
            noise.users();
            let server = &noise.net.nodes[1].rx;
            assert!(server.conns().count() <= 500 && server.peers().count() <= 300);
            assert!(server.buffers_held().0 <= 1_000 + 2 * server.calls().count(), "unread data grows");
        }
        for _ in 0..200 {
            noise.net.run_for(Duration::from_millis(200));
            noise.users();
        }
        // Mutated copies of real packets may abort real calls: nothing signs them. Most get through.
        assert!(
            noise.done * 10 >= noise.begun * 5,
            "{} of {} real calls succeeded: {:?}",
            noise.done,
            noise.begun,
            noise.ends
        );
        for node in &noise.net.nodes {
            assert!(node.rx.stats().datagrams >= PACKETS as u64 / 2);
            assert!(node.rx.stats().ledger_closes(), "{:?}", node.rx.stats());
            assert!(node.rx.stats().drops_named().count() >= 10, "the noise is too tame");
        }
        noise.net.assert_clean();
        noise.net.assert_reaped();
    }
}
