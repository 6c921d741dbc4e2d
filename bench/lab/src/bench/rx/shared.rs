//! Two bulk calls through one bottleneck: in the simulation, and on the path of `rx/path` with a narrow link in it.

use std::net::Ipv4Addr;

use super::path::{Middle, Stage};
use super::peers::{End, Peer};
use super::simulation::{Control, Simulation};
use super::{Head, constant};
use crate::bench::compare::{Bar, Comparison, Side};
use crate::bench::rounds::{Arm, Rounds};
use crate::fault::Result;
use crate::step::Cx;

/// Within a fifth: the slower one has at least so much of its half.
const FAIR: Bar = Bar::AtLeast(0.8);

/// 200 packets of 1490 bytes in 10 ms.
const LINK: &str = "238.4Mbit";
/// Frames on the way and in the queue of that direction: half a round trip on the way, one in the queue.
const HELD: usize = 100 + 200;
const SECONDS: u64 = 6;

const IN_SIMULATION: &str = "of two calls from two endpoints that send through one link of 200 packets a round trip, the slower one's share of \
    its half, in the second half of 1000 round trips; the least of three queues in front of the link: 0.5, 1 and 2 round trips of packets; \
    virtual time (rxrpc/tests/sim)";
const ON_PATH: Head = Head {
    what: "rx-shared, on the path",
    unit: "of its half",
    boundary: "of two calls that begin at once, from two client processes to one server through one link of 200 packets a round trip of 10 ms \
        with a round trip's queue, the slower one's share of its half over 6 s",
};

/// What the table calls the simulation's lines.
const SIMULATED: [(&str, Control, u64); 4] = [
    ("rx-shared, CUBIC, 10 ms", Control::Cubic, 10),
    ("rx-shared, CUBIC, 50 ms", Control::Cubic, 50),
    ("rx-shared, BBR-like, 10 ms", Control::Bbr, 10),
    ("rx-shared, BBR-like, 50 ms", Control::Bbr, 50),
];

/// How fair two calls are to each other, beside a fair share.
pub fn shared(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let simulation = Simulation::run(cx)?;
    let stage = Stage::build(cx)?;
    let mut arms = [
        Arm::new("CUBIC", || slower_share(cx, &stage, &["--congestion", "cubic"])),
        Arm::new("BBR-like", || slower_share(cx, &stage, &["--congestion", "bbr"])),
    ];
    let (figures, orders) = rounds.run(cx, &mut arms)?;
    let fair = || constant("fair share", 1.0, rounds.count);
    let mut lines = Vec::new();
    for (what, control, rtt_ms) in SIMULATED {
        let shares =
            simulation.shares.iter().filter(|share| (share.control, share.rtt_ms) == (control, rtt_ms));
        let least = shares.map(|share| share.fairness).fold(f64::INFINITY, f64::min);
        let head = Head { what, unit: "of its half", boundary: IN_SIMULATION };
        lines.push(head.line(constant("simulation", least, rounds.count), fair(), Some(FAIR), &orders));
    }
    let measured = arms.iter().zip(figures).map(|(arm, figures)| Side { name: arm.name, figures });
    lines.extend(measured.map(|ours| ON_PATH.line(ours, fair(), None, &orders)));
    Ok(lines)
}

/// Runs two calls at once; what the slower one got of half.
fn slower_share(cx: &Cx<'_>, stage: &Stage<'_>, tune: &[&str]) -> Result<f64> {
    let delay = |seed| format!("sim:seed={seed},rx.delay=5ms");
    let ports = vec![
        format!("{},limit=4096@af_packet:l0", delay(stage.next_seed())),
        format!("{},rx.rate={LINK},limit={HELD}@af_packet:r0", delay(stage.next_seed())),
    ];
    let second = End { own: Ipv4Addr::new(198, 18, 0, 21), ..stage.client(0) };
    let clients = vec![(stage.client(0), 0), (second, 0)];
    let middle = Middle { ports, meant: &["sim_rx_queue_full"] };
    let rates = stage.stream(&middle, (Peer::Port("af_packet"), tune), clients, SECONDS)?;
    cx.log.line(format!("{tune:?}: {rates:.2?} MB/s"));
    let (least, sum) = (rates.iter().copied().fold(f64::INFINITY, f64::min), rates.iter().sum::<f64>());
    Ok(2.0 * least / sum)
}
