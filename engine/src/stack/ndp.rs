//! Neighbour discovery for IPv6 (RFC 4861): solicitations and advertisements.

use std::net::{IpAddr, Ipv6Addr};

use pmd::{MacAddr, Mbuf, Pool};

use super::checksum::Sum;
use super::input::{ALL_NODES, Packet};
use super::neighbour::{Claim, ClaimKind};
use super::verdict::Verdict;
use super::wire::*;
use super::{Io, Stack};
use crate::stats::Drop;

pub const SOLICITATION: u8 = 135;
pub const ADVERTISEMENT: u8 = 136;
/// Proves that a message has crossed no router.
const HOP_LIMIT: u8 = 255;
/// Type, code, checksum, flags, target.
const HEADER: usize = 24;
const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// A solicitation or an advertisement.
struct Message {
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    /// The link-layer address option that belongs to this kind of message.
    mac: Option<MacAddr>,
}

impl Message {
    /// Reads a message that passes the checks of RFC 4861 sections 7.1.1 and 7.1.2.
    fn parse(packet: &Packet, bytes: &[u8]) -> Option<Message> {
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (packet.src, packet.dst) else { return None };
        if packet.hop_limit != HOP_LIMIT || bytes.len() < HEADER || bytes[1] != 0 {
            return None;
        }
        let (kind, flags, target) = (bytes[0], bytes[4], ipv6_at(bytes, 8));
        let wanted = if kind == SOLICITATION { OPTION_SOURCE } else { OPTION_TARGET };
        let mac = link_layer_address(&bytes[HEADER..], wanted)?;
        let answer_to_group = dst.is_multicast() && flags & SOLICITED != 0;
        let sound = match kind {
            // Somebody makes sure that nobody has the address yet (RFC 4862): it has none of its own to name.
            SOLICITATION if src.is_unspecified() => dst == solicited_node(target) && mac.is_none(),
            SOLICITATION => true,
            _ => !src.is_unspecified() && !answer_to_group,
        };
        (sound && !target.is_multicast()).then_some(Message { kind, flags, target, mac })
    }

    /// The message with its IPv6 and Ethernet headers.
    fn frame(&self, link: Link, src: Ipv6Addr, dst: Ipv6Addr, pool: &mut Pool) -> Result<Mbuf, Drop> {
        let mut bytes = [0; HEADER + 8];
        bytes[0] = self.kind;
        bytes[4] = self.flags;
        bytes[8..HEADER].copy_from_slice(&self.target.octets());
        if let Some(mac) = self.mac {
            bytes[HEADER] = if self.kind == SOLICITATION { OPTION_SOURCE } else { OPTION_TARGET };
            bytes[HEADER + 1] = 1;
            bytes[HEADER + 2..].copy_from_slice(&mac.0);
        }
        let len = if self.mac.is_some() { HEADER + 8 } else { HEADER };
        let mut sum = Sum::pseudo_header(src.into(), dst.into(), PROTOCOL_ICMPV6, len);
        sum.add(&bytes[..len]);
        bytes[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
        let message = pool.copy_from(&bytes[..len]).ok_or(Drop::NoBuffers)?;
        let packet = push_ipv6(message, (src, dst), (PROTOCOL_ICMPV6, HOP_LIMIT), None, pool)?;
        push_ethernet(packet, link, ETHERTYPE_IPV6, pool)
    }
}

/// Finds the wanted link-layer address among the options; `None` if the options are malformed.
fn link_layer_address(mut options: &[u8], wanted: u8) -> Option<Option<MacAddr>> {
    let mut found = None;
    while !options.is_empty() {
        let (kind, len) = (options[0], usize::from(*options.get(1)?) * 8);
        if len == 0 || len > options.len() {
            return None;
        }
        if kind == wanted && len == 8 {
            let mac = mac_at(options, 2);
            if mac.is_multicast() || mac == MacAddr::default() {
                return None;
            }
            found = Some(mac);
        }
        options = &options[len..];
    }
    Some(found)
}

/// Asks for `target`: its solicited-node group, or the station at `link.dst` that is thought to have it.
pub fn solicitation(
    mut link: Link,
    target: Ipv6Addr,
    source: Ipv6Addr,
    group: bool,
    pool: &mut Pool,
) -> Result<Mbuf, Drop> {
    let dst = if group { solicited_node(target) } else { target };
    if group {
        link.dst = multicast_mac(dst);
    }
    Message { kind: SOLICITATION, flags: 0, target, mac: Some(link.src) }.frame(link, source, dst, pool)
}

/// Tells everyone that `address` is here.
pub fn announcement(mut link: Link, address: Ipv6Addr, pool: &mut Pool) -> Result<Mbuf, Drop> {
    link.dst = multicast_mac(ALL_NODES);
    Message { kind: ADVERTISEMENT, flags: OVERRIDE, target: address, mac: Some(link.src) }
        .frame(link, address, ALL_NODES, pool)
}

impl Stack {
    /// Takes a solicitation or an advertisement whose checksum holds.
    pub(super) fn input_neighbour_discovery(
        &mut self,
        io: &mut Io<'_>,
        packet: Packet,
        payload: Mbuf,
    ) -> Verdict {
        let Some(message) = Message::parse(&packet, payload.data()) else {
            return Verdict::Drop(Drop::BadNeighbourDiscovery, payload);
        };
        let ours = self.routes.has(packet.port, message.target.into());
        match (message.kind, ours) {
            (SOLICITATION, true) => {
                self.input_solicitation(io, packet, &message);
                Verdict::Consumed
            }
            (ADVERTISEMENT, true) => Verdict::Drop(Drop::AddressConflict, payload),
            (ADVERTISEMENT, false) => {
                let kind = ClaimKind::Answered {
                    solicited: message.flags & SOLICITED != 0,
                    overrides: message.flags & OVERRIDE != 0,
                };
                let address = message.target.into();
                let claim = Claim { port: packet.port as u16, address, mac: message.mac, kind };
                if self.hear(io, claim) {
                    Verdict::Consumed
                } else {
                    Verdict::Drop(Drop::UnrelatedNeighbour, payload)
                }
            }
            _ => Verdict::Drop(Drop::UnrelatedNeighbour, payload),
        }
    }

    fn input_solicitation(&mut self, io: &mut Io<'_>, packet: Packet, message: &Message) {
        let IpAddr::V6(asker) = packet.src else { return };
        let known = !asker.is_unspecified();
        if known && message.mac.is_some() && self.routes.is_on_link(packet.port, packet.src) {
            let port = packet.port as u16;
            self.hear(io, Claim { port, address: packet.src, mac: message.mac, kind: ClaimKind::Asked });
        }
        let ours = &self.ports[packet.port];
        let dst = if known { asker } else { ALL_NODES };
        let dst_mac = if known { message.mac.unwrap_or(packet.src_mac) } else { multicast_mac(ALL_NODES) };
        let flags = OVERRIDE | if known { SOLICITED } else { 0 };
        let answer = Message { kind: ADVERTISEMENT, flags, target: message.target, mac: Some(ours.mac) };
        let link = Link { src: ours.mac, dst: dst_mac, vlan: ours.vlan };
        let frame = answer.frame(link, message.target, dst, io.pool);
        self.emit(io, packet.port, frame);
    }
}
