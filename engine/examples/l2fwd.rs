//! Forwards every frame from each of two ports to the other: `l2fwd af_packet:veth0 af_packet:veth1`.

use engine::pmd::Burst;
use engine::{Cx, Datagram, Engine, Handler, Outcome, Socket};

struct Forward;

impl Handler for Forward {
    type Command = ();
    const RAW: bool = true;

    fn raw(&mut self, cx: &mut Cx<'_>, port: usize, burst: &mut Burst) {
        cx.send_burst(1 - port, burst);
    }

    fn input(&mut self, _: &mut Cx<'_>, _: &Socket, _: Datagram) -> Outcome {
        unreachable!("a raw handler is given no datagrams")
    }

    fn command(&mut self, _: &mut Cx<'_>, (): ()) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ports: Vec<String> = std::env::args().skip(1).collect();
    let [a, b] = ports.as_slice() else { return Err("usage: l2fwd PORT PORT".into()) };
    let engine = Engine::builder().port(a).port(b).start_with(|_| Forward)?;
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
        println!("{}", engine.stats().ledger());
    }
}
