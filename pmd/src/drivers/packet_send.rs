//! Transmitting through AF_PACKET: one sendmmsg a burst, straight from the buffers.
//!
//! A socket of its own, bound to the interface but to no protocol, so that it receives nothing. The interface's queueing discipline is
//! not bypassed: captures on the interface see what is sent, at the same speed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::af_packet::{DROP_LINK_DOWN, DROP_TX_ERROR};
use super::{DROP_OVERSIZE, admit, packet_ring};
use crate::checksum;
use crate::counters::Counters;
use crate::mbuf::{BURST, Burst, Mbuf};

/// Segments of one sendmmsg: a burst of single ones, or some long frames of 64 KiB.
const VECTORS: usize = 128;
const SEND_BUFFER: i32 = 4 << 20;

pub(crate) struct PacketSender {
    socket: OwnedFd,
    messages: Box<[libc::mmsghdr; BURST]>,
    vectors: Box<[libc::iovec; VECTORS]>,
}

// SAFETY: between calls the raw pointers inside point at nothing that is used: `send` writes them anew each time.
unsafe impl Send for PacketSender {}

impl PacketSender {
    pub(crate) fn new(index: i32) -> io::Result<PacketSender> {
        let socket = packet_ring::socket()?;
        packet_ring::set(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, &SEND_BUFFER)?;
        packet_ring::bind(socket.as_raw_fd(), index, false)?;
        // SAFETY: arrays of plain data, for which zeroes are valid.
        let (messages, vectors) = unsafe { (Box::new(std::mem::zeroed()), Box::new(std::mem::zeroed())) };
        Ok(PacketSender { socket, messages, vectors })
    }

    /// Sends from the front of `burst` until it is empty or the kernel takes no more; returns how many it took or dropped.
    pub(crate) fn send(&mut self, burst: &mut Burst, frame_max: usize, counters: &Counters) -> usize {
        let given = burst.len();
        admit(burst, frame_max, counters);
        burst.iter_mut().for_each(checksum::complete);
        while !burst.is_empty() {
            match self.send_some(burst) {
                Ok(sent) => {
                    counters.tx(sent, burst[..sent].iter().map(Mbuf::len).sum());
                    burst.drain(..sent);
                }
                Err(libc::EINTR) => {}
                Err(libc::EAGAIN | libc::ENOBUFS) => {
                    counters.tx_full.add(1);
                    break;
                }
                Err(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => {
                    counters.dropped(DROP_LINK_DOWN, burst.len() as u64);
                    burst.clear();
                }
                Err(error) => {
                    // The first frame is what it refuses; it may take the others.
                    let which = if error == libc::EMSGSIZE { DROP_OVERSIZE.0 } else { DROP_TX_ERROR };
                    counters.dropped(which, 1);
                    burst.remove(0);
                }
            }
        }
        given - burst.len()
    }

    /// One sendmmsg; how many it took, at least one, or why it took none.
    fn send_some(&mut self, burst: &Burst) -> Result<usize, i32> {
        let (mut used, mut count) = (0, 0);
        for mbuf in burst {
            let end = used + mbuf.segment_count();
            let Some(vectors) = self.vectors.get_mut(used..end) else { break };
            for (vector, segment) in vectors.iter_mut().zip(mbuf.segments()) {
                *vector =
                    libc::iovec { iov_base: segment.as_ptr().cast_mut().cast(), iov_len: segment.len() };
            }
            let header = &mut self.messages[count].msg_hdr;
            header.msg_iov = vectors.as_mut_ptr();
            header.msg_iovlen = vectors.len() as _;
            (used, count) = (end, count + 1);
        }
        if count == 0 {
            // More segments than one system call takes here.
            return Err(libc::EMSGSIZE);
        }
        let (fd, messages) = (self.socket.as_raw_fd(), self.messages.as_mut_ptr());
        // SAFETY: the first `count` messages have vectors that point at segments of `burst`, borrowed for the call. The kernel
        // only reads them.
        let sent = unsafe { libc::sendmmsg(fd, messages, count as libc::c_uint, libc::MSG_DONTWAIT) };
        if sent > 0 {
            Ok(sent as usize)
        } else {
            Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
        }
    }
}
