//! Each mode on an engine, over `memory:` wires whose other ends this test has: what comes out, the ledger, and the buffers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linerate::figures::QueueFigures;
use linerate::forward::Rewrite;
use linerate::mark::{Judgement, Mark, judge};
use linerate::replay::Capture;
use linerate::run::{Load, Run, RunConfig};
use linerate::template::{Frames, Template};
use pmd::{Burst, Clock, MacAddr, OpenOptions, Pool, PoolConfig, Queue};

/// How long anything may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(ports: &[&str]) -> RunConfig {
    RunConfig {
        ports: ports.iter().map(|&port| port.to_owned()).collect(),
        cpus: vec![],
        buffers: 4096,
        mtu: None,
        idle: Default::default(),
        seed: 7,
    }
}

/// The other end of a wire.
struct End {
    pool: Pool,
    queue: Box<dyn Queue>,
    mac: MacAddr,
}

impl End {
    fn open(url: &str) -> End {
        let pool = PoolConfig::new(url, 2048).build().unwrap().claim();
        let mut port = pmd::open(url, &OpenOptions::default()).unwrap();
        let mac = port.info().mac;
        let queue = port.open_queues(&[pool.handle()]).unwrap().remove(0);
        End { pool, queue, mac }
    }

    fn send(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            let mut burst = Burst::new();
            burst.push(self.pool.copy_from(frame).unwrap());
            let deadline = Instant::now() + PATIENCE;
            while self.queue.tx_burst(Clock::now(), &mut burst) == 0 {
                assert!(Instant::now() < deadline, "the ring stays full");
            }
        }
    }

    fn receive(&mut self, n: usize) -> Vec<Vec<u8>> {
        let (mut frames, mut burst) = (Vec::new(), Burst::new());
        let deadline = Instant::now() + PATIENCE;
        while frames.len() < n {
            assert!(Instant::now() < deadline, "{} of {n} frames came", frames.len());
            self.queue.rx_burst(Clock::now(), &mut self.pool, &mut burst);
            frames.extend(
                burst.drain(..).map(|frame| frame.segments().flatten().copied().collect::<Vec<u8>>()),
            );
            std::thread::yield_now();
        }
        frames
    }
}

/// Frames of a template as a tester sends them.
fn frames(template: &Template, n: usize) -> Vec<Vec<u8>> {
    let mut pool = PoolConfig::new("frames", 64).build().unwrap().claim();
    let mut frames = Frames::new(template, 1, 0).unwrap();
    let mut one = |i| frames.build(&Mark::new(0, i, pmd::Instant::ZERO), &mut pool).unwrap().data().to_vec();
    (0..n as u64).map(&mut one).collect()
}

fn sum(run: &Run, port: usize, figure: fn(&QueueFigures) -> u64) -> u64 {
    run.snapshot().ports[port].queues.iter().map(figure).sum()
}

/// Ends a run: nothing may be left, and the ledger must say this.
fn end(run: Run, received: u64, delivered: u64) {
    let report = run.shutdown();
    let ledger = report.stats.ledger();
    assert_eq!((ledger.received, ledger.delivered, ledger.imbalance()), (received, delivered, 0), "{ledger}");
    assert_eq!(ledger.drops.total(), 0, "{ledger}");
    assert_eq!(report.leaks(), Vec::<String>::new());
}

#[test]
fn each_way_to_forward_changes_what_it_says() {
    let template = Template { sizes: "100".parse().unwrap(), ..Template::default() };
    let sent = frames(&template, 200);
    let peer = MacAddr([2, 0, 0, 0, 0, 42]);
    let modes = [Rewrite::Io, Rewrite::Mac { peer: Some(peer) }, Rewrite::MacSwap, Rewrite::FiveTuple];
    for (i, mode) in modes.into_iter().enumerate() {
        let urls = [format!("memory:forward-{i}-a"), format!("memory:forward-{i}-b")];
        let run = Run::start(&config(&[&urls[0], &urls[1]])).unwrap();
        run.forward(mode).unwrap();
        let (mut a, mut b) = (End::open(&urls[0]), End::open(&urls[1]));
        a.send(&sent);
        for (before, after) in sent.iter().zip(b.receive(200)) {
            let mut expected = before.clone();
            match mode {
                Rewrite::Io => {}
                Rewrite::Mac { .. } => {
                    expected[..6].copy_from_slice(&peer.0);
                    expected[6..12].copy_from_slice(&run.ports()[1].mac.0);
                }
                Rewrite::MacSwap => expected[..12].rotate_left(6),
                Rewrite::FiveTuple => {
                    expected[..12].rotate_left(6);
                    expected[26..34].rotate_left(4);
                    expected[34..38].rotate_left(2);
                }
            }
            assert_eq!(after, expected, "{mode:?}");
        }
        // The other way too.
        b.send(&sent[..50]);
        a.receive(50);
        assert_eq!((sum(&run, 0, |q| q.rx_frames), sum(&run, 1, |q| q.tx_frames)), (200, 200));
        assert_eq!((sum(&run, 0, |q| q.tx_bytes), sum(&run, 0, |q| q.unsent)), (50 * 96, 0));
        drop((a, b));
        end(run, 250, 250);
    }
}

#[test]
fn one_port_alone_sends_back() {
    let run = Run::start(&config(&["memory:alone"])).unwrap();
    run.forward(Rewrite::MacSwap).unwrap();
    let mut end_of_wire = End::open("memory:alone");
    let sent = frames(&Template::default(), 10);
    end_of_wire.send(&sent);
    let back = end_of_wire.receive(10);
    assert_eq!((&back[9][..6], &back[9][6..12]), (&sent[9][6..12], &sent[9][..6]));
    drop(end_of_wire);
    end(run, 10, 10);
}

#[test]
fn what_the_device_does_not_take_is_unsent_and_nothing_leaks() {
    // Nobody empties the second wire, whose ring has room for 64.
    let run = Run::start(&config(&["memory:full-a", "memory:full-b,ring=64"])).unwrap();
    run.forward(Rewrite::Io).unwrap();
    let (mut a, b) = (End::open("memory:full-a"), End::open("memory:full-b"));
    a.send(&frames(&Template::default(), 300));
    let deadline = Instant::now() + PATIENCE;
    while sum(&run, 1, |q| q.tx_frames + q.unsent) < 300 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let (sent, unsent) = (sum(&run, 1, |q| q.tx_frames), sum(&run, 1, |q| q.unsent));
    assert_eq!((sent, unsent), (64, 236));
    drop((a, b));
    end(run, 300, 64);
}

#[test]
fn rxonly_counts_what_comes() {
    let run = Run::start(&config(&["memory:rxonly"])).unwrap();
    run.receive().unwrap();
    let mut a = End::open("memory:rxonly");
    a.send(&frames(&Template { sizes: "imix".parse().unwrap(), ..Template::default() }, 120));
    let deadline = Instant::now() + PATIENCE;
    while sum(&run, 0, |q| q.rx_frames) < 120 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let seen = run.snapshot();
    let queue = &seen.ports[0].queues[0];
    assert_eq!((queue.rx_frames, queue.rx_bytes), (120, 10 * (4342 - 12 * 4)));
    assert_eq!(queue.rx_bursts.iter().zip(0..).skip(1).map(|(n, frames)| n * frames).sum::<u64>(), 120);
    assert!(queue.rx_bursts[0] > 0 && queue.busy_cycles > 0);
    drop(a);
    end(run, 120, 0);
}

fn load(template: Template, rate: &str, frames: Option<u64>) -> Load {
    Load { template, peer: None, rate: rate.parse().unwrap(), duration: None, frames, one_way: true }
}

#[test]
fn txonly_sends_numbered_frames_as_the_template_says() {
    let mut run = Run::start(&config(&["memory:txonly"])).unwrap();
    let mut a = End::open("memory:txonly");
    let template = Template {
        source: "random:10.0.0.0/8".parse().unwrap(),
        source_ports: "1024-1027".parse().unwrap(),
        vlans: vec![5],
        sizes: "68-1518".parse().unwrap(),
        ..Template::default()
    };
    run.send(&load(template.clone(), "100kpps", Some(500))).unwrap();
    let frames = a.receive(500);
    assert!(run.wait_over(PATIENCE));
    let mut pool = PoolConfig::new("judge", 16).build().unwrap().claim();
    let marks: Vec<Mark> = frames
        .iter()
        .map(|bytes| match judge(&pool.copy_from(bytes).unwrap(), template.mark_offset()) {
            Judgement::Whole(mark) => mark,
            other => panic!("{other:?}: {bytes:02x?}"),
        })
        .collect();
    assert!(marks.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1));
    assert!(frames.iter().zip(0..).all(|(frame, i)| frame[38..40] == (1024 + i % 4u16).to_be_bytes()));
    // To the port at its other end, which is its own: nobody else is known.
    assert!(frames.iter().all(|frame| frame[6..12] == run.ports()[0].mac.0 && frame[0] & 1 == 0));
    assert_ne!(a.mac, run.ports()[0].mac);
    drop(a);
    end(run, 0, 0);
}

#[test]
fn pings_are_answered() {
    let run = Run::start(&config(&["memory:icmp"])).unwrap();
    run.answer(&["192.0.2.1".parse().unwrap()]).unwrap();
    let mut a = End::open("memory:icmp");
    let mut request =
        [&[0xff; 6], &a.mac.0, &[8, 6, 0, 1, 8, 0][..], &[6, 4, 0, 1], &a.mac.0, &[192, 0, 2, 2]].concat();
    request.extend([0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
    let mut for_another = request.clone();
    for_another[41] = 9;
    a.send(&[for_another, request]);
    let reply = a.receive(1).remove(0);
    assert_eq!(
        (&reply[..6], &reply[6..12], &reply[20..22]),
        (&a.mac.0[..], &run.ports()[0].mac.0[..], &[0, 2][..])
    );
    assert_eq!((&reply[22..28], &reply[28..32]), (&run.ports()[0].mac.0[..], &[192, 0, 2, 1][..]));
    drop(a);
    end(run, 2, 1);
}

#[test]
fn generated_frames_all_come_back_both_ways_over_two_cores() {
    let cpu = core_affinity::get_core_ids().unwrap()[0].id;
    // Two cores that share a polling thread, each with a queue of either end.
    let mut run =
        Run::start(&RunConfig { cpus: vec![cpu, cpu], ..config(&["memory:gen", "memory:gen"]) }).unwrap();
    let template = Template { sizes: "imix".parse().unwrap(), ..Template::default() };
    for round in 1..=2 {
        run.generate(&Load { one_way: false, ..load(template.clone(), "50kpps", Some(3001)) }).unwrap();
        assert!(run.wait_over(PATIENCE) && run.wait_arrived(PATIENCE));
        let seen = run.snapshot();
        // Counted anew each time.
        assert_eq!((seen.marked.sent, seen.marked.received, seen.marked.missing), (6002, 6002, 0));
        let marked = seen.marked;
        assert_eq!((marked.duplicates, marked.reordered, marked.corrupted, marked.foreign), (0, 0, 0, 0));
        assert_eq!(seen.latency.len(), 6002);
        assert!(seen.latency.max() < PATIENCE.as_nanos() as u64, "{} ns", seen.latency.max());
        let per_queue: Vec<u64> =
            seen.ports.iter().flat_map(|port| &port.queues).map(|queue| queue.tx_frames).collect();
        assert_eq!(per_queue, [1501 * round, 1500 * round, 1501 * round, 1500 * round]);
    }
    end(run, 12_004, 0);
}

#[test]
fn a_stopped_run_sends_no_more() {
    let mut run = Run::start(&config(&["memory:stop", "memory:stop"])).unwrap();
    run.generate(&load(Template::default(), "max", None)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while run.snapshot().marked.received < 1000 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    run.stop();
    assert!(run.wait_over(PATIENCE) && run.wait_arrived(PATIENCE));
    let sent = run.snapshot().marked.sent;
    assert!(sent >= 1000);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(run.snapshot().marked.sent, sent);
    assert!(run.shutdown().leaks().is_empty());
}

#[test]
fn a_capture_is_sent_as_often_as_asked_in_its_order() {
    let recorded = frames(&Template { sizes: "64-1518".parse().unwrap(), ..Template::default() }, 40);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("replayed.pcap");
    let mut writer = pcap_file::pcap::PcapWriter::new(std::fs::File::create(&path).unwrap()).unwrap();
    for (i, frame) in recorded.iter().enumerate() {
        let at = Duration::from_micros(50 * i as u64);
        writer.write_packet(&pcap_file::pcap::PcapPacket::new(at, frame.len() as u32, frame)).unwrap();
    }
    drop(writer);
    let capture = Arc::new(Capture::read(&path).unwrap());
    let run = Run::start(&config(&["memory:replay"])).unwrap();
    let mut a = End::open("memory:replay");
    run.replay(&capture, None, 3).unwrap();
    let sent = a.receive(120);
    assert!(sent.chunks(40).all(|round| round == recorded));
    run.replay(&capture, Some("max".parse().unwrap()), 1).unwrap();
    assert_eq!(a.receive(40), recorded);
    assert!(run.wait_over(PATIENCE));
    drop(a);
    end(run, 0, 0);
}

#[test]
fn what_cannot_be_is_said_before_anything_is_sent() {
    let mut run = Run::start(&config(&["memory:refused"])).unwrap();
    let error = run.send(&load(Template::default(), "50%", None)).unwrap_err();
    assert!(error.to_string().contains("has no speed") && error.is_usage(), "{error}");
    let large = Template { sizes: "9000".parse().unwrap(), ..Template::default() };
    let error = run.send(&load(large, "1kpps", None)).unwrap_err();
    assert!(error.to_string().contains("MTU of 1500 takes 1518") && error.is_usage(), "{error}");
    assert!(!run.sends());
    assert!(Run::start(&config(&["nonsense:x"])).err().unwrap().is_usage());
    end(run, 0, 0);
}
