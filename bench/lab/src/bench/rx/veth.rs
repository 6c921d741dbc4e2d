//! rxperf over a veth pair: calls a second, bulk, and bulk under rxkad, each side on a CPU of its own.
//!
//! ```text
//! client [c0] ===== veth ===== [s0] server
//! ```
//!
//! Both ends have an address of the kernel's, for OpenAFS and for our core on UDP sockets, and one of rxline's.

use std::net::Ipv4Addr;

use super::Head;
use super::peers::{Class, End, Load, Peer, Programs};
use crate::bench::arms::{cpus, number};
use crate::bench::busy::busy_seconds;
use crate::bench::compare::{Bar, Comparison, Side};
use crate::bench::rounds::{Arm, Orders, Rounds};
use crate::fault::{Result, ensure};
use crate::net::{finish, veth as join};
use crate::ns::Netns;
use crate::proc::Cmd;
use crate::step::Cx;

/// A whole bundle: four connections with four calls each.
const CALLS: Load = Load { in_flight: 16, reply_bytes: 64, seconds: 2 };
const FEW: Load = Load { in_flight: 4, ..CALLS };
const BULK: Load = Load { in_flight: 1, reply_bytes: 1_000_000, seconds: 2 };
/// Makes the server and the caches warm; its figures are thrown away.
const WARM_UP: Load = Load { seconds: 1, ..CALLS };

const CALLS_HEAD: Head = Head {
    what: "rx-calls, 16 in flight",
    unit: "calls/s",
    boundary: "closed loop, 16 calls in flight on 4 connections (a thread each at OpenAFS), 64 B there and 64 B back; calls that ended \
        with every byte of the reply verified by the client, a second; one veth pair, MTU 1500, server and client on a CPU each",
};
const FEW_HEAD: Head = Head {
    what: "rx-calls, 4 in flight",
    unit: "calls/s",
    boundary: "4 calls in flight on one connection, where OpenAFS does best; otherwise as with 16",
};
const BULK_HEAD: Head = Head {
    what: "rx-bulk",
    unit: "MB/s",
    boundary: "one call after the other, 64 B there and 1 MB back, every byte verified by the client; otherwise as rx-calls; each \
        library's own packet sizes and windows",
};
const ENCRYPT_HEAD: Head = Head {
    what: "rx-bulk, rxkad encrypt",
    unit: "MB/s",
    boundary: "as rx-bulk, under rxkad at the level encrypt, with a ticket that the client makes from the service's key",
};
const CPU_HEAD: Head = Head {
    what: "rx-calls-cpu, 16 in flight",
    unit: "CPU s/M calls",
    boundary: "CPU seconds of the whole machine while rx-calls with 16 in flight ran, interrupts included, for each million calls; what \
        polls takes whole CPUs",
};

/// The ways, ours first, as the table calls them.
const WAYS: [(&str, Peer); 4] = [
    ("af_xdp:", Peer::Port("af_xdp")),
    ("af_packet:", Peer::Port("af_packet")),
    ("UDP sockets, mmsg", Peer::Udp),
    ("OpenAFS", Peer::OpenAfs(None)),
];

/// What one way came to in one round.
struct Figures {
    calls: f64,
    cpu: f64,
    few: f64,
    bulk: f64,
    /// The arm on UDP sockets has no rxkad: it is there for what carries packets.
    encrypted: Option<f64>,
}

/// One of them; none: this way cannot.
type Figure = fn(&Figures) -> Option<f64>;

struct Stage<'a> {
    cx: &'a Cx<'a>,
    programs: Programs,
    client: Netns,
    server: Netns,
    cpus: [usize; 2],
}

/// All comparisons over veth.
pub fn veth(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let stage = Stage::build(cx)?;
    let mut arms = WAYS.map(|(name, peer)| {
        let stage = &stage;
        Arm::new(name, move || stage.measure(peer))
    });
    let (figures, orders) = rounds.run(cx, &mut arms)?;
    let bars: [(Head, Figure, Option<Bar>); 5] = [
        (CALLS_HEAD, |figures| Some(figures.calls), Some(Bar::AtLeast(4.0))),
        (FEW_HEAD, |figures| Some(figures.few), Some(Bar::AtLeast(4.0))),
        (BULK_HEAD, |figures| Some(figures.bulk), Some(Bar::AtLeast(3.0))),
        (ENCRYPT_HEAD, |figures| figures.encrypted, Some(Bar::AtLeast(5.0))),
        (CPU_HEAD, |figures| Some(figures.cpu), None),
    ];
    Ok(bars.into_iter().flat_map(|(head, figure, bar)| lines(head, figure, bar, &figures, &orders)).collect())
}

/// Each of our ways beside OpenAFS. The bar counts for the first.
fn lines(
    head: Head,
    figure: Figure,
    bar: Option<Bar>,
    figures: &[Vec<Figures>],
    orders: &Orders,
) -> Vec<Comparison> {
    let side = |at: usize| {
        let figures: Option<Vec<f64>> = figures[at].iter().map(figure).collect();
        figures.map(|figures| Side { name: WAYS[at].0, figures })
    };
    let anchor = side(WAYS.len() - 1).expect("OpenAFS can do all of it");
    let ours = (0..WAYS.len() - 1).filter_map(|at| Some((at, side(at)?)));
    ours.map(|(at, ours)| head.line(ours, anchor.clone(), bar.filter(|_| at == 0), orders)).collect()
}

impl<'a> Stage<'a> {
    fn build(cx: &'a Cx<'a>) -> Result<Stage<'a>> {
        let cpus = cpus()?;
        ensure!(cpus[0] != cpus[1], "server and client need a CPU each, and this process may use one only");
        let programs = Programs::build(cx)?;
        let (client, server) = (Netns::create(cx, "client")?, Netns::create(cx, "server")?);
        join(cx, (&client, "c0"), (&server, "s0"))?;
        let stage = Stage { cx, programs, client, server, cpus };
        for end in [stage.client(), stage.server()] {
            finish(cx, end.ns, &end.interface)?;
            end.ns.ip(cx, &format!("addr add {}/24 dev {}", end.kernel, end.interface))?;
        }
        Ok(stage)
    }

    fn client(&self) -> End<'_> {
        let [kernel, own] = [1, 11].map(|host| Ipv4Addr::new(198, 18, 0, host));
        End { ns: &self.client, interface: "c0".into(), kernel, own, cpu: self.cpus[0] }
    }

    fn server(&self) -> End<'_> {
        let [kernel, own] = [2, 12].map(|host| Ipv4Addr::new(198, 18, 0, host));
        End { ns: &self.server, interface: "s0".into(), kernel, own, cpu: self.cpus[1] }
    }

    fn measure(&self, peer: Peer) -> Result<Figures> {
        let (calls, cpu, few, bulk) = self.beside_server(peer, Class::None, |run| {
            run(&WARM_UP)?;
            let before = busy_seconds()?;
            let told = run(&CALLS)?;
            let busy = busy_seconds()? - before;
            let cpu = busy / (number(&told, "calls")? / 1e6);
            let rate = |told: &str| number(told, "calls_per_second");
            Ok((rate(&told)?, cpu, rate(&run(&FEW)?)?, rate(&run(&BULK)?)?))
        })?;
        let encrypted = match peer {
            Peer::Udp => None,
            Peer::Port(_) | Peer::OpenAfs(_) => Some(self.beside_server(peer, Class::Encrypt, |run| {
                run(&WARM_UP)?;
                number(&run(&BULK)?, "calls_per_second")
            })?),
        };
        let megabytes = |calls: f64| calls * BULK.reply_bytes as f64 / 1e6;
        let figures = Figures { calls, cpu, few, bulk: megabytes(bulk), encrypted: encrypted.map(megabytes) };
        self.cx.log.line(format!(
            "{calls:.0} and {few:.0} calls/s, {cpu:.2} CPU s/M calls, {:.1} MB/s, encrypted {:?}",
            figures.bulk, figures.encrypted
        ));
        Ok(figures)
    }

    /// `f` with what runs a load against a server and says what the client told. A client that exits with an error, which it does if a
    /// single call failed, is an error here.
    fn beside_server<T>(
        &self,
        peer: Peer,
        class: Class,
        f: impl FnOnce(&dyn Fn(&Load) -> Result<String>) -> Result<T>,
    ) -> Result<T> {
        let (cx, programs) = (self.cx, &self.programs);
        let spin: &[&str] = &["--idle", "spin"];
        let server = programs.serve(cx, peer, &self.server(), class, spin)?;
        let run = |load: &Load| {
            let client = programs.calls(peer, &self.client(), &self.server(), load, class);
            let client: Cmd = if let Peer::Port(_) = peer { client.args(spin) } else { client };
            Ok(client.ok(cx)?.stdout)
        };
        let figures = f(&run)?;
        programs.end(cx, peer, server)?;
        Ok(figures)
    }
}
