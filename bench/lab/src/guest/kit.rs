//! What guests are made of: QEMU, a kernel, busybox; unpacked under `target/lab/guest`, never installed.
//!
//! Debian 12's own QEMU has no igb, so it comes from backports, and `kit.sh` fetches it in apt folders of its own: the
//! machine's sources, its installed QEMU if it has one, and its kernels stay as they are.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::initramfs;
use crate::fault::{Context, Fault, Result, ensure};
use crate::proc::Cmd;
use crate::step::Cx;

const SUITE: &str = "bookworm-backports";
/// What is unpacked, with what it needs.
const PACKAGES: [&str; 2] = ["qemu-system-x86", "busybox-static"];
/// The newest kernel that Debian 12 gets security updates for; the package behind this name changes.
const KERNEL: &str = "linux-image-6.12-amd64";

/// Where the parts are.
pub struct Kit {
    root: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// Its first file system.
    pub initramfs: PathBuf,
}

impl Kit {
    /// Downloads and unpacks what is not there yet, and makes the initramfs.
    pub fn obtain(cx: &Cx<'_>) -> Result<Kit> {
        let folder = cx.host.work.join("guest");
        let root = folder.join("root");
        if !folder.join("complete").exists() || !runs(cx, &root)? {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/guest/kit.sh");
            let command = Cmd::new("sh").arg(script).arg(&folder).arg(SUITE).args(PACKAGES);
            command.args(["--", KERNEL]).limit(Duration::from_secs(300)).run_to_log(cx)?;
            ensure!(runs(cx, &root)?, "QEMU does not start from {}; the log says why", root.display());
        }
        let kernel = only(&root.join("boot"), "vmlinuz-")?;
        let modules = only(&root.join("lib/modules"), "")?;
        let initramfs = folder.join("initramfs");
        initramfs::make(cx, &modules, &root.join("bin/busybox"), &initramfs)?;
        Ok(Kit { root, kernel, initramfs })
    }

    /// QEMU without any device.
    pub fn qemu(&self) -> Cmd {
        qemu(&self.root)
    }
}

fn runs(cx: &Cx<'_>, root: &Path) -> Result<bool> {
    Ok(root.exists() && qemu(root).arg("-version").run(cx)?.status.success())
}

/// Its modules and libraries are found in `root` before those of a QEMU that is installed.
fn qemu(root: &Path) -> Cmd {
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let mut command = Cmd::new(root.join("usr/bin/qemu-system-x86_64"));
    for firmware in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
        command = command.arg("-L").arg(root.join(firmware));
    }
    let both: OsString = [libraries.as_os_str(), ":".as_ref(), root.join("lib/x86_64-linux-gnu").as_os_str()]
        .into_iter()
        .collect();
    command.env("LD_LIBRARY_PATH", both).env("QEMU_MODULE_DIR", libraries.join("qemu"))
}

/// The one entry of a folder whose name begins so.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).context(|| format!("read {}", folder.display()))?;
    let mut found = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.path()),
        _ => Err(Fault::Check(format!("{} is to hold one `{prefix}*`: `cargo lab clean`", folder.display()))),
    }
}
