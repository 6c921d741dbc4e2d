//! What stands in for hardware in `cargo test`: a model that answers for the registers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A device's side of its registers.
pub(crate) trait Model: Send {
    fn read(&mut self, offset: usize) -> u32;
    fn write(&mut self, offset: usize, value: u32);
}

/// A model that a driver reaches through a [`super::bar::Bar`].
pub(crate) struct ModelCell(Box<dyn Model>);

impl ModelCell {
    pub(crate) fn new<M: Model + 'static>(model: &Shared<M>) -> Arc<Mutex<ModelCell>> {
        Arc::new(Mutex::new(ModelCell(Box::new(model.clone()))))
    }

    pub(crate) fn read(&mut self, offset: usize) -> u32 {
        self.0.read(offset)
    }

    pub(crate) fn write(&mut self, offset: usize, value: u32) {
        self.0.write(offset, value);
    }
}

impl std::fmt::Debug for ModelCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a model")
    }
}

/// A model that a test holds too: it is the wire.
pub(crate) struct Shared<M>(Arc<Mutex<M>>);

impl<M> Clone for Shared<M> {
    fn clone(&self) -> Shared<M> {
        Shared(self.0.clone())
    }
}

impl<M> Shared<M> {
    pub(crate) fn new(model: M) -> Shared<M> {
        Shared(Arc::new(Mutex::new(model)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, M> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Model> Model for Shared<M> {
    fn read(&mut self, offset: usize) -> u32 {
        self.lock().read(offset)
    }

    fn write(&mut self, offset: usize, value: u32) {
        self.lock().write(offset, value);
    }
}
