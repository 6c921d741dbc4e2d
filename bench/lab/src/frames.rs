//! Frames that nobody should send: valid ones of every kind the stack knows, then damaged, from one seed.
//!
//! Half of the damaged ones get their checksums put right again, so that the damage reaches the layers above. Everything
//! pretends to come from addresses that nobody uses. Deliberately absent: ARP in an honest client's name. Whoever is on the
//! wire can take over an address that way, with every stack, and frames that do say nothing about ours.

use std::net::Ipv4Addr;

use fastrand::Rng;

/// Whom the frames go to.
#[derive(Clone, Copy)]
pub struct Target {
    /// The gateway's MAC address.
    pub mac: [u8; 6],
    /// Its address towards the clients.
    pub address: Ipv4Addr,
    /// The same in IPv6.
    pub address6: [u8; 16],
    /// UDP ports it listens on.
    pub ports: [u16; 2],
    /// Who makes real calls.
    pub client: Ipv4Addr,
}

/// An endless supply.
pub struct Frames {
    rng: Rng,
    target: Target,
}

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const FRAME_MAX: usize = 1514;

impl Frames {
    /// The same seed yields the same frames.
    pub fn new(seed: u64, target: Target) -> Frames {
        Frames { rng: Rng::with_seed(seed), target }
    }

    /// The next frame, 14 to 1514 bytes.
    pub fn next_frame(&mut self) -> Vec<u8> {
        let client = self.target.client.octets();
        let impersonates =
            |frame: &[u8]| frame.get(12..14) == Some(&[8, 6]) && frame.get(28..32) == Some(&client);
        loop {
            let frame = self.any_frame();
            if !impersonates(&frame) {
                return frame;
            }
        }
    }

    fn any_frame(&mut self) -> Vec<u8> {
        if self.rng.u8(..) < 16 {
            return self.noise();
        }
        let mut frame = self.valid();
        let damages = [0, 1, 1, 1, 2, 2, 3, 8][self.rng.usize(..8)];
        for _ in 0..damages {
            self.damage(&mut frame);
        }
        frame.resize(frame.len().clamp(ETHERNET, FRAME_MAX), 0);
        if damages > 0 && self.rng.bool() {
            put_checksums_right(&mut frame);
        }
        frame
    }

    fn noise(&mut self) -> Vec<u8> {
        let mut frame = self.bytes(ETHERNET..FRAME_MAX);
        frame[..6].copy_from_slice(&self.target.mac);
        frame
    }

    fn bytes(&mut self, len: std::ops::Range<usize>) -> Vec<u8> {
        let len = self.rng.usize(len);
        std::iter::repeat_with(|| self.rng.u8(..)).take(len).collect()
    }

    /// Something the stack would take, of a kind chosen at random.
    fn valid(&mut self) -> Vec<u8> {
        let kind = self.rng.u8(0..16);
        let mut frame = match kind {
            0 => self.arp(),
            1 => self.icmp(),
            2 => self.neighbour_solicitation(),
            3 => self.fragment(),
            4 | 5 => {
                let udp = self.udp();
                self.ipv6(17, &udp)
            }
            _ => {
                let udp = self.udp();
                self.ipv4(17, 0, &udp)
            }
        };
        put_checksums_right(&mut frame);
        if self.rng.u8(..) < 8 {
            // An 802.1Q tag in front of it all.
            let tag = [0x81, 0x00, 0, self.rng.u8(..)];
            frame.splice(12..12, tag);
        }
        frame
    }

    fn damage(&mut self, frame: &mut Vec<u8>) {
        // Headers are worth more than payload.
        let end = if self.rng.bool() { frame.len().min(96) } else { frame.len() };
        let at = self.rng.usize(ETHERNET.min(end - 1)..end);
        match self.rng.u8(0..7) {
            0 => frame[at] ^= 1 << self.rng.u8(0..8),
            1 => frame[at] = self.rng.u8(..),
            2 => frame[at] = [0, 1, 0x7f, 0x80, 0xff][self.rng.usize(..5)],
            3 => frame.truncate(at.max(ETHERNET)),
            4 => frame.extend(self.bytes(1..64)),
            5 => {
                let run = self.rng.usize(1..16).min(frame.len() - at);
                frame[at..at + run].fill_with(|| self.rng.u8(..));
            }
            _ => {
                let run = self.rng.usize(1..16).min(frame.len() - at);
                let copy = frame[at..at + run].to_vec();
                frame.splice(at..at, copy);
            }
        }
        if frame.len() < ETHERNET + 1 {
            frame.resize(ETHERNET + 1, 0);
        }
    }

    fn ethernet(&self, kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = self.target.mac.to_vec();
        frame.extend_from_slice(&[0x02, 0x66, 0x75, 0x7a, 0x7a, 0x01]);
        frame.extend_from_slice(&kind.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    /// Nobody, on the client's subnet or beyond it.
    fn stranger(&mut self) -> [u8; 4] {
        if self.rng.bool() { [10, 61, 1, self.rng.u8(100..250)] } else { [192, 0, 2, self.rng.u8(1..255)] }
    }

    fn arp(&mut self) -> Vec<u8> {
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, self.rng.u8(1..=2)];
        arp.extend_from_slice(&[0x02, 0x66, 0x75, 0x7a, 0x7a, 0x01, 10, 61, 1, self.rng.u8(100..250)]);
        arp.extend_from_slice(&[0; 6]);
        arp.extend_from_slice(&self.target.address.octets());
        self.ethernet(0x0806, &arp)
    }

    fn icmp(&mut self) -> Vec<u8> {
        let mut icmp = vec![[0, 3, 5, 8, 11][self.rng.usize(..5)], self.rng.u8(0..5), 0, 0];
        icmp.extend(self.bytes(4..600));
        self.ipv4(1, 0, &icmp)
    }

    fn neighbour_solicitation(&mut self) -> Vec<u8> {
        let mut icmp = vec![[135, 136, 128, 1, 2][self.rng.usize(..5)], 0, 0, 0, 0, 0, 0, 0];
        icmp.extend_from_slice(&self.target.address6);
        icmp.extend_from_slice(&[1, 1, 0x02, 0x66, 0x75, 0x7a, 0x7a, 0x01]);
        self.ipv6(58, &icmp)
    }

    /// A piece of a datagram whose other pieces mostly never come.
    fn fragment(&mut self) -> Vec<u8> {
        let udp = self.udp();
        let piece = &udp[..udp.len() & !7];
        let offset = [0, 0, 1, 185, 370, 8191][self.rng.usize(..6)];
        let more = if self.rng.bool() { 0x2000 } else { 0 };
        self.ipv4(17, offset | more, piece)
    }

    fn ipv4(&mut self, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let len = (IPV4 + payload.len()) as u16;
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&len.to_be_bytes());
        packet.extend_from_slice(&[0, self.rng.u8(..)]);
        packet.extend_from_slice(&fragment.to_be_bytes());
        packet.extend_from_slice(&[64, protocol, 0, 0]);
        packet.extend_from_slice(&self.stranger());
        packet.extend_from_slice(&self.target.address.octets());
        packet.extend_from_slice(payload);
        self.ethernet(0x0800, &packet)
    }

    fn ipv6(&mut self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        packet.extend_from_slice(&[protocol, if protocol == 58 { 255 } else { 64 }]);
        packet.extend_from_slice(&[0xfd, 0x61, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, self.rng.u8(100..250)]);
        packet.extend_from_slice(&self.target.address6);
        packet.extend_from_slice(payload);
        self.ethernet(0x86dd, &packet)
    }

    fn udp(&mut self) -> Vec<u8> {
        let payload = self.rx();
        let port =
            if self.rng.u8(..) < 8 { self.rng.u16(..) } else { self.target.ports[self.rng.usize(..2)] };
        let mut udp = self.rng.u16(1024..).to_be_bytes().to_vec();
        udp.extend_from_slice(&port.to_be_bytes());
        udp.extend_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
        udp.extend_from_slice(&[0, 0]);
        udp.extend_from_slice(&payload);
        udp
    }

    /// An Rx packet of any type, with few connections and calls, so that some meet again.
    fn rx(&mut self) -> Vec<u8> {
        let kind = self.rng.u8(0..=14);
        let flags = [1, 5, 3, 0x21, 0x25, 0, 0xff][self.rng.usize(..7)];
        let mut rx = Vec::new();
        let words = [
            0x8000_0000 | self.rng.u32(0..4),
            self.rng.u32(0..64),
            self.rng.u32(0..4),
            [0, 1, 1, 1, 2, 3, u32::MAX][self.rng.usize(..7)],
            self.rng.u32(1..100),
        ];
        words.iter().for_each(|word| rx.extend_from_slice(&word.to_be_bytes()));
        rx.extend_from_slice(&[
            kind,
            flags,
            self.rng.u8(0..2),
            [0, 0, 0, 2, 4, 6][self.rng.usize(..6)],
            0,
            0,
        ]);
        rx.extend_from_slice(&[52u16, 73, 147, 1][self.rng.usize(..4)].to_be_bytes());
        let body = match kind {
            2 => self.ack(),
            8 => [[1u32, 2, 3, 4, 5, 99][self.rng.usize(..6)], self.rng.u32(0..3)]
                .into_iter()
                .flat_map(u32::to_be_bytes)
                .collect(),
            _ => self.bytes(0..1400),
        };
        rx.extend_from_slice(&body);
        rx
    }

    fn ack(&mut self) -> Vec<u8> {
        let count = [0, 1, 4, 255][self.rng.usize(..4)];
        let mut ack = vec![0; 4];
        let first = [0, 1, 2, 1000, u32::MAX][self.rng.usize(..5)];
        for word in [first, self.rng.u32(0..4), self.rng.u32(0..100)] {
            ack.extend_from_slice(&word.to_be_bytes());
        }
        ack.extend_from_slice(&[self.rng.u8(0..12), count]);
        ack.extend(std::iter::repeat_with(|| self.rng.u8(0..2)).take(count.into()));
        ack.extend_from_slice(&[0; 3]);
        for _ in 0..self.rng.u8(0..5) {
            ack.extend_from_slice(&[0u32, 1, 576, 1444, 65535, u32::MAX][self.rng.usize(..6)].to_be_bytes());
        }
        ack
    }
}

/// Fills in IPv4, UDP, ICMP and ICMPv6 checksums as far as the headers still make sense.
fn put_checksums_right(frame: &mut [u8]) {
    match frame.get(12..ETHERNET) {
        Some([0x08, 0x00]) => ipv4_checksums(&mut frame[ETHERNET..]),
        Some([0x86, 0xdd]) => ipv6_checksums(&mut frame[ETHERNET..]),
        _ => {}
    }
}

fn ipv4_checksums(packet: &mut [u8]) {
    let header = usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4;
    if header < IPV4 || packet.len() < header {
        return;
    }
    packet[10..12].fill(0);
    let sum = checksum(0, &packet[..header]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let protocol = packet[9];
    let pseudo = add(u32::from(protocol), &packet[12..20]);
    transport_checksum(protocol, pseudo, &mut packet[header..]);
}

fn ipv6_checksums(packet: &mut [u8]) {
    if packet.len() < IPV6 {
        return;
    }
    let protocol = packet[6];
    let pseudo = add(u32::from(protocol), &packet[8..40]);
    transport_checksum(protocol, pseudo, &mut packet[IPV6..]);
}

fn transport_checksum(protocol: u8, pseudo: u32, payload: &mut [u8]) {
    let (at, pseudo) = match protocol {
        17 => (6, pseudo + payload.len() as u32),
        58 => (2, pseudo + payload.len() as u32),
        1 => (2, 0),
        _ => return,
    };
    if payload.len() >= 8 {
        payload[at..at + 2].fill(0);
        let sum = checksum(pseudo, payload);
        let sum = if protocol == 17 && sum == 0 { 0xffff } else { sum };
        payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

fn add(sum: u32, bytes: &[u8]) -> u32 {
    let pairs = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    sum + pairs.sum::<u32>()
}

/// RFC 1071, over less than 64 KiB.
fn checksum(sum: u32, bytes: &[u8]) -> u16 {
    let mut sum = add(sum, bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target {
        mac: [2, 0, 0, 0, 0, 1],
        address: Ipv4Addr::new(10, 61, 1, 1),
        address6: [0xfd, 0x61, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        ports: [7002, 7003],
        client: Ipv4Addr::new(10, 61, 1, 2),
    };

    #[test]
    fn the_same_seed_yields_the_same_frames() {
        let frames = |seed| {
            let mut frames = Frames::new(seed, TARGET);
            std::iter::repeat_with(move || frames.next_frame()).take(1000).collect::<Vec<_>>()
        };
        assert_eq!(frames(1), frames(1));
        assert_ne!(frames(1), frames(2));
        assert!(frames(1).iter().all(|frame| (ETHERNET..=FRAME_MAX).contains(&frame.len())));
    }

    #[test]
    fn a_checksum_put_right_sums_to_nothing() {
        let mut frames = Frames::new(3, TARGET);
        let udp = frames.udp();
        let mut frame = frames.ipv4(17, 0, &udp);
        put_checksums_right(&mut frame);
        let packet = &frame[ETHERNET..];
        assert_eq!(checksum(0, &packet[..IPV4]), 0);
        let pseudo = add(17 + udp.len() as u32, &packet[12..20]);
        assert_eq!(checksum(pseudo, &packet[IPV4..]), 0);
    }
}
