//! Archives in cpio's "new ASCII" format, as the kernel unpacks them into its first file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

/// An archive that grows by one entry after another. Folders come before what is in them.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// A folder.
    pub fn folder(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[]);
    }

    /// A file; whether it is a program.
    pub fn file(&mut self, path: &str, content: &[u8], program: bool) {
        self.entry(path, REGULAR | if program { 0o755 } else { 0o644 }, content);
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.entry(path, SYMLINK | 0o777, to.as_bytes());
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let len = u32::try_from(content.len()).expect("a file of the initramfs is below 4 GiB");
        let name_len = path.len() as u32 + 1;
        // inode, mode, uid, gid, links, time, length, device and special device (major, minor each), name, no checksum
        let fields = [self.entries, mode, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads one entry back as the kernel does: name, mode, content, and what follows.
    fn read(archive: &[u8]) -> (&str, u32, &[u8], &[u8]) {
        assert_eq!(&archive[..6], b"070701");
        let field = |at: usize| {
            let digits = std::str::from_utf8(&archive[6 + 8 * at..14 + 8 * at]).unwrap();
            u32::from_str_radix(digits, 16).unwrap() as usize
        };
        let (name_len, len) = (field(11), field(6));
        let content = (110 + name_len).next_multiple_of(4);
        assert_eq!(archive[110 + name_len - 1], 0);
        let name = std::str::from_utf8(&archive[110..110 + name_len - 1]).unwrap();
        (
            name,
            field(1) as u32,
            &archive[content..content + len],
            &archive[(content + len).next_multiple_of(4)..],
        )
    }

    #[test]
    fn entries_are_read_back() {
        let mut archive = Archive::default();
        archive.folder("bin");
        archive.file("bin/five", b"12345", true);
        archive.link("bin/six", "five");
        let bytes = archive.finish();
        let (name, mode, content, rest) = read(&bytes);
        assert_eq!((name, mode, content), ("bin", 0o040_755, &b""[..]));
        let (name, mode, content, rest) = read(rest);
        assert_eq!((name, mode, content), ("bin/five", 0o100_755, &b"12345"[..]));
        let (name, mode, content, rest) = read(rest);
        assert_eq!((name, mode, content), ("bin/six", 0o120_777, &b"five"[..]));
        let (name, _, content, rest) = read(rest);
        assert_eq!((name, content, rest), ("TRAILER!!!", &b""[..], &b""[..]));
    }
}
