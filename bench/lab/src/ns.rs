//! Network namespaces of our own: `rxl-SUFFIX-ROLE`, gone with their owner.

use std::fs::File;
use std::path::PathBuf;

use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::fault::{Context, Result};
use crate::pids;
use crate::proc::Cmd;
use crate::step::Cx;

/// One namespace; loopback is up, IPv6 interfaces make no addresses of their own.
pub struct Netns {
    name: String,
    remembered: PathBuf,
}

impl Netns {
    /// Makes one.
    pub fn create(cx: &Cx<'_>, role: &str) -> Result<Netns> {
        let name = format!("rxl-{}-{role}", cx.host.suffix);
        Cmd::line(&format!("ip netns add {name}")).ok(cx)?;
        let remembered = pids::remember_namespace(cx.host, &name);
        let ns = Netns { name, remembered };
        ns.ip(cx, "link set lo up")?;
        // New interfaces come up without a link-local address, without router solicitations: only what a step sends is on the wire.
        ns.within(|| {
            for (setting, value) in [("addr_gen_mode", "1"), ("accept_ra", "0"), ("accept_dad", "0")] {
                let path = format!("/proc/sys/net/ipv6/conf/default/{setting}");
                std::fs::write(&path, value).context(|| format!("write {value} to {path}"))?;
            }
            Ok(())
        })?;
        Ok(ns)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A program inside it. The program gets a mount namespace of its own too, as `ip netns exec` has it.
    pub fn cmd(&self, program: impl AsRef<std::ffi::OsStr>) -> Cmd {
        Cmd::new(program).under(["ip", "netns", "exec", &self.name])
    }

    /// `ip WORDS` on its interfaces.
    pub fn ip(&self, cx: &Cx<'_>, words: &str) -> Result {
        Cmd::line(&format!("ip -n {} {words}", self.name)).ok(cx).map(drop)
    }

    /// Whether a program inside it has bound this UDP port, by the kernel's own list.
    pub fn has_udp_socket(&self, port: u16) -> Result<bool> {
        let sockets = self.within(|| {
            let path = "/proc/thread-self/net/udp";
            std::fs::read_to_string(path).context(|| format!("read {path}"))
        })?;
        Ok(sockets.contains(&format!(":{port:04X} ")))
    }

    /// `f` on a thread inside it, so that the sockets `f` opens belong to it.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.name);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let fd = File::open(&path).context(|| format!("open {path}"))?;
                move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))
                    .context(|| format!("enter {}", self.name))?;
                f()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if delete(&self.name) {
            let _ = std::fs::remove_file(&self.remembered);
        }
    }
}

/// `ip netns del`; whether it went.
pub fn delete(name: &str) -> bool {
    let status = std::process::Command::new("ip").args(["netns", "del", name]).output();
    status.is_ok_and(|output| output.status.success())
}
