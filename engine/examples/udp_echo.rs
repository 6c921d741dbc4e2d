//! A UDP echo server on a tap device (or any port): `sudo udp_echo tap:echo0 192.0.2.10/24`, then
//! `sudo ip addr add 192.0.2.1/24 dev echo0; nc -u 192.0.2.10 7`.

use engine::{Engine, Outcome};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).unwrap_or("tap:echo0".into());
    let address = std::env::args().nth(2).unwrap_or("192.0.2.10/24".into());
    let engine = Engine::builder().port(port).address(address).start()?;
    let _echo = engine.udp().serve("0.0.0.0:7".parse()?, |cx, _socket, datagram| {
        match cx.send(datagram.local, datagram.peer, datagram.payload) {
            Ok(()) => Outcome::Delivered,
            Err(reason) => Outcome::Dropped(reason),
        }
    })?;
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
        println!("{}", engine.stats().ledger());
    }
}
