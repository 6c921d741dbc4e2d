//! The seeded wire in virtual time: what it does follows from the seed, the frames and `now`, and everything is counted.

use pmd::{Burst, Instant, OpenOptions, Pool, PoolConfig, Queue, QueueStats};

struct Rig {
    sim: Box<dyn Queue>,
    far: Box<dyn Queue>,
    pool: Pool,
}

const FRAMES: usize = 20_000;

impl Rig {
    fn new(name: &str, options: &str) -> Rig {
        let pool = PoolConfig::new("sim", 4096).build().unwrap().claim();
        let open = |url: &str| {
            let mut port = pmd::open(url, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"));
            port.open_queues(&[pool.handle()]).unwrap().pop().unwrap()
        };
        let sim = open(&format!("sim:{options}@memory:{name}"));
        let far = open(&format!("memory:{name}"));
        Rig { sim, far, pool }
    }

    fn send(&mut self, now: u64, number: u32) {
        let mut frame = [2; 64];
        frame[14..18].copy_from_slice(&number.to_be_bytes());
        let mut burst: Burst = self.pool.copy_from(&frame).into_iter().collect();
        assert_eq!(self.sim.tx_burst(Instant::from_nanos(now), &mut burst), 1);
    }

    /// What the far side has got by `now`.
    fn arrived(&mut self, now: u64) -> Vec<u32> {
        let mut all = Vec::new();
        loop {
            let mut burst = Burst::new();
            // Polling also moves what is due.
            self.sim.rx_burst(Instant::from_nanos(now), &mut self.pool, &mut burst);
            if self.far.rx_burst(Instant::from_nanos(now), &mut self.pool, &mut burst) == 0 {
                return all;
            }
            all.extend(burst.iter().map(|mbuf| u32::from_be_bytes(mbuf.data()[14..18].try_into().unwrap())));
        }
    }

    /// Sends `FRAMES` frames a microsecond apart and collects all that arrives.
    fn stream(&mut self) -> Vec<u32> {
        let mut arrived = self.arrived(0);
        for number in 0..FRAMES as u32 {
            let now = u64::from(number) * 1000;
            self.send(now, number);
            arrived.extend(self.arrived(now));
        }
        arrived.extend(self.arrived(60_000_000_000));
        arrived
    }
}

fn duplicates(arrived: &[u32]) -> usize {
    let mut sorted = arrived.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).filter(|pair| pair[0] == pair[1]).count()
}

fn drop_count(stats: &QueueStats, name: &str) -> usize {
    stats.drops.get(name) as usize
}

#[test]
fn probabilities_come_true_and_every_frame_is_accounted_for() {
    let mut rig = Rig::new("odds", "seed=7,loss=0.02,dup=0.01,reorder=0.05,hold=20us");
    let arrived = rig.stream();
    let (lost, twice) = (drop_count(&rig.sim.stats(), "sim_tx_lost"), duplicates(&arrived));
    assert_eq!(arrived.len(), FRAMES - lost + twice);
    let late = arrived.windows(2).filter(|pair| pair[0] > pair[1]).count();
    // Three standard deviations of a binomial, at most 0.5 %.
    for (what, count, expected) in [("lost", lost, 0.02), ("twice", twice, 0.01), ("late", late, 0.05)] {
        let rate = count as f64 / FRAMES as f64;
        assert!((rate - expected).abs() < 0.005, "{what}: {rate} instead of {expected}");
    }
    drop((rig.sim, rig.far));
    assert_eq!(rig.pool.available(), 4096);
}

#[test]
fn the_same_seed_does_the_same_and_another_does_not() {
    let options = "loss=0.1,dup=0.1,reorder=0.1,jitter=50us";
    let run = |seed: u64| Rig::new(&format!("seed{seed}"), &format!("seed={seed},{options}")).stream();
    let first = run(5);
    assert_eq!(first, run(5));
    assert_ne!(first, run(6));
}

#[test]
fn one_option_does_not_shift_another() {
    let lost = |options: &str| {
        let mut arrived = Rig::new("shift", options).stream();
        arrived.sort_unstable();
        arrived.dedup();
        arrived
    };
    assert_eq!(lost("seed=9,loss=0.1"), lost("seed=9,loss=0.1,dup=0.2,reorder=0.1,jitter=10us,corrupt=0"));
}

#[test]
fn delay_is_exact_and_next_event_tells_it() {
    let mut rig = Rig::new("delay", "delay=1ms");
    assert_eq!(rig.sim.next_event(), None);
    rig.send(5_000, 1);
    assert_eq!(rig.sim.next_event(), Some(Instant::from_nanos(1_005_000)));
    assert_eq!(rig.arrived(1_004_999), []);
    assert_eq!(rig.arrived(1_005_000), [1]);
    assert_eq!(rig.sim.next_event(), None);
}

#[test]
fn frames_that_find_the_port_inside_full_wait_and_are_not_lost() {
    let mut rig = Rig::new("full,ring=32", "limit=100");
    for number in 0..50 {
        rig.send(0, number);
    }
    assert_eq!(rig.sim.next_event(), Some(Instant::ZERO), "it wants to be polled");
    assert_eq!(rig.arrived(0), (0..50).collect::<Vec<u32>>());
    assert_eq!(rig.sim.next_event(), None);
}

#[test]
fn jitter_keeps_the_order_and_its_bound() {
    let mut rig = Rig::new("jitter", "delay=1ms,jitter=1ms");
    for number in 0..100 {
        rig.send(0, number);
    }
    let early = rig.arrived(1_500_000).len();
    let all = rig.arrived(2_000_000).len() + early;
    assert_eq!(all, 100);
    let mut rig = Rig::new("jitter2", "jitter=1ms");
    let arrived = rig.stream();
    assert!(arrived.is_sorted() && arrived.len() == FRAMES);
}

#[test]
fn the_rate_spaces_frames_and_the_limit_drops_by_name() {
    // 64 bytes at 1 Mbit/s take 512 us.
    let mut rig = Rig::new("rate", "rate=1Mbit,limit=10");
    for number in 0..15 {
        rig.send(0, number);
    }
    assert_eq!(drop_count(&rig.sim.stats(), "sim_tx_queue_full"), 5);
    for turn in 1..=10u64 {
        assert_eq!(rig.arrived(turn * 512_000 - 1_000), []);
        assert_eq!(rig.arrived(turn * 512_000), [turn as u32 - 1]);
    }
    assert_eq!(rig.arrived(u64::MAX / 2), []);
}

#[test]
fn each_direction_has_its_own_options() {
    let mut rig = Rig::new("ways", "loss=1,tx.loss=0");
    rig.send(0, 1);
    assert_eq!(rig.arrived(0), [1]);
    let mut burst: Burst = rig.pool.copy_from(&[2; 64]).into_iter().collect();
    rig.far.tx_burst(Instant::ZERO, &mut burst);
    assert_eq!(rig.sim.rx_burst(Instant::ZERO, &mut rig.pool, &mut burst), 0);
    assert_eq!(drop_count(&rig.sim.stats(), "sim_rx_lost"), 1);
}

#[test]
fn corruption_flips_one_bit_behind_the_ethernet_header() {
    let mut rig = Rig::new("bits", "corrupt=1");
    let bytes: Vec<u8> = (0..4000).map(|i| i as u8).collect();
    for cut in [15, 64, 1500] {
        let mut burst: Burst = rig.pool.copy_from(&bytes[..cut]).into_iter().collect();
        rig.sim.tx_burst(Instant::ZERO, &mut burst);
        rig.far.rx_burst(Instant::ZERO, &mut rig.pool, &mut burst);
        let got: Vec<u8> = burst[0].segments().flatten().copied().collect();
        let flipped: u32 = got.iter().zip(&bytes).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!((got.len(), flipped), (cut, 1));
        assert_eq!(got[..14], bytes[..14]);
    }
}

#[test]
fn long_frames_are_duplicated_whole() {
    let mut rig = Rig::new("long,mtu=9000", "dup=1");
    let bytes: Vec<u8> = (0..8000).map(|i| (i / 3) as u8).collect();
    rig.arrived(0);
    let mut burst: Burst = rig.pool.copy_from(&bytes).into_iter().collect();
    rig.sim.tx_burst(Instant::ZERO, &mut burst);
    assert_eq!(rig.far.rx_burst(Instant::ZERO, &mut rig.pool, &mut burst), 2);
    for mbuf in &burst {
        assert!(mbuf.segments().flatten().eq(&bytes));
    }
}

#[test]
fn bad_options_are_named() {
    for (url, want) in [
        ("sim:loss=2@null:", "write a probability"),
        ("sim:loss=0.1", "sim:seed=7,loss=0.02@memory:a"),
        ("sim:speed=1@null:", "it takes seed, loss"),
        ("sim:@nowhere:", "names no driver"),
    ] {
        let error = pmd::open(url, &OpenOptions::default()).err().expect(url).to_string();
        assert!(error.contains(want), "{error}");
    }
}
