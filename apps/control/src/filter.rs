//! [`Filter`]: which captured frames are wanted. A small expression over addresses, ports and protocols.
//!
//! ```text
//! EXPR = EXPR or EXPR | EXPR and EXPR | not EXPR | ( EXPR ) | TEST          `and` binds closer than `or`
//! TEST = [src|dst] host ADDRESS | [src|dst] net ADDRESS/BITS | [src|dst] port N
//!      | udp | tcp | icmp | icmp6 | arp | ip | ip6 | vlan [N] | proto N | longer N | shorter N
//! ```
//!
//! Looks at the outermost addresses and at UDP's and TCP's ports. A later fragment has no ports, and a frame that was cut short has what is left
//! of it: then a test on what is missing is false. Deliberately absent: everything else of pcap-filter(7); tshark reads the file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// How deep parentheses and `not`s may go.
const DEPTH_MAX: usize = 32;

/// A wanted frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Expr);

/// Why an expression is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter: {what}, at {}; for example: host 192.0.2.1 and not port 7001", if at.is_empty() { "its end".into() } else { format!("{at:?}") })]
pub struct FilterError {
    what: String,
    /// From where on it is not understood.
    at: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expr {
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Test(Test),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Net(Side, IpAddr, u8),
    Port(Side, u16),
    Ethertype(u16),
    Proto(u8),
    Vlan(Option<u16>),
    Longer(usize),
    Shorter(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Either,
    Src,
    Dst,
}

impl Filter {
    /// Whether a frame of `len` bytes that begins with `bytes` is wanted.
    pub fn wants(&self, bytes: &[u8], len: usize) -> bool {
        self.0.holds(&Seen::of(bytes, len))
    }
}

impl Expr {
    fn holds(&self, seen: &Seen) -> bool {
        match self {
            Expr::And(a, b) => a.holds(seen) && b.holds(seen),
            Expr::Or(a, b) => a.holds(seen) || b.holds(seen),
            Expr::Not(a) => !a.holds(seen),
            Expr::Test(test) => test.holds(seen),
        }
    }
}

impl Test {
    fn holds(self, seen: &Seen) -> bool {
        match self {
            Test::Net(side, net, bits) => side.any(seen.addresses, |address| within(address, net, bits)),
            Test::Port(side, port) => side.any(seen.ports, |found| found == port),
            Test::Ethertype(kind) => seen.ethertype == Some(kind),
            Test::Proto(proto) => seen.proto == Some(proto),
            Test::Vlan(id) => seen.vlan.is_some_and(|found| id.is_none_or(|id| id == found)),
            Test::Longer(len) => seen.len > len,
            Test::Shorter(len) => seen.len < len,
        }
    }
}

impl Side {
    fn any<T>(self, pair: Option<(T, T)>, mut test: impl FnMut(T) -> bool) -> bool {
        match (self, pair) {
            (_, None) => false,
            (Side::Src, Some((src, _))) => test(src),
            (Side::Dst, Some((_, dst))) => test(dst),
            (Side::Either, Some((src, dst))) => test(src) || test(dst),
        }
    }
}

fn within(address: IpAddr, net: IpAddr, bits: u8) -> bool {
    let same = |a: u128, b: u128, width: u32| {
        let shift = width - u32::from(bits).min(width);
        a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
    };
    match (address, net) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
        _ => false,
    }
}

/// What a frame shows of itself.
#[derive(Default)]
struct Seen {
    len: usize,
    ethertype: Option<u16>,
    vlan: Option<u16>,
    addresses: Option<(IpAddr, IpAddr)>,
    proto: Option<u8>,
    ports: Option<(u16, u16)>,
}

const IP: u16 = 0x0800;
const IP6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

impl Seen {
    fn of(bytes: &[u8], len: usize) -> Self {
        let mut seen = Seen { len, ..Seen::default() };
        let mut at = 12;
        let mut ethertype = u16_at(bytes, at);
        // One tag, or two of a provider.
        while let (Some(0x8100 | 0x88a8), true) = (ethertype, at < 20) {
            seen.vlan = u16_at(bytes, at + 2).map(|tag| tag & 0xfff);
            at += 4;
            ethertype = u16_at(bytes, at);
        }
        seen.ethertype = ethertype;
        let packet = bytes.get(at + 2..).unwrap_or_default();
        match ethertype {
            Some(IP) => seen.ipv4(packet),
            Some(IP6) => seen.ipv6(packet),
            _ => {}
        }
        seen
    }

    fn ipv4(&mut self, packet: &[u8]) {
        let address = |at: usize| Some(IpAddr::V4(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?)));
        self.addresses = address(12).zip(address(16));
        self.proto = packet.get(9).copied();
        let Some(fragment) = u16_at(packet, 6) else { return };
        if fragment & 0x1fff == 0 {
            let header = usize::from(packet[0] & 0xf) * 4;
            self.transport(packet.get(header..).unwrap_or_default());
        }
    }

    fn ipv6(&mut self, packet: &[u8]) {
        /// Hop-by-hop options, routing, destination options; a fragment's header is 44.
        const EXTENSIONS: [u8; 3] = [0, 43, 60];
        const FRAGMENT: u8 = 44;
        let address = |at: usize| Some(IpAddr::V6(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?)));
        self.addresses = address(8).zip(address(24));
        let (mut next, mut at) = (packet.get(6).copied(), 40);
        for _ in 0..8 {
            let Some(kind) = next else { return };
            let here = packet.get(at..).unwrap_or_default();
            if kind == FRAGMENT {
                let later = u16_at(here, 2).is_none_or(|offset| offset >> 3 != 0);
                (next, at) = (here.first().copied(), at + 8);
                if later {
                    self.proto = next;
                    return;
                }
            } else if EXTENSIONS.contains(&kind) {
                let Some(len) = here.get(1) else { return };
                (next, at) = (here.first().copied(), at + 8 + 8 * usize::from(*len));
            } else {
                break;
            }
        }
        self.proto = next;
        self.transport(packet.get(at..).unwrap_or_default());
    }

    fn transport(&mut self, bytes: &[u8]) {
        if let Some(TCP | UDP) = self.proto {
            self.ports = u16_at(bytes, 0).zip(u16_at(bytes, 2));
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        // Parentheses are words of their own, with or without spaces around them.
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut parser = Parser { words: &words, depth: 0 };
        let expr = parser.or()?;
        if parser.words.is_empty() { Ok(Filter(expr)) } else { Err(parser.error("`and` or `or` is missing")) }
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    depth: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, what: impl Into<String>) -> FilterError {
        FilterError { what: what.into(), at: self.words.join(" ") }
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn or(&mut self) -> Result<Expr, FilterError> {
        let mut expr = self.and()?;
        while self.take("or") {
            expr = Expr::Or(Box::new(expr), Box::new(self.and()?));
        }
        Ok(expr)
    }

    fn and(&mut self) -> Result<Expr, FilterError> {
        let mut expr = self.not()?;
        while self.take("and") {
            expr = Expr::And(Box::new(expr), Box::new(self.not()?));
        }
        Ok(expr)
    }

    fn not(&mut self) -> Result<Expr, FilterError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("too many parentheses and `not`s"));
        }
        let expr = if self.take("not") {
            Expr::Not(Box::new(self.not()?))
        } else if self.take("(") {
            let expr = self.or()?;
            if !self.take(")") {
                return Err(self.error("`)` is missing"));
            }
            expr
        } else {
            Expr::Test(self.test()?)
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn test(&mut self) -> Result<Test, FilterError> {
        let side = if self.take("src") {
            Side::Src
        } else if self.take("dst") {
            Side::Dst
        } else {
            Side::Either
        };
        let Some(&word) = self.words.first() else { return Err(self.error("something is missing")) };
        let sided = ["host", "net", "port"].contains(&word);
        if side != Side::Either && !sided {
            return Err(self.error("host, net or port is missing behind `src` or `dst`"));
        }
        let rest = self.words;
        self.words = &self.words[1..];
        match word {
            "host" => {
                let address: IpAddr = self.value("an address")?;
                Ok(Test::Net(side, address, 128))
            }
            "net" => self.net(side),
            "port" => Ok(Test::Port(side, self.value("a port")?)),
            "proto" => Ok(Test::Proto(self.value("a protocol's number")?)),
            "longer" => Ok(Test::Longer(self.value("a number of bytes")?)),
            "shorter" => Ok(Test::Shorter(self.value("a number of bytes")?)),
            "vlan" => {
                let id = self.words.first().and_then(|word| word.parse().ok());
                self.words = &self.words[usize::from(id.is_some())..];
                Ok(Test::Vlan(id))
            }
            "udp" => Ok(Test::Proto(UDP)),
            "tcp" => Ok(Test::Proto(TCP)),
            "icmp" => Ok(Test::Proto(ICMP)),
            "icmp6" => Ok(Test::Proto(ICMP6)),
            "arp" => Ok(Test::Ethertype(ARP)),
            "ip" => Ok(Test::Ethertype(IP)),
            "ip6" => Ok(Test::Ethertype(IP6)),
            _ => {
                self.words = rest;
                Err(self.error("no such test"))
            }
        }
    }

    fn value<T: FromStr>(&mut self, what: &str) -> Result<T, FilterError> {
        match self.words.first().and_then(|word| word.parse().ok()) {
            Some(value) => {
                self.words = &self.words[1..];
                Ok(value)
            }
            None => Err(self.error(format!("{what} is missing"))),
        }
    }

    fn net(&mut self, side: Side) -> Result<Test, FilterError> {
        let parsed = self.words.first().and_then(|word| {
            let (address, bits) = word.split_once('/')?;
            let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
            (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
        });
        let Some((address, bits)) = parsed else { return Err(self.error("ADDRESS/BITS is missing")) };
        self.words = &self.words[1..];
        Ok(Test::Net(side, address, bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet, IPv4 and UDP from 192.0.2.1:7000 to 198.51.100.2:7001.
    fn udp4() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2]);
        frame.extend([0x1b, 0x58, 0x1b, 0x59, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        frame
    }

    /// The same on VLAN 5, in IPv6 behind hop-by-hop options, from 2001:db8::1 to ::2.
    fn udp6() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0, 0, 5, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 0, 64]);
        frame.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend([17, 0, 1, 4, 0, 0, 0, 0]);
        frame.extend([0x1b, 0x58, 0x1b, 0x59, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        frame
    }

    fn wants(filter: &str, frame: &[u8]) -> bool {
        filter.parse::<Filter>().unwrap_or_else(|error| panic!("{error}")).wants(frame, frame.len())
    }

    #[test]
    fn each_test_holds_where_it_should() {
        for (filter, v4, v6) in [
            ("host 192.0.2.1", true, false),
            ("src host 192.0.2.1", true, false),
            ("dst host 192.0.2.1", false, false),
            ("host 2001:db8::2", false, true),
            ("net 192.0.2.0/24", true, false),
            ("dst net 192.0.2.0/24", false, false),
            ("net 2001:db8::/32", false, true),
            ("net 0.0.0.0/0", true, false),
            ("port 7001", true, true),
            ("src port 7001", false, false),
            ("udp", true, true),
            ("tcp or icmp or icmp6 or arp", false, false),
            ("proto 17", true, true),
            ("ip", true, false),
            ("ip6", false, true),
            ("vlan", false, true),
            ("vlan 5", false, true),
            ("vlan 6 or vlan and udp", false, true),
            ("longer 60", false, true),
            ("shorter 61", true, false),
            ("not (host 192.0.2.1 or port 7000)", false, false),
            ("not udp or ip and port 7000", true, false),
            ("not not udp", true, true),
        ] {
            assert_eq!((wants(filter, &udp4()), wants(filter, &udp6())), (v4, v6), "{filter}");
        }
    }

    #[test]
    fn and_binds_closer_than_or() {
        assert!(wants("udp or arp and tcp", &udp4()));
        assert!(!wants("(udp or arp) and tcp", &udp4()));
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let mut frame = udp4();
        frame[21] = 1;
        assert!(wants("udp and host 192.0.2.1", &frame) && !wants("port 7000", &frame));
    }

    #[test]
    fn frames_may_be_cut_anywhere() {
        for frame in [udp4(), udp6()] {
            for end in 0..frame.len() {
                assert!(!wants("port 1 or host 203.0.113.1", &frame[..end]));
            }
        }
        assert!(wants("not port 1", &[]));
    }

    #[test]
    fn what_is_no_filter_is_refused_where_it_goes_wrong() {
        for (text, names) in [
            ("", "at its end"),
            ("host", "an address is missing, at its end"),
            ("host example.org", "at \"example.org\""),
            ("port 70000", "at \"70000\""),
            ("port 1 port 2", "`and` or `or` is missing, at \"port 2\""),
            ("src udp", "host, net or port is missing"),
            ("(udp", "`)` is missing"),
            ("net 192.0.2.0/33", "ADDRESS/BITS"),
            ("ether", "no such test, at \"ether\""),
            ("udp and", "something is missing"),
            (&"(".repeat(1000), "too many"),
            (&"not ".repeat(1000), "too many"),
        ] {
            let error = text.parse::<Filter>().expect_err(text).to_string();
            assert!(error.contains(names), "{text}: {error}");
        }
    }
}
