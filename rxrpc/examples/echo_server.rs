//! An Rx service that answers each request with itself.
//!
//! `cargo run --release --example echo_server -- tap:echo0 192.0.2.10/24`; `echo_client` says how to call it.

use rxrpc::engine::Engine;
use rxrpc::{RxExt, Security, ServiceId};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let port = args.next().unwrap_or("tap:echo0".into());
    let address = args.next().unwrap_or("192.0.2.10/24".into());

    let engine = Engine::builder().port(port).address(address).start_rx()?;
    let service =
        engine.rx().bind((engine.addresses()[0], 7009), ServiceId(147))?.security(Security::none())?;
    println!("serving {} as service 147", service.local_addr());
    for mut call in service.incoming() {
        let peer = call.peer();
        if let Err(error) = call.read_all().and_then(|request| call.reply(&request)) {
            eprintln!("{peer}: {error}");
        }
    }
    Ok(())
}
