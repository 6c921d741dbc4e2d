//! What was learnt, for programs. Names are those of the records in `rxrpc::wire::debug`.

use rxrpc::wire::debug::{Connection, PACKET_TYPE_NAMES, Peer, RxStatistics, Stats, Time};
use serde_json::{Map, Value, json};

pub fn stats(s: &Stats) -> Value {
    json!({
        "layout_version": (s.version as char).to_string(),
        "free_packets": s.free_packets,
        "packets": s.packets,
        "packet_reclaims": s.packet_reclaims,
        "waiting_for_packets": s.waiting_for_packets != 0,
        "used_fds": s.used_fds,
        "calls_executed": s.calls_executed,
        "waiting_calls": s.waiting_calls,
        "waited_calls": s.waited_calls,
        "idle_threads": s.idle_threads,
    })
}

pub fn rx_statistics(s: &RxStatistics) -> Value {
    json!({
        "packet_requests": s.packet_requests,
        "receive_alloc_failures": s.receive_alloc_failures,
        "send_alloc_failures": s.send_alloc_failures,
        "special_alloc_failures": s.special_alloc_failures,
        "receive_cbuf_failures": s.receive_cbuf_failures,
        "send_cbuf_failures": s.send_cbuf_failures,
        "socket_greedy": s.socket_greedy,
        "bogus_packets": s.bogus_packets,
        "bogus_host": std::net::Ipv4Addr::from(s.bogus_host),
        "empty_reads": s.empty_reads,
        "no_buffer_drops": s.no_buffer_drops,
        "selects": s.selects,
        "send_selects": s.send_selects,
        "packets_read": by_type(&s.packets_read),
        "data_read": s.data_read,
        "acks_read": s.acks_read,
        "duplicates_read": s.duplicates_read,
        "spurious_read": s.spurious_read,
        "dally_drops": s.dally_drops,
        "packets_sent": by_type(&s.packets_sent),
        "acks_sent": s.acks_sent,
        "pings_sent": s.pings_sent,
        "aborts_sent": s.aborts_sent,
        "busies_sent": s.busies_sent,
        "data_sent": s.data_sent,
        "data_resent": s.data_resent,
        "data_pushed": s.data_pushed,
        "acked_not_resent": s.acked_not_resent,
        "rtt_total_us": microseconds(s.rtt_total),
        "rtt_min_us": microseconds(s.rtt_min),
        "rtt_max_us": microseconds(s.rtt_max),
        "rtt_samples": s.rtt_samples,
        "server_connections": s.server_connections,
        "client_connections": s.client_connections,
        "peers": s.peers,
        "calls": s.calls,
        "free_calls": s.free_calls,
        "send_failures": s.send_failures,
        "fatal_errors": s.fatal_errors,
        "busies": s.busies,
    })
}

fn microseconds(time: Time) -> u64 {
    u64::from(time.seconds) * 1_000_000 + u64::from(time.microseconds)
}

fn by_type(counters: &[u32; 13]) -> Value {
    let named = PACKET_TYPE_NAMES.iter().zip(counters).filter(|(name, _)| **name != "unused");
    named.map(|(name, count)| (name.to_string(), Value::from(*count))).collect::<Map<_, _>>().into()
}

pub fn connection(c: &Connection) -> Value {
    let channel = |at: usize| {
        json!({
            "call": c.call_number[at],
            "state": c.call_state[at],
            "mode": c.call_mode[at],
            "flags": c.call_flags[at],
            "has_input": c.call_other[at] & Connection::DATA_IN != 0,
            "has_output": c.call_other[at] & Connection::DATA_OUT != 0,
        })
    };
    json!({
        "host": c.host,
        "port": c.port,
        "epoch": c.epoch,
        "cid": c.cid,
        "serial": c.serial,
        "error": c.error,
        "flags": c.flags,
        "role": if c.role == Connection::CLIENT { "client" } else { "server" },
        "mtu": c.mtu,
        "security_index": c.security_index,
        "security": {
            "kind": c.security.kind,
            "level": c.security.level,
            "flags": c.security.flags,
            "expires": c.security.expires,
            "packets_received": c.security.packets_received,
            "packets_sent": c.security.packets_sent,
            "bytes_received": c.security.bytes_received,
            "bytes_sent": c.security.bytes_sent,
        },
        "channels": [channel(0), channel(1), channel(2), channel(3)],
    })
}

pub fn peer(p: &Peer) -> Value {
    json!({
        "host": p.host,
        "port": p.port,
        "if_mtu": p.if_mtu,
        "nat_mtu": p.nat_mtu,
        "max_mtu": p.max_mtu,
        "mtu": p.mtu,
        "idle_since": p.idle_since,
        "references": p.references,
        "rtt_ms": f64::from(p.rtt) / 8.0,
        "rtt_deviation_ms": f64::from(p.rtt_deviation) / 4.0,
        "sent": p.sent,
        "resent": p.resent,
        "max_datagram_packets": p.max_datagram_packets,
        "if_datagram_packets": p.if_datagram_packets,
        "datagram_packets": p.datagram_packets,
        "congestion_window": p.congestion_window,
        "congestion_seq": p.congestion_seq,
        "bytes_sent": p.bytes_sent,
        "bytes_received": p.bytes_received,
    })
}
