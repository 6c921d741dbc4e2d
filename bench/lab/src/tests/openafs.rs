//! OpenAFS's programs and servers with the gateway between them.

use crate::fault::{Result, ensure};
use crate::net::{Net, Wire, server};
use crate::openafs::client::Client;
use crate::openafs::servers::Servers;
use crate::openafs::{script, seed};
use crate::step::Cx;
use crate::tshark::Capture;

/// The control: whatever differs or is objected to here is not the gateway's doing.
pub fn peers(cx: &Cx<'_>) -> Result {
    let databases = seed::databases(cx)?;
    let net = Net::build(cx, Wire::AfPacket, 2)?;
    let mut one = Servers::start(cx, &net.servers[0], "one", server(0), Some(&databases))?;
    let mut two = Servers::start(cx, &net.servers[1], "two", server(1), Some(&databases))?;
    one.ready(cx)?;
    two.ready(cx)?;
    let capture = Capture::start(cx, (&net.direct, "v0"), "direct")?;
    let lines = [script::changes(), script::reads()].concat();
    let first = Client::new(cx, &net.direct, "one", server(0))?.run(cx, "one", &lines)?;
    let second = Client::new(cx, &net.direct, "two", server(1))?.run(cx, "two", &lines)?;
    second.must_equal("the second copy", &first.answers)?;
    let captured = capture.stop(cx)?;
    let packets = captured.must_be_clean(cx)?;
    let aborts = captured.aborts(cx)?;
    let fragments = captured.count(cx, "ip.flags.mf == 1 || ip.frag_offset > 0")?;
    cx.log.line(format!("{packets} packets; {fragments} fragments; aborts (code, calls): {aborts:?}"));
    ensure!(aborts.values().all(|calls| calls % 2 == 0), "the copies aborted differently: {aborts:?}");
    Ok(())
}
