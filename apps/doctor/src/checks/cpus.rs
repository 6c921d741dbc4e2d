//! CPUs that polling threads may use, how undisturbed they are, and on which node.

use std::collections::BTreeSet;

use crate::machine::{Machine, list};
use crate::report::{Group, State};
use crate::targets::Targets;

type Cpus = BTreeSet<usize>;

pub(super) fn check(machine: &Machine, _targets: &Targets, group: &mut Group<'_>) {
    let allowed = allowed(machine);
    usable(machine, &allowed, group);
    isolated(machine, &allowed, group);
    quota(machine, group);
    governor(machine, &allowed, group);
    nodes(machine, group);
}

/// The CPUs that this process may use.
pub(super) fn allowed(machine: &Machine) -> Cpus {
    let text = machine.value("proc/self/status", "Cpus_allowed_list").unwrap_or_default();
    list(&text).into_iter().collect()
}

fn usable(machine: &Machine, allowed: &Cpus, group: &mut Group<'_>) {
    let online: Cpus =
        list(&machine.text("sys/devices/system/cpu/online").unwrap_or_default()).into_iter().collect();
    match (allowed.len(), online.len()) {
        (0, _) => {
            let text = "the process's CPUs cannot be read";
            group.bad("usable", None, State::Warning, text, "mount -t proc proc /proc");
        }
        (1, online) => {
            let text = format!("1 of {online}: polling and everything else share it");
            let mend = match online {
                0..=1 => "give the machine a second CPU".into(),
                _ => format!("taskset -c 0-{} rxline ..", online - 1),
            };
            group.bad("usable", None, State::Warning, text, mend);
        }
        (n, online) => group.ok("usable", None, format!("{n} of {online}: {}", ranges(allowed))),
    }
}

fn isolated(machine: &Machine, allowed: &Cpus, group: &mut Group<'_>) {
    let read = |name: &str| -> Cpus {
        let text = machine.text(format!("sys/devices/system/cpu/{name}")).unwrap_or_default();
        list(&text).into_iter().collect()
    };
    let (isolated, tickless) = (read("isolated"), read("nohz_full"));
    if isolated.is_empty() {
        // CPU 0 keeps the machine's own work.
        let text = "none: other tasks and interrupts delay polling threads now and then";
        let last = allowed.last().copied().unwrap_or(1).max(1);
        let cpus = if last == 1 { "1".into() } else { format!("1-{last}") };
        let mend =
            format!("boot with isolcpus=managed_irq,domain,{cpus} nohz_full={cpus} and give --cores {cpus}");
        group.bad("isolated", None, State::Warning, text, mend);
        return;
    }
    let unusable: Cpus = isolated.difference(allowed).copied().collect();
    if unusable == isolated {
        let text = format!("{}, and this process may use none of them", ranges(&isolated));
        let mend = format!("taskset -c {} rxline ..", ranges(&isolated));
        group.bad("isolated", None, State::Warning, text, mend);
    } else {
        group.ok("isolated", None, ranges(&isolated));
    }
    let ticking: Cpus = isolated.difference(&tickless).copied().collect();
    if ticking.is_empty() {
        group.ok("nohz_full", None, ranges(&tickless));
    } else {
        let text = format!("isolated CPUs {} still have a timer tick", ranges(&ticking));
        group.bad(
            "nohz_full",
            None,
            State::Warning,
            text,
            format!("boot with nohz_full={}", ranges(&isolated)),
        );
    }
}

/// A quota stops a thread that polls, for the rest of each period.
fn quota(machine: &Machine, group: &mut Group<'_>) {
    let text = machine.text("proc/self/cgroup").unwrap_or_default();
    let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::/")) else { return };
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != "..").collect();
    for depth in (1..=parts.len()).rev() {
        let own = parts[..depth].join("/");
        let max = machine.text(format!("sys/fs/cgroup/{own}/cpu.max")).unwrap_or_default();
        let mut numbers = max.split_whitespace().map(str::parse::<f64>);
        if let (Some(Ok(quota)), Some(Ok(period))) = (numbers.next(), numbers.next()) {
            let text = format!("/{own} may use {:.1} CPUs: threads that poll are stopped", quota / period);
            let mend = format!("echo max | sudo tee /sys/fs/cgroup/{own}/cpu.max");
            return group.bad("cgroup_quota", None, State::Warning, text, mend);
        }
    }
    group.ok("cgroup_quota", None, "none");
}

fn governor(machine: &Machine, allowed: &Cpus, group: &mut Group<'_>) {
    let read =
        |cpu: &usize| machine.text(format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"));
    let slow: Cpus = allowed
        .iter()
        .filter(|cpu| read(cpu).is_some_and(|governor| governor != "performance"))
        .copied()
        .collect();
    if let Some(first) = slow.first() {
        let text = format!("{} on CPUs {}", read(first).unwrap_or_default(), ranges(&slow));
        let mend = "sudo cpupower frequency-set -g performance";
        group.bad("governor", None, State::Warning, text, mend);
    } else if allowed.iter().any(|cpu| read(cpu).is_some()) {
        group.ok("governor", None, "performance");
    }
}

fn nodes(machine: &Machine, group: &mut Group<'_>) {
    let online = list(&machine.text("sys/devices/system/node/online").unwrap_or_default());
    for node in online {
        let cpus: Cpus = cpus_of(machine, node);
        group.ok("numa_node", Some(&node.to_string()), format!("CPUs {}", ranges(&cpus)));
    }
}

/// The CPUs of a NUMA node.
pub(super) fn cpus_of(machine: &Machine, node: usize) -> Cpus {
    let text = machine.text(format!("sys/devices/system/node/node{node}/cpulist")).unwrap_or_default();
    list(&text).into_iter().collect()
}

/// As the kernel writes sets: `0-3,8`.
pub(super) fn ranges(cpus: &Cpus) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match runs.last_mut() {
            Some((_, to)) if *to + 1 == cpu => *to = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let run = |(from, to): &(usize, usize)| {
        if from == to { from.to_string() } else { format!("{from}-{to}") }
    };
    if runs.is_empty() { "none".into() } else { runs.iter().map(run).collect::<Vec<_>>().join(",") }
}
