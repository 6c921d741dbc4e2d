//! Every check, in the order in which they run.

use crate::step::Step;

mod backends;
mod capture;
mod demo;
mod doctor;
mod drivers;
mod fuzz;
mod intel;
mod linerate;
mod openafs;
mod ping;
mod rcu;
mod rfc2544;
mod rx_linux;
mod rx_openafs;
mod rxdebug;
mod unread;
mod views;
mod workspace;

/// All of them. Names, minutes that each may take, what holds when it passes.
pub const ALL: &[Step] = &[
    Step::new("workspace", 15, workspace::workspace)
        .about("`cargo test --workspace` passes as an ordinary user, without any peer"),
    Step::new("privileged", 15, workspace::privileged).about(
        "drivers on real Linux interfaces pass the suite that all drivers pass, in namespaces of their own",
    ),
    Step::new("drivers/af_xdp", 15, drivers::af_xdp).about(
        "AF_XDP on veth, native and SKB: the suite of all drivers, steering beside the kernel, kill -9, taken without privileges",
    ),
    Step::new("drivers/memif", 5, drivers::memif).about(
        "through dpdk-testpmd's net_memif, in both roles: every frame returns whole and in order, also after it was killed",
    ),
    Step::new("drivers/dpdk", 12, drivers::dpdk).about(
        "feature dpdk: clippy; net_null, net_ring, net_memif, net_pcap, net_af_packet, a deleted interface; on both kinds of pages",
    ),
    Step::new("drivers/dpdk-processes", 10, drivers::dpdk_processes).about(
        "two processes of ours, each with DPDK, exchange 40,000 frames over veth, one is killed meanwhile; nothing stays behind",
    ),
    Step::new("drivers/instructions", 12, drivers::instructions)
        .about("what rx_burst and tx_burst of each driver execute for a frame has not grown"),
    Step::new("rcu/rows", 25, rcu::rows::rows)
        .about("the test of every row of bench/lab/rows/ROWS.md passes; `cargo lab models --mutants` breaks each"),
    Step::new("rcu/compile-fail", 16, rcu::tests::compile_fail)
        .about("what RCU and the calls' handles forbid does not compile"),
    Step::new("rcu/allocations", 16, rcu::tests::allocations)
        .about("ten seconds of datagrams, and of calls that start and end, allocate and free nothing"),
    Step::new("rcu/instructions", 20, rcu::instructions::instructions).about(
        "no locked instruction and one barrier a burst at most are executed between rx_burst and the wake-ups; calls and packets have not grown",
    ),
    Step::new("rcu/churn", 25, rcu::churn::churn).about(
        "AddressSanitizer: 1,000,000 binds, closes, accepts and aborts under full traffic; no early free, no lost wake-up",
    ),
    Step::new("demo", 8, demo::demo)
        .about("rxline demo verifies every call as an ordinary user, on all CPUs and on one"),
    Step::new("views", 8, views::views).about(
        "a running demo is asked for all listings, top and metrics: they agree with its own report; strangers are refused",
    ),
    Step::new("capture", 8, capture::capture).about(
        "a running service is captured: tshark reads every frame that its ledger counts, and each drop's reason",
    ),
    Step::new("doctor", 8, doctor::doctor)
        .about("rxline doctor works where everything is read-only, and the commands it names mend what it complains about"),
    Step::new("ping", 4, ping::ping)
        .about("ping and ping -6 are answered, 1000 of 1000, whole and in fragments, on veth (AF_PACKET, AF_XDP) and tap"),
    Step::new("linerate/memory", 8, linerate::memory)
        .about("rxline linerate over memory: every frame comes back, a wire's losses are told to the frame, exit codes"),
    Step::new("linerate/rate", 8, linerate::rates)
        .about("100,000 frames a second for ten seconds are held within 0.5 %"),
    Step::new("linerate/af_packet", 8, linerate::af_packet).about(
        "every mode on veth: forwarders, counters, pings of the kernel, frames as tshark sees them, a capture replayed",
    ),
    Step::new("linerate/af_xdp", 8, linerate::af_xdp).about("the same on veth through AF_XDP"),
    Step::new("linerate/rfc2544", 8, rfc2544::rfc2544).about(
        "RFC 2544 in virtual time on a wire that is known: capacity, latency, loss and depth within 2 %, the report, exit codes",
    ),
    Step::new("openafs/peers", 3, openafs::peers)
        .about("without us: two copies of one cell answer the whole script alike, and tshark finds nothing"),
    Step::new("openafs/af_packet", 4, openafs::af_packet).about(
        "through the gateway on veth: vos and pts print what they print without it; every packet in order",
    ),
    Step::new("openafs/af_xdp", 4, openafs::af_xdp).about("the same on veth through AF_XDP"),
    Step::new("openafs/tap", 4, openafs::tap).about("the same on tap"),
    Step::new("openafs/dpdk", 12, openafs::dpdk).about("the same on DPDK's net_af_packet"),
    Step::new("openafs/sim", 6, openafs::sim)
        .about("the same with 2 % lost, 1 % doubled, 5 % reordered on the clients' side"),
    Step::new("rx-openafs/relay", 3, rx_openafs::relay::openafs).about(
        "through the gateway as a relay: vos and pts print what they print without it; every byte of Rx is the same on both sides",
    ),
    Step::new("rx-openafs/relay-rxkad", 3, rx_openafs::relay::rxkad)
        .about("the same with -localauth and -encrypt, keys by KeyFile and by KeyFileExt, none of them at the gateway"),
    Step::new("rx-openafs/relay-kdc", 3, rx_openafs::relay::kdc).about(
        "people with tickets from a real KDC change both databases through the relay, at three levels; others may not",
    ),
    Step::new("rx-openafs/relay-callback", 3, rx_openafs::relay::callback)
        .about("a server on OpenAFS's Rx calls its client back through the relay before it answers"),
    Step::new("rx-openafs/terminate-rxkad", 3, rx_openafs::terminate::rxkad).about(
        "the gateway has the service's key, by KeyFile and by KeyFileExt: -localauth and -encrypt end there, answers are the same",
    ),
    Step::new("rx-openafs/terminate-kdc", 3, rx_openafs::terminate::kdc).about(
        "tickets from a real KDC end at the gateway, at three levels; it has one of its own and lets one of two people pass",
    ),
    Step::new("rx-openafs/rxperf-rxkad", 3, rx_openafs::rxperf::rxkad)
        .about("our client and OpenAFS's Rx as server, OpenAFS's as client and our server: three levels, 1 B to 1 MB each way"),
    Step::new("rxdebug/gateway", 3, rxdebug::of_the_gateway)
        .about("what OpenAFS's rxdebug prints about the gateway is what tshark saw on its wires"),
    Step::new("rxdebug/openafs", 3, rxdebug::of_openafs)
        .about("what rxline rxdebug tells of a real server is what OpenAFS's rxdebug tells of it"),
    Step::new("rx-linux/none", 4, rx_linux::none).about(
        "the kernel's AF_RXRPC in a guest, both ways: 1 B to 10 MB, aborts, closes and restarts in mid-call, upgrades, IPv4 and IPv6",
    ),
    Step::new("rx-linux/rxkad", 4, rx_linux::rxkad).about(
        "the same under rxkad at its three levels, both ways: 1 B to 2 MB, upgrades, and proofs that either side refuses",
    ),
    Step::new("backends/share", 3, backends::share)
        .about("two copies of one cell: many readers, the same answers, and both copies are used"),
    Step::new("backends/slow", 3, backends::slow)
        .about("of two servers one is ten times slower: it gets less than a fifth of the calls"),
    Step::new("backends/killed", 3, backends::killed).about(
        "of two servers one is killed: its calls fail clearly, the other takes over, it returns and is used",
    ),
    Step::new("unread", 4, unread::unread).about(
        "1,000 calls whose replies nobody reads: memory within its budget, others at their normal rate",
    ),
    Step::new("fuzz", 4, fuzz::fuzz)
        .about("200,000 damaged frames: no panic, no leak, the ledger closes, real calls answered meanwhile"),
    Step::new("intel/control", 8, intel::control)
        .about("in a guest: emulated Intel NICs under the kernel's own drivers do what the next steps ask of ours"),
    Step::new("intel/igb", 8, intel::igb).about(
        "igb: on an emulated 82576: 50,000 frames, 4 queues, link down and up, sleep and wake, killed, offloads",
    ),
    Step::new("intel/e1000e", 8, intel::e1000e).about("e1000e: on an emulated 82574L: the same with one queue"),
    Step::new("intel/suite", 8, intel::suite)
        .about("two emulated 82576, and two 82574L, on a cable: the suite that all drivers pass, RSS, offloads, sleep"),
    Step::new("intel/dpdk", 8, intel::dpdk)
        .about("DPDK's igb and em drivers through our port: 50,000 frames each, 4 queues, link down and up, killed"),
    Step::new("linerate/igb", 8, intel::linerate).about(
        "in a guest, between two emulated 82576: marked frames forwarded in three modes, counted, none damaged or doubled; a line rate to compare with",
    ),
    Step::new("intel/gateway", 6, intel::gateway)
        .about("rxline gateway in a guest, between two emulated 82576: calls from the host to the host, all verified"),
];
