//! Hugepages, and how much memory may be locked.

use crate::machine::Machine;
use crate::report::{Group, State};
use crate::targets::Targets;

use super::{missing, rights};

/// What a port's pool needs at the least: 8192 buffers of 4 KiB and a UMEM or DMA map of them, with some room.
const LOCKED_MIN: u64 = 64 << 20;

pub(super) fn check(machine: &Machine, targets: &Targets, group: &mut Group<'_>) {
    hugepages(machine, targets, group);
    mounts(machine, targets, group);
    memlock(machine, targets, group);
}

fn hugepages(machine: &Machine, targets: &Targets, group: &mut Group<'_>) {
    const FOLDER: &str = "sys/kernel/mm/hugepages";
    let mut free_kib = 0;
    let mut lines = Vec::new();
    for size in machine.names(FOLDER) {
        let Some(kib) = size.strip_prefix("hugepages-").and_then(|size| size.strip_suffix("kB")) else {
            continue;
        };
        let read = |name: &str| machine.number(format!("{FOLDER}/{size}/{name}")).unwrap_or(0).max(0) as u64;
        let (all, free, promised) = (read("nr_hugepages"), read("free_hugepages"), read("resv_hugepages"));
        let free = free.saturating_sub(promised);
        free_kib += free * kib.parse::<u64>().unwrap_or(0);
        lines.push((kib.to_owned(), all, free));
    }
    // EAL does not start without, unless it is told so.
    let needed = targets.drivers().any(|driver| driver.scheme == "dpdk");
    if lines.is_empty() {
        let text =
            "this kernel has none (CONFIG_HUGETLBFS): buffers use ordinary pages, which cost up to 1.4x";
        let mend = "boot a kernel with CONFIG_HUGETLBFS=y";
        return group.bad("hugepages", None, State::Warning, text, mend);
    }
    for (kib, all, free) in &lines {
        if *all > 0 || free_kib > 0 {
            let text = format!("{free} of {all} free, for anybody by memfd_create");
            group.ok("hugepages", Some(&format!("{kib} kB")), text);
        }
    }
    if free_kib == 0 {
        let text = "none free: buffers use ordinary pages, which cost up to 1.4x at random";
        group.bad("hugepages", None, missing(needed), text, "echo 512 | sudo tee /proc/sys/vm/nr_hugepages");
    }
}

/// Only DPDK wants the file system: our own regions are memfds.
fn mounts(machine: &Machine, targets: &Targets, group: &mut Group<'_>) {
    let mounts = machine.text("proc/self/mounts").unwrap_or_default();
    let mounted = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|m| m.get(2) == Some(&"hugetlbfs"));
    let dpdk = targets.drivers().any(|driver| driver.scheme == "dpdk");
    match mounted {
        Some(mount) => group.ok("hugetlbfs", None, format!("mounted at {}", mount[1])),
        None if dpdk => {
            let text = "not mounted: EAL needs it to share memory with other DPDK processes";
            let mend = "sudo mkdir -p /dev/hugepages && sudo mount -t hugetlbfs none /dev/hugepages";
            group.bad("hugetlbfs", None, State::Warning, text, mend);
        }
        None => group.ok("hugetlbfs", None, "not mounted; only DPDK would use it"),
    }
}

fn memlock(machine: &Machine, targets: &Targets, group: &mut Group<'_>) {
    let limits = machine.text("proc/self/limits").unwrap_or_default();
    let Some(line) = limits.lines().find_map(|line| line.strip_prefix("Max locked memory")) else { return };
    let soft = line.split_whitespace().next().unwrap_or_default();
    let bytes = soft.parse().unwrap_or(u64::MAX);
    if rights::effective(machine).is_some_and(|held| held.has("CAP_IPC_LOCK")) {
        group.ok("memlock", None, "no limit for a process with CAP_IPC_LOCK");
    } else if bytes >= LOCKED_MIN {
        let shown = if soft == "unlimited" { soft.into() } else { format!("{} MiB", bytes >> 20) };
        group.ok("memlock", None, shown);
    } else {
        let needed = targets.drivers().any(|driver| driver.locks);
        let text =
            format!("{} KiB may be locked: too little for af_xdp:'s UMEM and for DMA by VFIO", bytes >> 10);
        let mend = "ulimit -l unlimited  # as root; in a systemd unit: LimitMEMLOCK=infinity";
        group.bad("memlock", None, missing(needed), text, mend);
    }
}
