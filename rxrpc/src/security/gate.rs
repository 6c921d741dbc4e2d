//! A security class for tests: it protects nothing, and the first response opens it.

/// A number that no class has on the wire.
pub const INDEX: u8 = 200;

#[derive(Debug, Default)]
pub struct Gate {
    open: bool,
}

impl Gate {
    pub fn secured(&self) -> bool {
        self.open
    }

    pub fn respond(&mut self) {
        self.open = true;
    }
}
