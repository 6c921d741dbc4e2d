//! The address resolution protocol for IPv4 over Ethernet (RFC 826, RFC 5227).

use std::net::Ipv4Addr;

use pmd::{MacAddr, Mbuf, Meta, Pool};

use super::neighbour::{Claim, ClaimKind};
use super::verdict::Verdict;
use super::wire::*;
use super::{Io, Stack};
use crate::stats::Drop;

/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const LEN: usize = 28;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// What an ARP packet says.
struct Arp {
    operation: u16,
    sender_mac: MacAddr,
    sender: Ipv4Addr,
    target_mac: MacAddr,
    target: Ipv4Addr,
}

impl Arp {
    fn parse(bytes: &[u8]) -> Option<Arp> {
        let bytes: &[u8; LEN] = bytes.first_chunk()?;
        let arp = Arp {
            operation: be16(bytes, 6),
            sender_mac: mac_at(bytes, 8),
            sender: ipv4_at(bytes, 14),
            target_mac: mac_at(bytes, 18),
            target: ipv4_at(bytes, 24),
        };
        let sound = bytes[..6] == ETHERNET_IPV4
            && matches!(arp.operation, REQUEST | REPLY)
            && !arp.sender_mac.is_multicast()
            && arp.sender_mac != MacAddr::default()
            && !arp.sender.is_multicast()
            && !arp.sender.is_broadcast();
        sound.then_some(arp)
    }

    fn bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..6].copy_from_slice(&ETHERNET_IPV4);
        bytes[6..8].copy_from_slice(&self.operation.to_be_bytes());
        bytes[8..14].copy_from_slice(&self.sender_mac.0);
        bytes[14..18].copy_from_slice(&self.sender.octets());
        bytes[18..24].copy_from_slice(&self.target_mac.0);
        bytes[24..].copy_from_slice(&self.target.octets());
        bytes
    }
}

/// Asks for `target`, or announces it if it is the source as well. `link.dst` says whom to ask.
pub fn request(link: Link, target: Ipv4Addr, source: Ipv4Addr, pool: &mut Pool) -> Result<Mbuf, Drop> {
    let target_mac = MacAddr::default();
    let arp = Arp { operation: REQUEST, sender_mac: link.src, sender: source, target_mac, target };
    let packet = pool.copy_from(&arp.bytes()).ok_or(Drop::NoBuffers)?;
    push_ethernet(packet, link, ETHERTYPE_ARP, pool)
}

impl Stack {
    /// Takes an ARP packet, its Ethernet header taken off.
    pub(super) fn input_arp(&mut self, io: &mut Io<'_>, port: usize, frame: Mbuf) -> Verdict {
        let Some(arp) = Arp::parse(frame.data()) else { return Verdict::Drop(Drop::BadArp, frame) };
        if self.routes.has4(port, arp.sender) {
            return Verdict::Drop(Drop::AddressConflict, frame);
        }
        // Somebody makes sure that nobody has the address yet (RFC 5227): not an address to learn.
        let probe = arp.sender.is_unspecified();
        if !probe
            && (!self.routes.is_on_link(port, arp.sender.into())
                || self.routes.is_subnet_broadcast(arp.sender))
        {
            return Verdict::Drop(Drop::UnrelatedNeighbour, frame);
        }
        let for_us = self.routes.has4(port, arp.target);
        let asks_us = arp.operation == REQUEST && for_us;
        let kind = if asks_us {
            ClaimKind::Asked
        } else {
            let solicited = arp.operation == REPLY && for_us && arp.target_mac == self.ports[port].mac;
            ClaimKind::Answered { solicited, overrides: true }
        };
        // Besides answers to us, only an announcement of its own address says where a station wants to be found.
        let tells_us = arp.sender == arp.target || (arp.operation == REPLY && for_us);
        let relevant = !probe && (asks_us || tells_us) && {
            let claim =
                Claim { port: port as u16, address: arp.sender.into(), mac: Some(arp.sender_mac), kind };
            self.hear(io, claim)
        };
        if asks_us {
            self.reply(io, port, &arp, frame);
            Verdict::Consumed
        } else if relevant {
            Verdict::Consumed
        } else {
            Verdict::Drop(Drop::UnrelatedNeighbour, frame)
        }
    }

    /// Answers in the buffer that the question came in.
    fn reply(&mut self, io: &mut Io<'_>, port: usize, request: &Arp, mut frame: Mbuf) {
        let ours = &self.ports[port];
        let reply = Arp {
            operation: REPLY,
            sender_mac: ours.mac,
            sender: request.target,
            target_mac: request.sender_mac,
            target: request.sender,
        };
        let link = Link { src: ours.mac, dst: request.sender_mac, vlan: ours.vlan };
        frame.truncate(LEN);
        frame.data_mut()[..LEN].copy_from_slice(&reply.bytes());
        *frame.meta_mut() = Meta::default();
        let frame = push_ethernet(frame, link, ETHERTYPE_ARP, io.pool);
        self.emit(io, port, frame);
    }
}
