//! [`PcapngFile`]: captured frames as pcapng (draft-ietf-opsawg-pcapng): one interface per core and port, direction in
//! epb_flags, the reason of a drop in opt_comment, and what was missed in an interface statistics block at the end.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use control::{CaptureStarted, CapturedPage, FrameFate, FrameRow};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};

/// epb_flags: the frame came in, the frame went out.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// if_tsresol: nanoseconds.
const NANOSECONDS: u8 = 9;

/// How much of what was captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Received and not dropped.
    pub received: u64,
    /// Sent.
    pub sent: u64,
    /// Dropped on the way in.
    pub dropped: u64,
    /// Dropped on the way out.
    pub not_sent: u64,
    /// Not in the file: a core's ring had no room.
    pub missed: u64,
    /// Not in the file: dropped after the frame was gone.
    pub frameless: u64,
    /// Not in the file: the filter did not want them.
    pub unwanted: u64,
}

impl Figures {
    /// Frames in the file.
    pub fn frames(&self) -> u64 {
        self.received + self.sent + self.dropped + self.not_sent
    }
}

/// A capture file being written.
pub struct PcapngFile<W: Write> {
    writer: PcapNgWriter<W>,
    ports: usize,
    /// Frames written, by interface.
    written: Vec<u64>,
    /// By interface.
    missed: Vec<u64>,
    figures: Figures,
    /// The time of the last frame.
    last_ns: u64,
}

impl<W: Write> PcapngFile<W> {
    /// Writes the head of the file.
    pub fn new(to: W, started: &CaptureStarted, filter: Option<&str>) -> io::Result<Self> {
        // pcap-file writes 64-bit times as one number, where the format has the upper half first: the same in big endian alone.
        let section = SectionHeaderBlock {
            endianness: Endianness::Big,
            options: vec![SectionHeaderOption::UserApplication(
                concat!("rxline capture ", env!("CARGO_PKG_VERSION")).into(),
            )],
            ..SectionHeaderBlock::default()
        };
        let mut writer = PcapNgWriter::with_section_header(to, section).map_err(io_error)?;
        let CaptureStarted { engine, cores, ports, snaplen } = started;
        for core in 0..*cores {
            for url in ports {
                writer
                    .write_pcapng_block(interface(engine, core, url, *snaplen, filter))
                    .map_err(io_error)?;
            }
        }
        let interfaces = cores * ports.len();
        Ok(PcapngFile {
            writer,
            ports: ports.len(),
            written: vec![0; interfaces],
            missed: vec![0; interfaces],
            figures: Figures::default(),
            last_ns: 0,
        })
    }

    /// Writes the frames of a page, at most `frames_max`.
    pub fn write(&mut self, page: &CapturedPage, frames_max: u64) -> io::Result<()> {
        for frame in page.frames.iter().take(usize::try_from(frames_max).unwrap_or(usize::MAX)) {
            self.frame(frame)?;
        }
        for (slot, missed) in self.missed.iter_mut().zip(page.missed.iter().flatten()) {
            *slot = *missed;
        }
        let missed = self.missed.iter().sum();
        self.figures = Figures { missed, frameless: page.frameless, unwanted: page.unwanted, ..self.figures };
        Ok(())
    }

    fn frame(&mut self, frame: &FrameRow) -> io::Result<()> {
        let interface = frame.core * self.ports + frame.port;
        let Some(written) = self.written.get_mut(interface) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame of no port"));
        };
        *written += 1;
        self.last_ns = self.last_ns.max(frame.at_ns);
        let (count, flags) = match frame.fate {
            FrameFate::Received => (&mut self.figures.received, INBOUND),
            FrameFate::Sent => (&mut self.figures.sent, OUTBOUND),
            FrameFate::Dropped => (&mut self.figures.dropped, INBOUND),
            FrameFate::NotSent => (&mut self.figures.not_sent, OUTBOUND),
        };
        *count += 1;
        let mut options = vec![EnhancedPacketOption::Flags(flags)];
        options.extend(comment(frame).map(|text| EnhancedPacketOption::Comment(Cow::Owned(text))));
        let block = EnhancedPacketBlock {
            interface_id: interface as u32,
            timestamp: Duration::from_nanos(frame.at_ns),
            original_len: frame.len.min(u32::MAX as usize) as u32,
            data: Cow::Borrowed(&frame.bytes),
            options,
        };
        self.writer.write_pcapng_block(block).map(drop).map_err(io_error)
    }

    /// What there is so far.
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// Makes what was written visible to whoever reads along.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }

    /// Writes the end: what is not in the file.
    pub fn finish(mut self) -> io::Result<Figures> {
        for interface in 0..self.written.len() {
            let options = vec![
                InterfaceStatisticsOption::IsbIfRecv(self.written[interface] + self.missed[interface]),
                InterfaceStatisticsOption::IsbIfDrop(self.missed[interface]),
                InterfaceStatisticsOption::IsbUsrDeliv(self.written[interface]),
            ];
            let interface_id = interface as u32;
            let block = InterfaceStatisticsBlock { interface_id, timestamp: self.last_ns, options };
            self.writer.write_pcapng_block(block).map_err(io_error)?;
        }
        self.flush()?;
        Ok(self.figures)
    }
}

fn interface<'a>(
    engine: &str,
    core: usize,
    url: &str,
    snaplen: usize,
    filter: Option<&str>,
) -> InterfaceDescriptionBlock<'a> {
    let mut options = vec![
        InterfaceDescriptionOption::IfName(format!("{engine}/{url}/core-{core}").into()),
        InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
    ];
    // if_filter is for libpcap's language.
    options
        .extend(filter.map(|filter| InterfaceDescriptionOption::Comment(format!("filter: {filter}").into())));
    InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: snaplen as u32, options }
}

fn comment(frame: &FrameRow) -> Option<String> {
    let reason = frame.reason.as_deref()?;
    let what = match frame.fate {
        FrameFate::NotSent => "not sent",
        _ => "dropped",
    };
    let rebuilt = if frame.rebuilt { "; headers made up, only the datagram was there" } else { "" };
    Some(format!("{what}: {reason}{rebuilt}"))
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcapng::{Block, PcapNgReader};

    fn row(port: usize, fate: FrameFate, reason: Option<&str>) -> FrameRow {
        FrameRow {
            at_ns: 1_700_000_000_123_456_789,
            core: 1,
            port,
            fate,
            reason: reason.map(Into::into),
            rebuilt: false,
            len: 1500,
            bytes: vec![7; 96],
        }
    }

    fn read(bytes: &[u8]) -> Vec<Block<'static>> {
        let mut reader = PcapNgReader::new(bytes).unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block() {
            blocks.push(block.unwrap().into_owned());
        }
        blocks
    }

    #[test]
    fn what_is_written_is_read_back() {
        let started = CaptureStarted {
            engine: "gateway".into(),
            cores: 2,
            ports: vec!["af_packet:a".into(), "tap:b".into()],
            snaplen: 96,
        };
        let mut bytes = Vec::new();
        let mut file = PcapngFile::new(&mut bytes, &started, Some("udp")).unwrap();
        let frames = vec![
            row(0, FrameFate::Received, None),
            row(1, FrameFate::Sent, None),
            row(1, FrameFate::Dropped, Some("no_socket")),
            row(0, FrameFate::NotSent, Some("no_route")),
            row(0, FrameFate::Received, None),
        ];
        let missed = vec![vec![0, 0], vec![5, 0]];
        let page = CapturedPage { frames, missed, frameless: 2, unwanted: 3, over: false };
        // The last one is one too many.
        file.write(&page, 4).unwrap();
        let figures = file.finish().unwrap();
        let counts = (figures.received, figures.sent, figures.dropped, figures.not_sent, figures.missed);
        assert_eq!(counts, (1, 1, 1, 1, 5));

        let blocks = read(&bytes);
        let (mut names, mut packets, mut statistics) = (Vec::new(), Vec::new(), Vec::new());
        for block in blocks {
            match block {
                Block::InterfaceDescription(block) => names.push(block),
                Block::EnhancedPacket(block) => packets.push(block),
                Block::InterfaceStatistics(block) => statistics.push(block),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((names.len(), packets.len(), statistics.len()), (4, 4, 4));
        let third = InterfaceDescriptionOption::IfName("gateway/af_packet:a/core-1".into());
        assert!(names[2].options.contains(&third) && names[2].snaplen == 96, "{:?}", names[2]);
        let seen: Vec<_> =
            packets.iter().map(|packet| (packet.interface_id, packet.options.clone())).collect();
        let flags = |flags| EnhancedPacketOption::Flags(flags);
        let comment = |text: &str| EnhancedPacketOption::Comment(Cow::Owned(text.to_owned()));
        assert_eq!(
            seen,
            [
                (2, vec![flags(INBOUND)]),
                (3, vec![flags(OUTBOUND)]),
                (3, vec![flags(INBOUND), comment("dropped: no_socket")]),
                (2, vec![flags(OUTBOUND), comment("not sent: no_route")]),
            ]
        );
        let first = &packets[0];
        assert_eq!((first.original_len, &first.data[..]), (1500, &[7; 96][..]));
        assert_eq!(first.timestamp, Duration::from_nanos(1_700_000_000_123_456_789));
        assert!(statistics[2].options.contains(&InterfaceStatisticsOption::IsbIfDrop(5)));
        assert!(statistics[2].options.contains(&InterfaceStatisticsOption::IsbIfRecv(7)));
        assert_eq!(statistics[2].timestamp, 1_700_000_000_123_456_789);
    }
}
