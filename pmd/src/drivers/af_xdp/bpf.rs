//! bpf(2): maps, the program, and the link that attaches it. No loader, no pinning.
//!
//! The attachment is a link (BPF_LINK_CREATE), so that it is gone with its last fd, however the process ends.

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::program::{self, Maps};

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const MAP_TYPE_HASH: u32 = 1;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
/// As expected attach type of the program and as type of the link.
const ATTACH_XDP: u32 = 37;
/// The program copes with frames in several fragments: it reads headers only.
const PROG_HAS_FRAGS: u32 = 1 << 5;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const LOG_LEN: usize = 64 << 10;

/// In which place the program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// In the driver, before the kernel makes a packet of the frame.
    Native,
    /// After that, on any interface.
    Skb,
}

// Beginnings of union bpf_attr (include/uapi/linux/bpf.h); the kernel takes missing members as zero.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// # Safety
/// `attr` is the beginning of union bpf_attr for `command`, and what its addresses point at is alive and as long as it says.
unsafe fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `attr`; for the rest the caller vouches.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// # Safety
/// As for `bpf`; `command` makes an fd.
unsafe fn bpf_fd<T>(command: libc::c_int, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for `attr`; the fd is new (bpf(2) makes all of them close-on-exec) and nothing else owns it.
    unsafe { bpf(command, attr).map(|fd| OwnedFd::from_raw_fd(fd as libc::c_int)) }
}

fn name(text: &str) -> [u8; 16] {
    let mut name = [0; 16];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

fn map(map_type: u32, key_size: u32, entries: usize, text: &str) -> io::Result<OwnedFd> {
    let attr = MapCreate {
        map_type,
        key_size,
        value_size: 4,
        max_entries: entries.max(1) as u32,
        map_flags: 0,
        inner_map_fd: 0,
        numa_node: 0,
        map_name: name(text),
    };
    // SAFETY: no addresses in it.
    unsafe { bpf_fd(MAP_CREATE, &attr) }
}

fn update(map: &OwnedFd, key: &[u8], value: u32) -> io::Result<()> {
    let attr = MapUpdate {
        map_fd: map.as_raw_fd() as u32,
        _pad: 0,
        key: key.as_ptr() as u64,
        value: std::ptr::from_ref(&value) as u64,
        flags: 0,
    };
    // SAFETY: `key` and `value` are alive, and as long as the keys and values of our maps, which `map` made.
    unsafe { bpf(MAP_UPDATE_ELEM, &attr) }.map(drop)
}

/// The program with its maps. Its frames reach a socket once [`Steering::add`] named it.
pub(crate) struct Steering {
    sockets: OwnedFd,
    _addresses: Option<[OwnedFd; 2]>,
    program: OwnedFd,
}

impl Steering {
    /// Loads the program for an interface with so many receive queues. Frames for `addresses` are ours; without any, all are.
    pub(crate) fn load(rx_queues: usize, addresses: &[IpAddr]) -> io::Result<Steering> {
        let sockets = map(MAP_TYPE_XSKMAP, 4, rx_queues, "rxline_queues")?;
        let chosen = if addresses.is_empty() { None } else { Some(address_maps(addresses)?) };
        let maps = Maps {
            sockets: sockets.as_raw_fd(),
            addresses: chosen.as_ref().map(|maps| maps.each_ref().map(AsRawFd::as_raw_fd)),
        };
        let program = load(&program::assemble(maps))?;
        Ok(Steering { sockets, _addresses: chosen, program })
    }

    /// From now on what arrives on `queue` goes to `socket`, until that is closed.
    pub(crate) fn add(&self, queue: u32, socket: &impl AsRawFd) -> io::Result<()> {
        update(&self.sockets, &queue.to_ne_bytes(), socket.as_raw_fd() as u32)
    }

    /// Attaches it for as long as the link is open.
    pub(crate) fn attach(&self, interface: i32, mode: Mode) -> io::Result<OwnedFd> {
        let flags = if mode == Mode::Native { XDP_FLAGS_DRV_MODE } else { XDP_FLAGS_SKB_MODE };
        let attr = LinkCreate {
            prog_fd: self.program.as_raw_fd() as u32,
            target_ifindex: interface as u32,
            attach_type: ATTACH_XDP,
            flags,
        };
        // SAFETY: no addresses in it.
        unsafe { bpf_fd(LINK_CREATE, &attr) }
    }
}

fn address_maps(addresses: &[IpAddr]) -> io::Result<[OwnedFd; 2]> {
    let v4 = map(MAP_TYPE_HASH, 4, addresses.len(), "rxline_v4")?;
    let v6 = map(MAP_TYPE_HASH, 16, addresses.len(), "rxline_v6")?;
    for address in addresses {
        match address {
            IpAddr::V4(address) => update(&v4, &address.octets(), 1)?,
            IpAddr::V6(address) => update(&v6, &address.octets(), 1)?,
        }
    }
    Ok([v4, v6])
}

fn load(code: &[u64]) -> io::Result<OwnedFd> {
    let license = c"MIT OR Apache-2.0";
    let mut attr = ProgLoad {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: PROG_HAS_FRAGS,
        prog_name: name("rxline_steer"),
        prog_ifindex: 0,
        expected_attach_type: ATTACH_XDP,
    };
    // SAFETY: the program and the licence are alive, and there is no log.
    let refused = match unsafe { bpf_fd(PROG_LOAD, &attr) } {
        Ok(fd) => return Ok(fd),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Err(error),
        Err(error) => error,
    };
    // Once more, for the verifier's words.
    let mut log = vec![0u8; LOG_LEN];
    (attr.log_level, attr.log_size, attr.log_buf) = (1, LOG_LEN as u32, log.as_mut_ptr() as u64);
    // SAFETY: as above, and the log is alive and of this length.
    match unsafe { bpf_fd(PROG_LOAD, &attr) } {
        Ok(fd) => Ok(fd),
        Err(_) => {
            let text = String::from_utf8_lossy(&log);
            let last = text.trim_end_matches('\0').trim_end().rsplit('\n').take(2).collect::<Vec<_>>();
            Err(io::Error::new(refused.kind(), format!("{refused} ({})", last.join("; "))))
        }
    }
}
