//! The mark: 18 bytes at the start of a frame's UDP payload, by which its receiver knows it.
//!
//! | bytes | |
//! |---|---|
//! | 0-2   | "RXL" |
//! | 3     | stream |
//! | 4-8   | sequence number, 40 bits |
//! | 9-13  | time stamp of the burst that it was sent in, nanoseconds, 40 bits (18 minutes, then again from 0) |
//! | 14-17 | checksum of bytes 3 to 13 |
//!
//! 18 bytes is what the smallest Ethernet frame has room for behind IPv4 and UDP. The magic and the checksum know a mark independently
//! of each other, so a frame of which one bit is wrong is known for ours, and for damaged, wherever that bit is: in the mark, or elsewhere
//! by the checksums of IP and UDP, which the receiver looks through. Addresses and ports that were swapped on the way, or a lower TTL, are no damage.
//!
//! Deliberately absent: what a frame's number means, which is [`Tracker`](crate::track::Tracker)'s. Not covered: VLAN tags, and in IPv6 traffic class, flow
//! label and hop limit. Nothing but the FCS covers these, and devices change them.

use std::time::Duration;

use pmd::checksum::Sum;
use pmd::{Instant, Mbuf};

use crate::headers::{IPV4, IPV6, be16, network};

/// Bytes of a mark.
pub const MARK_LEN: usize = 18;

const MAGIC: [u8; 3] = *b"RXL";
const BITS_40: u64 = (1 << 40) - 1;
pub(crate) const UDP: u8 = 17;
pub(crate) const UDP_LEN: usize = 8;

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which sender's it is.
    pub stream: u8,
    /// Its number within the stream, modulo 2^40.
    pub sequence: u64,
    sent: u64,
}

/// What a received frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Marked, and as it was sent.
    Whole(Mark),
    /// Marked, and not as it was sent. With the mark, where that can be trusted.
    Damaged(Option<Mark>),
    /// Not marked.
    Foreign,
}

impl Mark {
    /// A mark for a frame that is sent at `now`.
    pub fn new(stream: u8, sequence: u64, now: Instant) -> Mark {
        Mark { stream, sequence: sequence & BITS_40, sent: now.as_nanos() & BITS_40 }
    }

    /// How long ago it was sent: as long as both ends have the same clock, and less than 18 minutes.
    pub fn age(&self, now: Instant) -> Duration {
        Duration::from_nanos(now.as_nanos().wrapping_sub(self.sent) & BITS_40)
    }

    /// As it lies in a frame.
    #[inline]
    pub fn bytes(&self) -> [u8; MARK_LEN] {
        let mut bytes = [0; MARK_LEN];
        bytes[..3].copy_from_slice(&MAGIC);
        bytes[3] = self.stream;
        bytes[4..9].copy_from_slice(&self.sequence.to_be_bytes()[3..]);
        bytes[9..14].copy_from_slice(&self.sent.to_be_bytes()[3..]);
        bytes[14..].copy_from_slice(&self.check().to_be_bytes());
        bytes
    }

    /// A hash of the two words: of damaged or foreign bytes one in 2^32 fits. What it misses, UDP's checksum may still notice.
    fn check(&self) -> u32 {
        let words = [(u64::from(self.stream) << 40) | self.sequence, self.sent];
        let mixed = words.map(|word| (word ^ (word >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        ((mixed[0] ^ mixed[1].rotate_left(23)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as u32
    }

    /// The mark in these bytes, and whether magic and checksum say that it is one.
    fn read(bytes: &[u8; MARK_LEN]) -> (Mark, bool, bool) {
        let five = |at: usize| bytes[at..at + 5].iter().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        let mark = Mark { stream: bytes[3], sequence: five(4), sent: five(9) };
        (mark, bytes[..3] == MAGIC, bytes[14..] == mark.check().to_be_bytes())
    }
}

/// Judges a frame whose mark should be `at` bytes behind its beginning. It may be elsewhere, if a VLAN tag was added or taken away.
#[inline]
pub fn judge(frame: &Mbuf, at: usize) -> Judgement {
    match judge_at(frame, at) {
        Judgement::Foreign => match find(frame.data()) {
            Some(elsewhere) if elsewhere != at => judge_at(frame, elsewhere),
            _ => Judgement::Foreign,
        },
        judged => judged,
    }
}

fn judge_at(frame: &Mbuf, at: usize) -> Judgement {
    let Some(bytes) = frame.data().get(at..).and_then(|from| from.first_chunk()) else {
        return Judgement::Foreign;
    };
    match Mark::read(bytes) {
        (_, false, false) => Judgement::Foreign,
        (mark, true, true) if is_intact(frame, at) => Judgement::Whole(mark),
        (mark, _, true) => Judgement::Damaged(Some(mark)),
        (_, true, false) => Judgement::Damaged(None),
    }
}

/// Where UDP's payload begins, behind an IP header without options.
fn find(head: &[u8]) -> Option<usize> {
    let (kind, ip) = network(head)?;
    match kind {
        IPV4 => Some(ip + 20 + UDP_LEN),
        IPV6 => Some(ip + 40 + UDP_LEN),
        _ => None,
    }
}

/// Whether the headers before the mark at `at`, and all that UDP carries, agree with their checksums and lengths.
fn is_intact(frame: &Mbuf, at: usize) -> bool {
    let head = frame.data();
    let ethertype = |ip: usize| be16(head, ip.checked_sub(2)?);
    let Some(udp) = at.checked_sub(UDP_LEN) else { return false };
    if let Some(ip) = udp.checked_sub(20)
        && ethertype(ip) == Some(IPV4)
    {
        let header = &head[ip..udp];
        let mut sum = Sum::default();
        sum.add(header);
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        return header[0] == 0x45
            && header[9] == UDP
            && sum.finish() == 0
            && udp_is_intact(frame, &header[12..], udp, total.wrapping_sub(20));
    }
    if let Some(ip) = udp.checked_sub(40)
        && ethertype(ip) == Some(IPV6)
    {
        let header = &head[ip..udp];
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        return header[0] >> 4 == 6 && header[6] == UDP && udp_is_intact(frame, &header[8..], udp, len);
    }
    false
}

fn udp_is_intact(frame: &Mbuf, addresses: &[u8], udp: usize, len: usize) -> bool {
    let header = &frame.data()[udp..udp + UDP_LEN];
    // We send none without a checksum.
    if usize::from(u16::from_be_bytes([header[4], header[5]])) != len
        || udp + len > frame.len()
        || header[6..] == [0, 0]
    {
        return false;
    }
    let mut sum = Sum::default();
    sum.add(addresses);
    sum.add(&[0, UDP]);
    sum.add(&(len as u16).to_be_bytes());
    let (mut skip, mut left) = (udp, len);
    for segment in frame.segments() {
        let from = skip.min(segment.len());
        let take = left.min(segment.len() - from);
        sum.add(&segment[from..from + take]);
        (skip, left) = (skip - from, left - take);
    }
    sum.finish() == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Frames, Template};
    use pmd::{Pool, PoolConfig};
    use proptest::prelude::*;

    fn pool() -> Pool {
        PoolConfig::new("mark", 64).build().unwrap().claim()
    }

    fn frames(v6: bool, vlans: &[u16], size: usize) -> Frames {
        let mut template = Template { vlans: vlans.to_vec(), ..Template::default() };
        template.sizes = size.to_string().parse().unwrap();
        if v6 {
            template.source = "2001:db8::1".parse().unwrap();
            template.destination = "2001:db8::2".parse().unwrap();
        }
        Frames::new(&template, 1, 0).unwrap()
    }

    #[test]
    fn a_mark_arrives_as_it_was_written() {
        let now = Instant::from_nanos(3_000_000_000_123);
        let mark = Mark::new(200, (1 << 40) + 77, now);
        assert_eq!(Mark::read(&mark.bytes()), (mark, true, true));
        assert_eq!((mark.stream, mark.sequence), (200, 77), "numbers are 40 bits long");
        assert_eq!(mark.age(now + Duration::from_micros(5)), Duration::from_micros(5));
        // Over the moment at which 40 bits begin again.
        let late = Mark::new(0, 0, Instant::from_nanos((1 << 40) - 10));
        assert_eq!(late.age(Instant::from_nanos((1 << 40) + 15)), Duration::from_nanos(25));
    }

    /// Any one bit behind the Ethernet header, except what no checksum of IPv6 covers.
    #[test]
    fn every_single_bit_error_is_damage_and_none_makes_a_frame_foreign() {
        let mut pool = pool();
        for (v6, vlans, size) in
            [(false, &[][..], 64), (false, &[5][..], 100), (true, &[][..], 84), (true, &[5, 6][..], 2300)]
        {
            let mut frames = frames(v6, vlans, size);
            let at = frames.mark_offset();
            let mark = Mark::new(3, 99, Instant::from_nanos(1000));
            let sent = frames.build(&mark, &mut pool).unwrap();
            let bytes: Vec<u8> = sent.segments().flatten().copied().collect();
            assert_eq!(judge(&sent, at), Judgement::Whole(mark));
            let ip = 14 + 4 * vlans.len();
            for bit in ip * 8..bytes.len() * 8 {
                let mut hit = bytes.clone();
                hit[bit / 8] ^= 1 << (bit % 8);
                let uncovered = v6 && (bit / 8 == ip && bit % 8 < 4 || matches!(bit / 8 - ip, 1..=3 | 7));
                let judged = judge(&pool.copy_from(&hit).unwrap(), at);
                match judged {
                    Judgement::Whole(_) => assert!(uncovered, "bit {bit} of byte {} went unnoticed", bit / 8),
                    Judgement::Damaged(known) => assert!(known.is_none_or(|known| known == mark)),
                    Judgement::Foreign => panic!("bit {bit} made the frame foreign"),
                }
                assert!(!uncovered || judged == Judgement::Whole(mark));
            }
        }
    }

    #[test]
    fn a_tag_more_or_less_and_swapped_addresses_are_no_damage() {
        let mut pool = pool();
        let mark = Mark::new(1, 5, Instant::ZERO);
        let plain = frames(false, &[], 64).build(&mark, &mut pool).unwrap();
        let tagged = frames(false, &[7], 68).build(&mark, &mut pool).unwrap();
        for (frame, at) in [(&plain, 46), (&tagged, 42)] {
            assert_eq!(judge(frame, at), Judgement::Whole(mark));
        }
        let mut bytes = plain.data().to_vec();
        bytes[26..34].rotate_left(4);
        bytes[34..38].rotate_left(2);
        assert_eq!(judge(&pool.copy_from(&bytes).unwrap(), 42), Judgement::Whole(mark));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..200) {
            let mut pool = pool();
            let _ = judge(&pool.copy_from(&bytes).unwrap(), at);
        }

        #[test]
        fn foreign_payloads_are_foreign(payload in prop::collection::vec(any::<u8>(), MARK_LEN..60)) {
            prop_assume!(payload[..3] != MAGIC);
            let mut bytes = vec![0; 42];
            bytes[12..14].copy_from_slice(&IPV4.to_be_bytes());
            bytes.extend(&payload);
            prop_assert_eq!(judge(&pool().copy_from(&bytes).unwrap(), 42), Judgement::Foreign);
        }
    }
}
