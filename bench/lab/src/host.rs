//! The machine and the checkout that the lab runs on: paths, who we are, whether to stop.
//!
//! One [`Host`] lives as long as the program. It owns the global lock: namespaces have names of their own, but mount points
//! and the machine's two cores are shared, so a second lab waits for nobody and says so.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fault::{Context, Fault, Result};

const LOCK: &str = "/run/lock/rxline-lab.lock";

/// An ordinary user's ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The machine and the checkout.
pub struct Host {
    /// The workspace's folder.
    pub root: PathBuf,
    /// `target/lab`: logs, captures, caches, state.
    pub work: PathBuf,
    /// Distinguishes this run's namespaces from any other's.
    pub suffix: String,
    /// Who called us through sudo, if anyone.
    pub owner: Option<User>,
    /// Release builds are made crate by crate, which takes less time. What is measured is not.
    pub quick_builds: bool,
    stop: Arc<AtomicBool>,
    _lock: File,
}

impl Host {
    /// Finds the workspace and takes the machine's lock.
    pub fn open() -> Result<Host> {
        let (root, work) = folders()?;
        Host::new(root, work, lock(Path::new(LOCK))?)
    }

    /// The same for those who touch nothing but the workspace: its lock is in the work folder.
    pub fn open_unprivileged() -> Result<Host> {
        let (root, work) = folders()?;
        let lock = lock(&work.join("lock"))?;
        Host::new(root, work, lock)
    }

    fn new(root: PathBuf, work: PathBuf, lock: File) -> Result<Host> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            // A second signal of the kind ends the program at once.
            signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())
                .context(|| "signal handler".into())?;
            signal_hook::flag::register(signal, stop.clone()).context(|| "signal handler".into())?;
        }
        let suffix = format!("{:04x}", fastrand::u16(..));
        Ok(Host { root, work, suffix, owner: caller(), quick_builds: false, stop, _lock: lock })
    }

    /// An error once Ctrl-C or SIGTERM came.
    pub fn check(&self) -> Result {
        if self.stop.load(Ordering::Relaxed) { Err(Fault::Interrupted) } else { Ok(()) }
    }

    /// The folder cargo builds into.
    pub fn target(&self) -> PathBuf {
        target(&self.root)
    }

    /// The release binary.
    pub fn rxline(&self) -> PathBuf {
        self.target().join("release/rxline")
    }
}

impl Drop for Host {
    /// What root wrote is given to whoever called us through sudo, so that `cargo clean` works for them.
    fn drop(&mut self) {
        if let Some(owner) = self.owner {
            give(&self.work, owner);
        }
    }
}

/// Whether we are root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

fn caller() -> Option<User> {
    let id = |name| std::env::var(name).ok()?.parse().ok();
    let user = User { uid: id("SUDO_UID")?, gid: id("SUDO_GID")? };
    (is_root() && user.uid != 0).then_some(user)
}

fn folders() -> Result<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root.canonicalize().context(|| format!("workspace {}", root.display()))?;
    let work = target(&root).join("lab");
    fs::create_dir_all(&work).context(|| format!("create {}", work.display()))?;
    Ok((root, work))
}

fn lock(path: &Path) -> Result<File> {
    let shown = path.display();
    let file = File::options().create(true).append(true).open(path).context(|| format!("open {shown}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Fault::Check(format!("another `cargo lab` is running (it holds {shown})")))
        }
        Err(TryLockError::Error(source)) => Err(Fault::Io { what: format!("lock {shown}"), source }),
    }
}

/// `chown -R` without following links; best effort.
pub fn give(path: &Path, user: User) {
    let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    if path.is_symlink() || chown(path, Some(user.uid), Some(user.gid)).is_err() || !is_dir {
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        give(&entry.path(), user);
    }
}
