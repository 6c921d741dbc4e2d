//! The checks on made-up machines: a sound one, and the same with one thing wrong at a time.

use super::*;
use crate::fixture::Tree;
use crate::net::{Channels, Link, Network, Peer, XdpProgram};
use crate::report::Finding;
use crate::targets::Target;

const STATUS: &str = "CapEff:\t000001ffffffffff\nCpus_allowed_list:\t0-3\n";
const LIMITS: &str =
    "Limit  Soft Limit  Hard Limit  Units\nMax locked memory         unlimited   unlimited  bytes\n";

/// Two nodes, hugepages, an IOMMU; an 82576 on vfio-pci and an interface on an X710.
fn sound(name: &str) -> Tree {
    let tree = Tree::new(name);
    tree.file("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
        .file("proc/sys/net/core/bpf_jit_enable", "1\n")
        .file("proc/self/status", STATUS)
        .file("proc/self/limits", LIMITS)
        .file("proc/self/cgroup", "0::/user.slice/rxline.scope\n")
        .file("proc/self/mounts", "hugetlbfs /dev/hugepages hugetlbfs rw 0 0\n")
        .file("sys/fs/cgroup/user.slice/cpu.max", "max 100000\n")
        .file("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n")
        .file("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm\n")
        .file("sys/devices/system/cpu/online", "0-3\n")
        .file("sys/devices/system/cpu/isolated", "2-3\n")
        .file("sys/devices/system/cpu/nohz_full", "2-3\n")
        .file("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n")
        .file("sys/devices/system/node/online", "0-1\n")
        .file("sys/devices/system/node/node0/cpulist", "0-1\n")
        .file("sys/devices/system/node/node1/cpulist", "2-3\n")
        .file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512\n")
        .file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "400\n")
        .file("sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "100\n")
        .file("sys/class/iommu/dmar0/uevent", "")
        .file("dev/vfio/7", "")
        .file("lib/modules/6.1.0-18-amd64/modules.dep", "kernel/drivers/vfio/pci/vfio-pci.ko:\n")
        .file("usr/lib64/librte_eal.so.23", "")
        .file("usr/lib64/pkgconfig/libdpdk.pc", "Name: DPDK\nVersion: 22.11.4\n")
        .pci("0000:03:00.0", 0x8086, 0x10c9, 0x020000, Some("vfio-pci"), Some(7), 1)
        .pci("0000:05:00.0", 0x8086, 0x1572, 0x020000, Some("i40e"), Some(9), 0)
        .interface("eth1", "0000:05:00.0");
    tree
}

fn network() -> Network {
    let eth1 = Link {
        index: 2,
        name: "eth1".into(),
        up: true,
        running: true,
        ethernet: true,
        mtu: 1500,
        queues: (4, 4),
        channels: Some(Channels { rx: 4, rx_max: 4, combined: true }),
        ..Link::default()
    };
    let veth = |index, name: &str, peer, tx_checksum| Link {
        index,
        name: name.into(),
        kind: Some("veth".into()),
        peer: Peer::Here(peer),
        tx_checksum: Some(tx_checksum),
        xdp_features: Some(0x67),
        channels: None,
        ..eth1.clone()
    };
    let links = vec![eth1.clone(), veth(3, "veth0", 4, false), veth(4, "veth1", 3, false)];
    Network { links, ..Network::default() }
}

fn look(tree: &Tree, network: Network, targets: &[&str]) -> Report {
    let targets = targets.iter().map(|text| text.parse::<Target>().unwrap()).collect();
    all(&Machine::at(tree.root(), network), &Targets(targets))
}

fn find<'a>(report: &'a Report, name: &str, of: Option<&str>) -> &'a Finding {
    let found = report.findings.iter().find(|finding| finding.name == name && finding.of.as_deref() == of);
    found.unwrap_or_else(|| panic!("no line {name} {of:?} in\n{report}"))
}

#[test]
fn on_a_sound_machine_all_is_well() {
    let tree = sound("sound");
    let report = look(&tree, network(), &[]);
    assert_eq!((report.count(State::Warning), report.count(State::Problem)), (0, 0), "{report}");
    assert!(find(&report, "device", Some("0000:03:00.0")).text.contains("igb:0000:03:00.0 drives it"));
    assert!(find(&report, "device", Some("0000:05:00.0")).text.contains("i40e (eth1)"));
    assert!(find(&report, "hugepages", Some("2048 kB")).text.starts_with("300 of 512"));
    assert!(find(&report, "xdp_native", Some("eth1")).text.contains("zero copy"));
    assert_eq!(find(&report, "numa_node", Some("1")).text, "CPUs 2-3");
}

/// What is wrong, what was asked about, and the line that must say so with its mend.
struct Case {
    what: &'static str,
    spoil: fn(&Tree, &mut Network),
    targets: &'static [&'static str],
    name: &'static str,
    of: Option<&'static str>,
    state: State,
    mend: &'static str,
}

const CASES: &[Case] = &[
    Case {
        what: "no free hugepages",
        spoil: |tree, _| _ = tree.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "100\n"),
        targets: &[],
        name: "hugepages",
        of: None,
        state: State::Warning,
        mend: "echo 512 | sudo tee /proc/sys/vm/nr_hugepages",
    },
    Case {
        what: "no free hugepages for DPDK",
        spoil: |tree, _| _ = tree.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0\n"),
        targets: &["dpdk:net_ring0"],
        name: "hugepages",
        of: None,
        state: State::Problem,
        mend: "nr_hugepages",
    },
    Case {
        what: "no capabilities, nothing asked for",
        spoil: |tree, _| _ = tree.file("proc/self/status", "CapEff:\t0\nCpus_allowed_list:\t0-3\n"),
        targets: &[],
        name: "capability",
        of: Some("CAP_NET_RAW"),
        state: State::Warning,
        mend: "sudo setcap cap_net_admin,cap_net_raw,cap_bpf+ep /usr/bin/rxline",
    },
    Case {
        what: "no capabilities for a port that needs one",
        spoil: |tree, _| _ = tree.file("proc/self/status", "CapEff:\t0\nCpus_allowed_list:\t0-3\n"),
        targets: &["af_packet:eth1"],
        name: "capability",
        of: Some("CAP_NET_RAW"),
        state: State::Problem,
        mend: "sudo setcap cap_net_raw+ep /usr/bin/rxline",
    },
    Case {
        what: "CAP_BPF without CAP_SYS_ADMIN",
        spoil: |tree, _| {
            _ = tree.file("proc/self/status", "CapEff:\t0000000000003000\nCpus_allowed_list:\t0-3\n")
        },
        targets: &["af_xdp:eth1"],
        name: "capability",
        of: Some("CAP_BPF"),
        state: State::Problem,
        mend: "cap_bpf",
    },
    Case {
        what: "little memory may be locked",
        spoil: |tree, _| {
            tree.file("proc/self/status", "CapEff:\t0\nCpus_allowed_list:\t0-3\n");
            tree.file("proc/self/limits", "Max locked memory         8388608              8388608   bytes\n");
        },
        targets: &["af_xdp:eth1"],
        name: "memlock",
        of: None,
        state: State::Problem,
        mend: "ulimit -l unlimited",
    },
    Case {
        what: "a slow clock",
        spoil: |tree, _| {
            tree.file("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n");
        },
        targets: &[],
        name: "clock_source",
        of: None,
        state: State::Warning,
        mend: "echo tsc | sudo tee",
    },
    Case {
        what: "a quota on an outer group",
        spoil: |tree, _| _ = tree.file("sys/fs/cgroup/user.slice/cpu.max", "150000 100000\n"),
        targets: &[],
        name: "cgroup_quota",
        of: None,
        state: State::Warning,
        mend: "echo max | sudo tee /sys/fs/cgroup/user.slice/cpu.max",
    },
    Case {
        what: "one CPU only",
        spoil: |tree, _| _ = tree.file("proc/self/status", "CapEff:\t1ffffffffff\nCpus_allowed_list:\t2\n"),
        targets: &[],
        name: "usable",
        of: None,
        state: State::Warning,
        mend: "taskset -c 0-3",
    },
    Case {
        what: "isolated CPUs that are not ours",
        spoil: |tree, _| _ = tree.file("proc/self/status", "CapEff:\t1ffffffffff\nCpus_allowed_list:\t0-1\n"),
        targets: &[],
        name: "isolated",
        of: None,
        state: State::Warning,
        mend: "taskset -c 2-3",
    },
    Case {
        what: "isolated CPUs with a tick",
        spoil: |tree, _| _ = tree.file("sys/devices/system/cpu/nohz_full", "(null)\n"),
        targets: &[],
        name: "nohz_full",
        of: None,
        state: State::Warning,
        mend: "nohz_full=2-3",
    },
    Case {
        what: "no CPU on the NIC's node",
        spoil: |tree, _| _ = tree.file("proc/self/status", "CapEff:\t1ffffffffff\nCpus_allowed_list:\t0-1\n"),
        targets: &["0000:03:00.0"],
        name: "numa",
        of: Some("0000:03:00.0"),
        state: State::Warning,
        mend: "taskset -c 2-3",
    },
    Case {
        what: "no IOMMU",
        spoil: |tree, _| tree.remove("sys/kernel/iommu_groups"),
        targets: &["igb:0000:03:00.0"],
        name: "iommu",
        of: None,
        state: State::Problem,
        mend: "intel_iommu=on",
    },
    Case {
        what: "vfio-pci is not loaded",
        spoil: |tree, _| tree.remove("sys/bus/pci/drivers/vfio-pci"),
        targets: &["igb:0000:03:00.0"],
        name: "vfio",
        of: None,
        state: State::Problem,
        mend: "sudo modprobe vfio-pci",
    },
    Case {
        what: "the kernel has the NIC",
        spoil: |_, _| {},
        targets: &["dpdk:0000:05:00.0"],
        name: "device",
        of: Some("0000:05:00.0"),
        state: State::Problem,
        mend: "sudo rxline bind 0000:05:00.0",
    },
    Case {
        what: "the wrong native driver",
        spoil: |_, _| {},
        targets: &["e1000e:0000:03:00.0"],
        name: "device_driver",
        of: Some("0000:03:00.0"),
        state: State::Problem,
        mend: "igb:0000:03:00.0",
    },
    Case {
        what: "the group's file is not there",
        spoil: |tree, _| tree.remove("dev/vfio/7"),
        targets: &["igb:0000:03:00.0"],
        name: "vfio_group",
        of: Some("0000:03:00.0"),
        state: State::Problem,
        mend: "chown",
    },
    Case {
        what: "half of the group is the kernel's",
        spoil: |tree, _| _ = tree.pci("0000:03:00.1", 0x8086, 0x10c9, 0x020000, Some("igb"), Some(7), 1),
        targets: &["igb:0000:03:00.0"],
        name: "iommu_group",
        of: Some("0000:03:00.0"),
        state: State::Problem,
        mend: "sudo rxline bind 0000:03:00.1",
    },
    Case {
        what: "not a NIC",
        spoil: |tree, _| _ = tree.pci("0000:00:01.0", 0x8086, 0x1, 0x010802, Some("nvme"), Some(1), 0),
        targets: &["0000:00:01.0"],
        name: "device",
        of: Some("0000:00:01.0"),
        state: State::Problem,
        mend: "lspci -D",
    },
    Case {
        what: "no such interface",
        spoil: |_, _| {},
        targets: &["af_packet:eth7"],
        name: "interface",
        of: Some("eth7"),
        state: State::Problem,
        mend: "ip -br link",
    },
    Case {
        what: "an interface that is down",
        spoil: |_, network| (network.links[0].up, network.links[0].running) = (false, false),
        targets: &["af_packet:eth1"],
        name: "interface",
        of: Some("eth1"),
        state: State::Problem,
        mend: "sudo ip link set eth1 up",
    },
    Case {
        what: "somebody else's XDP program",
        spoil: |_, network| network.links[0].xdp = Some(XdpProgram { mode: "native", id: 12 }),
        targets: &["af_xdp:eth1"],
        name: "xdp_program",
        of: Some("eth1"),
        state: State::Problem,
        mend: "sudo ip link set dev eth1 xdp off",
    },
    Case {
        what: "no native XDP, says the kernel",
        spoil: |_, network| network.links[0].xdp_features = Some(0),
        targets: &["af_xdp:eth1"],
        name: "xdp_native",
        of: Some("eth1"),
        state: State::Warning,
        mend: "af_packet:",
    },
    Case {
        what: "unfinished checksums",
        spoil: |_, network| network.links[2].tx_checksum = Some(true),
        targets: &["af_xdp:veth0"],
        name: "veth_checksum",
        of: Some("veth0"),
        state: State::Problem,
        mend: "sudo ethtool -K veth1 tx off",
    },
    Case {
        what: "a veth's end out of sight",
        spoil: |_, network| network.links[1].peer = Peer::Elsewhere,
        targets: &[],
        name: "veth_checksum",
        of: Some("veth0"),
        state: State::Warning,
        mend: "ethtool -K PEER tx off",
    },
    Case {
        what: "DPDK is not installed",
        spoil: |tree, _| tree.remove("usr/lib64"),
        targets: &["dpdk:net_null0"],
        name: "libraries",
        of: None,
        state: State::Problem,
        mend: "apt-get install libdpdk-dev",
    },
];

#[test]
fn each_thing_that_is_wrong_is_named_with_its_mend() {
    for (at, case) in CASES.iter().enumerate() {
        let (tree, mut network) = (sound(&format!("case{at}")), network());
        (case.spoil)(&tree, &mut network);
        let report = look(&tree, network, case.targets);
        let found = find(&report, case.name, case.of);
        assert_eq!(found.state, case.state, "{}: {found}", case.what);
        let mend = found.mend.as_deref().unwrap_or_default();
        assert!(mend.contains(case.mend), "{}: {found}", case.what);
    }
}

/// The sound machine has none of these lines as a warning or a problem: each test above sees what it spoilt, not what was there.
#[test]
fn nothing_is_said_of_what_is_not_wrong() {
    for case in CASES.iter().filter(|case| case.what != "not a NIC" && !case.targets.is_empty()) {
        let report = look(&sound("control"), network(), case.targets);
        let same = |finding: &&Finding| finding.name == case.name && finding.of.as_deref() == case.of;
        let said = report.findings.iter().find(same).map(|finding| finding.state);
        let own =
            ["the kernel has the NIC", "the wrong native driver", "no such interface"].contains(&case.what);
        assert_eq!(said.is_none_or(|state| state == State::Ok), !own, "{}:\n{report}", case.what);
    }
}

#[test]
fn json_keeps_its_names() {
    let tree = sound("json");
    tree.remove("sys/kernel/iommu_groups");
    let report = look(&tree, network(), &[]);
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!((&json["v"], &json["problems"]), (&1.into(), &0.into()));
    let findings = json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), report.findings.len());
    let iommu = findings.iter().find(|finding| finding["name"] == "iommu").unwrap();
    assert_eq!(
        (&iommu["group"], &iommu["state"], &iommu["of"]),
        (&"pci".into(), &"warning".into(), &serde_json::Value::Null)
    );
    assert!(iommu["mend"].as_str().unwrap().contains("iommu=pt"));
}

#[test]
fn looking_changes_nothing() {
    let tree = sound("unchanged");
    let before = tree.listing();
    for targets in [&[][..], &["af_xdp:eth1", "igb:0000:03:00.0", "dpdk:0000:05:00.0", "veth0"]] {
        look(&tree, network(), targets);
    }
    assert_eq!(tree.listing(), before);
}

#[test]
fn a_machine_that_tells_nothing_is_no_panic() {
    let report =
        look(&Tree::new("empty"), Network::default(), &["af_xdp:eth1", "igb:0000:03:00.0", "dpdk:x"]);
    assert!(report.count(State::Problem) > 0, "{report}");
}
