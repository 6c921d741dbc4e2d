//! Counters: the names of everything this engine ever throws away, and how often it did.
//!
//! A frame that is not delivered and not consumed by a protocol is dropped under exactly one [`Drop`]; nothing is
//! discarded without a name. Plain integers, owned by one core.

use std::fmt;

macro_rules! drops {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a frame or datagram was thrown away.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Drop {
            $($(#[$doc])* $variant,)*
        }

        impl Drop {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Drop] = &[$(Drop::$variant,)*];

            /// The counter's name, in snake case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Drop::$variant => $name,)*
                }
            }
        }
    };
}

drops! {
    // Link layer.
    /// Shorter than the headers it must have.
    Runt = "runt",
    /// Unicast to another station's MAC address.
    NotOurMac = "not_our_mac",
    /// The source MAC address is a group address.
    BadSourceMac = "bad_source_mac",
    /// Neither ARP, IPv4 nor IPv6.
    UnknownEthertype = "unknown_ethertype",
    /// On another VLAN than the port's, or untagged where the port is tagged.
    WrongVlan = "wrong_vlan",

    // ARP and neighbour discovery.
    /// An ARP packet that is not a sound Ethernet/IPv4 request or reply.
    BadArp = "bad_arp",
    /// A neighbour discovery message that RFC 4861 section 7.1 says to discard.
    BadNeighbourDiscovery = "bad_neighbour_discovery",
    /// ARP or neighbour discovery that speaks of nobody here, or that we did not ask for.
    UnrelatedNeighbour = "unrelated_neighbour",
    /// Another station claims one of our addresses.
    AddressConflict = "address_conflict",

    // IP.
    /// The version field does not match the Ethertype.
    BadIpVersion = "bad_ip_version",
    /// The header or total length contradicts the frame.
    BadIpLength = "bad_ip_length",
    /// The IPv4 header checksum is wrong.
    BadIpChecksum = "bad_ip_checksum",
    /// A source address that nothing may send from (multicast, loopback, our own, ...).
    MartianSource = "martian_source",
    /// Sent to an address that this port does not have (other hosts, broadcast, multicast).
    NotOurAddress = "not_our_address",
    /// Neither UDP nor ICMP.
    UnknownProtocol = "unknown_protocol",
    /// An IPv4 option or IPv6 extension header that is malformed, or that we are told not to ignore.
    BadIpOption = "bad_ip_option",
    /// Source routing, in either version.
    SourceRoute = "source_route",
    /// More extension headers than we look through.
    HeaderChainTooLong = "header_chain_too_long",

    // Reassembly.
    /// A fragment whose offset and length cannot be.
    BadFragment = "bad_fragment",
    /// A fragment that was already here.
    DuplicateFragment = "duplicate_fragment",
    /// Fragments overlapped or contradicted each other; the whole datagram is dropped (RFC 5722).
    FragmentOverlap = "fragment_overlap",
    /// The rest of the datagram did not come in time.
    ReassemblyTimeout = "reassembly_timeout",
    /// Given up for newer fragments: a limit on entries, buffers or one source's share.
    ReassemblyLimit = "reassembly_limit",

    // UDP and ICMP.
    /// The UDP length contradicts the IP length.
    BadUdpLength = "bad_udp_length",
    /// The UDP checksum is wrong.
    BadUdpChecksum = "bad_udp_checksum",
    /// No UDP checksum where one is required.
    NoUdpChecksum = "no_udp_checksum",
    /// UDP port zero.
    ZeroPort = "zero_port",
    /// The ICMP checksum is wrong.
    BadIcmpChecksum = "bad_icmp_checksum",
    /// Too short, or an error that quotes nothing that we sent.
    BadIcmp = "bad_icmp",
    /// An ICMP type that this host has no use for.
    UnhandledIcmp = "unhandled_icmp",

    // Sending.
    /// No route to the destination.
    NoRoute = "no_route",
    /// Sent from an address that is not ours, or of the other family.
    BadSource = "bad_source",
    /// Larger than a UDP datagram can be.
    TooBig = "too_big",
    /// As many frames wait for this neighbour, or for all, as may.
    NeighbourQueueFull = "neighbour_queue_full",
    /// The neighbour did not answer.
    NeighbourUnreachable = "neighbour_unreachable",
    /// No entry could be freed for another neighbour.
    NeighbourTableFull = "neighbour_table_full",
    /// The frames waiting for the device are as many as may.
    TransmitFull = "transmit_full",

    // Sockets and cores.
    /// No socket is bound to the address and port.
    NoSocket = "no_socket",
    /// What waits unread for this socket is as much as may.
    SocketBudget = "socket_budget",
    /// What waits unread for all sockets of this core is as much as may.
    CoreBudget = "core_budget",
    /// The pool is down to what keeps receiving alive.
    PoolReserve = "pool_reserve",
    /// No room in front of the payload for the addresses.
    NoHeadroom = "no_headroom",
    /// The owner of the flow has not caught up with what was handed to it.
    HandOverFull = "hand_over_full",
    /// A raw handler left it.
    RawUnclaimed = "raw_unclaimed",
    /// The engine was stopping.
    Stopping = "stopping",

    // Anywhere.
    /// The pool is empty.
    NoBuffers = "no_buffers",
}

impl Drop {
    /// How many reasons there are.
    pub const COUNT: usize = Drop::ALL.len();
}

impl fmt::Display for Drop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One counter for each [`Drop`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DropCounts([u64; Drop::COUNT]);

impl Default for DropCounts {
    fn default() -> Self {
        DropCounts([0; Drop::COUNT])
    }
}

impl DropCounts {
    /// Counts `n` drops for `reason`.
    pub fn add(&mut self, reason: Drop, n: u64) {
        self.0[reason as usize] += n;
    }

    /// How many were dropped for `reason`.
    pub fn get(&self, reason: Drop) -> u64 {
        self.0[reason as usize]
    }

    /// Adds every counter of `other`.
    pub fn merge(&mut self, other: &DropCounts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// All drops together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Drop, u64)> + '_ {
        Drop::ALL.iter().map(|&reason| (reason, self.get(reason))).filter(|&(_, n)| n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_distinct_and_counters_separate() {
        let names: HashSet<_> = Drop::ALL.iter().map(|d| d.name()).collect();
        assert_eq!(names.len(), Drop::COUNT);
        let mut counts = DropCounts::default();
        counts.add(Drop::Runt, 2);
        counts.add(Drop::NoBuffers, 1);
        let mut sum = counts.clone();
        sum.merge(&counts);
        assert_eq!(sum.iter().collect::<Vec<_>>(), [(Drop::Runt, 4), (Drop::NoBuffers, 2)]);
        assert_eq!(sum.total(), 6);
    }
}
