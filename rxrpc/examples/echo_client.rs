//! Calls an Rx service and prints its reply.
//!
//! `cargo run --release --example echo_client -- tap:echo1 192.0.2.20/24 192.0.2.10:7009 hello`: port, our address, the
//! service's address, the request. With `echo_server` on `tap:echo0`, a bridge joins the two:
//! `ip link add br0 up type bridge; ip link set echo0 master br0 up; ip link set echo1 master br0 up`.

use rxrpc::engine::Engine;
use rxrpc::{RxExt, ServiceId};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [port, address, server, request] = &args[..] else {
        return Err("usage: echo_client PORT ADDRESS/PREFIX SERVER:PORT REQUEST".into());
    };

    let engine = Engine::builder().port(port).address(address).start_rx()?;
    let client = engine.rx().client()?;
    let begun = std::time::Instant::now();
    let reply = client.request(server.parse()?, ServiceId(147), request.as_bytes())?;
    println!("{} ({:?})", String::from_utf8_lossy(&reply), begun.elapsed());
    Ok(())
}
