//! A rude Rx client: opens calls and then does not read, each in its own way.
//!
//! A few packets by hand on a kernel UDP socket; see RX header and ACK layouts in OpenAFS's doc/txt/rx-spec.txt.
//! Deliberately absent: everything that would make it a good client.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use crate::fault::{Context, Result};

const DATA: u8 = 1;
const ACK: u8 = 2;
const ABORT: u8 = 4;
const CLIENT: u8 = 1;
const LAST: u8 = 4;
const PING: u8 = 6;
const PING_RESPONSE: u8 = 7;
const DELAY: u8 = 8;

/// How a call does not read its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Never sends a packet again.
    Silent,
    /// Answers everything, and says that it has room for nothing.
    ZeroWindow,
    /// Answers everything, takes one packet, and never another.
    Stuck,
}

const MANNERS: [Manner; 3] = [Manner::Silent, Manner::ZeroWindow, Manner::Stuck];

/// Many calls on one socket, four to a connection.
pub struct RudeClient {
    socket: UdpSocket,
    epoch: u32,
    serial: u32,
    calls: usize,
    /// Packets that came, by kind.
    pub received: Received,
}

/// What came back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Received {
    /// Packets of replies.
    pub data: usize,
    /// Calls of which at least one packet came.
    pub answered: usize,
    /// Calls that were aborted.
    pub aborted: usize,
}

impl RudeClient {
    /// A socket at `local` for calls to `gateway`. Opens nothing yet.
    pub fn new(local: Ipv4Addr, gateway: SocketAddrV4) -> Result<RudeClient> {
        let socket = UdpSocket::bind((local, 0)).context(|| format!("bind {local}"))?;
        socket.connect(gateway).context(|| format!("connect to {gateway}"))?;
        socket.set_read_timeout(Some(Duration::from_millis(50))).context(|| "set a timeout".into())?;
        let epoch = fastrand::u32(..) | 0x8000_0000;
        Ok(RudeClient { socket, epoch, serial: 0, calls: 0, received: Received::default() })
    }

    /// Opens `count` calls of `service` with the same request.
    pub fn open(&mut self, count: usize, service: u16, request: &[u8]) -> Result {
        for call in 0..count {
            let mut packet = self.header(cid(call), 1, DATA, CLIENT | LAST, service);
            packet.extend_from_slice(request);
            self.socket.send(&packet).context(|| "send a request".into())?;
            if call % 32 == 31 {
                // A burst that overruns the socket buffers on the way would open fewer.
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        self.calls = count;
        Ok(())
    }

    /// Behaves badly for a while: what comes is answered as each call's manner has it, and never read.
    pub fn misbehave(&mut self, time: Duration, service: u16) -> Result {
        let until = Instant::now() + time;
        let mut seen = vec![(false, false); self.calls];
        let mut packet = [0; 2048];
        while Instant::now() < until {
            let len = match self.socket.recv(&mut packet) {
                Ok(len) => len,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(error) => return Err(error).context(|| "receive".into()),
            };
            let Some(header) = Header::parse(&packet[..len]) else { continue };
            let call = header.call();
            if call >= self.calls {
                continue;
            }
            let (answered, aborted) = &mut seen[call];
            match header.kind {
                DATA => {
                    self.received.data += 1;
                    *answered = true;
                    self.answer(call, DELAY, &header, service)?;
                }
                ACK if packet[..len].get(28 + 16) == Some(&PING) => {
                    self.answer(call, PING_RESPONSE, &header, service)?;
                }
                ABORT => *aborted = true,
                _ => {}
            }
        }
        self.received.answered = seen.iter().filter(|(answered, _)| *answered).count();
        self.received.aborted = seen.iter().filter(|(_, aborted)| *aborted).count();
        Ok(())
    }

    fn answer(&mut self, call: usize, reason: u8, of: &Header, service: u16) -> Result {
        let (first, window) = match MANNERS[call % MANNERS.len()] {
            Manner::Silent => return Ok(()),
            Manner::ZeroWindow => (1u32, 0u32),
            Manner::Stuck => (2, 1),
        };
        let mut packet = self.header(cid(call), 0, ACK, CLIENT, service);
        packet.extend_from_slice(&[0; 4]); // bufferSpace, maxSkew
        packet.extend_from_slice(&first.to_be_bytes());
        packet.extend_from_slice(&(first - 1).to_be_bytes());
        packet.extend_from_slice(&of.serial.to_be_bytes());
        packet.extend_from_slice(&[reason, 0, 0, 0, 0]); // no soft ACKs, then three bytes of padding
        for word in [1444, 1444, window, 1] {
            packet.extend_from_slice(&u32::to_be_bytes(word));
        }
        match self.socket.send(&packet) {
            // A full transmit queue loses an ACK, which is no worse than the rest of what is done here.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            sent => sent.map(drop).context(|| "send an ACK".into()),
        }
    }

    fn header(&mut self, cid: u32, seq: u32, kind: u8, flags: u8, service: u16) -> Vec<u8> {
        self.serial += 1;
        let mut packet = Vec::with_capacity(128);
        for word in [self.epoch, cid, 1, seq, self.serial] {
            packet.extend_from_slice(&word.to_be_bytes());
        }
        packet.extend_from_slice(&[kind, flags, 0, 0, 0, 0]); // userStatus, securityIndex, checksum
        packet.extend_from_slice(&service.to_be_bytes());
        packet
    }
}

/// Connection and channel of the call with this number.
fn cid(call: usize) -> u32 {
    0x4c41_0000 + call as u32
}

struct Header {
    cid: u32,
    serial: u32,
    kind: u8,
}

impl Header {
    fn parse(packet: &[u8]) -> Option<Header> {
        let word = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
        let header = Header { cid: word(4)?, serial: word(16)?, kind: *packet.get(20)? };
        (packet.len() >= 28).then_some(header)
    }

    fn call(&self) -> usize {
        self.cid.wrapping_sub(cid(0)) as usize
    }
}

/// rxperf's RECV: asks for `bytes` bytes.
pub fn rxperf_recv(bytes: u32) -> Vec<u8> {
    [3, 1, 4096, 4096, bytes].into_iter().flat_map(u32::to_be_bytes).collect()
}
