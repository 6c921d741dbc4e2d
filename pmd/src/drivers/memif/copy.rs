//! The one copy at the boundary.
//!
//! The other process may change the bytes while they are copied. So they are copied by pointer, never seen through a reference, and
//! nobody looks at them before they are in memory of our own.

use std::ptr::NonNull;

/// Copies `len` bytes. Those of most small frames go without a call: two moves that overlap in the middle.
///
/// # Safety
/// `len` bytes can be read at `from` and written at `to`, and the two do not overlap.
#[inline]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: as the caller says; both moves stay within `len` bytes.
    unsafe {
        match len {
            32..=64 => ends::<32>(from, to, len),
            65..=128 => ends::<64>(from, to, len),
            _ => std::ptr::copy_nonoverlapping(from, to, len),
        }
    }
}

/// Copies the first `N` and the last `N` of `len` bytes.
///
/// # Safety
/// As for `copy`, with `N <= len <= 2 * N`.
#[inline]
unsafe fn ends<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
    debug_assert!((N..=2 * N).contains(&len));
    // SAFETY: as the caller says. Both are read before either is written.
    unsafe {
        let first = from.cast::<[u8; N]>().read_unaligned();
        let last = from.add(len - N).cast::<[u8; N]>().read_unaligned();
        to.cast::<[u8; N]>().write_unaligned(first);
        to.add(len - N).cast::<[u8; N]>().write_unaligned(last);
    }
}

/// Asks the cache for the line at `at`, which will be read.
#[inline]
pub(super) fn prefetch(at: NonNull<u8>) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint and never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_length_is_copied_exactly() {
        let from: Vec<u8> = (0..300).map(|i| i as u8 | 1).collect();
        for len in 0..=300 {
            let mut to = vec![0u8; 310];
            // SAFETY: two vectors, both long enough.
            unsafe { super::copy(from.as_ptr(), to.as_mut_ptr(), len) };
            assert_eq!(to[..len], from[..len], "{len}");
            assert!(to[len..].iter().all(|byte| *byte == 0), "{len}: nothing beyond");
        }
    }
}
