//! A port that receives, on each queue, as many copies of one frame as it is asked for. It sends into nothing.
//!
//! As `null:rx=60`, but each core's frame can be chosen once the engine runs and says which flows that core owns. A frame costs its
//! buffer and a copy, on every arm alike.

use std::net::SocketAddrV4;
use std::sync::{Arc, OnceLock};

use pmd::{
    BURST, Burst, Instant, LinkState, MacAddr, Pool, PoolHandle, Port, PortError, PortInfo, PortStats, Queue,
    QueueStats,
};

/// Bytes of a frame, without FCS.
pub const FRAME: usize = 60;

/// What each queue receives, once it is known.
pub type Frames = Arc<OnceLock<Vec<[u8; FRAME]>>>;

/// The port.
pub struct Source {
    pub frames: Frames,
    pub mac: MacAddr,
}

struct SourceQueue {
    index: usize,
    frames: Frames,
}

impl Port for Source {
    fn info(&self) -> PortInfo {
        PortInfo {
            url: "source:".into(),
            driver: "source",
            mac: self.mac,
            mtu: 1500,
            queues_max: 64,
            speed_mbps: None,
            capabilities: Default::default(),
            address_bits: 64,
            notes: Vec::new(),
        }
    }

    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError> {
        let queue = |index| Box::new(SourceQueue { index, frames: self.frames.clone() }) as Box<dyn Queue>;
        Ok((0..pools.len()).map(queue).collect())
    }

    fn link(&self) -> LinkState {
        LinkState::Up
    }

    fn stats(&self) -> PortStats {
        PortStats::default()
    }
}

impl Queue for SourceQueue {
    fn rx_burst(&mut self, _: Instant, pool: &mut Pool, burst: &mut Burst) -> usize {
        let Some(frames) = self.frames.get() else { return 0 };
        let before = burst.len();
        pool.alloc_burst(burst, BURST - before);
        for mbuf in &mut burst[before..] {
            mbuf.append(FRAME).expect("an empty buffer").copy_from_slice(&frames[self.index]);
        }
        burst.len() - before
    }

    fn tx_burst(&mut self, _: Instant, burst: &mut Burst) -> usize {
        let sent = burst.len();
        burst.clear();
        sent
    }

    fn stats(&self) -> QueueStats {
        QueueStats::default()
    }
}

/// A UDP datagram in IPv4, 64 bytes with FCS, without a UDP checksum.
pub fn frame(to: MacAddr, from: SocketAddrV4, local: SocketAddrV4) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&MacAddr::local_from("source").0);
    frame[12..14].copy_from_slice(&[8, 0]);
    let ip_len = (FRAME - 14) as u16;
    let ip = &mut frame[14..34];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    ip[8..10].copy_from_slice(&[64, 17]);
    ip[12..16].copy_from_slice(&from.ip().octets());
    ip[16..20].copy_from_slice(&local.ip().octets());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&folded.to_be_bytes());
    frame[34..36].copy_from_slice(&from.port().to_be_bytes());
    frame[36..38].copy_from_slice(&local.port().to_be_bytes());
    frame[38..40].copy_from_slice(&(ip_len - 20).to_be_bytes());
    frame
}
