//! What frames look like: Ethernet, VLAN tags, IPv4 or IPv6, UDP, the mark, and a pattern up to the size.
//!
//! A [`Template`] says it; [`Frames`] makes them, one after the other, for one queue. All that frames have in common lies there ready, and so
//! do the sums of what makes a size; a frame costs a copy, the bytes that differ, and two checksums put together from those sums.
//!
//! Sizes are RFC 2544's: with the FCS, which no buffer here contains. Deliberately absent: other protocols than UDP, IP options, jumbo frames
//! beyond what the port's MTU takes.

use std::str::FromStr;

use pmd::{Instant, MacAddr, Mbuf, Pool};

use crate::line_rate::FRAME_MIN;
use crate::mark::{MARK_LEN, Mark, UDP, UDP_LEN};
use crate::values::{Addresses, Ports, Stepper};

/// The largest frame, FCS included: an IP packet of 9216 bytes.
pub const FRAME_MAX: usize = 9216 + ETHERNET + FCS;

/// Different sizes that a list may have.
const SIZES_MAX: usize = 1024;
const ETHERNET: usize = 14;
const TAG: usize = 4;
/// Bytes of the frame check sequence.
pub const FCS: usize = 4;
const TTL: u8 = 64;

/// IMIX: seven small frames, four middling, one large, as they follow one another. These are IP packets of 40, 576 and 1500 bytes with
/// 18 of Ethernet, the smallest padded to 64: the "simple IMIX" of the test vendors. RFC 6985 says how such a mix is to be named in a report.
pub const IMIX: [usize; 12] = [64, 594, 64, 64, 594, 64, 1518, 64, 594, 64, 594, 64];

/// Sizes of frames, bytes, FCS included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// These, one after the other, and again.
    List(Vec<usize>),
    /// Drawn from this range, ends included.
    Random(usize, usize),
}

impl FromStr for Sizes {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Sizes, TemplateError> {
        let bad = || TemplateError::BadSizes { text: text.into() };
        let size = |text: &str| text.parse::<usize>().map_err(|_| bad());
        let sizes = if text == "imix" {
            Sizes::List(IMIX.to_vec())
        } else if let Some((least, most)) = text.split_once('-') {
            Sizes::Random(size(least)?, size(most)?)
        } else {
            Sizes::List(text.split(',').map(size).collect::<Result<_, _>>()?)
        };
        match sizes {
            Sizes::Random(least, most) if least > most => Err(bad()),
            _ => Ok(sizes),
        }
    }
}

impl Sizes {
    /// The smallest and the largest.
    pub fn ends(&self) -> (usize, usize) {
        match self {
            Sizes::List(sizes) => {
                (sizes.iter().copied().min().unwrap_or(0), sizes.iter().copied().max().unwrap_or(0))
            }
            Sizes::Random(least, most) => (*least, *most),
        }
    }

    /// The mean size.
    pub fn mean(&self) -> f64 {
        match self {
            Sizes::List(sizes) => sizes.iter().sum::<usize>() as f64 / sizes.len().max(1) as f64,
            Sizes::Random(least, most) => (least + most) as f64 / 2.0,
        }
    }
}

/// Why no frames can be made so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not sizes.
    #[error(
        "{text:?} says no frame sizes: write 64, a list 64,128,1518, a range to draw from 64-1518, or imix"
    )]
    BadSizes {
        /// What was given.
        text: String,
    },
    /// No sizes, or too many.
    #[error("a list of {sizes} frame sizes; write 1 to {SIZES_MAX}, or a range")]
    SizeCount {
        /// How many.
        sizes: usize,
    },
    /// Too small for its headers and the mark.
    #[error(
        "{size} bytes do not hold Ethernet, {tags} VLAN tags, {ip}, UDP, the mark and the FCS: {least} do"
    )]
    TooSmall {
        /// What was given.
        size: usize,
        /// VLAN tags.
        tags: usize,
        /// IPv4 or IPv6.
        ip: &'static str,
        /// The smallest that would do.
        least: usize,
    },
    /// Larger than anything takes.
    #[error("frames of {size} bytes; the largest are {most}")]
    TooLarge {
        /// What was given.
        size: usize,
        /// The limit.
        most: usize,
    },
    /// Source and destination are of different IP versions.
    #[error("IPv4 on one side and IPv6 on the other: give source and destination addresses of one version")]
    BothVersions,
    /// Not a VLAN tag.
    #[error("VLAN {vlan}: there are 1 to 4094")]
    BadVlan {
        /// What was given.
        vlan: u16,
    },
    /// More tags than two.
    #[error("{tags} VLAN tags; at most two, the outer one first")]
    TooManyTags {
        /// How many.
        tags: usize,
    },
}

/// What frames look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Source address.
    pub source_mac: MacAddr,
    /// Destination address.
    pub destination_mac: MacAddr,
    /// 802.1Q tags, at most two, the outer one (802.1ad's Ethertype) first.
    pub vlans: Vec<u16>,
    /// IP source addresses. Each field goes on by itself with each frame.
    pub source: Addresses,
    /// IP destination addresses, of the same version.
    pub destination: Addresses,
    /// UDP source ports.
    pub source_ports: Ports,
    /// UDP destination ports.
    pub destination_ports: Ports,
    /// Sizes, bytes, FCS included.
    pub sizes: Sizes,
}

/// RFC 2544's, appendix C: addresses of the benchmarking network 198.18.0.0/15, from port 0xc020 to the echo port; 64 bytes, broadcast.
impl Default for Template {
    fn default() -> Self {
        Template {
            source_mac: MacAddr::local_from("linerate"),
            destination_mac: MacAddr::BROADCAST,
            vlans: Vec::new(),
            source: Addresses::fixed([198, 18, 0, 1].into()),
            destination: Addresses::fixed([198, 19, 0, 1].into()),
            source_ports: Ports::fixed(0xc020),
            destination_ports: Ports::fixed(7),
            sizes: Sizes::List(vec![FRAME_MIN]),
        }
    }
}

impl Template {
    /// The template of the traffic back: source and destination are swapped.
    pub fn reversed(&self) -> Template {
        Template {
            source_mac: self.destination_mac,
            destination_mac: self.source_mac,
            source: self.destination.clone(),
            destination: self.source.clone(),
            source_ports: self.destination_ports.clone(),
            destination_ports: self.source_ports.clone(),
            ..self.clone()
        }
    }

    /// Where the IP header begins.
    fn ip(&self) -> usize {
        ETHERNET + TAG * self.vlans.len()
    }

    fn is_ipv6(&self) -> bool {
        self.source.is_ipv6()
    }

    /// Where the mark begins.
    pub fn mark_offset(&self) -> usize {
        self.ip() + if self.is_ipv6() { 40 } else { 20 } + UDP_LEN
    }

    /// The smallest frame that holds it all, FCS included.
    pub fn size_min(&self) -> usize {
        (self.mark_offset() + MARK_LEN + FCS).max(FRAME_MIN)
    }

    /// Whether frames can be made so.
    pub fn check(&self) -> Result<(), TemplateError> {
        if self.vlans.len() > 2 {
            return Err(TemplateError::TooManyTags { tags: self.vlans.len() });
        }
        if let Some(&vlan) = self.vlans.iter().find(|vlan| !(1..=4094).contains(*vlan)) {
            return Err(TemplateError::BadVlan { vlan });
        }
        if self.source.is_ipv6() != self.destination.is_ipv6() {
            return Err(TemplateError::BothVersions);
        }
        if let Sizes::List(sizes) = &self.sizes
            && !(1..=SIZES_MAX).contains(&sizes.len())
        {
            return Err(TemplateError::SizeCount { sizes: sizes.len() });
        }
        let (size, most) = self.sizes.ends();
        if size < self.size_min() {
            let ip = if self.is_ipv6() { "IPv6" } else { "IPv4" };
            return Err(TemplateError::TooSmall { size, tags: self.vlans.len(), ip, least: self.size_min() });
        }
        if most > FRAME_MAX {
            return Err(TemplateError::TooLarge { size: most, most: FRAME_MAX });
        }
        Ok(())
    }

    /// A frame without addresses, ports, lengths, checksums and mark: what all of them have in common.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.destination_mac.0);
        bytes.extend(self.source_mac.0);
        for (i, vlan) in self.vlans.iter().enumerate() {
            bytes.extend(if i + 1 < self.vlans.len() { [0x88, 0xa8] } else { [0x81, 0x00] });
            bytes.extend(vlan.to_be_bytes());
        }
        if self.is_ipv6() {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, UDP, TTL]);
        } else {
            // May not be fragmented: then its identification may stay 0 (RFC 6864).
            bytes.extend([0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0x40, 0, TTL, UDP]);
        }
        bytes.resize(self.mark_offset() + MARK_LEN, 0);
        let fill = bytes.len()..self.sizes.ends().1 - FCS;
        bytes.extend(fill.map(|at| at as u8));
        bytes
    }
}

/// What belongs to a size.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Bytes in the buffer.
    len: usize,
    /// IPv4's header without its addresses, in 16-bit words.
    ip_sum: u64,
    /// UDP's header, its pseudo-header and the pattern, without addresses, ports and mark.
    udp_sum: u64,
}

/// Makes frames, for one queue.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The last frame, at the length of the largest.
    bytes: Vec<u8>,
    shapes: Box<[Shape]>,
    /// Whether shapes are drawn, or follow one another.
    drawn: bool,
    next: usize,
    v6: bool,
    ip: usize,
    source: Stepper,
    destination: Stepper,
    source_ports: Stepper,
    destination_ports: Stepper,
    random: fastrand::Rng,
}

impl Frames {
    /// Frames as `template` says. `seed` is for what is drawn. `skip` is how many frames further the fields begin, so that queues that share a
    /// template do not all send the same flows.
    pub fn new(template: &Template, seed: u64, skip: u64) -> Result<Frames, TemplateError> {
        template.check()?;
        let bytes = template.bytes();
        let (v6, ip) = (template.is_ipv6(), template.ip());
        let fill = template.mark_offset() + MARK_LEN;
        let mut up_to = vec![0; bytes.len() - fill + 1];
        for at in fill..bytes.len() {
            // The pattern begins at an even place of what UDP sums.
            let word = u64::from(bytes[at]) << (8 * ((at + 1 - fill) % 2));
            up_to[at + 1 - fill] = up_to[at - fill] + word;
        }
        let shape = |size: usize| {
            let len = size - FCS;
            let udp = len - (fill - MARK_LEN - UDP_LEN);
            // The version and length word, the total length, "don't fragment", TTL and protocol.
            let ip_sum = 0x4500 + (len - ip) as u64 + 0x4000 + u64::from(u16::from_be_bytes([TTL, UDP]));
            let udp_sum = u64::from(UDP) + 2 * udp as u64 + up_to[len - fill];
            Shape { len, ip_sum, udp_sum }
        };
        let (shapes, drawn): (Vec<_>, _) = match &template.sizes {
            Sizes::List(sizes) => (sizes.iter().map(|&size| shape(size)).collect(), false),
            Sizes::Random(least, most) => ((*least..=*most).map(shape).collect(), true),
        };
        let mut frames = Frames {
            bytes,
            shapes: shapes.into(),
            drawn,
            next: 0,
            v6,
            ip,
            source: template.source.values.stepper(skip),
            destination: template.destination.values.stepper(skip),
            source_ports: template.source_ports.0.stepper(skip),
            destination_ports: template.destination_ports.0.stepper(skip),
            random: fastrand::Rng::with_seed(seed),
        };
        if drawn {
            frames.choose();
        }
        Ok(frames)
    }

    /// Where the mark begins.
    pub fn mark_offset(&self) -> usize {
        self.ip + if self.v6 { 40 } else { 20 } + UDP_LEN
    }

    /// The size of the next frame, FCS included.
    #[inline]
    pub fn next_size(&self) -> usize {
        self.shapes[self.next].len + FCS
    }

    /// The next frame; `None` without a buffer, and then the next one will have the same size.
    #[inline]
    pub fn build(&mut self, mark: &Mark, pool: &mut Pool) -> Option<Mbuf> {
        let Shape { len, ip_sum, udp_sum } = self.shapes[self.next];
        let addresses = self.write_addresses();
        let udp = self.ip + if self.v6 { 40 } else { 20 };
        let udp_len = len - udp;
        if self.v6 {
            put(&mut self.bytes, self.ip + 4, udp_len as u16);
        } else {
            put(&mut self.bytes, self.ip + 2, (len - self.ip) as u16);
            put(&mut self.bytes, self.ip + 10, !fold(ip_sum + addresses));
        }
        let ports = self.write_ports(udp);
        let mark = mark.bytes();
        self.bytes[udp + UDP_LEN..][..MARK_LEN].copy_from_slice(&mark);
        put(&mut self.bytes, udp + 4, udp_len as u16);
        let checksum = match !fold(udp_sum + addresses + ports + words(&mark)) {
            // RFC 768: a sum of zero is transmitted as all ones.
            0 => 0xffff,
            checksum => checksum,
        };
        put(&mut self.bytes, udp + 6, checksum);
        let frame = pool.copy_from(&self.bytes[..len])?;
        self.choose();
        Some(frame)
    }

    /// Chooses the next frame's shape.
    #[inline]
    fn choose(&mut self) {
        self.next = match self.next + 1 {
            _ if self.drawn => self.random.usize(..self.shapes.len()),
            end if end == self.shapes.len() => 0,
            next => next,
        };
    }

    /// Writes the addresses; the sum of their words.
    #[inline]
    fn write_addresses(&mut self) -> u64 {
        let source = self.source.next(&mut self.random);
        let destination = self.destination.next(&mut self.random);
        if self.v6 {
            self.bytes[self.ip + 8..][..16].copy_from_slice(&source.to_be_bytes());
            self.bytes[self.ip + 24..][..16].copy_from_slice(&destination.to_be_bytes());
            return words(&self.bytes[self.ip + 8..][..32]);
        }
        self.bytes[self.ip + 12..][..4].copy_from_slice(&(source as u32).to_be_bytes());
        self.bytes[self.ip + 16..][..4].copy_from_slice(&(destination as u32).to_be_bytes());
        words(&self.bytes[self.ip + 12..][..8])
    }

    /// Writes the ports; their sum.
    #[inline]
    fn write_ports(&mut self, udp: usize) -> u64 {
        let source = self.source_ports.next(&mut self.random) as u16;
        let destination = self.destination_ports.next(&mut self.random) as u16;
        put(&mut self.bytes, udp, source);
        put(&mut self.bytes, udp + 2, destination);
        u64::from(source) + u64::from(destination)
    }
}

/// A frame as it would be at time zero, number zero: for those who want to look at one.
pub fn example(template: &Template, pool: &mut Pool) -> Result<Option<Mbuf>, TemplateError> {
    Ok(Frames::new(template, 0, 0)?.build(&Mark::new(0, 0, Instant::ZERO), pool))
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The sum of an even number of bytes as 16-bit words.
#[inline]
fn words(bytes: &[u8]) -> u64 {
    bytes.as_chunks::<2>().0.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum()
}

#[inline]
fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mark::{Judgement, judge};
    use pmd::PoolConfig;
    use proptest::prelude::*;

    fn pool() -> Pool {
        PoolConfig::new("template", 64).build().unwrap().claim()
    }

    fn bytes(frame: &Mbuf) -> Vec<u8> {
        frame.segments().flatten().copied().collect()
    }

    /// Written down by hand, its two checksums computed by hand as well.
    #[test]
    fn the_default_frame_byte_by_byte() {
        let template = Template { source_mac: "02:00:00:00:00:01".parse().unwrap(), ..Template::default() };
        let frame = bytes(&example(&template, &mut pool()).unwrap().unwrap());
        assert_eq!(frame.len(), 60, "64 with the FCS");
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 0]);
        // 4500+002e+4000+4011 = c53f; c612+0001+c613+0001 = 18c27: 8c28 folded; together 15167: 5168 folded; complement ae97.
        assert_eq!(
            frame[14..34],
            [0x45, 0, 0, 0x2e, 0, 0, 0x40, 0, 64, 17, 0xae, 0x97, 198, 18, 0, 1, 198, 19, 0, 1]
        );
        assert_eq!(frame[34..40], [0xc0, 0x20, 0, 7, 0, 0x1a]);
        assert_eq!(frame[42..46], *b"RXL\0");
    }

    #[test]
    fn imix_is_seven_to_four_to_one() {
        let count = |size| IMIX.iter().filter(|&&one| one == size).count();
        assert_eq!([64, 594, 1518].map(count), [7, 4, 1]);
        let mut frames =
            Frames::new(&Template { sizes: "imix".parse().unwrap(), ..Template::default() }, 1, 0).unwrap();
        let mut pool = pool();
        for size in IMIX.into_iter().chain(IMIX) {
            assert_eq!(frames.next_size(), size);
            assert_eq!(frames.build(&Mark::new(0, 0, Instant::ZERO), &mut pool).unwrap().len(), size - 4);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_mend() {
        let with = |change: fn(&mut Template)| {
            let mut template = Template::default();
            change(&mut template);
            template.check().unwrap_err().to_string()
        };
        assert!(with(|t| t.sizes = Sizes::List(vec![63])).ends_with("64 do"));
        assert!(with(|t| t.vlans = vec![5]).ends_with("68 do"), "a tag takes the mark's room");
        let v6 = |t: &mut Template| {
            (t.source, t.destination) = ("::1".parse().unwrap(), "::2".parse().unwrap());
        };
        assert!(with(v6).ends_with("IPv6, UDP, the mark and the FCS: 84 do"));
        assert!(with(|t| t.source = "::1".parse().unwrap()).contains("one version"));
        assert!(with(|t| t.vlans = vec![0]).contains("1 to 4094"));
        assert!(with(|t| t.vlans = vec![1, 2, 3]).contains("at most two"));
        assert!(with(|t| t.sizes = Sizes::List(Vec::new())).contains("write 1 to"));
        assert!(with(|t| t.sizes = Sizes::Random(64, 99_999)).contains("largest"));
        for text in ["", "x", "64,", "128-64", "-64"] {
            assert!(text.parse::<Sizes>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn without_a_buffer_the_size_stays() {
        let mut pool = PoolConfig::new("one", 1).build().unwrap().claim();
        let template = Template { sizes: "64,128".parse().unwrap(), ..Template::default() };
        let mut frames = Frames::new(&template, 1, 0).unwrap();
        let mark = Mark::new(0, 0, Instant::ZERO);
        let held = frames.build(&mark, &mut pool).unwrap();
        assert!(frames.build(&mark, &mut pool).is_none());
        drop(held);
        assert_eq!(frames.build(&mark, &mut pool).unwrap().len(), 124);
    }

    fn addresses(v6: bool) -> impl Strategy<Value = Addresses> {
        let v4 = ["192.0.2.1", "random:10.0.0.0/8", "255.255.255.0-255.255.255.255", "0.0.0.0,10.1.2.3"];
        let six =
            ["::", "random:2001:db8::/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/124", "::1,fe80::1"];
        prop::sample::select(if v6 { six.to_vec() } else { v4.to_vec() })
            .prop_map(|text| text.parse().unwrap())
    }

    fn templates() -> impl Strategy<Value = Template> {
        let ports = || prop::sample::select(vec!["7", "random:0-65535", "65535-65535,0"]);
        let sizes = prop::sample::select(vec!["92", "92-1518", "93,1518,94", "8999-9022", "1790-1800"]);
        let vlans = prop::collection::vec(1u16..4095, 0..3);
        any::<bool>().prop_flat_map(addresses_of).prop_flat_map(move |(source, destination)| {
            (ports(), ports(), sizes.clone(), vlans.clone()).prop_map(move |(from, to, sizes, vlans)| {
                Template {
                    source: source.clone(),
                    destination: destination.clone(),
                    source_ports: from.parse().unwrap(),
                    destination_ports: to.parse().unwrap(),
                    sizes: sizes.parse().unwrap(),
                    vlans,
                    ..Template::default()
                }
            })
        })
    }

    fn addresses_of(v6: bool) -> impl Strategy<Value = (Addresses, Addresses)> {
        (addresses(v6), addresses(v6))
    }

    proptest! {
        /// The judge sums every byte and knows nothing of how the checksums were put together.
        #[test]
        fn every_frame_has_its_size_and_right_checksums(
            template in templates(), seed: u64, skip: u64, sequence: u64, nanos: u64
        ) {
            let mut pool = pool();
            let mut frames = Frames::new(&template, seed, skip).unwrap();
            let (least, most) = template.sizes.ends();
            for i in 0..40 {
                let mark = Mark::new(i, sequence.wrapping_add(i.into()), Instant::from_nanos(nanos));
                let size = frames.next_size();
                let frame = frames.build(&mark, &mut pool).unwrap();
                prop_assert!(frame.len() + FCS == size && (least..=most).contains(&size));
                prop_assert_eq!(judge(&frame, template.mark_offset()), Judgement::Whole(mark));
                let all = bytes(&frame);
                let pattern = &all[template.mark_offset() + MARK_LEN..];
                let expected = template.mark_offset() + MARK_LEN..all.len();
                prop_assert!(pattern.iter().zip(expected).all(|(byte, at)| *byte == at as u8));
            }
        }
    }
}
