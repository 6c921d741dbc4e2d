//! The program over loopback and over `memory:`, without privileges. A way that this machine forbids must say so, and `arms` must agree.

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const KERNEL: [&str; 6] = ["blocking", "mmsg", "busy-poll", "gso", "uring", "reuseport"];

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vs_kernel"))
}

fn run(words: &str) -> Output {
    println!("vs_kernel {words}");
    program().args(words.split_whitespace()).output().expect("it runs")
}

fn figures(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| {
        panic!("{error}: stdout {stdout:?}, stderr {}", String::from_utf8_lossy(&output.stderr))
    })
}

/// Two CPUs that we may use, or the same one twice.
fn cpus() -> (usize, usize) {
    let cpus = core_affinity::get_core_ids().expect("CPUs");
    (cpus[0].id, cpus[cpus.len() - 1].id)
}

/// A UDP port that nobody has now.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server that has said that it answers.
struct Server {
    child: Child,
    udp_port: u16,
}

impl Server {
    /// Or the exit code and the words with which it declined.
    fn start(workload: &str, arm: &str, cpus: &str, more: &str) -> Result<Server, (Option<i32>, String)> {
        let udp_port = free_port();
        let words =
            format!("serve {workload} {arm} --address 127.0.0.1 --udp-port {udp_port} --cpus {cpus} {more}");
        println!("vs_kernel {words}");
        let mut command = program();
        command.args(words.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let mut said = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
        if said.contains("ready") {
            return Ok(Server { child, udp_port });
        }
        Err((child.wait().unwrap().code(), said))
    }

    /// By SIGTERM; what it did.
    fn end(mut self) -> Value {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it lives");
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        assert!(self.child.wait().unwrap().success(), "{stdout}");
        serde_json::from_str(stdout.trim()).unwrap_or_else(|error| panic!("{error}: {stdout:?}"))
    }
}

impl Drop for Server {
    /// When a test failed.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One that needs no privilege.
fn start(workload: &str, arm: &str) -> Server {
    Server::start(workload, arm, &cpus().1.to_string(), "").unwrap_or_else(|(_, said)| panic!("{said}"))
}

fn load(server: &Server, workload: &str, arm: &str, more: &str) -> Output {
    let (cpu, _) = cpus();
    let port = server.udp_port;
    run(&format!(
        "load {workload} {arm} 127.0.0.1 --udp-port {port} --cpu {cpu} --warm-up-seconds 0.1 --seconds 0.6 {more}"
    ))
}

/// Of a whole run without an error.
fn sound(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let figures = figures(output);
    assert_eq!(figures["errors"], 0, "{figures}");
    for name in
        ["calls_per_second", "bytes_per_second", "latency_ns_p50", "latency_ns_max", "cold_start_seconds"]
    {
        assert!(figures[name].as_f64().unwrap() > 0.0, "{name}: {figures}");
    }
    figures
}

/// What `arms` says of one.
fn probed(arm: &str) -> Value {
    let arms = figures(&run("arms"));
    arms["arms"].as_array().unwrap().iter().find(|probed| probed["arm"] == arm).expect("every arm").clone()
}

/// A closed loop on both sides by the same way.
fn serves(workload: &str, arm: &str, more: &str) {
    let probed = probed(arm);
    let server = match Server::start(workload, arm, &cpus().1.to_string(), more) {
        Ok(server) => server,
        Err((code, said)) => {
            assert_eq!(code, Some(3), "{said}");
            assert_eq!(probed["available"], false, "{said}");
            assert!(
                said.contains(arm) && (said.contains("run as root") || said.contains("needs a kernel")),
                "{said}"
            );
            return;
        }
    };
    assert_eq!(probed["available"], true, "{probed}");
    let loaded = sound(&load(&server, workload, arm, &format!("--mode closed --in-flight 32 {more}")));
    let served = server.end();
    let calls = loaded["calls"].as_u64().unwrap();
    assert!(calls >= 1000, "{loaded}");
    assert!(served["served"].as_u64().unwrap() >= calls, "{served} {loaded}");
    assert!(served["cpu_seconds"].as_f64().unwrap() > 0.0, "{served}");
    assert_eq!(served["arm"], arm);
}

#[test]
fn every_way_of_the_kernels_echoes() {
    KERNEL.into_iter().for_each(|arm| serves("udp", arm, "--wait sleep"));
}

#[test]
fn every_way_of_the_kernels_echoes_spinning() {
    KERNEL.into_iter().for_each(|arm| serves("udp", arm, "--wait spin"));
}

#[test]
fn every_way_of_the_kernels_serves_calls() {
    KERNEL.into_iter().for_each(|arm| serves("rx", arm, "--wait sleep"));
}

#[test]
fn sockets_that_share_a_port_share_the_work() {
    let (first, second) = cpus();
    let server = Server::start("udp", "reuseport", &format!("{first},{second}"), "");
    let server = server.unwrap_or_else(|(_, said)| panic!("{said}"));
    sound(&load(&server, "udp", "mmsg", "--flows 16"));
    let by_socket = server.end()["served_by_thread"].clone();
    let by_socket: Vec<u64> =
        by_socket.as_array().unwrap().iter().map(|served| served.as_u64().unwrap()).collect();
    assert!(by_socket.len() == 2 && by_socket.iter().all(|served| *served > 100), "{by_socket:?}");
}

#[test]
fn an_open_loop_offers_what_was_asked_for() {
    let server = start("udp", "mmsg");
    let figures = sound(&load(&server, "udp", "mmsg", "--mode open --rate 5000 --seed 7"));
    // 3000 on average; what a busy machine cannot send in time is unsent, and nothing is forgotten.
    let count = figures["latency_count"].as_u64().unwrap();
    assert!((2700..3300).contains(&count), "{figures}");
    assert_eq!((&figures["seed"], &figures["offered_per_second"]), (&7.into(), &5000.0.into()));
    server.end();
}

#[test]
fn one_at_a_time_and_asleep() {
    let server = start("udp", "blocking");
    let figures = sound(&load(&server, "udp", "blocking", "--mode round-trip --wait sleep"));
    assert_eq!(figures["in_flight"], 1);
    assert!(figures["cpu_seconds"].as_f64().unwrap() < 0.6, "{figures}");
    server.end();
}

#[test]
fn bulk_is_whole() {
    let server = start("rx", "gso");
    let figures = sound(&load(&server, "rx", "gso", "--mode bulk --reply-bytes 200000 --wait sleep"));
    let calls = figures["calls"].as_f64().unwrap();
    assert!(figures["bytes_per_second"].as_f64().unwrap() * 0.6 - calls * 200_000.0 < 1.0, "{figures}");
    server.end();
}

#[test]
fn both_sides_over_memory() {
    let (client, server) = cpus();
    for workload in ["udp", "rx"] {
        let words =
            format!("pair {workload} --client-cpu {client} --server-cpu {server} --wait sleep --seconds 0.6");
        let figures = sound(&run(&words));
        assert!(figures["calls"].as_u64().unwrap() >= 1000, "{figures}");
        assert!(figures["server"]["served"].as_u64() >= figures["calls"].as_u64(), "{figures}");
        assert_eq!(figures["server"]["leaks"], Value::Array(Vec::new()), "{figures}");
    }
}

#[test]
fn nobody_there_is_said() {
    let port = free_port();
    for workload in ["udp", "rx"] {
        let output = run(&format!(
            "load {workload} mmsg 127.0.0.1 --udp-port {port} --connect-seconds 0.5 --wait sleep"
        ));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("nobody answered"), "{stderr}");
    }
}

/// A server of the test's own, which answers with what `answer` makes of a request, as often as that says.
fn beside(answer: impl Fn(u32, &mut [u8]) -> usize + Send + 'static) -> Output {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let port = socket.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let mut bytes = [0; 2048];
        let mut count = 0;
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            count += 1;
            for _ in 0..answer(count, &mut bytes[..len]) {
                let _ = socket.send_to(&bytes[..len], from);
            }
        }
    });
    let output = run(&format!(
        "load udp mmsg 127.0.0.1 --udp-port {port} --warm-up-seconds 0 --seconds 0.3 --in-flight 4 --wait sleep"
    ));
    serving.join().unwrap();
    output
}

#[test]
fn a_wrong_byte_is_found() {
    let output = beside(|count, bytes| {
        if count == 100 {
            bytes[40] ^= 1;
        }
        1
    });
    let figures = figures(&output);
    assert_eq!(output.status.code(), Some(1), "{figures}");
    assert_eq!((&figures["errors"], &figures["lost"]), (&1.into(), &1.into()), "{figures}");
    assert!(figures["first_error"].as_str().unwrap().contains("byte 40"), "{figures}");
}

#[test]
fn an_answer_too_many_is_found() {
    let output = beside(|count, _| if count == 100 { 2 } else { 1 });
    let figures = figures(&output);
    assert_eq!((output.status.code(), &figures["errors"]), (Some(1), &1.into()), "{figures}");
    assert!(figures["first_error"].as_str().unwrap().contains("twice"), "{figures}");
}

#[test]
fn what_is_not_answered_is_lost_and_no_error() {
    let output = beside(|count, _| usize::from(count % 100 != 0));
    let figures = figures(&output);
    assert_eq!((output.status.code(), &figures["errors"]), (Some(0), &0.into()), "{figures}");
    assert!(figures["lost"].as_u64().unwrap() > 0, "{figures}");
    assert!(figures["latency_ns_max"].as_u64().unwrap() >= 200_000_000, "{figures}");
}

#[test]
fn wrong_arguments_are_told_from_what_is_missing() {
    for (words, code, told) in [
        ("serve udp mmap --address 127.0.0.1", 2, "busy-poll"),
        ("serve udp mmsg --address localhost", 2, "198.18.0.2"),
        ("serve udp mmsg --address 127.0.0.1 --cpus 0,0", 2, "reuseport"),
        ("serve udp mmsg --address 192.0.2.77", 3, "ip address add"),
        ("serve udp mmsg --address 127.0.0.1 --cpus 4096", 3, "CPU 4096"),
        ("serve udp af_packet:none9 --address 192.0.2.1/24", 3, "none9"),
        ("load udp mmsg 127.0.0.1 --mode open", 2, "--rate"),
        ("load udp mmsg 127.0.0.1 --mode open --rate 0", 2, "--rate 0"),
        ("load udp mmsg 127.0.0.1 --mode open --rate 9 --wait sleep", 2, "--wait spin"),
        ("load udp mmsg 127.0.0.1 --flows 2 --wait sleep", 2, "--wait spin"),
        ("load udp mmsg 127.0.0.1 --payload-bytes 8", 2, "16 to 1472"),
        ("load udp mmsg 127.0.0.1 --seconds -1", 2, "--seconds"),
        ("load udp memory:x 127.0.0.1", 2, "--address"),
    ] {
        let output = run(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words}: {stderr}");
        assert!(stderr.contains(told), "{words}: {stderr}");
    }
}
