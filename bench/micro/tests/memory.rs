//! What the programs say of memory, which only a process of its own can be held to: tests that share one share its memory too.

use std::process::Command;

use serde_json::Value;

/// The figures of `micro` with these words, and the first CPU that we may use for each `CPU`.
fn run(words: &str) -> Value {
    let cpu = core_affinity::get_core_ids().expect("CPUs")[0].id.to_string();
    let words = words.replace("CPU", &cpu);
    println!("micro {words}");
    let output = Command::new(env!("CARGO_BIN_EXE_micro")).args(words.split(' ')).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a JSON object")
}

/// One after the other: their cores spin, on one CPU.
#[test]
fn connections_and_sockets_take_memory_and_not_too_much() {
    let idle = run("idle 20000 CPU");
    let bytes_each = idle["bytes_each"].as_f64().unwrap();
    assert!((200.0..20_000.0).contains(&bytes_each), "{idle}");
    for words in [
        "cost-calls --connections 3000 --in-flight 64 --server-cpus CPU --client-cpus CPU --seconds 0.1",
        "cost-sockets 5000 CPU CPU --seconds 0.1",
    ] {
        let cost = run(words);
        let bytes = |name: &str| cost[name].as_u64().unwrap();
        assert!(bytes("resident_bytes") > bytes("before_bytes"), "{cost}");
    }
}
