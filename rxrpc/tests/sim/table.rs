//! What congestion control achieves, written down: loss x round trip x window -> throughput.
//!
//! The runs are deterministic, so the table in `throughput.txt` is compared to the last digit. After a change that is meant:
//! `RXLINE_REWRITE=1 cargo test -p rxrpc --test sim table`, and look at the diff.

use crate::bulk::Path;
use crate::common::Bottleneck;
use rxrpc::{CongestionAlgorithm, EndpointConfig};
use std::fmt::Write as _;
use std::time::Duration;

/// Round trips of each transfer.
const ROUNDS: u32 = 300;

const ALGORITHMS: [(&str, CongestionAlgorithm); 2] =
    [("cubic", CongestionAlgorithm::Cubic), ("bbr", CongestionAlgorithm::Bbr)];

pub fn path(congestion: CongestionAlgorithm, rtt_ms: u64, loss: f64, window: u32) -> Path {
    let config = EndpointConfig {
        congestion,
        transmit_window: window,
        receive_window: window,
        calls_max: 16,
        conns_max: 16,
        peers_max: 16,
        ..EndpointConfig::default()
    };
    let rtt = Duration::from_millis(rtt_ms);
    Path { rtt, loss, bottleneck: None, flows: 1, config, rounds: ROUNDS, stagger: 0, seed: 1 }
}

fn single_flows(out: &mut String) {
    writeln!(out, "control  RTT ms  loss %  window    MB/s  of limit  resent %  timeouts").unwrap();
    for (name, congestion) in ALGORITHMS {
        for rtt in [1, 10, 50] {
            for loss in [0.0, 0.001, 0.01] {
                for window in [32, 128, 255] {
                    let path = path(congestion, rtt, loss, window);
                    let flow = path.run()[0];
                    let (rate, resent) =
                        (path.rate(flow.bytes), 100.0 * flow.resent as f64 / flow.sent as f64);
                    let (share, percent) = (rate / path.limit(), loss * 100.0);
                    writeln!(
                        out,
                        "{name:7}  {rtt:6}  {percent:6.1}  {window:6}  {rate:6.2}  {share:8.3}  {resent:8.3}  {:8}",
                        flow.timeouts
                    )
                    .unwrap();
                }
            }
        }
    }
}

/// Two flows through one bottleneck, in the second half of a run.
struct Shared {
    /// What they have of the link.
    used: f64,
    /// What the smaller one has of a fair share.
    fairness: f64,
}

impl Shared {
    fn run(path: &Path) -> Shared {
        let flows = path.run();
        let [first, second] = [flows[0].late_bytes, flows[1].late_bytes];
        let link = path.bottleneck.unwrap().bytes_per_second as f64 / 1e6;
        Shared {
            used: 2.0 * path.rate(first + second) / link,
            fairness: 2.0 * first.min(second) as f64 / (first + second) as f64,
        }
    }
}

/// Means over four seeds, and the least fair of them.
fn shared_flows(out: &mut String) {
    writeln!(out, "\ncontrol  RTT ms  queue   link MB/s  used  fairness  least").unwrap();
    for (name, congestion, rtt) in ALGORITHMS.into_iter().flat_map(|(name, c)| [(name, c, 10), (name, c, 50)])
    {
        for queue in [0.5, 1.0, 2.0] {
            let mut path = path(congestion, rtt, 0.0, 255);
            // A link of 200 packets a round trip: less than two windows, and no queue holds what is over.
            let bytes_per_second = (200.0 * 1_490.0 / path.rtt.as_secs_f64()) as u64;
            let queue_max = (200.0 * 1_490.0 * queue) as u64;
            path.bottleneck = Some(Bottleneck { bytes_per_second, queue_max });
            (path.flows, path.rounds, path.stagger) = (2, 1_000, 50);
            let runs: Vec<Shared> = (1..=4).map(|seed| Shared::run(&Path { seed, ..path.clone() })).collect();
            let mean = |of: fn(&Shared) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
            let (used, fairness) = (mean(|run| run.used), mean(|run| run.fairness));
            let least = runs.iter().map(|run| run.fairness).fold(1.0, f64::min);
            assert!(
                fairness >= 0.8,
                "{name}: {fairness:.3} of a fair share at {rtt} ms and {queue} of a window in the queue"
            );
            assert!(
                used >= 0.9,
                "{name}: {used:.2} of the link at {rtt} ms and {queue} of a window in the queue"
            );
            writeln!(
                out,
                "{name:7}  {rtt:6}  {queue:5.1}  {:10.2}  {used:4.2}  {fairness:8.3}  {least:5.3}",
                bytes_per_second as f64 / 1e6,
            )
            .unwrap();
        }
    }
}

/// Packets in a round trip that RFC 9438 lets CUBIC keep in flight at this loss: section 5.1, and 4.3 where Reno would have
/// more.
fn cubic_window(rtt: Duration, loss: f64) -> f64 {
    let curve = (0.4 * 3.7 / (4.0 * 0.3_f64)).powf(0.25) * (rtt.as_secs_f64() / loss).powf(0.75);
    curve.max((1.5 / loss).sqrt())
}

/// The goals of a transfer without and with loss, over several seeds: shares of the protocol's limit, or of the RFC's formula.
#[test]
fn transfers_reach_their_goals() {
    let rate = |congestion, rtt, loss| {
        let paths = (1..=4).map(|seed| Path { seed, ..path(congestion, rtt, loss, 255) });
        paths.map(|path| path.rate(path.run()[0].bytes) / path.limit()).sum::<f64>() / 4.0
    };
    for (rtt, loss, bbr_least) in [
        (10, 0.0, 0.95),
        (50, 0.0, 0.95),
        (10, 0.001, 0.75),
        (50, 0.001, 0.75),
        (10, 0.01, 0.5),
        (50, 0.01, 0.5),
    ] {
        let bbr = rate(CongestionAlgorithm::Bbr, rtt, loss);
        assert!(bbr >= bbr_least, "bbr: {bbr:.3} of the limit at {rtt} ms and {loss} loss");
        let allowed = (cubic_window(Duration::from_millis(rtt), loss) / 255.0).min(1.0);
        let cubic = rate(CongestionAlgorithm::Cubic, rtt, loss);
        assert!(
            cubic >= 0.9 * allowed,
            "cubic: {cubic:.3} of the limit where the RFC allows {allowed:.3}, {rtt} ms, {loss}"
        );
    }
}

#[test]
fn table_is_as_written() {
    let mut out = String::new();
    single_flows(&mut out);
    shared_flows(&mut out);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/throughput.txt");
    if std::env::var_os("RXLINE_REWRITE").is_some() {
        std::fs::write(file, &out).unwrap();
    }
    let written = std::fs::read_to_string(file).unwrap_or_default();
    for (line, (is, was)) in out.lines().zip(written.lines()).enumerate() {
        assert_eq!(
            is,
            was,
            "line {} of {file}; if that is meant: RXLINE_REWRITE=1 cargo test -p rxrpc --test sim table",
            line + 1
        );
    }
    assert_eq!(
        out.lines().count(),
        written.lines().count(),
        "RXLINE_REWRITE=1 cargo test -p rxrpc --test sim table"
    );
}
