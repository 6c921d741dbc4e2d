//! Frames of a capture file, sent again: at the distances in which they were recorded, or at a rate.
//!
//! The file, pcap or pcapng, is read before anything is sent and lies in memory, so that no core ever waits for a disk. Frames are sent as they
//! are: their addresses are not changed, and what was cut when it was recorded is sent cut.
//!
//! Deliberately absent: editing (editcap and tcprewrite do that), and keeping flows on queues of their own: all of it leaves by one queue,
//! because that keeps its order.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pmd::{Burst, Instant, Pool};

use crate::counters::QueueCounters;
use crate::headers::ETHERNET;
use crate::rate::{Bucket, CATCH_UP, Rate};
use crate::template::FCS;

/// Bytes of frames that a file may have.
const BYTES_MAX: usize = 1 << 30;
/// How long the last frame lasts where nothing tells: in a file with one time stamp only.
const LAST: Duration = Duration::from_millis(1);

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error("{path:?}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is no capture file, or a broken one.
    #[error("{path:?} is not a sound pcap or pcapng file: {what}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It has frames of another link.
    #[error("{path:?} holds {link:?} frames: record on an Ethernet interface")]
    Link {
        /// The file.
        path: PathBuf,
        /// What it holds.
        link: DataLink,
    },
    /// It is too large to lie in memory.
    #[error("{path:?} has more than {} MiB of frames: cut it up with editcap -c", BYTES_MAX >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to send.
    #[error("{path:?} has no frame of 14 bytes or more: there is nothing to send")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// A frame in the file.
#[derive(Clone, Copy, Debug)]
struct Recorded {
    /// Since the first one.
    at: Duration,
    from: usize,
    len: usize,
}

/// A capture file in memory.
#[derive(Debug, Default)]
pub struct Capture {
    bytes: Vec<u8>,
    frames: Vec<Recorded>,
    /// The first one's time stamp.
    origin: Option<Duration>,
    /// Frames that were shorter in the file than on the wire.
    pub cut: u64,
    /// Frames that were left out: shorter than an Ethernet header.
    pub left_out: u64,
}

impl Capture {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Capture, ReplayError> {
        let io = |source| ReplayError::Io { path: path.into(), source };
        let mut file = File::open(path).map_err(io)?;
        let mut magic = [0; 4];
        file.read_exact(&mut magic).map_err(io)?;
        file.rewind().map_err(io)?;
        let mut capture = Capture::default();
        // A pcapng file begins with a section header, whose type reads the same in either byte order.
        if magic == [0x0a, 0x0d, 0x0d, 0x0a] {
            capture.read_pcapng(path, BufReader::new(file))?;
        } else {
            capture.read_pcap(path, BufReader::new(file))?;
        }
        if capture.frames.is_empty() {
            return Err(ReplayError::Empty { path: path.into() });
        }
        Ok(capture)
    }

    fn read_pcap(&mut self, path: &Path, file: impl Read) -> Result<(), ReplayError> {
        let format = |error: pcap_file::PcapError| format_error(path, error);
        let mut reader = PcapReader::new(file).map_err(format)?;
        let link = reader.header().datalink;
        if link != DataLink::ETHERNET {
            return Err(ReplayError::Link { path: path.into(), link });
        }
        while let Some(packet) = reader.next_packet() {
            let packet = packet.map_err(format)?;
            self.add(path, packet.timestamp, packet.orig_len, &packet.data)?;
        }
        Ok(())
    }

    fn read_pcapng(&mut self, path: &Path, file: impl Read) -> Result<(), ReplayError> {
        let mut reader = PcapNgReader::new(file).map_err(|error| format_error(path, error))?;
        // Nanoseconds of a unit of each interface's time stamps.
        let mut units: Vec<f64> = Vec::new();
        while let Some(block) = reader.next_block() {
            match block.map_err(|error| format_error(path, error))? {
                Block::SectionHeader(_) => units.clear(),
                Block::InterfaceDescription(interface) => {
                    if interface.linktype != DataLink::ETHERNET {
                        return Err(ReplayError::Link { path: path.into(), link: interface.linktype });
                    }
                    units.push(unit(&interface.options));
                }
                Block::EnhancedPacket(packet) => {
                    let Some(unit) = units.get(packet.interface_id as usize) else {
                        let what =
                            format!("a frame of interface {}, which is not described", packet.interface_id);
                        return Err(ReplayError::Format { path: path.into(), what });
                    };
                    // The reader takes every unit for a nanosecond.
                    let units = packet.timestamp.as_nanos() as f64;
                    let at = Duration::try_from_secs_f64(units * unit / 1e9).unwrap_or_default();
                    self.add(path, at, packet.original_len, &packet.data)?;
                }
                // Simple packets have no time: they follow the one before at once.
                Block::SimplePacket(packet) => {
                    let at = self.origin.unwrap_or_default() + self.last();
                    self.add(path, at, packet.original_len, &packet.data)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, at: Duration, original_len: u32, data: &[u8]) -> Result<(), ReplayError> {
        if data.len() < ETHERNET {
            self.left_out += 1;
            return Ok(());
        }
        if self.bytes.len() + data.len() > BYTES_MAX {
            return Err(ReplayError::TooLarge { path: path.into() });
        }
        self.cut += u64::from((original_len as usize) > data.len());
        let origin = *self.origin.get_or_insert(at);
        // Clocks are set back now and then; the order of the file is kept.
        let at = at.saturating_sub(origin).max(self.last());
        self.frames.push(Recorded { at, from: self.bytes.len(), len: data.len() });
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    fn last(&self) -> Duration {
        self.frames.last().map_or(Duration::ZERO, |frame| frame.at)
    }

    /// Frames in it.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// The longest of them, with FCS.
    pub fn longest(&self) -> usize {
        self.frames.iter().map(|frame| frame.len + FCS).max().unwrap_or(0)
    }

    /// How long a round takes: to the last frame, and the mean distance once more.
    fn round(&self) -> Duration {
        let gaps = self.frames.len() as u32 - 1;
        if gaps == 0 || self.last() == Duration::ZERO { LAST } else { self.last() + self.last() / gaps }
    }
}

fn format_error(path: &Path, error: pcap_file::PcapError) -> ReplayError {
    match error {
        pcap_file::PcapError::IoError(source) => ReplayError::Io { path: path.into(), source },
        other => ReplayError::Format { path: path.into(), what: other.to_string() },
    }
}

/// Nanoseconds of a unit of time: if_tsresol, a power of ten, or of two where the highest bit is set; a microsecond if it is missing.
fn unit(options: &[InterfaceDescriptionOption<'_>]) -> f64 {
    let resolution = options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
        _ => None,
    });
    match resolution.unwrap_or(6) {
        power if power & 0x80 == 0 => 1e9 / 10f64.powi(power.into()),
        power => 1e9 / 2f64.powi((power & 0x7f).into()),
    }
}

/// When frames are sent.
#[derive(Debug)]
enum Pace {
    Recorded { start: Instant, round: Duration },
    Rate(Bucket),
}

/// Sends a capture, from one queue.
#[derive(Debug)]
pub struct Player {
    capture: Arc<Capture>,
    pace: Pace,
    /// Frames sent, over all rounds.
    done: u64,
    /// Frames to send.
    total: u64,
    refused: bool,
    counters: Arc<QueueCounters>,
}

impl Player {
    /// Sends `capture` that many times over from `start` on, at `rate`, or without one as it was recorded.
    ///
    /// # Panics
    /// On a rate in per cent: [`Rate::share`] makes it bits a second.
    pub fn new(
        capture: Arc<Capture>,
        rate: Option<Rate>,
        rounds: u64,
        counters: Arc<QueueCounters>,
        start: Instant,
    ) -> Player {
        let pace = match rate {
            Some(rate) => Pace::Rate(Bucket::new(rate, CATCH_UP, start)),
            None => Pace::Recorded { start, round: capture.round() },
        };
        let total = rounds.saturating_mul(capture.frames.len() as u64);
        Player { capture, pace, done: 0, total, refused: false, counters }
    }

    /// Whether all of it is sent.
    pub fn is_over(&self) -> bool {
        self.done >= self.total
    }

    fn place(&self) -> (u64, Recorded) {
        let frames = self.capture.frames.len() as u64;
        (self.done / frames, self.capture.frames[(self.done % frames) as usize])
    }

    /// When its next frame is due.
    pub fn next_due(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let (rounds, frame) = self.place();
        Some(match &self.pace {
            Pace::Recorded { start, round } => due(*start, *round, rounds, frame.at),
            Pace::Rate(bucket) => bucket.next_due(frame.len + FCS),
        })
    }

    /// Adds the frames that are due to `burst`, as far as it has room.
    #[inline]
    pub fn fill(&mut self, now: Instant, pool: &mut Pool, burst: &mut Burst) {
        if let Pace::Rate(bucket) = &mut self.pace {
            bucket.refill(now);
        }
        while !self.is_over() && !burst.is_full() {
            let (rounds, frame) = self.place();
            let is_due = match &mut self.pace {
                Pace::Recorded { start, round } => due(*start, *round, rounds, frame.at) <= now,
                Pace::Rate(bucket) => bucket.take(frame.len + FCS),
            };
            if !is_due {
                break;
            }
            let Some(mbuf) = pool.copy_from(&self.capture.bytes[frame.from..frame.from + frame.len]) else {
                if let Pace::Rate(bucket) = &mut self.pace {
                    bucket.give_back(frame.len + FCS);
                }
                break;
            };
            burst.push(mbuf);
            self.done += 1;
        }
    }

    /// Of the frames of `fill` these were not taken by the device: they are dropped here and made again, since none may be left out. At a
    /// rate, what cannot be made up for is counted as unsent: the replay ends that much later.
    #[inline]
    pub fn settle(&mut self, burst: &mut Burst) {
        self.done -= burst.len() as u64;
        self.refused |= !burst.is_empty();
        let Pace::Rate(bucket) = &mut self.pace else { return burst.clear() };
        for frame in burst.drain(..) {
            bucket.give_back(frame.len() + FCS);
        }
        let forfeited = bucket.forfeited(self.capture.frames[0].len + FCS);
        if forfeited > 0 {
            self.counters.forfeited(forfeited, std::mem::take(&mut self.refused));
        }
    }
}

fn due(start: Instant, round: Duration, rounds: u64, at: Duration) -> Instant {
    let before = (round.as_nanos() as u64).saturating_mul(rounds);
    start + Duration::from_nanos(before) + at
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcap::{PcapPacket, PcapWriter};
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
    use pmd::PoolConfig;

    /// A file of this test process's own.
    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("linerate-{}-{name}", std::process::id()))
    }

    /// Frames at 0, 1 and 3 ms, each of its own length.
    const TIMES: [u64; 3] = [0, 1000, 3000];

    fn frame(i: usize) -> Vec<u8> {
        vec![i as u8; 60 + i]
    }

    fn pcap() -> Vec<u8> {
        let mut writer = PcapWriter::new(Vec::new()).unwrap();
        for (i, micros) in TIMES.into_iter().enumerate() {
            let data = frame(i);
            let at = Duration::from_secs(1_700_000_000) + Duration::from_micros(micros);
            writer.write_packet(&PcapPacket::new(at, data.len() as u32, &data)).unwrap();
        }
        writer.into_writer()
    }

    fn pcapng(resolution: Option<u8>, units_per_micro: f64) -> Vec<u8> {
        let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
        let options = resolution.map(InterfaceDescriptionOption::IfTsResol).into_iter().collect();
        let block = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options };
        writer.write_pcapng_block(block).unwrap();
        for (i, micros) in TIMES.into_iter().enumerate() {
            let data = frame(i);
            let units = ((5_000_000 + micros) as f64 * units_per_micro).round() as u64;
            let block = EnhancedPacketBlock {
                interface_id: 0,
                timestamp: Duration::from_nanos(units),
                original_len: data.len() as u32,
                data: data.into(),
                options: vec![],
            };
            writer.write_pcapng_block(block).unwrap();
        }
        writer.into_inner()
    }

    fn read(name: &str, bytes: &[u8]) -> Result<Capture, ReplayError> {
        let path = path(name);
        std::fs::write(&path, bytes).unwrap();
        let capture = Capture::read(&path);
        std::fs::remove_file(path).unwrap();
        capture
    }

    #[test]
    fn pcap_and_pcapng_of_any_resolution_are_read_alike() {
        let files = [
            pcap(),
            pcapng(None, 1.0),
            pcapng(Some(9), 1000.0),
            pcapng(Some(3 + 3), 1.0),
            pcapng(Some(0x80 | 20), (1 << 20) as f64 / 1e6),
        ];
        for (i, file) in files.iter().enumerate() {
            let capture = read(&format!("alike-{i}"), file).unwrap();
            assert_eq!((capture.frames(), capture.longest()), (3, 66));
            for (recorded, (n, micros)) in capture.frames.iter().zip(TIMES.into_iter().enumerate()) {
                let off = recorded.at.abs_diff(Duration::from_micros(micros));
                assert!(off < Duration::from_micros(2), "file {i}, frame {n}: {:?}", recorded.at);
                assert_eq!(capture.bytes[recorded.from..][..recorded.len], frame(n));
            }
        }
    }

    #[test]
    fn what_is_no_capture_is_refused() {
        let whole = pcap();
        for (name, bytes) in [("empty", &b""[..]), ("text", b"GET / HTTP/1.1"), ("headless", &whole[..30])] {
            let error = read(name, bytes).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let error = read("no-frames", &whole[..24]).unwrap_err();
        assert!(matches!(error, ReplayError::Empty { .. }), "{error}");
        let mut wifi = whole.clone();
        wifi[20..24]
            .copy_from_slice(&(if whole[0] == 0xa1 { 105u32.to_be_bytes() } else { 105u32.to_le_bytes() }));
        assert!(matches!(read("wifi", &wifi), Err(ReplayError::Link { .. })));
    }

    /// When which frames were sent, in microseconds, polled each `step`.
    fn play(player: &mut Player, step: u64, until: u64, take: usize) -> Vec<(u64, usize)> {
        let mut pool = PoolConfig::new("replay", 64).build().unwrap().claim();
        let (mut burst, mut sent) = (Burst::new(), Vec::new());
        for micros in (0..until).step_by(step as usize) {
            player.fill(Instant::from_nanos(micros * 1000), &mut pool, &mut burst);
            let taken = take.min(burst.len());
            sent.extend(burst.drain(..taken).map(|frame| (micros, frame.len() - 60)));
            player.settle(&mut burst);
        }
        sent
    }

    fn player(rate: Option<&str>, rounds: u64) -> Player {
        let capture =
            read(&format!("play-{rate:?}-{rounds}-{:?}", std::thread::current().id()), &pcap()).unwrap();
        let rate = rate.map(|rate| rate.parse().unwrap());
        Player::new(Arc::new(capture), rate, rounds, Arc::default(), Instant::ZERO)
    }

    #[test]
    fn frames_are_sent_as_they_were_recorded_and_rounds_follow_one_another() {
        let mut two = player(None, 2);
        let sent = play(&mut two, 100, 20_000, 32);
        // A round of 3 ms and the mean gap of 1.5.
        assert_eq!(sent, [(0, 0), (1000, 1), (3000, 2), (4500, 0), (5500, 1), (7500, 2)]);
        assert!(two.is_over() && two.next_due().is_none());
    }

    #[test]
    fn a_rate_replaces_the_recorded_times() {
        let sent = play(&mut player(Some("10kpps"), 2), 50, 20_000, 32);
        let expected: Vec<_> = (0..6).map(|i| (i as u64 * 100, i % 3)).collect();
        assert_eq!(sent, expected);
    }

    #[test]
    fn frames_that_the_device_does_not_take_come_again_in_order() {
        let sent = play(&mut player(Some("max"), 3), 100, 2_000, 1);
        let expected: Vec<_> = (0..9).map(|i| (i as u64 * 100, i % 3)).collect();
        assert_eq!(sent, expected);
    }
}
