//! A load against a service, each on an engine of its own, over a wire of memory.

use engine::Engine;
use rxperf::load::LoadConfig;
use rxperf::{LoadRun, Op, Service, ServiceRun, Summary, Verify, Work};
use rxrpc::CongestionAlgorithm;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SERVER: &str = "192.0.2.10:7009";
const BUFFERS: usize = 4096;

fn server() -> SocketAddr {
    SERVER.parse().expect("an address")
}

fn config(work: Work, calls: u64) -> LoadConfig {
    LoadConfig {
        server: server(),
        work,
        verify: Verify::Digest,
        upgrade: false,
        in_flight: 8,
        gap: Duration::ZERO,
        connections: 2,
        calls_max: Some(calls),
        call_timeout: Duration::from_secs(20),
        seed: 1,
        congestion: Default::default(),
    }
}

fn work(op: Op, request_bytes: u32, reply_bytes: u32) -> Work {
    Work { op, request_bytes, reply_bytes, linux_trailer: false }
}

/// Runs a load to its end. `wire` names it; `client` is what the client's end of it is opened as.
fn run(wire: &str, client: &str, config: LoadConfig) -> Summary {
    run_until(wire, client, config, |_| {})
}

fn run_until(wire: &str, client: &str, config: LoadConfig, happens: impl FnOnce(&mut LoadRun)) -> Summary {
    run_with(Service::default(), wire, client, config, happens)
}

/// The same with a service of another kind, and what happens once it runs.
fn run_with(
    service: Service,
    wire: &str,
    client: &str,
    config: LoadConfig,
    happens: impl FnOnce(&mut LoadRun),
) -> Summary {
    let at_server = Engine::builder().name("server").port(format!("memory:{wire}")).address("192.0.2.10/24");
    let service = Service { congestion: config.congestion, ..service };
    let service =
        ServiceRun::start_with(at_server, 1, BUFFERS, &[server()], service, None).expect("a service");
    let at_client = Engine::builder().name("client").port(client).address("192.0.2.20/24");
    let mut load = LoadRun::start(at_client, 1, BUFFERS, config).expect("a load");
    load.begin();
    happens(&mut load);
    assert!(load.wait_over(Duration::from_secs(40)), "{}", load.summary());
    let summary = load.summary();
    let reports = [load.shutdown(), service.shutdown()];
    for report in reports {
        assert_eq!(report.leaks(), Vec::<String>::new());
    }
    summary
}

fn all_verified(wire: &str, work: Work, calls: u64) {
    let summary = run(wire, &format!("memory:{wire}"), config(work, calls));
    assert!(summary.holds() && summary.verified == calls, "{summary}");
    assert!(summary.latency_us.p50 > 0.0 && summary.latency_us.p50 <= summary.latency_us.p999, "{summary}");
}

#[test]
fn rpcs_are_verified() {
    all_verified("rpc", work(Op::Rpc, 100, 300), 500);
}

#[test]
fn sends_are_verified() {
    all_verified("send", work(Op::Send, 5_000, 0), 200);
}

#[test]
fn receives_are_verified() {
    all_verified("recv", work(Op::Recv, 0, 20_000), 200);
}

#[test]
fn files_are_verified() {
    all_verified("file", work(Op::File, 3_001, 4_003), 200);
}

#[test]
fn linuxs_trailer_is_taken() {
    all_verified("trailer", Work { linux_trailer: true, ..work(Op::Rpc, 10, 10) }, 50);
}

#[test]
fn megabytes_stream_both_ways() {
    all_verified("megabytes", work(Op::Rpc, 2_000_000, 3_000_000), 16);
}

/// Clients on three cores, each of which chose a port of its own; a server on three. Not one packet comes in on another core than its own.
#[test]
fn every_packet_of_a_call_arrives_at_its_core_where_the_port_steers() {
    let engine = |name: &str, address: &str| {
        Engine::builder().name(name).port("memory:steered,rss,queues=3").address(address).core_count(3)
    };
    let service =
        ServiceRun::start(engine("server", "192.0.2.10/24"), 3, BUFFERS, &[server()]).expect("a service");
    let load_config =
        LoadConfig { in_flight: 12, connections: 6, ..config(work(Op::Rpc, 3_000, 3_000), 600) };
    let mut load =
        LoadRun::start(engine("client", "192.0.2.20/24"), 3, BUFFERS, load_config).expect("a load");
    load.begin();
    assert!(load.wait_over(Duration::from_secs(40)), "{}", load.summary());
    let summary = load.summary();
    assert!(summary.holds() && summary.verified == 600, "{summary}");
    for report in [load.shutdown(), service.shutdown()] {
        assert_eq!(report.leaks(), Vec::<String>::new());
        assert!(report.stats.steered);
        for core in &report.stats.cores {
            let ledger = &core.ledger;
            assert_eq!((ledger.handed_out, ledger.handed_in), (0, 0), "core {}: {ledger}", core.core);
            if report.stats.name == "client" {
                assert!(ledger.at_owner > 0 && core.ports_tried > 0, "core {}: {ledger}", core.core);
            }
        }
    }
}

#[test]
fn a_lossy_wire_changes_no_byte() {
    let client = "sim:seed=7,loss=0.02,dup=0.01,reorder=0.05@memory:lossy";
    let summary = run("lossy", client, config(work(Op::Rpc, 8_000, 8_000), 100));
    assert!(summary.holds() && summary.verified == 100, "{summary}");
}

#[test]
fn a_call_that_is_cut_short_counts_by_its_bytes() {
    for congestion in [CongestionAlgorithm::Cubic, CongestionAlgorithm::Bbr] {
        let (wire, endless) = (format!("cut-{congestion:?}"), work(Op::Recv, 0, u32::MAX));
        let config = LoadConfig { in_flight: 1, congestion, ..config(endless, 10) };
        let summary = run_until(&wire, &format!("memory:{wire}"), config, |load| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while load.sum(|figures| &figures.received) < 1_000_000 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            load.cut();
        });
        assert_eq!((summary.calls, summary.cut), (0, 1), "{summary}");
        assert!(summary.holds() && summary.bytes_received >= 1_000_000, "{summary}");
        assert!(summary.to_string().contains("cut        1 more"), "{summary}");
    }
}

#[test]
fn calls_to_nobody_fail_by_name_and_end() {
    let nobody = LoadConfig {
        server: "192.0.2.10:7010".parse().expect("an address"),
        ..config(work(Op::Rpc, 1, 1), 20)
    };
    let summary = run("nobody", "memory:nobody", nobody);
    assert_eq!((summary.calls, summary.verified, summary.failed), (20, 0, 20), "{summary}");
    assert!(!summary.holds());
    assert_eq!(
        summary.failures.keys().collect::<Vec<_>>(),
        ["connection refused: no socket on the peer's port"]
    );
}

#[test]
fn zeros_are_not_taken_for_a_digest() {
    let zeros = LoadConfig { verify: Verify::Zeros, ..config(work(Op::Rpc, 10, 100), 5) };
    let summary = run("zeros", "memory:zeros", zeros);
    assert_eq!((summary.verified, summary.failed), (0, 5), "{summary}");
}

#[test]
fn clients_that_ask_are_upgraded_where_an_upgrade_is_offered() {
    for (wire, upgrade_to, asked, answers) in [
        ("upgrade", Some(148), true, 148),
        ("not-asked", Some(148), false, 147),
        ("not-offered", None, true, 147),
    ] {
        let service = Service { upgrade_to, ..Service::default() };
        let load = LoadConfig { upgrade: asked, ..config(work(Op::Rpc, 5_000, 5_000), 40) };
        let summary = run_with(service, wire, &format!("memory:{wire}"), load, |_| {});
        assert!(summary.holds(), "{wire}: {summary}");
        assert_eq!(summary.services.into_iter().collect::<Vec<_>>(), [(answers, 40)], "{wire}");
    }
}

#[test]
fn a_call_that_a_closing_service_cuts_off_counts_as_failed() {
    let port = "memory:cut-off";
    let at_server = Engine::builder().name("server").port(port).address("192.0.2.10/24");
    let mut service = ServiceRun::start(at_server, 1, BUFFERS, &[server()]).expect("a service");
    let at_client = Engine::builder().name("client").port(port).address("192.0.2.20/24");
    // So much that it is in progress for as long as it takes to look.
    let long = LoadConfig { in_flight: 1, ..config(work(Op::Send, 1 << 31, 0), 1) };
    let mut load = LoadRun::start(at_client, 1, BUFFERS, long).expect("a load");
    load.begin();
    let deadline = Instant::now() + Duration::from_secs(20);
    while service.sum(|figures| &figures.received) == 0 {
        assert!(Instant::now() < deadline, "the call does not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    service.close();
    assert_eq!((service.sum(|f| &f.served), service.sum(|f| &f.failed)), (0, 1));
    assert!(load.wait_over(Duration::from_secs(20)), "{}", load.summary());
    let summary = load.summary();
    assert_eq!((summary.verified, summary.failed), (0, 1), "{summary}");
    for report in [load.shutdown(), service.shutdown()] {
        assert_eq!(report.leaks(), Vec::<String>::new());
    }
}
