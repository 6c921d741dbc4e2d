//! A program nobody here wrote: OpenAFS's `vos` and `pts` against its own database servers, directly and through the gateway.
//!
//! ```text
//! client -- cli0 [gateway on af_xdp:] srv0 -- bridge -- vlserver, ptserver
//!                                              bridge -- direct
//! ```
//!
//! The gateway is one hop and one hand more, so directly is what it can at best come near to.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use crate::bench::compare::{Comparison, Side};
use crate::bench::rounds::{Arm, Rounds};
use crate::fault::{Result, ensure};
use crate::gateway::{Gateway, Plan};
use crate::net::{FRONT, Net, Wire, server};
use crate::openafs::client::{Answer, Client, must_equal};
use crate::openafs::script::{self, Line};
use crate::openafs::seed;
use crate::openafs::servers::Servers;
use crate::step::Cx;

const BOUNDARY: &str = "Rx calls a second of OpenAFS's own programs, one after the other: vos lists 150 volumes and looks up 40, one pts process \
    examines 600 people, others list everything; their servers are vlserver and ptserver on the kernel's UDP over veth and a bridge; every \
    answer equal to what the servers answer directly; the calls are those that the gateway counted, starting programs included in the time";

/// So many people are examined by one process.
const EXAMINED: usize = 600;
/// So many volumes are looked up, by a process each.
const LOOKED_UP: usize = 40;

/// One row: calls a second through the gateway, beside those without it.
pub fn openafs(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let databases = seed::databases(cx)?;
    let net = Net::build(cx, Wire::AfXdp, 1)?;
    let mut servers = Servers::start(cx, &net.servers[0], "served", server(0), Some(&databases))?;
    servers.ready(cx)?;
    let gateway = RefCell::new(Gateway::start(cx, &net, &Plan::openafs(&[server(0)]))?);
    let direct = Client::new(cx, &net.direct, "direct", server(0))?;
    let through = Client::new(cx, &net.client, "gateway", FRONT)?;
    // People to ask for; and both ways warm, and what everything has to answer from now on.
    direct.run(cx, "changes", &script::changes())?;
    let load = load();
    let expected = direct.run(cx, "expected", &load)?;
    let accepted = || Ok(gateway.borrow_mut().figures(cx)?.calls.accepted);
    let before = accepted()?;
    must_equal("through the gateway", &through.run(cx, "warm-up", &load)?, &expected)?;
    let calls = Cell::new(accepted()? - before);
    ensure!(calls.get() > EXAMINED as u64, "only {} calls came through the gateway", calls.get());
    let run = |client: &Client<'_>, name: &str| -> Result<f64> {
        let begun = Instant::now();
        let answers: Vec<Answer> = client.run(cx, name, &load)?;
        let seconds = begun.elapsed().as_secs_f64();
        must_equal(name, &answers, &expected)?;
        Ok(calls.get() as f64 / seconds)
    };
    let mut arms = [
        Arm::new("vos and pts through the gateway", || run(&through, "gateway")),
        Arm::new("vos and pts directly", || run(&direct, "direct")),
    ];
    let (figures, orders) = rounds.run(cx, &mut arms)?;
    let [through_gateway, directly] = figures.try_into().unwrap_or_else(|_| unreachable!("two arms"));
    let (ours, anchor) = (
        Side { name: arms[0].name, figures: through_gateway },
        Side { name: arms[1].name, figures: directly },
    );
    drop(arms);
    let figures = gateway.into_inner().stop(cx)?;
    figures.must_close()?;
    ensure!(figures.calls.unwell() == 0, "calls were lost or refused: {:?}", figures.calls);
    Ok(vec![Comparison {
        what: "openafs, vos and pts",
        unit: "calls/s",
        boundary: BOUNDARY,
        ours,
        anchor,
        bar: None,
        cycles: Vec::new(),
        orders,
    }])
}

/// What the programs are asked: everything of `reads`, and enough calls that it is not their starting that is measured.
fn load() -> Vec<Line> {
    let line = |tool, words: &str, stdin: String| Line {
        tool,
        args: words.split(' ').map(String::from).collect(),
        stdin,
    };
    let people: String = (0..EXAMINED).map(|number| format!("examine user{}\n", number % 280 + 1)).collect();
    let mut lines = script::reads();
    lines.push(line("pts", "interactive", people));
    lines.extend(
        (0..LOOKED_UP)
            .map(|number| line("vos", &format!("listvldb -name vol.{}", 30 + number), String::new())),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_calls_are_of_programs_that_run_already() {
        let load = load();
        let typed: usize = load.iter().map(|line| line.stdin.lines().count()).sum();
        assert_eq!(typed, EXAMINED);
        assert!(load.len() < EXAMINED / 5 && load.len() > LOOKED_UP, "{} programs", load.len());
    }
}
