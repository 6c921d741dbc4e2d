//! The driver against a [model](model::Chip82599) of the chip.

mod model;

use std::net::SocketAddr;
use std::time::{Duration, Instant as Wall};

use model::{Chip82599, MAC, Sent};

use super::Ixgbe;
use crate::drivers::intel::bar::Bar;
use crate::drivers::intel::bus::Bus;
use crate::drivers::intel::error::DeviceError;
use crate::drivers::intel::port::{IntelPort, Wish};
use crate::drivers::intel::tests::{ModelCell, Shared};
use crate::mbuf::{Burst, Checksum, Mbuf};
use crate::pool::{Pool, PoolConfig};
use crate::port::{LinkState, OpenOptions, Port, Queue};
use crate::rss::RSS_KEY_LEN;
use crate::time::Clock;
use crate::url::Url;

const REGISTERS: usize = 512 << 10;
const KEY: [u8; RSS_KEY_LEN] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

fn start(chip: &Shared<Chip82599>, options: &str) -> Result<IntelPort<Ixgbe>, DeviceError> {
    let text = format!("ixgbe:model{options}");
    let url = Url::parse(&text);
    url.head("PCI").unwrap();
    let driver = Ixgbe { x550: false };
    // With a key by chance, some spread these tests' few flows badly.
    let options = OpenOptions { rss_key: Some(KEY), ..OpenOptions::default() };
    let wish = Wish::read(&driver, &url, &options).unwrap();
    IntelPort::start(driver, Bar::model(ModelCell::new(chip), REGISTERS), Bus::Model, "model", wish)
}

struct Bench {
    chip: Shared<Chip82599>,
    port: IntelPort<Ixgbe>,
    queues: Vec<Box<dyn Queue>>,
    pool: Pool,
}

/// A running port whose link is up and whose queues have their buffers.
fn bench(queues: usize, options: &str) -> Bench {
    let chip = Shared::new(Chip82599::new());
    let mut port = start(&chip, options).unwrap();
    let mut pool = PoolConfig::new("model", 4096).build().unwrap().claim();
    let mut queues = port.open_queues(&vec![pool.handle(); queues]).unwrap();
    while port.link() == LinkState::Down {}
    for queue in &mut queues {
        assert_eq!(queue.rx_burst(Clock::now(), &mut pool, &mut Burst::new()), 0);
    }
    Bench { chip, port, queues, pool }
}

impl Bench {
    fn receive(&mut self) -> Vec<Mbuf> {
        let mut frames = Vec::new();
        for queue in &mut self.queues {
            let mut burst = Burst::new();
            while queue.rx_burst(Clock::now(), &mut self.pool, &mut burst) > 0 {
                frames.extend(burst.drain(..));
            }
        }
        frames
    }

    fn send(&mut self, frames: impl IntoIterator<Item = Mbuf>) -> Burst {
        let mut burst: Burst = frames.into_iter().collect();
        self.queues[0].tx_burst(Clock::now(), &mut burst);
        burst
    }

    /// Ends it; nothing was done against the datasheet, and every buffer is home.
    fn end(mut self) {
        drop((self.port, self.queues));
        assert_eq!(self.pool.available(), 4096);
        assert_eq!(self.chip.lock().faults, [] as [String; 0]);
    }
}

fn bytes(mbuf: &Mbuf) -> Vec<u8> {
    mbuf.segments().flatten().copied().collect()
}

fn frame(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| if i < 12 { 2 } else { (i * 7 + number) as u8 }).collect()
}

fn datagram(flow: u16) -> (SocketAddr, Vec<u8>) {
    let peer = SocketAddr::from(([192, 0, 2, flow as u8], 1000 + flow));
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, flow as u8, 192, 0, 2, 200]);
    frame.extend((1000 + flow).to_be_bytes());
    frame.extend(7001u16.to_be_bytes());
    frame.extend([0, 26, 0, 0]);
    frame.extend([flow as u8; 18]);
    (peer, frame)
}

#[test]
fn it_starts_as_the_datasheet_says() {
    let mut bench = bench(4, ",queues=4");
    let info = bench.port.info();
    assert_eq!((info.mac.0, info.speed_mbps, info.queues_max), (MAC, Some(10_000), 16));
    assert_eq!(bench.chip.lock().resets, 1);
    let again = bench.port.open_queues(&[bench.pool.handle()]).err().unwrap().to_string();
    assert!(again.contains("opened already"), "{again}");
    let chip = bench.chip.clone();
    bench.end();
    let chip = chip.lock();
    assert_eq!((chip.resets, chip.get(super::regs::RXCTRL)), (2, 0), "it ends reset and deaf");
}

#[test]
fn frames_come_whole_and_in_order() {
    for (options, longest) in [("", 1514), (",mtu=9000", 9014)] {
        let mut bench = bench(1, options);
        let mut sent = 0;
        for round in 0..200 {
            let frames: Vec<_> =
                (0..20).map(|i| frame(round + i, 60 + (round * 977 + i * 131) % (longest - 59))).collect();
            sent += frames.iter().map(Vec::len).sum::<usize>() as u64;
            for frame in &frames {
                assert!(bench.chip.lock().receive(frame), "the ring is kept full");
            }
            let got = bench.receive();
            assert_eq!(got.iter().map(bytes).collect::<Vec<_>>(), frames);
            assert!(got.iter().all(|frame| frame.meta().checksum == Checksum::Unknown));
        }
        let stats = bench.port.stats();
        assert_eq!((stats.rx_frames, stats.rx_bytes, stats.drops.total()), (4000, sent, 0));
        assert!(!bench.chip.lock().receive(&frame(0, longest + 9)), "MAXFRS keeps longer ones out");
        bench.end();
    }
}

#[test]
fn frames_leave_whole_and_in_order() {
    let mut bench = bench(1, ",mtu=9000,ring=64");
    for round in 0..100 {
        let mut expected = Vec::new();
        for i in 0..8 {
            let bytes = frame(round, 14 + (round * 977 + i * 1931) % 9000);
            let cut = bytes.len() / 3;
            let mut mbuf = bench.pool.copy_from(&bytes[..cut]).unwrap();
            mbuf.chain(bench.pool.copy_from(&bytes[cut..]).unwrap());
            assert!(bench.send([mbuf]).is_empty());
            let mut padded = bytes.clone();
            padded.resize(bytes.len().max(17), 0);
            expected.push(Sent { bytes: padded, vlan: None, checksum: None });
        }
        assert_eq!(std::mem::take(&mut bench.chip.lock().sent), expected);
    }
    assert_eq!(bench.port.stats().tx_frames, 800);
    bench.end();
}

#[test]
fn a_full_ring_leaves_the_rest_to_its_caller() {
    let mut bench = bench(1, ",ring=64");
    bench.chip.lock().held = true;
    let mut number = 0;
    let rest = loop {
        let burst: Vec<_> =
            (number..number + 32).map(|i| bench.pool.copy_from(&frame(i, 60)).unwrap()).collect();
        let rest = bench.send(burst);
        number += 32 - rest.len();
        if !rest.is_empty() {
            break rest;
        }
    };
    assert_eq!((number, bench.port.stats().tx_full), (63, 1));
    assert_eq!(bytes(&rest[0]), frame(63, 60));
    {
        let mut chip = bench.chip.lock();
        chip.held = false;
        chip.transmit(super::regs::TX_QUEUES);
    }
    assert!(bench.send(rest).is_empty(), "there is room again");
    let sent = std::mem::take(&mut bench.chip.lock().sent);
    assert_eq!(sent.len(), 64);
    assert!(sent.iter().enumerate().all(|(i, sent)| sent.bytes == frame(i, 60)));
    bench.end();
}

#[test]
fn tags_and_checksums_are_asked_for() {
    let mut bench = bench(1, ",vlan=strip");
    let (_, datagram) = datagram(3);
    let frames = [(Some(7), true), (Some(7), true), (None, false), (Some(9), false), (None, true)];
    let made: Vec<Mbuf> = frames
        .iter()
        .map(|&(vlan, partial)| {
            let mut mbuf = bench.pool.copy_from(&datagram).unwrap();
            mbuf.meta_mut().vlan = vlan;
            mbuf.meta_mut().checksum = if partial { Checksum::Partial } else { Checksum::Unknown };
            mbuf
        })
        .collect();
    assert!(bench.send(made).is_empty());
    let expected = frames.map(|(vlan, partial)| {
        let checksum = partial.then_some((14, 20));
        Sent { bytes: datagram.clone(), vlan, checksum }
    });
    assert_eq!(bench.chip.lock().sent, expected);
    // And what it says of frames that it received.
    let cases = [
        (1 << 3, Some(0), Checksum::Unknown),
        (1 << 5, None, Checksum::Good),
        (1 << 5 | 1 << 30, None, Checksum::Bad),
    ];
    for (status, vlan, checksum) in cases {
        bench.chip.lock().fill(0, &datagram, 0, status | 3, datagram.len() as u16);
        let got = bench.receive();
        assert_eq!((got[0].meta().vlan, got[0].meta().checksum), (vlan, checksum));
    }
    bench.end();
}

#[test]
fn flows_go_to_the_queue_that_is_foretold() {
    let mut bench = bench(4, ",queues=4");
    let rss = bench.port.rss().unwrap();
    let mut used = [0; 4];
    for flow in 0..200 {
        let (peer, datagram) = datagram(flow);
        assert!(bench.chip.lock().receive(&datagram));
        let got = bench.receive();
        let queue = usize::from(got[0].meta().queue);
        assert_eq!(queue, rss.queue_of(SocketAddr::from(([192, 0, 2, 200], 7001)), peer));
        assert_eq!(queue, rss.queue(got[0].meta().rss_hash));
        used[queue] += 1;
    }
    assert!(used.iter().all(|frames| *frames > 20), "{used:?}");
    bench.end();
}

#[test]
fn what_a_queue_has_no_room_for_is_counted() {
    let mut bench = bench(2, ",queues=2,ring=64");
    let (_, datagram) = datagram(1);
    let taken = (0..100).filter(|_| bench.chip.lock().receive(&datagram)).count();
    assert_eq!((taken, bench.port.stats().drops.get("rx_no_descriptor")), (63, 37));
    assert_eq!(bench.receive().len(), 63);
    assert_eq!(bench.port.stats().drops.get("rx_no_descriptor"), 37, "cleared by reading, and summed up");
    bench.end();
}

#[test]
fn a_device_that_lies_about_lengths_is_not_believed() {
    let mut bench = bench(1, ",mtu=3000");
    let piece = frame(1, 1000);
    let lie = |status: u32, len: u16| bench.chip.lock().fill(0, &piece, 0, status, len);
    // More than the buffer has, nothing at all, and both in the middle of a frame.
    lie(3, 1025);
    lie(3, u16::MAX);
    lie(3, 0);
    lie(1, 1000);
    lie(3, 2000);
    // A frame longer than any, and without an end for long.
    (0..40).for_each(|_| lie(1, 1024));
    lie(3, 10);
    // And an honest one.
    lie(1, 1000);
    lie(3, 500);
    let got = bench.receive();
    assert_eq!(got.iter().map(Mbuf::len).collect::<Vec<_>>(), [1500]);
    assert_eq!(bench.port.stats().drops.get("rx_bad_length"), 5);
    drop(got);
    bench.end();
}

#[test]
fn a_device_that_is_pulled_out_is_a_link_that_is_down() {
    let mut bench = bench(1, "");
    bench.chip.lock().gone = true;
    let start = Wall::now();
    assert_eq!(bench.port.link(), LinkState::Down);
    std::thread::sleep(Duration::from_millis(15));
    assert!(bench.receive().is_empty());
    let frames: Vec<_> = (0..3).map(|i| bench.pool.copy_from(&frame(i, 60)).unwrap()).collect();
    assert!(bench.send(frames).is_empty());
    let stats = bench.port.stats();
    assert_eq!((stats.drops.get("tx_link_down"), stats.drops.total()), (3, 3), "no counter is believed");
    bench.end();
    assert!(start.elapsed() < Duration::from_secs(1), "nothing waits for what does not answer");
}

#[test]
fn a_device_that_does_not_answer_is_an_error() {
    let chip = Shared::new(Chip82599::new());
    chip.lock().stuck = true;
    let error = start(&chip, "").err().unwrap().to_string();
    assert!(error.contains("its reset did not finish within 100 ms"), "{error}");
    let chip = Shared::new(Chip82599::new());
    chip.lock().gone = true;
    let error = start(&chip, "").err().unwrap().to_string();
    assert!(error.contains("model is gone"), "{error}");
}
