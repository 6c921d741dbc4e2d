//! A window onto a device's registers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

/// What every register of a device that is no longer there reads as.
pub(crate) const GONE: u32 = u32::MAX;

/// The registers of a device: 32 bits wide, at offsets in bytes. Each access is one volatile load or store of uncached memory, in
/// program order with the others. Writes are posted: a read after them waits until they are done.
#[derive(Debug)]
pub(crate) struct Bar {
    base: NonNull<u8>,
    len: usize,
    #[cfg(test)]
    model: Option<std::sync::Arc<std::sync::Mutex<super::tests::ModelCell>>>,
}

// SAFETY: accesses are single volatile loads and stores of device memory, which no reference ever points at. Which thread writes
// which register is the drivers' business; the device takes them from any.
unsafe impl Send for Bar {}
// SAFETY: as for Send.
unsafe impl Sync for Bar {}

impl Bar {
    /// Maps `len` bytes at `offset` of the device's file.
    pub(crate) fn map(device: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Bar> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                device.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("a mapping is not at null");
        Ok(Bar {
            base,
            len,
            #[cfg(test)]
            model: None,
        })
    }

    /// Registers that a model of the device answers for.
    #[cfg(test)]
    pub(crate) fn model(model: std::sync::Arc<std::sync::Mutex<super::tests::ModelCell>>, len: usize) -> Bar {
        Bar { base: NonNull::dangling(), len, model: Some(model) }
    }

    #[inline]
    fn register(&self, offset: usize) -> *mut u32 {
        assert!(offset.is_multiple_of(4) && offset < self.len, "a register within the window");
        // SAFETY: the offset lies inside the mapping, whose length is a multiple of a page.
        unsafe { self.base.as_ptr().add(offset).cast() }
    }

    /// The register at `offset`; [`GONE`] when the device is.
    #[inline]
    pub(crate) fn read(&self, offset: usize) -> u32 {
        let register = self.register(offset);
        #[cfg(test)]
        if let Some(model) = &self.model {
            return model.lock().unwrap_or_else(std::sync::PoisonError::into_inner).read(offset);
        }
        // SAFETY: an aligned word of a live mapping of device memory.
        u32::from_le(unsafe { register.read_volatile() })
    }

    /// Sets the register at `offset`.
    #[inline]
    pub(crate) fn write(&self, offset: usize, value: u32) {
        let register = self.register(offset);
        #[cfg(test)]
        if let Some(model) = &self.model {
            return model.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write(offset, value);
        }
        // SAFETY: as for `read`.
        unsafe { register.write_volatile(value.to_le()) }
    }

    /// Sets `bits` in the register at `offset`.
    pub(crate) fn set(&self, offset: usize, bits: u32) {
        self.write(offset, self.read(offset) | bits);
    }

    /// Clears `bits` in the register at `offset`.
    pub(crate) fn clear(&self, offset: usize, bits: u32) {
        self.write(offset, self.read(offset) & !bits);
    }

    /// Waits until the bits of `mask` read as `value`, at most `limit`. False when they do not, or the device is gone.
    pub(crate) fn wait(&self, offset: usize, mask: u32, value: u32, limit: Duration) -> bool {
        let start = Instant::now();
        loop {
            let now = self.read(offset);
            if now & mask == value && now != GONE {
                return true;
            }
            if start.elapsed() >= limit {
                return false;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        #[cfg(test)]
        if self.model.is_some() {
            return;
        }
        // SAFETY: the range that mmap returned; nobody else has a pointer into it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
