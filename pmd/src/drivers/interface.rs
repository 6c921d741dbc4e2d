//! What the Linux drivers ask an interface, by ioctl: index, address, MTU, flags.

use std::ffi::CStr;
use std::io;
use std::mem;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::mac::MacAddr;
use crate::port::{LinkState, PortError};

const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// The kernel's own addresses in this network namespace, each with its interface's name.
pub(crate) fn addresses() -> Result<Vec<(String, IpAddr)>, PortError> {
    let mut list = std::ptr::null_mut();
    // SAFETY: getifaddrs writes one pointer.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Err(PortError::io("asking for the kernel's addresses"));
    }
    let (mut found, mut next) = (Vec::new(), list);
    // SAFETY: entries of the list are valid until freeifaddrs; an address has the type that its family says.
    unsafe {
        while let Some(entry) = next.as_ref() {
            next = entry.ifa_next;
            let Some(address) = entry.ifa_addr.as_ref() else { continue };
            let address = match i32::from(address.sa_family) {
                libc::AF_INET => {
                    let v4 = entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned();
                    IpAddr::from(v4.sin_addr.s_addr.to_ne_bytes())
                }
                libc::AF_INET6 => IpAddr::from(
                    entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned().sin6_addr.s6_addr,
                ),
                _ => continue,
            };
            found.push((CStr::from_ptr(entry.ifa_name).to_string_lossy().into_owned(), address));
        }
        libc::freeifaddrs(list);
    }
    Ok(found)
}

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

    /// How many receive queues the driver runs (ETHTOOL_GCHANNELS); 1 where it does not tell.
    pub(crate) fn rx_queues(&self) -> Result<usize, PortError> {
        // struct ethtool_channels: the command; most rx, tx, other, combined; how many of each there are.
        let mut channels = [ETHTOOL_GCHANNELS, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut request = self.request()?;
        request.ifr_ifru.ifru_data = channels.as_mut_ptr().cast();
        // SAFETY: the ioctl reads and writes one ifreq, whose data is an ethtool_channels, alive until after the call.
        let answer = unsafe {
            libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL as _, std::ptr::from_mut(&mut request))
        };
        let [.., rx, _tx, _other, combined] = channels;
        Ok(if answer == 0 { (rx + combined).max(1) as usize } else { 1 })
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
