//! Many datagrams of one length to one peer in one system call and one trip through the kernel's stack: UDP_SEGMENT on the way out, UDP_GRO
//! on the way in. Waits in epoll.
//!
//! What comes is split into buffers of the pool, at the price of a copy. An echo does without: it sends back the whole of what came.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use arrayvec::ArrayVec;
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};
use pmd::Instant;

use super::mmsg::{SEGMENTS, from, rustix_errno};
use super::socket::{SleepIn, Socket, is_full, is_idle};
use super::{BATCH, Batch, Bind, End, Wire};
use crate::Trouble;

/// Bytes that the kernel puts together at most.
const TOGETHER_MAX: usize = 65_535;
/// Bytes of payload in the largest datagram before it is cut.
const SEGMENTED_MAX: usize = 65_507;

/// A socket, and what came last and was not taken yet.
pub struct Gso {
    socket: Socket,
    came: Box<[u8; TOGETHER_MAX]>,
    control: Vec<u8>,
    left: Option<Came>,
}

/// Datagrams of one peer, all of `size` bytes but for the last, in `came[at..end]`.
#[derive(Clone, Copy)]
struct Came {
    from: SocketAddr,
    at: usize,
    end: usize,
    size: usize,
}

impl Gso {
    /// A socket that takes them together.
    pub fn bind(to: &Bind<'_>) -> Result<Gso, Trouble> {
        let socket = Socket::bind(to, SleepIn::Epoll)?;
        setsockopt(&socket.fd, sockopt::UdpGroSegment, &true).map_err(|error| {
            Trouble::Machine(format!("gso: UDP_GRO: {}; it needs a kernel of 5.0 or later", error.desc()))
        })?;
        let came = vec![0; TOGETHER_MAX].into_boxed_slice().try_into().expect("so many");
        Ok(Gso { socket, came, control: cmsg_space!(i32), left: None })
    }

    /// Receives once. `None`: nothing has come.
    fn receive_together(&mut self, wait: Duration) -> io::Result<Option<Came>> {
        self.socket.sleep(wait)?;
        let mut iov = [IoSliceMut::new(&mut self.came[..])];
        let fd = self.socket.fd.as_raw_fd();
        let message =
            match recvmsg::<SockaddrIn>(fd, &mut iov, Some(&mut self.control), MsgFlags::MSG_DONTWAIT) {
                Ok(message) => message,
                Err(error) if is_idle(rustix_errno(error)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        let size = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::UdpGroSegments(size) => Some(size as usize),
            _ => None,
        });
        // One alone comes without its size.
        let (end, from) = (message.bytes, from(message.address));
        Ok(Some(Came { from, at: 0, end, size: size.unwrap_or(end).max(1) }))
    }

    /// Sends bytes that are datagrams of `size`, the last one perhaps shorter. False: there is no room now.
    fn send_together(
        &self,
        to: SocketAddr,
        iov: &[IoSlice<'_>],
        size: usize,
        len: usize,
    ) -> io::Result<bool> {
        let size = size as u16;
        let cut = [ControlMessage::UdpGsoSegments(&size)];
        // What is one datagram need not be cut.
        let controls = if len > usize::from(size) { &cut[..] } else { &[] };
        let to = match to {
            SocketAddr::V4(to) if !self.socket.connected => Some(SockaddrIn::from(to)),
            _ => None,
        };
        match sendmsg(self.socket.fd.as_raw_fd(), iov, controls, MsgFlags::MSG_DONTWAIT, to.as_ref()) {
            Ok(_) => Ok(true),
            Err(error) if is_full(rustix_errno(error)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Wire for Gso {
    fn end(&mut self) -> &mut dyn End {
        &mut self.socket
    }

    fn receive(&mut self, _: Instant, wait: Duration, into: &mut Batch) -> io::Result<()> {
        if self.left.is_none() {
            self.left = self.receive_together(wait)?;
        }
        let Some(came) = &mut self.left else { return Ok(()) };
        while came.at < came.end && !into.is_full() {
            let bytes = &self.came[came.at..came.end.min(came.at + came.size)];
            // Longer than a buffer: nobody here sends such.
            if let Some(packet) = self.socket.pool.copy_from(bytes) {
                into.push((came.from, packet));
            }
            came.at += bytes.len();
        }
        if came.at >= came.end {
            self.left = None;
        }
        Ok(())
    }

    fn send(&mut self, _: Instant, batch: &mut Batch) -> io::Result<()> {
        let mut sent = 0;
        while sent < batch.len() {
            let (run, size, len) = run(&batch[sent..]);
            let iov: ArrayVec<IoSlice<'_>, { BATCH * SEGMENTS }> =
                run.iter().flat_map(|(_, packet)| packet.segments()).map(IoSlice::new).collect();
            if !self.send_together(run[0].0, &iov, size, len)? {
                break;
            }
            sent += run.len();
        }
        batch.drain(..sent);
        Ok(())
    }

    fn echo(&mut self, _: Instant, wait: Duration) -> io::Result<(u64, u64)> {
        let Some(came) = self.receive_together(wait)? else { return Ok((0, 0)) };
        let datagrams = came.end.div_ceil(came.size).max(1) as u64;
        let bytes = [IoSlice::new(&self.came[..came.end])];
        for _ in 0..super::TRIES {
            if self.send_together(came.from, &bytes, came.size, came.end)? {
                return Ok((datagrams, 0));
            }
        }
        Ok((datagrams, datagrams))
    }
}

/// The datagrams at the front that can go together: to one peer, of one length but for a shorter last one. With that length and their bytes.
fn run(batch: &[(SocketAddr, pmd::Mbuf)]) -> (&[(SocketAddr, pmd::Mbuf)], usize, usize) {
    let (to, size) = (batch[0].0, batch[0].1.len());
    let (mut count, mut len) = (1, size);
    for (other, packet) in &batch[1..] {
        if *other != to || packet.len() > size || packet.is_empty() || len + packet.len() > SEGMENTED_MAX {
            break;
        }
        (count, len) = (count + 1, len + packet.len());
        if packet.len() < size {
            break;
        }
    }
    (&batch[..count], size, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pmd::{Pool, PoolConfig};

    #[test]
    fn what_goes_together_is_of_one_length_and_to_one_peer() {
        let mut pool = PoolConfig::new("gso", 256).build().unwrap().claim();
        let to = |host: u8| SocketAddr::from(([127, 0, 0, host], 7));
        let lens = |batch: &[(u8, usize)], pool: &mut Pool| {
            let batch: Vec<_> =
                batch.iter().map(|&(host, len)| (to(host), pool.copy_from(&vec![1; len]).unwrap())).collect();
            let (run, size, len) = run(&batch);
            (run.len(), size, len)
        };
        assert_eq!(lens(&[(1, 64), (1, 64), (1, 64)], &mut pool), (3, 64, 192));
        assert_eq!(lens(&[(1, 64), (1, 10), (1, 64)], &mut pool), (2, 64, 74), "a shorter one is the last");
        assert_eq!(lens(&[(1, 64), (1, 65)], &mut pool), (1, 64, 64), "a longer one is not taken");
        assert_eq!(lens(&[(1, 64), (2, 64)], &mut pool), (1, 64, 64), "another peer's is not taken");
        assert_eq!(lens(&[(1, 1400); 64], &mut pool), (46, 1400, 64_400), "no more than a datagram holds");
    }
}
