//! Cells that readers follow with a plain load and writers replace.

use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::{ReadGuard, retire_shared};

/// A shared place for an `Arc<T>` that readers follow with a plain load and writers replace; the old value is freed after a grace
/// period.
pub struct RcuCell<T> {
    /// From `Arc::into_raw`, or null. The cell owns one strong reference.
    value: AtomicPtr<T>,
    _owns: PhantomData<Arc<T>>,
}

impl<T: Send + Sync + 'static> RcuCell<T> {
    /// A cell that holds `value`.
    pub fn new(value: Arc<T>) -> Self {
        RcuCell { value: AtomicPtr::new(Arc::into_raw(value).cast_mut()), _owns: PhantomData }
    }

    /// A cell that holds nothing.
    pub const fn empty() -> Self {
        RcuCell { value: AtomicPtr::new(ptr::null_mut()), _owns: PhantomData }
    }

    /// What the cell holds. The borrow ends with the guard, that is before the next quiescent state.
    #[inline]
    pub fn load<'g>(&'g self, _guard: ReadGuard<'g>) -> Option<&'g T> {
        // Acquire: pairs with the release half of the swap in `replace`.
        let value = self.value.load(Ordering::Acquire);
        // SAFETY: non-null values come from Arc::into_raw and lose the cell's reference only through `replace`, which leaves it to
        // the end of a grace period of the one domain; the guard keeps that period from ending before 'g does.
        unsafe { value.as_ref() }
    }

    /// Whether the cell holds this very object.
    pub fn holds(&self, value: &Arc<T>) -> bool {
        ptr::eq(self.value.load(Ordering::Relaxed), Arc::as_ptr(value))
    }

    /// A strong reference to what the cell holds, for those who keep it longer than a read section (sleepers).
    pub fn load_owned(&self, guard: ReadGuard<'_>) -> Option<Arc<T>> {
        let value: *const T = self.load(guard)?;
        // SAFETY: `value` came from Arc::into_raw, and the cell's own reference outlives the guard (see `load`), so the count
        // is at least one while it is raised.
        unsafe {
            Arc::increment_strong_count(value);
            Some(Arc::from_raw(value))
        }
    }

    /// Publishes `value` (or nothing) and retires what was there. Tells whether anything was.
    pub fn replace(&self, value: Option<Arc<T>>) -> bool {
        let new = value.map_or(ptr::null_mut(), |value| Arc::into_raw(value).cast_mut());
        // Release: publishes the new value's contents to `load`. Acquire: the old value is dropped after its publication.
        let old = self.value.swap(new, Ordering::AcqRel);
        if old.is_null() {
            return false;
        }
        // SAFETY: the swap took the cell's own strong reference out, exactly once.
        let old = unsafe { Arc::from_raw(old.cast_const()) };
        retire_shared(old, size_of::<T>());
        true
    }
}

impl<T> Default for RcuCell<T> {
    fn default() -> Self {
        RcuCell { value: AtomicPtr::new(ptr::null_mut()), _owns: PhantomData }
    }
}

impl<T> Drop for RcuCell<T> {
    fn drop(&mut self) {
        let value = *self.value.get_mut();
        if !value.is_null() {
            // SAFETY: `&mut self`: no borrow from `load` is alive (they borrow the cell), and the reference is the cell's own.
            drop(unsafe { Arc::from_raw(value.cast_const()) });
        }
    }
}

// SAFETY: the cell hands out &T and Arc<T> to any thread and drops T on any thread: what Arc<T> itself requires.
unsafe impl<T: Send + Sync> Send for RcuCell<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for RcuCell<T> {}
