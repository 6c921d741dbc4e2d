//! What the Linux drivers ask an interface, by ioctl: index, address, MTU, flags.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::mac::MacAddr;
use crate::port::{LinkState, PortError};

/// An interface of the network namespace in which it was opened, by name.
#[derive(Debug)]
pub(crate) struct Interface {
    name: String,
    /// Keeps the namespace, whichever the caller's thread is in later.
    socket: OwnedFd,
}

impl Interface {
    /// The interface `name`, which need not exist yet.
    pub(crate) fn new(name: &str) -> Result<Interface, PortError> {
        // SAFETY: a plain system call.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(PortError::io("a socket for ioctls"));
        }
        // SAFETY: the fd was just made and nothing else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Interface { name: name.to_owned(), socket })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn index(&self) -> Result<i32, PortError> {
        let request = self.ask(libc::SIOCGIFINDEX as libc::c_ulong)?;
        // SAFETY: SIOCGIFINDEX fills in this member.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex })
    }

    pub(crate) fn mtu(&self) -> Result<usize, PortError> {
        let request = self.ask(libc::SIOCGIFMTU as libc::c_ulong)?;
        // SAFETY: SIOCGIFMTU fills in this member.
        Ok(unsafe { request.ifr_ifru.ifru_mtu }.max(0) as usize)
    }

    /// The Ethernet address; `None` for interfaces of another kind.
    pub(crate) fn mac(&self) -> Result<Option<MacAddr>, PortError> {
        let request = self.ask(libc::SIOCGIFHWADDR as libc::c_ulong)?;
        // SAFETY: SIOCGIFHWADDR fills in this member.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        if !matches!(address.sa_family, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK) {
            return Ok(None);
        }
        Ok(Some(MacAddr(std::array::from_fn(|i| address.sa_data[i] as u8))))
    }

    /// Up when it is administratively up and has a carrier; down when it is gone.
    pub(crate) fn link(&self) -> LinkState {
        let running = libc::IFF_UP | libc::IFF_RUNNING;
        match self.flags() {
            Ok(flags) if flags & running == running => LinkState::Up,
            _ => LinkState::Down,
        }
    }

    pub(crate) fn flags(&self) -> Result<libc::c_int, PortError> {
        let request = self.ask(libc::SIOCGIFFLAGS as libc::c_ulong)?;
        // SAFETY: SIOCGIFFLAGS fills in this member.
        Ok(libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags }))
    }

    /// Brings it up.
    pub(crate) fn up(&self) -> Result<(), PortError> {
        let mut request = self.request()?;
        let flags = self.flags()? | libc::IFF_UP;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        self.ioctl(libc::SIOCSIFFLAGS as libc::c_ulong, &mut request)
    }

    pub(crate) fn set_mtu(&self, mtu: usize) -> Result<(), PortError> {
        let mut request = self.request()?;
        request.ifr_ifru.ifru_mtu = mtu as libc::c_int;
        self.ioctl(libc::SIOCSIFMTU as libc::c_ulong, &mut request)
    }

    /// The line rate from sysfs, where a driver tells it.
    pub(crate) fn speed_mbps(&self) -> Option<u32> {
        let text = std::fs::read_to_string(format!("/sys/class/net/{}/speed", self.name)).ok()?;
        text.trim().parse().ok()
    }

    /// An empty request with this interface's name.
    pub(crate) fn request(&self) -> Result<libc::ifreq, PortError> {
        // SAFETY: ifreq is plain data, for which zeroes are valid.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        // One byte is for the terminating zero.
        if self.name.len() >= request.ifr_name.len() || self.name.contains('\0') {
            return Err(PortError::NoSuchInterface { name: self.name.clone() });
        }
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = from as libc::c_char;
        }
        Ok(request)
    }

    fn ask(&self, what: libc::c_ulong) -> Result<libc::ifreq, PortError> {
        let mut request = self.request()?;
        self.ioctl(what, &mut request)?;
        Ok(request)
    }

    fn ioctl(&self, what: libc::c_ulong, request: &mut libc::ifreq) -> Result<(), PortError> {
        // SAFETY: these ioctls read and write one ifreq, which `request` is.
        if unsafe { libc::ioctl(self.socket.as_raw_fd(), what as _, std::ptr::from_mut(request)) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENODEV) => Err(PortError::NoSuchInterface { name: self.name.clone() }),
            Some(libc::EPERM) => Err(PortError::Permission {
                what: format!("changing interface {:?}", self.name),
                capability: "CAP_NET_ADMIN",
                setcap: "cap_net_admin",
            }),
            _ => Err(PortError::Io { what: format!("ioctl on interface {:?}", self.name), source: error }),
        }
    }
}
