//! Our servers: engines, as any program has them. UDP echo goes through the socket table and back through the stack; Rx calls are rxperf's
//! service, inline on the cores.

use std::net::SocketAddr;

use engine::{Builder, Engine, EngineStats, Idle, Outcome, Report, UdpService};
use rxperf::ServiceRun;

use crate::Trouble;
use crate::args::{ServeArgs, Wait, Workload};
use crate::figures::Dropped;
use crate::serving::{Server, usable};
use crate::wire;

/// Buffers of each core.
const BUFFERS: usize = 16_384;

/// Starts what serves on a port. It answers when this returns.
pub fn start(url: &str, args: &ServeArgs) -> Result<Box<dyn Server>, Trouble> {
    args.cpus.iter().try_for_each(|&cpu| usable(cpu))?;
    let (local, prefix) = wire::address(&args.address, args.udp_port)?;
    let idle = match args.wait {
        Wait::Sleep => Idle::DEFAULT,
        Wait::Spin => Idle::Spin,
    };
    let builder = Engine::builder()
        .name("vs_kernel")
        .port(url)
        .address(format!("{}/{prefix}", local.ip()))
        .cores(args.cpus.iter().copied())
        .idle(idle);
    match args.workload {
        Workload::Udp => echo(builder, local.into()),
        Workload::Rx => calls(builder, args.cpus.len(), local.into()),
    }
}

struct Echo {
    service: UdpService,
    engine: Engine,
}

fn echo(builder: Builder, local: SocketAddr) -> Result<Box<dyn Server>, Trouble> {
    let engine =
        builder.pool_buffers(BUFFERS).start().map_err(|error| Trouble::Machine(error.to_string()))?;
    let service = engine.udp().serve(local, |cx, _, datagram| {
        match cx.send(datagram.local, datagram.peer, datagram.payload) {
            Ok(()) => Outcome::Delivered,
            Err(reason) => Outcome::Dropped(reason),
        }
    });
    let service = service.map_err(|error| Trouble::Machine(format!("cannot serve on {local}: {error}")))?;
    notes(&engine.stats());
    Ok(Box::new(Echo { service, engine }))
}

impl Server for Echo {
    fn counts(&self) -> (u64, u64) {
        let ledger = self.engine.stats().ledger();
        (ledger.delivered, ledger.tx_drops.iter().map(|(_, count)| count).sum())
    }

    fn lives(&self) -> bool {
        true
    }

    fn end(self: Box<Self>) -> Result<(Vec<Dropped>, Vec<String>), Trouble> {
        drop(self.service);
        Ok(ending(&self.engine.shutdown()))
    }
}

fn calls(builder: Builder, cores: usize, local: SocketAddr) -> Result<Box<dyn Server>, Trouble> {
    let run =
        ServiceRun::start(builder, cores, BUFFERS, &[local]).map_err(|error| match error.is_usage() {
            true => Trouble::Usage(error.to_string()),
            false => Trouble::Machine(error.to_string()),
        })?;
    notes(&run.stats());
    Ok(Box::new(run))
}

impl Server for ServiceRun {
    fn counts(&self) -> (u64, u64) {
        (self.sum(|figures| &figures.served), self.sum(|figures| &figures.failed))
    }

    fn lives(&self) -> bool {
        true
    }

    fn end(self: Box<Self>) -> Result<(Vec<Dropped>, Vec<String>), Trouble> {
        Ok(ending(&self.shutdown()))
    }
}

/// Says how the ports run.
fn notes(stats: &EngineStats) {
    for port in &stats.ports {
        port.notes.iter().for_each(|note| eprintln!("vs_kernel: {}: {note}", port.url));
    }
}

/// What was dropped, by name, by the stack, the sockets and the ports; and what leaked.
fn ending(report: &Report) -> (Vec<Dropped>, Vec<String>) {
    let ledger = report.stats.ledger();
    let sent = ledger.tx_drops.iter().map(|(reason, packets)| (reason.name(), packets));
    let ports = report.stats.ports.iter().flat_map(|port| port.stats.drops.iter());
    let drops = ledger.dropped().chain(sent).chain(ports).filter(|(_, packets)| *packets > 0);
    let drops = drops.map(|(reason, packets)| Dropped { reason: reason.into(), packets }).collect();
    (drops, report.leaks())
}
