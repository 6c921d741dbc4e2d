//! Just enough of netlink to ask: dumps and gets, never a change. Formats: the kernel's Documentation/userspace-api/netlink.

use std::io;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{recv, sendto, socket_with};

/// struct nlmsghdr.
const HEADER: usize = 16;
/// struct genlmsghdr.
pub(crate) const GENERIC_HEADER: usize = 4;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Without NLA_F_NESTED and NLA_F_NET_BYTEORDER.
const NLA_TYPE_MASK: u16 = 0x3fff;
/// The kernel's own bound on a message of a dump.
const MESSAGE_MAX: usize = 64 << 10;
/// Messages that an answer may take: a router with a full table has a million routes, 32 KiB of them in a message.
const MESSAGES_MAX: usize = 16 << 10;
const PATIENCE: Duration = Duration::from_secs(2);

/// A netlink socket.
pub(crate) struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let fd = socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(Netlink { fd, sequence: 0 })
    }

    /// Everything of a kind; `each` is given the body of each answer.
    pub fn dump(&mut self, kind: u16, body: &[u8], each: impl FnMut(&[u8])) -> io::Result<()> {
        self.ask(kind, NLM_F_REQUEST | NLM_F_DUMP, body, each)
    }

    /// One thing.
    pub fn get(&mut self, kind: u16, body: &[u8], each: impl FnMut(&[u8])) -> io::Result<()> {
        self.ask(kind, NLM_F_REQUEST | NLM_F_ACK, body, each)
    }

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.sequence += 1;
        let len = (HEADER + body.len()) as u32;
        let mut request = Vec::with_capacity(len as usize);
        request.extend(len.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend(flags.to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend(0u32.to_ne_bytes());
        request.extend(body);
        sendto(&self.fd, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut buffer = vec![0; MESSAGE_MAX];
        for _ in 0..MESSAGES_MAX {
            let (_, len) = recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC)?;
            let bytes = buffer.get(..len).ok_or(io::ErrorKind::InvalidData)?;
            if take(bytes, self.sequence, &mut each)? {
                return Ok(());
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// The messages of one read that answer request `sequence`; true: that was the last.
fn take(mut bytes: &[u8], sequence: u32, each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    while let Some(header) = bytes.first_chunk::<HEADER>() {
        let len = u32_at(header, 0).unwrap_or(0) as usize;
        let message = bytes.get(HEADER..len).ok_or(io::ErrorKind::InvalidData)?;
        bytes = bytes.get(aligned(len)..).unwrap_or_default();
        if u32_at(header, 8) != Some(sequence) {
            continue;
        }
        match u16_at(header, 4) {
            Some(NLMSG_DONE) => return Ok(true),
            Some(NLMSG_ERROR) => {
                // The negative of an errno; zero acknowledges.
                let error = u32_at(message, 0).ok_or(io::ErrorKind::InvalidData)? as i32;
                return if error == 0 {
                    Ok(true)
                } else {
                    Err(io::Error::from_raw_os_error(error.wrapping_neg()))
                };
            }
            _ => each(message),
        }
    }
    Ok(false)
}

fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// Type and value of each attribute; ends at the first that is not whole.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & NLA_TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(aligned(len)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of that type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|found| found.0 == kind).map(|found| found.1)
}

/// Appends an attribute.
pub(crate) fn push(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend((4 + value.len() as u16).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(aligned(to.len()), 0);
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A string with or without its terminating zero.
pub(crate) fn string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    #[test]
    fn attributes_come_back_and_broken_ones_end_the_list() {
        let mut bytes = Vec::new();
        push(&mut bytes, 3, b"eth0\0");
        push(&mut bytes, 4, &1500u32.to_ne_bytes());
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found, [(3, b"eth0\0".as_slice()), (4, &1500u32.to_ne_bytes())]);
        assert_eq!(string(found[0].1), "eth0");
        for end in 0..bytes.len() {
            assert!(attributes(&bytes[..end]).count() <= 2);
        }
        assert_eq!(attributes(&[0; 64]).count(), 0, "a length of zero leads nowhere");
    }

    #[test]
    fn an_answer_ends_with_done_or_an_error_and_strangers_are_passed_over() {
        let mut seen = Vec::new();
        let mut bytes = message(16, 7, b"abc");
        bytes.extend(message(16, 6, b"not ours"));
        assert!(!take(&bytes, 7, &mut |body: &[u8]| seen.push(body.to_vec())).unwrap());
        assert_eq!(seen, [b"abc"]);
        let mut nothing = |_: &[u8]| panic!("no message");
        assert!(take(&message(NLMSG_DONE, 7, &[0; 4]), 7, &mut nothing).unwrap());
        assert!(take(&message(NLMSG_ERROR, 7, &[0; 4]), 7, &mut nothing).unwrap());
        let refused = message(NLMSG_ERROR, 7, &(-95i32).to_ne_bytes());
        assert_eq!(take(&refused, 7, &mut nothing).unwrap_err().raw_os_error(), Some(95));
        let mut lying = message(16, 7, b"abc");
        lying[0] = 200;
        assert!(take(&lying, 7, &mut nothing).is_err());
        lying[0] = 3;
        assert!(take(&lying, 7, &mut nothing).is_err());
    }
}
