use super::*;

const POOL: &str = r#"
[[port]]
url = "null:"
addresses = ["192.0.2.10/24"]
[[pool]]
name = "a"
backends = ["192.0.2.1:7009", "192.0.2.2:7009"]
calls = 8
probe = { interval_ms = 1000, timeout_ms = 500, failures = 3, answers = 2 }
[[listener]]
address = "192.0.2.10:7009"
[[listener.service]]
ids = [147]
pool = "a"
"#;

struct Bench {
    backends: Backends,
    cores: Vec<Balancer>,
    now: Instant,
}

fn bench(cores: usize) -> Bench {
    let config = Config::parse("", POOL).expect("sound");
    let (backends, now) = (Backends::new(&config, cores), Instant::from_nanos(1_000_000_000));
    let cores = (0..cores).map(|core| Balancer::new(&backends, core, cores, 7, now)).collect();
    Bench { backends, cores, now }
}

impl Bench {
    fn pick(&mut self, core: usize) -> Result<usize, NoBackend> {
        self.cores[core].pick(self.now, &self.backends, 0)
    }
    fn begin(&mut self, core: usize, backend: usize) {
        self.cores[core].begun(&self.backends, backend);
    }
    fn end(&mut self, core: usize, backend: usize, outcome: Outcome) {
        self.cores[core].ended(&self.backends, backend, outcome);
    }
    fn call(&mut self, core: usize, backend: usize, outcome: Outcome) {
        self.begin(core, backend);
        self.end(core, backend, outcome);
    }
    /// Lets `millis` pass in steps of 10; `answers` says which backends answer probes. Returns the probes sent.
    fn pass(&mut self, millis: u64, answers: [bool; 2]) -> usize {
        let mut sent = 0;
        for _ in 0..millis / 10 {
            self.now += Duration::from_millis(10);
            for core in &mut self.cores {
                let mut probed = Vec::new();
                core.probe(self.now, &self.backends, |index, address| probed.push((index, address)));
                sent += probed.len();
                for (index, address) in probed {
                    if answers[index] {
                        core.answered(&self.backends, address);
                    }
                }
            }
        }
        sent
    }
    /// Of `calls` made with `concurrency` at a time to servers that take so many milliseconds: how many each got.
    fn load(&mut self, calls: usize, concurrency: usize, service_ms: [u64; 2]) -> [usize; 2] {
        let mut got = [0; 2];
        let mut running: Vec<(Instant, usize, Duration)> = Vec::new();
        for _ in 0..calls {
            if running.len() == concurrency {
                running.sort_by_key(|(end, ..)| std::cmp::Reverse(*end));
                let (end, backend, taken) = running.pop().expect("one runs");
                self.now = self.now.max(end);
                self.cores[0].responded(self.now, &self.backends, backend, taken);
                self.end(0, backend, Outcome::Succeeded);
            }
            let backend = self.pick(0).expect("alive");
            self.begin(0, backend);
            got[backend] += 1;
            let taken = Duration::from_millis(service_ms[backend]);
            running.push((self.now + taken, backend, taken));
        }
        got
    }
}

#[test]
fn equals_share_evenly() {
    for concurrency in [1, 6] {
        let got = bench(1).load(1000, concurrency, [1, 1]);
        assert!(got.iter().all(|calls| (400..=600).contains(calls)), "{concurrency} at a time: {got:?}");
    }
}

#[test]
fn a_slow_one_gets_less_than_a_fifth_even_of_calls_that_come_one_at_a_time() {
    for concurrency in [1, 2, 4, 8] {
        let got = bench(1).load(1000, concurrency, [1, 10]);
        assert!(got[1] < 200, "{concurrency} at a time: {got:?}");
        assert!(got[1] > 0, "it is tried once in a while: {got:?}");
    }
}

#[test]
fn one_bad_sample_does_not_make_a_server_slow() {
    for millis in [1, 2, 5] {
        let mut bench = bench(1);
        bench.cores[0].responded(bench.now, &bench.backends, 0, Duration::from_millis(millis));
        let got = bench.load(400, 1, [0, 0]);
        assert!(got[0] > 100, "after {millis} ms: {got:?}");
    }
}

#[test]
fn a_slow_one_that_recovers_is_found_out() {
    let mut bench = bench(1);
    bench.load(1000, 1, [1, 10]);
    bench.load(20_000, 1, [1, 1]);
    let got = bench.load(1000, 1, [1, 1]);
    assert!((400..=600).contains(&got[1]), "{got:?}");
}

#[test]
fn outstanding_calls_of_other_cores_count() {
    let mut bench = bench(2);
    (0..4).for_each(|_| bench.begin(1, 0));
    assert!((0..100).all(|_| bench.pick(0) == Ok(1)));
}

#[test]
fn a_full_backend_is_passed_over_and_all_full_is_said() {
    let mut bench = bench(1);
    (0..8).for_each(|_| bench.begin(0, 0));
    assert!((0..100).all(|_| bench.pick(0) == Ok(1)));
    (0..8).for_each(|_| bench.begin(0, 1));
    assert_eq!(bench.pick(0), Err(NoBackend::AllBusy));
    bench.end(0, 0, Outcome::Succeeded);
    assert_eq!(bench.pick(0), Ok(0));
}

#[test]
fn unanswered_probes_make_a_backend_dead_and_answers_bring_it_back() {
    let mut bench = bench(1);
    bench.pass(2_000, [true, false]);
    assert!(bench.backends.backends[1].is_alive(), "two failures are not three");
    bench.pass(1_000, [true, false]);
    assert!(!bench.backends.backends[1].is_alive());
    assert!((0..100).all(|_| bench.pick(0) == Ok(0)));
    bench.pass(1_000, [true, true]);
    assert!(!bench.backends.backends[1].is_alive(), "one answer is not two");
    bench.pass(1_000, [true, true]);
    assert!((0..100).any(|_| bench.pick(0) == Ok(1)));
}

#[test]
fn failed_calls_make_a_backend_dead_at_once_for_every_core() {
    let mut bench = bench(2);
    bench.pass(100, [true, true]);
    (0..3).for_each(|_| bench.call(1, 0, Outcome::Failed));
    assert!((0..100).all(|_| bench.pick(0) == Ok(1)));
    bench.pass(1_000, [false, true]);
    assert!(!bench.backends.backends[0].is_alive());
    bench.pass(3_000, [true, true]);
    assert!(bench.backends.backends[0].is_alive(), "the failures were of an earlier epoch");
}

#[test]
fn answers_of_the_backend_end_a_row_of_failures() {
    for outcome in [Outcome::Succeeded, Outcome::Aborted] {
        let mut bench = bench(1);
        for _ in 0..10 {
            (0..2).for_each(|_| bench.call(0, 0, Outcome::Failed));
            bench.call(0, 0, outcome);
        }
        assert!(bench.backends.backends[0].is_alive(), "{outcome:?}");
        (0..2).for_each(|_| bench.call(0, 0, Outcome::Failed));
        bench.call(0, 0, Outcome::Cancelled);
        bench.call(0, 0, Outcome::TimedOut);
        assert!(
            bench.backends.backends[0].is_alive(),
            "what the client gave up says nothing, nor what took too long"
        );
        bench.call(0, 0, Outcome::Failed);
        assert!(!bench.backends.backends[0].is_alive(), "and neither ends the row");
    }
}

#[test]
fn none_alive_is_said() {
    let mut bench = bench(1);
    bench.pass(4_000, [false, false]);
    assert_eq!(bench.pick(0), Err(NoBackend::AllDead));
}

#[test]
fn each_backend_is_probed_by_one_core_once_an_interval() {
    let mut bench = bench(2);
    let sent = bench.pass(10_000, [true, true]);
    assert!((20..=22).contains(&sent), "{sent} probes in 10 s of 2 backends");
}

#[test]
fn answers_that_nobody_waits_for_count_for_nothing() {
    let mut bench = bench(1);
    bench.pass(4_000, [false, true]);
    let address = bench.backends.backends[0].address;
    (0..10).for_each(|_| bench.cores[0].answered(&bench.backends, address));
    assert!(!bench.backends.backends[0].is_alive());
}
