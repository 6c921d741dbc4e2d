//! What a receiver counts, held against what a simulated wire did: in virtual time, frame by frame.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use linerate::counters::{MarkCounters, QueueCounters, histogram};
use linerate::figures::MarkedFigures;
use linerate::template::{Frames, Template};
use linerate::traffic::{Receiver, Sender};
use pmd::{Burst, Instant, OpenOptions, Pool, PoolConfig, Queue};

const FIRST: u64 = 1 << 20;

/// What was sent, what arrived, and what the wire says it did.
struct Outcome {
    marked: MarkedFigures,
    latency: Histogram<u64>,
    sent: Vec<Vec<u8>>,
    arrived: Vec<Vec<u8>>,
    lost: u64,
}

fn queue(url: &str, pool: &Pool) -> Box<dyn Queue> {
    pmd::open(url, &OpenOptions::default()).unwrap().open_queues(&[pool.handle()]).unwrap().remove(0)
}

fn bytes(frame: &pmd::Mbuf) -> Vec<u8> {
    frame.segments().flatten().copied().collect()
}

/// Sends for some virtual time at 200 kpps over a wire with these options, then waits for what is under way.
fn over(name: &str, options: &str, template: &Template, turns: u32) -> Outcome {
    let mut pool = PoolConfig::new(name, 8192).build().unwrap().claim();
    let mut near = queue(&format!("sim:seed=5,limit=4096,{options}@memory:{name}"), &pool);
    let mut far = queue(&format!("memory:{name}"), &pool);
    let (tx, rx) = (Arc::new(QueueCounters::default()), Arc::new(MarkCounters::default()));
    let start = Instant::from_nanos(1 << 39);
    let frames = Frames::new(template, 3, 0).unwrap();
    let mut sender = Sender::new(frames, "200kpps".parse().unwrap(), 0, FIRST, tx.clone(), start)
        .until(start + Duration::from_micros(20) * turns);
    let mut receiver = Receiver::new(template.mark_offset(), &[FIRST], rx.clone());
    let (mut sent, mut arrived, mut burst) = (Vec::new(), Vec::new(), Burst::new());
    for turn in 0..turns + 1000 {
        let now = start + Duration::from_micros(20) * turn;
        sender.fill(now, &mut pool, &mut burst);
        sent.extend(burst.iter().map(bytes));
        tx.sent(burst.len(), 0);
        near.tx_burst(now, &mut burst);
        assert!(burst.is_empty(), "a wire takes all");
        sender.settle(&mut burst);
        // Looking for what comes passes on what is due.
        near.rx_burst(now, &mut pool, &mut burst);
        assert!(burst.is_empty());
        far.rx_burst(now, &mut pool, &mut burst);
        arrived.extend(burst.iter().map(bytes));
        receiver.take(now, &mut burst);
    }
    assert!(sender.is_over());
    let (mut marked, mut latency) = (MarkedFigures::default(), histogram());
    rx.read(&mut marked, &mut latency);
    marked.sent = tx.sent_frames();
    marked.missing = marked.sent - marked.received - marked.corrupted;
    let drops = near.stats().drops;
    assert_eq!(drops.total(), drops.get("sim_tx_lost"), "nothing else was dropped: {drops:?}");
    Outcome { marked, latency, sent, arrived, lost: drops.get("sim_tx_lost") }
}

fn imix() -> Template {
    Template { sizes: "imix".parse().unwrap(), ..Template::default() }
}

/// The sequence number that lies in an undamaged frame.
fn number(frame: &[u8], template: &Template) -> u64 {
    let at = template.mark_offset() + 4;
    frame[at..at + 5].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[test]
fn a_clean_wire_with_a_delay() {
    let outcome = over("clean", "delay=700us", &imix(), 5000);
    assert_eq!(outcome.sent.len(), 20_000, "200 kpps for 100 ms, to the frame");
    assert_eq!(outcome.sent, outcome.arrived);
    assert_eq!(outcome.marked, MarkedFigures { sent: 20_000, received: 20_000, ..Default::default() });
    // A turn is 20 us: whatever is due within it arrives at its end.
    let (least, most) = (outcome.latency.min(), outcome.latency.max());
    assert!(
        (696_000..=704_000).contains(&least) && (696_000..=724_000).contains(&most),
        "{least} to {most} ns"
    );
}

#[test]
fn losses_are_those_of_the_wire() {
    for percent in [1, 10, 90] {
        let outcome =
            over(&format!("loss-{percent}"), &format!("loss={}", f64::from(percent) / 100.0), &imix(), 5000);
        assert!(outcome.lost > 0);
        let received = outcome.arrived.len() as u64;
        let expected = MarkedFigures { sent: 20_000, received, missing: outcome.lost, ..Default::default() };
        assert_eq!(outcome.marked, expected);
    }
}

#[test]
fn duplicates_are_those_of_the_wire() {
    let outcome = over("dup", "dup=0.05", &imix(), 5000);
    let duplicates = outcome.arrived.len() as u64 - 20_000;
    assert!(duplicates > 500);
    assert_eq!(
        outcome.marked,
        MarkedFigures { sent: 20_000, received: 20_000, duplicates, ..Default::default() }
    );
}

#[test]
fn reordered_are_those_that_came_after_a_later_one() {
    let template = imix();
    let outcome = over("reorder", "reorder=0.02,hold=300us", &template, 5000);
    let (mut highest, mut reordered) = (0, 0);
    for number in outcome.arrived.iter().map(|frame| number(frame, &template)) {
        reordered += u64::from(number < highest);
        highest = highest.max(number);
    }
    assert!(reordered > 200);
    assert_eq!(
        outcome.marked,
        MarkedFigures { sent: 20_000, received: 20_000, reordered, ..Default::default() }
    );
}

/// The wire damages any bit behind the Ethernet header: of IP's header, UDP's, the mark or the pattern. Of a tag no receiver knows what it should
/// be, since switches change them.
#[test]
fn corrupted_are_those_that_are_not_what_was_sent() {
    let tagged = Template { vlans: vec![7], sizes: "68-300".parse().unwrap(), ..Template::default() };
    for (name, template, tag) in [("corrupt", imix(), 14..14), ("corrupt-tagged", tagged, 14..16)] {
        let outcome = over(name, "corrupt=0.1", &template, 5000);
        assert_eq!(outcome.arrived.len(), 20_000);
        let differ = outcome.sent.iter().zip(outcome.arrived).filter(|(sent, arrived)| {
            let mut arrived = arrived.clone();
            arrived[tag.clone()].copy_from_slice(&sent[tag.clone()]);
            **sent != arrived
        });
        let corrupted = differ.count() as u64;
        assert!(corrupted > 1500);
        let received = 20_000 - corrupted;
        assert_eq!(
            outcome.marked,
            MarkedFigures { sent: 20_000, received, corrupted, ..Default::default() },
            "{name}"
        );
    }
}

#[test]
fn everything_at_once_still_adds_up() {
    let template = imix();
    let outcome = over(
        "all",
        "loss=0.03,dup=0.03,reorder=0.02,corrupt=0.02,jitter=40us,delay=100us",
        &template,
        10_000,
    );
    let marked = outcome.marked;
    assert_eq!(marked.sent, 40_000);
    let judged = marked.received + marked.duplicates + marked.corrupted + marked.late + marked.foreign;
    assert_eq!(judged, outcome.arrived.len() as u64, "each arrival is one thing: {marked:?}");
    assert_eq!((marked.late, marked.foreign), (0, 0));
    // What is missing and what the wire lost differ only by copies of damaged frames, of which each counts as damaged.
    let mut originals: VecDeque<_> = outcome.sent.iter().collect();
    let by_bytes: HashMap<&[u8], u64> =
        originals.drain(..).map(|frame| (&frame[..], number(frame, &template))).collect();
    let whole: HashSet<u64> =
        outcome.arrived.iter().filter_map(|frame| by_bytes.get(&frame[..]).copied()).collect();
    assert_eq!(marked.received, whole.len() as u64, "{marked:?}");
}
