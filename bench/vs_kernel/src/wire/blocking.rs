//! One recvfrom(2) and one sendto(2) for each datagram, as a first program does it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pmd::Instant;
use rustix::net::{RecvFlags, SendFlags, recvfrom, send, sendto};

use super::socket::{SleepIn, Socket, is_full, is_idle};
use super::{Batch, Bind, End, PAYLOAD_MAX, Wire};
use crate::Trouble;

/// See the module's head.
pub struct Blocking {
    socket: Socket,
}

impl Blocking {
    /// A socket that blocks, if it may.
    pub fn bind(to: &Bind<'_>) -> Result<Blocking, Trouble> {
        Ok(Blocking { socket: Socket::bind(to, SleepIn::Receive)? })
    }
}

impl Wire for Blocking {
    fn end(&mut self) -> &mut dyn End {
        &mut self.socket
    }

    fn receive(&mut self, _: Instant, wait: Duration, into: &mut Batch) -> io::Result<()> {
        let flags = if self.socket.sleep(wait)? { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let mut packet = self.socket.empty();
        match recvfrom(&self.socket.fd, packet.data_mut(), flags) {
            Ok((bytes, _, Some(from))) => {
                packet.truncate(bytes);
                into.push((SocketAddr::try_from(from)?, packet));
                Ok(())
            }
            Ok((_, _, None)) => Ok(()),
            Err(error) if is_idle(error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn send(&mut self, _: Instant, batch: &mut Batch) -> io::Result<()> {
        let mut sent = 0;
        for (to, packet) in batch.iter() {
            // What is in several buffers is brought into one: cheaper than a list of them for the kernel.
            let mut scratch = [0; PAYLOAD_MAX];
            let bytes = match packet.segment_count() {
                1 => packet.data(),
                _ => {
                    let len = packet.copy_to(0, &mut scratch);
                    &scratch[..len]
                }
            };
            let flags = if self.socket.may_sleep { SendFlags::empty() } else { SendFlags::DONTWAIT };
            let done = match self.socket.connected {
                true => send(&self.socket.fd, bytes, flags),
                false => sendto(&self.socket.fd, bytes, flags, to),
            };
            match done {
                Ok(_) => sent += 1,
                Err(error) if is_full(error) => break,
                Err(error) => return Err(error.into()),
            }
        }
        batch.drain(..sent);
        Ok(())
    }
}
