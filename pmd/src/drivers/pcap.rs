//! `pcap:rx=FILE,tx=FILE[,pace=max]`: replays one capture file and records another; either may be left out.
//!
//! Replay keeps the recorded distances, from the first poll on, or with `pace=max` goes as fast as it is polled; at the end nothing more comes.
//! Files are pcap (not pcapng) of Ethernet frames, streamed in both directions. Frames are recorded with nanoseconds of wall time,
//! their checksums filled in; the last 256 KiB reach the file when the queue is dropped. Reading and writing files can
//! block: this is a device for tests and captures, not for production cores. A comma cannot be part of a file name.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, PcapError, TsResolution};

use super::{DROP_OVERSIZE, DROP_RUNT, FRAME_OVERHEAD, admit, sum};
use crate::checksum;
use crate::counters::{Counters, QueueStats};
use crate::mac::MacAddr;
use crate::mbuf::{Burst, Mbuf};
use crate::pool::{Pool, PoolHandle};
use crate::port::{
    LinkState, MTU_DEFAULT, MTU_MAX, OpenOptions, Port, PortError, PortInfo, PortStats, Queue, QueuesOnce,
};
use crate::time::Instant;
use crate::url::Url;

const FRAME_MAX: usize = MTU_MAX + FRAME_OVERHEAD;
/// Recorded bytes that may wait in memory.
const WRITE_BUFFER: usize = 256 << 10;

const DROP_WRITE: usize = 2;
const DROP_TRUNCATED: usize = 3;
const DROP_BAD_FILE: usize = 4;
const DROPS: &[&str] =
    &[DROP_RUNT.1, DROP_OVERSIZE.1, "tx_write_failed", "rx_truncated_in_file", "rx_bad_file"];

pub(crate) fn open(url: Url<'_>, options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    let (rx, tx) = (url.take("rx"), url.take("tx"));
    let paced = match url.take("pace") {
        None | Some("recorded") => true,
        Some("max") => false,
        Some(other) => {
            return Err(url.bad(format!("pace={other}"), "write pace=max or pace=recorded".to_owned()));
        }
    };
    url.finish()?;
    if rx.is_none() && tx.is_none() {
        let mend = "write pcap:rx=FILE to replay, pcap:tx=FILE to record, or both".to_owned();
        return Err(url.bad("there is no file".to_owned(), mend));
    }
    let replay = rx.map(|path| Replay::open(&url, path, paced)).transpose()?;
    let record = tx.map(Record::create).transpose()?;
    let mtu = options.mtu.unwrap_or(MTU_DEFAULT);
    let (mac, once) = (MacAddr::local_from(url.text()), QueuesOnce::new(&url, 1));
    Ok(Box::new(PcapPort {
        url: url.text().to_owned(),
        mac,
        mtu,
        files: Some((replay, record)),
        once,
        counters: Vec::new(),
    }))
}

/// Files are not there at all, or not what they should be.
fn explain(what: String, error: PcapError) -> PortError {
    let source = match error {
        PcapError::IoError(source) => source,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    };
    PortError::Io { what, source }
}

struct PcapPort {
    url: String,
    mac: MacAddr,
    mtu: usize,
    /// Until the queue is opened.
    files: Option<(Option<Replay>, Option<Record>)>,
    once: QueuesOnce,
    counters: Vec<Arc<Counters>>,
}

impl Port for PcapPort {
    fn info(&self) -> PortInfo {
        PortInfo::in_process(&self.url, "pcap", self.mac, self.mtu, self.once.max())
    }

    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError> {
        self.once.check(pools.len())?;
        self.once.done();
        let (replay, record) = self.files.take().expect("the queue is opened once");
        let counters = Counters::new(DROPS);
        self.counters.push(counters.clone());
        Ok(vec![Box::new(PcapQueue { replay, record, frame_max: self.mtu + FRAME_OVERHEAD, counters })])
    }

    fn link(&self) -> LinkState {
        LinkState::Up
    }

    fn stats(&self) -> PortStats {
        sum(&self.counters)
    }
}

struct PcapQueue {
    replay: Option<Replay>,
    record: Option<Record>,
    frame_max: usize,
    counters: Arc<Counters>,
}

impl Queue for PcapQueue {
    fn rx_burst(&mut self, now: Instant, pool: &mut Pool, burst: &mut Burst) -> usize {
        let Some(replay) = &mut self.replay else { return 0 };
        let before = burst.len();
        let mut bytes = 0;
        while !burst.is_full() && replay.load(now, &self.counters) {
            // Without buffers the frame waits.
            let Some(mbuf) = pool.copy_from(&replay.frame) else { break };
            replay.loaded = false;
            bytes += mbuf.len();
            burst.push(mbuf);
        }
        self.counters.rx(burst.len() - before, bytes);
        burst.len() - before
    }

    fn tx_burst(&mut self, now: Instant, burst: &mut Burst) -> usize {
        let given = burst.len();
        admit(burst, self.frame_max, &self.counters);
        for mut mbuf in burst.drain(..) {
            checksum::complete(&mut mbuf);
            match self.record.as_mut().map_or(Ok(()), |record| record.write(now, &mbuf)) {
                Ok(()) => self.counters.tx(1, mbuf.len()),
                Err(_) => self.counters.dropped(DROP_WRITE, 1),
            }
        }
        given
    }

    fn next_event(&self) -> Option<Instant> {
        self.replay.as_ref().filter(|replay| replay.loaded).map(|replay| replay.due)
    }

    fn stats(&self) -> QueueStats {
        self.counters.snapshot()
    }
}

/// A file being replayed.
struct Replay {
    /// None at its end.
    reader: Option<PcapReader<File>>,
    nanos: bool,
    paced: bool,
    /// When the replay began, and the time stamp of the first frame.
    start: Option<(Instant, Duration)>,
    /// The next frame, if `loaded`; it is received at `due`.
    frame: Vec<u8>,
    loaded: bool,
    due: Instant,
}

impl Replay {
    fn open(url: &Url<'_>, path: &str, paced: bool) -> Result<Replay, PortError> {
        let what = || format!("reading capture {path:?}");
        let file = File::open(path).map_err(|source| PortError::Io { what: what(), source })?;
        let reader = PcapReader::new(file).map_err(|error| explain(what(), error))?;
        let header = reader.header();
        if header.datalink != DataLink::ETHERNET {
            let what = format!("{path:?} holds {:?} frames", header.datalink);
            return Err(url.bad(what, "record on an Ethernet interface".to_owned()));
        }
        let nanos = header.ts_resolution == TsResolution::NanoSecond;
        let frame = Vec::with_capacity(FRAME_MAX);
        Ok(Replay {
            reader: Some(reader),
            nanos,
            paced,
            start: None,
            frame,
            loaded: false,
            due: Instant::ZERO,
        })
    }

    /// Makes the next whole frame of the file the loaded one; true when it is due.
    fn load(&mut self, now: Instant, counters: &Counters) -> bool {
        while !self.loaded {
            let Some(reader) = &mut self.reader else { return false };
            let raw = match reader.next_raw_packet() {
                Some(Ok(raw)) => raw,
                end => {
                    if end.is_some() {
                        counters.dropped(DROP_BAD_FILE, 1);
                    }
                    self.reader = None;
                    return false;
                }
            };
            let fraction = u64::from(raw.ts_frac) * if self.nanos { 1 } else { 1000 };
            let stamp = Duration::from_secs(raw.ts_sec.into()) + Duration::from_nanos(fraction);
            let (start, first) = *self.start.get_or_insert((now, stamp));
            if raw.incl_len != raw.orig_len || raw.data.len() > FRAME_MAX {
                counters.dropped(DROP_TRUNCATED, 1);
                continue;
            }
            // Files whose clock went back are replayed without waiting there.
            self.due = if self.paced { start + stamp.saturating_sub(first) } else { now };
            self.frame.clear();
            self.frame.extend_from_slice(&raw.data);
            self.loaded = true;
        }
        self.due <= now
    }
}

/// A file being recorded.
struct Record {
    writer: PcapWriter<BufWriter<File>>,
    /// Wall time of the opening.
    opened: Duration,
    /// `now` of the first frame, which the wall time above is set beside.
    first: Option<Instant>,
    /// For frames of several segments.
    whole: Vec<u8>,
}

impl Record {
    fn create(path: &str) -> Result<Record, PortError> {
        let what = || format!("creating capture {path:?}");
        let file = File::create(path).map_err(|source| PortError::Io { what: what(), source })?;
        let header = PcapHeader {
            snaplen: 262_144,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(BufWriter::with_capacity(WRITE_BUFFER, file), header);
        let writer = writer.map_err(|error| explain(what(), error))?;
        let opened = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Record { writer, opened, first: None, whole: Vec::with_capacity(FRAME_MAX) })
    }

    fn write(&mut self, now: Instant, mbuf: &Mbuf) -> Result<(), PcapError> {
        let timestamp = self.opened + (now - *self.first.get_or_insert(now));
        let data = if mbuf.segment_count() == 1 {
            mbuf.data()
        } else {
            self.whole.clear();
            mbuf.segments().for_each(|segment| self.whole.extend_from_slice(segment));
            &self.whole
        };
        let packet = PcapPacket { timestamp, orig_len: mbuf.len() as u32, data: Cow::Borrowed(data) };
        self.writer.write_packet(&packet).map(drop)
    }
}
