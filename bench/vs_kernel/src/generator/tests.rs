//! The generator in virtual time. `SEED=... cargo test -p vs_kernel generator` repeats a run.

use super::*;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn seed() -> u64 {
    let seed =
        std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed} cargo test -p vs_kernel generator");
    seed
}

fn plan(mode: Mode, in_flight: usize) -> Plan {
    Plan {
        mode,
        in_flight,
        warm_up: ms(100),
        measure: ms(1000),
        patience: Some(ms(5000)),
        connect: ms(1000),
        seed: seed(),
    }
}

/// A server that takes `service` for each request, one after the other, and stands still in between.
struct Server {
    service: Duration,
    stalls: (Instant, Instant),
    free_at: Instant,
    ends: std::collections::VecDeque<(Instant, Ticket)>,
}

impl Server {
    fn new(service: Duration) -> Server {
        let never = (Instant::FAR_FUTURE, Instant::FAR_FUTURE);
        Server { service, stalls: never, free_at: Instant::ZERO, ends: Default::default() }
    }

    fn take(&mut self, now: Instant, ticket: Ticket) {
        let mut begin = self.free_at.max(now);
        if (self.stalls.0..self.stalls.1).contains(&begin) {
            begin = self.stalls.1;
        }
        self.free_at = begin + self.service;
        self.ends.push_back((self.free_at, ticket));
    }
}

/// Runs in steps of so long.
fn run(plan: Plan, server: &mut Server, step: Duration) -> Tally {
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut generator = Generator::new(plan, now);
    for _ in 0..100_000_000u64 {
        while server.ends.front().is_some_and(|(at, _)| *at <= now) {
            let (_, ticket) = server.ends.pop_front().unwrap();
            generator.answered(now, ticket, 64);
        }
        generator.turn(now);
        while let Some(ticket) = generator.next(now) {
            server.take(now, ticket);
        }
        if generator.phase() == Phase::Over {
            return generator.into_tally();
        }
        now += step;
    }
    panic!("it never ends");
}

fn us(tally: &Tally, quantile: f64) -> f64 {
    tally.latency_ns.value_at_quantile(quantile) as f64 / 1e3
}

#[test]
fn an_open_loop_offers_its_rate_and_sees_the_servers_time() {
    let tally = run(
        plan(Mode::Open { rate: 10_000.0 }, 1024),
        &mut Server::new(Duration::from_micros(2)),
        ms(1) / 500,
    );
    // Poisson: the standard deviation of 10,000 is 100.
    assert!((9_500..10_500).contains(&tally.calls), "{}", tally.calls);
    assert!((1.9..8.0).contains(&us(&tally, 0.5)), "{} us", us(&tally, 0.5));
    assert_eq!((tally.unsent, tally.lost, tally.errors), (0, 0, 0));
    assert_eq!(tally.bytes, 64 * tally.calls);
}

#[test]
fn gaps_between_requests_are_exponential() {
    let begun = Instant::ZERO;
    let mut poisson = Poisson::new(begun, 1e6, seed());
    let (mut last, mut gaps) = (begun, Vec::new());
    for _ in 0..100_000 {
        let due = poisson.due().unwrap();
        gaps.push((due - last).as_nanos() as f64);
        last = due;
        poisson.advance();
    }
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    assert!((980.0..1020.0).contains(&mean), "mean {mean} ns of 1000");
    // Of an exponential distribution 1/e of all gaps are longer than the mean.
    let longer = gaps.iter().filter(|gap| **gap > 1000.0).count() as f64 / gaps.len() as f64;
    assert!((0.355..0.381).contains(&longer), "{longer} of 0.368");
}

/// Coordinated omission: a generator that waits with its requests while the server stands still would see one slow request of thousands.
#[test]
fn a_server_that_stalls_shows_in_the_percentiles() {
    for in_flight in [4, 65_536] {
        let mut server = Server::new(Duration::from_nanos(500));
        let from = Instant::from_nanos(1_500_000_000);
        server.stalls = (from, from + ms(200));
        let tally =
            run(plan(Mode::Open { rate: 20_000.0 }, in_flight), &mut server, Duration::from_micros(5));
        // A fifth of the measured second's requests fall into the stall and wait from 200 ms down to nothing: above the 95th percentile
        // of all are those that wait 150 ms and longer.
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|quantile| us(&tally, quantile) / 1e3);
        assert!(p50 < 1.0, "in_flight {in_flight}: p50 {p50} ms");
        assert!((130.0..165.0).contains(&p95), "in_flight {in_flight}: p95 {p95} ms of 150");
        assert!((180.0..201.0).contains(&p99), "in_flight {in_flight}: p99 {p99} ms of 190");
        assert_eq!((tally.unsent, tally.lost, tally.errors), (0, 0, 0));
    }
}

#[test]
fn a_server_that_dies_leaves_no_request_uncounted() {
    let mut server = Server::new(Duration::from_nanos(500));
    let half = Instant::from_nanos(1_600_000_000);
    server.stalls = (half, Instant::FAR_FUTURE);
    let plan = Plan { patience: Some(ms(100)), ..plan(Mode::Open { rate: 10_000.0 }, 64) };
    let tally = run(plan, &mut server, Duration::from_micros(10));
    let all = tally.latency_ns.len();
    assert!((9_500..10_500).contains(&all), "{all} requests were due");
    assert!(tally.lost >= 64 && tally.unsent > 3_000, "lost {}, unsent {}", tally.lost, tally.unsent);
    // An answer at an edge of the measured time may belong to a request beyond it.
    assert!(all.abs_diff(tally.calls + tally.lost + tally.unsent) <= 2, "{} calls of {all}", tally.calls);
    assert!(us(&tally, 0.9) >= 100e3, "p90 {} us", us(&tally, 0.9));
}

#[test]
fn an_overloaded_server_gives_its_rate_and_the_rest_is_unsent() {
    let tally = run(
        plan(Mode::Open { rate: 20_000.0 }, 16),
        &mut Server::new(Duration::from_micros(100)),
        Duration::from_micros(10),
    );
    assert!((9_900..10_100).contains(&tally.calls), "{}", tally.calls);
    assert!((9_000..12_000).contains(&tally.unsent), "{}", tally.unsent);
    assert!(us(&tally, 0.99) > 400e3, "p99 {} us: the queue grew all the time", us(&tally, 0.99));
}

#[test]
fn a_closed_loop_keeps_so_many_in_flight() {
    for (in_flight, calls) in [(1, 10_000), (8, 10_000)] {
        let mut server = Server::new(Duration::from_micros(100));
        let tally = run(plan(Mode::Closed, in_flight), &mut server, Duration::from_micros(1));
        assert!((calls - 200..=calls + 1).contains(&tally.calls), "{in_flight}: {}", tally.calls);
        let expected = 100.0 * in_flight as f64;
        assert!((expected - 2.0..expected * 1.02 + 2.0).contains(&us(&tally, 0.5)), "{} us", us(&tally, 0.5));
    }
}

#[test]
fn answers_are_taken_once() {
    let now = Instant::from_nanos(1);
    let mut generator = Generator::new(plan(Mode::Closed, 4), now);
    let first = generator.next(now).unwrap();
    assert_eq!(generator.next(now), None, "one at a time until somebody answers");
    generator.answered(now, first, 64);
    let tickets: Vec<_> = std::iter::from_fn(|| generator.next(now)).collect();
    assert_eq!(tickets.len(), 4);
    generator.answered(now, tickets[1], 64);
    assert_eq!(generator.tally.errors, 0);
    generator.answered(now, tickets[1], 64);
    assert_eq!(generator.tally.errors, 1, "twice");
    generator.answered(now, Ticket(7 << 32 | 2), 64);
    generator.answered(now, Ticket(1 << 32 | 9), 64);
    generator.answered(now, Ticket(0), 64);
    assert_eq!(generator.tally.errors, 4, "never asked");
    assert!(generator.tally.first_error.unwrap().contains("twice"));
}

#[test]
fn a_late_answer_is_no_error_and_still_one_only_once() {
    let mut now = Instant::from_nanos(1);
    let mut generator = Generator::new(Plan { patience: Some(ms(10)), ..plan(Mode::Closed, 1) }, now);
    let first = generator.next(now).unwrap();
    generator.answered(now, first, 64);
    let lost = generator.next(now).unwrap();
    now += ms(11);
    generator.turn(now);
    let again = generator.next(now).expect("the place is free");
    generator.answered(now, lost, 64);
    generator.answered(now, again, 64);
    assert_eq!(generator.tally.errors, 0);
    generator.answered(now, again, 64);
    assert_eq!(generator.tally.errors, 1);
}

#[test]
fn nobody_there_is_an_error_with_an_end() {
    let mut now = Instant::from_nanos(1);
    let mut generator = Generator::new(plan(Mode::Closed, 4), now);
    let mut asked = 0;
    while generator.phase() != Phase::Over && asked < 1000 {
        generator.turn(now);
        asked += usize::from(generator.next(now).is_some());
        now += ms(1);
    }
    assert!((15..=25).contains(&asked), "asked {asked} times in a second");
    assert_eq!(generator.tally.first_error.as_deref(), Some("nobody answered"));
}

#[test]
fn a_failed_call_counts_but_not_before_somebody_answered() {
    let now = Instant::from_nanos(1);
    let mut generator = Generator::new(plan(Mode::Closed, 1), now);
    let first = generator.next(now).unwrap();
    generator.failed(now, first, || "refused".into());
    assert_eq!(generator.tally.errors, 0);
    let second = generator.next(now).unwrap();
    generator.answered(now, second, 64);
    let third = generator.next(now).unwrap();
    generator.failed(now, third, || "refused".into());
    assert_eq!((generator.tally.errors, generator.tally.first_error.as_deref()), (1, Some("refused")));
}
