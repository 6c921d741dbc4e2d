//! Captures over the control socket: a client asks for one, then again and again for what came, and leaves.
//!
//! The server keeps nothing but the cores' rings: a client that is slow misses frames, one that does not ask for ten
//! seconds is forgotten as any other, and its capture with it.

use std::time::{SystemTime, UNIX_EPOCH};

use engine::{Capture, CaptureConfig, CaptureError, CapturedFrame, Clock, Fate};
use rxrpc::RxViewer;
use serde::{Deserialize, Serialize};

use crate::filter::Filter;
use crate::protocol::{ROWS_MAX, Refusal, RefusalCode};
use crate::wish::CaptureWish;

/// Bytes of frames in an answer; as hexadecimal digits they take twice that.
const PAGE_BYTES: usize = 512 << 10;
/// Frames that an answer may look at and not show.
const UNWANTED_MAX: usize = 4096;

/// What is captured from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStarted {
    /// The engine's name.
    pub engine: String,
    /// How many cores it has.
    pub cores: usize,
    /// The URLs of its ports.
    pub ports: Vec<String>,
    /// Bytes kept of a frame.
    pub snaplen: usize,
}

/// What came since the last answer, and figures since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedPage {
    /// Oldest first. None: nothing yet.
    pub frames: Vec<FrameRow>,
    /// By core, then by port: frames that the core's ring had no room for.
    pub missed: Vec<Vec<u64>>,
    /// Drops that no frame can be shown of.
    pub frameless: u64,
    /// Frames that the filter did not want.
    pub unwanted: u64,
    /// The engine has stopped, and this was all.
    pub over: bool,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameRow {
    /// The time of its burst: nanoseconds since 1970.
    pub at_ns: u64,
    /// The core that had it.
    pub core: usize,
    /// The port's number.
    pub port: usize,
    /// What became of it.
    pub fate: FrameFate,
    /// Why it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its headers are made up: the engine had only the datagram.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rebuilt: bool,
    /// Bytes that it had.
    pub len: usize,
    /// The first of them, as hexadecimal digits.
    #[serde(with = "hex")]
    pub bytes: Vec<u8>,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameFate {
    /// Somebody has it.
    Received,
    /// A device took it.
    Sent,
    /// Thrown away on the way in.
    Dropped,
    /// Thrown away on the way out.
    NotSent,
}

/// A capture that a client has running.
pub(crate) struct Capturing {
    capture: Capture,
    started: CaptureStarted,
    filter: Option<Filter>,
    unwanted: u64,
    /// From the engine's clock to nanoseconds since 1970.
    epoch_ns: u64,
}

fn bad(message: String) -> Refusal {
    Refusal::new(RefusalCode::BadRequest, message)
}

impl Capturing {
    /// Begins to capture on the engine of that name.
    pub fn start(engine: &str, viewer: &RxViewer, wish: &CaptureWish) -> Result<Self, Refusal> {
        let gone =
            |error: CaptureError| Refusal::new(RefusalCode::Unavailable, format!("engine {engine}: {error}"));
        let stats = viewer.stats().map_err(|_| gone(CaptureError::Stopped))?;
        let ports: Vec<String> = stats.ports.iter().map(|port| port.url.clone()).collect();
        let port = wish.port.as_deref().map(|port| find_port(engine, &ports, port)).transpose()?;
        let filter = wish.filter.as_deref().map(str::parse).transpose();
        let filter = filter.map_err(|error: crate::filter::FilterError| bad(error.to_string()))?;
        let CaptureWish { received, sent, drops, .. } = *wish;
        let snaplen = wish.snaplen.clamp(engine::SNAPLEN_MIN, engine::SNAPLEN_MAX);
        let capture = viewer.capture(CaptureConfig { port, received, sent, drops, snaplen }).map_err(gone)?;
        let started = CaptureStarted { engine: engine.into(), cores: stats.cores.len(), ports, snaplen };
        Ok(Capturing { capture, started, filter, unwanted: 0, epoch_ns: epoch_ns() })
    }

    pub fn started(&self) -> &CaptureStarted {
        &self.started
    }

    /// What came since.
    pub fn page(&mut self) -> CapturedPage {
        let (mut frames, mut bytes, mut unwanted) = (Vec::new(), 0, 0);
        while frames.len() < ROWS_MAX && bytes < PAGE_BYTES && unwanted < UNWANTED_MAX {
            let Some(frame) = self.capture.next_frame() else { break };
            if self.filter.as_ref().is_some_and(|filter| !filter.wants(&frame.bytes, frame.len)) {
                unwanted += 1;
                continue;
            }
            bytes += frame.bytes.len();
            frames.push(self.row(frame));
        }
        self.unwanted += unwanted as u64;
        let ports = self.started.ports.len();
        let missed = |core| (0..ports).map(|port| self.capture.missed(core, port)).collect();
        CapturedPage {
            frames,
            missed: (0..self.started.cores).map(missed).collect(),
            frameless: self.capture.frameless(),
            unwanted: self.unwanted,
            over: self.capture.is_over(),
        }
    }

    fn row(&self, frame: CapturedFrame) -> FrameRow {
        let CapturedFrame { core, port, when, fate, rebuilt, len, bytes } = frame;
        let (fate, reason) = match fate {
            Fate::Received => (FrameFate::Received, None),
            Fate::Sent => (FrameFate::Sent, None),
            Fate::Dropped(reason) => (FrameFate::Dropped, Some(reason.into())),
            Fate::NotSent(reason) => (FrameFate::NotSent, Some(reason.into())),
        };
        let at_ns = self.epoch_ns.wrapping_add(when.as_nanos());
        FrameRow { at_ns, core, port, fate, reason, rebuilt, len, bytes }
    }
}

/// The wall clock at the origin of the engine's clock. Kept for the whole capture, so that setting the clock meanwhile
/// does not reorder it.
fn epoch_ns() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    wall.wrapping_sub(Clock::now().as_nanos())
}

fn find_port(engine: &str, ports: &[String], wanted: &str) -> Result<usize, Refusal> {
    let by_number = || wanted.parse().ok().filter(|port| *port < ports.len());
    let found = ports.iter().position(|url| url == wanted).or_else(by_number);
    found.ok_or_else(|| {
        let list: Vec<_> = ports.iter().enumerate().map(|(at, url)| format!("{at} or {url}")).collect();
        bad(format!("engine {engine} has no port {wanted:?}; write {}", list.join(", ")))
    })
}

/// Bytes as hexadecimal digits.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const DIGITS: &[u8; 16] = b"0123456789abcdef";

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let text: String = digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect();
        to.serialize_str(&text)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let pair = |pair: &[u8]| match *pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
        bytes.ok_or_else(|| D::Error::custom("not pairs of hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_passes_as_it_was() {
        let row = FrameRow {
            at_ns: 1_700_000_000_123_456_789,
            core: 1,
            port: 0,
            fate: FrameFate::Dropped,
            reason: Some("no_socket".into()),
            rebuilt: true,
            len: 1500,
            bytes: (0..=255).collect(),
        };
        let text = serde_json::to_string(&row).unwrap();
        assert!(text.contains("\"fate\":\"dropped\"") && text.contains("\"bytes\":\"000102"), "{text}");
        assert_eq!(serde_json::from_str::<FrameRow>(&text).unwrap(), row);
        for bad in ["0", "0g", "é"] {
            let text = text.replace("000102", bad);
            assert!(serde_json::from_str::<FrameRow>(&text).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_go_by_number_or_url() {
        let ports = ["af_packet:eth0".to_owned(), "7".into()];
        assert_eq!(find_port("a", &ports, "1"), Ok(1));
        assert_eq!(find_port("a", &ports, "7"), Ok(1));
        let error = find_port("a", &ports, "2").unwrap_err();
        assert!(error.message.contains("0 or af_packet:eth0"), "{}", error.message);
    }
}
