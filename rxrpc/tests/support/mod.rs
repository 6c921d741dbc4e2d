//! Two engines in one process, joined by a `memory:` port.
#![allow(dead_code, missing_docs, reason = "each test file uses its part of it")]

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use rxrpc::engine::Engine;
use rxrpc::socket::CallFailed;
use rxrpc::{CallOptions, Client, RxEngine, RxExt, Service, ServiceId, SocketConfig, Target};

pub const SERVICE: ServiceId = ServiceId(147);
pub const LONG: Duration = Duration::from_secs(20);

/// A server's engine and a client's, which end without a trace.
pub struct Pair {
    pub server: RxEngine,
    pub client: RxEngine,
}

pub fn engine(name: &str, address: &str, cores: usize, config: &SocketConfig) -> RxEngine {
    let builder =
        Engine::builder().name(name).port(format!("memory:{name}")).address(address).core_count(cores);
    builder.pool_buffers(16_384).start_rx_with(config.clone()).unwrap()
}

impl Pair {
    pub fn new(name: &str) -> Self {
        Pair::with(name, 1, SocketConfig::default())
    }

    pub fn with(name: &str, cores: usize, config: SocketConfig) -> Self {
        Pair {
            server: engine(name, "192.0.2.10/24", cores, &config),
            client: engine(name, "192.0.2.20/24", cores, &config),
        }
    }

    pub fn service(&self) -> Service {
        self.server.rx().bind("192.0.2.10:7009", SERVICE).unwrap()
    }

    pub fn client(&self) -> Client {
        self.client.rx().client().unwrap()
    }

    /// No call is left alive, and both engines stop with every buffer at home.
    pub fn end(self) {
        for (side, engine) in [("server", &self.server), ("client", &self.client)] {
            let deadline = Instant::now() + LONG;
            // The last release is on its way to its core.
            while engine.rx().live_calls() > 0 && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(engine.rx().live_calls(), 0, "calls alive at the {side}");
            assert_eq!(engine.rx().unread_bytes(), 0, "bytes in the budget of the {side}");
        }
        let reports = [self.server.shutdown(), self.client.shutdown()];
        for report in reports {
            assert_eq!(report.leaks(), Vec::<String>::new());
        }
    }
}

pub fn server() -> SocketAddr {
    "192.0.2.10:7009".parse().unwrap()
}

/// A whole call that ends by itself if nobody answers.
pub fn ask(client: &Client, request: &[u8]) -> Result<Vec<u8>, CallFailed> {
    let options = CallOptions { hard_timeout: Some(LONG), ..CallOptions::default() };
    let mut call = client.call_with(Target::new(server(), SERVICE.0), options)?;
    call.send(request)?;
    call.finish()?;
    call.read_all()
}

pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}
