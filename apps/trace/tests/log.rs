//! A log from an endpoint's sink to a picture: what is written is read again, sums up and can be drawn; what is wrong is named.

use pmd::{Hugepages, Instant, Pool, PoolConfig};
use rxrpc::wire::{Flags, Header, PacketType};
use rxrpc::{Endpoint, EndpointConfig, LocalId, ServiceConfig};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use trace::line::Event;
use trace::{ReadError, Summary, Trace, TraceLog, plot};

fn file(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(&folder).unwrap();
    folder.join(format!("trace-{}-{name}", std::process::id()))
}

const SERVICE: u16 = 9;

/// An endpoint that is a service, and a client's hand-made packets.
struct Bed {
    rx: Endpoint,
    pool: Pool,
    local: LocalId,
    peer: SocketAddr,
    now: Instant,
    serial: u32,
}

impl Bed {
    fn new() -> Bed {
        let config = PoolConfig { hugepages: Hugepages::Never, ..PoolConfig::new("trace", 512) };
        let mut rx = Endpoint::new(EndpointConfig::default(), 1);
        let local = rx.add_local("10.0.0.1:7001".parse().unwrap()).unwrap();
        rx.listen(local, ServiceConfig::new(SERVICE)).unwrap();
        let (pool, peer) = (config.build().unwrap().claim(), "10.0.0.2:7000".parse().unwrap());
        Bed { rx, pool, local, peer, now: pmd::Clock::now(), serial: 0 }
    }

    /// A DATA packet of call `call` comes in; what is to be sent goes out.
    fn data(&mut self, call: u32, seq: u32, flags: Flags) {
        self.serial += 1;
        let header = Header {
            epoch: 0x1234_5678,
            cid: rxrpc::wire::Cid(0x40),
            call,
            seq,
            serial: self.serial,
            flags: Flags::CLIENT_INITIATED | flags,
            service: SERVICE,
            ..Header::new(PacketType::Data)
        };
        let bytes = [&header.to_bytes()[..], &[7; 100]].concat();
        let packet = self.pool.copy_from(&bytes).unwrap();
        self.now += std::time::Duration::from_micros(250);
        let _ = self.rx.input(self.now, &mut self.pool, self.local, self.peer, packet);
        self.rx.transmit(self.now, &mut self.pool, &mut |_, _, _, _| true);
    }
}

/// A log of a request of 20 packets, one of them twice, and of a call that goes no further than its first packet.
fn written(name: &str) -> PathBuf {
    let path = file(name);
    let log = TraceLog::create(&path, "test").unwrap();
    let mut bed = Bed::new();
    bed.rx.set_trace(Some(log.sinks().sink(3)));
    for seq in 1..=20 {
        bed.data(1, seq, if seq % 2 == 0 { Flags::REQUEST_ACK } else { Flags::NONE });
    }
    bed.data(1, 5, Flags::NONE);
    bed.data(2, 1, Flags::NONE);
    bed.rx.set_trace(None);
    let written = log.finish().unwrap();
    assert_eq!(written.missing, 0);
    assert_eq!(written.lines as usize, fs::read_to_string(&path).unwrap().lines().count());
    path
}

#[test]
fn a_log_is_read_as_it_was_written() {
    let trace = Trace::read(&written("read")).unwrap();
    assert_eq!((trace.program.as_str(), trace.missing, trace.calls.len()), ("test", 0, 2));
    let call = trace.call(None).unwrap();
    assert_eq!((call.name.to_string().as_str(), call.core, call.data()), ("12345678/00000040:0:1", 3, 21));
    let of = |wanted: fn(&Event) -> bool| call.events.iter().filter(|(_, event)| wanted(event)).count();
    assert_eq!(of(|event| matches!(event, Event::Begun { service: SERVICE, .. })), 1);
    assert_eq!(of(|event| matches!(event, Event::Refused { reason } if reason == "rx_duplicate")), 1);
    assert_eq!(of(|event| matches!(event, Event::Ended { .. })), 1, "the next call on the channel ends it");
    let acks: Vec<u32> = call
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Sent(packet) => packet.ack.as_ref().map(|ack| ack.first),
            _ => None,
        })
        .collect();
    assert!(acks.len() >= 10 && acks.is_sorted() && acks.last() == Some(&21), "{acks:?}");
    assert!(call.events.is_sorted_by_key(|(t, _)| *t));
    let named = "12345678/00000040:0:2".parse().unwrap();
    assert_eq!(trace.call(Some(&named)).unwrap().data(), 1);
}

#[test]
fn a_summary_counts() {
    let text = Summary::of(&Trace::read(&written("summary")).unwrap()).to_string();
    assert!(text.contains("test: 2 calls in"), "{text}");
    assert!(text.contains("1 refused: rx_duplicate"), "{text}");
    assert!(text.contains("  DATA              0        22\n"), "{text}");
    assert!(text.contains("12345678/00000040:0:1  service, 10.0.0.2:7000, service 9: 0, 0, 21"), "{text}");
}

#[test]
fn a_picture_shows_each_packet() {
    let path = written("plot");
    let trace = Trace::read(&path).unwrap();
    let out = path.with_extension("svg");
    plot(&trace, trace.call(None).unwrap(), &out).unwrap();
    let svg = fs::read_to_string(&out).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    // Each of the 21 packets that came in, and one dot in the legend.
    assert_eq!(svg.matches("<circle").count(), 22, "{svg}");
    for words in
        ["DATA received", "acknowledged for good", "12345678/00000040:0:1", "no round trip was measured"]
    {
        assert!(svg.contains(words), "{words}");
    }
}

/// A log's first line, and what follows.
fn with(name: &str, rest: &str) -> PathBuf {
    let path = file(name);
    let first = r#"{"t":0,"core":0,"event":"start","program":"p","version":1,"unix_ms":0}"#;
    fs::write(&path, format!("{first}\n{rest}")).unwrap();
    path
}

#[test]
fn a_line_that_is_wrong_is_named_by_its_number() {
    let good = r#"{"t":1,"core":0,"conn":"a/b","channel":0,"call":1,"event":"lost","packets":2}"#;
    let cases = [
        (format!("{good}\nnonsense\n"), 3, "expected"),
        (format!("{good}\n{good}\n{{\"t\":1,\"core\":0,\"event\":\"dreamt\"}}\n"), 4, "dreamt"),
        ("{\"t\":1,\"core\":0,\"event\":\"lost\"}\n".into(), 2, "packets"),
        (format!("{good}\n{}", &good[..40]), 3, "cut off"),
        (format!("{good}\n{}\n", " ".repeat(5_000)), 3, "longer"),
        (
            "{\"t\":0,\"core\":0,\"event\":\"start\",\"program\":\"p\",\"version\":1,\"unix_ms\":0}\n".into(),
            2,
            "second log",
        ),
    ];
    for (index, (rest, at, words)) in cases.into_iter().enumerate() {
        match Trace::read(&with(&format!("wrong{index}"), &rest)) {
            Err(ReadError::Line { number, what, .. }) => {
                assert!(number == at && what.contains(words), "{index}: line {number}: {what}");
            }
            other => panic!("{index}: {other:?}"),
        }
    }
}

#[test]
fn what_is_no_log_is_refused() {
    let path = file("none");
    fs::write(&path, "{\"t\":1,\"core\":0,\"event\":\"lost\",\"packets\":2}\n").unwrap();
    let error = Trace::read(&path).unwrap_err().to_string();
    assert!(error.contains("line 1") && error.contains("`start`"), "{error}");
    fs::write(
        &path,
        "{\"t\":0,\"core\":0,\"event\":\"start\",\"program\":\"p\",\"version\":9,\"unix_ms\":0}\n",
    )
    .unwrap();
    assert!(Trace::read(&path).unwrap_err().to_string().contains("version 9"));
    let empty = Trace::read(&with("empty", "")).unwrap();
    assert!(matches!(empty.call(None), Err(ReadError::Empty(_))));
    let named = "1/2:0:3".parse().unwrap();
    assert!(matches!(empty.call(Some(&named)), Err(ReadError::NoCall { .. })));
    assert!("1/2:0".parse::<trace::CallName>().is_err());
    assert!(matches!(Trace::read(&file("missing")), Err(ReadError::Io { .. })));
}
