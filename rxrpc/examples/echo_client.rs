//! Calls an Rx service and prints its reply.
//!
//! `cargo run --release --example echo_client -- tap:echo1 198.51.100.10/24 198.51.100.1 192.0.2.10:7009 hello`: port,
//! our address, gateway, the service's address, the request.

use rxrpc::engine::Engine;
use rxrpc::{RxExt, ServiceId};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [port, address, gateway, server, request] = &args[..] else {
        return Err("usage: echo_client PORT ADDRESS/PREFIX GATEWAY SERVER:PORT REQUEST".into());
    };

    let engine = Engine::builder().port(port).address(address).gateway(gateway).start_rx()?;
    let client = engine.rx().client()?;
    let begun = std::time::Instant::now();
    let reply = client.request(server.parse()?, ServiceId(147), request.as_bytes())?;
    println!("{} ({:?})", String::from_utf8_lossy(&reply), begun.elapsed());
    Ok(())
}
