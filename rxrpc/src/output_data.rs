//! Transmission of single DATA packets: made, sealed, sent.
//!
//! Packets of a sealed call are made a few at a time, because their cipher encrypts them side by side. They depart one by one, as
//! all others do; what a full driver does not take is made again.

use crate::output::{Halt, Out};
use crate::security::{LANES, Sealing};
use crate::wire::{Flags, HEADER_LEN, Header, PacketType};
use arrayvec::ArrayVec;
use pmd::Mbuf;

/// A packet with its body, and room for its header.
struct Made {
    packet: Mbuf,
    /// Bytes of payload.
    len: usize,
    /// The seal's.
    checksum: u16,
}

impl Out<'_, '_> {
    /// Sends one packet.
    pub fn packet(&mut self, index: usize, ask: bool) -> Result<(), Halt> {
        let Some(mut made) = self.make(index) else { return self.no_buffer() };
        if self.call.seal.is_some() {
            self.seal(index, std::slice::from_mut(&mut made));
        }
        self.depart(index, made, ask)
    }

    /// Sends `count` packets from `index`, at most [`LANES`], of a call whose packets are sealed.
    pub fn sealed_run(&mut self, index: usize, count: usize, window: u32) -> Result<(), Halt> {
        let mut run: ArrayVec<Made, LANES> = (index..index + count).map_while(|at| self.make(at)).collect();
        if run.is_empty() {
            return self.no_buffer();
        }
        self.seal(index, &mut run);
        for (at, made) in (index..).zip(run) {
            let ask = self.asks_for_ack(at, 1, window);
            self.depart(at, made, ask)?;
        }
        Ok(())
    }

    /// Makes a packet but for its header. `None`: no buffer.
    fn make(&mut self, index: usize) -> Option<Made> {
        let mut packet = self.pool.alloc()?;
        let data = self.call.send.outgoing(index).data;
        let len = data.len();
        let (before, sealed) =
            self.call.seal.map_or((0, len), |level| (level.header_len(), level.sealed_len(len)));
        let room = packet.append(HEADER_LEN + sealed).expect("a buffer holds a packet");
        data.copy_to(0, &mut room[HEADER_LEN + before..][..len]);
        Some(Made { packet, len, checksum: 0 })
    }

    /// Seals the packets from `index` on.
    fn seal(&self, index: usize, run: &mut [Made]) {
        let (call, cid) = (self.call.number, self.conn.cid.with_channel(self.call.channel));
        let mut sealings: ArrayVec<Sealing<'_>, LANES> = (index..)
            .zip(&mut *run)
            .map(|(at, made)| {
                let seq = self.call.send.outgoing(at).seq;
                let header = Header { cid, call, seq, ..Header::new(PacketType::Data) };
                Sealing { header, body: &mut made.packet.data_mut()[HEADER_LEN..], len: made.len }
            })
            .collect();
        self.conn.security.seal(&mut sealings);
        let checksums: ArrayVec<u16, LANES> =
            sealings.iter().map(|sealing| sealing.header.checksum).collect();
        drop(sealings);
        for (made, checksum) in run.iter_mut().zip(checksums) {
            made.checksum = checksum;
        }
    }

    /// Writes the header and hands the packet over.
    fn depart(&mut self, index: usize, made: Made, ask: bool) -> Result<(), Halt> {
        let Made { mut packet, len, checksum } = made;
        let mut header = self.conn.header(PacketType::Data, self.call.channel, self.call.number);
        let outgoing = self.call.send.outgoing(index);
        (header.seq, header.checksum) = (outgoing.seq, checksum);
        let again = outgoing.again;
        for (flag, set) in [
            (Flags::LAST, outgoing.last),
            (Flags::MORE, index + 1 < self.call.send.len()),
            (Flags::REQUEST_ACK, ask),
        ] {
            header.flags = if set { header.flags | flag } else { header.flags };
        }
        packet.data_mut()[..HEADER_LEN].copy_from_slice(&header.to_bytes());
        if !self.call.send.begun() {
            self.call.deadlines.heard = self.now;
        }
        self.call.send.sent(index, self.now, header.serial, false);
        self.count_data(again, len);
        // Whoever sends a reply has the request.
        self.call.ack.implied();
        self.call.arm_resend(self.now, &self.peer.rtt, &self.shared.config, ask);
        self.hand_over(packet)
    }

    pub fn count_data(&mut self, again: bool, len: usize) {
        let stats = &mut self.shared.stats;
        stats.sent[PacketType::Data as usize] += 1;
        if again {
            stats.data_resent += 1;
            self.call.retransmits += 1;
            self.peer.retransmits += 1;
        } else {
            stats.data_sent += 1;
            self.call.bytes_sent += len as u64;
            self.call.deadlines.moved = self.now;
            self.peer.packets_sent += 1;
        }
    }
}
