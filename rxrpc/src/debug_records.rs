//! What rxdebug is told: the endpoint's own figures in OpenAFS's records.
//!
//! Figures that this endpoint does not have are zero: it waits for no packets, has no threads to be idle and reads no
//! empty sockets. Counters wrap as OpenAFS's do.

use crate::call::Call;
use crate::endpoint::Endpoint;
use crate::wire::PacketType;
use crate::wire::debug::{
    CallMode, CallState, Connection, DebugKind, DebugReply, DebugRequest, Peer, RxStatistics, Stats, Time,
};
use crate::{Role, RxDrop};
use pmd::Pool;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

impl Endpoint {
    pub(crate) fn debug_reply(&self, pool: &mut Pool, request: &DebugRequest) -> DebugReply {
        let index = request.index as usize;
        match request.kind {
            Err(_) => DebugReply::UnknownKind,
            Ok(DebugKind::Stats) => DebugReply::Stats(self.debug_stats(pool)),
            Ok(DebugKind::Connection) => self.debug_conn(index, true),
            Ok(DebugKind::AnyConnection) => self.debug_conn(index, false),
            Ok(DebugKind::RxStatistics) => DebugReply::RxStatistics(self.debug_counters()),
            Ok(DebugKind::Peer) => self.debug_peer(index),
        }
    }

    fn debug_stats(&self, pool: &mut Pool) -> Stats {
        let waiting: usize = self.bundles.iter().map(|(_, bundle)| bundle.waiting.len()).sum();
        let charged =
            self.locals.iter().flat_map(|(_, local)| &local.services).map(|service| service.charged);
        Stats {
            free_packets: pool.available() as u32,
            packets: pool.capacity() as u32,
            calls_executed: self.shared.stats.calls_accepted as u32,
            waiting_calls: waiting as u32,
            waited_calls: self.shared.stats.calls_waited as u32,
            // The nearest that we have to a thread that waits for a call.
            idle_threads: charged.sum::<usize>() as u32,
            ..Stats::default()
        }
    }

    fn debug_conn(&self, index: usize, in_use: bool) -> DebugReply {
        let found = self.conns.iter().filter(|(_, conn)| !in_use || !conn.unused()).nth(index);
        let Some((_, conn)) = found else { return DebugReply::NoConnection };
        let mut record = Connection {
            host: ipv4(conn.addr),
            port: conn.addr.port(),
            cid: conn.cid.0,
            serial: conn.serial,
            epoch: conn.epoch,
            role: if conn.role == Role::Service { Connection::SERVER } else { Connection::CLIENT },
            security_index: conn.security.index(),
            mtu: self.shared.config.mtu,
            ..Connection::default()
        };
        for (at, channel) in conn.channels.iter().enumerate() {
            record.call_number[at] = channel.number;
            let call = channel.call.and_then(|call| self.calls.get(call));
            let (state, mode) = debug_call(call, channel.number);
            (record.call_state[at], record.call_mode[at]) = (state as u8, mode as u8);
            if let Some(call) = call {
                let data_in = if call.recv.ready() > 0 { Connection::DATA_IN } else { 0 };
                let data_out = if call.send.len() > 0 { Connection::DATA_OUT } else { 0 };
                record.call_other[at] = data_in | data_out;
            }
        }
        DebugReply::Connection(record)
    }

    fn debug_peer(&self, index: usize) -> DebugReply {
        let Some((_, peer)) = self.peers.iter().nth(index) else { return DebugReply::NoPeer };
        let mtu = |mtu: u32| u16::try_from(mtu).unwrap_or(u16::MAX);
        let ours = self.shared.config.mtu;
        DebugReply::Peer(Peer {
            host: ipv4(peer.addr),
            port: peer.addr.port(),
            references: u16::try_from(peer.refs).unwrap_or(u16::MAX),
            // OpenAFS keeps the round trip in eighths of a millisecond and its deviation in quarters.
            rtt: (peer.rtt.smoothed().unwrap_or_default().as_micros() * 8 / 1000) as u32,
            rtt_deviation: (peer.rtt.deviation().as_micros() * 4 / 1000) as u32,
            sent: peer.packets_sent as u32,
            resent: peer.retransmits as u32,
            if_mtu: mtu(ours),
            nat_mtu: mtu(ours),
            max_mtu: mtu(peer.max_mtu),
            mtu: mtu(peer.max_mtu.min(ours)),
            max_datagram_packets: peer.jumbo_max as u16,
            if_datagram_packets: self.shared.config.jumbo_max as u16,
            datagram_packets: 1,
            bytes_sent: peer.bytes_sent,
            bytes_received: peer.bytes_received,
            ..Peer::default()
        })
    }

    fn debug_counters(&self) -> RxStatistics {
        let stats = &self.shared.stats;
        let by_type = |counts: &[u64; crate::PACKET_TYPES]| std::array::from_fn(|at| counts[at + 1] as u32);
        let sent = |kind: PacketType| stats.sent[kind as usize] as u32;
        let dropped =
            |reasons: &[RxDrop]| reasons.iter().map(|&reason| stats.dropped(reason)).sum::<u64>() as u32;
        RxStatistics {
            bogus_packets: dropped(&[RxDrop::BadHeader, RxDrop::BadPacket, RxDrop::BadJumbo]),
            no_buffer_drops: dropped(&[RxDrop::NoBuffers]),
            packets_read: by_type(&stats.received),
            data_read: stats.data_new as u32,
            acks_read: stats.received[PacketType::Ack as usize] as u32,
            duplicates_read: stats.data_duplicate as u32,
            spurious_read: dropped(&[RxDrop::NoConnection, RxDrop::NoCall, RxDrop::OldCall, RxDrop::MidCall]),
            packets_sent: by_type(&stats.sent),
            acks_sent: sent(PacketType::Ack),
            pings_sent: stats.pings_sent as u32,
            aborts_sent: sent(PacketType::Abort),
            busies_sent: sent(PacketType::Busy),
            data_sent: stats.data_sent as u32,
            data_resent: stats.data_resent as u32,
            data_pushed: stats.fast_retransmits as u32,
            send_alloc_failures: stats.no_buffer_on_send as u32,
            rtt_total: time(stats.rtt_sum),
            rtt_min: time(stats.rtt_min.unwrap_or_default()),
            rtt_max: time(stats.rtt_max),
            rtt_samples: stats.rtt_samples as u32,
            server_connections: self.conns.iter().filter(|(_, conn)| conn.role == Role::Service).count()
                as u32,
            client_connections: self.conns.iter().filter(|(_, conn)| conn.role == Role::Client).count()
                as u32,
            peers: self.peers.len() as u32,
            calls: self.calls.len() as u32,
            busies: dropped(&[RxDrop::Busy, RxDrop::Limit]),
            ..RxStatistics::default()
        }
    }
}

fn time(duration: Duration) -> Time {
    Time { seconds: duration.as_secs() as u32, microseconds: duration.subsec_micros() }
}

fn ipv4(addr: SocketAddr) -> Ipv4Addr {
    match addr.ip() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(ip) => ip.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
    }
}

/// A channel in OpenAFS's terms.
fn debug_call(call: Option<&Call>, number: u32) -> (CallState, CallMode) {
    use crate::CallState as Ours;
    let Some(call) = call else {
        return if number == 0 {
            (CallState::NotInitialised, CallMode::None)
        } else {
            (CallState::Dally, CallMode::Eof)
        };
    };
    match call.state() {
        Ours::ServiceSecuring => (CallState::Precall, CallMode::Receiving),
        Ours::Waiting | Ours::ClientSend | Ours::ServiceSend => (CallState::Active, CallMode::Sending),
        Ours::ClientAwaitReply | Ours::ClientReceive => (CallState::Active, CallMode::Receiving),
        Ours::ServiceReceive | Ours::ServiceWork => (CallState::Active, CallMode::Receiving),
        Ours::ServiceAwaitAck => (CallState::Hold, CallMode::Eof),
        Ours::Complete => (CallState::Dally, CallMode::Eof),
    }
}
