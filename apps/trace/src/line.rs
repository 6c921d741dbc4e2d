//! A line of an event log.
//!
//! Each is one JSON object. `t` is nanoseconds since the log was opened, `core` the core it happened on, `event` what happened. Events
//! of a call have `conn`, epoch and connection id in hexadecimal, `channel` (0 to 3) and `call`, the number of the call on it. The first line
//! is the event `start`. Names of packet types, flags and ACK reasons are those of the protocol.

use rxrpc::wire::{AckReason, Flags, PacketType};
use rxrpc::{Completion, Happened, Role, TraceEvent, TracedAck, TracedPacket};
use serde::{Deserialize, Serialize};

/// The format's version, in the first line.
pub const VERSION: u32 = 1;

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Nanoseconds since the log was opened.
    pub t: u64,
    /// The core's number.
    pub core: usize,
    /// `EPOCH/CID` in hexadecimal, the id with channel 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conn: Option<String>,
    /// The channel, 0 to 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<u8>,
    /// The call's number on the channel; 0 speaks of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<u32>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened: [`Happened`] in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The log begins.
    Start {
        /// Who writes it.
        program: String,
        /// [`VERSION`].
        version: u32,
        /// The time of day, in milliseconds since 1970.
        unix_ms: u64,
    },
    /// A call has its place on a connection.
    Begun {
        /// `client` or `service`: which side we are.
        role: String,
        /// The other side.
        peer: String,
        /// Service id.
        service: u16,
    },
    /// It is over.
    Ended {
        /// How, in words.
        completion: String,
        /// The code, if it was aborted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        abort: Option<i32>,
    },
    /// A datagram went out.
    Sent(Packet),
    /// A datagram came in.
    Received(Packet),
    /// The datagram before was refused.
    Refused {
        /// Why: the name of the drop.
        reason: String,
    },
    /// ACKs showed that packets were lost.
    Lost {
        /// How many.
        packets: u32,
    },
    /// Nothing was heard for a retransmission timeout.
    TimedOut {
        /// Packets that were under way.
        packets: u32,
    },
    /// A round trip, in microseconds.
    Rtt {
        /// Measured.
        sample_us: f64,
        /// Smoothed.
        smoothed_us: f64,
        /// The shortest so far.
        minimum_us: f64,
        /// The retransmission timeout.
        timeout_us: f64,
    },
    /// Windows, in packets.
    Windows {
        /// Of congestion control.
        congestion: u32,
        /// The peer's.
        peer: u32,
        /// Under way.
        in_flight: u32,
    },
    /// Events that are missing here: they came faster than they were written.
    Overflow {
        /// How many.
        events: u64,
    },
}

/// A datagram.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Packet {
    /// `DATA`, `ACK`, ..
    #[serde(rename = "type")]
    pub kind: String,
    /// `CLIENT|REQUEST_ACK|LAST|MORE|JUMBO|SLOW_START`, those that are set.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub flags: String,
    /// Of DATA: the sequence number of its first packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u32>,
    /// Serial number.
    pub serial: u32,
    /// Packets in a jumbogram.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub packets: u16,
    /// Bytes, Rx header included.
    pub bytes: u32,
    /// DATA that was sent before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// What an ACK says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<Ack>,
    /// The code of an ABORT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<i32>,
}

/// What an ACK says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// Why it was sent.
    pub reason: String,
    /// Serial of the packet that caused it; 0: none did.
    pub serial: u32,
    /// All before this sequence number is acknowledged for good.
    pub first: u32,
    /// From there on a sign for each packet: `+` has arrived, `-` has not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub soft: String,
    /// Receive window in packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
}

const fn one() -> u16 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's way of asking
const fn is_one(packets: &u16) -> bool {
    *packets == 1
}

impl Line {
    /// The line of an event that happened `t` nanoseconds after the log was opened. `again`: of DATA, whether it was sent before.
    pub fn new(t: u64, core: usize, event: &TraceEvent, again: bool) -> Self {
        let call = event.call;
        let named = (call.epoch, call.cid) != (0, 0);
        Self {
            t,
            core,
            conn: named.then(|| format!("{:08x}/{:08x}", call.epoch, call.cid & !3)),
            channel: named.then_some((call.cid & 3) as u8),
            call: named.then_some(call.number),
            event: Event::new(&event.happened, again),
        }
    }
}

impl Event {
    fn new(happened: &Happened, again: bool) -> Self {
        let us = |duration: std::time::Duration| duration.as_nanos() as f64 / 1e3;
        match *happened {
            Happened::Begun { role, peer, service } => {
                let role = if role == Role::Client { "client" } else { "service" };
                Self::Begun { role: role.into(), peer: peer.to_string(), service }
            }
            Happened::Ended(completion) => Self::Ended {
                completion: completion.to_string(),
                abort: match completion {
                    Completion::RemoteAbort(code) | Completion::LocalAbort(code) => Some(code),
                    _ => None,
                },
            },
            Happened::Sent(packet) => Self::Sent(Packet::new(&packet, again)),
            Happened::Received(packet) => Self::Received(Packet::new(&packet, false)),
            Happened::Refused(reason) => Self::Refused { reason: reason.name().into() },
            Happened::Lost { packets } => Self::Lost { packets },
            Happened::TimedOut { packets } => Self::TimedOut { packets },
            Happened::Rtt { sample, smoothed, minimum, timeout } => Self::Rtt {
                sample_us: us(sample),
                smoothed_us: us(smoothed),
                minimum_us: us(minimum),
                timeout_us: us(timeout),
            },
            Happened::Windows { congestion, peer, in_flight } => {
                Self::Windows { congestion, peer, in_flight }
            }
            Happened::Overflow { events } => Self::Overflow { events },
        }
    }
}

impl Packet {
    fn new(packet: &TracedPacket, again: bool) -> Self {
        Self {
            kind: kind(packet.kind).into(),
            flags: flags(packet.kind, packet.flags),
            seq: (packet.kind == PacketType::Data).then_some(packet.seq),
            serial: packet.serial,
            packets: packet.packets,
            bytes: packet.len,
            again,
            ack: packet.ack.as_ref().map(Ack::new),
            abort: packet.abort,
        }
    }

    /// Whether it carries payload.
    pub fn is_data(&self) -> bool {
        self.seq.is_some()
    }
}

impl Ack {
    fn new(ack: &TracedAck) -> Self {
        let soft = (0..usize::from(ack.slots)).map(|n| if ack.has(n) { '+' } else { '-' }).collect();
        Self { reason: reason(ack.reason), serial: ack.serial, first: ack.first, soft, window: ack.window }
    }
}

fn kind(kind: PacketType) -> &'static str {
    match kind {
        PacketType::Data => "DATA",
        PacketType::Ack => "ACK",
        PacketType::Busy => "BUSY",
        PacketType::Abort => "ABORT",
        PacketType::AckAll => "ACKALL",
        PacketType::Challenge => "CHALLENGE",
        PacketType::Response => "RESPONSE",
        PacketType::Debug => "DEBUG",
        PacketType::Params => "PARAMS",
        PacketType::Params10 => "PARAMS10",
        PacketType::Params11 => "PARAMS11",
        PacketType::Version => "VERSION",
    }
}

fn flags(kind: PacketType, flags: Flags) -> String {
    // The bit has two meanings.
    let jumbo = if kind == PacketType::Data { "JUMBO" } else { "SLOW_START" };
    let names = [
        (Flags::CLIENT_INITIATED, "CLIENT"),
        (Flags::REQUEST_ACK, "REQUEST_ACK"),
        (Flags::LAST, "LAST"),
        (Flags::MORE, "MORE"),
        (Flags::JUMBO, jumbo),
    ];
    let known = names.iter().fold(Flags::NONE, |all, (flag, _)| all | *flag);
    let set = names.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| (*name).to_string());
    let rest = flags.without(known).0;
    set.chain((rest != 0).then(|| format!("{rest:#04x}"))).collect::<Vec<_>>().join("|")
}

fn reason(reason: AckReason) -> String {
    match reason {
        AckReason::Requested => "REQUESTED".into(),
        AckReason::Duplicate => "DUPLICATE".into(),
        AckReason::OutOfSequence => "OUT_OF_SEQUENCE".into(),
        AckReason::ExceedsWindow => "EXCEEDS_WINDOW".into(),
        AckReason::NoSpace => "NOSPACE".into(),
        AckReason::Ping => "PING".into(),
        AckReason::PingResponse => "PING_RESPONSE".into(),
        AckReason::Delay => "DELAY".into(),
        AckReason::Idle => "IDLE".into(),
        AckReason::Other(number) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rxrpc::TracedCall;
    use std::time::Duration;

    const CALL: TracedCall = TracedCall { epoch: 0x1a2b_3c4d, cid: 0x16, number: 3 };

    fn line(happened: Happened) -> Line {
        Line::new(5, 1, &TraceEvent { at: pmd::Instant::ZERO, call: CALL, happened }, true)
    }

    fn packet(kind: PacketType, ack: Option<TracedAck>) -> TracedPacket {
        TracedPacket {
            kind,
            flags: Flags::CLIENT_INITIATED | Flags::JUMBO | Flags(0x80),
            seq: 7,
            serial: 9,
            packets: 2,
            len: 2_000,
            ack,
            abort: None,
        }
    }

    #[test]
    fn a_packet_is_written_with_the_protocols_words() {
        let text = serde_json::to_string(&line(Happened::Sent(packet(PacketType::Data, None)))).unwrap();
        assert_eq!(
            text,
            r#"{"t":5,"core":1,"conn":"1a2b3c4d/00000014","channel":2,"call":3,"event":"sent","type":"DATA","#
                .to_owned()
                + r#""flags":"CLIENT|JUMBO|0x80","seq":7,"serial":9,"packets":2,"bytes":2000,"again":true}"#
        );
    }

    #[test]
    fn every_event_is_read_as_it_was_written() {
        let ack = TracedAck {
            reason: AckReason::Other(77),
            serial: 4,
            first: 6,
            slots: 3,
            soft: [0b101, 0, 0, 0],
            window: Some(32),
        };
        let us = Duration::from_micros;
        let events = [
            Happened::Begun { role: Role::Service, peer: "[fd00::1]:7001".parse().unwrap(), service: 147 },
            Happened::Ended(Completion::RemoteAbort(-455)),
            Happened::Ended(Completion::Succeeded),
            Happened::Sent(packet(PacketType::Version, None)),
            Happened::Received(packet(PacketType::Ack, Some(ack))),
            Happened::Refused(rxrpc::RxDrop::OldAck),
            Happened::Lost { packets: 3 },
            Happened::TimedOut { packets: 4 },
            Happened::Rtt { sample: us(15), smoothed: us(16), minimum: us(1), timeout: us(200_000) },
            Happened::Windows { congestion: 10, peer: 32, in_flight: 9 },
            Happened::Overflow { events: 1 << 40 },
        ];
        for happened in events {
            let written = line(happened);
            let text = serde_json::to_string(&written).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), written, "{text}");
        }
        let Event::Received(read) = line(events[4]).event else { panic!() };
        assert_eq!(read.ack.map(|ack| (ack.reason, ack.soft)), Some(("77".into(), "+-+".into())));
        assert_eq!(read.flags, "CLIENT|SLOW_START|0x80");
    }

    #[test]
    fn what_belongs_to_no_call_has_no_name() {
        let event = TraceEvent {
            at: pmd::Instant::ZERO,
            call: TracedCall::default(),
            happened: Happened::Lost { packets: 1 },
        };
        let text = serde_json::to_string(&Line::new(0, 0, &event, false)).unwrap();
        assert_eq!(text, r#"{"t":0,"core":0,"event":"lost","packets":1}"#);
    }
}
