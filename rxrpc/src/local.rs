//! A local address and the services on it.

use crate::slab::Recycle;
use crate::{ListenError, LocalId, LocalView, ServiceConfig};
use std::net::{Ipv4Addr, SocketAddr};

/// A service and the accepts charged for it.
#[derive(Debug)]
pub struct Service {
    pub config: ServiceConfig,
    pub charged: usize,
}

/// A local address.
#[derive(Debug)]
pub struct Local {
    pub addr: SocketAddr,
    /// A handful; searched in order.
    pub services: Vec<Service>,
    /// Connections on it.
    pub conns: usize,
    /// It was removed, and waits for its last aborts to be sent.
    pub closing: bool,
}

impl Default for Local {
    fn default() -> Self {
        let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self { addr, services: Vec::new(), conns: 0, closing: false }
    }
}

impl Recycle for Local {
    fn recycle(&mut self) {
        *self = Self::default();
    }
}

impl Local {
    pub fn service(&mut self, service: u16) -> Option<&mut Service> {
        self.services.iter_mut().find(|offered| offered.config.service == service)
    }

    /// Offers a service; one that recharges itself starts fully charged.
    pub fn listen(&mut self, config: ServiceConfig) -> Result<(), ListenError> {
        if config.service == 0 {
            return Err(ListenError::Reserved);
        }
        if self.service(config.service).is_some() {
            return Err(ListenError::ServiceInUse { service: config.service });
        }
        let charged = if config.auto_charge { config.backlog } else { 0 };
        self.services.push(Service { config, charged });
        Ok(())
    }

    pub fn unlisten(&mut self, service: u16) -> Result<(), ListenError> {
        let at = self.services.iter().position(|offered| offered.config.service == service);
        self.services.remove(at.ok_or(ListenError::UnknownService { service })?);
        Ok(())
    }

    pub fn view(&self, id: LocalId) -> LocalView {
        let services =
            self.services.iter().map(|service| (service.config.clone(), service.charged)).collect();
        LocalView { id, addr: self.addr, conns: self.conns, services }
    }
}

impl Service {
    /// Charges `n` more accepts; none if they do not all fit.
    pub fn charge(&mut self, n: usize) -> Result<usize, ListenError> {
        let backlog = self.config.backlog;
        if n > backlog.saturating_sub(self.charged) {
            return Err(ListenError::BacklogFull { charged: self.charged, wanted: n, backlog });
        }
        self.charged += n;
        Ok(self.charged)
    }

    /// Takes an unused accept back. False: there is none.
    pub fn uncharge(&mut self) -> bool {
        let any = self.charged > 0;
        self.charged -= usize::from(any);
        any
    }
}
