//! How many DATA packets a peer may be sent in one datagram.
//!
//! One, until a PING padded to the size of a larger datagram was answered: jumbograms go only where a datagram of their
//! size has arrived. The search doubles and then halves; what is in doubt is tried three times, and what was found stands
//! for ten minutes (RFC 8899). A size that stops arriving is given up at once: a path that carries large datagrams no
//! more and says nothing is a black hole.
//!
//! Deliberately absent: sizes between two numbers of packets, since nothing would be sent in them; and IP's "don't
//! fragment", which is the stack's: what does not fit the link or the path that it knows of it must drop, not cut.

use crate::wire::{HEADER_LEN, JUMBO_HEADER_LEN, JUMBO_PAYLOAD_LEN, MAX_SUB_PACKETS, PacketType};
use crate::{ConnId, PACKET_PAYLOAD};
use pmd::{Instant, Mbuf};
use std::time::Duration;

/// How often a size is tried before it counts as too large.
const TRIES: u8 = 3;
/// How long a result stands.
const STANDS: Duration = Duration::from_secs(600);
/// A trial is not given up sooner.
const PATIENCE: Duration = Duration::from_millis(50);
/// Jumbograms lost in a row, none arriving, that take the proof away.
const LOST_IN_A_ROW: u8 = 3;

/// Bytes of a datagram of so many full packets, Rx header included.
pub const fn datagram_len(packets: usize) -> usize {
    HEADER_LEN + packets * JUMBO_PAYLOAD_LEN + (packets - 1) * JUMBO_HEADER_LEN
}

/// The most full packets in a datagram of so many bytes.
pub const fn packets_in(datagram: usize) -> usize {
    let packets =
        datagram.saturating_sub(HEADER_LEN - JUMBO_HEADER_LEN) / (JUMBO_PAYLOAD_LEN + JUMBO_HEADER_LEN);
    if packets == 0 {
        1
    } else if packets > MAX_SUB_PACKETS {
        MAX_SUB_PACKETS
    } else {
        packets
    }
}

/// Whether IP must not cut a packet in pieces: larger than a plain one, and sent to find out what arrives or because that
/// is known. (A RESPONSE with a long ticket is larger as well, and has to arrive somehow.)
pub fn must_stay_whole(packet: &Mbuf) -> bool {
    packet.len() > HEADER_LEN + PACKET_PAYLOAD
        && packet
            .data()
            .get(20)
            .is_some_and(|&kind| kind == PacketType::Data as u8 || kind == PacketType::Ack as u8)
}

/// A padded PING under way.
#[derive(Clone, Copy, Debug)]
struct Trial {
    packets: u8,
    conn: ConnId,
    serial: u32,
    sent_at: Instant,
}

/// What is known of the path to a peer, in packets a datagram.
#[derive(Clone, Copy, Debug)]
pub struct PathMtu {
    proven: u8,
    /// The least number that does not arrive, as far as known.
    fails: u8,
    trial: Option<Trial>,
    tries: u8,
    lost_in_a_row: u8,
    /// The search rests until then.
    rests_until: Instant,
}

impl Default for PathMtu {
    fn default() -> Self {
        Self {
            proven: 1,
            fails: u8::MAX,
            trial: None,
            tries: 0,
            lost_in_a_row: 0,
            rests_until: Instant::ZERO,
        }
    }
}

impl PathMtu {
    /// Packets that a datagram may carry; at most `limit`, which is what we and the peer put up with.
    pub fn packets(&self, limit: u8) -> u8 {
        self.proven.min(limit)
    }

    /// The number of packets to try now, if any. `patience`: how long an answer may take.
    pub fn next_trial(&mut self, now: Instant, limit: u8, patience: Duration) -> Option<u8> {
        if now < self.rests_until || limit <= 1 {
            return None;
        }
        if self.rests_until > Instant::ZERO {
            // The result has stood for its time.
            (self.rests_until, self.fails) = (Instant::ZERO, u8::MAX);
        }
        if let Some(trial) = self.trial {
            if now < trial.sent_at + patience.max(PATIENCE) {
                return None;
            }
            self.unanswered(trial.packets);
        }
        let most = limit.min(self.fails - 1);
        if self.proven >= most {
            self.rest(now);
            return None;
        }
        let middle = self.proven + (most - self.proven).div_ceil(2);
        Some(if self.fails == u8::MAX { (self.proven * 2).min(most) } else { middle })
    }

    fn unanswered(&mut self, packets: u8) {
        self.trial = None;
        self.tries += 1;
        if self.tries >= TRIES {
            (self.fails, self.tries) = (packets, 0);
        }
    }

    fn rest(&mut self, now: Instant) {
        (self.trial, self.tries, self.rests_until) = (None, 0, now + STANDS);
    }

    /// A PING padded to so many packets' size was sent.
    pub fn tried(&mut self, now: Instant, packets: u8, conn: ConnId, serial: u32) {
        self.trial = Some(Trial { packets, conn, serial, sent_at: now });
    }

    /// A PING was answered.
    pub fn answered(&mut self, conn: ConnId, serial: u32) {
        let Some(trial) = self.trial.filter(|trial| (trial.conn, trial.serial) == (conn, serial)) else {
            return;
        };
        (self.trial, self.tries, self.lost_in_a_row) = (None, 0, 0);
        self.proven = self.proven.max(trial.packets);
    }

    /// A jumbogram arrived.
    pub fn jumbo_arrived(&mut self) {
        self.lost_in_a_row = 0;
    }

    /// Packets were lost that travelled in jumbograms. One jumbogram here and there proves nothing; several in a row, and
    /// none arriving, do.
    pub fn jumbo_packets_lost(&mut self, now: Instant, packets: u32) {
        self.lost_in_a_row = self.lost_in_a_row.saturating_add(packets.min(u32::from(u8::MAX)) as u8);
        if self.proven > 1 && self.lost_in_a_row >= LOST_IN_A_ROW.saturating_mul(self.proven) {
            *self = Self::default();
            self.rest(now);
        }
    }

    /// The network says that datagrams of more than so many bytes do not arrive.
    pub fn too_big(&mut self, now: Instant, datagram: usize) {
        let packets = packets_in(datagram) as u8;
        if packets < self.proven {
            *self = Self { proven: packets, ..Self::default() };
            self.rest(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1);

    /// Searches on a path that carries so many packets; returns the sizes tried.
    fn search(mtu: &mut PathMtu, now: &mut Instant, limit: u8, carries: u8) -> Vec<u8> {
        let mut tried = Vec::new();
        while let Some(packets) = mtu.next_trial(*now, limit, LONG) {
            tried.push(packets);
            mtu.tried(*now, packets, ConnId::default(), 7);
            assert_eq!(mtu.next_trial(*now, limit, LONG), None, "one at a time");
            mtu.answered(ConnId::default(), 8);
            if packets <= carries {
                mtu.answered(ConnId::default(), 7);
            }
            *now += LONG;
            assert!(tried.len() < 50, "{tried:?}");
        }
        tried
    }

    #[test]
    fn sizes() {
        assert_eq!((datagram_len(1), datagram_len(2), datagram_len(6)), (1_440, 2_856, 8_520));
        assert_eq!((packets_in(0), packets_in(2_855), packets_in(2_856), packets_in(8_972)), (1, 1, 2, 6));
        assert_eq!(packets_in(1 << 20), MAX_SUB_PACKETS);
    }

    #[test]
    fn the_search_ends_at_what_arrives() {
        for (limit, carries) in [(6, 6), (6, 1), (6, 3), (47, 46), (47, 5), (2, 2)] {
            let (mut mtu, mut now) = (PathMtu::default(), Instant::from_nanos(1));
            let tried = search(&mut mtu, &mut now, limit, carries);
            assert_eq!(mtu.packets(limit), carries.min(limit), "{tried:?}");
            assert!(tried.len() <= 18, "{tried:?}");
            assert_eq!(mtu.next_trial(now + Duration::from_secs(500), limit, LONG), None, "it stands");
        }
    }

    #[test]
    fn a_result_is_looked_at_again() {
        let (mut mtu, mut now) = (PathMtu::default(), Instant::from_nanos(1));
        search(&mut mtu, &mut now, 6, 1);
        now += STANDS;
        search(&mut mtu, &mut now, 6, 6);
        assert_eq!(mtu.packets(6), 6);
    }

    #[test]
    fn nobody_is_tried_who_takes_no_jumbograms() {
        assert_eq!(PathMtu::default().next_trial(Instant::from_nanos(1), 1, LONG), None);
    }

    #[test]
    fn a_black_hole_is_left() {
        let (mut mtu, mut now) = (PathMtu::default(), Instant::from_nanos(1));
        search(&mut mtu, &mut now, 6, 6);
        mtu.jumbo_packets_lost(now, 12);
        mtu.jumbo_arrived();
        mtu.jumbo_packets_lost(now, 12);
        assert_eq!(mtu.packets(6), 6, "losses happen");
        mtu.jumbo_packets_lost(now, 6);
        assert_eq!(mtu.packets(6), 1);
        assert_eq!(mtu.next_trial(now, 6, LONG), None, "and not tried again at once");
    }

    #[test]
    fn the_network_may_say_so() {
        let (mut mtu, mut now) = (PathMtu::default(), Instant::from_nanos(1));
        search(&mut mtu, &mut now, 6, 6);
        mtu.too_big(now, 9_000);
        assert_eq!(mtu.packets(6), 6);
        mtu.too_big(now, 4_500);
        assert_eq!(mtu.packets(6), 3);
        mtu.too_big(now, 100);
        assert_eq!(mtu.packets(6), 1);
    }
}
