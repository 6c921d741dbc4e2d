//! What stands in for hardware in `cargo test`: a model that answers for the registers.

use std::sync::{Mutex, PoisonError};

/// A device's side of its registers.
pub(crate) trait Model: Send {
    fn read(&mut self, offset: usize) -> u32;
    fn write(&mut self, offset: usize, value: u32);
}

/// A model that drivers reach through a [`super::bar::Bar`].
pub(crate) struct ModelCell(Mutex<Box<dyn Model>>);

impl ModelCell {
    pub(crate) fn read(&self, offset: usize) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read(offset)
    }

    pub(crate) fn write(&self, offset: usize, value: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(offset, value);
    }
}

impl std::fmt::Debug for ModelCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a model")
    }
}
