//! Security class 0: none.

use super::NotOpened;
use crate::wire::Header;
use pmd::Mbuf;

/// Its number on the wire.
pub const INDEX: u8 = 0;

/// It has no state.
#[derive(Debug)]
pub struct Null;

impl Null {
    pub fn secured(&self) -> bool {
        true
    }

    pub fn open(&self, _header: &Header, _data: &mut Mbuf) -> Result<(), NotOpened> {
        Ok(())
    }
}
