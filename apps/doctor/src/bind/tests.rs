//! Binding on made-up machines, with a made-up kernel behind their files.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::*;
use crate::fixture::Tree;
use crate::net::{Link, Network};

const NIC: &str = "0000:03:00.0";
const OTHER: &str = "0000:03:00.1";

/// Does to a tree what Linux does on these writes, and counts them.
struct Linux<'a> {
    tree: &'a Tree,
    /// A driver whose probe fails.
    broken: Option<&'static str>,
    writes: usize,
}

impl Kernel for Linux<'_> {
    fn write(&mut self, path: &Path, text: &str) -> io::Result<()> {
        self.writes += 1;
        let below = path.strip_prefix(self.tree.root()).unwrap().to_str().unwrap().to_owned();
        let parts: Vec<&str> = below.split('/').collect();
        match parts[..] {
            ["sys", "bus", "pci", "devices", address, "driver_override"] => {
                let shown = if text == "\n" { "(null)\n" } else { text };
                self.tree.file(&format!("sys/devices/pci0000:00/{address}/driver_override"), shown);
            }
            ["sys", "bus", "pci", "drivers", driver, "unbind"] => {
                let real = format!("sys/devices/pci0000:00/{text}");
                if !self.tree.root().join(format!("sys/bus/pci/drivers/{driver}/{text}")).is_symlink() {
                    return Err(io::Error::from_raw_os_error(19));
                }
                self.tree.remove(&format!("sys/bus/pci/drivers/{driver}/{text}"));
                self.tree.remove(&format!("{real}/driver"));
                let _ = fs::remove_file(self.tree.root().join("sys/class/net/eth1"));
            }
            ["sys", "bus", "pci", "drivers", driver, "bind"] => self.attach(text, driver)?,
            ["sys", "bus", "pci", "drivers_probe"] => {
                let named = self.tree.read(&format!("sys/devices/pci0000:00/{text}/driver_override"));
                let driver = if named == "(null)\n" { "igb" } else { named.trim() }.to_owned();
                // A probe that fails is not the writer's error.
                let _ = self.attach(text, &driver);
            }
            _ => panic!("nobody writes to {below}"),
        }
        Ok(())
    }
}

impl Linux<'_> {
    fn attach(&self, address: &str, driver: &str) -> io::Result<()> {
        let real = format!("sys/devices/pci0000:00/{address}");
        if self.broken == Some(driver) || self.tree.root().join(format!("{real}/driver")).exists() {
            return Err(io::Error::from_raw_os_error(22));
        }
        self.tree.link(&format!("{real}/driver"), &format!("sys/bus/pci/drivers/{driver}"));
        self.tree.link(&format!("sys/bus/pci/drivers/{driver}/{address}"), &real);
        if driver == "igb" {
            self.tree.interface("eth1", address);
        }
        Ok(())
    }
}

/// An igb NIC with the interface eth1, alone in its group, idle.
fn idle_nic(name: &str) -> Tree {
    let tree = Tree::new(name);
    tree.pci(NIC, 0x8086, 0x10c9, 0x020000, Some("igb"), Some(7), 0).interface("eth1", NIC);
    tree.file(&format!("sys/devices/pci0000:00/{NIC}/net/eth1/ifindex"), "2\n");
    fs::create_dir_all(tree.root().join("sys/bus/pci/drivers/vfio-pci")).unwrap();
    tree
}

fn idle_network() -> Network {
    let link = |index, name: &str| Link { index, name: name.into(), ethernet: true, ..Link::default() };
    let mut network = Network {
        links: vec![link(2, "eth1"), link(3, "bond0"), link(4, "br0"), link(5, "eth0")],
        default_routes: vec![Some(5)],
        ..Network::default()
    };
    network.links[3].up = true;
    network
}

struct Outcome {
    said: Result<Said, BindError>,
    writes: usize,
}

impl Outcome {
    fn words(&self) -> String {
        self.said.as_ref().map_or_else(BindError::to_string, |said| said.join("\n"))
    }
}

/// One run of the command as it would be given, with what of it is not usual.
#[derive(Clone, Copy, Default)]
struct How {
    force: bool,
    dry_run: bool,
    broken: Option<&'static str>,
}

fn run(
    tree: &Tree,
    network: Network,
    how: How,
    act: fn(&mut Binder<'_>, &[Address]) -> Result<Said, BindError>,
    devices: &[&str],
) -> Outcome {
    let machine = Machine::at(tree.root(), network);
    let mut kernel = Linux { tree, broken: how.broken, writes: 0 };
    let mut binder =
        Binder { machine: &machine, kernel: &mut kernel, force: how.force, dry_run: how.dry_run };
    let devices: Vec<Address> = devices.iter().map(|device| device.parse().unwrap()).collect();
    let said = act(&mut binder, &devices);
    Outcome { said, writes: kernel.writes }
}

fn driver(tree: &Tree, device: &str) -> Option<String> {
    let machine = Machine::at(tree.root(), Network::default());
    PciDevice::read(&machine, device.parse().unwrap()).unwrap().driver
}

fn remembered(tree: &Tree) -> bool {
    tree.root().join("run/rxline/bound").join(format!("{NIC}.json")).exists()
}

#[test]
fn a_nic_goes_to_vfio_and_comes_back() {
    let tree = idle_nic("round");
    let bound = run(&tree, idle_network(), How::default(), |b, d| b.bind(d), &[NIC]);
    assert!(bound.words().contains("igb -> vfio-pci, /dev/vfio/7, eth1 is gone"), "{}", bound.words());
    assert_eq!(driver(&tree, NIC).as_deref(), Some("vfio-pci"));
    assert!(remembered(&tree));
    let again = run(&tree, idle_network(), How::default(), |b, d| b.bind(d), &[NIC]);
    assert!(again.words().contains("already") && again.writes == 0, "{}", again.words());
    let back = run(&tree, idle_network(), How::default(), |b, d| b.unbind(d), &[NIC]);
    assert!(back.words().contains("vfio-pci -> igb (eth1"), "{}", back.words());
    assert_eq!(driver(&tree, NIC).as_deref(), Some("igb"));
    assert_eq!(tree.read(&format!("sys/devices/pci0000:00/{NIC}/driver_override")), "(null)\n");
    assert!(!remembered(&tree));
}

#[test]
fn a_dry_run_prints_the_writes_and_does_none() {
    let tree = idle_nic("dry");
    let before = tree.listing();
    let dry = How { dry_run: true, ..How::default() };
    let shown = run(&tree, idle_network(), dry, |b, d| b.bind(d), &[NIC]);
    let want = format!(
        "# remember in /run/rxline/bound/{NIC}.json: igb\n\
         echo vfio-pci > /sys/bus/pci/devices/{NIC}/driver_override\n\
         echo {NIC} > /sys/bus/pci/drivers/igb/unbind\n\
         echo {NIC} > /sys/bus/pci/drivers_probe"
    );
    assert_eq!((shown.words(), shown.writes), (want, 0));
    assert_eq!(tree.listing(), before);
}

/// What is wrong, whether --force passes over it, and what the refusal says.
struct Case {
    what: &'static str,
    spoil: fn(&Tree, &mut Network),
    forced: bool,
    says: &'static str,
}

const CASES: &[Case] = &[
    Case {
        what: "the default route is its own",
        spoil: |_, network| network.default_routes.push(Some(2)),
        forced: false,
        says: "carries the default route",
    },
    Case {
        what: "the default route is a bridge's, over a bond",
        spoil: |tree, network| {
            tree.file("sys/class/net/eth1/upper_bond0", "").file("sys/class/net/bond0/upper_br0", "");
            network.default_routes.push(Some(4));
        },
        forced: false,
        says: "carries br0, which has the default route",
    },
    Case {
        what: "a default route without an interface, and it is up",
        spoil: |_, network| {
            network.default_routes.push(None);
            network.links[0].up = true;
        },
        forced: false,
        says: "names no interface",
    },
    Case {
        what: "the kernel does not answer",
        spoil: |_, network| network.error = Some("Operation not permitted".into()),
        forced: false,
        says: "does not answer",
    },
    Case {
        what: "/sys is another namespace's",
        spoil: |_, network| network.links[0].index = 9,
        forced: false,
        says: "another network namespace",
    },
    Case {
        what: "it is up",
        spoil: |_, network| network.links[0].up = true,
        forced: true,
        says: "`ip link set eth1 down`",
    },
    Case {
        what: "it has an address",
        spoil: |_, network| network.addresses.push((2, IpAddr::from([192, 0, 2, 1]))),
        forced: true,
        says: "eth1 has 192.0.2.1; `ip addr flush dev eth1`",
    },
    Case {
        what: "it is in a bond without a route",
        spoil: |tree, _| _ = tree.file("sys/class/net/eth1/upper_bond0", ""),
        forced: true,
        says: "bond0 is built upon eth1",
    },
    Case {
        what: "it has virtual functions",
        spoil: |tree, _| _ = tree.file(&format!("sys/devices/pci0000:00/{NIC}/sriov_numvfs"), "4\n"),
        forced: true,
        says: "4 virtual functions",
    },
    Case {
        what: "its interface is in a namespace out of sight",
        spoil: |tree, _| tree.remove("sys/class/net/eth1"),
        forced: true,
        says: "no namespace that is seen from here",
    },
    Case {
        what: "no vfio-pci",
        spoil: |tree, _| tree.remove("sys/bus/pci/drivers/vfio-pci"),
        forced: false,
        says: "boot a kernel with CONFIG_VFIO_PCI",
    },
    Case {
        what: "vfio-pci is not loaded",
        spoil: |tree, _| {
            tree.remove("sys/bus/pci/drivers/vfio-pci");
            tree.file("proc/sys/kernel/osrelease", "6.1.0\n");
            tree.file("lib/modules/6.1.0/modules.dep", "kernel/drivers/vfio/pci/vfio-pci.ko.xz:\n");
        },
        forced: false,
        says: "sudo modprobe vfio-pci",
    },
    Case {
        what: "no IOMMU",
        spoil: |tree, _| tree.remove(&format!("sys/devices/pci0000:00/{NIC}/iommu_group")),
        forced: false,
        says: "intel_iommu=on",
    },
    Case {
        what: "not a NIC",
        spoil: |tree, _| _ = tree.file(&format!("sys/devices/pci0000:00/{NIC}/class"), "0x010802\n"),
        forced: false,
        says: "no network device (class 010802)",
    },
];

#[test]
fn what_must_stay_is_refused_and_nothing_is_written() {
    for (at, case) in CASES.iter().enumerate() {
        for force in [false, true] {
            let (tree, mut network) = (idle_nic(&format!("no{at}{force}")), idle_network());
            (case.spoil)(&tree, &mut network);
            let how = How { force, ..How::default() };
            let outcome = run(&tree, network, how, |b, d| b.bind(d), &[NIC]);
            let words = outcome.words();
            if force && case.forced {
                assert!(outcome.said.is_ok(), "{} with --force: {words}", case.what);
                assert_eq!(driver(&tree, NIC).as_deref(), Some("vfio-pci"), "{}", case.what);
            } else {
                assert!(outcome.said.is_err(), "{}: {words}", case.what);
                assert!(words.contains(case.says), "{}: {words}", case.what);
                assert_eq!((outcome.writes, remembered(&tree)), (0, false), "{}", case.what);
            }
        }
    }
}

#[test]
fn of_several_none_is_bound_if_one_is_refused() {
    let tree = idle_nic("several");
    tree.pci(OTHER, 0x8086, 0x10c9, 0x020000, Some("igb"), Some(7), 0).interface("eth0", OTHER);
    tree.file(&format!("sys/devices/pci0000:00/{OTHER}/net/eth0/ifindex"), "5\n");
    let outcome = run(&tree, idle_network(), How::default(), |b, d| b.bind(d), &[NIC, OTHER]);
    assert!(outcome.words().contains("0000:03:00.1 (eth0) carries the default route"), "{}", outcome.words());
    assert_eq!(outcome.writes, 0);
}

#[test]
fn others_of_the_group_are_named() {
    let tree = idle_nic("group");
    tree.pci(OTHER, 0x8086, 0x10c9, 0x020000, Some("igb"), Some(7), 0);
    tree.pci("0000:00:1c.0", 0x8086, 0x1, 0x060400, Some("pcieport"), Some(7), 0);
    let outcome = run(&tree, idle_network(), How::default(), |b, d| b.bind(d), &[NIC]);
    let words = outcome.words();
    assert!(words.contains("shares IOMMU group 7 with 0000:03:00.1 (igb)"), "{words}");
    assert!(!words.contains("00:1c.0"), "bridges are no matter: {words}");
}

#[test]
fn a_nic_that_vfio_does_not_take_goes_back() {
    let tree = idle_nic("rollback");
    let broken = How { broken: Some("vfio-pci"), ..How::default() };
    let outcome = run(&tree, idle_network(), broken, |b, d| b.bind(d), &[NIC]);
    let words = outcome.words();
    assert!(words.contains("dmesg") && words.contains("it is back at igb"), "{words}");
    assert_eq!(driver(&tree, NIC).as_deref(), Some("igb"));
    assert_eq!(tree.read(&format!("sys/devices/pci0000:00/{NIC}/driver_override")), "(null)\n");
    assert!(!remembered(&tree));
}

#[test]
fn a_nic_in_use_by_a_process_stays() {
    let tree = idle_nic("open");
    run(&tree, idle_network(), How::default(), |b, d| b.bind(d), &[NIC]);
    tree.file("proc/4711/comm", "rxline\n").file("proc/4711/fd/0", "");
    std::os::unix::fs::symlink("/dev/vfio/7", tree.root().join("proc/4711/fd/5")).unwrap();
    let outcome = run(&tree, idle_network(), How::default(), |b, d| b.unbind(d), &[NIC]);
    assert!(outcome.words().contains("process 4711 (rxline)"), "{}", outcome.words());
    assert_eq!(outcome.writes, 0);
}

#[test]
fn unbind_says_what_it_cannot_do() {
    let tree = idle_nic("unbind");
    let outcome = run(&tree, idle_network(), How::default(), |b, d| b.unbind(d), &[NIC]);
    assert!(outcome.words().contains("not bound to vfio-pci but to igb"), "{}", outcome.words());
    run(&tree, idle_network(), How::default(), |b, d| b.bind(d), &[NIC]);
    fs::rename(tree.root().join("sys/bus/pci/drivers/igb"), tree.root().join("gone")).unwrap();
    let outcome = run(&tree, idle_network(), How::default(), |b, d| b.unbind(d), &[NIC]);
    assert!(outcome.words().contains("sudo modprobe igb"), "{}", outcome.words());
    assert_eq!((outcome.writes, driver(&tree, NIC).as_deref()), (0, Some("vfio-pci")));
}

#[test]
fn without_a_memory_the_kernel_chooses() {
    let tree = idle_nic("forgotten");
    run(&tree, idle_network(), How::default(), |b, d| b.bind(d), &[NIC]);
    tree.remove("run");
    let outcome = run(&tree, idle_network(), How::default(), |b, d| b.unbind(d), &[NIC]);
    assert!(outcome.words().contains("the kernel chose"), "{}", outcome.words());
    assert_eq!(driver(&tree, NIC).as_deref(), Some("igb"));
}

#[test]
fn a_nic_without_a_driver_is_left_without_one() {
    let tree = Tree::new("driverless");
    tree.pci(NIC, 0x8086, 0x10c9, 0x020000, None, Some(7), 0);
    fs::create_dir_all(tree.root().join("sys/bus/pci/drivers/vfio-pci")).unwrap();
    run(&tree, idle_network(), How::default(), |b, d| b.bind(d), &[NIC]);
    assert_eq!(driver(&tree, NIC).as_deref(), Some("vfio-pci"));
    let outcome = run(&tree, idle_network(), How::default(), |b, d| b.unbind(d), &[NIC]);
    assert!(outcome.words().contains("vfio-pci -> no driver"), "{}", outcome.words());
    assert_eq!(driver(&tree, NIC), None);
}

#[test]
fn the_machine_must_have_the_files_that_are_written() {
    let tree = idle_nic("real");
    let machine = Machine::at(tree.root(), idle_network());
    let devices: [Address; 1] = [NIC.parse().unwrap()];
    // The tree has no `unbind` file: the real writer makes none.
    let mut binder = Binder { machine: &machine, kernel: &mut Sysfs, force: false, dry_run: false };
    let error = binder.bind(&devices).unwrap_err().to_string();
    assert!(error.contains("drivers/igb/unbind") && error.contains("is /sys mounted?"), "{error}");
}
