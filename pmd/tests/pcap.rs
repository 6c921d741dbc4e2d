//! Recording and replaying capture files.

mod suite;

use std::path::PathBuf;
use std::time::Duration;

use pmd::{Burst, Checksum, Instant, OpenOptions, Pool, Queue};

/// A file name of this test's own, removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Temporary {
        Temporary(std::env::temp_dir().join(format!("rxline-pcap-{}-{name}", std::process::id())))
    }

    fn url(&self, form: &str) -> String {
        form.replace("FILE", self.0.to_str().unwrap())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn open(url: &str, pool: &Pool) -> Box<dyn Queue> {
    let mut port = pmd::open(url, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    port.open_queues(&[pool.handle()]).unwrap().pop().unwrap()
}

fn at(micros: u64) -> Instant {
    Instant::from_nanos(7_000_000_000 + micros * 1000)
}

fn poll(queue: &mut dyn Queue, now: Instant, pool: &mut Pool) -> Vec<Vec<u8>> {
    let mut burst = Burst::new();
    queue.rx_burst(now, pool, &mut burst);
    burst.iter().map(|mbuf| mbuf.segments().flatten().copied().collect()).collect()
}

fn record(file: &Temporary, frames: &[(u64, Vec<u8>)], pool: &mut Pool) {
    let mut queue = open(&file.url("pcap:tx=FILE"), pool);
    for (micros, bytes) in frames {
        let mut burst: Burst = pool.copy_from(bytes).into_iter().collect();
        queue.tx_burst(at(*micros), &mut burst);
    }
    assert_eq!(queue.stats().tx_frames, frames.len() as u64);
}

#[test]
fn the_suite_for_one_port_alone() {
    let file = Temporary::new("suite");
    suite::run_one_sided(&file.url("pcap:tx=FILE"));
}

#[test]
fn what_was_recorded_is_replayed_at_its_pace() {
    let (file, mut pool) = (Temporary::new("pace"), suite::pool(64));
    let frames = [(0, vec![1; 60]), (250, vec![2; 1500]), (250, vec![3; 61]), (1000, vec![4; 62])];
    record(&file, &frames, &mut pool);
    let mut replay = open(&file.url("pcap:rx=FILE"), &pool);
    // The first poll begins the replay, whenever that is.
    let start = Instant::from_nanos(99);
    assert_eq!(poll(&mut *replay, start, &mut pool), [vec![1; 60]]);
    assert_eq!(replay.next_event(), Some(start + Duration::from_micros(250)));
    assert!(poll(&mut *replay, start + Duration::from_micros(249), &mut pool).is_empty());
    assert_eq!(
        poll(&mut *replay, start + Duration::from_micros(250), &mut pool),
        [vec![2; 1500], vec![3; 61]]
    );
    assert_eq!(poll(&mut *replay, Instant::FAR_FUTURE, &mut pool), [vec![4; 62]]);
    assert!(poll(&mut *replay, Instant::FAR_FUTURE, &mut pool).is_empty());
    assert_eq!((replay.next_event(), replay.stats().rx_frames, replay.stats().rx_bytes), (None, 4, 1683));
    assert_eq!(pool.available(), 64);
}

#[test]
fn at_full_pace_a_file_larger_than_the_pool_comes_whole() {
    let (file, mut pool) = (Temporary::new("max"), suite::pool(40));
    let frames: Vec<_> =
        (0..5000u32).map(|i| (u64::from(i) * 1000, [i.to_be_bytes(); 30].concat())).collect();
    record(&file, &frames, &mut pool);
    let mut replay = open(&file.url("pcap:rx=FILE,pace=max"), &pool);
    let mut got = Vec::new();
    // With one buffer left, one frame comes at a time; the others wait in the file.
    let mut held: Vec<_> = (0..39).filter_map(|_| pool.alloc()).collect();
    got.extend(poll(&mut *replay, at(0), &mut pool));
    assert_eq!(got.len(), 1);
    held.clear();
    while got.len() < 5000 {
        let more = poll(&mut *replay, at(0), &mut pool);
        assert!(!more.is_empty(), "{} frames", got.len());
        got.extend(more);
    }
    assert!(got.iter().zip(&frames).all(|(got, (_, sent))| got == sent));
}

#[test]
fn long_and_segmented_frames_are_recorded_whole() {
    let (file, mut pool) = (Temporary::new("long"), suite::pool(64));
    let options = OpenOptions { mtu: Some(9000), ..OpenOptions::default() };
    let mut queue = pmd::open(&file.url("pcap:tx=FILE"), &options)
        .unwrap()
        .open_queues(&[pool.handle()])
        .unwrap()
        .pop()
        .unwrap();
    let bytes: Vec<u8> = (0..9000).map(|i| (i * 3) as u8).collect();
    let mut burst: Burst = pool.copy_from(&bytes).into_iter().collect();
    queue.tx_burst(at(0), &mut burst);
    drop(queue);
    assert_eq!(poll(&mut *open(&file.url("pcap:rx=FILE"), &pool), at(0), &mut pool), [bytes]);
}

#[test]
fn unfinished_checksums_are_filled_in() {
    let (file, mut pool) = (Temporary::new("sum"), suite::pool(8));
    let mut source = open("null:rx=64", &pool);
    let mut burst = Burst::new();
    source.rx_burst(at(0), &mut pool, &mut burst);
    burst.truncate(1);
    burst[0].meta_mut().checksum = Checksum::Partial;
    open(&file.url("pcap:tx=FILE"), &pool).tx_burst(at(0), &mut burst);
    let frames = poll(&mut *open(&file.url("pcap:rx=FILE"), &pool), at(0), &mut pool);
    assert_ne!(frames[0][40..42], [0, 0], "null leaves it out");
}

#[test]
fn bad_files_end_by_name_and_truncated_frames_are_skipped() {
    let (file, mut pool) = (Temporary::new("bad"), suite::pool(8));
    record(&file, &[(0, vec![1; 60]), (1, vec![2; 60])], &mut pool);
    let whole = std::fs::read(&file.0).unwrap();
    // Cut in the middle of the second frame.
    std::fs::write(&file.0, &whole[..whole.len() - 5]).unwrap();
    let mut queue = open(&file.url("pcap:rx=FILE"), &pool);
    assert_eq!(poll(&mut *queue, Instant::FAR_FUTURE, &mut pool).len(), 1);
    assert_eq!(queue.stats().drops.get("rx_bad_file"), 1);
    // The first frame was longer on the wire than in the file.
    let mut short = whole.clone();
    short[24 + 12] = 90;
    std::fs::write(&file.0, &short).unwrap();
    let mut queue = open(&file.url("pcap:rx=FILE"), &pool);
    assert_eq!(poll(&mut *queue, Instant::FAR_FUTURE, &mut pool), [vec![2; 60]], "the next one is whole");
    assert_eq!(queue.stats().drops.get("rx_truncated_in_file"), 1);

    let error = |url: &str| pmd::open(url, &OpenOptions::default()).err().expect(url).to_string();
    std::fs::write(&file.0, b"no capture at all, only text").unwrap();
    assert!(error(&file.url("pcap:rx=FILE")).starts_with("reading capture"));
    assert!(error("pcap:rx=/nowhere/x").contains("No such file"));
    assert!(error("pcap:").contains("there is no file"));
    assert!(error("pcap:tx=/tmp,pace=fast").contains("pace=max"));
}
