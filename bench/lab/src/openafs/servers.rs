//! A cell's database servers, and while the databases are filled a file server.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fault::{Context, Fault, Result};
use crate::ns::Netns;
use crate::openafs::keys::Keys;
use crate::openafs::{PROTECTION, VLDB, write_config};
use crate::proc::{Cmd, Running};
use crate::step::Cx;

/// Where Debian's programs are.
const LIBEXEC: &str = "/usr/lib/openafs";
/// A server's partition; a folder stands in for it.
const PARTITION: &str = "/vicepa";

/// `vlserver` and `ptserver` in one namespace, on databases of their own.
pub struct Servers<'n> {
    ns: &'n Netns,
    name: String,
    address: Ipv4Addr,
    dir: PathBuf,
    vlserver: Running,
    ptserver: Running,
}

impl<'n> Servers<'n> {
    /// Starts them on a copy of `databases` (none: empty ones), for anybody to change. They answer once [`Servers::ready`] returned.
    pub fn start(
        cx: &Cx<'_>,
        ns: &'n Netns,
        name: &str,
        address: Ipv4Addr,
        databases: Option<&Path>,
    ) -> Result<Servers<'n>> {
        Servers::start_with(cx, ns, name, address, databases, None)
    }

    /// The same with these keys: who wants to change something must prove who it is.
    pub fn start_with(
        cx: &Cx<'_>,
        ns: &'n Netns,
        name: &str,
        address: Ipv4Addr,
        databases: Option<&Path>,
        keys: Option<&Keys>,
    ) -> Result<Servers<'n>> {
        let dir = cx.dir.join(name);
        for sub in ["db", "log", "local", "partition"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).context(|| format!("create {}", path.display()))?;
        }
        write_config(&dir.join("etc"), address)?;
        match keys {
            Some(keys) => {
                keys.copy_to(&dir.join("etc"))?;
                // Who may change what is not one's own.
                fs::write(dir.join("etc/UserList"), "admin\n").context(|| "write UserList".into())?;
            }
            // Without keys authorization is off, as `-noauth` would have it (ptserver has no such switch).
            None => fs::write(dir.join("local/NoAuth"), "").context(|| "write NoAuth".into())?,
        }
        // Only the servers' network counts as theirs.
        fs::write(dir.join("local/NetInfo"), format!("{address}\n")).context(|| "write NetInfo".into())?;
        for entry in databases.into_iter().flat_map(fs::read_dir).flatten().flatten() {
            fs::copy(entry.path(), dir.join("db").join(entry.file_name()))
                .context(|| format!("copy {}", entry.path().display()))?;
        }
        let daemon = |program: &str, database: &str, more: &[&str]| {
            let args = |cmd: Cmd| cmd.arg("-database").arg(dir.join("db").join(database)).args(more);
            launch(cx, ns, &dir, name, program, args)
        };
        let (vlserver, ptserver) =
            (daemon("vlserver", "vldb", &["-jumbo"])?, daemon("ptserver", "prdb", &[])?);
        Ok(Servers { ns, name: name.into(), address, dir, vlserver, ptserver })
    }

    /// Waits until both databases have a quorum of one.
    pub fn ready(&mut self, cx: &Cx<'_>) -> Result {
        for port in [VLDB.0, PROTECTION.0] {
            let what = format!("{} has a quorum on port {port}", self.name);
            let (address, port) = (self.address.to_string(), port.to_string());
            cx.wait_for(&what, Duration::from_secs(30), || {
                self.vlserver.must_live()?;
                self.ptserver.must_live()?;
                std::thread::sleep(Duration::from_millis(100));
                let udebug = self.ns.cmd("udebug").args(["-server", &address, "-port", &port]);
                let told = udebug.quiet().limit(Duration::from_secs(20)).run(cx)?.stdout;
                Ok((told.contains("I am sync site") && recovered(&told)).then_some(()))
            })?;
        }
        cx.log.line(format!("{} is ready", self.name));
        Ok(())
    }

    /// Where the databases are.
    pub fn databases(&self) -> PathBuf {
        self.dir.join("db")
    }

    /// Adds a file server and a volume server with one empty partition.
    pub fn start_file_server(&self, cx: &Cx<'_>) -> Result<FileServer> {
        let made = match fs::create_dir(PARTITION) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(source) => return Err(Fault::Io { what: format!("create {PARTITION}"), source }),
        };
        let mount_point = MountPoint { made };
        fs::write(self.dir.join("partition/AlwaysAttach"), "").context(|| "write AlwaysAttach".into())?;
        let fileserver = |cmd: Cmd| cmd.args(["-p", "4", "-L"]);
        let fileserver = launch(cx, self.ns, &self.dir, &self.name, "fileserver", fileserver)?;
        let volserver = launch(cx, self.ns, &self.dir, &self.name, "volserver", |cmd| cmd)?;
        Ok(FileServer { _processes: [fileserver, volserver], _mount_point: mount_point })
    }
}

/// Goes with its processes, and the mount point after them.
pub struct FileServer {
    _processes: [Running; 2],
    _mount_point: MountPoint,
}

struct MountPoint {
    made: bool,
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        if self.made {
            // Empty on the host: the partition is mounted over it in the servers' own mount namespace alone.
            let _ = fs::remove_dir(PARTITION);
        }
    }
}

/// Starts one of OpenAFS's servers with our folders in place of Debian's.
fn launch(
    cx: &Cx<'_>,
    ns: &Netns,
    dir: &Path,
    owner: &str,
    program: &str,
    args: impl Fn(Cmd) -> Cmd,
) -> Result<Running> {
    let mounts = "set -e; dir=$1; shift
        mount --bind $dir/local /var/lib/openafs/local
        mount --bind $dir/etc /etc/openafs/server
        if [ -d /vicepa ]; then mount --bind $dir/partition /vicepa; fi
        exec \"$@\"";
    let server = Cmd::new(format!("{LIBEXEC}/{program}"));
    let server =
        server.arg("-config").arg(dir.join("etc")).arg("-logfile").arg(dir.join("log").join(program));
    let dir = dir.to_string_lossy();
    let server = args(server).cwd(&*dir).under(["sh", "-c", mounts, "servers", &dir]);
    server.under(["ip", "netns", "exec", ns.name()]).start(cx, &format!("{owner}-{program}"))
}

/// Ubik has found, fetched and labelled its database: all but the bit that says it went to others.
fn recovered(told: &str) -> bool {
    let state = told.lines().find_map(|line| line.trim().strip_prefix("Recovery state "));
    state.and_then(|hex| u32::from_str_radix(hex.trim(), 16).ok()).is_some_and(|state| state & 0xf == 0xf)
}
