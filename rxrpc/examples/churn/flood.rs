//! The flood: a raw engine at the other end of the wire that sends datagrams as fast as they are taken, to ports that may be
//! bound at this moment; and in between the messages that sleepers wait for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rxrpc::engine::pmd::{BURST, Burst};
use rxrpc::engine::{Builder, Cx, Datagram, Engine, Handler, Outcome, Socket};

/// The address of the engine that receives.
pub const RECEIVER_NET: &str = "192.0.2.1/24";
const RECEIVER: [u8; 4] = [192, 0, 2, 1];
const SENDER: [u8; 4] = [192, 0, 2, 2];
/// Ports that the flood goes to.
pub const FLOODED: std::ops::Range<u16> = 10_000..10_064;
/// The ports of sleepers: the flood leaves them alone.
const SLEEPERS: u16 = 9_000;
/// Sleepers on sockets of their own.
pub const PINGED: usize = 4;
/// Flows of the flood: enough that each core owns many.
const FLOWS: u16 = 512;
/// Ethernet, IPv4, UDP, and a time.
const FRAME: usize = 60;
const TIME_AT: usize = 14 + 20 + 8;

/// What sleepers ask for: a datagram with the time of asking in it. 0: nothing.
pub struct Pings([AtomicU64; PINGED]);

impl Pings {
    pub fn new() -> Arc<Pings> {
        Arc::new(Pings(std::array::from_fn(|_| AtomicU64::new(0))))
    }

    /// Where sleeper `index` waits.
    pub fn address(index: usize) -> SocketAddr {
        SocketAddr::from((RECEIVER, SLEEPERS + index as u16))
    }

    /// A message for sleeper `index`.
    pub fn ask(&self, index: usize) {
        self.0[index].store(crate::now(), Ordering::Release);
    }
}

/// One core of the flood.
pub struct Flood {
    pings: Arc<Pings>,
    template: [u8; FRAME],
    rng: fastrand::Rng,
    burst: Burst,
    /// The first core sends the pings.
    pinging: bool,
}

impl Flood {
    /// Starts the engine at the other end of the receiver's wire.
    pub fn start(builder: Builder, receiver: &Engine, pings: Arc<Pings>, seed: u64) -> Engine<Flood> {
        let template = template(receiver.ports()[0].mac.0);
        let start = builder.start_with(move |core| Flood {
            pings: pings.clone(),
            template,
            rng: fastrand::Rng::with_seed(seed ^ (core.core as u64 + 1) << 32),
            burst: Burst::new(),
            pinging: core.core == 0,
        });
        start.expect("the flood starts")
    }

    /// Turns the first frames of the burst into what sleepers wait for.
    fn ping(&mut self) {
        let mut frames = self.burst.iter_mut();
        for (index, asked) in self.pings.0.iter().enumerate() {
            if asked.load(Ordering::Acquire) == 0 {
                continue;
            }
            let Some(frame) = frames.next() else { return };
            let time = asked.swap(0, Ordering::AcqRel);
            let bytes = frame.data_mut();
            bytes[36..38].copy_from_slice(&(SLEEPERS + index as u16).to_be_bytes());
            bytes[TIME_AT..TIME_AT + 8].copy_from_slice(&time.to_be_bytes());
        }
    }
}

impl Handler for Flood {
    type Command = ();
    const RAW: bool = true;

    fn raw(&mut self, _: &mut Cx<'_>, _: usize, burst: &mut Burst) {
        // Port-unreachable messages, and questions for our MAC address.
        drop(burst.drain(..));
    }

    fn transmit(&mut self, cx: &mut Cx<'_>) {
        cx.pool.alloc_burst(&mut self.burst, BURST);
        for frame in &mut self.burst {
            let Some(bytes) = frame.append(FRAME) else { continue };
            bytes.copy_from_slice(&self.template);
            bytes[34..36].copy_from_slice(&(20_000 + self.rng.u16(..FLOWS)).to_be_bytes());
            bytes[36..38].copy_from_slice(&self.rng.u16(FLOODED).to_be_bytes());
        }
        if self.pinging {
            self.ping();
        }
        cx.send_burst(0, &mut self.burst);
    }

    fn input(&mut self, _: &mut Cx<'_>, _: &Socket, _: Datagram) -> Outcome {
        unreachable!("a raw handler is given no datagrams")
    }

    fn command(&mut self, _: &mut Cx<'_>, (): ()) {}
}

/// An IPv4 UDP datagram of 8 bytes without UDP checksum, ports to be filled in.
fn template(receiver: [u8; 6]) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&receiver);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    frame[12..14].copy_from_slice(&[8, 0]);
    let udp_len = 8 + 8u16;
    frame[14..18].copy_from_slice(&[0x45, 0, 0, 20 + udp_len as u8]);
    frame[22..24].copy_from_slice(&[64, 17]);
    frame[26..30].copy_from_slice(&SENDER);
    frame[30..34].copy_from_slice(&RECEIVER);
    frame[38..40].copy_from_slice(&udp_len.to_be_bytes());
    let words = frame[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!sum as u16).to_be_bytes());
    frame
}
