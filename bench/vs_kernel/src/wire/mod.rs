//! Datagrams in and out of one thread, a burst at a time, in buffers of pmd's: the one thing in which the ways differ.
//!
//! ```text
//! blocking   recvfrom, sendto              socket   what all sockets of the kernel's have in common
//! mmsg       recvmmsg, sendmmsg; epoll or busy polling
//! gso        recvmsg, sendmsg of many datagrams of one length
//! uring      io_uring
//! port       a queue of pmd, and as little of IP as one peer needs
//! ```
//!
//! Deliberately absent: several threads on one wire, and IPv6.

mod blocking;
mod gso;
mod mmsg;
mod port;
mod socket;
mod uring;

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use arrayvec::ArrayVec;
use pmd::{Instant, Mbuf, Pool};

use crate::Trouble;
use crate::args::Wait;
use crate::arm::{Arm, Kernel};

pub use port::PortWire;

/// Datagrams in a burst: as many as the kernel takes as segments of one (UDP_MAX_SEGMENTS of older kernels).
pub const BATCH: usize = 64;
/// Payload of the longest datagram: an Ethernet frame of 1514 bytes.
pub const PAYLOAD_MAX: usize = 1472;

/// Datagrams, each with the peer it comes from or goes to.
pub type Batch = ArrayVec<(SocketAddr, Mbuf), BATCH>;

/// What every wire has, however it moves datagrams.
pub trait End {
    /// The buffers of its datagrams.
    fn pool(&mut self) -> &mut Pool;

    /// Where it is bound to.
    fn local_addr(&self) -> SocketAddr;

    /// Datagrams that were lost because nobody took them in time.
    fn dropped(&self) -> u64;
}

/// A way to send and receive datagrams, on one thread.
pub trait Wire {
    /// Its end.
    fn end(&mut self) -> &mut dyn End;

    /// Appends what has come, as far as there is room. When nothing has, and it may sleep, it waits for up to `wait` first.
    fn receive(&mut self, now: Instant, wait: Duration, into: &mut Batch) -> io::Result<()>;

    /// Takes from the front what can be sent now. The rest stays.
    fn send(&mut self, now: Instant, batch: &mut Batch) -> io::Result<()>;

    /// Sends what has come back to where it came from. How many came, and how many of them could not be sent.
    fn echo(&mut self, now: Instant, wait: Duration) -> io::Result<(u64, u64)> {
        let mut batch = Batch::new();
        self.receive(now, wait, &mut batch)?;
        let came = batch.len() as u64;
        // A socket that takes nothing more is full for as long as the device needs to send some.
        for _ in 0..TRIES {
            if batch.is_empty() {
                break;
            }
            self.send(now, &mut batch)?;
        }
        Ok((came, batch.len() as u64))
    }
}

/// How often something is sent anew that an echo could not send.
const TRIES: usize = 1000;

/// What a wire is to be.
#[derive(Clone, Copy, Debug)]
pub struct Bind<'a> {
    /// The way.
    pub arm: &'a Arm,
    /// Where to; port 0: any.
    pub local: SocketAddrV4,
    /// The only peer, if there is but one.
    pub peer: Option<SocketAddrV4>,
    /// May it sleep?
    pub wait: Wait,
    /// Buffers of its pool.
    pub buffers: usize,
    /// Source ports, from the local one on; for ports, the kernel's sockets have one each.
    pub flows: usize,
}

/// Opens a wire, on the thread that will use it.
pub fn open(bind: &Bind<'_>) -> Result<Box<dyn Wire>, Trouble> {
    Ok(match bind.arm {
        Arm::Kernel(Kernel::Blocking) => Box::new(blocking::Blocking::bind(bind)?),
        Arm::Kernel(Kernel::Mmsg | Kernel::ReusePort) => Box::new(mmsg::Mmsg::bind(bind)?),
        Arm::Kernel(Kernel::BusyPoll) => Box::new(mmsg::Mmsg::bind_busy(bind)?),
        Arm::Kernel(Kernel::Gso) => Box::new(gso::Gso::bind(bind)?),
        Arm::Kernel(Kernel::Uring) => Box::new(uring::Uring::bind(bind)?),
        Arm::Port(url) => Box::new(PortWire::open(url, bind)?),
    })
}

/// An IPv4 address with or without the length of its prefix, and a port; without, it is a host's alone.
pub fn address(text: &str, udp_port: u16) -> Result<(SocketAddrV4, u8), Trouble> {
    let bad = || {
        Trouble::Usage(format!(
            "{text:?} is no IPv4 address: write one as in 198.18.0.2 or, for ports, 198.18.0.2/24"
        ))
    };
    let (ip, prefix) = text.split_once('/').unwrap_or((text, "32"));
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or_else(bad)?;
    Ok((SocketAddrV4::new(ip.parse().map_err(|_| bad())?, udp_port), prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_prefix() {
        let read = |text| address(text, 7).map(|(addr, prefix)| (addr.to_string(), prefix)).ok();
        assert_eq!(read("198.18.0.2"), Some(("198.18.0.2:7".into(), 32)));
        assert_eq!(read("198.18.0.2/24"), Some(("198.18.0.2:7".into(), 24)));
        for text in ["", "::1", "198.18.0.2/33", "198.18.0.2/", "host"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
