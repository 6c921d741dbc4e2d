//! The local addresses of one core's endpoint: which socket cookie of the engine means which [`LocalId`].

use std::net::{IpAddr, SocketAddr};

use crate::LocalId;

/// One local address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local {
    pub(crate) cookie: u64,
    pub(crate) id: LocalId,
    pub(crate) addr: SocketAddr,
    /// A port for clients to call from.
    pub(crate) client: bool,
    /// The app is shown its datagrams first.
    pub(crate) gate: bool,
}

/// A core's locals, ordered by cookie. They change when an address is opened or closed; a packet looks one up.
#[derive(Default)]
pub(crate) struct Locals {
    list: Vec<Local>,
}

impl Locals {
    /// Cookies are given in rising order, so this is a push as a rule.
    pub(crate) fn insert(&mut self, local: Local) {
        let at = self.list.partition_point(|other| other.cookie < local.cookie);
        self.list.insert(at, local);
    }

    pub(crate) fn remove(&mut self, cookie: u64) -> Option<Local> {
        let at = self.list.binary_search_by_key(&cookie, |local| local.cookie).ok()?;
        Some(self.list.remove(at))
    }

    pub(crate) fn by_cookie(&self, cookie: u64) -> Option<&Local> {
        // Nearly always one of a handful of addresses: the search is two or three steps.
        let at = self.list.binary_search_by_key(&cookie, |local| local.cookie).ok()?;
        Some(&self.list[at])
    }

    pub(crate) fn by_addr(&self, addr: SocketAddr) -> Option<LocalId> {
        self.list.iter().find(|local| local.addr == addr).map(|local| local.id)
    }

    /// The first client port of the peer's family that `ours` accepts, on the address `source` if that is known.
    pub(crate) fn client(
        &self,
        peer: SocketAddr,
        source: Option<IpAddr>,
        mut ours: impl FnMut(SocketAddr) -> bool,
    ) -> Option<LocalId> {
        let fits = |local: &&Local| {
            local.client
                && local.addr.is_ipv4() == peer.is_ipv4()
                && source.is_none_or(|source| local.addr.ip() == source)
        };
        self.list.iter().filter(fits).find(|local| ours(local.addr)).map(|local| local.id)
    }
}
