//! Frames to and from one peer: ARP (RFC 826), and UDP (RFC 768) over IPv4 (RFC 791) in one piece.

use std::net::SocketAddrV4;

use pmd::checksum::Sum;
use pmd::{Checksum, MacAddr, Mbuf};

/// An ARP packet in its frame.
pub type Arp = [u8; 42];

/// Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 42;
const IP: usize = 14;
const UDP: usize = 34;
const TYPE_IP: [u8; 2] = [8, 0];
const TYPE_ARP: [u8; 2] = [8, 6];
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
const PROTOCOL_UDP: u8 = 17;

/// What a frame was.
pub enum Came {
    /// From the peer to one of our ports: the payload.
    Datagram(Mbuf),
    /// The peer says who it is.
    PeerIs(MacAddr),
    /// Somebody asks for us: MAC and IP address as they stand in the question.
    Question([u8; 10]),
    /// None of our business.
    Other,
}

/// Addresses of both ends, and the headers that follow from them.
pub struct Frames {
    mac: MacAddr,
    local: SocketAddrV4,
    peer: SocketAddrV4,
    /// Headers of a datagram without lengths, checksums and source port.
    template: [u8; HEADERS],
}

impl Frames {
    /// The peer's MAC address is not known yet.
    pub fn new(mac: MacAddr, local: SocketAddrV4, peer: SocketAddrV4) -> Frames {
        let mut template = [0; HEADERS];
        template[6..12].copy_from_slice(&mac.0);
        template[12..14].copy_from_slice(&TYPE_IP);
        // Version 4, five words; do not fragment; 64 hops.
        (template[IP], template[IP + 6], template[IP + 8], template[IP + 9]) = (0x45, 0x40, 64, PROTOCOL_UDP);
        template[IP + 12..IP + 16].copy_from_slice(&local.ip().octets());
        template[IP + 16..IP + 20].copy_from_slice(&peer.ip().octets());
        template[UDP + 2..UDP + 4].copy_from_slice(&peer.port().to_be_bytes());
        Frames { mac, local, peer, template }
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddrV4 {
        self.peer
    }

    /// The peer has this MAC address.
    pub fn learn(&mut self, mac: MacAddr) {
        self.template[..6].copy_from_slice(&mac.0);
    }

    /// Puts headers before a payload, from the first source port or the one so many further on. `None`: there is no headroom for them.
    pub fn wrap(&self, mut payload: Mbuf, flow: u16) -> Option<Mbuf> {
        let udp_len = (payload.len() + 8) as u16;
        let mut headers = self.template;
        headers[IP + 2..IP + 4].copy_from_slice(&(udp_len + 20).to_be_bytes());
        headers[UDP..UDP + 2].copy_from_slice(&(self.local.port() + flow).to_be_bytes());
        headers[UDP + 4..UDP + 6].copy_from_slice(&udp_len.to_be_bytes());
        let ip_sum = sum_of(&headers[IP..UDP]);
        headers[IP + 10..IP + 12].copy_from_slice(&ip_sum.to_be_bytes());
        let pseudo = [0, PROTOCOL_UDP, headers[UDP + 4], headers[UDP + 5]];
        let udp_sum = match udp_checksum(&headers, pseudo, &payload) {
            0 => 0xffff,
            sum => sum,
        };
        headers[UDP + 6..UDP + 8].copy_from_slice(&udp_sum.to_be_bytes());
        payload.prepend(HEADERS)?.copy_from_slice(&headers);
        Some(payload)
    }

    /// What a frame is. `flows`: how many source ports are ours.
    pub fn take(&self, mut frame: Mbuf, flows: u16) -> Came {
        let data = frame.data();
        if data.len() < HEADERS {
            return Came::Other;
        }
        if data[12..14] == TYPE_ARP {
            return self.take_arp(data);
        }
        let word = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
        let ours = data[12..14] == TYPE_IP
            && data[IP] == 0x45
            && data[IP + 9] == PROTOCOL_UDP
            // No fragment.
            && word(IP + 6) & 0x3fff == 0
            && data[IP + 12..IP + 16] == self.peer.ip().octets()
            && data[IP + 16..IP + 20] == self.local.ip().octets()
            && word(UDP) == self.peer.port()
            && word(UDP + 2).wrapping_sub(self.local.port()) < flows
            && frame.meta().checksum != Checksum::Bad;
        let len = usize::from(word(UDP + 4));
        if !ours || len < 8 || len + UDP > frame.len() {
            return Came::Other;
        }
        // Short frames are padded.
        frame.truncate(UDP + len);
        frame.advance(HEADERS);
        Came::Datagram(frame)
    }

    fn take_arp(&self, data: &[u8]) -> Came {
        let (sender_ip, target_ip) = (&data[28..32], &data[38..42]);
        let sender = <[u8; 10]>::try_from(&data[22..32]).expect("ten bytes");
        if target_ip != self.local.ip().octets() {
            return Came::Other;
        }
        match data[21] {
            QUESTION => Came::Question(sender),
            ANSWER if sender_ip == self.peer.ip().octets() => {
                Came::PeerIs(MacAddr(<[u8; 6]>::try_from(&sender[..6]).expect("six bytes")))
            }
            _ => Came::Other,
        }
    }

    /// Who has the peer's address?
    pub fn question(&self) -> Arp {
        self.arp(QUESTION, [0xff; 6], [0; 6], self.peer.ip().octets())
    }

    /// We have ours.
    pub fn answer(&self, asker: &[u8; 10]) -> Arp {
        let mac = <[u8; 6]>::try_from(&asker[..6]).expect("six bytes");
        let ip = <[u8; 4]>::try_from(&asker[6..]).expect("four bytes");
        self.arp(ANSWER, mac, mac, ip)
    }

    fn arp(&self, operation: u8, to: [u8; 6], target: [u8; 6], target_ip: [u8; 4]) -> Arp {
        let mut frame = [0; 42];
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&self.mac.0);
        frame[12..14].copy_from_slice(&TYPE_ARP);
        // Ethernet (1), IPv4 (0x0800), addresses of 6 and 4 bytes.
        frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
        frame[22..28].copy_from_slice(&self.mac.0);
        frame[28..32].copy_from_slice(&self.local.ip().octets());
        frame[32..38].copy_from_slice(&target);
        frame[38..42].copy_from_slice(&target_ip);
        frame
    }
}

fn sum_of(bytes: &[u8]) -> u16 {
    let mut sum = Sum::default();
    sum.add(bytes);
    sum.finish()
}

/// Over the pseudo header, the UDP header and the payload.
fn udp_checksum(headers: &[u8; HEADERS], pseudo: [u8; 4], payload: &Mbuf) -> u16 {
    let mut sum = Sum::default();
    sum.add(&headers[IP + 12..IP + 20]);
    sum.add(&pseudo);
    sum.add(&headers[UDP..]);
    payload.segments().for_each(|bytes| sum.add(bytes));
    sum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pmd::{Pool, PoolConfig};

    fn ends() -> (Frames, Frames, Pool) {
        let [client, server] = ["192.0.2.2:40000", "192.0.2.1:7"].map(|text| text.parse().unwrap());
        let [client_mac, server_mac] = [2, 1].map(|last| MacAddr([2, 0, 0, 0, 0, last]));
        let mut ends = (Frames::new(client_mac, client, server), Frames::new(server_mac, server, client));
        ends.0.learn(server_mac);
        ends.1.learn(client_mac);
        (ends.0, ends.1, PoolConfig::new("frame", 64).build().unwrap().claim())
    }

    #[test]
    fn a_payload_crosses_and_padding_stays_behind() {
        let (client, server, mut pool) = ends();
        for len in [0, 1, 17, 64, 1472] {
            let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let mut frame = client.wrap(pool.copy_from(&payload).unwrap(), 0).unwrap();
            assert_eq!(frame.len(), HEADERS + len);
            frame.append(60usize.saturating_sub(HEADERS + len)).unwrap();
            let Came::Datagram(came) = server.take(frame, 1) else { panic!("{len} bytes were not taken") };
            assert_eq!(came.data(), payload);
        }
    }

    #[test]
    fn checksums_are_those_of_the_rfcs() {
        let (client, _, mut pool) = ends();
        let frame = client.wrap(pool.copy_from(b"odd").unwrap(), 0).unwrap();
        let data = frame.data();
        // Over what has its own checksum in it the sum is all ones, and its complement nothing.
        assert_eq!(sum_of(&data[IP..UDP]), 0);
        let pseudo =
            [&data[IP + 12..IP + 20], &[0, PROTOCOL_UDP], &data[UDP + 4..UDP + 6], &data[UDP..]].concat();
        assert_eq!(sum_of(&pseudo), 0);
    }

    #[test]
    fn what_is_not_for_us_is_left_alone() {
        let (client, server, mut pool) = ends();
        let mut taken = |change: &dyn Fn(&mut [u8])| {
            let mut frame = client.wrap(pool.copy_from(&[7; 64]).unwrap(), 0).unwrap();
            change(frame.data_mut());
            matches!(server.take(frame, 1), Came::Datagram(_))
        };
        assert!(taken(&|_| {}));
        for (at, what) in
            [(12, "type"), (IP, "options"), (IP + 9, "protocol"), (IP + 15, "source"), (IP + 19, "target")]
        {
            assert!(!taken(&|data| data[at] ^= 1), "another {what}");
        }
        assert!(!taken(&|data| data[IP + 6] |= 0x20), "a fragment");
        assert!(!taken(&|data| data[UDP + 3] ^= 1), "another port");
        assert!(!taken(&|data| data[UDP + 4] = 9), "longer than the frame");
        assert!(!taken(&|data| data[UDP + 4..UDP + 6].copy_from_slice(&[0, 7])), "shorter than its header");
        assert!(matches!(server.take(pool.copy_from(&[0; 20]).unwrap(), 1), Came::Other), "cut off");
        let wrap = |flow, pool: &mut Pool| server.wrap(pool.copy_from(&[7; 64]).unwrap(), flow).unwrap();
        assert!(matches!(client.take(wrap(0, &mut pool), 1), Came::Datagram(_)));
        assert!(matches!(client.take(wrap(1, &mut pool), 1), Came::Other), "from another port of the peer's");
    }

    #[test]
    fn the_peer_is_asked_for_and_answers() {
        let (client, server, mut pool) = ends();
        let question = pool.copy_from(&client.question()).unwrap();
        let Came::Question(asker) = server.take(question, 1) else { panic!("no question") };
        let answer = pool.copy_from(&server.answer(&asker)).unwrap();
        let Came::PeerIs(mac) = client.take(answer, 1) else { panic!("no answer") };
        assert_eq!(mac, MacAddr([2, 0, 0, 0, 0, 1]));
        let other = pool.copy_from(&server.question()).unwrap();
        assert!(matches!(server.take(other, 1), Came::Other), "a question for somebody else");
    }
}
