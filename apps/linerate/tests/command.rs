//! `rxline linerate` by its arguments: what it exits with.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: linerate::cli::Args,
}

/// Runs a line of words; what it would exit with.
fn exit(line: &str) -> ExitCode {
    match Command::try_parse_from(["linerate"].into_iter().chain(line.split_whitespace())) {
        Ok(command) => linerate::cli::run(command.args),
        // clap's own, for arguments that cannot be meant.
        Err(error) => ExitCode::from(error.exit_code() as u8),
    }
}

#[test]
fn the_arguments_are_sound() {
    Command::command().debug_assert();
}

#[test]
fn what_was_asked_was_done() {
    for line in [
        "generate --port memory:c1 --port memory:c1 --rate 20kpps --frames 500 --size imix --json",
        "generate --port memory:c2 --port memory:c2 --rate 10kpps --duration 0.2 --one-way --source random:10.0.0.0/8",
        "generate --port memory:c3 --port memory:c3 --rate 20Mbit --duration 0.2 --size 9000 --mtu 9000",
        "generate --port memory:c4 --port memory:c4 --frames 100 --vlan 5 --sizes 88,1518 --source ::1 --destination ::2",
        "generate --port sim:loss=0.1@memory:c5 --port memory:c5 --rate 20kpps --frames 2000 --loss-tolerance 30",
        "txonly --port null: --rate 10kpps --duration 0.2 --source-port 1024-2047",
        "rxonly --port null: --duration 0.1",
        "forward --mode 5tuple --port null:rx=60 --duration 0.1",
        "icmp --port null: --address 192.0.2.1,2001:db8::1 --duration 0.1",
    ] {
        assert_eq!(exit(line), ExitCode::SUCCESS, "{line}");
    }
}

#[test]
fn more_was_lost_than_may_be() {
    for line in [
        "generate --port sim:loss=0.1@memory:f1 --port memory:f1 --rate 20kpps --frames 2000 --loss-tolerance 1",
        "generate --port sim:corrupt=0.1@memory:f2 --port memory:f2 --rate 20kpps --frames 2000",
        // What comes is not what was sent.
        "generate --port null: --rate 20kpps --frames 100",
    ] {
        assert_eq!(exit(line), ExitCode::from(1), "{line}");
    }
}

#[test]
fn what_cannot_be_meant_is_a_usage_error_and_what_is_missing_is_not() {
    for (line, code) in [
        ("generate --port memory:u1 --rate 50%", 2),
        ("generate --port memory:u2 --size 63", 2),
        ("generate --port memory:u3 --size 9000", 2),
        ("generate --port memory:u4 --rate fast", 2),
        ("generate --port memory:u5 --source 192.0.2.1 --destination ::1", 2),
        ("txonly --port nonsense:x", 2),
        ("icmp --port null:", 2),
        ("forward", 2),
        ("rxonly --port af_packet:nosuchinterface", 3),
        // Nobody is at the other end, and nobody comes.
        ("generate --port memory:u6 --rate 20kpps --frames 100", 3),
        ("replay /nonexistent.pcap --port null:", 3),
    ] {
        assert_eq!(exit(line), ExitCode::from(code), "{line}");
    }
}
