//! Where control sockets are: paths, modes, and whose turn it is.
//!
//! `/run/rxline` for root, `$XDG_RUNTIME_DIR/rxline` for others, or a folder of the user's own under `/tmp` where there
//! is no such thing; mode 0700 with sockets of mode 0600, named `COMMAND-PID.sock`. Whoever looks for sockets or makes one
//! holds a lock on the folder meanwhile, so that nobody takes away a socket that is just being made; a socket that
//! refuses connections under that lock is a dead process's, and is removed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::geteuid;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;
/// How long the folder's lock may be another's. It is held for microseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Why a control socket could not be made or found.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The folder cannot be made or read.
    #[error("{}: {source}; name another place with --control PATH", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder is not private.
    #[error("{} is not ours alone ({what}): remove it or `chmod 700` it, or use --control PATH", path.display())]
    NotPrivate {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another process serves there.
    #[error("{} is another running rxline's: stop that one, or name another path", path.display())]
    Taken {
        /// Where.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} exists and is not a socket: remove it, or name another path", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// Somebody keeps the folder locked.
    #[error("{} has been locked for {} s by another process: `fuser -v` names it", path.display(), LOCK_PATIENCE.as_secs())]
    Locked {
        /// Which.
        path: PathBuf,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> PlaceError {
    let path = path.to_path_buf();
    move |source| PlaceError::Io { path, source }
}

/// The folder of this user's control sockets. It need not exist.
pub fn default_directory() -> PathBuf {
    let user = geteuid();
    if user.is_root() {
        return "/run/rxline".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => Path::new(&dir).join("rxline"),
        None => format!("/tmp/rxline-{}", user.as_raw()).into(),
    }
}

/// Where a command of this process serves unless it is told otherwise.
pub(crate) fn default_path(directory: &Path, command: &str) -> PathBuf {
    directory.join(format!("{command}-{}.sock", std::process::id()))
}

/// A socket's file. Dropping it, after its listener, removes the file; unless somebody else serves there by now.
#[derive(Debug)]
pub(crate) struct SocketFile {
    pub path: PathBuf,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _lock = lock(folder_of(&self.path));
        if !is_alive(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the folder if there is none, and makes sure that nobody else may write in it.
pub(crate) fn make_private(directory: &Path) -> Result<(), PlaceError> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error(directory)(error)),
        _ => {}
    }
    must_be_private(directory)
}

fn must_be_private(directory: &Path) -> Result<(), PlaceError> {
    let meta = fs::symlink_metadata(directory).map_err(io_error(directory))?;
    let us = geteuid().as_raw();
    let what = if !meta.is_dir() {
        "it is no folder".into()
    } else if meta.uid() != us {
        format!("it is user {}'s, and we are user {us}", meta.uid())
    } else if meta.mode() & 0o077 != 0 {
        format!("its mode is {:o}", meta.mode() & 0o7777)
    } else {
        return Ok(());
    };
    Err(PlaceError::NotPrivate { path: directory.into(), what })
}

/// Listens at `path`, where only this user and root may connect. Takes the place of a dead process's socket.
pub(crate) fn listen_at(path: &Path) -> Result<(UnixListener, SocketFile), PlaceError> {
    let _lock = lock(folder_of(path))?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(path)(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(PlaceError::NotASocket { path: path.into() });
        }
        Ok(_) if is_alive(path) => return Err(PlaceError::Taken { path: path.into() }),
        Ok(_) => fs::remove_file(path).map_err(io_error(path))?,
    }
    let listener = bind_private(path).map_err(|error| io_error(path)(error.into()))?;
    Ok((listener, SocketFile { path: path.into() }))
}

/// The file has its mode from its first moment on: Linux takes it over from the unbound socket.
fn bind_private(path: &Path) -> Result<UnixListener, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// The sockets in a folder of ours that somebody serves, in the order of their names; those of dead processes are
/// removed. No folder, no sockets.
pub(crate) fn living(directory: &Path) -> Result<Vec<PathBuf>, PlaceError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io_error(directory))?,
    };
    must_be_private(directory)?;
    let _lock = lock(directory)?;
    let mut living = Vec::new();
    for entry in entries {
        let path = entry.map_err(io_error(directory))?.path();
        if path.extension().is_none_or(|extension| extension != "sock") {
            continue;
        }
        if is_alive(&path) {
            living.push(path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
    living.sort_unstable();
    Ok(living)
}

/// Whether somebody serves there. One who is too busy to accept, or not ours to ask, is alive.
fn is_alive(path: &Path) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let asked = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|socket| connect(&socket, &SocketAddrUnix::new(path)?));
    !matches!(asked, Err(Errno::CONNREFUSED | Errno::NOENT))
}

fn lock(folder: &Path) -> Result<File, PlaceError> {
    let file = File::open(folder).map_err(io_error(folder))?;
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => sleep(Duration::from_millis(1)),
            Err(Errno::WOULDBLOCK) => return Err(PlaceError::Locked { path: folder.into() }),
            Err(error) => return Err(io_error(folder)(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A folder that is gone at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("rxl-place-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            make_private(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn nobody_else_may_use_the_socket_or_its_folder() {
        let folder = Folder::new("mode");
        let path = folder.0.join("a.sock");
        let (_listener, _file) = listen_at(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder.0), mode(&path)), (0o700, 0o600));
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o750)).unwrap();
        let error = make_private(&folder.0).unwrap_err();
        assert!(error.to_string().contains("its mode is 750"), "{error}");
        let link = folder.0.join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(matches!(make_private(&link), Err(PlaceError::NotPrivate { .. })));
    }

    #[test]
    fn a_living_socket_is_left_alone_and_a_dead_one_replaced() {
        let folder = Folder::new("stale");
        let path = folder.0.join("a.sock");
        let first = listen_at(&path).unwrap();
        assert!(matches!(listen_at(&path), Err(PlaceError::Taken { .. })));
        assert_eq!(living(&folder.0).unwrap(), std::slice::from_ref(&path));
        // As a killed process leaves it: the file is there, and nobody listens.
        let (listener, file) = first;
        drop(listener);
        let second = listen_at(&path).unwrap();
        // The first one's end does not take the second one's file away.
        drop(file);
        assert_eq!(living(&folder.0).unwrap(), std::slice::from_ref(&path));
        drop(second.0);
        assert_eq!(living(&folder.0).unwrap(), [] as [PathBuf; 0]);
        assert!(!path.exists(), "removed on sight");
        std::mem::forget(second.1);
    }

    #[test]
    fn what_is_no_socket_is_not_touched() {
        let folder = Folder::new("file");
        let path = folder.0.join("a.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(listen_at(&path), Err(PlaceError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn of_two_that_start_at_once_one_wins() {
        let folder = Folder::new("race");
        let path = folder.0.join("a.sock");
        for _ in 0..50 {
            let start = std::sync::Barrier::new(4);
            let won: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            listen_at(&path)
                        })
                    })
                    .collect();
                threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect()
            });
            assert_eq!(won.len(), 1);
            assert!(is_alive(&path));
        }
    }

    #[test]
    fn a_path_that_is_too_long_is_named() {
        let folder = Folder::new("long");
        let path = folder.0.join("x".repeat(120));
        let error = listen_at(&path).unwrap_err().to_string();
        assert!(error.contains("xxx") && error.contains("--control"), "{error}");
    }
}
