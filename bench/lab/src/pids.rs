//! What a run left behind when it was killed: processes and namespaces, remembered in `target/lab/state`.
//!
//! A process is remembered with its start time, so that `clean` never ends another that got the same number.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::host::Host;

/// Remembers a process group; the file goes when the process does.
pub fn remember(host: &Host, pid: u32) -> PathBuf {
    let path = folder(host, "pids").join(pid.to_string());
    let _ = fs::write(&path, started(pid).unwrap_or_default());
    path
}

/// Remembers a namespace.
pub fn remember_namespace(host: &Host, name: &str) -> PathBuf {
    let path = folder(host, "netns").join(name);
    let _ = fs::write(&path, "");
    path
}

/// Ends every remembered process group that still is the one remembered; how many.
pub fn end_leftovers(host: &Host) -> usize {
    let mut ended = 0;
    for path in entries(&folder(host, "pids")) {
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let recorded = fs::read_to_string(&path).unwrap_or_default();
        if let Some(number) = number
            && started(number).is_some_and(|now| now == recorded)
            && let Some(pid) = Pid::from_raw(number.cast_signed())
        {
            ended += usize::from(kill_process_group(pid, Signal::KILL).is_ok());
        }
        let _ = fs::remove_file(path);
    }
    ended
}

/// Names of remembered namespaces.
pub fn leftover_namespaces(host: &Host) -> Vec<(String, PathBuf)> {
    let named = |path: PathBuf| Some((path.file_name()?.to_str()?.to_string(), path));
    entries(&folder(host, "netns")).into_iter().filter_map(named).collect()
}

fn folder(host: &Host, kind: &str) -> PathBuf {
    let path = host.work.join("state").join(kind);
    let _ = fs::create_dir_all(&path);
    path
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// A process's start in clock ticks since boot: field 22 of /proc/PID/stat; none: there is no such process.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(19).map(str::to_string)
}
