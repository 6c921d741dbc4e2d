//! `null:[rx=SIZE][,flows=N][,queues=N]`: transmits into nothing, and receives nothing or as many frames as it is asked for.
//!
//! With `rx=SIZE` each poll fills its burst with Ethernet/IPv4/UDP frames of SIZE bytes (without FCS), from 198.18.0.1 to
//! 198.18.0.2 (RFC 2544's test network), port 9, with `flows` different source ports in turn. Each is copied into a buffer of
//! the pool: that is the cost of the cheapest device that delivers bytes.

use std::sync::Arc;

use super::{DROP_OVERSIZE, DROP_RUNT, FRAME_OVERHEAD, admit, sum};
use crate::counters::{Counters, QueueStats};
use crate::header::DATA_ROOM;
use crate::mac::MacAddr;
use crate::mbuf::{BURST, Burst};
use crate::pool::{Pool, PoolHandle};
use crate::port::{
    LinkState, MTU_DEFAULT, OpenOptions, Port, PortError, PortInfo, PortStats, Queue, QueuesOnce,
};
use crate::time::Instant;
use crate::url::Url;

/// Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;
const SOURCE_PORT: usize = 34;
const DROPS: &[&str] = &[DROP_RUNT.1, DROP_OVERSIZE.1];

pub(crate) fn open(url: Url<'_>, options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    let size = url.number("rx", HEADERS as u64..=DATA_ROOM as u64)?.map(|n| n as usize);
    let flows = url.number("flows", 1..=50_000)?.unwrap_or(1) as u16;
    let queues = url.number("queues", 1..=64)?.map_or(options.queues.max(1), |n| n as usize);
    url.finish()?;
    let mac = MacAddr::local_from(url.text());
    let frame = size.map(|size| template(mac, size)).unwrap_or_default();
    let (once, url) = (QueuesOnce::new(&url, queues), url.text().to_owned());
    let mtu = options.mtu.unwrap_or(MTU_DEFAULT);
    Ok(Box::new(NullPort { url, mac, mtu, frame, flows, once, counters: Vec::new() }))
}

/// A frame of `size` bytes to `mac`. Its UDP checksum is zero, which means "none" over IPv4.
fn template(mac: MacAddr, size: usize) -> Vec<u8> {
    let mut frame = vec![0; size];
    frame[..6].copy_from_slice(&mac.0);
    frame[6..12].copy_from_slice(&MacAddr::local_from("null: far side").0);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip_len = (size - 14) as u16;
    let ip = &mut frame[14..34];
    ip[..2].copy_from_slice(&[0x45, 0]);
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    ip[8..10].copy_from_slice(&[64, 17]);
    ip[12..16].copy_from_slice(&[198, 18, 0, 1]);
    ip[16..20].copy_from_slice(&[198, 18, 0, 2]);
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&folded.to_be_bytes());
    frame[34..36].copy_from_slice(&1024u16.to_be_bytes());
    frame[36..38].copy_from_slice(&9u16.to_be_bytes());
    frame[38..40].copy_from_slice(&(ip_len - 20).to_be_bytes());
    frame
}

struct NullPort {
    url: String,
    mac: MacAddr,
    mtu: usize,
    frame: Vec<u8>,
    flows: u16,
    once: QueuesOnce,
    counters: Vec<Arc<Counters>>,
}

impl Port for NullPort {
    fn info(&self) -> PortInfo {
        PortInfo::in_process(&self.url, "null", self.mac, self.mtu, self.once.max())
    }

    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError> {
        let n = pools.len();
        self.once.check(n)?;
        self.once.done();
        let queue = |_| {
            let counters = Counters::new(DROPS);
            self.counters.push(counters.clone());
            let (frame, flows, frame_max) = (self.frame.clone(), self.flows, self.mtu + FRAME_OVERHEAD);
            Box::new(NullQueue { frame, flows, flow: 0, frame_max, counters }) as Box<dyn Queue>
        };
        Ok((0..n).map(queue).collect())
    }

    fn link(&self) -> LinkState {
        LinkState::Up
    }

    fn stats(&self) -> PortStats {
        sum(&self.counters)
    }
}

struct NullQueue {
    /// Empty: receives nothing.
    frame: Vec<u8>,
    flows: u16,
    flow: u16,
    frame_max: usize,
    counters: Arc<Counters>,
}

impl Queue for NullQueue {
    fn rx_burst(&mut self, _now: Instant, pool: &mut Pool, burst: &mut Burst) -> usize {
        if self.frame.is_empty() {
            return 0;
        }
        let before = burst.len();
        let wanted = BURST - before;
        let got = pool.alloc_burst(burst, wanted);
        for mbuf in &mut burst[before..] {
            // SOURCE_PORT + 2 <= HEADERS <= frame.len() <= DATA_ROOM: the URL was checked.
            let Some(bytes) = mbuf.append(self.frame.len()) else { continue };
            bytes.copy_from_slice(&self.frame);
            if self.flows > 1 {
                bytes[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&(1024 + self.flow).to_be_bytes());
                self.flow = if self.flow + 1 < self.flows { self.flow + 1 } else { 0 };
            }
        }
        self.counters.rx(got, got * self.frame.len());
        if got < wanted {
            self.counters.rx_no_buffer.add((wanted - got) as u64);
        }
        got
    }

    fn tx_burst(&mut self, _now: Instant, burst: &mut Burst) -> usize {
        let given = burst.len();
        let bytes = admit(burst, self.frame_max, &self.counters);
        self.counters.tx(burst.len(), bytes);
        burst.clear();
        given
    }

    fn next_event(&self) -> Option<Instant> {
        // There is always another frame.
        (!self.frame.is_empty()).then_some(Instant::ZERO)
    }

    fn stats(&self) -> QueueStats {
        self.counters.snapshot()
    }
}
