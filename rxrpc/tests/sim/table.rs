//! What congestion control achieves, written down: loss x round trip x window -> throughput.
//!
//! The runs are deterministic, so the table in `throughput.txt` is compared to the last digit. After a change that is meant:
//! `RXLINE_REWRITE=1 cargo test -p rxrpc --test sim table`, and look at the diff.

use crate::bulk::Path;
use crate::common::Bottleneck;
use rxrpc::EndpointConfig;
use std::fmt::Write as _;
use std::time::Duration;

/// Round trips of each transfer.
const ROUNDS: u32 = 300;

fn path(rtt_ms: u64, loss: f64, window: u32) -> Path {
    let config = EndpointConfig {
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
    for rtt in [1, 10, 50] {
        for loss in [0.0, 0.001, 0.01] {
            for window in [32, 128, 255] {
                let path = path(rtt, loss, window);
                let flow = path.run()[0];
                let (rate, resent) = (path.rate(flow.bytes), 100.0 * flow.resent as f64 / flow.sent as f64);
                let (share, percent) = (rate / path.limit(), loss * 100.0);
                writeln!(
                    out,
                    "reno     {rtt:6}  {percent:6.1}  {window:6}  {rate:6.2}  {share:8.3}  {resent:8.3}  {:8}",
                    flow.timeouts
                )
                .unwrap();
            }
        }
    }
}

/// Two flows through one bottleneck: what the smaller one has of a fair share, in the second half.
fn shared_flows(out: &mut String) {
    writeln!(out, "\ncontrol  RTT ms  queue   link MB/s  used  first/second  fairness").unwrap();
    for rtt in [10, 50] {
        for queue in [0.5, 1.0, 2.0] {
            let mut path = path(rtt, 0.0, 255);
            // A link of 200 packets a round trip: less than two windows, and no queue holds what is over.
            let bytes_per_second = (200.0 * 1_490.0 / path.rtt.as_secs_f64()) as u64;
            let queue_max = (200.0 * 1_490.0 * queue) as u64;
            path.bottleneck = Some(Bottleneck { bytes_per_second, queue_max });
            (path.flows, path.rounds, path.stagger) = (2, 1_000, 50);
            let flows = path.run();
            let [first, second] = [flows[0].late_bytes as f64, flows[1].late_bytes as f64];
            let used = 2.0 * path.rate(flows[0].late_bytes + flows[1].late_bytes) * 1e6 / bytes_per_second as f64;
            writeln!(
                out,
                "reno     {rtt:6}  {queue:5.1}  {:10.2}  {used:4.2}  {:12.2}  {:8.3}",
                bytes_per_second as f64 / 1e6,
                first / second,
                2.0 * first.min(second) / (first + second),
            )
            .unwrap();
        }
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
        assert_eq!(is, was, "line {} of {file}; if that is meant: RXLINE_REWRITE=1 cargo test -p rxrpc --test sim table", line + 1);
    }
    assert_eq!(out.lines().count(), written.lines().count(), "RXLINE_REWRITE=1 cargo test -p rxrpc --test sim table");
}
