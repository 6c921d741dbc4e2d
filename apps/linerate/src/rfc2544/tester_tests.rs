//! The tester in virtual time against `sim:` wires whose capacity, delay, loss and queue are known: it must find those within 2 %.

use super::super::{Limit, Options, Results, Test, Verdict, run};
use super::*;
use crate::line_rate;
use pmd::QueueStats;
use std::os::fd::BorrowedFd;

const LINE_RATE: u64 = 1_000_000_000;

/// A wire as told, with our ports at both ends.
fn wire(name: &str, options: &str, mtu: usize) -> (TestPort, TestPort) {
    let tx = TestPort::open(&format!("sim:{options}@memory:rfc2544-{name},mtu={mtu}")).unwrap();
    (tx, TestPort::open(&format!("memory:rfc2544-{name}")).unwrap())
}

fn options(tests: &[Test], frame: usize) -> Options {
    Options {
        frame_bytes: vec![frame],
        tests: tests.to_vec(),
        trial: Duration::from_millis(500),
        settle: Duration::from_millis(20),
        drain: Duration::from_millis(100),
        resolution: 0.002,
        latency_trials: 3,
        back_to_back_trials: 3,
        ..Options::new(LINE_RATE)
    }
}

fn tester((tx, rx): (TestPort, TestPort), options: &Options) -> PortTester<VirtualTime> {
    let time = VirtualTime::default();
    PortTester::new(time, tx, Some(rx), Template::default(), options, Arc::default())
}

fn results(ports: (TestPort, TestPort), options: &Options) -> Results {
    let (results, ended) = run(&mut tester(ports, options), options, &mut |_| {});
    ended.unwrap();
    results
}

#[track_caller]
fn near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= expected * 0.02, "{what}: {found}, not {expected} within 2 %");
}

/// Bits a second with which `sim:`, which counts a frame as it lies in its buffer, carries so many frames a second.
fn sim_rate(frames_per_second: f64, frame: usize) -> f64 {
    frames_per_second * ((frame - 4) * 8) as f64
}

#[test]
fn throughput_of_every_size() {
    for frame in super::super::FRAMES {
        // 100 Mbit/s of frames without FCS, preamble and gap, over a link of a gigabit.
        let capacity = 100e6 / ((frame - 4) * 8) as f64;
        // A queue of 16 frames lets a trial of 4000 pass 0.4 % more.
        let trial = Duration::from_secs_f64(4000.0 / capacity);
        let options = Options { trial, ..options(&[Test::Throughput], frame) };
        let wire = wire(&format!("throughput-{frame}"), "rate=100M,limit=16", 9000);
        let found = results(wire, &options);
        let ndr = &found.sizes[0].throughput[0];
        assert_eq!((ndr.limit, ndr.loss_percent), (Limit::Device, Some(0.0)));
        near(ndr.frames_per_second.unwrap(), capacity, &format!("{frame} bytes"));
        // With half a per cent of loss tolerated, half a per cent more.
        let pdr = found.sizes[0].throughput[1].frames_per_second.unwrap();
        near(pdr, capacity / 0.995, &format!("{frame} bytes, PDR"));
        assert!(pdr > ndr.frames_per_second.unwrap());
    }
}

#[test]
fn a_wire_that_always_loses_has_no_throughput_without_loss_but_one_with() {
    let frame = 512;
    let capacity = 400e6 / (508.0 * 8.0);
    let options = Options {
        tolerances: vec![0.0, 0.02],
        trial: Duration::from_millis(300),
        ..options(&[Test::Throughput], frame)
    };
    let found = results(wire("lossy", "rate=400M,limit=16,loss=0.01,seed=7", 1500), &options);
    let [ndr, pdr] = &found.sizes[0].throughput[..] else { panic!("two tolerances") };
    // A trial of few frames may pass by luck, far below what the wire carries.
    assert!(ndr.frames_per_second.is_none_or(|rate| rate < capacity * 0.05), "{ndr:?}");
    // What the wire loses anyway makes room in its queue: the sum is what is tolerated.
    near(pdr.frames_per_second.unwrap(), capacity / 0.98, "with 2 % tolerated");
}

#[test]
fn latency_is_delay_and_serialisation() {
    for (frame, delay_ms) in [(64, 5), (1518, 20)] {
        let trial = Duration::from_millis(100);
        let options = Options { trial, ..options(&[Test::Throughput, Test::Latency], frame) };
        // Carries more than the link, so that no queue adds to it; holds what is under way.
        let name = format!("latency-{frame}");
        let found = results(wire(&name, &format!("rate=2G,delay={delay_ms}ms,limit=15000"), 1500), &options);
        let size = &found.sizes[0];
        assert_eq!(size.throughput[0].limit, Limit::LineRate);
        let latency = size.latency.as_ref().unwrap();
        let expected = delay_ms as f64 * 1e6 + ((frame - 4) * 8) as f64 / 2.0;
        near(latency.tagged_mean_ns.unwrap(), expected, "the tagged frames");
        near(latency.all.mean_ns, expected, "all frames");
        for percentile in [
            latency.all.min_ns,
            latency.all.p50_ns,
            latency.all.p99_ns,
            latency.all.p99_9_ns,
            latency.all.max_ns,
        ] {
            near(percentile as f64, expected, "a percentile");
        }
        assert_eq!(latency.loss_percent, 0.0);
    }
}

#[test]
fn jitter_is_in_the_percentiles() {
    let options = Options { latency_load: 0.1, ..options(&[Test::Throughput, Test::Latency], 256) };
    // Evenly between 1 and 3 ms, but never before the frame ahead: the last ones are near the most.
    let found = results(wire("jitter", "delay=1ms,jitter=2ms,limit=15000", 1500), &options);
    let latency = found.sizes[0].latency.as_ref().unwrap();
    assert!(latency.all.min_ns >= 1_000_000 && latency.all.max_ns <= 3_010_000, "{latency:?}");
    near(latency.all.p99_9_ns as f64, 3e6, "the slowest");
}

#[test]
fn the_loss_curve_is_what_the_capacity_leaves() {
    let frame = 128;
    let capacity = line_rate::frames_per_second(LINE_RATE, frame) * 0.55;
    let wire_options = format!("rate={},limit=64", sim_rate(capacity, frame) as u64);
    let found = results(wire("curve", &wire_options, 1500), &options(&[Test::LossRate], frame));
    let curve = &found.sizes[0].loss_curve;
    let offered: Vec<f64> = curve.iter().map(|point| point.offered_percent.round()).collect();
    assert_eq!(offered, [100.0, 90.0, 80.0, 70.0, 60.0, 50.0, 40.0]);
    for point in curve {
        let expected = (100.0 - 5500.0 / point.offered_percent).max(0.0);
        near(point.loss_percent, expected, &format!("at {} %", point.offered_percent));
    }
}

#[test]
fn a_constant_loss_is_the_curve_at_every_rate() {
    let options =
        Options { loss_step: 0.25, trial: Duration::from_secs(4), ..options(&[Test::LossRate], 1024) };
    let found = results(wire("constant", "loss=0.1,seed=3", 1500), &options);
    let curve = &found.sizes[0].loss_curve;
    assert_eq!(curve.len(), 4);
    curve.iter().for_each(|point| near(point.loss_percent, 10.0, "loss"));
}

#[test]
fn back_to_back_is_what_queue_and_rate_imply() {
    let frame = 64;
    let line_rate = line_rate::frames_per_second(LINE_RATE, frame);
    for (part, queue) in [(0.5, 1000), (0.75, 300)] {
        let rate = sim_rate(line_rate * part, frame) as u64;
        let wire_options = format!("rate={rate},limit={queue}");
        let options = Options {
            trial: Duration::from_millis(250),
            burst_max: Duration::from_millis(20),
            ..options(&[Test::Throughput, Test::BackToBack], frame)
        };
        let found = results(wire(&format!("burst-{queue}"), &wire_options, 1500), &options);
        let burst = found.sizes[0].back_to_back.as_ref().unwrap();
        assert_eq!((burst.limit, burst.searches), (Limit::Device, 3));
        // While a burst comes in at line rate, the wire carries a part of it off.
        near(burst.frames.unwrap(), f64::from(queue) / (1.0 - part), "frames");
        near(burst.buffer_frames.unwrap(), f64::from(queue), "the buffer that RFC 9004 infers");
    }
}

#[test]
fn loss_duplicates_reordering_and_corruption_are_told_apart() {
    let options = options(&[], 200);
    let faults = "loss=0.02,dup=0.03,reorder=0.01,hold=200us,corrupt=0.05,seed=11";
    let mut tester = tester(wire("faults", faults, 1500), &options);
    let trial = Trial { frame: 200, rate: 100e3, frames: 100_000 };
    let figures = tester.trial(&trial).unwrap();
    let marked = &figures.marked;
    let part = |frames: u64| frames as f64 / 100_000.0;
    assert_eq!((marked.sent, figures.unsent, marked.foreign), (100_000, 0, 0));
    let close =
        |found: f64, expected: f64| assert!((found - expected).abs() < 0.003, "{found}, not {expected}");
    close(part(marked.missing), 0.02);
    close(part(marked.duplicates), 0.03);
    close(part(marked.reordered), 0.01);
    close(part(marked.corrupted), 0.05);
    close(figures.loss(), 0.07);
    // But for the copies of frames whose number was damaged: nobody can know these for duplicates.
    assert!(figures.drops.get("sim_tx_lost").abs_diff(marked.missing) < 30);
    // The next trial knows nothing of this one.
    let again = tester.trial(&Trial { frame: 200, rate: 100e3, frames: 1000 }).unwrap();
    assert!(again.marked.received <= 1000 && again.marked.sent == 1000);
}

/// A device that takes no more than so many frames in a second.
struct Slow {
    inner: Box<dyn Queue>,
    gap: Duration,
    free_at: Instant,
}

impl Queue for Slow {
    fn rx_burst(&mut self, now: Instant, pool: &mut Pool, burst: &mut Burst) -> usize {
        self.inner.rx_burst(now, pool, burst)
    }

    fn tx_burst(&mut self, now: Instant, burst: &mut Burst) -> usize {
        if now < self.free_at || burst.is_empty() {
            return 0;
        }
        self.free_at = now + self.gap;
        let mut one: Burst = burst.drain(..1).collect();
        self.inner.tx_burst(now, &mut one)
    }

    fn next_event(&self) -> Option<Instant> {
        self.inner.next_event()
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn stats(&self) -> QueueStats {
        self.inner.stats()
    }
}

#[test]
fn what_our_device_does_not_take_is_unsent_and_no_throughput_of_the_wire() {
    let frame = 1024;
    let (mut tx, rx) = wire("slow", "rate=10G,limit=1000", 1500);
    let gap = Duration::from_micros(100);
    tx.queue = Box::new(Slow { inner: tx.queue, gap, free_at: Instant::ZERO });
    let short = Duration::from_millis(200);
    let tests = [Test::Throughput, Test::LossRate, Test::BackToBack];
    let options = Options { trial: short, burst_max: short, ..options(&tests, frame) };
    let found = results((tx, rx), &options);
    let size = &found.sizes[0];
    let throughput = &size.throughput[0];
    assert_eq!((throughput.limit, throughput.loss_percent), (Limit::Generator, Some(0.0)));
    near(throughput.frames_per_second.unwrap(), 10e3, "what our device takes");
    assert_eq!(size.loss_curve[0].verdict, Verdict::NotOffered);
    assert_eq!(size.loss_curve[0].loss_percent, 0.0);
    near(size.loss_curve[0].sent_frames_per_second, 10e3, "what was sent");
    let burst = size.back_to_back.as_ref().unwrap();
    assert_eq!((burst.limit, burst.frames), (Limit::Generator, None));
    let first = &size.trials[0];
    assert_eq!(first.sent_frames + first.unsent_frames, first.offered_frames);
    assert!(first.unsent_frames > first.offered_frames / 2);
}

#[test]
fn what_cannot_be_tested_is_said_by_name() {
    let options = options(&[Test::Throughput], 9000);
    let mut small = tester(wire("small", "delay=0s", 1500), &options);
    let error = small.trial(&Trial { frame: 9000, rate: 1e3, frames: 10 }).unwrap_err().to_string();
    assert!(error.contains("takes frames of 1522 bytes at most") && error.contains("8982"), "{error}");
    let (tx, rx) = wire("alone", "delay=0s", 1500);
    drop(rx);
    let mut alone =
        PortTester::new(VirtualTime::default(), tx, None, Template::default(), &options, Arc::default());
    let error = alone.trial(&Trial { frame: 64, rate: 1e3, frames: 10 }).unwrap_err();
    assert!(matches!(error, TestError::LinkDown { .. }), "{error}");
    let mut stopped = tester(wire("stopped", "delay=0s", 1500), &options);
    stopped.watch.stop().store(true, Ordering::Relaxed);
    let error = stopped.trial(&Trial { frame: 64, rate: 1e3, frames: 10 }).unwrap_err();
    assert!(matches!(error, TestError::Stopped));
}

/// By the machine's clock nothing is promised of rates; but what was sent arrives, and nothing else is made of it.
#[test]
fn the_same_loop_runs_by_the_machines_clock() {
    let options = Options { settle: Duration::ZERO, ..options(&[], 64) };
    let tx = TestPort::open("memory:rfc2544-real").unwrap();
    let rx = TestPort::open("memory:rfc2544-real").unwrap();
    let watch = Arc::new(Watch::default());
    let mut tester = PortTester::new(MachineTime, tx, Some(rx), Template::default(), &options, watch.clone());
    let figures = tester.trial(&Trial { frame: 64, rate: 10e3, frames: 500 }).unwrap();
    let marked = &figures.marked;
    assert_eq!((marked.received, marked.missing, marked.duplicates), (marked.sent, 0, 0));
    assert_eq!(marked.sent + figures.unsent, 500);
    assert!(marked.sent > 0 && figures.latency.len() == marked.received);
    let (number, seen) = watch.look(Clock::now(), &[]).unwrap();
    assert_eq!((number, seen.latency.len(), seen.marked.received), (1, marked.received, marked.received));
}
