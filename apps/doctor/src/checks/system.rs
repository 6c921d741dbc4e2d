//! Kernel, clock, and what this binary has in it.

use crate::machine::Machine;
use crate::report::{Group, State};
use crate::targets::{DRIVERS, Targets};

use super::missing;

pub(super) fn check(machine: &Machine, targets: &Targets, group: &mut Group<'_>) {
    kernel(machine, targets, group);
    clock(machine, group);
    jit(machine, targets, group);
    drivers(targets, group);
}

fn kernel(machine: &Machine, targets: &Targets, group: &mut Group<'_>) {
    // XDP_USE_NEED_WAKEUP and membarrier's private commands are older; 5.11 accounts BPF memory to the cgroup.
    const AF_XDP_SINCE: (u32, u32) = (5, 4);
    let Some(release) = machine.text("proc/sys/kernel/osrelease") else {
        group.bad("kernel", None, State::Warning, "/proc is not readable", "mount -t proc proc /proc");
        return;
    };
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version >= AF_XDP_SINCE {
        group.ok("kernel", None, release);
    } else {
        let needed = targets.drivers().any(|driver| driver.scheme == "af_xdp");
        let text = format!("{release} is too old for af_xdp: (need_wakeup came with 5.4)");
        group.bad("kernel", None, missing(needed), text, "boot a kernel of 5.4 or later, or use af_packet:");
    }
}

/// The clock is read once a burst: 25 ns through the vDSO, and a system call without it.
fn clock(machine: &Machine, group: &mut Group<'_>) {
    const FOLDER: &str = "sys/devices/system/clocksource/clocksource0";
    let read = |name: &str| machine.text(format!("{FOLDER}/{name}"));
    let Some(current) = read("current_clocksource") else { return };
    // Those that the vDSO reads without a system call.
    if ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"].contains(&&*current) {
        group.ok("clock_source", None, current);
        return;
    }
    let available = read("available_clocksource").unwrap_or_default();
    let mend = if available.split_whitespace().any(|name| name == "tsc") {
        format!("echo tsc | sudo tee /{FOLDER}/current_clocksource")
    } else {
        "boot with tsc=reliable if the CPU's TSC is invariant (constant_tsc nonstop_tsc in /proc/cpuinfo)"
            .into()
    };
    let text = format!("{current}: each reading is a system call, and every burst reads it once");
    group.bad("clock_source", None, State::Warning, text, mend);
}

fn jit(machine: &Machine, targets: &Targets, group: &mut Group<'_>) {
    if machine.number("proc/sys/net/core/bpf_jit_enable") == Some(0) {
        let named = targets.drivers().any(|driver| driver.scheme == "af_xdp");
        if named || targets.is_empty() {
            let text = "off: the XDP program of af_xdp: is interpreted";
            let mend = "sudo sysctl -w net.core.bpf_jit_enable=1";
            group.bad("bpf_jit", None, State::Warning, text, mend);
        }
    }
}

fn drivers(targets: &Targets, group: &mut Group<'_>) {
    let built: Vec<_> = pmd::drivers().map(|(scheme, _)| scheme).collect();
    for driver in targets.drivers() {
        if !built.contains(&driver.scheme) {
            let mend = match driver.scheme {
                "dpdk" => "cargo build --release --features dpdk (needs libdpdk-dev)".into(),
                _ => format!("use a release of rxline that has {}:", driver.scheme),
            };
            let text = "not in this binary";
            group.bad("driver", Some(driver.scheme), State::Problem, text, mend);
        }
    }
    let known = DRIVERS.iter().map(|driver| driver.scheme).filter(|scheme| built.contains(scheme));
    group.ok("drivers", None, known.collect::<Vec<_>>().join(" "));
}
