//! The Internet checksum (RFC 1071), and filling in the layer-4 checksum that a local sender left unfinished.
//!
//! Frames that never crossed a wire may carry only the sum of the pseudo-header ([`Checksum::Partial`]). A receiver
//! may accept them as they are; before such a frame goes anywhere else its checksum has to be filled in.

use crate::mbuf::{Checksum, Mbuf};

/// One's complement sum of big-endian 16-bit words, over pieces of any length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Sum of the words; 2^48 of them fit.
    words: u64,
    /// An odd number of bytes was added.
    odd: bool,
}

impl Sum {
    /// Adds the bytes that follow those added so far.
    pub fn add(&mut self, mut bytes: &[u8]) {
        if self.odd
            && let Some((first, rest)) = bytes.split_first()
        {
            self.words += u64::from(*first);
            (self.odd, bytes) = (false, rest);
        }
        let (quads, rest) = bytes.as_chunks::<4>();
        let sum: u64 = quads.iter().map(|quad| u64::from(u32::from_be_bytes(*quad))).sum();
        // A 32-bit word is the same, one's complement, as the sum of its halves.
        self.words += (sum & 0xffff_ffff) + (sum >> 32);
        let (pairs, last) = rest.as_chunks::<2>();
        self.words += pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum::<u64>();
        if let [byte] = last {
            self.words += u64::from(*byte) << 8;
            self.odd = true;
        }
    }

    /// The checksum: the complement of the folded sum.
    pub fn finish(self) -> u16 {
        let mut sum = self.words;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

/// Fills in the checksum of a [`Checksum::Partial`] UDP or TCP frame, which is `Good` afterwards. Other frames, and those that cannot
/// be understood, stay as they are.
pub fn complete(frame: &mut Mbuf) {
    if frame.meta().checksum == Checksum::Partial
        && let Some(layer4) = Layer4::find(frame.data())
        && layer4.fill(frame)
    {
        frame.meta_mut().checksum = Checksum::Good;
    }
}

/// Where the checksum of a frame is unfinished: what a device has to be told that fills it in.
#[cfg(feature = "dpdk")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// UDP or TCP, as IP numbers them.
    pub protocol: u8,
    pub v6: bool,
    /// Where the IP header begins.
    pub network: usize,
    /// Where the UDP or TCP header begins.
    pub transport: usize,
}

/// Where, if this frame is [`Checksum::Partial`] and can be understood.
#[cfg(feature = "dpdk")]
pub(crate) fn unfinished(frame: &Mbuf) -> Option<Unfinished> {
    if frame.meta().checksum != Checksum::Partial {
        return None;
    }
    let layer4 = Layer4::find(frame.data())?;
    let v6 = layer4.addresses.len() == 32;
    let network = layer4.addresses.start - if v6 { 8 } else { 12 };
    Some(Unfinished { protocol: layer4.protocol, v6, network, transport: layer4.start })
}

/// Where the layer-4 part of a frame is.
struct Layer4 {
    protocol: u8,
    start: usize,
    len: usize,
    addresses: std::ops::Range<usize>,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

impl Layer4 {
    /// Looks behind Ethernet, up to two VLAN tags, and IP with its options or extension headers; these have to be in `head`.
    fn find(head: &[u8]) -> Option<Layer4> {
        let mut at = 12;
        for _ in 0..2 {
            if matches!(be16(head, at)?, 0x8100 | 0x88a8) {
                at += 4;
            }
        }
        match be16(head, at)? {
            0x0800 => Self::find_v4(head, at + 2),
            0x86dd => Self::find_v6(head, at + 2),
            _ => None,
        }
    }

    fn find_v4(head: &[u8], ip: usize) -> Option<Layer4> {
        let header_len = usize::from(head.get(ip)? & 15) * 4;
        let total = usize::from(be16(head, ip + 2)?);
        // A fragment holds only part of what is summed.
        if be16(head, ip + 6)? & 0x3fff != 0 {
            return None;
        }
        let len = total.checked_sub(header_len)?;
        Some(Layer4 {
            protocol: *head.get(ip + 9)?,
            start: ip + header_len,
            len,
            addresses: ip + 12..ip + 20,
        })
    }

    fn find_v6(head: &[u8], ip: usize) -> Option<Layer4> {
        let (mut protocol, mut start) = (*head.get(ip + 6)?, ip + 40);
        let end = start + usize::from(be16(head, ip + 4)?);
        // Hop-by-hop, routing and destination options: next header, length in 8 bytes beyond the first 8.
        for _ in 0..8 {
            if !matches!(protocol, 0 | 43 | 60) {
                break;
            }
            protocol = *head.get(start)?;
            start += (usize::from(*head.get(start + 1)?) + 1) * 8;
        }
        Some(Layer4 { protocol, start, len: end.checked_sub(start)?, addresses: ip + 8..ip + 40 })
    }

    fn fill(&self, frame: &mut Mbuf) -> bool {
        let (field, header_len) = match self.protocol {
            UDP => (self.start + 6, 8),
            TCP => (self.start + 16, 20),
            _ => return false,
        };
        let first = frame.data().len();
        if self.len < header_len || self.start + header_len > first || self.start + self.len > frame.len() {
            return false;
        }
        frame.data_mut()[field..field + 2].fill(0);
        let mut sum = Sum::default();
        sum.add(&frame.data()[self.addresses.clone()]);
        sum.add(&u32::from(self.protocol).to_be_bytes());
        sum.add(&(self.len as u32).to_be_bytes());
        let (mut skip, mut left) = (self.start, self.len);
        for segment in frame.segments() {
            let from = skip.min(segment.len());
            let take = left.min(segment.len() - from);
            sum.add(&segment[from..from + take]);
            (skip, left) = (skip - from, left - take);
        }
        let value = match (self.protocol, sum.finish()) {
            // RFC 768: a sum of zero is transmitted as all ones.
            (UDP, 0) => 0xffff,
            (_, value) => value,
        };
        frame.data_mut()[field..field + 2].copy_from_slice(&value.to_be_bytes());
        true
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pool, PoolConfig};

    fn pool() -> Pool {
        PoolConfig::new("checksum", 16).build().unwrap().claim()
    }

    /// Sums byte by byte: the definition.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u64;
        for (i, byte) in bytes.iter().enumerate() {
            sum += u64::from(*byte) << (8 * (1 - i % 2));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn pieces_sum_like_the_whole() {
        // The example of RFC 1071, section 3.
        let mut sum = Sum::default();
        sum.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.finish(), !0xddf2);
        let bytes: Vec<u8> = (0..999u32).map(|i| (i * i) as u8).collect();
        for (a, b) in [(0, 0), (1, 2), (3, 500), (7, 8), (333, 999)] {
            let mut sum = Sum::default();
            for piece in [&bytes[..a], &bytes[a..b], &bytes[b..]] {
                sum.add(piece);
            }
            assert_eq!(sum.finish(), plain(&bytes), "cut at {a} and {b}");
        }
    }

    /// Ethernet, `tags` VLAN tags, IPv4 or IPv6 (with a destination options header), UDP with `payload` bytes.
    fn udp_frame(tags: usize, v6: bool, payload: usize) -> (Vec<u8>, usize) {
        let mut frame = vec![2; 12];
        (0..tags).for_each(|_| frame.extend([0x81, 0, 0, 5]));
        let udp_len = 8 + payload as u16;
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((udp_len + 8).to_be_bytes());
            frame.extend([60, 64]);
            frame.extend((0..32).map(|i| i * 5));
            frame.extend([UDP, 0, 1, 4, 0, 0, 0, 0]);
        } else {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((udp_len + 20).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, UDP, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        }
        let start = frame.len();
        frame.extend([0x1b, 0x59, 0x1b, 0x5a]);
        frame.extend(udp_len.to_be_bytes());
        frame.extend([0xab, 0xcd]);
        frame.extend((0..payload).map(|i| (i * 3) as u8));
        (frame, start)
    }

    #[test]
    fn a_partial_frame_is_completed_in_each_form() {
        let mut pool = pool();
        for (tags, v6, payload) in
            [(0, false, 5), (1, false, 1400), (2, true, 3000), (0, true, 1), (0, false, 0)]
        {
            let (bytes, start) = udp_frame(tags, v6, payload);
            let mut frame = pool.copy_from(&bytes).unwrap();
            frame.meta_mut().checksum = Checksum::Partial;
            complete(&mut frame);
            assert_eq!(frame.meta().checksum, Checksum::Good);
            let done: Vec<u8> = frame.segments().flatten().copied().collect();
            let addresses = if v6 { start - 40..start - 8 } else { start - 8..start };
            let mut whole = done[addresses].to_vec();
            whole.extend([0, 0, 0, UDP]);
            whole.extend((8 + payload as u32).to_be_bytes());
            whole.extend(&done[start..]);
            assert_eq!(plain(&whole), 0, "{tags} tags, v6 {v6}, {payload} bytes");
            assert_eq!(done[start + 8..], bytes[start + 8..], "the payload is untouched");
        }
    }

    #[test]
    fn what_cannot_be_understood_stays() {
        let mut pool = pool();
        let (bytes, start) = udp_frame(0, false, 100);
        for cut in 0..bytes.len() {
            let mut frame = pool.copy_from(&bytes[..cut]).unwrap();
            frame.meta_mut().checksum = Checksum::Partial;
            complete(&mut frame);
            assert_eq!(frame.data(), &bytes[..cut]);
        }
        let mut fragment = bytes.clone();
        fragment[20] = 0x20;
        let mut frame = pool.copy_from(&fragment).unwrap();
        frame.meta_mut().checksum = Checksum::Partial;
        complete(&mut frame);
        assert_eq!(frame.meta().checksum, Checksum::Partial);
        let mut whole = pool.copy_from(&bytes).unwrap();
        complete(&mut whole);
        assert_eq!(whole.data()[start + 6..start + 8], [0xab, 0xcd], "not marked partial");
    }
}
