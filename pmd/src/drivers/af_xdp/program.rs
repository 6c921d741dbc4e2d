//! The XDP program: which frames are the engine's, and which stay the kernel's.
//!
//! Without addresses every frame is ours. With addresses ours are, behind up to two VLAN tags:
//! - IPv4 and IPv6 with one of them as destination,
//! - ARP that asks for, or answers to, one of them (target protocol address): broadcasts included,
//! - ICMPv6 neighbour solicitations sent to a multicast group with one of them as target.
//!
//! All else, what is too short to tell, and all that arrives on a queue without a socket goes on to the kernel (XDP_PASS).
//! A tag that a device (or the kernel's end of a veth) carries beside the frame is not seen here: turn its VLAN offload
//! off (`ethtool -K IFACE txvlan off` at a veth's sending end).

use super::asm::{Asm, Label, Reg, Size, When};

/// The addresses' maps and the sockets' map, by fd.
#[derive(Clone, Copy)]
pub(crate) struct Maps {
    /// Sockets by receive queue.
    pub sockets: i32,
    /// IPv4 and IPv6 addresses; `None`: take everything.
    pub addresses: Option<[i32; 2]>,
}

const MAP_LOOKUP: i32 = 1;
const REDIRECT_MAP: i32 = 51;
const XDP_PASS: i32 = 2;
/// Offsets in struct xdp_md.
const MD_DATA: i16 = 0;
const MD_DATA_END: i16 = 4;
const MD_RX_QUEUE: i16 = 16;

const ETHERNET: i32 = 14;
const VLAN: i32 = 4;
const TAGS_MAX: usize = 2;
/// Where the key of a look-up stands on the stack.
const KEY: i16 = -16;

/// A 16-bit field of a packet, as a load yields it.
fn be16(value: u16) -> i32 {
    i32::from(value.to_be())
}

/// R6 is the context, R2 the layer that is looked at, R3 the end of the data, R5 the ethertype.
pub(crate) fn assemble(maps: Maps) -> Vec<u64> {
    use Reg::*;
    let mut asm = Asm::default();
    let (pass, redirect) = (asm.label(), asm.label());
    asm.copy(R6, R1);
    if let Some(addresses) = maps.addresses {
        select(&mut asm, addresses, pass, redirect);
    }
    asm.place(redirect);
    asm.load(Size::Word, R2, R6, MD_RX_QUEUE);
    asm.map(R1, maps.sockets);
    // What becomes of the frame when the queue has no socket.
    asm.set(R3, XDP_PASS);
    asm.call(REDIRECT_MAP);
    asm.exit();
    // The verifier refuses code that nothing reaches.
    if maps.addresses.is_some() {
        asm.place(pass);
        asm.set(R0, XDP_PASS);
        asm.exit();
    }
    asm.finish()
}

/// Falls through to `redirect`, or goes to `pass`.
fn select(asm: &mut Asm, [v4, v6]: [i32; 2], pass: Label, redirect: Label) {
    use Reg::*;
    let (arp, ip6, look4, look6) = (asm.label(), asm.label(), asm.label(), asm.label());
    asm.load(Size::Word, R2, R6, MD_DATA);
    asm.load(Size::Word, R3, R6, MD_DATA_END);
    need(asm, ETHERNET, pass);
    asm.load(Size::Half, R5, R2, 12);
    asm.add(R2, ETHERNET);
    let l3 = asm.label();
    for _ in 0..TAGS_MAX {
        let tagged = asm.label();
        asm.jump(When::Equal, R5, be16(0x8100), tagged);
        asm.jump(When::NotEqual, R5, be16(0x88a8), l3);
        asm.place(tagged);
        need(asm, VLAN, pass);
        asm.load(Size::Half, R5, R2, 2);
        asm.add(R2, VLAN);
    }
    asm.place(l3);
    asm.jump(When::Equal, R5, be16(0x0806), arp);
    asm.jump(When::Equal, R5, be16(0x86dd), ip6);
    asm.jump(When::NotEqual, R5, be16(0x0800), pass);
    // IPv4: the destination.
    need(asm, 20, pass);
    key(asm, 16, 1);
    asm.go(look4);
    // ARP for Ethernet and IPv4: the target protocol address.
    asm.place(arp);
    need(asm, 28, pass);
    asm.load(Size::Half, R4, R2, 4);
    asm.jump(When::NotEqual, R4, be16(0x0604), pass);
    key(asm, 24, 1);
    asm.place(look4);
    look_up(asm, v4);
    asm.jump(When::Equal, R0, 0, pass);
    asm.go(redirect);
    // IPv6: the destination, or the target of a solicitation.
    asm.place(ip6);
    need(asm, 40, pass);
    key(asm, 24, 4);
    asm.load(Size::Byte, R4, R2, 24);
    asm.jump(When::NotEqual, R4, 0xff, look6);
    asm.load(Size::Byte, R4, R2, 6);
    asm.jump(When::NotEqual, R4, 58, pass);
    need(asm, 64, pass);
    asm.load(Size::Byte, R4, R2, 40);
    asm.jump(When::NotEqual, R4, 135, pass);
    key(asm, 48, 4);
    asm.place(look6);
    look_up(asm, v6);
    asm.jump(When::Equal, R0, 0, pass);
}

/// Goes to `pass` unless there are `bytes` at R2.
fn need(asm: &mut Asm, bytes: i32, pass: Label) {
    asm.copy(Reg::R4, Reg::R2);
    asm.add(Reg::R4, bytes);
    asm.jump_above(Reg::R4, Reg::R3, pass);
}

/// Copies the address at R2 + `offset` to the stack, word by word, which every machine can load where Ethernet puts them.
fn key(asm: &mut Asm, offset: i16, words: i16) {
    for word in 0..words {
        asm.load(Size::Word, Reg::R4, Reg::R2, offset + 4 * word);
        asm.store_word(Reg::R10, KEY + 4 * word, Reg::R4);
    }
}

fn look_up(asm: &mut Asm, map: i32) {
    asm.map(Reg::R1, map);
    asm.copy(Reg::R2, Reg::R10);
    asm.add(Reg::R2, i32::from(KEY));
    asm.call(MAP_LOOKUP);
}
