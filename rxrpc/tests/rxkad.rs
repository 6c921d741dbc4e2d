//! rxkad from end to end: two endpoints in virtual time, all levels, a bad wire, and everything that can be wrong with a proof.

mod common;

use common::{Faults, Net, Rerun, seeds, stretch};
use rxrpc::security::{DesKey, Enctype, Krb5Key, rxkad_code};
use rxrpc::wire::{HEADER_LEN, Header, PacketType};
use rxrpc::{
    CallError, CallId, CallOptions, Completion, Credentials, EndpointConfig, Event, Level, RxDrop, Security,
    ServerKeys, ServiceConfig, Target, Timeout, Token, code,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const CLIENT: usize = 0;
const SERVER: usize = 1;
const SERVICE: u16 = 147;
const LEVELS: [Level; 3] = [Level::Clear, Level::Auth, Level::Encrypt];

fn des_keys() -> ServerKeys {
    ServerKeys::new().with_des(4, DesKey::new(*b"\x80\xb6\xa7\xcd\x7a\x9d\xad\xb6").unwrap())
}

fn krb5_keys() -> ServerKeys {
    ServerKeys::new().with_krb5(Krb5Key::new(9, Enctype::Aes256, &[0x42; 32]).unwrap())
}

/// Forged tickets are good from about now on.
fn today() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

struct Pair {
    net: Net,
    calls: Vec<Running>,
    ended: Vec<(CallId, Completion)>,
}

/// One side of a call: it sends all of a stream, and receives all of another.
struct Running {
    node: usize,
    id: CallId,
    out: Vec<u8>,
    sent: usize,
    got: Vec<u8>,
    done: bool,
}

impl Pair {
    fn new(seed: u64, faults: Faults, security: Security) -> Self {
        Self::with_config(seed, faults, security, EndpointConfig::default())
    }

    fn with_config(seed: u64, faults: Faults, security: Security, config: EndpointConfig) -> Self {
        let mut net = Net::new(seed, faults, vec![EndpointConfig::default(), config], 4_096);
        net.nodes[SERVER].listen(ServiceConfig { security, ..ServiceConfig::new(SERVICE) });
        Self { net, calls: Vec::new(), ended: Vec::new() }
    }

    fn begin(&mut self, credentials: Option<&Credentials>, request: Vec<u8>) -> CallId {
        self.begin_with(CallOptions { credentials: credentials.cloned(), ..CallOptions::default() }, request)
    }

    fn begin_with(&mut self, options: CallOptions, request: Vec<u8>) -> CallId {
        let target = Target::new(self.net.nodes[SERVER].addr, SERVICE);
        let node = &mut self.net.nodes[CLIENT];
        let id = node.rx.begin(self.net.now, node.local, target, options).unwrap();
        self.calls.push(Running { node: CLIENT, id, out: request, sent: 0, got: Vec::new(), done: false });
        self.push(self.calls.len() - 1);
        id
    }

    fn push(&mut self, at: usize) {
        let call = &mut self.calls[at];
        let node = &mut self.net.nodes[call.node];
        if !call.done {
            let sent = node.rx.send(self.net.now, &mut node.pool, call.id, &call.out[call.sent..], false);
            call.sent += sent.unwrap_or(0);
            call.done = call.sent == call.out.len();
        }
    }

    /// The server answers a request with its bytes the other way round, and as many more as the first four say, within reason.
    fn reply(request: &[u8]) -> Vec<u8> {
        let more = u32::from_be_bytes(*request.first_chunk().unwrap_or(&[0; 4])) as usize;
        let more = if more > 4_000_000 { 0 } else { more };
        request.iter().rev().copied().chain(stretch(9, 0, more)).collect()
    }

    fn turn(&mut self) -> bool {
        for node in [CLIENT, SERVER] {
            while let Some(event) = self.net.nodes[node].rx.poll_event() {
                self.event(node, event);
            }
        }
        self.net.step()
    }

    fn event(&mut self, node: usize, event: Event) {
        match event {
            Event::Incoming { call, .. } => {
                self.calls.push(Running { node, id: call, out: vec![], sent: 0, got: vec![], done: true });
            }
            Event::Readable { call } => self.read(node, call),
            Event::Writable { call } => {
                let at = self.calls.iter().position(|c| c.id == call && c.node == node).unwrap();
                self.push(at);
            }
            Event::Complete { call, completion } => {
                if completion == Completion::Succeeded {
                    self.read(node, call);
                }
                if node == CLIENT {
                    self.ended.push((call, completion));
                }
                self.net.nodes[node].rx.release(self.net.now, call);
            }
            _ => {}
        }
    }

    fn read(&mut self, node: usize, id: CallId) {
        let Some(at) = self.calls.iter().position(|call| call.id == id && call.node == node) else { return };
        let mut buffer = [0; 4_096];
        loop {
            let read = self.net.nodes[node].rx.recv(self.net.now, id, &mut buffer);
            let Ok(read) = read else { return };
            let call = &mut self.calls[at];
            call.got.extend(&buffer[..read.bytes]);
            if !read.more && node == SERVER {
                (call.out, call.done) = (Self::reply(&call.got), false);
                self.push(at);
                return;
            }
            if read.bytes == 0 || !read.more {
                return;
            }
        }
    }

    /// Until every client call has ended.
    fn run(&mut self) {
        let wanted = self.calls.iter().filter(|call| call.node == CLIENT).count();
        for _ in 0..2_000_000 {
            if self.ended.len() >= wanted || !self.turn() {
                return;
            }
        }
        panic!("no end");
    }

    fn got(&self, id: CallId) -> &[u8] {
        &self.calls.iter().find(|call| call.id == id && call.node == CLIENT).unwrap().got
    }

    fn completion(&self, id: CallId) -> Completion {
        self.ended.iter().find(|(ended, _)| *ended == id).unwrap().1
    }

    fn dropped(&self, reason: RxDrop) -> u64 {
        self.net.nodes[SERVER].rx.stats().dropped(reason)
    }

    /// Nothing is left of anything.
    fn assert_clean(&mut self) {
        for _ in 0..10_000 {
            let events = self.net.nodes.iter_mut().any(|node| !node.rx.is_idle());
            if !events || !self.turn() {
                break;
            }
        }
        self.net.assert_clean();
        self.net.assert_reaped();
    }
}

/// What passes the wire, and whether packets of a kind pass at all.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<Log>>);

/// What passed, and how many of a kind are still to be lost.
type Log = (Vec<Seen>, Vec<(PacketType, usize)>);
/// Who sent a packet, and its bytes.
type Seen = (usize, Vec<u8>);

impl Wire {
    /// Sees everything on `net`; the first `count` packets of a kind are lost.
    fn tap(net: &mut Net, lose: &[(PacketType, usize)]) -> Self {
        let wire = Self(Rc::new(RefCell::new((Vec::new(), lose.to_vec()))));
        let seen = wire.clone();
        net.tap = Some(Box::new(move |from, bytes| {
            let (log, lose) = &mut *seen.0.borrow_mut();
            log.push((from, bytes.to_vec()));
            let kind = Header::parse(bytes).unwrap().0.packet_type;
            match lose.iter_mut().find(|(lost, left)| *lost == kind && *left > 0) {
                Some((_, left)) => {
                    *left -= 1;
                    false
                }
                None => true,
            }
        }));
        wire
    }

    fn of(&self, kind: PacketType) -> Vec<Seen> {
        let packets = self.0.borrow();
        packets.0.iter().filter(|(_, bytes)| bytes[20] == kind as u8).cloned().collect()
    }
}

const ALL: usize = usize::MAX;

fn request(reply_more: u32, len: usize) -> Vec<u8> {
    let mut bytes = stretch(3, 0, len);
    for (to, byte) in bytes.iter_mut().zip(reply_more.to_be_bytes()) {
        *to = byte;
    }
    bytes
}

#[test]
fn every_level_carries_every_size_both_ways() {
    for level in LEVELS {
        let keys = des_keys();
        let credentials = Credentials::local(&keys, level).unwrap();
        let mut pair = Pair::new(1, Faults::none(100), Security::rxkad(keys));
        let sizes =
            [1, 3, 4, 7, 8, 1_404, 1_407, 1_408, 1_409, 1_412, 1_413, 1_416, 2_816, 2_817, 50_000, 1_000_000];
        for size in sizes {
            let bytes = request(if size < 4 { 0 } else { size as u32 * 2 }, size);
            // Below four bytes the first ones are the count of more: a large one would be too much of a reply.
            let bytes = if size < 4 { vec![0; size] } else { bytes };
            let id = pair.begin(Some(&credentials), bytes.clone());
            pair.run();
            assert_eq!(pair.completion(id), Completion::Succeeded, "{level} {size}");
            assert!(pair.got(id) == Pair::reply(&bytes), "{level} {size}: other bytes");
        }
        let [client, server] = [CLIENT, SERVER].map(|node| pair.net.nodes[node].rx.conns().next().unwrap());
        assert_eq!((client.security, client.level, server.level), (2, Some(level), Some(level)));
        pair.assert_clean();
    }
}

#[test]
fn a_bad_wire_costs_time_only() {
    for seed in seeds(0..20) {
        let _rerun = Rerun { test: "rxkad", seed };
        for level in LEVELS {
            let faults = Faults {
                loss: 0.05,
                duplication: 0.05,
                reorder: 0.1,
                corruption: 0.02,
                delay: Duration::from_millis(5),
                jitter: Duration::from_millis(2),
            };
            let keys = if seed % 2 == 0 { des_keys() } else { krb5_keys() };
            let credentials = Credentials::local(&keys, level).unwrap();
            let mut pair = Pair::new(seed, faults, Security::rxkad(keys).at_least(level));
            pair.net.nodes[SERVER].rx.set_unix_time(pair.net.now, today());
            let calls: Vec<_> = (0..6_u32)
                .map(|i| {
                    let bytes = request(i * 30_000, 5 + i as usize * 20_000);
                    (pair.begin(Some(&credentials), bytes.clone()), bytes)
                })
                .collect();
            pair.run();
            for (id, bytes) in calls {
                assert_eq!(pair.completion(id), Completion::Succeeded, "{level}");
                assert!(pair.got(id) == Pair::reply(&bytes), "{level}: other bytes");
            }
            pair.assert_clean();
        }
    }
}

#[test]
fn encrypted_payload_is_not_on_the_wire_and_clear_payload_is() {
    let secret = b"attack at dawn, attack at dawn, attack at dawn";
    for (level, visible) in [(Level::Clear, true), (Level::Auth, true), (Level::Encrypt, false)] {
        let keys = des_keys();
        let credentials = Credentials::local(&keys, level).unwrap();
        let mut pair = Pair::new(2, Faults::none(100), Security::rxkad(keys));
        let wire = Wire::tap(&mut pair.net, &[]);
        let id = pair.begin(Some(&credentials), [&[0; 4][..], secret].concat());
        pair.run();
        assert_eq!(pair.completion(id), Completion::Succeeded);
        let data = wire.of(PacketType::Data);
        let seen = data.iter().any(|(_, bytes)| bytes.windows(16).any(|window| secret[..16] == *window));
        assert_eq!(seen, visible, "{level}");
        assert!(data.iter().all(|(_, bytes)| bytes[24..26] != [0, 0]), "each packet has its checksum");
    }
}

#[test]
fn the_service_learns_who_calls() {
    for keys in [des_keys(), krb5_keys()] {
        let token = Token::forge_for(&keys, "someone", "admin").unwrap();
        let mut pair = Pair::new(3, Faults::none(100), Security::rxkad(keys));
        pair.net.nodes[SERVER].rx.set_unix_time(pair.net.now, today());
        pair.begin(Some(&Credentials::rxkad(token, Level::Auth)), b"hello".to_vec());
        let call = loop {
            assert!(pair.net.step());
            if let Some(Event::Incoming { call, .. }) = pair.net.nodes[SERVER].rx.poll_event() {
                break call;
            }
        };
        let rx = &pair.net.nodes[SERVER].rx;
        let identity = rx.identity(call).unwrap();
        assert_eq!((identity.to_string().as_str(), identity.level), ("someone.admin", Level::Auth));
        assert_eq!(rx.call(call).unwrap().identity.as_ref(), Some(identity));
    }
}

#[test]
fn a_service_that_wants_proof_takes_no_call_without_and_one_that_does_not_takes_none_with() {
    let credentials = Credentials::local(&des_keys(), Level::Auth).unwrap();
    for (security, credentials) in
        [(Security::rxkad(des_keys()), None), (Security::none(), Some(&credentials))]
    {
        let mut pair = Pair::new(4, Faults::none(100), security);
        let id = pair.begin(credentials, b"hello".to_vec());
        pair.run();
        assert_eq!(pair.completion(id), Completion::RemoteAbort(code::INVALID_OPERATION));
        assert_eq!(pair.dropped(RxDrop::UnknownSecurity), 1);
        pair.assert_clean();
    }
    let mut pair = Pair::new(4, Faults::none(100), Security::rxkad(des_keys()).or_none());
    let (with, without) = (pair.begin(Some(&credentials), vec![0; 9]), pair.begin(None, vec![0; 9]));
    pair.run();
    assert_eq!(
        (pair.completion(with), pair.completion(without)),
        (Completion::Succeeded, Completion::Succeeded)
    );
}

/// Rule 8: a lost CHALLENGE or RESPONSE does not hang a call.
#[test]
fn a_lost_challenge_is_repeated_with_back_off() {
    for (lost, kind) in [(3, PacketType::Challenge), (3, PacketType::Response)] {
        let keys = des_keys();
        let credentials = Credentials::local(&keys, Level::Encrypt).unwrap();
        let mut pair = Pair::new(5, Faults::none(100), Security::rxkad(keys));
        let wire = Wire::tap(&mut pair.net, &[(kind, lost)]);
        let began = pair.net.now;
        let id = pair.begin(Some(&credentials), b"hello".to_vec());
        pair.run();
        assert_eq!(pair.completion(id), Completion::Succeeded, "{kind:?}");
        assert!(pair.net.now - began < Duration::from_secs(5), "{:?}", pair.net.now - began);
        let challenges = wire.of(PacketType::Challenge);
        assert_eq!(challenges.len(), lost + 1);
        assert!(challenges.windows(2).all(|pair| pair[0].1[28..] == pair[1].1[28..]), "the same question");
        pair.assert_clean();
    }
}

#[test]
fn a_client_that_never_answers_is_let_go_without_a_word() {
    let keys = des_keys();
    let credentials = Credentials::local(&keys, Level::Encrypt).unwrap();
    let mut pair = Pair::new(6, Faults::none(100), Security::rxkad(keys));
    let wire = Wire::tap(&mut pair.net, &[(PacketType::Response, ALL)]);
    let id = pair.begin(Some(&credentials), b"hello".to_vec());
    for _ in 0..1_000 {
        pair.turn();
        assert!(pair.calls.iter().all(|call| call.node == CLIENT), "nobody hears of such a call");
        if pair.net.nodes[SERVER].rx.conns().next().is_none() && !wire.of(PacketType::Challenge).is_empty() {
            break;
        }
    }
    assert_eq!(pair.net.nodes[SERVER].rx.conns().count(), 0);
    assert_eq!(wire.of(PacketType::Abort).len(), 0);
    assert_eq!(
        pair.net.nodes[SERVER].rx.locals().next().unwrap().services[0].1,
        32,
        "its accept is charged again"
    );
    let questions = wire.of(PacketType::Challenge).len();
    assert!((4..=16).contains(&questions), "{questions}");
    pair.net.nodes[CLIENT].rx.release(pair.net.now, id);
    // Its abort finds nobody.
    pair.assert_clean();
}

/// Rule 8: connections whose client has not proved anything are few.
#[test]
fn connections_without_proof_are_limited() {
    let keys = des_keys();
    let config = EndpointConfig { unsecured_conns_max: 2, ..EndpointConfig::default() };
    let mut pair = Pair::with_config(7, Faults::none(100), Security::rxkad(keys.clone()), config);
    let _wire = Wire::tap(&mut pair.net, &[(PacketType::Response, ALL)]);
    for _ in 0..4 {
        let credentials = Credentials::local(&keys, Level::Clear).unwrap();
        pair.begin(Some(&credentials), b"hello".to_vec());
    }
    for _ in 0..10 {
        pair.turn();
    }
    assert_eq!(pair.net.nodes[SERVER].rx.conns().count(), 2);
    assert!(pair.dropped(RxDrop::Limit) >= 2);
    // The time of those two comes, and then the others'.
    pair.net.tap = None;
    pair.run();
    let served = pair.ended.iter().filter(|(_, end)| *end == Completion::Succeeded).count();
    assert!(served >= 2, "{:?}", pair.ended);
    pair.assert_clean();
}

#[test]
fn calls_with_other_credentials_have_other_connections() {
    let keys = des_keys();
    let [a, b] = [0, 1].map(|_| Credentials::local(&keys, Level::Auth).unwrap());
    let mut pair = Pair::new(8, Faults::none(100), Security::rxkad(keys).or_none());
    for credentials in [Some(&a), Some(&b), Some(&a), None, Some(&a.clone())] {
        pair.begin(credentials, b"hello".to_vec());
    }
    pair.run();
    assert_eq!(pair.net.nodes[CLIENT].rx.conns().count(), 3);
    pair.assert_clean();
}

#[test]
fn a_level_that_is_too_low_is_given_up_by_the_client() {
    let keys = des_keys();
    let credentials = Credentials::local(&keys, Level::Clear).unwrap();
    let mut pair = Pair::new(9, Faults::none(100), Security::rxkad(keys).at_least(Level::Encrypt));
    let wire = Wire::tap(&mut pair.net, &[]);
    let id = pair.begin(Some(&credentials), b"hello".to_vec());
    pair.run();
    assert_eq!(pair.completion(id), Completion::LocalAbort(rxkad_code::LEVEL_FAIL));
    assert!(wire.of(PacketType::Response).is_empty());
}

/// A pair whose client's RESPONSE is held back: a connection that waits for it, the RESPONSE, and the client's DATA.
/// Linux's server looks its key up by the service that the RESPONSE names, and takes none that names the old one.
#[test]
fn the_response_to_an_upgraded_server_names_the_new_service() {
    const NEW_SERVICE: u16 = 2147;
    for level in LEVELS {
        let credentials = Credentials::local(&des_keys(), level).unwrap();
        let mut pair = Pair::new(15, Faults::none(100), Security::rxkad(des_keys()));
        let security = Security::rxkad(des_keys());
        pair.net.nodes[SERVER].listen(ServiceConfig { security, ..ServiceConfig::new(NEW_SERVICE) });
        let server = &mut pair.net.nodes[SERVER];
        server.rx.set_upgrade(server.local, SERVICE, Some(NEW_SERVICE)).unwrap();
        let wire = Wire::tap(&mut pair.net, &[]);
        let bytes = request(500, 500);
        let options = CallOptions { credentials: Some(credentials), upgrade: true, ..CallOptions::default() };
        let id = pair.begin_with(options, bytes.clone());
        pair.run();
        assert_eq!(pair.completion(id), Completion::Succeeded, "{level}");
        assert!(pair.got(id) == Pair::reply(&bytes), "{level}: other bytes");
        let named =
            |kind| wire.of(kind).iter().map(|(_, bytes)| Header::parse(bytes).unwrap().0.service).collect();
        let (challenges, responses): (Vec<_>, Vec<_>) =
            (named(PacketType::Challenge), named(PacketType::Response));
        assert_eq!((&*challenges, &*responses), (&[NEW_SERVICE][..], &[NEW_SERVICE][..]), "{level}");
        pair.assert_clean();
    }
}

fn held_back(keys: ServerKeys, level: Level) -> (Pair, Wire, CallId, Vec<u8>) {
    let credentials = Credentials::local(&keys, level).unwrap();
    let mut pair = Pair::new(10, Faults::none(100), Security::rxkad(des_keys()));
    let wire = Wire::tap(&mut pair.net, &[(PacketType::Response, ALL)]);
    let id = pair.begin(Some(&credentials), b"hello".to_vec());
    while wire.of(PacketType::Response).is_empty() {
        assert!(pair.turn());
    }
    let response = wire.of(PacketType::Response)[0].1.clone();
    pair.net.tap = None;
    (pair, wire, id, response)
}

impl Pair {
    /// The client's address sends these bytes to the server, which gets them at once.
    fn inject(&mut self, bytes: &[u8]) -> Result<(), RxDrop> {
        let from = self.net.nodes[CLIENT].addr;
        let now = self.net.now;
        let node = &mut self.net.nodes[SERVER];
        // In segments, as jumbo frames and fragments come.
        let mut packet = node.pool.copy_from(&bytes[..bytes.len().min(40)]).unwrap();
        for part in bytes[packet.len()..].chunks(40.max(bytes.len() / 12)) {
            packet.chain(node.pool.copy_from(part).unwrap());
        }
        node.rx.input(now, &mut node.pool, node.local, from, packet)
    }
}

/// Rule 7: a RESPONSE is looked at where one was asked for, once.
#[test]
fn a_response_that_nobody_asked_for_is_refused() {
    let (mut pair, _, id, response) = held_back(des_keys(), Level::Auth);
    // Of a connection that does not exist.
    let mut stranger = response.clone();
    stranger[4] ^= 0x55;
    assert_eq!(pair.inject(&stranger), Err(RxDrop::NoConnection));
    assert_eq!(pair.inject(&response), Ok(()));
    assert_eq!(pair.inject(&response), Err(RxDrop::ResponseUnasked), "once");
    pair.run();
    assert_eq!(pair.completion(id), Completion::Succeeded);
    assert_eq!(pair.inject(&response), Err(RxDrop::ResponseUnasked), "and not after a call");
    pair.assert_clean();
}

#[test]
fn a_response_to_a_connection_without_security_is_refused() {
    let mut pair = Pair::new(11, Faults::none(100), Security::none());
    let wire = Wire::tap(&mut pair.net, &[]);
    pair.begin(None, b"hello".to_vec());
    pair.run();
    let (_, data) = wire.of(PacketType::Data).remove(0);
    let (header, _) = Header::parse(&data).unwrap();
    let header = Header { call: 0, seq: 0, ..Header { packet_type: PacketType::Response, ..header } };
    assert_eq!(pair.inject(&[&header.to_bytes()[..], &[0; 96]].concat()), Err(RxDrop::ResponseUnasked));
    pair.assert_clean();
}

#[test]
fn a_response_before_its_challenge_has_left_is_refused() {
    let (mut pair, wire, _, response) = held_back(des_keys(), Level::Auth);
    let (_, data) = wire.of(PacketType::Data).remove(0);
    // Another connection, which the server has not had the chance to question.
    let [data, response] = [data, response].map(|mut bytes| {
        bytes[4] ^= 0x40;
        bytes
    });
    assert_eq!(pair.inject(&data), Ok(()));
    assert_eq!(pair.inject(&response), Err(RxDrop::ResponseUnasked));
    pair.run();
}

/// What a stranger claims is neither read nor answered, not even by a user who picks the call from a listing.
#[test]
fn a_call_whose_client_has_proved_nothing_is_nobodys() {
    let (mut pair, wire, id, response) = held_back(des_keys(), Level::Encrypt);
    let now = pair.net.now;
    let node = &mut pair.net.nodes[SERVER];
    let call = node.rx.calls().next().expect("the server has it").id;
    let refused = CallError::Unannounced(call);
    assert_eq!(node.rx.send(now, &mut node.pool, call, b"secret", false), Err(refused));
    assert_eq!(node.rx.recv(now, call, &mut [0; 8]), Err(refused));
    assert_eq!(pair.inject(&response), Ok(()));
    pair.run();
    assert_eq!(pair.completion(id), Completion::Succeeded);
    assert!(wire.of(PacketType::Data).iter().all(|(_, data)| !data.windows(6).any(|part| part == b"secret")));
    pair.assert_clean();
}

/// Rule 7: lengths come first, and what is too short or too long costs its sender nothing but the packet.
#[test]
fn a_truncated_response_is_refused_and_the_client_may_still_answer() {
    let (mut pair, _, id, response) = held_back(des_keys(), Level::Encrypt);
    for len in HEADER_LEN..response.len() {
        assert_eq!(pair.inject(&response[..len]), Err(RxDrop::ResponseShort), "{len} bytes");
    }
    assert_eq!(pair.inject(&response), Ok(()));
    pair.run();
    assert_eq!(pair.completion(id), Completion::Succeeded);
    pair.assert_clean();
}

#[test]
fn an_oversized_response_or_ticket_is_refused() {
    let (mut pair, _, id, mut response) = held_back(des_keys(), Level::Encrypt);
    let huge = [&response[..], &[0; 13_000]].concat();
    assert_eq!(pair.inject(&huge), Err(RxDrop::ResponseLong));
    // The ticket's length, at the end of the fixed part.
    response[HEADER_LEN + 52..HEADER_LEN + 56].copy_from_slice(&0x7fff_ffff_u32.to_be_bytes());
    assert_eq!(pair.inject(&response), Err(RxDrop::ResponseLong));
    pair.run();
    assert_eq!(pair.completion(id), Completion::RemoteAbort(rxkad_code::TICKET_LEN));
    pair.assert_clean();
}

#[test]
fn a_response_to_another_challenge_is_refused_as_replayed() {
    let (_, _, _, old) = held_back(des_keys(), Level::Encrypt);
    let keys = des_keys();
    // The same client and connection id, but another server: its CHALLENGE has another nonce.
    let credentials = Credentials::local(&keys, Level::Encrypt).unwrap();
    let mut pair = Pair::new(10, Faults::none(100), Security::rxkad(keys));
    let mut other = Net::new(99, Faults::none(100), vec![EndpointConfig::default(); 2], 64);
    std::mem::swap(&mut pair.net.nodes[SERVER].rx, &mut other.nodes[SERVER].rx);
    let local = pair.net.nodes[SERVER].local;
    pair.net.nodes[SERVER]
        .rx
        .listen(local, ServiceConfig { security: Security::rxkad(des_keys()), ..ServiceConfig::new(SERVICE) })
        .unwrap();
    let wire = Wire::tap(&mut pair.net, &[(PacketType::Response, ALL)]);
    let id = pair.begin(Some(&credentials), b"hello".to_vec());
    while wire.of(PacketType::Response).is_empty() {
        assert!(pair.turn());
    }
    pair.net.tap = None;
    assert_eq!(wire.of(PacketType::Response)[0].1[..12], old[..12], "the same connection");
    assert_eq!(pair.inject(&old), Err(RxDrop::ResponseReplayed));
    pair.run();
    assert_eq!(pair.completion(id), Completion::RemoteAbort(rxkad_code::OUT_OF_SEQUENCE));
    pair.assert_clean();
}

#[test]
fn a_response_of_another_connection_is_refused_as_replayed() {
    let (mut pair, _, _, response) = held_back(des_keys(), Level::Encrypt);
    let credentials = Credentials::local(&des_keys(), Level::Encrypt).unwrap();
    let wire = Wire::tap(&mut pair.net, &[(PacketType::Response, ALL)]);
    let id = pair.begin(Some(&credentials), b"hello".to_vec());
    while wire.of(PacketType::Response).is_empty() {
        assert!(pair.turn());
    }
    pair.net.tap = None;
    let second = wire.of(PacketType::Response)[0].1.clone();
    let mixed = [&second[..HEADER_LEN], &response[HEADER_LEN..]].concat();
    assert_eq!(pair.inject(&mixed), Err(RxDrop::ResponseReplayed));
    pair.run();
    assert_eq!(pair.completion(id), Completion::RemoteAbort(rxkad_code::SEALED_INCONSISTENT));
    pair.assert_clean();
}

#[test]
fn a_ticket_of_an_unknown_key_or_a_wrong_one_is_refused() {
    let other = DesKey::new(*b"otherkey").unwrap();
    let cases = [
        (ServerKeys::new().with_des(5, other.clone()), rxkad_code::UNKNOWN_KEY),
        (ServerKeys::new().with_des(4, other), rxkad_code::BAD_TICKET),
        (krb5_keys(), rxkad_code::UNKNOWN_KEY),
    ];
    for (keys, expected) in cases {
        let (mut pair, _, id, response) = held_back(keys, Level::Encrypt);
        assert_eq!(pair.inject(&response), Err(RxDrop::ResponseRefused));
        assert_eq!(pair.inject(&response), Err(RxDrop::ResponseUnasked), "nothing is left to answer");
        pair.run();
        assert_eq!(pair.completion(id), Completion::RemoteAbort(expected));
        pair.assert_clean();
    }
}

#[test]
fn a_changed_proof_is_refused() {
    for at in 8..48 {
        let (mut pair, _, id, mut response) = held_back(des_keys(), Level::Encrypt);
        response[HEADER_LEN + at] ^= 1;
        assert_eq!(pair.inject(&response), Err(RxDrop::ResponseRefused), "byte {at}");
        pair.run();
        assert_eq!(pair.completion(id), Completion::RemoteAbort(rxkad_code::SEALED_INCONSISTENT));
        pair.assert_clean();
    }
}

#[test]
fn tickets_that_end_need_a_clock_and_their_time() {
    const NOW: u64 = 1_800_000_000;
    for (unix, expected) in [
        (Some(NOW), Completion::Succeeded),
        (None, Completion::RemoteAbort(rxkad_code::NO_AUTH)),
        (Some(0x7fff_ffff + 3_600), Completion::RemoteAbort(rxkad_code::EXPIRED)),
    ] {
        let keys = krb5_keys();
        let credentials = Credentials::local(&keys, Level::Auth).unwrap();
        let mut pair = Pair::new(12, Faults::none(100), Security::rxkad(keys));
        if let Some(unix) = unix {
            pair.net.nodes[SERVER].rx.set_unix_time(pair.net.now, Duration::from_secs(unix));
        }
        let id = pair.begin(Some(&credentials), b"hello".to_vec());
        pair.run();
        assert_eq!(pair.completion(id), expected);
        pair.assert_clean();
    }
}

#[test]
fn data_whose_protection_does_not_hold_aborts_its_call() {
    for level in LEVELS {
        // The checksum; the sealed length; the payload.
        for at in [24, HEADER_LEN + 5, HEADER_LEN + 14] {
            let keys = des_keys();
            let credentials = Credentials::local(&keys, level).unwrap();
            let mut pair = Pair::new(13, Faults::none(100), Security::rxkad(keys));
            let first = pair.begin(Some(&credentials), b"hello".to_vec());
            pair.run();
            assert_eq!(pair.completion(first), Completion::Succeeded);
            let wire = Wire::tap(&mut pair.net, &[(PacketType::Data, 1)]);
            let id = pair.begin(Some(&credentials), vec![0; 64]);
            pair.net.transmit();
            let mut data = wire.of(PacketType::Data)[0].1.clone();
            data[at] ^= 0x80;
            let seals = at == 24 || level == Level::Auth && at < HEADER_LEN + 8 || level == Level::Encrypt;
            let result = pair.inject(&data);
            if level == Level::Encrypt && at == HEADER_LEN + 14 {
                // PCBC spreads the change over what follows; the sealed length is before it. Nothing but the payload is hurt.
                assert_eq!(result, Ok(()));
                continue;
            }
            assert_eq!(result, if seals { Err(RxDrop::BadSeal) } else { Ok(()) }, "{level} byte {at}");
            pair.run();
            let expected = Completion::RemoteAbort(rxkad_code::SEALED_INCONSISTENT);
            assert_eq!(pair.completion(id) == expected, seals, "{level} byte {at}");
            pair.assert_clean();
        }
    }
}

/// What came before the RESPONSE is kept sealed, out of order too, and judged when the key is there.
#[test]
fn data_that_came_before_the_proof_is_judged_after_it() {
    for (at, expected) in
        [(None, Completion::Succeeded), (Some(24), Completion::RemoteAbort(rxkad_code::SEALED_INCONSISTENT))]
    {
        let keys = des_keys();
        let credentials = Credentials::local(&keys, Level::Encrypt).unwrap();
        let mut pair = Pair::new(14, Faults::none(100), Security::rxkad(keys));
        let wire = Wire::tap(&mut pair.net, &[(PacketType::Data, ALL)]);
        let bytes = request(10, 8_000);
        let id = pair.begin(Some(&credentials), bytes.clone());
        pair.net.transmit();
        let mut data: Vec<_> = wire.of(PacketType::Data).into_iter().map(|(_, bytes)| bytes).collect();
        pair.net.tap = None;
        if let Some(at) = at {
            data[2][at] ^= 1;
        }
        data.reverse();
        for packet in &data {
            assert_eq!(pair.inject(packet), Ok(()));
        }
        pair.run();
        assert_eq!(pair.completion(id), expected);
        assert!(expected != Completion::Succeeded || pair.got(id) == Pair::reply(&bytes));
        pair.assert_clean();
    }
}

#[test]
fn a_bad_challenge_is_not_answered() {
    let keys = des_keys();
    let credentials = Credentials::local(&keys, Level::Encrypt).unwrap();
    let mut pair = Pair::new(15, Faults::none(100), Security::rxkad(keys));
    let wire = Wire::tap(&mut pair.net, &[(PacketType::Challenge, ALL)]);
    pair.begin(Some(&credentials), b"hello".to_vec());
    while wire.of(PacketType::Challenge).is_empty() {
        assert!(pair.turn());
    }
    let challenge = wire.of(PacketType::Challenge)[0].1.clone();
    let mut version = challenge.clone();
    version[HEADER_LEN + 3] = 3;
    let (now, from) = (pair.net.now, pair.net.nodes[SERVER].addr);
    let node = &mut pair.net.nodes[CLIENT];
    let lengths = (HEADER_LEN..challenge.len()).map(|len| &challenge[..len]);
    for bytes in lengths.chain([&version[..]]) {
        let packet = node.pool.copy_from(bytes).unwrap();
        assert_eq!(node.rx.input(now, &mut node.pool, node.local, from, packet), Err(RxDrop::BadChallenge));
    }
    pair.net.transmit();
    assert!(wire.of(PacketType::Response).is_empty());
    pair.net.tap = None;
    pair.run();
    assert_eq!(pair.ended[0].1, Completion::Succeeded);
}

#[test]
fn calls_time_out_as_ever_when_the_server_is_gone() {
    let keys = des_keys();
    let credentials = Credentials::local(&keys, Level::Encrypt).unwrap();
    let mut pair = Pair::new(16, Faults::none(100), Security::rxkad(keys));
    pair.net.nodes[SERVER].deaf = true;
    let id = pair.begin(Some(&credentials), b"hello".to_vec());
    pair.run();
    assert_eq!(pair.completion(id), Completion::TimedOut(Timeout::Dead));
    pair.assert_clean();
}
