//! OpenAFS's programs and servers with the gateway between them.

use crate::fault::{Result, ensure};
use crate::figures::Figures;
use crate::gateway::{Gateway, Plan};
use crate::net::{FRONT, Net, Wire, server};
use crate::openafs::client::{Answer, Client, must_equal};
use crate::openafs::servers::Servers;
use crate::openafs::{script, seed};
use crate::step::Cx;
use crate::tshark::{Aborts, Capture};

/// Over `af_packet:` on veth.
pub fn af_packet(cx: &Cx<'_>) -> Result {
    through_the_gateway(cx, Wire::AfPacket, "")
}

/// Over `af_xdp:` on veth.
pub fn af_xdp(cx: &Cx<'_>) -> Result {
    through_the_gateway(cx, Wire::AfXdp, "")
}

/// Over `tap:`.
pub fn tap(cx: &Cx<'_>) -> Result {
    through_the_gateway(cx, Wire::Tap, "")
}

/// Over `dpdk:net_af_packet` on veth.
pub fn dpdk(cx: &Cx<'_>) -> Result {
    through_the_gateway(cx, Wire::Dpdk, "")
}

/// With a bad line towards the clients: both directions lose 2 %, double 1 % and reorder 5 %.
pub fn sim(cx: &Cx<'_>) -> Result {
    through_the_gateway(cx, Wire::AfPacket, "sim:seed=7,loss=0.02,dup=0.01,reorder=0.05@")
}

/// The control: whatever differs or is objected to here is not the gateway's doing.
pub fn peers(cx: &Cx<'_>) -> Result {
    let databases = seed::databases(cx)?;
    let net = Net::build(cx, Wire::AfPacket, 2)?;
    let mut one = Servers::start(cx, &net.servers[0], "one", server(0), Some(&databases))?;
    let mut two = Servers::start(cx, &net.servers[1], "two", server(1), Some(&databases))?;
    one.ready(cx)?;
    two.ready(cx)?;
    let (first, second) = (directly(cx, &net, 0)?, directly(cx, &net, 1)?);
    must_equal("the second copy", &second.answers, &first.answers)?;
    ensure!(first.aborts == second.aborts, "aborts differ: {:?} and {:?}", first.aborts, second.aborts);
    ensure!(!first.aborts.is_empty(), "the script provoked no abort");
    ensure!(first.fragments + second.fragments > 0, "the volume database sent no jumbogram in fragments");
    Ok(())
}

/// What the script yields without us.
struct Direct {
    answers: Vec<Answer>,
    aborts: Aborts,
    fragments: usize,
}

/// The whole script against the server `index` itself, its packets judged.
fn directly(cx: &Cx<'_>, net: &Net, index: usize) -> Result<Direct> {
    let name = format!("direct{index}");
    let capture = Capture::start(cx, (&net.direct, "v0"), &name)?;
    let client = Client::new(cx, &net.direct, &name, server(index))?;
    let answers = client.run(cx, &name, &[script::changes(), script::reads()].concat())?;
    let captured = capture.stop(cx)?;
    let packets = captured.must_be_clean(cx)?;
    let aborts = captured.aborts(cx)?;
    let fragments = captured.count(cx, "ip.flags.mf == 1 || ip.frag_offset > 0")?;
    cx.log.line(format!("{name}: {packets} packets, {fragments} fragments; aborts (code, calls) {aborts:?}"));
    Ok(Direct { answers, aborts, fragments })
}

/// The whole script through the gateway and against a copy of the same cell; then what only reads once more, against the
/// server behind the gateway itself. All answers are equal, and all packets in order.
fn through_the_gateway(cx: &Cx<'_>, wire: Wire, front: &str) -> Result {
    let databases = seed::databases(cx)?;
    let net = Net::build(cx, wire, 2)?;
    let mut served = Servers::start(cx, &net.servers[0], "served", server(0), Some(&databases))?;
    let mut copy = Servers::start(cx, &net.servers[1], "copy", server(1), Some(&databases))?;
    let plan = Plan { front: front.into(), ..Plan::openafs(&[server(0)]) };
    let gateway = Gateway::start(cx, &net, &plan)?;
    served.ready(cx)?;
    copy.ready(cx)?;

    let expected = directly(cx, &net, 1)?;
    let [front_tap, back_tap] = net.taps();
    let captures = [Capture::start(cx, front_tap, "front")?, Capture::start(cx, back_tap, "back")?];
    let client = Client::new(cx, &net.client, "gateway", FRONT)?;
    let answers = client.run(cx, "gateway", &[script::changes(), script::reads()].concat())?;
    must_equal("through the gateway", &answers, &expected.answers)?;

    let reads = script::reads();
    let direct = Client::new(cx, &net.direct, "after", server(0))?.run(cx, "after", &reads)?;
    let through = &answers[answers.len() - reads.len()..];
    must_equal("the server itself, afterwards", &direct, through)?;

    let figures = gateway.stop(cx)?;
    for (capture, side) in captures.into_iter().zip(["front", "back"]) {
        let captured = capture.stop(cx)?;
        let packets = captured.must_be_clean(cx)?;
        let aborts = captured.aborts(cx)?;
        cx.log.line(format!("{side}: {packets} packets; aborts (code, calls) {aborts:?}"));
        ensure!(aborts == expected.aborts, "{side}: aborts {aborts:?} instead of {:?}", expected.aborts);
    }
    judge(&figures, expected.aborts.values().sum::<usize>() as u64)
}

/// Every call was passed on and answered; only the server aborted, and as often as it does without us.
///
/// A client that left with the whole reply but without its last ACK, as OpenAFS's commands do now and then, was answered.
fn judge(figures: &Figures, aborts: u64) -> Result {
    figures.must_close()?;
    let calls = &figures.calls;
    // 300 users, 30 groups, 200 memberships and the rest are a call each at least.
    ensure!(calls.accepted > 700, "only {} calls came through: {calls:?}", calls.accepted);
    ensure!(calls.unwell() == 0, "calls were lost or refused: {calls:?}");
    ensure!(calls.backend_aborted == aborts, "{} aborts passed on, not {aborts}", calls.backend_aborted);
    Ok(())
}
