//! Fixed arrays in memory that is zero until written: what is never used costs address space only, and nothing ever grows.

use std::ops::Deref;

#[cfg(not(loom))]
use pmd::Hugepages;
#[cfg(not(loom))]
use pmd::{Region, RegionError};

/// An element of such an array.
///
/// # Safety
/// All bytes zero are a valid value, the one of `Default`, and dropping it does nothing.
pub(super) unsafe trait Zeroable: Default {}

#[cfg(not(loom))]
pub(super) struct Zeroed<T> {
    region: Region,
    len: usize,
    _elements: std::marker::PhantomData<T>,
}

#[cfg(not(loom))]
impl<T: Zeroable> Zeroed<T> {
    /// Transparent hugepages where the system gives them; the others are left to the packet pools, which would miss them more.
    pub fn new(len: usize) -> Result<Self, RegionError> {
        const { assert!(align_of::<T>() <= 4096) };
        let region = Region::private(len * size_of::<T>(), Hugepages::Never)?;
        Ok(Zeroed { region, len, _elements: std::marker::PhantomData })
    }
}

#[cfg(not(loom))]
impl<T> Deref for Zeroed<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the region has room for `len` elements, is aligned to pages, was zero at first, which is a valid T (`Zeroable`), and
        // lives as long as `self`; only shared references are ever made.
        unsafe { std::slice::from_raw_parts(self.region.base().as_ptr().cast(), self.len) }
    }
}

/// loom's atomics are no plain memory.
#[cfg(loom)]
pub(super) struct Zeroed<T>(Box<[T]>);

#[cfg(loom)]
impl<T: Zeroable> Zeroed<T> {
    pub fn new(len: usize) -> Result<Self, pmd::RegionError> {
        Ok(Zeroed((0..len).map(|_| T::default()).collect()))
    }
}

#[cfg(loom)]
impl<T> Deref for Zeroed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}
