//! The kernel's side of AF_PACKET: sockets, options, and the TPACKET_V2 receive ring mapped from one.
//!
//! See the kernel's Documentation/networking/packet_mmap.rst.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{SOL_PACKET, tpacket2_hdr};

/// Bytes of a slot before the frame: header, sockaddr_ll and alignment, with the Ethernet header's own 14 taken out of the 80.
const SLOT_OVERHEAD: usize = 80;
const BLOCK: usize = 1 << 20;

/// A socket of AF_PACKET, not bound.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    // Protocol 0: it receives nothing until it is bound with one, and so never anything from another interface.
    // SAFETY: a plain system call.
    let fd = unsafe {
        libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the fd was just made and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds to an interface; with `receive`, for frames of all protocols.
pub(crate) fn bind(fd: RawFd, index: i32, receive: bool) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain data, for which zeroes are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = if receive { (libc::ETH_P_ALL as u16).to_be() } else { 0 };
    address.sll_ifindex = index;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` is a sockaddr_ll and `len` its size.
    check(unsafe { libc::bind(fd, std::ptr::from_ref(&address).cast(), len) })
}

/// Sets a socket option of plain data.
pub(crate) fn set<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`.
    check(unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), len) })
}

/// Reads a socket option of two 32-bit words at most.
pub(crate) fn get(fd: RawFd, level: libc::c_int, name: libc::c_int) -> io::Result<[u32; 2]> {
    let mut value = [0u32; 2];
    let mut len = size_of::<[u32; 2]>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `value`.
    check(unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &mut len) })?;
    Ok(value)
}

fn check(rc: libc::c_int) -> io::Result<()> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the kernel says of a frame in the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// What of the frame is in the slot.
    pub bytes: &'a [u8],
    /// Its whole length.
    pub len: usize,
    /// The whole frame waits on the socket, for it does not fit a slot.
    pub on_socket: bool,
    /// A local sender left the checksum unfinished.
    pub checksum_partial: bool,
    /// The device verified the checksum.
    pub checksum_good: bool,
    /// The tag that was taken out of the frame: TPID and TCI.
    pub vlan: Option<(u16, u16)>,
}

/// A receive ring. The kernel fills slots in turn and sets their status; we read them and give them back.
pub(crate) struct PacketRing {
    base: NonNull<u8>,
    len: usize,
    slot: usize,
    slots: usize,
    next: usize,
}

// SAFETY: the mapping belongs to this value alone.
unsafe impl Send for PacketRing {}

impl PacketRing {
    /// Asks for about `slots` slots for frames of `frame_max` bytes on the socket and maps them.
    pub(crate) fn new(fd: RawFd, frame_max: usize, slots: usize) -> io::Result<PacketRing> {
        let slot = (frame_max + SLOT_OVERHEAD).next_power_of_two().max(2048);
        let blocks = (slots * slot).div_ceil(BLOCK);
        let len = blocks * BLOCK;
        let slots = len / slot;
        set(fd, SOL_PACKET, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as libc::c_int))?;
        // Frames that are longer than a slot are queued whole on the socket as well.
        set(fd, SOL_PACKET, libc::PACKET_COPY_THRESH, &1i32)?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK as u32,
            tp_block_nr: blocks as u32,
            tp_frame_size: slot as u32,
            tp_frame_nr: slots as u32,
        };
        set(fd, SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(PacketRing { base: NonNull::new(base.cast()).expect("mapped"), len, slot, slots, next: 0 })
    }

    fn slot_at(&self, index: usize) -> *mut tpacket2_hdr {
        debug_assert!(index < self.slots);
        // SAFETY: slots * slot = len: each slot lies inside the mapping. The kernel aligns them.
        unsafe { self.base.as_ptr().add(index * self.slot).cast() }
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: the slot is mapped as long as `self`, and aligned; both sides access its status atomically.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.slot_at(self.next)).tp_status) }
    }

    /// The next frame, if there is one. It stays until [`PacketRing::release`].
    pub(crate) fn peek(&self) -> Option<Frame<'_>> {
        // Acquire: pairs with the kernel's barrier before it sets the status; the rest of the slot is written.
        let status = self.status().load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: the slot is ours until its status is given back, so that its fields do not change.
        let (len, snaplen, mac, tci, tpid) = unsafe {
            let header = self.slot_at(self.next);
            (
                (*header).tp_len,
                (*header).tp_snaplen,
                (*header).tp_mac,
                (*header).tp_vlan_tci,
                (*header).tp_vlan_tpid,
            )
        };
        let start = usize::from(mac).min(self.slot);
        let stored = (snaplen as usize).min(self.slot - start);
        // SAFETY: `start + stored` is within the slot, and the slot is ours while `self` is borrowed.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.slot_at(self.next).cast::<u8>().add(start), stored) };
        let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { tpid } else { 0x8100 };
        Some(Frame {
            bytes,
            len: len as usize,
            on_socket: status & libc::TP_STATUS_COPY != 0,
            checksum_partial: status & libc::TP_STATUS_CSUMNOTREADY != 0,
            checksum_good: status & libc::TP_STATUS_CSUM_VALID != 0,
            vlan: (status & libc::TP_STATUS_VLAN_VALID != 0).then_some((tpid, tci)),
        })
    }

    /// Gives the slot of the frame that was peeked at back to the kernel.
    pub(crate) fn release(&mut self) {
        // Release: we are done with the slot before the kernel sees that it may have it.
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = if self.next + 1 < self.slots { self.next + 1 } else { 0 };
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: the range is what mmap returned, and nothing borrows from it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Joins `fd` to the fanout group `id`, or to a new one; returns the group. Frames are spread by flow hash.
pub(crate) fn join_fanout(fd: RawFd, id: Option<u16>) -> io::Result<u16> {
    let argument: u32 = match id {
        Some(id) => u32::from(id) | libc::PACKET_FANOUT_HASH << 16,
        None => (libc::PACKET_FANOUT_HASH | libc::PACKET_FANOUT_FLAG_UNIQUEID) << 16,
    };
    set(fd, SOL_PACKET, libc::PACKET_FANOUT, &argument)?;
    Ok(get(fd, SOL_PACKET, libc::PACKET_FANOUT)?[0] as u16)
}

/// Asks the interface for all multicast frames, or for all frames, while the socket is open.
pub(crate) fn listen_wider(fd: RawFd, index: i32, promiscuous: bool) -> io::Result<()> {
    let kind = if promiscuous { libc::PACKET_MR_PROMISC } else { libc::PACKET_MR_ALLMULTI };
    let request =
        libc::packet_mreq { mr_ifindex: index, mr_type: kind as u16, mr_alen: 0, mr_address: [0; 8] };
    set(fd, SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
}

/// Packets dropped by the kernel since the last call, because the ring was full.
pub(crate) fn take_drops(fd: &OwnedFd) -> u64 {
    // struct tpacket_stats: packets, drops. Reading resets both.
    get(fd.as_raw_fd(), SOL_PACKET, libc::PACKET_STATISTICS).map_or(0, |[_, drops]| u64::from(drops))
}
