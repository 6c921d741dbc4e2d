//! A made-up machine for tests: a tree of files that is gone at the end.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

pub(crate) struct Tree(PathBuf);

impl Tree {
    pub fn new(name: &str) -> Self {
        let thread = std::thread::current().name().unwrap_or("test").replace("::", "-");
        let root = std::env::temp_dir().join(format!("rxl-doctor-{}-{thread}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        Tree(root)
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// A symbolic link to `target`, which is below the root.
    pub fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::create_dir_all(self.0.join(target)).unwrap();
        let _ = fs::remove_file(&path);
        symlink(self.0.join(target), path).unwrap();
        self
    }

    pub fn remove(&self, path: &str) {
        let path = self.0.join(path);
        if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
            .unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_default()
    }

    /// A device as sysfs has it.
    #[expect(clippy::too_many_arguments, reason = "what a device is")]
    pub fn pci(
        &self,
        address: &str,
        vendor: u16,
        device: u16,
        class: u32,
        driver: Option<&str>,
        group: Option<u32>,
        node: i32,
    ) -> &Self {
        let real = format!("sys/devices/pci0000:00/{address}");
        self.file(&format!("{real}/vendor"), &format!("{vendor:#06x}\n"))
            .file(&format!("{real}/device"), &format!("{device:#06x}\n"))
            .file(&format!("{real}/class"), &format!("{class:#08x}\n"))
            .file(&format!("{real}/numa_node"), &format!("{node}\n"))
            .file(&format!("{real}/driver_override"), "(null)\n")
            .link(&format!("sys/bus/pci/devices/{address}"), &real);
        if let Some(driver) = driver {
            self.link(&format!("{real}/driver"), &format!("sys/bus/pci/drivers/{driver}"));
            self.link(&format!("sys/bus/pci/drivers/{driver}/{address}"), &real);
        }
        if let Some(group) = group {
            self.link(&format!("{real}/iommu_group"), &format!("sys/kernel/iommu_groups/{group}"));
            self.link(&format!("sys/kernel/iommu_groups/{group}/devices/{address}"), &real);
        }
        self
    }

    /// An interface of a device.
    pub fn interface(&self, name: &str, address: &str) -> &Self {
        let device = format!("sys/devices/pci0000:00/{address}");
        let real = format!("{device}/net/{name}");
        self.link(&format!("sys/class/net/{name}"), &real);
        self.link(&format!("{real}/device"), &device)
    }

    /// Every path with its size and when it was changed.
    pub fn listing(&self) -> Vec<(PathBuf, u64, i64, i64)> {
        let (mut found, mut folders) = (Vec::new(), vec![self.0.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                if meta.is_dir() {
                    folders.push(path.clone());
                }
                found.push((path, meta.len(), meta.ctime(), meta.ctime_nsec()));
            }
        }
        found.sort();
        found
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
