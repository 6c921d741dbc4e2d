//! A queue of a pmd port as a wire to one peer: what a load needs and no more. It asks for the peer's MAC address until it has it, answers who asks
//! for its own, and knows UDP over IPv4 in one piece.
//!
//! Deliberately absent: routes, fragments, ICMP, checking the checksums of what comes: whoever reads it looks at each byte. The engine's stack is
//! what is measured; this is what asks it.

mod frame;

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant as Wall};

use pmd::{BURST, Burst, CoreSlot, Instant, LinkState, MacAddr, OpenOptions, Pool, PoolConfig, Port, Queue};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use self::frame::{Came, Frames};
use super::{Batch, Bind, End, Wire};
use crate::Trouble;
use crate::args::Wait;

/// For so long a link may take to come up.
const LINK_MAX: Duration = Duration::from_secs(10);
/// The first source port, unless one was asked for.
const PORT_FIRST: u16 = 40_000;
/// So often the peer is asked for its MAC address.
const ASK: Duration = Duration::from_millis(20);

/// See the module's head.
pub struct PortWire {
    // The queue goes before the port and the pool that it was shown.
    queue: Box<dyn Queue>,
    came: Burst,
    /// Frames on their way into the device.
    out: Burst,
    pool: Pool,
    port: Box<dyn Port>,
    _slot: Option<CoreSlot>,
    frames: Frames,
    local: SocketAddrV4,
    flows: u16,
    next_flow: u16,
    peer_mac: Option<MacAddr>,
    asked: Option<Instant>,
    may_sleep: bool,
}

impl PortWire {
    /// Opens a port with one queue, for the calling thread.
    pub fn open(url: &str, to: &Bind<'_>) -> Result<PortWire, Trouble> {
        let Some(peer) = to.peer else {
            return Err(Trouble::Usage(format!(
                "{url}: a bare queue has one peer; what serves on ports is an engine"
            )));
        };
        let machine = |error: &dyn std::fmt::Display| Trouble::Machine(error.to_string());
        let options = OpenOptions { addresses: vec![(*to.local.ip()).into()], ..OpenOptions::default() };
        let mut port = pmd::open(url, &options).map_err(|error| machine(&error))?;
        let slot = CoreSlot::register().ok();
        let mut config = PoolConfig::new("load", to.buffers);
        let seed = match port.memory().pop() {
            Some(region) => {
                config.buffers = region.len() / pmd::STRIDE;
                config.build_on(region)
            }
            None => config.build(),
        };
        let pool = seed.map_err(|error| machine(&error))?.claim();
        let queue = port.open_queues(&[pool.handle()]).map_err(|error| machine(&error))?.remove(0);
        let until = Wall::now() + LINK_MAX;
        while port.link() == LinkState::Down {
            if Wall::now() > until {
                return Err(Trouble::Machine(format!(
                    "{url}: the link did not come up in {LINK_MAX:?}: start the server first"
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let info = port.info();
        info.notes.iter().for_each(|note| eprintln!("vs_kernel: {url}: {note}"));
        let udp_port = if to.local.port() == 0 { PORT_FIRST } else { to.local.port() };
        let local = SocketAddrV4::new(*to.local.ip(), udp_port);
        Ok(PortWire {
            queue,
            came: Burst::new(),
            out: Burst::new(),
            pool,
            frames: Frames::new(info.mac, local, peer),
            port,
            _slot: slot,
            local,
            flows: to.flows as u16,
            next_flow: 0,
            peer_mac: None,
            asked: None,
            may_sleep: to.wait == Wait::Sleep,
        })
    }

    fn ask(&mut self, now: Instant) {
        if self.peer_mac.is_some() || self.asked.is_some_and(|asked| now - asked < ASK) {
            return;
        }
        self.asked = Some(now);
        self.push_frame(now, |frames| frames.question());
    }

    /// Blocks until the device has something. A device without a descriptor is looked at again at once.
    fn sleep(&mut self, wait: Duration) {
        let armed = self.queue.arm();
        if let Some(fd) = self.queue.wait_fd().filter(|_| armed) {
            let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
            // Whatever ends it, the device is looked at next.
            let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout));
        }
        self.queue.disarm();
    }

    /// Sends a frame of the wire's own.
    fn push_frame(&mut self, now: Instant, bytes: impl FnOnce(&Frames) -> frame::Arp) {
        if let Some(frame) = self.pool.copy_from(&bytes(&self.frames))
            && !self.out.is_full()
        {
            self.out.push(frame);
            self.queue.tx_burst(now, &mut self.out);
        }
    }
}

impl End for PortWire {
    fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    fn local_addr(&self) -> SocketAddr {
        self.local.into()
    }

    fn dropped(&self) -> u64 {
        self.port.stats().drops.iter().map(|(_, packets)| packets).sum()
    }
}

impl Wire for PortWire {
    fn end(&mut self) -> &mut dyn End {
        self
    }

    fn receive(&mut self, now: Instant, wait: Duration, into: &mut Batch) -> io::Result<()> {
        self.ask(now);
        if into.remaining_capacity() < BURST {
            return Ok(());
        }
        let mut came = std::mem::take(&mut self.came);
        self.queue.rx_burst(now, &mut self.pool, &mut came);
        if came.is_empty() && self.may_sleep && !wait.is_zero() && self.out.is_empty() {
            self.sleep(wait.min(ASK));
            self.queue.rx_burst(now, &mut self.pool, &mut came);
        }
        for frame in came.drain(..) {
            match self.frames.take(frame, self.flows) {
                Came::Datagram(payload) => into.push((self.frames.peer().into(), payload)),
                Came::PeerIs(mac) => {
                    self.peer_mac = Some(mac);
                    self.frames.learn(mac);
                }
                Came::Question(asker) => self.push_frame(now, |frames| frames.answer(&asker)),
                Came::Other => {}
            }
        }
        self.came = came;
        Ok(())
    }

    fn send(&mut self, now: Instant, batch: &mut Batch) -> io::Result<()> {
        if self.peer_mac.is_none() {
            return Ok(());
        }
        loop {
            let room = self.out.remaining_capacity().min(batch.len());
            for (_, payload) in batch.drain(..room) {
                // A payload without headroom cannot be sent; what the endpoint and the load make has it.
                if let Some(frame) = self.frames.wrap(payload, self.next_flow) {
                    self.out.push(frame);
                }
                self.next_flow = (self.next_flow + 1) % self.flows;
            }
            self.queue.tx_burst(now, &mut self.out);
            if batch.is_empty() || self.out.is_full() {
                return Ok(());
            }
        }
    }
}
