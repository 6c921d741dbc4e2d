//! A connection: four channels, each with a call or the memory of its last one.

use crate::security::{ConnSecurity, Place};
use crate::slab::Recycle;
use crate::timer::Timer;
use crate::upgrade;
use crate::wire::{AckReason, Cid, Flags, Header, PacketType};
use crate::{BundleId, CallId, ConnId, ConnView, LocalId, PeerId, Role};
use pmd::Instant;
use siphasher::sip::SipHasher13;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What a channel remembers of its last call, to answer duplicates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Last {
    /// There was none yet.
    #[default]
    Nothing,
    /// It ended well: what is expected next of what the peer sent, and the highest that came.
    Ack { next: u32, highest: u32 },
    /// It was aborted.
    Abort { code: i32 },
}

/// A channel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Channel {
    pub call: Option<CallId>,
    /// Number of the call, or of the last one.
    pub number: u32,
    pub last: Last,
    /// An answer from memory is owed: an ACK for this reason and serial, or the abort.
    pub reply: Option<(AckReason, u32)>,
    /// The abort of the call before this one, where the next call began before it was sent.
    pub abort_before: Option<i32>,
    /// The ACK of a whole reply falls due then, unless the next call makes it needless.
    pub final_ack: Option<Instant>,
}

impl Channel {
    /// Whether an answer is owed.
    pub fn owes(&self) -> bool {
        self.reply.is_some() || self.abort_before.is_some()
    }
}

/// A connection.
#[derive(Debug)]
pub struct Conn {
    pub id: ConnId,
    pub role: Role,
    pub local: LocalId,
    pub peer: PeerId,
    pub addr: SocketAddr,
    pub epoch: u32,
    pub cid: Cid,
    pub service: u16,
    /// The service that its client asked for first: another one after an upgrade.
    pub asked_service: u16,
    /// Ours: no answer has come yet to the question for a service upgrade.
    pub asks_upgrade: bool,
    /// For one call alone.
    pub exclusive: bool,
    pub security: ConnSecurity,
    /// Serial of the last packet sent.
    pub serial: u32,
    pub channels: [Channel; 4],
    /// The bundle of a client connection.
    pub bundle: Option<BundleId>,
    /// When it last carried a call.
    pub used: Instant,
    pub timer: Timer,
    pub wake_at: Option<Instant>,
    /// It waits for its turn to send.
    pub queued: bool,
}

impl Default for Conn {
    fn default() -> Self {
        Self {
            id: ConnId::default(),
            role: Role::Client,
            local: LocalId::default(),
            peer: PeerId::default(),
            addr: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            epoch: 0,
            cid: Cid(0),
            service: 0,
            asked_service: 0,
            asks_upgrade: false,
            exclusive: false,
            security: ConnSecurity::default(),
            serial: 0,
            channels: [Channel::default(); 4],
            bundle: None,
            used: Instant::default(),
            timer: Timer::default(),
            wake_at: None,
            queued: false,
        }
    }
}

impl Recycle for Conn {
    fn recycle(&mut self) {
        *self = Self::default();
    }
}

impl Conn {
    /// The header of the next packet on a channel. Takes a serial.
    pub fn header(&mut self, packet_type: PacketType, channel: usize, call: u32) -> Header {
        self.serial = self.serial.wrapping_add(1);
        Header {
            epoch: self.epoch,
            cid: self.cid.with_channel(channel),
            call,
            serial: self.serial,
            flags: if self.role == Role::Client { Flags::CLIENT_INITIATED } else { Flags::NONE },
            user_status: if self.asks_upgrade && packet_type == PacketType::Data { upgrade::ASKS } else { 0 },
            security_index: self.security.index(),
            service: self.service,
            ..Header::new(packet_type)
        }
    }

    /// Whether no channel has a call.
    pub fn unused(&self) -> bool {
        self.channels.iter().all(|channel| channel.call.is_none())
    }

    /// Whether a channel owes an answer.
    pub fn owes(&self) -> bool {
        self.channels.iter().any(Channel::owes)
    }

    /// Where a RESPONSE on it belongs.
    pub fn place(&self) -> Place {
        Place { epoch: self.epoch, cid: self.cid, calls: self.channels.map(|channel| channel.number) }
    }

    /// The key under which it is found.
    pub fn key(&self) -> ConnKey {
        ConnKey::new(self.role, self.local, self.addr, self.epoch, self.cid)
    }

    pub fn view(&self, local_addr: SocketAddr) -> ConnView {
        ConnView {
            id: self.id,
            role: self.role,
            local: self.local,
            local_addr,
            peer: self.addr,
            epoch: self.epoch,
            cid: self.cid.0,
            service: self.service,
            security: self.security.index(),
            level: self.security.level(),
            serial: self.serial,
            error: None,
            call_numbers: self.channels.map(|channel| channel.number),
            calls: self.channels.map(|channel| channel.call),
            used: self.used,
        }
    }
}

/// (epoch, cid, peer, local address, side) as bytes, hashed in one go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnKey([u8; 32]);

impl ConnKey {
    #[inline]
    pub fn new(role: Role, local: LocalId, peer: SocketAddr, epoch: u32, cid: Cid) -> Self {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&epoch.to_ne_bytes());
        key[4..8].copy_from_slice(&(cid.connection().0 | (role == Role::Service) as u32).to_ne_bytes());
        key[8..10].copy_from_slice(&peer.port().to_ne_bytes());
        key[10..14].copy_from_slice(&(local.slot() as u32).to_ne_bytes());
        match peer.ip() {
            IpAddr::V4(ip) => key[16..20].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => {
                key[14] = 1;
                key[16..].copy_from_slice(&ip.octets());
            }
        }
        Self(key)
    }
}

impl Hash for ConnKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// The connections found last: packets come in bursts, of a few connections each, and a keyed hash costs more than all the rest
/// of a look-up. Peers choose the bits that decide the place; one that puts others out of theirs has them hashed, and no more.
#[derive(Debug, Default)]
pub struct RecentConns([Option<(ConnKey, ConnId)>; RECENT]);

/// A power of two; the connections of eight busy clients.
const RECENT: usize = 32;

impl RecentConns {
    #[inline]
    pub fn get(&self, key: &ConnKey) -> Option<ConnId> {
        self.0[Self::place(key)].filter(|(known, _)| known == key).map(|(_, id)| id)
    }

    pub fn put(&mut self, key: ConnKey, id: ConnId) {
        self.0[Self::place(&key)] = Some((key, id));
    }

    /// The connection is gone.
    pub fn forget(&mut self, key: &ConnKey) {
        let place = &mut self.0[Self::place(key)];
        if place.is_some_and(|(known, _)| known == *key) {
            *place = None;
        }
    }

    /// Connections of one client differ in their ids, and those of many in their ports too.
    #[inline]
    fn place(key: &ConnKey) -> usize {
        let cid = u32::from_ne_bytes([key.0[4], key.0[5], key.0[6], key.0[7]]);
        let port = u16::from_ne_bytes([key.0[8], key.0[9]]);
        ((cid >> 2) as usize ^ usize::from(port)) % RECENT
    }
}

/// SipHash under the endpoint's own key: peers choose the ids that are hashed, and must not choose the buckets.
#[derive(Clone, Copy, Debug)]
pub struct KeyedHash(pub u64, pub u64);

impl BuildHasher for KeyedHash {
    type Hasher = SipHasher13;
    #[inline]
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recent_connection_is_found_by_its_whole_key_until_it_is_gone_or_displaced() {
        use crate::slab::Key;
        let peer = SocketAddr::from(([10, 0, 0, 2], 7001));
        let key = |cid| ConnKey::new(Role::Service, LocalId::default(), peer, 7, Cid(cid << 2));
        let (first, second) = (ConnId::new(1, 1), ConnId::new(2, 1));
        let mut recent = RecentConns::default();
        recent.put(key(1), first);
        recent.put(key(2), second);
        assert_eq!((recent.get(&key(1)), recent.get(&key(2))), (Some(first), Some(second)));
        let rival = key(1 + RECENT as u32);
        assert_eq!(recent.get(&rival), None, "the same place and another connection");
        recent.forget(&rival);
        assert_eq!(recent.get(&key(1)), Some(first), "forgetting another one changes nothing");
        recent.put(rival, second);
        assert_eq!((recent.get(&rival), recent.get(&key(1))), (Some(second), None));
        recent.forget(&rival);
        assert_eq!(recent.get(&rival), None);
    }

    /// 12. Ids that a peer chose so that they share a bucket under one key are spread under another, and so over ours, which it
    ///     does not know.
    #[test]
    fn ids_chosen_for_one_bucket_are_spread_under_another_key() {
        const BUCKETS: u64 = 256;
        let (known, ours) = (KeyedHash(1, 2), KeyedHash(3, 4));
        let peer = SocketAddr::from(([10, 0, 0, 2], 7001));
        let key = |cid| ConnKey::new(Role::Service, LocalId::default(), peer, 7, Cid(cid << 2));
        let bucket = |hash: KeyedHash, cid| hash.hash_one(key(cid)) % BUCKETS;
        let stuffed: Vec<u32> = (0..100_000).filter(|&cid| bucket(known, cid) == 0).collect();
        assert!(stuffed.len() > 300, "{} ids that share a bucket", stuffed.len());
        let mut loads = [0; BUCKETS as usize];
        stuffed.iter().for_each(|&cid| loads[bucket(ours, cid) as usize] += 1);
        let most = loads.into_iter().max().unwrap();
        assert!(most < 12, "{most} of {} in one bucket", stuffed.len());
    }
}
