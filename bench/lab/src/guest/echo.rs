//! Frames that a guest is to send back, and the check that it did: each one, whole, in the order of its flow.
//!
//! A frame is UDP in IPv4, with right checksums, of any length from 60 to 1514 bytes; its payload begins with its flow and
//! its number, and the rest follows from these two. Addresses may be swapped on the way back, or not. At most
//! [`Load::window`] frames are under way, so that no ring or socket on the way is asked for more than it holds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::wire::{FRAME_MAX, Wire};
use crate::fault::{Result, ensure};
use crate::step::Cx;

/// Our MAC address on the wire.
pub const HOST: [u8; 6] = [0x02, 0, 0, 0, 0, 0xaa];

/// Ethernet, IPv4, UDP.
const HEADERS: usize = 14 + 20 + 8;
const FRAME: std::ops::RangeInclusive<usize> = 60..=1514;
/// Flows whose frames are under way at the same time.
const ABREAST: u64 = 8;
/// A busy host stops a guest for seconds.
const SILENCE: Duration = Duration::from_secs(8);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// To whom.
    pub to: [u8; 6],
    /// How many frames.
    pub frames: u64,
    /// Frames of each flow.
    pub frames_per_flow: u64,
    /// Frames under way at most.
    pub window: u64,
    /// An 802.1Q tag: the 16 bits after 0x8100.
    pub tag: Option<u16>,
    /// Whether the UDP checksum is wrong.
    pub wrong: bool,
    /// As long without any frame means that those under way are lost.
    pub silence: Duration,
    /// Tells its frames from those of loads before it.
    pub serial: u64,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Echoes {
    /// Frames sent.
    pub sent: u64,
    /// Frames that came back as they should.
    pub returned: u64,
    /// Frames that did not come back.
    pub lost: u64,
    /// Frames that came back after a later one of their flow, or twice.
    pub out_of_order: u64,
    /// Frames with other contents than were sent.
    pub damaged: u64,
    /// Frames of other protocols, and late ones of earlier loads.
    pub foreign: u64,
}

impl Echoes {
    /// All came back, once, whole and in order.
    pub fn must_be_complete(&self) -> Result {
        let Echoes { sent, returned, lost, out_of_order, damaged, .. } = *self;
        let complete = sent > 0 && returned == sent && lost + out_of_order + damaged == 0;
        ensure!(complete, "not every frame came back as it should: {self:?}");
        Ok(())
    }
}

/// Sends the load and takes what comes back, until all is back or nothing comes any more.
pub fn echo(cx: &Cx<'_>, wire: &Wire, load: &Load) -> Result<Echoes> {
    let stray = wire.drain()?;
    let begun = Instant::now();
    let mut check = Check::new(*load);
    let mut frame = vec![0; FRAME_MAX];
    let mut last = Instant::now();
    while check.answered() < load.frames && last.elapsed() < load.silence {
        cx.check()?;
        while check.sent < load.frames && check.sent - check.answered() < load.window {
            if !wire.send(&load.frame(check.sent))? {
                break;
            }
            check.sent += 1;
        }
        let mut wait = Duration::from_millis(20);
        while let Some(len) = wire.receive(&mut frame, wait)? {
            check.take(&frame[..len]);
            last = Instant::now();
            wait = Duration::ZERO;
        }
    }
    let rate = check.sent as f64 / begun.elapsed().as_secs_f64();
    let echoes = check.finish();
    cx.log.line(format!("{load:?}: {echoes:?}; {rate:.0} frames/s there and back, {stray} strays before"));
    Ok(echoes)
}

impl Load {
    /// A thousand frames in short flows: does it work at all?
    pub fn short(to: [u8; 6]) -> Load {
        let serial = fastrand::u64(..);
        let silence = SILENCE;
        Load { to, frames: 1000, frames_per_flow: 10, window: 64, tag: None, wrong: false, silence, serial }
    }

    /// The flow of a frame, and its number in it. Some flows run abreast, one frame of each after the other.
    fn place(&self, number: u64) -> (u64, u64) {
        let (group, within) =
            (number / (ABREAST * self.frames_per_flow), number % (ABREAST * self.frames_per_flow));
        (group * ABREAST + within % ABREAST, within / ABREAST)
    }

    /// The addresses and ports of a flow, as a NIC hashes them: source, destination. They look random, because a Toeplitz hash
    /// may spread regular ones unevenly.
    pub fn tuple(flow: u64) -> ([u8; 4], [u8; 4], u16, u16) {
        let [a, b, port @ ..] = mix(flow, 0).to_be_bytes().last_chunk().copied().unwrap_or([1; 4]);
        ([10, 77, a | 1, b], [10, 77, 0, 1], 1024 | u16::from_be_bytes(port), 7009)
    }

    /// The flow of frame `number`.
    pub fn flow(&self, number: u64) -> u64 {
        self.place(number).0
    }

    /// Frame `number` of the load.
    pub fn frame(&self, number: u64) -> Vec<u8> {
        let (flow, sequence) = self.place(number);
        let len = FRAME.start() + mix(flow, sequence) as usize % (FRAME.end() - FRAME.start() + 1);
        let payload = payload(self.serial, flow, sequence, len - HEADERS);
        let (source, destination, from, to) = Load::tuple(flow);
        let mut frame = [&self.to[..], &HOST].concat();
        if let Some(tag) = self.tag {
            frame.extend([0x8100, tag].iter().flat_map(|word: &u16| word.to_be_bytes()));
        }
        frame.extend([8, 0]);
        let mut udp = udp(source, destination, from, to, &payload);
        udp[7] ^= u8::from(self.wrong);
        frame.extend(ipv4(source, destination, &udp));
        frame
    }
}

/// The payload of a frame: the load, half a word each for flow and number, and bytes that follow from all.
fn payload(serial: u64, flow: u64, sequence: u64, len: usize) -> Vec<u8> {
    let mut payload = [serial.to_be_bytes(), (flow << 32 | sequence).to_be_bytes()].concat();
    let mut bytes = fastrand::Rng::with_seed(serial ^ mix(flow, sequence));
    payload.resize_with(len, || bytes.u8(..));
    payload
}

fn mix(flow: u64, sequence: u64) -> u64 {
    (flow << 32 ^ sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

fn udp(source: [u8; 4], destination: [u8; 4], from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len()) as u16;
    let head = [from, to, len, 0].map(u16::to_be_bytes).concat();
    let pseudo = [&source[..], &destination, &[0, 17], &len.to_be_bytes()].concat();
    let mut udp = [&head[..], payload].concat();
    // Zero would say that there is none.
    let sum = match !ones_sum(&[&pseudo, &udp]) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    udp
}

fn ipv4(source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let [high, low] = (20 + payload.len() as u16).to_be_bytes();
    let mut head = [&[0x45, 0, high, low, 0, 0, 0x40, 0, 64, 17, 0, 0], &source[..], &destination].concat();
    let sum = !ones_sum(&[&head]);
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    head.extend_from_slice(payload);
    head
}

/// The sum of 16-bit words in ones' complement (RFC 1071). Only the last part may have an odd length.
fn ones_sum(parts: &[&[u8]]) -> u16 {
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let words = pairs.map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded + (folded >> 16)) as u16
}

/// What was seen so far.
struct Check {
    load: Load,
    sent: u64,
    echoes: Echoes,
    /// The number that comes next in each flow that is not through.
    next: BTreeMap<u64, u64>,
}

impl Check {
    fn new(load: Load) -> Check {
        Check { load, sent: 0, echoes: Echoes::default(), next: BTreeMap::new() }
    }

    /// Frames that are not under way any more.
    fn answered(&self) -> u64 {
        self.echoes.returned + self.echoes.out_of_order + self.echoes.damaged
    }

    fn take(&mut self, frame: &[u8]) {
        let tag = if self.load.tag.is_some() { 4 } else { 0 };
        let Some(body) = frame.get(HEADERS + tag..).filter(|_| frame[12 + tag..14 + tag] == [8, 0]) else {
            self.echoes.foreign += 1;
            return;
        };
        let word = |at: usize| {
            body.get(at..at + 8).and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)))
        };
        if word(0).is_some_and(|serial| serial != self.load.serial) {
            self.echoes.foreign += 1;
            return;
        }
        let known = word(8).map(|place| (place >> 32, place & 0xffff_ffff));
        let known = known.filter(|(flow, sequence)| self.was_sent(*flow, *sequence));
        let whole = known.filter(|(flow, sequence)| self.is_whole(frame, *flow, *sequence));
        let Some((flow, sequence)) = whole else {
            self.echoes.damaged += 1;
            return;
        };
        let next = self.next.entry(flow).or_default();
        if sequence < *next {
            self.echoes.out_of_order += 1;
            return;
        }
        *next = sequence + 1;
        self.echoes.returned += 1;
    }

    fn was_sent(&self, flow: u64, sequence: u64) -> bool {
        sequence < self.load.frames_per_flow && self.number(flow, sequence) < self.sent
    }

    /// The inverse of [`Load::place`].
    fn number(&self, flow: u64, sequence: u64) -> u64 {
        let (group, within) = (flow / ABREAST, flow % ABREAST);
        (group.saturating_mul(ABREAST * self.load.frames_per_flow))
            .saturating_add(sequence * ABREAST + within)
    }

    /// As it was sent, but for a swap of addresses: of the MACs, and perhaps of the IP addresses and the ports, which changes no
    /// checksum.
    fn is_whole(&self, frame: &[u8], flow: u64, sequence: u64) -> bool {
        let sent = self.load.frame(self.number(flow, sequence));
        let ip = sent.len().min(frame.len());
        let head = if self.load.tag.is_some() { 18 } else { 14 };
        let swapped = swap(&sent, head);
        let back = frame.len() == sent.len() && frame[..6] == HOST && frame[12..head] == sent[12..head];
        back && (frame[head..ip] == sent[head..] || frame[head..ip] == swapped[head..])
    }

    fn finish(mut self) -> Echoes {
        self.echoes.sent = self.sent;
        self.echoes.lost = self.sent.saturating_sub(self.answered());
        self.echoes
    }
}

/// With IP addresses and ports in each other's place.
fn swap(frame: &[u8], ip: usize) -> Vec<u8> {
    let mut swapped = frame.to_vec();
    let at = ip + 12;
    swapped[at..at + 8].rotate_left(4);
    swapped[at + 8..at + 12].rotate_left(2);
    swapped
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load {
        to: [2; 6],
        frames: 400,
        frames_per_flow: 10,
        window: 16,
        tag: None,
        wrong: false,
        silence: SILENCE,
        serial: 77,
    };

    /// What the other end makes of all frames of a load, in the order in which it returns them.
    fn judge(load: Load, make: impl FnOnce(&mut Vec<Vec<u8>>)) -> Echoes {
        let mut frames: Vec<Vec<u8>> = (0..load.frames).map(|number| load.frame(number)).collect();
        for frame in &mut frames {
            let (to, from) = frame.split_at_mut(6);
            to.swap_with_slice(&mut from[..6]);
        }
        make(&mut frames);
        let mut check = Check::new(load);
        check.sent = load.frames;
        frames.iter().for_each(|frame| check.take(frame));
        check.finish()
    }

    #[test]
    fn what_comes_back_as_sent_is_complete() {
        let echoes = judge(LOAD, |_| {});
        assert_eq!(echoes, Echoes { sent: 400, returned: 400, ..Echoes::default() });
        echoes.must_be_complete().unwrap();
        judge(Load { tag: Some(0x2007), ..LOAD }, |_| {}).must_be_complete().unwrap();
    }

    #[test]
    fn an_echo_may_swap_addresses_and_ports() {
        judge(LOAD, |frames| frames.iter_mut().for_each(|frame| *frame = swap(frame, 14)))
            .must_be_complete()
            .unwrap();
    }

    #[test]
    fn a_lost_frame_is_noticed() {
        let echoes = judge(LOAD, |frames| drop(frames.remove(7)));
        assert_eq!((echoes.returned, echoes.lost), (399, 1));
        assert!(echoes.must_be_complete().is_err());
    }

    #[test]
    fn order_is_that_of_the_flow() {
        // Neighbours are of different flows, and these have no order among them.
        judge(LOAD, |frames| frames.swap(3, 4)).must_be_complete().unwrap();
        let echoes = judge(LOAD, |frames| frames.swap(3, 3 + ABREAST as usize));
        assert_eq!(echoes.out_of_order, 1);
        assert!(echoes.must_be_complete().is_err());
    }

    #[test]
    fn a_frame_that_comes_twice_is_noticed() {
        let echoes = judge(LOAD, |frames| frames.push(frames[0].clone()));
        assert_eq!(echoes.out_of_order, 1);
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let len = LOAD.frame(5).len();
        for at in [0, 12, 16, 24, 40, 42, 60, len - 1] {
            let echoes = judge(LOAD, |frames| frames[5][at] ^= 4);
            assert_eq!(echoes.damaged + echoes.foreign, 1, "byte {at}");
            assert!(echoes.must_be_complete().is_err(), "byte {at}");
        }
        let echoes = judge(LOAD, |frames| frames[5].truncate(len - 1));
        assert_eq!(echoes.damaged, 1);
        let echoes = judge(Load { tag: Some(7), ..LOAD }, |frames| drop(frames[5].drain(12..16)));
        assert_eq!(echoes.damaged + echoes.foreign, 1, "without its tag");
    }

    #[test]
    fn any_frame_at_all_is_counted() {
        for len in 0..100 {
            let mut check = Check::new(LOAD);
            check.take(&vec![8; len]);
            assert_eq!(check.echoes.foreign + check.echoes.damaged, 1);
        }
    }

    #[test]
    fn checksums_are_right() {
        let frame = LOAD.frame(11);
        assert_eq!(ones_sum(&[&frame[14..34]]), 0xffff);
        let len = (frame.len() - 34) as u16;
        let pseudo = [&frame[26..34], &[0, 17], &len.to_be_bytes()].concat();
        assert_eq!(ones_sum(&[&pseudo, &frame[34..]]), 0xffff);
    }

    #[test]
    fn place_and_number_are_inverse() {
        let check = Check::new(LOAD);
        for number in 0..LOAD.frames {
            let (flow, sequence) = LOAD.place(number);
            assert_eq!(check.number(flow, sequence), number);
        }
    }
}
