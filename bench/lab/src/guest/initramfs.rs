//! The guest's first and only file system of its own: busybox, `init.sh`, and the kernel's modules that guests use.
//!
//! Everything else comes from the host's /usr. Which module needs which is worked out here, once: in the guest it would
//! take seconds at every start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::cpio::Archive;
use crate::fault::{Context, Fault, Result};
use crate::proc::Cmd;
use crate::step::Cx;

/// What scripts may `load`.
const MODULES: [&str; 11] = [
    "9pnet_virtio",
    "9p",
    "igb",
    "e1000e",
    "vfio_iommu_type1",
    "vfio_pci",
    "fcrypt",
    "pcbc",
    "des_generic",
    "algif_skcipher",
    "rxrpc",
];

const FOLDERS: [&str; 12] =
    ["bin", "dev", "etc", "modules", "proc", "root", "run", "share", "sys", "tmp", "usr", "var"];

/// As the host has them, where programs look for the loader and libraries; scripts of DPDK look in /var/run.
const LINKS: [(&str, &str); 5] = [
    ("lib", "usr/lib"),
    ("lib32", "usr/lib32"),
    ("lib64", "usr/lib64"),
    ("sbin", "usr/sbin"),
    ("var/run", "../run"),
];

/// Makes it, unless there is one for this kernel and these scripts.
pub fn make(cx: &Cx<'_>, modules: &Path, busybox: &Path, to: &Path) -> Result {
    let init = include_str!("init.sh");
    let stamp = format!("{}\n{MODULES:?}\n{init}", modules.display());
    let stamped = to.with_extension("stamp");
    if to.exists() && fs::read_to_string(&stamped).is_ok_and(|old| old == stamp) {
        return Ok(());
    }
    let mut archive = Archive::default();
    FOLDERS.iter().for_each(|folder| archive.folder(folder));
    LINKS.iter().for_each(|(path, target)| archive.link(path, target));
    archive.file("init", init.as_bytes(), true);
    archive.file("bin/busybox", &read(busybox)?, true);
    let applets = Cmd::new(busybox).arg("--list").quiet().ok(cx)?.stdout;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    let unpacked = Unpacked::all(cx, modules)?;
    for (name, module) in &unpacked.modules {
        archive.file(&format!("modules/{name}.ko"), &module.content, false);
    }
    for wanted in MODULES {
        let order = unpacked.order(wanted).join("\n") + "\n";
        archive.file(&format!("modules/{wanted}.order"), order.as_bytes(), false);
    }
    let bytes = archive.finish();
    cx.log.line(format!("initramfs: {} modules, {} KiB", unpacked.modules.len(), bytes.len() / 1024));
    fs::write(to, bytes).context(|| format!("write {}", to.display()))?;
    Cmd::new("gzip").args(["-1", "--force", "--suffix", ".gz"]).arg(to).quiet().ok(cx)?;
    fs::rename(to.with_extension("gz"), to).context(|| format!("rename {}", to.display()))?;
    fs::write(&stamped, stamp).context(|| format!("write {}", stamped.display()))
}

struct Module {
    content: Vec<u8>,
    needs: Vec<String>,
}

/// Modules by name, as /proc/modules has it.
struct Unpacked {
    modules: BTreeMap<String, Module>,
}

impl Unpacked {
    /// [`MODULES`] and all that they need, round by round: what a module needs is known once it is unpacked.
    fn all(cx: &Cx<'_>, folder: &Path) -> Result<Unpacked> {
        let mut files = BTreeMap::new();
        find(folder, &mut files)?;
        let mut modules: BTreeMap<String, Module> = BTreeMap::new();
        let mut wanted: BTreeSet<String> = MODULES.iter().map(|name| (*name).to_string()).collect();
        while !wanted.is_empty() {
            let round = std::mem::take(&mut wanted);
            for (name, content) in unpack(cx, &files, &round)? {
                let needs = needs(&content);
                modules.insert(name, Module { content, needs });
            }
            let needed = modules.values().flat_map(|module| &module.needs);
            wanted.extend(needed.filter(|name| !modules.contains_key(*name)).cloned());
        }
        Ok(Unpacked { modules })
    }

    /// `wanted` after everything that it needs.
    fn order(&self, wanted: &str) -> Vec<String> {
        fn visit(all: &Unpacked, name: &str, order: &mut Vec<String>) {
            if order.iter().any(|known| known == name) {
                return;
            }
            // The kernel's modules need each other in no circle.
            all.modules[name].needs.iter().for_each(|needed| visit(all, needed, order));
            order.push(name.to_string());
        }
        let mut order = Vec::new();
        visit(self, wanted, &mut order);
        order
    }
}

/// Every module file under a folder, by the module's name.
fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result {
    for entry in fs::read_dir(folder).context(|| format!("read {}", folder.display()))?.flatten() {
        let path = entry.path();
        let file_name = entry.file_name();
        let file_name = file_name.to_string_lossy();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(&path, files)?;
        } else if let Some(name) = file_name.strip_suffix(".xz").unwrap_or(&file_name).strip_suffix(".ko") {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// The contents of some modules.
fn unpack(
    cx: &Cx<'_>,
    files: &BTreeMap<String, PathBuf>,
    names: &BTreeSet<String>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let folder = cx.dir.join("modules");
    fs::create_dir_all(&folder).context(|| format!("create {}", folder.display()))?;
    let mut packed = Vec::new();
    let mut copies = Vec::new();
    for name in names {
        let missing = || Fault::Check(format!("the kernel has no module {name}"));
        let from = files.get(name).ok_or_else(missing)?;
        let copy = folder.join(format!("{name}.ko"));
        let to = if from.extension().is_some_and(|suffix| suffix == "xz") {
            packed.push(copy.with_extension("ko.xz"));
            packed.last().unwrap_or(&copy)
        } else {
            &copy
        };
        fs::copy(from, to).context(|| format!("copy {}", from.display()))?;
        copies.push((name.clone(), copy));
    }
    if !packed.is_empty() {
        Cmd::new("xz").args(["--decompress", "--force"]).args(&packed).quiet().ok(cx)?;
    }
    let contents = copies.into_iter().map(|(name, copy)| Ok((name, read(&copy)?))).collect();
    let _ = fs::remove_dir_all(&folder);
    contents
}

/// What a module needs: the `depends=` of its section .modinfo, which holds strings that end with a zero byte.
fn needs(module: &[u8]) -> Vec<String> {
    let mut strings = module.split(|byte| *byte == 0);
    let listed = strings.find_map(|string| string.strip_prefix(b"depends="));
    let listed = String::from_utf8_lossy(listed.unwrap_or_default()).into_owned();
    listed.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_read_from_modinfo() {
        assert_eq!(
            needs(b"\x7fELF\0license=GPL\0depends=vfio-pci-core,vfio\0name=x\0"),
            ["vfio_pci_core", "vfio"]
        );
        assert!(needs(b"\0depends=\0retpoline=Y\0").is_empty());
        assert!(needs(b"no such string").is_empty());
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let module = |needs: &[&str]| Module {
            content: Vec::new(),
            needs: needs.iter().map(|name| (*name).to_string()).collect(),
        };
        let modules = [
            ("top", module(&["left", "right"])),
            ("left", module(&["base"])),
            ("right", module(&["base"])),
            ("base", module(&[])),
        ];
        let modules = modules.into_iter().map(|(name, module)| (name.to_string(), module)).collect();
        assert_eq!(Unpacked { modules }.order("top"), ["base", "left", "right", "top"]);
    }
}
