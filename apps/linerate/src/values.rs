//! Values of a header field: fixed, listed, in ranges, or drawn at random, a new one for each frame.
//!
//! Text: `A`, `A-B`, an address with a prefix length, several of these with commas between them, and `random:` before all of it to draw
//! instead of going through them in order. Addresses and ports are both numbers here; 128 bits hold any.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use engine::IpNet;

/// Items that a list may have.
const ITEMS_MAX: usize = 4096;

/// Numbers from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u128,
    count: u64,
}

/// The values of a field, and how one follows another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values {
    runs: Vec<Run>,
    random: bool,
}

/// Text that says no values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValuesError {
    /// Not an address, a port, or a range of them.
    #[error("{text:?} is not {what}; write A, A-B, several with commas, and random: before them to draw")]
    NotOne {
        /// What was given.
        text: String,
        /// What it should be.
        what: &'static str,
    },
    /// The end lies before the beginning.
    #[error("{text:?} ends before it begins; write the lower end first")]
    Backwards {
        /// What was given.
        text: String,
    },
    /// IPv4 and IPv6 in one field.
    #[error(
        "{text:?} has addresses of both versions; a frame has one: give one version, and another run the other"
    )]
    BothVersions {
        /// What was given.
        text: String,
    },
    /// More than anybody lists by hand.
    #[error("{items} items in a list; at most {ITEMS_MAX}: write ranges")]
    TooMany {
        /// How many there were.
        items: usize,
    },
}

impl Values {
    fn one(value: u128) -> Values {
        Values { runs: vec![Run { first: value, count: 1 }], random: false }
    }

    /// Takes text apart; `parse` reads an item without a dash.
    fn read(
        text: &str,
        what: &'static str,
        parse: impl Fn(&str) -> Option<Run>,
    ) -> Result<Values, ValuesError> {
        let (list, random) = text.strip_prefix("random:").map_or((text, false), |list| (list, true));
        let items = list.split(',').count();
        if items > ITEMS_MAX {
            return Err(ValuesError::TooMany { items });
        }
        let not_one = || ValuesError::NotOne { text: text.into(), what };
        let item = |item: &str| {
            let Some((from, to)) = item.split_once('-') else { return parse(item).ok_or_else(not_one) };
            let (from, to) = (parse(from).ok_or_else(not_one)?, parse(to).ok_or_else(not_one)?);
            if from.count > 1 || to.count > 1 {
                return Err(not_one());
            }
            let more = to
                .first
                .checked_sub(from.first)
                .ok_or_else(|| ValuesError::Backwards { text: text.into() })?;
            Ok(Run { first: from.first, count: u64::try_from(more).unwrap_or(u64::MAX).saturating_add(1) })
        };
        Ok(Values { runs: list.split(',').map(item).collect::<Result<_, _>>()?, random })
    }

    /// How many different values, if the list has each once.
    pub fn count(&self) -> u64 {
        self.runs.iter().fold(0, |sum, run| sum.saturating_add(run.count))
    }

    /// The first of them.
    pub fn first(&self) -> u128 {
        self.runs[0].first
    }

    /// Goes through them, beginning with number `skip`: so that several queues need not begin alike.
    pub fn stepper(&self, skip: u64) -> Stepper {
        let mut stepper = Stepper {
            runs: self.runs.clone().into(),
            count: self.count(),
            random: self.random,
            run: 0,
            at: 0,
        };
        let mut left = skip % stepper.count;
        while left >= stepper.runs[stepper.run].count {
            left -= stepper.runs[stepper.run].count;
            stepper.run += 1;
        }
        stepper.at = left;
        stepper
    }
}

/// UDP ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(pub(crate) Values);

impl Ports {
    /// One port.
    pub fn fixed(port: u16) -> Ports {
        Ports(Values::one(port.into()))
    }
}

impl FromStr for Ports {
    type Err = ValuesError;

    fn from_str(text: &str) -> Result<Ports, ValuesError> {
        let port = |item: &str| Some(Run { first: item.parse::<u16>().ok()?.into(), count: 1 });
        Values::read(text, "a UDP port or a range of them", port).map(Ports)
    }
}

/// IP addresses of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub(crate) values: Values,
    pub(crate) v6: bool,
}

impl Addresses {
    /// One address.
    pub fn fixed(address: IpAddr) -> Addresses {
        Addresses { values: Values::one(number(address)), v6: address.is_ipv6() }
    }

    /// Whether they are IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.v6
    }

    /// The first of them.
    pub fn first(&self) -> IpAddr {
        if self.v6 {
            Ipv6Addr::from_bits(self.values.first()).into()
        } else {
            Ipv4Addr::from_bits(self.values.first() as u32).into()
        }
    }
}

fn number(address: impl Into<IpAddr>) -> u128 {
    match address.into() {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// An address, or all of a network, its first and last included.
fn network(item: &str) -> Option<Run> {
    if let Ok(address) = item.parse::<IpAddr>() {
        return Some(Run { first: number(address), count: 1 });
    }
    let net: IpNet = item.parse().ok()?;
    let host_bits = u32::from(net.max_prefix_len() - net.prefix_len());
    Some(Run { first: number(net.network()), count: 1u64.checked_shl(host_bits).unwrap_or(u64::MAX) })
}

impl FromStr for Addresses {
    type Err = ValuesError;

    fn from_str(text: &str) -> Result<Addresses, ValuesError> {
        // A colon is what IPv6 addresses have and IPv4 ones have not.
        let list = text.strip_prefix("random:").unwrap_or(text);
        let mut versions = list.split([',', '-']).map(|item| item.contains(':'));
        let v6 = versions.next().unwrap_or(false);
        if versions.any(|other| other != v6) {
            return Err(ValuesError::BothVersions { text: text.into() });
        }
        let values = Values::read(text, "an IP address, a range or a network", network)?;
        Ok(Addresses { values, v6 })
    }
}

/// Where a field stands in its values.
#[derive(Clone, Debug)]
pub struct Stepper {
    runs: Box<[Run]>,
    count: u64,
    random: bool,
    run: usize,
    at: u64,
}

impl Stepper {
    /// Whether there is but one value.
    pub fn is_fixed(&self) -> bool {
        self.count == 1
    }

    /// The next value; after the last comes the first.
    #[inline]
    pub fn next(&mut self, random: &mut fastrand::Rng) -> u128 {
        if self.random {
            return self.draw(random);
        }
        let run = self.runs[self.run];
        let value = run.first + u128::from(self.at);
        self.at += 1;
        if self.at == run.count {
            self.at = 0;
            self.run = if self.run + 1 == self.runs.len() { 0 } else { self.run + 1 };
        }
        value
    }

    fn draw(&self, random: &mut fastrand::Rng) -> u128 {
        let mut left = random.u64(..self.count);
        for run in &self.runs {
            if left < run.count {
                return run.first + u128::from(left);
            }
            left -= run.count;
        }
        unreachable!("what is drawn is less than the sum of the runs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str, n: usize) -> Vec<String> {
        let addresses: Addresses = text.parse().unwrap();
        let mut stepper = addresses.values.stepper(0);
        let mut random = fastrand::Rng::with_seed(7);
        let show = |value: u128| match addresses.is_ipv6() {
            true => Ipv6Addr::from_bits(value).to_string(),
            false => Ipv4Addr::from_bits(value as u32).to_string(),
        };
        (0..n).map(|_| show(stepper.next(&mut random))).collect()
    }

    #[test]
    fn values_follow_one_another_and_begin_again() {
        assert_eq!(addresses("192.0.2.1", 2), ["192.0.2.1", "192.0.2.1"]);
        assert_eq!(
            addresses("192.0.2.254-192.0.3.0,10.0.0.1", 5)[1..],
            ["192.0.2.255", "192.0.3.0", "10.0.0.1", "192.0.2.254"]
        );
        assert_eq!(addresses("198.18.0.0/31", 3), ["198.18.0.0", "198.18.0.1", "198.18.0.0"]);
        assert_eq!(addresses("2001:db8::ffff-2001:db8::1:0", 2), ["2001:db8::ffff", "2001:db8::1:0"]);
        let ports: Ports = "7,9-10".parse().unwrap();
        let mut stepper = ports.0.stepper(2);
        let mut random = fastrand::Rng::with_seed(7);
        assert_eq!([(); 3].map(|()| stepper.next(&mut random)), [10, 7, 9], "the third is the first");
    }

    #[test]
    fn random_values_come_from_the_whole_set_and_nowhere_else() {
        let seen: std::collections::HashSet<_> =
            addresses("random:192.0.2.0-192.0.2.3,192.0.2.9", 500).into_iter().collect();
        let mut seen: Vec<_> = seen.into_iter().collect();
        seen.sort();
        assert_eq!(seen, ["192.0.2.0", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.9"]);
        // More of them than 64 bits count.
        let far = addresses("random:2001:db8::/32", 9);
        assert!(far.iter().all(|address| address.starts_with("2001:db8:")), "{far:?}");
    }

    #[test]
    fn nonsense_is_refused_with_a_mend() {
        for text in ["", "x", "192.0.2.1-", "192.0.2.1,,192.0.2.2", "192.0.2.0/24-192.0.3.0", "192.0.2.0/33"]
        {
            let error = text.parse::<Addresses>().unwrap_err().to_string();
            assert!(error.contains("write A, A-B"), "{text}: {error}");
        }
        assert!(matches!("192.0.2.9-192.0.2.1".parse::<Addresses>(), Err(ValuesError::Backwards { .. })));
        assert!(matches!("192.0.2.9,::1".parse::<Addresses>(), Err(ValuesError::BothVersions { .. })));
        assert!(matches!("192.0.2.9-::1".parse::<Addresses>(), Err(ValuesError::BothVersions { .. })));
        assert!("65536".parse::<Ports>().is_err());
        assert!("5000-4000".parse::<Ports>().is_err());
        let long = vec!["1"; ITEMS_MAX + 1].join(",");
        assert!(matches!(long.parse::<Ports>(), Err(ValuesError::TooMany { .. })));
    }
}
