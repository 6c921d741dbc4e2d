//! What was learnt, for people.

use rxrpc::wire::debug::{
    CallMode, CallState, Connection, PACKET_TYPE_NAMES, Peer, RxStatistics, Stats, Time,
};
use std::fmt::{self, Write};

/// Writes basic figures.
pub fn stats(out: &mut String, stats: &Stats) -> fmt::Result {
    let Stats { free_packets, packets, packet_reclaims, calls_executed, .. } = stats;
    let since = |version| stats.version >= version;
    write!(out, "packets      {free_packets} free")?;
    if since(b'S') {
        write!(out, " of {packets}")?;
    }
    let waits = if stats.waiting_for_packets == 0 { "nobody waits" } else { "somebody waits" };
    writeln!(out, ", {packet_reclaims} reclaims, {waits} for packets, {} file descriptors", stats.used_fds)?;
    write!(out, "calls        {calls_executed} executed")?;
    if since(b'N') {
        write!(out, ", {} waiting for a thread", stats.waiting_calls)?;
    }
    if since(b'R') {
        write!(out, ", {} have waited", stats.waited_calls)?;
    }
    if since(b'O') {
        write!(out, ", {} threads idle", stats.idle_threads)?;
    }
    writeln!(out)
}

/// Writes all counters.
pub fn rx_statistics(out: &mut String, s: &RxStatistics) -> fmt::Result {
    writeln!(
        out,
        "buffers      {} taken, refused: receive {}/{}, send {}/{}, other {}; {} packets dropped for lack of one",
        s.packet_requests,
        s.receive_alloc_failures,
        s.receive_cbuf_failures,
        s.send_alloc_failures,
        s.send_cbuf_failures,
        s.special_alloc_failures,
        s.no_buffer_drops
    )?;
    writeln!(
        out,
        "socket       greedy {}, {} empty reads, {} selects, {} send selects, {} failed sends, {} fatal errors",
        s.socket_greedy, s.empty_reads, s.selects, s.send_selects, s.send_failures, s.fatal_errors
    )?;
    let [a, b, c, d] = s.bogus_host.to_be_bytes();
    writeln!(out, "bogus        {} packets, the last from {a}.{b}.{c}.{d}", s.bogus_packets)?;
    by_type(out, "read", &s.packets_read)?;
    writeln!(
        out,
        "             data {}, acks {}, duplicates {}, spurious {}, for calls that were over {}",
        s.data_read, s.acks_read, s.duplicates_read, s.spurious_read, s.dally_drops
    )?;
    by_type(out, "sent", &s.packets_sent)?;
    writeln!(
        out,
        "             data {}, resent {}, pushed {}, acked and not resent {}, acks {}, pings {}, aborts {}, busies {} ({} calls)",
        s.data_sent,
        s.data_resent,
        s.data_pushed,
        s.acked_not_resent,
        s.acks_sent,
        s.pings_sent,
        s.aborts_sent,
        s.busies_sent,
        s.busies
    )?;
    if s.rtt_samples > 0 {
        let mean = seconds(s.rtt_total) / f64::from(s.rtt_samples);
        writeln!(
            out,
            "round trips  {} taken, mean {mean:.3} s, least {:.3} s, greatest {:.3} s",
            s.rtt_samples,
            seconds(s.rtt_min),
            seconds(s.rtt_max)
        )?;
    }
    writeln!(
        out,
        "objects      {} server and {} client connections, {} peers, {} calls, {} free calls",
        s.server_connections, s.client_connections, s.peers, s.calls, s.free_calls
    )
}

fn seconds(time: Time) -> f64 {
    f64::from(time.seconds) + f64::from(time.microseconds) / 1e6
}

fn by_type(out: &mut String, what: &str, counters: &[u32; 13]) -> fmt::Result {
    write!(out, "{what:<12}")?;
    for (name, count) in PACKET_TYPE_NAMES.iter().zip(counters).filter(|(name, _)| **name != "unused") {
        write!(out, " {name} {count}")?;
    }
    writeln!(out)
}

/// Writes one connection and its channels.
pub fn connection(out: &mut String, conn: &Connection) -> fmt::Result {
    let role = if conn.role == Connection::CLIENT { "client" } else { "server" };
    write!(
        out,
        "connection   {:x}/{:x} {role} of {}:{}, serial {}, mtu {}, security {}",
        conn.epoch, conn.cid, conn.host, conn.port, conn.serial, conn.mtu, conn.security_index
    )?;
    if conn.error != 0 {
        write!(out, ", error {}", conn.error)?;
    }
    names(out, u16::from(conn.flags), &CONN_FLAGS)?;
    writeln!(out)?;
    security(out, conn)?;
    for channel in 0..4 {
        call(out, conn, channel)?;
    }
    Ok(())
}

/// Bits of a connection's flags, lowest first.
const CONN_FLAGS: [&str; 7] = [
    "call waits for a channel",
    "to be destroyed",
    "packets have checksums",
    "window known",
    "reset",
    "busy",
    "waits for reachability",
];
/// Bits of a call's flags, lowest first.
const CALL_FLAGS: [&str; 7] = [
    "reader waits",
    "waits for window to fill",
    "waits for window to send",
    "waits for packets",
    "waits for a thread",
    "all received",
    "cleared",
];

fn names(out: &mut String, bits: u16, names: &[&str]) -> fmt::Result {
    for (bit, name) in names.iter().enumerate() {
        if bits & 1 << bit != 0 {
            write!(out, ", {name}")?;
        }
    }
    Ok(())
}

fn security(out: &mut String, conn: &Connection) -> fmt::Result {
    let s = &conn.security;
    let kind = match s.kind {
        0 => return Ok(()),
        1 => "none",
        2 => "vab",
        3 => "rxkad",
        4 => "rxgk",
        _ => "unknown",
    };
    let level = ["clear", "auth", "crypt"].get(usize::from(s.level)).unwrap_or(&"unknown");
    write!(out, "  security {kind}, level {level}")?;
    names(out, s.flags as u16, &["unallocated", "authenticated", "expired", "packets have checksums"])?;
    if s.expires != 0 {
        write!(out, ", ticket until {} s after 1970", s.expires)?;
    }
    writeln!(
        out,
        ", received {} bytes in {} packets, sent {} bytes in {}",
        s.bytes_received, s.packets_received, s.bytes_sent, s.packets_sent
    )
}

fn call(out: &mut String, conn: &Connection, channel: usize) -> fmt::Result {
    let number = conn.call_number[channel];
    let state = match CallState::from_u8(conn.call_state[channel]) {
        Some(CallState::NotInitialised) => {
            return writeln!(out, "  channel {channel}  call {number}, not in use");
        }
        Some(CallState::Precall) => "precall",
        Some(CallState::Active) => "active",
        Some(CallState::Dally) => "dally",
        Some(CallState::Hold) => "hold",
        Some(CallState::Reset) => "reset",
        None => "unknown state",
    };
    let mode = match CallMode::from_u8(conn.call_mode[channel]) {
        Some(CallMode::None) => "idle",
        Some(CallMode::Sending) => "sending",
        Some(CallMode::Receiving) => "receiving",
        Some(CallMode::Error) => "error",
        Some(CallMode::Eof) => "eof",
        None => "unknown mode",
    };
    write!(out, "  channel {channel}  call {number}, {state}, {mode}")?;
    names(out, u16::from(conn.call_flags[channel]), &CALL_FLAGS)?;
    names(out, u16::from(conn.call_other[channel]), &["has input", "has output"])?;
    writeln!(out)
}

/// Writes one peer.
pub fn peer(out: &mut String, peer: &Peer) -> fmt::Result {
    writeln!(
        out,
        "peer         {}:{}, {} references, mtu {} (interface {}, nat {}, most {})",
        peer.host, peer.port, peer.references, peer.mtu, peer.if_mtu, peer.nat_mtu, peer.max_mtu
    )?;
    writeln!(
        out,
        "  packets    {} sent, {} resent; bytes {} sent, {} received",
        peer.sent, peer.resent, peer.bytes_sent, peer.bytes_received
    )?;
    writeln!(
        out,
        "  round trip {} ms, deviation {} ms; congestion window {}, jumbograms of {} (interface {}, most {})",
        peer.rtt >> 3,
        peer.rtt_deviation >> 2,
        peer.congestion_window,
        peer.datagram_packets,
        peer.if_datagram_packets,
        peer.max_datagram_packets
    )
}
