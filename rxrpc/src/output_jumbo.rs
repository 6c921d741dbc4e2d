//! Transmission of jumbograms, and of the padded PINGs that prove that they arrive.

use crate::output::{Halt, Out};
use crate::path_mtu::datagram_len;
use crate::wire::{
    AckReason, Flags, HEADER_LEN, Header, JUMBO_HEADER_LEN, JUMBO_PAYLOAD_LEN, JumboHeader, PacketType,
};
use pmd::{Mbuf, Pool};

/// Packets that wait to be sent or acknowledged on a call that is worth the question how large datagrams may be.
const BULK: usize = 32;

impl Out<'_, '_> {
    /// How many packets a datagram may carry; asks, when the answer is due and there is much to send. Only packets without
    /// security travel together: those of others have a checksum each, which is theirs to make.
    pub fn look_at_path(&mut self) -> Result<(), Halt> {
        let limit = self.peer.jumbo_limit(self.shared.config.jumbo_send_max);
        if limit <= 1 || self.conn.security.index() != 0 {
            self.call.jumbo = 1;
            return Ok(());
        }
        self.call.jumbo = self.peer.path_mtu.packets(limit);
        let Some(conn) = self.call.conn.filter(|_| self.call.send.len() >= BULK) else { return Ok(()) };
        let config = &self.shared.config;
        let patience = self.peer.rtt.rto(config.initial_rto, config.min_rto, config.max_rto);
        let Some(packets) = self.peer.path_mtu.next_trial(self.now, limit, patience) else { return Ok(()) };
        let window = self.call.receive_window(self.shared);
        let mut ping = self.ack(AckReason::Ping, 0, window)?;
        if !pad(&mut ping, datagram_len(packets.into()), self.pool) {
            return self.no_buffer();
        }
        self.call.ack.edge = self.call.recv.next().wrapping_sub(1).wrapping_add(window);
        self.peer.path_mtu.tried(self.now, packets, conn, self.conn.serial);
        self.shared.stats.path_probes += 1;
        self.hand_over(ping)
    }

    /// Sends `count` packets from `index` in one datagram; `ask` for an ACK of the last. All buffers come first, so that
    /// nothing has changed where there are too few.
    pub fn jumbogram(&mut self, index: usize, count: usize, ask: bool) -> Result<(), Halt> {
        let mut header = self.conn.header(PacketType::Data, self.call.channel, self.call.number);
        let Some(datagram) = self.assemble(&mut header, index, count, ask) else { return self.no_buffer() };
        if !self.call.send.begun() {
            self.call.deadlines.heard = self.now;
        }
        for i in 0..count {
            let len = self.call.send.outgoing(index + i).data.len();
            self.call.send.sent(index + i, self.now, header.serial.wrapping_add(i as u32), true);
            self.count_data(false, len);
        }
        self.conn.serial = self.conn.serial.wrapping_add(count as u32 - 1);
        self.shared.stats.jumbograms_sent += 1;
        // Whoever sends a reply has the request.
        self.call.ack.implied();
        self.call.arm_resend(self.now, &self.peer.rtt, &self.shared.config, ask);
        self.hand_over(datagram)
    }

    /// `[header, JUMBO][1412 bytes][jumbo header][1412 bytes]...`, a buffer for each packet.
    fn assemble(&mut self, header: &mut Header, index: usize, count: usize, ask: bool) -> Option<Mbuf> {
        let plain = header.flags;
        let mut datagram: Option<Mbuf> = None;
        for i in 0..count {
            let outgoing = self.call.send.outgoing(index + i);
            let mut flags = plain;
            for (flag, set) in [
                (Flags::JUMBO, i + 1 < count),
                (Flags::LAST, outgoing.last),
                (Flags::MORE, index + i + 1 < self.call.send.len()),
                (Flags::REQUEST_ACK, ask && i + 1 == count),
            ] {
                flags = if set { flags | flag } else { flags };
            }
            debug_assert!(i + 1 == count || outgoing.data.len() == JUMBO_PAYLOAD_LEN);
            let mut part = self.pool.alloc()?;
            match &mut datagram {
                None => {
                    (header.seq, header.flags) = (outgoing.seq, flags);
                    part.append(HEADER_LEN)?.copy_from_slice(&header.to_bytes());
                }
                Some(_) => {
                    let jumbo = JumboHeader { flags, checksum: 0 };
                    part.append(JUMBO_HEADER_LEN)?.copy_from_slice(&jumbo.to_bytes());
                }
            }
            outgoing.data.copy_to(0, part.append(outgoing.data.len())?);
            match &mut datagram {
                None => datagram = Some(part),
                Some(datagram) => datagram.chain(part),
            }
        }
        datagram
    }
}

/// Adds zeros up to `len` bytes. False: too few buffers.
fn pad(packet: &mut Mbuf, len: usize, pool: &mut Pool) -> bool {
    const ZEROS: [u8; JUMBO_PAYLOAD_LEN] = [0; JUMBO_PAYLOAD_LEN];
    while packet.len() < len {
        let zeros = &ZEROS[..(len - packet.len()).min(ZEROS.len())];
        if packet.extend_from_slice(zeros, pool).is_err() {
            return false;
        }
    }
    true
}
