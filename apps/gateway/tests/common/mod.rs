//! A gateway between a client's engine and two servers' addresses, joined by `memory:` wires, in one process.

use std::net::SocketAddr;
use std::time::Duration;

use engine::Engine;
use gateway::{Gateway, GatewayHandle, Report};
use rxrpc::socket::{CallFailed, InlineServing, ServedCall};
use rxrpc::{Client, RxEngine, RxExt, Security, ServiceId};

pub const SERVICE: ServiceId = ServiceId(147);

pub fn gateway_address() -> SocketAddr {
    "192.0.2.10:7009".parse().expect("address")
}

pub fn server_address(n: usize) -> SocketAddr {
    format!("198.51.100.{}:7009", n + 1).parse().expect("address")
}

/// The first of a request says what is wanted: a reply of so many bytes, or an abort.
pub fn request(reply: u32, abort: i32, payload: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + payload);
    bytes.extend(reply.to_be_bytes());
    bytes.extend(abort.to_be_bytes());
    bytes.extend((0..payload).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8));
    bytes
}

/// Depends on every byte of the request and on its order.
pub fn reply_to(request: &[u8]) -> Vec<u8> {
    let length = u32::from_be_bytes(request[..4].try_into().expect("four bytes")) as usize;
    let seed = request.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

fn answer(call: &mut ServedCall<'_, '_>) {
    let request = call.request().to_vec();
    let abort = i32::from_be_bytes(request[4..8].try_into().expect("four bytes"));
    match abort {
        0 => call.reply(&reply_to(&request)),
        code => call.abort(code),
    }
}

fn client_engine(name: &str, host: usize, cores: usize) -> RxEngine {
    Engine::builder()
        .name("client")
        .port(format!("memory:{name}c"))
        .address(format!("192.0.2.{host}/24"))
        .core_count(cores)
        .start_rx()
        .expect("the client starts")
}

pub struct Net {
    name: String,
    pub gateway: GatewayHandle,
    pub client_engine: RxEngine,
    pub client: Client,
    pub servers: RxEngine,
    pub serving: Vec<Option<InlineServing>>,
}

/// `wire` is put before the client port's URL, `first` at the head; `mode` is the listener's.
pub fn config(name: &str, wire: &str, first: &str, mode: &str) -> gateway::config::Config {
    parse(name, &config_text(name, wire, first, mode))
}

pub fn parse(name: &str, text: &str) -> gateway::config::Config {
    gateway::config::Config::parse(name, text).unwrap_or_else(|error| panic!("{error}"))
}

/// The file of [`config`].
pub fn config_text(name: &str, wire: &str, first: &str, mode: &str) -> String {
    format!(
        r#"
        {first}
        drain_seconds = 5
        [memory]
        buffers = 32768
        [limits]
        calls = 1024
        [[port]]
        url = "{wire}memory:{name}c"
        addresses = ["192.0.2.10/24"]
        [[port]]
        url = "memory:{name}s"
        addresses = ["198.51.100.10/24"]
        [[pool]]
        name = "perf"
        backends = ["{}", "{}"]
        probe = {{ interval_ms = 100, timeout_ms = 100, failures = 3 }}
        [[listener]]
        address = "{}"
        mode = "{mode}"
        [[listener.service]]
        ids = [147]
        pool = "perf"
        "#,
        server_address(0),
        server_address(1),
        gateway_address(),
    )
}

impl Net {
    /// `name` must be the test's own.
    pub fn start(name: &str) -> Self {
        Self::start_with(name, "", "")
    }

    /// See [`config`].
    pub fn start_with(name: &str, wire: &str, first: &str) -> Self {
        Self::start_as(name, config(name, wire, first, "terminate"))
    }

    pub fn start_as(name: &str, config: gateway::config::Config) -> Self {
        let gateway = Gateway::start(config, Vec::new()).expect("the gateway starts");
        // A wire has as many queues as the gateway has cores, and the other end must listen to all of them.
        let cores = gateway.engine_stats().cores.len();
        let client_engine = client_engine(name, 200, cores);
        let servers = Engine::builder()
            .name("servers")
            .port(format!("memory:{name}s"))
            .address("198.51.100.1/24")
            .address("198.51.100.2/24")
            .core_count(cores)
            .start_rx()
            .expect("the servers start");
        let client = client_engine.rx().client().expect("a client");
        let mut net = Self {
            name: name.to_string(),
            gateway,
            client_engine,
            client,
            servers,
            serving: vec![None, None],
        };
        net.serve(0);
        net.serve(1);
        net
    }

    /// Another client takes the place of the one that was there.
    pub fn replace_client(&mut self, host: usize) {
        // The wire's end is free once the old engine has gone.
        let spare =
            Engine::builder().port("null:").address("192.0.2.1/24").start_rx().expect("a spare engine");
        let spare_client = spare.rx().client().expect("a client");
        drop(std::mem::replace(&mut self.client, spare_client));
        drop(std::mem::replace(&mut self.client_engine, spare));
        self.client_engine = client_engine(&self.name, host, self.gateway.engine_stats().cores.len());
        self.client = self.client_engine.rx().client().expect("a client");
    }

    pub fn serve(&mut self, n: usize) {
        self.serve_as(n, Security::none(), answer);
    }

    pub fn serve_as(&mut self, n: usize, security: Security, answer: fn(&mut ServedCall<'_, '_>)) {
        self.serving[n] = None;
        let service = self.servers.rx().bind(server_address(n), SERVICE).expect("binds");
        let service = service.security(security).expect("binds anew");
        self.serving[n] = Some(service.serve(answer).expect("serves"));
    }

    pub fn call(&self, request: &[u8]) -> Result<Vec<u8>, CallFailed> {
        self.client.request(gateway_address(), SERVICE, request)
    }

    /// Drains, stops everything, and asserts that nothing leaked.
    pub fn finish(self) -> Report {
        let Self { gateway, client_engine, client, servers, serving, .. } = self;
        let limit = gateway.drain_limit();
        drop((client, serving));
        let report = gateway.drain(limit, |_| true);
        let ends = [client_engine.shutdown(), servers.shutdown()];
        let leaks = report.leaks();
        assert_eq!(leaks, [""; 0], "{}", report.text(&leaks));
        for end in ends {
            assert_eq!(end.leaks(), [""; 0]);
        }
        report
    }

    pub fn wait_for(&self, what: &str, mut holds: impl FnMut(&gateway::GatewayStats) -> bool) {
        for _ in 0..1000 {
            if holds(&self.gateway.stats()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{what}: not within 10 s: {}", self.gateway.stats().json(&Default::default()));
    }
}
