//! One endpoint whose peer is the test: packets written by hand go in, packets come out.

use super::Node;
use pmd::Instant;
use rxrpc::wire::{Ack, AckReason, AckTrailer, Cid, Flags, HEADER_LEN, Header, PacketType};
use rxrpc::{EndpointConfig, Event, RxDrop, ServiceConfig};
use std::net::SocketAddr;
use std::time::Duration;

pub const EPOCH: u32 = 0x1234_5678;
pub const CID: u32 = 0x0100_0000;
pub const SERVICE: u16 = 147;

/// A packet that the endpoint sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub header: Header,
    pub body: Vec<u8>,
    pub to: SocketAddr,
}

impl Sent {
    pub fn ack(&self) -> Ack<'_> {
        assert_eq!(self.header.packet_type, PacketType::Ack, "{self:?}");
        Ack::parse(&self.body).unwrap()
    }
    pub fn code(&self) -> i32 {
        assert_eq!(self.header.packet_type, PacketType::Abort, "{self:?}");
        i32::from_be_bytes(self.body[..4].try_into().unwrap())
    }
    pub fn is(&self, kind: PacketType) -> bool {
        self.header.packet_type == kind
    }
}

pub struct Solo {
    pub node: Node,
    pub now: Instant,
    pub peer: SocketAddr,
    serial: u32,
}

impl Solo {
    /// An endpoint that offers `SERVICE`.
    pub fn new(config: EndpointConfig) -> Self {
        let mut node = Node::new(0, config, 42, 2_048);
        node.rx.listen(node.local, ServiceConfig::new(SERVICE)).unwrap();
        let peer = SocketAddr::from(([10, 9, 9, 9], 40_000));
        Self { node, now: Instant::from_nanos(5_000_000_000), peer, serial: 0 }
    }

    /// The header of a client's packet.
    pub fn header(&mut self, kind: PacketType, call: u32, seq: u32) -> Header {
        self.serial += 1;
        Header {
            epoch: EPOCH,
            cid: Cid(CID),
            call,
            seq,
            serial: self.serial,
            flags: Flags::CLIENT_INITIATED,
            service: SERVICE,
            ..Header::new(kind)
        }
    }

    pub fn input(&mut self, header: &Header, body: &[u8]) -> Result<(), RxDrop> {
        let bytes = [&header.to_bytes()[..], body].concat();
        self.input_bytes(&bytes)
    }

    pub fn input_bytes(&mut self, bytes: &[u8]) -> Result<(), RxDrop> {
        let packet = self.node.pool.copy_from(bytes).expect("a buffer");
        self.node.rx.input(self.now, &mut self.node.pool, self.node.local, self.peer, packet)
    }

    /// A DATA packet of the client's.
    pub fn data(&mut self, call: u32, seq: u32, flags: Flags, body: &[u8]) -> Result<(), RxDrop> {
        let mut header = self.header(PacketType::Data, call, seq);
        header.flags = header.flags | flags;
        self.input(&header, body)
    }

    /// An ACK of the client's.
    pub fn ack(
        &mut self,
        call: u32,
        reason: AckReason,
        first: u32,
        slots: &[u8],
        window: u32,
    ) -> Result<(), RxDrop> {
        let mut header = self.header(PacketType::Ack, call, 0);
        if reason == AckReason::Ping {
            header.flags = header.flags | Flags::REQUEST_ACK;
        }
        let body = ack_body(reason, first, slots, 0, AckTrailer::full(1444, 1444, window, 1));
        self.input(&header, &body)
    }

    /// What the endpoint has to send now.
    pub fn sent(&mut self) -> Vec<Sent> {
        let mut out = Vec::new();
        self.node.rx.transmit(self.now, &mut self.node.pool, &mut |_, _, to, packet| {
            let mut bytes = vec![0; packet.len()];
            packet.copy_to(0, &mut bytes);
            let (header, body) = Header::parse(&bytes).unwrap();
            out.push(Sent { header, body: body.to_vec(), to });
            true
        });
        out
    }

    /// The one packet that the endpoint has to send.
    pub fn sent_one(&mut self) -> Sent {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.pop().unwrap()
    }

    /// Lets time pass, a timer at a time, and returns what was sent with its time.
    pub fn wait(&mut self, duration: Duration) -> Vec<(Instant, Sent)> {
        let end = self.now + duration;
        let mut out = Vec::new();
        loop {
            out.extend(self.sent().into_iter().map(|sent| (self.now, sent)));
            match self.node.rx.next_timeout() {
                Some(next) if next <= end => {
                    self.now = self.now.max(next);
                    self.node.rx.expire(self.now);
                }
                _ => break,
            }
        }
        self.now = end;
        self.node.rx.expire(end);
        out.extend(self.sent().into_iter().map(|sent| (self.now, sent)));
        out
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.node.rx.poll_event()).collect()
    }

    /// The call that came in.
    pub fn incoming(&mut self) -> rxrpc::CallId {
        let event = self.node.rx.poll_event();
        let Some(Event::Incoming { call, .. }) = event else { panic!("no call came in: {event:?}") };
        call
    }

    pub fn reply(&mut self, call: rxrpc::CallId, bytes: &[u8]) {
        let Node { rx, pool, .. } = &mut self.node;
        assert_eq!(rx.send(self.now, pool, call, bytes, false), Ok(bytes.len()));
    }

    pub fn dropped(&self, reason: RxDrop) -> u64 {
        self.node.rx.stats().dropped(reason)
    }
}

pub fn ack_body(reason: AckReason, first: u32, slots: &[u8], serial: u32, trailer: AckTrailer) -> Vec<u8> {
    let ack = Ack { buffer_space: 0, max_skew: 0, first, previous: 0, serial, reason, slots, trailer };
    let mut body = vec![0; ack.encoded_len()];
    ack.encode(&mut body).unwrap();
    body
}

/// The bytes of a packet.
pub fn packet(header: &Header, body: &[u8]) -> Vec<u8> {
    let bytes = [&header.to_bytes()[..], body].concat();
    assert!(bytes.len() >= HEADER_LEN);
    bytes
}
