//! Guests: QEMU machines with Intel NICs, for drivers that no NIC of the host is there for.
//!
//! A guest boots in about five seconds. It sees the host's /usr, read-only, and one folder that both write, `/share`; a step
//! puts programs there and has the guest run scripts, one after another. Each NIC hangs on a [`wire::Wire`], whose other end
//! is this process, or on a hub with the other NICs. There is an IOMMU, so that VFIO is used as on real machines.
//! Deliberately absent: KVM, because CI has none: a guest shows that something is correct, never how fast it is.

mod cpio;
pub mod echo;
pub mod hand;
mod initramfs;
mod kit;
mod line;
mod monitor;
pub mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use kit::Kit;
use line::Line;
use monitor::Monitor;
use wire::Wire;

use crate::fault::{Context, Fault, Result, ensure, tail};
use crate::ns::Netns;
use crate::proc::{Cmd, Running};
use crate::step::Cx;

/// Sockets between QEMU and us. Their paths have to be short, and the machine's lock admits one lab at a time.
const SOCKETS: &str = "/run/rxline-lab";

/// Boots within five seconds on an idle machine.
const BOOT: Duration = Duration::from_secs(60);

/// What a script may take when nobody says otherwise.
const LIMIT: Duration = Duration::from_secs(30);

/// A NIC of the guest: `0000:01:00.0`, `0000:02:00.0`, and so on.
#[derive(Clone, Copy, Debug)]
pub struct Nic {
    /// As QEMU calls it: `igb` (82576), `e1000e` (82574L).
    pub model: &'static str,
    /// What it is connected with.
    pub peer: Peer,
}

/// The other end of a NIC's cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// This process: [`Guest::wire`].
    Wire,
    /// All NICs with this number.
    Hub(u8),
    /// A tap of this name, which QEMU makes in the network namespace that it runs in.
    Tap(&'static str),
}

/// The MAC address of NIC `index`.
pub fn mac(index: usize) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, 1 + index as u8]
}

/// The PCI address of NIC `index`.
pub fn pci(index: usize) -> String {
    format!("0000:{:02x}:00.0", 1 + index)
}

/// A guest that runs. Going out of scope ends it; what it said on its console goes into the step's log.
pub struct Guest<'a> {
    cx: &'a Cx<'a>,
    qemu: Running,
    agent: Line,
    monitor: Monitor,
    wires: Vec<Option<Wire>>,
    share: PathBuf,
    scripts: usize,
    console: PathBuf,
}

impl<'a> Guest<'a> {
    /// Starts one, and waits until it takes scripts.
    pub fn boot(cx: &'a Cx<'a>, kit: &Kit, nics: &[Nic]) -> Result<Guest<'a>> {
        Guest::boot_with(cx, kit, nics, |qemu| qemu)
    }

    /// The same with QEMU in a network namespace, where its taps are.
    pub fn boot_in(cx: &'a Cx<'a>, kit: &Kit, nics: &[Nic], ns: &Netns) -> Result<Guest<'a>> {
        Guest::boot_with(cx, kit, nics, |qemu| qemu.under(["ip", "netns", "exec", ns.name()]))
    }

    fn boot_with(cx: &'a Cx<'a>, kit: &Kit, nics: &[Nic], place: impl Fn(Cmd) -> Cmd) -> Result<Guest<'a>> {
        let sockets = Path::new(SOCKETS);
        let _ = fs::remove_dir_all(sockets);
        fs::create_dir_all(sockets).context(|| format!("create {SOCKETS}"))?;
        let share = cx.dir.join("share");
        fs::create_dir_all(&share).context(|| format!("create {}", share.display()))?;
        fs::copy("/etc/ld.so.cache", share.join("ld.so.cache")).context(|| "copy /etc/ld.so.cache".into())?;
        let console = cx.dir.join("console");
        let mut wires = Vec::new();
        for (index, nic) in nics.iter().enumerate() {
            let wire = (nic.peer == Peer::Wire).then(|| Wire::new(sockets, index));
            wires.push(wire.transpose()?);
        }
        let command = machine(kit, &share, &console);
        let command =
            nics.iter().enumerate().fold(command, |command, (index, nic)| plug(command, index, *nic));
        let mut qemu = place(command).start(cx, "qemu")?;
        let agent = Line::connect(cx, &mut qemu, &sockets.join("agent"))?;
        let monitor = Monitor::connect(cx, &mut qemu, &sockets.join("monitor"))?;
        let mut guest = Guest { cx, qemu, agent, monitor, wires, share, scripts: 0, console };
        let ready = guest.agent.receive(cx, &mut guest.qemu, BOOT)?;
        ensure!(ready == "ready", "the guest's first word is {ready:?}");
        cx.log.line("the guest is up");
        Ok(guest)
    }

    /// Puts a file into the share, under its own name.
    pub fn give(&self, file: &Path) -> Result {
        let name = file.file_name().unwrap_or_default();
        let to = self.share.join(name);
        let _ = fs::remove_file(&to);
        fs::copy(file, &to).map(drop).context(|| format!("copy {} to the share", file.display()))
    }

    /// Runs a script of busybox's sh and wants status 0; what it printed.
    pub fn sh(&mut self, script: &str) -> Result<String> {
        match self.run(script, LIMIT)? {
            (0, printed) => Ok(printed),
            (status, printed) => Err(Fault::Status {
                command: script.trim().into(),
                status: format!("exit code {status} in the guest"),
                tail: tail(&printed, 20),
            }),
        }
    }

    /// Runs a script; its status and what it printed. It runs in a subshell, so a background process outlives it.
    pub fn run(&mut self, script: &str, limit: Duration) -> Result<(i32, String)> {
        self.scripts += 1;
        let number = self.scripts;
        let path = self.share.join(format!("{number}.sh"));
        fs::write(&path, script).context(|| format!("write {}", path.display()))?;
        self.cx.log.line(format!("guest $ {}", script.trim()));
        self.agent.send(&number.to_string())?;
        let answer = self.agent.receive(self.cx, &mut self.qemu, limit).map_err(|fault| match fault {
            Fault::TimedOut { .. } => {
                let tail = tail(&self.shared(&format!("{number}.out")), 20);
                Fault::TimedOut { command: script.trim().into(), limit, tail }
            }
            other => other,
        })?;
        let printed = self.shared(&format!("{number}.out"));
        self.cx.log.block(&printed);
        let status = answer.strip_prefix(&format!("{number} ")).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| Fault::Check(format!("the guest answered {answer:?}")))?;
        Ok((status, printed))
    }

    /// Writes a file into the share.
    pub fn write(&self, name: &str, text: &str) -> Result {
        let path = self.share.join(name);
        fs::write(&path, text).context(|| format!("write {}", path.display()))
    }

    /// Removes a file from the share.
    pub fn remove(&self, name: &str) -> Result {
        let path = self.share.join(name);
        fs::remove_file(&path).context(|| format!("remove {}", path.display()))
    }

    /// A remark for the step's log.
    pub fn log(&self, text: &str) {
        self.cx.log.block(text);
    }

    /// What a file in the share holds; empty if there is none.
    pub fn shared(&self, name: &str) -> String {
        let bytes = fs::read(self.share.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Gives NIC `index` to user space: VFIO with its IOMMU.
    pub fn bind_vfio(&mut self, index: usize) -> Result {
        let pci = pci(index);
        let device = format!("/sys/bus/pci/devices/{pci}");
        self.sh(&format!(
            "load vfio_iommu_type1 && load vfio_pci
            [ ! -e {device}/driver ] || echo {pci} > {device}/driver/unbind
            echo vfio-pci > {device}/driver_override
            echo {pci} > /sys/bus/pci/drivers_probe
            [ \"$(basename \"$(readlink {device}/driver)\")\" = vfio-pci ]"
        ))
        .map(drop)
    }

    /// The host's end of NIC `index`'s cable, once.
    pub fn wire(&mut self, index: usize) -> Wire {
        self.wires[index].take().expect("a NIC on a wire, whose end was not taken before")
    }

    /// Pulls or plugs the cable of NIC `index`.
    pub fn set_link(&mut self, index: usize, up: bool) -> Result {
        let arguments = serde_json::json!({ "name": nic_id(index), "up": up });
        self.monitor.execute(self.cx, &mut self.qemu, "set_link", arguments)
    }

    /// Ends it. A fault that its kernel or IOMMU reported is ours: programs in the guest run on nothing but our drivers.
    pub fn stop(self) -> Result {
        self.must_be_well()
    }

    /// An error if its kernel or IOMMU reported one.
    pub fn must_be_well(&self) -> Result {
        let said = fs::read(&self.console).context(|| format!("read {}", self.console.display()))?;
        let said = String::from_utf8_lossy(&said);
        let bad = said.lines().find(|line| is_fault(line));
        ensure!(bad.is_none(), "the guest's kernel reports: {}", bad.unwrap_or_default());
        Ok(())
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let console = fs::read(&self.console).unwrap_or_default();
        self.cx.log.line("the guest's console:");
        self.cx.log.block(&String::from_utf8_lossy(&console));
        self.cx.log.block(&self.qemu.stderr());
        let _ = fs::remove_dir_all(SOCKETS);
    }
}

fn is_fault(line: &str) -> bool {
    const WORDS: [&str; 7] =
        ["DMAR: [", "BUG:", "Oops", "Call Trace", "general protection", "segfault at", "traps: "];
    WORDS.iter().any(|word| line.contains(word))
}

fn nic_id(index: usize) -> String {
    format!("nic{index}")
}

/// Two CPUs, an IOMMU, the two folders, the two serial lines.
fn machine(kit: &Kit, share: &Path, console: &Path) -> Cmd {
    let command = kit.qemu().args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    // One thread runs both CPUs: with one each, a store to a device can go astray while the other maps or unmaps one (QEMU looks its target up
    // anew, in a map that has changed), and a CPU is left without its timer.
    let command = command.args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", "1536"]);
    let command = command.args(["-M", "q35,kernel-irqchip=split"]);
    let command = command.args(["-device", "intel-iommu,intremap=on,caching-mode=on,aw-bits=48"]);
    let command = command.arg("-kernel").arg(&kit.kernel).arg("-initrd").arg(&kit.initramfs);
    // Without the last word the kernel panics when a busy host starves its timer at the start.
    let command =
        command.args(["-append", "console=ttyS0 loglevel=7 panic=-1 no_timer_check intel_iommu=on iommu=pt"]);
    let command =
        command.args(["-serial", &format!("file:{}", console.display()), "-serial", "chardev:agent"]);
    let command = command.args(["-chardev", &socket("agent"), "-chardev", &socket("monitor")]);
    let command = command.args(["-mon", "chardev=monitor,mode=control"]);
    let usr = "local,id=usr,path=/usr,security_model=none,readonly=on,multidevs=remap";
    let command = command.args(["-fsdev", usr, "-device", "virtio-9p-pci,fsdev=usr,mount_tag=usr"]);
    let share = format!("local,id=share,path={},security_model=none", share.display());
    command.args(["-fsdev", &share, "-device", "virtio-9p-pci,fsdev=share,mount_tag=share"])
}

fn socket(name: &str) -> String {
    format!("socket,id={name},path={SOCKETS}/{name},server=on,wait=off")
}

/// Each NIC has a root port, and so an IOMMU group, of its own.
fn plug(command: Cmd, index: usize, nic: Nic) -> Cmd {
    let (id, slot) = (nic_id(index), 1 + index);
    let [a, b, c, d, e, f] = mac(index);
    let netdev = match nic.peer {
        Peer::Hub(number) => format!("hubport,id=net{index},hubid={number}"),
        Peer::Tap(name) => format!("tap,id=net{index},ifname={name},script=no,downscript=no,vnet_hdr=off"),
        Peer::Wire => Wire::netdev(Path::new(SOCKETS), index),
    };
    let port = format!("pcie-root-port,id=port{index},chassis={slot},slot={slot}");
    let model = nic.model;
    let device = format!(
        "{model},id={id},netdev=net{index},bus=port{index},mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"
    );
    command.args(["-netdev", &netdev, "-device", &port, "-device", &device])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_the_guests_kernel_are_noticed() {
        assert!(is_fault("[   12.3] DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x1000"));
        assert!(is_fault("[    9.9] BUG: kernel NULL pointer dereference, address: 0000000000000000"));
        assert!(is_fault("[    5.0] forward[71]: segfault at 0 ip 000055 sp 00007f error 4"));
        assert!(is_fault(
            "[   10.7] traps: forward[178] trap invalid opcode ip:55878503a44c sp:7fff29 error:0"
        ));
        assert!(!is_fault("[    0.1] DMAR: IOMMU enabled"));
    }
}
