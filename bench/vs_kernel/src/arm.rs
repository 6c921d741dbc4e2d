//! The ways that are compared.

use std::fmt;
use std::str::FromStr;

/// A way to get datagrams in and out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Through the kernel's UDP.
    Kernel(Kernel),
    /// Through a port of ours, by its URL.
    Port(String),
}

/// A way to use the kernel's UDP sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// One recvfrom(2) and one sendto(2) a datagram.
    Blocking,
    /// epoll(7), recvmmsg(2), sendmmsg(2).
    Mmsg,
    /// The same with SO_BUSY_POLL and SO_PREFER_BUSY_POLL.
    BusyPoll,
    /// The same with UDP_SEGMENT and UDP_GRO.
    Gso,
    /// io_uring(7).
    Uring,
    /// [`Kernel::Mmsg`] on several CPUs, by SO_REUSEPORT.
    ReusePort,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Kernel; 6] =
        [Kernel::Blocking, Kernel::Mmsg, Kernel::BusyPoll, Kernel::Gso, Kernel::Uring, Kernel::ReusePort];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Kernel::Blocking => "blocking",
            Kernel::Mmsg => "mmsg",
            Kernel::BusyPoll => "busy-poll",
            Kernel::Gso => "gso",
            Kernel::Uring => "uring",
            Kernel::ReusePort => "reuseport",
        }
    }
}

/// Neither a way of the kernel's nor a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no way: write blocking, mmsg, busy-poll, gso, uring or reuseport, or a port as in af_xdp:eth0"
)]
pub struct BadArm(String);

impl FromStr for Arm {
    type Err = BadArm;

    fn from_str(text: &str) -> Result<Arm, BadArm> {
        match Kernel::ALL.into_iter().find(|kernel| kernel.name() == text) {
            Some(kernel) => Ok(Arm::Kernel(kernel)),
            None if text.contains(':') => Ok(Arm::Port(text.into())),
            None => Err(BadArm(text.into())),
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arm::Kernel(kernel) => f.write_str(kernel.name()),
            Arm::Port(url) => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arm_is_read_as_it_is_written() {
        let port = Arm::Port("af_xdp:eth0".into());
        for arm in Kernel::ALL.map(Arm::Kernel).into_iter().chain([port]) {
            assert_eq!(arm.to_string().parse(), Ok(arm));
        }
    }

    #[test]
    fn a_word_that_is_neither_is_told_what_there_is() {
        let error = "mmap".parse::<Arm>().unwrap_err().to_string();
        assert!(
            error.contains("\"mmap\"") && error.contains("busy-poll") && error.contains("af_xdp:eth0"),
            "{error}"
        );
    }
}
