//! What DPDK says, caught: its log goes to a buffer here, and what it said while it refused something becomes part of our error,
//! together with what mends it.
//!
//! DPDK's functions return little more than -1; the reason is in the text. Deliberately absent: passing the text on while all is well.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::port::PortError;

/// What is kept of the text: its end.
const KEPT: usize = 8 << 10;
/// Lines of an error.
const LINES: usize = 3;

static TEXT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn text() -> MutexGuard<'static, Vec<u8>> {
    TEXT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Catches what DPDK logs from now on.
pub(super) fn catch() {
    // SAFETY: `sink` may be called from any thread at any time, and is never taken back. Without a stream, which is a matter of memory,
    // DPDK goes on to log to stderr.
    unsafe { dpdk_sys::rxl_log_to(Some(sink)) };
}

/// Called by DPDK with each line, on whatever thread.
unsafe extern "C" fn sink(bytes: *const std::ffi::c_char, len: usize) {
    // SAFETY: the stream's write function hands on the `len` bytes that stdio gave it.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) };
    let mut text = text();
    text.extend_from_slice(bytes);
    if text.len() > 2 * KEPT {
        let cut = text.len() - KEPT;
        text.drain(..cut);
    }
}

/// Forgets what was said so far, so that the next error tells of what comes now.
pub(super) fn forget() {
    text().clear();
}

/// The error for what was refused: `what`, with what was said of it since [`forget`], or else what `code`, an errno, means.
pub(super) fn refused(url: &str, what: impl Into<String>, code: i32) -> PortError {
    let text = String::from_utf8_lossy(&text()).into_owned();
    let said = complaints(&text);
    let said = if said.is_empty() { errno(code) } else { said };
    let mend = mend(&text, code).to_owned();
    PortError::Dpdk { url: url.to_owned(), what: what.into(), said, mend }
}

/// The last lines that are more than information.
fn complaints(text: &str) -> String {
    let says_more = |line: &&str| !line.is_empty() && !INFORMATION.iter().any(|known| line.contains(known));
    let lines: Vec<&str> = text.lines().map(str::trim).filter(says_more).collect();
    lines[lines.len().saturating_sub(LINES)..].join("; ")
}

fn errno(code: i32) -> String {
    // SAFETY: it returns a string of its own, of this thread, for any number.
    unsafe { std::ffi::CStr::from_ptr(dpdk_sys::rte_strerror(code.abs())) }.to_string_lossy().into_owned()
}

/// What EAL says every time.
const INFORMATION: &[&str] = &[
    "EAL: Detected",
    "EAL: Multi-process socket",
    "EAL: Selected IOVA mode",
    "EAL: VFIO support initialized",
    "EAL: Static memory layout",
    "EAL: No shared files mode",
    "EAL: In-memory mode",
    "EAL: No legacy callbacks",
    "EAL: WARNING! Base virtual address hint",
    "EAL:    This may cause issues",
    "EAL: WARNING: Main core has no memory",
    "EAL: Probe PCI driver",
    "EAL: Ignore mapping IO port bar",
    "EAL: Using IOMMU type",
    "TELEMETRY:",
];

/// What mends what, by words of DPDK's. The first that occurs counts.
const MENDS: &[(&str, &str)] = &[
    ("No free", "free some hugepages, or as root: echo 64 > /proc/sys/vm/nr_hugepages"),
    (
        "hugepage",
        "as root: echo 64 > /proc/sys/vm/nr_hugepages; or have none at all, then DPDK runs on ordinary pages",
    ),
    ("runtime directory", "run as root, or set XDG_RUNTIME_DIR to a folder that is yours"),
    (
        "not viable",
        "bind every device of its IOMMU group to vfio-pci (`rxline bind`), or leave it to the kernel",
    ),
    (
        "/dev/vfio",
        "bind the device to vfio-pci (`rxline bind PCI`) and give this user its /dev/vfio/GROUP, or run as root",
    ),
    ("VFIO", "bind the device to vfio-pci (`rxline bind PCI`), and have an IOMMU (intel_iommu=on)"),
    (
        "will not fit in mbuf",
        "have the device make smaller frames: net_af_packet has framesz=1792,blocksz=28672",
    ),
    ("Cannot find device", "`dpdk-devbind.py --status-dev net` lists devices, `ip link` interfaces"),
    (
        "failed to parse",
        "write the device as DPDK does (net_af_packet0,iface=eth0 or 0000:01:00.0), with a driver that is installed",
    ),
    ("SIOCGIFINDEX", "name an interface of this network namespace; `ip link` lists them"),
    ("no interface", "add the interface: net_af_packet0,iface=eth0"),
    (
        "Operation not permitted",
        "run as root, or: sudo setcap cap_net_raw,cap_net_admin,cap_ipc_lock+ep PROGRAM",
    ),
    ("Permission denied", "run as root, or: sudo setcap cap_net_raw,cap_net_admin,cap_ipc_lock+ep PROGRAM"),
];

fn mend(text: &str, code: i32) -> &'static str {
    if let Some((_, mend)) = MENDS.iter().find(|(word, _)| text.contains(word)) {
        return mend;
    }
    // Not EPERM: it is 1, and -1 is what DPDK returns for anything.
    match code.abs() {
        libc::EACCES => "run as root",
        libc::ENOMEM => {
            "as root: echo 64 > /proc/sys/vm/nr_hugepages; or give the pools more buffers than the rings have slots"
        }
        libc::EEXIST => "the name is taken: count on, as in net_ring1",
        libc::ENODEV | libc::ENOENT => "look for the device: `dpdk-devbind.py --status-dev net`, `ip link`",
        libc::EBUSY => "somebody has the device: end it, or take another",
        _ => {
            "compare the device's arguments with its page in DPDK's \"Network Interface Controller Drivers\""
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn information_is_left_out_and_complaints_stay() {
        let text = "EAL: Detected CPU lcores: 2\nEAL: Selected IOVA mode 'VA'\nvdev_probe(): failed to initialize net_x device\n";
        assert_eq!(complaints(text), "vdev_probe(): failed to initialize net_x device");
        assert_eq!(complaints("EAL: VFIO support initialized\n"), "");
    }

    #[test]
    fn the_mend_follows_from_the_words_and_else_from_the_code() {
        assert!(mend("EAL: No free 2048 kB hugepages reported on node 0", 0).contains("nr_hugepages"));
        assert!(mend("", -libc::EEXIST).contains("net_ring1"));
    }
}
