//! What becomes of a frame that is forwarded: testpmd's modes io, mac, macswap and 5tswap.
//!
//! Swapping source and destination changes no checksum, since sums do not care about order; so none is touched, and a wrong one stays wrong.
//! Frames are forwarded whatever they are: what a mode does not find in one it leaves alone.

use pmd::{MacAddr, Mbuf};

use crate::headers::{ETHERNET, IPV4, IPV6, network, swap_halves, transport_v4, transport_v6};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What is changed in a frame that is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// Nothing.
    Io,
    /// Its source becomes the port that it leaves by; its destination this station, if there is one.
    Mac {
        /// Whom it is for.
        peer: Option<MacAddr>,
    },
    /// Ethernet source and destination are swapped.
    MacSwap,
    /// Also IP source and destination, and the ports of UDP and TCP.
    FiveTuple,
}

impl Rewrite {
    /// Changes a frame that leaves by a port with address `out`.
    #[inline]
    pub fn apply(self, out: MacAddr, frame: &mut Mbuf) {
        let head = frame.data_mut();
        if head.len() < ETHERNET {
            return;
        }
        match self {
            Rewrite::Io => {}
            Rewrite::Mac { peer } => {
                if let Some(peer) = peer {
                    head[..6].copy_from_slice(&peer.0);
                }
                head[6..12].copy_from_slice(&out.0);
            }
            Rewrite::MacSwap => swap_halves(&mut head[..12], 6),
            Rewrite::FiveTuple => {
                swap_halves(&mut head[..12], 6);
                swap_ends(head);
            }
        }
    }
}

/// Swaps IP's and the transport's source and destination, where the first buffer holds them whole.
fn swap_ends(head: &mut [u8]) {
    let (addresses, len, transport) = match network(head) {
        Some((IPV4, ip)) => (ip + 12, 4, transport_v4(head, ip)),
        Some((IPV6, ip)) => (ip + 8, 16, transport_v6(head, ip)),
        _ => return,
    };
    let Some(addresses) = head.get_mut(addresses..addresses + 2 * len) else { return };
    swap_halves(addresses, len);
    if let Some((UDP | TCP, at)) = transport
        && let Some(ports) = head.get_mut(at..at + 4)
    {
        swap_halves(ports, 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mark::{Judgement, Mark, judge};
    use crate::template::{Frames, Template};
    use pmd::{Instant, Pool, PoolConfig};
    use proptest::prelude::*;

    const OUT: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
    const MODES: [Rewrite; 4] =
        [Rewrite::Io, Rewrite::Mac { peer: Some(MacAddr([2; 6])) }, Rewrite::MacSwap, Rewrite::FiveTuple];

    fn pool() -> Pool {
        PoolConfig::new("forward", 16).build().unwrap().claim()
    }

    fn template(v6: bool, vlans: &[u16]) -> Template {
        let mut template =
            Template { vlans: vlans.to_vec(), sizes: "100".parse().unwrap(), ..Template::default() };
        if v6 {
            (template.source, template.destination) =
                ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        }
        template
    }

    fn build(template: &Template, pool: &mut Pool) -> Mbuf {
        let mark = Mark::new(1, 2, Instant::ZERO);
        Frames::new(template, 0, 0).unwrap().build(&mark, pool).unwrap()
    }

    #[test]
    fn io_changes_nothing_and_mac_the_first_twelve_bytes() {
        let mut pool = pool();
        let template = template(false, &[]);
        let before = build(&template, &mut pool).data().to_vec();
        let after = |rewrite: Rewrite, pool: &mut Pool| {
            let mut frame = build(&template, pool);
            rewrite.apply(OUT, &mut frame);
            frame.data().to_vec()
        };
        assert_eq!(after(Rewrite::Io, &mut pool), before);
        let mac = after(MODES[1], &mut pool);
        assert_eq!((&mac[..6], &mac[6..12], &mac[12..]), (&[2; 6][..], &OUT.0[..], &before[12..]));
        let mac = after(Rewrite::Mac { peer: None }, &mut pool);
        assert_eq!((&mac[..6], &mac[6..12]), (&before[..6], &OUT.0[..]));
        let swapped = after(Rewrite::MacSwap, &mut pool);
        assert_eq!(
            (&swapped[..6], &swapped[6..12], &swapped[12..]),
            (&before[6..12], &before[..6], &before[12..])
        );
    }

    /// A frame to which the five-tuple swap was done is the one that the other end would have made.
    #[test]
    fn five_tuples_are_swapped_and_checksums_stay_right() {
        let mut pool = pool();
        for v6 in [false, true] {
            for vlans in [&[][..], &[7][..], &[7, 8][..]] {
                let there = template(v6, vlans);
                let mut frame = build(&there, &mut pool);
                Rewrite::FiveTuple.apply(OUT, &mut frame);
                let judged = judge(&frame, there.mark_offset());
                assert!(matches!(judged, Judgement::Whole(_)), "{judged:?}");
                let back = build(&there.reversed(), &mut pool);
                assert_eq!(frame.data(), back.data(), "v6 {v6}, {vlans:?}");
            }
        }
    }

    #[test]
    fn ports_are_found_behind_extension_headers_and_not_in_later_fragments() {
        let mut frame = vec![1; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 60, 64]);
        frame.extend([0xa; 16]);
        frame.extend([0xb; 16]);
        frame.extend([TCP, 0, 1, 4, 0, 0, 0, 0, 1, 2, 3, 4]);
        let mut pool = pool();
        let swap = |bytes: &[u8], pool: &mut Pool| {
            let mut frame = pool.copy_from(bytes).unwrap();
            Rewrite::FiveTuple.apply(OUT, &mut frame);
            frame.data().to_vec()
        };
        assert_eq!(swap(&frame, &mut pool)[62..], [3, 4, 1, 2]);
        frame[20] = 44;
        // "More" of a first fragment, then of one that begins 8 bytes on.
        frame[54..58].copy_from_slice(&[TCP, 0, 0, 1]);
        assert_eq!(swap(&frame, &mut pool)[62..], [3, 4, 1, 2]);
        frame[57] = 9;
        let later = swap(&frame, &mut pool);
        assert_eq!((later[22], later[38]), (0xb, 0xa));
        assert_eq!(later[62..], [1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_forwarded_at_their_length(bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0usize..3) {
            let mut bytes = bytes;
            let ethertype = [[8, 0], [0x86, 0xdd], [0x81, 0]][kind];
            if bytes.len() >= 14 {
                bytes[12..14].copy_from_slice(&ethertype);
            }
            let mut pool = pool();
            for mode in MODES {
                let mut frame = pool.copy_from(&bytes).unwrap();
                mode.apply(OUT, &mut frame);
                let mut after = frame.data().to_vec();
                prop_assert_eq!(after.len(), bytes.len());
                if mode == Rewrite::FiveTuple {
                    // Swapping moves bytes and makes none.
                    let mut before = bytes.clone();
                    before.sort();
                    after.sort();
                    prop_assert_eq!(after, before);
                }
            }
        }
    }
}
